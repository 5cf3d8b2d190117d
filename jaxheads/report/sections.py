"""What stands on the page, in reading order; a part that the run lacks is left out."""

import dataclasses
import functools
import json
from typing import Any

from jaxheads.claims import of_run as claims_of_run
from jaxheads.head_sets import with_one_induction
from jaxheads.report import (
    ablation_figures,
    ablation_sections,
    arms,
    attribution,
    claims,
    dynamics,
    dynamics_seeds,
    evidence,
    evidence_answers,
    execution,
    export,
    figures,
    findings,
    headline,
    receipt,
    redundancy,
    score_sections,
    sentences,
    tables,
    theme,
    training,
)
from jaxheads.report.figures import Figure
from jaxheads.report.layout import Section
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
        score_sections.scores(run),
        ablation_sections.accuracy(run),
        *ablation_figures.sections(run),
        ablation_sections.token_loss(run),
        *redundancy.sections(run),
        *attribution.sections(run),
        *execution.sections(run),
        *dynamics.sections(run),
        *dynamics_seeds.sections(run),
        *training.sections(run),
        *evidence.sections(run),
        *arms.sections(run),
        score_sections.places(run),
        score_sections.strength(run),
        score_sections.agreement(run, found),
        score_sections.sizes(run, found),
        score_sections.leading(run),
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
        or execution.verdict(run, found, judged)
        or dynamics.verdict(run)
        or dynamics_seeds.verdict(run)
        or training.verdict(run)
        or evidence_answers.verdict(run)
        or arms.verdict(run)
        or sentences.verdict(found, judged),
        headline=headline.collect(found),
        statements=[
            *sentences.say(run, found, judged),
            *redundancy.say(run),
            *attribution.say(run),
            *execution.say(run, judged),
            *dynamics.say(run),
            *dynamics_seeds.say(run),
            *training.say(run),
            *evidence_answers.say(run),
            *arms.say(run),
        ],
        sections=[section for section in made if section],
        receipt=receipt.facts(run),
        open_tables=receipt.open_tables(run),
        folded_tables=[
            *claims.rules(judged),
            *evidence_answers.rules(run),
            *claims.figure_numbers(run),
            *receipt.folded_tables(run),
        ],
        config=json.dumps(result.get("config") or {}, indent=2, ensure_ascii=False),
        head_rows=figures.head_rows(run),
    )


def _tasks(run: Run) -> Section | None:
    made = [tables.evaluation_tasks(run), tables.scoring_tasks(run)]
    listed = [table for table in made if table]
    if not listed:
        return None
    return Section("tasks", "Task by task", "", tables=listed)
