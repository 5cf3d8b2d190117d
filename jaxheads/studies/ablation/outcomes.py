"""What the ablations did: outcomes per head set, gathered into lines and panels."""

import dataclasses
import functools
from typing import Any

import numpy as np

from jaxheads.report import words
from jaxheads.report.theme import SEED, colour
from jaxheads.runs import Run
from jaxheads.statistics import Interval
from jaxheads.statistics.units import ANSWERS, DIFFERENCES, Estimate, estimate
from jaxheads.studies.ablation import first_tokens


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
    """One chart: lines that share their axes; ``name`` is that of its figure.

    ``axis`` says what the lines' fractions are shares of. Lines ``lead`` away from the
    clean value where their fractions are of replaced heads.
    """

    name: str
    title: str
    quantity: str
    clean: Point | None
    lines: list[Line]
    axis: str = "heads replaced (%)"
    lead: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """One quantity measured under each of N head sets.

    ``values`` is [N, E, B] (tasks, prompts) or [N, B] (documents); all sets were
    measured on the same prompts. ``replaced`` [N] counts the heads of a set. With
    ``from_clean`` a figure's interval is that of the set's change from clean, over
    the same documents. ``scale`` is what the values were multiplied by, so that their
    mean is the one asked for. ``queries`` is int [E, B]: prompts of a task with one
    number ask one query; None: the run does not say, and each prompt counts as one.
    ``tasks`` names the E tasks.
    """

    name: str
    quantity: str
    unit: str
    sets: list[dict[str, Any]]
    values: np.ndarray
    replaced: np.ndarray
    from_clean: bool = False
    scale: float = 1.0
    queries: np.ndarray | None = None
    tasks: tuple[str, ...] = ()

    @property
    def over(self) -> str:
        """What every interval of this outcome is over, in words."""
        if self.values.ndim == 2:
            return "documents"
        tasks = "this task" if self.values.shape[1] == 1 else "these tasks"
        if self.queries is None:
            return f"prompts of {tasks}, each counted as a query of its own"
        return f"queries of {tasks}"

    def estimate(self, values: np.ndarray, *, difference: bool = False) -> Estimate:
        """Estimate a mean over this outcome's prompts.

        Args:
            values: [..., E, B], or [..., B] of documents, as ``values``.
            difference: whether they are differences of two sets' values.
        """
        if self.values.ndim == 2:
            values = values[..., None, :]
        return estimate(values, self.queries, bounds=self.bounds(difference), seed=SEED)

    @property
    def caution(self) -> str:
        """How far its intervals can be trusted, a sentence; nothing where they hold."""
        count = self.values.shape[-1]
        if self.values.ndim > 2 or count > 50:
            return ""
        return (
            f" {words.plural(count, 'document')} are few where losses are skewed: of "
            "10, 20 and 50 with lognormal losses, sigma 1, such intervals were "
            "measured to cover 91, 93 and 95 %, with sigma 1.5 85, 88 and 91 %."
        )

    def bounds(self, difference: bool = False) -> tuple[float, float] | None:
        """What a value, or a difference of two, can be; None: anything."""
        return None if self.unit else DIFFERENCES if difference else ANSWERS

    @functools.cached_property
    def intervals(self) -> Interval:
        """Mean and interval of each set, each [N]."""
        return self.estimate(self.values).interval()

    @functools.cached_property
    def bands(self) -> Interval:
        """What the figures draw around each mean."""
        base = self.clean
        if not self.from_clean or base is None:
            return self.intervals
        change = self.estimate(self.values - self.values[base], difference=True)
        change = change.interval()
        mean = self.intervals.mean
        return Interval(mean, mean[base] + change.low, mean[base] + change.high)

    @functools.cached_property
    def medians(self) -> np.ndarray:
        """Medians over documents of each set, [N]: tails do not move them."""
        each = self.values.reshape(len(self.values), -1) / self.scale
        return np.median(each, axis=1)

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

    def of_task(self, task: str) -> "Outcome":
        """The outcome in one of its tasks alone."""
        at = self.tasks.index(task)
        one = slice(at, at + 1)
        asked = None if self.queries is None else self.queries[one]
        return dataclasses.replace(
            self, values=self.values[:, one], queries=asked, tasks=(task,)
        )

    def of_draws(self, found: list[int]) -> np.ndarray:
        """Give each draw's mean, [draws]."""
        return np.asarray(self.intervals.mean)[found]

    def difference(self, found: list[int], against: list[int]) -> Interval:
        """Compare two groups of sets, averaged over draws, prompt by prompt.

        The interval is over prompts; the draws are taken as they are.
        """
        paired = self.values[found].mean(0) - self.values[against].mean(0)
        return self.estimate(paired, difference=True).interval()

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
    """Read the few-shot accuracies of a run, one outcome a metric.

    Tasks whose answers all have the same first token are left out of first-token
    accuracies; where there are no others, there is no such accuracy.
    """
    return _accuracy(run, "ablation")


def zero_shot(run: Run) -> list[Outcome]:
    """Read the accuracies on the same queries without demonstrations, where measured.

    Source: Yin & Steinhardt 2025, appendix (zero-shot accuracy under ablation).
    """
    return _accuracy(run, "ablation/zero_shot", "zero-shot")


