"""Rankings, sets of heads and their random controls."""

import numpy as np
import pytest

from jaxheads.errors import UserError
from jaxheads.heads import (
    count_of,
    from_samples,
    layer_matched,
    parse_heads,
    top,
    uniform,
)
from jaxheads.sets import SetPlan, largest_changes

SCORES = np.array([[0.1, 0.9, -0.5], [0.9, 0.3, 0.2]])


def test_top_takes_the_largest_and_ties_go_to_the_earlier_head():
    assert top(SCORES, 1).tolist() == [[False, True, False], [False, False, False]]
    assert top(SCORES, 3).sum() == 3 and top(SCORES, 3)[1, 1]
    assert not top(SCORES, 0).any()


def test_top_leaves_out_excluded_heads_and_says_when_none_are_left():
    excluding = top(SCORES, 2)
    assert top(SCORES, 2, excluding).tolist() == [[False] * 3, [False, True, True]]
    with pytest.raises(UserError, match="5 heads were asked for, but only 4 of 6"):
        top(SCORES, 5, excluding)
    with pytest.raises(UserError, match="NaN"):
        top(np.full((2, 2), np.nan), 1)


@pytest.mark.parametrize(
    ("fraction", "total", "count"),
    [(0, 270, 0), (0.001, 270, 1), (0.05, 270, 13), (0.07, 100, 7), (0.29, 100, 29)],
)
def test_count_of_truncates_but_takes_one_at_least(fraction, total, count):
    assert count_of(fraction, total) == count


def test_from_samples_by_hand():
    mean, error = from_samples(np.array([[[1.0, 2.0, 6.0]]]))
    assert mean[0, 0] == 3
    np.testing.assert_allclose(error, np.sqrt(7 / 3))


def test_parse_heads():
    chosen = parse_heads(["1.0", "0.2"], (2, 3))
    assert np.argwhere(chosen).tolist() == [[0, 2], [1, 0]]


@pytest.mark.parametrize("name", ["2.0", "0.3", "0", "a.b", "-1.0", "0.1.2"])
def test_a_head_out_of_range_or_misspelt_is_named(name):
    with pytest.raises(UserError, match=name):
        parse_heads([name], (2, 3))


def test_random_sets_have_their_counts():
    rng = np.random.default_rng(0)
    heads = uniform(rng, (7, 5), 11)
    assert heads.sum() == 11
    matched = layer_matched(rng, heads)
    assert matched.sum(axis=1).tolist() == heads.sum(axis=1).tolist()


def sets(**changes):
    rng = np.random.default_rng(1)
    scores = {
        "function_vector": rng.normal(size=(10, 10)),
        "induction": rng.random((10, 10)),
    }
    plan = SetPlan(
        ("function_vector", "induction"),
        (0.05, 0.2),
        0.02,
        keep_only=(0.03,),
        draws=3,
        matched_to=("function_vector",),
    )
    return scores, plan.build(scores)


def test_every_kind_of_set_is_what_it_says():
    scores, built = sets()
    by_mode: dict[str, list] = {}
    for described, heads in built:
        by_mode.setdefault(described["mode"], []).append((described, heads))
        assert described["count"] == heads.sum()
    assert {mode: len(found) for mode, found in by_mode.items()} == {
        "clean": 1,
        "top": 4,
        "exclusion": 4,
        "keep_only": 2,
        "uniform": 6,
        "layer_matched": 6,
        "keep_only_random": 3,
    }
    for described, heads in by_mode["top"]:
        values = scores[described["ranking"]]
        assert values[heads].min() > values[~heads].max()
    for described, heads in by_mode["exclusion"]:
        other = {"function_vector": "induction", "induction": "function_vector"}
        excluded = top(scores[other[described["ranking"]]], 2)
        assert not (heads & excluded).any()
        assert heads.sum() == count_of(described["fraction"], 100)
    for described, heads in by_mode["keep_only"]:
        assert (~heads == top(scores[described["ranking"]], 3)).all()
    for described, heads in by_mode["layer_matched"]:
        of = top(scores["function_vector"], described["count"])
        assert (heads.sum(axis=1) == of.sum(axis=1)).all()
    draws = [heads for d, heads in by_mode["uniform"] if d["fraction"] == 0.2]
    assert not (draws[0] == draws[1]).all()


def test_sets_are_the_same_each_time():
    for (a, heads_a), (b, heads_b) in zip(sets()[1], sets()[1], strict=True):
        assert a == b and (heads_a == heads_b).all()


def test_a_set_that_changes_nothing_is_an_error():
    _, built = sets()
    changes = np.ones((10, 10))
    assert largest_changes(built, changes, "")[0] == 0
    with pytest.raises(RuntimeError, match="changes nothing"):
        largest_changes(built, np.zeros((10, 10)), "at the last position")
