"""The explicit arguments that change a run: what is replaced or added, and where.

A run takes one of them or a tuple, in which each starts from what the earlier ones
left. Olsson's pattern-preserving ablation, for instance, is a tuple of two: one head's
output set to zero, and every pattern frozen to that of a clean run. ``Addition`` steers
the residual stream; it stands in the same argument.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxheads.models.addition import Addition, by_layer, check_addition
from jaxheads.models.arguments import Array, check_array, check_finite
from jaxheads.models.head_names import named_heads

SITES = ("z", "q", "k", "v", "pattern")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Named:
    """Heads by name, in the place of ``keep`` until a run says how many there are."""

    names: tuple[str, ...]


@struct.dataclass
class Ablation:
    """Which heads to replace, by what, and where.

    ``x' = x + w (1 - keep) (fill - x)`` with x the values at ``site`` and w = ``where``
    as 0/1. It is differentiable in ``keep``, so a gradient with respect to it is an
    attribution; ``vmap`` over ``keep`` is an ablation study.

    The sites, with the heads that ``keep`` speaks of:

    - "z": per-head outputs before the output projection, [L, H];
    - "q": queries, [L, H]; "k" and "v": keys and values, [L, G]: under grouped queries
      one of them serves several heads. All as attention sees them, positions applied;
    - "pattern": attention probabilities, [L, H]. Without a fill the edges of ``where``
      are knocked out: the others of a row share its attention as if the scores of
      these were minus infinity, and a row with no other edge attends to nothing.

    ``Ablation.of`` makes one of a set of heads, by their names or as a bool array.

    Attributes:
        keep: float [L, H] or [L, G]; 1 keeps a head, 0 replaces it.
        fill: what replaces it: None (zeros), [L, H, K] or [L, B, T, H, K], with G for
            H at "k" and "v", and B or T may be 1; at "pattern" [L, B, H, T, S].
        where: bool [B, T], at "k" and "v" of key positions; None: every position.
            At "pattern" bool [B, T, S], edges; None: every edge.
        site: one of ``SITES``; static.
    """

    keep: Array
    fill: Array | None = None
    where: Array | None = None
    site: str = struct.field(pytree_node=False, default="z")

    def __post_init__(self):
        # Trees of other things pass here too: only what has a dtype is looked at.
        if getattr(self.keep, "dtype", None) == jnp.bool_:
            raise TypeError(
                "keep is float, 1 where a head stays and 0 where it is replaced, but "
                "was given as bool, which elsewhere says which heads go: write "
                "Ablation.of(replaced), with True where a head is replaced"
            )

    @classmethod
    def of(
        cls,
        *replaced: Any,
        fill: Array | None = None,
        where: Array | None = None,
        site: str = "z",
    ) -> "Ablation":
        """The ablation of a set of heads.

        Args:
            *replaced: names such as "18.6", or a list of them; or bool [..., L, H],
                True where a head is replaced, with G for H at "k" and "v". Leading
                axes are for ``vmap``. A run checks names against its model.
            fill: see ``Ablation``.
            where: see ``Ablation``.
            site: see ``Ablation``.

        Raises:
            TypeError: what is given is neither.
        """
        listed = [
            name
            for part in replaced
            for name in (part if isinstance(part, list | tuple) else [part])
        ]
        if replaced and all(isinstance(name, str) for name in listed):
            keep: Any = Named(tuple(listed))
        elif len(replaced) == 1 and hasattr(replaced[0], "dtype"):
            keep = 1 - check_set(replaced[0]).astype(np.float32)
        else:
            kinds = ", ".join(type(part).__name__ for part in replaced)
            raise TypeError(
                'a set of heads is names such as "18.6", "20.5", or one bool array '
                "[..., L, H], True where a head is replaced, but "
                f"{kinds or 'nothing'} was given"
            )
        return cls(keep, fill, where, site)


def check_set(replaced: Any) -> Any:
    """The set, if it is a bool array; numbers could mean either, 1 goes or 1 stays.

    Raises:
        TypeError: it is something else.
    """
    if getattr(replaced, "dtype", None) != jnp.bool_:
        raise TypeError(
            "replaced must be bool [..., L, H], True where a head is replaced, but is "
            f"{getattr(replaced, 'dtype', type(replaced).__name__)}: compare it with a "
            "number, so that it is plain which heads go"
        )
    return replaced


@struct.dataclass
class StopGradient:
    """Layers through whose attention and MLP no gradient flows; values do not change.

    ``x_{l+1} = x_l + stop_gradient(x_{l+1} - x_l)`` in the chosen layers.

    Attributes:
        layers: float or bool [L]; 1 stops.

    Source: Kramár et al. 2024 (AtP*), GradDrop.
    """

    layers: jax.Array


Intervention = Ablation | StopGradient | Addition
Ablations = Intervention | Sequence[Intervention] | None


class Dims(NamedTuple):
    """Sizes that ablations are checked against."""

    layers: int
    batch: int
    queries: int
    keys: int
    heads: int
    kv_heads: int
    head_dim: int
    width: int


class Applied:
    """Ablations of a run, layer by layer.

    ``scanned`` has the arrays with a layer axis, for ``lax.scan``; ``at_layer`` takes
    one layer's slice of it.
    """

    def __init__(
        self, parts: Sequence[Intervention], dims: Dims, refused: Sequence[str] = ()
    ):
        self._parts = [part for part in parts if isinstance(part, Ablation)]
        for part in self._parts:
            _check(part, dims)
            if part.site in refused:
                raise ValueError(
                    f"a run of the last position takes no ablation of {part.site!r}: "
                    'use forward, with logits="last"'
                )
        if sum(part.site == "pattern" for part in self._parts) > 1:
            raise ValueError(
                "a run takes one ablation of patterns, but several were given: join "
                "them into one"
            )
        self._additions = [part for part in parts if isinstance(part, Addition)]
        for part in self._additions:
            check_addition(part, dims.layers, dims.batch, dims.queries, dims.width)
            if "residual" in refused:
                raise ValueError(
                    "heads under an ablation of their own layer alone take no "
                    "Addition: it reaches every later layer; use forward"
                )
        stops = [part.layers for part in parts if isinstance(part, StopGradient)]
        self.scanned: Any = (
            [(part.keep, part.fill) for part in self._parts],
            stops,
            [(by_layer(part), part.layers) for part in self._additions],
        )

    def sites(self) -> set[str]:
        """Sites that are ablated, and "residual" where something is added."""
        added = {"residual"} if self._additions else set()
        return {part.site for part in self._parts} | added

    def replace(self, site: str, values: jax.Array, layer: Any) -> jax.Array:
        """Values [B, T, heads, K] at one of "z", "q", "k", "v", in one layer."""
        for part, (keep, fill) in zip(self._parts, layer[0], strict=True):
            if part.site == site:
                values = apply_to_heads(values, keep, fill, part.where)
        return values

    def replace_each(self, q, k, v, layer: Any) -> tuple[jax.Array, ...]:
        """Queries, keys and values, each at its own site."""
        sites = zip("qkv", (q, k, v), strict=True)
        return tuple(self.replace(site, values, layer) for site, values in sites)

    def replace_patterns(
        self, patterns: jax.Array, masked: Callable, mask: jax.Array, layer: Any
    ) -> jax.Array:
        """Patterns [B, H, T, S] in one layer.

        Args:
            patterns: attention probabilities.
            masked: (mask) -> patterns of the same scores under another mask.
            mask: bool [B, T, S], what queries see.
            layer: one layer's slice of ``scanned``.
        """
        for part, (keep, fill) in zip(self._parts, layer[0], strict=True):
            if part.site != "pattern":
                continue
            weight = (1 - keep).astype(patterns.dtype)[None, :, None, None]
            if fill is None:
                edges = jnp.zeros_like(mask) if part.where is None else ~part.where
                fill = masked(mask & edges)
            elif part.where is not None:
                weight = weight * part.where[:, None].astype(patterns.dtype)
            patterns = patterns + weight * (fill.astype(patterns.dtype) - patterns)
        return patterns

    def add(self, x: jax.Array, place: str, layer: Any) -> jax.Array:
        """The residual stream [B, T, D] entering or leaving one layer."""
        for part, (vector, weight) in zip(self._additions, layer[2], strict=True):
            if part.place == place:
                added = (weight * vector).astype(x.dtype)  # [1 or B, 1 or T, D]
                if part.where is not None:
                    added = added * part.where.astype(x.dtype)[:, :, None]
                x = x + added
        return x

    def stop(self, before: jax.Array, after: jax.Array, layer: Any) -> jax.Array:
        """The residual stream after a layer, cut off from its gradient if asked."""
        for stopped in layer[1]:
            cut = before + jax.lax.stop_gradient(after - before)
            after = jnp.where(stopped.astype(bool), cut, after)
        return after


def apply_to_heads(
    heads: jax.Array, keep: jax.Array, fill: Array | None, where: Array | None
) -> jax.Array:
    """One layer's values under an ablation: ``x + w (1 - keep) (fill - x)``.

    Args:
        heads: x [B, T, H, K].
        keep: [H].
        fill: None, [H, K] or [B, T, H, K], B or T may be 1.
        where: None or [B, T].

    Returns:
        x' [B, T, H, K], in the dtype of ``heads``.
    """
    weight = (1 - keep).astype(heads.dtype)[None, None, :, None]  # [1, 1, H, 1]
    if where is not None:
        weight = weight * where.astype(heads.dtype)[:, :, None, None]  # [B, T, H, 1]
    if fill is None:
        return heads - weight * heads
    fill = fill.astype(heads.dtype)
    if fill.ndim == 2:
        fill = fill[None, None]  # [1, 1, H, K]
    return heads + weight * (fill - heads)


def interventions(ablation: Ablations, config) -> tuple[Intervention, ...]:
    """What a run was given as its ablation, as a tuple; names become arrays.

    Every public function that takes an ablation calls this before it compiles anything:
    what is not one would be lost among the leaves of a tree.

    Args:
        ablation: of a run.
        config: of the model.

    Raises:
        TypeError: something in it is no intervention, or an array of another dtype.
        ValueError: a value is not finite, or the model lacks a head that is named.
    """
    if ablation is None:
        return ()
    several = isinstance(ablation, list | tuple)
    parts = tuple(ablation) if several else (ablation,)
    return tuple(_checked(part, config) for part in parts)


def _checked(part: Any, config) -> Intervention:
    """One intervention, its arrays' dtypes and values checked."""
    if isinstance(part, StopGradient):
        shape = (config.num_layers,)
        _check_layers(part.layers, "layers of a StopGradient", shape)
        return part
    if isinstance(part, Addition):
        check_array(part.vector, "addition.vector", "float", "[D]")
        check_finite(part.vector, "addition.vector")
        _check_layers(part.layers, "addition.layers")
        _check_where(part.where, "addition.where", "[B, T]")
        return part
    if not isinstance(part, Ablation):
        raise TypeError(
            "an ablation is an Ablation, a StopGradient, an Addition, a tuple of "
            f"these, or None, but a {type(part).__name__} was given: write "
            'jh.Ablation.of("18.6"), or jh.Ablation.of(replaced) with bool [L, H], '
            "True where a head is replaced"
        )
    if part.site not in SITES:
        raise ValueError(f"ablation.site must be one of {SITES}, not {part.site!r}")
    letters = "[L, G]" if part.site in ("k", "v") else "[L, H]"
    if isinstance(part.keep, Named):
        heads = config.num_kv_heads if part.site in ("k", "v") else config.num_heads
        replaced = named_heads(part.keep.names, (config.num_layers, heads))
        part = dataclasses.replace(part, keep=1 - replaced.astype(np.float32))
    check_array(part.keep, "ablation.keep", "number", letters)
    check_finite(part.keep, "ablation.keep")
    if part.fill is not None:
        check_array(part.fill, "ablation.fill", "float")
        check_finite(part.fill, "ablation.fill")
    edges = "[B, T, S]" if part.site == "pattern" else "[B, T]"
    _check_where(part.where, "ablation.where", edges)
    return part


