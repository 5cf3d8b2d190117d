"""What stands on the page, in reading order; a part that the run lacks is left out."""

import json

from jaxheads.report import receipt, tables
from jaxheads.report.page import Page
from jaxheads.runs import Run
from jaxheads.studies import claims, claims_page, registry
from jaxheads.studies.ablation import findings
from jaxheads.studies.scores.figures import head_rows
from jaxheads.studies.scores.numbers import with_one_induction


def collect(run: Run) -> Page:
    """Put the page of a run together."""
    run = with_one_induction(run)
    found, judged = findings.find(run), claims.of_run(run)
    topics = [
        page.topic(run, found, judged) for page in registry.files("page").values()
    ]
    made = [
        claims_page.section(judged),
        *(section for topic in topics for section in topic.sections),
        *(section for topic in topics for section in topic.last),
    ]
    open_tables = [table for topic in topics for table in topic.tables]
    folded = [table for topic in topics for table in topic.folded]
    folded = [*claims_page.rules(judged), *claims_page.figure_numbers(run), *folded]
    model, result = run.result["model"], run.result
    rows, wall = (
        (result.get("plan") or {}).get("rows") or [],
        result.get("wall_s") or {},
    )
    planned = tables.plan(rows, wall, "Plan and time") if rows or wall else None
    return Page(
        title=result.get("title") or "Which attention heads carry in-context learning?",
        model=str(model.get("name") or model["source"]),
        facts=receipt.model_facts(run),
        verdict=next((one.verdict for one in reversed(topics) if one.verdict), ""),
        headline=findings.headline(found),
        statements=[said for topic in topics for said in topic.statements],
        sections=[section for section in made if section],
        receipt=receipt.facts(run),
        open_tables=[table for table in (*open_tables, planned) if table],
        folded_tables=[table for table in folded if table],
        config=json.dumps(result.get("config") or {}, indent=2, ensure_ascii=False),
        head_rows=head_rows(run),
    )
