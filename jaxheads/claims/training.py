"""Claims about how heads came about in training, on a dynamics run.

Each function measures one claim; its docstring is the rule of its judgement.
"""

import math
from typing import Any

from jaxheads.claims.rules import Measured, Rules, Untested
from jaxheads.report import words
from jaxheads.runs import Run


def induction_emerges_first(run: Run, rules: Rules) -> Measured:
    """Steps at which FV and induction scores emerge, their ratio in octaves.

    A score emerges where the mean of its top 2 % of heads has passed half of the way
    from chance to its last value. p is twice the share of the resamples in which
    induction was not first; the interval has both dates' resamples and checkpoints.
    """
    found = _dynamics(run).get("emergence") or {}
    first = (found.get("first") or {}).get("final")
    dates = [(found.get(name) or {}).get("final") or {} for name in ("induction", "fv")]
    if not first:
        why = [str(date["reason"]) for date in dates if date.get("reason")]
        text = "; ".join(why) or "one of the scores did not emerge"
        raise Untested("undecided", words.sentence(f"{text}."))
    induction, fv = dates
    samples = int(found["samples"])
    late = min(first["neither"] + first["fv"], first["neither"] + first["induction"])
    low = _octaves(_earliest(fv), induction["high"])
    high = _octaves(fv["high"], _earliest(induction))
    return Measured(
        _octaves(fv["step"], induction["step"]),
        low,
        high,
        p=min(1.0, 2 * (1 + samples * late) / (1 + samples)),
        evidence=f"Induction emerges at step {induction['step']:,}, the FV score at "
        f"step {fv['step']:,}; induction is first in "
        f"{words.percent(round(first['induction'], 3))} of the resamples.",
        unit="octaves",
        smallest=rules.smallest,
    )


def fv_heads_were_induction_heads(run: Run, rules: Rules) -> Measured:
    """Share of the final FV heads that were induction heads first, above chance.

    Chance: the induction trajectories given to other heads. p is the larger one of
    permutations over all heads and within layers; Wilson's interval over heads. It is a
    correlation of two scores over checkpoints, no causal test.
    """
    found = _dynamics(run).get("transitions") or {}
    heads = len(found.get("followed") or [])
    if not heads or not found.get("p_value"):
        raise Untested("undecided", "There are no FV heads to follow.")
    count, chance = found["count"], max(found["expected"].values()) / heads
    low, high = wilson(count, heads)
    return Measured(
        count / heads - chance,
        low - chance,
        high - chance,
        p=max(found["p_value"].values()),
        evidence=f"{count} of the {heads} final FV heads were induction heads first; "
        f"{words.number(chance * heads)} by chance.",
        unit="share of heads",
        smallest=rules.smallest,
    )


def wilson(count: int, trials: int) -> tuple[float, float]:
    """Give Wilson's 95 % interval of a share.

    Source: Wilson 1927, Probable inference.
    """
    z = 1.959964
    share = count / trials
    centre = share + z**2 / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    return (centre - half) / scale, (centre + half) / scale


def _dynamics(run: Run) -> dict[str, Any]:
    found = run.result.get("dynamics")
    if not found:
        raise Untested("not measured", "The run is of one checkpoint.")
    return found


def _earliest(date: dict[str, Any]) -> int:
    """It emerged between two checkpoints: after the one before."""
    return min(date["low"], date.get("before") or date["low"])


def _octaves(late: int, early: int) -> float:
    return math.log2(max(late, 1) / max(early, 1))
