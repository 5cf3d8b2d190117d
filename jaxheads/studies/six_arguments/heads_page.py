"""What heads carry, and where losses move: the part of the page that ran the models."""

import numpy as np

from jaxheads.report import words
from jaxheads.report.figures import Figure
from jaxheads.report.layout import Key, Row, Section
from jaxheads.report.tables import Table
from jaxheads.runs import Run
from jaxheads.studies.six_arguments import heads_figures as drawn
from jaxheads.studies.six_arguments.ablation_and_mechanism import INDUCTION
from jaxheads.studies.six_arguments.figures import trajectories
from jaxheads.studies.six_arguments.heads_figures import Part


def sections(run: Run) -> list[Section]:
    """Make the sections, if the run is of ``jaxheads evidence``."""
    if "evidence" not in run.result:
        return []
    given = drawn.parts(run)
    ran = [part for part in given if "attribution/by_head" in part.arrays]
    made = [_components(run, given)]
    if ran:
        made = [_attribution(ran), _before_and_after(ran), *made, _circuits(ran)]
    return [section for section in made if section.rows]


def _rows(figures: list[Figure | None], columns: int = 2, title: str = "") -> list[Row]:
    """A row of the figures that there are; none without any."""
    there = [figure for figure in figures if figure is not None]
    return [Row(title, there, columns=columns)] if there else []


def _run_keys(given: list[Part]) -> list[Key]:
    return [Key(part.name, part.shade, "circle") for part in given]


def _head_keys() -> list[Key]:
    return [
        Key("prefix matching 1 at the last step", "induction", "line"),
        Key(f"just above {INDUCTION:g}", "other-1", "line"),
        Key("heads below", "random", "line"),
    ]


def _attribution(given: list[Part]) -> Section:
    rows = [
        row
        for part in given
        for row in _rows([drawn.attribution(part), drawn.attribution(part, full=True)])
    ]
    rows += _rows([drawn.together(given)])
    keys = _head_keys()
    if any("together/icl_score" in part.arrays for part in given):
        keys += _run_keys(given)
    text = (
        "Each head of each seed is removed alone, on held-out windows: a positive "
        "value means that the model learns less in context without it. With the "
        "patterns kept, only what flows through values is lost; otherwise later heads "
        "may look elsewhere. Heads that do the same work stand in for each other, so "
        "that values of single heads need not add up to the score."
    )
    return Section(
        "attribution",
        "What single heads carry of in-context learning",
        text,
        keys=keys,
        rows=rows,
    )


def _before_and_after(given: list[Part]) -> Section:
    dated = [part for part in given if _dated(part).any()]
    seeds = sum(int(_dated(part).sum()) for part in given)
    text = (
        "The change of the losses of single tokens over the phase change is a "
        "direction; drawn is how far removing each head moves the last model's losses "
        "along it. "
        "Negative: back towards the state before. Drawn of "
        f"{words.plural(seeds, 'seed')} with a phase change."
    )
    return Section(
        "before-and-after",
        "Which heads undo the phase change",
        text,
        keys=_run_keys(dated),
        rows=_rows([drawn.before_and_after(dated)], 1),
    )


def _dated(part: Part) -> np.ndarray:
    """Seeds whose change over a phase change was measured, bool [N]."""
    values = part.arrays["before_and_after/by_head"]
    return np.asarray(np.isfinite(values).any(axis=(1, 2)))


def _components(run: Run, given: list[Part]) -> Section:
    given = [part for part in given if "components/coordinates" in part.arrays]
    text = (
        "Losses of one token of each held-out window are a point for every snapshot; "
        "drawn are the two directions in which the points of all runs vary most. The "
        "pivot is the snapshot at which a path turns most."
    )
    keys = _run_keys(given)
    marked = any("before_and_after/step" in part.arrays for part in given)
    if marked:
        keys += [Key("phase change begins", "muted", "diamond")]
        keys += [Key("it ends", "muted", "cross")]
    explained = run.arrays.get("components/explained")
    rows, tables = [], []
    if given and explained is not None:
        rows = _rows([trajectories(given, explained)], 1)
        tables = [_pivots(given)]
    return Section(
        "components",
        "Where the losses of single tokens move",
        text,
        keys=keys,
        rows=rows,
        tables=tables,
    )


def _pivots(given: list[Part]) -> Table:
    rows = []
    for part in given:
        ends = part.arrays.get("before_and_after/step")
        for n, seed in enumerate(part.seeds):
            window = words.NONE
            if ends is not None and min(ends[n, :2]) >= 0:
                window = f"{ends[n, 0]:,.0f} to {ends[n, 1]:,.0f}"
            step, angle = (
                part.arrays[f"components/{x}"][n] for x in ("pivot", "angle")
            )
            turned = np.isfinite(step)
            rows.append(
                [
                    part.name,
                    str(seed),
                    f"{step:,.0f}" if turned else words.NONE,
                    f"{angle:.0f}°" if turned else words.NONE,
                    window,
                ]
            )
    columns = ["run", "seed", "pivot at step", "turns by", "phase change of the heads"]
    return Table("Pivots", columns, rows, 2)


def _circuits(given: list[Part]) -> Section:
    text = (
        "Of every head at the last step. Copying: does what the head writes raise the "
        "token that it attends to? QK trace: read off the weights, do its queries look "
        "for keys that hold, through earlier heads that attend to the previous token, "
        "the current token? 1: every direction is matched to itself; 0 is chance. The "
        "first layer has no earlier heads and is left out of it."
    )
    figures = [drawn.copying_by_prefix(given), drawn.trace_by_prefix(given)]
    rows = _rows(figures)
    over = [drawn.qk_trace(part) for part in given]
    keys = _run_keys(given)
    if any(over):
        rows += _rows(over, 2, "QK traces over training")
        keys += _head_keys()
    return Section("circuits", "How the heads are built", text, keys=keys, rows=rows)
