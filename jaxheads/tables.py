"""A finished run as tables in the terminal."""

import numpy as np
from rich.console import Console
from rich.table import Table

from jaxheads.heads import head_name
from jaxheads.runs import Run
from jaxheads.statistics import bootstrap_mean, bootstrap_task_mean

TITLES = {
    "function_vector": "function vector",
    "induction": "induction",
    "induction_yin": "induction (Yin)",
    "previous_token": "previous token",
    "none": "no head",
    "random": "random",
}


def print_run(run: Run, console: Console, heads: int = 5) -> None:
    """Print the top heads and the outcomes of every set, draws of a kind together."""
    console.print(_top_heads(run, heads))
    if "ablation" in run.result:
        console.print(_accuracy(run))
    if "token_loss" in run.result:
        console.print(_token_loss(run))


def _top_heads(run: Run, heads: int) -> Table:
    table = Table(title="top heads (layer.head, mean ± standard error)")
    columns = []
    for name in map(str, run.result["scores"]):
        table.add_column(TITLES.get(name, name))
        mean, error = run.arrays[f"score/{name}"], run.arrays[f"score/{name}_se"]
        order = np.argsort(-mean, axis=None, kind="stable")[:heads]
        columns.append(
            [
                f"{head_name(layer, head)}  {mean[layer, head]:.3f} "
                f"± {error[layer, head]:.3f}"
                for layer, head in zip(
                    *np.unravel_index(order, mean.shape), strict=True
                )
            ]
        )
    for row in zip(*columns, strict=True):
        table.add_row(*row)
    return table


def _groups(sets: list[dict]) -> dict[tuple, list[int]]:
    """Rows of each kind of set; random draws of one kind and size are one group."""
    groups: dict[tuple, list[int]] = {}
    for index, item in enumerate(sets):
        matched = item["matched_to"]
        mode = item["mode"].replace("_", " ") + (f" to {matched}" if matched else "")
        key = (
            TITLES.get(item["ranking"], item["ranking"]),
            mode.replace("function_vector", "FV"),
            f"{item['fraction']:.0%}" if item["count"] else "",
            str(item["count"]),
            item.get("value", "") if item["count"] else "",
        )
        groups.setdefault(key, []).append(index)
    return groups


def _accuracy(run: Run) -> Table:
    told = run.result["ablation"]
    table = Table(
        title=f"few-shot accuracy, heads at the last position := {told['value']} "
        "(95 % bootstrap over prompts)"
    )
    for name in ("ranking", "set", "share"):
        table.add_column(name)
    for name in ("heads", "first token", "F1"):
        table.add_column(name, justify="right")
    metrics = [run.arrays["ablation/first_token"], run.arrays["ablation/f1"]]
    for key, rows in _groups(told["sets"]).items():
        cells = [
            "{:.3f} [{:.3f}, {:.3f}]".format(
                *bootstrap_task_mean(values[rows].mean(axis=0), seed=0)
            )
            for values in metrics
        ]
        table.add_row(*key[:4], *cells)
    return table


def _token_loss(run: Run) -> Table:
    told = run.result["token_loss"]
    early, late = told["positions"]
    table = Table(
        title=f"loss at token {early} minus at token {late}, mean over "
        f"{told['window']} tokens around each, {told['documents']} documents of "
        f"{told['text']}"
    )
    for name in ("ranking", "set", "share"):
        table.add_column(name)
    for name in ("heads", "value", "nats"):
        table.add_column(name, justify="right")
    loss = run.arrays["token_loss/loss"]
    difference = loss[..., 0] - loss[..., 1]  # [M, B]
    for key, rows in _groups(told["sets"]).items():
        interval = bootstrap_mean(difference[rows].mean(axis=0), seed=0)
        table.add_row(*key, "{:+.3f} [{:+.3f}, {:+.3f}]".format(*interval))
    return table
