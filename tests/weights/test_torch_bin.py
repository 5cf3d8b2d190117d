"""Weights of torch.save: read as torch wrote them, and nothing in them ever runs.

The .bin files in data/ were written by torch (data/make_torch_bins.py). Hostile and
broken files are made here by hand.
"""

import collections
import os
import pickle
import pickletools
import struct
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from torch_files import (
    named,
    state_dict,
    storage,
    tensor,
    text,
    write_legacy,
    write_zip,
)

from jaxheads.errors import UserError
from jaxheads.weights.torch_bin import LEGACY_MAGIC, LEGACY_PROTOCOL, open_torch

DATA = Path(__file__).parents[1] / "data"


def values(rows: int, columns: int, dtype: Any = np.float32) -> np.ndarray:
    """The formula of data/make_torch_bins.py."""
    count = np.arange(rows * columns)
    return ((count * 7 % 31 - 15) / 4).astype(dtype).reshape(rows, columns)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        open_torch(path)
    message = str(error.value)
    assert path.name in message and "\n" not in message
    return message


def rewrite(path: Path, data: bytes) -> None:
    """Write a new file; some file systems take 5 ms to write over an old one."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


# --- files that torch wrote ------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "kind", "dtype"),
    [
        ("float32", "F32", np.float32),
        ("float16", "F16", np.float16),
        ("bfloat16", "BF16", ml_dtypes.bfloat16),
        ("legacy_float16", "F16", np.float16),
        ("protocol4", "F32", np.float32),
    ],
)
def test_a_state_dict_is_read(file, kind, dtype):
    tensors = open_torch(DATA / f"{file}.bin")
    expected = {
        "wte.weight": values(5, 3, dtype),
        "h.0.attn.bias": np.tril(np.ones((4, 4), bool))[None, None],
        "h.0.ln.weight": values(1, 3, dtype)[0],
    }
    assert list(tensors) == list(expected)
    for name, array in expected.items():
        assert tensors[name].shape == array.shape
        assert tensors[name].kind == ("BOOL" if array.dtype == bool else kind)
        assert np.asarray(tensors[name]).dtype == array.dtype
        np.testing.assert_array_equal(np.asarray(tensors[name]), array)
        tensors[name].release()


@pytest.mark.parametrize("file", ["odd", "legacy_odd"])
def test_views_and_shared_storages_are_read(file):
    tensors = open_torch(DATA / f"{file}.bin")
    base = values(6, 4)
    expected = {
        "base": base,
        "same": base,
        "transposed": base.T,
        "part": base[1:5:2, 1:3],
        "expanded": np.broadcast_to(base[2], (3, 4)),
        "scalar": np.float32(-1.25),
        "empty": np.zeros((0, 7), np.float32),
        "double": values(2, 2, np.float64),
        "long": np.array([1, -(2**40)]),
        "parameter": base[0],
    }
    assert list(tensors) == list(expected)
    for name, array in expected.items():
        assert tensors[name].shape == array.shape
        np.testing.assert_array_equal(np.asarray(tensors[name]), array, strict=True)
        tensors[name].release()
    assert not np.asarray(tensors["transposed"]).flags.owndata


def test_a_training_checkpoint_is_told_from_weights():
    message = refusal(DATA / "wrapped.bin")
    assert "it holds 'state_dict' (dict); 'epoch' (int), as a training" in message
    assert "take the model's safetensors" in message


@pytest.mark.parametrize("file", ["odd", "legacy_odd", "bfloat16", "legacy_float16"])
def test_every_cut_of_a_file_is_one_sentence(tmp_path, file):
    whole, cut = (DATA / f"{file}.bin").read_bytes(), tmp_path / "cut.bin"
    for length in range(0, len(whole), 5):
        rewrite(cut, whole[:length])
        refusal(cut)


@pytest.mark.parametrize("file", ["odd", "legacy_odd"])
def test_a_flipped_bit_gives_a_file_or_a_sentence(tmp_path, file):
    whole, broken = (DATA / f"{file}.bin").read_bytes(), tmp_path / "broken.bin"
    rng = np.random.default_rng(0)
    refused = 0
    for position in rng.integers(0, len(whole), 800):
        data = bytearray(whole)
        data[position] ^= 1 << int(rng.integers(8))
        rewrite(broken, bytes(data))
        try:
            for tensor in open_torch(broken).values():
                np.asarray(tensor).sum()
        except UserError as error:
            refused += 1
            assert len(str(error)) < 3000
    assert refused > 100


# --- files made by hand ----------------------------------------------------------

WRITE = {"zip": write_zip, "legacy": write_legacy}
EMPTY_DICT = b"\x80\x02}."
FOUR = values(2, 2).tobytes()


def test_the_hand_made_files_are_read(tmp_path):
    pickled = state_dict(w=tensor(), v=tensor((2,), (1,), 2))
    size = (4).to_bytes(8, "little")
    for path in [
        write_zip(tmp_path / "a.bin", pickled, {"0": FOUR}),
        write_legacy(tmp_path / "b.bin", pickled, ["0"], size + FOUR),
    ]:
        tensors = open_torch(path)
        np.testing.assert_array_equal(np.asarray(tensors["w"]), values(2, 2))
        np.testing.assert_array_equal(np.asarray(tensors["v"]), values(2, 2)[1])


def test_python_2_pickles_of_ordered_dicts_are_read(tmp_path):
    pairs = b"](]" + b"(U\x01w" + tensor() + b"ee"
    pickled = b"\x80\x02" + named("collections", "OrderedDict") + pairs + b"\x85R."
    path = write_zip(tmp_path / "a.bin", pickled, {"0": FOUR})
    np.testing.assert_array_equal(np.asarray(open_torch(path)["w"]), values(2, 2))


# --- hostile pickles -------------------------------------------------------------


class Call:
    """Pickled as a call of a function, which whoever unpickles it would make."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments, state)

    def __reduce__(self):
        return self.parts


