"""Tokenizers from a GGUF file's vocabulary and from the files of a folder."""

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from jaxheads.errors import UserError
from jaxheads.tokenizer.folder import read_tokenizer_json, with_settings
from jaxheads.tokenizer.sentencepiece import SPACE
from jaxheads.tokenizer.tokenizer import Tokenizer

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = ["Ġ a", "Ġ 1", "1 2", "Ġ Ġ", "' s", "a b", "Ġa b"]
CONTROL, USER_DEFINED = 3, 4


def metadata(**changes):
    """A byte-level vocabulary with a few merges, as a GGUF file gives it."""
    tokens = [*BYTES, *(merge.replace(" ", "") for merge in MERGES)]
    types = [1] * len(tokens) + [CONTROL, USER_DEFINED]
    tokens += ["<|begin|>", "   "]
    keys = {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": tokens,
        "token_type": types,
        "merges": MERGES,
        "bos_token_id": tokens.index("<|begin|>"),
    }
    keys |= changes
    named = {f"tokenizer.ggml.{k}": v for k, v in keys.items() if v is not None}
    return {"general.architecture": "llama", **named}


def from_file(path: Path, settings: Path | None = None) -> Tokenizer:
    files = [settings, None, None, None]
    return Tokenizer(*with_settings(read_tokenizer_json(path), files))


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.decode([token]) for token in tokenizer.encode(text)]


@pytest.mark.parametrize(
    ("pre", "text", "expected"),
    [
        ("smollm", "12", ["1", "2"]),
        ("gpt-2", "12", ["12"]),
        ("smollm", " 12", [" ", "1", "2"]),
        ("gpt-2", " 12", [" 1", "2"]),
        ("smollm", "a's", ["a", "'s"]),
        ("smollm", "ab ab", ["ab", " ab"]),
        ("smollm", "a  ab", ["a", " ", " ab"]),
        ("llama-bpe", "a\n\n12", ["a", "\n", "\n", "12"]),
        ("dbrx", "a 12", ["a", " ", "12"]),
        ("qwen2", "12", ["1", "2"]),
        ("qwen2", " ab 1", [" ab", " ", "1"]),
        ("tekken", "abAb 12", ["ab", "A", "b", " ", "1", "2"]),
        ("olmo", "12 ab", ["12", " ab"]),
    ],
)
def test_each_pre_tokenizer_splits_as_its_name_says(pre, text, expected):
    assert pieces(Tokenizer.from_gguf(metadata(pre=pre)), text) == expected


@pytest.mark.parametrize(
    ("pre", "composed"),
    [
        *((name, True) for name in ("olmo", "mpt", "qwen2")),
        *((name, False) for name in ("gpt-2", "llama-bpe", "smollm", "dbrx", "tekken")),
    ],
)
def test_characters_are_composed_where_the_family_does_so(pre, composed):
    tokenizer = Tokenizer.from_gguf(metadata(pre=pre))
    same = tokenizer.encode("cafe\u0301") == tokenizer.encode("caf\u00e9")
    assert same == composed


@pytest.mark.parametrize("pre", ["llama-bpe", "tekken", "gpt-2"])
def test_only_some_families_take_a_whole_token_against_the_merges(pre):
    # No merge makes "aba": it is a token only as a whole.
    keys = metadata(pre=pre, tokens=[*BYTES, "ab", "aba"], merges=["a b"])
    tokenizer = Tokenizer.from_gguf(keys)
    expected = ["ab", "a"] if pre == "gpt-2" else ["aba"]
    assert pieces(tokenizer, "aba") == expected
    assert not tokenizer.adds_bos  # there is no such token


@pytest.mark.parametrize(
    "pre", ["smollm", "gpt-2", "llama-bpe", "qwen2", "olmo", "dbrx", "tekken"]
)
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "  two  spaces   and more    ",
        "it's we'll I'D 3.14159, 1 234",
        "tab\tnewline\n\n\r\n end\n",
        "Ünïcödé: 漢字 عربى 🙂 é ñ²½",
        "<|begin|>a <|begin|>",
    ],
)
def test_text_comes_back(pre, text):
    tokenizer = Tokenizer.from_gguf(metadata(pre=pre))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_added_tokens_are_found_in_the_text():
    tokenizer = Tokenizer.from_gguf(metadata())
    begin, spaces = tokenizer.vocab_size - 2, tokenizer.vocab_size - 1
    assert tokenizer.bos_id == begin
    ids = tokenizer.encode("<|begin|>a   a")
    assert ids[0] == begin and spaces in ids
    assert len(ids) == 4


