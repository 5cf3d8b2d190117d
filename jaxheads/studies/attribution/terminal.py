"""Estimated effects in the terminal."""

from collections.abc import Iterator

from jaxheads.report.tables import Table
from jaxheads.runs import Run
from jaxheads.studies.attribution import findings


def lines(run: Run) -> Iterator[Table | str]:
    """What the terminal prints of a run, if it has this study."""
    if "attribution" in run.result:
        yield findings.table(run.result["attribution"])
        yield findings.work(run)
