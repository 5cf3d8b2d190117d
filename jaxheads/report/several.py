"""A page over several runs: models of several sizes, checkpoints, or seeds."""

import json
from collections.abc import Sequence
from typing import Any

from jaxheads.claims import of_run
from jaxheads.claims.rules import Claim
from jaxheads.errors import UserError
from jaxheads.head_sets import with_one_induction
from jaxheads.report import receipt, several_tables, tables, words
from jaxheads.report import several_sections as sections
from jaxheads.report.claims import SYMBOLS
from jaxheads.report.members import Member, differences, members
from jaxheads.report.sections import Page
from jaxheads.report.sentences import (
    FEW_SHOT_CLAIMS,
    TEXT_CLAIMS,
    Statement,
    first_measured,
)
from jaxheads.report.several_chart import axis
from jaxheads.runs import Run


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
        several_tables.runs(listed),
        sections.drops(listed, along),
        sections.curves(listed),
        sections.agreement(listed, along),
        sections.strength(listed, along),
        sections.depth(listed),
        sections.execution(listed, along),
        several_tables.seeds(listed),
        several_tables.claims_of(listed, judged),
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
        open_tables=[t for t in (tables.definitions(listed[0].run),) if t],
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
