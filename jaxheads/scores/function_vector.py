"""Function-vector score: what a head's mean output on a task restores.

Clean prompts give each head's mean output at the last position; the score is the rise
of the answer's probability when a head of a prompt with shuffled labels is set to it.
Where all answers of a task begin with the same tokens, prompts of both kinds end with
these, and the answer's token is the one that follows (see ``jaxheads.icl.answers``):
the papers' last position and first token wherever a tokenizer gives words one token.
"""

import jax
import numpy as np

from jaxheads.heads import HeadScores
from jaxheads.models.forward import patch_each_head, prefill
from jaxheads.scores.config import ScoresConfig
from jaxheads.statistics.units import mean_and_error


@jax.jit
def effects(
    params,
    tokens: jax.Array,
    lengths: jax.Array,
    targets: jax.Array,
    fill: jax.Array,
    config,
) -> jax.Array:
    """Causal indirect effects of all heads: ``p(y | head := fill) - p(y)``.

    Args:
        params: of the family of ``config``.
        tokens: int [B, T], prompts with shuffled labels, right padded.
        lengths: int [B].
        targets: int [B], the right answers' tokens that follow the prompts.
        fill: [L, H, K], mean head outputs on clean prompts.
        config: of the model.

    Returns:
        [L, H, B], probability.

    Source: Todd et al. 2024, section 2.3.
    """
    prefix = prefill(params, tokens, lengths, config)
    return patch_each_head(params, prefix, fill, targets, config)


def head_scores(
    samples: np.ndarray, shots: int, tasks: int, queries: np.ndarray | None = None
) -> HeadScores:
    """Function-vector scores from per-prompt effects.

    Args:
        samples: [A, L, H, B], effects on B prompts of A tasks.
        shots: demonstrations a prompt.
        tasks: A.
        queries: int [A, B], prompts of a task with one number ask one query; None: each
            asks its own.

    Returns:
        The mean over prompts, then tasks; its standard error over queries, tasks fixed.

    Source: Yin & Steinhardt 2025, section 3; Todd et al. 2024, section 2.3.
    """
    return HeadScores(
        "function_vector",
        *mean_and_error(np.moveaxis(samples, 0, -2), queries),
        definition="rise of the probability of the right answer's first token when the "
        f"head's output at the last position of a {shots}-shot prompt with shuffled "
        f"labels is set to its mean on clean prompts; mean over {tasks} tasks",
        unit="probability",
        chance=0.0,
        ceiling=1.0,
        source="Yin & Steinhardt 2025, section 3; Todd et al. 2024, section 2.3",
    )


def described(chosen: ScoresConfig, shots: int) -> list[HeadScores]:
    """The score of one head that was never run."""
    return [head_scores(np.zeros((1, 1, 1, 2)), shots, len(chosen.tasks))]
