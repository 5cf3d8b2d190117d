"""A run's function vectors at work, as a table in the terminal."""

from rich.table import Table

from jaxheads.report import execution_findings as told
from jaxheads.runs import Run


def execution_table(run: Run) -> Table:
    """Accuracy and probability by condition, with 95 % intervals over queries."""
    found = told.Executed(run)
    part = found.part
    table = Table(
        title=f"function vectors of {part['count']} heads added "
        f"{told.PLACES[part['place']]}; chosen layer: where the other tasks' right "
        "tokens are likeliest (mean over tasks, 95 % intervals over queries)"
    )
    for name in ("prompts", "vector"):
        table.add_column(name)
    answered = int(found.right("clean").sum())
    columns = ("first token", f"of {answered} answered clean", "probability")
    for name in columns:
        table.add_column(name, justify="right")
    for kind, name in told.KINDS.items():
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
                *(told.shown(cell) for cell in cells),
            )
    return table
