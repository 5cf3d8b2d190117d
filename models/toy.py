"""Toy transformers: attention alone or with an MLP, positions in queries and keys only.

What is particular to them, against GPT-2:

- nothing of the position enters the residual stream, so that heads can only copy what
  tokens are: queries and keys are projected from ``x + p``, values from ``x`` (Press
  et al. 2021), or queries and keys are rotated;
- the MLP may be left out (``mlp_width`` 0), and so may the layer norms (``norms``);
- smeared keys, ``k_j <- s k_j + (1 - s) k_{j-1}`` with one trained s a head, or shifted
  keys and values, ``k_j <- a1 k_j + a2 k_{j-1}`` and the same for v, let a single layer
  do what otherwise takes a previous-token head and an induction head after it;
- n-gram head layers, ``ngram_orders``, may stand before the first layer: they find the
  last 1, 2 or 3 tokens again by a fixed pattern (``ngram.py`` has the formula). They
  are part of embedding, and have no heads to ablate.

A checkpoint is a folder with ``dataclasses.asdict(config)`` as config.json and the
leaves, one tensor a layer, under their own names in model.safetensors.

Source: Olsson et al. 2022 (small models, smeared keys); Xu et al. 2024 (KV shifting);
Akyürek et al. 2024 (n-gram heads).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import struct

from jaxheads.models import ngram
from jaxheads.models.layers import (
    affine,
    layer_norm,
    project_each_head,
    project_heads,
    to_logits,
)
from jaxheads.models.parameters import leaf_maker
from jaxheads.models.rope import Rope, rotary
from jaxheads.models.settings import check_numbers, refuse_unless, size

POSITIONS = ("sinusoidal", "rotary")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes and variants of a toy model; static under jit.

    Attributes:
        num_layers: L.
        width: D, of the residual stream.
        num_heads: H, query heads a layer, each with a key/value head of its own.
        head_dim: K.
        vocab_size: V.
        context_length: positions the model may be run on.
        mlp_width: F; 0: attention only.
        positions: "sinusoidal": queries and keys are projected from x + p; "rotary".
        smeared_keys: each key takes up the one before it, positions included.
        shifted: each key and value takes up the one before it, before rotation.
        norms: layer norms before attention, MLP and unembedding.
        theta: base of the positions' wavelengths.
        norm_epsilon: added to the variance in every norm.
        ngram_orders: order n, 1 to 3, of each n-gram head layer, in their order.
        model_type: the name under which checkpoints know the family.
    """

    num_layers: int
    width: int
    num_heads: int
    head_dim: int
    vocab_size: int
    context_length: int
    mlp_width: int = 0
    positions: str = "sinusoidal"
    smeared_keys: bool = False
    shifted: bool = False
    norms: bool = True
    theta: float = 10000.0
    norm_epsilon: float = 1e-5
    ngram_orders: tuple[int, ...] = ()
    model_type: str = "toy"

    def __post_init__(self):
        check_numbers(self, may_be_zero=("mlp_width",))
        refuse_unless({"positions": (self.positions, POSITIONS)})
        split = "head_dim" if self.positions == "rotary" else "width"
        if getattr(self, split) % 2:
            raise ValueError(
                f"{split} must be even for {self.positions} positions, but is "
                f"{getattr(self, split)}"
            )
        if self.smeared_keys and self.shifted:
            raise ValueError(
                "either smeared_keys or shifted may be true, but both are: choose one"
            )
        object.__setattr__(self, "ngram_orders", _orders(self.ngram_orders))

    @property
    def num_kv_heads(self) -> int:
        """G: as many as query heads."""
        return self.num_heads

    @property
    def windows(self) -> None:
        """No layer has an attention window."""
        return None

    def dims(self) -> dict[str, int]:
        """Sizes by dim letter.

        i is k and v, c a token and the previous; o the n-gram layers, e their input.
        """
        return {
            "l": self.num_layers,
            "d": self.width,
            "h": self.num_heads,
            "k": self.head_dim,
            "f": self.mlp_width,
            "v": self.vocab_size,
            "i": 2,
            "c": 2,
            "o": len(self.ngram_orders),
            "e": self.width,
        }

    @classmethod
    def from_hf(cls, settings: Mapping) -> "Config":
        """Read a config.json: this class's fields, by their names.

        Args:
            settings: the parsed file; names that begin with "_" are left alone.

        Raises:
            ValueError: a size is missing, a value has a wrong type or is not built, or
                a name is none of the fields'.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        given = {name: settings[name] for name in settings if not name.startswith("_")}
        unknown = sorted(set(given) - set(fields))
        if unknown:
            raise ValueError(
                f"the config of a toy model gives only {', '.join(fields)}, but here "
                f"also {', '.join(unknown)}"
            )
        for name in _sizes():
            size(given, name)
        for name, value in given.items():
            default = fields[name].default
            wanted = {float: (int, float), tuple: (tuple, list)}.get(
                type(default), (type(default),)
            )
            if name not in _sizes() and type(value) not in wanted:
                raise ValueError(f"{name!r} must be like {default!r}, but is {value!r}")
        return cls(**given)

    @classmethod
    def from_gguf(cls, metadata: Mapping) -> "Config":
        """Refuse: there is no GGUF architecture of toy models.

        Raises:
            ValueError: always.
        """
        raise ValueError("a toy model is kept as a folder, but this is a GGUF file")


def _orders(given: Sequence[int]) -> tuple[int, ...]:
    """Orders of n-gram layers, checked; JSON gives them as a list."""
    listed = isinstance(given, tuple | list)
    if not listed or any(type(n) is not int or n not in ngram.ORDERS for n in given):
        raise ValueError(
            f"ngram_orders must be a list of orders out of {list(ngram.ORDERS)}, but "
            f"is {given!r}"
        )
    return tuple(given)


def _sizes() -> list[str]:
    """Names of the fields that must be given: all of them are sizes."""
    fields = dataclasses.fields(Config)
    return [field.name for field in fields if field.default is dataclasses.MISSING]


@struct.dataclass
class Layers:
    """The blocks' parameters, stacked over layers; what a variant lacks is None."""

    attention_norm: jax.Array | None  # [L, D]
    attention_norm_bias: jax.Array | None  # [L, D]
    wq: jax.Array  # [L, D, H, K]
    wk: jax.Array  # [L, D, H, K]
    wv: jax.Array  # [L, D, H, K]
    wo: jax.Array  # [L, H, K, D]
    smear: jax.Array | None  # [L, H], s is its sigmoid
    shift: jax.Array | None  # [L, H, 2, 2], of k and v; of the token and the previous
    mlp_norm: jax.Array | None  # [L, D]
    mlp_norm_bias: jax.Array | None  # [L, D]
    w_up: jax.Array | None  # [L, D, F]
    w_down: jax.Array | None  # [L, F, D]


