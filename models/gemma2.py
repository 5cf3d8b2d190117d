"""Gemma 2: Llama's parts, with norms on both sides, capped scores and logits.

What is particular to it, against Llama:

- a norm before and one behind attention, and the same for the MLP;
- a norm's scale is stored as its difference from 1 (GGUF files have added the 1);
- embeddings are multiplied by sqrt(D), rounded to their dtype;
- scores are divided by the square root of ``query_scalar`` in the place of K, and
  squashed by ``score_cap tanh(score / score_cap)``; so are the logits by ``logit_cap``;
- every other layer, from the first on, sees a sliding window;
- the gate goes through a GELU, in its tanh approximation.

Source: Gemma team 2024 (Gemma 2), section 2.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import struct

from jaxheads.models.layers import (
    affine,
    project_each_head,
    project_heads,
    rms_norm,
    softcapped,
    to_logits,
)
from jaxheads.models.llama import (
    GGUF,
    HF,
    IGNORED as IGNORED,
    OFF,
    PREFIX as PREFIX,
    Params,
    Sizes,
    gguf_sizes,
    hf_sizes,
    hf_windows,
    layered,
    outer,
    projections,
)
from jaxheads.models.parameters import leaf_maker
from jaxheads.models.rope import rotary
from jaxheads.models.settings import number, size


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Config(Sizes):
    """Sizes and constants of a Gemma 2 model; static under jit.

    Attributes:
        query_scalar: scores are divided by its square root.
        score_cap: most that a score can be; None: no cap.
        logit_cap: most that a logit can be; None: no cap.
        norm_offset: added to the stored scale of every norm: 1, or 0 in GGUF files.
        model_type: the name under which checkpoints know the family.

    And those of ``Sizes``.
    """

    query_scalar: float = 256.0
    score_cap: float | None = 50.0
    logit_cap: float | None = 30.0
    norm_offset: float = 1.0
    model_type: str = "gemma2"

    @classmethod
    def from_hf(cls, settings: Mapping) -> "Config":
        """Read the hub's config.json.

        Args:
            settings: the parsed file.

        Raises:
            ValueError: a size is missing, or a setting that changes the arithmetic has
                a value that this file does not implement.
        """
        settings = layered(settings, _LEFT_OUT)
        supported = {
            "hidden_activation": (None, "gelu_pytorch_tanh"),
            "attention_bias": OFF,
            "use_bidirectional_attention": OFF,
        }
        return cls(
            **hf_sizes(settings, supported),
            windows=hf_windows(settings, _slides),
            query_scalar=number(settings, "query_pre_attn_scalar"),
            score_cap=_cap(settings["attn_logit_softcapping"]),
            logit_cap=_cap(settings["final_logit_softcapping"]),
        )

    @classmethod
    def from_gguf(cls, metadata: Mapping) -> "Config":
        """Read the metadata of a GGUF file of architecture "gemma2".

        Args:
            metadata: see ``gguf_sizes``.

        Raises:
            ValueError: as for ``from_hf``.
        """
        pattern = {"attention.sliding_window_pattern": (None, 2)}
        sizes = gguf_sizes(metadata, "gemma2", pattern)
        layers, per_head = sizes["num_layers"], sizes["width"] // sizes["num_heads"]
        name = "gemma2.attention.sliding_window"
        window = size({name: 4096, **metadata}, name)
        windows = tuple(window if _slides(layer) else None for layer in range(layers))
        return cls(
            **sizes,
            windows=windows if window else None,
            # The format has no key for it: of the three published sizes, the largest,
            # which has 46 layers, takes D / H, and the others K.
            query_scalar=float(per_head if layers == 46 else sizes["head_dim"]),
            score_cap=_cap(metadata.get("gemma2.attn_logit_softcapping", 50.0)),
            logit_cap=_cap(metadata.get("gemma2.final_logit_softcapping", 30.0)),
            norm_offset=0.0,
        )


_LEFT_OUT = {
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
}
"""What a config.json means by leaving a setting out; null is none."""


def _slides(layer: int) -> bool:
    return layer % 2 == 0


def _cap(value: float | None) -> float | None:
    return None if value is None else number({"a cap": value}, "a cap")


@struct.dataclass
class Layers:
    """The blocks' parameters, stacked over layers."""

    attention_norm: jax.Array  # [L, D]
    wq: jax.Array  # [L, D, H, K]
    wk: jax.Array  # [L, D, G, K]
    wv: jax.Array  # [L, D, G, K]
    wo: jax.Array  # [L, H, K, D]
    attention_post_norm: jax.Array  # [L, D]
    mlp_norm: jax.Array  # [L, D]
    w_gate: jax.Array  # [L, D, F]
    w_up: jax.Array  # [L, D, F]
    w_down: jax.Array  # [L, F, D]
    mlp_post_norm: jax.Array  # [L, D]


