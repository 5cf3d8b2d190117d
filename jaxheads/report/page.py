"""The page: sections put together from a loaded run and written as one file."""

import importlib.util
import json
from pathlib import Path
from typing import Any

from jaxheads.errors import UserError
from jaxheads.runs import Run, write_text

FILE_NAME = "report.html"
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
    import jinja2
    import vl_convert

    from jaxheads.report import sections

    content = sections.collect(run)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxheads", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    bundle = ""
    if content.figures:  # the package's type stub lacks the argument's default
        bundle = vl_convert.javascript_bundle()  # pyright: ignore[reportCallIssue]
    return environment.get_template("template.html.j2").render(
        page=content,
        payload=_script_json(content.payload()),
        bundle=bundle.replace("</script", r"<\/script"),
    )


def write_report(run: Run) -> Path:
    """Write the page into the run's folder, whole or not at all.

    Args:
        run: a loaded run.

    Returns:
        The path of ``report.html``.

    Raises:
        UserError: an optional package is missing, or the file cannot be written.
    """
    text = render(run)
    target = Path(run.path) / FILE_NAME
    try:
        write_text(target, text)
    except OSError as problem:
        raise UserError(
            f"The report could not be written to {target} ({problem.strerror}); "
            "make room or rights there and run `jaxheads report` again."
        ) from problem
    return target


def _require_extras() -> None:
    missing = [name for name in _EXTRAS if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"The report needs {', '.join(missing)}, which this environment lacks: "
            "pip install 'jaxheads[report]'"
        )


def _script_json(value: Any) -> str:
    """Write JSON that is safe between <script> tags: no markup can start in it."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