@struct.dataclass
class Params:
    """All parameters of a model; what a variant lacks is None."""

    embedding: jax.Array  # [V, D]
    ngrams: ngram.NGramLayers | None
    layers: Layers
    final_norm: jax.Array | None  # [D]
    final_norm_bias: jax.Array | None  # [D]
    unembedding: jax.Array  # [D, V]


def abstract(config: Config) -> Params:
    """The tree of ``Leaf`` that initialisation, sharding and conversion derive from."""
    leaf = leaf_maker(config.dims())
    norms, mlp = config.norms, config.mlp_width > 0
    layers = Layers(
        attention_norm=leaf("ld", "ones", when=norms),
        attention_norm_bias=leaf("ld", "zeros", when=norms),
        wq=leaf("ldhk", fan_in="d"),
        wk=leaf("ldhk", fan_in="d"),
        wv=leaf("ldhk", fan_in="d"),
        wo=leaf("lhkd", fan_in="hk"),
        smear=leaf("lh", "zeros", when=config.smeared_keys),
        shift=leaf("lhic", "convex", when=config.shifted),
        mlp_norm=leaf("ld", "ones", when=norms and mlp),
        mlp_norm_bias=leaf("ld", "zeros", when=norms and mlp),
        w_up=leaf("ldf", fan_in="d", when=mlp),
        w_down=leaf("lfd", fan_in="f", when=mlp),
    )
    ngrams = None
    if config.ngram_orders:
        ngrams = ngram.NGramLayers(
            norm=leaf("od", "ones", when=norms),
            norm_bias=leaf("od", "zeros", when=norms),
            w_matched=leaf("oed", fan_in="e"),
            w_own=leaf("oed", fan_in="e"),
        )
    return Params(
        embedding=leaf("vd", fan_in="d"),
        ngrams=ngrams,
        layers=layers,
        final_norm=leaf("d", "ones", when=norms),
        final_norm_bias=leaf("d", "zeros", when=norms),
        unembedding=leaf("dv", fan_in="d"),
    )


