"""The GPT-2 family: learned positions, layer norms, a plain MLP.

What is particular to it:

- every position has a learned vector, added to the token's embedding; nothing else
  knows positions, and there are none beyond the context;
- layer norms with biases, before attention and before the MLP, and biases everywhere;
- the unembedding is the embedding, transposed (``tied``), in all published models;
- checkpoints store matrices as [in, out] (OpenAI's "Conv1D"), and queries, keys and
  values in one matrix whose columns go by q, k or v, then head, then head width. GGUF
  files have [out, in].

Source: Radford et al. 2019 (GPT-2), section 2.3.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxheads.models import gpt_names
from jaxheads.models.layers import (
    activation,
    activation_name,
    affine,
    layer_norm,
    project_each_head,
    project_heads,
    to_logits,
)
from jaxheads.models.parameters import leaf_maker
from jaxheads.models.settings import (
    check_numbers,
    flag,
    given,
    number,
    refuse_unbuilt,
    refuse_unless,
    refuse_unread,
    refuse_window,
    size,
)


class FromSizes:
    """What a GPT config checks and derives; its fields stand in the configs."""

    num_layers: int
    width: int
    num_heads: int
    mlp_width: int
    vocab_size: int
    context_length: int
    activation: str

    def __post_init__(self):
        check_numbers(self, may_be_zero=("rotary_width",))
        if self.width % self.num_heads:
            raise ValueError(
                f"num_heads must divide width = {self.width}, but is {self.num_heads}"
            )
        activation_name(self.activation)  # raises if it is not built

    @property
    def head_dim(self) -> int:
        """K."""
        return self.width // self.num_heads

    @property
    def num_kv_heads(self) -> int:
        """Every query head has a key/value head of its own."""
        return self.num_heads

    @property
    def windows(self) -> None:
        """No layer has an attention window."""
        return None

    def dims(self) -> dict[str, int]:
        """Sizes by dim letter; p counts q, k and v where they are stored together."""
        return {
            "l": self.num_layers,
            "d": self.width,
            "h": self.num_heads,
            "k": self.head_dim,
            "f": self.mlp_width,
            "v": self.vocab_size,
            "t": self.context_length,
            "p": 3,
        }


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Config(FromSizes):
    """Sizes and constants of a GPT-2 model; static under jit.

    Attributes:
        num_layers: L.
        width: D, of the residual stream.
        num_heads: H, heads a layer; divides D.
        mlp_width: F.
        vocab_size: V.
        context_length: positions that have a vector.
        activation: of the MLP, a name in ``layers.ACTIVATIONS``.
        scaled: scores are divided by sqrt(K).
        norm_epsilon: added to the variance in every norm.
        tied: the unembedding is the embedding, transposed.
        model_type: the name under which checkpoints know the family.
    """

    num_layers: int
    width: int
    num_heads: int
    mlp_width: int
    vocab_size: int
    context_length: int
    activation: str = "gelu_tanh"
    scaled: bool = True
    norm_epsilon: float = 1e-5
    tied: bool = True
    model_type: str = "gpt2"

    @classmethod
    def from_hf(cls, settings: Mapping) -> "Config":
        """Read the hub's config.json.

        Args:
            settings: the parsed file. ``reorder_and_upcast_attn`` changes the rounding
                of scores only and is not looked at: they are float32 here.

        Raises:
            ValueError: a size is missing, or a setting that changes the arithmetic has
                a value that this file does not implement.
        """
        refuse_unbuilt(settings)
        refuse_window(settings)
        off = (None, False)
        refused = ("scale_attn_by_inverse_layer_idx", "add_cross_attention")
        refuse_unless({name: (settings.get(name), off) for name in refused})
        for names in _SAME:
            found = {name: settings.get(name) for name in names}
            values = {name: x for name, x in found.items() if x is not None}
            if len(set(values.values())) > 1:
                raise ValueError(
                    f"the config must give one value under the names {names}, but "
                    f"gives {values}: keep the one that the model was trained with"
                )
        width = size(settings, "n_embd", "hidden_size")
        mlp_width = 4 * width
        if given(settings, "n_inner", "intermediate_size") is not None:
            mlp_width = size(settings, "n_inner", "intermediate_size")
        kind = given(settings, "activation_function", default="gelu_new")
        epsilon = number(settings, "layer_norm_epsilon", default=1e-5)
        refuse_unread(settings, {"hidden_act": kind, "layer_norm_eps": epsilon})
        return cls(
            num_layers=size(settings, "n_layer", "num_hidden_layers"),
            width=width,
            num_heads=size(settings, "n_head", "num_attention_heads"),
            mlp_width=mlp_width,
            vocab_size=size(settings, "vocab_size"),
            context_length=size(
                settings, "n_positions", "n_ctx", "max_position_embeddings"
            ),
            activation=activation_name(kind),
            scaled=flag(settings, "scale_attn_weights", True),
            norm_epsilon=epsilon,
            tied=flag(settings, "tie_word_embeddings", True),
        )

    @classmethod
    def from_gguf(cls, metadata: Mapping) -> "Config":
        """Read the metadata of a GGUF file of architecture "gpt2".

        The format does not state the activation: it is the tanh GELU, as in all
        published models.

        Args:
            metadata: keys such as "gpt2.block_count"; "tied" says whether the file has
                no output matrix of its own.

        Raises:
            ValueError: as for ``from_hf``.
        """
        return cls(**gguf_sizes(metadata, "gpt2"))


def gguf_sizes(metadata: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    """The sizes, the epsilon and the tie of a GPT that a GGUF file's metadata give.

    Args:
        metadata: see ``Config.from_gguf``.
        architecture: what the keys begin with.
    """
    key = lambda name: f"{architecture}.{name}"
    heads, kv = key("attention.head_count"), key("attention.head_count_kv")
    count = size(metadata, heads)
    refuse_unless({kv: (metadata.get(kv), (None, count))})
    tokens = metadata.get("tokenizer.ggml.tokens", ())
    vocabulary = {key("vocab_size"): len(tokens), **metadata}
    return {
        "num_layers": size(metadata, key("block_count")),
        "width": size(metadata, key("embedding_length")),
        "num_heads": count,
        "mlp_width": size(metadata, key("feed_forward_length")),
        "vocab_size": size(vocabulary, key("vocab_size")),
        "context_length": size(metadata, key("context_length")),
        "norm_epsilon": number(metadata, key("attention.layer_norm_epsilon")),
        "tied": bool(metadata.get("tied", False)),
    }


_SAME = (
    ("n_layer", "num_hidden_layers"),
    ("n_head", "num_attention_heads"),
    ("n_embd", "hidden_size"),
    ("n_positions", "max_position_embeddings"),
)
"""Two names of a size: configs may give either."""


@struct.dataclass
class Layers:
    """The blocks' parameters, stacked over layers; what a model lacks is None."""

    attention_norm: jax.Array  # [L, D]
    attention_norm_bias: jax.Array  # [L, D]
    wq: jax.Array  # [L, D, H, K]
    wk: jax.Array  # [L, D, H, K]
    wv: jax.Array  # [L, D, H, K]
    bq: jax.Array | None  # [L, H, K]
    bk: jax.Array | None  # [L, H, K]
    bv: jax.Array | None  # [L, H, K]
    wo: jax.Array  # [L, H, K, D]
    bo: jax.Array | None  # [L, D]
    mlp_norm: jax.Array  # [L, D]
    mlp_norm_bias: jax.Array  # [L, D]
    w_up: jax.Array  # [L, D, F]
    b_up: jax.Array  # [L, F]
    w_down: jax.Array  # [L, F, D]
    b_down: jax.Array  # [L, D]