def hostile(marker: Path) -> dict[str, tuple[bytes, str]]:
    """Pickles that would make ``marker``, and what their refusal must name."""
    shell, code = f"touch {marker}", f"open({str(marker)!r}, 'w').close()"
    system = Call(os.system, shell)
    command = text(shell) + b"\x85"
    inner = collections.OrderedDict(a=1)
    vars(inner)["_metadata"] = collections.OrderedDict(b=system)
    posix = f"{os.system.__module__}.system"
    weights = b"\x80\x02}(" + text("w")
    return {
        "system": (pickle.dumps(system, 2), posix),
        "in a dict": (pickle.dumps({"w": system}, 2), posix),
        "as a key": (pickle.dumps({Call(str, "w"): 1}, 2), "builtin"),
        "in metadata": (pickle.dumps(inner, 2), posix),
        "in a state": (pickle.dumps(Call(dict, state={"a": system}), 2), "builtin"),
        "protocol 0": (pickle.dumps(system, 0), posix),
        "protocol 4": (pickle.dumps(system, 4), posix),
        "protocol 5": (pickle.dumps([system], 5), posix),
        "eval": (pickle.dumps(Call(eval, code), 2), "builtin"),
        "exec": (pickle.dumps(Call(exec, code), 4), "builtins.exec"),
        "getattr": (named("builtins", "getattr") + b".", "builtins.getattr"),
        "escaped": (named("o\\x73", "system") + b".", "os.system"),
        "numpy": (pickle.dumps(np.float32(1), 2), "numpy"),
        "torch code": (named("torch.serialization", "load") + b".", "torch.serial"),
        "near name": (named("torch._utils", "_rebuild_tensor") + b".", "_rebuild_te"),
        "dotted": (
            b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.",
            "OrderedDict.__init__",
        ),
        "module with a blank": (named("os system", "x") + b".", "os.system x"),
        "inst": (b"(" + text(shell) + b"ios\nsystem\n.", "INST"),
        "obj": (b"(" + named("os", "system") + text(shell) + b"o.", "os.system"),
        "obj allowed": (b"(" + named("torch", "FloatStorage") + b"o.", "OBJ"),
        "new": (named("torch", "FloatStorage") + b")\x81.", "NEWOBJ"),
        "new ex": (b"\x80\x04" + named("torch", "FloatStorage") + b")}\x92.", "NEWOBJ"),
        "extension": (b"\x80\x02\x82\x01" + command + b"R.", "EXT1"),
        "extension 4": (b"\x80\x02\x84\x01\0\0\0" + command + b"R.", "EXT4"),
        "text id": (b"Pshell\n.", "PERSID"),
        "other id": (weights + storage(tag="module") + b"u.", "not a plain storage"),
        "id of a name": (
            b"(" + text("storage") + named("collections", "OrderedDict") + b"NNK\1tQ.",
            "not a plain storage",
        ),
        "id as the name": (named("torch", "FloatStorage") + b"Q.", "Name in place"),
        "build on a name": (
            named("collections", "OrderedDict") + b"}" + text("a") + command + b"sb.",
            "sets attributes",
        ),
        "build on a tensor": (tensor() + b"}b.", "sets attributes"),
        "call a storage": (
            named("torch", "FloatStorage") + b")R.",
            "calls torch.Float",
        ),
        "call a dict": (b"})R.", "dict in place of a Name"),
        "frozen set": (b"\x80\x04(K\1\x91.", "FROZENSET"),
        "buffer": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    }


