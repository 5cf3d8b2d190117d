"""The report on a training: numbers, words, charts, and the page in a browser."""

import dataclasses
import io
import json

import numpy as np
import pytest
from browser import check_page
from rich.console import Console
from synthetic_dynamics import STEPS, make_dynamics
from test_report import payload, visible

from jaxheads.runs import Run
from jaxheads.studies.dynamics import figures as drawn, findings as told
from jaxheads.studies.dynamics.command import print_dynamics
from jaxheads.studies.report import render


@pytest.fixture(scope="module")
def run() -> Run:
    return make_dynamics()


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    pytest.importorskip("vl_convert")
    return render(run)


def test_the_page_says_what_was_made_up(run, page):
    text = visible(page)
    assert "Induction heads emerge first, by step 1,000; function-vector heads" in text
    assert "made the transition (8.3, 9.3" in text
    assert "no causal test" in text
    assert "Step 64000 and step 143000 hold the same weights" in text
    for anchor in ("emergence", "single-heads", "transition", "steps"):
        assert f'<section id="{anchor}">' in page
    for one in run.result["dynamics"]["steps"]:
        assert one["params_sha256"][:12] in text and one["commit"][:12] in text


def test_the_charts_hold_the_arrays(run, page):
    charts = json.dumps(payload(page)["charts"])
    for name in told.SCORES:
        for value in told.curve(run, name).mean:
            assert f'"y": {float(format(value, ".5g"))}' in charts
    values = np.asarray(run.arrays["dynamics/score/induction"], float)[:, 8, 3]
    for value in values:
        assert f'"y": {float(format(value, ".5g"))}' in charts
    figures = [drawn.mean_score(run, "induction"), drawn.single_heads(run, "induction")]
    rows = figures[0].data
    assert rows is not None and len(rows) == 3 * len(STEPS)
    kinds = {row["kind"] for row in figures[1].data or []}
    assert kinds == {f"top by {kind}" for kind in ("induction", "FV", "both")}


def test_steps_stand_at_their_logarithm_and_step_0_before_them():
    at = drawn.places([0, 1, 64, 1024])
    assert at[1:] == [0, 6, 10] and at[0] == -1
    assert drawn.places([0]) == [0]
    assert drawn.places([0, 1000])[0] < drawn.places([0, 1000])[1]


def test_heads_that_lead_in_the_end_are_followed(run):
    for name, heads in told.followed(run).items():
        last = run.arrays[f"dynamics/score/{name}"][-1]
        assert len(heads) == 6  # 2 % of 300
        values = [last[head] for head in heads]
        assert values == sorted(last.ravel(), reverse=True)[:6]


@pytest.mark.parametrize("steps", [(1000,), (0, 1), (0, 100, 143000)], ids=str)
def test_few_or_early_steps_make_a_page_too(steps):
    pytest.importorskip("altair")
    from jaxheads.studies import page as sections

    page = sections.collect(make_dynamics(steps, few_shot=False))
    json.dumps(page.payload(), allow_nan=False)
    assert "Few-shot accuracy" not in [statement.lead for statement in page.statements]
    drawn = {section.anchor: section for section in page.sections}
    assert len(drawn["emergence"].rows[0].figures) == 2
    assert len(drawn["steps"].tables[0].rows) == len(steps)
    late = 16000 in steps or 143000 in steps
    assert ("no function-vector heads" in page.verdict.lower()) != late


def test_an_undecided_order_is_said_to_be_one(run):
    result = json.loads(json.dumps(run.result))
    first = {"induction": 0.6, "neither": 0.3, "fv": 0.1}
    result["dynamics"]["emergence"]["first"]["final"] = first
    said = told.verdict(dataclasses.replace(run, result=result))
    assert "is not decided at these checkpoints" in said


def test_the_terminal_shows_the_same(run):
    out = io.StringIO()
    print_dynamics(run, Console(file=out, markup=False, width=120))
    said = out.getvalue()
    for text in ("143,000", "8.3 (", "note    step 64000", "Induction to FV: "):
        assert text in said
    assert "[0.40, 0.66]" in said


def test_the_browser_draws_the_charts(page, browser):
    check_page(browser, page)


def test_answers_that_a_first_token_does_not_tell_are_in_no_accuracy(run):
    names = ["one", "two", "three"][: run.arrays["dynamics/first_token"].shape[1]]
    info = run.result["task_info"] | {"one": {"collisions": 1.0}}
    result = run.result | {"evaluation_tasks": names, "task_info": info}
    measured = told.accuracy(dataclasses.replace(run, result=result))
    for name, kept in (("first_token", slice(1, None)), ("f1", slice(None))):
        values = run.arrays[f"dynamics/{name}"][:, kept]
        np.testing.assert_allclose(measured[name].mean, values.mean(axis=(1, 2)))