def test_bos_comes_only_when_asked_for_and_only_once():
    tokenizer = Tokenizer.from_gguf(metadata(add_bos_token=True))
    assert tokenizer.adds_bos
    plain = tokenizer.encode("ab")
    assert tokenizer.bos_id not in plain
    assert tokenizer.encode("ab", bos=True) == [tokenizer.bos_id, *plain]
    with pytest.raises(UserError, match=r"begins with '<\|begin\|>' already"):
        tokenizer.encode("<|begin|>ab", bos=True)
    without = Tokenizer.from_gguf(metadata(bos_token_id=None, add_bos_token=True))
    assert without.bos_id is None and not without.adds_bos
    with pytest.raises(UserError, match="names none"):
        without.encode("ab", bos=True)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"pre": "falcon"}, "smollm.*but is 'falcon'"),
        ({"pre": ["smollm"]}, r"but is \['smollm'\]"),
        ({"pre": None}, "but is 'default'"),
        ({"model": "t5"}, "byte-level BPE.*SentencePiece.*but is 't5'"),
        ({"model": None}, "but is None"),
        ({"merges": None}, "needs tokens and merges"),
        ({"tokens": 7}, "needs tokens and merges"),
        ({"merges": ["no such"]}, "must belong together"),
        ({"merges": [1, 2]}, "must belong together"),
        ({"model": "llama"}, "as many scores .* tokens, but the GGUF file has 265, 0"),
    ],
)
def test_what_is_not_built_is_refused_by_name(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        Tokenizer.from_gguf(metadata(**changes))


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [("gpt2", ["12"]), ("gptneox", ["12"]), ("qwen2", ["1", "2"])],
)
def test_older_files_of_some_families_need_no_pre(architecture, expected):
    keys = metadata(pre=None) | {"general.architecture": architecture}
    assert pieces(Tokenizer.from_gguf(keys), "12") == expected


@pytest.mark.parametrize("bos", [-1, 10**6, "<s>", 1.5])
def test_a_first_token_that_is_no_token_is_none(bos):
    assert Tokenizer.from_gguf(metadata(bos_token_id=bos)).bos_id is None


# --- files of a folder -----------------------------------------------------------


def require(found: tuple[Tokenizer | None, str]) -> Tokenizer:
    tokenizer, reason = found
    assert tokenizer is not None and reason == ""
    return tokenizer


@pytest.fixture
def tokenizer_json(tmp_path):
    """A tokenizer.json that would cut, pad, and add a first token by itself."""
    vocabulary = {token: index for index, token in enumerate(BYTES)}
    inner = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    inner.add_special_tokens(["<s>"])
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", len(BYTES))]
    )
    inner.enable_truncation(4)
    inner.enable_padding(length=8)
    inner.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def settings_file(folder, settings):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(settings))
    return path


def test_a_file_neither_cuts_nor_pads_nor_adds(tokenizer_json):
    tokenizer = from_file(tokenizer_json)
    assert tokenizer.decode(tokenizer.encode("abcdefg")) == "abcdefg"
    assert tokenizer.decode(tokenizer.encode("a")) == "a"
    assert tokenizer.bos_id is None


@pytest.mark.parametrize("bos", ["<s>", {"content": "<s>", "lstrip": False}])
@pytest.mark.parametrize(("says", "adds"), [({}, True), ({"add_bos_token": False}, 0)])
def test_settings_name_the_first_token(tmp_path, tokenizer_json, bos, says, adds):
    settings = settings_file(tmp_path, {"bos_token": bos} | says)
    tokenizer = from_file(tokenizer_json, settings)
    assert tokenizer.bos_id == len(BYTES)
    assert tokenizer.adds_bos == bool(adds)
    assert tokenizer.encode("a", bos=True)[0] == len(BYTES)


def test_damaged_files_are_one_sentence(tmp_path, tokenizer_json):
    broken = tmp_path / "broken.json"
    broken.write_text('{"model": ')
    with pytest.raises(UserError, match=r"broken\.json must be a tokenizer\.json"):
        from_file(broken)
    with pytest.raises(UserError, match=r"broken\.json must be JSON"):
        from_file(tokenizer_json, broken)
    with pytest.raises(UserError, match=r"must hold a JSON object"):
        from_file(tokenizer_json, settings_file(tmp_path, ["<s>"]))


