"""The report on how heads work together, made from known games."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from browser import check_page
from rich.console import Console
from scipy import stats
from synthetic_run import make_run
from test_report import payload, visible

from jaxheads.cli.tables import print_run
from jaxheads.runs import Run
from jaxheads.studies.ablation import findings
from jaxheads.studies.redundancy import findings as told, page as redundancy
from jaxheads.studies.redundancy.config import RedundancyConfig
from jaxheads.studies.redundancy.greedy import (
    Found,
    Scale,
    greedy_backward,
    greedy_forward,
)
from jaxheads.studies.redundancy.shapley import Universe, interactions, shapley
from jaxheads.studies.redundancy.study import Result
from jaxheads.studies.report import render

HEADS = np.array([[4, 4], [3, 0], [1, 2], [2, 1]])
WORK = {
    "subsets_asked": 1234, "subsets_run": 321, "prompts": 24, "subset_prompts": 3852,
    "tokens": 6000, "whole_forward_tokens": 400_000, "prefill_s": 2.0,
    "subsets_s": 3.0, "whole_forward_s": 0.25, "whole_forwards_s": 963.0,
    "times_faster": 192.6, "forwards_timed": 8, "largest_difference": 3e-7,
}  # fmt: skip


QUERIES = np.arange(12).reshape(2, 6)  # of two tasks, each prompt its own


def evaluator(seed: int, prompts: int = 12):
    """Heads 0 and 1 need each other, 2 and 3 can stand in for each other."""
    noise = np.random.default_rng(seed).uniform(0.5, 1.5, (3, prompts))

    def evaluate(replaced):
        kept = ~replaced[:, HEADS[:, 0], HEADS[:, 1]]
        both, either = kept[:, 0] & kept[:, 1], kept[:, 2] | kept[:, 3]
        worth = np.stack([0 * both + 0.2, 0.3 * both, 0.2 * either], axis=1)
        return worth @ noise

    return evaluate


def redundancy_run(parts=("scores",), **settings) -> Run:
    """A made-up run with the arrays and the words of the study itself."""
    asked = RedundancyConfig(tasks=("a", "b"), prompts=6, top=4, **settings)
    universe = Universe(HEADS, (6, 5))
    here, there = evaluator(0), evaluator(1)
    nothing = np.zeros((1, 6, 5), bool)
    scale, other = (Scale(e(nothing)[0], np.zeros(12)) for e in (here, there))
    found = {}
    for name, search in (("backward", greedy_backward), ("forward", greedy_forward)):
        path = search(here, universe, asked.share, scale)
        values = there(universe.replaced(path.kept))
        found[name] = Found(universe, path, scale, values, other, QUERIES, QUERIES)
    result = Result(
        universe,
        shapley(here, universe, 5, 0, queries=QUERIES),
        interactions(here, universe, QUERIES),
        found,
        [1.0, 2.0, 3.0, 4.0],
        asked,
        WORK,
        5.0,
    )
    run = make_run(parts=parts)
    return dataclasses.replace(
        run,
        result=run.result | result.describe(),
        arrays=run.arrays | result.arrays(),
    )


@pytest.fixture(scope="module")
def run() -> Run:
    return redundancy_run()


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    pytest.importorskip("vl_convert")
    return render(run)


def test_the_strongest_pairs_are_those_of_the_game(run):
    (first, second), (third, fourth) = (pair[:2] for pair in told.strongest(run, 2))
    assert (first, second, third, fourth) == ("4.4", "3.0", "1.2", "2.1")
    values = [pair[2] for pair in told.strongest(run, 6)]
    np.testing.assert_allclose(np.sign(values[:2]), [1, -1])
    np.testing.assert_allclose(values[2:], 0, atol=1e-6)


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (0.3, 0.1, "less than the sum: overlap"),
        (-0.3, 0.1, "more than the sum: backups"),
        (0.2, 0.1, "not distinguishable"),
        (0.2, float("nan"), "not distinguishable"),
    ],
)
def test_a_pair_is_read_with_its_error_and_the_number_of_pairs(value, error, words):
    assert words in told.reading(value, error, 2.64)  # the normal's, of 6 pairs


def test_the_limit_of_pairs_counts_queries(run):
    # 6 pairs of 4 heads, and two tasks of 6 prompts, each its own query.
    assert told.threshold(run) == pytest.approx(stats.t.ppf(1 - 0.025 / 6, 10))
    shared = {"redundancy/queries": np.tile([0, 0, 0, 1, 1, 2], (2, 1))}
    fewer = dataclasses.replace(run, arrays=run.arrays | shared)
    assert told.threshold(fewer) == pytest.approx(stats.t.ppf(1 - 0.025 / 6, 4))
    older = {n: a for n, a in run.arrays.items() if not n.endswith("queries")}
    older = dataclasses.replace(run, arrays=older)
    assert told.threshold(older) == told.threshold(run)


def test_the_page_says_what_was_found(run, page):
    text = visible(page)
    part = run.result["redundancy"]
    assert part["backward"]["smallest"] == 1 and len(part["backward"]["kept"]) == 3
    assert "Keeping 3 of the 4 chosen heads is enough to leave 90 %" in text
    assert "4.4 and 3.0: interaction" in text
    assert "1,234 subsets were asked for and 321 different ones run" in text
    assert "16 min 03 s, 193 times as long" in text
    assert "complements: redundant effects" in text
    for anchor in ("together", "smallest-set"):
        assert f'<section id="{anchor}">' in page


def test_a_set_that_falls_short_on_other_prompts_is_said_to(run):
    result = json.loads(json.dumps(run.result))
    for name in ("backward", "forward"):
        result["redundancy"][name] |= {"held_out_share": 0.7, "held_out_share_se": 0.05}
    short = dataclasses.replace(run, result=result)
    said = redundancy.verdict(short, findings.find(short))
    assert said and "but leaves 70 ± 5 % on prompts that it was not chosen by" in said


def test_the_charts_hold_the_arrays(run, page):
    charts = json.dumps(payload(page)["charts"])
    arrays = run.arrays
    assert (
        f'"v": {float(format(arrays["redundancy/interaction"][0, 1], ".5g"))}' in charts
    )
    for value in arrays["redundancy/shapley"]:
        assert f'"y": {float(format(value, ".5g"))}' in charts
    for value in arrays["redundancy/backward_held_out_share"]:
        assert f'"y": {float(format(100 * float(value), ".5g"))}' in charts


def test_sets_that_nothing_is_known_of_are_left_out_of_no_page(run):
    pytest.importorskip("vl_convert")
    arrays, result = dict(run.arrays), json.loads(json.dumps(run.result))
    for name in ("backward", "forward"):
        for end in ("", "_se"):
            key = f"redundancy/{name}_held_out_share{end}"
            arrays[key] = arrays[key] * np.nan
        result["redundancy"][name] |= {
            "held_out_share": None,
            "held_out_share_se": None,
        }
    for name in ("shapley_se", "interaction_se"):
        arrays[f"redundancy/{name}"] = arrays[f"redundancy/{name}"] * np.nan
    result["redundancy"]["forward"] = {"order": [], "sets": 1, "reached": False}
    text = visible(render(Run(Path("run"), result, arrays)))
    assert "nothing can be said on held-out prompts" in text
    assert "Forward: no set keeps 90 %" in text


def test_a_run_with_rankings_compared_keeps_their_verdict():
    pytest.importorskip("vl_convert")
    whole = visible(render(redundancy_run(parts=("scores", "ablation"))))
    assert "is enough to leave 90 %" not in whole
    assert "The smallest set" in whole and "Few-shot accuracy" in whole


def test_the_terminal_shows_the_same(run):
    out = io.StringIO()
    print_run(run, Console(file=out, markup=False, width=140))
    said = out.getvalue()
    for text in ("4.4, 3.0", "overlap", "Shapley values, 10 permutations", "3 *"):
        assert text in said
    best = run.arrays["redundancy/shapley"].max()
    assert f"{best:+.4f}" in said
    assert "193 times as long" in " ".join(said.split())


def test_the_browser_draws_the_charts(page, browser):
    check_page(browser, page)
