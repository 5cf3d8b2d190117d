"""A finished run, or a comparison of two rankings, as tables in the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxheads.heads.comparison import Comparison
from jaxheads.report import words
from jaxheads.runs import Run
from jaxheads.studies import registry
from jaxheads.studies.ablation import first_tokens
from jaxheads.studies.claims import of_run
from jaxheads.studies.claims_page import SYMBOLS, effect
from jaxheads.studies.several_runs.agreement import (
    SeedAgreement,
    by_model,
    seed_agreement,
)


def print_run(run: Run, console: Console) -> None:
    """Print what each study found, what its tasks can tell, and the claims."""
    for terminal in registry.files("terminal").values():
        for line in terminal.lines(run):
            console.print(line, highlight=None if isinstance(line, Table) else False)
    if told_apart := first_tokens.say(run):
        console.print(told_apart, highlight=False, soft_wrap=True)
    if (judged := claims(run)) is not None:
        console.print(judged)


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
    table = Table(title=f"top heads by {what}; in brackets: by chance")
    table.add_column("")
    for one in made.tops:
        table.add_column(f"top {one.fraction:.3g}", justify="right")
    for label, cell in _ROWS.items():
        table.add_row(label, *(cell(one) for one in made.tops))
    console.print(table)


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
    """Make the table of a run's claims; None where it measures none."""
    judged = [one for one in of_run(run) if one.verdict != "not measured"]
    if not judged:
        return None
    table = Table(title="the papers' claims (effect: positive where right, 95 %)")
    for name in ("claim", "verdict"):
        table.add_column(name, no_wrap=name == "verdict")
    for name in ("effect", "adjusted p"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in judged:
        value, unit = effect(one)
        table.add_row(
            one.statement,
            f"{SYMBOLS[one.verdict]} {one.verdict}",
            f"{value} {unit}",
            words.p_value(one.p_adjusted),
        )
    return table


def print_seeds(several: Sequence[Run], console: Console) -> None:
    """Print how far runs of one model agree that differ in seed; nothing for others."""
    for runs in by_model(several).values():
        names = [name for name in runs[0].result.get("scores", {}) if len(runs) > 1]
        found = [one for name in names if (one := seed_agreement(runs, name))]
        if found:
            console.print(_seeds(found))


def _seeds(found: list[SeedAgreement]) -> Table:
    table = Table(title=f"{found[0].model or 'one model'}: {len(found[0].seeds)} runs")
    for name in ("score", "top head of each run"):
        table.add_column(name)
    columns = ("Spearman", "Jaccard of the top 2 %", "deviation / reported error")
    for name in columns:
        table.add_column(name, justify="right")
    for one in found:
        ratio = (one.ratio, one.ratio_low, one.ratio_high)
        table.add_row(
            words.short(one.score),
            one.leaders[0] + " in all" if one.same_leader else " ".join(one.leaders),
            f"{one.rank_correlation:.2f} (lowest {one.lowest_rank_correlation:.2f})",
            f"{one.jaccard:.2f}",
            "{:.2f} [{:.2f}, {:.2f}]".format(*ratio),
        )
    return table
