"""One self-contained page that shows what a run found."""

from jaxheads.report.page import (
    figures_folder,
    missing_packages,
    render,
    write_comparison,
    write_report,
)

__all__ = [
    "figures_folder",
    "missing_packages",
    "render",
    "write_comparison",
    "write_report",
]
