"""How the chosen heads work together: sections, sentences and tables of the page."""

from collections.abc import Sequence
from typing import Any

from jaxheads.report import words
from jaxheads.report.layout import Key, Row, Section, Statement, Topic
from jaxheads.runs import Run
from jaxheads.statistics.claims import Claim
from jaxheads.studies.ablation.findings import Findings
from jaxheads.studies.redundancy import figures as drawn, findings as told


def topic(run: Run, found: Findings, judged: Sequence[Claim]) -> Topic:
    """What the page tells of heads that work together."""
    del judged
    return Topic(sections(run), verdict(run, found), say(run))


def sections(run: Run) -> list[Section]:
    """Make the sections on pairs and shares, and on the smallest sets."""
    part = run.result.get("redundancy")
    return [_together(run, part), _smallest(run, part)] if part else []


def verdict(run: Run, found: Findings) -> str | None:
    """Answer in a line where the run holds no comparison of rankings."""
    part = run.result.get("redundancy")
    if not part or found.comparisons:
        return None
    best = told.best(part)
    if best is None:
        return (
            f"Even with all of the {told.searched(part)} kept the model does not keep "
            f"{words.percent(part['share'])} of its {told.metric(part)}."
        )
    text = (
        f"Keeping {len(best['kept']) or 'none'} of the {told.searched(part)} is enough "
        f"to leave {words.percent(part['share'])} of {told.whole(part)}, as far as a "
        "greedy search finds"
    )
    held_out = best["held_out_share"]
    if held_out is None:
        return f"{text}."
    held = "and" if held_out >= part["share"] else "but"
    measured = told.share_text(held_out, best["held_out_share_se"])
    return f"{text}, {held} leaves {measured} on prompts that it was not chosen by."


def say(run: Run) -> list[Statement]:
    """Write the statements for the head of the page."""
    part = run.result.get("redundancy")
    if not part:
        return []
    best = told.best(part)
    text = told.search_text(part, best or part["forward"])
    said = [Statement("The smallest set", words.sentence(text))]
    first, second, value, error = told.strongest(run, 1)[0]
    said.append(
        Statement(
            "The strongest pair",
            f"{first} and {second}: interaction {words.with_error(value, error)}, "
            f"{told.reading(value, error, told.threshold(run))}.",
        )
    )
    return said


def _together(run: Run, part: dict[str, Any]) -> Section:
    value = {"mean": "their mean output", "zero": "zero"}
    chosen = "named by the user"
    if part["chosen_by"] != "name":
        chosen = f"at the top by {words.short(part['chosen_by'])} score"
    text = (
        f"{words.plural(len(part['heads']), 'head')}, {chosen}, are replaced by "
        f"{value.get(part['value'], part['value'])} at the last position, in every "
        f"subset that is asked for; all other heads are {part['others']}. Value: "
        f"{told.metric(part)}, {words.plural(len(part['tasks']), 'task')} with "
        f"{words.plural(part['prompts'], 'prompt')} each. {part['sign']}"
    )
    return Section(
        "together",
        "Do the heads do the same work?",
        text,
        keys=[
            Key("losses overlap (complements)", "other-1", "line"),
            Key("back each other up (substitutes)", "negative", "line"),
        ],
        rows=[Row("", [drawn.heat_map(run), drawn.shapley(run)])],
        tables=[told.pairs(run)],
    )


def _smallest(run: Run, part: dict[str, Any]) -> Section:
    text = (
        f"Backward: all of the {told.searched(part)} are kept, and at each step the "
        "one is replaced that costs least. Forward: all are replaced, and the one is "
        "kept that gains most. Each search ends where the share crosses "
        f"{words.percent(part['share'])} of {told.whole(part)}. Its sets flatter "
        "themselves, as the best of many on the prompts that they were chosen by: the "
        "dashed lines are the same sets on other prompts, with no item in common. "
        "Bands: 95 % intervals over queries within tasks."
    )
    facts = [
        f"{words.sentence(name)}: {told.search_text(part, part[name])}"
        for name in told.SEARCHES
    ]
    return Section(
        "smallest-set",
        "How few of them are enough?",
        text,
        keys=[
            Key("backward", "other-1", "line"),
            Key("forward", "fv", "line"),
            Key("on held-out prompts", "ink", "dashes"),
            Key("share to keep", "ink", "dots"),
        ],
        rows=[Row("", [drawn.paths(run)])],
        facts=[*facts, told.work(part)],
    )
