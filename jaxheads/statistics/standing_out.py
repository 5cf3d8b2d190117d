"""Which heads' scores stand out from chance, all heads of a model asked at once.

The best of many heads that do nothing of a kind is above chance by selection, and the
error of a score that few samples give is itself uncertain: both belong into the
threshold.
"""

import numpy as np

from jaxheads.statistics.units import student_t_quantile


def stands_out(
    mean: np.ndarray,
    error: np.ndarray,
    chance: float,
    samples: int | None,
    level: float = 0.05,
) -> np.ndarray:
    """Tell which heads are above chance: if none is, any is named in <= 5 % of cases.

    (mean - chance) / error above Student's t quantile at 1 - level / (L H), with
    ``samples`` - 1 degrees of freedom. Where tasks are unequally noisy the mean over A
    tasks has hardly more of them than one task: with A (B - 1) noise on 3 tasks is
    named in 17 to 95 % of models of 144 heads, with B - 1 in 0 to 4 %.

    Args:
        mean: [..., L, H], scores; the leading axes (steps, seeds) are families of their
            own.
        error: as ``mean``, standard errors; no head with a nan stands out.
        chance: of a head that does nothing of the kind.
        samples: B, prompts of a task or sequences, that the errors rest on; None: a
            score without sampling, of which any value above chance stands out.
        level: chance that any of L H heads is named if none is of the kind.

    Returns:
        bool, the shape of ``mean``. Of one sample nothing is known: no head. An error
        of 0 is that of B samples that are all alike, which a head at chance gives with
        probability 2^-B at most: it stands out if L H 2^-B is below the level.
    """
    mean, error = np.asarray(mean, np.float64), np.asarray(error, np.float64)
    above = mean - chance
    if samples is None:
        return above > 0
    heads = mean.shape[-2] * mean.shape[-1]
    if samples < 2:
        return np.zeros(mean.shape, bool)
    alike = (error == 0) & (above > 0) & (heads * 2.0**-samples < level)
    quantile = student_t_quantile(1 - 2 * level / heads, samples - 1)  # one-sided
    return alike | ((error > 0) & (above > quantile * error))
