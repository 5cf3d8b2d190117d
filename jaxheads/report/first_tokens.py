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


def telling(run: Run, tasks: Sequence[str]) -> np.ndarray:
    """Which tasks' first tokens tell anything: bool [E].

    Those of the others are the same whatever the answer: accuracies of these are always
    near 1 or 0, and are left out wherever first-token accuracies of tasks are averaged.
    """
    return np.array([_collisions(run, task) < 1 for task in tasks], bool)


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
