"""The six arguments: figures over stored curves, and the rules that decide."""

import dataclasses
import itertools
import math
import statistics

import numpy as np
import pytest
from scipy import stats

from jaxheads.errors import UserError
from jaxheads.statistics.phase_change import PhaseChange, dated, over_seeds
from jaxheads.studies.six_arguments import (
    ablation_and_mechanism,
    co_occurrence,
    co_perturbation,
    continuity,
)
from jaxheads.studies.six_arguments.ablation_and_mechanism import INDUCTION
from jaxheads.studies.six_arguments.config import MOST_STEPS
from jaxheads.studies.six_arguments.curves import (
    BUMP,
    Curves,
    by_position,
    find_bumps,
    prominence,
)
from jaxheads.studies.six_arguments.measured import choose_steps
from jaxheads.studies.six_arguments.rules import NotAsked, against, interval, over_runs
from jaxheads.studies.six_arguments.verdicts import judge

STEPS = np.arange(0, 1001, 25)


def jump(steps, at, low, high):
    """A curve that goes from one level to another within about 60 steps."""
    return low + (high - low) / (1 + np.exp(-(steps - at) / 15.0))


def make_curves(heads, scores, *, seed=0, **about) -> Curves:
    """Curves of a run whose seeds' heads and ICL scores jump at these steps, or never.

    Losses fall by a power law, and once more where the ICL score jumps.
    """
    rng = np.random.default_rng(seed)
    runs, steps = len(heads), np.arange(1, STEPS[-1] + 1)
    top = np.stack(
        [np.full(len(STEPS), 0.05) if at is None else jump(STEPS, at, 0.05, 0.9)
         for at in heads], axis=1,
    )  # fmt: skip
    score = np.stack(
        [np.full(len(STEPS), -0.1) if at is None else jump(STEPS, at, -0.1, -1.1)
         for at in scores], axis=1,
    )  # fmt: skip
    losses = 3 * steps[:, None] ** -0.1 + rng.normal(0, 0.01, (len(steps), runs))
    for n, at in enumerate(scores):
        if at is not None:
            losses[:, n] += jump(steps, at, 1.0, 0.0)
    top = top + rng.normal(0, 0.005, top.shape)
    score = score + rng.normal(0, 0.01, score.shape)
    heads_of = np.zeros((len(STEPS), runs, 2, 3))
    heads_of[:, :, 1, 2] = top
    changes = {
        "prefix_matching": dated(STEPS, "prefix_matching", top),
        "icl_score": dated(STEPS, "icl_score", score),
        BUMP: over_seeds(find_bumps(losses)),
    }
    told = {"name": "run", "variant": "vanilla", "objective": "vanilla", "layers": 2}
    told |= {"width": 16, "mlp_width": 0, "tokens_a_step": 7, "path": "run"}
    told |= {"training": {"data": "a"}}
    return Curves(
        told | about,
        STEPS,
        heads_of,
        score,
        np.full_like(score, np.nan),
        np.zeros((*score.shape, 5)),
        losses,
        changes,
    )  # fmt: skip


def answers(runs: list[Curves], **more) -> list[str]:
    """What each argument says of runs without models."""
    found = {
        "runs": [one.about for one in runs],
        "co_occurrence": [co_occurrence.co_occurrence(one) for one in runs],
        "co_perturbation": co_perturbation.co_perturbation(runs),
        "continuity": [continuity.continuity(one) for one in runs],
        "attribution": [None] * len(runs),
        "circuits": [None] * len(runs),
        "generality": [[None] * one.seeds for one in runs],
    }
    return [one.answer for one in judge(found | more)]


