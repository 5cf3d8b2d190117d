"""The pages of docs/reference that are made of records: protocols, claims, scores.

    python docs/generate.py

Written anew where a record changes; ``tests/test_docs.py`` says when that is due. The
pages are checked in, so that they can be read without the site.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxheads.cli import lists
from jaxheads.scores import registry
from jaxheads.scores.config import ScoresConfig
from jaxheads.scores.registry import EXTRA_SCORES, USUAL_SCORES
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
    usual, asked = (
        "\n\n".join(map(_score, names)) for names in (USUAL_SCORES, EXTRA_SCORES)
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


def _score(name: str) -> str:
    file = registry.load(name)
    told = file.described(ScoresConfig(), StudyConfig().shots)
    (score,) = (score for score in told if score.name == name)
    definition, chance = score.definition, f"{score.chance:.3g}"
    if math.isnan(score.chance):  # and so does the rest of the definition
        definition, chance = definition.split(";")[0], "as the run's texts have it"
    ceiling = "none" if math.isinf(score.ceiling) else f"{score.ceiling:.3g}"
    return (
        f"### {score.name}\n\n{definition[0].upper()}{definition[1:]}.\n\n"
        f"Unit: {score.unit}. Chance: {chance}. Ceiling: {ceiling}. Source: "
        f"{score.source}. File: `{file.__name__.replace('.', '/')}.py`."
    )


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
