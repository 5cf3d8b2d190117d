"""The page: sections put together from a loaded run and written as one file."""

import base64
import dataclasses
import functools
import hashlib
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

from jaxheads.errors import UserError
from jaxheads.report import export, theme
from jaxheads.report.figures import Figure
from jaxheads.report.layout import Headline, Section, Statement
from jaxheads.report.receipt import Facts
from jaxheads.report.tables import Table
from jaxheads.runs import write_text

FILE_NAME = "report.html"
_EXTRAS = ("altair", "vl_convert", "jinja2")


@dataclasses.dataclass(frozen=True)
class Page:
    """All that the template prints."""

    title: str
    model: str
    facts: list[str]
    verdict: str
    headline: list[Headline]
    statements: list[Statement]
    sections: list[Section]
    receipt: list[tuple[str, Facts]]
    open_tables: list[Table]
    folded_tables: list[Table]
    config: str
    head_rows: list[dict[str, Any]]

    @functools.cached_property
    def exports(self) -> list[export.Export]:
        """Every chart, in the order of its number on the page."""
        return export.exports(self.sections, self.head_rows)

    def number(self, figure: Figure) -> int:
        """Give a chart's number on the page."""
        return next(n for n, one in enumerate(self.exports) if one.figure is figure)

    def payload(self) -> dict[str, Any]:
        """What the page's script reads."""
        return {
            "charts": [
                {
                    "spec": one.figure.spec,
                    "renderer": one.figure.renderer,
                    "title": one.title,
                    "name": one.name,
                    "width": one.width,
                    "legend": one.legend,
                    "csv": one.csv,
                }
                for one in self.exports
            ],
            "heads": self.head_rows,
            "theme": theme.THEME,
        }


def render_page(content: Page) -> str:
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


def figures_folder(page: Path) -> Path:
    """Give the folder of a page's figures: it bears the page's name, if it has one."""
    name = "figures" if page.name == FILE_NAME else f"{page.stem}-figures"
    return page.parent / name


def write_page(content: Page, target: Path, figures: export.Format | None) -> Path:
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
        export.write_exports(content.exports, figures_folder(target), figures)
    return target


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
