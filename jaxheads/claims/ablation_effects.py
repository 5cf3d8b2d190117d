"""What replacing one set of heads does more than another, with its uncertainty.

The measured differences that claims and sensitivity tables rest on.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from jaxheads.claims.rules import Measured, Rules, Untested
from jaxheads.report import outcomes, words
from jaxheads.report.outcomes import Outcome
from jaxheads.runs import Run
from jaxheads.statistics.paired_tests import AgainstDraws, against_draws, sign_flip_p
from jaxheads.statistics.units import Estimate

FV, INDUCTION = "function_vector", "induction"
NOUN = {FV: "FV", INDUCTION: "induction"}
_MISSING = {
    "top": "no sets of top heads",
    "exclusion": "no sets with exclusion",
    "keep_only": "no sets that keep only top heads",
}
At = dict[str, Any]
"""Mode, fraction and, where several were tried, value: what sets are told apart by."""


def few_shot(run: Run, metric: int = 0) -> Outcome:
    """Read the run's few-shot accuracy, first-token answers before F1."""
    measured = outcomes.accuracy(run)
    if len(measured) <= metric:
        raise Untested("not measured", "The run has no ablation of few-shot answers.")
    return _checked(measured[metric])


def zero_shot(run: Run) -> Outcome:
    """Read the accuracy of the same queries without demonstrations."""
    measured = outcomes.zero_shot(run)
    if not measured:
        raise Untested("not measured", "The run asks nothing without demonstrations.")
    return _checked(dataclasses.replace(measured[0], quantity="zero-shot accuracy"))


def token_loss(run: Run) -> Outcome:
    """Read the token-loss difference."""
    outcome = outcomes.token_loss(run)
    if outcome is None:
        raise Untested("not measured", "The run has no token losses.")
    return _checked(outcome)


def _checked(outcome: Outcome) -> Outcome:
    if np.isnan(outcome.values).any() or not outcome.values.size:
        raise Untested(
            "undecided", f"Some values of the {outcome.quantity} are not numbers."
        )
    return outcome


def place(outcome: Outcome, mode: str, share: float) -> At:
    """Pick the sets of a mode at the measured fraction nearest to a share."""
    found = [fraction for fraction in outcome.fractions(mode=mode) if fraction > 0]
    if not found:
        raise Untested("not measured", f"The run has {_MISSING.get(mode, 'none')}.")
    fraction = min(found, key=lambda one: abs(one - share))
    at: At = {"mode": mode, "fraction": fraction}
    values = [outcome.sets[n].get("value") for n in outcome.find(**at)]
    # Token loss is measured under several replacements; the mean is the main one.
    if any(values):
        at["value"] = "mean" if "mean" in values else values[0]
    return at


def top_set(outcome: Outcome, ranking: str, at: At) -> int:
    """Find the set of a ranking's top heads."""
    found = outcome.find(ranking=ranking, **at)
    if not found:
        raise Untested(
            "not measured", f"The run has no such set of {NOUN[ranking]} heads."
        )
    return found[0]


def clean_mean(outcome: Outcome) -> float:
    """Give the clean value, which must be above 0: else there is nothing to lose."""
    if outcome.clean is None:
        raise Untested("not measured", "The run has no clean value to compare with.")
    interval = outcome.interval(outcome.clean)
    if interval.low <= 0:
        raise Untested(
            "undecided",
            f"There is nothing to lose: with no head replaced the {outcome.quantity} "
            f"is {words.with_interval(*interval)}.",
        )
    return interval.mean


def gap(outcome: Outcome, at: At, rules: Rules, sign: int = 1) -> Measured:
    """Measure what the top induction heads leave minus what the top FV heads leave.

    Args:
        outcome: answers, or token-loss differences.
        at: which sets.
        rules: of the judgement.
        sign: -1 for FV minus induction.
    """
    clean = clean_mean(outcome)
    left = {name: outcome.values[top_set(outcome, name, at)] for name in NOUN}
    difference = sign * (left[INDUCTION] - left[FV])
    interval = outcome.estimate(difference, difference=True).interval()
    means = words.aligned(*(left[name].mean() for name in NOUN), clean)
    text = (
        f"{where(outcome, at)}, the {outcome.quantity} is {means[0]} without the FV "
        f"and {means[1]} without the induction heads (clean {means[2]})"
    )
    if difference.ndim == 2 and len(difference) > 1:
        right = int(np.sum(difference.mean(1) > 0))
        text += f"; so in {right} of {len(difference)} tasks"
    if np.isin((left[INDUCTION], left[FV]), (0, 1)).all():
        only = [int(np.sum(sign * difference * side > 0)) for side in (1, -1)]
        text += (
            f". {words.plural(only[0], 'answer')} lost with the FV heads only, "
            f"{only[1]} with the induction heads only"
        )
    return Measured(
        *interval,
        p=sign_flip_p(difference, rules.seed, queries=outcome.queries),
        evidence=text + ".",
        unit=outcome.unit or "accuracy",
        smallest=rules.smallest * clean,
    )


