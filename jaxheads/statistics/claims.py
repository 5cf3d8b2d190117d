"""How a claim is judged: by rules that are fixed before a run is looked at.

The one court: the head of a page, its sentences and tables, the terminal and what is
counted over several runs quote the verdicts of ``decide`` and have no rules of their
own. A claim is measured as one effect, positive where the claim is right, with a 95 %
interval and a p value that is adjusted for the other tests of its family by Holm's
method. Effects smaller than the smallest one of interest, in either direction, count as
none. The verdicts, by the first row that fits:

| the interval | p below the level | verdict |
|---|---|---|
| anything is nan, the interval or p | | undecided |
| wholly within what counts as none | yes or no | too small to matter |
| wholly above 0 | yes | holds |
| wholly below 0 | yes | does not hold |
| else | | undecided |

- An interval above 0 of which a part is below the smallest effect, and p below the
  level: the direction is known and an effect that matters is not ruled out, so the
  claim holds in its direction. How large the effect is, its interval says.
- An interval above 0 and wholly below the smallest effect: there is a difference, but
  all that it can be counts as none, whatever p is.
- An interval that leaves out every positive effect of interest, but not the negative
  ones, beside a p above the level: "too small" would deny the negative effects and
  "does not hold" would claim them. Undecided.
- Test and interval must agree. They may rest on different samples (heads, prompts), and
  a row must not read "holds" beside an interval with 0 in it.
- A claim of no difference ("no worse than") has a null below 0, minus the smallest
  effect: it holds where p, of an effect of the null or below, is below the level and
  the interval is wholly above the null; it does not hold where the interval is wholly
  below the null. "Too small to matter" is what such a claim says: it holds then.

"Not measured" is a claim that a run has no numbers for. Holm's method keeps the chance
of any false "holds" or "does not hold" in a family below the level; "too small to
matter" rests on the interval alone, claim by claim. What is said is said of this model,
these tasks and these heads, over other prompts.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from jaxheads.statistics import Interval
from jaxheads.statistics.paired_tests import holm
from jaxheads.statistics.units import student_t_quantile

Verdict = Literal[
    "holds", "does not hold", "too small to matter", "undecided", "not measured"
]


@dataclasses.dataclass(frozen=True)
class Rules:
    """What counts as an effect; fixed before a run is looked at.

    Attributes:
        level: of the tests, adjusted within a family.
        smallest: effect of interest, as a share of what the clean model has.
        smallest_layers: difference of depths of interest, in layers.
        fraction: share of heads replaced; the nearest one that was measured is taken.
        top: share of heads that are called a ranking's top heads, rounded up.
        seed: of every resampling.
    """

    level: float = 0.05
    smallest: float = 0.1
    smallest_layers: float = 0.5
    fraction: float = 0.05
    top: float = 0.02
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Measured:
    """One claim's effect, positive where the claim is right.

    Attributes:
        effect: as measured.
        low: lower end of its 95 % interval.
        high: upper end.
        p: of an effect of ``null``.
        over: what the interval varies, such as "queries of these tasks".
        p_over: what the test varies; a test may be over heads where the interval is
            over prompts.
        errors: standard error of the effect, with its degrees of freedom, in each of
            the tests whose p values ``p`` is the largest of; none where not known.
        evidence: a sentence with the numbers.
        unit: of the effect.
        smallest: smaller effects, in either direction, count as none.
        null: what the test rejects: 0, or ``-smallest`` of a claim of no difference.
    """

    effect: float
    low: float
    high: float
    p: float
    evidence: str
    unit: str
    smallest: float
    null: float = 0.0
    over: str = ""
    p_over: str = ""
    errors: tuple[tuple[float, float], ...] = ()


class Untested(Exception):
    """A claim that cannot be tested on a run: why, and what it would take.

    Args:
        verdict: "not measured", or "undecided" where it was, and says nothing.
        reason: a sentence.
    """

    def __init__(self, verdict: Verdict, reason: str):
        super().__init__(reason)
        self.verdict: Verdict = verdict


@dataclasses.dataclass(frozen=True)
class Definition:
    """A claim of a paper, in our own words, and how it is measured.

    Attributes:
        name: such as "fv_matters_more".
        statement: a sentence.
        source: paper and section.
        family: claims whose tests are adjusted for one another.
        needs: what a run must hold.
        measure: gives the effect; its docstring is the rule.
    """

    name: str
    statement: str
    source: str
    family: str
    needs: str
    measure: Callable[[Any, Rules], Measured]

    @property
    def rule(self) -> str:
        """How it is measured and judged, in words."""
        return " ".join((inspect.getdoc(self.measure) or "").split())


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim with its verdict; numbers are nan where there are none.

    Attributes:
        name: such as "fv_matters_more".
        statement: a sentence.
        source: paper and section.
        family: claims whose tests are adjusted for one another.
        needs: what a run must hold.
        rule: how it is measured and judged.
        verdict: by ``decide``.
        evidence: a sentence with numbers, or why there are none.
        effect: positive where the claim is right.
        low: lower end of the effect's 95 % interval.
        high: upper end.
        over: what the interval varies.
        p_over: what the test varies.
        unit: of the effect.
        smallest: smaller effects, in either direction, count as none.
        p: of no effect.
        p_adjusted: by Holm's method, within the family.
        detectable: the effect that is found in 80 % of such runs, see ``detectable``.
    """

    name: str
    statement: str
    source: str
    family: str
    needs: str
    rule: str
    verdict: Verdict
    evidence: str
    effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    unit: str = ""
    smallest: float = math.nan
    p: float = math.nan
    p_adjusted: float = math.nan
    over: str = ""
    p_over: str = ""
    detectable: float = math.nan


