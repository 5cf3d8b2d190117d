"""The Llama family: pre-norm, rotary, grouped-query attention, gated MLP.

What is particular to it, against a plain GPT:

- RMS norms without biases (Zhang & Sennrich 2019), and mostly no biases anywhere;
- rotary positions on half-split pairs of the whole head width (see ``Rope``);
- query heads share G key/value heads: query head h reads key/value head h // (H / G);
- a gated MLP, ``down(silu(gate(x)) * up(x))``;
- the unembedding may be the embedding, transposed (``tied``);
- Mistral's queries see the last ``windows[l]`` positions only.

qwen.py has Qwen2's and Qwen3's configs for it; olmo2.py and gemma2.py take parts of it.

Source: Touvron et al. 2023 (LLaMA), section 2.2; Jiang et al. 2023 (Mistral 7B),
section 2.
"""

import dataclasses
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
from jaxheads.models.llama_kin import (
    GGUF,
    HF,
    IGNORED as IGNORED,
    OFF,
    PERMUTED,
    PREFIX as PREFIX,
    SILU,
    Sizes,
    gguf_sizes,
    hf_sizes,
    hf_windows,
    layered,
)
from jaxheads.models.parameters import leaf_maker
from jaxheads.models.rope import rotary
from jaxheads.models.settings import flag, refuse_window, size


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


OUTPUT = ("wo", "bo")
"""Leaves that take head outputs to the stream."""
TENSORS = {"hf": HF, "gguf": {**GGUF, **PERMUTED}}
"""Checkpoint names and reshapes of every leaf, by layout of the source."""
