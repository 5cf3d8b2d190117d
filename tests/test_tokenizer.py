"""Tokenizers from a GGUF file's vocabulary and from tokenizer.json."""

import json

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from jaxheads.errors import UserError
from jaxheads.tokenizer import Tokenizer

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
    ],
)
def test_each_pre_tokenizer_splits_as_its_name_says(pre, text, expected):
    assert pieces(Tokenizer.from_gguf(metadata(pre=pre)), text) == expected


@pytest.mark.parametrize("pre", ["smollm", "gpt-2", "llama-bpe"])
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
        ({"pre": "tekken"}, "smollm.*but is 'tekken'"),
        ({"pre": None}, "but is 'default'"),
        ({"model": "llama"}, "byte-level BPE.*but is 'llama'"),
        ({"model": None}, "but is None"),
        ({"merges": None}, "needs tokens and merges"),
        ({"merges": ["no such"]}, "must belong together"),
    ],
)
def test_what_is_not_built_is_refused_by_name(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        Tokenizer.from_gguf(metadata(**changes))


@pytest.mark.parametrize("architecture", ["gpt2", "gptneox"])
def test_older_files_of_gpt_families_need_no_pre(architecture):
    keys = metadata(pre=None) | {"general.architecture": architecture}
    assert pieces(Tokenizer.from_gguf(keys), "12") == ["12"]


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
    tokenizer = Tokenizer.from_file(tokenizer_json)
    assert tokenizer.decode(tokenizer.encode("abcdefg")) == "abcdefg"
    assert tokenizer.decode(tokenizer.encode("a")) == "a"
    assert tokenizer.bos_id is None


@pytest.mark.parametrize("bos", ["<s>", {"content": "<s>", "lstrip": False}])
@pytest.mark.parametrize(("says", "adds"), [({}, True), ({"add_bos_token": False}, 0)])
def test_settings_name_the_first_token(tmp_path, tokenizer_json, bos, says, adds):
    settings = settings_file(tmp_path, {"bos_token": bos} | says)
    tokenizer = Tokenizer.from_file(tokenizer_json, settings)
    assert tokenizer.bos_id == len(BYTES)
    assert tokenizer.adds_bos == bool(adds)
    assert tokenizer.encode("a", bos=True)[0] == len(BYTES)


def test_damaged_files_are_one_sentence(tmp_path, tokenizer_json):
    broken = tmp_path / "broken.json"
    broken.write_text('{"model": ')
    with pytest.raises(UserError, match=r"broken\.json must be a tokenizer\.json"):
        Tokenizer.from_file(broken)
    with pytest.raises(UserError, match=r"broken\.json must hold a JSON object"):
        Tokenizer.from_file(tokenizer_json, broken)
    with pytest.raises(UserError, match=r"must hold a JSON object"):
        Tokenizer.from_file(tokenizer_json, settings_file(tmp_path, ["<s>"]))
