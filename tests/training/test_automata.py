"""Random automata, prompts of their strings, and the figures of a model on them."""

import itertools

import numpy as np
import pytest

from jaxheads.errors import UserError
from jaxheads.training.data.automata import (
    NONE,
    Automata,
    Family,
    _draw as draw_raw,
    canonical_forms,
    draw_automata,
    equivalent_states,
)
from jaxheads.training.data.languages import (
    RegularLanguages,
    legal_next_symbol,
    total_variation,
)

SMALL = Family(
    symbols=5, fewest_states=4, most_states=6, fewest_letters=3, most_letters=4,
    training=30, test=10,
)  # fmt: skip


def accepts(edges, state, string):
    """Walk along a string."""
    for symbol in string:
        state = edges[state, symbol]
        if state == NONE:
            return False
    return True


def language(edges, state, longest):
    """All strings up to a length that are accepted from a state."""
    return frozenset(
        string
        for length in range(longest + 1)
        for string in itertools.product(range(edges.shape[1]), repeat=length)
        if accepts(edges, state, string)
    )


@pytest.fixture(scope="module")
def random_automata():
    """Automata over 3 symbols with few distinctions: many states are equivalent."""
    random = np.random.default_rng(0)
    edges = random.integers(0, 4, (40, 4, 3)).astype(np.int16)
    edges[random.random((40, 4, 3)) < 0.3] = NONE
    edges[:20, :, 2] = NONE
    edges[:10, :, 1] = NONE
    return edges


def test_equivalent_states_accept_the_same_strings(random_automata):
    same = equivalent_states(random_automata)
    merged = 0
    for edges, relation in zip(random_automata, same, strict=True):
        # States of 4 that differ at all differ by a string of 3 symbols or 4.
        languages = [language(edges, state, 4) for state in range(4)]
        for i, j in itertools.product(range(4), repeat=2):
            assert relation[i, j] == (languages[i] == languages[j])
            merged += i < j and relation[i, j]
    assert merged > 10


def test_the_canonical_form_keeps_the_language_and_is_minimal(random_automata):
    forms = canonical_forms(random_automata)
    for edges, form in zip(random_automata, forms, strict=True):
        assert language(edges, 0, 4) == language(form, 0, 4)
        used = 1 + max(form.max(), 0)
        assert (form[used:] == NONE).all()
        states = [language(form, state, 4) for state in range(used)]
        assert len(set(states)) == used


def test_the_canonical_form_is_one_for_each_language(random_automata):
    random = np.random.default_rng(1)
    renamed = np.full_like(random_automata, NONE)
    for n, edges in enumerate(random_automata):
        name = np.concatenate([[0], 1 + random.permutation(3)])
        renamed[n, name] = np.where(edges == NONE, NONE, name[edges])
    np.testing.assert_array_equal(
        canonical_forms(renamed), canonical_forms(random_automata)
    )
    forms = [form.tobytes() for form in canonical_forms(random_automata)]
    languages = [language(edges, 0, 5) for edges in random_automata]
    for i, j in itertools.combinations(range(40), 2):
        assert (forms[i] == forms[j]) == (languages[i] == languages[j])


def test_automata_are_drawn_as_the_benchmark_says():
    edges = draw_raw(Family(), 0, 600)
    legal = edges != NONE
    states = legal.any(axis=2).sum(axis=1)
    assert set(states.tolist()) == set(range(4, 13))
    degree = legal.sum(axis=2)
    counts = np.bincount(degree.ravel())[1:]
    assert len(counts) == 3  # 1, 2 or 3 edges, alike often
    np.testing.assert_allclose(counts / counts.sum(), 1 / 3, atol=0.03)
    letters = legal.any(axis=1).sum(axis=1)
    assert letters.min() >= 2 and letters.max() > 14
    target = np.zeros((3, 3), int)
    for automaton, count in zip(edges, states, strict=True):
        for state in range(count):
            reached = automaton[state][automaton[state] != NONE].tolist()
            assert len(set(reached)) == len(reached) and state not in reached
            assert max(reached) < count
            if count == 4 and state == 3:
                for place in reached:
                    target[len(reached) - 1, place] += 1
    # Every other state is reached alike often, whatever the number of edges.
    assert (target.max(axis=1) < 3 * target.min(axis=1) + 6).all()


def test_training_and_test_languages_are_all_different():
    training, test = draw_automata(SMALL)
    assert (len(training), len(test)) == (30, 10)
    forms = [form.tobytes() for form in (*training.edges, *test.edges)]
    assert len(set(forms)) == 40
    again, _ = draw_automata(SMALL)
    np.testing.assert_array_equal(again.edges, training.edges)


def test_too_few_languages_are_counted():
    # One letter and one edge a state: only the language of all its repetitions.
    few = Family(1, 2, 3, 1, 1, most_edges=1, training=1, test=1)
    with pytest.raises(UserError, match=r"2 automata .* only 1 were found"):
        draw_automata(few)


