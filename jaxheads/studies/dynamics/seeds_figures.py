"""Charts of several seeds of a training: a line a seed, and their mean."""

import numpy as np

from jaxheads.report import charts, words
from jaxheads.report.figures import Figure, Rows
from jaxheads.runs import Run
from jaxheads.studies.dynamics.figures import SHADES, places, step_axis, up
from jaxheads.studies.dynamics.findings import answered

_MEAN = "mean of the seeds"
_HEIGHT = 230


def curves(run: Run) -> list[Figure]:
    """Draw both scores, and accuracy if it was measured, of every seed."""
    drawn = [
        _lines(
            run,
            f"seeds-{name}",
            words.title(name),
            "mean score of the top 2 %",
            run.arrays[f"dynamics/curve/{name}/top"][..., 0],
            shade,
        )
        for name, shade in SHADES.items()
    ]
    measured = answered(run, "first_token")
    if measured is not None:
        values = measured.mean(axis=(2, 3))
        title = "Few-shot accuracy"
        drawn.append(_lines(run, "seeds-accuracy", title, "accuracy", values, "random"))
    return drawn


def _lines(
    run: Run, name: str, title: str, unit: str, values: np.ndarray, shade: str
) -> Figure:
    """Draw values [N, U] against the step."""
    steps = [int(step) for step in run.arrays["dynamics/step"]]
    seeds = [one["seed"] for one in run.result["dynamics_seeds"]["seeds"]]
    named = {f"seed {seed}": line for seed, line in zip(seeds, values, strict=True)}
    rows: Rows = [
        {"k": label, "x": place, "s": f"{step:,}", "y": float(f"{value:.5g}")}
        | {"t": words.number(float(value)), "m": int(label == _MEAN)}
        for label, line in (named | {_MEAN: values.mean(axis=0)}).items()
        for place, step, value in zip(places(steps), steps, line, strict=True)
    ]
    colour, seen, wide = (
        charts.either("datum.m > 0", *looks)
        for looks in (("@ink", f"@{shade}"), (1, 0.65), (2.2, 1.3))
    )
    base = charts.on(
        rows,
        x=step_axis(run),
        y=up(unit),
        detail="k:N",
        color=colour,
        opacity=seen,
        strokeWidth=wide,
        tooltip=charts.tips({"k": "line", "s": "step", "t": "value"}),
    )
    data = charts.named(rows, {"s": "training step", "k": "line", "y": "value"})
    layers = [base.mark_line(), base.mark_circle(size=22)]
    return charts.figure(title, "", layers, _HEIGHT, name=name, data=data)
