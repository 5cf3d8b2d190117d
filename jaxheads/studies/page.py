"""What stands on the page, in reading order; a part that the run lacks is left out."""

import dataclasses
import functools
import json
from typing import Any

from jaxheads.report import export, receipt, theme
from jaxheads.report.figures import Figure
from jaxheads.report.layout import Section, Statement
from jaxheads.report.tables import Table
from jaxheads.runs import Run
from jaxheads.studies import claims_page
from jaxheads.studies.ablation import (
    figures as ablation_figures,
    findings,
    first_tokens,
    page as ablation_sections,
    sentences,
    tables as ablation_tables,
)
from jaxheads.studies.attribution import page as attribution
from jaxheads.studies.claims import of_run as claims_of_run
from jaxheads.studies.compare_runs import page as arms
from jaxheads.studies.dynamics import page as dynamics, seeds_page
from jaxheads.studies.function_vectors import page as execution
from jaxheads.studies.redundancy import page as redundancy
from jaxheads.studies.scores import (
    figures as scores_figures,
    page as score_sections,
    tables as scores_tables,
)
from jaxheads.studies.scores.numbers import with_one_induction
from jaxheads.studies.six_arguments import answers, page as evidence
from jaxheads.studies.train import page as training


@dataclasses.dataclass(frozen=True)
class Page:
    """All that the template prints."""

    title: str
    model: str
    facts: list[str]
    verdict: str
    headline: list[findings.Headline]
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
        claims_page.section(judged),
        score_sections.scores(run),
        ablation_sections.accuracy(run),
        *ablation_figures.sections(run),
        ablation_sections.token_loss(run),
        *redundancy.sections(run),
        *attribution.sections(run),
        *execution.sections(run),
        *dynamics.sections(run),
        *seeds_page.sections(run),
        *training.sections(run),
        *evidence.sections(run),
        *arms.sections(run),
        score_sections.places(run),
        score_sections.strength(run),
        score_sections.agreement(run, found),
        score_sections.sizes(run, found),
        score_sections.leading(run),
        _tasks(run),
        claims_page.sensitivity_section(run),
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
        or seeds_page.verdict(run)
        or training.verdict(run)
        or answers.verdict(run)
        or arms.verdict(run)
        or sentences.verdict(found, judged),
        headline=findings.headline(found),
        statements=[
            *sentences.say(run, found, judged),
            *redundancy.say(run),
            *attribution.say(run),
            *execution.say(run, judged),
            *dynamics.say(run),
            *seeds_page.say(run),
            *training.say(run),
            *answers.say(run),
            *arms.say(run),
        ],
        sections=[section for section in made if section],
        receipt=receipt.facts(run),
        open_tables=ablation_tables.open_tables(run),
        folded_tables=[
            *claims_page.rules(judged),
            *answers.rules(run),
            *claims_page.figure_numbers(run),
            *ablation_tables.folded_tables(run),
        ],
        config=json.dumps(result.get("config") or {}, indent=2, ensure_ascii=False),
        head_rows=scores_figures.head_rows(run),
    )


def _tasks(run: Run) -> Section | None:
    made = [ablation_tables.evaluation_tasks(run), scores_tables.scoring_tasks(run)]
    listed, text = [table for table in made if table], first_tokens.say(run)
    if not listed and not text:
        return None
    return Section("tasks", "Task by task", text, tables=listed)
