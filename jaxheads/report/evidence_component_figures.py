"""The chart of where the losses of single tokens move, in the plane of all runs."""

from typing import Any

import altair as alt
import numpy as np

from jaxheads.report.evidence_head_figures import Part, plain, run_colour
from jaxheads.report.figures import Figure, figure


def trajectories(given: list[Part], explained: np.ndarray) -> Figure:
    """Draw the paths of all runs in the plane of the first two components."""
    rows: list[dict[str, Any]] = []
    for part in given:
        steps = part.arrays["components/step"]
        places = part.arrays["components/coordinates"]  # [E, N, 2]
        for n, seed in enumerate(part.seeds):
            marks = _marks(part, n)
            rows += [
                {"r": part.name, "n": str(seed), "k": f"{part.index}:{seed}"}
                | {"s": int(step), "m": marks.get(e, ""), "o": e}
                | {key: plain(value) for key, value in zip("xy", place, strict=True)}
                for e, (step, place) in enumerate(zip(steps, places[:, n], strict=True))
                if np.isfinite(place).all()
            ]
    titles = [
        f"component {c + 1} ({share:.0%} of the variance, nats)"
        for c, share in enumerate(explained)
    ]
    tooltip = [
        alt.Tooltip("r:N", title="run"),
        alt.Tooltip("n:N", title="seed"),
        alt.Tooltip("s:Q", title="step"),
        alt.Tooltip("m:N", title="phase change"),
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("x:Q", title=titles[0]),
        y=alt.Y("y:Q", title=titles[1]),
        color=run_colour(given),
    )
    marked = base.transform_filter("datum.m != ''")
    shape = alt.Scale(domain=["begins", "ends"], range=["diamond", "cross"])
    chart = alt.layer(
        base.mark_line(strokeWidth=1.3, opacity=0.7).encode(order="o:Q", detail="k:N"),
        base.mark_circle(size=16, opacity=0.8).encode(tooltip=tooltip),
        marked.mark_point(filled=True, size=110, opacity=1, stroke="@paper").encode(
            shape=alt.Shape("m:N", legend=None, scale=shape), tooltip=tooltip
        ),
    )
    names = {"r": "run", "n": "seed", "s": "training step", "m": "phase change"}
    names |= {"x": "component 1 (nats)", "y": "component 2 (nats)"}
    data = [{names[key]: row[key] for key in names} for row in rows]
    return figure(
        "Losses of single tokens, every snapshot", "", chart, 380,
        name="components", data=data,
    )  # fmt: skip


def _marks(part: Part, seed: int) -> dict[int, str]:
    """Evaluations nearest to the ends of a seed's phase change."""
    ends = part.arrays.get("before_and_after/step")
    if ends is None or min(ends[seed, :2]) < 0:
        return {}
    steps = part.arrays["components/step"]
    first, last = (int(np.abs(steps - step).argmin()) for step in ends[seed, :2])
    return {last: "ends", first: "begins"}
