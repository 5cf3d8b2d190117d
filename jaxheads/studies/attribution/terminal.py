"""Estimated effects in the terminal."""

from collections.abc import Iterator

from rich.table import Table

from jaxheads.heads import head_name
from jaxheads.report import words
from jaxheads.runs import Run
from jaxheads.studies.attribution import findings


def lines(run: Run) -> Iterator[Table | str]:
    """What the terminal prints of a run, if it has this study."""
    if "attribution" in run.result:
        yield _attribution(run)
        yield findings.work(run)


def _attribution(run: Run) -> Table:
    part = run.result["attribution"]
    table = Table(
        title=f"effects estimated from gradients ({part['unit']}), and exact ones of "
        "the top heads and a sample of the others"
    )
    table.add_column("method")
    for name in ("rank", "sign"):
        table.add_column(f"{name} agreement", justify="right")
    table.add_column("worst miss: exact, estimated", no_wrap=True)
    for name in ("missed", "may be larger", "estimated in", "verified in"):
        table.add_column(name, justify="right")
    for method, one in part["methods"].items():
        unknown = "none" if one["all_verified"] else f"<= {one['bound']:.0%}"
        table.add_row(
            method,
            words.number(one["rank_agreement"]),
            words.number(one["sign_agreement"]),
            f"{head_name(*one['worst_miss_head'])}: {one['worst_miss']:+.4f}, "
            f"{one['worst_miss_estimate']:+.4f}",
            f"{one['missed']} of {one['sample']}",
            unknown,
            words.seconds(one["estimate_s"]),
            words.seconds(one["exact_s"]),
        )
    return table
