"""The abstract parameter tree: shapes, axes and initializers, said once."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Leaf:
    """What is known of one parameter before it has values.

    Attributes:
        shape: sizes of the axes.
        axes: logical names of the axes ("layers", "residual", "heads", "kv_heads",
            "head_width", "mlp", "vocabulary", "positions", "pair", "ngram_layers"), for
            sharding.
        init: "normal" (scaled by 1/sqrt(fan_in)), "ones", "zeros", or "convex": pairs
            (u, 1 - u) along the last axis, u uniform from 0 to 1.
        fan_in: the product of the contracted axes; only "normal" reads it.
    """

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    init: str = "normal"
    fan_in: int = 1


AXES = {
    "l": "layers",
    "d": "residual",
    "h": "heads",
    "g": "kv_heads",
    "k": "head_width",
    "f": "mlp",
    "v": "vocabulary",
    "t": "positions",
    "i": "pair",
    "c": "pair",
    "e": "residual",
    "o": "ngram_layers",
}
"""Logical axis of each dim letter, as families write the shapes of their leaves."""


def leaf_maker(dims: Mapping[str, int]) -> Callable[..., Any]:
    """A function from dim letters, such as "ldhk", to the ``Leaf`` of that shape.

    It takes ``init``; ``fan_in``, the letters of the contracted axes; and ``when``: if
    that is False, the model lacks the leaf and it is None.

    Args:
        dims: sizes by letter, from ``config.dims()``.
    """

    def leaf(
        letters: str, init: str = "normal", fan_in: str = "", when: bool = True
    ) -> Any:  # a Leaf stands where the tree of params says jax.Array
        if not when:
            return None
        shape = tuple(dims[letter] for letter in letters)
        fan = math.prod(dims[letter] for letter in fan_in)
        return Leaf(shape, tuple(AXES[letter] for letter in letters), init, fan)

    return leaf


def is_leaf(node: object) -> bool:
    """Whether a node of an abstract tree is a ``Leaf``."""
    return isinstance(node, Leaf)


def num_params(abstract: Any) -> int:
    """The number of scalars in a tree of ``Leaf``."""
    leaves = jax.tree.leaves(abstract, is_leaf=is_leaf)
    return sum(math.prod(leaf.shape) for leaf in leaves)


def init_params(abstract: Any, key: jax.Array, dtype=jnp.float32, scale: float = 1.0):
    """Random parameters in the shape of an abstract tree.

    Args:
        abstract: tree of ``Leaf``, from a family's ``abstract(config)``.
        key: PRNG key.
        dtype: of every parameter.
        scale: factor on the "normal" leaves; tests of exactness use large weights.

    Returns:
        The same tree with arrays: normal leaves have standard deviation
        ``scale / sqrt(fan_in)``.
    """
    leaves, treedef = jax.tree.flatten(abstract, is_leaf=is_leaf)
    keys = jax.random.split(key, len(leaves))

    def make(leaf: Leaf, key: jax.Array) -> jax.Array:
        if leaf.init == "normal":
            deviation = scale / math.sqrt(leaf.fan_in)
            values = deviation * jax.random.normal(key, leaf.shape, jnp.float32)
            return values.astype(dtype)
        if leaf.init == "convex":
            share = jax.random.uniform(key, leaf.shape[:-1], jnp.float32)
            return jnp.stack([share, 1 - share], axis=-1).astype(dtype)
        return jnp.full(leaf.shape, {"ones": 1, "zeros": 0}[leaf.init], dtype)

    made = [make(leaf, key) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(treedef, made)
