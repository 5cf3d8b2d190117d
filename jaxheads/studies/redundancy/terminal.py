"""How heads work together, in the terminal."""

from collections.abc import Iterator

import numpy as np
from rich.table import Table

from jaxheads.report import words
from jaxheads.runs import Run
from jaxheads.studies.redundancy import findings as told


def lines(run: Run) -> Iterator[Table | str]:
    """What the terminal prints of a run, if it has this study."""
    if "redundancy" in run.result:
        yield from (_pairs(run), _shapley(run), _greedy(run))
        yield told.work(run.result["redundancy"])


def _pairs(run: Run, count: int = 8) -> Table:
    table = Table(
        title="strongest interactions (± standard error over queries): positive, the "
        "losses overlap; negative, the heads back each other up"
    )
    table.add_column("pair")
    table.add_column("interaction", justify="right")
    table.add_column("reading")
    for first, second, value, error in told.strongest(run, count):
        reading = told.reading(value, error, told.threshold(run))
        table.add_row(f"{first}, {second}", f"{value:+.4f} ± {error:.4f}", reading)
    return table


def _shapley(run: Run) -> Table:
    part = run.result["redundancy"]
    table = Table(
        title=f"Shapley values, {part['permutations']} permutations; all kept "
        f"{part['all']:.3f}, all replaced {part['none']:.3f}"
    )
    table.add_column("head")
    columns = {
        "value": "shapley",
        "± permutations": "shapley_se",
        "± prompts": "shapley_prompt_se",
        "replaced alone": "effect",
    }
    for name in columns:
        table.add_column(name, justify="right")
    rows = np.stack([run.arrays[f"redundancy/{name}"] for name in columns.values()], 1)
    names = told.head_names(run)
    for index in np.argsort(-rows[:, 0], kind="stable"):
        value, *errors, effect = rows[index]
        cells = [f"{value:+.4f}", *(f"{error:.4f}" for error in errors)]
        table.add_row(names[index], *cells, f"{effect:+.4f}")
    return table


def _greedy(run: Run) -> Table:
    part = run.result["redundancy"]
    table = Table(
        title=f"greedy searches to {words.percent(part['share'])} of "
        f"{told.whole(part)}; *: the smallest set that keeps it"
    )
    for name in ("search", "kept", "step", "share", "on held-out prompts"):
        table.add_column(name, justify="left" if name == "search" else "right")
    for name in told.SEARCHES:
        columns = [
            run.arrays[f"redundancy/{name}_{key}"]
            for key in ("share", "share_se", "held_out_share", "held_out_share_se")
        ]
        verb = "-" if name == "backward" else "+"
        steps = ["", *(f"{verb} {head}" for head in part[name]["order"])]
        kept = told.num_kept(run, name)
        for at in range(max(0, len(kept) - 12), len(kept)):
            share, error, other, other_error = (column[at] for column in columns)
            mark = " *" if at == part[name].get("smallest") else ""
            table.add_row(
                name,
                f"{kept[at]}{mark}",
                steps[at],
                f"{share:.1%} ± {error:.1%}",
                f"{other:.1%} ± {other_error:.1%}",
            )
    return table
