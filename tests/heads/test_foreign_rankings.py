"""Files of the published codes: read as they are written there, and nothing runs."""

import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_run import Sizes, write_run
from test_cli import jaxheads
from torch_files import STORAGES, storage, tensor, text, write_legacy, write_zip

from jaxheads.errors import UserError
from jaxheads.heads import HeadScores
from jaxheads.heads.published_files import (
    HeadList,
    read_head_list,
    read_mean_heads,
    read_scores,
)
from jaxheads.heads.rankings import read_ranking, read_two, write_ranking
from jaxheads.weights.pickles import open_pickle

L, H, K, N, T = 3, 4, 5, 6, 7
PROTOCOLS = (2, 3, 4, 5)
# Average indirect effects. Source: Todd et al. 2024, published code, the GPT-J list.
GPT_J = {
    "15.5": 0.0587,
    "9.14": 0.0584,
    "12.10": 0.0526,
    "8.1": 0.0445,
    "11.0": 0.0445,
    "13.13": 0.019,
    "8.0": 0.0184,
    "14.9": 0.016,
    "9.2": 0.0127,
    "24.6": 0.0113,
}
GPT_J_SHAPE = (28, 16)


def random(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def named(values: np.ndarray, kind: Any = float) -> dict[str, Any]:
    return {f"{l}.{h}": kind(value) for (l, h), value in np.ndenumerate(values)}


def gpt_j() -> list[tuple[int, int, float]]:
    heads = [(name.split("."), score) for name, score in GPT_J.items()]
    return [(int(layer), int(head), score) for (layer, head), score in heads]


def pickled(path: Path, value: Any, protocol=4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def head_list(values: np.ndarray, count: int | None = None) -> str:
    """[[layer, head, score], ...], best first."""
    rows = [[*at, float(value)] for at, value in np.ndenumerate(values)]
    return json.dumps(sorted(rows, key=lambda row: -row[2])[:count])


def saved(path: Path, values: np.ndarray, write=write_zip) -> Path:
    """One tensor as torch.save writes it."""
    values = np.ascontiguousarray(values)
    strides = [step // values.itemsize for step in values.strides]
    stored = storage(STORAGES[values.dtype.name] + "Storage", "0", values.size)
    opcodes = b"\x80\x02" + tensor(values.shape, strides, stored=stored) + b"."
    if write is write_zip:
        return write_zip(path, opcodes, {"0": values.tobytes()})
    size = struct.pack("<q", values.size)
    return write_legacy(path, opcodes, ["0"], size + values.tobytes())


def scores(path: Path, *arguments) -> HeadScores:
    found = read_scores(path, *arguments)
    assert isinstance(found, HeadScores)
    return found


def refusal(read, path: Path, *arguments) -> str:
    with pytest.raises(UserError) as refused:
        read(path, *arguments)
    message = str(refused.value)
    assert path.name in message and "\n" not in message
    return message


# --- pickles ---------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", [float, np.float64, np.float32, np.float16, np.array])
def test_pickled_scores_are_read_whatever_their_numbers(tmp_path, kind, protocol):
    values = random(L, H).astype(np.float16).astype(float)  # exact in every kind
    found = scores(pickled(tmp_path / "fv.pkl", named(values, kind), protocol))
    assert found.name == "fv" and (found.mean == values).all()
    assert np.isnan(found.standard_error).all()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "dtype", ["<f8", ">f8", "<f4", "<f2", ">i4", "<i8", "u1", "i1"]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_pickled_arrays_are_read_to_the_last_bit(tmp_path, dtype, protocol, order):
    values = np.asarray(abs(9 * random(L, H)).astype(dtype), order=order)
    path = pickled(tmp_path / "a.pickle", values, protocol)
    found = scores(path, "mine")
    assert found.name == "mine" and (found.mean == values.astype(float)).all()


def test_shared_and_nested_values_are_read(tmp_path):
    array, one = random(2, 3), np.float32(0.5)
    value = {"a": [array, array], "b": (one, one, None, True), "c": {1: np.int64(-7)}}
    found = open_pickle(pickled(tmp_path / "x.pkl", value), "anything")
    assert found["a"][0] is found["a"][1]
    assert (found["a"][0].values == array).all()
    assert found["b"] == (0.5, 0.5, None, True) and found["c"] == {1: -7}


def test_numpy_1_names_are_read_as_numpy_2_ones(tmp_path):
    path = pickled(tmp_path / "fv.pkl", named(random(L, H), np.float64), 2)
    old = path.read_bytes().replace(b"cnumpy._core.", b"cnumpy.core.")
    assert old != path.read_bytes()
    path.write_bytes(old)
    assert (scores(path).mean == random(L, H)).all()


class Call:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.parts = (function, arguments)

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_malicious_pickle_is_refused_by_name_and_nothing_runs(tmp_path, protocol):
    marker, path = tmp_path / "it-ran", tmp_path / "fv.pkl"
    system = Call(os.system, f"touch {marker}")
    for value in (system, {"0.0": system}, [(0, 0, system)], Call(np.array, system)):
        message = refusal(read_scores, pickled(path, value, protocol))
        assert f"asks for {os.system.__module__}.system" in message or (
            "asks for numpy.array" in message
        )
        assert "nothing in it was run" in message
    assert not marker.exists()
    pickle.loads(pickle.dumps(system))  # the marker shows what runs
    assert marker.exists()


def asks(name: str) -> bytes:
    return f"c{name}\n".encode()


F8 = asks("numpy\ndtype") + b"(" + text("f8") + b"I00\nI01\ntR"
F8 = F8.replace(b"I00\n", b"\x89").replace(b"I01\n", b"\x88")
SCALAR = asks("numpy._core.multiarray\nscalar")
BUFFER = asks("numpy._core.numeric\n_frombuffer")
EMPTY = asks("numpy._core.multiarray\n_reconstruct") + b")R"
EIGHT = b"C\x08" + bytes(8)


@pytest.mark.parametrize(
    ("opcodes", "sentence"),
    [
        (F8.replace(b"f8", b"O8") + b".", "an array of 'O8'"),
        (F8.replace(b"f8", b"V8") + b".", "an array of 'V8'"),
        (asks("numpy\nndarray") + b")R.", "calls numpy.ndarray"),
        (asks("numpy\nload") + b".", "asks for numpy.load"),
        (asks("numpy.core.multiarray\nfromfile") + b".", "multiarray.fromfile"),
        (asks("_codecs\ndecode") + b".", "asks for _codecs.decode"),
        (
            asks("_codecs\nencode") + text("a") + text("idna") + b"\x86R.",
            "another encoding",
        ),
        (
            asks("_codecs\nencode") + text("\u20ac") + text("latin1") + b"\x86R.",
            "no sense",
        ),
        (asks("torch\nFloatStorage") + b".", "asks for torch.FloatStorage"),
        (SCALAR + F8 + b"C\x04" + bytes(4) + b"\x86R.", "do not fit its shape"),
        (SCALAR + text("f8") + EIGHT + b"\x86R.", "str in place of a Dtype"),
        (SCALAR + F8 + text("12345678") + b"\x86R.", "made of a str"),
        (BUFFER + b"(" + EIGHT + F8 + b"K\2\x85" + text("C") + b"tR.", "do not fit"),
        (BUFFER + b"(" + EIGHT + F8 + b"K\1\x85" + text("X") + b"tR.", "unknown order"),
        (
            BUFFER + b"(" + EIGHT + F8 + b"J\xff\xff\xff\xff\x85" + text("C") + b"tR.",
            "do not fit",
        ),
        (F8 + b"(K\3" + text("<") + text("f8") + b"NNK\0K\0K\0tb.", "than numbers"),
        (F8 + b"(K\3" + text("?") + b"NNNK\0K\0K\0tb.", "than numbers"),
        (EMPTY + b"}b.", "dict in place of a tuple"),
        (EMPTY + b".", "of type Array"),
        (SCALAR + b"}b.", "sets attributes"),
        (b"]}b.", "sets attributes"),
        (text("storage") + b"Q.", "str in place of a tuple"),
        (b"Pshell\n.", "PERSID"),
        (b"(ios\nsystem\n.", "INST"),
        (b"\x82\x01.", "EXT1"),
        (asks("numpy\ndtype") + b")\x81.", "NEWOBJ"),
        (b"\x97.", "NEXT_BUFFER"),
        (b"(d.", "DICT"),
        (b"N.N", "1 bytes behind"),
        (b"}", "no sense"),
    ],
)
def test_what_is_no_plain_number_is_refused(tmp_path, opcodes, sentence):
    path = tmp_path / "fv.pkl"
    path.write_bytes(b"\x80\x02" + opcodes)
    assert sentence in refusal(read_scores, path)


def test_a_string_encoded_again_and_again_does_not_fill_the_memory(tmp_path):
    encode = asks("_codecs\nencode")
    opcodes = encode + b"q\0" + text("a" * 10**6) + text("latin1") + b"\x86q\1R"
    path = tmp_path / "fv.pkl"
    path.write_bytes(b"\x80\x02" + opcodes + b"h\0h\1R" * 200 + b".")
    assert "larger than any scores need" in refusal(read_scores, path)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({}, "type dict that is empty"),
        (3.5, "of type float"),
        ({"0": 1.0}, "has '0'"),
        ({"0.-1": 1.0}, "has '0.-1'"),
        ({"L0.H1": 1.0}, "has 'L0.H1'"),
        ({"0.0": 1.0, "0.00": 2.0}, "has head 0.0 twice"),
        ({"0.0": 1.0, "1.1": 2.0}, "not head 0.1"),
        ({"0.0": 1.0, "999999999.999999999": 2.0}, "not head 0.1"),
        ({"0.0": float("nan")}, "score of head 0.0 must be a finite number, not nan"),
        ({"0.0": "1"}, "not '1'"),
        ({"0.0": True}, "not True"),
        ({"0.0": [1.0]}, "not something of type list"),
        ({"0.0": np.ones(2)}, "of type Array"),
        (np.ones(3), "have the shape [3]"),
        (np.array([[1, np.inf]]), "some are not finite"),
        ([], "but has none"),
        ([(0, 0)], "of type tuple"),
        ([(0, -1, 0.5)], "of type tuple"),
        ([(0, 0, 0.5), (0, 0, 0.4)], "head 0.0 twice"),
    ],
)
def test_a_pickle_of_something_else_says_what_it_holds(tmp_path, value, sentence):
    assert sentence in refusal(read_scores, pickled(tmp_path / "fv.pkl", value))


def test_every_cut_and_flipped_bit_is_scores_or_a_sentence(tmp_path):
    path = pickled(tmp_path / "fv.pkl", named(random(2, 2), np.float32), 4)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refusal(read_scores, path)
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(whole), 200):
        data = bytearray(whole)
        data[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(data))
        try:
            read_scores(path)
        except UserError as error:
            assert len(str(error)) < 1000


