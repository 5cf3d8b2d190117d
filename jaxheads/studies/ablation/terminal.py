"""Few-shot accuracy under every set in the terminal."""

from collections.abc import Iterator

from rich.table import Table

from jaxheads.report import words
from jaxheads.runs import Run
from jaxheads.studies.ablation.outcomes import Outcome, accuracy, zero_shot


def lines(run: Run) -> Iterator[Table | str]:
    """What the terminal prints of a run, if it has this study."""
    if "ablation" in run.result:
        yield _accuracy(run, "few-shot", accuracy(run))
        if "ablation/zero_shot/f1" in run.arrays:
            yield _accuracy(run, "zero-shot", zero_shot(run))


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
    for key, rows in groups(told["sets"]).items():
        cells = [
            "{:.3f} [{:.3f}, {:.3f}]".format(
                *one.estimate(one.values[rows].mean(axis=0)).interval()
            )
            for one in measured
        ]
        table.add_row(*key[:4], *cells)
    return table


def groups(sets: list[dict]) -> dict[tuple, list[int]]:
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
