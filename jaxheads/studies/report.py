"""The page of a run, or of several: put together and written."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxheads.runs import Run, write_json

if TYPE_CHECKING:
    from jaxheads.report.export import Format
from jaxheads.report.page import (
    FILE_NAME,
    _require_extras,
    _unwritten,
    render_page,
    write_page,
)

CLAIMS = "claims.json"


def render(run: Run) -> str:
    """Make the page of a run.

    Args:
        run: a loaded run; only its result and arrays are read.

    Returns:
        One HTML document that holds its own scripts, styles and data and asks the
        network for nothing.

    Raises:
        UserError: an optional package is missing.
    """
    _require_extras()
    from jaxheads.studies import page as sections

    return render_page(sections.collect(run))


def write_report(
    run: Run, out: Path | None = None, figures: "Format | None" = None
) -> Path:
    """Write the page, whole or not at all, and its figures as files if asked for.

    The papers' claims stand beside it as ``claims.json``, where the run measures any.

    Args:
        run: a loaded run.
        out: the page's file; default: ``report.html`` in the run's folder.
        figures: "pdf", "svg" or "png", with their numbers as CSV, or "csv" for these
            alone, in ``figures_folder`` of the page.

    Returns:
        The path of the page.

    Raises:
        UserError: an optional package is missing, or a file cannot be written.
    """
    _require_extras()
    from jaxheads.studies import page as sections

    target = out or Path(run.path) / FILE_NAME
    page = write_page(sections.collect(run), target, figures)
    _write_claims(run, page.with_name(f"{page.stem}-{CLAIMS}" if out else CLAIMS))
    return page


def write_comparison(
    several: Sequence[Run], out: Path, figures: "Format | None" = None
) -> Path:
    """Write one page that compares runs, whole or not at all.

    Args:
        several: loaded runs, two or more, of models, sizes, checkpoints or seeds.
        out: the page's file.
        figures: as for ``write_report``.

    Returns:
        ``out``.

    Raises:
        UserError: a run is there twice, an optional package is missing, or a file
            cannot be written.
    """
    _require_extras()
    from jaxheads.studies.several_runs.page import collect

    return write_page(collect(several), out, figures)


def _write_claims(run: Run, target: Path) -> None:
    from jaxheads.studies.claims import to_rows

    rows = to_rows(run)
    if all(row["verdict"] == "not measured" for row in rows):
        return
    try:
        write_json(target, {"run": run.result.get("fingerprint"), "claims": rows})
    except OSError as problem:
        raise _unwritten(target, problem) from problem