# --- tensors ---------------------------------------------------------------------


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_mean_heads_are_those_of_the_last_slot(tmp_path, write, dtype):
    values = random(L, H, T, K).astype(dtype)
    path = tmp_path / "mean_head_activations.pt"
    found = read_mean_heads(saved(path, values, write), (L, H, K))
    assert found.dtype == np.float32 and found.shape == (L, H, K)
    assert (found == values[:, :, T - 1].astype(np.float32)).all()
    single = read_mean_heads(saved(path, values[:, :, -1], write))
    assert (single == found).all()
    found += 1  # a copy, and not the file


@pytest.mark.parametrize("classes", [None, 2])
def test_indirect_effects_become_means_with_their_standard_errors(tmp_path, classes):
    values = random(N, L, H, *([classes] if classes else [])).astype("float32")
    last = values[..., -1] if classes else values
    found = scores(saved(tmp_path / "indirect_effect.pt", values))
    np.testing.assert_allclose(found.mean, last.mean(axis=0), rtol=1e-5)
    spread = last.std(axis=0, ddof=1) / np.sqrt(N)
    np.testing.assert_allclose(found.standard_error, spread, rtol=1e-5)
    assert f"mean over {N} trials" in found.definition
    assert (found.unit, found.name) == ("probability", "indirect_effect")