@struct.dataclass
class Params:
    """All parameters of a model; ``unembedding`` is None when tied."""

    embedding: jax.Array  # [V, D]
    positions: jax.Array  # [context_length, D]
    layers: Layers
    final_norm: jax.Array  # [D]
    final_norm_bias: jax.Array  # [D]
    unembedding: jax.Array | None  # [D, V]


def abstract(config: Config) -> Params:
    """The tree of ``Leaf`` that initialisation, sharding and conversion derive from."""
    leaf = leaf_maker(config.dims())
    return Params(
        embedding=leaf("vd", fan_in="d"),
        positions=leaf("td", fan_in="d"),
        layers=abstract_layers(config),
        final_norm=leaf("d", "ones"),
        final_norm_bias=leaf("d", "zeros"),
        unembedding=leaf("dv", fan_in="d", when=not config.tied),
    )


def abstract_layers(config: Any, attention_bias: bool = True) -> Layers:
    """The ``Layers`` of ``Leaf`` of a GPT, whose attention may lack biases."""
    leaf = leaf_maker(config.dims())
    bias = lambda dims: leaf(dims, "zeros") if attention_bias else None
    return Layers(
        attention_norm=leaf("ld", "ones"),
        attention_norm_bias=leaf("ld", "zeros"),
        wq=leaf("ldhk", fan_in="d"),
        wk=leaf("ldhk", fan_in="d"),
        wv=leaf("ldhk", fan_in="d"),
        bq=bias("lhk"),
        bk=bias("lhk"),
        bv=bias("lhk"),
        wo=leaf("lhkd", fan_in="hk"),
        bo=bias("ld"),
        mlp_norm=leaf("ld", "ones"),
        mlp_norm_bias=leaf("ld", "zeros"),
        w_up=leaf("ldf", fan_in="d"),
        b_up=leaf("lf", "zeros"),
        w_down=leaf("lfd", fan_in="f"),
        b_down=leaf("ld", "zeros"),
    )


