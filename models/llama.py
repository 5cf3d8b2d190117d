"""The Llama family: pre-norm, rotary, grouped-query attention, gated MLP.

What is particular to it, against a plain GPT:

- RMS norms without biases (Zhang & Sennrich 2019), and mostly no biases anywhere;
- rotary positions on half-split pairs of the whole head width (see ``Rope``);
- query heads share G key/value heads: query head h reads key/value head h // (H / G);
- a gated MLP, ``down(silu(gate(x)) * up(x))``;
- the unembedding may be the embedding, transposed (``tied``);
- Mistral's queries see the last ``windows[l]`` positions only.

qwen.py has Qwen2's and Qwen3's configs for it; olmo2.py and gemma2.py derive theirs
from ``Sizes``, too, and take other parts of it.

Source: Touvron et al. 2023 (LLaMA), section 2.2; Jiang et al. 2023 (Mistral 7B),
section 2.
"""

import dataclasses
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import struct

from jaxheads.models.layers import (
    affine,
    project_each_head,
    project_heads,
    rms_norm,
    to_logits,
)
from jaxheads.models.parameters import leaf_maker
from jaxheads.models.rope import Rope, nested_settings, rotary
from jaxheads.models.settings import (
    check_numbers,
    check_sizes,
    flag,
    given,
    number,
    refuse_unbuilt,
    refuse_unless,
    refuse_unread,
    refuse_window,
    size,
)

OFF = (None, False)
SILU = (None, "silu", "swish")
"""Values that ``hf_sizes`` may be told to let pass."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes and constants of every model of the kind.

    Attributes:
        num_layers: L.
        width: D, of the residual stream.
        num_heads: H, query heads a layer.
        num_kv_heads: G, key/value heads a layer; divides H.
        head_dim: K; need not be D / H.
        mlp_width: F.
        vocab_size: V.
        context_length: positions the model was trained for.
        rope: base and scaling of the rotary phases.
        norm_epsilon: added to the mean square in every norm.
        tied: the unembedding is the embedding, transposed.
        windows: by layer, how many positions a query sees, its own included, or None:
            all before it; None in the place of all: no layer has a window.
    """

    num_layers: int
    width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_width: int
    vocab_size: int
    context_length: int
    rope: Rope = Rope()  # noqa: RUF009  (frozen)
    norm_epsilon: float = 1e-5
    tied: bool = False
    windows: tuple[int | None, ...] | None = None

    def __post_init__(self):
        check_numbers(self, may_be_zero=("norm_offset",))
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_kv_heads must divide num_heads = {self.num_heads}, "
                f"but is {self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even, but is {self.head_dim}")
        if self.windows is None:
            return
        if len(self.windows) != self.num_layers:
            raise ValueError(
                f"windows must be {self.num_layers}, one a layer, but are "
                f"{len(self.windows)}"
            )
        for window in self.windows:
            check_sizes({"a window": 1 if window is None else window})

    def dims(self) -> dict[str, int]:
        """Sizes by dim letter; j and c split K into its rotary pairs."""
        return {
            "l": self.num_layers,
            "d": self.width,
            "h": self.num_heads,
            "g": self.num_kv_heads,
            "k": self.head_dim,
            "f": self.mlp_width,
            "v": self.vocab_size,
            "j": self.head_dim // 2,
            "c": 2,
        }


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Config(Sizes):
    """Sizes and constants of a Llama-family model; static under jit.

    Attributes:
        qkv_bias: queries, keys and values have biases.
        output_bias: the output projection has a bias.
        mlp_bias: the three matrices of the MLP have biases.
        qk_norm: each head's queries and keys are RMS-normed before rotation.
        model_type: the name under which checkpoints know the family.

    And those of ``Sizes``.
    """

    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    model_type: str = "llama"

    @classmethod
    def from_hf(cls, settings: Mapping) -> "Config":
        """Read the hub's config.json of a "llama" or "mistral" model.

        Args:
            settings: the parsed file.

        Raises:
            ValueError: a size is missing, or a setting that changes the arithmetic has
                a value that this file does not implement.
        """
        kind = settings.get("model_type", "llama")
        if kind == "mistral":
            left_out = {"sliding_window": 4096, "max_sequence_length": 131072}
            own = {"attention_bias": OFF, "mlp_bias": OFF, "layer_types": (None,)}
        else:
            left_out = {"max_sequence_length": 2048}
            own = {}
            refuse_window(settings)
        settings = layered(settings, left_out)
        biases = flag(settings, "attention_bias", False)
        return cls(
            **hf_sizes(settings, {"hidden_act": SILU, **own}),
            windows=hf_windows(settings, lambda layer: True),
            qkv_bias=biases,
            output_bias=biases,
            mlp_bias=flag(settings, "mlp_bias", False),
            model_type=kind,
        )

    @classmethod
    def from_gguf(cls, metadata: Mapping) -> "Config":
        """Read the metadata of a GGUF file of architecture "llama".

        Args:
            metadata: see ``gguf_sizes``.

        Raises:
            ValueError: as for ``from_hf``.
        """
        sizes = gguf_sizes(metadata, "llama", {})
        name = "llama.attention.sliding_window"
        window = size(metadata, name) if metadata.get(name) else None
        windows = (window,) * sizes["num_layers"] if window else None
        return cls(**sizes, windows=windows)


