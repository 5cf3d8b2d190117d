"""What replacing one set of heads does more than another, with its uncertainty.

The measured differences that claims and sensitivity tables rest on. Any two sets of
heads differ: that one set costs more than another says something of their kinds only
where the difference is larger than between random sets of that size. So every effect
is tested twice, over queries (or documents) and over sets, whose spread the random
draws show, p is the larger one, and the interval has both sources of variance.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from jaxheads.report import words
from jaxheads.runs import Run
from jaxheads.scores.config import FV, INDUCTION
from jaxheads.statistics.claims import Measured, Rules, Untested
from jaxheads.statistics.paired_tests import AgainstDraws, against_draws, sign_flip_p
from jaxheads.statistics.units import Estimate
from jaxheads.studies.ablation import outcomes
from jaxheads.studies.ablation.outcomes import Outcome

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
            "It is open whether there is anything to lose: with no head replaced the "
            f"{outcome.quantity} is {words.with_interval(*interval)}.",
        )
    return interval.mean


class OfSets(NamedTuple):
    """What an effect varies by because sets of heads differ by themselves.

    Attributes:
        variance: of the effect; nan where fewer than two random sets were measured.
        freedom: its degrees of freedom.
        least_p: the smallest p value that the sets' ranks can give, which is all there
            is where the random sets tie.
    """

    variance: float
    freedom: float
    least_p: float


def of_sets(each: np.ndarray, share: float, chosen: int) -> OfSets:
    """Read the variance of an effect off what each of R random sets gives, [R].

    Args:
        each: a value for each random set.
        share: variance of the effect, in variances of ``each``.
        chosen: sets in the effect that were not drawn, 1 or 2.
    """
    count = len(each)
    if count < 2:
        return OfSets(math.nan, math.nan, math.nan)
    tied = np.ptp(each) <= 1e-12 * max(1.0, float(np.abs(each).max()))
    variance = 0.0 if tied else share * float(each.var(ddof=1))
    return OfSets(variance, count - 1, chosen / (count + chosen))


def judged(
    found: Estimate,
    p: float,
    sets: OfSets,
    over: str,
    evidence: str,
    unit: str,
    smallest: float,
) -> Measured:
    """Join what is known over queries and over sets.

    Args:
        found: the effect over queries, or over documents.
        p: likewise.
        sets: the effect's variance over sets.
        over: what both are over, such as "documents".
        evidence: a sentence with the numbers.
        unit: of the effect.
        smallest: of interest.
    """
    if math.isnan(sets.variance):
        return Measured(
            *found.interval(),
            p=math.nan,
            evidence=f"{evidence} With fewer than two random sets it is not known how "
            "far sets of heads differ by themselves.",
            unit=unit,
            smallest=smallest,
            over=over,
        )
    whole = found.with_source(sets.variance, sets.freedom)
    if sets.variance > 0:
        p_sets = Estimate(found.mean, sets.variance, sets.freedom).p_other()
    else:
        p_sets = sets.least_p if abs(found.mean) > 1e-12 else 1.0
    return Measured(
        *whole.interval(),
        p=float(np.max((p, p_sets))),
        evidence=f"{evidence} The p value is {words.p_value(p)} over the samples, "
        f"{words.p_value(p_sets)} over sets of heads.",
        unit=unit,
        smallest=smallest,
        over=f"{over}, and sets of heads",
        p_over=f"{over}, and sets of heads",
        errors=_errors(found, sets),
    )


def random_sets(outcome: Outcome, at: At, mode: str, ranking: str = "") -> list[int]:
    """Find the random sets of a mode that are as large as the sets ``at``."""
    # Random sets know no exclusion.
    wanted = {key: value for key, value in at.items() if key != "exclusion"}
    wanted["mode"] = mode
    if mode == "layer_matched":
        wanted["matched_to"] = ranking
    return outcome.find(**wanted)


def set_means(outcome: Outcome, found: list[int]) -> np.ndarray:
    """Mean of each set, [R]."""
    return outcome.values[found].mean(tuple(range(1, outcome.values.ndim)))


def of_random(outcome: Outcome, at: At, mode: str, ranking: str = "") -> OfSets:
    """How far another set would be from the mean of the random ones.

    Raises:
        Untested: there are fewer than two random sets.
    """
    draws = set_means(outcome, random_sets(outcome, at, mode, ranking))
    if len(draws) < 2:
        raise Untested(
            "undecided", "One random set does not tell how far random sets differ."
        )
    return of_sets(draws, share=1, chosen=1)


def gap_over_samples(outcome: Outcome, at: At, sign: int = 1) -> Estimate:
    """Estimate ``gap`` with these two sets as given: over queries or documents."""
    left = [outcome.values[top_set(outcome, name, at)] for name in (INDUCTION, FV)]
    return outcome.estimate(sign * (left[0] - left[1]), difference=True)


def gap(outcome: Outcome, at: At, rules: Rules, sign: int = 1) -> Measured:
    """Measure what the top induction heads leave minus what the top FV heads leave.

    Which matters more is asked of heads that matter: p is that of the set which leaves
    less costing anything, where that is larger.

    Args:
        outcome: answers, or token-loss differences.
        at: which sets.
        rules: of the judgement.
        sign: -1 for FV minus induction.
    """
    clean = clean_mean(outcome)
    left = {name: outcome.values[top_set(outcome, name, at)] for name in NOUN}
    difference = sign * (left[INDUCTION] - left[FV])
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
    worse = min(NOUN, key=lambda name: float(left[name].mean()))
    whole = outcome.values[outcome.clean or 0]
    p_cost = sign_flip_p(
        whole - left[worse], rules.seed, queries=outcome.queries, alternative="greater"
    )
    text += "."
    if p_cost >= rules.level:
        text += " Replacing either costs nothing that can be told from nothing."
    p = sign_flip_p(difference, rules.seed, queries=outcome.queries)
    draws = set_means(outcome, random_sets(outcome, at, "uniform"))
    return judged(
        gap_over_samples(outcome, at, sign),
        float(np.max((p, p_cost))),
        of_sets(draws, share=2, chosen=2),
        outcome.over,
        text,
        outcome.unit or "accuracy",
        rules.smallest * clean,
    )


def against(
    outcome: Outcome, ranking: str, at: At, control: str, rules: Rules
) -> AgainstDraws:
    """Set a ranking's top heads against the random sets of a mode, of the same size."""
    draws = random_sets(outcome, at, control, ranking)
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
    left = outcome.values[top_set(outcome, ranking, at)]
    verb = "keeping only" if at["mode"] == "keep_only" else "replacing"
    difference = found.difference
    own, random, whole = words.aligned(
        left.mean(), left.mean() - difference.mean, clean
    )
    sets = of_random(outcome, at, control, ranking)
    over = f"{outcome.over}, and sets of heads"
    return Measured(
        *like_sets(found, sets, sign).interval(),
        p=found.p,
        over=over,
        p_over=over,
        errors=_errors(found.difference, sets),
        evidence=f"{where(outcome, at)}, {verb} the {NOUN[ranking]} heads leaves "
        f"{own}, random ones {random} (clean {whole}). {ranked(found, outcome.over)}",
        unit=outcome.unit or "accuracy",
        smallest=rules.smallest * clean,
    )


