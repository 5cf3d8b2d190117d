"""Corpora from files, and their tokens on the disk: whole, resumed, checked."""

import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from listed_corpus import ListedCorpus

from jaxheads.errors import UserError
from jaxheads.tokenizer.tokenizer import Tokenizer
from jaxheads.training.data import token_store
from jaxheads.training.data.corpora import open_corpus
from jaxheads.training.data.token_store import open_store, tokenise
from jaxheads.training.data.vocabulary import BEGIN, train_tokenizer

TEXTS = [f"the {word} of {word}s, no. {n}\n" * (1 + n % 5) for n, word in enumerate(
    ["cat", "dog", "owl", "élan", "naïveté", "日本", "fox", "hen", "emu", "yak"] * 4
)]  # fmt: skip
CORPUS = ListedCorpus("animals", TEXTS)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(CORPUS, 300)


def write_text(folder, texts=TEXTS):
    """One file each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"{number:03}.txt").write_text(text, encoding="utf-8")
    return folder


def write_lines(path, texts=TEXTS, column="text"):
    """JSON lines, some of them empty."""
    lines = "\n\n".join(json.dumps({column: text, "id": 1}) for text in texts)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines.encode()))
    else:
        path.write_text(lines)
    return path


def write_parquet(path, texts=TEXTS, column="text"):
    """Several row groups and a row without text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table({"id": range(len(texts) + 1), column: [*texts, None]})
    pyarrow.parquet.write_table(table, path, row_group_size=7)
    return path


def write_arrow(path, texts=TEXTS, kind=None):
    """An arrow stream in several batches."""
    path.parent.mkdir(parents=True, exist_ok=True)
    column = pyarrow.array(texts, kind or pyarrow.large_string())
    table = pyarrow.table({"text": column})
    with pyarrow.ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table, max_chunksize=6)
    return path


def write_saved(folder, texts=TEXTS, **state):
    """A data set as ``save_to_disk`` lays it out: two shards and their list."""
    half = len(texts) // 2
    names = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    for name, some in zip(names, (texts[:half], texts[half:]), strict=True):
        write_arrow(folder / name, some)
    listed = {"_data_files": [{"filename": name} for name in names], **state}
    (folder / "state.json").write_text(json.dumps(listed))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def read(corpus):
    """Every document."""
    return [
        text for unit in range(len(corpus.units)) for text in corpus.documents(unit)
    ]


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path / "texts"),
        lambda path: write_lines(path / "some.jsonl"),
        lambda path: write_lines(path / "some.jsonl.gz"),
        lambda path: write_parquet(path / "some.parquet"),
        lambda path: write_arrow(path / "some.arrow"),
        lambda path: write_saved(path / "saved"),
    ],
    ids=["texts", "jsonl", "jsonl.gz", "parquet", "arrow", "save_to_disk"],
)
def test_every_kind_of_file_gives_the_same_documents(write, tmp_path):
    assert read(open_corpus(write(tmp_path))) == TEXTS


def test_a_folder_is_read_in_order_of_names_at_any_depth(tmp_path):
    write_lines(tmp_path / "b.jsonl", ["b1", "b2"])
    write_text(tmp_path / "c" / "deep", ["c1", "c2"])
    write_parquet(tmp_path / "a.parquet", ["a1"])
    (tmp_path / "notes.md").write_text("no text")
    (tmp_path / ".hidden.txt").write_text("no text")
    corpus = open_corpus(tmp_path)
    assert corpus.units == ("a.parquet", "b.jsonl", "c/deep/000.txt", "c/deep/001.txt")
    assert read(corpus) == ["a1", "b1", "b2", "c1", "c2"]


def test_a_text_file_may_hold_many_documents(tmp_path, monkeypatch):
    path = tmp_path / "all.txt"
    path.write_text("<end>".join(TEXTS), encoding="utf-8")
    assert read(open_corpus(path)) == ["<end>".join(TEXTS)]
    # Pieces so short that the separator is cut by their ends.
    monkeypatch.setattr("jaxheads.icl.texts._CHARACTERS", 3)
    assert read(open_corpus(path, separator="<end>")) == TEXTS


def test_a_column_may_have_another_name(tmp_path):
    path = write_lines(tmp_path / "some.jsonl", column="body")
    assert read(open_corpus(path, column="body")) == TEXTS
    path = write_parquet(tmp_path / "some.parquet", column="body")
    assert read(open_corpus(path, column="body")) == TEXTS