def embed(
    params: Params, tokens: jax.Array, positions: jax.Array, config: Config
) -> jax.Array:
    """Residual stream entering the first layer: int [B, T] -> [B, T, D].

    With n-gram layers, tokens are whole rows, and positions begin anew with each of a
    row's documents.
    """
    return _embed(params, tokens, positions, config)[0]


def remember(
    params: Params, tokens: jax.Array, positions: jax.Array, config: Config
) -> ngram.Earlier | None:
    """What ``embed_next`` reads of a prompt: leaves [B, S, ...]; None: nothing."""
    return _embed(params, tokens, positions, config)[1]


def _embed(params, tokens, positions, config):
    """The stream, and what n-gram layers keep of it, if there are any."""
    x = params.embedding[tokens]
    if params.ngrams is None:
        return x, None
    return ngram.run(
        params.ngrams, x, tokens, positions, config.ngram_orders, config.norm_epsilon
    )


def embed_next(
    params: Params,
    token: jax.Array,
    position: jax.Array,
    earlier: ngram.Earlier,
    own: ngram.Earlier,
    index: jax.Array | int,
    config: Config,
) -> tuple[jax.Array, ngram.Earlier]:
    """``embed`` at one position behind a prompt, which ``remember`` was given.

    Args:
        params: of the model.
        token: int [B], the one of M tokens that ``index`` says; the first of them
            replaces the prompt's last.
        position: int [B, 1].
        earlier: from ``remember``.
        own: the same of the M tokens, leaves [B, M, ...].
        index: int.
        config: of the model.

    Returns:
        The stream [B, 1, D], and ``own`` with the token written.
    """
    assert params.ngrams is not None  # or nothing is remembered
    x = params.embedding[token[:, None]]
    orders, epsilon = config.ngram_orders, config.norm_epsilon
    return ngram.run_next(
        params.ngrams, x, token, position[:, 0], earlier, own, index, orders, epsilon
    )


def block(
    layer: Layers,
    x: jax.Array,
    positions: jax.Array,
    attend: Callable[..., jax.Array],
    config: Config,
) -> jax.Array:
    """One layer: ``x += attention(norm(x))``, and ``x += mlp(norm(x))`` if it has one.

    Args:
        layer: one layer's parameters (no L axis).
        x: residual stream [B, T, D].
        positions: int [B, T].
        attend: (q, k, v [B, T, H, K], mix) -> z [B, T, H, K].
        config: of the model.

    Returns:
        The residual stream after the layer [B, T, D].
    """
    with jax.named_scope("attention"):
        normed = attention_input(layer, x, config)
        placed = normed
        if config.positions == "sinusoidal":
            placed = normed + _sinusoids(positions, config).astype(x.dtype)
        q, k = affine(placed, layer.wq), affine(placed, layer.wk)
        v = affine(normed, layer.wv)
        turn = lambda heads: heads
        if config.positions == "rotary":
            turn = lambda heads: rotary(heads, positions, Rope(config.theta))
        if layer.shift is not None:
            z = attend(turn(q), k, v, mix=_shift(layer.shift, turn))
        elif layer.smear is not None:
            z = attend(turn(q), turn(k), v, mix=_smear(layer.smear, positions))
        else:
            z = attend(turn(q), turn(k), v)
        x = x + project_heads(z, layer.wo)
    if layer.w_up is None or layer.w_down is None:
        return x
    with jax.named_scope("mlp"):
        normed = _norm(x, layer.mlp_norm, layer.mlp_norm_bias, config)
        return x + jax.nn.gelu(normed @ layer.w_up, approximate=False) @ layer.w_down


def _smear(smear: jax.Array, positions: jax.Array) -> Callable:
    """How keys take up the previous ones; the first token's stays as it is."""
    first = (positions == 0)[:, :, None, None]
    own = jax.nn.sigmoid(smear)[None, None, :, None]  # [1, 1, H, 1]

    def mix(k, v, previous_k, previous_v):
        del previous_v
        return jnp.where(first, k, own * k + (1 - own) * previous_k), v

    return mix


