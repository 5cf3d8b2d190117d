"""Charts of what heads carry of in-context learning, and of how they are built."""

import dataclasses
from typing import Any

import altair as alt
import numpy as np

from jaxheads.heads import head_name
from jaxheads.report import charts
from jaxheads.report.figures import Figure, Rows
from jaxheads.runs import Run
from jaxheads.studies.six_arguments.ablation_and_mechanism import INDUCTION

SHADES = ("induction", "fv", "other-1", "other-2", "other-3", "negative", "random")
"""Of the runs, in their order; after that they begin anew."""
_HEIGHT = 230
_NAMES = {"n": "seed", "h": "head", "p": "prefix matching at the last step"}


@dataclasses.dataclass(frozen=True)
class Part:
    """What one of the runs that were analysed left, without the prefix of its arrays.

    Attributes:
        index: of the run.
        name: of the run.
        seeds: of its models.
        arrays: by name, see ``jaxheads.studies.six_arguments.result``.
    """

    index: int
    name: str
    seeds: list[int]
    arrays: dict[str, np.ndarray]

    @property
    def shade(self) -> str:
        """The run's colour where several stand in one chart."""
        return SHADES[self.index % len(SHADES)]


def parts(run: Run) -> list[Part]:
    """The runs that were analysed."""
    found = []
    for r, told in enumerate(run.result["evidence"]["runs"]):
        start = f"run_{r}/"
        arrays = {
            name.removeprefix(start): values
            for name, values in run.arrays.items()
            if name.startswith(start)
        }
        found.append(Part(r, str(told["name"]), list(told["seeds"]), arrays))
    return found


def attribution(part: Part, full: bool = False) -> Figure | None:
    """Draw the ICL score without each head minus with it, against the step."""
    if full and part.arrays["attribution/by_head"].shape[2] == 1:
        return None  # no later head could attend elsewhere
    title = "Any pattern may change" if full else "Attention patterns kept"
    name = "attribution/by_head" + "_full" * full
    return _over_steps(part, name, title, "ICL score without minus with (nats)")


def qk_trace(part: Part) -> Figure | None:
    """Draw QK traces of the heads behind the first layer, against the step."""
    return _over_steps(part, "circuits/qk_trace", "QK trace", "QK trace (-1 to 1)", 1)


def _over_steps(
    part: Part, name: str, title: str, y: str, first: int = 0
) -> Figure | None:
    """One line a head of each seed from a layer on, coloured by final prefix score."""
    values = part.arrays.get(name)  # [C, N, L, H]
    if values is None or values.shape[2] <= first:
        return None
    steps = part.arrays[name.split("/", 1)[0] + "/step"]
    rows = [
        told | {"x": int(step), "y": charts.plain(value)}
        for told, at in _heads(part, first)
        for step, value in zip(steps, values[(slice(None), *at)], strict=True)
        if np.isfinite(value)
    ]
    x = alt.X("x:Q", title="training step").axis(grid=False, tickCount=6)
    base = charts.on(rows, x=x, y=alt.Y("y:Q", title=y), detail="k:N")
    others = base.transform_filter(f"datum.p <= {INDUCTION}")
    matching = base.transform_filter(f"datum.p > {INDUCTION}")
    shade = charts.gradient("p", [INDUCTION, 1], ["other-1", "induction"]).legend(None)
    texts = {"h": "head", "n": "seed", "x:Q": "step"}
    dots = base.encode(tooltip=charts.tips(texts | _shown(y)))
    layers = [
        charts.level(0, color="@line"),
        others.mark_line(color="@random", strokeWidth=1, opacity=0.5),
        matching.mark_line(strokeWidth=2).encode(color=shade),
        dots.mark_circle(size=26, opacity=0),
    ]
    names = {"x": "training step", "y": y} | _NAMES
    return charts.figure(
        f"{title}, {part.name}", "", layers, _HEIGHT,
        name=f"{name.replace('/', '-')}-{part.index}", data=charts.named(rows, names),
    )  # fmt: skip


def before_and_after(given: list[Part]) -> Figure | None:
    """Draw what undoing the phase change each head's removal is, by prefix score."""
    y = "Effect along the change over the phase change (nats)"
    title = "Removing a head at the last step"
    return _by_prefix_score(given, "before_and_after/by_head", title, y)