def judge(definitions: Sequence[Definition], run: Any, rules: Rules) -> list[Claim]:
    """Measure claims, adjust their tests within families, and decide.

    Args:
        definitions: in the order of the result.
        run: what ``measure`` takes.
        rules: fixed before.
    """
    found: list[Measured | Untested] = []
    for definition in definitions:
        try:
            found.append(_finite(definition.measure(run, rules)))
        except Untested as why:
            found.append(why)
    adjusted = dict.fromkeys(range(len(found)), math.nan)
    tests = dict.fromkeys(range(len(found)), 1)
    for family in dict.fromkeys(one.family for one in definitions):
        tested = {
            n: one.p
            for n, one in enumerate(found)
            if isinstance(one, Measured) and definitions[n].family == family
        }
        tests |= dict.fromkeys(tested, len(tested))
        adjusted |= dict(zip(tested, holm([*tested.values()]).tolist(), strict=True))
    return [
        _claim(definition, one, adjusted[n], tests[n], rules)
        for n, (definition, one) in enumerate(zip(definitions, found, strict=True))
    ]


def decide(
    interval: Interval,
    p: float,
    smallest: float,
    null: float = 0.0,
    level: float = 0.05,
) -> Verdict:
    """Give the verdict of a measured claim, by the rules at the head of this file.

    Args:
        interval: of the effect, 95 %.
        p: of an effect of ``null``, adjusted where tests belong together.
        smallest: smaller effects, in either direction, count as none; 0: none do.
        null: 0, or ``-smallest`` of a claim of no difference.
        level: of the test.
    """
    mean, low, high = interval
    if not smallest >= 0 or low > high:
        raise ValueError(
            "smallest must be 0 or more and low at most high, but they are "
            f"{smallest}, {low} and {high}"
        )
    if any(map(math.isnan, (mean, low, high, p))):
        return "undecided"
    significant = p < level
    if null < 0:
        if high < null:
            return "does not hold"
        return "holds" if significant and low > null else "undecided"
    if -smallest < low and high < smallest:
        return "too small to matter"
    if significant and low > 0:
        return "holds"
    return "does not hold" if significant and high < 0 else "undecided"


def detectable(
    errors: Sequence[tuple[float, float]], level: float, power: float = 0.8
) -> float:
    """Give the effect that a run finds with a chance: how much its test can see.

    The largest, over the tests that must all be significant, of
    error (t(1 - level / 2) + t(power)), t the quantiles of Student's t.

    Args:
        errors: standard error and degrees of freedom of each test.
        level: of the tests, two-sided; of a claim among M, that of Holm's first step.
        power: the chance.

    Returns:
        The effect; nan where no error is known.

    Source: Bloom 1995, Minimum detectable effects.
    """
    return max(
        (
            float(error * sum(student_t_quantile(each, freedom) for each in tails))
            for tails in [(1 - level, 2 * power - 1)]
            for error, freedom in errors
        ),
        default=math.nan,
    )


def _finite(measured: Measured) -> Measured:
    if math.isnan(measured.effect):
        raise Untested("undecided", "The effect is not a number on this run.")
    return measured


def _claim(
    definition: Definition,
    found: Measured | Untested,
    adjusted: float,
    tests: int,
    rules: Rules,
) -> Claim:
    said = {
        field.name: getattr(definition, field.name)
        for field in dataclasses.fields(definition)
        if field.name != "measure"
    }
    said["rule"] = definition.rule
    if isinstance(found, Untested):
        return Claim(**said, verdict=found.verdict, evidence=str(found))
    return Claim(
        **said,
        verdict=decide(
            Interval(found.effect, found.low, found.high),
            adjusted,
            found.smallest,
            found.null,
            rules.level,
        ),
        evidence=found.evidence,
        effect=found.effect,
        low=found.low,
        high=found.high,
        unit=found.unit,
        smallest=found.smallest,
        p=found.p,
        p_adjusted=adjusted,
        over=found.over,
        p_over=found.p_over,
        detectable=detectable(found.errors, rules.level / tests),
    )
