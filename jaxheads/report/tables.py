"""The page's tables, as plain text cells with an optional bar behind them."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxheads import run_scores
from jaxheads.report import findings, outcomes, words
from jaxheads.report.outcomes import Outcome
from jaxheads.runs import Run


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell: text, a second small line, and a bar of 0 to 1 behind the text."""

    text: str
    small: str = ""
    bar: float | None = None
    colour: str = "random"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; columns from ``numbers`` on hold numbers and are set flush right."""

    caption: str
    columns: list[str]
    rows: list[list[Cell]]
    numbers: int = 1
    stacked: bool = False  # whether a cell's small text stands below, or before it


def top_heads(run: Run, ranking: str, count: int = 15) -> Table:
    """List the best heads by one score, with all their scores and ranks."""
    names = [ranking] + [name for name in run_scores.names(run) if name != ranking]
    values = {name: run_scores.score(run, name) for name in names}
    spread = {name: run_scores.errors(run, name) for name in names}
    places = {name: run_scores.ranks(values[name]) for name in names}
    rows = []
    for rank, head in enumerate(run_scores.top_heads(run, ranking, count), start=1):
        at = head.layer, head.head
        row = [Cell(str(rank)), Cell(head.name)]
        for name in names:
            text = words.with_error(values[name][at], spread[name][at])
            small = "" if name == ranking else f"rank {places[name][at]:,}"
            shade = outcomes.colour(name, names)
            row.append(Cell(text, small, _bar(values[name][at], values[name]), shade))
        rows.append(row)
    columns = ["", "head"] + [words.short(name) for name in names]
    return Table(f"Top heads by {words.short(ranking)} score", columns, rows, 2)


def _bar(value: float, among: np.ndarray) -> float:
    """Length of a bar: the value over the largest one, 0 for negative values."""
    largest = float(np.max(among))
    return max(0.0, float(value) / largest) if largest > 0 else 0.0


def evaluation_tasks(run: Run) -> Table | None:
    """Give each evaluation task's accuracy: clean, and with the top heads replaced."""
    measured = outcomes.accuracy(run)
    names = run.result.get("evaluation_tasks") or []
    if not measured or not names:
        return None
    first = measured[0]
    fraction = findings.nearest_fraction(first, "top")
    at = {"fraction": fraction}
    columns = [("no head replaced", "ink", first.find(mode="clean")[:1])]
    for name in first.rankings(mode="top", **at):
        found = first.find(mode="top", ranking=name, **at)
        columns.append((words.short(name), outcomes.colour(name), found))
    columns.append(("random heads", "random", first.find(mode="uniform", **at)))
    columns = [column for column in columns if column[2]]
    rows = []
    for name in names:
        row = _task_cells(run, name)
        for _, shade, sets in columns:
            values = {
                outcome.name: float(outcome.of_task(name).values[sets].mean())
                for outcome in measured
                if name in outcome.tasks
            }
            small = " · ".join(
                f"{_metric(outcome)} {values[outcome.name]:.2f}"
                for outcome in measured[1:]
                if outcome.name in values
            )
            value = values.get(first.name)
            text = words.NONE if value is None else f"{value:.2f}"
            row.append(Cell(text, small, value, shade))
        rows.append(row)
    share = f", top {words.percent(fraction)} replaced" if fraction else ""
    return Table(
        f"Evaluation tasks: {first.quantity}{share}",
        ["task", "kind", "items"] + [column[0] for column in columns],
        rows,
        2,
        stacked=True,
    )


def _metric(outcome: Outcome) -> str:
    return "F1" if outcome.name == "f1" else words.short(outcome.name)


def _task_cells(run: Run, name: str) -> list[Cell]:
    info = (run.result.get("task_info") or {}).get(name, {})
    items = info.get("items")
    return [
        Cell(name),
        Cell(str(info.get("kind", words.NONE))),
        Cell(f"{items:,}" if isinstance(items, int) else words.NONE),
    ]


def scoring_tasks(run: Run) -> Table | None:
    """Name each scoring task's strongest heads by their effect in that task."""
    names, effects = run.result.get("scoring_tasks"), run.arrays.get("fv/effects")
    if not names or effects is None:
        return None
    rows = []
    for task, name in enumerate(names):
        row = _task_cells(run, name)
        info = (run.result.get("task_info") or {}).get(name, {})
        left = info.get("unchanged_share")
        row.append(Cell(words.NONE if left is None else words.percent(left)))
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


def every_set(run: Run, measured: Iterable[Outcome], caption: str) -> Table | None:
    """List every head set that was measured, whatever its mode is called."""
    measured = list(measured)
    if not measured:
        return None
    by_document = [one for one in measured if one.values.ndim == 2]
    rows = []
    for n, entry in enumerate(measured[0].sets):
        matched = entry.get("matched_to")
        mode = str(entry.get("mode", "")).replace("_", " ")
        change = entry.get("largest_change")
        rows.append(
            [
                Cell(str(entry.get("name", n))),
                Cell(words.short(str(entry.get("ranking", "none")))),
                Cell(mode + (f" to {words.short(matched)}" if matched else "")),
                Cell(str(entry.get("value") or words.NONE)),
                Cell(words.percent(float(entry.get("fraction", 0)))),
                Cell(f"{int(measured[0].replaced[n]):,}"),
                Cell(str(entry.get("draw", 0))),
            ]
            + [Cell(words.with_interval(*one.interval(n))) for one in measured]
            + [Cell(words.number(one.medians[n])) for one in by_document]
            + [Cell(words.number(change) if change is not None else words.NONE)]
        )
    columns = ["set", "ranking", "mode", "value", "share", "replaced", "draw"]
    columns += [one.quantity for one in measured]
    columns += ["its median"] * len(by_document) + ["largest change"]
    return Table(caption, columns, rows, 4)


def definitions(run: Run) -> Table | None:
    """Say what each score means, with its chance level, ceiling and source."""
    listed: dict[str, Any] = run.result.get("scores") or {}
    rows = []
    for name, info in listed.items():
        chance, ceiling = info.get("chance"), info.get("ceiling")
        texts = [words.title(name), info.get("definition", "")]
        texts += [words.number(chance), words.number(ceiling)]
        texts += [info.get("unit", ""), info.get("source", "")]
        rows.append([Cell(str(text)) for text in texts])
    columns = ["score", "definition", "chance", "ceiling", "unit", "source"]
    return Table("Scores", columns, rows, 99) if rows else None


def plan(run: Run) -> Table | None:
    """Set the planned work against the seconds that it took."""
    listed = (run.result.get("plan") or {}).get("rows") or []
    wall = run.result.get("wall_s") or {}
    planned = [str(row.get("part", "")) for row in listed]
    listed = listed + [{"part": part} for part in wall if part not in planned]
    rows = [
        [
            Cell(str(row.get("part", "")).replace("_", " ")),
            *(
                Cell(words.magnitude(row.get(name)))
                for name in ("forwards", "tokens", "flops", "bytes")
            ),
            Cell(_wall(wall.get(row.get("part")))),
        ]
        for row in listed
    ]
    columns = ["part", "forwards", "tokens", "FLOPs", "bytes", "wall time"]
    return Table("Plan and time", columns, rows) if rows else None


def _wall(value: float | None) -> str:
    return words.NONE if value is None else words.seconds(value)
