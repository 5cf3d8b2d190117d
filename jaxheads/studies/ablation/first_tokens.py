"""What an answer's first token tells in a run's tasks (numpy only).

A run says of each task which tokens all its answers share, and how many pairs of
different answers have the same first token (see ``jaxheads.icl.answers``).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxheads.report import words
from jaxheads.runs import Run

CROWDED = 0.2
"""Share of pairs of answers with one first token above which a task is named."""


def telling(run: Run, tasks: Sequence[str]) -> list[str]:
    """Name the tasks whose first tokens tell anything.

    Those of the others are the same whatever the answer: an accuracy of these says
    whether the model begins an answer at all, and is left out of means over tasks.
    """
    return [task for task in tasks if _collisions(run, task) < 1]


def of_telling(
    run: Run, values: np.ndarray, tasks: Sequence[str] | None, axis: int
) -> np.ndarray:
    """Leave out the tasks whose first tokens tell nothing.

    Args:
        run: that says of its tasks what they are.
        values: of E tasks along ``axis``.
        tasks: their names, E; none: the run names none, and all stay.
        axis: of the tasks.

    Raises:
        ValueError: there are more or fewer names than tasks.
    """
    if not tasks:
        return values
    if len(tasks) != values.shape[axis]:
        raise ValueError(
            f"{len(tasks)} names of tasks must go with as many along axis {axis}, but "
            f"the shape is {values.shape}"
        )
    kept = [_collisions(run, task) < 1 for task in tasks]
    return np.compress(kept, values, axis)


def left_out(run: Run, tasks: Sequence[str]) -> str:
    """Name the tasks that are left out; a sentence, or nothing."""
    mute = [task for task in tasks if _collisions(run, task) == 1]
    if not mute:
        return ""
    return (
        f"In this tokenizer all answers of {_listed(mute)} have the same first token "
        "(such as a space before digits): it tells nothing of the answer, and no "
        "first-token accuracy has them in its mean."
    )


def say(run: Run) -> str:
    """Say of all tasks what their answers' first tokens tell; sentences, or nothing."""
    info: dict[str, Any] = run.result.get("task_info") or {}
    given: dict[str, list[str]] = {}
    for task in info:
        if info[task].get("shared_tokens"):
            given.setdefault(repr(info[task]["shared"]), []).append(task)
    said = [
        f"All answers of {_listed(tasks)} begin with {text} in this tokenizer: it "
        "stands in the prompt, and the first token is the one after it."
        for text, tasks in given.items()
    ]
    said += [left_out(run, list(info))]
    scoring = run.result.get("scoring_tasks") or []
    if left_out(run, scoring):
        said.append("The function-vector score is a mean over them too, as published.")
    crowded = [
        f"{task} ({words.percent(share)})"
        for task in info
        if CROWDED < (share := _collisions(run, task)) < 1
    ]
    if crowded:
        said.append(
            "A first token often does not tell which answer it begins, by the share of "
            f"pairs of different answers that have the same one: {', '.join(crowded)}."
        )
    return " ".join(filter(None, said))


def _collisions(run: Run, task: str) -> float:
    """0 where the run's answers are tokens themselves."""
    info = (run.result.get("task_info") or {}).get(task) or {}
    return float(info.get("collisions", 0))


def _listed(tasks: Sequence[str]) -> str:
    *first, last = tasks
    return f"{', '.join(first)} and {last}" if first else last
