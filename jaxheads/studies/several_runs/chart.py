"""A chart over several runs: against model size, training step, or the models."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import altair as alt
import numpy as np

from jaxheads.report import charts, words
from jaxheads.report.figures import Figure, Rows
from jaxheads.studies.several_runs.members import Member

_HEIGHT = 220


@dataclasses.dataclass(frozen=True)
class Measure:
    """One number of one run; ``spread`` says what ``low`` and ``high`` are."""

    series: str
    value: float
    low: float = float("nan")
    high: float = float("nan")
    spread: str = ""


@dataclasses.dataclass(frozen=True)
class Series:
    """How one line is drawn; one that is dashed is what chance gives."""

    label: str
    colour: str
    dashed: bool = False


@dataclasses.dataclass(frozen=True)
class Axis:
    """What the runs are set out along.

    ``kind`` is "size" (number of parameters, on a log scale), "step" (of training), or
    "model" where neither tells them apart: then each stands for itself.
    """

    kind: Literal["size", "step", "model"]

    def place(self, member: Member) -> float | str:
        """Give a run's place."""
        at = {"size": member.num_params, "step": member.step, "model": member.model}
        place = at[self.kind]
        assert place is not None
        return place

    @property
    def title(self) -> str:
        """Name what is along the axis."""
        titles = {"size": "parameters", "step": "training step", "model": "model"}
        return titles[self.kind]


def axis(listed: Sequence[Member]) -> Axis:
    """Choose what tells the runs apart: their size, else their step, else nothing."""
    sizes, steps = ({getattr(m, k) for m in listed} for k in ("num_params", "step"))
    if None not in sizes and len(sizes) > 1:
        return Axis("size")
    if None not in steps and len(steps) > 1:
        return Axis("step")
    return Axis("model")


def against(
    listed: Sequence[Member],
    along: Axis,
    series: Sequence[Series],
    measure: Callable[[Member], list[Measure]],
    *,
    title: str,
    quantity: str,
    name: str,
    label: str | None = None,
    domain: tuple[float, float] | None = None,
) -> Figure | None:
    """Draw numbers of every run against the model's size, its step or its name.

    Runs of the same params (other seeds) stand at one place, as their mean and range.

    Args:
        listed: the runs, in order.
        along: the horizontal axis.
        series: the lines.
        measure: gives a run's numbers, at most one a series; may be empty.
        title: of the chart.
        quantity: of the vertical axis, with its unit.
        label: of that axis, where the quantity is too long for it.
        name: of the figure.
        domain: of the vertical axis.

    Returns:
        None where no run has a number.
    """
    told = [(member, one) for member in listed for one in measure(member)]
    told = [(member, one) for member, one in told if np.isfinite(one.value)]
    if not told:
        return None
    chance = {one.label for one in series if one.dashed}
    rows, each = _summarised(told, along, chance)
    known = [one for one in series if any(row["s"] == one.label for row in rows)]
    layers = _layers(rows, each, along, known, label or quantity, domain)
    data = _data(told, quantity)
    return charts.figure(title, "", layers, _HEIGHT, name=name, data=data)


def _summarised(
    told: list[tuple[Member, Measure]], along: Axis, chance: set[str]
) -> tuple[Rows, Rows]:
    """One row for each params and series; and one a run, where there are several.

    The range of a series of ``chance`` is that of random sets, not that of the runs.
    """
    groups: dict[tuple[str, str], list[tuple[Member, Measure]]] = {}
    for member, one in told:
        groups.setdefault((member.params, one.series), []).append((member, one))
    rows, runs = [], []
    for (_, label), group in groups.items():
        member, one = group[0]
        values = [each.value for _, each in group]
        low, high = (
            float(np.mean([getattr(each, side) for _, each in group]))
            for side in ("low", "high")
        )
        spread = one.spread
        if len(group) > 1 and label not in chance:
            low, high = min(values), max(values)
            spread = f"range of {len(group)} runs"
            runs += [
                {"s": label, "x": along.place(its), "y": each.value, "m": its.label}
                for its, each in group
            ]
        value = float(np.mean(values))
        known = bool(np.isfinite(low) and np.isfinite(high))
        text = words.with_interval(value, low, high) if known else words.number(value)
        rows.append(
            {"s": label, "x": along.place(member), "m": member.model, "y": value}
            | ({"a": float(low), "b": float(high)} if known else {})
            | {"t": text, "w": spread or words.NONE}
        )
    return rows, runs


