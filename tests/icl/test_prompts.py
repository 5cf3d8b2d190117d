"""Few-shot prompts: text, draws, corruption, and their tokens."""

import itertools
from collections import Counter

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from jaxheads.errors import UserError
from jaxheads.icl.prompts import (
    Prompt,
    Template,
    build_prompts,
    by_task,
    encode_prompts,
    query_numbers,
    unchanged_share,
)
from jaxheads.icl.tasks import Task, load_task

SAMPLES = ["Q: hot\nA: cold\n\nQ: big\nA: small", "Q: dog, cat\nA: the dog", "12 345"]


class Small:
    """A tokenizer of the `tokenizers` library, seen through the project's interface."""

    def __init__(self, inner, bos_id):
        self.inner, self.bos_id = inner, bos_id

    def encode(self, text, bos=False):
        """Turn text into ids."""
        ids = self.inner.encode(text).ids
        return [self.bos_id, *ids] if bos else ids

    def decode(self, ids):
        """Turn ids into text."""
        return self.inner.decode(ids)


@pytest.fixture(scope="module")
def byte_level():
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(SAMPLES, trainer)
    return Small(inner, inner.token_to_id("<|endoftext|>"))


@pytest.fixture(scope="module")
def dummy_prefix():
    """Whole words, with a space put before every text, as SentencePiece does."""
    words = ["?", "▁Q:", "▁hot", "▁A:", "▁cold", "▁big", "▁small", "▁"]
    inner = tokenizers.Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="?")
    )
    inner.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    inner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    return Small(inner, None)


def task_of(size, name="numbers", labels=None):
    inputs = tuple(f"x{number}" for number in range(size))
    outputs = tuple(f"y{number % (labels or size)}" for number in range(size))
    return Task(name, "unknown", inputs, outputs, "test")


def prompt_of(text, answer, shots=()):
    return Prompt(text, answer, "query", shots, shots)


def test_the_text_is_the_papers():
    (prompt,) = build_prompts(task_of(3), 1, 2, seed=0)
    (x1, y1), (x2, y2) = prompt.shots
    expected = f"Q: {x1}\nA: {y1}\n\nQ: {x2}\nA: {y2}\n\nQ: {prompt.query}\nA:"
    assert prompt.text == expected
    assert prompt.answer == prompt.query.replace("x", "y")
    assert {x1, x2, prompt.query} == {"x0", "x1", "x2"}


def test_the_template_is_data():
    template = Template("", " ->", "", "\n")
    assert template.write([("a", "b")], "c") == "a ->b\nc ->"
    (prompt,) = build_prompts(task_of(3), 1, 0, seed=0, template=template)
    assert prompt.text == f"{prompt.query} ->"
    assert prompt.template == template


@pytest.mark.parametrize("corrupt", [None, "permutation", "derangement"])
@pytest.mark.parametrize("size", [12, 100])
def test_a_longer_list_begins_with_the_shorter_one(size, corrupt):
    task = task_of(size)
    long = build_prompts(task, 40, 5, seed=3, corrupt=corrupt)
    assert build_prompts(task, 7, 5, seed=3, corrupt=corrupt) == long[:7]


def test_queries_and_demonstrations_never_meet():
    prompts = build_prompts(task_of(100), 60, 10, seed=1)
    queries = {prompt.query for prompt in prompts}
    shown = {given for prompt in prompts for given, _ in prompt.shots}
    assert len(queries) == 30 and not queries & shown
    assert len(shown) == 70
    for prompt in prompts:
        assert len({given for given, _ in prompt.shots}) == 10


def test_prompts_that_ask_one_query_have_one_number():
    prompts = build_prompts(task_of(20), 24, 4, seed=1)
    numbers = query_numbers(prompts)
    assert numbers.dtype == np.int32 and sorted({*numbers.tolist()}) == [*range(6)]
    for a, b in itertools.combinations(range(24), 2):
        same = prompts[a].query == prompts[b].query
        assert (numbers[a] == numbers[b]) == same
    other = {"b": numbers, "a": numbers[::-1]}
    np.testing.assert_array_equal(by_task(other, "ab"), [numbers[::-1], numbers])
    assert by_task({}, "ab") is None


def test_queries_come_back_after_all_had_their_turn_with_other_demonstrations():
    prompts = build_prompts(task_of(20), 24, 4, seed=1)
    counts = Counter(prompt.query for prompt in prompts[:18])
    assert set(counts.values()) == {3} and len(counts) == 6
    assert len({prompt.text for prompt in prompts}) == 24
    orders = [[prompt.query for prompt in prompts[at : at + 6]] for at in (0, 6, 12)]
    assert orders[0] != orders[1] or orders[1] != orders[2]


def test_duplicate_inputs_count_once_and_never_leak():
    task = Task("twice", "unknown", ("a", "b") * 20, ("1", "2") * 20, "test")
    for prompt in build_prompts(task, 10, 1, seed=0):
        assert prompt.query != prompt.shots[0][0]
    with pytest.raises(UserError, match=r"has 2 items .* 3 are needed for 2 shots"):
        build_prompts(task, 1, 2, seed=0)


