"""The report's figures of single tasks, ablated sets, exclusions and heads kept."""

import dataclasses

import numpy as np
import pytest
from synthetic_run import Sizes, make_run

from jaxheads import statistics
from jaxheads.report import words
from jaxheads.runs import Run
from jaxheads.studies import claims
from jaxheads.studies.ablation import findings, first_tokens, outcomes

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

from rich.console import Console

from jaxheads.cli.tables import print_run
from jaxheads.report.layout import Section
from jaxheads.studies import page as sections
from jaxheads.studies.ablation import curves, figures

FRACTIONS = (0.02, 0.1, 0.2)
SIZES = Sizes(
    layers=7,
    heads=9,
    fractions=FRACTIONS,
    exclusions=(0.0, 0.1),
    keep_only=(0.05, 0.1, 0.3),
    zero_shot=True,
)


@pytest.fixture(scope="module")
def run() -> Run:
    return make_run(sizes=SIZES)


@pytest.fixture(scope="module")
def made(run: Run) -> dict[str, Section]:
    return {section.anchor: section for section in sections.collect(run).sections}


def replaced(run: Run, **wanted) -> set[int]:
    """Heads, by flat index, of the first set with these entries."""
    sets = run.result["ablation"]["sets"]
    for entry, heads in zip(sets, run.arrays["ablation/replaced"], strict=True):
        if all(entry.get(key) == value for key, value in wanted.items()):
            return set(np.flatnonzero(heads).tolist())
    raise AssertionError(wanted)


def with_collisions(run: Run, **shares: float) -> Run:
    """The run as if so many pairs of a task's answers began with the same token."""
    info = run.result["task_info"]
    told = {task: info[task] | {"collisions": share} for task, share in shares.items()}
    return dataclasses.replace(run, result=run.result | {"task_info": info | told})


def test_tasks_whose_first_token_tells_nothing_are_named_and_left_out(run: Run, made):
    assert "same first token" not in made["few-shot"].text + made["tasks"].text
    names = run.result["evaluation_tasks"]
    mute, crowded, *others = names
    told = with_collisions(run, **{mute: 1.0, crowded: 0.21, others[0]: 0.19})
    first, f1 = outcomes.accuracy(told)
    values = run.arrays["ablation/first_token"]
    np.testing.assert_array_equal(first.values, values[:, 1:])
    assert first.tasks == (crowded, *others) and f1.tasks == tuple(names)
    np.testing.assert_array_equal(f1.values, run.arrays["ablation/f1"])
    assert first.interval(0).mean == pytest.approx(values[0, 1:].mean())
    np.testing.assert_array_equal(
        outcomes.zero_shot(told)[0].values,
        run.arrays["ablation/zero_shot/first_token"][:, 1:],
    )
    assert [one.title for one in figures.task_panels(told)] == names[1:]
    page = {section.anchor: section for section in sections.collect(told).sections}
    said = f"all answers of {mute} have the same first token"
    assert said in page["few-shot"].text and said in page["tasks"].text
    assert f"same one: {crowded} (21 %)." in page["tasks"].text
    (left, *kept) = page["tasks"].tables[0].rows
    assert left[0].text == mute and {cell.text for cell in left[3:]} == {words.NONE}
    assert all(cell.small.startswith("F1 ") for cell in left[3:])
    assert kept[0][3].text == f"{values[0, 1].mean():.2f}"
    console = Console(record=True, markup=False, width=200)
    print_run(told, console)
    text = console.export_text()
    assert f"{values[0, 1:].mean():.2f} [" in text and said in text


def test_where_no_first_token_tells_anything_f1_is_the_accuracy(run: Run):
    told = with_collisions(run, **dict.fromkeys(run.result["evaluation_tasks"], 1.0))
    (only,) = outcomes.accuracy(told)
    assert only.name == "f1"
    (claim,) = [c for c in claims.of_run(told) if c.name == "fv_matters_more"]
    assert only.quantity in claim.evidence
    page = {section.anchor: section for section in sections.collect(told).sections}
    assert "score is a mean over them" not in page["tasks"].text
    print_run(told, Console(record=True, markup=False, width=200))
    scoring = with_collisions(run, **{run.result["scoring_tasks"][0]: 1.0})
    assert "score is a mean over them too" in first_tokens.say(scoring)