def _layers(
    rows: Rows,
    runs: Rows,
    along: Axis,
    series: Sequence[Series],
    quantity: str,
    domain: tuple[float, float] | None,
) -> list[Any]:
    axes: dict[str, Any] = {
        "x": _x(rows, along),
        "color": charts.colours({one.label: one.colour for one in series}),
    }
    if along.kind == "model":
        labels = [one.label for one in series]
        axes["xOffset"] = alt.XOffset("s:N", sort=labels, scale=alt.Scale(padding=0.6))
    y_scale = alt.Scale(domain=list(domain)) if domain else alt.Scale(zero=True)
    y = alt.Y("y:Q", title=quantity, scale=y_scale)
    texts = {"m": "model", "s": "series", "t": quantity, "w": "in brackets"}
    layers = []
    for dashed in (True, False):
        own = [one.label for one in series if one.dashed == dashed]
        listed = [row for row in rows if row["s"] in own]
        if not listed:
            continue
        base = charts.on(listed, **axes)
        ranges = [row for row in listed if "a" in row]
        if ranges:
            bars = charts.span(charts.on(ranges, **axes), y)
            layers.append(bars.mark_rule(strokeWidth=1.5, opacity=0.6))
        if _is_line(listed):
            stroke: dict[str, Any] = {"strokeDash": [4, 3]} if dashed else {}
            layers.append(base.encode(y=y).mark_line(strokeWidth=1.8, **stroke))
        dots = base.encode(y=y, tooltip=charts.tips(texts))
        layers.append(dots.mark_circle(size=26 if dashed else 60, opacity=1))
    if runs:
        named = [alt.Tooltip("m:N", title="run"), alt.Tooltip("y:Q", format=".3~g")]
        each = charts.on(runs, **axes, y=y, tooltip=named)
        layers.append(each.mark_point(size=26, strokeWidth=1, opacity=0.9))
    return layers


def _is_line(rows: Rows) -> bool:
    """Whether places are numbers, and no series has two values at one of them."""
    places = [(row["s"], row["x"]) for row in rows]
    return len(set(places)) == len(places) and not isinstance(rows[0]["x"], str)


def _x(rows: Rows, along: Axis) -> alt.X:
    if along.kind == "model":
        names = list(dict.fromkeys(row["x"] for row in rows))
        return alt.X("x:N", title=None, sort=names).axis(
            labelAngle=0 if len(names) <= 3 else -30, labelLimit=150, ticks=False
        )
    places = sorted({row["x"] for row in rows})
    log: dict[str, Any] = {"type": "log", "base": 10 if along.kind == "size" else 2}
    if places[0] <= 0:
        log = {"type": "symlog", "constant": 1}
    scale = alt.Scale(nice=False, padding=14, **log)
    return alt.X("x:Q", title=along.title, scale=scale).axis(
        values=places,
        grid=False,
        labelOverlap="greedy",
        # A thousand million is a B in the names of models, and a G in SI.
        labelExpr="replace(format(datum.value, '.3~s'), 'G', 'B')",
    )


def _data(told: list[tuple[Member, Measure]], quantity: str) -> Rows:
    return [
        {"run": member.label, "model": member.model, "parameters": member.num_params}
        | {"training step": member.step, "seed": member.seed, "series": one.series}
        | {quantity: one.value, f"{quantity}, low": one.low}
        | {f"{quantity}, high": one.high, "low to high": one.spread}
        for member, one in told
    ]
