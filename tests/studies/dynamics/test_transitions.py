"""Transitions and dates of emergence, on trajectories whose answer is known."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from jaxheads.heads.run_scores import top_count
from jaxheads.runs import Run
from jaxheads.statistics.claims import Rules, Untested
from jaxheads.statistics.standing_out import stands_out
from jaxheads.studies.dynamics import emergence
from jaxheads.studies.dynamics.claims import fv_heads_were_induction_heads
from jaxheads.studies.dynamics.findings import turned
from jaxheads.studies.dynamics.transitions import (
    Definition,
    Trajectories,
    find,
    permuted,
    ranks,
)

STEPS = np.array([0, 1, 4, 16, 64, 256])
LAYERS, HEADS, TASKS = 5, 20, 4
TOTAL = LAYERS * HEADS
NOISE = 0.002
EXACT = Definition(early_share=0.04)  # 2 FV heads of the end, 4 induction heads


def trajectories(induction=(), fv=(), seed=0) -> Trajectories:
    """Noise, and on it chosen heads with chosen scores: {(layer, head): [U]}."""
    rng = np.random.default_rng(seed)
    shape = (len(STEPS), LAYERS, HEADS)
    attention = 0.02 + NOISE * rng.normal(size=shape)
    effects = NOISE * rng.normal(size=(len(STEPS), TASKS, LAYERS, HEADS))
    for (layer, head), values in dict(induction).items():
        attention[:, layer, head] += values
    for (layer, head), values in dict(fv).items():
        effects[:, :, layer, head] += np.asarray(values)[:, None]
    error = np.full(shape, NOISE)
    return Trajectories(
        STEPS, attention, error, 0.02, effects.mean(axis=1), error / 2, effects, 40, 40
    )


EARLY = [0, 0, 0.9, 0.8, 0.1, 0.05]
LATE = [0, 0, 0, 0.02, 0.2, 0.3]
OTHERS = {(0, head): [0.0, 0.0, 0.5, 0.5, 0.5, 0.5] for head in range(3)}


def one(**changed) -> Trajectories:
    """Head 2.7 turns from an induction head into an FV head; 3.1 is an FV head."""
    fv = {(2, 7): LATE, (3, 1): [0, 0, 0, 0.01, 0.1, 0.2]}
    return trajectories({(2, 7): EARLY} | OTHERS, fv | changed)


def test_the_head_that_turns_is_found_with_its_steps():
    found = find(one(), EXACT, permutations=200)
    turned, other = found.followed
    assert (turned.name, turned.made, found.count) == ("2.7", True, 1)
    assert (turned.induction_step, turned.fv_step) == (4, 16)
    assert turned.final_ranks == (1, 4) and turned.overtaken_step == 64
    assert (other.name, other.made) == ("3.1", False)
    assert other.induction_step is None and "no induction head" in other.reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (dict(fv={(2, 7): [0, 0.3, 0.3, 0.3, 0.3, 0.3]}), "no later than"),
        (dict(fv={(2, 7): [0, 0, 0.3, 0.3, 0.3, 0.3]}), "no later than"),
        (dict(induction={(2, 7): [0, 0, 0, 0, 0, 0.9]}), "at any earlier step"),
        (dict(induction={(2, 7): [0, 0, 0.9, 0.9, 0.9, 0.9]}), "its rank by induction"),
        (dict(fv={(2, 7): [0, 0, 0, 0, 0, 0.002]}), "does not stand out"),
    ],
)
def test_each_condition_is_asked_for(change, reason):
    induction = {(2, 7): EARLY} | OTHERS
    fv = {(2, 7): LATE, (3, 1): LATE}
    seen = trajectories(
        induction | change.get("induction", {}), fv | change.get("fv", {})
    )
    if "does not" in reason:  # nothing else stands out either
        seen = trajectories(induction, change["fv"])
    told = {one.name: one for one in find(seen, EXACT, permutations=10).followed}
    if "2.7" in told:
        assert not told["2.7"].made and reason in told["2.7"].reason
    else:
        assert all(reason in one.reason for one in told.values())
    loose = dataclasses.replace(EXACT, silent=False, overtakes=False)
    kept = {row.name: row.made for row in find(seen, loose, permutations=10).followed}
    assert kept.get("2.7", False) == ("rank" in reason or "no later" in reason)


def test_the_sensitivity_lists_what_find_counts():
    seen = one()
    found = find(seen, EXACT, permutations=50)
    assert len(found.sensitivity) == 12
    for row in found.sensitivity:
        names = ("early_share", "silent", "overtakes")
        asked = dataclasses.replace(EXACT, **{name: row[name] for name in names})
        again = find(seen, asked, permutations=50)
        assert (
            (row["count"], row["of"]) == (again.count, again.shown) == (row["count"], 2)
        )
        assert row["p_value"] == again.p_value


def naive_test(seen, definition, order) -> float:
    """The permutation test as it is told: trajectories exchanged, heads counted."""
    flat = seen.induction.reshape(len(STEPS), -1)
    own = find(seen, definition, permutations=1).count
    counts = []
    for each in order:
        shuffled = flat[:, each].reshape(seen.induction.shape)
        other = dataclasses.replace(seen, induction=shuffled)
        counts.append(find(other, definition, permutations=1).count)
    return (1 + sum(count >= own for count in counts)) / (1 + len(counts))


def test_the_permutation_test_is_that_of_exchanged_trajectories():
    seen = trajectories({(2, 7): EARLY, (2, 3): EARLY} | OTHERS, {(2, 7): LATE})
    definition = Definition(early_share=0.3)
    found = find(seen, definition, permutations=60)
    assert 0 < found.p_value["within layers"] < 1
    for name, order in permuted((LAYERS, HEADS), 60, 0).items():
        assert found.p_value[name] == naive_test(seen, definition, order)


def test_permutations_within_layers_stay_there():
    orders = permuted((LAYERS, HEADS), 30, 1)
    for order in orders.values():
        assert (np.sort(order, axis=1) == np.arange(TOTAL)).all()
    layer = np.arange(TOTAL) // HEADS
    assert (layer[orders["within layers"]] == layer).all()
    assert not (layer[orders["all heads"]] == layer).all()


def test_many_transitions_are_significant_and_none_has_p_1():
    heads = {(layer, 3): EARLY for layer in range(LAYERS)}
    others = {(0, head): [0, 0, 0.5, 0.5, 0.5, 0.5] for head in range(8, 16)}
    seen = trajectories(heads | others, {head: LATE for head in heads})
    definition = Definition(final_share=0.05, early_share=0.05)
    found = find(seen, definition)
    assert found.count == 5 and found.p_value["all heads"] == 1 / 2001
    assert found.p_value["within layers"] < 0.01
    apart = {(layer, 9): LATE for layer in range(LAYERS)}
    found = find(trajectories(heads, apart), definition)
    assert found.count == 0 and set(found.p_value.values()) == {1.0}


def test_without_a_link_p_values_are_as_large_as_chance_makes_them():
    p_values = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        heads = rng.permutation(TOTAL)[:60].reshape(2, 30)
        induction, fv = ({divmod(int(i), HEADS) for i in half} for half in heads)
        # The two sets overlap as chance has it.
        induction |= {head for head in fv if rng.random() < 0.5}
        seen = trajectories(
            {head: EARLY for head in induction}, {head: LATE for head in fv}, seed
        )
        definition = Definition(final_share=0.2, early_share=0.45, overtakes=False)
        shuffled = rng.permutation(TOTAL)
        flat = seen.induction.reshape(len(STEPS), -1)[:, shuffled]
        seen = dataclasses.replace(seen, induction=flat.reshape(seen.induction.shape))
        p_values.append(find(seen, definition, 99).p_value["all heads"])
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(p_values) <= level) <= level + 0.08
    assert np.mean(p_values) > 0.4


def test_ranks_and_detection_are_those_of_a_step():
    scores = np.array([[[0.1, 0.4], [0.4, 0.0]], [[0.0, 0.1], [0.2, 0.3]]])
    assert ranks(scores).tolist() == [[3, 1, 2, 4], [4, 3, 2, 1]]
    errors = np.full_like(scores, 0.1)
    errors[1, 1] = [np.nan, 0]
    zeros = np.zeros((2, 1, 2, 2))
    seen = Trajectories(np.arange(2), scores, errors, 0.05, scores, errors, zeros, 9, 9)
    shown = seen.shows("induction")
    assert shown.tolist() == [[False, True, True, False], [False, False, False, True]]
    assert (shown == stands_out(scores, errors, 0.05, 9).reshape(2, 4)).all()
    assert [top_count(total, 0.02) for total in (48, 144, 384, 1024)] == [1, 3, 8, 21]


def test_the_dates_are_those_of_the_curves():
    heads = {(1, head): [0, 0, 0.1, 0.8, 0.8, 0.4] for head in range(2)}
    fv = {(2, head): [0, 0, 0, 0.01, 0.2, 0.3] for head in range(2)}
    seen = trajectories(heads, fv)
    found = emergence.find(seen)
    for reference in emergence.REFERENCES:
        induction, function = found.induction[reference], found.fv[reference]
        assert (induction.before, induction.step) == (4, 16)
        assert (induction.low, induction.high) == (16, 16)
        assert (function.before, function.step) == (16, 64)
        first = found.first[reference]
        assert first and first["induction"] == 1 and sum(first.values()) == 1
    top = emergence.curves(seen, samples=50)["induction"].top
    at = seen.induction[:, 1, :2].mean(axis=1)
    np.testing.assert_allclose(top.mean[2:], at[2:])
    assert (top.low <= top.high).all() and (top.low[3:] <= at[3:]).all()


def test_half_is_of_the_way_from_chance():
    curve = np.array([[0.2, 0.55, 0.9, 0.65], [0.2, 0.2, 0.32, 0.4]])
    assert emergence.half(curve, 0.2, "final").tolist() == [1, 2]
    assert emergence.half(curve, 0.2, "largest").tolist() == [1, 2]
    assert emergence.half(curve, 0.3, "largest").tolist() == [2, 3]


def test_a_fall_at_the_end_moves_the_date_of_the_final_value_only():
    curve = np.array([[0.0, 0.3, 1.0, 0.5]])
    assert emergence.half(curve, 0.0, "final") == 1
    assert emergence.half(curve, 0.0, "largest") == 2


def test_noise_has_no_date_and_says_why():
    found = emergence.find(trajectories({(1, 2): LATE}))
    date = found.fv["final"]
    assert date.step is None and "no head stands out" in date.reason
    assert found.induction["final"].step == 64 and found.first["final"] is None


@pytest.mark.parametrize("seed", range(20))
def test_the_top_of_noise_is_no_head(seed):
    """Noise passes half of a weak FV head from the first step on, and is none."""
    weak = 5 * NOISE / 2 * np.array([0, 0, 0, 0, 0, 1])
    heads = {(1, head): [0, 0, 0.1, 0.4, 0.4, 0.4] for head in range(2)}
    seen = trajectories(heads, {(3, head): weak for head in range(2)}, seed)
    found = emergence.find(seen)
    if found.fv["final"].step is not None:
        assert found.fv["final"].step == 256
        first = found.first["final"]
        assert first and first["fv"] == 0 and first["induction"] < 0.975


def test_heads_that_do_not_stand_out_are_no_fv_heads():
    found = find(trajectories({(2, 7): EARLY} | OTHERS), EXACT, permutations=10)
    assert found.shown == 0 and not any(one.stands_out for one in found.followed)
    told = {"emergence": dataclasses.asdict(emergence.find(one())), "steps": []}
    run = Run(Path("run"), {"dynamics": told | {"transitions": found.to_dict()}}, {})
    with pytest.raises(Untested, match="No FV head stands out"):
        fv_heads_were_induction_heads(run, Rules())
    assert "none to follow" in turned(found.to_dict())


def test_an_undecided_order_is_said_to_be_one():
    same = [0, 0, 0.1, 0.4, 0.4, 0.4]
    heads = {(1, head): same for head in range(2)}
    found = emergence.find(trajectories(heads, heads))
    first = found.first["final"]
    assert first and first["neither"] == 1


def test_one_task_has_an_interval_of_errors():
    seen = trajectories({}, {(1, 1): LATE})
    seen = dataclasses.replace(seen, fv_effects=seen.fv_effects[:, :1])
    top = emergence.curves(seen, samples=100)["function_vector"].top
    assert (top.high > top.low).all()
