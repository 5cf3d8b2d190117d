"""The pages of docs/reference that are made of records: protocols, claims, scores.

    python docs/generate.py

Written anew where a record changes; ``tests/test_docs.py`` says when that is due. The
pages are checked in, so that they can be read without the site.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from jaxheads.cli import lists
from jaxheads.heads import HeadScores
from jaxheads.scores import (
    circuits,
    copying,
    copying_effect,
    direct_logit,
    duplicate_token,
    function_vector,
    induction,
    prefix_matching,
    previous_token,
    qk_trace,
    relation_index,
    retrieval,
    value_weighted,
)
from jaxheads.scores.config import EXTRA_SCORES, USUAL_SCORES, ScoresConfig
from jaxheads.statistics import claims as court
from jaxheads.statistics.claims import Definition, Rules
from jaxheads.studies.claims import definitions
from jaxheads.studies.compare_runs.claims import DEFINITIONS as SIGNATURES
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.protocols import DEVIATIONS, MEANING
from jaxheads.studies.several_runs.agreement import CLAIMS as OF_SIZES

FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- Made by docs/generate.py: change the records, not this page. -->\n"


def pages() -> dict[str, str]:
    """Every page by its name in ``FOLDER``."""
    made = {"protocols": protocols(), "claims": claims(), "scores": scores()}
    return {f"{name}.md": f"{NOTE}\n{text}\n" for name, text in made.items()}


def protocols() -> str:
    """The protocols' numbers, and where the published code deviates from its text."""
    numbers, deviations = (
        _table([str(column.header) for column in made.columns], _rows(made))
        for made in lists.tables()
    )
    meant = "\n".join(f"- `{name}`: {said}." for name, said in MEANING.items())
    return f"""# Protocols

`--protocol NAME` begins with the numbers of a paper; every other option overrides them,
and the run states all of it. `jaxheads protocols` prints the same tables.

{meant}

## Numbers

{numbers}

A list of tasks that is too long stands as its length and its first name; all of it is
in `PROTOCOLS` of `jaxheads/studies/protocols.py`, a config a name.

## Where the code of Yin & Steinhardt 2025 does not do what its text says

The {len(DEVIATIONS)} known points, each with the option that switches it, by itself if
need be.

{deviations}"""


def claims() -> str:
    """Every claim with its rule, and how a verdict is given."""
    judged = (court.__doc__ or "").strip().replace("``", "`")
    families: dict[str, list[Definition]] = {}
    for one in definitions():
        families.setdefault(one.family, []).append(one)
    parts = [
        f"## On {family}\n\n" + "\n\n".join(map(_claim, some))
        for family, some in families.items()
    ]
    on_runs = "\n\n".join(parts)
    of_sizes, signatures = (
        "\n\n".join(map(_claim, some)) for some in (OF_SIZES, SIGNATURES)
    )
    rules = Rules()
    return f"""# Claims

What a run may be asked. The page of a run gives each claim that it measures a
verdict; `claims.json` beside it has the numbers. The rules were fixed before a run was
looked at.

{on_runs}

## On several runs

Asked by `jaxheads report` of runs of several sizes.

{of_sizes}

## On trainings that are compared

Asked by `jaxheads compare-runs` of every run against the first.

{signatures}

Olsson et al.'s six arguments have [a page of their own](../studies/evidence.md).

## How a claim is judged

{judged}

Level {rules.level:g}; smallest effect of interest {rules.smallest:g} of the clean
value, or {rules.smallest_layers:g} layers; share of heads replaced: the measured one
nearest to {rules.fraction:g}; top heads: {rules.top:g} of all, rounded up."""


