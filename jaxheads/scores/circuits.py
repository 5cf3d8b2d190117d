"""Heads as products of weights between tokens: what the OV and QK scores share.

Vectors are rows: token u enters as row u of the embedding E [V, D], a head reads the
value ``x V`` of it and adds ``x V O`` to the stream, which is read out as ``x U``.

Norms take part with their scales and their centring and with 1 for a denominator;
positions, biases, MLPs, and norms of queries and keys are left out.

Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.engine import plan
from jaxheads.heads import HeadScores
from jaxheads.models import family
from jaxheads.models.layer_scan import exact_products
from jaxheads.runs import Arrays
from jaxheads.scores.config import ScoresConfig
from jaxheads.scores.part import Asked, Known, Part

_CHUNK = 8192  # of the vocabulary, so that no float64 copy of a whole matrix is made


class Maps(NamedTuple):
    """One layer's matrices, with norms folded in, float64.

    Attributes:
        queries: [H, D, K].
        keys: [H, D, K], each head with those of its group.
        values: [H, D, K], each head with those of its group.
        outputs: [H, K, D].
    """

    queries: np.ndarray
    keys: np.ndarray
    values: np.ndarray
    outputs: np.ndarray


def layers(params, config) -> Iterator[Maps]:
    """The matrices of every layer, first to last."""
    for index in range(config.num_layers):
        yield Maps(*(np.asarray(x, np.float64) for x in _layer(params, index, config)))


@jax.jit
def _layer(params, index, config) -> tuple[jax.Array, ...]:
    model = family(config.model_type)
    layer = jax.tree.map(lambda leaf: _wide(leaf[index]), params.layers)
    whole = _unit(config)
    heads = (config.num_heads, config.head_dim, config.head_dim)
    each = jnp.broadcast_to(jnp.eye(config.head_dim)[None], heads).swapaxes(0, 1)
    with exact_products(params):
        norm = model.attention_input(layer, jnp.eye(config.width), config, whole)
        read = lambda weights: jnp.repeat(
            jnp.einsum("ed,dgk->gek", norm, weights),
            config.num_heads // weights.shape[1],
            axis=0,
        )
        outputs = model.contributions(layer, each, config, whole)  # [K, H, D]
        inputs = (read(weights) for weights in (layer.wq, layer.wk, layer.wv))
        return (*inputs, outputs.swapaxes(0, 1))


def unembed_embed(params, config) -> np.ndarray:
    """``U E``: from the stream to the tokens and back to it, float64 [D, D]."""
    read_out = np.asarray(_read_out(params, config))  # [D, V]
    return _over_vocabulary(read_out.T, params.embedding)


def embed_embed(params) -> np.ndarray:
    """``E^T E``, float64 [D, D]."""
    return _over_vocabulary(params.embedding, params.embedding)


@jax.jit
def _read_out(params, config) -> jax.Array:
    model = family(config.model_type)
    with exact_products(params):
        return model.unembed(params, jnp.eye(config.width), config, _unit(config))


def _over_vocabulary(left, right) -> np.ndarray:
    """``left^T right`` of [V, D] and [V, D], summed in float64."""
    left, right = np.asarray(left), np.asarray(right)
    parts = range(0, len(left), _CHUNK)
    wide = lambda matrix, at: np.asarray(matrix[at : at + _CHUNK], np.float64)
    return functools.reduce(
        np.add, (wide(left, at).T @ wide(right, at) for at in parts)
    )


def _unit(config) -> jax.Array:
    """A stream [1, D] with mean 0 and mean square 1: denominators of norms are 1."""
    pair = np.zeros((1, config.width), np.float32)
    pair[0, :2] = np.sqrt(config.width / 2) * np.array([1, -1])
    return jnp.asarray(pair)


def _wide(leaf: jax.Array) -> jax.Array:
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))


def positivity(circuits: np.ndarray) -> np.ndarray:
    """Sum of a matrix' eigenvalues over the sum of their magnitudes.

    1 if all are positive, -1 if all are negative, about 0 if they lie anywhere; 0 for a
    matrix of zeros. A factor on the matrix changes nothing.

    Args:
        circuits: float [..., K, K].

    Returns:
        [...], -1 to 1.

    Source: Elhage et al. 2021, "Summarizing OV/QK matrices".
    """
    values = np.linalg.eigvals(circuits)
    magnitude = np.abs(values).sum(axis=-1)
    return values.real.sum(axis=-1) / np.where(magnitude > 0, magnitude, 1)


def copying_circuits(params, config) -> np.ndarray:
    """``O (U E) V`` of every head: float64 [L, H, K, K].

    Args:
        params: of the family of ``config``.
        config: of the model.

    Source: Elhage et al. 2021, "Copying / primitive in-context learning".
    """
    through = unembed_embed(params, config)
    return np.stack(
        [maps.outputs @ through @ maps.values for maps in layers(params, config)]
    )


def head_scores(products: np.ndarray) -> HeadScores:
    """Head scores from the circuits.

    Args:
        products: [L, H, K, K], from ``copying_circuits``.

    Source: Elhage et al. 2021, "Copying / primitive in-context learning".
    """
    scores = positivity(products)
    return HeadScores(
        "copying_circuit",
        scores,
        np.zeros_like(scores),
        definition="sum of the eigenvalues of the head's map from tokens to logits, "
        "through its values, its output projection and the unembedding, over the sum "
        "of their magnitudes; the scales of norms take part; read off the weights, so "
        "without sampling error; chance: random weights, on average",
        unit="share of eigenvalues' magnitude",
        chance=0.0,
        ceiling=1.0,
        source="Elhage et al. 2021, copying heads",
    )


def described(chosen: ScoresConfig, shots: int) -> list[HeadScores]:
    """The score of one head that was never run."""
    return [head_scores(np.ones((1, 1, 1, 1)))]


def parts(names: Sequence[str], asked: Asked) -> list[Part]:
    """What computes the score."""
    return [
        of_weights(
            "circuits",
            1,
            lambda params, config, known: {"ov": copying_circuits(params, config)},
            lambda measured: [head_scores(measured["ov"])],
        )
    ]


def of_weights(
    name: str,
    products: int,
    read: Callable[[Any, Any, Known], Arrays],
    scores: Callable[[Arrays], list[HeadScores]],
) -> Part:
    """A part that reads the weights alone.

    Args:
        name: of the unit.
        products: over the vocabulary.
        read: of params, config and the usual scores: circuits [L, H, K, K] by name.
        scores: of these.
    """

    def cost(config) -> plan.Cost:
        flops = 2.0 * config.vocab_size * config.width**2 * products
        return plan.Cost(flops=flops, bytes=8.0 * config.width**2)

    def measure(params, config, budget_bytes: int, known: Known) -> Arrays:
        return read(params, config, known)

    # Nothing is fed to the model, and small products of weights need no plan.
    return Part(name, {}, cost, lambda *_: [], measure, scores)