def test_shared_tokens_are_named(run: Run):
    info = run.result["task_info"]
    name, *_ = run.result["evaluation_tasks"]
    own = info[name] | {"shared": " ", "shared_tokens": [216], "collisions": 0.0}
    result = run.result | {"task_info": info | {name: own}}
    said = first_tokens.say(dataclasses.replace(run, result=result))
    assert said.startswith(f"All answers of {name} begin with ' ' in this tokenizer")
    with pytest.raises(ValueError, match="2 names of tasks must go with as many"):
        first_tokens.of_telling(run, np.zeros((3, 4)), ["a", "b"], 0)


def test_further_exclusions_stay_out_of_what_is_said_of_the_first(run: Run):
    """Every number at the head of the page is that of a run without them."""
    plain = make_run(sizes=dataclasses.replace(SIZES, exclusions=()))
    sets, only = (each.result["ablation"]["sets"] for each in (run, plain))
    at = [n for n, entry in enumerate(sets) if entry["mode"] != "exclusion_other"]
    assert [sets[n] for n in at] == only
    arrays = dict(run.arrays)
    for name in ("replaced", "first_token", "f1"):
        arrays[f"ablation/{name}"] = arrays[f"ablation/{name}"][at]
    result = dict(run.result, ablation=run.result["ablation"] | {"sets": only})
    without = dataclasses.replace(run, arrays=arrays, result=result)
    assert findings.find(run) == findings.find(without)
    panels = [outcomes.panels(outcomes.accuracy(each)[0]) for each in (run, without)]
    assert panels[0] == panels[1]


def test_accuracy_is_drawn_against_the_share_that_exclusion_drops(run: Run):
    outcome = outcomes.accuracy(run)[0]
    panel = outcomes.sensitivity_panel(outcome, 0.1)
    assert panel is not None and panel.clean is not None
    fv, induction, random = panel.lines
    for name, line in (("function_vector", fv), ("induction", induction)):
        assert [point.fraction for point in line.points] == [0.0, 0.02, 0.1]
        for point in line.points:
            mode = "exclusion" if point.fraction == 0.02 else "exclusion_other"
            (n,) = outcome.find(
                mode=mode, ranking=name, fraction=0.1, exclusion=point.fraction
            )
            assert point.value == pytest.approx(outcome.values[n].mean())
    draws = outcome.find(mode="uniform", fraction=0.1)
    assert [point.value for point in random.points] == [
        pytest.approx(outcome.values[draws].mean())
    ] * 3
    top = outcome.find(mode="top", ranking="induction", fraction=0.1)[0]
    assert induction.points[0].value == pytest.approx(outcome.values[top].mean())
    plain = make_run(sizes=dataclasses.replace(SIZES, exclusions=()))
    assert outcomes.sensitivity_panel(outcomes.accuracy(plain)[0], 0.1) is None


def test_heads_kept_are_a_curve_from_three_shares_on(run: Run):
    outcome = outcomes.accuracy(run)[0]
    panel = outcomes.kept_panel(outcome)
    assert panel is not None and panel.axis == "heads kept (%)"
    fv, _, random = panel.lines
    assert [line.label for line in panel.lines] == [
        "top FV heads", "top induction heads", "random heads",
    ]  # fmt: skip
    assert random.spread == "range of 3 draws" and random.points[0].draws == 3
    for point in fv.points:
        (n,) = outcome.find(
            mode="keep_only", ranking="function_vector", fraction=point.fraction
        )
        assert point.value == pytest.approx(outcome.values[n].mean())
        assert point.replaced == 63 - max(1, int(point.fraction * 63))
    drawn = curves.kept(outcome)
    assert drawn is not None
    xs = [row["x"] for row in rows_of(drawn.spec)]
    assert sorted(set(xs)) == [5, 10, 30]  # no line starts at 0, where nothing is kept
    few = make_run(sizes=dataclasses.replace(SIZES, keep_only=(0.05, 0.1)))
    assert outcomes.kept_panel(outcomes.accuracy(few)[0]) is None
    assert curves.kept(outcomes.accuracy(few)[0]) is not None


def rows_of(spec) -> list[dict]:
    """Data rows of a chart's lines."""
    return [
        row
        for layer in spec["layer"]
        for row in layer["data"].get("values", [])
        if "x" in row
    ]


def test_accuracy_without_demonstrations_has_its_own_row(run: Run, made):
    titles = [row.title for row in made["few-shot"].rows]
    assert "Zero-shot first-token accuracy: without demonstrations" in titles
    outcome = outcomes.zero_shot(run)[0]
    for n, values in enumerate(run.arrays["ablation/zero_shot/first_token"]):
        assert outcome.interval(n).mean == pytest.approx(values.mean())
    few = make_run()
    assert outcomes.zero_shot(few) == []
    texts = [s for s in sections.collect(few).sections if s.anchor == "few-shot"]
    assert not any("without dem" in row.title for s in texts for row in s.rows)


