"""What Llama and its kin have in common, and what checkpoints call it.

llama.py, qwen.py, olmo2.py and gemma2.py derive their configs from ``Sizes``.
"""

import dataclasses
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any

from jaxheads.models.rope import Rope, nested_settings
from jaxheads.models.settings import (
    check_numbers,
    check_sizes,
    flag,
    given,
    number,
    refuse_unbuilt,
    refuse_unless,
    refuse_unread,
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


Names = dict[str, tuple[str, str]]
"""By leaf of the params: the tensor's name, and the reshape to the leaf."""

_LAYER = "model.layers.{l}."

HF: Names = {
    "embedding": ("model.embed_tokens.weight", "v d -> v d"),
    "layers.attention_norm": (_LAYER + "input_layernorm.weight", "d -> d"),
    "layers.wq": (_LAYER + "self_attn.q_proj.weight", "(h k) d -> d h k"),
    "layers.wk": (_LAYER + "self_attn.k_proj.weight", "(g k) d -> d g k"),
    "layers.wv": (_LAYER + "self_attn.v_proj.weight", "(g k) d -> d g k"),
    "layers.wo": (_LAYER + "self_attn.o_proj.weight", "d (h k) -> h k d"),
    "layers.mlp_norm": (_LAYER + "post_attention_layernorm.weight", "d -> d"),
    "layers.w_gate": (_LAYER + "mlp.gate_proj.weight", "f d -> d f"),
    "layers.w_up": (_LAYER + "mlp.up_proj.weight", "f d -> d f"),
    "layers.w_down": (_LAYER + "mlp.down_proj.weight", "d f -> f d"),
    "layers.bq": (_LAYER + "self_attn.q_proj.bias", "(h k) -> h k"),
    "layers.bk": (_LAYER + "self_attn.k_proj.bias", "(g k) -> g k"),
    "layers.bv": (_LAYER + "self_attn.v_proj.bias", "(g k) -> g k"),
    "layers.bo": (_LAYER + "self_attn.o_proj.bias", "d -> d"),
    "layers.q_norm": (_LAYER + "self_attn.q_norm.weight", "k -> k"),
    "layers.k_norm": (_LAYER + "self_attn.k_norm.weight", "k -> k"),
    "layers.b_gate": (_LAYER + "mlp.gate_proj.bias", "f -> f"),
    "layers.b_up": (_LAYER + "mlp.up_proj.bias", "f -> f"),
    "layers.b_down": (_LAYER + "mlp.down_proj.bias", "d -> d"),
    "final_norm": ("model.norm.weight", "d -> d"),
    "unembedding": ("lm_head.weight", "v d -> d v"),
}
"""On the hub."""

GGUF: Names = {
    "embedding": ("token_embd.weight", "v d -> v d"),
    "layers.attention_norm": ("blk.{l}.attn_norm.weight", "d -> d"),
    "layers.wq": ("blk.{l}.attn_q.weight", "(h k) d -> d h k"),
    "layers.wk": ("blk.{l}.attn_k.weight", "(g k) d -> d g k"),
    "layers.wv": ("blk.{l}.attn_v.weight", "(g k) d -> d g k"),
    "layers.wo": ("blk.{l}.attn_output.weight", "d (h k) -> h k d"),
    "layers.mlp_norm": ("blk.{l}.ffn_norm.weight", "d -> d"),
    "layers.w_gate": ("blk.{l}.ffn_gate.weight", "f d -> d f"),
    "layers.w_up": ("blk.{l}.ffn_up.weight", "f d -> d f"),
    "layers.w_down": ("blk.{l}.ffn_down.weight", "d f -> f d"),
    "layers.bq": ("blk.{l}.attn_q.bias", "(h k) -> h k"),
    "layers.bk": ("blk.{l}.attn_k.bias", "(g k) -> g k"),
    "layers.bv": ("blk.{l}.attn_v.bias", "(g k) -> g k"),
    "layers.bo": ("blk.{l}.attn_output.bias", "d -> d"),
    "layers.q_norm": ("blk.{l}.attn_q_norm.weight", "k -> k"),
    "layers.k_norm": ("blk.{l}.attn_k_norm.weight", "k -> k"),
    "layers.b_gate": ("blk.{l}.ffn_gate.bias", "f -> f"),
    "layers.b_up": ("blk.{l}.ffn_up.bias", "f -> f"),
    "layers.b_down": ("blk.{l}.ffn_down.bias", "d -> d"),
    "final_norm": ("output_norm.weight", "d -> d"),
    "unembedding": ("output.weight", "v d -> d v"),
}
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

PREFIX = "model."
"""What checkpoints of the bare model, without its unembedding, leave out of names."""

IGNORED = {
    r".*rotary_emb\.inv_freq": "recomputed from the config",
    r"lm_head\.weight": "tied: the embedding is used",
}
"""Tensors that may be left over (full-match patterns), with the reason."""
