"""What a run found of how heads work together, in numbers and words (numpy only)."""

from typing import Any

import numpy as np

from jaxheads.heads import head_name
from jaxheads.report import words
from jaxheads.report.tables import Cell, Table
from jaxheads.runs import Run
from jaxheads.statistics.units import student_t_quantile

SEARCHES = ("backward", "forward")
_METRICS = {
    "probability": "probability of the right answer's first token",
    "accuracy": "first-token accuracy",
}


def strongest(run: Run, count: int) -> list[tuple[str, str, float, float]]:
    """List the pairs with the largest interactions, of either sign.

    Returns:
        The two heads, the interaction and its standard error, largest first.
    """
    names = head_names(run)
    pair = np.asarray(run.arrays["redundancy/interaction"], np.float64)
    error = np.asarray(run.arrays["redundancy/interaction_se"], np.float64)
    rows, columns = np.triu_indices(len(names), 1)
    order = np.argsort(-np.abs(pair[rows, columns]), kind="stable")[:count]
    return [
        (names[i], names[j], float(pair[i, j]), float(error[i, j]))
        for i, j in zip(rows[order], columns[order], strict=True)
    ]


def pairs(run: Run, count: int = 12) -> Table:
    """A row a pair: its interaction, and what replacing its heads changes."""
    effect = run.arrays["redundancy/effect"]
    alone = dict(zip(head_names(run), effect.tolist(), strict=True))
    listed = strongest(run, count)
    largest = max(abs(value) for _, _, value, _ in listed) or 1.0
    rows = []
    for first, second, value, error in listed:
        shade = "other-1" if value > 0 else "negative"
        text, bar = words.with_error(value, error), abs(value) / largest
        changes = alone[first], alone[second], alone[first] + alone[second] + value
        rows.append(
            [
                f"{first}, {second}",
                reading(value, error, threshold(run)),
                Cell(text, bar=bar, colour=shade),
                *map(words.number, changes),
            ]
        )
    columns = ["pair", "reading", "interaction"]
    columns += ["first replaced", "second replaced", "both replaced"]
    return Table("The strongest interactions, and the changes", columns, rows, 2)


def head_names(run: Run) -> list[str]:
    """Name the chosen heads, in the order of the run's arrays."""
    return [head_name(*row) for row in run.arrays["redundancy/heads"].tolist()]


def freedom(run: Run) -> int:
    """Degrees of freedom of the run's errors: queries beyond one a task."""
    part = run.result["redundancy"]
    queries = run.arrays.get("redundancy/queries")
    if queries is None:  # older runs do not say which prompts ask one query
        return len(part["tasks"]) * max(part["prompts"] - 1, 1)
    return sum(max(len(np.unique(row)) - 1, 1) for row in queries)


def threshold(run: Run) -> float:
    """Errors beyond which one of all pairs stands out from none at all.

    Student's t at the two-sided 5 % level, divided by the number of pairs.
    """
    level = 1 - 0.05 / max(num_pairs(run), 1)
    return float(student_t_quantile(level, freedom(run)))


def reading(value: float, error: float, limit: float) -> str:
    """Say what an interaction means, and whether it can be told from none.

    Args:
        value: of the interaction.
        error: its standard error.
        limit: ``threshold``.
    """
    if not abs(value) > limit * error:
        return "not distinguishable from 0"
    if value > 0:
        return "together they cost less than the sum: overlap"
    return "together they cost more than the sum: backups"


def num_pairs(run: Run) -> int:
    """Count the pairs of chosen heads."""
    count = len(run.arrays["redundancy/heads"])
    return count * (count - 1) // 2


def num_kept(run: Run, name: str) -> list[int]:
    """How many of the searched heads each set keeps."""
    replaced = run.arrays[f"redundancy/{name}_replaced"].sum(axis=(1, 2))
    part = run.result["redundancy"]
    total = run.arrays[f"redundancy/{name}_replaced"][0].size
    searched = total if part["universe"] == "all" else len(part["heads"])
    outside = total - searched if part["others"] == "replaced" else 0
    return [int(searched - (count - outside)) for count in replaced]


def work(part: dict[str, Any]) -> str:
    """Say what was run, and what it would have cost by whole forwards."""
    did = part["work"]
    return (
        f"{did['subsets_asked']:,} subsets were asked for and "
        f"{did['subsets_run']:,} different ones run, "
        f"{did['subset_prompts']:,} subsets of a prompt in all, one token each: "
        f"{did['tokens']:,} tokens through the layers in "
        f"{words.seconds(did['prefill_s'] + did['subsets_s'])}, prompts and compiling "
        "included. By whole forwards they would be "
        f"{words.magnitude(did['whole_forward_tokens'])} tokens and "
        f"{words.seconds(did['whole_forwards_s'])}, "
        f"{words.number(did['times_faster'])} times as long "
        f"({words.seconds(did['whole_forward_s'])} each, measured here on "
        f"{words.plural(did['forwards_timed'], 'prompt')}, which agree to "
        f"{words.number(did['largest_difference'])})."
    )


def best(part: dict[str, Any]) -> dict[str, Any] | None:
    """The smaller of the two sets that were found, if any keeps the share."""
    found = [part[name] for name in SEARCHES if part[name]["reached"]]
    return min(found, key=lambda one: len(one["kept"])) if found else None


def search_text(part: dict[str, Any], found: dict[str, Any]) -> str:
    """Say which set a search found, and the share that it keeps."""
    if not found["reached"]:
        return (
            f"no set keeps {words.percent(part['share'])}, not even with all of the "
            f"{searched(part)} kept."
        )
    names = found["kept"]
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    count = f"{words.plural(len(names), 'head')} ({shown})" if names else "no head"
    held_out = found["held_out_share"]
    other = (
        "nothing can be said on held-out prompts, whose clean value is no higher than "
        "the floor"
        if held_out is None
        else f"on held-out prompts {share_text(held_out, found['held_out_share_se'])}"
    )
    return (
        f"with {count} of the {searched(part)} kept, "
        f"{share_text(found['share'], found['share_se'])} of {whole(part)} is left; "
        f"{other}."
    )


def share_text(share: float, error: float | None) -> str:
    """Print a share with its standard error, in percent."""
    return f"{words.with_error(100 * share, 100 * (error or 0.0))} %"


def searched(part: dict[str, Any]) -> str:
    """Name the heads that the greedy searches went through."""
    if part["universe"] == "all":
        return "model's heads"
    return words.plural(len(part["heads"]), "chosen head")


def whole(part: dict[str, Any]) -> str:
    """Name what a share is a share of."""
    if part["share_of"] == "gain":
        return "what the clean value has above that with all of them replaced"
    return "the clean value"


def metric(part: dict[str, Any]) -> str:
    """Name what a prompt is worth."""
    return _METRICS.get(part["metric"], str(part["metric"]))
