"""The page's figures as files of their own: for a paper, and their numbers as CSV."""

import dataclasses
import re
from pathlib import Path
from typing import Any, Literal

from jaxheads import stops
from jaxheads.errors import UserError
from jaxheads.report import theme
from jaxheads.report.figures import HEADS, Figure, Rows, to_csv
from jaxheads.report.layout import Key, Section
from jaxheads.runs import write_bytes

Format = Literal["pdf", "svg", "png", "csv"]  # as the commands' FigureFormat
_WIDTHS = {1: 420, 2: 300, 3: 240}  # of the plot in pixels, by figures in a row
_PIXELS_PER_INCH = 288  # of a .png: four times a screen's 72
_LETTER, _LINE = 5.9, 16  # pixels of a legend's letter and line


@dataclasses.dataclass(frozen=True)
class Export:
    """One figure with what it needs to stand alone.

    Attributes:
        name: of its files, without the suffix; no other figure of the page has it.
        figure: the chart.
        heading: of the figures that stand in a row with it.
        keys: the entries of the section's legend that are its own.
        width: of the plot, in pixels.
        sets: data sets that the specification refers to by name.
    """

    name: str
    figure: Figure
    heading: str
    keys: list[Key]
    width: int
    sets: dict[str, Rows] = dataclasses.field(default_factory=dict)

    @property
    def title(self) -> dict[str, str]:
        """What stands above the figure where there is no page around it."""
        if not self.heading:
            return {"text": self.figure.title}
        return {"text": self.heading, "subtitle": self.figure.title}

    @property
    def csv(self) -> str:
        """The numbers, ready for a file."""
        return to_csv(self.figure.data)

    @property
    def legend(self) -> dict[str, Any] | None:
        """The legend as a small chart to stand below."""
        return _legend(self.keys, self.width)


def exports(sections: list[Section], head_rows: Rows) -> list[Export]:
    """Name the figures of a page, in order, and gather what each needs.

    A name is made of the section's and the figure's own, never of its place, so that
    it stays when other figures come or go.

    Args:
        sections: of the page.
        head_rows: the data set of all heads, which charts refer to by name.
    """
    made: list[Export] = []
    for section in sections:
        for beside in section.rows:
            for figure in beside.figures:
                name = _free(_slug(f"{section.anchor} {figure.name}"), made)
                shared = figure.spec.get("data") == {"name": HEADS}
                sets = {HEADS: head_rows} if shared else {}
                keys = _own_keys(section.keys, figure.data)
                columns = 1 if len(beside.figures) == 1 else min(beside.columns, 3)
                made.append(
                    Export(name, figure, beside.title, keys, _WIDTHS[columns], sets)
                )
    return made


def write_exports(made: list[Export], folder: Path, kind: Format) -> list[Path]:
    """Write each figure and its numbers; a file is written whole or not at all.

    Args:
        made: of one page.
        folder: made if absent; files of the same names are replaced.
        kind: of the pictures; "csv" for the numbers alone, which are always written.

    Returns:
        The paths of all files.

    Raises:
        UserError: a file cannot be written.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for one in made:
            stops.check()
            files = {f"{one.name}.csv": one.csv.encode()}
            if kind != "csv":
                files[f"{one.name}.{kind}"] = picture(one, kind)
            for name, content in files.items():
                write_bytes(folder / name, content)
                written.append(folder / name)
    except OSError as problem:
        raise UserError(
            f"The figures could not be written to {folder} ({problem.strerror}); make "
            "room or rights there and give the command again."
        ) from problem
    return written


def picture(one: Export, kind: Literal["pdf", "svg", "png"]) -> bytes:
    """Draw a figure on white ground: .pdf with its fonts in it, .svg or .png."""
    import vl_convert

    spec: Any = theme.paint(standalone(one), theme.light_palette())
    offline: list[str] = []  # no address may be read
    if kind == "pdf":
        return vl_convert.vegalite_to_pdf(spec, allowed_base_urls=offline)
    if kind == "png":
        return vl_convert.vegalite_to_png(
            spec, ppi=_PIXELS_PER_INCH, allowed_base_urls=offline
        )
    return vl_convert.vegalite_to_svg(spec, allowed_base_urls=offline).encode()


def standalone(one: Export) -> dict[str, Any]:
    """Make the specification that needs no page: width, title, legend and theme."""
    chart = {key: value for key, value in one.figure.spec.items() if key != "datasets"}
    if chart.get("width") == "container":
        chart["width"] = one.width
    chart["title"] = one.title
    sets = one.figure.spec.get("datasets", {}) | one.sets
    settings = theme.THEME | {"font": theme.PRINT_FONT, "background": "@paper"}
    legend = one.legend
    parts = [chart, legend] if legend else [chart]
    return {"datasets": sets, "config": settings, "vconcat": parts, "spacing": 14}


def _slug(text: str) -> str:
    """Lower-case letters, digits and dashes, so that no system takes it amiss."""
    return (
        re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:80].strip("-") or "figure"
    )


def _free(name: str, made: list[Export]) -> str:
    taken = {one.name for one in made}
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _own_keys(keys: list[Key], rows: Rows) -> list[Key]:
    """Pick the entries whose labels are in the figure's rows; all where none is."""
    said = {value for row in rows for value in row.values() if isinstance(value, str)}
    return [key for key in keys if key.label in said] or keys


def _legend(keys: list[Key], width: int) -> dict[str, Any] | None:
    """Draw the legend's entries from left to right, in as many lines as they need."""
    if not keys:
        return None
    rows: list[dict[str, Any]] = []
    x, y = 0.0, 0
    for key in keys:
        wide = 26 + _LETTER * len(key.label) + 14
        if x and x + wide > width + 40:
            x, y = 0.0, y + 1
        place = {"x": x, "m": x + 10, "e": x + 20, "w": x + 26, "y": _LINE * (y + 0.5)}
        rows.append(place | {"label": key.label, "key": key})
        x += wide

    def at(channel: str, field: str) -> dict[str, Any]:
        place = {"field": field, "type": "quantitative", "scale": None, "axis": None}
        return {channel: place}

    layers = []
    for row in rows:
        key: Key = row.pop("key")
        colour = f"@{key.colour}"
        encoding = at("y", "y")
        if key.mark in _DASHES:
            mark: dict[str, Any] = {"type": "rule", "strokeWidth": 2, "color": colour}
            mark["strokeDash"] = _DASHES[key.mark]
            encoding |= at("x", "x") | {"x2": {"field": "e"}}
        else:
            mark = {"type": "point", "shape": key.mark, "size": 60, "opacity": 1}
            mark |= {"filled": True, "color": colour}
            encoding |= at("x", "m")
        text = at("x", "w") | at("y", "y") | {"text": {"field": "label"}}
        word = {"type": "text", "align": "left", "color": "@ink", "fontSize": 11}
        layers += [
            {"data": {"values": [row]}, "mark": mark, "encoding": encoding},
            {"data": {"values": [row]}, "mark": word, "encoding": text},
        ]
    return {"width": width, "height": _LINE * (y + 1), "layer": layers}


_DASHES = {"line": [1, 0], "dashes": [5, 3], "dots": [1, 2]}
