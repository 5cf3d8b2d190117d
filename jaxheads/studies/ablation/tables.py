"""Tables of ablations: each evaluation task, and every set."""

from collections.abc import Iterable, Sequence

import numpy as np

from jaxheads.report import theme, words
from jaxheads.report.tables import Cell, Table
from jaxheads.runs import Run
from jaxheads.studies.ablation import findings, outcomes
from jaxheads.studies.ablation.outcomes import Outcome
from jaxheads.studies.scores.tables import task_cells


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
        columns.append((words.short(name), theme.colour(name), found))
    columns.append(("random heads", "random", first.find(mode="uniform", **at)))
    columns = [column for column in columns if column[2]]
    rows = []
    for name in names:
        row = task_cells(run, name)
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


def every_kind(caption: str, measured: Sequence[Outcome]) -> Table:
    """A row a kind of set, the mean over its draws; medians of documents too."""
    rows = []
    for kind, at in _groups(measured[0].sets).items():
        means = [one.values[at].mean(axis=0) for one in measured]
        each = [*zip(measured, means, strict=True)]
        rows.append(
            [
                *kind,
                *(words.with_interval(*o.estimate(m).interval()) for o, m in each),
                *(
                    words.number(float(np.median(m)) / o.scale)
                    for o, m in each
                    if m.ndim == 1
                ),
            ]
        )
    columns = ["ranking", "set", "share", "heads", "value"]
    columns += [_metric(one) for one in measured]
    columns += ["median"] * sum(one.values.ndim == 2 for one in measured)
    return Table(caption, columns, rows, 3)


def _groups(sets: list[dict]) -> dict[tuple, list[int]]:
    """Rows of each kind of set; random draws of one kind and size are one group."""
    groups: dict[tuple, list[int]] = {}
    for index, item in enumerate(sets):
        matched = item["matched_to"]
        mode = item["mode"].replace("_", " ")
        mode += f" to {words.short(matched)}" if matched else ""
        key = (
            # Each chosen set is a row of its own, by its name.
            item["name"] if item["mode"] == "chosen" else words.short(item["ranking"]),
            mode.replace(
                "exclusion other", f"exclusion {item.get('exclusion', 0):.1%}"
            ),
            f"{item['fraction']:.0%}" if item["count"] else "",
            str(item["count"]),
            item.get("value", "") if item["count"] else "",
        )
        groups.setdefault(key, []).append(index)
    return groups


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
                str(entry.get("name", n)),
                words.short(str(entry.get("ranking", "none"))),
                mode + (f" to {words.short(matched)}" if matched else ""),
                str(entry.get("value") or words.NONE),
                words.percent(float(entry.get("fraction", 0))),
                f"{int(measured[0].replaced[n]):,}",
                str(entry.get("draw", 0)),
            ]
            + [words.with_interval(*one.interval(n)) for one in measured]
            + [words.number(one.medians[n]) for one in by_document]
            + [(words.number(change) if change is not None else words.NONE)]
        )
    columns = ["set", "ranking", "mode", "value", "share", "replaced", "draw"]
    columns += [one.quantity for one in measured]
    columns += ["its median"] * len(by_document) + ["largest change"]
    return Table(caption, columns, rows, 4)
