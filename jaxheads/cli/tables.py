"""A finished run, or a comparison of two rankings, as tables in the terminal."""

from rich.console import Console
from rich.text import Text

from jaxheads.heads.comparison import Comparison
from jaxheads.report.tables import Table, printed
from jaxheads.runs import Run
from jaxheads.studies import claims_page, registry
from jaxheads.studies.ablation import first_tokens
from jaxheads.studies.claims import of_run


def print_run(run: Run, console: Console) -> None:
    """Print what each study found, what its tasks can tell, and the claims."""
    for terminal in registry.files("terminal").values():
        for line in terminal.lines(run):
            line = printed(line) if isinstance(line, Table) else line
            console.print(line, highlight=False)
    if told_apart := first_tokens.say(run):
        console.print(told_apart, highlight=False, soft_wrap=True)
    if (judged := claims(run)) is not None:
        console.print(printed(judged))


def print_comparison(made: Comparison, console: Console) -> None:
    """Print a comparison: what is compared, over all heads, and a column a fraction."""
    for name, side in (("A", made.a), ("B", made.b)):
        model = f" ({side['model']})" if side["model"] else ""
        text = f"{name:<10}{side['score']} of {side['path']}{model}"
        console.print(Text(text), soft_wrap=True)
    total = made.shape[0] * made.shape[1]
    console.print(
        f"all heads {total:,}: Spearman {made.spearman:.2f} (by chance 0 ± "
        f"{made.spearman_spread:.2f}), Kendall {made.kendall:.2f} (by chance 0)",
        soft_wrap=True,
        highlight=False,
    )
    for note in made.notes:
        console.print(Text(f"note      {note}"), soft_wrap=True)
    what = "magnitude" if made.by == "magnitude" else "score"
    columns = ["", *(f"top {one.fraction:.3g}" for one in made.tops)]
    rows = [[name, *map(cell, made.tops)] for name, cell in _ROWS.items()]
    title = f"top heads by {what}; in brackets: by chance"
    console.print(printed(Table(title, columns, rows)))


def _with_chance(name: str, form="{:.2f}".format):
    return lambda top: (
        f"{form(getattr(top, name))} ({form(getattr(top, name + '_chance'))})"
    )


_ROWS = {
    "heads of each set": lambda top: f"{top.count:,}",
    "in both": lambda top: f"{top.shared:,} ({top.shared_chance:.2g})",
    "... share of a set": lambda top: (
        f"{top.share:.3f} ({top.shared_chance / top.count:.3f})"
    ),
    "... p of so many or more": lambda top: f"{top.p_value:.2g}",
    "Jaccard": lambda top: f"{top.jaccard:.3f}",
    "Spearman over either set": _with_chance("spearman"),
    "Kendall over either set": _with_chance("kendall"),
    "percentile in B of A's mean": _with_chance("percentile_a_in_b", "{:.1f}".format),
    "percentile in A of B's mean": _with_chance("percentile_b_in_a", "{:.1f}".format),
    "mean layer of A's": lambda top: f"{top.depth_a:.1f}",
    "mean layer of B's": lambda top: f"{top.depth_b:.1f}",
    "A's - B's": lambda top: f"{top.depth_difference:+.1f}",
    "the heads in both": lambda top: (
        " ".join(top.heads[:4]) + (" ..." if top.shared > 4 else "")
    ),
}


def claims(run: Run) -> Table | None:
    """The page's table of a run's claims, less its words; None where none is there."""
    judged = [one for one in of_run(run) if one.verdict != "not measured"]
    made = claims_page.table(judged).without("evidence", claims_page.FOUND)
    return made if judged else None
