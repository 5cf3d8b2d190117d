"""Collect nothing here without torch; print the table of differences at the end."""

import importlib.util

import pytest

collect_ignore = (
    []
    if importlib.util.find_spec("torch")
    else ["test_parity.py", "test_published_effects.py", "test_unusual.py"]
)

COLUMNS = (
    "logits",
    "heads",
    "patterns",
    "their float32 noise",
    "ablated",
    "float64",
    "bfloat16",
    "theirs",
)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows: dict[str, dict[str, str]] = {}
    for report in terminalreporter.getreports("passed"):
        of_parity = "test_parity.py" in report.nodeid
        for name, values in report.user_properties if of_parity else ():
            rows.setdefault(name, {}).update(values)
    if not rows:
        return
    terminalreporter.section("largest differences from transformers")
    terminalreporter.line(f"{'':24}" + "".join(f"{name:>22}" for name in COLUMNS))
    for name, row in sorted(rows.items()):
        cells = "".join(f"{row.get(column, ''):>22}" for column in COLUMNS)
        terminalreporter.line(f"{name:24}" + cells)