# What tokenizer_config.json, special_tokens_map.json and config.json say of the first
# token, and what follows; None: no such file.
@pytest.mark.parametrize(
    ("settings", "specials", "config", "expected"),
    [
        ({"bos_token": "<s>"}, None, None, 256),
        ({}, {"bos_token": {"content": "<s>"}}, None, 256),
        (None, {"bos_token": "<s>"}, {"bos_token_id": 3}, 256),
        ({}, None, {"bos_token_id": 3}, 3),
        ({}, None, {"bos_token_id": 10**10}, None),
        ({}, None, {"bos_token_id": [3]}, None),
        ({"bos_token": None}, {"bos_token": "<s>"}, {"bos_token_id": 3}, 256),
        ({"bos_token": "<x>"}, {"bos_token": "<s>"}, None, 256),
        (
            {"bos_token": None, "added_tokens_decoder": {}},
            {"bos_token": "<s>"},
            {"bos_token_id": 3},
            None,
        ),
        ({"bos_token": "<unheard>"}, None, None, 257),
        (None, None, None, None),
    ],
)
def test_the_first_file_that_names_the_first_token_decides(
    tmp_path, tokenizer_json, settings, specials, config, expected
):
    for name, values in (
        ("tokenizer_config", settings),
        ("special_tokens_map", specials),
        ("config", config),
    ):
        if values is not None:
            (tmp_path / f"{name}.json").write_text(json.dumps(values))
    tokenizer = require(Tokenizer.from_folder(tmp_path))
    assert tokenizer.bos_id == expected
    assert tokenizer.adds_bos == (expected == 256)  # as the file's template does


def test_saved_is_read_back_the_same(tmp_path, tokenizer_json):
    given = Tokenizer.from_gguf(metadata(pre="qwen2", add_bos_token=True))
    given.save(tmp_path / "new" / "folder")
    again = require(Tokenizer.from_folder(tmp_path / "new" / "folder"))
    text = "<|begin|>it's 12   ab cafe\u0301"
    assert again.encode(text) == given.encode(text)
    assert again.decode(given.encode(text)) == given.decode(given.encode(text))
    for name in ("bos_id", "adds_bos", "vocab_size", "special_ids"):
        assert getattr(again, name) == getattr(given, name)
    names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert names == ["tokenizer.json", "tokenizer_config.json"]
    # This file's template adds a first token, which the settings then deny.
    without = from_file(tokenizer_json)
    without.save(tmp_path)
    again = require(Tokenizer.from_folder(tmp_path))
    assert again.bos_id is None and not again.adds_bos


def vocab_files(folder: Path, tokens=(), header="#version: 0.2\n") -> Path:
    joined = [merge.replace(" ", "") for merge in MERGES]
    listed = [*BYTES, *joined, *tokens]
    ids = {token: index for index, token in enumerate(listed)}
    (folder / "vocab.json").write_text(json.dumps(ids))
    (folder / "merges.txt").write_text(header + "\n".join(MERGES) + "\n")
    return folder


@pytest.mark.parametrize("header", ["#version: 0.2\n", ""])
def test_gpt2s_old_files_are_read(tmp_path, header):
    vocab_files(tmp_path, ["<|endoftext|>"], header)
    tokenizer = require(Tokenizer.from_folder(tmp_path))
    same = Tokenizer.from_gguf(metadata(pre="gpt-2"))
    for text in ("it's 12 ab a  ab", "\u00dcn \u6f22\n\n"):
        assert tokenizer.encode(text) == same.encode(text)
    end = tokenizer.vocab_size - 1
    assert tokenizer.encode("a<|endoftext|>")[1:] == [end]
    assert (tokenizer.bos_id, tokenizer.adds_bos) == (end, False)


