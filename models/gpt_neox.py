"""The GPT-NeoX family: Pythia and GPT-NeoX-20B.

What is particular to it, against GPT-2:

- attention and MLP read the same residual stream and are added together
  (``parallel``, Wang & Komatsuzaki 2021); some members run them one after the other;
- rotary positions on the first part of every head only (``rotary_width`` of K);
- the unembedding is mostly a matrix of its own;
- checkpoints store queries, keys and values in one matrix whose rows go by head, then
  q, k or v, then head width. GGUF files have them as GPT-2 has.

Source: Black et al. 2022 (GPT-NeoX-20B), section 2; Biderman et al. 2023 (Pythia).
"""

import dataclasses
from collections import ChainMap
from collections.abc import Callable, Mapping

import jax
from flax import struct

from jaxheads.models import gpt_names
from jaxheads.models.gpt2 import (
    FromSizes,
    Layers as Layers,
    abstract_layers,
    attention_input as attention_input,
    contributions as contributions,
    gguf_sizes,
    mlp,
    queries_keys_values,
    unembed as unembed,
)
from jaxheads.models.layers import activation_name, project_heads
from jaxheads.models.parameters import leaf_maker
from jaxheads.models.rope import Rope, nested_settings, rotary
from jaxheads.models.settings import (
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


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Config(FromSizes):
    """Sizes and constants of a GPT-NeoX model; static under jit.

    Attributes:
        num_layers: L.
        width: D, of the residual stream.
        num_heads: H, heads a layer; divides D.
        mlp_width: F.
        vocab_size: V.
        context_length: positions the model was trained for.
        rotary_width: how much of each head is rotated, from its start; even.
        rope: base and scaling of the rotary phases.
        parallel: the MLP reads the stream that attention reads, not its sum with it.
        attention_bias: q, k, v and the output projection have biases.
        activation: of the MLP, a name in ``layers.ACTIVATIONS``.
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
    rotary_width: int
    rope: Rope = dataclasses.field(default_factory=Rope)
    parallel: bool = True
    attention_bias: bool = True
    activation: str = "gelu"
    norm_epsilon: float = 1e-5
    tied: bool = False
    model_type: str = "gpt_neox"

    def __post_init__(self):
        super().__post_init__()
        if self.rotary_width % 2 or not 0 <= self.rotary_width <= self.head_dim:
            raise ValueError(
                "rotary_width must be even and at most the head width "
                f"{self.head_dim}, but is {self.rotary_width}"
            )

    @classmethod
    def from_hf(cls, settings: Mapping) -> "Config":
        """Read the hub's config.json.

        Args:
            settings: the parsed file.

        Raises:
            ValueError: a size is missing, or a setting that changes the arithmetic has
                a value that this file does not implement.
        """
        refuse_unbuilt(settings)
        refuse_window(settings)
        heads = size(settings, "num_attention_heads")
        width = size(settings, "hidden_size")
        check_sizes({"num_attention_heads": heads})
        head_dim = width // heads
        refuse_unless({"head_dim": (settings.get("head_dim"), (None, head_dim))})
        context = size(
            {"max_position_embeddings": 2048, **settings}, "max_position_embeddings"
        )
        theta = given(settings, "rotary_emb_base", default=10000.0)
        rope = Rope.from_hf(
            ChainMap({"rope_theta": theta}, settings),  # type: ignore[arg-type]
            context,
        )
        part = number(settings, "rotary_pct", default=0.25)
        part = number(nested_settings(settings), "partial_rotary_factor", default=part)
        rotary_width = int(head_dim * part)
        unread = {
            "rope_theta": rope.theta,
            "partial_rotary_factor": part,
            "rotary_dim": rotary_width,
        }
        refuse_unread(settings, unread)
        return cls(
            num_layers=size(settings, "num_hidden_layers"),
            width=width,
            num_heads=heads,
            mlp_width=size(settings, "intermediate_size"),
            vocab_size=size(settings, "vocab_size"),
            context_length=context,
            rotary_width=rotary_width,
            rope=rope,
            parallel=flag(settings, "use_parallel_residual", True),
            attention_bias=flag(settings, "attention_bias", True),
            activation=activation_name(given(settings, "hidden_act", default="gelu")),
            norm_epsilon=number(settings, "layer_norm_eps", default=1e-5),
            tied=flag(settings, "tie_word_embeddings", False),
        )

    @classmethod
    def from_gguf(cls, metadata: Mapping) -> "Config":
        """Read the metadata of a GGUF file of architecture "gptneox".

        The format does not state the activation: it is the exact GELU, as in all
        published models.

        Args:
            metadata: keys such as "gptneox.block_count"; "tied" says whether the file
                has no output matrix of its own.

        Raises:
            ValueError: as for ``from_hf``.
        """
        heads = size(metadata, "gptneox.attention.head_count")
        width = size(metadata, "gptneox.embedding_length")
        check_sizes({"gptneox.attention.head_count": heads})
        built = {
            "gptneox.rope.scaling.type": (None, "none"),
            "rope_freqs": (None,),
            "gptneox.attention.head_count_kv": (None, heads),
            "gptneox.attention.key_length": (None, width // heads),
        }
        refuse_unless({name: (metadata.get(name), ok) for name, ok in built.items()})
        return cls(
            **gguf_sizes(metadata, "gptneox"),
            rotary_width=size(metadata, "gptneox.rope.dimension_count"),
            rope=Rope(number(metadata, "gptneox.rope.freq_base", default=10000.0)),
            parallel=bool(metadata.get("gptneox.use_parallel_residual", True)),
        )


@struct.dataclass
class Params:
    """All parameters of a model; ``unembedding`` is None when tied."""

    embedding: jax.Array  # [V, D]
    layers: Layers
    final_norm: jax.Array  # [D]
    final_norm_bias: jax.Array  # [D]
    unembedding: jax.Array | None  # [D, V]


def abstract(config: Config) -> Params:
    """The tree of ``Leaf`` that initialisation, sharding and conversion derive from."""
    leaf = leaf_maker(config.dims())
    return Params(
        embedding=leaf("vd", fan_in="d"),
        layers=abstract_layers(config, config.attention_bias),
        final_norm=leaf("d", "ones"),
        final_norm_bias=leaf("d", "zeros"),
        unembedding=leaf("dv", fan_in="d", when=not config.tied),
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
    """One layer: ``x + attention(norm1(x)) + mlp(norm2(x))``.

    If not ``parallel``, the MLP reads ``x + attention(norm1(x))`` in the place of x.

    Args:
        layer: one layer's parameters (no L axis).
        x: residual stream [B, T, D].
        positions: int [B, T].
        attend: (q, k, v [B, T, H, K]) -> z [B, T, H, K].
        config: of the model.

    Returns:
        The residual stream after the layer [B, T, D].
    """
    with jax.named_scope("attention"):
        q, k, v = queries_keys_values(layer, x, config)
        q = rotary(q, positions, config.rope, config.rotary_width)
        k = rotary(k, positions, config.rope, config.rotary_width)
        attended = project_heads(attend(q, k, v), layer.wo, layer.bo)
    with jax.named_scope("mlp"):
        read = x if config.parallel else x + attended
        return x + attended + mlp(layer, read, config)


OUTPUT = ("wo", "bo")
"""Leaves that take head outputs to the stream."""
TENSORS = {"hf": gpt_names.GPT_NEOX, "gguf": gpt_names.GGUF}
"""Checkpoint names and reshapes of every leaf, by layout of the source."""

PREFIX = "gpt_neox."
"""What checkpoints of the bare model, without its unembedding, leave out of names."""

IGNORED = {
    r"layers\.\d+\.attention\.(bias|masked_bias)": "the causal mask, always the same",
    r"(layers\.\d+\.attention\.)?rotary_emb\.inv_freq": "recomputed from the config",
    r"embed_out\.weight": "tied: the embedding is used",
}
"""Tensors that may be left over (full-match patterns), with the reason."""
