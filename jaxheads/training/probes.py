"""Probes of a model in training: random tokens, fixed throughout a run.

One program for each probe, for params of N runs at once; a single run is computed
without their axis.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.engine.chunks import over_prompts
from jaxheads.errors import UserError
from jaxheads.models.forward import forward
from jaxheads.scores import induction, previous_token
from jaxheads.scores.attention import attention_share
from jaxheads.scores.copying import copied
from jaxheads.training.data.function_mixture import FunctionMixture
from jaxheads.training.data.languages import RegularLanguages
from jaxheads.training.data.windows import Source
from jaxheads.training.step import over_runs

BUDGET_BYTES = 2**28
"""For the activations and logits of what runs at once."""


@dataclasses.dataclass(frozen=True, eq=False)
class Probes:
    """Sequences of random tokens; let s be the period, and BOS one token or none.

    Attributes:
        repeated: int32 [B, BOS + repeats s], distinct tokens, repeated.
        once: int32 [B, BOS + s], distinct tokens.
        cut: int32 [B', BOS + 2 s - 1], repeated once without the last token.
        wanted: int32 [B', s - 1], what follows r_1 ... r_(s-1) in the second copy.
        period: s.
        repeats: how often the tokens stand in ``repeated``.
        bos: whether sequences begin with BOS.
    """

    repeated: np.ndarray
    once: np.ndarray
    cut: np.ndarray
    wanted: np.ndarray
    period: int
    repeats: int
    bos: bool

    @property
    def edges(self) -> dict[str, np.ndarray]:
        """What attention on ``repeated`` is weighed with, [T, S] by score."""
        return {
            "prefix_matching": induction.edges(
                self.period, self.bos, repeats=self.repeats
            ),
            "previous_token": previous_token.edges(self.repeated.shape[1]),
        }


def draw_probes(
    source: Source,
    context_length: int,
    *,
    sequences: int = 10,
    period: int = 25,
    repeats: int = 4,
    repetitions: int = 100,
    seed: int = 0,
) -> Probes:
    """Draw the sequences of all probes out of the tokens that a source repeats.

    Args:
        source: of training; its BOS begins the sequences if it has one.
        context_length: of the model. Sequences are no longer than this and than the
            source's windows.
        sequences: of the attention and copying probes, B.
        period: s at most; less where the context or the vocabulary is too small.
        repeats: how often the tokens stand there, R; 2: repeated once.
        repetitions: sequences of the repetition accuracy, B'.
        seed: of the draws.

    Raises:
        UserError: there is no room for 2 tokens, repeated.
    """
    ids, bos_id = probe_ids(source)
    begins = int(bos_id is not None)
    length = min(source.sequence_length, context_length) - begins
    period = min(period, length // repeats, len(ids))
    if period < 2:
        raise UserError(
            f"evidence repeats 2 tokens or more {repeats} times, but windows of "
            f"{source.sequence_length} tokens out of {len(ids)} have no room for it: "
            "give longer windows, or turn the evidence off"
        )
    make = lambda count, times, at: induction.probe(
        count, period, ids.tolist(), bos_id, 3 * seed + at, times
    )
    twice = make(repetitions, 2, 2)
    return Probes(
        repeated=make(sequences, repeats, 0),
        once=make(sequences, 1, 1),
        cut=twice[:, :-1],
        wanted=twice[:, begins + period + 1 :],
        period=period,
        repeats=repeats,
        bos=bool(begins),
    )


def probe_ids(source: Source) -> tuple[np.ndarray, int | None]:
    """The tokens that a source repeats, and its BOS.

    All of its vocabulary but BOS and end of document; of ``FunctionMixture`` the text
    tokens, of ``RegularLanguages`` the symbols.

    Args:
        source: of training.

    Returns:
        int [ids], and an id or None.
    """
    if isinstance(source, FunctionMixture):
        first = 2 * source.inputs
        bos_id = source.vocab_size - 1 if source.bos else None
        return np.arange(first, first + source.text_tokens), bos_id
    if isinstance(source, RegularLanguages):
        return np.arange(source.separator), None
    bos_id = getattr(source, "bos_id", None)
    left_out = [bos_id, getattr(source, "eos_id", None)]
    ids = np.arange(source.vocab_size)
    return ids[~np.isin(ids, [x for x in left_out if x is not None])], bos_id


def head_figures(params: Any, probes: Probes, config: Any) -> dict[str, np.ndarray]:
    """Scores of every head of N runs.

    - "prefix_matching": mean attention from the tokens of later copies to all tokens
      that followed earlier copies of them;
    - "previous_token": mean attention to the token just before, on the same sequences;
    - "copying": ``scores.copying.copied``, -1 to 1.

    Args:
        params: leaves [N, ...].
        probes: from ``draw_probes``.
        config: of the model.

    Returns:
        float32 [N, L, H] by name.

    Source: Olsson et al. 2022, head activation evaluators (there previous-token scores
    are of training text).
    """
    shares = _in_chunks(_shares, params, (probes.repeated,), (config, probes.edges))
    raised = _in_chunks(_copied, params, (probes.once,), (config, probes.bos))
    found = shares | {"copying": raised}
    return {name: each.mean(axis=-1, dtype=np.float32) for name, each in found.items()}


def repetition_figures(
    params: Any, probes: Probes, config: Any
) -> dict[str, np.ndarray]:
    """How well random tokens are repeated: ``r_1 ... r_s r_1 ... r_(s-1)``.

    - "repetition_accuracy": share of sequences after which r_s is the likeliest token,
      the paper's figure; it rises later than the mean.
    - "repetition_accuracy_whole": mean over r_2 ... r_s of the second copy.

    Args:
        params: leaves [N, ...].
        probes: from ``draw_probes``; its tokens are distinct.
        config: of the model.

    Returns:
        float32 [N] by name; chance is 1 over the vocabulary.

    Source: Sahin et al. 2025, arXiv 2511.05743 (1000 sequences; s was not found).
    """
    right = repetition_right(params, probes, config)
    return {
        "repetition_accuracy": right[:, -1].mean(axis=-1, dtype=np.float32),
        "repetition_accuracy_whole": right.mean(axis=(1, 2), dtype=np.float32),
    }


def repetition_right(params: Any, probes: Probes, config: Any) -> np.ndarray:
    """Whether each of r_2 ... r_s is the likeliest token in the second copy.

    Args:
        params: leaves [N, ...].
        probes: from ``draw_probes``; its tokens are distinct.
        config: of the model.

    Returns:
        bool [N, s - 1, B'].
    """
    predicted = _in_chunks(_repeated, params, (probes.cut,), (config, probes.period))
    return predicted == probes.wanted.T


@jax.jit
def _shares(params, tokens, config, edges):
    """Of each name [N, L, H, B]."""
    return over_runs(lambda one: attention_share(one, tokens, config, edges))(params)


@jax.jit
def _copied(params, tokens, config, bos):
    """[N, L, H, B]."""
    return over_runs(lambda one: copied(one, tokens, config, bos))(params)


@functools.partial(jax.jit, static_argnums=3)
def _repeated(params, tokens, config, period):
    """The likeliest next tokens at the last ``period - 1`` positions, [N, s - 1, B]."""
    rows, length = tokens.shape
    at = jnp.arange(length - period + 1, length)
    at = jnp.broadcast_to(at[None], (rows, period - 1))

    def of_run(one):
        logits = forward(one, tokens, config, logits=at).logits
        return jnp.argmax(logits, axis=-1).T

    return over_runs(of_run)(params)


def _in_chunks(
    function: Callable, params: Any, rows: tuple[np.ndarray, ...], others: tuple
) -> Any:
    """Call a function on chunks of sequences and join its results at the last axis."""
    config, (count, length) = others[0], rows[0].shape
    runs = jax.tree.leaves(params)[0].shape[0]
    # Patterns of all layers are the largest, or what is added to the stream by head.
    heads = config.num_heads * length
    each = heads * (config.num_layers * length + 2 * length + config.width)
    chunk = int(
        max(1, BUDGET_BYTES // (4 * runs * (each + length * config.vocab_size)))
    )
    parts = over_prompts(function, params, rows, others, chunk=chunk)
    return jax.tree.map(
        lambda *each: np.concatenate(each, axis=-1)[..., :count], *parts
    )
