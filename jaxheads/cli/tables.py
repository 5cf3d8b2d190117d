"""A finished run, or a comparison of two rankings, as tables in the terminal."""

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxheads.heads import head_name
from jaxheads.heads.comparison import Comparison
from jaxheads.report import words
from jaxheads.runs import Run
from jaxheads.studies.ablation import first_tokens
from jaxheads.studies.ablation.outcomes import Outcome, accuracy, token_loss, zero_shot
from jaxheads.studies.attribution import findings as attribution_findings
from jaxheads.studies.claims import of_run
from jaxheads.studies.claims_page import SYMBOLS, effect
from jaxheads.studies.function_vectors import findings as executed
from jaxheads.studies.redundancy import findings as told
from jaxheads.studies.several_runs.agreement import (
    SeedAgreement,
    by_model,
    seed_agreement,
)


def execution_table(run: Run) -> Table:
    """Accuracy and probability by condition, with 95 % intervals over queries."""
    found = executed.Executed(run)
    part = found.part
    table = Table(
        title=f"function vectors of {part['count']} heads added "
        f"{executed.PLACES[part['place']]}; chosen layer: where the other tasks' right "
        "tokens are likeliest (mean over tasks, 95 % intervals over queries)"
    )
    for name in ("prompts", "vector"):
        table.add_column(name)
    answered = int(found.right("clean").sum())
    columns = ("first token", f"of {answered} answered clean", "probability")
    for name in columns:
        table.add_column(name, justify="right")
    for kind, name in executed.KINDS.items():
        listed = found.conditions(kind)
        for one in listed if kind == "shuffled" else listed[1:]:
            cells = (
                found.interval(one.right),
                found.interval(one.right, "answered"),
                found.interval(one.probability),
            )
            table.add_row(
                "clean" if one is listed[0] else name,
                "none" if one in listed[:2] else one.label,
                *(executed.shown(cell) for cell in cells),
            )
    return table


_COLUMNS = 4  # of the table of top heads, so that it fits a terminal


def print_run(run: Run, console: Console, heads: int = 5) -> None:
    """Print the top heads and the outcomes of every set, draws of a kind together."""
    names = list(map(str, run.result["scores"]))
    for start in range(0, len(names), _COLUMNS):
        console.print(_top_heads(run, names[start : start + _COLUMNS], heads))
    if "ablation" in run.result:
        console.print(_accuracy(run, "few-shot", accuracy(run)))
        if "ablation/zero_shot/f1" in run.arrays:
            console.print(_accuracy(run, "zero-shot", zero_shot(run)))
    if "token_loss" in run.result:
        console.print(_token_loss(run))
    if "redundancy" in run.result:
        for table in (_pairs(run), _shapley(run), _greedy(run)):
            console.print(table)
        console.print(told.work(run.result["redundancy"]), highlight=False)
    if "attribution" in run.result:
        console.print(_attribution(run))
        console.print(attribution_findings.work(run), highlight=False)
    if "execution" in run.result:
        console.print(execution_table(run))
    if told_apart := first_tokens.say(run):
        console.print(told_apart, highlight=False, soft_wrap=True)
    if (judged := claims(run)) is not None:
        console.print(judged)


def _top_heads(run: Run, names: list[str], heads: int) -> Table:
    table = Table(title="top heads (layer.head, mean ± standard error)")
    columns = []
    for name in names:
        table.add_column(words.short(name))
        mean, error = run.arrays[f"score/{name}"], run.arrays[f"score/{name}_se"]
        order = np.argsort(-mean, axis=None, kind="stable")[:heads]
        columns.append(
            [
                f"{head_name(layer, head)}  "
                + _with_error(float(mean[layer, head]), float(error[layer, head]))
                for layer, head in zip(
                    *np.unravel_index(order, mean.shape), strict=True
                )
            ]
        )
    for row in zip(*columns, strict=True):
        table.add_row(*row)
    return table


def _with_error(mean: float, error: float) -> str:
    """Such as "0.512 ± 0.003"; scores of weights alone have no error."""
    size = max(abs(mean), error if error > 0 else 0)
    form = ".3f" if 0.01 <= size < 1000 or size == 0 else ".2g"
    return f"{mean:{form}} ± {error:{form}}" if error > 0 else f"{mean:{form}}"


def _groups(sets: list[dict]) -> dict[tuple, list[int]]:
    """Rows of each kind of set; random draws of one kind and size are one group."""
    groups: dict[tuple, list[int]] = {}
    for index, item in enumerate(sets):
        matched = item["matched_to"]
        mode = item["mode"].replace("_", " ")
        mode += f" to {words.short(matched)}" if matched else ""
        key = (
            # Each chosen set is a row of its own, by its name.
            item["name"] if item["mode"] == "chosen" else words.short(item["ranking"]),
            mode.replace(
                "exclusion other", f"exclusion {item.get('exclusion', 0):.1%}"
            ),
            f"{item['fraction']:.0%}" if item["count"] else "",
            str(item["count"]),
            item.get("value", "") if item["count"] else "",
        )
        groups.setdefault(key, []).append(index)
    return groups


def _accuracy(run: Run, kind: str, measured: list[Outcome]) -> Table:
    told = run.result["ablation"]
    table = Table(
        title=f"{kind} accuracy, heads at the last position := {told['value']} "
        f"(95 % intervals over {measured[0].over})"
    )
    for name in ("ranking", "set", "share"):
        table.add_column(name)
    table.add_column("heads", justify="right")
    for outcome in measured:
        first = outcome.name.endswith("first_token")
        table.add_column("first token" if first else "F1", justify="right")
    for key, rows in _groups(told["sets"]).items():
        cells = [
            "{:.3f} [{:.3f}, {:.3f}]".format(
                *one.estimate(one.values[rows].mean(axis=0)).interval()
            )
            for one in measured
        ]
        table.add_row(*key[:4], *cells)
    return table


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
    for key, rows in _groups(told["sets"]).items():
        each = outcome.values[rows].mean(axis=0)  # [B]
        interval = outcome.estimate(each).interval()
        cell = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*interval)
        table.add_row(*key, cell, f"{np.median(each) / outcome.scale:+.3f}")
    return table


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
