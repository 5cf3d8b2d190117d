"""Charts of several seeds of a training: a line a seed, and their mean."""

from typing import Any

import altair as alt
import numpy as np

from jaxheads.report import words
from jaxheads.report.charts import figure
from jaxheads.report.figures import Figure
from jaxheads.runs import Run
from jaxheads.studies.dynamics.figures import SHADES, named_rows, places, step_axis
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
    rows: list[dict[str, Any]] = [
        {"k": label, "x": place, "s": f"{step:,}", "y": float(f"{value:.5g}")}
        | {"t": words.number(float(value)), "m": int(label == _MEAN)}
        for label, line in (named | {_MEAN: values.mean(axis=0)}).items()
        for place, step, value in zip(places(steps), steps, line, strict=True)
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=step_axis(run),
        y=alt.Y("y:Q", title=unit, scale=alt.Scale(zero=True)),
        detail="k:N",
        color=alt.condition("datum.m > 0", alt.value("@ink"), alt.value(f"@{shade}")),
        opacity=alt.condition("datum.m > 0", alt.value(1), alt.value(0.65)),
        strokeWidth=alt.condition("datum.m > 0", alt.value(2.2), alt.value(1.3)),
        tooltip=[
            alt.Tooltip("k:N", title="line"),
            alt.Tooltip("s:N", title="step"),
            alt.Tooltip("t:N", title="value"),
        ],
    )
    data = named_rows(rows, {"k": "line", "y": "value"})
    chart = alt.layer(base.mark_line(), base.mark_circle(size=22))
    return figure(title, "", chart, _HEIGHT, name=name, data=data)
