"""Value-weighted induction score: attention counted by what it brings along.

A head may attend to a token whose value vector is nearly zero and read nothing. So
attention is weighted by the length of the value vector, ``A[t, s] |v_s|``, and brought
back to a sum of 1 over s (``attention_share`` with ``value_weighted``). Values are
those that attention sees; under grouped queries several heads share one.
"""

import numpy as np

from jaxheads.heads import HeadScores, from_samples
from jaxheads.scores import induction
from jaxheads.scores.config import ScoresConfig

VALUE_WEIGHTED = True
edges = induction.edges


def head_scores(samples: np.ndarray, length: int, bos: bool) -> HeadScores:
    """Head scores from per-sequence shares.

    Args:
        samples: [L, H, B], value-weighted ``attention_share`` of ``induction.edges``.
        length: s of the probe.
        bos: whether the probe begins with BOS.

    Source: Kobayashi et al. 2020, section 3 (norms of value vectors); Feucht et al.
    2025, section 3 (value-weighted attention of induction heads).
    """
    where = f"{length} random tokens repeated once" + (" after BOS" if bos else "")
    return HeadScores(
        "induction_value_weighted",
        *from_samples(samples),
        definition="mean over the second copy of the attention, weighted by the length "
        "of the value vector and brought back to a sum of 1, to the token after the "
        f"first copy of the current one, on {where}; chance: even attention to values "
        "of one length",
        unit="share of attention",
        chance=induction.chance(length, bos),
        ceiling=1.0,
        source="Kobayashi et al. 2020, section 3; Feucht et al. 2025, section 3",
    )


def described(chosen: ScoresConfig, shots: int) -> list[HeadScores]:
    """The score of one head that was never run."""
    return [head_scores(np.zeros((1, 1, 2)), chosen.sequence_length, bos=False)]