def test_planted_changes_are_dated_and_overlap():
    curves = make_curves([300, 320, 340, None], [310, 320, 600, None])
    found = co_occurrence.co_occurrence(curves)
    assert found["overlap"] == {"icl_score": 2, BUMP: 2}
    assert found["either"] == 3 and found["apart"] == pytest.approx(3.6, abs=0.3)
    heads = found["changes"]["prefix_matching"]
    assert heads["found"] == 3 and heads["step"] == pytest.approx(320, abs=15)
    bumps = [one["step"] for one in found["changes"][BUMP]["each"]]
    assert bumps[3] is None
    np.testing.assert_allclose(bumps[:3], [310, 320, 600], rtol=0.15)
    assert found["formed"][0] == pytest.approx(0.75, abs=0.2)
    assert abs(found["formed"][2]) < 0.1 and found["formed"][3] is None


def test_shares_are_those_of_a_loop():
    curves = make_curves([300, 450, 600], [310, 430, 500])
    for n, one in enumerate(curves.changes["prefix_matching"].each):
        score = dict(zip(STEPS.tolist(), curves.icl_score[:, n], strict=True))
        assert one.begin is not None and one.end is not None
        change = score[int(one.end)] - score[int(one.begin)]
        wanted = change / score[STEPS[-1]]
        got = co_occurrence.share_formed(STEPS, curves.icl_score[:, n], one)
        assert got == pytest.approx(wanted)
    # Of nearly no score at the end it is the share of 0.2 nats, the least that counts.
    little = np.linspace(0, -0.1, len(STEPS))
    window = PhaseChange(step=300, begin=200, end=400)
    assert co_occurrence.share_formed(STEPS, little, window) == pytest.approx(0.1)
    little[[0, 8, 11, -1]] = np.nan  # left out, also at an end of the window
    assert co_occurrence.share_formed(STEPS, little, window) == pytest.approx(0.1)
    assert co_occurrence.share_formed(STEPS, little * np.nan, window) is None


@pytest.mark.parametrize("score", [[310, 330, 300], [300] * 3, [700, 820, 760]])
def test_the_chance_of_dates_is_that_of_a_loop(score):
    heads = [300.0, 310.0, 350.0]
    places = [at / 25 for at in score], [at / 25 for at in heads]
    apart = [statistics.mean(abs(a - b) for a, b in zip(*places, strict=True))]
    for shift in np.arange(1 - min(places[0]), 39 - max(places[0]), 0.01):
        moved = [abs(a + shift - b) for a, b in zip(*places, strict=True)]
        apart.append(statistics.mean(moved))
    got = co_occurrence.chance_of_dates(STEPS, np.array(heads), np.array(score, float))
    assert got[0] == pytest.approx(apart[0])
    wanted = np.mean([one <= apart[0] + 0.5 for one in apart[1:]])
    assert got[1] == pytest.approx(wanted, abs=0.01)


def test_prominence_is_that_of_a_loop():
    rates = np.random.default_rng(0).normal(size=30)
    for at in range(30):
        floors = []
        for direction in (-1, 1):
            lowest, place = rates[at], at + direction
            while 0 <= place < 30 and rates[place] <= rates[at]:
                lowest = min(lowest, rates[place])
                place += direction
            floors.append(lowest)
        assert prominence(rates, at) == pytest.approx(rates[at] - max(floors))


@pytest.mark.parametrize("seed", range(3))
def test_only_a_bump_is_one(seed):
    steps = np.arange(1, 2001.0)
    noise = np.random.default_rng(seed).normal(0, 0.05, (2000, 4))
    fall = 4 * steps**-0.2
    initial = 3 / (1 + (steps / 10) ** 3)  # to what single tokens tell
    bump = 0.5 / (1 + (steps / 400) ** 6)
    cooled = 0.4 * np.cos(np.pi * steps / 4000)  # falls ever faster, to the end
    losses = noise + np.stack(
        [fall, fall + initial + bump, fall + cooled, np.full(2000, 4.0)], axis=1
    )
    power, twice, end, level = find_bumps(losses)
    assert (power.step, end.step, level.step) == (None, None, None)
    assert power.reason and end.reason and level.reason
    assert twice.step == pytest.approx(400, rel=0.2)
    assert twice.begin is not None and twice.end is not None
    assert twice.begin < 400 < twice.end < 900


