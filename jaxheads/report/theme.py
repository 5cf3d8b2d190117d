"""Colours and fonts of the charts, for the page and for the figures in files.

A specification names its colours "@name"; the palettes stand in ``page.css``, the
light one first.
"""

import functools
import importlib.resources
import re
from typing import Any

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
PRINT_FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
THEME: dict[str, Any] = {
    "background": None,
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        "domainColor": "@line",
        "tickColor": "@line",
        "gridColor": "@grid",
        "labelColor": "@muted",
        "titleColor": "@muted",
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelPadding": 4,
        "labelFlush": False,
        "tickSize": 4,
    },
    "legend": {"labelColor": "@muted", "titleColor": "@muted", "labelFontSize": 11},
    "title": {
        "color": "@ink",
        "subtitleColor": "@muted",
        "fontSize": 12,
        "subtitleFontSize": 11,
        "anchor": "start",
        "offset": 8,
    },
    "scale": {"bandPaddingInner": 0.04},
}


@functools.cache
def light_palette() -> dict[str, str]:
    """Read the colours by name that ``page.css`` gives on light ground."""
    sheet = importlib.resources.files("jaxheads.report") / "page.css"
    found = re.search(r":root[^{]*\{([^}]*)\}", sheet.read_text(encoding="utf-8"))
    assert found
    return dict(re.findall(r"--([\w-]+):\s*(#\w+)", found[1]))


def paint(value: Any, palette: dict[str, str], key: str = "") -> Any:
    """Put a palette's colours where a specification names them; data is left alone.

    Vega reads titles within expressions, where a line separator would be an error.
    """
    if key in ("datasets", "values"):
        return value
    if isinstance(value, str):
        colour = palette.get(value[1:]) if value.startswith("@") else None
        return colour or re.sub("[\u2028\u2029]", " ", value)
    if isinstance(value, list):
        return [paint(inner, palette) for inner in value]
    if isinstance(value, dict):
        return {name: paint(inner, palette, name) for name, inner in value.items()}
    return value
