"""Olsson et al.'s six arguments on the page: dates, variants, positions and sizes."""

from collections.abc import Sequence
from typing import Any

from jaxheads.report import words
from jaxheads.report.layout import Key, Row, Section, Topic
from jaxheads.report.tables import Cell, Table
from jaxheads.runs import Run
from jaxheads.statistics import phase_change
from jaxheads.statistics.claims import Claim
from jaxheads.studies.ablation.findings import Findings
from jaxheads.studies.six_arguments import (
    answers,
    curves,
    figures as drawn,
    heads_figures,
    heads_page,
)
from jaxheads.studies.six_arguments.answers import told
from jaxheads.studies.six_arguments.heads_figures import Part


def topic(run: Run, found: Findings, judged: Sequence[Claim]) -> Topic:
    """What the page tells of the six arguments."""
    del found, judged
    return Topic(
        sections(run), answers.verdict(run), answers.say(run), folded=answers.rules(run)
    )


def sections(run: Run) -> list[Section]:
    """Make the sections, if the run is of ``jaxheads evidence``."""
    if "evidence" not in run.result:
        return []
    given = heads_figures.parts(run)
    several = [_co_perturbation(run, given), _continuity(run, given)]
    return [
        answers.section(run),
        _co_occurrence(run, given),
        *(several[:1] if len(given) > 1 else []),
        *heads_page.sections(run),
        *(several[1:] if len(given) > 1 else []),
        _positions(given),
    ]


def _co_occurrence(run: Run, given: list[Part]) -> Section:
    found = told(run)["co_occurrence"]
    keys = [Key("one seed", "induction", "line"), Key("mean of the seeds", "ink")]
    keys.append(Key("windows of the heads", "muted", "line"))
    least = {
        name: words.number(value) for name, value in phase_change.LEAST_CHANGES.items()
    }
    text = (
        "Shaded: from 10 to 90 % of the rise of the top head's prefix matching, in "
        "each seed that has one. A rise of prefix matching is found from "
        f"{least['prefix_matching']} on, a fall of the in-context learning score "
        f"(late minus early loss) from {least['icl_score']} nats on, and a bump where "
        "the fall of the training loss, by the logarithm of the step, speeds up and "
        f"slows down again by {words.number(curves.LEAST)} or more. The loss is "
        "that of all targets, in blocks that lie evenly in the logarithm."
    )
    dates = [
        row for part in given for row in _dates(part, found[part.index]["changes"])
    ]
    columns = ["run", "of", "found in", "mean step", "each seed's step"]
    shares = [_formed(part, found[part.index]) for part in given]
    return Section(
        "co-occurrence",
        "When heads form, and when in-context learning does",
        text,
        keys=keys,
        rows=[
            Row(part.name if len(given) > 1 else "", drawn.of_run(run, part), columns=3)
            for part in given
        ],
        tables=[
            Table("Phase changes", columns, dates, 2, stacked=True),
            Table(
                "How far they fall together",
                [
                    "run",
                    "windows of heads and score overlap",
                    "of heads and bump",
                    "share of the last score formed in the window",
                ],
                shares,
                1,
            ),
        ],
    )


def _dates(part: Part, changes: dict[str, Any]) -> list[list[Cell]]:
    rows = []
    for name in drawn.DATED:
        made = changes[name]
        each = [
            words.NONE if one["step"] is None else f"{one['step']:,.0f}"
            for one in made["each"]
        ]
        reasons = sorted({one["reason"] for one in made["each"] if one["reason"]})
        rows.append(
            [
                part.name,
                Cell(words.curve(name), "; ".join(reasons)),
                f"{made['found']} of {len(made['each'])}",
                _date(made["step"], made["low"], made["high"]),
                ", ".join(each),
            ]
        )
    return rows


def _date(step: float | None, low: float | None, high: float | None) -> str:
    if step is None:
        return words.NONE
    if low is None or high is None:
        return f"{step:,.0f}"
    return f"{step:,.0f} [{low:,.0f}, {high:,.0f}]"


def _formed(part: Part, found: dict[str, Any]) -> list[str]:
    return [
        part.name,
        f"{found['overlap']['icl_score']} of {found['heads']}",
        f"{found['overlap']['loss_bump']} of {found['heads']}",
        answers.mean(found["formed_mean"]),
    ]