def test_a_split_is_chosen_where_there_are_several(tmp_path):
    shards = tmp_path / "shards" / "data"
    write_parquet(shards / "train-00000-of-00002.parquet", ["a"])
    write_parquet(shards / "train-00001-of-00002.parquet", ["b"])
    assert read(open_corpus(shards.parent)) == ["a", "b"]
    write_parquet(shards / "test-00000-of-00001.parquet", ["c"])
    assert read(open_corpus(shards.parent, split="train")) == ["a", "b"]
    saved = tmp_path / "saved"
    write_saved(saved / "train", ["a", "b"])
    write_saved(saved / "test", ["c", "d"])
    (saved / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert read(open_corpus(saved, split="test")) == ["c", "d"]
    for folder in (saved, shards.parent):
        with pytest.raises(UserError, match=r"has the splits .*none is named"):
            open_corpus(folder)
        with pytest.raises(UserError, match="'dev' is asked for"):
            open_corpus(folder, split="dev")


def cut(path):
    """The file without its last bytes."""
    path.write_bytes(path.read_bytes()[:-9])
    return path


def flipped(path):
    """The file with a byte in the middle that is not what it was."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    return path


def with_splits(path, splits):
    """A folder whose list of splits is something else."""
    (path / "dataset_dict.json").write_text(json.dumps({"splits": splits}))
    return path


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda p: p / "none", "nothing is there"),
        (lambda p: p, "must hold a .txt, .jsonl, .parquet or .arrow file"),
        (lambda p: write_lines(p / "a.csv"), "must be a .txt, .jsonl"),
        (lambda p: write_saved(p, _indices_files=[1]), "flatten_indices"),
        (lambda p: write_arrow(p / "a.arrow", [1], pyarrow.int32()), 'column "text"'),
        (lambda p: write_parquet(p / "a.parquet", column="b"), "its columns are id, b"),
        (lambda p: cut(write_parquet(p / "a.parquet")), "not a readable parquet file"),
        (lambda p: cut(write_arrow(p / "a.arrow")), "not a readable arrow file"),
        (lambda p: cut(write_lines(p / "a.jsonl")), "line 79 .* not valid JSON"),
        (lambda p: cut(write_lines(p / "a.jsonl.gz")), "cannot be read to its end"),
        (lambda p: flipped(write_lines(p / "a.jsonl.gz")), "cannot be read to its end"),
        (lambda p: with_splits(p, 3), "must list the folders of its splits"),
        (lambda p: with_splits(p, [0.5]), "must list the folders of its splits"),
        (lambda p: with_splits(p, ["../secret"]), "must list the folders of its"),
        (lambda p: with_splits(p, ["x" * 300]), "must list the folders of its"),
        (lambda p: write_saved(p, _data_files=[{"filename": "/etc/a.txt"}]), "of the"),
        (lambda p: write_saved(p, _data_files=[{"filename": None}]), "of the folder"),
        (lambda p: write_lines(p / "a.jsonl", column="b"), 'a text field "text"'),
        (lambda p: write_lines(p / "a.jsonl", [3]), "line 1 .* a text field"),
    ],
)
def test_what_cannot_be_read_is_named(make, message, tmp_path):
    (tmp_path / "data").mkdir()
    path = make(tmp_path / "data")
    with pytest.raises(UserError, match=message) as caught:
        read(open_corpus(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"abc\xff")
    with pytest.raises(UserError, match="not UTF-8"):
        read(open_corpus(tmp_path / "a.txt"))


def test_pyarrow_is_asked_for_where_it_is_needed(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'jaxheads\[parquet\]'"):
        read(open_corpus(path))


# The store.


def contents(folder):
    """Every file's bytes."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_store_holds_each_documents_tokens(tokenizer, tmp_path):
    texts = ["", *TEXTS, " \n", "end"]
    store = tokenise(ListedCorpus("some", texts), tokenizer, tmp_path / "store")
    assert store.documents == len(TEXTS) + 1
    for number, text in enumerate([*TEXTS, "end"]):
        assert store.document(number).tolist() == tokenizer.encode(text)
    assert store.tokens.dtype == np.uint16
    receipt = store.receipt
    assert receipt["documents"] == store.documents
    assert receipt["tokens"] == len(store.tokens) == store.offsets[-1]
    assert receipt["characters"] == sum(map(len, TEXTS)) + 3
    assert receipt["highest_id"] == store.tokens.max() < tokenizer.vocab_size
    assert sorted(contents(store.path)) == [
        "hashes.npy", "offsets.npy", "store.json", "tokens.bin",
    ]  # fmt: skip
    store.verify()
    assert len(set(store.hashes.tolist())) == len({*TEXTS, "end"})


def test_the_bytes_do_not_depend_on_the_chunks(tokenizer, tmp_path):
    reports = []
    for chunk in (1, 70, 1 << 20):
        tokenise(CORPUS, tokenizer, tmp_path / str(chunk), chunk=chunk)
        reports.append(contents(tmp_path / str(chunk)))
    assert reports[0] == reports[1] == reports[2]


def test_a_large_vocabulary_takes_four_bytes(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(Tokenizer, "vocab_size", property(lambda self: 70_000))
    store = tokenise(CORPUS, tokenizer, tmp_path / "store")
    assert store.tokens.dtype == np.uint32
    assert store.document(3).tolist() == tokenizer.encode(TEXTS[3])


class KilledError(BaseException):
    """Ends a run at a place of the test's choice."""


@pytest.mark.parametrize("kind", ["one unit", "many units"])
@pytest.mark.parametrize("after", [1, 4])
def test_a_store_goes_on_where_it_stopped(kind, after, tokenizer, tmp_path):
    path = tmp_path / "texts"
    if kind == "one unit":
        path = write_lines(tmp_path / "some.jsonl")
    else:
        write_text(path, TEXTS[:20])
        write_parquet(path / "more.parquet", TEXTS[20:])
    corpus = open_corpus(path)
    every = []
    whole = tokenise(
        corpus, tokenizer, tmp_path / "whole", chunk=60, progress=every.append
    )
    folder = tmp_path / "stopped"
    told = []

    def stop(progress):
        told.append(progress)
        if len(told) == after:
            raise KilledError

    with pytest.raises(KilledError):
        tokenise(corpus, tokenizer, folder, progress=stop, chunk=60)
    with pytest.raises(UserError, match="has not finished"):
        open_store(folder)
    # Killed between the tokens and the record of them: the files are too long.
    for name in ("tokens.bin", "lengths.partial"):
        with (folder / name).open("ab") as file:
            file.write(b"abc")
    again = []
    tokenise(corpus, tokenizer, folder, progress=again.append, chunk=60)
    assert contents(folder) == contents(whole.path)
    assert told + again == every  # nothing was done twice


def test_a_stop_at_the_very_end_is_mended(tokenizer, tmp_path, monkeypatch):
    whole = tokenise(CORPUS, tokenizer, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(
            "jaxheads.training.data.token_store.sha256_of", lambda path: 1 // 0
        )
        with pytest.raises(ZeroDivisionError):
            tokenise(CORPUS, tokenizer, tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "store.json").exists()
    tokenise(CORPUS, tokenizer, tmp_path / "stopped")
    (tmp_path / "stopped" / "lengths.partial").write_bytes(b"left over")
    tokenise(CORPUS, tokenizer, tmp_path / "stopped")
    assert contents(tmp_path / "stopped") == contents(whole.path)


def test_a_killed_process_leaves_what_can_be_resumed(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer")
    path = write_lines(tmp_path / "some.jsonl", TEXTS * 20)
    script = """
        import sys, time
        from pathlib import Path
        from jaxheads.tokenizer.tokenizer import Tokenizer
        from jaxheads.training.data.corpora import open_corpus
        from jaxheads.training.data.token_store import tokenise
        tokenizer, _ = Tokenizer.from_folder(Path(sys.argv[1]))
        def report(progress):
            print(progress.documents, flush=True)
            time.sleep(0.01)
        tokenise(open_corpus(sys.argv[2]), tokenizer, sys.argv[3], progress=report,
                 chunk=60)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), tmp_path / "tokenizer"]
    process = subprocess.Popen(
        [*command, path, tmp_path / "killed"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    for _ in range(10):
        assert process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    saved, _ = Tokenizer.from_folder(tmp_path / "tokenizer")
    assert saved is not None
    reports = []
    tokenise(open_corpus(path), saved, tmp_path / "killed", progress=reports.append)
    assert reports[0].documents > 10
    whole = tokenise(open_corpus(path), saved, tmp_path / "whole")
    assert contents(tmp_path / "killed") == contents(whole.path)


def test_a_finished_store_is_only_opened(tokenizer, tmp_path):
    tokenise(CORPUS, tokenizer, tmp_path / "store")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "store").iterdir()}
    reports = []
    tokenise(CORPUS, tokenizer, tmp_path / "store", progress=reports.append)
    assert not reports
    assert before == {
        file: file.stat().st_mtime_ns for file in (tmp_path / "store").iterdir()
    }


def test_another_tokenizer_or_corpus_is_refused(tokenizer, tmp_path):
    path = write_text(tmp_path / "texts", TEXTS[:4])
    tokenise(open_corpus(path), tokenizer, tmp_path / "store")
    other = train_tokenizer(CORPUS, 280)
    with pytest.raises(UserError, match="another tokenizer"):
        tokenise(open_corpus(path), other, tmp_path / "store")
    with pytest.raises(UserError, match=r"another corpus .*name null there"):
        tokenise(CORPUS, tokenizer, tmp_path / "store")
    (path / "000.txt").write_text("longer than before: " + TEXTS[0])
    with pytest.raises(UserError, match=r"another corpus .*files "):
        tokenise(open_corpus(path), tokenizer, tmp_path / "store")
    with pytest.raises(UserError, match="must be a new or an empty folder"):
        tokenise(CORPUS, tokenizer, path)


def test_only_one_process_writes_a_store(tokenizer, tmp_path):
    def meddle(progress):
        with pytest.raises(UserError, match="another is at work in it"):
            tokenise(CORPUS, tokenizer, tmp_path / "store")

    tokenise(CORPUS, tokenizer, tmp_path / "store", progress=meddle)


def test_a_store_that_was_finished_meanwhile_is_not_begun_again(tokenizer, tmp_path):
    store = tokenise(CORPUS, tokenizer, tmp_path / "store")
    before = contents(store.path)
    with pytest.raises(UserError, match="just been finished by another process"):
        token_store.StoreWriter(store.path, {}, 300)
    assert contents(store.path) == before


def test_a_corpus_without_text_is_refused(tokenizer, tmp_path):
    for texts in ([], [" \n", ""]):
        with pytest.raises(UserError, match="holds no text"):
            tokenise(ListedCorpus("none", texts), tokenizer, tmp_path / str(len(texts)))


def test_half_characters_become_question_marks(tokenizer, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a \\ud800 b"}')
    store = tokenise(open_corpus(tmp_path / "a.jsonl"), tokenizer, tmp_path / "store")
    assert store.document(0).tolist() == tokenizer.encode("a ? b")


def test_ids_beyond_the_vocabulary_are_refused(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(Tokenizer, "vocab_size", property(lambda self: 100))
    with pytest.raises(UserError, match="ids below 100, but gave 2"):
        tokenise(CORPUS, tokenizer, tmp_path / "store")


def shorten(path):
    path.write_bytes(path.read_bytes()[:-2])


@pytest.mark.parametrize(
    "damage, message",
    [
        (
            lambda p: shorten(p / "tokens.bin"),
            "must hold [0-9]+ tokens of 40 documents",
        ),
        (lambda p: np.save(p / "hashes.npy", np.zeros(3)), "hashes.npy has another"),
        (lambda p: (p / "offsets.npy").write_bytes(b"no"), "offsets.npy has another"),
        (lambda p: (p / "offsets.npy").unlink(), "is damaged"),
        (lambda p: (p / "store.json").write_text("no"), "must be JSON"),
        (lambda p: (p / "store.json").write_text('{"schema": 1}'), "is damaged"),
        (lambda p: (p / "store.json").write_text('{"schema": 2}'), "another schema"),
        (lambda p: (p / "store.json").unlink(), "with store.json and tokens.bin"),
    ],
)
def test_damage_is_found_on_opening(damage, message, tokenizer, tmp_path):
    path = tokenise(CORPUS, tokenizer, tmp_path / "store").path
    damage(path)
    with pytest.raises(UserError, match=message):
        open_store(path)


def test_changed_bytes_are_found_on_verifying(tokenizer, tmp_path):
    path = tokenise(CORPUS, tokenizer, tmp_path / "store").path
    content = bytearray((path / "tokens.bin").read_bytes())
    content[7] ^= 1
    (path / "tokens.bin").write_bytes(content)
    with pytest.raises(UserError, match=r"tokens\.bin must have the sha256"):
        open_store(path).verify()


def halfway(progress):
    if progress.documents > 5:
        raise KilledError


@pytest.mark.parametrize("name", ["tokens.bin", *token_store.PARTIAL, "progress.json"])
def test_any_flipped_bit_is_found_on_resuming(name, tokenizer, tmp_path):
    folder = tmp_path / "store"
    with pytest.raises(KilledError):
        tokenise(CORPUS, tokenizer, folder, progress=halfway, chunk=60)
    path, rng = folder / name, np.random.default_rng(0)
    whole = path.read_bytes()
    for _ in range(20):
        spoilt = bytearray(whole)
        spoilt[rng.integers(len(whole) - 1)] ^= 1 << rng.integers(8)
        path.write_bytes(spoilt)
        if name == "progress.json" and _same_json(spoilt, whole):
            continue
        with pytest.raises(UserError, match=r"damaged|JSON|another (tok|corp)"):
            tokenise(CORPUS, tokenizer, folder)


def _same_json(one, other):
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


def test_damage_is_found_on_resuming(tokenizer, tmp_path):
    def stop(progress):
        raise KilledError

    for name, damage in (
        ("tokens.bin", lambda file: file.write_bytes(b"")),
        ("progress.json", lambda file: file.write_text(changed(file))),
    ):
        folder = tmp_path / name
        with pytest.raises(KilledError):
            tokenise(CORPUS, tokenizer, folder, progress=stop, chunk=60)
        damage(folder / name)
        with pytest.raises(UserError, match=rf"{name} (must hold|is damaged)"):
            tokenise(CORPUS, tokenizer, folder)


def changed(file):
    """A record without its count of tokens."""
    record = json.loads(file.read_text())
    del record["tokens"]
    return json.dumps(record)


# The tokenizer.


def test_a_trained_tokenizer_is_read_back_from_its_folder(tokenizer, tmp_path):
    assert tokenizer.vocab_size == 300
    assert tokenizer.bos_id == tokenizer.encode(BEGIN)[0] == 0
    tokenizer.save(tmp_path)
    again, _ = Tokenizer.from_folder(tmp_path)
    assert again is not None
    assert again.sha256 == tokenizer.sha256
    assert (again.bos_id, again.adds_bos) == (0, True)
    for text in (*TEXTS, "\x00\U0001f984 never seen"):
        assert again.decode(tokenizer.encode(text)) == text
    assert again.encode_batch(TEXTS) == [tokenizer.encode(text) for text in TEXTS]
    assert max(len(tokenizer.encode(text)) for text in TEXTS) < max(map(len, TEXTS))


def test_training_a_tokenizer_is_deterministic(tokenizer):
    assert train_tokenizer(CORPUS, 300).sha256 == tokenizer.sha256
    shorter = train_tokenizer(ListedCorpus("few", TEXTS[:8]), 270)
    assert train_tokenizer(CORPUS, 270, characters=150).sha256 != tokenizer.sha256
    few = sum(map(len, TEXTS[:8]))
    assert train_tokenizer(CORPUS, 270, characters=few).sha256 == shorter.sha256


@pytest.mark.parametrize(
    "size, options, message",
    [
        (257, {}, "vocab_size must be 258 or more"),
        (5000, {}, "5000 tokens was asked for, but the text gives only"),
        (300, {"bos_token": "<s>"}, "must be one of the special tokens"),
    ],
)
def test_a_vocabulary_that_cannot_be_is_named(size, options, message):
    with pytest.raises(UserError, match=message):
        train_tokenizer(CORPUS, size, **options)


def test_a_special_token_is_no_question_of_the_text():
    plain = train_tokenizer(CORPUS, 280, special_tokens=(), bos_token=None)
    assert plain.bos_id is None and not plain.special_ids
    assert token_store.identity(CORPUS, plain)["tokenizer"] == plain.sha256


def test_any_flipped_bit_is_found_on_opening(tokenizer, tmp_path):
    path = tokenise(CORPUS, tokenizer, tmp_path / "store").path
    rng = np.random.default_rng(0)
    for name in ("offsets.npy", "hashes.npy", "store.json"):
        whole = (path / name).read_bytes()
        for _ in range(150):
            spoilt = bytearray(whole)
            spoilt[rng.integers(len(spoilt))] ^= 1 << rng.integers(8)
            (path / name).write_bytes(spoilt)
            with pytest.raises(UserError):
                open_store(path)
        (path / name).write_bytes(whole)
    open_store(path)