def scores() -> str:
    """Every score with its definition, chance level, ceiling and source."""
    made = {score.name: (score, file) for score, file in _scores()}
    usual, asked = (
        "\n\n".join(_score(*made[name]) for name in names)
        for names in (USUAL_SCORES, EXTRA_SCORES)
    )
    return f"""# Scores

A score is a number for every head, [L, H], with its standard error. Chance is what a
head has that does nothing of the kind, the ceiling the most that one can have. Numbers
are those of the default options, without BOS (the token that begins a sequence, see
[Questions and traps](../faq.md)) but where a score needs it; a run states its own.

## Always computed

{usual}

## When asked for

`jaxheads score --scores.names NAME ...`

{asked}"""


def _claim(one: Definition) -> str:
    return (
        f"### {one.name}\n\n{one.statement}.\n\n{one.rule}\n\n"
        f"Needs: {one.needs}. Source: {one.source}."
    )


_OF_TEXTS = ("retrieval", "relation_index")
"""Files of scores whose chance level, and the rest of whose definition, depend on the
texts of a run."""


def _score(score: HeadScores, file: str) -> str:
    definition, chance = score.definition, f"{score.chance:.3g}"
    if file in _OF_TEXTS:
        definition, chance = definition.split(";")[0], "as the run's texts have it"
    ceiling = "none" if math.isinf(score.ceiling) else f"{score.ceiling:.3g}"
    return (
        f"### {score.name}\n\n{definition[0].upper()}{definition[1:]}.\n\n"
        f"Unit: {score.unit}. Chance: {chance}. Ceiling: {ceiling}. Source: "
        f"{score.source}. File: `jaxheads/scores/{file}.py`."
    )


def _scores() -> Iterable[tuple[HeadScores, str]]:
    """Every score and its file, of a model with one head that was never run."""
    shots, usual = StudyConfig().shots, ScoresConfig()
    length, bos, none = usual.sequence_length, False, np.zeros((1, 1, 2))
    product, tasks = np.ones((1, 1, 1, 1)), len(usual.tasks)
    one = np.ones(1, int)
    needles = retrieval.Needles(one[:, None], one, one, one[:, None], one)
    triplets = relation_index.Triplets(one[:, None], one, 0 * one, 0 * one)
    prompts = f"{shots}-shot prompts of {tasks} tasks"
    yield function_vector.head_scores(none[None], shots, tasks), "function_vector"
    for kind in induction.DEFINITIONS:
        yield induction.head_scores(none, length, bos, kind), "induction"
    text = "a text (by default Python's own manual)"
    made = previous_token.head_scores(none, usual.document_length, text)
    yield made, "previous_token"
    yield duplicate_token.head_scores(none, length, bos), "duplicate_token"
    yield value_weighted.head_scores(none, length, bos), "value_weighted"
    for definition in prefix_matching.DEFINITIONS.values():
        # The published code's edge needs BOS.
        made = prefix_matching.head_scores(none, definition, bos=definition.spurious)
        yield made, "prefix_matching"
    yield copying.head_scores(none, 25, bos), "copying"
    yield circuits.head_scores(product), "circuits"
    for kind in qk_trace.DEFINITIONS:
        yield qk_trace.head_scores(product, kind), "qk_trace"
    yield direct_logit.head_scores(none, prompts, False), "direct_logit"
    for kind in retrieval.VARIANTS:
        yield retrieval.head_scores(none, one, needles, kind), "retrieval"
    for name, read, what in (
        ("token_copying", "next", "2 to 5 shuffled tokens of text"),
        ("concept_copying", "after_next", "2 to 5 tokens, places and people"),
    ):
        made = copying_effect.head_scores(none, name, read, what)
        yield made, "copying_effect"
    for read in relation_index.READS:
        counts = none[..., :1]
        made = relation_index.head_scores(counts, counts, triplets, 1.0, read=read)
        yield made, "relation_index"


def _rows(made) -> list[list[str]]:
    """The cells of a table of the terminal, row by row."""
    cells = [column.cells for column in made.columns]
    return [list(row) for row in zip(*cells, strict=True)]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    text = text.replace("|", "\\|")
    return f"`{text}`" if text.startswith("--") and text.strip("-") else text


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
