"""What the ablations did: outcomes per head set, gathered into lines and panels."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxheads.report import words
from jaxheads.runs import Run
from jaxheads.statistics import (
    Interval,
    bootstrap_mean,
    bootstrap_task_mean,
    paired_difference_interval,
)

SEED = 0  # of the bootstrap: the page is the same each time it is made


@dataclasses.dataclass(frozen=True)
class Point:
    """One fraction of a line; ``low`` and ``high`` are what ``Line.spread`` says."""

    fraction: float
    replaced: int  # heads
    value: float
    low: float
    high: float
    draws: int


@dataclasses.dataclass(frozen=True)
class Line:
    """Outcome against the share of heads that one rule picks."""

    label: str
    colour: str
    dashed: bool
    spread: str
    points: list[Point]


@dataclasses.dataclass(frozen=True)
class Panel:
    """One chart: lines that share their axes."""

    title: str
    quantity: str
    clean: Point | None
    lines: list[Line]


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """One quantity measured under each of N head sets.

    ``values`` is [N, E, B] (tasks, prompts) or [N, B] (documents); all sets were
    measured on the same prompts. ``replaced`` [N] counts the heads of a set. With
    ``from_clean`` a figure's interval is that of the set's change from clean, over
    the same documents.
    """

    name: str
    quantity: str
    unit: str
    sets: list[dict[str, Any]]
    values: np.ndarray
    replaced: np.ndarray
    from_clean: bool = False

    @functools.cached_property
    def intervals(self) -> Interval:
        """Mean and interval of each set, each [N]."""
        return self._bootstrap(self.values)

    @functools.cached_property
    def bands(self) -> Interval:
        """What the figures draw around each mean."""
        base = self.clean
        if not self.from_clean or base is None:
            return self.intervals
        change = self._bootstrap(self.values - self.values[base])
        mean = self.intervals.mean
        return Interval(mean, mean[base] + change.low, mean[base] + change.high)

    def _bootstrap(self, values: np.ndarray) -> Interval:
        stratified = values.ndim == 3
        return (bootstrap_task_mean if stratified else bootstrap_mean)(values, SEED)

    def find(self, **wanted: Any) -> list[int]:
        """List the sets whose entries equal all the wanted ones."""
        return [
            n
            for n, entry in enumerate(self.sets)
            if all(entry.get(key) == value for key, value in wanted.items())
        ]

    @property
    def clean(self) -> int | None:
        """The set that replaces nothing."""
        found = self.find(mode="clean")
        return found[0] if found else None

    def rankings(self, **wanted: Any) -> list[str]:
        """Name the rankings of the matching sets, in order of appearance."""
        found = (self.sets[n].get("ranking", "none") for n in self.find(**wanted))
        return list(dict.fromkeys(found))

    def fractions(self, **wanted: Any) -> list[float]:
        """List the fractions of the matching sets, smallest first."""
        return sorted({self.sets[n]["fraction"] for n in self.find(**wanted)})

    def interval(self, n: int) -> Interval:
        """Give the mean and interval of one set."""
        return Interval(*(float(part[n]) for part in self.intervals))

    def of_draws(self, found: list[int]) -> np.ndarray:
        """Give each draw's mean, [draws]."""
        return np.asarray(self.intervals.mean)[found]

    def difference(self, found: list[int], against: list[int]) -> Interval:
        """Compare two groups of sets, averaged over draws, prompt by prompt."""
        return paired_difference_interval(
            self.values[found].mean(0), self.values[against].mean(0), SEED
        )

    def point(self, found: list[int]) -> Point:
        """Summarise one set, or the draws of one random rule."""
        entry, mean = self.sets[found[0]], self.of_draws(found)
        if len(found) > 1:
            low, high = mean.min(), mean.max()
        else:
            low, high = self.bands.low[found[0]], self.bands.high[found[0]]
        return Point(
            fraction=float(entry.get("fraction", 0.0)),
            replaced=int(self.replaced[found[0]]),
            value=float(mean.mean()),
            low=float(low),
            high=float(high),
            draws=len(found),
        )

    def line(
        self, label: str, colour: str, dashed: bool = False, **wanted: Any
    ) -> Line | None:
        """Gather the matching sets, fraction by fraction; None where there are none."""
        points = [
            self.point(self.find(fraction=fraction, **wanted))
            for fraction in self.fractions(**wanted)
        ]
        if not points:
            return None
        draws = max(point.draws for point in points)
        spread = f"range of {draws} draws" if draws > 1 else "95 % interval"
        return Line(label, colour, dashed, spread, points)