def test_the_benchmarks_sizes_are_the_default():
    training, test = draw_automata(Family())
    assert (len(training), len(test)) == (5000, 500)
    assert training.edges.shape == (5000, 12, 18)
    assert RegularLanguages().vocab_size == 20


SOURCE = RegularLanguages(
    60, SMALL, shortest=2, longest=7, fewest_strings=4, most_strings=9
)


def strings_of(row, source):
    """Cut a window at its separators, padding off: [[symbol, ...], ...]."""
    text = [token for token in row.tolist() if token != source.padding]
    strings = [[]]
    for token in text:
        if token == source.separator:
            strings.append([])
        else:
            strings[-1].append(token)
    return strings


def test_a_prompt_holds_strings_of_its_automaton():
    windows = SOURCE.batch(0, 80)
    automata = SOURCE.automata
    numbers, lengths = set(), set()
    for b, row in enumerate(windows.tokens):
        edges = automata.edges[windows.info["automaton"][b]]
        full = SOURCE.padding not in row
        strings = strings_of(row, SOURCE)
        states, which = [], []
        for number, string in enumerate(strings):
            state = 0
            for symbol in string:
                states.append(int(state))
                which.append(number)
                state = edges[state, symbol]
                assert state != NONE
            states.append(-1)
            which.append(-1)
        states += [-1] * (len(row) - len(states))
        which += [-1] * (len(row) - len(which))
        np.testing.assert_array_equal(windows.info["state"][b], states[1 : len(row)])
        np.testing.assert_array_equal(windows.info["string"][b], which[1 : len(row)])
        if not full:
            assert (
                row.tolist().index(SOURCE.padding)
                == sum(map(len, strings)) + len(strings) - 1
            )
            numbers.add(len(strings))
            lengths |= set(map(len, strings))
    assert numbers == {4, 5, 6, 7, 8, 9}
    assert lengths == set(range(2, 8))
    np.testing.assert_array_equal(windows.scored, windows.targets < SMALL.symbols)


def test_a_state_gives_each_of_its_symbols_alike_often():
    source = RegularLanguages(90, Family(training=1, test=1))
    windows = source.batch(0, 300)
    state = windows.info["state"][windows.scored]
    symbol = windows.targets[windows.scored]
    counts = np.zeros((12, 18))
    np.add.at(counts, (state, symbol), 1)
    known = counts.sum(axis=1) > 400
    assert known.sum() > 2
    shares = counts[known] / counts[known].sum(axis=1, keepdims=True)
    wanted = source.automata.probabilities[0][known]
    np.testing.assert_allclose(shares, wanted, atol=0.08)
    assert ((shares > 0) == (wanted > 0)).all()


def test_the_splits_have_their_own_automata():
    test = RegularLanguages(60, SMALL, split="test")
    assert len(test.automata) == 10 and len(SOURCE.automata) == 30
    assert test.batch(0, 200).info["automaton"].max() == 9
    assert test.describe()["automata"] != SOURCE.describe()["automata"]


def test_figures_equal_those_of_a_walk():
    windows = SOURCE.batch(2, 6)
    random = np.random.default_rng(3)
    logits = random.normal(size=(6, 60, SOURCE.vocab_size + 2))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    predicted = probabilities.argmax(axis=2)
    legal = legal_next_symbol(predicted, windows, SOURCE.automata)
    distance = total_variation(probabilities, windows, SOURCE.automata)
    for b, row in enumerate(windows.tokens.tolist()):
        edges = SOURCE.automata.edges[windows.info["automaton"][b]]
        state = 0
        for t in range(60):
            state = 0 if row[t] >= SMALL.symbols else edges[state, row[t]]
            if row[t + 1] >= SMALL.symbols:
                assert not legal[b, t] and np.isnan(distance[b, t])
                continue
            nexts = [s for s in range(SMALL.symbols) if edges[state, s] != NONE]
            assert legal[b, t] == (predicted[b, t] in nexts)
            wanted = np.zeros(SOURCE.vocab_size + 2)
            wanted[nexts] = 1 / len(nexts)
            expected = np.abs(probabilities[b, t] - wanted).sum() / 2
            np.testing.assert_allclose(distance[b, t], expected, atol=1e-12)
    assert legal.any() and not legal[windows.scored].all()


def test_the_automaton_itself_is_perfect():
    windows = SOURCE.batch(0, 9)
    automata: Automata = SOURCE.automata
    own = automata.probabilities[
        windows.info["automaton"][:, None], windows.info["state"]
    ]
    perfect = np.pad(own, [(0, 0), (0, 0), (0, 2)])
    scored = windows.scored
    assert legal_next_symbol(perfect.argmax(axis=2), windows, automata)[scored].all()
    assert (total_variation(perfect, windows, automata)[scored] == 0).all()
    padded = np.zeros_like(perfect)
    padded[:, :, SOURCE.separator] = 1
    assert (total_variation(padded, windows, automata)[scored] == 1).all()