def test_tokens_added_later_follow_the_vocabulary(tmp_path):
    count = vocab_files(tmp_path) and len(BYTES) + len(MERGES)
    added = tmp_path / "added_tokens.json"
    added.write_text(json.dumps({"<pad>": count + 1, "<sep>": count}))
    tokenizer = require(Tokenizer.from_folder(tmp_path))
    assert tokenizer.encode("<pad><sep>") == [count + 1, count]
    assert tokenizer.bos_id is None
    for wrong in ({"<pad>": count + 5}, {"<pad>": "x", "<sep>": 1}):
        added.write_text(json.dumps(wrong))
        with pytest.raises(UserError, match=r"added_tokens\.json must name tokens"):
            Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tokenizer_config", {"tokenizer_class": "Qwen2Tokenizer"}),
        ("config", {"model_type": "Qwen2Tokenizer"}),
    ],
)
def test_old_files_of_another_family_are_a_reason(tmp_path, name, values):
    (vocab_files(tmp_path) / f"{name}.json").write_text(json.dumps(values))
    tokenizer, reason = Tokenizer.from_folder(tmp_path)
    assert tokenizer is None
    assert "only for GPT-2, but is for 'Qwen2Tokenizer': copy" in reason


def test_old_files_that_do_not_fit_are_one_sentence(tmp_path):
    vocab_files(tmp_path)
    for text in ("a b c\n", "no such\n", "ab\n"):
        (tmp_path / "merges.txt").write_text(text)
        with pytest.raises(UserError, match=r"merges\.txt must hold merges of") as e:
            Tokenizer.from_folder(tmp_path)
        assert "\n" not in str(e.value)


def test_a_folder_without_tokenizer_files_gives_the_reason(tmp_path):
    (tmp_path / "vocab.json").write_text("{}")  # half of a pair
    tokenizer, reason = Tokenizer.from_folder(tmp_path)
    assert tokenizer is None
    assert reason == f"there is no tokenizer.json in {tmp_path}: copy it there"


# --- what the files beside a tokenizer add ---------------------------------------

FIRST = len(BYTES) + 1
"""The id behind those of the file and its "<s>"."""


def beside(folder: Path, **files) -> Tokenizer:
    """The folder's tokenizer, once these JSON files stand beside it."""
    for name, values in files.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    return require(Tokenizer.from_folder(folder))


START = {"content": "<|im_start|>", "lstrip": True, "special": True}


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"added_tokens_decoder": {str(FIRST): START}}},
        {"tokenizer_config": {"additional_special_tokens": ["<|im_start|>"]}},
        {"tokenizer_config": {"extra_special_tokens": ["<|im_start|>"]}},
        {"tokenizer_config": {"extra_special_tokens": {"start": "<|im_start|>"}}},
        {"tokenizer_config": {"bos_token": START | {"__type": "AddedToken"}}},
        {"tokenizer_config": {"pad_token": "<|im_start|>"}},
        {"tokenizer_config": {"image_token": "<|im_start|>"}},
        {"special_tokens_map": {"pad_token": START}},
        {"special_tokens_map": {"additional_special_tokens": ["<|im_start|>"]}},
        {"added_tokens": {"<|im_start|>": FIRST}},
    ],
)
def test_tokens_named_beside_the_file_are_found(tmp_path, tokenizer_json, files):
    tokenizer = beside(tmp_path, **files)
    a, *user = tokenizer.encode("auser")
    assert tokenizer.encode("a<|im_start|>user") == [a, FIRST, *user]
    assert tokenizer.vocab_size == FIRST + 1
    tokenizer.save(tmp_path / "saved")
    again = require(Tokenizer.from_folder(tmp_path / "saved"))
    assert again.encode("a<|im_start|>user") == [a, FIRST, *user]
    assert again.special_ids == tokenizer.special_ids


def test_added_tokens_come_by_id_and_then_by_role(tmp_path, tokenizer_json):
    tokenizer = beside(
        tmp_path,
        tokenizer_config={
            "additional_special_tokens": ["<e>", "<y>"],
            "pad_token": "<pad>",
            "eos_token": "<e>",
        },
        added_tokens={"<y>": FIRST + 1, "<x>": FIRST},
    )
    texts = ["<x>", "<y>", "<e>", "<pad>"]
    assert [tokenizer.encode(text) for text in texts] == [[FIRST + i] for i in range(4)]
    assert tokenizer.special_ids == {FIRST - 1, FIRST + 1, FIRST + 2, FIRST + 3}


def test_tokens_listed_by_id_leave_the_older_files_unread(tmp_path, tokenizer_json):
    tokenizer = beside(
        tmp_path,
        tokenizer_config={"added_tokens_decoder": {str(FIRST): START}},
        special_tokens_map={"pad_token": "<pad>"},
        added_tokens={"<x>": FIRST + 7},
    )
    assert tokenizer.vocab_size == FIRST + 1


