"""GGUF files: every kind of value, headers, parts, damaged bytes."""

import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from jaxheads.errors import UserError
from jaxheads.weights.gguf import read_gguf

PLAIN = {
    "F64": np.float64,
    "F32": np.float32,
    "I8": np.int8,
    "I16": np.int16,
    "I32": np.int32,
    "I64": np.int64,
}


def can(function, kind: GGMLQuantizationType, data: np.ndarray) -> bool:
    """Whether the library has this for a kind of values."""
    try:
        with np.errstate(all="ignore"):
            function(data, kind)
    except NotImplementedError:
        return False
    return True


def blocks_of(kind: GGMLQuantizationType) -> np.ndarray:
    return np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8)


READABLE = [
    kind
    for kind in GGMLQuantizationType
    if kind.name not in PLAIN and can(gguf.quants.dequantize, kind, blocks_of(kind))
]
UNREADABLE = [
    kind
    for kind in GGMLQuantizationType
    if kind.name not in PLAIN and kind not in READABLE
]


def write(path: Path, tensors, architecture: str | None = "llama", keys=()) -> Path:
    """A GGUF file; a tensor comes with its kind if that is not numpy's own."""
    writer = gguf.GGUFWriter(path, architecture or "none")
    if architecture is None:
        del writer.kv_data[0]["general.architecture"]
    for key, value in dict(keys).items():
        add = writer.add_array if isinstance(value, list) else writer.add_uint32
        (writer.add_string if isinstance(value, str) else add)(key, value)  # type: ignore[arg-type]
    for name, (values, kind) in tensors.items():
        writer.add_tensor(name, values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def stored_values(kind: GGMLQuantizationType, rows: int, width: int) -> np.ndarray:
    """Values in this kind, by the library; of a kind that it only reads, any bytes."""
    rng = np.random.default_rng(int(kind))
    values = rng.normal(size=(rows, width)).astype(np.float32)
    block, block_bytes = GGML_QUANT_SIZES[kind]
    if can(gguf.quants.quantize, kind, np.zeros((1, block), np.float32)):
        return gguf.quants.quantize(values, kind)
    return rng.integers(0, 256, (rows, width // block * block_bytes), np.uint8)


@pytest.mark.parametrize("kind", READABLE, ids=lambda kind: kind.name)
def test_every_kind_that_the_library_reads_is_read(tmp_path, kind):
    # 700 rows of 512 are several chunks, and the last one is not full.
    stored = stored_values(kind, 700, 512)
    path = write(tmp_path / "one.gguf", {"w": (stored, kind)})
    tensor = read_gguf(path).tensors["w"]
    with np.errstate(all="ignore"):  # some bytes are an infinite scale
        expected = gguf.quants.dequantize(stored, kind)
    read = tensor.read()
    assert (tensor.kind, tensor.shape, read.shape) == (kind.name, *[(700, 512)] * 2)
    np.testing.assert_array_equal(read.astype(np.float32), expected)
    tensor.release()
    np.testing.assert_array_equal(read.astype(np.float32), expected)


def test_the_kinds_are_those_of_the_format():
    names = {kind.name for kind in READABLE}
    assert names >= {"F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K"}
    assert names >= {"Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ2_XXS", "TQ1_0"}


@pytest.mark.parametrize("name", PLAIN)
def test_numpys_own_kinds_are_read_as_they_are(tmp_path, name):
    values = np.arange(-60, 60).reshape(4, 5, 6).astype(PLAIN[name])
    path = write(tmp_path / "x.gguf", {"w": (values, None)})
    tensor = read_gguf(path).tensors["w"]
    read = tensor.read()
    assert (tensor.kind, read.dtype) == (name, values.dtype)
    np.testing.assert_array_equal(read, values)


@pytest.mark.parametrize("kind", UNREADABLE, ids=lambda kind: kind.name)
def test_a_kind_that_the_library_cannot_read_is_named(tmp_path, kind):
    path = write(tmp_path / "x.gguf", {"w": (blocks_of(kind), kind)})
    tensor = read_gguf(path).tensors["w"]
    with pytest.raises(UserError, match=f"'w' of .*x.gguf .* is {kind.name}: take"):
        tensor.read()


def test_dequantising_needs_little_more_than_its_result(tmp_path):
    kind = GGMLQuantizationType.Q4_K
    stored = np.zeros((4096, 2048 // 256 * 144), np.uint8)
    tensor = read_gguf(write(tmp_path / "x.gguf", {"w": (stored, kind)})).tensors["w"]
    tracemalloc.start()
    try:
        values = tensor.read()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert values.nbytes == 4 * 4096 * 2048
    assert values.nbytes < peak < 1.2 * values.nbytes


KEYS = {
    "a.text": "漢字",
    "a.number": 7,
    "a.texts": ["x", "", "yz"],
    "a.numbers": [1.5, -2.0],
}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    rng = np.random.default_rng(0)
    tensors = {f"t.{i}": (rng.normal(size=(3, 5)), None) for i in range(30)}
    return write(tmp_path_factory.mktemp("gguf") / "small.gguf", tensors, keys=KEYS)


def test_metadata_and_tensors_are_those_of_the_library(small):
    ours, library = read_gguf(small), gguf.GGUFReader(small)
    assert ours.architecture == "llama" and ours.paths == (small,)
    assert {key: ours.metadata[key] for key in KEYS} == KEYS
    for key, field in library.fields.items():
        if not key.startswith("GGUF."):
            assert ours.metadata[key] == field.contents()
    assert list(ours.tensors) == [tensor.name for tensor in library.tensors]
    for tensor in library.tensors:
        np.testing.assert_array_equal(ours.tensors[tensor.name], tensor.data)


def test_every_cut_of_a_gguf_is_one_sentence(tmp_path, small):
    whole, cut = small.read_bytes(), tmp_path / "cut.gguf"
    # The file ends with less than one alignment (32 bytes) of padding.
    for length in [*range(0, 3000, 7), len(whole) // 2, len(whole) - 32]:
        cut.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.gguf must be a "):
            read_gguf(cut)
    with pytest.raises(UserError, match="truncated, so fetch it again"):
        read_gguf(cut)


def test_a_flipped_byte_gives_a_file_or_a_sentence(tmp_path, small):
    whole, broken = small.read_bytes(), tmp_path / "broken.gguf"
    rng = np.random.default_rng(0)
    refused = 0
    for position in rng.integers(0, 2000, 300):
        data = bytearray(whole)
        data[position] ^= 1 << int(rng.integers(8))
        broken.write_bytes(data)
        try:
            read_gguf(broken)
        except UserError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    ("begin", "sentence"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 a zip file", "instead of b'GGUF'"),
        (b"GGUF\x01\0\0\0", "version 1"),
        (b"GGUF\0\0\0\x03", "big-endian"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_what_is_not_a_gguf_says_so(tmp_path, begin, sentence):
    path = tmp_path / "x.gguf"
    path.write_bytes(begin)
    with pytest.raises(UserError, match=rf"x\.gguf must be a .*{sentence}"):
        read_gguf(path)


def test_a_file_without_an_architecture_is_refused(tmp_path):
    path = write(tmp_path / "x.gguf", {}, architecture=None)
    with pytest.raises(UserError, match=r"does not name its general\.architecture"):
        read_gguf(path)


# --- a model in several files ----------------------------------------------------


def write_parts(folder: Path, count: int = 3, total: int = 4) -> list[Path]:
    """As llama.cpp's gguf-split writes them: the first part has the metadata."""
    paths = []
    for part in range(count):
        keys = {"split.no": part, "split.count": count, "split.tensors.count": total}
        tensors = {
            f"t.{i}": (np.full((2, 3), i, np.float32), None)
            for i in range(part, total, count)
        }
        path = folder / f"m-{part + 1:05d}-of-{count:05d}.gguf"
        paths.append(
            write(
                path,
                tensors,
                None if part else "llama",
                keys if part else keys | KEYS,
            )
        )
    return paths


@pytest.mark.parametrize("given", range(3))
def test_any_part_opens_all(tmp_path, given):
    paths = write_parts(tmp_path)
    opened = read_gguf(paths[given])
    assert opened.paths == tuple(paths)
    assert opened.architecture == "llama" and opened.metadata["a.number"] == 7
    assert sorted(opened.tensors) == [f"t.{i}" for i in range(4)]
    for i in range(4):
        assert (opened.tensors[f"t.{i}"].read() == i).all()


def lose_two(paths):
    paths[0].unlink()
    paths[2].unlink()
    return paths[1]


def rename(paths):
    return paths[0].rename(paths[0].with_name("m.gguf"))


def repeat(paths):
    paths[1].write_bytes(paths[2].read_bytes())
    return paths[0]


def same_tensors(paths):
    keys = {"split.no": 1, "split.count": 3}
    write(paths[1], {"t.0": (np.zeros((1, 2)), None)}, None, keys)
    return paths[0]


def fewer_tensors(paths):
    write(paths[1], {}, None, {"split.no": 1, "split.count": 3})
    return paths[0]


def cut(paths):
    paths[2].write_bytes(paths[2].read_bytes()[:100])
    return paths[0]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lose_two, r"m-00001-of-00003\.gguf; m-00003-of-00003\.gguf are not there"),
        (rename, r"m\.gguf is one of 3 parts.* called \.\.\.-00001-of-00003\.gguf"),
        (repeat, r"must be part 2 of the 3 .* but says it is part 3 of 3: fetch"),
        (same_tensors, "must be part 2 of the 3 .* but holds 't.0' again"),
        (fewer_tensors, "must hold 4 tensors, but hold 3"),
        (cut, r"m-00003-of-00003\.gguf must be a whole GGUF file"),
    ],
)
def test_parts_that_do_not_fit_are_told(tmp_path, spoil, sentence):
    path = spoil(write_parts(tmp_path))
    with pytest.raises(UserError, match=sentence) as error:
        read_gguf(path)
    assert "\n" not in str(error.value)
