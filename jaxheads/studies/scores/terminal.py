"""The top heads in the terminal."""

from collections.abc import Iterator

from jaxheads.heads import run_scores
from jaxheads.report import words
from jaxheads.report.tables import Table
from jaxheads.runs import Run

_COLUMNS = 4  # of the table of top heads, so that it fits a terminal
_HEADS = 5


def lines(run: Run) -> Iterator[Table | str]:
    """What the terminal prints of a run, if it has this study."""
    names = run_scores.names(run)
    for start in range(0, len(names), _COLUMNS):
        some = names[start : start + _COLUMNS]
        tops = [run_scores.top_heads(run, name, _HEADS) for name in some]
        columns = [
            [f"{one.name}  {words.head_score(one)}" for one in top] for top in tops
        ]
        title = "top heads (layer.head, mean ± standard error)"
        yield Table(title, [*map(words.short, some)], [*zip(*columns, strict=True)], 99)