def test_few_steps_have_no_bump():
    assert "too few" in find_bumps(np.ones((4, 2)))[1].reason


@pytest.mark.parametrize("length", [3, 12, 200])
def test_the_derivative_by_position_is_that_of_a_loop(length):
    losses = np.random.default_rng(1).normal(size=(4, 2, length)).cumsum(axis=-1)
    losses[:, :, 1] = np.nan  # never scored
    found = by_position(losses, bins=9)
    scored = [t for t in range(length) if t != 1]
    ends = np.unique(np.geomspace(1, len(scored) + 1, 10).round()).astype(int) - 1
    bins = [scored[a:b] for a, b in itertools.pairwise(ends)]
    x = [np.mean([math.log(t + 1) for t in one]) for one in bins]
    np.testing.assert_allclose(found["index"], np.exp(x))
    for e, n in np.ndindex(4, 2):
        y = [np.mean([losses[e, n, t] for t in one]) for one in bins]
        np.testing.assert_allclose(found["loss"][e, n], y)
        slopes = [(y[1] - y[0]) / (x[1] - x[0])]
        for p in range(1, len(x) - 1):
            left, right = x[p] - x[p - 1], x[p + 1] - x[p]
            slopes.append(
                ((y[p] - y[p - 1]) / left * right + (y[p + 1] - y[p]) / right * left)
                / (left + right)
            )
        slopes += [(y[-1] - y[-2]) / (x[-1] - x[-2])] * (len(x) > 1)
        np.testing.assert_allclose(found["derivative"][e, n], slopes[: len(x)])


def test_a_loss_that_is_straight_in_the_logarithm_has_its_slope():
    losses = 3 - 0.25 * np.log(np.arange(1, 501))
    assert continuity.loss_slope(losses, 40, 300) == pytest.approx(0.25)
    assert continuity.loss_slope(losses, 40, 41) is None


def test_slopes_are_taken_around_the_window():
    runs = [make_curves([at] * 2, [at] * 2, seed=at) for at in (300, 500)]
    runs.append(make_curves([None] * 2, [None] * 2))
    found = continuity.loss_slopes(runs)
    assert found is not None
    begins, ends = zip(*found["window"], strict=True)
    assert begins[2] == np.median(begins[:2]) and ends[2] == np.median(ends[:2])
    for run, (begin, end), before in zip(
        runs, found["window"], found["before"], strict=True
    ):
        steps = np.arange(math.ceil(begin / 4), int(begin) + 1)
        losses = run.losses.mean(axis=1)[steps - 1]
        wanted = -np.polyfit(np.log(steps), losses, 1)[0]
        assert before == pytest.approx(wanted)
        assert end > begin
    assert -1 <= found["rank_correlation"] <= 1
    assert continuity.loss_slopes(runs[2:]) is None


def test_differences_of_dates_are_welchs():
    one, other = [200.0, None, 225.0, 260.0], [400.0, 500.0, 450.0, 470.0]
    got = co_perturbation.date_difference(one, other)
    assert got is not None
    made = stats.ttest_ind(one[:1] + one[2:], other, equal_var=False)  # type: ignore
    wanted = made.confidence_interval(0.95)  # type: ignore
    assert got["steps"] == pytest.approx(np.mean([200, 225, 260]) - 455)
    np.testing.assert_allclose([got["low"], got["high"]], wanted)
    assert co_perturbation.date_difference(one, [None] * 3) is None