def against(
    outcome: Outcome, ranking: str, at: At, control: str, rules: Rules
) -> AgainstDraws:
    """Set a ranking's top heads against the random sets of a mode, of the same size."""
    # Random sets know no exclusion.
    wanted = {key: value for key, value in at.items() if key != "exclusion"}
    wanted["mode"] = control
    if control == "layer_matched":
        wanted["matched_to"] = ranking
    draws = outcome.find(**wanted)
    if not draws:
        raise Untested("not measured", "The run has no random sets to compare with.")
    found = outcome.values[top_set(outcome, ranking, at)]
    return against_draws(
        found,
        outcome.values[draws],
        rules.seed,
        outcome.queries,
        outcome.bounds(difference=True),
    )


def against_random(
    outcome: Outcome, ranking: str, at: At, control: str, rules: Rules, sign: int = -1
) -> Measured:
    """Measure how far a ranking's top heads are from random ones.

    Args:
        outcome: answers, or token-loss differences.
        ranking: whose top heads.
        at: which sets.
        control: mode of the random sets.
        rules: of the judgement.
        sign: -1 for random minus top, 1 for top minus random.
    """
    clean = clean_mean(outcome)
    found = against(outcome, ranking, at, control, rules)
    if found.draws < 2:
        raise Untested(
            "undecided", "One random set does not tell how far random sets differ."
        )
    mean, low, high = found.difference.interval()
    low, high = sorted((sign * low, sign * high))
    left = outcome.values[top_set(outcome, ranking, at)]
    verb = "keeping only" if at["mode"] == "keep_only" else "replacing"
    own, random, whole = words.aligned(left.mean(), left.mean() - mean, clean)
    return Measured(
        sign * mean,
        low,
        high,
        p=found.p,
        evidence=f"{where(outcome, at)}, {verb} the {NOUN[ranking]} heads leaves "
        f"{own}, random ones {random} (clean {whole}). {ranked(found)}",
        unit=outcome.unit or "accuracy",
        smallest=rules.smallest * clean,
    )


def ranked(found: AgainstDraws) -> str:
    """Say where a set lies among the random draws."""
    if found.below + found.ties == 0:
        place = "below all of"
    elif found.below == found.draws:
        place = "above all of"
    elif not found.below:
        place = f"level with {found.ties} and above none of"
    else:
        level = f" and level with {found.ties}" if found.ties else ""
        place = f"above {found.below}{level} of"
    return (
        f"It is {place} {words.plural(found.draws, 'random draw')} (p "
        f"{words.p_value(found.p_prompts)} over prompts, "
        f"{words.p_value(found.p_draws)} over draws)."
    )


def share_of_clean(found: Estimate, evidence: str, rules: Rules) -> Measured:
    """Judge a share of the clean value, by Student's t."""
    if not math.isfinite(found.mean):
        raise Untested("undecided", "A clean value is too near 0 to take shares of.")
    return Measured(
        *found.interval(),
        p=found.p_other(),
        evidence=evidence,
        unit="share of clean",
        smallest=rules.smallest,
    )


def where(outcome: Outcome, at: At) -> str:
    """Say at which share of heads, and with what: "At 5 % of heads (13)"."""
    fraction = at["fraction"]
    heads = outcome.replaced[outcome.find(**at)[0]]
    verb = "kept" if at["mode"] == "keep_only" else "replaced"
    if verb == "kept":
        return f"With {words.percent(fraction)} of heads kept"
    text = f"With {words.percent(fraction)} of heads ({int(heads):,}) {verb}"
    return text + (", with exclusion" if at["mode"] == "exclusion" else "")
