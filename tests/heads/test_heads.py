"""Rankings, sets of heads and their random controls."""

import dataclasses
import itertools

import numpy as np
import pytest

from jaxheads.errors import UserError
from jaxheads.heads import (
    count_of,
    exclude,
    from_indices,
    from_samples,
    head_names,
    layer_matched,
    order,
    pairs,
    parse_heads,
    prefixes,
    singles,
    top,
    top_fraction,
    uniform,
)
from jaxheads.heads.sets import SetPlan, largest_changes

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
    ("fraction", "total", "down", "up"),
    [
        (0, 270, 0, 0),
        (0.001, 270, 1, 1),
        (0.02, 270, 5, 6),
        (0.05, 270, 13, 14),
        (0.07, 100, 7, 7),
        (0.29, 100, 29, 29),
    ],
)
def test_a_share_of_heads_is_rounded_as_the_papers_code_or_its_figures(
    fraction, total, down, up
):
    assert count_of(fraction, total) == count_of(fraction, total, "down") == down
    assert count_of(fraction, total, "up") == up
    assert count_of(fraction, total, least=0) == int(fraction * total + 1e-9)


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


def test_more_random_heads_than_there_are_is_a_mistake():
    with pytest.raises(UserError, match="36 heads were asked for, but there are 35"):
        uniform(np.random.default_rng(0), (7, 5), 36)