def _accuracy(run: Run, place: str, kind: str = "") -> list[Outcome]:
    part = run.result.get("ablation")
    if not part:
        return []
    names, found = run.result.get("evaluation_tasks"), []
    for metric in part["metrics"]:
        if f"{place}/{metric}" not in run.arrays:
            continue
        values = np.asarray(run.arrays[f"{place}/{metric}"], np.float64)
        queries, tasks = run.arrays.get("ablation/queries"), names or ()
        if metric == "first_token":
            values = first_tokens.of_telling(run, values, names, 1)
            tasks = first_tokens.telling(run, tasks)
            if queries is not None:
                queries = first_tokens.of_telling(run, queries, names, 0)
        if not values.size:
            continue
        found.append(
            Outcome(
                name="-".join(filter(None, [kind, metric])),
                quantity=" ".join(filter(None, [kind, words.short(metric)])),
                unit="",
                sets=part["sets"],
                values=values,
                replaced=run.arrays["ablation/replaced"].sum((1, 2)),
                queries=queries,
                tasks=tuple(tasks),
            )
        )
    return found


def token_loss(run: Run) -> Outcome | None:
    """Read the token-loss difference of a run, in nats; positive: learns in context.

    Its mean is that of the documents, or what the published code has for it: their sum
    over one less than they are.
    """
    part = run.result.get("token_loss")
    if not part or "token_loss/loss" not in run.arrays:
        return None
    loss = np.asarray(run.arrays["token_loss/loss"], np.float64)  # [M, docs, 2]
    documents = loss.shape[1]
    scale = documents / part.get("divided_by", documents)
    return Outcome(
        name="token_loss_difference",
        quantity="token-loss difference",
        unit="nats",
        sets=part["sets"],
        values=scale * (loss[..., 0] - loss[..., 1]),
        replaced=run.arrays["token_loss/replaced"].sum((1, 2)),
        from_clean=True,
        scale=scale,
    )


def panels(outcome: Outcome, **wanted: Any) -> list[Panel]:
    """Make the panels of one outcome: plain and, where measured, with exclusion."""
    titles = {"top": "Top heads replaced", "exclusion": "With exclusion"}
    made = []
    for mode, text in titles.items():
        lines = _lines(outcome, mode, wanted)
        if lines:
            clean = None if outcome.clean is None else outcome.point([outcome.clean])
            # The token loss, alone in its section, is measured under several values.
            name = f"{wanted.get('value') or outcome.name}-{mode}"
            made.append(Panel(name, text, outcome.quantity, clean, lines))
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


def kept_panel(outcome: Outcome) -> Panel | None:
    """Make the panel of accuracy against heads kept, where that is a curve.

    Lines are named as those of ``panels``, so that one legend serves.
    """
    lines = [
        line
        if line.colour == "random"
        else dataclasses.replace(line, label=f"top {line.label}")
        for line in kept_lines(outcome)
    ]
    if len({point.fraction for line in lines for point in line.points}) < 3:
        return None
    clean = None if outcome.clean is None else outcome.point([outcome.clean])
    title, axis = words.sentence(outcome.quantity), "heads kept (%)"
    name = f"kept-{outcome.name}"
    return Panel(name, title, outcome.quantity, clean, lines, axis, lead=False)


def sensitivity_panel(outcome: Outcome, fraction: float) -> Panel | None:
    """Make the panel of accuracy against the share that an exclusion drops.

    Args:
        outcome: an accuracy.
        fraction: of heads replaced, the same in all sets.

    Returns:
        The panel; None where only one share was tried.
    """
    at = {"fraction": fraction}
    found = outcome.find(mode="exclusion", **at)
    others = outcome.find(mode="exclusion_other", **at)
    if not found or not others:
        return None
    shares: dict[str, dict[float, Point]] = {}
    for n in found + others:
        entry = outcome.sets[n]
        share = float(entry["exclusion"])
        point = dataclasses.replace(outcome.point([n]), fraction=share)
        shares.setdefault(entry["ranking"], {})[share] = point
    lines = [
        Line(
            f"top {words.short(name)} heads",
            colour(name, list(shares)),
            False,
            "95 % interval",
            [points[share] for share in sorted(points)],
        )
        for name, points in shares.items()
    ]
    draws = outcome.find(mode="uniform", **at)
    if draws:  # the same at every share
        tried = sorted({point.fraction for line in lines for point in line.points})
        point = outcome.point(draws)
        level = [dataclasses.replace(point, fraction=share) for share in tried]
        spread = f"range of {len(draws)} draws" if len(draws) > 1 else "95 % interval"
        lines.append(Line("random heads", "random", False, spread, level))
    clean = None if outcome.clean is None else outcome.point([outcome.clean])
    return Panel(
        f"exclusions-{outcome.name}",
        f"{words.sentence(outcome.quantity)}, {words.percent(fraction)} replaced",
        outcome.quantity,
        clean,
        lines,
        "top of the other ranking left alone (%)",
        lead=False,
    )