def abstract(config: Config) -> Params:
    """The tree of ``Leaf`` that initialisation, sharding and conversion derive from."""
    init = "zeros" if config.norm_offset else "ones"
    norm = leaf_maker(config.dims())("ld", init)
    layers = Layers(
        attention_norm=norm,
        **projections(config),
        attention_post_norm=norm,
        mlp_norm=norm,
        mlp_post_norm=norm,
    )
    return outer(config, layers, init)


def embed(
    params: Params, tokens: jax.Array, positions: jax.Array, config: Config
) -> jax.Array:
    """Residual stream entering the first layer: int [B, T] -> [B, T, D]."""
    del positions  # rotary: positions enter in the blocks
    embedded = params.embedding[tokens]
    return embedded * jnp.asarray(math.sqrt(config.width), embedded.dtype)


def block(
    layer: Layers,
    x: jax.Array,
    positions: jax.Array,
    attend: Callable[..., jax.Array],
    config: Config,
) -> jax.Array:
    """One layer: ``x += norm(attention(norm(x))); x += norm(mlp(norm(x)))``.

    Args:
        layer: one layer's parameters (no L axis).
        x: residual stream [B, T, D].
        positions: int [B, T].
        attend: (q [B, T, H, K], k, v [B, T, G, K], softcap) -> z [B, T, H, K].
        config: of the model.

    Returns:
        The residual stream after the layer [B, T, D].
    """
    with jax.named_scope("attention"):
        normed = attention_input(layer, x, config)
        q = rotary(affine(normed, layer.wq), positions, config.rope)
        k = rotary(affine(normed, layer.wk), positions, config.rope)
        # attend divides by sqrt(K).
        q = q * math.sqrt(config.head_dim / config.query_scalar)
        z = attend(q, k, affine(normed, layer.wv), softcap=config.score_cap)
        attended = project_heads(z, layer.wo)
        x = x + _norm(attended, layer.attention_post_norm, config)
    with jax.named_scope("mlp"):
        normed = _norm(x, layer.mlp_norm, config)
        gate = jax.nn.gelu(normed @ layer.w_gate, approximate=True)  # [B, T, F]
        hidden = (gate * (normed @ layer.w_up)) @ layer.w_down
        return x + _norm(hidden, layer.mlp_post_norm, config)


def _norm(
    x: jax.Array, scale: jax.Array, config: Config, whole: jax.Array | None = None
) -> jax.Array:
    """RMS norm that is rounded to the dtype of ``x`` only after its scale."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    scale = config.norm_offset + scale.astype(wide)
    normed = rms_norm(x.astype(wide), scale, config.norm_epsilon, whole)
    return normed.astype(x.dtype)


def attention_input(
    layer: Layers, x: jax.Array, config: Config, whole: jax.Array | None = None
) -> jax.Array:
    """What queries, keys and values are projected from: [..., D] -> [..., D]."""
    return _norm(x, layer.attention_norm, config, whole)


def contributions(
    layer: Layers, z: jax.Array, config: Config, whole: jax.Array | None = None
) -> jax.Array:
    """What each head adds to the residual stream: [..., H, K] -> [..., H, D].

    The norm behind the attention takes its mean square from all heads' output [..., D],
    or from ``whole`` in its place.
    """
    whole = project_heads(z, layer.wo) if whole is None else whole
    each = project_each_head(z, layer.wo)
    return _norm(each, layer.attention_post_norm, config, whole[..., None, :])


def unembed(
    params: Params, x: jax.Array, config: Config, whole: jax.Array | None = None
) -> jax.Array:
    """Logits of a residual stream: [..., D] -> [..., V], float32 or wider.

    With ``whole`` [..., D], those of a part of it before the cap, see the contract.
    """
    normed = _norm(x, params.final_norm, config, whole)
    logits = to_logits(normed, params.embedding, params.unembedding)
    return softcapped(logits, config.logit_cap if whole is None else None)


OUTPUT = ("wo", "attention_post_norm")
"""Leaves that take head outputs to the stream."""
TENSORS = {
    "hf": {
        **HF,
        "layers.attention_post_norm": (
            "model.layers.{l}.post_attention_layernorm.weight",
            "d -> d",
        ),
        "layers.mlp_norm": (
            "model.layers.{l}.pre_feedforward_layernorm.weight",
            "d -> d",
        ),
        "layers.mlp_post_norm": (
            "model.layers.{l}.post_feedforward_layernorm.weight",
            "d -> d",
        ),
    },
    "gguf": {
        **GGUF,
        "layers.attention_post_norm": ("blk.{l}.post_attention_norm.weight", "d -> d"),
        "layers.mlp_post_norm": ("blk.{l}.post_ffw_norm.weight", "d -> d"),
    },
}
"""Checkpoint names and reshapes of every leaf, by layout of the source."""
