"""How heads work together, in the terminal."""

from collections.abc import Iterator

import numpy as np

from jaxheads.report import words
from jaxheads.report.tables import Table
from jaxheads.runs import Run
from jaxheads.studies.redundancy import findings as told


def lines(run: Run) -> Iterator[Table | str]:
    """What the terminal prints of a run, if it has this study."""
    if "redundancy" in run.result:
        yield from (told.pairs(run), _shapley(run), _greedy(run))
        yield told.work(run.result["redundancy"])


def _shapley(run: Run) -> Table:
    part = run.result["redundancy"]
    columns = {
        "value": "shapley",
        "± permutations": "shapley_se",
        "± prompts": "shapley_prompt_se",
        "replaced alone": "effect",
    }
    values = np.stack([run.arrays[f"redundancy/{name}"] for name in columns.values()])
    names = told.head_names(run)
    rows = [
        [names[n], f"{value:+.4f}", *(f"{x:.4f}" for x in errors), f"{effect:+.4f}"]
        for n in np.argsort(-values[0], kind="stable")
        for value, *errors, effect in [values[:, n]]
    ]
    title = f"Shapley values, {part['permutations']} permutations; all kept "
    title += f"{part['all']:.3f}, all replaced {part['none']:.3f}"
    return Table(title, ["head", *columns], rows)


def _greedy(run: Run) -> Table:
    part = run.result["redundancy"]
    rows = []
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
            rows.append(
                [
                    name,
                    f"{kept[at]}{mark}",
                    steps[at],
                    f"{share:.1%} ± {error:.1%}",
                    f"{other:.1%} ± {other_error:.1%}",
                ]
            )
    title = f"greedy searches to {words.percent(part['share'])} of "
    title += f"{told.whole(part)}; *: the smallest set that keeps it"
    columns = ["search", "kept", "step", "share", "on held-out prompts"]
    return Table(title, columns, rows)
