"""What heads carry, on the page: charts hold the arrays, and say what is missing."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("altair")

from jaxheads.report import theme
from jaxheads.runs import Run
from jaxheads.studies.six_arguments import heads_figures as drawn
from jaxheads.studies.six_arguments.heads_page import sections
from jaxheads.studies.six_arguments.loss_components import largest_turn

RNG = np.random.default_rng(0)
SIZES = {"deep": (2, 2, 3), "flat": (3, 1, 4)}  # N, L, H
STEPS = np.array([0, 40, 90, 200])
EVALUATIONS = np.array([0, 10, 20, 40, 90, 150, 200])


def arrays_of(r: int, sizes: tuple[int, ...], ablations: bool) -> dict:
    n, layers, heads = sizes
    places = np.cumsum(RNG.normal(size=(len(EVALUATIONS), n, 2)), axis=0)
    turns = [largest_turn(EVALUATIONS, places[:, i]) for i in range(n)]
    found = {
        "components/step": EVALUATIONS,
        "components/coordinates": places,
        "components/pivot": np.array([step for step, _ in turns]),
        "components/angle": np.array([angle for _, angle in turns]),
    }
    if ablations:
        each = lambda: RNG.normal(size=(len(STEPS), n, layers, heads))
        ends = np.tile([15, 88, 200], (n, 1))
        ends[-1] = [-1, -1, 200]
        by_head = RNG.normal(size=(n, layers, heads))
        by_head[-1] = np.nan
        scores = RNG.normal(size=(4, n))
        scores[1:, -1] = np.nan
        found |= {
            "attribution/step": STEPS,
            "attribution/by_head": each(),
            "attribution/by_head_full": each(),
            "circuits/step": STEPS,
            "circuits/prefix_matching": RNG.random((len(STEPS), n, layers, heads)),
            "circuits/copying": each(),
            "circuits/qk_trace": each(),
            "before_and_after/step": ends,
            "before_and_after/by_head": by_head,
            "together/icl_score": scores,
        }
    return {f"run_{r}/{name}": values for name, values in found.items()}


def make_run(ablations: bool = True) -> Run:
    arrays = {"components/explained": np.array([0.62, 0.21])}
    told = []
    for r, (name, sizes) in enumerate(SIZES.items()):
        arrays |= arrays_of(r, sizes, ablations)
        told.append({"name": name, "seeds": list(range(5, 5 + sizes[0]))})
    return Run(Path("made"), {"evidence": {"runs": told}}, arrays)


@pytest.fixture(scope="module")
def run() -> Run:
    return make_run()


def figures_of(run, anchor):
    (section,) = [one for one in sections(run) if one.anchor == anchor]
    return [figure for row in section.rows for figure in row.figures]


def rows_of(figure) -> list:
    """The numbers behind a chart."""
    assert figure.data
    return list(figure.data)


def value_of(run, name, row, steps=None):
    """What the arrays have for a row of a chart's data."""
    r = list(SIZES).index(row["run"]) if "run" in row else name[0]
    name = name if "run" in row else name[1]
    layer, head = map(int, row["head"].split("."))
    values = run.arrays[f"run_{r}/{name}"]
    at = (int(row["seed"]) - 5, layer, head)
    if values.ndim == 4:
        step = -1 if steps is None else list(steps).index(row["training step"])
        at = (step, *at)
    return values[at]


def test_the_sections_are_there(run):
    assert [one.anchor for one in sections(run)] == [
        "attribution",
        "before-and-after",
        "components",
        "circuits",
    ]
    assert [one.anchor for one in sections(make_run(False))] == ["components"]
    assert sections(Run(Path("other"), {}, {})) == []


