"""One self-contained page that shows what a run found."""

from jaxheads.report.page import render, write_report

__all__ = ["render", "write_report"]