def hf_sizes(settings: Mapping[str, Any], supported: Mapping[str, tuple]) -> dict:
    """The fields of ``Sizes``, but for the windows, that a config.json gives.

    Args:
        settings: the parsed file.
        supported: by name of a setting, the values that the family has built.

    Raises:
        ValueError: a size is missing, or a setting that changes the arithmetic has a
            value that is not built.
    """
    refuse_unbuilt(settings)
    part = given(nested_settings(settings), "partial_rotary_factor", default=1)
    checks = {name: (settings.get(name), ok) for name, ok in supported.items()}
    checks |= {
        # Older configs say it beside the rotary settings, newer ones among them.
        "partial_rotary_factor": (
            given(settings, "partial_rotary_factor", default=part),
            (1,),
        ),
        "rope_interleaved": (settings.get("rope_interleaved"), OFF),
        "num_local_experts": (settings.get("num_local_experts"), (None, 0)),
        "num_experts": (settings.get("num_experts"), (None, 0)),
    }
    refuse_unless(checks)
    layers = size(settings, "num_hidden_layers")
    heads = size(settings, "num_attention_heads")
    width = size(settings, "hidden_size")
    check_sizes({"num_attention_heads": heads, "num_layers": layers})
    context = size(settings, "max_position_embeddings", "max_sequence_length")
    rope = Rope.from_hf(settings, context)
    refuse_unread(settings, {"rotary_emb_base": rope.theta, "rotary_pct": 1})
    return {
        "num_layers": layers,
        "width": width,
        "num_heads": heads,
        "num_kv_heads": _size_or(heads, settings, "num_key_value_heads"),
        "head_dim": _size_or(width // heads, settings, "head_dim"),
        "mlp_width": size(settings, "intermediate_size"),
        "vocab_size": size(settings, "vocab_size"),
        "context_length": context,
        "rope": rope,
        "norm_epsilon": number(settings, "rms_norm_eps", default=1e-6),
        "tied": flag(settings, "tie_word_embeddings", False),
    }


def layered(*settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings that are looked up in the first of several maps that has them.

    A null counts: behind a config.json lies what it means by leaving a setting out.
    """
    return ChainMap(*settings)  # type: ignore[arg-type]  (nobody writes)


def hf_windows(
    settings: Mapping[str, Any], slides: Callable[[int], bool]
) -> tuple[int | None, ...] | None:
    """Windows by layer: as ``layer_types`` says, else in the layers that slide.

    Args:
        settings: a parsed config.json; without a ``sliding_window`` no layer has one.
        slides: whether a layer, by its index, has the window.
    """
    layers = range(size(settings, "num_hidden_layers"))
    kinds = settings.get("layer_types") or [
        "sliding_attention" if slides(layer) else "full_attention" for layer in layers
    ]
    for kind in kinds:
        known = ("sliding_attention", "full_attention")
        refuse_unless({"layer_types": (kind, known)})
    if settings.get("sliding_window") is None:
        if settings.get("layer_types") and "sliding_attention" in kinds:
            raise ValueError(
                "the config's layer_types must have a sliding_window that is switched "
                "on where a layer is 'sliding_attention', but there is none"
            )
        return None
    window = size(settings, "sliding_window")
    windows = tuple(window if kind.startswith("sliding") else None for kind in kinds)
    return windows if set(windows) != {None} else None


def gguf_sizes(
    metadata: Mapping[str, Any], architecture: str, supported: Mapping[str, tuple]
) -> dict:
    """The fields of ``Sizes``, but for the windows, that a GGUF file's metadata give.

    Args:
        metadata: keys such as "llama.block_count"; "tied" says whether the file has no
            output matrix of its own, "rope_freqs" holds the values of the tensor
            ``rope_freqs.weight`` if it has that.
        architecture: what the keys begin with.
        supported: by name of a key without the architecture, the values that the family
            has built.

    Raises:
        ValueError: as for ``hf_sizes``.
    """
    key = lambda name: f"{architecture}.{name}"
    heads = size(metadata, key("attention.head_count"))
    width = size(metadata, key("embedding_length"))
    layers = size(metadata, key("block_count"))
    check_sizes({key("attention.head_count"): heads, "num_layers": layers})
    head_dim = _size_or(width // heads, metadata, key("attention.key_length"))
    supported = {
        "expert_count": (None, 0),
        "rope.dimension_count": (None, head_dim),
        "attention.value_length": (None, head_dim),
        "attention.causal": (None, True),
        **supported,
    }
    checks = {
        key(name): (metadata.get(key(name)), ok) for name, ok in supported.items()
    }
    refuse_unless(checks)
    tokens = metadata.get("tokenizer.ggml.tokens", ())
    context = size(metadata, key("context_length"))
    return {
        "num_layers": layers,
        "width": width,
        "num_heads": heads,
        "num_kv_heads": _size_or(heads, metadata, key("attention.head_count_kv")),
        "head_dim": head_dim,
        "mlp_width": size(metadata, key("feed_forward_length")),
        "vocab_size": _size_or(len(tokens), metadata, key("vocab_size")),
        "context_length": context,
        "rope": Rope.from_gguf(metadata, architecture, context),
        "norm_epsilon": number(metadata, key("attention.layer_norm_rms_epsilon")),
        "tied": bool(metadata.get("tied", False)),
    }


def _size_or(default: int, settings: Mapping[str, Any], name: str) -> int:
    return default if settings.get(name) is None else size(settings, name)


@struct.dataclass
class Layers:
    """The blocks' parameters, stacked over layers; what a model lacks is None."""

    attention_norm: jax.Array  # [L, D]
    wq: jax.Array  # [L, D, H, K]
    wk: jax.Array  # [L, D, G, K]
    wv: jax.Array  # [L, D, G, K]
    wo: jax.Array  # [L, H, K, D]
    mlp_norm: jax.Array  # [L, D]
    w_gate: jax.Array  # [L, D, F]
    w_up: jax.Array  # [L, D, F]
    w_down: jax.Array  # [L, F, D]
    bq: jax.Array | None = None  # [L, H, K]
    bk: jax.Array | None = None  # [L, G, K]
    bv: jax.Array | None = None  # [L, G, K]
    bo: jax.Array | None = None  # [L, D]
    q_norm: jax.Array | None = None  # [L, K]
    k_norm: jax.Array | None = None  # [L, K]
    b_gate: jax.Array | None = None  # [L, F]
    b_up: jax.Array | None = None  # [L, F]
    b_down: jax.Array | None = None  # [L, D]


@struct.dataclass
class Params:
    """All parameters of a model; ``unembedding`` is None when tied."""

    embedding: jax.Array  # [V, D]
    layers: Any  # the family's Layers
    final_norm: jax.Array  # [D]
    unembedding: jax.Array | None  # [D, V]


def abstract(config: Config) -> Params:
    """The tree of ``Leaf`` that initialisation, sharding and conversion derive from."""
    leaf = leaf_maker(config.dims())
    zeros = lambda dims, there: leaf(dims, "zeros", when=there)
    layers = Layers(
        attention_norm=leaf("ld", "ones"),
        **projections(config),
        mlp_norm=leaf("ld", "ones"),
        bq=zeros("lhk", config.qkv_bias),
        bk=zeros("lgk", config.qkv_bias),
        bv=zeros("lgk", config.qkv_bias),
        bo=zeros("ld", config.output_bias),
        q_norm=leaf("lk", "ones", when=config.qk_norm),
        k_norm=leaf("lk", "ones", when=config.qk_norm),
        b_gate=zeros("lf", config.mlp_bias),
        b_up=zeros("lf", config.mlp_bias),
        b_down=zeros("ld", config.mlp_bias),
    )
    return outer(config, layers)


def outer(config: Sizes, layers: Any, norm: str = "ones") -> Params:
    """The abstract ``Params`` around abstract layers.

    Args:
        config: of the model.
        layers: the family's ``Layers`` of ``Leaf``.
        norm: initializer of the last norm's scale.
    """
    leaf = leaf_maker(config.dims())
    return Params(
        embedding=leaf("vd", fan_in="d"),
        layers=layers,
        final_norm=leaf("d", norm),
        unembedding=leaf("dv", fan_in="d", when=not config.tied),
    )


def projections(config: Sizes) -> dict[str, Any]:
    """The abstract matrices of a layer's attention and MLP, by name."""
    leaf = leaf_maker(config.dims())
    return {
        "wq": leaf("ldhk", fan_in="d"),
        "wk": leaf("ldgk", fan_in="d"),
        "wv": leaf("ldgk", fan_in="d"),
        "wo": leaf("lhkd", fan_in="hk"),
        "w_gate": leaf("ldf", fan_in="d"),
        "w_up": leaf("ldf", fan_in="d"),
        "w_down": leaf("lfd", fan_in="f"),
    }


def embed(
    params: Params, tokens: jax.Array, positions: jax.Array, config: Sizes
) -> jax.Array:
    """Residual stream entering the first layer: int [B, T] -> [B, T, D]."""
    del positions, config  # rotary: positions enter in the blocks
    return params.embedding[tokens]


def block(
    layer: Layers,
    x: jax.Array,
    positions: jax.Array,
    attend: Callable[..., jax.Array],
    config: Config,
) -> jax.Array:
    """One layer: ``x += attention(norm(x)); x += mlp(norm(x))``.

    Args:
        layer: one layer's parameters (no L axis).
        x: residual stream [B, T, D].
        positions: int [B, T].
        attend: (q [B, T, H, K], k, v [B, T, G, K]) -> z [B, T, H, K].
        config: of the model.

    Returns:
        The residual stream after the layer [B, T, D].
    """
    with jax.named_scope("attention"):
        normed = attention_input(layer, x, config)
        q = affine(normed, layer.wq, layer.bq)
        k = affine(normed, layer.wk, layer.bk)
        v = affine(normed, layer.wv, layer.bv)
        if layer.q_norm is not None and layer.k_norm is not None:
            q = rms_norm(q, layer.q_norm, config.norm_epsilon)
            k = rms_norm(k, layer.k_norm, config.norm_epsilon)
        q = rotary(q, positions, config.rope)
        k = rotary(k, positions, config.rope)
        x = x + project_heads(attend(q, k, v), layer.wo, layer.bo)
    with jax.named_scope("mlp"):
        normed = rms_norm(x, layer.mlp_norm, config.norm_epsilon)
        gate = affine(normed, layer.w_gate, layer.b_gate)  # [B, T, F]
        up = affine(normed, layer.w_up, layer.b_up)  # [B, T, F]
        return x + affine(jax.nn.silu(gate) * up, layer.w_down, layer.b_down)


def attention_input(
    layer: Layers, x: jax.Array, config: Sizes, whole: jax.Array | None = None
) -> jax.Array:
    """What queries, keys and values are projected from: [..., D] -> [..., D]."""
    return rms_norm(x, layer.attention_norm, config.norm_epsilon, whole)


def contributions(
    layer: Layers, z: jax.Array, config: Sizes, whole: jax.Array | None = None
) -> jax.Array:
    """What each head adds to the residual stream: [..., H, K] -> [..., H, D]."""
    del config, whole  # no norm behind the attention
    return project_each_head(z, layer.wo)


def unembed(
    params: Params, x: jax.Array, config: Sizes, whole: jax.Array | None = None
) -> jax.Array:
    """Logits of a residual stream: [..., D] -> [..., V], float32 or wider.

    With ``whole`` [..., D], those of a part of it, see the contract.
    """
    normed = rms_norm(x, params.final_norm, config.norm_epsilon, whole)
    return to_logits(normed, params.embedding, params.unembedding)


Names = dict[str, tuple[str, str]]
"""By leaf of the params: the tensor's name, and the reshape to the leaf."""

_NAMES = {
    "embedding": ("model.embed_tokens.weight", "token_embd.weight", "v d -> v d"),
    "layers.attention_norm": ("input_layernorm.weight", "attn_norm.weight", "d -> d"),
    "layers.wq": ("self_attn.q_proj.weight", "attn_q.weight", "(h k) d -> d h k"),
    "layers.wk": ("self_attn.k_proj.weight", "attn_k.weight", "(g k) d -> d g k"),
    "layers.wv": ("self_attn.v_proj.weight", "attn_v.weight", "(g k) d -> d g k"),
    "layers.wo": ("self_attn.o_proj.weight", "attn_output.weight", "d (h k) -> h k d"),
    "layers.mlp_norm": ("post_attention_layernorm.weight", "ffn_norm.weight", "d -> d"),
    "layers.w_gate": ("mlp.gate_proj.weight", "ffn_gate.weight", "f d -> d f"),
    "layers.w_up": ("mlp.up_proj.weight", "ffn_up.weight", "f d -> d f"),
    "layers.w_down": ("mlp.down_proj.weight", "ffn_down.weight", "d f -> f d"),
    "layers.bq": ("self_attn.q_proj.bias", "attn_q.bias", "(h k) -> h k"),
    "layers.bk": ("self_attn.k_proj.bias", "attn_k.bias", "(g k) -> g k"),
    "layers.bv": ("self_attn.v_proj.bias", "attn_v.bias", "(g k) -> g k"),
    "layers.bo": ("self_attn.o_proj.bias", "attn_output.bias", "d -> d"),
    "layers.q_norm": ("self_attn.q_norm.weight", "attn_q_norm.weight", "k -> k"),
    "layers.k_norm": ("self_attn.k_norm.weight", "attn_k_norm.weight", "k -> k"),
    "layers.b_gate": ("mlp.gate_proj.bias", "ffn_gate.bias", "f -> f"),
    "layers.b_up": ("mlp.up_proj.bias", "ffn_up.bias", "f -> f"),
    "layers.b_down": ("mlp.down_proj.bias", "ffn_down.bias", "d -> d"),
    "final_norm": ("model.norm.weight", "output_norm.weight", "d -> d"),
    "unembedding": ("lm_head.weight", "output.weight", "v d -> d v"),
}
"""On the hub and in GGUF files, behind a layer's prefix, and the reshape."""


def _names(column: int, prefix: str) -> Names:
    return {
        leaf: (prefix * leaf.startswith("layers.") + row[column], row[-1])
        for leaf, row in _NAMES.items()
    }


HF = _names(0, "model.layers.{l}.")
"""On the hub."""

GGUF = _names(1, "blk.{l}.")
"""In GGUF files, of every architecture but "llama"."""

PERMUTED: Names = {
    "layers.wq": ("blk.{l}.attn_q.weight", "(h j c) d -> d h (c j)"),
    "layers.wk": ("blk.{l}.attn_k.weight", "(g j c) d -> d g (c j)"),
    "layers.bq": ("blk.{l}.attn_q.bias", "(h j c) -> h (c j)"),
    "layers.bk": ("blk.{l}.attn_k.bias", "(g j c) -> g (c j)"),
}
"""In GGUF files of architecture "llama", what lies otherwise: llama.cpp stores the rows
of q and k with each rotary pair side by side, so that row (j, c) of a head there is row
(c, j) here."""

OUTPUT = ("wo", "bo")
"""Leaves that take head outputs to the stream."""
TENSORS = {"hf": HF, "gguf": {**GGUF, **PERMUTED}}
"""Checkpoint names and reshapes of every leaf, by layout of the source."""

PREFIX = "model."
"""What checkpoints of the bare model, without its unembedding, leave out of names."""

IGNORED = {
    r".*rotary_emb\.inv_freq": "recomputed from the config",
    r"lm_head\.weight": "tied: the embedding is used",
}
"""Tensors that may be left over (full-match patterns), with the reason."""