@pytest.mark.parametrize("way", ["zip", "legacy"])
def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path, way):
    marker, path = tmp_path / "it-ran", tmp_path / "x.bin"
    cases = hostile(marker)
    for case, (pickled, sentence) in cases.items():
        list(pickletools.genops(pickled))  # a real pickle, not a damaged one
        message = refusal(WRITE[way](path, pickled))
        assert sentence in message, case
        assert not marker.exists(), case
    # The marker shows what runs: the standard library obeys the first case.
    pickle.loads(cases["system"][0])
    assert marker.exists()


@pytest.mark.parametrize("place", range(5))
def test_each_pickle_of_the_old_format_is_guarded(tmp_path, place):
    marker, path = tmp_path / "it-ran", tmp_path / "x.bin"
    parts = [LEGACY_MAGIC, LEGACY_PROTOCOL, {"little_endian": True}, {}, []]
    parts[place] = Call(os.system, f"touch {marker}")
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in parts))
    message = refusal(path)
    assert "nothing in it was run" in message and "system" in message
    assert not marker.exists()


def test_depth_and_sharing_do_not_exhaust_the_process(tmp_path):
    path, deep = tmp_path / "x.bin", 100_000
    for opening, closing, sentence in [
        (b"N", b"\x85" * deep, "holds a tuple"),  # ((((None,),),),)
        (b"}N" + b"\x85" * deep, b"Ns", "tuple in place of a str"),  # as a key
        (b"}" + (text("a") + b"}") * deep, b"s" * deep, "'a' (dict)"),
        (b"]" * deep, b"a" * (deep - 1), "holds a list"),
        (b"(" * deep, b"t" * deep, "holds a tuple"),
        (b"N", b"2\x86" * deep, "DUP"),
        (b"]q\0h\0a", b"", "holds a list"),  # a list in itself
        (b"Nr\xff\xff\xff\x7f", b"", "holds a nonetype"),  # a memo slot far out
        (b"X\xff\xff\xff\xff", b"", "no sense"),  # a string of 4 GB
        (b"\x8b\xff\xff\xff\x7f", b"", "no sense"),  # an integer of 2 GB
    ]:
        pickled = b"\x80\x02" + opening + closing + b"."
        assert sentence in refusal(write_zip(path, pickled))


# --- storages, shapes and archives that make no sense ----------------------------


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (
            tensor((2, 3), (3, 1)),
            "'w' of shape [2, 3] reaches outside its storage of 4",
        ),
        (tensor((4,), (1,), 1), "'w' of shape [4] reaches outside"),
        (tensor((2, 2), (4, 1)), "'w' of shape [2, 2] reaches outside"),
        (tensor((2**50, 2**50), (0, 0)), "reaches outside"),
        (tensor((0,), (1,), 5), "'w' of shape [0] reaches outside"),
        (tensor((-1, 2), (2, 1)), "without a proper shape"),
        (tensor((2, 2), (2, 1), -1), "without a proper shape"),
        (tensor((2, 2), (-2, 1), 2), "without proper strides"),
        (tensor((2, 2), (1,)), "without proper strides"),
        (tensor((2**70,), (0,)), "without a proper shape"),
        (tensor((1,) * 33, (1,) * 33), "without a proper shape"),
        (tensor(stored=b"N"), "NoneType in place of a Storage"),
        (tensor(stored=storage(count=5)), "'0' has 16 bytes instead of 20 bytes"),
        (tensor(stored=storage("HalfStorage")), "'0' has 16 bytes instead of 8 bytes"),
        (tensor(stored=storage(key="1")), "'1' has no data instead of 16 bytes"),
        (tensor(stored=storage(key="../version")), "has no data instead"),
        (tensor(stored=storage(count=-4)), "not a plain storage"),
        (tensor(stored=storage("QInt8Storage")), "asks for torch.QInt8Storage"),
        (tensor(last=b"}" + text("neg") + b"\x88s"), "kept negated"),
        (b"K\1", "it holds 'w' (int)"),
    ],
)
def test_a_tensor_that_makes_no_sense_is_named(tmp_path, entry, sentence):
    path = write_zip(tmp_path / "x.bin", state_dict(w=entry), {"0": FOUR})
    assert sentence in refusal(path)


def test_an_axis_of_one_element_may_have_any_stride(tmp_path):
    path = tmp_path / "x.bin"
    far = 2**61
    entries = {"a": tensor((1, 2), (far, 1)), "b": tensor((0, 2), (far, far))}
    tensors = open_torch(write_zip(path, state_dict(**entries), {"0": FOUR}))
    np.testing.assert_array_equal(np.asarray(tensors["a"]), values(2, 2)[:1])
    assert np.asarray(tensors["b"]).shape == (0, 2)


def test_one_storage_has_one_type(tmp_path):
    pickled = state_dict(
        w=tensor(), v=tensor((8,), (1,), stored=storage("HalfStorage", count=8))
    )
    message = refusal(write_zip(tmp_path / "x.bin", pickled, {"0": FOUR}))
    assert "storage '0' two types" in message


