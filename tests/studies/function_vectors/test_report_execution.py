"""Function vectors at work on the page: statistics and sentences of made-up runs."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from jaxheads.report import words
from jaxheads.runs import Arrays, Run
from jaxheads.studies import claims
from jaxheads.studies.ablation.findings import Findings
from jaxheads.studies.function_vectors import findings, page
from jaxheads.studies.function_vectors.findings import KINDS


def interval(found, *arguments):
    """An interval that is there."""
    made = found.interval(*arguments)
    assert made is not None
    return made


def made_up(right, probability=None, queries=None, **part):
    """A run of two tasks and three layers without a model."""
    given: Arrays = {name: np.asarray(values) for name, values in right.items()}
    arrays = {f"execution/right/{name}": values for name, values in given.items()}
    for name, values in given.items():
        values = (probability or {}).get(name, values)
        arrays[f"execution/probability/{name}"] = np.asarray(values, np.float32)
    shape = given["clean"].shape
    each = np.broadcast_to(np.arange(shape[1]), shape)
    arrays["execution/queries"] = np.asarray(each if queries is None else queries)
    arrays["execution/layers"] = np.arange(3)
    arrays["execution/vectors"] = np.ones((2, 3, 4), np.float32)
    told = {"layer": 1, "random_sets": 2, "prompts": shape[1], "place": "leaving"}
    told |= {"tasks": ["one", "two"], "count": 2, "counts": [2], "mean": "task"}
    told |= {"ranking_by": "induction", "mean_prompts": 2, "items": "halves"}
    told |= {"heads": ["0.1", "1.2"], "bias": "none"}
    nothing = {"answered": 0, "queries": 4, "read_out": []}
    told["by_task"] = {"one": nothing, "two": nothing}
    return Run(Path("run"), {"execution": told | part, "scores": {}}, arrays)


def conditions(clean, layers=None, **changes):
    """All conditions; those with vectors are wrong but where said."""
    clean = np.array(clean, bool)
    tasks, count = clean.shape
    zeros = np.zeros((tasks, 3, count), bool)
    vector = zeros.copy() if layers is None else np.array(layers, bool)
    right = {"clean": clean}
    for kind in KINDS:
        right |= {kind: np.zeros_like(clean), f"{kind}_vector": vector}
        right[f"{kind}_random"] = np.stack([zeros] * 2, axis=1)
    return made_up(right | {n: np.array(v) for n, v in changes.items()})


def test_an_accuracy_counts_tasks_alike_and_those_with_answers_alone():
    run = conditions([[1, 1, 0, 0], [0, 0, 0, 0]])
    found = findings.Executed(run)
    right = np.array([[1, 0, 1, 0], [1, 1, 1, 0]], float)
    every = interval(found, right)
    assert every.mean == pytest.approx((0.5 + 0.75) / 2)
    answered = interval(found, right, "answered")
    assert answered.mean == pytest.approx(0.5)  # of the first task's first two
    # Means of 0, 1/2 or 1 of the two that are kept; the others do not count.
    assert (answered.low, answered.high) == (0, 1)
    both = interval(found, np.stack([right, 1 - right]), "answered")
    np.testing.assert_allclose(both.mean, [0.5, 0.5])
    none = findings.Executed(conditions(np.zeros((2, 4))))
    assert none.interval(right, "answered") is None
    assert findings.shown(None) == words.NONE


def test_prompts_that_ask_one_query_are_resampled_together():
    right = np.array([[1, 1, 1, 0, 0, 0], [1, 0, 1, 0, 1, 0]], float)
    apart = interval(findings.Executed(conditions(right)), right)
    queries = [[0, 0, 0, 1, 1, 1], [0, 1, 2, 3, 4, 5]]
    run = conditions(right)
    run.arrays["execution/queries"] = np.array(queries)
    together = interval(findings.Executed(run), right)
    assert together.mean == apart.mean == pytest.approx(0.5)
    # Two queries give 0, 1/2 or 1; their prompts alone would pass for six.
    assert together.low < apart.low and together.high > apart.high


def test_the_chosen_layer_is_that_of_the_other_tasks():
    layers = np.zeros((2, 3, 4), bool)
    layers[0, 2], layers[1, 0] = True, True  # each task is best where the other fails
    found = findings.Executed(conditions(np.ones((2, 4)), layers))
    assert found.chosen_layers == {kind: [0, 2] for kind in KINDS}
    picked = found.chosen(found.right("shuffled_vector"), "shuffled")
    assert picked.shape == (2, 4) and not picked.any()
    layers[:, 1] = True  # now both are as good there
    layers[0, 2, 1:], layers[1, 0, 1:] = False, False
    found = findings.Executed(conditions(np.ones((2, 4)), layers))
    assert found.chosen_layers == {kind: [1, 1] for kind in KINDS}
    listed = {one.label: one for one in found.conditions("zero_shot")}
    assert listed["function vector, chosen layer"].right.all()
    assert not listed["random heads, chosen layer"].right.any()
    over_plain, over_random = found.differences("zero_shot")["papers"]
    assert over_random and over_plain.mean == over_random.mean == 1


@pytest.mark.parametrize("works", [True, False])
def test_the_page_says_what_was_found(works):
    layers = np.full((2, 3, 4), works)
    run = conditions(np.zeros((2, 4)), layers)
    compared = Findings({}, [], [], None)
    judged = claims.of_run(run)
    verdict = page.verdict(run, compared, judged)
    assert verdict and verdict.count("task's function vector makes") == 2
    (said,) = page.say(run, judged)
    assert said.text.endswith(verdict)
    for claim in judged:
        if claim.family == "function vectors" and claim.verdict != "not measured":
            assert f"{claim.verdict}: {claim.statement}".lower() in verdict.lower()
    assert said.text.count("changes it by ") >= 2
    work, read = page.sections(run)
    assert work.anchor == "execution" and read.anchor == "read-out"
    table = work.tables[0]
    assert "there are none" in table.columns[3]
    assert {row[3].text for row in table.rows} == {words.NONE}
    assert len(work.rows) == 2  # one size alone is no curve
    figures = [figure for row in work.rows for figure in row.figures]
    assert len({figure.name for figure in figures}) == 4


def test_tasks_whose_first_token_tells_nothing_are_left_out():
    clean = [[1, 1, 1, 1], [1, 0, 0, 0]]
    layers = np.zeros((2, 3, 4), bool)
    layers[0] = True
    run = conditions(clean, layers)
    info = {"one": {"collisions": 1.0}, "two": {"collisions": 0.3}}
    told = dataclasses.replace(run, result=run.result | {"task_info": info})
    found = findings.Executed(told)
    assert found.tasks == ["two"]
    assert interval(found, found.right("clean")).mean == 0.25
    over_plain, _ = found.differences("zero_shot")["papers"]
    assert over_plain.mean == 0  # the vectors worked in the other task alone
    work = page.sections(told)[0]
    assert "all answers of one have the same first token" in work.text
    assert [row[0].text for row in work.tables[1].rows] == ["two"]
    judged = {claim.name: claim for claim in claims.of_run(told)}
    (gain, whole) = (judged["vector_raises_zero_shot"], judged["random_vectors_do_not"])
    assert gain.effect == 0 and "(clean 0.25)" in gain.evidence
    assert whole.effect == 0