@pytest.mark.parametrize("size, shots", [(1, 0), (2, 1), (11, 10)])
def test_the_smallest_tasks_that_suffice(size, shots):
    prompts = build_prompts(task_of(size), 3, shots, seed=0)
    assert [len(prompt.shots) for prompt in prompts] == [shots] * 3


def test_seeds_and_names_change_the_draw():
    def texts(**changes):
        asked = {"task": task_of(50), "seed": 0} | changes
        return [p.text for p in build_prompts(count=5, shots=3, **asked)]

    assert texts() == texts()
    assert texts() != texts(seed=1)
    assert texts() != texts(task=task_of(50, name="others"))


def test_the_halves_of_a_task_are_disjoint_whatever_the_seed():
    def used(pool, seed):
        prompts = build_prompts(task_of(61), 60, 10, seed, pool=pool)
        shown = {given for prompt in prompts for given, _ in prompt.shots}
        return shown | {prompt.query for prompt in prompts}

    first, second = used("first", 0), used("second", 5)
    assert len(first) == 30 and len(second) == 31 and not first & second
    with pytest.raises(UserError, match=r"in its first half, 11 are needed"):
        build_prompts(task_of(20), 1, 10, seed=0, pool="first")


@pytest.mark.parametrize("corrupt", ["permutation", "derangement"])
def test_corruption_moves_labels_and_nothing_else(corrupt):
    task = load_task("antonym")
    clean = build_prompts(task, 20, 10, seed=0)
    moved = build_prompts(task, 20, 10, seed=0, corrupt=corrupt)
    for one, other in zip(clean, moved, strict=True):
        assert (one.query, one.answer) == (other.query, other.answer)
        assert one.shots == one.clean_shots == other.clean_shots
        assert [x for x, _ in one.shots] == [x for x, _ in other.shots]
        assert sorted(y for _, y in one.shots) == sorted(y for _, y in other.shots)
        assert Template().write(other.shots, other.query) == other.text
    assert unchanged_share(clean) == 1
    assert unchanged_share(moved) < 0.5


def test_a_derangement_keeps_no_place_and_a_permutation_keeps_one_on_average():
    task = task_of(100)
    deranged = build_prompts(task, 400, 4, seed=0, corrupt="derangement")
    permuted = build_prompts(task, 400, 4, seed=0, corrupt="permutation")
    assert unchanged_share(deranged) == 0
    # One place of 4 on average; the standard error over 400 prompts is 0.0125.
    assert unchanged_share(permuted) == pytest.approx(1 / 4, abs=0.05)
    orders = Counter(
        tuple([y for _, y in p.clean_shots].index(y) for _, y in p.shots)
        for p in deranged
    )
    derangements = {
        order
        for order in itertools.permutations(range(4))
        if all(place != moved for place, moved in enumerate(order))
    }
    assert set(orders) == derangements and len(derangements) == 9
    assert min(orders.values()) > 20  # 44 expected of each


def test_equal_labels_may_stay_right_under_a_derangement():
    prompts = build_prompts(task_of(40, labels=2), 50, 6, 0, corrupt="derangement")
    assert 0 < unchanged_share(prompts) < 1
    for prompt in build_prompts(task_of(40, labels=1), 5, 6, 0, corrupt="derangement"):
        assert prompt.shots == prompt.clean_shots


@pytest.mark.parametrize("corrupt", [None, "permutation", "derangement"])
@pytest.mark.parametrize("name", ["bind_fruit", "ag_news", "person-sport"])
def test_without_label_overlap_no_label_is_the_answer(name, corrupt):
    task = load_task(name)
    usual = build_prompts(task, 30, 6, seed=0, corrupt=corrupt)
    apart = build_prompts(task, 30, 6, 0, corrupt=corrupt, no_label_overlap=True)
    assert [p.query for p in usual] == [p.query for p in apart]
    assert any(p.answer in [y for _, y in p.shots] for p in usual)
    for prompt in apart:
        assert prompt.answer not in [label for _, label in prompt.shots]
        assert len({given for given, _ in prompt.clean_shots}) == 6
        assert Template().write(prompt.shots, prompt.query) == prompt.text


def test_without_label_overlap_prompts_of_unique_labels_stay_as_they_are():
    task = task_of(40)
    usual = build_prompts(task, 30, 5, seed=2, corrupt="permutation")
    asked = {"corrupt": "permutation", "no_label_overlap": True}
    assert build_prompts(task, 30, 5, seed=2, **asked) == usual


def test_without_label_overlap_too_few_demonstrations_are_refused():
    task = task_of(20, labels=2)  # 14 demonstrations, about 7 of each label
    message = (
        r"numbers has \d demonstrations .* the answer 'y\d', 10 are needed without"
    )
    with pytest.raises(UserError, match=message):
        build_prompts(task, 1, 10, seed=0, no_label_overlap=True)
    with pytest.raises(UserError, match="numbers has 0 demonstrations"):
        build_prompts(task_of(20, labels=1), 1, 1, seed=0, no_label_overlap=True)
    assert len(build_prompts(task, 1, 0, seed=0, no_label_overlap=True)) == 1