def test_tensors_of_other_shapes_are_named(tmp_path):
    path = tmp_path / "x.pt"
    for shape in ((L, H), (L, H, T, K, 2), (L, 0, K)):
        saved(path, np.ones(shape, "float32"))
        assert f"shape {list(shape)}" in refusal(read_mean_heads, path)
        assert f"shape {list(shape)}" in refusal(read_scores, path)
    saved(path, np.ones((L, H, K), "float32"))
    message = refusal(read_mean_heads, path, (L, H, K + 1))
    assert f"[L, H, K] = {[L, H, K]}, but this one has {[L, H, K + 1]}" in message
    saved(path, np.full((L, H, K), np.nan, "float32"))
    assert "no finite numbers" in refusal(read_mean_heads, path)
    assert "not finite" in refusal(read_scores, path)


def test_scores_and_mean_heads_are_told_apart_by_name(tmp_path):
    path = saved(tmp_path / "antonym_indirect_effect.pt", np.ones((N, L, H), "float32"))
    assert "no mean heads" in refusal(read_mean_heads, path)
    path = path.rename(tmp_path / "antonym_mean_head_activations.pt")
    assert "and no scores" in refusal(read_scores, path)
    assert read_mean_heads(path).shape == (N, L, H)


def test_a_file_without_the_one_tensor_is_refused(tmp_path):
    path, marker = tmp_path / "x.pt", tmp_path / "it-ran"
    for read in (read_mean_heads, read_scores):
        write_zip(path, pickle.dumps(Call(os.system, f"touch {marker}"), 2))
        message = refusal(read, path)
        assert "system" in message and "nothing in it was run" in message
        assert not marker.exists()
        write_zip(path, b"\x80\x02}" + text("w") + tensor() + b"s.", {"0": bytes(16)})
        assert "it holds a dict" in refusal(read, path)
        write_zip(path, b"\x80\x02" + tensor((9, 9), (9, 1)) + b".", {"0": bytes(16)})
        assert "[9, 9] reaches outside its storage" in refusal(read, path)
        path.write_bytes(b"PK\x03\x04")
        assert "fetch it again" in refusal(read, path)
        path.unlink()
        assert "No such file" in refusal(read, path)


