"""Token losses under every set in the terminal."""

from collections.abc import Iterator

import numpy as np
from rich.table import Table

from jaxheads.runs import Run
from jaxheads.studies.ablation.outcomes import token_loss
from jaxheads.studies.ablation.terminal import groups


def lines(run: Run) -> Iterator[Table | str]:
    """What the terminal prints of a run, if it has this study."""
    if "token_loss" in run.result:
        yield _token_loss(run)


def _token_loss(run: Run) -> Table:
    told = run.result["token_loss"]
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
    table = Table(title=title)
    for name in ("ranking", "set", "share"):
        table.add_column(name)
    for name in ("heads", "value", "nats", "median"):
        table.add_column(name, justify="right")
    outcome = token_loss(run)
    assert outcome is not None
    for key, rows in groups(told["sets"]).items():
        each = outcome.values[rows].mean(axis=0)  # [B]
        interval = outcome.estimate(each).interval()
        cell = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*interval)
        table.add_row(*key, cell, f"{np.median(each) / outcome.scale:+.3f}")
    return table