def accuracy(run: Run) -> list[Outcome]:
    """Read the few-shot accuracies of a run, one outcome a metric."""
    part = run.result.get("ablation")
    if not part:
        return []
    return [
        Outcome(
            name=metric,
            quantity=words.short(metric),
            unit="",
            sets=part["sets"],
            values=np.asarray(run.arrays[f"ablation/{metric}"], np.float64),
            replaced=run.arrays["ablation/replaced"].sum((1, 2)),
        )
        for metric in part["metrics"]
        if f"ablation/{metric}" in run.arrays
    ]


def token_loss(run: Run) -> Outcome | None:
    """Read the token-loss difference of a run, in nats; positive: learns in context."""
    part = run.result.get("token_loss")
    if not part or "token_loss/loss" not in run.arrays:
        return None
    loss = np.asarray(run.arrays["token_loss/loss"], np.float64)  # [M, docs, 2]
    return Outcome(
        name="token_loss_difference",
        quantity="token-loss difference",
        unit="nats",
        sets=part["sets"],
        values=loss[..., 0] - loss[..., 1],
        replaced=run.arrays["token_loss/replaced"].sum((1, 2)),
        from_clean=True,
    )


def colour(ranking: str, rankings: Sequence[str] = ()) -> str:
    """Give the palette name of a ranking: fixed for the known ones."""
    known = {"function_vector": "fv", "induction": "induction", "random": "random"}
    if ranking in known:
        return known[ranking]
    others = [name for name in rankings if name not in known]
    place = others.index(ranking) if ranking in others else 0
    return f"other-{place % 3 + 1}"


def panels(outcome: Outcome, **wanted: Any) -> list[Panel]:
    """Make the panels of one outcome: plain and, where measured, with exclusion."""
    titles = {"top": "Top heads replaced", "exclusion": "With exclusion"}
    made = []
    for mode, text in titles.items():
        lines = _lines(outcome, mode, wanted)
        if lines:
            clean = None if outcome.clean is None else outcome.point([outcome.clean])
            made.append(Panel(text, outcome.quantity, clean, lines))
    return made


def _lines(outcome: Outcome, mode: str, wanted: dict[str, Any]) -> list[Line]:
    rankings = outcome.rankings(mode=mode, **wanted)
    found = [
        outcome.line(
            f"top {words.short(name)} heads",
            colour(name, rankings),
            mode=mode,
            ranking=name,
            **wanted,
        )
        for name in rankings
    ]
    if not any(found):
        return []
    found.append(outcome.line("random heads", "random", mode="uniform", **wanted))
    if mode == "top":
        found += [
            outcome.line(
                f"random, in the layers of the {words.short(name)} heads",
                colour(name, rankings),
                dashed=True,
                mode="layer_matched",
                matched_to=name,
                **wanted,
            )
            for name in rankings
        ]
    return [line for line in found if line]


def kept_lines(outcome: Outcome) -> list[Line]:
    """Gather the sets that keep only a few heads and replace all others."""
    modes = dict.fromkeys(
        entry["mode"]
        for entry in outcome.sets
        if str(entry.get("mode", "")).startswith("keep_only")
    )
    found = []
    for mode in modes:
        rankings = outcome.rankings(mode=mode)
        for name in rankings:
            label = "random heads" if name == "random" else f"{words.short(name)} heads"
            shade = colour(name, rankings)
            found.append(outcome.line(label, shade, mode=mode, ranking=name))
    return [line for line in found if line]
