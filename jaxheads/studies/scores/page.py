"""The sections about the scores of heads, and about what ranks first."""

import math
from collections.abc import Sequence

import numpy as np

from jaxheads.heads import run_scores
from jaxheads.report import words
from jaxheads.report.layout import Key, Row, Section, Topic
from jaxheads.runs import Run
from jaxheads.statistics.claims import Claim
from jaxheads.studies.ablation import findings
from jaxheads.studies.ablation.findings import Findings
from jaxheads.studies.scores import (
    figures as scores_figures,
    tables as scores_tables,
    top_figures,
)


def topic(run: Run, found: Findings, judged: Sequence[Claim]) -> Topic:
    """What the page tells of scores, and of the heads that lead."""
    del judged
    return Topic(
        sections=[scores(run)],
        last=[
            places(run),
            strength(run),
            agreement(run, found),
            sizes(run, found),
            leading(run),
        ],
        tables=[scores_tables.definitions(run)],
    )


def scores(run: Run) -> Section | None:
    """Draw every score of every head."""
    maps = scores_figures.heat_maps(run)
    if not maps:
        return None
    values = run_scores.score(run, run_scores.names(run)[0])
    return Section(
        "scores",
        "Every head's scores",
        "One cell a head: layers run to the right, heads down. Outlined: the top 2 % "
        f"({words.plural(run_scores.top_count(values.size), 'head')}). Where a score "
        "can be negative its colour follows the square root: small effects show. "
        "Point at a cell for its name, value ± standard error, and rank.",
        rows=[Row("", maps)],
        facts=[
            f"{words.title(name)}: from {words.number(low)} to {words.number(high)}, "
            "which is within two standard errors: it ranks no head above another, and "
            "its top sets are as good as any."
            for name in run_scores.names(run)
            for low, high in _constant(run, name)
        ],
    )


def places(run: Run) -> Section | None:
    """Draw where the top heads sit."""
    names = _ranked(run)
    if not names:
        return None
    return Section(
        "layers",
        "Where the top heads sit",
        "The top 2 % of heads by each score (at least 3, at most 10), by layer; the "
        "first three are named.",
        keys=top_figures.keys(names, "top"),
        rows=[Row("", [top_figures.depth(run, names)])],
    )


def strength(run: Run) -> Section | None:
    """Draw how strong the top heads are."""
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
            *top_figures.keys(_ranked(run), "top 2 % by"),
        ],
        rows=[Row("", [top_figures.strength(run, name) for name in names])],
    )


def agreement(run: Run, found: Findings) -> Section | None:
    """Say whether two rankings lead with the same heads."""
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
        rows=[Row("", [scores_figures.scatter(run, "induction", "function_vector")])],
        facts=facts,
    )


def sizes(run: Run, found: Findings) -> Section | None:
    """Draw how far top sets agree, by their size."""
    if found.agreement is None:
        return None
    fv, induction = map(words.short, findings.PAIR)
    return Section(
        "top-sets",
        "How far the top sets agree, by their size",
        "Left: the share of one top set that is in the other. Then the place of the "
        "mean score of one top set's heads among all heads' scores by the other "
        "ranking. Random sets: mean and 95 % range, exact for the overlap, over "
        f"{top_figures.DRAWS:,} draws for the percentiles.",
        keys=[
            Key(top_figures.SHARED, "other-2"),
            Key(top_figures.UNDER.format(fv, induction), "fv"),
            Key(top_figures.UNDER.format(induction, fv), "induction"),
            Key(top_figures.RANDOM, "random", "dashes"),
        ],
        rows=[Row("", top_figures.agreement(run, findings.PAIR), columns=3)],
    )


def leading(run: Run) -> Section | None:
    """List the top heads."""
    names = _ranked(run) or run_scores.names(run)[:1]
    if not names:
        return None
    return Section(
        "heads",
        "The top heads",
        "A head is written layer.head, both counted from 0. Each score stands with its "
        "standard error over queries or sequences, and the head's rank by it.",
        tables=[scores_tables.top_heads(run, name) for name in names],
    )


def _ranked(run: Run) -> list[str]:
    return [name for name in findings.PAIR if name in run_scores.names(run)]


def _constant(run: Run, name: str) -> list[tuple[float, float]]:
    """The least and the largest score, where these two are the same up to noise."""
    values, errors = run_scores.score(run, name), run_scores.errors(run, name)
    ends = [int(values.argmin()), int(values.argmax())]
    low, high = values.ravel()[ends].tolist()
    noise = math.hypot(*np.nan_to_num(errors.ravel()[ends]))
    return [(low, high)] if high - low <= 2 * noise else []