def test_all_bad_tensors_come_in_one_error(tmp_path):
    entries = {f"w{i}": tensor((9,), (1,)) for i in range(20)}
    message = refusal(write_zip(tmp_path / "x.bin", state_dict(**entries), {"0": FOUR}))
    assert "'w0' of" in message and "'w11' of" in message and "and 8 more" in message


def test_archives_unlike_torchs_are_refused(tmp_path):
    path, pickled = tmp_path / "x.bin", state_dict(w=tensor())
    parts = {"0": FOUR}
    packed = write_zip(path, pickled, parts, compression=zipfile.ZIP_DEFLATED)
    assert "compressed or encrypted" in refusal(packed)
    bomb = write_zip(
        path, pickled, {"0": bytes(10**8)}, compression=zipfile.ZIP_DEFLATED
    )
    assert path.stat().st_size < 10**6 and "compressed" in refusal(bomb)
    assert "b'big'" in refusal(write_zip(path, pickled, parts, byteorder=b"big"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/readme", "x")
    assert "has 0 data.pkl instead of one" in refusal(path)
    two = {"inner/data.pkl": pickled}
    assert "has 2 data.pkl" in refusal(write_zip(path, pickled, parts, **two))
    write_zip(path, pickled, parts)
    twice = pytest.warns(UserWarning, match="Duplicate name")
    with zipfile.ZipFile(path, "a") as archive, twice:
        archive.writestr("archive/data/0", bytes(16))
    assert "'archive/data/0' twice" in refusal(path)


def test_a_directory_that_points_elsewhere_is_refused(tmp_path):
    path = write_zip(tmp_path / "x.bin", state_dict(w=tensor()), {"0": FOUR})
    whole = path.read_bytes()
    # In the directory a member's sizes come 20 bytes, its place 42 after its begin.
    directory = whole.rindex(b"PK\x01\x02")
    assert whole[directory + 46 :].startswith(b"archive/data/0")
    for at, value, sentence in [
        (42, 10**6, "where its directory says"),
        (42, 1, "where its directory says"),
        (20, 17, "does not end within the file"),
    ]:
        data = bytearray(whole)
        data[directory + at : directory + at + 4] = struct.pack("<I", value)
        path.write_bytes(data)
        assert sentence in refusal(path)
    first = whole.index(b"PK\x01\x02")
    assert whole[first + 46 :].startswith(b"archive/data.pkl")
    data = bytearray(whole)
    data[first + 20 : first + 28] = struct.pack("<II", 9, 9)
    path.write_bytes(data)
    assert "its pickle is longer than its place" in refusal(path)


@pytest.mark.parametrize(
    ("data", "keys", "sentence"),
    [
        ((4).to_bytes(8, "little") + FOUR[:-1], ["0"], "storage '0' ends at byte"),
        ((5).to_bytes(8, "little") + FOUR, ["0"], "has 5 elements instead of 4"),
        ((4).to_bytes(8, "little") + FOUR + b"1", ["0"], "1 bytes at its end"),
        (b"", [], "other storages than its tensors name"),
        (b"", ["0", "0"], "other storages"),
        (b"", [0], "lacks the list of its storages"),
    ],
)
def test_the_old_formats_storages_are_checked(tmp_path, data, keys, sentence):
    path = write_legacy(tmp_path / "x.bin", state_dict(w=tensor()), keys, data)
    assert sentence in refusal(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_old_format_is_read_in_every_protocol_of_pickle(tmp_path, protocol):
    data = (4).to_bytes(8, "little") + FOUR
    pickled = b"\x80" + bytes([protocol]) + state_dict(w=tensor())[2:]
    path = tmp_path / "x.bin"
    write_legacy(path, pickled, ["0"], data, protocol=protocol)
    expected = np.frombuffer(FOUR, np.float32).reshape(2, 2)
    np.testing.assert_array_equal(np.asarray(open_torch(path)["w"]), expected)


def test_what_torch_did_not_write_says_so(tmp_path):
    path = tmp_path / "x.bin"
    assert "No such file" in refusal(path)
    for content, sentence in [
        (b"", "is empty"),
        (b"hello", "begins with b'hello', which is neither zip nor pickle"),
        (b"PK\x03\x04", "no readable directory"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (pickle.dumps({"w": 1}, 2), "no sense"),
        (pickle.dumps(1, 2) * 2, "magic number"),
        (pickle.dumps(LEGACY_MAGIC, 2), "no sense"),
    ]:
        path.write_bytes(content)
        assert sentence in refusal(path)
    big = write_legacy(path, EMPTY_DICT, little=False)
    assert "little-endian" in refusal(big)
    assert "tensors by name" in refusal(write_zip(path, pickle.dumps([], 2)))
    assert open_torch(write_zip(path, EMPTY_DICT)) == {}