def embed(
    params: Params, tokens: jax.Array, positions: jax.Array, config: Config
) -> jax.Array:
    """Token and position vectors, added: int [B, T] and int [B, T] -> [B, T, D].

    A position beyond the context has no vector: its row is NaN.
    """
    del config
    # Plain indexing would silently take the last vector instead.
    learned = jnp.take(params.positions, positions, axis=0, mode="fill")
    return params.embedding[tokens] + learned


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
        attend: (q, k, v [B, T, H, K]) -> z [B, T, H, K].
        config: of the model.

    Returns:
        The residual stream after the layer [B, T, D].
    """
    del positions  # they entered with the embedding
    with jax.named_scope("attention"):
        q, k, v = queries_keys_values(layer, x, config)
        if not config.scaled:
            q = q * math.sqrt(config.head_dim)  # attend divides by it
        x = x + project_heads(attend(q, k, v), layer.wo, layer.bo)
    with jax.named_scope("mlp"):
        return x + mlp(layer, x, config)


def queries_keys_values(
    layer: Layers, x: jax.Array, config: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries, keys and values of every head: x [B, T, D] -> three [B, T, H, K]."""
    normed = attention_input(layer, x, config)
    return (
        affine(normed, layer.wq, layer.bq),
        affine(normed, layer.wk, layer.bk),
        affine(normed, layer.wv, layer.bv),
    )


def attention_input(
    layer: Layers, x: jax.Array, config: Any, whole: jax.Array | None = None
) -> jax.Array:
    """What queries, keys and values are projected from: [..., D] -> [..., D]."""
    scale, bias = layer.attention_norm, layer.attention_norm_bias
    return layer_norm(x, scale, bias, config.norm_epsilon, whole)


def contributions(
    layer: Layers, z: jax.Array, config: Any, whole: jax.Array | None = None
) -> jax.Array:
    """What each head adds to the residual stream: [..., H, K] -> [..., H, D]."""
    del config, whole  # no norm behind the attention
    return project_each_head(z, layer.wo)


def mlp(layer: Layers, x: jax.Array, config: Any) -> jax.Array:
    """``down(activation(up(norm(x))))``: [B, T, D] -> [B, T, D]."""
    normed = layer_norm(x, layer.mlp_norm, layer.mlp_norm_bias, config.norm_epsilon)
    hidden = affine(normed, layer.w_up, layer.b_up)
    hidden = activation(config.activation)(hidden)
    return affine(hidden, layer.w_down, layer.b_down)


def unembed(
    params: Any, x: jax.Array, config: Any, whole: jax.Array | None = None
) -> jax.Array:
    """Logits of a residual stream: [..., D] -> [..., V], float32 or wider.

    With ``whole`` [..., D], those of a part of it, see the contract.
    """
    scale, bias = params.final_norm, params.final_norm_bias
    normed = layer_norm(x, scale, bias, config.norm_epsilon, whole)
    return to_logits(normed, params.embedding, params.unembedding)


OUTPUT = ("wo", "bo")
"""Leaves that take head outputs to the stream."""
TENSORS = {"hf": gpt_names.GPT2, "gguf": gpt_names.GGUF}
"""Checkpoint names and reshapes of every leaf, by layout of the source."""

PREFIX = "transformer."
"""What checkpoints of the bare model, without its unembedding, leave out of names."""

IGNORED = {
    r"h\.\d+\.attn\.(bias|masked_bias)": "the causal mask, always the same",
    r"lm_head\.weight": "tied: the embedding is used",
}
"""Tensors that may be left over (full-match patterns), with the reason."""
