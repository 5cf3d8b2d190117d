"""SentencePiece vocabularies, in GGUF files and in tokenizer.model."""

import json
import shutil
from pathlib import Path

import pytest

from jaxheads.errors import UserError
from jaxheads.tokenizer.tokenizer import Tokenizer

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def golden() -> dict:
    """What the sentencepiece library gives for two models that it has trained."""
    return json.loads((DATA / "sentencepiece.json").read_text())


def spm_metadata(model: dict, **changes) -> dict:
    tokens, scores, types = zip(*model["pieces"], strict=True)
    keys = {
        "model": "llama",
        "pre": "default",
        "tokens": list(tokens),
        "scores": list(scores),
        "token_type": list(types),
        "add_space_prefix": model["prefix"],
        "bos_token_id": model["bos_id"],
    }
    named = {f"tokenizer.ggml.{k}": v for k, v in (keys | changes).items()}
    return {"general.architecture": "llama", **named}


def spm_folder(folder: Path, name: str) -> Path:
    shutil.copy(DATA / f"sentencepiece_{name}.model", folder / "tokenizer.model")
    return folder


def require(found: tuple[Tokenizer | None, str]) -> Tokenizer:
    tokenizer, reason = found
    assert tokenizer is not None and reason == ""
    return tokenizer


@pytest.mark.parametrize("name", ["llama", "gemma"])
@pytest.mark.parametrize("source", ["gguf", "model", "saved"])
def test_ids_are_those_of_sentencepiece(tmp_path, golden, name, source):
    model = golden[name]
    if source == "model":
        tokenizer = require(Tokenizer.from_folder(spm_folder(tmp_path, name)))
    else:
        tokenizer = Tokenizer.from_gguf(spm_metadata(model))
    if source == "saved":
        tokenizer.save(tmp_path)
        tokenizer = require(Tokenizer.from_folder(tmp_path))
    assert (tokenizer.bos_id, tokenizer.adds_bos) == (model["bos_id"], True)
    compared = 0
    for text, ids, decoded in zip(
        golden["texts"], model["ids"], model["decoded"], strict=True
    ):
        if "<s>" in text:  # special tokens are found here, not by sentencepiece
            continue
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.decode(ids) == decoded == text.replace("\u2581", " ")
        compared += 1
    assert compared > 40


def test_special_pieces_are_found_and_begin_a_text_anew(golden):
    tokenizer = Tokenizer.from_gguf(spm_metadata(golden["llama"]))
    the = tokenizer.encode("the cat")
    assert tokenizer.encode("<s>the cat") == [1, *the]
    assert tokenizer.encode("the cat", bos=True) == [1, *the]
    assert tokenizer.encode("the cat</s>the cat") == [*the, 2, *the]
    assert tokenizer.special_ids == {0, 1, 2}
    with pytest.raises(UserError, match="begins with '<s>' already"):
        tokenizer.encode("<s>the cat", bos=True)


def test_settings_of_the_file_are_followed(golden):
    keys = spm_metadata(golden["llama"], add_bos_token=False)
    assert not Tokenizer.from_gguf(keys).adds_bos
    del keys["tokenizer.ggml.add_space_prefix"]  # as llama.cpp: there is one
    tokenizer = Tokenizer.from_gguf(keys)
    assert tokenizer.encode("the cat") == tokenizer.encode("<s>the cat")[1:]
    plain = Tokenizer.from_gguf(keys | {"tokenizer.ggml.add_space_prefix": False})
    assert plain.encode(" the cat") == tokenizer.encode("the cat")


def test_without_byte_pieces_a_run_of_unknown_characters_is_one_piece(golden):
    pieces = [row for row in golden["llama"]["pieces"] if row[2] != 6]
    keys = spm_metadata(golden["llama"] | {"pieces": pieces})
    ids = Tokenizer.from_gguf(keys).encode("the\u6f22\u5b57the")
    assert ids.count(0) == 1


def test_a_sentencepiece_vocabulary_that_makes_no_sense_is_one_sentence(golden):
    for changes in ({"scores": None}, {"scores": [0.0]}, {"token_type": 3}):
        with pytest.raises(UserError, match="as many scores and token_types as tokens"):
            Tokenizer.from_gguf(spm_metadata(golden["llama"], **changes))
    broken = {"pieces": [[i, 0.0, 1] for i in range(300)]}
    with pytest.raises(UserError, match="must be a list of different pieces"):
        Tokenizer.from_gguf(spm_metadata(golden["llama"] | broken))


def test_every_damaged_sentencepiece_model_is_one_sentence(tmp_path):
    path = spm_folder(tmp_path, "llama") / "tokenizer.model"
    whole = path.read_bytes()
    for length in [*range(1, 200, 3), len(whole) - 1]:
        path.write_bytes(whole[:length])
        try:
            Tokenizer.from_folder(tmp_path)
        except UserError as error:
            assert "tokenizer.model must be a SentencePiece model" in str(error)
    for position in range(0, 1500, 7):
        path.write_bytes(whole[:position] + b"\xff" + whole[position + 1 :])
        try:
            Tokenizer.from_folder(tmp_path)
        except UserError as error:
            assert "\n" not in str(error)


def field(number: int, value: int | bytes) -> bytes:
    """A field of a protobuf message, short ones only."""
    if isinstance(value, int):
        return bytes([number * 8 % 128 + 128, number // 16, value])
    return bytes([number * 8 + 2, len(value)]) + value


@pytest.mark.parametrize(
    ("appended", "sentence"),
    [
        (field(2, field(3, 1)), "is not of the BPE kind"),
        (field(3, field(2, b"map")), "rewrites characters"),
        (field(3, field(4, 1)), "drops spaces"),
        (field(3, field(4, 0) + field(5, 0)), "keeps spaces as they are"),
        (field(2, field(3, 2) + field(24, 1)), "puts spaces behind words"),
    ],
)
def test_other_kinds_of_sentencepiece_models_are_a_reason(tmp_path, appended, sentence):
    path = spm_folder(tmp_path, "llama") / "tokenizer.model"
    # The last message of a number counts; one in two parts would be merged.
    path.write_bytes(path.read_bytes() + appended)
    tokenizer, reason = Tokenizer.from_folder(tmp_path)
    assert tokenizer is None
    assert sentence in reason and "copy the model's tokenizer.json" in reason


def test_a_tiktoken_file_is_a_reason(tmp_path):
    (tmp_path / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")
    tokenizer, reason = Tokenizer.from_folder(tmp_path)
    assert tokenizer is None and "is a tiktoken vocabulary" in reason
