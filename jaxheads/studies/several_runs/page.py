"""A page over several runs: models of several sizes, checkpoints, or seeds."""

import json
from collections.abc import Sequence
from typing import Any

from jaxheads.errors import UserError
from jaxheads.report import receipt, words
from jaxheads.report.layout import Section, Statement
from jaxheads.report.page import Page
from jaxheads.report.tables import Cell, Table
from jaxheads.runs import Run
from jaxheads.statistics.claims import Claim
from jaxheads.studies import claims_page
from jaxheads.studies.ablation.findings import PAIR
from jaxheads.studies.ablation.sentences import (
    FEW_SHOT_CLAIMS,
    TEXT_CLAIMS,
    first_measured,
)
from jaxheads.studies.claims import of_run
from jaxheads.studies.claims_page import SYMBOLS
from jaxheads.studies.scores import tables as scores_tables
from jaxheads.studies.scores.numbers import with_one_induction
from jaxheads.studies.several_runs import agreement, sections
from jaxheads.studies.several_runs.chart import axis
from jaxheads.studies.several_runs.members import Member, differences, members


def collect(runs: Sequence[Run]) -> Page:
    """Put the page over several runs together.

    Args:
        runs: loaded; two or more.

    Raises:
        UserError: a run is there twice, or is of no single model.
    """
    for run in runs:
        if "num_layers" not in run.result["model"]:
            raise UserError(
                f"a page on several runs takes studies of models, but {run.path} is of "
                f"`jaxheads {run.result['study']}`: report it alone"
            )
    listed = members([with_one_induction(run) for run in runs])
    along = axis(listed)
    judged = [of_run(member.run) for member in listed]
    made = [
        runs_table(listed),
        sections.drops(listed, along),
        sections.curves(listed),
        sections.agreement(listed, along),
        sections.strength(listed, along),
        sections.depth(listed),
        sections.execution(listed, along),
        seeds(listed),
        claims_of(listed, judged),
    ]
    models = len({member.params for member in listed})
    return Page(
        title="Which attention heads carry in-context learning?",
        model=f"{words.plural(len(listed), 'run')} of {words.plural(models, 'model')}",
        facts=_facts(listed),
        verdict=_verdict(judged),
        headline=[],
        statements=_statements(listed),
        sections=[section for section in made if section],
        receipt=_receipt(listed),
        open_tables=[t for t in (scores_tables.definitions(listed[0].run),) if t],
        folded_tables=[],
        config=json.dumps(
            {member.label: member.run.result.get("config") or {} for member in listed},
            indent=2,
            ensure_ascii=False,
        ),
        head_rows=[],
    )


def _facts(listed: list[Member]) -> list[str]:
    sizes = sorted({m.num_params for m in listed if m.num_params is not None})
    facts = []
    if sizes:
        ends = [words.parameters(size) for size in (sizes[0], sizes[-1])]
        several = len(sizes) > 1
        facts.append((" to ".join(ends) if several else ends[0]) + " parameters")
    seeds = len({m.seed for m in listed if m.seed is not None})
    if seeds > 1:
        facts.append(words.plural(seeds, "seed"))
    return facts


def _verdict(judged: list[list[Claim]]) -> str:
    """Count the runs by their verdicts on the claims that answer the question."""
    said = []
    for names in (FEW_SHOT_CLAIMS, TEXT_CLAIMS):
        first = [first_measured(one, names) for one in judged]
        if not any(first):
            continue
        for name in dict.fromkeys(claim.name for claim in first if claim):
            same = [claim for one in judged for claim in one if claim.name == name]
            counts = {name: sum(c.verdict == name for c in same) for name in SYMBOLS}
            parts = [f"{name} in {count}" for name, count in counts.items() if count]
            parts[0] += f" of {words.plural(len(same), 'run')}"
            said.append(f"{same[0].statement}: {', '.join(parts)}.")
    return " ".join(said) or (
        "These runs rank the heads; they hold no ablation that would tell which of "
        "them the models need."
    )