def test_each_task_has_a_panel_of_its_own_accuracy(run: Run, made):
    panels = figures.task_panels(run)
    assert [panel.title for panel in panels] == run.result["evaluation_tasks"]
    outcome = outcomes.accuracy(run)[0]
    values = run.arrays["ablation/first_token"]
    for task, panel in enumerate(panels):
        assert panel.clean is not None
        assert panel.clean.value == pytest.approx(values[0, task].mean())
        line = panel.lines[1]
        assert line.label == "top induction heads"
        for point in line.points:
            (n,) = outcome.find(
                mode="exclusion", ranking="induction", fraction=point.fraction
            )
            assert point.value == pytest.approx(values[n, task].mean())
        assert panel.lines[2].label == "random heads"
    (row,) = made["few-shot-tasks"].rows
    assert len(row.figures) == 3
    domains = {
        str(layer["encoding"]["y"]["scale"]["domain"])
        for figure in row.figures
        for layer in figure.spec["layer"]
        if "scale" in layer.get("encoding", {}).get("y", {})
    }
    assert len(domains) == 1  # one scale, so that tasks can be compared


def test_the_overlap_is_that_of_the_ablated_sets(run: Run):
    panel = figures.overlap_panel(run)
    assert panel is not None
    plain, excluding, expected = panel.lines
    for mode, line in (("top", plain), ("exclusion", excluding)):
        assert [point.fraction for point in line.points] == list(FRACTIONS)
        for point in line.points:
            a, b = (
                replaced(run, mode=mode, ranking=name, fraction=point.fraction)
                for name in ("function_vector", "induction")
            )
            assert point.value == pytest.approx(100 * len(a & b) / len(a))
    for point in expected.points:
        size = max(1, int(point.fraction * 63))
        assert point.value == pytest.approx(100 * size / 63)


def test_what_is_left_is_placed_among_all_heads(run: Run):
    for panel, score in zip(
        figures.preserved_panels(run),
        ("function_vector", "induction"),
        strict=True,
    ):
        values = run.arrays[f"score/{score}"].astype(np.float64).ravel()
        assert panel.clean is not None
        everyone = (values < values.mean()).mean() * 100
        assert panel.clean.value == pytest.approx(everyone)
        for line, name in zip(
            panel.lines, ("function_vector", "induction"), strict=False
        ):
            for point in line.points:
                gone = replaced(
                    run, mode="exclusion", ranking=name, fraction=point.fraction
                )
                left = [values[n] for n in range(63) if n not in gone]
                below = [value for value in values if value < np.mean(left)]
                assert point.value == pytest.approx(100 * len(below) / 63)
        random = panel.lines[2]
        sets = run.result["ablation"]["sets"]
        places = [
            statistics.percentile_of(values, ~heads.ravel())
            for entry, heads in zip(sets, run.arrays["ablation/replaced"], strict=True)
            if entry["mode"] == "uniform" and entry["fraction"] == 0.2
        ]
        assert len(places) == 3
        assert (random.points[-1].low, random.points[-1].high) == (
            min(places), max(places),
        )  # fmt: skip


def test_medians_stand_beside_means(run: Run):
    outcome = outcomes.token_loss(run)
    assert outcome is not None
    loss = run.arrays["token_loss/loss"].astype(np.float64)
    np.testing.assert_allclose(
        outcome.medians, np.median(loss[..., 0] - loss[..., 1], axis=1)
    )
    tables = {table.caption: table for table in sections.collect(run).folded_tables}
    assert "zero-shot F1 of five tokens" in (
        tables["Every head set: few-shot accuracy"].columns
    )
    table = tables["Every head set: token loss"]
    at = table.columns.index("its median")
    assert len({row[at].text for row in table.rows}) > 3
    console = Console(record=True, markup=False, width=150)
    print_run(run, console)
    said = console.export_text()
    assert "few-shot accuracy" in said and "zero-shot accuracy" in said
    assert "median" in said and words.number(outcome.medians[0]) in said
    # Sets of different thresholds are rows of their own.
    assert "exclusion 0.0%" in said and "exclusion 10.0%" in said


@pytest.mark.parametrize("parts", [("scores",), ("ablation",), ("token_loss",)])
def test_what_a_run_lacks_is_left_out(parts):
    lacking = make_run(parts=parts)
    anchors = {section.anchor for section in figures.sections(lacking)}
    wanted = {"few-shot-tasks", "ablated-heads"} if parts == ("ablation",) else set()
    assert anchors == wanted
