"""OLMo-2: Llama, with norms behind attention and MLP in the place of before them.

What is particular to it, against Llama:

- ``x += norm(attention(x)); x += norm(mlp(x))``;
- queries and keys are RMS-normed over all heads together, with a scale for each
  element, before rotation.

Source: OLMo team 2025 (2 OLMo 2 Furious), section 2.1.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from jaxheads.models.layers import (
    affine,
    project_each_head,
    project_heads,
    rms_norm,
    to_logits,
)
from jaxheads.models.llama import (
    GGUF,
    HF,
    IGNORED as IGNORED,
    OFF,
    PREFIX as PREFIX,
    SILU,
    Layers,
    Params,
    Sizes,
    embed,  # noqa: F401  (this family's too)
    gguf_sizes,
    hf_sizes,
    layered,
    outer,
    projections,
)
from jaxheads.models.parameters import leaf_maker
from jaxheads.models.rope import rotary
from jaxheads.models.settings import refuse_window


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Config(Sizes):
    """Sizes and constants of an OLMo-2 model; static under jit.

    Attributes:
        model_type: the name under which checkpoints know the family.

    And those of ``Sizes``.
    """

    model_type: str = "olmo2"

    @classmethod
    def from_hf(cls, settings: Mapping) -> "Config":
        """Read the hub's config.json.

        Args:
            settings: the parsed file.

        Raises:
            ValueError: a size is missing, or a setting that changes the arithmetic has
                a value that this file does not implement.
        """
        settings = layered(settings, {"rms_norm_eps": 1e-5})
        supported = {"hidden_act": SILU, "attention_bias": OFF, "clip_qkv": (None,)}
        refuse_window(settings)
        return cls(**hf_sizes(settings, supported))

    @classmethod
    def from_gguf(cls, metadata: Mapping) -> "Config":
        """Read the metadata of a GGUF file of architecture "olmo2".

        Args:
            metadata: see ``gguf_sizes``.

        Raises:
            ValueError: as for ``from_hf``; OLMo-3, which has this architecture and
                sliding windows, is refused.
        """
        supported = {"attention.sliding_window": (None, 0)}
        return cls(**gguf_sizes(metadata, "olmo2", supported))


def abstract(config: Config) -> Params:
    """The tree of ``Leaf`` that initialisation, sharding and conversion derive from."""
    leaf = leaf_maker(config.dims())
    layers = Layers(
        attention_norm=leaf("ld", "ones"),
        **projections(config),
        mlp_norm=leaf("ld", "ones"),
        q_norm=leaf("lhk", "ones"),
        k_norm=leaf("lgk", "ones"),
    )
    return outer(config, layers)


def block(
    layer: Layers,
    x: jax.Array,
    positions: jax.Array,
    attend: Callable[..., jax.Array],
    config: Config,
) -> jax.Array:
    """One layer: ``x += norm(attention(x)); x += norm(mlp(x))``.

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
        q = _norm_heads(affine(x, layer.wq), layer.q_norm, config)
        k = _norm_heads(affine(x, layer.wk), layer.k_norm, config)
        q = rotary(q, positions, config.rope)
        k = rotary(k, positions, config.rope)
        z = attend(q, k, affine(x, layer.wv))
        x = x + _norm(project_heads(z, layer.wo), layer.attention_norm, config)
    with jax.named_scope("mlp"):
        gated = jax.nn.silu(x @ layer.w_gate) * (x @ layer.w_up)  # [B, T, F]
        return x + _norm(gated @ layer.w_down, layer.mlp_norm, config)


def _norm_heads(x: jax.Array, scale, config: Config) -> jax.Array:
    """RMS norm over all heads together: [B, T, H, K] with scale [H, K]."""
    flat = x.reshape(*x.shape[:2], -1)
    return _norm(flat, scale.reshape(-1), config).reshape(x.shape)


def _norm(
    x: jax.Array, scale: jax.Array, config: Config, whole: jax.Array | None = None
) -> jax.Array:
    """RMS norm that is rounded to the dtype of ``x`` only after its scale."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    normed = rms_norm(x.astype(wide), scale.astype(wide), config.norm_epsilon, whole)
    return normed.astype(x.dtype)


def attention_input(
    layer: Layers, x: jax.Array, config: Config, whole: jax.Array | None = None
) -> jax.Array:
    """What queries, keys and values are projected from: [..., D] -> [..., D]."""
    del layer, config, whole  # the stream itself
    return x


def contributions(
    layer: Layers, z: jax.Array, config: Config, whole: jax.Array | None = None
) -> jax.Array:
    """What each head adds to the residual stream: [..., H, K] -> [..., H, D].

    The norm behind the attention takes its mean square from all heads' output [..., D],
    or from ``whole`` in its place.
    """
    whole = project_heads(z, layer.wo) if whole is None else whole
    each = project_each_head(z, layer.wo)
    return _norm(each, layer.attention_norm, config, whole[..., None, :])


def unembed(
    params: Params, x: jax.Array, config: Config, whole: jax.Array | None = None
) -> jax.Array:
    """Logits of a residual stream: [..., D] -> [..., V], float32 or wider.

    With ``whole`` [..., D], those of a part of it, see the contract.
    """
    normed = _norm(x, params.final_norm, config, whole)
    return to_logits(normed, params.embedding, params.unembedding)


OUTPUT = ("wo", "attention_norm")
"""Leaves that take head outputs to the stream."""
TENSORS = {
    "hf": {
        **HF,
        "layers.attention_norm": (
            "model.layers.{l}.post_attention_layernorm.weight",
            "d -> d",
        ),
        "layers.mlp_norm": (
            "model.layers.{l}.post_feedforward_layernorm.weight",
            "d -> d",
        ),
        "layers.q_norm": (HF["layers.q_norm"][0], "(h k) -> h k"),
        "layers.k_norm": (HF["layers.k_norm"][0], "(g k) -> g k"),
    },
    "gguf": {
        **GGUF,
        "layers.attention_norm": ("blk.{l}.post_attention_norm.weight", "d -> d"),
        "layers.mlp_norm": ("blk.{l}.post_ffw_norm.weight", "d -> d"),
        "layers.q_norm": (GGUF["layers.q_norm"][0], "(h k) -> h k"),
        "layers.k_norm": (GGUF["layers.k_norm"][0], "(g k) -> g k"),
    },
}
"""Checkpoint names and reshapes of every leaf, by layout of the source."""
