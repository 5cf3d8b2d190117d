"""Function vectors: a task as one vector, run by adding it to the residual stream.

The mean outputs of a few heads on prompts of a task, each through the output
projection, add up to one vector; added to the stream of a prompt that does not show
the task, at the last position of one layer, it makes the model do the task. For
instance::

    from jaxheads import heads
    from jaxheads.engine import fills
    from jaxheads.studies.function_vectors.vectors import function_vector, read_out

    mean = fills.mean(params, scoring.tokens, scoring.lengths, config)
    vector = function_vector(params, mean, heads.top(scores, 10), config)
    ids, logits = read_out(params, vector, config)

    nested = heads.prefixes(scores, [1, 2, 5, 10, 20])  # the size sweep
    make = lambda chosen: function_vector(params, mean, chosen, config)
    vectors = jax.vmap(make)(nested)
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.engine import plan
from jaxheads.engine.chunks import chunks
from jaxheads.engine.passes import Pass
from jaxheads.errors import UserError
from jaxheads.icl.prompts import Batch
from jaxheads.models import family
from jaxheads.models.addition import PLACES
from jaxheads.models.arguments import check_array, check_finite, check_ids, check_tokens
from jaxheads.models.forward import prefill
from jaxheads.models.layer_scan import exact_products
from jaxheads.models.metrics import probability
from jaxheads.models.steering import steer

BIASES = ("none", "each_head")


@functools.partial(jax.jit, static_argnames="bias")
def function_vector(
    params, mean_heads: jax.Array, heads: jax.Array, config, bias: str = "none"
) -> jax.Array:
    """The function vector of a task: what chosen heads add to the stream on average.

    ``v = sum over chosen (l, h) of mean_heads[l, h] @ wo[l, h]``, for each head what
    the family says it adds. A norm behind the attention (Gemma 2, OLMo 2) keeps the
    denominator that the mean outputs of all heads of the layer together have: it is
    the same whichever heads are chosen.

    Args:
        params: of the family of ``config``.
        mean_heads: z [L, H, K], mean outputs at the last position of the task's
            prompts, such as ``fills.mean`` gives.
        heads: bool [L, H], the chosen ones; or float, their weights. ``vmap`` over it
            makes vectors of many sets.
        config: of the model; static.
        bias: "none"; or "each_head": the bias of a layer's output projection, if it
            has one, is added once for each of its chosen heads, as the published code
            does.

    Returns:
        [D], float32 or wider.

    Raises:
        ValueError: shapes that do not fit, or an unknown bias.

    Source: Todd et al. 2024, section 2.3, and their code (the bias).
    """
    shape = (config.num_layers, config.num_heads)
    if mean_heads.shape != (*shape, config.head_dim) or heads.shape != shape:
        raise ValueError(
            f"mean_heads must be [L, H, K] = {(*shape, config.head_dim)} and heads "
            f"[L, H], not {mean_heads.shape} and {heads.shape}; use jax.vmap for many"
        )
    if bias not in BIASES:
        raise ValueError(f"bias must be one of {BIASES}, not {bias!r}")
    model = family(config.model_type)
    dtype = jnp.promote_types(params.layers.wo.dtype, jnp.float32)
    weights = heads.astype(dtype)
    with exact_products(params):
        each = jax.vmap(lambda layer, z: model.contributions(layer, z, config))(
            params.layers, mean_heads.astype(params.layers.wo.dtype)
        )  # [L, H, D]
        vector = jnp.einsum("lhd,lh->d", each.astype(dtype), weights)
        added = getattr(params.layers, "bo", None)  # [L, D]
        if bias == "each_head" and added is not None:
            vector += jnp.einsum("ld,lh->d", added.astype(dtype), weights)
    return vector


@functools.partial(jax.jit, static_argnames="k")
def read_out(
    params, vector: jax.Array, config, k: int = 10
) -> tuple[jax.Array, jax.Array]:
    """The tokens that a vector speaks for: unembedded as if it were the whole stream.

    Args:
        params: of the family of ``config``.
        vector: float [..., D].
        config: of the model; static.
        k: how many tokens; static.

    Returns:
        Ids int32 [..., k] of the largest logits, and those logits [..., k], behind the
        final norm with the vector's own statistics.

    Source: Todd et al. 2024, section 3.2 (decoded vocabulary of function vectors).
    """
    with exact_products(params):
        logits = family(config.model_type).unembed(params, vector, config)
    values, ids = jax.lax.top_k(logits, k)
    return ids, values


class Answers(NamedTuple):
    """What prompts' first answer tokens came to.

    Attributes:
        right: bool [..., B], whether the right token was the most likely one.
        probability: float32 [..., B], of the right token.
    """

    right: Any
    probability: Any


def first_tokens(logits: jax.Array, targets: jax.Array) -> Answers:
    """Answers [...] of logits [..., V] and right tokens int [...]."""
    right = logits.argmax(axis=-1) == targets
    return Answers(right, probability(logits, targets))


def starts_of(config, layers: Sequence[int], place: str) -> np.ndarray:
    """The layers whose input a vector is added to: int [A], L for the last norm's.

    Args:
        config: of the model.
        layers: where it is to be added.
        place: "entering" or "leaving" the layer.

    Raises:
        UserError: a layer that the model does not have, or an unknown place.
    """
    if place not in PLACES:
        raise UserError(f"a vector is added at one of {PLACES}, not {place!r}.")
    wrong = [layer for layer in layers if not 0 <= layer < config.num_layers]
    if wrong or not len(layers):
        raise UserError(
            f"a vector is added in layers 0 to {config.num_layers - 1}, not {wrong}: "
            "name one layer or more of these."
        )
    return np.array(layers, np.int32) + (place == "leaving")


class Rows:
    """Vectors and where they are added, in chunks of runs that go at once.

    Args:
        vectors: float [R, D].
        starts: int [R], see ``starts_of``.
        at_once: rows of a chunk, at most.

    Attributes:
        vectors: float32 [C, R', D], sorted by start.
        starts: int32 [C, R'].
    """

    def __init__(self, vectors: np.ndarray, starts: np.ndarray, at_once: int):
        self._count = len(starts)
        order = np.argsort(starts, kind="stable")
        self._index = np.zeros((0, 1), np.int32)
        if self._count:  # the last chunk may repeat a row
            parts = [order[index] for index in chunks(self._count, at_once)]
            self._index = np.array(parts, np.int32)
        self.vectors = np.asarray(vectors, np.float32)[self._index]
        self.starts = np.asarray(starts, np.int32)[self._index]

    def restored(self, values: np.ndarray) -> np.ndarray:
        """Values [C, R', B] of the chunks' runs, in the order given: [R, B]."""
        out = np.zeros((self._count, values.shape[-1]), values.dtype)
        out[self._index.ravel()] = values.reshape(-1, values.shape[-1])
        return out


def answer_rows(
    params, config, prompts: Batch, rows: Rows, chunk: int
) -> tuple[Answers, Answers]:
    """Answers without a vector [B], and with that of each row, where it says: [R, B].

    Args:
        params: of the family of ``config``.
        config: of the model.
        prompts: B of them, and the first tokens of their right answers.
        rows: vectors and where they are added; may be none.
        chunk: prompts that run at once.

    Raises:
        TypeError: prompts that are no arrays of integers.
        ValueError: a token, a length or a target that is not there; a vector that is
            not finite.
    """
    check_tokens(prompts.tokens, config, prompts.lengths)
    check_array(prompts.targets, "targets", "int", "[B]", prompts.lengths.shape)
    check_ids(prompts.targets, "targets", config.vocab_size)
    check_finite(rows.vectors, "vectors")
    plain, steered = answers_of_rows(config, prompts, rows).in_chunks(params, chunk)
    return plain, Answers(*map(rows.restored, steered))


def answers_of_rows(config, prompts: Batch, rows: Rows) -> Pass:
    """``answer`` of prompts, at the price of the prompts alone."""
    length = prompts.tokens.shape[1]
    return Pass(
        f"{length}-token prompts under vectors",
        answer,
        (prompts.tokens, prompts.lengths, prompts.targets),
        (rows.vectors, rows.starts, config),
        plan.sequence(config, length),
    )


@jax.jit
def answer(params, tokens, lengths, targets, vectors, starts, config):
    """Answers [B] and [C, R, B], of vectors [C, R, D] that enter at starts [C, R]."""
    prefix = prefill(params, tokens, lengths, config)
    plain = first_tokens(prefix.logits, targets)
    if not starts.size:
        none = lambda part: jnp.zeros((*starts.shape, len(tokens)), part.dtype)
        return plain, jax.tree.map(none, plain)
    steered = steer(
        params, prefix, vectors, starts, targets, config, metric=first_tokens
    )
    return plain, steered