@pytest.mark.parametrize(
    ("last", "answer"), [(480.0, "holds"), (500.0, "undecided"), (700.0, "undecided")]
)
def test_lack_of_evidence_is_no_refutation(last, answer):
    """Dates of four seeds each, 155 steps apart: a late one makes them no less so."""
    pair = {
        "formed": {name: [[4, 4], [4, 4]] for name in co_perturbation.LEAST_CHANGES},
        "dates": {
            "prefix_matching": [[250.0, 290, 330, 310], [470.0, 490, 500, 520]],
            "icl_score": [[250.0, 300, 330, last], [470.0, 490, 500, 520]],
        },
        "last": [[-1.0] * 4] * 2,
    }
    pair["earlier"] = {
        name: co_perturbation.date_difference(*dates)
        for name, dates in pair["dates"].items()
    }
    assert co_perturbation.of_pair(pair) == answer


@pytest.mark.parametrize(
    ("heads", "scores", "answer"),
    [
        ([300] * 4, [310] * 4, "holds"),
        ([300] * 4, [700] * 4, "does not hold"),
        ([300] * 4, [None] * 4, "does not hold"),
        ([300] * 4, [340] * 4, "undecided"),  # as near in a tenth of all places
        ([300] * 4, [310, 310, 700, 700], "undecided"),
        ([300] * 2, [310] * 2, "undecided"),  # too few seeds
        ([None] * 4, [300] * 4, "not measured"),
    ],
)
def test_co_occurrence_is_decided(heads, scores, answer):
    assert answers([make_curves(heads, scores)])[0] == answer


@pytest.mark.parametrize(
    ("changed", "vanilla", "answer"),
    [
        (([200] * 3, [210] * 3), ([500] * 3, [510] * 3), "holds"),
        (([200] * 3, [210] * 3), ([None] * 3, [None] * 3), "holds"),
        (([200] * 3, [510] * 3), ([500] * 3, [510] * 3), "too small to matter"),
        (([200] * 3, [610] * 3), ([500] * 3, [510] * 3), "does not hold"),
        (([200] * 3, [None] * 3), ([None] * 3, [None] * 3), "too small to matter"),
        (([500] * 3, [510] * 3), ([500] * 3, [510] * 3), "undecided"),
        (([200] * 2, [210] * 2), ([500] * 3, [510] * 3), "undecided"),
    ],
)
def test_co_perturbation_is_decided(changed, vanilla, answer):
    runs = [
        make_curves(*vanilla, seed=3),
        make_curves(*changed, seed=4, variant="smeared keys"),
    ]
    assert answers(runs)[1] == answer
    one_layer = make_curves(*changed, variant="smeared keys", layers=1)
    assert answers([runs[0], one_layer])[1] == "not measured"


def test_a_pair_says_what_else_differs():
    runs = [
        make_curves([200], [200], training={"data": "a", "steps": 5}),
        make_curves([200], [200], variant="KV shift", training={"data": "b"}),
    ]
    (pair,) = co_perturbation.co_perturbation(runs)
    assert (pair["run"], pair["vanilla"]) == (1, 0)
    assert pair["also_differs"] == ["data", "steps"]
    assert pair["earlier"]["icl_score"]["low"] is None  # of a single seed


@pytest.mark.parametrize(
    ("small", "large", "answer"),
    [
        (([300] * 3, [300] * 3), ([400] * 3, [410] * 3), "holds"),
        (([300] * 3, [300] * 3), ([400] * 3, [800] * 3), "does not hold"),
        (([300] * 3, [300] * 3), ([400] * 2, [410] * 2), "undecided"),
        (([300] * 3, [700] * 3), ([400] * 3, [800] * 3), "undecided"),
        (([300] * 3, [300] * 3), ([None] * 3, [None] * 3), "not measured"),
    ],
)
def test_continuity_is_decided(small, large, answer):
    runs = [make_curves(*small), make_curves(*large, width=32)]
    assert answers(runs)[5] == answer
    row = continuity.continuity(runs[0])
    step = runs[0].changes["prefix_matching"].step
    assert step is not None and row["tokens"] == 7 * step


def effects(lost, more=(0.4, 0.5, 0.6)) -> dict:
    """What ablations say of a run of three seeds."""
    none = [None] * 3
    return {"lost": lost, "more_than_others": list(more), "share": none} | {
        "correlation": [0.5, None, 0.7]
    }


