"""How much the answer depends on choices that the papers make once.

Question: FV against induction heads, does the difference stay with another share of
heads left alone by exclusion, another share replaced, another metric, another value put
in place of the heads?
"""

import dataclasses
from typing import Any

from jaxheads.report import words
from jaxheads.runs import Run
from jaxheads.statistics import Interval, paired_tests
from jaxheads.statistics.claims import Measured, Rules, Untested
from jaxheads.studies.ablation import outcomes
from jaxheads.studies.ablation.effects import (
    FV,
    INDUCTION,
    At,
    against,
    few_shot,
    gap,
    place,
    token_loss,
)
from jaxheads.studies.ablation.outcomes import Outcome


@dataclasses.dataclass(frozen=True)
class Setting:
    """One choice, and what is measured with it.

    Attributes:
        choice: "exclusion", "fraction", "metric" or "value".
        setting: such as "2 % left alone".
        usual: whether the claims rest on it.
        unit: of the numbers.
        gap: what induction heads leave minus what FV heads leave, with its interval and
            p value: positive where FV heads matter more.
        p_adjusted: by Benjamini & Hochberg's method, within the choice.
        fv_random: what FV heads leave minus what random ones do; None: not measured.
        induction_random: the same of induction heads.
    """

    choice: str
    setting: str
    usual: bool
    unit: str
    gap: Measured
    p_adjusted: float
    fv_random: Interval | None
    induction_random: Interval | None


def of_run(run: Run, rules: Rules | None = None) -> list[Setting]:
    """Measure the difference under every setting of a choice that a run has two of.

    Args:
        run: with an ablation of both rankings, or token losses.
        rules: None: the usual ones.
    """
    rules = rules or Rules()
    listed: dict[str, list[tuple[str, bool, Outcome, At]]] = {}
    for collect in (_exclusions, _fractions, _metrics, _values):
        try:
            listed[collect.__name__.strip("_").removesuffix("s")] = collect(run, rules)
        except Untested:
            continue
    return [
        setting
        for choice, asked in listed.items()
        for setting in _measured(choice, asked, rules)
    ]


def _measured(
    choice: str, asked: list[tuple[str, bool, Outcome, At]], rules: Rules
) -> list[Setting]:
    found = []
    for text, usual, outcome, at in asked:
        try:
            made = gap(outcome, at, rules)
        except Untested:
            continue
        controls = [_random(outcome, name, at, rules) for name in (FV, INDUCTION)]
        found.append((text, usual, outcome.unit or "accuracy", made, *controls))
    if len(found) < 2:
        return []  # one setting is no comparison
    adjusted = paired_tests.benjamini_hochberg([row[3].p for row in found])
    return [
        Setting(choice, text, usual, unit, made, float(p), fv, induction)
        for (text, usual, unit, made, fv, induction), p in zip(
            found, adjusted, strict=True
        )
    ]


def _random(outcome: Outcome, name: str, at: At, rules: Rules) -> Interval | None:
    try:
        return against(outcome, name, at, "uniform", rules).difference.interval()
    except Untested:
        return None


def _exclusions(run: Run, rules: Rules) -> list[tuple[str, bool, Outcome, At]]:
    """Shares of the other ranking's top heads that are left alone."""
    outcome = few_shot(run)
    fraction = place(outcome, "exclusion", rules.fraction)["fraction"]
    told = (run.result.get("config") or {}).get("ablation") or {}
    found = []
    for mode in ("top", "exclusion", "exclusion_other"):
        at: At = {"mode": mode, "fraction": fraction}
        sets = [outcome.sets[n] for n in outcome.find(**at)]
        for share in dict.fromkeys(entry.get("exclusion") for entry in sets):
            own = at if share is None else at | {"exclusion": share}
            # Runs from before sets said it say it in their config.
            known = share if share is not None else told.get("exclusion", 0.02)
            size = 0.0 if mode == "top" else float(known)
            found.append((size, mode == "exclusion", outcome, own))
    found.sort(key=lambda row: row[0])
    return [(f"{words.percent(size)} left alone", *rest) for size, *rest in found]


def _fractions(run: Run, rules: Rules) -> list[tuple[str, bool, Outcome, At]]:
    """Shares of heads that are replaced."""
    outcome = few_shot(run)
    mode = "exclusion" if outcome.find(mode="exclusion") else "top"
    usual = place(outcome, mode, rules.fraction)
    return [
        (f"{words.percent(each)} replaced", at == usual, outcome, at)
        for each in outcome.fractions(mode=mode)
        if each > 0
        for at in [usual | {"fraction": each}]
    ]


def _metrics(run: Run, rules: Rules) -> list[tuple[str, bool, Outcome, At]]:
    """Ways to tell whether an answer is right."""
    found = []
    for n in range(len(outcomes.accuracy(run))):
        outcome = few_shot(run, n)
        mode = "exclusion" if outcome.find(mode="exclusion") else "top"
        at = place(outcome, mode, rules.fraction)
        found.append((outcome.quantity, n == 0, outcome, at))
    return found


def _values(run: Run, rules: Rules) -> list[tuple[str, bool, Outcome, At]]:
    """What is put in place of the heads, in the token loss."""
    outcome = token_loss(run)
    mode = "exclusion" if outcome.find(mode="exclusion") else "top"
    usual = place(outcome, mode, rules.fraction)
    wanted: dict[str, Any] = {k: usual[k] for k in ("mode", "fraction")}
    values = [outcome.sets[n].get("value") for n in outcome.find(**wanted)]
    return [
        (f"{value} put in", value == usual.get("value"), outcome, at)
        for value in dict.fromkeys(values)
        for at in [usual | {"value": value}]
    ]
