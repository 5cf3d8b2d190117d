"""Function vectors at work in the terminal."""

from collections.abc import Iterator

from rich.table import Table

from jaxheads.runs import Run
from jaxheads.studies.function_vectors import findings as executed


def lines(run: Run) -> Iterator[Table | str]:
    """What the terminal prints of a run, if it has this study."""
    if "execution" in run.result:
        yield _answers(run)


def _answers(run: Run) -> Table:
    """Accuracy and probability by condition, with 95 % intervals over queries."""
    found = executed.Executed(run)
    part = found.part
    table = Table(
        title=f"function vectors of {part['count']} heads added "
        f"{executed.PLACES[part['place']]}; chosen layer: where the other tasks' right "
        "tokens are likeliest (mean over tasks, 95 % intervals over queries)"
    )
    for name in ("prompts", "vector"):
        table.add_column(name)
    answered = int(found.right("clean").sum())
    columns = ("first token", f"of {answered} answered clean", "probability")
    for name in columns:
        table.add_column(name, justify="right")
    for kind, name in executed.KINDS.items():
        listed = found.conditions(kind)
        for one in listed if kind == "shuffled" else listed[1:]:
            cells = (
                found.interval(one.right),
                found.interval(one.right, "answered"),
                found.interval(one.probability),
            )
            table.add_row(
                "clean" if one is listed[0] else name,
                "none" if one in listed[:2] else one.label,
                *(executed.shown(cell) for cell in cells),
            )
    return table
