"""What the page over several runs draws: its quantities, each against the models."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxheads.heads import run_scores
from jaxheads.report import theme, words
from jaxheads.report.figures import Figure
from jaxheads.studies.ablation.findings import PAIR
from jaxheads.studies.ablation.outcomes import Outcome
from jaxheads.studies.function_vectors.findings import Executed
from jaxheads.studies.scores.top_figures import (
    RANDOM,
    SHARED,
    UNDER,
    Placed,
    percentiles,
    shared,
)
from jaxheads.studies.several_runs.chart import Axis, Measure, Series, against
from jaxheads.studies.several_runs.members import Member

LARGEST, TOP, MEAN = "largest", "mean of the top 2 %", "mean over heads"


def agreement(listed: Sequence[Member], along: Axis, share: float) -> list[Figure]:
    """Draw the overlap of the top sets, and the place of each set in the other ranking.

    Source: Yin & Steinhardt 2025, figure 3: overlap at 5 %, percentiles at 2 %.
    """

    def of_overlap(member: Member) -> list[Measure]:
        scores = _pair(member)
        if scores is None:
            return []
        size = run_scores.top_count(member.total, share)
        return _placed(SHARED, shared(*scores, [size])[0])

    random = Series(RANDOM, "random", dashed=True)
    made = [
        against(
            listed, along, [Series(SHARED, "other-2"), random], of_overlap,
            title=f"Heads in both top {words.percent(share)}", quantity="shared (%)",
            name="shared", domain=(0, 100),
        )
    ]  # fmt: skip
    for first in (0, 1):
        name, other = PAIR[first], PAIR[1 - first]
        label = UNDER.format(words.short(name), words.short(other))

        def of_percentile(member: Member, first=first, label=label) -> list[Measure]:
            scores = _pair(member)
            if scores is None:
                return []
            size = run_scores.top_count(member.total)
            own, values = scores[first], scores[1 - first]
            return _placed(label, percentiles(own, values, [size])[0])

        made.append(
            against(
                listed, along, [Series(label, theme.colour(name)), random],
                of_percentile, title=words.sentence(label), quantity="percentile",
                name=f"{name}-under-{other}", domain=(0, 100),
            )
        )  # fmt: skip
    return [one for one in made if one]


def _pair(member: Member) -> tuple[np.ndarray, np.ndarray] | None:
    if not set(PAIR) <= set(run_scores.names(member.run)):
        return None
    first, second = (run_scores.score(member.run, name) for name in PAIR)
    return first, second


def _placed(label: str, one: Placed) -> list[Measure]:
    chance = Measure(RANDOM, one.random, one.low, one.high, "95 % of random sets")
    return [Measure(label, one.value), chance]


def strength(listed: Sequence[Member], along: Axis) -> list[Figure]:
    """Draw the largest score, the mean of the top 2 % and the mean over heads.

    Source: Yin & Steinhardt 2025, appendix (strength of heads against model size).
    """
    made = []
    for name in PAIR:
        series = [
            Series(LARGEST, "ink"),
            Series(TOP, "other-1"),
            Series(MEAN, "random"),
        ]

        def measure(member: Member, name=name) -> list[Measure]:
            if name not in run_scores.names(member.run):
                return []
            values = run_scores.score(member.run, name)
            top = run_scores.top_mask(values, run_scores.top_count(values.size))
            return [
                Measure(LARGEST, float(values.max())),
                Measure(TOP, float(values[top].mean())),
                Measure(MEAN, float(values.mean())),
            ]

        units = [
            (m.run.result["scores"].get(name) or {}).get("unit", "")
            for m in listed if m.run.result.get("scores")
        ]  # fmt: skip
        unit = f" ({units[0]})" if units and units[0] else ""
        made.append(
            against(
                listed, along, series, measure, title=words.title(name),
                quantity=f"score{unit}", name=name,
            )
        )  # fmt: skip
    return [one for one in made if one]


def drops(
    listed: Sequence[Member], along: Axis, name: str, mode: str, fraction: float
) -> Figure | None:
    """Draw what replacing a share of heads takes away, by ranking, against random."""
    first = next(m.measured[name] for m in listed if name in m.measured)
    rankings = first.rankings(mode=mode, fraction=fraction)
    series = [
        Series(f"top {words.short(one)} heads", theme.colour(one, rankings))
        for one in rankings
    ]
    series.append(Series("random heads", "random"))
    unit = f" ({first.unit})" if first.unit else ""
    titles = {"top": "Top heads replaced", "exclusion": "With exclusion"}

    def measure(member: Member) -> list[Measure]:
        outcome = member.measured.get(name)
        return [] if outcome is None else _lost(outcome, mode, fraction)

    return against(
        listed, along, series, measure, title=titles[mode],
        quantity=f"drop of the {first.quantity}{unit}", name=f"{name}-{mode}",
        label=f"drop{unit}" if first.unit else None,
    )  # fmt: skip


def _lost(outcome: Outcome, mode: str, fraction: float) -> list[Measure]:
    """Give the clean value minus that of each ranking's top heads, and of random."""
    if outcome.clean is None:
        return []
    at: dict[str, Any] = {"fraction": fraction, **replacement(outcome, mode)}
    made = []
    for name in outcome.rankings(mode=mode, **at):
        found = outcome.find(mode=mode, ranking=name, **at)
        lost = outcome.difference([outcome.clean], found)
        label = f"top {words.short(name)} heads"
        made.append(Measure(label, lost.mean, lost.low, lost.high, "95 % interval"))
    draws = outcome.find(mode="uniform", **at)
    if draws:
        clean = float(np.asarray(outcome.intervals.mean)[outcome.clean])
        lost = clean - outcome.of_draws(draws)
        spread = f"range of {len(draws)} draws"
        value, low, high = map(float, (lost.mean(), lost.min(), lost.max()))
        made.append(Measure("random heads", value, low, high, spread))
    return made


