"""All induction heads removed at once, against as many others.

Heads that do the same work stand in for one another when they are removed one by one;
together they cannot.
"""

from typing import TYPE_CHECKING

import numpy as np

from jaxheads.evidence.attribution import scores_without
from jaxheads.evidence.head_effects import INDUCTION

if TYPE_CHECKING:
    from jaxheads.training.trained import Trained

DRAWS = 4
"""Random sets of other heads."""


def joint_ablation(
    trained: "Trained",
    step: int,
    prefix_matching: np.ndarray,
    *,
    samples: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """ICL scores with nothing, all induction heads, or as many others removed.

    Attention patterns stay as they were, see ``scores_without``.

    Args:
        trained: the run.
        step: of the checkpoint.
        prefix_matching: of its models, [N, L, H]; induction heads are above 0.3.
        samples: held-out windows, at most.
        seed: of the draws.

    Returns:
        "icl_score" float32 [2 + draws, N], nats: of the whole model, without its
        induction heads, without each draw of as many others; NaN where a seed has no
        induction head, or fewer others. "removed" bool [2 + draws, N, L, H].
    """
    chosen = prefix_matching > INDUCTION
    removed = np.stack(
        [np.zeros_like(chosen), chosen, *draw_others(chosen, DRAWS, seed)]
    )
    scores = scores_without(trained, step, removed, samples=samples)
    scores[1:][~removed[1:].any(axis=(2, 3))] = np.nan
    return {"icl_score": scores.astype(np.float32), "removed": removed}


def draw_others(chosen: np.ndarray, draws: int, seed: int) -> list[np.ndarray]:
    """Random sets of as many heads as are chosen, of those that are not.

    Args:
        chosen: bool [N, L, H].
        draws: sets of each seed.
        seed: of the draws.

    Returns:
        ``draws`` arrays bool [N, L, H]; nothing of a seed that has fewer others.
    """
    rng = np.random.default_rng([seed, 16])
    found = []
    for _ in range(draws):
        made = np.zeros_like(chosen)
        for n, each in enumerate(chosen):
            others = np.flatnonzero(~each.ravel())
            if each.sum() <= len(others):
                made[n].flat[rng.permutation(others)[: each.sum()]] = True
        found.append(made)
    return found
