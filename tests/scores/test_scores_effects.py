"""Copying effects, retrieval and relation index against loops over definitions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, Tiny

from jaxheads.engine.memory import shapes
from jaxheads.errors import UserError
from jaxheads.models import family
from jaxheads.models.ablation import Ablation
from jaxheads.models.forward import forward
from jaxheads.scores import copying_effect, relation_index, retrieval

pytestmark = pytest.mark.usefixtures("quick_compilation")


def families(first, *others):
    """One family in the fast tests, others in the slow ones."""
    return [first, *(pytest.param(name, marks=pytest.mark.slow) for name in others)]


@pytest.fixture(scope="module")
def some(request) -> Tiny:
    return Tiny(CONFIGS[request.param])


LONGEST = 32


def run(tiny, ids, **options):
    """One sequence, padded so that every length compiles once."""
    tokens = jnp.asarray([[*ids, *[0] * (LONGEST - len(ids))]])
    return forward(tiny.params, tokens, tiny.config, **options)


def logits_of(tiny, ids, ablation=None):
    """Logits [T, V] of one sequence by a whole forward."""
    out = run(tiny, ids, ablation=ablation)
    return np.asarray(out.logits[0], np.float64)[: len(ids)]


def softmax(logits):
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def patterns_of(tiny, ids):
    """Patterns [L, H, T, S] of one sequence."""
    out = run(tiny, ids, capture=("patterns",))
    return np.asarray(out.patterns)[:, 0, :, : len(ids), : len(ids)]


ENTITIES = [[11, 12], [13, 14], [5, 5, 6, 7]]


def test_copying_prompts_differ_before_the_newline_only():
    made = copying_effect.pairs(ENTITIES, np.arange(20, 36), 3, 0, seed=1, length=8)
    for row, entity in enumerate(ENTITIES):
        clean = made.clean[row, : made.lengths[row]].tolist()
        corrupted = made.corrupted[row, : made.lengths[row]].tolist()
        r = clean[1 : 9 - len(entity)]
        assert clean == [0, *r, *entity, 3, *r]
        assert corrupted[0] == 0 and corrupted[9:] == [3, *r]
        assert corrupted[1:9] != clean[1:9]
        assert made.entities[row].tolist() == entity[:2]
        assert not made.clean[row, made.lengths[row] :].any()
    again = copying_effect.pairs(ENTITIES, np.arange(20, 36), 3, 0, seed=1, length=8)
    np.testing.assert_array_equal(made.clean, again.clean)
    with pytest.raises(UserError, match="2 to 7 tokens"):
        copying_effect.pairs([[1]], np.arange(9), 3, None, seed=0, length=8)


@pytest.mark.parametrize(
    "some", families("llama-gqa", "toy-shifted", "gpt2"), indirect=True
)
@pytest.mark.slow
def test_copying_effects_equal_whole_forwards_of_patched_prompts(some):
    made = copying_effect.pairs(ENTITIES, np.arange(20, 36), 3, 0, seed=1, length=6)
    effects = copying_effect.effects(some.params, made, some.config, 20_000)
    layers, heads = some.config.num_layers, some.config.num_heads
    for b in range(len(ENTITIES)):
        e1, e2 = made.entities[b]
        n = int(made.lengths[b])
        clean = [*made.clean[b, :n].tolist(), int(e1)]
        corrupted = [*made.corrupted[b, :n].tolist(), int(e1)]
        captured = run(some, clean, capture=("heads",)).heads
        where = jnp.arange(LONGEST)[None] == n - 1
        before = softmax(logits_of(some, corrupted))
        for layer, head in [(0, 1), (layers - 1, heads - 1)]:
            keep = jnp.ones((layers, heads)).at[layer, head].set(0)
            patched = softmax(
                logits_of(some, corrupted, Ablation(keep, captured, where))
            )
            rise = patched - before
            np.testing.assert_allclose(
                effects[:, layer, head, b],
                [rise[n - 1, e1], rise[n, e2]],
                atol=2e-5,
            )
    # In the last layer nothing reads the patched position any more.
    np.testing.assert_allclose(effects[1, -1], 0, atol=1e-6)
    assert np.abs(effects[1, 0]).max() > 1e-5


def test_half_precision_runs_what_is_planned_for_copying_effects(monkeypatch):
    tiny = Tiny(CONFIGS["llama-gqa"])
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tiny.params)
    made = copying_effect.pairs(ENTITIES, np.arange(20, 36), 3, 0, seed=1, length=6)
    run, of_pairs = [], copying_effect.of_pairs

    def kept(*arguments):
        run.append(of_pairs(*arguments))
        return run[-1]

    monkeypatch.setattr(copying_effect, "of_pairs", kept)
    copying_effect.effects(params, made, tiny.config, 20_000)
    for sweep, rows in zip(run, copying_effect.by_length(made), strict=True):
        planned = of_pairs(made, rows, tiny.config)
        assert shapes(sweep.others) == shapes(planned.others)


def test_entities_take_the_lengths_in_turn_and_too_few_are_refused():
    names = ["aa", "bbb", "cc", "d", "eeee", "fffffff"]
    encode = lambda text: [ord(letter) for letter in text[1:]]
    found = copying_effect.real_entities(names, encode, 4, seed=0)
    assert [len(each) for each in found] == [2, 3, 4, 2]
    with pytest.raises(UserError, match="only 4 of 6 names"):
        copying_effect.real_entities(names, encode, 5, seed=0)
    drawn = copying_effect.random_entities(np.arange(9), 6, seed=0)
    assert [len(each) for each in drawn] == [2, 3, 4, 5, 2, 3]


def trials(said=26):
    return [
        retrieval.Trial([9], [*range(10, 20)], [8, 7], [10, 9]),
        retrieval.Trial([9], [24, 25], [8, 7], [10, 9]),
        retrieval.Trial([6, 9], [said, 21, said], [8], [10]),
    ]


def hidden(said=26):
    rng = np.random.default_rng(0)
    return retrieval.hide(
        trials(said), np.minimum(rng.integers(20, 40, (3, 6)), 36), bos_id=0
    )


def test_needles_stand_where_the_probe_says_at_rising_depths():
    probe = hidden()
    assert probe.starts.tolist() == [3, 5, 8]
    for b, trial in enumerate(trials()):
        row = probe.tokens[b, : probe.lengths[b]].tolist()
        start = probe.starts[b]
        assert row[0] == 0
        assert row[start : start + len(trial.needle)] == trial.needle
        assert row[-len(trial.question) :] == trial.question
        assert probe.needles[b, : probe.needle_lengths[b]].tolist() == trial.needle
    with pytest.raises(UserError, match="none empty"):
        retrieval.hide([], np.zeros((0, 4), int), None)


@pytest.mark.parametrize("variant", retrieval.VARIANTS)
@pytest.mark.parametrize(
    "some", families("llama-gqa", "toy-shifted", "gpt2"), indirect=True
)
def test_retrieval_equals_a_loop_over_generation_steps(some, variant):
    # Random models copy by luck: a needle of what this one likes to say has more.
    def found(said):
        return retrieval.retrieved(
            some.params, *hidden(said), some.config, variant=variant
        )

    def much(said):
        return min(np.sum(part) for part in found(said))

    said = max(range(some.config.vocab_size), key=much)
    assert much(said) > 0
    shares, right = found(said)
    probe = hidden(said)
    for b, trial in enumerate(trials(said)):
        ids = probe.tokens[b, : probe.lengths[b]].tolist()
        prompt, start, count = list(ids), probe.starts[b], len(trial.needle)
        hits = np.zeros((some.config.num_layers, some.config.num_heads))
        good = 0
        for wanted in trial.needle:
            chosen = int(logits_of(some, ids)[-1].argmax())
            made = chosen if variant == "greedy" else wanted
            good += chosen == wanted
            if variant == "greedy" or chosen == wanted:
                best = patterns_of(some, ids)[:, :, -1].argmax(axis=-1)
                for (layer, head), place in np.ndenumerate(best):
                    inside = start <= place < start + count
                    hits[layer, head] += inside and prompt[place] == made
            ids.append(made)
        np.testing.assert_allclose(shares[..., b], hits / count, atol=1e-6)
        np.testing.assert_allclose(right[b], good / count, atol=1e-6)


def test_retrieval_chance_is_that_of_a_random_place():
    probe = hidden()
    rng = np.random.default_rng(0)
    found = []
    for b, trial in enumerate(trials()):
        row = probe.tokens[b, : probe.lengths[b]].tolist() + trial.needle
        for step, token in enumerate(trial.needle):
            seen = rng.integers(0, probe.lengths[b] + step, 40000)
            inside = (seen >= probe.starts[b]) & (
                seen < probe.starts[b] + len(trial.needle)
            )
            hit = inside & (np.array(row)[seen] == token)
            found.append(hit.mean() / len(trial.needle))
    expected = sum(found) / len(trials())
    np.testing.assert_allclose(retrieval.chance(probe), expected, atol=3e-3)


def relation_by_loops(tiny, row, s, o, tau, read):
    """Sum of a and number of positions that qualify, by the paper's words."""
    patterns = patterns_of(tiny, row)
    params, config = tiny.params, tiny.config
    tokens = jnp.asarray([row])
    embed = family(config.model_type).embed
    x = embed(params, tokens, jnp.arange(len(row))[None], config)[0]
    x = np.asarray(x, np.float64)
    unembedding = params.unembedding
    unembedding = params.embedding.T if unembedding is None else unembedding
    totals = np.zeros((config.num_layers, config.num_heads))
    counts = np.zeros_like(totals)
    for layer, head in np.ndindex(totals.shape):
        group = head * config.num_kv_heads // config.num_heads
        wv = np.asarray(params.layers.wv[layer, :, group], np.float64)
        wo = np.asarray(params.layers.wo[layer, head], np.float64)
        for j in range(max(s, o), len(row)):
            attention = patterns[layer, head, j]
            others = np.delete(attention, s)
            if not (attention.argmax() == s and attention[s] > tau * others.max()):
                continue
            p = softmax(x[j if read == "current" else s] @ wv @ wo @ unembedding)
            known = sorted(set(row[: j + 1]))
            q = np.maximum(0, p[known] - p[known].mean())
            counts[layer, head] += 1
            totals[layer, head] += q[known.index(row[o])] / q.sum()
    return totals, counts


