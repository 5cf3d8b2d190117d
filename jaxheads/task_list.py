"""The tasks at hand as a table for the terminal; light, imports no jax."""

from collections import Counter
from pathlib import Path

from rich import box
from rich.table import Table

from jaxheads.icl.tasks import Task, load_tasks

_EXAMPLE = 72  # letters of an example that are shown


def table(folder: Path | None = None) -> Table:
    """List tasks with their kinds, sizes and sources.

    Args:
        folder: Folder of JSON task files; None lists the built-in tasks.

    Returns:
        A row a task: its name, kind, number of items with different inputs, number of
        different answers, source and first item.

    Raises:
        UserError: As ``jaxheads.icl.tasks.load_tasks``.
    """
    tasks = load_tasks(None, folder)
    kinds = Counter(task.kind for task in tasks)
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    made = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        caption=f"{len(tasks)} tasks: {counts}; items have different inputs",
        caption_justify="left",
    )
    for name in ("name", "kind"):
        made.add_column(name, no_wrap=True)
    for name in ("items", "answers"):
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("source", overflow="fold")
    made.add_column("first item", overflow="fold")
    for task in tasks:
        made.add_row(
            task.name,
            task.kind,
            str(len(set(task.inputs))),
            str(len(set(task.outputs))),
            task.source,
            _example(task),
        )
    return made


def _example(task: Task) -> str:
    given = task.inputs[0].replace("\n", " / ")
    if len(given) > _EXAMPLE:
        given = f"{given[: _EXAMPLE - 1]}…"
    return f"{given} → {task.outputs[0]}"
