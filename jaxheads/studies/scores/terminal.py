"""The top heads in the terminal."""

from collections.abc import Iterator

import numpy as np
from rich.table import Table

from jaxheads.heads import head_name
from jaxheads.report import words
from jaxheads.runs import Run

_COLUMNS = 4  # of the table of top heads, so that it fits a terminal
_HEADS = 5


def lines(run: Run) -> Iterator[Table | str]:
    """What the terminal prints of a run, if it has this study."""
    names = list(map(str, run.result["scores"]))
    for start in range(0, len(names), _COLUMNS):
        yield _top_heads(run, names[start : start + _COLUMNS], _HEADS)


def _top_heads(run: Run, names: list[str], heads: int) -> Table:
    table = Table(title="top heads (layer.head, mean ± standard error)")
    columns = []
    for name in names:
        table.add_column(words.short(name))
        mean, error = run.arrays[f"score/{name}"], run.arrays[f"score/{name}_se"]
        order = np.argsort(-mean, axis=None, kind="stable")[:heads]
        columns.append(
            [
                f"{head_name(layer, head)}  "
                + _with_error(float(mean[layer, head]), float(error[layer, head]))
                for layer, head in zip(
                    *np.unravel_index(order, mean.shape), strict=True
                )
            ]
        )
    for row in zip(*columns, strict=True):
        table.add_row(*row)
    return table


def _with_error(mean: float, error: float) -> str:
    """Such as "0.512 ± 0.003"; scores of weights alone have no error."""
    size = max(abs(mean), error if error > 0 else 0)
    form = ".3f" if 0.01 <= size < 1000 or size == 0 else ".2g"
    return f"{mean:{form}} ± {error:{form}}" if error > 0 else f"{mean:{form}}"