@pytest.mark.parametrize(
    "some", families("llama-gqa", "toy-shifted", "gpt2"), indirect=True
)
def test_relation_index_equals_its_definition(some):
    rng = np.random.default_rng(3)
    tokens = rng.integers(0, 20, (3, 12)).astype(np.int32)
    tokens[:, 7] = tokens[:, 2]  # the text repeats a token
    triplets = relation_index.Triplets(
        tokens, np.array([12, 9, 12]), np.array([1, 4, 6]), np.array([3, 2, 7])
    )
    tau, reads = 1.2, relation_index.READS
    totals, counts = relation_index.sums(
        some.params, *triplets, some.config, tau, reads=reads
    )
    for (b, row), read in itertools.product(enumerate(tokens.tolist()), reads):
        row = row[: triplets.lengths[b]]
        s, o = triplets.heads[b], triplets.tails[b]
        expected = relation_by_loops(some, row, s, o, tau, read)
        np.testing.assert_array_equal(counts[..., b], expected[1])
        np.testing.assert_allclose(totals[read][..., b], expected[0], atol=2e-4)
    assert np.asarray(counts).sum() > 0


def test_relation_index_is_a_ratio_over_texts_and_zero_where_nothing_qualifies():
    triplets = relation_index.Triplets(
        np.array([[5, 6, 7, 5]]), np.array([4]), np.array([0]), np.array([1])
    )
    totals = np.array([[[1.0, 0.5], [0, 0]]])
    counts = np.array([[[2, 3], [0, 0]]])
    score = relation_index.head_scores(totals, counts, triplets, 1.0)
    np.testing.assert_allclose(score.mean, [[0.3, 0]])
    residuals = np.array([1.0 - 0.6, 0.5 - 0.9])
    error = np.sqrt((residuals**2).sum() * 2) / 5
    np.testing.assert_allclose(score.standard_error[0, 0], error)
    rare = relation_index.head_scores(totals, counts, triplets, 1.0, least=3)
    np.testing.assert_array_equal(rare.mean, 0)
    # Distinct tokens up to positions 1, 2, 3: 2, 3 and 3.
    np.testing.assert_allclose(score.chance, (1 / 2 + 1 / 3 + 1 / 3) / 3)