def test_the_flags_of_an_added_token_hold(tmp_path, tokenizer_json):
    tokenizer = beside(
        tmp_path, tokenizer_config={"added_tokens_decoder": {str(FIRST): START}}
    )
    ids = tokenizer.encode("a  <|im_start|> b")
    assert ids == [*tokenizer.encode("a"), FIRST, *tokenizer.encode(" b")]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"added_tokens_decoder": {str(FIRST + 5): START}},
            rf"'<\|im_start\|>' has the id {FIRST + 5} where {FIRST} is its own",
        ),
        ({"added_tokens_decoder": {"x": START}}, "'x' stands for an id"),
        ({"added_tokens_decoder": {str(FIRST): 7}}, "7 stands for a token"),
        ({"pad_token": {"text": "<pad>"}}, "stands for a token"),
        ({"pad_token": {"content": "<pad>", "lstrip": "x"}}, "stands for a token"),
        ({"bos_token": 3}, "3 stands for a token"),
        ({"extra_special_tokens": [3]}, "3 stands for a token"),
        ({"extra_special_tokens": "<x>"}, "'<x>' stands for a list of tokens"),
    ],
)
def test_a_wrong_name_of_a_token_is_one_sentence(
    tmp_path, tokenizer_json, settings, sentence
):
    start = r"tokenizer_config\.json must name tokens as transformers writes them.*"
    with pytest.raises(UserError, match=start + sentence):
        beside(tmp_path, tokenizer_config=settings)


@pytest.mark.parametrize(
    ("settings", "kind", "prefixed"),
    [
        ({"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}, "llama", True),
        ({"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True}, "", True),
        ({"add_prefix_space": True}, "gpt_neox", True),
        ({"add_prefix_space": True}, "llama", False),
        (
            {"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": True},
            "llama",
            False,
        ),
        ({"tokenizer_class": "GPT2Tokenizer"}, "llama", False),
    ],
)
def test_a_space_before_a_text_is_put_where_the_class_does_so(
    tmp_path, tokenizer_json, settings, kind, prefixed
):
    plain = from_file(tokenizer_json)
    tokenizer = beside(tmp_path, tokenizer_config=settings, config={"model_type": kind})
    for text in ("a", " a", "a b", "", "\na"):
        before = " " if prefixed and text and not text.startswith(" ") else ""
        assert tokenizer.encode(text) == plain.encode(before + text), text


def test_a_space_before_a_text_is_taken_off(tmp_path):
    """The two ways in which files of Llama's put it."""
    for spaced in (
        {
            "normalizer": normalizers.Sequence(
                [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
            )
        },
        {"pre_tokenizer": pre_tokenizers.Metaspace(prepend_scheme="first")},
    ):
        inner = tokenizers.Tokenizer(models.BPE({"a": 0, SPACE: 1}, []))
        for name, step in spaced.items():
            setattr(inner, name, step)
        inner.save(str(tmp_path / "tokenizer.json"))
        assert beside(tmp_path, tokenizer_config={}).encode("a a") == [1, 0, 1, 0]
        settings = {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False}
        without = beside(tmp_path, tokenizer_config=settings)
        assert without.encode("a a") == [0, 1, 0]
        settings["add_prefix_space"] = True
        assert beside(tmp_path, tokenizer_config=settings).encode("a") == [1, 0]
    inner = tokenizers.Tokenizer(models.BPE({"a": 0, SPACE: 1}, []))
    inner.save(str(tmp_path / "tokenizer.json"))
    tokenizer, reason = Tokenizer.from_folder(tmp_path)
    assert tokenizer is None and "add_prefix_space), but the tokenizer" in reason


def test_dropout_is_off_and_said(tmp_path):
    pairs = [("a", "b"), ("ab", "ab")]
    vocabulary = {text: index for index, text in enumerate(("a", "b", "ab", "abab"))}
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, pairs, dropout=0.5))
    path = tmp_path / "tokenizer.json"
    inner.save(str(path))
    with pytest.warns(UserWarning, match=r"json asks for a dropout of 0\.5, .* off"):
        tokenizer = from_file(path)
    assert all(tokenizer.encode("ababab") == [3, 2] for _ in range(50))
    tokenizer.save(tmp_path / "saved")
    assert '"dropout":null' in (tmp_path / "saved/tokenizer.json").read_text()
