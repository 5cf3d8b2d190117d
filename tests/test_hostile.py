"""Broken and hostile inputs: each is refused in one sentence, or read all the same."""

import dataclasses
import json
import math
import os

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

import jaxheads as jh
from jaxheads import runs
from jaxheads.__main__ import main
from jaxheads.engine.memory import budget_bytes
from jaxheads.errors import UserError
from jaxheads.heads.rankings import read_ranking
from jaxheads.heads.set_files import read_sets
from jaxheads.icl.tasks import load_tasks
from jaxheads.icl.texts import arrow_documents, read_documents
from jaxheads.report.page import _script_json
from jaxheads.scores.config import ScoresConfig
from jaxheads.studies.ablation.config import AblationConfig
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.inputs import prepare
from jaxheads.studies.scores import page
from jaxheads.tokenizer.tokenizer import Tokenizer
from jaxheads.training.data.corpora import open_corpus
from jaxheads.weights.sources import open_source
from jaxheads.weights.store import save


@pytest.fixture
def copied(model_folder, tmp_path):
    """A model's folder that may be broken; ``change`` rewrites one of its files."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in model_folder.iterdir():
        os.symlink(file, folder / file.name)

    def change(name, **changes):
        said = json.loads((folder / name).read_text())
        (folder / name).unlink()
        (folder / name).write_text(json.dumps(said | changes))
        return folder

    return change


def pattern(text):
    return dict(
        pre_tokenizer=dict(
            type="Split", pattern={"Regex": text}, behavior="Isolated", invert=False
        )
    )


PADDING = dict(
    strategy={"Fixed": 2**40}, direction="Right", pad_to_multiple_of=None, pad_id=0,
    pad_type_id=0, pad_token="x",
)  # fmt: skip
HUGE = dict(truncation=dict(
    max_length=1, strategy="LongestFirst", stride=7, direction="Right"
))  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        pattern("(x+x+)+y"),
        pattern("(\\s+\\s+)+\\S\\d"),
        pattern("("),
        dict(padding=PADDING),
        dict(
            padding=PADDING | {"strategy": "BatchLongest", "pad_to_multiple_of": 2**40}
        ),
        dict(normalizer=dict(type="Precompiled", precompiled_charsmap="AAAA")),
        dict(normalizer=dict(type="Precompiled", precompiled_charsmap="/////w==")),
    ],
)
def test_what_makes_the_library_panic_is_one_sentence(copied, changes, capfd):
    folder = copied("tokenizer.json", **changes)
    with pytest.raises(UserError, match="tokenizer"):
        jh.load(folder)
    with pytest.raises(SystemExit) as stop:
        main(["inspect", str(folder)])
    said = capfd.readouterr().err
    assert stop.value.code == 2
    assert said.count("\n") == 1 and said.startswith("jaxheads: ")


def test_an_id_beyond_any_vocabulary_is_refused(copied):
    folder = copied("config.json")
    said = json.loads((folder / "tokenizer.json").read_text())
    said["model"]["vocab"]["Q"] = 2**32 - 1  # to write it would take minutes
    with pytest.raises(UserError, match="'Q' the id 4,294,967,295"):
        Tokenizer.from_folder(copied("tokenizer.json", model=said["model"]))


@pytest.mark.parametrize(
    "changes", [dict(padding=PADDING | {"strategy": {"Fixed": 99}}), HUGE]
)
def test_no_text_is_padded_or_cut(copied, model_folder, changes):
    plain, _ = Tokenizer.from_folder(model_folder)
    tokenizer, _ = Tokenizer.from_folder(copied("tokenizer.json", **changes))
    assert plain is not None and tokenizer is not None
    text = "Q: one two three"
    assert tokenizer.encode(text) == plain.encode(text)


def test_standard_error_is_left_as_it_was(copied, capfd):
    folder = copied("tokenizer.json")
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    with pytest.warns(UserWarning, match="dropout"):
        Tokenizer.from_folder(copied("tokenizer.json", model=model | {"dropout": 0.5}))
    os.write(2, b"still there")
    assert capfd.readouterr().err.endswith("still there")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_hidden_layers", 10**9),
        ("num_hidden_layers", 99_999),
        ("hidden_size", 10**12),
        ("hidden_size", 2**31 - 2),
        ("vocab_size", 10**12),
        ("vocab_size", 2**31 - 1),
        ("num_attention_heads", 10**9),
        ("num_key_value_heads", 10**9),
        ("head_dim", 2 * 10**9),
        ("intermediate_size", 2**31 - 1),
    ],
)
def test_sizes_are_held_against_the_file_before_anything_is_made(copied, name, value):
    with pytest.raises(UserError):
        jh.load(copied("config.json", **{name: value}))


HALF = "a \ud83d b"


def test_half_a_character_is_told_with_its_text(model_folder, tmp_path):
    tokenizer, _ = Tokenizer.from_folder(model_folder)
    assert tokenizer is not None
    for encode in (tokenizer.encode, lambda text: tokenizer.encode_batch([text])):
        with pytest.raises(UserError, match=r"a \\ud83d b"):
            encode(HALF)
        with pytest.raises(TypeError, match="must be a text"):
            encode(5)  # type: ignore[arg-type]
    items = [{"input": "x", "output": "y"}, {"input": "z", "output": HALF}]
    (tmp_path / "rivers.json").write_text(json.dumps(items))
    with pytest.raises(UserError, match=r"output of item 2 .*rivers.json.*ud83d"):
        load_tasks(["rivers"], tmp_path)
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": HALF}))
    with pytest.raises(UserError, match=r"document 1 of .*a.jsonl.*ud83d"):
        read_documents(tmp_path / "a.jsonl")


@pytest.mark.parametrize("output", ["NaN", "Infinity", "-1e999", "null", "true", "{}"])
def test_an_answer_is_text_or_a_number(tmp_path, output):
    (tmp_path / "rivers.json").write_text(f'[{{"input": "x", "output": {output}}}]')
    with pytest.raises(UserError, match=r"item 1 .* its output is"):
        load_tasks(["rivers"], tmp_path)


TEXTS = pyarrow.array(["ä b", None, "c"])


@pytest.mark.parametrize(
    "column",
    [
        TEXTS,
        TEXTS.cast(pyarrow.large_string()),
        TEXTS.cast(pyarrow.string_view()),
        TEXTS.cast(pyarrow.binary()),
        TEXTS.dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_texts_are_read_however_they_are_stored(tmp_path, column):
    table = pyarrow.table({"n": [1, 2, 3], "text": column})
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(table, path)
    assert read_documents(path) == ["ä b", "c"]
    path = tmp_path / "a.arrow"
    with pyarrow.ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table)
    assert list(arrow_documents(path, "text")) == ["ä b", "c"]


def test_no_text_is_no_document_in_json_lines_too(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "ä b"}\n{"text": null}\n{"text": "c"}\n')
    assert read_documents(path) == ["ä b", "c"]
    path.write_text('{"text": "a"}\n{}\n')
    with pytest.raises(UserError, match="line 2"):
        read_documents(path)


@pytest.mark.parametrize("kind", [pyarrow.string(), pyarrow.binary()])
def test_bytes_that_are_no_text_are_told_by_row(tmp_path, kind):
    column = pyarrow.array([b"a", b"\xff\xfe"]).view(kind)
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"row 2 of .* is not UTF-8"):
        read_documents(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    "name", ["m" * 300, "ü" * 200, "../m.safetensors", "..", "", "a\0b", "\ud83d", 3]
)
def test_an_index_names_files_of_its_folder(copied, name):
    folder = copied("config.json")
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"model.norm.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"must name files|is missing"):
        jh.load(folder)


@pytest.mark.parametrize("amount", [math.inf, math.nan, 0.0, -1.0])
def test_memory_is_a_positive_number(amount):
    with pytest.raises(UserError, match="--memory-gb"):
        budget_bytes(amount)


SMALL = ScoresConfig(
    tasks=("antonym",), clean_prompts=2, corrupted_prompts=2, sequences=2, documents=2
)


@pytest.mark.parametrize(
    ("scores", "new_tokens", "option"),
    [
        (dict(document_length=513), 5, "document-length"),
        (dict(sequence_length=10**6), 5, "sequence-length"),
        (dict(names=("retrieval",), haystack_length=10**6), 5, "haystack-length"),
        ({}, 513, "max-new-tokens"),
    ],
)
def test_lengths_are_held_against_the_context_first(
    model_folder, scores, new_tokens, option
):
    config = StudyConfig(
        scores=dataclasses.replace(SMALL, **scores),
        ablation=AblationConfig(max_new_tokens=new_tokens),
        shots=2,
    )
    with pytest.raises(UserError, match=f"context is 512: lower --.*{option}"):
        prepare(jh.load(model_folder), config, ("scores", "ablation"))


@pytest.mark.parametrize("part", ["scores", "ablation", "execution", "attribution"])
def test_labels_of_no_demonstrations_cannot_be_shuffled(model_folder, part):
    model = jh.load(model_folder)
    with pytest.raises(UserError, match="--shots is 0"):
        prepare(model, StudyConfig(shots=0), (part,))


def constant_run(path, mean, error):
    arrays = {"score/induction": mean, "score/induction_se": error}
    result = {"scores": {"induction": {"chance": 0.0}}, "config": {}}
    return runs.Run(path, result, arrays)


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": {}},
        {"model": "m"},
        {"scores": ["induction"]},
        {"scores": {"induction": "x"}},
        {"model": {"name": 3, "params_sha256": ""}},
    ],
)
def test_a_run_that_says_too_little_gives_no_ranking(tmp_path, wrong):
    run = constant_run(tmp_path, np.zeros((2, 3)), np.zeros((2, 3)))
    said = run.result | {"schema": 1, "model": {"name": "m", "params_sha256": ""}}
    runs.write_arrays(tmp_path / "arrays.npz", run.arrays)
    runs.write_json(tmp_path / "result.json", said)
    assert read_ranking(tmp_path, "induction").model == "m"
    runs.write_json(tmp_path / "result.json", said | wrong)
    with pytest.raises(UserError, match="score"):
        read_ranking(tmp_path, "induction")


def test_the_page_says_that_scores_are_constant(tmp_path):
    same = np.full((2, 3), 0.25)
    for mean, error, constant in (
        (same, np.full((2, 3), np.nan), True),
        (same + 1e-9 * np.arange(6).reshape(2, 3), np.full((2, 3), 1e-8), True),
        (same + np.arange(6).reshape(2, 3), np.full((2, 3), 0.1), False),
    ):
        section = page.scores(constant_run(tmp_path, mean, error))
        assert section is not None
        assert any("ranks no head" in fact for fact in section.facts) == constant


def test_the_pages_data_are_json_whatever_is_in_them():
    said = {"a": [math.nan, 1.0], "b": (np.float64(np.inf), {"c": -math.inf})}
    assert json.loads(_script_json(said)) == {
        "a": [None, 1.0],
        "b": [None, {"c": None}],
    }


def test_a_folder_of_the_hubs_cache_opens_its_snapshot(model_folder, tmp_path):
    cached = tmp_path / "models--owner--name"
    one = cached / "snapshots" / ("0" * 40)
    one.mkdir(parents=True)
    for file in model_folder.iterdir():
        os.symlink(file, one / file.name)
    for given in (cached, cached / "snapshots", one):
        assert open_source(given).checkpoint.path == one
    (cached / "snapshots" / ("1" * 40)).mkdir()
    with pytest.raises(UserError, match=f"one snapshot.*holds 2.*{'0' * 40}"):
        open_source(cached)


@pytest.mark.parametrize("value", ["NaN", r'"\ud83d"'])
def test_a_store_with_what_it_is_never_written_with_is_damaged(
    model_folder, tmp_path, value
):
    save(jh.load(model_folder), tmp_path / "store")
    path = tmp_path / "store" / "jaxheads.json"
    text = path.read_text()
    assert '"no_tokenizer": ""' in text
    path.write_text(text.replace('"no_tokenizer": ""', f'"no_tokenizer": {value}'))
    with pytest.raises(UserError, match="is damaged"):
        jh.load(tmp_path / "store")


def test_messages_are_one_line_without_control_characters():
    error = UserError("it says:\n  line 1\r\n\n\tline 2\x1b[31m \x00 half \ud83d\n")
    assert str(error) == "it says: line 1 line 2\\x1b[31m \\x00 half \\ud83d"


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (jh.load, "model.gguf"),
        (runs.load, "run/arrays.npz"),
        (read_sets, "sets.json"),
        (read_ranking, "scores.json"),
        (read_ranking, "scores.csv"),
        (read_ranking, "scores.pt"),
        (read_documents, "a.txt"),
        (read_documents, "a.jsonl"),
        (read_documents, "a.parquet"),
        (open_corpus, "a.arrow"),
    ],
)
def test_a_pipe_that_nobody_writes_into_is_not_waited_for(read, name, tmp_path):
    path = tmp_path / name
    if path.parent != tmp_path:
        path.parent.mkdir()
        runs.write_run(path.parent, {"schema": 1}, {"x": np.ones(1)})
        path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"is a pipe or|nothing is"):
        read(path if path.parent == tmp_path else path.parent)


def test_a_number_that_no_float_can_be_is_no_score(tmp_path):
    said = {"schema": 1, "name": "x", "score": [[10**400, 1]]}
    (tmp_path / "x.json").write_text(json.dumps(said))
    with pytest.raises(UserError, match="score must be a list of layers"):
        read_ranking(tmp_path / "x.json")


def test_damaged_places_of_texts_do_not_end_the_process(tmp_path):
    places = pyarrow.py_buffer(np.array([0, 3, 2**30, 6], np.int32))
    column = pyarrow.StringArray.from_buffers(3, places, pyarrow.py_buffer(b"abcdef"))
    table = pyarrow.table({"text": column})
    with pyarrow.ipc.new_stream(tmp_path / "a.arrow", table.schema) as stream:
        stream.write_table(table)
    with pytest.raises(UserError, match="is not a readable arrow file"):
        list(arrow_documents(tmp_path / "a.arrow", "text"))
