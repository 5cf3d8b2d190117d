"""How a claim is judged: by rules that are fixed before a run is looked at.

A claim is measured as one effect, positive where the claim is right. It holds where the
test of its effect, adjusted for the other tests of its family by Holm's method, is
significant; it does not hold where the opposite is, or where the 95 % interval leaves
out the smallest effect of interest; else it is undecided. What is said is said of this
model, these tasks and these heads, over other prompts.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from jaxheads.statistics.multiple_tests import holm

Verdict = Literal["holds", "does not hold", "undecided", "not measured"]


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
        evidence: a sentence with the numbers.
        unit: of the effect.
        smallest: the claim does not hold if ``high`` is below it.
        null: what the test rejects; below 0 where a claim is that of no difference.
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
        verdict: "holds", "does not hold", "undecided" or "not measured".
        evidence: a sentence with numbers, or why there are none.
        effect: positive where the claim is right.
        low: lower end of the effect's 95 % interval.
        high: upper end.
        over: what the interval varies.
        p_over: what the test varies.
        unit: of the effect.
        smallest: effect below which the claim does not hold.
        p: of no effect.
        p_adjusted: by Holm's method, within the family.
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
    for family in dict.fromkeys(one.family for one in definitions):
        tested = {
            n: one.p
            for n, one in enumerate(found)
            if isinstance(one, Measured) and definitions[n].family == family
        }
        adjusted |= dict(zip(tested, holm([*tested.values()]).tolist(), strict=True))
    return [
        _claim(definition, one, adjusted[n], rules)
        for n, (definition, one) in enumerate(zip(definitions, found, strict=True))
    ]


def decide(measured: Measured, p_adjusted: float, rules: Rules) -> Verdict:
    """Give the verdict of a measured claim, by the rules at the head of this file."""
    if p_adjusted < rules.level and measured.effect > measured.null:
        return "holds"
    opposite = p_adjusted < rules.level and measured.effect < min(measured.null, 0.0)
    return (
        "does not hold"
        if opposite or measured.high < measured.smallest
        else ("undecided")
    )


def _finite(measured: Measured) -> Measured:
    if math.isnan(measured.effect):
        raise Untested("undecided", "The effect is not a number on this run.")
    return measured


def _claim(
    definition: Definition, found: Measured | Untested, adjusted: float, rules: Rules
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
        verdict=decide(found, adjusted, rules),
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
    )
