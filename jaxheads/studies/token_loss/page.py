"""The section about the gain from running text while heads are replaced."""

from collections.abc import Sequence

from jaxheads.report import words
from jaxheads.report.layout import Row, Section, Topic
from jaxheads.runs import Run
from jaxheads.statistics.claims import Claim
from jaxheads.studies.ablation import curves, outcomes, tables
from jaxheads.studies.ablation.findings import Findings
from jaxheads.studies.ablation.page import keys, range_of_draws


def topic(run: Run, found: Findings, judged: Sequence[Claim]) -> Topic:
    """What the page tells of token losses."""
    del found, judged
    loss = outcomes.token_loss(run)
    every = tables.every_set(run, [loss] if loss else [], "Every head set: token loss")
    return Topic([_section(run)], folded=[every])


def _section(run: Run) -> Section | None:
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
        f"same documents{range_of_draws(every)}.{outcome.caution}",
        keys=keys(every, curves.CLEAN),
        rows=rows,
    )


def _ablation_by(value: str) -> str:
    named = {"bos": "BOS-value", "mean_by_position": "Mean-by-position"}
    return f"{named.get(value, words.sentence(value))} ablation"
