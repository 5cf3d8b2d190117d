"""The page: sections put together from a loaded run and written as one file."""

import base64
import hashlib
import importlib.util
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxheads.errors import UserError
from jaxheads.runs import Run, write_json, write_text

if TYPE_CHECKING:
    from jaxheads.report.export import Format
    from jaxheads.report.sections import Page

FILE_NAME = "report.html"
CLAIMS = "claims.json"
_EXTRAS = ("altair", "vl_convert", "jinja2")


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
    from jaxheads.report import sections

    return render_page(sections.collect(run))


def render_page(content: "Page") -> str:
    """Print a page that is put together; as ``render``."""
    _require_extras()
    import jinja2
    import vl_convert

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxheads", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sha256"] = _sha256
    bundle = ""
    if content.exports:  # the package's type stub lacks the argument's default
        bundle = vl_convert.javascript_bundle()  # pyright: ignore[reportCallIssue]
    return environment.get_template("template.html.j2").render(
        page=content,
        payload=_script_json(content.payload()),
        bundle=bundle.replace("</script", r"<\/script"),
    )


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
    from jaxheads.report import sections

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
    from jaxheads.report.several import collect

    return write_page(collect(several), out, figures)


def figures_folder(page: Path) -> Path:
    """Give the folder of a page's figures: it bears the page's name, if it has one."""
    name = "figures" if page.name == FILE_NAME else f"{page.stem}-figures"
    return page.parent / name


def write_page(content: "Page", target: Path, figures: "Format | None") -> Path:
    """Write a page that is put together, and its figures if asked for.

    Args:
        content: the page.
        target: its file.
        figures: as in ``write_report``.

    Returns:
        ``target``.

    Raises:
        UserError: as ``write_report``.
    """
    text = render_page(content)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, text)
    except OSError as problem:
        raise _unwritten(target, problem) from problem
    if figures is not None:
        from jaxheads.report import export

        export.write_exports(content.exports, figures_folder(target), figures)
    return target


def _write_claims(run: Run, target: Path) -> None:
    from jaxheads.claims import to_rows

    rows = to_rows(run)
    if all(row["verdict"] == "not measured" for row in rows):
        return
    try:
        write_json(target, {"run": run.result.get("fingerprint"), "claims": rows})
    except OSError as problem:
        raise _unwritten(target, problem) from problem


def _unwritten(target: Path, problem: OSError) -> UserError:
    return UserError(
        f"The report could not be written to {target} ({problem.strerror}); "
        "make room or rights there and run `jaxheads report` again."
    )


def missing_packages() -> str:
    """Packages that a page needs and this environment lacks, joined by commas."""
    return ", ".join(name for name in _EXTRAS if importlib.util.find_spec(name) is None)


def _require_extras() -> None:
    if missing := missing_packages():
        raise UserError(
            f"The report needs {missing}, which this environment lacks: pip install "
            "'jaxheads[report]'"
        )


def _script_json(value: Any) -> str:
    """Write JSON that is safe between <script> tags: no markup can start in it.

    What is no finite number becomes null, which the charts leave out.
    """
    value = _finite(value)
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _sha256(block: str) -> str:
    """Hash a script or a style as the page's policy names it."""
    return base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
