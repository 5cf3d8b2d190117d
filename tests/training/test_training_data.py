"""Sources that draw their windows: determinism and what their windows promise."""

import itertools
import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxheads.errors import UserError
from jaxheads.training.data.automata import Family
from jaxheads.training.data.function_mixture import (
    COPYING,
    FUNCTION,
    TEXT,
    FunctionMixture,
)
from jaxheads.training.data.languages import RegularLanguages
from jaxheads.training.data.repeats import RepeatedTokens
from jaxheads.training.data.successors import FixedSuccessors
from jaxheads.training.data.windows import (
    EVALUATION_STREAM,
    integers,
    seen_bigrams,
    uniforms,
    without_replacement,
)
from jaxheads.training.objectives import kept_targets

SOURCES = {
    "repeats": RepeatedTokens(11, 29, 3, 7),
    "repeats-distinct-bos": RepeatedTokens(11, 29, 3, 7, distinct=True, bos_id=4),
    "successors": FixedSuccessors(23, 31),
    "successors-bos": FixedSuccessors(23, 31, bos_id=0),
    "mixture": FunctionMixture(61, 9, 4, 4, 13, 3, text_share=0.3, copying_share=0.3),
    "mixture-plain": FunctionMixture(
        53, 40, 0, 4, 7, 2, text_share=0.3, copying_share=0.3, bos=False
    ),
    "languages": RegularLanguages(
        47, Family(training=20, test=5), longest=9, fewest_strings=2, most_strings=6
    ),
}

CONTENT = {
    "repeats": "54bfef471b08",
    "repeats-distinct-bos": "02dfb39a81b4",
    "successors": "e9deabc04328",
    "successors-bos": "490225742da4",
    "mixture": "615b2c36adfa",
    "mixture-plain": "8bf82b18f595",
    "languages": "19a6a1fc97af",
}
"""Hashes of windows: a run goes on with the same data in every version of numpy."""


@pytest.fixture(params=SOURCES)
def source(request):
    return SOURCES[request.param]


def parts(windows):
    """Every array of a batch, by name."""
    return {
        "tokens": windows.tokens,
        "segments": windows.segments,
        "scored": windows.scored,
        **windows.info,
    }


def test_a_batch_has_the_shapes_that_training_expects(source):
    windows = source.batch(3, 5)
    length = source.sequence_length
    assert windows.tokens.shape == (5, length + 1)
    assert windows.tokens.dtype == np.int32
    assert windows.inputs.shape == windows.targets.shape == (5, length)
    assert windows.scored.shape == (5, length) and windows.scored.dtype == bool
    assert windows.tokens.min() >= 0 and windows.tokens.max() < source.vocab_size
    assert all(len(values) == 5 for values in windows.info.values())