@pytest.mark.parametrize(
    ("run", "answer"),
    [
        (effects([0.8, 0.9, 0.7]), "holds"),
        (effects([0.8, 0.9, 0.7], [None] * 3), "undecided"),  # no other heads
        (effects([0.8, 0.9, 0.7], [-0.1, 0.1, 0.0]), "undecided"),
        (effects([0.1, 0.15, 0.2]), "does not hold"),
        (effects([0.1, 0.9, 0.3]), "undecided"),
        (effects([0.8, 0.81, None]), "undecided"),  # two seeds decide nothing
        (effects([0.1, 0.11, None]), "undecided"),
        (effects([0.8, None, None]), "undecided"),
        (effects([None] * 3), "not measured"),
        (None, "not measured"),
    ],
)
def test_ablation_is_decided(run, answer):
    assert answers([make_curves([300], [300])], attribution=[run])[2] == answer


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ([0.3, 0.4, 0.3], "holds"),
        ([-0.01, 0.0, 0.01], "too small to matter"),
        ([-0.3, -0.4, -0.3], "does not hold"),
        ([0.3, -0.1, 0.0], "undecided"),
        ([0.3, 0.3001, None], "undecided"),
        ([None] * 3, "not measured"),
    ],
)
def test_generality_is_decided(changes, answer):
    assert answers([make_curves([300], [300])], generality=[changes])[3] == answer


@pytest.mark.parametrize(
    ("copying", "trace", "answer"),
    [
        ([0.3, 0.4, 0.5], [0.2, 0.3, 0.25], "holds"),
        ([0.3, 0.4, 0.5], [-0.2, -0.3, -0.25], "does not hold"),
        ([0.01, 0.02, 0.03], [0.2, 0.3, 0.25], "too small to matter"),
        ([0.3, 0.4, 0.5], [-0.2, 0.3, 0.1], "undecided"),
        ([0.3, 0.30001], [0.2, 0.20001], "undecided"),
        ([0.3, 0.4, 0.5], [None] * 3, "not measured"),
    ],
)
def test_the_mechanism_is_decided(copying, trace, answer):
    found = {"copying": copying, "qk_trace": trace}
    assert answers([make_curves([300], [300])], circuits=[found])[4] == answer


def test_slow_changes_of_heads_decide_nothing():
    curves = make_curves([300] * 3, [300] * 3)
    dated = co_occurrence.co_occurrence(curves)
    assert co_occurrence.of_run(dated) == "holds"
    assert co_occurrence.of_run(dated | {"extent": [0.6] * 3}) == "undecided"
    found = {"co_occurrence": [dated | {"extent": [0.6] * 3}]}
    assert answers([curves], generality=[[0.3, 0.4, 0.3]])[3] == "holds"
    found |= {"generality": [[0.3, 0.4, 0.3]], "runs": [curves.about]}
    assert ablation_and_mechanism.decide_generality(found)[0] == "undecided"


@pytest.mark.parametrize("seed", range(3))
def test_a_score_that_falls_evenly_is_no_phase_change_of_any_size(seed):
    def even(at, **about) -> Curves:
        curves = make_curves([at] * 4, [None] * 4, seed=seed, **about)
        score = curves.icl_score - 0.0012 * STEPS[:, None]
        changes = curves.changes | {"icl_score": dated(STEPS, "icl_score", score)}
        assert changes["icl_score"].found == 4  # and it overlaps with everything
        return dataclasses.replace(curves, icl_score=score, changes=changes)

    for at in (300, 500, 700):
        found = answers([even(at), even(at, width=32)])
        assert found[0] != "holds" and found[5] != "holds"


@pytest.mark.parametrize(
    ("runs", "answer"),
    [
        (["holds", "holds", "not measured"], "holds"),
        (["does not hold"] * 2, "does not hold"),
        (["holds", "does not hold"], "undecided"),
        (["holds", "undecided"], "undecided"),
        (["not measured"], "undecided"),
        ([], "undecided"),
    ],
)
def test_runs_are_not_pooled(runs, answer):
    assert over_runs(runs) == answer