def test_no_demonstration_has_no_share():
    assert np.isnan(unchanged_share(build_prompts(task_of(5), 2, 0, seed=0)))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"count": -1}, "count must be 0 or more, not -1"),
        ({"shots": -1}, "shots must be"),
        ({"seed": -1}, "seed must be"),
        ({"pool": "third"}, "all, first, second, not 'third'"),
        ({"corrupt": "shuffle"}, "permutation, derangement, not 'shuffle'"),
        ({"corrupt": "derangement", "shots": 1}, "two shots or more"),
        ({"shots": 50}, "has 50 items .* 51 are needed for 50 shots"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    asked = {"count": 1, "shots": 2, "seed": 0} | changes
    with pytest.raises(UserError, match=message):
        build_prompts(task_of(50), **asked)


def test_prompts_become_padded_tokens(byte_level):
    prompts = build_prompts(load_task("antonym"), 6, 3, seed=0)
    batch = encode_prompts(prompts, byte_level, bos=False, multiple=32)
    assert batch.tokens.shape[1] % 32 == 0
    assert batch.tokens.shape[1] - batch.lengths.max() < 32
    assert {batch.tokens.dtype, batch.lengths.dtype, batch.targets.dtype} == {
        np.dtype(np.int32)
    }
    for row, prompt in enumerate(prompts):
        length = batch.lengths[row]
        assert byte_level.decode(batch.tokens[row, :length].tolist()) == prompt.text
        assert not batch.tokens[row, length:].any()
        assert batch.targets[row] == byte_level.encode(" " + prompt.answer)[0]


def test_one_bos_is_put_in_front(byte_level):
    prompts = build_prompts(load_task("synonym"), 3, 2, seed=0)
    without = encode_prompts(prompts, byte_level, bos=False)
    batch = encode_prompts(prompts, byte_level, bos=True)
    np.testing.assert_array_equal(batch.lengths, without.lengths + 1)
    np.testing.assert_array_equal(batch.targets, without.targets)
    for row, length in enumerate(without.lengths):
        assert batch.tokens[row, 0] == byte_level.bos_id
        np.testing.assert_array_equal(
            batch.tokens[row, 1 : length + 1], without.tokens[row, :length]
        )


def test_two_bos_tokens_are_refused(byte_level, dummy_prefix):
    prompt = prompt_of("<|endoftext|>Q: hot\nA:", "cold")
    assert encode_prompts([prompt], byte_level, bos=False).tokens[0, 0] == 0
    with pytest.raises(UserError, match="already begins with it"):
        encode_prompts([prompt], byte_level, bos=True)
    with pytest.raises(UserError, match="this tokenizer has none"):
        encode_prompts([prompt], dummy_prefix, bos=True)


@pytest.mark.parametrize("multiple, width", [(1, 7), (4, 8), (7, 7), (32, 32)])
def test_the_padded_width_is_a_multiple(byte_level, multiple, width):
    prompt = prompt_of("1234567", "8")
    assert encode_prompts(
        [prompt], Characters(), bos=False, multiple=multiple
    ).tokens.shape == (1, width)


class Characters:
    """One token a character."""

    bos_id = None

    def encode(self, text, bos=False):
        """Turn text into code points."""
        return [ord(letter) for letter in text]


def test_padding_stays_within_the_context():
    prompt = prompt_of("1234567", "8")
    batch = encode_prompts([prompt], Characters(), bos=False, max_length=7)
    assert batch.tokens.shape == (1, 7)
    message = r"prompt 2 \(0 shots\) has 7 tokens, .* holds 6: ask for fewer shots"
    with pytest.raises(UserError, match=message):
        encode_prompts(
            [prompt_of("1", "2"), prompt], Characters(), bos=False, max_length=6
        )


def test_a_dummy_space_does_not_hide_the_first_answer_token(dummy_prefix):
    words = dummy_prefix.inner.get_vocab()
    prompt = prompt_of("Q: hot A:", "cold")
    # Alone, " cold" would begin with the token of the space put before every text.
    assert dummy_prefix.encode(" cold")[0] != words["▁cold"]
    assert encode_prompts([prompt], dummy_prefix, bos=False).targets == words["▁cold"]


def test_tokens_that_merge_across_the_border_fall_back_to_the_answer_alone(
    dummy_prefix,
):
    words = dummy_prefix.inner.get_vocab()
    prompt = Prompt("Q: A:", "x", "", (), (), Template(answer_prefix=""))
    assert dummy_prefix.encode("Q: A:x")[1] != words["▁A:"]
    assert encode_prompts([prompt], dummy_prefix, bos=False).targets == words["?"]


def test_empty_batches_and_answers_are_refused(byte_level):
    with pytest.raises(UserError, match="at least one prompt"):
        encode_prompts([], byte_level, bos=False)
    with pytest.raises(UserError, match="has no token"):
        encode_prompts(
            [Prompt("Q: a\nA:", "", "a", (), (), Template(answer_prefix=""))],
            byte_level,
            bos=False,
        )
    with pytest.raises(UserError, match="padding multiple"):
        encode_prompts([prompt_of("a", "b")], byte_level, bos=False, multiple=0)