def scores_and_set(seed: int):
    """Scores with ties and both signs, and a random set of them."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(-9, 10, (4, 7)) / 2
    return scores, uniform(rng, scores.shape, 6)


KEYS = {
    "largest": lambda score: -score,
    "smallest": lambda score: score,
    "magnitude": lambda score: -abs(score),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("by", KEYS)
def test_order_is_pythons_stable_sort(seed, by):
    scores, _ = scores_and_set(seed)
    flat = scores.ravel().tolist()
    assert order(scores, by).tolist() == sorted(
        range(len(flat)), key=lambda index: KEYS[by](flat[index])
    )


@pytest.mark.parametrize("by", KEYS)
def test_top_sets_are_the_beginnings_of_the_order_without_excluded_heads(by):
    scores, excluding = scores_and_set(3)
    free = [i for i in order(scores, by).tolist() if not excluding.ravel()[i]]
    nested = prefixes(scores, excluding=excluding, by=by)
    assert nested.shape == (22, 4, 7)
    for n, heads in enumerate(nested, start=1):
        assert np.flatnonzero(heads).tolist() == sorted(free[:n])
        assert (heads == top(scores, n, excluding, by)).all()
        assert not (heads & excluding).any()
    assert (nested[1:] >= nested[:-1]).all(), "each set holds the smaller ones"
    assert (nested[-1] == ~excluding).all()


def test_a_head_with_an_infinite_score_is_not_taken_for_an_excluded_one():
    scores = np.array([[5.0, -np.inf, 1.0]])
    excluding = np.array([[True, False, False]])
    assert top(scores, 2, excluding).tolist() == [[False, True, True]]


def test_sizes_come_as_counts_or_as_fractions_of_all_heads():
    scores, excluding = scores_and_set(4)
    fractions = (0.0, 0.01, 0.25, 0.5)
    counts = [count_of(fraction, 28) for fraction in fractions]
    by_fraction = prefixes(scores, fractions=fractions, excluding=excluding)
    assert by_fraction.sum((1, 2)).tolist() == counts == [0, 1, 7, 14]
    assert (by_fraction == prefixes(scores, counts, excluding=excluding)).all()
    assert (top_fraction(scores, 0.25, excluding) == by_fraction[2]).all()
    assert prefixes(scores, []).shape == (0, 4, 7)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda s: top(s, -1), "0 or more, not -1"),
        (lambda s: prefixes(s, [1, 29]), "29 heads were asked for, but only 28 of 28"),
        (lambda s: top_fraction(s, 1.5), "between 0 and 1, not at 1.5"),
        (lambda s: top(s, 1, np.ones((2, 2), bool)), r"shape \[L, H\] = \[4, 7\]"),
        (lambda s: exclude(s > 3, s > 2), r"no head is left of a set of \d+ after"),
        (lambda s: exclude(s > 3, np.ones(3, bool)), r"but have \[3\]"),
    ],
)
def test_sets_that_cannot_be_made_are_refused(make, sentence):
    with pytest.raises(UserError, match=sentence):
        make(scores_and_set(0)[0])


def test_exclusion_is_the_difference_of_sets():
    _, a = scores_and_set(5)
    _, b = scores_and_set(6)
    left = exclude(a, b)
    assert (left == (a & ~b)).all() and not (left & b).any()
    assert ((left | (a & b)) == a).all()


def test_singles_make_up_the_set():
    _, heads = scores_and_set(7)
    alone = singles(heads)
    assert alone.shape == (6, 4, 7)
    assert (alone.sum((1, 2)) == 1).all() and (alone.any(0) == heads).all()
    every = singles(np.ones((4, 7), bool))
    assert (every.reshape(28, 28) == np.eye(28, dtype=bool)).all()


def test_pairs_are_all_combinations_of_two_heads():
    _, heads = scores_and_set(8)
    names = head_names(heads)
    made = from_indices(pairs(heads), heads.shape)
    assert [tuple(head_names(pair)) for pair in made] == list(
        itertools.combinations(names, 2)
    )
    assert pairs(heads).dtype == np.int32
    assert pairs(singles(heads)[0]).shape == (0, 2)
    assert from_indices(pairs(singles(heads)[0]), heads.shape).shape == (0, 4, 7)


def test_all_pairs_of_a_large_model_are_small_as_indices():
    every = pairs(np.ones((32, 32), bool))
    assert len(every) == 523_776 and every.nbytes < 4.2e6
    chunk = from_indices(every[-100:], (32, 32))
    assert (chunk.sum((1, 2)) == 2).all() and chunk[-1, 31, 30:].all()


def test_indices_of_no_head_are_a_mistake():
    for wrong in (-1, 28):
        with pytest.raises(ValueError, match="lie between 0 and 27"):
            from_indices(np.array([[0, wrong]]), (4, 7))


def test_names_and_sets_are_each_others_inverse():
    _, heads = scores_and_set(9)
    assert (parse_heads(head_names(heads), heads.shape) == heads).all()
    assert head_names(parse_heads(["1.0", "0.2"], (2, 3))) == ["0.2", "1.0"]


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


def test_the_claims_share_has_more_random_sets():
    scores, _ = sets()
    plan = SetPlan(
        ("function_vector", "induction"),
        (0.01, 0.05, 0.2),
        0.02,
        keep_only=(0.03, 0.1),
        draws=6,
        matched_to=("function_vector",),
        draws_elsewhere=2,
    )
    counts: dict[tuple, int] = {}
    for described, _ in plan.build(scores):
        if described["ranking"] == "random":
            at = (described["mode"], described["fraction"])
            counts[at] = counts.get(at, 0) + 1
    assert counts == {
        **{("uniform", f): n for f, n in ((0.01, 2), (0.05, 6), (0.2, 2))},
        **{("layer_matched", f): n for f, n in ((0.01, 2), (0.05, 6), (0.2, 2))},
        **{("keep_only_random", f): n for f, n in ((0.03, 6), (0.1, 2))},
    }
    fewer = dataclasses.replace(plan, draws=1).build(scores)
    assert {d["draw"] for d, _ in fewer} == {0}
    # A draw is the same however many others there are.
    named = {d["name"]: heads for d, heads in plan.build(scores)}
    same = [(d, heads) for d, heads in fewer if d["ranking"] == "random"]
    assert len(same) == 8
    assert all((named[d["name"]] == heads).all() for d, heads in same)


def test_sets_are_the_same_each_time():
    for (a, heads_a), (b, heads_b) in zip(sets()[1], sets()[1], strict=True):
        assert a == b and (heads_a == heads_b).all()


def test_a_set_that_changes_nothing_is_an_error():
    _, built = sets()
    changes = np.ones((10, 10))
    assert largest_changes(built, changes, "")[0] == 0
    with pytest.raises(UserError, match="but changes nothing: what replaces them"):
        largest_changes(built, np.zeros((10, 10)), "at the last position")
