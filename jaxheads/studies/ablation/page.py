"""The sections about what is left while heads are replaced."""

from typing import Any

from jaxheads.report import words
from jaxheads.report.layout import Key, Row, Section
from jaxheads.runs import Run
from jaxheads.studies.ablation import curves, findings, first_tokens, outcomes
from jaxheads.studies.ablation.outcomes import Panel


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
    text += _range_of_draws([panel for _, panels in drawn for panel in panels])
    if any(outcome.find(mode="exclusion") for outcome in measured):
        text += ". Exclusion leaves the heads at the top of the other ranking alone"
    return Section(
        "few-shot",
        "Few-shot accuracy while heads are replaced",
        " ".join(filter(None, [f"{text}.", first_tokens.left_out(run, names)])),
        keys=_keys([panel for _, panels in drawn for panel in panels], curves.CLEAN),
        rows=rows,
    )


def token_loss(run: Run) -> Section | None:
    """Draw the token-loss difference while heads are replaced."""
    outcome = outcomes.token_loss(run)
    if outcome is None:
        return None
    values = dict.fromkeys(
        outcome.sets[n].get("value")
        for n in outcome.find(mode="top") + outcome.find(mode="exclusion")
    )
    grouped = [(v, outcomes.panels(outcome, value=v)) for v in values]
    every = [panel for _, panels in grouped for panel in panels]
    if not every:
        return None
    drawn = iter(curves.curve_figures(outcome, every))
    rows = [
        Row(
            _ablation_by(str(value or "given")),
            [next(drawn) for _ in panels],
        )
        for value, panels in grouped
    ]
    part = run.result["token_loss"]
    first, last = part["positions"]
    window = ""
    if part.get("window", 1) > 1:
        window = f"Each loss is the mean over {part['window']} tokens around it. "
    documents = words.plural(part["documents"], "document")
    read = "each read from its own start, not a stream"
    if part.get("packing") == "stream":
        documents = words.plural(part["documents"], "piece")
        read = "cut from the stream without gap"
    if part.get("divided_by", part["documents"]) < part["documents"]:
        read += f"; their sum is divided by {part['divided_by']:,}, as published"
    return Section(
        "token-loss",
        "Token-loss difference while heads are replaced",
        f"Loss at token {first} minus loss at token {last}, in nats: positive means "
        "that the model predicts better with more context. Heads are replaced at every "
        f"position. {window}Text: {part['text']}, {documents} ({read}). "
        "Bands: 95 % intervals of the change from no head replaced, over the "
        f"same documents{_range_of_draws(every)}.{outcome.caution}",
        keys=_keys(every, curves.CLEAN),
        rows=rows,
    )


def _keys(panels: list[Panel], clean: str) -> list[Key]:
    keys = {"": Key(clean, "ink", "dots")}
    for panel in panels:
        for line in panel.lines:
            mark = "dashes" if line.dashed else "line"
            keys.setdefault(line.label, Key(line.label, line.colour, mark))
    return list(keys.values())


def _range_of_draws(panels: list[Panel]) -> str:
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


def _ablation_by(value: str) -> str:
    named = {"bos": "BOS-value", "mean_by_position": "Mean-by-position"}
    return f"{named.get(value, words.sentence(value))} ablation"