def replacement(outcome: Outcome, mode: str) -> dict[str, str]:
    """Pick one replacement where several were measured: the mean, else the first."""
    values = [outcome.sets[n].get("value") for n in outcome.find(mode=mode)]
    chosen = "mean" if "mean" in values else next(iter(values), None)
    return {"value": chosen} if chosen else {}


def clean(listed: Sequence[Member], along: Axis, name: str) -> Figure | None:
    """Draw what the models do with no head replaced."""
    first = next((m.measured[name] for m in listed if name in m.measured), None)
    if first is None:
        return None

    def measure(member: Member) -> list[Measure]:
        outcome = member.measured.get(name)
        if outcome is None or outcome.clean is None:
            return []
        value, low, high = outcome.interval(outcome.clean)
        return [Measure("no head replaced", value, low, high, "95 % interval")]

    unit = f" ({first.unit})" if first.unit else ""
    return against(
        listed, along, [Series("no head replaced", "ink")], measure,
        title=words.sentence(first.quantity), quantity=f"{first.quantity}{unit}",
        name=f"clean-{name}",
    )  # fmt: skip


EXECUTION = (
    Series("as they are", "ink"),
    Series("with the task's vector", "fv"),
    Series("with vectors of random heads", "random"),
)
_EXECUTED = {"shuffled": "Shuffled labels", "zero_shot": "Zero-shot"}


def execution(listed: Sequence[Member], along: Axis) -> list[Figure]:
    """Draw the accuracy with function vectors added, at the layer of each run.

    Source: Yin & Steinhardt 2025, figure 14; Todd et al. 2024, section 3.
    """
    made = [
        against(
            listed, along, EXECUTION, functools.partial(_executed, kind=kind),
            title=title, quantity="first-token accuracy", name=kind, domain=(0, 1),
        )
        for kind, title in _EXECUTED.items()
    ]  # fmt: skip
    return [one for one in made if one]


def _executed(member: Member, kind: str) -> list[Measure]:
    """Give the accuracies on prompts answered right with clean demonstrations."""
    if "execution" not in member.run.result:
        return []
    found = Executed(member.run)
    if not found.has(f"{kind}_vector") or not found.right("clean").any():
        return []
    plain, vector, random = EXECUTION
    made = []
    for series, right in (
        (plain, found.right(kind)),
        (vector, found.right(f"{kind}_vector")[found.at]),
    ):
        interval = found.interval(right, "answered")
        if interval:
            made.append(Measure(series.label, *interval, "95 % interval"))
    if found.has(f"{kind}_random"):
        sets = found.interval(found.right(f"{kind}_random")[:, found.at], "answered")
        if sets:
            mean = np.asarray(sets.mean)
            ends = float(mean.mean()), float(mean.min()), float(mean.max())
            made.append(Measure(random.label, *ends, f"range of {mean.size} sets"))
    return made