def _statements(listed: list[Member]) -> list[Statement]:
    said = []
    groups: dict[str, list[Member]] = {}
    for member in listed:
        groups.setdefault(member.params, []).append(member)
    repeated = [group for group in groups.values() if len(group) > 1]
    if repeated:
        counts = ", ".join(f"{len(g)} of {g[0].model}" for g in repeated)
        text = (
            f"Runs of the same params ({counts}) stand at one place in the figures, as "
            "their mean and range."
        )
        said.append(Statement("Same models", text))
    found = differences(listed)
    if found:
        text = (
            "The runs are not of one config, so that not only the model may be behind "
            f"a difference. They differ in {', '.join(found)}."
        )
        said.append(Statement("What differs", text))
    return said


def _receipt(listed: list[Member]) -> list[tuple[str, receipt.Facts]]:
    """Gather each run's facts, model, versions and device under its label."""
    groups: list[tuple[str, receipt.Facts]] = []
    for member in listed:
        told: list[tuple[str, Any]] = [("folder", str(member.run.path))]
        told += [fact for _, facts in receipt.facts(member.run) for fact in facts]
        groups.append((member.label, told))
    return groups


def runs_table(listed: list[Member]) -> Section:
    """List the runs: model, seed, what they do, and their first heads."""
    quantity = next(
        (m.measured["accuracy"].quantity for m in listed if "accuracy" in m.measured),
        None,
    )
    rows = []
    for member in listed:
        model = member.run.result["model"]
        size = member.num_params
        row = [
            member.label,
            words.NONE if size is None else words.parameters(size),
            Cell(f"{member.total:,}", f"{model['num_layers']} x {model['num_heads']}"),
            words.NONE if member.step is None else f"{member.step:,}",
            words.NONE if member.seed is None else str(member.seed),
        ]
        if quantity:
            row.append(_clean(member))
        row += [_leader(member, name) for name in PAIR]
        rows.append(row)
    columns = ["run", "parameters", "heads", "step", "seed"]
    columns += [f"clean {quantity}"] if quantity else []
    columns += [f"top {words.short(name)} head" for name in PAIR]
    table = Table("Runs", columns, rows)
    empty = [
        name
        for n, name in enumerate(columns)
        if all(row[n].text == words.NONE for row in table.rows)
    ]
    return Section(
        "runs",
        "The runs",
        "In order of size, step and seed. A head is written layer.head, both counted "
        "from 0, with its score and standard error.",
        tables=[table.without(*empty)],
    )


def _clean(member: Member) -> str:
    outcome = member.measured.get("accuracy")
    if outcome is None or outcome.clean is None:
        return words.NONE
    return words.with_interval(*outcome.interval(outcome.clean))


def _leader(member: Member, name: str) -> Cell:
    found = member.found.leaders.get(name)
    return (
        Cell(words.head_score(found[0]), found[0].name) if found else Cell(words.NONE)
    )


def seeds(listed: list[Member]) -> Section | None:
    """Say how far runs of one model agree, where a model has several."""
    made = agreement.table([member.run for member in listed])
    if made is None:
        return None
    return Section(
        "seeds",
        "How the runs of one model agree",
        "Runs of the same params. Rank correlation: over all heads, mean over pairs of "
        "runs, and the lowest. Top sets: shared heads among those of either (Jaccard), "
        "mean over pairs. Last: standard deviation of the top heads' scores over runs "
        "in units of the standard error that the runs report, with its 95 % interval; "
        "1 where the reported errors are as large as they should be.",
        tables=[made],
    )


def claims_of(listed: list[Member], judged: list[list[Claim]]) -> Section | None:
    """Set the verdicts on the papers' claims side by side, where a run has any."""
    rows = []
    for same in zip(*judged, strict=True):
        if all(claim.verdict == "not measured" for claim in same):
            continue
        row = [Cell(same[0].statement, same[0].source)]
        for claim in same:
            text, _ = claims_page.effect(claim)
            known = claim.verdict != "not measured"
            said = claims_page.marked(claim.verdict) if known else words.NONE
            row.append(Cell(said, text if known else ""))
        rows.append(row)
    several = [member.run for member in listed]
    together = claims_page.section(agreement.claims_of_runs(several))
    if not rows:
        return None
    return Section(
        "claims",
        "The papers' claims, run by run",
        "By the rules of each run's own page, adjusted for that run's tests alone. "
        "Below a verdict: the effect, positive where the claim is right, with its 95 % "
        "interval.",
        tables=[
            Table(
                "Claims that a run measures",
                ["claim", *(member.label for member in listed)],
                rows,
                1,
                stacked=True,
            ),
            *(together.tables if together else []),
        ],
    )
