"""The sections with figures of the page over several runs."""

import dataclasses

from jaxheads.heads import run_scores
from jaxheads.report import theme, words
from jaxheads.report.figures import Figure
from jaxheads.report.layout import Key, Row, Section
from jaxheads.scores.config import PAIR
from jaxheads.studies.ablation import curves as lines_of, outcomes
from jaxheads.studies.ablation.findings import HEADLINE_SHARE
from jaxheads.studies.scores import top_figures
from jaxheads.studies.several_runs import figures as drawn
from jaxheads.studies.several_runs.chart import Axis
from jaxheads.studies.several_runs.members import Member, common_fraction

_MODES = ("top", "exclusion")
_ALONG = {"size": "by model size", "step": "during training", "model": "in each model"}


def _keys(figures: list[Figure], known: list[Key]) -> list[Key]:
    """Keep the entries whose labels are in the figures' numbers."""
    said = {
        value for one in figures for row in one.data or [] for value in row.values()
    }
    return [key for key in known if key.label in said]


def _named(listed: list[Member], name: str) -> list[Key]:
    """Entries for the rankings by which the runs replaced heads."""
    rankings: dict[str, None] = {}
    for member in listed:
        if name in member.measured:
            outcome = member.measured[name]
            rankings |= dict.fromkeys(
                one for mode in _MODES for one in outcome.rankings(mode=mode)
            )
    names = list(rankings)
    return [
        Key(f"top {words.short(one)} heads", theme.colour(one, names)) for one in names
    ] + [Key("random heads", "random")]


def drops(listed: list[Member], along: Axis) -> Section | None:
    """Say what the models do, and what replacing a share of heads takes away."""
    rows, said = [], []
    for name, title in (("accuracy", "Few-shot"), ("token_loss", "Running text")):
        clean = drawn.clean(listed, along, name)
        figures = [clean] if clean else []
        for mode in _MODES:
            fraction = common_fraction(listed, name, mode)
            if fraction is None:
                continue
            figure = drawn.drops(listed, along, name, mode, fraction)
            if figure:
                figures.append(figure)
                said.append((name, words.percent(fraction)))
        if figures:
            share = dict(said).get(name)
            tail = f": {share} of heads replaced" if share else ""
            rows.append(Row(f"{title}{tail}", figures, columns=3))
    if not rows:
        return None
    near = words.percent(HEADLINE_SHARE)
    keys = [Key(lines_of.CLEAN, "ink"), *_named(listed, "accuracy")]
    keys += [key for key in _named(listed, "token_loss") if key not in keys]
    return Section(
        "drops",
        f"What replacing heads costs {_ALONG[along.kind]}",
        "Left: the value with no head replaced. Then how much lower it is with heads "
        f"replaced (below 0: it rises), at the share nearest to {near} that all runs "
        "measured. Bars: 95 % intervals over queries or documents; for random heads "
        "the range of the draws, for several runs of one model the range of the runs.",
        keys=_keys([figure for row in rows for figure in row.figures], keys),
        rows=rows,
    )


def curves(listed: list[Member]) -> Section | None:
    """Draw the ablation curves of every run, a row a quantity."""
    rows = []
    for name, mode, title in (
        ("accuracy", "top", "Few-shot"),
        ("accuracy", "exclusion", "Few-shot, with exclusion"),
        ("token_loss", "exclusion", "Running text, with exclusion"),
    ):
        panels, unit = [], ""
        for member in listed:
            outcome = member.measured.get(name)
            if outcome is None:
                continue
            unit, wanted = outcome.unit, drawn.replacement(outcome, mode)
            for panel in outcomes.panels(outcome, **wanted):
                if panel.name.endswith(f"-{mode}"):
                    lines = [line for line in panel.lines if not line.dashed]
                    own = f"{name}-{mode}-{member.label}"
                    panels.append(
                        dataclasses.replace(
                            panel, name=own, title=member.label, lines=lines
                        )
                    )
        if panels:
            rows.append(Row(title, lines_of.draw(panels, unit), columns=3))
    if not rows:
        return None
    keys = [Key(lines_of.CLEAN, "ink", "dots"), *_named(listed, "accuracy")]
    keys += [key for key in _named(listed, "token_loss") if key not in keys]
    return Section(
        "curves",
        "While heads are replaced, run by run",
        "The charts of a row have one scale. Bands: 95 % intervals over queries or "
        "documents, for random heads the range of the draws. Exclusion leaves the "
        "heads at the top of the other ranking alone.",
        keys=_keys([figure for row in rows for figure in row.figures], keys),
        rows=rows,
    )


def agreement(listed: list[Member], along: Axis) -> Section | None:
    """Say how far the two rankings pick the same heads."""
    figures = drawn.agreement(listed, along, HEADLINE_SHARE)
    if not figures:
        return None
    fv, induction = map(words.short, PAIR)
    return Section(
        "overlap",
        f"Are they the same heads {_ALONG[along.kind]}?",
        f"Left: the shared part of the top {words.percent(HEADLINE_SHARE)} sets. Then "
        "the place of the mean score of one ranking's top 2 % among all heads' scores "
        "by the other. Random sets: mean and 95 % range.",
        keys=[
            Key(top_figures.SHARED, "other-2"),
            Key(top_figures.UNDER.format(fv, induction), "fv"),
            Key(top_figures.UNDER.format(induction, fv), "induction"),
            Key(top_figures.RANDOM, "random", "dashes"),
        ],
        rows=[Row("", figures, columns=3)],
    )


def strength(listed: list[Member], along: Axis) -> Section | None:
    """Say how strong the top heads are."""
    figures = drawn.strength(listed, along)
    if not figures:
        return None
    return Section(
        "strength",
        f"How strong the heads are {_ALONG[along.kind]}",
        "The largest score, the mean of the top 2 % of heads, and the mean over all.",
        keys=[
            Key(drawn.LARGEST, "ink"),
            Key(drawn.TOP, "other-1"),
            Key(drawn.MEAN, "random"),
        ],
        rows=[Row("", figures)],
    )


def depth(listed: list[Member]) -> Section | None:
    """Draw every run's top heads by layer."""
    figures = []
    names: list[str] = []
    for member in listed:
        own = [name for name in PAIR if name in run_scores.names(member.run)]
        names += [name for name in own if name not in names]
        if own:
            made = top_figures.depth(member.run, own, named=1)
            figures.append(
                dataclasses.replace(made, title=member.label, name=member.label)
            )
    if not figures:
        return None
    return Section(
        "layers",
        "Where the top heads sit",
        "The top 2 % of heads by each score (at least 3, at most 10), by layer. "
        "Dashed: their score-weighted mean layer.",
        keys=top_figures.keys(names, "top"),
        rows=[Row("", figures, columns=3)],
    )


def execution(listed: list[Member], along: Axis) -> Section | None:
    """Say what function vectors carry out, where runs have measured it."""
    figures = drawn.execution(listed, along)
    if not figures:
        return None
    return Section(
        "execution",
        f"What function vectors carry out {_ALONG[along.kind]}",
        "First-token accuracy on the queries that the model answers right with clean "
        "demonstrations, a task's mean counting once, with a vector added to prompts "
        "that do not show the task. For random heads: mean and range of the sets.",
        keys=[Key(series.label, series.colour) for series in drawn.EXECUTION],
        rows=[Row("", figures)],
    )
