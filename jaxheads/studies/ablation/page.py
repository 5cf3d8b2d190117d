"""The sections about what is left while heads are replaced."""

from collections.abc import Sequence
from typing import Any

from jaxheads.report import words
from jaxheads.report.layout import Key, Row, Section, Topic
from jaxheads.runs import Run
from jaxheads.statistics.claims import Claim
from jaxheads.studies import claims_page
from jaxheads.studies.ablation import (
    curves,
    figures,
    findings,
    first_tokens,
    outcomes,
    sentences,
    tables,
)
from jaxheads.studies.ablation.findings import Findings
from jaxheads.studies.ablation.outcomes import Panel
from jaxheads.studies.scores import tables as scores_tables


def topic(run: Run, found: Findings, judged: Sequence[Claim]) -> Topic:
    """What the page tells of few-shot accuracy, and what it says of the heads."""
    answered = outcomes.accuracy(run) + outcomes.zero_shot(run)
    ranked = bool(run.result.get("scores"))
    return Topic(
        sections=[accuracy(run), *figures.sections(run)],
        verdict=sentences.verdict(found, judged) if ranked else None,
        statements=sentences.say(run, found, judged),
        last=[_tasks(run), claims_page.sensitivity_section(run)],
        folded=[tables.every_set(run, answered, "Every head set: few-shot accuracy")],
    )


def _tasks(run: Run) -> Section | None:
    made = [tables.evaluation_tasks(run), scores_tables.scoring_tasks(run)]
    listed, text = [table for table in made if table], first_tokens.say(run)
    if not listed and not text:
        return None
    return Section("tasks", "Task by task", text, tables=listed)


def accuracy(run: Run) -> Section | None:
    """Draw accuracy while heads are replaced."""
    measured = outcomes.accuracy(run)
    drawn = [(outcome, outcomes.panels(outcome)) for outcome in measured]
    rows = [
        Row(words.sentence(outcome.quantity), curves.curve_figures(outcome, panels))
        for outcome, panels in drawn
        if panels
    ]
    alone = [(outcome, outcomes.panels(outcome)) for outcome in outcomes.zero_shot(run)]
    rows += [
        Row(
            f"{words.sentence(outcome.quantity)}: without demonstrations",
            curves.curve_figures(outcome, panels),
        )
        for outcome, panels in alone
        if panels
    ]
    tried = [
        curves.curve_figures(outcome, [panel])[0]
        for outcome in measured
        if (share := findings.nearest_fraction(outcome, "exclusion")) is not None
        and (panel := outcomes.sensitivity_panel(outcome, share))
    ]
    if tried:
        rows.append(Row("By the share of heads that exclusion leaves alone", tried))
    kept = [figure for outcome in measured if (figure := curves.kept(outcome))]
    if kept:
        rows.append(Row("Keeping only the top heads, all others replaced", kept))
    if not rows:
        return None
    part = run.result["ablation"]
    names = run.result.get("evaluation_tasks") or []
    tasks = words.plural(len(names), "task")
    text = (
        f"Heads are replaced by {_fill(part)} at the {_positions(part)}, in {tasks}. "
        f"Bands: 95 % intervals over {measured[0].over}"
    )
    text += range_of_draws([panel for _, panels in drawn for panel in panels])
    if any(outcome.find(mode="exclusion") for outcome in measured):
        text += ". Exclusion leaves the heads at the top of the other ranking alone"
    return Section(
        "few-shot",
        "Few-shot accuracy while heads are replaced",
        " ".join(filter(None, [f"{text}.", first_tokens.left_out(run, names)])),
        keys=keys([panel for _, panels in drawn for panel in panels], curves.CLEAN),
        rows=rows,
    )


def keys(panels: list[Panel], clean: str) -> list[Key]:
    """Make the legend of some panels."""
    made = {"": Key(clean, "ink", "dots")}
    for panel in panels:
        for line in panel.lines:
            mark = "dashes" if line.dashed else "line"
            made.setdefault(line.label, Key(line.label, line.colour, mark))
    return list(made.values())


def range_of_draws(panels: list[Panel]) -> str:
    """Say what the band around random heads is, where there is one."""
    lines = [line for panel in panels for line in panel.lines]
    if any(line.spread.startswith("range") for line in lines):
        return "; for random heads, the range of the draws"
    return ""


def _fill(part: dict[str, Any]) -> str:
    value = part.get("value")
    return {"mean": "their mean output", "zero": "zero"}.get(str(value), str(value))


def _positions(part: dict[str, Any]) -> str:
    positions = str(part.get("positions", "last"))
    return "last position" if positions == "last" else f"positions: {positions}"
