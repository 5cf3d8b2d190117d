"""Token losses under every set in the terminal."""

from collections.abc import Iterator
from typing import Any

from jaxheads.report.tables import Table
from jaxheads.runs import Run
from jaxheads.studies.ablation.outcomes import token_loss
from jaxheads.studies.ablation.tables import every_kind


def lines(run: Run) -> Iterator[Table | str]:
    """What the terminal prints of a run, if it has this study."""
    if outcome := token_loss(run):
        yield every_kind(_title(run.result["token_loss"]), [outcome])


def _title(told: dict[str, Any]) -> str:
    early, late = told["positions"]
    what = "pieces" if told.get("packing") == "stream" else "documents"
    window = told.get("window", 1)
    around = f"mean over {window} tokens around each, " if window > 1 else ""
    title = (
        f"loss at token {early} minus at token {late}, {around}{told['documents']} "
        f"{what} of {told['text']}"
    )
    if told.get("divided_by", told["documents"]) < told["documents"]:
        title += f", their sum divided by {told['divided_by']} as published"
    return title