# --- lists of heads --------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("heads.json", json.dumps(gpt_j())),
        ("heads.json", "\ufeff" + json.dumps(gpt_j(), indent=2)),
        ("heads.txt", repr(gpt_j())),
        ("heads.py", f"# of GPT-J\ntop_heads = {gpt_j()!r}  # rounded\n"),
        ("heads.txt", repr(tuple(gpt_j())).replace("), (", ",),\n\n# next\n  [")),
        ("heads.txt", repr(gpt_j())[:-1] + ", ]\n"),
    ],
)
def test_a_published_list_of_heads_is_read(tmp_path, name, form):
    path = tmp_path / name
    path.write_text(form, encoding="utf-8")
    found = read_scores(path)
    assert isinstance(found, HeadList) and found.name == "heads"
    assert [f"{l}.{h}" for l, h in found.heads] == list(GPT_J)
    assert list(found.scores) == list(GPT_J.values())
    ranking = read_ranking(path, shape=GPT_J_SHAPE)
    assert ranking.listed == 10 and ranking.scores.mean.shape == GPT_J_SHAPE
    assert ranking.scores.mean[12, 10] == 0.0526
    assert np.count_nonzero(ranking.scores.mean) == 10
    assert "10 heads that a file lists" in ranking.scores.definition


def test_a_pickled_list_of_heads_is_read(tmp_path):
    path = pickled(tmp_path / "top.pkl", gpt_j())
    found = read_scores(path)
    assert isinstance(found, HeadList) and found.heads[:2] == ((15, 5), (9, 14))


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ("", "line 1: .* not ''"),
        ("heads", "line 1: .* 'heads'"),
        ("[]", "but has none"),
        ("[(1, 2, .5)", "nothing else"),
        ("[(1, 2, .5)\n(1, 3, .5)]", r"line 2: .* '\(1, 3, .5\)\]'"),
        ("[(1, 2, .5)] + [(1, 3, .5)]", "nothing else"),
        ("[(1, 2)]", "line 1"),
        ("[(1, -2, .5)]", "line 1"),
        ("[(1, 2, nan)]", "line 1"),
        ("[(1, 2, 1.2.3)]", "score that is no number"),
        ("[(1, 2, 1e999)]", "must be a finite number, not inf"),
        ("[(1, 2, .5), (1, 2, .4)]", "head 1.2 twice"),
        ("[(1, 2, __import__('os').system('x'))]", "line 1"),
        ("[" * 200_000, "line 1"),
    ],
)
def test_what_is_no_list_of_heads_is_refused_and_not_evaluated(
    tmp_path, form, sentence
):
    path = tmp_path / "heads.txt"
    path.write_text(form)
    with pytest.raises(UserError, match=sentence):
        read_head_list(path)


