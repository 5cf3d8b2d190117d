"""The Llama family: pre-norm, rotary, grouped-query attention, gated MLP.

What is particular to it, against a plain GPT:

- RMS norms without biases (Zhang & Sennrich 2019) and no biases anywhere;
- rotary positions on half-split pairs of the whole head width;
- query heads share G key/value heads: query head h reads key/value head h // (H / G);
- a gated MLP, ``down(silu(gate(x)) * up(x))``;
- the unembedding may be the embedding, transposed (``tied``).
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import struct

from jaxheads.models.layers import project_heads, rms_norm
from jaxheads.models.parameters import Leaf
from jaxheads.models.rope import Rope, rotary
from jaxheads.models.settings import refuse_unless, size


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes and constants of a Llama-family model; static under jit.

    Attributes:
        num_layers: L.
        width: D, of the residual stream.
        num_heads: H, query heads a layer.
        num_kv_heads: G, key/value heads a layer; divides H.
        head_dim: K.
        mlp_width: F.
        vocab_size: V.
        context_length: positions the model was trained for.
        rope_theta: base of the rotary wavelengths.
        norm_epsilon: added to the mean square in every norm.
        tied: the unembedding is the embedding, transposed.
        model_type: the name under which checkpoints know the family.
    """

    num_layers: int
    width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_width: int
    vocab_size: int
    context_length: int
    rope_theta: float = 10000.0
    norm_epsilon: float = 1e-5
    tied: bool = False
    model_type: str = "llama"

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and value < 1:
                raise ValueError(f"{field.name} must be positive, but is {value}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_kv_heads must divide num_heads = {self.num_heads}, "
                f"but is {self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even, but is {self.head_dim}")

    @property
    def windows(self) -> None:
        """No layer has an attention window."""
        return None

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

    @classmethod
    def from_hf(cls, settings: Mapping) -> "Config":
        """Read the hub's config.json.

        Args:
            settings: the parsed file.

        Raises:
            ValueError: a size is missing, or a setting that changes the arithmetic has
                a value that this file does not implement.
        """
        rope = dict(settings.get("rope_parameters") or {})
        rope.update(settings.get("rope_scaling") or {})
        refuse_unless(
            {
                "hidden_act": (settings.get("hidden_act", "silu"), ("silu", "swish")),
                "attention_bias": (settings.get("attention_bias", False), (False,)),
                "mlp_bias": (settings.get("mlp_bias", False), (False,)),
                "rope_type": (rope.get("rope_type", rope.get("type")), _PLAIN_ROPE),
                "partial_rotary_factor": (rope.get("partial_rotary_factor"), (None, 1)),
                "sliding_window": (settings.get("sliding_window"), (None,)),
            }
        )
        heads = size(settings, "num_attention_heads")
        width = size(settings, "hidden_size")
        theta = rope.get("rope_theta", settings.get("rope_theta", 10000.0))
        return cls(
            num_layers=size(settings, "num_hidden_layers"),
            width=width,
            num_heads=heads,
            num_kv_heads=settings.get("num_key_value_heads") or heads,
            head_dim=settings.get("head_dim") or width // heads,
            mlp_width=size(settings, "intermediate_size"),
            vocab_size=size(settings, "vocab_size"),
            context_length=settings.get("max_position_embeddings", 2048),
            rope_theta=float(theta),
            norm_epsilon=float(settings.get("rms_norm_eps", 1e-6)),
            tied=bool(settings.get("tie_word_embeddings", False)),
        )

    @classmethod
    def from_gguf(cls, metadata: Mapping) -> "Config":
        """Read the metadata of a GGUF file of architecture "llama".

        Args:
            metadata: keys such as "llama.block_count"; "tied" says whether the file
                has no output matrix of its own.

        Raises:
            ValueError: as for ``from_hf``.
        """
        heads = size(metadata, "llama.attention.head_count")
        width = size(metadata, "llama.embedding_length")
        head_dim = int(metadata.get("llama.attention.key_length", width // heads))
        refuse_unless(
            {
                "llama.rope.scaling.type": (
                    metadata.get("llama.rope.scaling.type"),
                    (None, "none"),
                ),
                "llama.expert_count": (metadata.get("llama.expert_count"), (None, 0)),
                "llama.rope.dimension_count": (
                    metadata.get("llama.rope.dimension_count", head_dim),
                    (head_dim,),
                ),
            }
        )
        vocabulary = metadata.get("llama.vocab_size")
        if vocabulary is None:
            vocabulary = len(metadata["tokenizer.ggml.tokens"])
        return cls(
            num_layers=size(metadata, "llama.block_count"),
            width=width,
            num_heads=heads,
            num_kv_heads=int(metadata.get("llama.attention.head_count_kv", heads)),
            head_dim=head_dim,
            mlp_width=size(metadata, "llama.feed_forward_length"),
            vocab_size=int(vocabulary),
            context_length=size(metadata, "llama.context_length"),
            rope_theta=float(metadata.get("llama.rope.freq_base", 10000.0)),
            norm_epsilon=float(metadata["llama.attention.layer_norm_rms_epsilon"]),
            tied=bool(metadata.get("tied", False)),
        )


_PLAIN_ROPE = (None, "default")


@struct.dataclass
class Layers:
    """The blocks' parameters, stacked over layers."""

    attention_norm: jax.Array  # [L, D]
    wq: jax.Array  # [L, D, H, K]
    wk: jax.Array  # [L, D, G, K]
    wv: jax.Array  # [L, D, G, K]
    wo: jax.Array  # [L, H, K, D]
    mlp_norm: jax.Array  # [L, D]
    w_gate: jax.Array  # [L, D, F]
    w_up: jax.Array  # [L, D, F]
    w_down: jax.Array  # [L, F, D]


@struct.dataclass
class Params:
    """All parameters of a model; ``unembedding`` is None when tied."""

    embedding: jax.Array  # [V, D]
    layers: Layers
    final_norm: jax.Array  # [D]
    unembedding: jax.Array | None  # [D, V]


def abstract(config: Config) -> Params:
    """The tree of ``Leaf`` that initialisation, sharding and conversion derive from."""
    size = config.dims()
    names = {
        "l": "layers",
        "d": "residual",
        "h": "heads",
        "g": "kv_heads",
        "k": "head_width",
        "f": "mlp",
        "v": "vocabulary",
    }

    def leaf(dims: str, init: str = "normal", fan_in: str = "") -> Leaf:
        shape = tuple(size[letter] for letter in dims)
        fan = 1
        for letter in fan_in:
            fan *= size[letter]
        return Leaf(shape, tuple(names[letter] for letter in dims), init, fan)

    layers = Layers(
        attention_norm=leaf("ld", "ones"),  # type: ignore[arg-type]
        wq=leaf("ldhk", fan_in="d"),  # type: ignore[arg-type]
        wk=leaf("ldgk", fan_in="d"),  # type: ignore[arg-type]
        wv=leaf("ldgk", fan_in="d"),  # type: ignore[arg-type]
        wo=leaf("lhkd", fan_in="hk"),  # type: ignore[arg-type]
        mlp_norm=leaf("ld", "ones"),  # type: ignore[arg-type]
        w_gate=leaf("ldf", fan_in="d"),  # type: ignore[arg-type]
        w_up=leaf("ldf", fan_in="d"),  # type: ignore[arg-type]
        w_down=leaf("lfd", fan_in="f"),  # type: ignore[arg-type]
    )
    return Params(
        embedding=leaf("vd", fan_in="d"),  # type: ignore[arg-type]
        layers=layers,
        final_norm=leaf("d", "ones"),  # type: ignore[arg-type]
        unembedding=None if config.tied else leaf("dv", fan_in="d"),  # type: ignore[arg-type]
    )


def embed(
    params: Params, tokens: jax.Array, positions: jax.Array, config: Config
) -> jax.Array:
    """Residual stream entering the first layer: int [B, T] -> [B, T, D]."""
    del positions, config  # rotary: positions enter in the blocks
    return params.embedding[tokens]


def block(
    layer: Layers,
    x: jax.Array,
    positions: jax.Array,
    attend: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
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
        normed = rms_norm(x, layer.attention_norm, config.norm_epsilon)
        q = rotary(_project(normed, layer.wq), positions, Rope(config.rope_theta))
        k = rotary(_project(normed, layer.wk), positions, Rope(config.rope_theta))
        v = _project(normed, layer.wv)
        x = x + project_heads(attend(q, k, v), layer.wo)
    with jax.named_scope("mlp"):
        normed = rms_norm(x, layer.mlp_norm, config.norm_epsilon)
        gated = jax.nn.silu(normed @ layer.w_gate) * (normed @ layer.w_up)  # [B, T, F]
        return x + gated @ layer.w_down


def _project(x: jax.Array, weight: jax.Array) -> jax.Array:
    return jnp.einsum("btd,dhk->bthk", x, weight)


def unembed(params: Params, x: jax.Array, config: Config) -> jax.Array:
    """Logits of a residual stream: [..., D] -> [..., V], float32 or wider."""
    normed = rms_norm(x, params.final_norm, config.norm_epsilon)
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    if params.unembedding is None:
        subscripts, weight = "...d,vd->...v", params.embedding
    else:
        subscripts, weight = "...d,dv->...v", params.unembedding
    return jnp.einsum(subscripts, normed, weight, preferred_element_type=dtype)


TENSORS = {
    "hf": {
        "embedding": ("model.embed_tokens.weight", "v d -> v d"),
        "layers.attention_norm": ("model.layers.{l}.input_layernorm.weight", "d -> d"),
        "layers.wq": ("model.layers.{l}.self_attn.q_proj.weight", "(h k) d -> d h k"),
        "layers.wk": ("model.layers.{l}.self_attn.k_proj.weight", "(g k) d -> d g k"),
        "layers.wv": ("model.layers.{l}.self_attn.v_proj.weight", "(g k) d -> d g k"),
        "layers.wo": ("model.layers.{l}.self_attn.o_proj.weight", "d (h k) -> h k d"),
        "layers.mlp_norm": (
            "model.layers.{l}.post_attention_layernorm.weight",
            "d -> d",
        ),
        "layers.w_gate": ("model.layers.{l}.mlp.gate_proj.weight", "f d -> d f"),
        "layers.w_up": ("model.layers.{l}.mlp.up_proj.weight", "f d -> d f"),
        "layers.w_down": ("model.layers.{l}.mlp.down_proj.weight", "d f -> f d"),
        "final_norm": ("model.norm.weight", "d -> d"),
        "unembedding": ("lm_head.weight", "v d -> d v"),
    },
    # llama.cpp stores the rows of q and k with each rotary pair side by side:
    # row (j, c) of a head there is row (c, j) here.
    "gguf": {
        "embedding": ("token_embd.weight", "v d -> v d"),
        "layers.attention_norm": ("blk.{l}.attn_norm.weight", "d -> d"),
        "layers.wq": ("blk.{l}.attn_q.weight", "(h j c) d -> d h (c j)"),
        "layers.wk": ("blk.{l}.attn_k.weight", "(g j c) d -> d g (c j)"),
        "layers.wv": ("blk.{l}.attn_v.weight", "(g k) d -> d g k"),
        "layers.wo": ("blk.{l}.attn_output.weight", "d (h k) -> h k d"),
        "layers.mlp_norm": ("blk.{l}.ffn_norm.weight", "d -> d"),
        "layers.w_gate": ("blk.{l}.ffn_gate.weight", "f d -> d f"),
        "layers.w_up": ("blk.{l}.ffn_up.weight", "f d -> d f"),
        "layers.w_down": ("blk.{l}.ffn_down.weight", "d f -> f d"),
        "final_norm": ("output_norm.weight", "d -> d"),
        "unembedding": ("output.weight", "v d -> d v"),
    },
}
"""Checkpoint names and reshapes of every leaf, by layout of the source."""

PREFIX = "model."
"""What checkpoints of the bare model, without its unembedding, leave out of names."""

IGNORED = {
    r".*rotary_emb\.inv_freq": "recomputed from the config",
    r"lm_head\.weight": "tied: the embedding is used",
}
"""Tensors that may be left over (full-match patterns), with the reason."""
