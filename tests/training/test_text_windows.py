"""Windows of text: packing, splits, order, and documents kept apart."""

import json
import sys
from collections import Counter

import numpy as np
import pytest
from listed_corpus import ListedCorpus

from jaxheads.errors import UserError
from jaxheads.training.data.text_windows import TextWindows
from jaxheads.training.data.token_store import tokenise
from jaxheads.training.data.vocabulary import train_tokenizer

WORDS = ["cat", "dog", "owl", "fox", "hen", "emu", "yak", "é"]
RANDOM = np.random.default_rng(0)
TEXTS = [
    " ".join(RANDOM.choice(WORDS, RANDOM.integers(1, 40))) + f" {n}" for n in range(60)
]
BOS, EOS = 0, 1


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(ListedCorpus("animals", TEXTS), 280)


@pytest.fixture(scope="module")
def store(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("text") / "store"
    return tokenise(ListedCorpus("animals", TEXTS), tokenizer, folder)


def make(store, length=11, **options):
    """Windows of the store."""
    options = {"split": "all", **options}
    return TextWindows(store, length, options.pop("vocab_size", 280), **options)


def brute_windows(store, length, bos, eos, documents):
    """Every window by building the whole chain: tokens and documents."""
    tokens, owner = [], []
    for number in documents:
        own = store.document(number).tolist()
        own = [bos] * (bos is not None) + own + [eos] * (eos is not None)
        tokens += own
        owner += [number] * len(own)
    starts = range(0, len(tokens) - length, length)
    return (
        np.array([tokens[s : s + length + 1] for s in starts]),
        np.array([owner[s : s + length + 1] for s in starts]),
    )


@pytest.mark.parametrize("bos", [None, BOS])
@pytest.mark.parametrize("eos", [None, EOS])
@pytest.mark.parametrize("separate", [False, True])
def test_windows_cut_the_chain_of_documents(bos, eos, separate, store):
    source = make(store, bos_id=bos, eos_id=eos, separate=separate, shuffled=False)
    tokens, owner = brute_windows(store, 11, bos, eos, range(60))
    assert source.windows == len(tokens)
    windows = source.batch(0, source.windows)
    np.testing.assert_array_equal(windows.tokens, tokens)
    same = owner[:, 1:] == owner[:, :-1]
    if separate:
        assert windows.segments is not None
        np.testing.assert_array_equal(windows.segments, owner - owner[:, :1])
        np.testing.assert_array_equal(windows.scored, same)
    else:
        assert windows.segments is None and windows.scored.all()
    assert not same.all()


def test_every_target_is_one_once_an_epoch(store):
    source = make(store, shuffled=False)
    targets = source.batch(0, source.windows).targets.ravel()
    np.testing.assert_array_equal(targets, store.tokens[1 : len(targets) + 1])
    assert len(store.tokens) - len(targets) <= 11


def test_ordered_windows_begin_again_after_the_last(store):
    source = make(store, shuffled=False)
    count = source.windows
    size = 7
    last = count // size
    numbers = source.batch(last, size, stream=3).info["window"]
    expected = [(last * size + k) % count for k in range(size)]
    assert numbers.tolist() == expected
    assert count % size  # so that it does


@pytest.mark.parametrize("stream", [0, 5])
def test_an_epoch_has_every_window_once_in_an_order_of_its_own(stream, store):
    source = make(store, seed=4)
    count = source.windows
    numbers = source.batch(0, 3 * count, stream=stream).info["window"].reshape(3, count)
    for epoch in numbers:
        assert sorted(epoch.tolist()) == list(range(count))
    assert len({tuple(epoch) for epoch in numbers.tolist()}) == 3
    assert (numbers[0] != np.arange(count)).mean() > 0.9
    # Neighbours in the text do not stay neighbours.
    assert (np.diff(numbers[0]) == 1).mean() < 0.1


def test_a_batch_is_the_same_at_any_time_and_of_any_size(store):
    source = make(store)
    whole = source.batch(2, 12, stream=1)
    for piece in (3, 0, 2, 1):
        part = make(store).batch(8 + piece, 3, stream=1)
        np.testing.assert_array_equal(
            part.tokens, whole.tokens[3 * piece : 3 * piece + 3]
        )


def test_streams_and_seeds_have_other_orders(store):
    numbers = {
        tuple(make(store, seed=seed).batch(0, 20, stream=stream).info["window"])
        for seed in (0, 1)
        for stream in (-1, 0, 1, 2)
    }
    assert len(numbers) == 8
    # Not the same orders an epoch later either: Grain counts epochs into its seed.
    count = make(store).windows
    epochs = [
        tuple(make(store).batch(epoch, count, stream=stream).info["window"])
        for stream in range(4)
        for epoch in range(4)
    ]
    assert len(set(epochs)) == 16


def test_the_order_of_a_seed_never_changes(store):
    # A run goes on with the same data after an update of Grain, or this fails.
    source = make(store, seed=3)
    assert source.windows == 127
    assert source.batch(0, 6, stream=1).info["window"].tolist() == [
        65,
        95,
        41,
        21,
        17,
        99,
    ]


def test_the_splits_share_no_document(store):
    train = make(store, split="train", held_out=0.3, shuffled=False)
    held = make(store, split="held-out", held_out=0.3, shuffled=False)
    chosen = [set(source._chosen.tolist()) for source in (train, held)]
    assert not chosen[0] & chosen[1] and len(chosen[0] | chosen[1]) == 60
    assert 8 < len(chosen[1]) < 28
    for source, documents in zip((train, held), chosen, strict=True):
        tokens, _ = brute_windows(store, 11, None, None, sorted(documents))
        np.testing.assert_array_equal(source.batch(0, source.windows).tokens, tokens)


def test_the_held_out_texts_depend_on_nothing_but_themselves(store, tmp_path):
    def held(store, texts):
        source = make(store, 1, split="held-out", held_out=0.3)
        return {texts[number] for number in source._chosen}

    texts = [*TEXTS[40:], "another one", *TEXTS[10:40], *TEXTS[12:14]]
    other = train_tokenizer(ListedCorpus("animals", TEXTS), 270)
    changed = tokenise(ListedCorpus("mixed", texts), other, tmp_path / "store")
    assert held(changed, texts) & set(TEXTS[10:]) == held(store, TEXTS) & set(
        TEXTS[10:]
    )
    # Copies stand on one side, and a larger share holds the smaller one.
    train = make(changed, 1, split="train", held_out=0.3)
    assert not {texts[number] for number in train._chosen} & held(changed, texts)
    more = make(store, 1, split="held-out", held_out=0.5)
    assert held(store, TEXTS) < {TEXTS[number] for number in more._chosen}


def test_all_may_be_trained_on(store):
    assert len(make(store, split="train", held_out=0)._chosen) == 60
    assert len(make(store, split="held-out", held_out=1 - 1e-16)._chosen) == 60


@pytest.mark.parametrize(
    "options, message",
    [
        ({"length": 5000}, "5001 tokens make a window, but the 60 documents in"),
        ({"split": "held-out", "held_out": 0}, "the 0 documents of the held-out split"),
        ({"vocab_size": 100}, "vocabulary of 100, but the text has 2"),
        ({"eos_id": 280}, "vocabulary of 280, but eos_id has 280"),
        ({"bos_id": -1}, "but bos_id has -1"),
        ({"held_out": 1.0}, "share from 0 to below 1"),
        ({"split": "dev"}, '"train", "held-out" or "all"'),
        ({"length": 0}, "sequence_length must be 1 or more"),
    ],
)
def test_settings_that_cannot_be_are_named(options, message, store):
    with pytest.raises(UserError, match=message):
        make(store, **options)
    with pytest.raises(UserError, match="0 rows"):
        make(store).batch(0, 0)


def test_grain_is_asked_for_where_it_is_needed(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(UserError, match=r"pip install 'jaxheads\[train\]'"):
        make(store)
    assert make(store, shuffled=False).batch(0, 2).tokens.shape == (2, 12)


def test_what_it_is_can_be_written_down(store):
    source = make(store, split="train", held_out=0.2, bos_id=BOS)
    description = source.describe()
    assert json.loads(json.dumps(description)) == description
    assert description["windows"] == source.windows
    assert description["documents"] == len(source._chosen)
    assert description["tokens"] == sum(
        len(store.document(number)) + 1 for number in source._chosen
    )


def test_documents_of_all_lengths_are_in_the_chain(store):
    lengths = Counter(np.diff(store.offsets).tolist())
    assert min(lengths) < 11 < 3 * 11 < max(lengths)