def _co_perturbation(run: Run, given: list[Part]) -> Section:
    rows = [
        [
            Cell(
                given[pair["run"]].name, f"{pair['variant']}, layers: {pair['layers']}"
            ),
            given[pair["vanilla"]].name,
            *(
                cell
                for name in phase_change.LEAST_CHANGES
                for cell in (
                    " / ".join(f"{k} of {n}" for k, n in pair["formed"][name]),
                    _difference(pair["earlier"][name]),
                )
            ),
            ", ".join(pair["also_differs"]) or words.NONE,
        ]
        for pair in told(run)["co_perturbation"]
    ]
    columns = ["run", "against", "heads form in", "steps later", "score changes in"]
    columns += ["steps later", "also differs in"]
    table = Table("Variants against vanilla attention", columns, rows, 2, stacked=True)
    return Section(
        "co-perturbation",
        "Architectures that make induction easier or harder",
        "Smeared keys, and shifted keys and values, show a head the token before "
        "without a layer of its own; a single vanilla layer cannot. Differences are of "
        "mean dates, with intervals of 95 % over the seeds of both runs (Welch); a "
        "negative one is earlier.",
        keys=[Key(part.name, part.shade, "line") for part in given],
        rows=[Row("", drawn.together(given))],
        tables=[table] if rows else [],
    )


def _difference(made: dict[str, Any] | None) -> str:
    if made is None:
        return words.NONE
    return _date(made["steps"], made["low"], made["high"]).replace("-", words.MINUS)


def _continuity(run: Run, given: list[Part]) -> Section:
    found, rows = told(run)["continuity"], []
    for part in given:
        row, about = found[part.index], told(run)["runs"][part.index]
        date = words.NONE
        if row["tokens"] is not None:
            date = words.magnitude(row["tokens"])
            if row["low"] is not None:
                ends = (words.magnitude(row[end]) for end in ("low", "high"))
                date += f" [{', '.join(ends)}]"
        rows.append(
            [
                part.name,
                f"{about['layers']} layers, width {about['width']}",
                words.parameters(about["num_params"]),
                answers.mean(row["icl_score"]),
                answers.mean(row["top_prefix"]),
                date,
            ]
        )
    columns = ["run", "size", "parameters", "score at the end (nats)"]
    columns += ["top prefix matching at the end", "date of the heads (tokens)"]
    tables = [Table("The same figures over runs", columns, rows, 2)]
    slopes = told(run)["slopes"]
    facts = []
    if slopes is not None:
        tables.append(_slopes(given, slopes))
        if slopes["rank_correlation"] is not None:
            facts.append(
                "Rank correlation of the slopes before and after the window, over "
                f"runs: {words.number(slopes['rank_correlation'])}."
            )
    text = (
        "Whether what is seen in the smallest models is seen in larger ones; runs may "
        "differ in more than their size."
    )
    return Section(
        "continuity",
        "Over sizes and architectures",
        " ".join([text, *facts]),
        keys=[Key(part.name, part.shade, "circle") for part in given],
        rows=[Row("", drawn.sizes(run, given), columns=3)],
        tables=tables,
    )


def _slopes(given: list[Part], slopes: dict[str, Any]) -> Table:
    rows = [
        [
            part.name,
            " to ".join(f"{at:,.0f}" for at in slopes["window"][part.index]),
            *(words.number(slopes[when][part.index]) for when in ("before", "after")),
        ]
        for part in given
    ]
    columns = ["run", "window (steps)", "before the window", "after it"]
    caption = "Fall of the training loss (nats per unit of ln(tokens))"
    return Table(caption, columns, rows, 1)


def _positions(given: list[Part]) -> Section:
    return Section(
        "positions",
        "Loss by position in the context",
        "Means over seeds and held-out windows, in bins of positions. Where the "
        "derivative is below zero a model gains by more context; induction heads make "
        "it so at positions that it was level at before.",
        rows=[
            Row(part.name if len(given) > 1 else "", drawn.heat_maps(part))
            for part in given
        ],
    )
