"""Tables of the scores: the top heads, the tasks they are scored by, definitions."""

from typing import Any

import numpy as np

from jaxheads.heads import run_scores
from jaxheads.report import theme, words
from jaxheads.report.tables import Cell, Table
from jaxheads.runs import Run


def top_heads(run: Run, ranking: str, count: int = 15) -> Table:
    """List the best heads by one score, with all their scores and ranks."""
    names = [ranking] + [name for name in run_scores.names(run) if name != ranking]
    values = {name: run_scores.score(run, name) for name in names}
    spread = {name: run_scores.errors(run, name) for name in names}
    places = {name: run_scores.ranks(values[name]) for name in names}
    rows = []
    for rank, head in enumerate(run_scores.top_heads(run, ranking, count), start=1):
        at = head.layer, head.head
        row: list[str | Cell] = [str(rank), head.name]
        for name in names:
            text = words.with_error(values[name][at], spread[name][at])
            small = "" if name == ranking else f"rank {places[name][at]:,}"
            shade = theme.colour(name, names)
            row.append(Cell(text, small, _bar(values[name][at], values[name]), shade))
        rows.append(row)
    columns = ["", "head"] + [words.short(name) for name in names]
    return Table(f"Top heads by {words.short(ranking)} score", columns, rows, 2)


def _bar(value: float, among: np.ndarray) -> float:
    """Length of a bar: the value over the largest one, 0 for negative values."""
    largest = float(np.max(among))
    return max(0.0, float(value) / largest) if largest > 0 else 0.0


def task_cells(run: Run, name: str) -> list[Any]:
    """What every table of tasks says of one: its name, kind and items."""
    info = (run.result.get("task_info") or {}).get(name, {})
    items = info.get("items")
    return [
        name,
        str(info.get("kind", words.NONE)),
        f"{items:,}" if isinstance(items, int) else words.NONE,
    ]


def scoring_tasks(run: Run) -> Table | None:
    """Name each scoring task's strongest heads by their effect in that task."""
    names, effects = run.result.get("scoring_tasks"), run.arrays.get("fv/effects")
    if not names or effects is None:
        return None
    rows = []
    for task, name in enumerate(names):
        row = task_cells(run, name)
        info = (run.result.get("task_info") or {}).get(name, {})
        left = info.get("unchanged_share")
        row.append(words.NONE if left is None else words.percent(left))
        order = np.argsort(-effects[task], axis=None, kind="stable")[:3]
        for place in order:
            layer, head = np.unravel_index(place, effects[task].shape)
            value = float(effects[task, layer, head])
            bar = _bar(value, effects)
            row.append(Cell(words.number(value), f"{layer}.{head}", bar, "fv"))
        rows.append(row)
    columns = ["task", "kind", "items", "left unshuffled"]
    columns += ["strongest head", "second", "third"][: max(len(rows[0]) - 4, 0)]
    return Table("Scoring tasks: effect on the right answer", columns, rows, 2)


def definitions(run: Run) -> Table | None:
    """Say what each score means, with its chance level, ceiling and source."""
    listed: dict[str, Any] = run.result.get("scores") or {}
    rows = []
    for name, info in listed.items():
        chance, ceiling = info.get("chance"), info.get("ceiling")
        texts = [words.title(name), info.get("definition", "")]
        texts += [words.number(chance), words.number(ceiling)]
        texts += [info.get("unit", ""), info.get("source", "")]
        rows.append([str(text) for text in texts])
    columns = ["score", "definition", "chance", "ceiling", "unit", "source"]
    return Table("Scores", columns, rows, 99) if rows else None
