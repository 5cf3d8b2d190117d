"""Function vectors at work in the terminal."""

from collections.abc import Iterator

from jaxheads.report.tables import Table
from jaxheads.runs import Run
from jaxheads.studies.function_vectors import findings


def lines(run: Run) -> Iterator[Table | str]:
    """What the terminal prints of a run, if it has this study."""
    if found := findings.of(run):
        yield findings.table(found)
