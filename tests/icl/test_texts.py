"""Documents of the token-loss study."""

import json
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from jaxheads.errors import UserError
from jaxheads.icl.texts import (
    encode_documents,
    encode_stream,
    pydoc_topics,
    read_documents,
)


class Small:
    """A trained word tokenizer, seen through the project's interface."""

    bos_id = 0

    def __init__(self, texts):
        self.inner = tokenizers.Tokenizer(models.WordLevel(unk_token="<s>"))
        self.inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.WordLevelTrainer(special_tokens=["<s>"], show_progress=False)
        self.inner.train_from_iterator(texts, trainer)

    def encode(self, text, bos=False):
        """Turn text into ids."""
        return [0] * bos + self.inner.encode(text).ids


DOCUMENTS = ["a b c d e", "b c", "c d e a", "d e a b c d"]


@pytest.fixture(scope="module")
def tokenizer():
    return Small(DOCUMENTS)


def test_a_row_is_the_beginning_of_one_document(tokenizer):
    rows = encode_documents(DOCUMENTS, tokenizer, bos=False, length=4)
    assert rows.dtype == np.int32
    words = [tokenizer.inner.decode(row.tolist()) for row in rows]
    assert words == ["a b c d", "c d e a", "d e a b"]


def test_the_bos_token_is_one_of_a_row(tokenizer):
    rows = encode_documents(DOCUMENTS, tokenizer, bos=True, length=6)
    assert rows.shape == (2, 6)
    assert (rows[:, 0] == 0).all() and (rows[:, 1:] > 0).all()
    with pytest.raises(UserError, match="already begins with it"):
        encode_documents(["<s> a b"], tokenizer, bos=True, length=2)


def test_the_first_documents_are_taken(tokenizer):
    some = encode_documents(DOCUMENTS, tokenizer, bos=False, length=4, count=2)
    every = encode_documents(DOCUMENTS, tokenizer, bos=False, length=4, count=None)
    np.testing.assert_array_equal(some, every[:2])


@pytest.mark.parametrize(
    "asked, message",
    [
        ({"length": 4, "count": 4}, "4 documents of 4 .* 3 of 4 are long enough"),
        ({"length": 9, "count": None}, "1 documents of 9 .* 0 of 4"),
        ({"length": 0}, "not 0 tokens"),
        ({"length": 2, "count": 0}, "0 rows"),
    ],
)
def test_too_few_documents_are_counted(tokenizer, asked, message):
    with pytest.raises(UserError, match=message):
        encode_documents(DOCUMENTS, tokenizer, bos=False, **asked)


def test_the_interpreters_topics_are_documents():
    topics = pydoc_topics()
    assert len(topics) > 50
    assert all(isinstance(topic, str) for topic in topics)
    assert topics == pydoc_topics()
    assert sum(len(topic) > 3000 for topic in topics) > 20


def test_text_files_and_folders(tmp_path):
    (tmp_path / "b.txt").write_text("second\ntext", encoding="utf-8")
    (tmp_path / "a.txt").write_text("first é", encoding="utf-8")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "notes.md").write_text("not text")
    assert read_documents(tmp_path / "b.txt") == ["second\ntext"]
    assert read_documents(str(tmp_path)) == ["first é", "second\ntext"]


def test_json_lines(tmp_path):
    path = tmp_path / "some.jsonl"
    lines = [json.dumps({"text": text, "id": 1}) for text in ("one\ntwo", "", "three")]
    path.write_text("\n".join(lines) + "\n\n" + '{"text": "a\u2028b"}', "utf-8")
    assert read_documents(path) == ["one\ntwo", "three", "a\u2028b"]


def test_parquet(tmp_path):
    path = tmp_path / "some.parquet"
    table = pyarrow.table({"id": [1, 2, 3], "text": ["one", None, "two"]})
    pyarrow.parquet.write_table(table, path)
    assert read_documents(path) == ["one", "two"]


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"body": ["one"]}, 'a column "text" of texts, its columns are body'),
        ({"text": [1]}, 'a column "text" of texts'),
        ({"text": [" "]}, "holds no text"),
    ],
)
def test_parquet_without_text(tmp_path, columns, message):
    path = tmp_path / "some.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    with pytest.raises(UserError, match=message):
        read_documents(path)


def test_parquet_needs_pyarrow(tmp_path, monkeypatch):
    path = tmp_path / "some.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(UserError, match="not a readable parquet file") as caught:
        read_documents(path)
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'jaxheads\[parquet\]'"):
        read_documents(path)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": ', "line 2 of .* not valid JSON"),
        ("a.jsonl", b'{"text": "a"}\n\n{"body": "b"}', "line 3 .* text field"),
        ("a.jsonl", b"3", "line 1 .* text field"),
        ("a.txt", b"\xff", r"not UTF-8 text: save it"),
        ("a.txt", b" ", "holds no text"),
        ("a.csv", b"text", r"must be a \.txt, \.jsonl or \.parquet"),
    ],
)
def test_wrong_files_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_documents(path)
    assert str(path) in str(caught.value)


def test_missing_files_and_empty_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="nothing is there"):
        read_documents(tmp_path / "nowhere.txt")
    with pytest.raises(UserError, match="holds no text"):
        read_documents(tmp_path)


def test_a_stream_is_cut_without_gap(tokenizer):
    """Documents in their order, BOS between them, and the rest at the end left out."""
    encode = tokenizer.encode
    stream = [*encode("a b c d e"), 0, *encode("b c"), 0, *encode("c d e a"), 0]
    stream += encode("d e a b c d")  # 20 tokens
    rows = encode_stream(DOCUMENTS, tokenizer, bos=False, length=6)
    assert (
        rows.dtype == np.int32
        and rows.tolist() == np.reshape(stream[:18], (3, 6)).tolist()
    )
    led = encode_stream(DOCUMENTS, tokenizer, bos=True, length=6)
    assert led.shape == (4, 6) and (led[:, 0] == 0).all()
    assert led[:, 1:].ravel().tolist() == stream
    some = encode_stream(DOCUMENTS, tokenizer, bos=True, length=6, count=2)
    np.testing.assert_array_equal(some, led[:2])


def test_without_bos_nothing_is_between_documents(tokenizer, monkeypatch):
    monkeypatch.setattr(Small, "bos_id", None)
    rows = encode_stream(DOCUMENTS, tokenizer, bos=False, length=17)
    assert rows.tolist() == [[i for text in DOCUMENTS for i in tokenizer.encode(text)]]


@pytest.mark.parametrize(
    "encode, length, there", [(encode_documents, 5, 2), (encode_stream, 6, 3)]
)
def test_fewer_rows_than_wanted_may_be_enough(tokenizer, encode, length, there):
    arguments = {"bos": False, "length": length, "count": 9}
    rows = encode(DOCUMENTS, tokenizer, least=2, **arguments)
    assert len(rows) == there
    with pytest.raises(UserError, match=r"4 .* needed"):
        encode(DOCUMENTS, tokenizer, least=4, **arguments)
    with pytest.raises(UserError, match=r"9 .* needed"):
        encode(DOCUMENTS, tokenizer, **arguments)