def like_sets(found: AgainstDraws, sets: OfSets, sign: int = 1) -> Estimate:
    """A set minus the mean of the random ones, as far as sets of its kind may be.

    What ``against`` gives varies with queries and with the random sets alone; another
    set of the kind would differ from it as random sets do among themselves.
    """
    difference = found.difference._replace(mean=sign * found.difference.mean)
    if difference.tails is not None:
        difference = difference._replace(tails=sign * difference.tails)
    return difference.with_source(sets.variance, sets.freedom)


def _errors(found: Estimate, sets: OfSets) -> tuple[tuple[float, float], ...]:
    """Of the test over samples, and of that over sets."""
    both = (found.variance, found.freedom), (sets.variance, sets.freedom)
    return tuple((math.sqrt(variance), freedom) for variance, freedom in both)


def ranked(found: AgainstDraws, over: str) -> str:
    """Say where a set lies among the random draws; ``over``: what samples it."""
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
        f"{words.p_value(found.p_prompts)} over {over}, "
        f"{words.p_value(found.p_draws)} over draws)."
    )


def share_of_clean(
    found: Estimate, sets: OfSets, over: str, evidence: str, rules: Rules
) -> Measured:
    """Judge a share of the clean value, by Student's t."""
    if not math.isfinite(found.mean):
        raise Untested("undecided", "A clean value is too near 0 to take shares of.")
    p, unit = found.p_other(), "share of clean"
    return judged(found, p, sets, over, evidence, unit, rules.smallest)


def where(outcome: Outcome, at: At) -> str:
    """Say at which share of heads, and with what: "At 5 % of heads (13)"."""
    fraction = at["fraction"]
    heads = outcome.replaced[outcome.find(**at)[0]]
    verb = "kept" if at["mode"] == "keep_only" else "replaced"
    if verb == "kept":
        return f"With {words.percent(fraction)} of heads kept"
    text = f"With {words.percent(fraction)} of heads ({int(heads):,}) {verb}"
    return text + (", with exclusion" if at["mode"] == "exclusion" else "")
