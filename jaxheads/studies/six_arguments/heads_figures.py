"""Charts of what heads carry of in-context learning, and of how they are built."""

import dataclasses
from typing import Any

import altair as alt
import numpy as np

from jaxheads.heads import head_name
from jaxheads.report.charts import figure
from jaxheads.report.figures import Figure
from jaxheads.runs import Run
from jaxheads.studies.six_arguments.ablation_and_mechanism import INDUCTION

SHADES = ("induction", "fv", "other-1", "other-2", "other-3", "negative", "random")
"""Of the runs, in their order; after that they begin anew."""
_HEIGHT = 230


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
        told | {"x": int(step), "y": plain(value)}
        for told, at in _heads(part, first)
        for step, value in zip(steps, values[(slice(None), *at)], strict=True)
        if np.isfinite(value)
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("x:Q", title="training step").axis(grid=False, tickCount=6),
        y=alt.Y("y:Q", title=y),
        detail="k:N",
    )
    matching, others = f"datum.p > {INDUCTION}", f"datum.p <= {INDUCTION}"
    chart = alt.layer(
        _zero(),
        base.transform_filter(others).mark_line(
            color="@random", strokeWidth=1, opacity=0.5
        ),
        base.transform_filter(matching)
        .mark_line(strokeWidth=2)
        .encode(color=_by_prefix()),
        base.mark_circle(size=26, opacity=0).encode(tooltip=_tooltip(y)),
    )
    data = [_named(row, {"x": "training step", "y": y}) for row in rows]
    return figure(
        f"{title}, {part.name}", "", chart, _HEIGHT,
        name=f"{name.replace('/', '-')}-{part.index}", data=data,
    )  # fmt: skip


def before_and_after(given: list[Part]) -> Figure | None:
    """Draw what undoing the phase change each head's removal is, by prefix score."""
    y = "Effect along the change over the phase change (nats)"
    return _by_prefix_score(
        given, "before_and_after/by_head", "Removing a head at the last step", y
    )


def trace_by_prefix(given: list[Part]) -> Figure | None:
    """Draw QK traces of the last step against prefix scores."""
    return _by_prefix_score(
        given,
        "circuits/qk_trace",
        "QK trace by prefix matching",
        "QK trace (-1 to 1)",
        first=1,
        domain=[-1, 1],
    )


def copying_by_prefix(given: list[Part]) -> Figure | None:
    """Draw copying scores of the last step against prefix scores."""
    return _by_prefix_score(
        given,
        "circuits/copying",
        "Copying by prefix matching",
        "copying (-1 to 1)",
        domain=[-1, 1],
    )


def _by_prefix_score(
    given: list[Part],
    name: str,
    title: str,
    y: str,
    first: int = 0,
    domain: list[float] | None = None,
) -> Figure | None:
    """One dot a head of each seed and run, from a layer on."""
    rows = []
    for part in given:
        values = part.arrays.get(name)
        if values is None:
            continue
        last = values[-1] if values.ndim == 4 else values  # [N, L, H]
        rows += [
            told | {"y": plain(last[at]), "r": part.name}
            for told, at in _heads(part, first)
            if np.isfinite(last[at])
        ]
    if not rows:
        return None
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X(
            "p:Q",
            title="prefix matching (share of attention)",
            scale=alt.Scale(domain=[0, 1]),
        ),
        y=alt.Y("y:Q", title=y, scale=alt.Scale(domain=domain or alt.Undefined)),
        color=run_colour(given),
        tooltip=[alt.Tooltip("r:N", title="run"), *_tooltip(y, step=False)],
    )
    chart = alt.layer(_zero(), base.mark_point(filled=True, size=55, opacity=0.8))
    data = [_named(row, {"r": "run", "y": y}) for row in rows]
    return figure(title, "", chart, 280, name=name.replace("/", "-"), data=data)


def together(given: list[Part]) -> Figure | None:
    """Draw ICL scores of the last step without all induction heads, and without others.

    One line a seed; without others is the mean over the draws.
    """
    kinds = ["whole model", "without induction heads", "without as many others"]
    rows = []
    for part in given:
        scores = part.arrays.get("together/icl_score")  # [2 + draws, N]
        if scores is None:
            continue
        each = np.stack([scores[0], scores[1], scores[2:].mean(axis=0)])
        rows += [
            {"r": part.name, "n": str(seed), "k": f"{part.index}:{n}"}
            | {"w": kind, "y": plain(value)}
            for n, seed in enumerate(part.seeds)
            if np.isfinite(each[1, n])
            for kind, value in zip(kinds, each[:, n], strict=True)
            if np.isfinite(value)
        ]
    if not rows:
        return None
    y = "ICL score (nats)"
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("w:N", title=None, sort=kinds).axis(labelAngle=0),
        y=alt.Y("y:Q", title=y),
        color=run_colour(given),
        detail="k:N",
    )
    tooltip = [
        alt.Tooltip("r:N", title="run"),
        alt.Tooltip("n:N", title="seed"),
        alt.Tooltip("y:Q", title=y, format=".3g"),
    ]
    chart = alt.layer(
        base.mark_line(strokeWidth=1, opacity=0.5),
        base.mark_circle(size=60, opacity=0.85).encode(tooltip=tooltip),
    )
    names = {"r": "run", "n": "seed", "w": "heads", "y": y}
    return figure(
        "All at once, at the last step", "", chart, _HEIGHT,
        name="together", data=[{names[k]: row[k] for k in names} for row in rows],
    )  # fmt: skip


def _heads(part: Part, first: int = 0) -> list[tuple[dict[str, Any], tuple]]:
    """Every head of every seed, with its prefix score at the last step."""
    scores = part.arrays["circuits/prefix_matching"][-1]  # [N, L, H]
    return [
        (
            {"h": head_name(l, h), "n": str(part.seeds[n]), "k": f"{n}:{l}:{h}"}
            | {"p": plain(scores[n, l, h])},
            (n, l, h),
        )
        for n, l, h in np.ndindex(scores.shape)
        if l >= first
    ]


def _named(row: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """A row by names for people."""
    names = names | {"n": "seed", "h": "head", "p": "prefix matching at the last step"}
    return {names[key]: row[key] for key in names}


def _tooltip(y: str, step: bool = True) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("h:N", title="head"),
        alt.Tooltip("n:N", title="seed"),
        *([alt.Tooltip("x:Q", title="step")] if step else []),
        alt.Tooltip("y:Q", title=y, format=".3g"),
        alt.Tooltip("p:Q", title="prefix matching", format=".2f"),
    ]


def _by_prefix() -> alt.Color:
    scale = alt.Scale(
        domain=[INDUCTION, 1],
        range=["@other-1", "@induction"],
        interpolate="rgb",
        clamp=True,
    )
    return alt.Color("p:Q", scale=scale, legend=None)


def run_colour(given: list[Part]) -> alt.Color:
    """The colour of each run, without a legend of its own."""
    scale = alt.Scale(
        domain=[part.name for part in given],
        range=[f"@{part.shade}" for part in given],
    )
    return alt.Color("r:N", scale=scale, legend=None)


def _zero() -> alt.Chart:
    return (
        alt.Chart(alt.Data(values=[{"y": 0}]))
        .mark_rule(color="@line")
        .encode(y=alt.Y("y:Q"))
    )


def plain(value: Any) -> float:
    """A number as the page keeps it."""
    return float(f"{float(value):.5g}")
