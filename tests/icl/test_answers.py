"""Where a task's answers begin to differ: shared tokens, targets and collisions."""

import dataclasses
import itertools

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from jaxheads.errors import UserError
from jaxheads.icl.answers import Answers
from jaxheads.icl.encoding import decode_answers
from jaxheads.icl.metrics import f1_scores
from jaxheads.icl.prompts import Prompt, build_prompts, encode_prompts
from jaxheads.icl.tasks import Task, load_task
from jaxheads.icl.templates import TEMPLATES, Template
from jaxheads.tokenizer.tokenizer import Tokenizer

QA = TEMPLATES["qa"]
DIGITS = ("3", "5", "12", "15")


def tokenizer_of(inner: tokenizers.Tokenizer) -> Tokenizer:
    return Tokenizer(inner, None, adds_bos=False)


def byte_level(words, size, digits=False) -> Tokenizer:
    """Byte-level BPE that learned some words; if asked, every digit is by itself."""
    inner = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    apart = pre_tokenizers.Digits(individual_digits=True)
    inner.pre_tokenizer = pre_tokenizers.Sequence([apart, split]) if digits else split
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(words, trainer)
    return tokenizer_of(inner)


def whole_text(words, size) -> Tokenizer:
    """BPE over whole texts, as SentencePiece does: tokens may hold several words."""
    inner = tokenizers.Tokenizer(models.BPE())
    inner.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=sorted(set("".join(words) + "Q:A\nx ▁->")),
        show_progress=False,
    )
    inner.train_from_iterator(words, trainer)
    return tokenizer_of(inner)


def random_words(rng, count) -> list[str]:
    """Words over few letters, so that many begin alike; spaces within some."""
    letters = list("ab12é ")
    made = {
        "".join(rng.choice(letters, rng.integers(1, 7))).strip() for _ in range(count)
    }
    return sorted(made - {""})


def naive(answers, template, tokenizer) -> tuple[list[int], float]:
    """Shared ids and collisions, by trying every length and every pair."""
    answers = sorted(set(answers))
    before = template.write((), "x")
    start = tokenizer.encode(before)
    rows = []
    for answer in answers:
        whole = tokenizer.encode(before + template.answer_prefix + answer)
        merged = whole[: len(start)] != start or len(whole) == len(start)
        alone = tokenizer.encode(template.answer_prefix + answer)
        rows.append(alone if merged else whole[len(start) :])
    if len(answers) == 1:
        return [], 1.0
    most = max(
        k
        for k in range(min(map(len, rows)))
        if len({tuple(row[:k]) for row in rows}) == 1
    )
    same = [a[most] == b[most] for a, b in itertools.combinations(rows, 2)]
    return rows[0][:most], float(np.mean(same))