def _shift(shift: jax.Array, turn: Callable) -> Callable:
    """How keys and values take up the previous ones; keys are rotated after it."""
    a1, a2, b1, b2 = (
        shift[None, None, :, i, j, None] for i in (0, 1) for j in (0, 1)
    )  # [1, 1, H, 1] each

    def mix(k, v, previous_k, previous_v):
        return turn(a1 * k + a2 * previous_k), b1 * v + b2 * previous_v

    return mix


def _sinusoids(positions: jax.Array, config: Config) -> jax.Array:
    """Sines, then cosines, of wavelengths from 2 pi to theta: int [B, T] -> [B, T, D].

    At least float32 whatever the params are, see ``rotary``.
    """
    frequencies = jnp.asarray(Rope(config.theta).frequencies(config.width))  # [D / 2]
    frequencies = frequencies[None, None]
    phases = positions.astype(frequencies.dtype)[:, :, None] * frequencies
    return jnp.concatenate([jnp.sin(phases), jnp.cos(phases)], axis=-1)


def _norm(
    x: jax.Array,
    scale: jax.Array | None,
    bias: jax.Array | None,
    config: Config,
    whole: jax.Array | None = None,
) -> jax.Array:
    if scale is None or bias is None:
        return x
    return layer_norm(x, scale, bias, config.norm_epsilon, whole)


def attention_input(
    layer: Layers, x: jax.Array, config: Config, whole: jax.Array | None = None
) -> jax.Array:
    """What values, and without the position queries and keys, are projected from.

    [..., D] -> [..., D].
    """
    scale, bias = layer.attention_norm, layer.attention_norm_bias
    return _norm(x, scale, bias, config, whole)


def contributions(
    layer: Layers, z: jax.Array, config: Config, whole: jax.Array | None = None
) -> jax.Array:
    """What each head adds to the residual stream: [..., H, K] -> [..., H, D]."""
    del config, whole  # no norm behind the attention
    return project_each_head(z, layer.wo)


def unembed(
    params: Params, x: jax.Array, config: Config, whole: jax.Array | None = None
) -> jax.Array:
    """Logits of a residual stream: [..., D] -> [..., V], float32 or wider.

    With ``whole`` [..., D], those of a part of it, see the contract.
    """
    normed = _norm(x, params.final_norm, params.final_norm_bias, config, whole)
    return to_logits(normed, params.embedding, params.unembedding)


OUTPUT = ("wo",)
"""Leaves that take head outputs to the stream."""
TENSORS = {
    "hf": {
        "embedding": ("embedding", "v d -> v d"),
        "ngrams.norm": ("ngrams.{l}.norm", "d -> d"),
        "ngrams.norm_bias": ("ngrams.{l}.norm_bias", "d -> d"),
        "ngrams.w_matched": ("ngrams.{l}.w_matched", "e d -> e d"),
        "ngrams.w_own": ("ngrams.{l}.w_own", "e d -> e d"),
        "layers.attention_norm": ("layers.{l}.attention_norm", "d -> d"),
        "layers.attention_norm_bias": ("layers.{l}.attention_norm_bias", "d -> d"),
        "layers.wq": ("layers.{l}.wq", "d h k -> d h k"),
        "layers.wk": ("layers.{l}.wk", "d h k -> d h k"),
        "layers.wv": ("layers.{l}.wv", "d h k -> d h k"),
        "layers.wo": ("layers.{l}.wo", "h k d -> h k d"),
        "layers.smear": ("layers.{l}.smear", "h -> h"),
        "layers.shift": ("layers.{l}.shift", "h i c -> h i c"),
        "layers.mlp_norm": ("layers.{l}.mlp_norm", "d -> d"),
        "layers.mlp_norm_bias": ("layers.{l}.mlp_norm_bias", "d -> d"),
        "layers.w_up": ("layers.{l}.w_up", "d f -> d f"),
        "layers.w_down": ("layers.{l}.w_down", "f d -> f d"),
        "final_norm": ("final_norm", "d -> d"),
        "final_norm_bias": ("final_norm_bias", "d -> d"),
        "unembedding": ("unembedding", "d v -> d v"),
    }
}
"""Tensor names and reshapes of every leaf: a toy's are its leaves, layer by layer."""

PREFIX = ""
"""Names have none."""

IGNORED: dict[str, str] = {}
"""Tensors that may be left over: none."""
