"""Claims about how heads came about in training, on a dynamics run.

Each function measures one claim; its docstring is the rule of its judgement.
"""

import math
from typing import Any

import numpy as np

from jaxheads.report import words
from jaxheads.runs import Run
from jaxheads.statistics.claims import Definition, Measured, Rules, Untested
from jaxheads.statistics.seeds import FEWEST, p_of_zero
from jaxheads.statistics.units import Estimate

_SCORED = "tasks of FV scores, and sequences of induction scores"


def induction_emerges_first(run: Run, rules: Rules) -> Measured:
    """Steps at which FV and induction scores emerge, their ratio in octaves.

    A score emerges where the mean of its top 2 % of heads has passed half of the way
    from chance to its last value and a head stands out. Of one training, p is twice the
    share of the resamples in which induction was not first for sure, and the interval
    has both dates' resamples and checkpoints. Of 3 seeds or more: Student's t over
    seeds, with the spacing of the checkpoints.
    """
    if "dynamics_seeds" in run.result:
        return _over_seeds(run, rules)
    found = _dynamics(run).get("emergence") or {}
    first = (found.get("first") or {}).get("final")
    dates = [(found.get(name) or {}).get("final") or {} for name in ("induction", "fv")]
    if not first:
        named = zip(("induction", "FV"), dates, strict=True)
        why = [f"by {name} score {d['reason']}" for name, d in named if d.get("reason")]
        text = "; ".join(why) or "one of the scores did not emerge"
        raise Untested("undecided", words.sentence(f"{text}."))
    induction, fv = dates
    samples = int(found["samples"])
    late = min(first["neither"] + first["fv"], first["neither"] + first["induction"])
    low = _octaves(fv["after"], induction["high"])
    high = _octaves(fv["high"], induction["after"])
    return Measured(
        _octaves(fv["step"], induction["step"]),
        low,
        high,
        p=min(1.0, 2 * (1 + samples * late) / (1 + samples)),
        over=_SCORED,
        p_over=_SCORED,
        evidence=f"Induction emerges at step {induction['step']:,}, the FV score at "
        f"step {fv['step']:,}; induction is first in "
        f"{words.percent(round(first['induction'], 3))} of the resamples.",
        unit="octaves",
        smallest=rules.smallest,
    )


def _over_seeds(run: Run, rules: Rules) -> Measured:
    """The same over the seeds of a training in which both scores emerge."""
    ends = []
    for one in run.result["dynamics_seeds"]["seeds"]:
        fv, induction = (
            one["emergence"][kind]["final"] for kind in ("fv", "induction")
        )
        if None not in (fv["step"], induction["step"]):
            before = [
                date["step"] if date["before"] is None else date["before"]
                for date in (fv, induction)
            ]
            ends.append(
                (
                    _octaves(before[0], induction["step"]),
                    _octaves(fv["step"], before[1]),
                )
            )
    count = words.plural(len(ends), "seed")
    if len(ends) < FEWEST:
        raise Untested(
            "undecided",
            f"Both scores emerge in {count}, and fewer than {FEWEST} decide nothing.",
        )
    found, spacing = of_intervals(np.array(ends))
    low, high = found.interval()[1:]
    nearer = found._replace(mean=max(abs(found.mean) - spacing, 0.0))
    return Measured(
        found.mean,
        low - spacing,
        high + spacing,
        p=p_of_zero(nearer),
        over="seeds",
        p_over="seeds",
        evidence=f"FV emerges {words.number(found.mean)} octaves of steps after "
        f"induction, over {count} in which both do.",
        unit="octaves",
        smallest=rules.smallest,
    )


def of_intervals(ends: np.ndarray) -> tuple[Estimate, float]:
    """The mean of values that are known to lie between ends alone.

    Half of the mean distance of the ends, h, may be off in all values alike, as they
    share a grid; its variance as of even chances, h^2 / 3, is added to each value's.

    Args:
        ends: [N, 2], lower and upper.

    Returns:
        The mean of the middles, and h.
    """
    middles, half = ends.mean(axis=1), float(np.diff(ends, axis=1).mean() / 2)
    count = len(ends)
    variance = (float(middles.var(ddof=1)) + half**2 / 3) / count
    return Estimate(float(middles.mean()), variance, float(count - 1)), half


def fv_heads_were_induction_heads(run: Run, rules: Rules) -> Measured:
    """Share of the final FV heads that were induction heads first, above chance.

    FV heads: of the top 2 % by FV score those that stand out at the last step. Chance:
    the induction trajectories given to other heads. p is the larger one of permutations
    over all heads and within layers; Wilson's interval over heads. It is a correlation
    of two scores over checkpoints, no causal test.
    """
    found = _dynamics(run).get("transitions") or {}
    heads = found.get("shown") or 0
    if not heads or not found.get("p_value"):
        raise Untested(
            "undecided", "No FV head stands out from chance at the last step."
        )
    count, chance = found["count"], max(found["expected"].values()) / heads
    low, high = wilson(count, heads)
    return Measured(
        count / heads - chance,
        low - chance,
        high - chance,
        p=max(found["p_value"].values()),
        over="heads",
        p_over="heads",
        evidence=f"{count} of the {heads} final FV heads were induction heads first; "
        f"{words.number(chance * heads)} by chance.",
        unit="share of heads",
        smallest=rules.smallest,
    )


def wilson(count: int, trials: int) -> tuple[float, float]:
    """Give Wilson's 95 % interval of a share.

    Source: Wilson 1927, Probable inference.
    """
    from scipy import stats

    return stats.binomtest(count, trials).proportion_ci(method="wilson")


def _dynamics(run: Run) -> dict[str, Any]:
    found = run.result.get("dynamics")
    if not found:
        raise Untested("not measured", "The run is of one checkpoint.")
    return found


def _octaves(late: int, early: int) -> float:
    return math.log2(max(late, 1) / max(early, 1))


_YIN = "Yin & Steinhardt 2025"
CLAIMS = (
    Definition(
        "induction_emerges_first",
        "Induction heads emerge earlier in training than function-vector heads",
        f"{_YIN}, section 5",
        "training",
        "the checkpoints of a training (jaxheads dynamics)",
        induction_emerges_first,
    ),
    Definition(
        "fv_heads_were_induction_heads",
        "Many function-vector heads were induction heads first",
        f"{_YIN}, section 5",
        "training",
        "the checkpoints of a training (jaxheads dynamics)",
        fv_heads_were_induction_heads,
    ),
)
"""What a run may be asked of this study."""
