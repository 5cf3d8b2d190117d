"""What stands on the page, in reading order; a part that the run lacks is left out."""

import dataclasses
import functools
import json
from typing import Any

from jaxheads import run_scores
from jaxheads.claims import of_run as claims_of_run
from jaxheads.head_sets import with_one_induction
from jaxheads.report import (
    ablation_figures,
    attribution,
    claims,
    curves,
    dynamics,
    execution,
    export,
    figures,
    findings,
    head_figures,
    headline,
    outcomes,
    receipt,
    redundancy,
    sentences,
    tables,
    theme,
    training,
    words,
)
from jaxheads.report.figures import Figure
from jaxheads.report.findings import Findings
from jaxheads.report.layout import Key, Row, Section
from jaxheads.report.outcomes import Panel
from jaxheads.report.sentences import Statement
from jaxheads.report.tables import Table
from jaxheads.runs import Run


@dataclasses.dataclass(frozen=True)
class Page:
    """All that the template prints."""

    title: str
    model: str
    facts: list[str]
    verdict: str
    headline: list[headline.Headline]
    statements: list[Statement]
    sections: list[Section]
    receipt: list[tuple[str, receipt.Facts]]
    open_tables: list[Table]
    folded_tables: list[Table]
    config: str
    head_rows: list[dict[str, Any]]

    @functools.cached_property
    def exports(self) -> list[export.Export]:
        """Every chart, in the order of its number on the page."""
        return export.exports(self.sections, self.head_rows)

    def number(self, figure: Figure) -> int:
        """Give a chart's number on the page."""
        return next(n for n, one in enumerate(self.exports) if one.figure is figure)

    def payload(self) -> dict[str, Any]:
        """What the page's script reads."""
        return {
            "charts": [
                {
                    "spec": one.figure.spec,
                    "renderer": one.figure.renderer,
                    "title": one.title,
                    "name": one.name,
                    "width": one.width,
                    "legend": one.legend,
                    "csv": one.csv,
                }
                for one in self.exports
            ],
            "heads": self.head_rows,
            "theme": theme.THEME,
        }


def collect(run: Run) -> Page:
    """Put the page of a run together."""
    run = with_one_induction(run)
    found = findings.find(run)
    judged = claims_of_run(run)
    made = [
        claims.section(judged),
        _scores(run),
        _accuracy(run),
        *ablation_figures.sections(run),
        _token_loss(run),
        *redundancy.sections(run),
        *attribution.sections(run),
        *execution.sections(run),
        *dynamics.sections(run),
        *training.sections(run),
        _places(run),
        _strength(run),
        _agreement(run, found),
        _sizes(run, found),
        _leading(run),
        _tasks(run),
        claims.sensitivity_section(run),
    ]
    model, result = run.result["model"], run.result
    return Page(
        title=result.get("title") or "Which attention heads carry in-context learning?",
        model=str(model.get("name") or model["source"]),
        facts=receipt.model_facts(run),
        verdict=redundancy.verdict(run, found)
        or attribution.verdict(run, found)
        or execution.verdict(run, found)
        or dynamics.verdict(run)
        or training.verdict(run)
        or sentences.verdict(found),
        headline=headline.collect(found),
        statements=[
            *sentences.say(run, found),
            *redundancy.say(run),
            *attribution.say(run),
            *execution.say(run),
            *dynamics.say(run),
            *training.say(run),
        ],
        sections=[section for section in made if section],
        receipt=receipt.facts(run),
        open_tables=receipt.open_tables(run),
        folded_tables=[
            *claims.rules(judged),
            *claims.figure_numbers(run),
            *receipt.folded_tables(run),
        ],
        config=json.dumps(result.get("config") or {}, indent=2, ensure_ascii=False),
        head_rows=figures.head_rows(run),
    )


def _scores(run: Run) -> Section | None:
    maps = figures.heat_maps(run)
    if not maps:
        return None
    values = run_scores.score(run, run_scores.names(run)[0])
    return Section(
        "scores",
        "Every head's scores",
        "One cell a head: layers run to the right, heads down. Outlined: the top 2 % "
        f"({words.plural(run_scores.top_count(values.size), 'head')}). Where a score "
        "can be negative its colour follows the square root, so that small effects show. "
        "Point at a cell for its name, value ± standard error, and rank.",
        rows=[Row("", maps)],
    )


def _keys(panels: list[Panel], clean: str) -> list[Key]:
    keys = {"": Key(clean, "ink", "dots")}
    for panel in panels:
        for line in panel.lines:
            mark = "dashes" if line.dashed else "line"
            keys.setdefault(line.label, Key(line.label, line.colour, mark))
    return list(keys.values())


def _accuracy(run: Run) -> Section | None:
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
    tasks = words.plural(len(run.result.get("evaluation_tasks") or []), "task")
    text = (
        f"Heads are replaced by {_fill(part)} at the {_positions(part)}, in {tasks}. "
        "Bands: 95 % bootstrap intervals over prompts within tasks"
    )
    text += _range_of_draws([panel for _, panels in drawn for panel in panels])
    if any(outcome.find(mode="exclusion") for outcome in measured):
        text += ". Exclusion leaves the heads at the top of the other ranking alone"
    return Section(
        "few-shot",
        "Few-shot accuracy while heads are replaced",
        f"{text}.{_same_first_token(run)}",
        keys=_keys([panel for _, panels in drawn for panel in panels], curves.CLEAN),
        rows=rows,
    )


