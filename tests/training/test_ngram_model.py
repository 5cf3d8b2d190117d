"""N-grams of a prompt against a recursion over strings, and the figures with them."""

import jax
import numpy as np
import pytest
from families import random_params

from jaxheads.models import toy
from jaxheads.training.config import EvidenceConfig
from jaxheads.training.data.automata import Family
from jaxheads.training.data.languages import (
    RegularLanguages,
    distance_between,
    legal_next_symbol,
    ngram_predictions,
    total_variation,
)
from jaxheads.training.held_out import run_windows
from jaxheads.training.measures import figure_dims, figure_unit, make_evidence

pytestmark = pytest.mark.usefixtures("quick_compilation")

SMALL = Family(
    symbols=5, fewest_states=4, most_states=6, fewest_letters=3, most_letters=4,
    training=30, test=10,
)  # fmt: skip
SOURCE = RegularLanguages(60, SMALL, longest=9, fewest_strings=3, most_strings=8)


def backed_off(strings, n, seen):
    """p_n of each seen symbol after the last, unfinished, of some strings: a dict."""
    if n == 1:
        counts = {v: sum(string.count(v) for string in strings) for v in seen}
        return {v: counts[v] / sum(counts.values()) for v in seen}
    padded = ["^" * (n - 1) + string for string in strings]
    context = padded[-1][-(n - 1) :]
    times = lambda word: sum(
        string[i : i + len(word)] == word
        for string in padded
        for i in range(len(string))
    )
    found = {v: times(context + v) / times(context) for v in seen}
    new = [v for v in seen if not found[v]]
    left, shorter = 1 - sum(found.values()), backed_off(strings, n - 1, seen)
    return found | {
        v: left * shorter[v] / sum(shorter[other] for other in new) for v in new
    }


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_predictions_are_those_of_a_recursion_over_strings(order):
    windows = SOURCE.batch(1, 4)
    found = ngram_predictions(windows.tokens, 5, SOURCE.separator, order)
    assert found.shape == (4, 60, 5)
    backs_off = 0
    for row, at in np.argwhere(windows.scored):
        text = "".join("abcde|."[token] for token in windows.tokens[row, : at + 1])
        seen = sorted(set(text) - {"|"})
        wanted = backed_off(text.split("|"), order, seen)
        total = sum(wanted.values())  # less than 1 where nothing takes what is left
        expected = [wanted.get(v, 0) / total for v in "abcde"]
        np.testing.assert_allclose(found[row, at], expected, atol=1e-12)
        backs_off += total > 1 - 1e-9
    assert backs_off > 50


def test_a_prompt_by_hand():
    tokens = np.array([[0, 1, 2, 0, 1, 0]])  # ab|ab a
    found = ngram_predictions(tokens, 2, 2, 2)[0]
    np.testing.assert_allclose(found[0], [1, 0])  # b was not seen yet
    # After b, which nothing has followed, all is left to p_1: two of each.
    np.testing.assert_allclose(found[4], [0.5, 0.5])
    # After the beginning: of two strings one began, with a; b gets what is left.
    np.testing.assert_allclose(found[2], [0.5, 0.5])
    # After a: of its two places one was followed, by b; a gets what is left.
    np.testing.assert_allclose(found[3], [0.5, 0.5])


def test_an_order_below_one_is_refused():
    with pytest.raises(ValueError, match="order must be 1 or more"):
        ngram_predictions(np.zeros((1, 3), int), 2, 2, 0)


def test_longer_ngrams_come_nearer_to_the_automaton():
    source = RegularLanguages(250, Family(training=60, test=1))
    windows = source.batch(0, 6)
    late = windows.scored & (windows.info["string"] >= 4)
    given = [ngram_predictions(windows.tokens, 18, 18, order) for order in (1, 2, 3)]
    distances = [
        total_variation(p, windows, source.automata)[late].mean() for p in given
    ]
    assert distances[0] > distances[1] > distances[2] and distances[2] < 0.3
    legal = legal_next_symbol(given[2].argmax(axis=2), windows, source.automata)
    assert legal[late].mean() > 0.9


def test_a_distance_is_half_the_sum_of_differences_and_symmetric():
    windows = SOURCE.batch(2, 3)
    rng = np.random.default_rng(0)
    one, other = rng.dirichlet(np.ones(5), (2, 3, 60))
    found = distance_between(one, other, windows)
    assert np.isnan(found[~windows.scored]).all()
    np.testing.assert_array_equal(found, distance_between(other, one, windows))
    wider = np.pad(one, [(0, 0), (0, 0), (0, 2)])
    np.testing.assert_array_equal(found, distance_between(wider, other, windows))
    for row, at in np.argwhere(windows.scored)[:20]:
        parts = [abs(a - b) for a, b in zip(one[row, at], other[row, at], strict=True)]
        np.testing.assert_allclose(found[row, at], sum(parts) / 2)


def test_evidence_of_languages_stands_beside_that_of_ngrams():
    model = toy.Config(1, 10, 2, 4, SOURCE.vocab_size, 60, ngram_orders=(1,))
    config = EvidenceConfig(
        evidence_samples=12,
        probe_sequences=2,
        probe_period=3,
        probe_repeats=3,
        repetitions=2,
    )
    evidence = make_evidence(config, model, SOURCE)
    each = [random_params(model, seed) for seed in range(2)]
    params = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    found = evidence.measure(params)
    held = evidence.held_out
    windows, automata = held.windows, SOURCE.automata
    seen = run_windows(params, held, model)
    ngrams = ngram_predictions(windows.tokens, 5, SOURCE.separator)
    of_models = [
        (seen.predicted[n], np.asarray(seen.probabilities)[n]) for n in range(2)
    ]
    strings = windows.info["string"]
    for end, pairs in (
        ("", of_models),
        ("_of_ngrams", [(ngrams.argmax(2), ngrams)] * 2),
    ):
        for n, (predicted, probabilities) in enumerate(pairs):
            for name, values in (
                ("legal_next_symbol", legal_next_symbol(predicted, windows, automata)),
                ("total_variation", total_variation(probabilities, windows, automata)),
            ):
                mean = values[windows.scored].mean()
                np.testing.assert_allclose(found[name + end][n], mean, rtol=1e-5)
                by_string = found[f"{name}_by_string{end}"][n]
                assert len(by_string) == strings.max() + 1 > 3
                for string, share in enumerate(by_string):
                    group = values[windows.scored & (strings == string)]
                    np.testing.assert_allclose(share, group.mean(), rtol=1e-5)
    for n, (_, probabilities) in enumerate(of_models):
        apart = distance_between(probabilities, ngrams, windows)[windows.scored].mean()
        np.testing.assert_allclose(found["total_variation_from_ngrams"][n], apart, 1e-5)
    named = [name for name in found if "legal" in name or "variation" in name]
    assert len(named) == 9
    for name in named:
        assert len(figure_dims(name)) == found[name].ndim - 1
        assert figure_unit(name)