def test_relation_texts_name_the_ends_of_their_first_fact():
    pairs = {
        "antonym": [("ab", "c"), ("d", "e"), ("f", "g"), ("h", "i")],
        "country-capital": [("j", "kl")],
    }
    # A token a letter, spaces with the letter after them.
    encode = lambda text: [ord(letter) for letter in text.replace(" ", "")]
    made, single = relation_index.from_pairs(pairs, encode, 7, 1, seed=0, facts=3)
    assert single == 1.0
    for b in range(7):
        text = "".join(map(chr, made.tokens[b, 1 : made.lengths[b]]))
        assert made.tokens[b, 0] == 1 and text.count(".") == 3
        head, tail = (chr(made.tokens[b, at[b]]) for at in (made.heads, made.tails))
        assert text.startswith(f"Theoppositeof{head}is{tail}.")
        assert (head, tail) in [("d", "e"), ("f", "g"), ("h", "i")]
    made, single = relation_index.from_pairs(pairs, encode, 5, 1, seed=0, facts=5)
    assert single == 3 / 5
    ends = {
        (chr(made.tokens[b, made.heads[b]]), chr(made.tokens[b, made.tails[b]]))
        for b in range(5)
    }
    assert {("b", "c"), ("j", "k")} <= ends
    with pytest.raises(UserError, match="only 5"):
        relation_index.from_pairs(pairs, encode, 5, 1, seed=0, facts=6)
