"""Estimates from gradients beside exact effects: section and charts of the page."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from jaxheads.heads import head_name
from jaxheads.report import charts, words
from jaxheads.report.figures import Figure, Rows
from jaxheads.report.layout import Key, Row, Section, Statement, Topic
from jaxheads.runs import Run
from jaxheads.statistics.claims import Claim
from jaxheads.studies.ablation.findings import Findings
from jaxheads.studies.attribution import findings as told

_KINDS = {"top": "other-1", "sample": "fv"}


def topic(run: Run, found: Findings, judged: Sequence[Claim]) -> Topic:
    """What the page tells of estimated effects."""
    del judged
    return Topic(sections(run), verdict(run, found), say(run))


def sections(run: Run) -> list[Section]:
    """Make the section, if the run has estimates."""
    part = run.result.get("attribution")
    if not part:
        return []
    text = (
        "The effect of setting a head to its mean on clean prompts, at the last "
        f"position of {words.plural(part['prompts'], 'prompt')} with shuffled labels "
        f"in each of {words.plural(len(part['tasks']), 'task')}, on the right answer's "
        f"{part['metric'].replace('_', ' ')}. Gradients estimate it for all heads at "
        "once; each method's top heads and a random sample of the others are run "
        "exactly, and stand in the charts. On the dashed line an estimate is exact; "
        "bars: standard error over queries."
    )
    return [
        Section(
            "attribution",
            "Estimates from gradients: how far can they be trusted?",
            text,
            keys=[
                Key("top by the estimate", "other-1", "circle"),
                Key("sampled from the others", "fv", "cross"),
                Key("estimate = exact", "ink", "dashes"),
            ],
            rows=[Row("", [scatter(run, method) for method in part["methods"]])],
            facts=[told.work(run)],
            tables=[told.table(part)],
        )
    ]


def verdict(run: Run, found: Findings) -> str | None:
    """Answer in a line where the run holds nothing but estimates."""
    part = run.result.get("attribution")
    if not part or found.comparisons or run.result.get("scores"):
        return None
    method = told.best(part) or next(iter(part["methods"]))
    one = part["methods"][method]
    return (
        f"Estimates from gradients ({method}) rank the heads with a correlation of "
        f"{words.number(one['rank_agreement'])} with exact effects, over "
        f"{words.plural(one['top_k'] + one['sample'], 'verified head')}."
    )


def say(run: Run) -> list[Statement]:
    """Write the statements for the head of the page."""
    part = run.result.get("attribution")
    if not part:
        return []
    method = told.best(part) or next(iter(part["methods"]))
    text = told.reading(part["methods"][method], part["unit"])
    return [Statement("Estimates", f"By {method}: {text}")]


def scatter(run: Run, method: str) -> Figure:
    """Draw a method's estimates of the verified heads against their exact effects."""
    part = run.result["attribution"]
    one, unit = part["methods"][method], part["unit"]
    rows = _rows(run, method)
    miss = [row for row in rows if row["h"] == head_name(*one["worst_miss_head"])]
    ends = [value for row in rows for value in (row["x"], row["y"])]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    x = alt.X("x:Q", title=f"exact effect ({unit})", scale=alt.Scale(zero=True))
    y = alt.Y("y:Q", title=f"estimate ({unit})", scale=alt.Scale(zero=True))
    base = charts.on(rows, x=x, y=y)
    texts = {"h": "head", "t": "exact", "u": "estimate", "k": "verified as"}
    dots = base.mark_point(size=55, filled=True, opacity=0.85).encode(
        color=charts.colours(_KINDS, "k"),
        shape=charts.shapes({"top": "circle", "sample": "cross"}, "k"),
        tooltip=charts.tips(texts),
    )
    line = charts.on([{"x": v, "y": v} for v in (low, high)], x=x, y=y)
    # To the left of the middle a label runs to the right of its mark, and so inwards.
    left = bool(miss) and miss[0]["x"] > (low + high) / 2
    side = {"dx": -9, "align": "right"} if left else {"dx": 9, "align": "left"}
    ground, text = charts.texts(charts.on(miss, x=x, y=y, text="l:N"), dy=-9, **side)
    layers = [
        line.mark_line(color="@ink", strokeDash=[4, 3], strokeWidth=1),
        charts.span(base, x).mark_rule(color="@line"),
        charts.span(base, y, "cd").mark_rule(color="@line"),
        ground,
        dots,
        text,
    ]
    note = (
        f"rank correlation {words.number(one['rank_agreement'])}; worst miss "
        f"{told.worst_miss(one)}"
    )
    return charts.figure(
        words.sentence(told.TITLES[method]), note, layers, 260,
        name=method, data=_data(run, method),
    )  # fmt: skip


def _data(run: Run, method: str) -> Rows:
    """One row a verified head, with all digits."""
    unit = run.result["attribution"]["unit"]
    columns = {
        f"exact effect ({unit})": "_exact",
        f"exact effect ({unit}), standard error": "_exact_se",
        f"estimate ({unit})": "",
        f"estimate ({unit}), standard error": "_se",
    }
    arrays = {
        title: np.asarray(run.arrays[f"attribution/{method}{name}"])
        for title, name in columns.items()
    }
    top = run.arrays[f"attribution/{method}_top"]
    exact = next(iter(arrays.values()))
    return [
        {"head": head_name(layer, head)}
        | {title: values[layer, head] for title, values in arrays.items()}
        | {"verified as": "top" if top[layer, head] else "sample"}
        for layer, head in np.argwhere(np.isfinite(exact)).tolist()
    ]


def _rows(run: Run, method: str) -> list[dict[str, Any]]:
    """One row a verified head."""
    names = ("", "_se", "_exact", "_exact_se", "_top")
    estimate, error, exact, exact_error, top = (
        np.asarray(run.arrays[f"attribution/{method}{name}"]) for name in names
    )
    rows = []
    for layer, head in np.argwhere(np.isfinite(exact)).tolist():
        at = (layer, head)
        value, guess = float(exact[at]), float(estimate[at])
        wide, guessed = (
            float(np.nan_to_num(spread[at])) for spread in (exact_error, error)
        )
        numbers = {"x": value, "y": guess, "a": value - wide, "b": value + wide}
        numbers |= {"c": guess - guessed, "d": guess + guessed}
        name = head_name(*at)
        rows.append(
            {"h": name}
            | {key: charts.plain(number) for key, number in numbers.items()}
            | {"t": words.with_error(value, wide)}
            | {"u": words.with_error(guess, guessed)}
            | {"k": "top" if top[at] else "sample", "l": f"{name} (worst miss)"}
        )
    return rows