def test_attributions_are_the_arrays(run):
    figures = figures_of(run, "attribution")
    names = [figure.name for figure in figures]
    assert names == [
        "attribution-by_head-0",
        "attribution-by_head_full-0",
        "attribution-by_head-1",  # one layer: no later head could attend elsewhere
        "together",
    ]
    for figure in figures[:3]:
        kind, r = figure.name.removeprefix("attribution-").split("-")
        sizes = list(SIZES.values())[int(r)]
        assert len(rows_of(figure)) == len(STEPS) * np.prod(sizes)
        for row in rows_of(figure):
            expected = value_of(run, (int(r), f"attribution/{kind}"), row, STEPS)
            assert row["ICL score without minus with (nats)"] == pytest.approx(
                expected, rel=1e-4
            )
            score = value_of(run, (int(r), "circuits/prefix_matching"), row)
            assert row["prefix matching at the last step"] == pytest.approx(
                score, rel=1e-4
            )


def test_scores_without_all_induction_heads_are_of_seeds_that_have_some(run):
    rows = rows_of(figures_of(run, "attribution")[-1])
    seeds = {(row["run"], row["seed"]) for row in rows}
    assert seeds == {("deep", "5"), ("flat", "5"), ("flat", "6")}
    for row in rows:
        r = list(SIZES).index(row["run"])
        scores = run.arrays[f"run_{r}/together/icl_score"][:, int(row["seed"]) - 5]
        at = {
            "whole model": scores[0],
            "without induction heads": scores[1],
            "without as many others": scores[2:].mean(),
        }
        assert row["ICL score (nats)"] == pytest.approx(at[row["heads"]], rel=1e-4)


@pytest.mark.parametrize(
    ("anchor", "place", "name", "column", "first"),
    [
        ("before-and-after", 0, "before_and_after/by_head", "Effect along", 0),
        ("circuits", 0, "circuits/copying", "copying", 0),
        ("circuits", 1, "circuits/qk_trace", "QK trace", 1),
    ],
)
def test_dots_are_the_arrays(run, anchor, place, name, column, first):
    rows = rows_of(figures_of(run, anchor)[place])
    (title,) = [key for key in rows[0] if key.startswith(column)]
    for row in rows:
        assert row[title] == pytest.approx(value_of(run, name, row), rel=1e-4)
    seeds = (
        -1 if anchor == "before-and-after" else 0
    )  # the last one has no phase change
    layers = [(n + seeds, ls - first, h) for n, ls, h in SIZES.values()]
    assert len(rows) == sum(np.prod(each) for each in layers)


def test_paths_hold_every_snapshot_and_the_ends_of_the_phase_change(run):
    (figure,) = figures_of(run, "components")
    assert len(rows_of(figure)) == len(EVALUATIONS) * (2 + 3)
    for row in rows_of(figure):
        r, n = list(SIZES).index(row["run"]), int(row["seed"]) - 5
        e = list(EVALUATIONS).index(row["training step"])
        place = run.arrays[f"run_{r}/components/coordinates"][e, n]
        assert row["component 1 (nats)"] == pytest.approx(place[0], rel=1e-4)
        assert row["component 2 (nats)"] == pytest.approx(place[1], rel=1e-4)
    marked = [row for row in rows_of(figure) if row["phase change"]]
    assert {(row["training step"], row["phase change"]) for row in marked} == {
        (10, "begins"),
        (90, "ends"),
    }
    assert len(marked) == 2 * (1 + 2)  # the last seed of each run has none


def test_qk_traces_are_drawn_of_runs_with_earlier_heads(run):
    names = [figure.name for figure in figures_of(run, "circuits")]
    assert names == ["circuits-copying", "circuits-qk_trace", "circuits-qk_trace-0"]


def test_every_chart_can_be_drawn(run):
    convert = pytest.importorskip("vl_convert")
    for section in sections(run):
        for row in section.rows:
            for figure in row.figures:
                spec = theme.paint(figure.spec, theme.light_palette())
                look = theme.paint(theme.THEME, theme.light_palette())
                spec = spec | {"width": 400, "config": look}
                drawing = convert.vegalite_to_svg(spec)
                assert drawing.count("<path") > 3 and "@" not in drawing


def test_colours_of_many_runs_begin_anew():
    part = drawn.Part(len(drawn.SHADES), "x", [], {})
    assert part.shade == drawn.SHADES[0]
