"""The papers' claims, and the agreement of seeds, as tables in the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from jaxheads.across_runs import SeedAgreement, by_model, seed_agreement
from jaxheads.claims import of_run
from jaxheads.report import words
from jaxheads.report.claims import SYMBOLS, effect
from jaxheads.runs import Run


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