def _check_layers(layers: Any, name: str, shape: tuple | None = None) -> None:
    """Raise unless it is bool or finite, for each layer."""
    kind = "bool" if getattr(layers, "dtype", None) == jnp.bool_ else "number"
    check_array(layers, name, kind, "[L]", shape)
    check_finite(layers, name)


def _check_where(where: Any, name: str, letters: str) -> None:
    if where is not None:
        check_array(where, name, "bool", letters)


def _check(ablation: Ablation, dims: Dims) -> None:
    """Raise ValueError unless an ablation fits a model and a batch of tokens."""
    d = dims
    letter, heads = ("G", d.kv_heads) if ablation.site in ("k", "v") else ("H", d.heads)
    if ablation.keep.shape != (d.layers, heads):
        raise ValueError(
            f"ablation.keep must have shape [L, {letter}] = {(d.layers, heads)} at "
            f"{ablation.site!r}, but has {ablation.keep.shape}; use jax.vmap for many "
            "subsets"
        )
    patterns = ablation.site == "pattern"
    if ablation.fill is not None:
        shape = ablation.fill.shape
        whole = (d.layers, d.batch, d.queries, heads, d.head_dim)
        if patterns:
            whole = (d.layers, d.batch, heads, d.queries, d.keys)
            fits, names = shape == whole, f"[L, B, H, T, S] = {whole}"
        else:
            small = (d.layers, heads, d.head_dim)
            fits = shape == small or (
                len(shape) == 5
                and (shape[0], *shape[3:]) == small
                and shape[1] in (1, d.batch)
                and shape[2] in (1, d.queries)
            )
            names = f"[L, {letter}, K] = {small} or [L, B, T, {letter}, K] = {whole}"
        if not fits:
            raise ValueError(f"ablation.fill must have shape {names}, but has {shape}")
    if ablation.where is not None:
        wanted = (d.batch, d.queries) + ((d.keys,) if patterns else ())
        if ablation.where.shape != wanted:
            letters = "[B, T, S]" if patterns else "[B, T]"
            raise ValueError(
                f"ablation.where must have shape {letters} = {wanted}, "
                f"but has {ablation.where.shape}"
            )