def _same_first_token(run: Run) -> str:
    """Name the tasks whose first token says nothing; a sentence, or nothing."""
    named = []
    for task in run.result.get("evaluation_tasks") or []:
        targets = run.arrays.get(f"prompts/evaluation/{task}/targets")
        if targets is not None and len(targets) > 1 and len(set(targets.tolist())) == 1:
            named.append(task)
    if not named:
        return ""
    return (
        f" In this tokenizer every answer of {' and of '.join(named)} begins with the "
        "same token (such as a space before digits): there the first token says "
        "nothing of the answer, and F1 does."
    )


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


def _token_loss(run: Run) -> Section | None:
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
        "Bands: 95 % bootstrap intervals of the change from no head replaced, over the "
        f"same documents{_range_of_draws(every)}.",
        keys=_keys(every, curves.CLEAN),
        rows=rows,
    )


def _ranked(run: Run) -> list[str]:
    return [name for name in findings.PAIR if name in run_scores.names(run)]


def _places(run: Run) -> Section | None:
    names = _ranked(run)
    if not names:
        return None
    return Section(
        "layers",
        "Where the top heads sit",
        "The top 2 % of heads by each score (at least 3, at most 10), by layer; the "
        "first three are named.",
        keys=[
            Key(
                f"top {words.short(name)}",
                outcomes.colour(name),
                head_figures.SHAPES.get(name, "circle"),
            )
            for name in names
        ],
        rows=[Row("", [head_figures.depth(run, names)])],
    )


def _strength(run: Run) -> Section | None:
    names = run_scores.names(run)
    if not names:
        return None
    return Section(
        "strength",
        "How strong the top heads are, beside all heads",
        "Box: the middle half of all heads, with the median; whiskers: the last heads "
        "within 1.5 times the box's width of it. Coloured: the top 2 %, each a point, "
        "and their mean.",
        keys=[
            Key("mean over heads", "ink", "diamond"),
            *(
                Key(
                    f"top 2 % by {words.short(name)}",
                    outcomes.colour(name),
                    head_figures.SHAPES.get(name, "circle"),
                )
                for name in _ranked(run)
            ),
        ],
        rows=[Row("", [head_figures.strength(run, name) for name in names])],
    )


def _sizes(run: Run, found: Findings) -> Section | None:
    if found.agreement is None:
        return None
    fv, induction = map(words.short, findings.PAIR)
    return Section(
        "top-sets",
        "How far the top sets agree, by their size",
        "Left: the share of one top set that is in the other. Then the place of the "
        "mean score of one top set's heads among all heads' scores by the other "
        "ranking. Random sets: mean and 95 % range, exact for the overlap, over "
        f"{head_figures.DRAWS:,} draws for the percentiles.",
        keys=[
            Key(head_figures.SHARED, "other-2"),
            Key(head_figures.UNDER.format(fv, induction), "fv"),
            Key(head_figures.UNDER.format(induction, fv), "induction"),
            Key(head_figures.RANDOM, "random", "dashes"),
        ],
        rows=[Row("", head_figures.agreement(run, findings.PAIR), columns=3)],
    )


def _agreement(run: Run, found: Findings) -> Section | None:
    agreed = found.agreement
    if agreed is None:
        return None
    facts = [
        f"Rank correlation (Spearman) over all heads: {words.number(agreed.spearman)}."
    ]
    facts += [
        f"Top {words.percent(top.share)}: {top.shared} of "
        f"{words.plural(top.count, 'head')} shared; "
        f"{words.number(top.chance)} expected by chance."
        for top in agreed.overlaps
    ]
    facts.append(
        "The mean induction score of the top-2 % FV heads lies at percentile "
        f"{agreed.fv_heads_in_induction:.0f} of all heads, the mean FV score of the "
        f"top-2 % induction heads at percentile {agreed.induction_heads_in_fv:.0f}."
    )
    return Section(
        "overlap",
        "Are they the same heads?",
        "Each point is a head; the top 2 % by either score are marked.",
        keys=[
            Key("top FV", "fv", "cross"),
            Key("top induction", "induction", "circle"),
            Key("both", "other-2", "diamond"),
            Key("neither", "random", "circle"),
        ],
        rows=[Row("", [figures.scatter(run, "induction", "function_vector")])],
        facts=facts,
    )


def _leading(run: Run) -> Section | None:
    names = _ranked(run) or run_scores.names(run)[:1]
    if not names:
        return None
    return Section(
        "heads",
        "The top heads",
        "A head is written layer.head, both counted from 0. Each score stands with its "
        "standard error over prompts or sequences, and the head's rank by it.",
        tables=[tables.top_heads(run, name) for name in names],
    )


def _tasks(run: Run) -> Section | None:
    made = [tables.evaluation_tasks(run), tables.scoring_tasks(run)]
    listed = [table for table in made if table]
    if not listed:
        return None
    return Section("tasks", "Task by task", "", tables=listed)
