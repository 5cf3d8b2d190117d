"""Safetensors files: equal to the library's reading, and every damage is a sentence."""

import json
import mmap
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save, save_file

from jaxheads.errors import UserError
from jaxheads.weights.safetensors import open_safetensors

FLOATS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
WHOLE = [np.int64, np.int32, np.int16, np.int8, np.uint64, np.uint32, np.uint16]


def tensors_of_every_kind() -> dict[str, np.ndarray]:
    values = np.arange(-7, 8).reshape(3, 5)
    kinds = [*FLOATS, *WHOLE, np.uint8, np.bool_]
    tensors: dict[str, np.ndarray] = {
        np.dtype(kind).name: values.astype(kind) for kind in kinds
    }
    tensors["empty"] = np.zeros((3, 0, 2), np.float32)
    tensors["scalar"] = np.array(-2.5, ml_dtypes.bfloat16)
    tensors["a name with 'quotes' and \n a line"] = values.astype(np.float32)[:1]
    return tensors


def write(path: Path, entries, data: bytes = b"") -> Path:
    """A file by hand: a header (an object, or its bytes) and data."""
    header = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


def rewrite(path: Path, data: bytes) -> None:
    """Write a new file; some file systems take 5 ms to write over an old one."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def entry(shape: Any, begin: Any, end: Any, kind: Any = "F32") -> dict:
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        open_safetensors(path)
    message = str(error.value)
    assert path.name in message and "\n" not in message
    return message


def test_every_kind_is_read_as_the_library_reads_it(tmp_path):
    path, tensors = tmp_path / "x.safetensors", tensors_of_every_kind()
    save_file(tensors, path, metadata={"format": "pt"})
    ours, library = open_safetensors(path), load_file(path)
    assert set(ours) == set(tensors) == set(library)
    for name, values in tensors.items():
        assert ours[name].shape == values.shape
        read = np.asarray(ours[name])
        assert read.dtype == values.dtype == library[name].dtype
        np.testing.assert_array_equal(read, values)
        np.testing.assert_array_equal(read, library[name])
    kinds = {ours[np.dtype(kind).name].kind for kind in FLOATS}
    assert kinds == {"F64", "F32", "F16", "BF16"}
    assert {ours["bool"].kind, ours["uint8"].kind} == {"BOOL", "U8"}


def test_values_are_views_until_a_copy_is_asked_for(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"w": np.arange(12, dtype=np.float32).reshape(3, 4)}, path)
    tensor = open_safetensors(path)["w"]
    view = np.asarray(tensor)
    assert not view.flags.owndata and not view.flags.writeable
    copy = np.array(tensor)
    copy[0, 0] = 7
    wide = np.asarray(tensor, dtype=np.float64)
    tensor.release()
    assert view[0, 0] == wide[0, 0] == 0 and wide.dtype == np.float64


def test_tensors_that_lie_off_their_alignment_are_read(tmp_path):
    values = np.array([1.5, -2, 3], "<f4")
    path = write(
        tmp_path / "x.safetensors",
        {"byte": entry([1], 0, 1, "U8"), "w": entry([3], 1, 13)},
        b"\7" + values.tobytes(),
    )
    np.testing.assert_array_equal(np.asarray(open_safetensors(path)["w"]), values)


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2"])
def test_eight_bit_floats_open_but_are_not_read(tmp_path, kind):
    entries = {"w": entry([3], 0, 3, kind), "v": entry([1], 3, 7)}
    path = write(tmp_path / "x.safetensors", entries, bytes(7))
    tensors = open_safetensors(path)
    assert tensors["w"].kind == kind and float(np.asarray(tensors["v"])[0]) == 0
    with pytest.raises(UserError, match=rf"'w' of .*x\.safetensors .* as {kind}"):
        np.asarray(tensors["w"])


GOOD = {"a": entry([2], 0, 8), "b": entry([1], 8, 12)}


@pytest.mark.parametrize(
    ("changed", "sentences"),
    [
        ({"b": entry([1], 4, 8)}, ["'b' overlaps 'a'", "4 bytes at its end"]),
        ({"a": entry([1], 0, 4)}, ["4 bytes before 'b' belong to no tensor"]),
        ({"b": entry([3], 8, 20)}, ["'b' ends at byte 1"]),
        ({"b": entry([2], 8, 12)}, ["'b' has 4 bytes where F32 of shape [2] takes 8"]),
        ({"b": entry([1], 12, 8)}, ["'b' has -4 bytes where F32"]),
        ({"b": entry([-1], 8, 12)}, ["'b' has no proper shape"]),
        ({"b": entry([True], 8, 12)}, ["'b' has no proper shape"]),
        ({"b": entry([1.0], 8, 12)}, ["'b' has no proper shape"]),
        ({"b": entry([1] * 33, 8, 12)}, ["'b' has no proper shape"]),
        ({"b": entry([2**63, 0], 8, 8)}, ["'b' has no proper shape"]),
        ({"b": entry("1", 8, 12)}, ["'b' has no proper shape"]),
        ({"b": entry([1], 8, None)}, ["'b' has no proper place"]),
        ({"b": {"dtype": "F32", "shape": [1]}}, ["'b' has no proper place"]),
        ({"b": entry([1], 8, 12, "F31")}, ["'b' has 'F31' as its element type"]),
        ({"b": entry([1], 8, 12, ["F32"])}, ["'b' has nothing as its element type"]),
        ({"b": 3}, ["'b' has nothing as its element type"]),
        (
            {"a": entry([2], 0, 8, "Q4"), "b": entry([7], 8, 12)},
            ["'a' has 'Q4'", "'b' has 4 bytes where F32 of shape [7] takes 28"],
        ),
    ],
)
def test_a_header_that_makes_no_sense_names_each_tensor(tmp_path, changed, sentences):
    path = write(tmp_path / "x.safetensors", GOOD, bytes(12))
    assert set(open_safetensors(path)) == {"a", "b"}
    message = refusal(write(path, GOOD | changed, bytes(12)))
    for sentence in sentences:
        assert sentence in message
    assert "must be a whole safetensors file" in message and "again" in message


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"1234567", "has only 7 bytes"),
        (b"\xff" * 20, "has 20 bytes where its header alone takes"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"<!DOCTYPE html><html>not found</html>", "where its header alone takes"),
        ((2).to_bytes(8, "little") + b"[]", "not a JSON object"),
        ((2).to_bytes(8, "little") + b"{'", "not JSON"),
        ((2).to_bytes(8, "little") + b"\xff\xfe", "not JSON"),
        ((10**5).to_bytes(8, "little") + b"[" * 10**5, "not JSON"),
    ],
)
def test_what_is_no_safetensors_file_says_so(tmp_path, content, sentence):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    assert sentence in refusal(path)


def test_a_missing_file_and_a_folder_say_so(tmp_path):
    assert "No such file" in refusal(tmp_path / "x.safetensors")
    assert "must be a file, but is a folder" in refusal(tmp_path)


def test_a_header_of_gigabytes_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    with open(path, "wb") as file:
        file.write((10**9).to_bytes(8, "little"))
        file.truncate(2 * 10**9)  # a hole: takes no room on the disk
    assert "1,000,000,000 bytes, which no model needs" in refusal(path)


def test_a_name_that_comes_twice_is_told(tmp_path):
    header = json.dumps(GOOD).replace('"b"', '"a"').encode()
    assert "'a' comes twice" in refusal(write(tmp_path / "x", header, bytes(12)))


def test_a_truncated_file_names_what_is_cut_and_counts_the_rest(tmp_path):
    path = tmp_path / "x.safetensors"
    names = [f"layer.{i:02}" for i in range(30)]
    save_file({name: np.ones(10, np.float32) for name in names}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: -40 * 19])
    message = refusal(path)
    assert "layer.10" not in message and "'layer.11' ends at byte" in message
    assert "'layer.22'" in message and "layer.23" not in message
    assert "and 7 more: fetch it again" in message


def test_every_cut_is_one_sentence(tmp_path):
    path, tensors = tmp_path / "x.safetensors", tensors_of_every_kind()
    whole = save(tensors)
    for length in [*range(0, len(whole), 13), len(whole) - 1]:
        rewrite(path, whole[:length])
        refusal(path)
    path.write_bytes(whole + b"\0")
    assert "1 bytes at its end belong to no tensor" in refusal(path)


def test_a_flipped_bit_gives_a_file_or_a_sentence(tmp_path):
    path = tmp_path / "x.safetensors"
    whole = save({"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.float16)})
    header = 8 + int.from_bytes(whole[:8], "little")
    refused = 0
    for bit in range(8 * header):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        rewrite(path, bytes(data))
        try:
            for tensor in open_safetensors(path).values():
                np.asarray(tensor)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    # What goes unseen changes a name, or two sizes so that they still agree.
    assert refused > 0.7 * 8 * header


RESIDENT = """
import sys
from pathlib import Path
import numpy as np
from jaxheads.weights.safetensors import open_safetensors

def resident():
    status = Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields["RssFile"].split()[0]) / 1024

target = np.ones(4 << 20, np.float32)
tensors = open_safetensors(Path(sys.argv[1]))
before = resident()
for name, tensor in tensors.items():
    target[:] = np.asarray(tensor)
    print(name, resident() - before)
    if sys.argv[2] == "release":
        tensor.release()
print("end", resident() - before)
"""


@pytest.mark.skipif(
    not (Path("/proc/self/status").exists() and hasattr(mmap, "MADV_DONTNEED")),
    reason="resident memory is read from /proc",
)
@pytest.mark.parametrize("release", ["release", "keep"])
def test_released_tensors_leave_the_resident_memory(tmp_path, release):
    path = tmp_path / "x.safetensors"
    save_file({f"t{i}": np.full(4 << 20, i, np.float32) for i in range(4)}, path)
    lines = subprocess.run(
        [sys.executable, "-c", RESIDENT, str(path), release],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    growth = [float(line.split()[1]) for line in lines]  # MiB; a tensor has 16
    assert len(growth) == 5 and growth[0] > 15
    if release == "release":
        assert max(growth) < 20 and growth[-1] < 2
    else:
        assert growth[-1] > 60