def trace_by_prefix(given: list[Part]) -> Figure | None:
    """Draw QK traces of the last step against prefix scores."""
    title, y = "QK trace by prefix matching", "QK trace (-1 to 1)"
    return _by_prefix_score(given, "circuits/qk_trace", title, y, 1, [-1, 1])


def copying_by_prefix(given: list[Part]) -> Figure | None:
    """Draw copying scores of the last step against prefix scores."""
    title, y = "Copying by prefix matching", "copying (-1 to 1)"
    return _by_prefix_score(given, "circuits/copying", title, y, domain=[-1, 1])


def _by_prefix_score(
    given: list[Part],
    name: str,
    title: str,
    y: str,
    first: int = 0,
    domain: list[float] | None = None,
) -> Figure | None:
    """One dot a head of each seed and run, from a layer on."""
    rows: Rows = []
    for part in given:
        values = part.arrays.get(name)
        if values is None:
            continue
        last = values[-1] if values.ndim == 4 else values  # [N, L, H]
        rows += [
            told | {"y": charts.plain(last[at]), "r": part.name}
            for told, at in _heads(part, first)
            if np.isfinite(last[at])
        ]
    if not rows:
        return None
    x = alt.X("p:Q", title="prefix matching (share of attention)")
    texts = {"r": "run", "h": "head", "n": "seed"} | _shown(y)
    dots = charts.on(
        rows,
        x=x.scale(domain=[0, 1]),
        y=alt.Y("y:Q", title=y, scale=alt.Scale(domain=domain or alt.Undefined)),
        color=run_colour(given),
        tooltip=charts.tips(texts),
    ).mark_point(filled=True, size=55, opacity=0.8)
    data = charts.named(rows, {"r": "run", "y": y} | _NAMES)
    layers, name = [charts.level(0, color="@line"), dots], name.replace("/", "-")
    return charts.figure(title, "", layers, 280, name=name, data=data)


def together(given: list[Part]) -> Figure | None:
    """Draw ICL scores of the last step without all induction heads, and without others.

    One line a seed; without others is the mean over the draws.
    """
    kinds = ["whole model", "without induction heads", "without as many others"]
    rows: Rows = []
    for part in given:
        scores = part.arrays.get("together/icl_score")  # [2 + draws, N]
        if scores is None:
            continue
        each = np.stack([scores[0], scores[1], scores[2:].mean(axis=0)])
        rows += [
            {"r": part.name, "n": str(seed), "k": f"{part.index}:{n}"}
            | {"w": kind, "y": charts.plain(value)}
            for n, seed in enumerate(part.seeds)
            if np.isfinite(each[1, n])
            for kind, value in zip(kinds, each[:, n], strict=True)
            if np.isfinite(value)
        ]
    if not rows:
        return None
    y = "ICL score (nats)"
    base = charts.on(
        rows,
        x=alt.X("w:N", title=None, sort=kinds).axis(labelAngle=0),
        y=alt.Y("y:Q", title=y),
        color=run_colour(given),
        detail="k:N",
    )
    dots = base.encode(tooltip=charts.tips({"r": "run", "n": "seed", "y:Q .3g": y}))
    layers = [
        base.mark_line(strokeWidth=1, opacity=0.5),
        dots.mark_circle(size=60, opacity=0.85),
    ]
    data = charts.named(rows, {"r": "run", "n": "seed", "w": "heads", "y": y})
    title = "All at once, at the last step"
    return charts.figure(title, "", layers, _HEIGHT, name="together", data=data)


def _heads(part: Part, first: int = 0) -> list[tuple[dict[str, Any], tuple]]:
    """Every head of every seed, with its prefix score at the last step."""
    scores = part.arrays["circuits/prefix_matching"][-1]  # [N, L, H]
    return [
        (
            {"h": head_name(l, h), "n": str(part.seeds[n]), "k": f"{n}:{l}:{h}"}
            | {"p": charts.plain(scores[n, l, h])},
            (n, l, h),
        )
        for n, l, h in np.ndindex(scores.shape)
        if l >= first
    ]


def _shown(y: str) -> dict[str, str]:
    return {"y:Q .3g": y, "p:Q .2f": "prefix matching"}


def run_colour(given: list[Part]) -> alt.Color:
    """The colour of each run, without a legend of its own."""
    return charts.colours({part.name: part.shade for part in given}, "r")
