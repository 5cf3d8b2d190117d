"""What a run found of estimates from gradients, in numbers and words (numpy only)."""

from typing import Any

from jaxheads.heads import head_name
from jaxheads.report import words
from jaxheads.report.tables import Table
from jaxheads.runs import Run

TITLES = {
    "clean": "clean: slope with all heads kept",
    "ablated": "ablated: slope with all heads replaced",
    "integrated": "integrated: mean slope on the way between",
    "graddrop": "GradDrop: sizes, one layer's gradient left out in turn",
    "query": "query: each head's query replaced, softmax computed again",
}


def best(part: dict[str, Any]) -> str | None:
    """Name the method of head outputs that ranks the verified heads best.

    Effects of queries are other effects, and stand apart.
    """
    ranked = {
        method: told["rank_agreement"]
        for method, told in part["methods"].items()
        if told["rank_agreement"] is not None and told["site"] == "z"
    }
    return max(ranked, key=lambda method: ranked[method]) if ranked else None


def table(part: dict[str, Any]) -> Table:
    """A row a method: how well it does, and how long it took."""
    rows = [
        [
            TITLES[method],
            words.number(one["rank_agreement"]),
            words.number(one["sign_agreement"]),
            worst_miss(one),
            f"{one['missed']} of {one['sample']}",
            "none" if one["all_verified"] else f"at most {words.percent(one['bound'])}",
            words.seconds(one["estimate_s"]),
            words.seconds(one["exact_s"]),
        ]
        for method, one in part["methods"].items()
    ]
    columns = ["method", "rank agreement", "sign agreement", "worst miss, exact"]
    columns += ["missed in the sample", "others that may be larger"]
    columns += ["estimates took", "verification took"]
    caption = (
        "Estimates against exact effects of the verified heads; times include compiling"
    )
    return Table(caption, columns, rows)


def worst_miss(told: dict[str, Any]) -> str:
    """Say which head outside the top matters most, and what was estimated for it."""
    return (
        f"{head_name(*told['worst_miss_head'])}: "
        f"{words.number(told['worst_miss'])}, estimated "
        f"{words.number(told['worst_miss_estimate'])}"
    )


def reading(told: dict[str, Any], unit: str) -> str:
    """Say in a sentence or two how far a method's estimates can be trusted."""
    count = words.plural(told["top_k"] + told["sample"], "verified head")
    signs = (
        ""
        if told["sign_agreement"] is None
        else f", {words.percent(told['sign_agreement'])} of the effects by size with "
        "the right sign"
    )
    text = (
        f"rank correlation {words.number(told['rank_agreement'])} with the exact "
        f"effects of {count}{signs}. {told['missed']} of the {told['sample']} sampled "
        f"heads outside the top {told['top_k']} belong in it by their exact effects; "
        f"the largest of them has {worst_miss(told)} ({unit})"
    )
    return f"{text}. {words.sentence(bound(told))}."


def bound(told: dict[str, Any]) -> str:
    """Say how many heads may matter more than the worst miss."""
    if told["all_verified"]:
        return "all heads were run: none outside the top has a larger one"
    return (
        f"with 95 % confidence at most {words.percent(told['bound'])} of the heads "
        "outside the top have a larger one"
    )


def work(run: Run) -> str:
    """Say what was run for the estimates, beside an exact sweep over all heads."""
    part = run.result["attribution"]
    first = next(iter(part["methods"].values()))["tokens"]
    prompts = part["prompts"] * len(part["tasks"])
    said = [
        f"{method} {_count(told['tokens']['forward'])} forward and "
        f"{_count(told['tokens']['backward'])} back"
        for method, told in part["methods"].items()
    ]
    return (
        f"Tokens through the layers on {words.plural(prompts, 'prompt')}: "
        f"{', '.join(said)}. To verify each takes {_count(first['verification'])}, and "
        f"an exact sweep over all heads {_count(first['exact_sweep'])}, as it shares "
        "each prompt with all of them: here, at the last position, nothing has to be "
        "estimated."
    )


def _count(value: float) -> str:
    return f"{round(value):,}"
