"""The few-shot tasks of a training on text: a row a task, at the last evaluation."""

from typing import Any

import numpy as np

from jaxheads.report import words
from jaxheads.report.tables import Cell, Table
from jaxheads.runs import Run


def table(run: Run) -> Table | None:
    """List the tasks with their figures over the seeds, if any were measured."""
    told: dict[str, Any] | None = (run.result["model"].get("evidence") or {}).get(
        "few_shot"
    )
    if told is None:
        return None
    last = [
        run.arrays[f"evaluation/fewshot_{name}"][-1]  # [N, A]
        for name in ("accuracy", "log_probability")
    ]
    rows = [
        [Cell(task), Cell(str(shots)), *(_over_seeds(each[:, at]) for each in last)]
        for at, (task, shots) in enumerate(
            zip(told["tasks"], told["shots"], strict=True)
        )
    ]
    caption = "Few-shot tasks at the last evaluation, mean (and range) over seeds"
    if told["left_out"]:
        caption += f"; no room for a demonstration of {', '.join(told['left_out'])}"
    columns = ["task", "shots", "first-token accuracy", "log-probability, nats"]
    return Table(caption, columns, rows, 1)


def _over_seeds(values: np.ndarray) -> Cell:
    """Mean and range of [N]."""
    text = words.number(float(values.mean()))
    if len(values) > 1:
        low, high = (words.number(float(end)) for end in (values.min(), values.max()))
        text += f" ({low} to {high})"
    return Cell(text)