KINDS = {
    "bytes": lambda words: byte_level([], 258),
    "merges": lambda words: byte_level([f" {word}" for word in words] * 3, 300),
    "digits": lambda words: byte_level([f" {word}" for word in words], 280, True),
    "whole": lambda words: whole_text([f"\nA: {word}\n" for word in words] * 3, 60),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", ["qa", "arrow", "lines"])
def test_what_is_shared_is_what_a_naive_search_finds(kind, template):
    rng = np.random.default_rng([len(kind), len(template)])
    some, seen = 0, TEMPLATES[template]
    for _ in range(25):
        words = random_words(rng, 12)
        tokenizer = KINDS[kind](words)
        begin = rng.choice(["", "a", "1", "ab 1"])
        answers = [f"{begin}{word}" for word in rng.permutation(words)]
        answers = answers[: rng.integers(1, 9)] * 2
        found = Answers(answers, seen, tokenizer)
        shared, collisions = naive(answers, seen, tokenizer)
        assert found.shared == shared
        assert found.collisions() == pytest.approx(collisions)
        some += bool(shared)
    assert some > 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("targets", ["informative", "published"])
def test_prompt_and_target_begin_the_tokens_of_prompt_and_answer(kind, targets):
    rng = np.random.default_rng(len(kind))
    words = random_words(rng, 40)
    task = Task("random", "unknown", tuple(words), tuple(f"1{w}" for w in words), "")
    tokenizer = KINDS[kind](words)
    prompts = build_prompts(task, 20, 3, 0)
    batch = encode_prompts(prompts, tokenizer, bos=False, targets=targets)
    assert batch.shared is not None and len(set(batch.shared.tolist())) == 1
    apart = kind in ("bytes", "digits")  # the space and the 1 that all begin with
    assert batch.shared[0] == (2 if targets == "informative" and apart else 0)
    for row, prompt in enumerate(prompts):
        length, text = batch.lengths[row], tokenizer.encode(prompt.text)
        ids = [*batch.tokens[row, :length].tolist(), int(batch.targets[row])]
        assert ids[: len(text)] == text
        assert batch.begun()[row] == ids[len(text) : -1]
        assert len(ids) == len(text) + batch.shared[row] + 1
        whole = tokenizer.encode(f"{prompt.text} {prompt.answer}")
        if whole[: len(text)] == text:  # nothing merges across the border
            assert whole[: len(ids)] == ids


def test_a_space_before_digits_goes_to_the_prompt_and_the_digit_is_the_target():
    tokenizer = byte_level([], 258, digits=True)
    space, five, one = tokenizer.encode(" 51")
    task = Task("digits", "unknown", ("a", "b", "c", "d"), DIGITS, "")
    prompts = build_prompts(task, 8, 2, 0)
    batch = encode_prompts(prompts, tokenizer, bos=False)
    plain = encode_prompts(prompts, tokenizer, bos=False, targets="published")
    np.testing.assert_array_equal(batch.lengths, plain.lengths + 1)
    assert set(plain.targets.tolist()) == {space}
    for row, prompt in enumerate(prompts):
        assert batch.tokens[row, batch.lengths[row] - 1] == space
        assert [batch.targets[row]] == tokenizer.encode(prompt.answer[0])
    found = Answers(DIGITS, QA, tokenizer)
    assert found.shared == [space]
    assert found.collisions() == pytest.approx(1 / 6)  # 12 and 15, of six pairs
    assert Answers(DIGITS, QA, tokenizer, "published").collisions() == 1
    assert five != one


@pytest.mark.parametrize(
    "answers, shared, collisions",
    [
        (("5",), "", 1.0),  # nothing to tell apart
        (("5", "5", "5"), "", 1.0),
        (("5", "55"), " ", 1.0),  # one begins the other, whose own token is the last
        (("5", "55", "57"), " ", 1.0),
        (("51", "55", "57"), " 5", 0.0),
        (("1", "12", "2"), " ", 1 / 3),
        (("", "1"), "", 1.0),  # the empty answer's only token is the space
        (("é", "è"), b" \xc3", 0.0),  # half of a letter
    ],
)
def test_every_answer_keeps_a_token_of_its_own(answers, shared, collisions):
    tokenizer = byte_level([], 258, digits=True)
    found = Answers(answers, QA, tokenizer)
    if isinstance(shared, bytes):
        assert len(found.shared) == len(shared)
    else:
        assert tokenizer.decode(found.shared) == shared
    assert found.collisions() == pytest.approx(collisions)


def test_clean_corrupted_and_bare_prompts_end_with_the_same_tokens():
    tokenizer = byte_level([], 258, digits=True)
    task = load_task("word_length")
    prompts = build_prompts(task, 6, 3, 0)
    bare = [
        dataclasses.replace(
            prompt, text=QA.write((), prompt.query), shots=(), clean_shots=()
        )
        for prompt in prompts
    ]
    drawn = (prompts, build_prompts(task, 6, 3, 0, corrupt="permutation"), bare)
    made = [encode_prompts(each, tokenizer, bos=False) for each in drawn]
    clean, (space,) = made[0], tokenizer.encode(" ")
    for batch in made:
        np.testing.assert_array_equal(batch.targets, clean.targets)
        assert batch.begun() == [[space]] * 6
        at = np.arange(6), batch.lengths - 1
        np.testing.assert_array_equal(batch.tokens[at], space)


def test_tasks_in_one_batch_share_what_is_theirs():
    tokenizer = byte_level([], 258, digits=True)
    digits = Task("digits", "unknown", tuple("abcd"), DIGITS, "")
    words = Task("words", "unknown", tuple("abcd"), ("no", "nor", "not", "nb"), "")
    mixed = [*build_prompts(digits, 3, 2, 0), *build_prompts(words, 3, 2, 0)]
    batch = encode_prompts(mixed, tokenizer, bos=False)
    assert batch.shared is not None
    assert batch.shared.tolist() == [1, 1, 1, 2, 2, 2]  # " ", then " n"
    assert batch.part(slice(3, None)).begun() == batch.begun()[3:]


def test_a_prompt_whose_own_tokens_begin_otherwise_gets_those_of_the_others():
    """After "2" this tokenizer joins what it does not join after other inputs."""
    words = ["▁", "5", "7", "x", "2", "2▁5"]
    merges = [("2", "▁"), ("2▁", "5")]
    vocabulary = {word: n for n, word in enumerate([*words, "2▁", "?"])}
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, merges, unk_token="?"))
    inner.normalizer = normalizers.Replace(" ", "▁")
    tokenizer = tokenizer_of(inner)
    template = Template("", "")
    prompts = [
        Prompt(text, "5", text, (), (), template, ("5", "7")) for text in ("x", "2")
    ]
    assert len(tokenizer.encode("2 5")) == 1
    batch = encode_prompts(prompts, tokenizer, bos=False)
    space, five = vocabulary["▁"], vocabulary["5"]
    assert batch.begun() == [[space], [space]] and batch.targets.tolist() == [five] * 2


def test_wrong_arguments_are_named():
    tokenizer = byte_level([], 258)
    with pytest.raises(UserError, match="informative, published, not 'first'"):
        Answers(DIGITS, QA, tokenizer, "first")
    prompt = Prompt("Q: a\nA:", "4", "a", (), (), answers=DIGITS)
    with pytest.raises(ValueError, match="'4' to 'a' must be among the 4 answers"):
        encode_prompts([prompt], tokenizer, bos=False)


def test_generated_answers_end_where_the_text_ends():
    tokenizer = byte_level([" Paris", " Paris"], 300)
    end, other = tokenizer.encode("<|im_end|>"), tokenizer.encode("<|endoftext|>")
    paris, line = tokenizer.encode(" Paris"), tokenizer.encode("\n")
    rows = [
        [*paris, *end, *line],
        [*paris, *other, *paris],
        [*paris, *line, *paris],
        [*end, *paris],
        paris,
    ]
    texts = decode_answers(rows, tokenizer)
    assert texts == [" Paris", " Paris", " Paris\n Paris", "", " Paris"]
    for style in ("fixed", "yin2025"):
        scores = f1_scores(texts, ["Paris"] * 5, style)
        assert scores.tolist() == [1, 1, 1, 0, 1]