def test_a_row_does_not_depend_on_the_batch_size_or_on_earlier_batches(source):
    whole = parts(source.batch(1, 6, stream=2))
    for size in (2, 3):
        pieces = [
            parts(source.batch(6 // size + piece, size, stream=2))
            for piece in reversed(range(6 // size))
        ]
        for name, values in whole.items():
            if values is not None:
                joined = np.concatenate([piece[name] for piece in reversed(pieces)])
                np.testing.assert_array_equal(values, joined)


def test_streams_and_seeds_give_other_windows(source):
    others = [
        source.batch(0, 4).tokens,
        source.batch(1, 4).tokens,
        source.batch(0, 4, stream=1).tokens,
        source.batch(0, 4, stream=EVALUATION_STREAM).tokens,
        type(source)(**{**vars_of(source), "seed": 1}).batch(0, 4).tokens,
    ]
    for first, second in itertools.combinations(others, 2):
        assert (first != second).any(axis=1).all()


def vars_of(source):
    """Its fields."""
    return {name: getattr(source, name) for name in source.__dataclass_fields__}


@pytest.mark.parametrize("name", SOURCES)
def test_the_windows_of_a_seed_never_change(name):
    description = SOURCES[name].describe()
    assert json.loads(json.dumps(description)) == description
    assert description["sha256"][:12] == CONTENT[name]


def test_a_batch_that_is_none_is_refused(source):
    with pytest.raises(UserError, match="number -1"):
        source.batch(-1, 4)
    with pytest.raises(UserError, match="0 rows"):
        source.batch(0, 0)


# Draws.


def test_uniform_numbers_fill_the_unit_interval_evenly():
    drawn = uniforms("test", 0, 0, 0, 500, 10)
    assert drawn.shape == (500, 10) and drawn.min() >= 0 and drawn.max() < 1
    counts = np.histogram(drawn, bins=10, range=(0, 1))[0]
    assert ((counts - 500) ** 2 / 500).sum() < 28  # chi-squared, 9 degrees, p < 0.001
    np.testing.assert_array_equal(uniforms("test", 0, 0, 7, 2, 10), drawn[7:9])
    assert (
        abs(np.corrcoef(drawn[:, 0], uniforms("test", 0, 1, 0, 500, 1)[:, 0])[0, 1])
        < 0.15
    )
    assert set(integers(drawn, -1, 1).ravel()) == {-1, 0, 1}


def test_draws_without_replacement_are_uniform():
    drawn = without_replacement(uniforms("test", 0, 0, 0, 1200, 2), 3)
    pairs, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(pairs) == 6 and (pairs[:, 0] != pairs[:, 1]).all()
    assert ((counts - 200) ** 2 / 200).sum() < 20.5  # 5 degrees, p < 0.001
    whole = without_replacement(uniforms("test", 0, 0, 0, 9, 5), 5)
    np.testing.assert_array_equal(np.sort(whole), np.tile(np.arange(5), (9, 1)))


# Bigrams.


def brute_seen(tokens):
    """Compare every pair with every earlier one."""
    seen = np.zeros((len(tokens), tokens.shape[1] - 1), bool)
    for b, row in enumerate(tokens.tolist()):
        pairs = list(itertools.pairwise(row))
        for t, pair in enumerate(pairs):
            seen[b, t] = pair in pairs[:t]
    return seen


def test_seen_bigrams_are_those_that_hapax_drops():
    tokens = np.random.default_rng(0).integers(0, 5, (7, 30)).astype(np.int32)
    seen = seen_bigrams(tokens)
    np.testing.assert_array_equal(seen, brute_seen(tokens))
    kept = kept_targets(
        "hapax", jnp.asarray(tokens), None, jnp.ones_like(tokens[:, 1:], bool)
    )
    np.testing.assert_array_equal(~seen, kept)


# Repeated tokens.


@pytest.mark.parametrize("name", ["repeats", "repeats-distinct-bos"])
def test_tokens_repeat_with_the_period_of_their_window(name):
    source = SOURCES[name]
    windows = source.batch(0, 40)
    begins = int(source.bos_id is not None)
    for row, period, start, copied in zip(
        windows.tokens,
        windows.info["period"],
        windows.info["start"],
        windows.info["copied"],
        strict=True,
    ):
        drawn = row[begins:]
        assert 3 <= period <= 7
        np.testing.assert_array_equal(drawn[period:], drawn[:-period])
        # Target t is token t + 1; the first repetition is token begins + period.
        assert start == begins + period - 1
        assert copied.tolist() == [t > start for t in range(29)]
        if source.distinct:
            assert len(set(drawn[:period].tolist())) == period
    assert set(windows.info["period"].tolist()) == {3, 4, 5, 6, 7}
    if begins:
        assert (windows.tokens[:, 0] == 4).all() and (windows.tokens[:, 1:] != 4).all()
    # Every other id occurs.
    assert len(np.unique(windows.tokens)) == source.vocab_size


def test_a_period_may_be_fixed_or_longer_than_a_window():
    fixed = RepeatedTokens(8, 20, 5, 5).batch(0, 9)
    assert (fixed.info["period"] == 5).all()
    long = RepeatedTokens(8, 20, 50, 60).batch(0, 9)
    assert (long.info["start"] == 20).all() and not long.info["copied"].any()


# Fixed successors.


@pytest.mark.parametrize("name", ["successors", "successors-bos"])
def test_a_token_that_comes_again_keeps_its_successor(name):
    windows = SOURCES[name].batch(0, 60)
    length = SOURCES[name].sequence_length
    for row, predictable, first in zip(
        windows.tokens.tolist(),
        windows.info["predictable"],
        windows.info["first"],
        strict=True,
    ):
        successor = {}
        fixed = []
        for before, after in itertools.pairwise(row):
            fixed.append(before in successor)
            assert successor.setdefault(before, after) == after
        assert predictable.tolist() == fixed
        assert first == (fixed.index(True) if any(fixed) else length)
    assert len(np.unique(windows.info["first"])) > 5


def test_nothing_is_predictable_where_no_token_comes_again():
    info = FixedSuccessors(50_000, 8).batch(0, 9).info
    assert (info["first"] == 8).all() and not info["predictable"].any()


def test_successors_are_those_of_every_random_map():
    # A start and a map of 2 tokens: 8 in all, two of which give 000, two 111.
    windows = FixedSuccessors(2, 2).batch(0, 4000)
    rows, counts = np.unique(windows.tokens, axis=0, return_counts=True)
    assert rows.tolist() == [
        [0, 0, 0],
        [0, 1, 0],
        [0, 1, 1],
        [1, 0, 0],
        [1, 0, 1],
        [1, 1, 1],
    ]
    np.testing.assert_allclose(
        counts / 4000, np.array([2, 1, 1, 1, 1, 2]) / 8, atol=0.03
    )


# The mixture.


def test_answers_follow_their_function_and_occur_nowhere_before():
    for name in ("mixture", "mixture-plain"):
        source = SOURCES[name]
        windows = source.batch(0, 50)
        info = windows.info
        np.testing.assert_array_equal(info["copyable"], brute_seen(windows.tokens))
        np.testing.assert_array_equal(
            info["plain"], ~info["answer"] & ~info["copyable"]
        )
        assert not (info["answer"] & info["copyable"]).any()
        assert info["answer"].any() and info["copyable"].any() and info["plain"].any()
        for b, row in enumerate(windows.tokens.tolist()):
            table = source.functions[info["function"][b]].tolist()
            shots = 0
            for t in range(source.sequence_length):
                before, after = row[t], row[t + 1]
                is_answer = source.inputs <= after < 2 * source.inputs
                # Without BOS the first target's input may be all that a pair has left.
                assert info["answer"][b, t] == is_answer
                assert (info["kind"][b, t] == FUNCTION) == (after < 2 * source.inputs)
                if is_answer:
                    assert after == source.inputs + table[before]
                    assert after not in row[: t + 1]
                    assert info["shot"][b, t] == shots
                    shots += 1
                else:
                    assert info["shot"][b, t] == -1


def test_the_functions_are_shifts_and_permutations():
    source = FunctionMixture(inputs=9, shifts=2, tables=3)
    functions = source.functions
    assert functions.shape == (5, 9)
    np.testing.assert_array_equal(functions[0], [1, 2, 3, 4, 5, 6, 7, 8, 0])
    np.testing.assert_array_equal(functions[1], [2, 3, 4, 5, 6, 7, 8, 0, 1])
    for row in functions:
        assert sorted(row.tolist()) == list(range(9))
    assert len(np.unique(functions, axis=0)) == 5
    assert set(source.batch(0, 60).info["function"].tolist()) == set(range(5))


def test_text_walks_along_the_chain():
    source = FunctionMixture(
        101, text_tokens=13, successors=3, text_share=1, copying_share=0, bos=False
    )
    windows = source.batch(0, 40)
    assert (windows.info["kind"] == TEXT).all()
    tokens = windows.tokens - 2 * source.inputs
    ranks = [
        source.chain[before].tolist().index(after)
        for row in tokens.tolist()
        for before, after in itertools.pairwise(row)
    ]
    shares = np.bincount(ranks) / len(ranks)
    np.testing.assert_allclose(shares, np.array([6, 3, 2]) / 11, atol=0.03)


def test_copying_repeats_within_its_block():
    source = FunctionMixture(
        64,
        text_share=0,
        copying_share=1,
        shortest_block=16,
        longest_block=16,
        shortest_period=3,
        longest_period=5,
    )
    windows = source.batch(0, 30)
    assert (windows.info["kind"] == COPYING).all()
    lags = set()
    for row in windows.tokens[:, 1:].reshape(-1, 16):
        lag = next(lag for lag in (3, 4, 5) if (row[lag:] == row[:-lag]).all())
        lags.add(lag)
    assert lags == {3, 4, 5}


def test_blocks_have_their_lengths_and_inputs_may_be_used_up():
    source = FunctionMixture(
        90, inputs=5, shifts=1, text_share=0, copying_share=0, bos=False
    )
    info = source.batch(0, 6).info
    assert (info["kind"][:, :9] == FUNCTION).all() and (
        info["kind"][:, 9:] == TEXT
    ).all()
    assert (info["answer"].sum(axis=1) == 5).all()
    kinds = (
        FunctionMixture(300, 200, shortest_block=6, longest_block=8).batch(0, 20).info
    )
    borders = np.diff(kinds["kind"], axis=1) != 0
    lengths = [np.diff(np.flatnonzero(row)) for row in borders]
    # Neighbours of one kind look like one block: sums of lengths 6 and 8.
    assert {6, 8} <= set(np.concatenate(lengths).tolist())
    assert min(np.concatenate(lengths)) >= 6 and not (np.concatenate(lengths) % 2).any()


# What cannot be.


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: RepeatedTokens(8, 20, 0, 5), "range from 1 on, but are 0 and 5"),
        (lambda: RepeatedTokens(8, 20, 6, 5), "but are 6 and 5"),
        (lambda: RepeatedTokens(8, 1), "sequence_length must be 2 or more"),
        (lambda: RepeatedTokens(8, 20, 2, 9, distinct=True), "9 tokens to draw from"),
        (lambda: RepeatedTokens(8, 20, 2, 3, bos_id=8), "bos_id must be an id below"),
        (lambda: FixedSuccessors(2, 20, bos_id=0), "2 tokens to draw from"),
        (lambda: FunctionMixture(shortest_block=7), "shortest_block must be even"),
        (lambda: FunctionMixture(shifts=16), "fewer shifts than the 16 inputs"),
        (lambda: FunctionMixture(shifts=0, tables=0), "1 function or more"),
        (lambda: FunctionMixture(successors=65), "at most text_tokens 64"),
        (lambda: FunctionMixture(text_share=0.8), "at most 1 together"),
        (lambda: RegularLanguages(split="dev"), '"train" or "test"'),  # type: ignore[arg-type]
        (lambda: RegularLanguages(shortest=3, longest=2), "but are 3 and 2"),
        (lambda: Family(fewest_states=3), "fewest_states must be 4 or more"),
        (lambda: Family(most_letters=19), "at most symbols 18"),
    ],
)
def test_settings_that_cannot_be_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()