def test_seeds_of_several_runs_are_not_pooled():
    """Two runs with two seeds each are no four seeds, and one with three stays so."""
    runs = [make_curves([300] * 3, [300] * 3) for _ in range(2)]
    few, many = effects([0.8, 0.81, None]), effects([0.8, 0.9, 0.7])
    assert answers(runs, attribution=[few, few])[2] == "undecided"
    assert answers(runs, attribution=[few, many])[2] == "holds"
    against_it = effects([0.1, 0.15, 0.2])
    assert answers(runs, attribution=[many, against_it])[2] == "undecided"


def test_vanilla_models_of_one_layer_have_no_size():
    runs = [
        make_curves([300] * 3, [300] * 3),
        make_curves([None] * 3, [300] * 3, layers=1),
        make_curves([300] * 3, [300] * 3, width=32),
    ]
    assert answers(runs)[5] == "holds"
    assert answers(runs[:2])[5] == "not measured"


def test_every_rule_is_written_down():
    for one in judge(
        {"runs": [], "co_perturbation": []}
        | {k: [] for k in ("co_occurrence", "attribution", "generality", "circuits")}
        | {"continuity": []}
    ):
        assert one.answer == "not measured" and "needs" in one.evidence
        assert "Holds:" in one.rule and "Does not hold:" in one.rule


def test_what_heads_carry_is_that_of_a_loop():
    rng = np.random.default_rng(2)
    by_head = rng.normal(size=(3, 2, 4, 5))
    prefix = rng.uniform(0, 0.6, (3, 2, 4, 5))
    score = -rng.uniform(0.5, 2, (3, 2))
    score[1, 1] = -0.01  # nothing is learned in context
    found = ablation_and_mechanism.carried(by_head, prefix, score)
    for c, n in np.ndindex(3, 2):
        chosen = [h for h in np.ndindex(4, 5) if prefix[(c, n, *h)] > INDUCTION]
        total = sum(by_head[(c, n, *h)] for h in chosen)
        positive = sum(max(x, 0) for x in by_head[c, n].ravel())
        assert found["induction_heads"][c, n] == len(chosen)
        assert found["share_of_effects"][c, n] == pytest.approx(total / positive)
        wanted = np.nan if (c, n) == (1, 1) else total / -score[c, n]
        np.testing.assert_allclose(found["share"][c, n], wanted)
        orders = [np.argsort(np.argsort(x[c, n].ravel())) for x in (by_head, prefix)]
        wanted = statistics.correlation(*(one.tolist() for one in orders))
        assert found["correlation"][c, n] == pytest.approx(wanted)


def test_induction_heads_apart_from_others_is_that_of_a_loop():
    rng = np.random.default_rng(3)
    values, prefix = rng.normal(size=(3, 2, 5)), rng.uniform(0, 0.6, (3, 2, 5))
    values[0, 0] = np.nan
    prefix[2] = 0.1
    got = ablation_and_mechanism.apart(values, prefix)
    for n in range(2):
        known = [h for h in np.ndindex(2, 5) if np.isfinite(values[n][h])]
        mine = [values[n][h] for h in known if prefix[n][h] > INDUCTION]
        others = [values[n][h] for h in known if prefix[n][h] <= INDUCTION]
        assert got[n] == pytest.approx(np.mean(mine) - np.mean(others))
        of_mine = ablation_and_mechanism.of_induction(values, prefix)[n]
        assert of_mine == pytest.approx(np.mean(mine))
    assert np.isnan(got[2])


def test_what_is_lost_together():
    scores = np.array([[-2.0, -1.0, -0.1], [-0.5, 0.1, 0.0], [-1.5, -0.8, -0.1]])
    found = ablation_and_mechanism.lost(scores)
    np.testing.assert_allclose(found["lost"], [0.75, 1.1, np.nan])
    np.testing.assert_allclose(found["more_than_others"], [0.5, 0.9, np.nan])


