"""What ablated sets have in common, what they leave, and how each task takes them.

All of it follows from the arrays of a run: nothing is measured again. Source: Yin &
Steinhardt 2025, appendix (overlap of the ablated sets, percentiles of the preserved
heads, per-task ablations).
"""

import dataclasses
import functools

import numpy as np

from jaxheads import statistics
from jaxheads.heads import run_scores
from jaxheads.report import theme, words
from jaxheads.report.figures import Figure
from jaxheads.report.layout import Key, Row, Section
from jaxheads.runs import Run
from jaxheads.studies.ablation import curves, outcomes
from jaxheads.studies.ablation.outcomes import Line, Outcome, Panel, Point

MODES = {"top": "without exclusion", "exclusion": "with exclusion"}
_COLUMNS = 4
_CELL_HEIGHT = 120


def sections(run: Run) -> list[Section]:
    """Make the sections on single tasks and on the ablated sets themselves."""
    made = [_by_task(run), _ablated(run)]
    return [section for section in made if section]


def _by_task(run: Run) -> Section | None:
    panels = task_panels(run)
    if not panels:
        return None
    how = "with exclusion" if "exclusion" in panels[0].name else "top heads replaced"
    drawn = curves.draw(panels, "", _CELL_HEIGHT)
    return Section(
        "few-shot-tasks",
        "Few-shot accuracy, task by task",
        f"{words.sentence(panels[0].quantity)}, {how}, on one scale; the random sets "
        "are those without exclusion. Bands: 95 % intervals over the task's "
        "queries; for several random draws, their range.",
        keys=_keys(panels, [Key(curves.CLEAN, "ink", "dots")]),
        rows=[Row("", drawn, columns=_COLUMNS)],
    )


def _ablated(run: Run) -> Section | None:
    shared, preserved = overlap_panel(run), preserved_panels(run)
    if shared is None:
        return None
    facts: list[Figure] = [*curves.draw([shared], ""), *curves.draw(preserved, "")]
    return Section(
        "ablated-heads",
        "What the ablated sets share, and what they leave",
        "Left: the share of one ranking's ablated heads that the other ranking ablates "
        "too, by the share of heads ablated. Then the place of the mean score of all "
        "heads that are left among all heads' scores: where ablating one kind of heads "
        "lowers the other kind's score too, the two ablations cannot be told apart. "
        "Random: exact for the overlap, else the range of the draws.",
        keys=_keys([shared, *preserved], []),
        rows=[Row("", facts, columns=3)],
    )


def task_panels(run: Run) -> list[Panel]:
    """Make a panel of few-shot accuracy for each task, with exclusion if measured."""
    measured = outcomes.accuracy(run)[:1]
    made = []
    for outcome in measured:
        for name in outcome.tasks:
            panels = outcomes.panels(outcome.of_task(name))
            made += [
                dataclasses.replace(panel, name=f"{name}-{panel.name}", title=name)
                for panel in panels[-1:]
            ]
    return made


def overlap_panel(run: Run) -> Panel | None:
    """Make the panel of how many heads the two rankings' ablated sets share, in %.

    |A and B| / |A|, of sets of one size, and what is expected of random sets, |A| / H.
    """
    outcome, pair = _pair(run)
    if outcome is None or len(pair) < 2:
        return None
    replaced = run.arrays["ablation/replaced"].astype(bool)
    total = replaced[0].size
    lines, chance = [], {}
    for mode, label in MODES.items():
        points = []
        for fraction in outcome.fractions(mode=mode):
            sets = [
                outcome.find(mode=mode, ranking=name, fraction=fraction)
                for name in pair
            ]
            if fraction == 0 or not all(sets):
                continue
            a, b = (replaced[found[0]] for found in sets)
            count = int(a.sum())
            points.append(_point(fraction, count, 100 * statistics.overlap(a, b)))
            chance[fraction] = _point(fraction, count, 100 * count / total)
        if points:
            lines.append(Line(f"overlap {label}", _SHADES[mode], False, "", points))
    if not lines:
        return None
    expected = [chance[fraction] for fraction in sorted(chance)]
    lines.append(Line("random sets, expected", "random", True, "", expected))
    names = " and ".join(words.short(name) for name in pair)
    return Panel(
        "overlap", f"Overlap of the {names} sets", "overlap (%)", None, lines,
        lead=False,
    )  # fmt: skip


_SHADES = {"top": "other-1", "exclusion": "other-2"}


def preserved_panels(run: Run) -> list[Panel]:
    """Make a panel a score of the percentile of the preserved heads' mean score.

    Percentile, in all heads' scores, of the mean score of those that are not ablated.
    """
    outcome, pair = _pair(run)
    known = [name for name in pair if name in run_scores.names(run)]
    if outcome is None or not known:
        return []
    mode = "exclusion" if outcome.find(mode="exclusion") else "top"
    return [_preserved(run, outcome, pair, name, mode) for name in known]


def _preserved(
    run: Run, outcome: Outcome, pair: list[str], score: str, mode: str
) -> Panel:
    values = run_scores.score(run, score)
    percentile = functools.partial(_percentile, run, values)
    lines = []
    for name in [*pair, "random"]:
        wanted = {"ranking": name, "mode": "uniform" if name == "random" else mode}
        points = []
        for fraction in outcome.fractions(**wanted):
            found = outcome.find(fraction=fraction, **wanted)
            if fraction == 0:
                continue
            left = [percentile(n) for n in found]
            count = int(outcome.replaced[found[0]])
            points.append(
                Point(fraction, count, float(np.mean(left)), min(left), max(left), 1)
            )
        several = len(outcome.find(**wanted)) > len(points)
        label = "random heads" if name == "random" else f"top {words.short(name)} heads"
        spread = "range of the draws" if several else ""
        if points:
            shade = theme.colour(name, pair)
            lines.append(Line(label, shade, False, spread, points))
    everything = np.ones_like(values, bool)
    whole = _point(0.0, 0, statistics.percentile_of(values, everything))
    return Panel(
        f"preserved-{score}",
        f"{words.sentence(words.short(score))} score of the heads left, {MODES[mode]}",
        "percentile of their mean score",
        whole,
        lines,
    )


def _percentile(run: Run, values: np.ndarray, n: int) -> float:
    left = ~run.arrays["ablation/replaced"][n].astype(bool)
    return statistics.percentile_of(values, left)


def _pair(run: Run) -> tuple[Outcome | None, list[str]]:
    """An accuracy, for its sets, and the two rankings that exclude each other."""
    measured = outcomes.accuracy(run)
    if not measured:
        return None, []
    return measured[0], measured[0].rankings(mode="top")[:2]


def _point(fraction: float, count: int, value: float) -> Point:
    return Point(fraction, count, value, value, value, 1)


def _keys(panels: list[Panel], first: list[Key]) -> list[Key]:
    keys = {key.label: key for key in first}
    for panel in panels:
        for line in panel.lines:
            mark = "dashes" if line.dashed else "line"
            keys.setdefault(line.label, Key(line.label, line.colour, mark))
    return list(keys.values())