def test_a_list_needs_a_model_that_it_fits(tmp_path):
    path = tmp_path / "heads.txt"
    path.write_text(repr(gpt_j()))
    assert "lists 10 heads, but not how many" in refusal(read_ranking, path)
    with pytest.raises(UserError, match=r"head 24\.6, but the model has 24 layers of"):
        read_ranking(path, shape=(24, 16))
    with pytest.raises(UserError, match="one of the two must be a run"):
        read_two(path, path)
    path.write_text("[(0, 1, 0.5), (0, 0, -0.1)]")
    with pytest.raises(UserError, match=r"score -0\.1, but heads that are not listed"):
        read_ranking(path, shape=(1, 3))
    whole = read_ranking(path, shape=(1, 2)).scores.mean  # leaves no head out
    assert whole.tolist() == [[-0.1, 0.5]]


# --- on the command line ---------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("foreign") / "run"
    write_run(path, sizes=Sizes(layers=8, heads=7))
    return path


def test_a_run_is_compared_with_the_published_codes_scores(folder, capfd, tmp_path):
    values = read_ranking(folder, "induction").scores.mean
    path = pickled(tmp_path / "induction.pkl", named(values))
    options = ("--score", "induction")
    code, said, _ = jaxheads(capfd, "compare", folder, path, *options)
    assert code == 0 and "Spearman 1.00" in said and "induction.pkl" in said


@pytest.mark.parametrize("list_first", [False, True])
def test_a_run_is_compared_with_a_list_of_its_top_heads(
    folder, capfd, tmp_path, list_first
):
    values = read_ranking(folder).scores.mean
    path = tmp_path / "heads.json"
    path.write_text(head_list(values, 3))
    pair = (path, folder) if list_first else (folder, path)
    code, said, error = jaxheads(capfd, "compare", *pair)
    assert code == 2 and not said
    assert "lists 3 of 56 heads, but a top set of 0.1 has 5: give --fract" in error
    assert "of 0.053 at most" in error
    out = tmp_path / "c.json"
    options = ("--fraction", "0.053", "0.036", "--out", out)
    code, *_ = jaxheads(capfd, "compare", *pair, *options)
    assert code == 0
    assert [one["share"] for one in json.loads(out.read_text())["tops"]] == [1, 1]


@pytest.mark.parametrize("ending", ["json", "csv"])
def test_a_ranking_is_exported(folder, capfd, tmp_path, ending):
    out = tmp_path / "a folder" / f"r.{ending}"
    code, _, said = jaxheads(capfd, "export", folder, out, "--score", "induction")
    assert code == 0 and f"written {out}" in said
    run, back = read_ranking(folder, "induction"), read_ranking(out)
    assert (back.scores.mean == run.scores.mean).all()
    assert (back.scores.standard_error == run.scores.standard_error).all()
    if ending == "json":
        assert back.scores.describe() == run.scores.describe()
        assert (back.model, back.params_sha256) == (run.model, run.params_sha256)


def test_other_codes_scores_are_exported_too(capfd, tmp_path):
    path = pickled(tmp_path / "fv.pkl", named(random(L, H)))
    out = tmp_path / "fv.json"
    assert jaxheads(capfd, "export", path, out)[0] == 0
    back = read_ranking(out)
    assert back.scores.name == "fv" and (back.scores.mean == random(L, H)).all()
    write_ranking(tmp_path / "again.csv", back.scores)
    assert (read_ranking(tmp_path / "again.csv").scores.mean == random(L, H)).all()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("export", "RUN", "r.txt"), "as .json or .csv, not as r.txt"),
        (("export", "RUN", "r.csv", "--score", "x"), "no score 'x': it has"),
        (("export", "no.pkl", "r.csv"), "no.pkl"),
        (
            ("ablate", "no/model", "--ranking", "FV"),
            "is a file: a ranking in a file has no mean",
        ),
    ],
)
def test_a_mistake_is_one_sentence(folder, capfd, tmp_path, arguments, sentence):
    fv = pickled(tmp_path / "fv.pkl", named(random(L, H)))
    places = {"RUN": folder, "FV": fv, "r.csv": tmp_path / "r.csv"}
    given = [places.get(argument, argument) for argument in arguments]
    code, said, error = jaxheads(capfd, *given)
    assert code == 2 and not said and sentence in error
    assert error.count("\n") == 1 and error.startswith("jaxheads: ")
    assert not (tmp_path / "r.csv").exists()