def test_falls_over_the_window_are_more_than_even():
    curves = make_curves([300, None, 300], [300] * 3)
    each = curves.changes["prefix_matching"].each
    score = curves.icl_score
    score[:, 2] = -0.001 * STEPS
    score[3, 2] = np.nan
    got = ablation_and_mechanism.fall_in_window(STEPS, score, each)
    begin, end = each[0].begin, each[0].end
    assert begin is not None and end is not None
    values = dict(zip(STEPS.tolist(), score[:, 0], strict=True))
    even = (values[0] - values[1000]) * (end - begin) / 1000
    wanted = values[int(begin)] - values[int(end)] - even
    assert got == [pytest.approx(wanted), None, pytest.approx(0, abs=1e-9)]


def test_an_interval_needs_values():
    assert interval([math.nan, None]) is None
    one = interval([2.0, math.nan])
    assert one is not None and one["low"] is None
    assert against([2.0, 2.1, math.nan], 0) == "undecided"  # of two
    assert against([2.0, 2.1, 2.2], 1) == "holds"
    assert against([2.0, 2.1, 2.2], 3) == "does not hold"
    assert against([2.0, 2.1, 2.2], 2, 0.5) == "too small to matter"
    assert against([2.0] * 5, 1) == "undecided"  # no spread was seen
    assert issubclass(NotAsked, Exception)


@pytest.mark.parametrize("count", [5, 12, 40])
def test_steps_are_thinned_around_the_windows(count):
    curves = make_curves([300, 420, None], [300] * 3)
    there = tuple(range(0, 1001, 1000 // (count - 1)))[:count]
    got = choose_steps(there, curves)
    assert set(got) <= set(there) and list(got) == sorted(set(got))
    assert len(got) <= MOST_STEPS and (got[0], got[-1]) == (there[0], there[-1])
    if count <= MOST_STEPS:
        assert got == there
    for one in curves.changes["prefix_matching"].each[:2]:
        assert one.begin is not None and one.end is not None
        assert max(s for s in there if s <= one.begin) in got
        assert min(s for s in there if s >= one.end) in got


def test_many_windows_are_thinned_too():
    curves = make_curves([100 * k for k in range(2, 9)], [300] * 7)
    got = choose_steps(tuple(range(0, 1001, 5)), curves)
    assert len(got) <= MOST_STEPS


def test_steps_that_are_not_there_are_refused():
    curves = make_curves([300], [300])
    assert choose_steps((0, 5, 10), curves, (10, 0)) == (0, 10)
    with pytest.raises(UserError, match="those of 0, 5 and not of 7"):
        choose_steps((0, 5), curves, (5, 7))


@pytest.mark.parametrize(
    ("heads", "said"),
    [
        ([[250.0, 290], [470.0, 490]], "fewer than 3 seeds decide nothing"),
        ([[250.0] * 4, [470.0] * 4], "it is open whether heads are eased"),
        ([[470.0, 480, 490], [250.0, 260, 270]], "heads are not eased"),
    ],
)
def test_why_nothing_is_asked_of_a_pair(heads, said):
    seeds = len(heads[0])
    pair = {
        "run": 0,
        "vanilla": 1,
        "variant": "smeared keys",
        "layers": 2,
        "formed": {
            name: [[seeds, seeds]] * 2 for name in co_perturbation.LEAST_CHANGES
        },
        "dates": {"prefix_matching": heads, "icl_score": heads},
        "earlier": dict.fromkeys(co_perturbation.LEAST_CHANGES),
        "last": [[-1.0] * seeds] * 2,
    }
    answer = co_perturbation.of_pair(pair)
    runs = [{"name": "smeared"}, {"name": "vanilla"}]
    assert answer == "not measured"
    assert said in co_perturbation._pair_said(pair, answer, runs)
