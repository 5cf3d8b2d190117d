"""The tasks at hand as a table for the terminal; light, imports no jax."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from jaxheads.icl.tasks import Task, load_tasks
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.protocols import DEVIATIONS, MEANING, PROTOCOLS, value_of

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


_NUMBERS = {
    "shots": "shots",
    "prompts": "drawing",
    "first tokens": "targets",
    "BOS first": "bos",
    "seed": "seed",
    "scoring tasks": "scores.tasks",
    "clean prompts a task": "scores.clean_prompts",
    "corrupted prompts a task": "scores.corrupted_prompts",
    "random sequences": "scores.sequences",
    "evaluation tasks": "ablation.tasks",
    "prompts a task": "ablation.prompts",
    "rankings": "ablation.rankings",
    "share replaced": "ablation.fractions",
    "share excluded": "ablation.exclusion",
    "share kept alone": "ablation.keep_only",
    "random draws": "ablation.draws",
    "zero-shot too": "ablation.zero_shot",
    "documents, at most": "token_loss.documents",
    "tokens compared": "token_loss.positions",
    "window": "token_loss.window",
    "values of heads": "token_loss.values",
    "carried-out tasks": "execution.tasks",
    "queries a task": "execution.prompts",
}
"""What is told of a protocol, and the option that holds it."""


def tables() -> Iterator[Table]:
    """The protocols' main numbers, then where the code deviates from the text."""
    yield _numbers()
    yield _deviations()


def _numbers() -> Table:
    said = "\n".join(f"{name}: {MEANING[name]}" for name in PROTOCOLS)
    made = _table(said)
    for name in ("", *PROTOCOLS):
        made.add_column(name, overflow="fold")
    for label, switch in _NUMBERS.items():
        values = [_number(config, switch) for config in PROTOCOLS.values()]
        made.add_row(label, *values)
    return made


def _deviations() -> Table:
    made = _table(
        "what the code of Yin & Steinhardt 2025 does other than its text; each option "
        "can be given by itself"
    )
    for name in ("deviation", "section"):
        made.add_column(name)
    made.add_column("option", no_wrap=True)
    for name in ("yin2025", "yin2025-code", "effect"):
        made.add_column(name)
    for one in DEVIATIONS:
        values = (one.text_value, one.code_value)
        made.add_row(
            one.name,
            one.section,
            f"--{one.switch.replace('_', '-')}",
            *(_told(value) for value in values),
            one.effect,
        )
    return made


def _table(caption: str) -> Table:
    return Table(
        box=box.SIMPLE_HEAD, pad_edge=False, caption=caption, caption_justify="left"
    )


def _number(config: StudyConfig, switch: str) -> str:
    return _told(value_of(config, switch))


def _told(value: Any) -> str:
    if isinstance(value, tuple):
        if len(value) > 6 and isinstance(value[0], str):
            return f"{len(value)}: {value[0]}, …"
        return " ".join(map(_told, value)) or "none"
    if isinstance(value, bool) or value is None:
        return {None: "as the tokenizer", True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
