"""Checkpoints into params: the checker, GGUF and safetensors files, bad sources."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import gguf
import jax
import jax.numpy as jnp
import ml_dtypes
import model_folder
import numpy as np
import pytest
import tokenizers
from conftest import CONFIGS
from flax import struct

from jaxheads.errors import UserError
from jaxheads.model import load
from jaxheads.models import llama
from jaxheads.models.parameters import Leaf, init_params
from jaxheads.weights.checkpoint import StoredTensor
from jaxheads.weights.convert import from_params, params_sha256, to_params
from jaxheads.weights.gguf import read_gguf
from jaxheads.weights.reshape import Reshape

# --- a family of two leaves, for the checker -------------------------------------


@struct.dataclass
class ToyParams:
    """A stacked leaf, a plain one, and one that this config does without."""

    wq: jax.Array
    norm: jax.Array
    absent: jax.Array | None


class ToyConfig:
    """Sizes of the toy family."""

    model_type = "toy"

    def dims(self):
        """Sizes by letter."""
        return {"d": 5, "h": 2, "k": 3}


TOY = types.ModuleType("toy")
vars(TOY).update(
    abstract=lambda config: ToyParams(
        wq=Leaf((2, 5, 2, 3), ("layers", "residual", "heads", "head_width")),  # type: ignore[arg-type]
        norm=Leaf((5,), ("residual",)),  # type: ignore[arg-type]
        absent=None,
    ),
    TENSORS={
        "hf": {
            "wq": ("layer.{l}.q", "(h k) d -> d h k"),
            "norm": ("norm", "d -> d"),
            "absent": ("absent", "d -> d"),
        }
    },
    IGNORED={r"cache\.\d+": "recomputed"},
)


def toy_tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"layer.0.q": (6, 5), "layer.1.q": (6, 5), "norm": (5,)}
    return {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}


def test_each_element_goes_where_the_reshape_says():
    tensors = toy_tensors()
    params = to_params(tensors, TOY, ToyConfig(), "hf")
    for l in range(2):
        for d in range(5):
            for h in range(2):
                for k in range(3):
                    stored = tensors[f"layer.{l}.q"][h * 3 + k, d]
                    assert params.wq[l, d, h, k] == stored
    assert params.absent is None


def test_all_that_does_not_fit_comes_in_one_error():
    tensors = toy_tensors()
    tensors["layer.0.q"] = tensors["layer.0.q"].T
    tensors["stray"] = tensors.pop("layer.1.q")
    tensors["cache.7"] = np.zeros(3, np.float32)  # ignored, with a reason
    with pytest.raises(UserError) as error:
        to_params(tensors, TOY, ToyConfig(), "hf", source="some.file")
    message = str(error.value)
    assert message.startswith("some.file must hold")
    assert "'layer.0.q' has shape [5, 6] instead of [6, 5]" in message
    assert "'layer.1.q' is missing" in message
    assert "'stray' is unexpected" in message
    assert "cache.7" not in message


def test_a_long_list_of_problems_is_cut():
    tensors = toy_tensors() | {f"stray.{i}": np.zeros(1) for i in range(40)}
    with pytest.raises(UserError, match="and 28 more") as error:
        to_params(tensors, TOY, ToyConfig(), "hf")
    assert len(str(error.value)) < 1000


def test_nothing_is_read_before_everything_fits():
    def read():
        raise AssertionError("read")

    tensors = {
        name: StoredTensor(values.shape, "F32", read)
        for name, values in (toy_tensors() | {"stray": np.zeros(1)}).items()
    }
    with pytest.raises(UserError, match="stray"):
        to_params(tensors, TOY, ToyConfig(), "hf")


@pytest.mark.parametrize(("dtype", "value"), [("float32", np.nan), ("float16", 1e6)])
def test_weights_that_are_not_finite_are_named(dtype, value):
    tensors = toy_tensors()
    tensors["norm"][3] = value
    with pytest.warns(UserWarning, match=f"as {dtype}: norm"):
        to_params(tensors, TOY, ToyConfig(), "hf", dtype)


@pytest.mark.parametrize(
    "text", ["d k", "d -> k", "d d -> d d", "(h k d -> d h k", "(h 2) d -> d h", "->x"]
)
def test_a_broken_reshape_is_refused(text):
    with pytest.raises(ValueError, match="a reshape must be like"):
        Reshape.parse(text)


@pytest.mark.parametrize("layout", ["hf", "gguf"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_from_params_is_the_inverse_of_to_params(tiny, layout, dtype):
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), tiny.params)
    tensors = from_params(params, llama, tiny.config, layout)
    again = to_params(tensors, llama, tiny.config, layout, dtype)
    assert params_sha256(again) == params_sha256(params)
    assert jax.tree.structure(again) == jax.tree.structure(params)


def test_the_hash_sees_values_shapes_dtypes_and_names():
    base = {"a": np.arange(6.0, dtype=np.float32)}
    others = [
        {"a": -base["a"]},
        {"a": base["a"].reshape(2, 3)},
        {"a": base["a"].view(np.int32)},
        {"b": base["a"]},
    ]
    assert len({params_sha256(tree) for tree in [base, *others]}) == 5
    assert params_sha256(base) == params_sha256({"a": jnp.asarray(base["a"])})


# --- GGUF ------------------------------------------------------------------------


def rotary_pairs_side_by_side(rows: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp's converter does to q and k, one row at a time."""
    width = rows.shape[0] // heads
    moved = np.empty_like(rows)
    for h in range(heads):
        for pair in range(width // 2):
            for half in range(2):
                to = h * width + 2 * pair + half
                moved[to] = rows[h * width + half * width // 2 + pair]
    return moved


def write_gguf(path: Path, config: llama.Config, tensors, architecture="llama"):
    """A GGUF file as the converter would write it, from tensors in hub layout."""
    names = {
        llama.TENSORS["hf"][leaf][0].format(l=l): (leaf, template.format(l=l))
        for leaf, (template, _) in llama.TENSORS["gguf"].items()
        for l in range(config.num_layers)
    }
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_block_count(config.num_layers)
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.width)
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    letters = [chr(97 + i) for i in range(26)]
    writer.add_token_list([*letters, "ab"])
    writer.add_token_types([1] * 27)
    writer.add_token_merges(["a b"])
    for name, values in tensors.items():
        leaf, gguf_name = names[name]
        if leaf == "layers.wq":
            values = rotary_pairs_side_by_side(values, config.num_heads)
        if leaf == "layers.wk":
            values = rotary_pairs_side_by_side(values, config.num_kv_heads)
        writer.add_tensor(gguf_name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory, tiny_gqa) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tensors = from_params(tiny_gqa.params, llama, tiny_gqa.config, "hf")
    write_gguf(path, tiny_gqa.config, tensors)
    return path


def test_gguf_loads_and_undoes_the_permutation(tmp_path, tiny):
    tensors = from_params(tiny.params, llama, tiny.config, "hf")
    write_gguf(tmp_path / "tiny.gguf", tiny.config, tensors)
    model = load(tmp_path / "tiny.gguf")
    assert params_sha256(model.params) == params_sha256(tiny.params)
    assert model.provenance.params_sha256 == params_sha256(tiny.params)
    for field in ("num_heads", "num_kv_heads", "head_dim", "vocab_size", "tied"):
        assert getattr(model.config, field) == getattr(tiny.config, field)
    assert model.require_tokenizer().encode("cab") == [2, 26]
    receipt = json.loads(json.dumps(model.provenance.to_dict()))
    assert receipt["format"] == "gguf" and receipt["name"] == "tiny"
    assert receipt["tensor_kinds"] == {"F32": len(tensors)}


def test_metadata_and_tensors_are_those_of_the_library(gguf_file):
    ours, library = read_gguf(gguf_file), gguf.GGUFReader(gguf_file)
    for key, field in library.fields.items():
        if not key.startswith("GGUF."):
            assert ours.metadata[key] == field.contents()
    assert list(ours.tensors) == [tensor.name for tensor in library.tensors]
    for tensor in library.tensors:
        np.testing.assert_array_equal(ours.tensors[tensor.name], tensor.data)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0", "F16", "BF16"])
def test_stored_kinds_are_dequantised_to_float32(tmp_path, kind):
    values = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    qtype = gguf.GGMLQuantizationType[kind]
    stored = gguf.quants.quantize(values, qtype)
    writer = gguf.GGUFWriter(tmp_path / "one.gguf", "llama")
    writer.add_tensor("w", stored, raw_dtype=qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensor = read_gguf(tmp_path / "one.gguf").tensors["w"]
    read = np.asarray(tensor)
    assert (tensor.kind, tensor.shape, read.dtype) == (kind, (3, 64), np.float32)
    np.testing.assert_array_equal(read, gguf.quants.dequantize(stored, qtype))
    np.testing.assert_allclose(read, values, atol=0.3)


def test_every_cut_of_a_gguf_is_one_sentence(tmp_path, gguf_file):
    whole, cut = gguf_file.read_bytes(), tmp_path / "cut.gguf"
    # The file ends with less than one alignment (32 bytes) of padding.
    lengths = [*range(0, 3000, 7), len(whole) // 2, len(whole) - 32]
    for length in lengths:
        cut.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.gguf must be a "):
            read_gguf(cut)
    with pytest.raises(UserError, match="truncated, so fetch it again"):
        load(cut)


def test_a_flipped_byte_gives_a_file_or_a_sentence(tmp_path, gguf_file):
    whole, broken = gguf_file.read_bytes(), tmp_path / "broken.gguf"
    rng = np.random.default_rng(0)
    refused = 0
    for position in rng.integers(0, 2500, 300):
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
    ],
)
def test_what_is_not_a_gguf_says_so(tmp_path, begin, sentence):
    path = tmp_path / "x.gguf"
    path.write_bytes(begin)
    with pytest.raises(UserError, match=sentence):
        load(path)


def test_another_architecture_is_named(tmp_path):
    config = CONFIGS["gqa"]
    params = init_params(llama.abstract(config), jax.random.key(0))
    tensors = from_params(params, llama, config, "hf")
    write_gguf(tmp_path / "x.gguf", config, tensors, architecture="mamba")
    with pytest.raises(UserError, match=r"x\.gguf.*llama.*'mamba'"):
        load(tmp_path / "x.gguf")


# --- folders in hub layout -------------------------------------------------------


def write_folder(folder: Path, tiny, shards: int = 1, dtype=np.float32) -> Path:
    """A tiny model's folder."""
    return model_folder.write_folder(folder, tiny.config, tiny.params, shards, dtype)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_folder_loads(tmp_path, tiny, shards):
    model = load(write_folder(tmp_path / "m", tiny, shards))
    assert model.config == tiny.config
    assert params_sha256(model.params) == params_sha256(tiny.params)
    assert (model.provenance.file_sha256 is None) == (shards > 1)
    with pytest.raises(UserError, match=r"no tokenizer\.json in .*m: copy it there"):
        model.require_tokenizer()


@pytest.mark.parametrize("stored", [ml_dtypes.bfloat16, np.float16])
def test_narrow_floats_load_as_they_are(tmp_path, tiny_gqa, stored):
    folder = write_folder(tmp_path / "m", tiny_gqa, dtype=stored)
    expected = jax.tree.map(lambda x: x.astype(stored), tiny_gqa.params)
    narrow = load(folder, dtype=np.dtype(stored).name)
    assert params_sha256(narrow.params) == params_sha256(expected)
    wide = jax.tree.map(lambda x: x.astype(np.float32), expected)
    assert params_sha256(load(folder).params) == params_sha256(wide)


@pytest.mark.parametrize("extra", [0, 9])
def test_a_folders_tokenizer_comes_with_it(tmp_path, tiny_gqa, extra):
    folder = write_folder(tmp_path / "m", tiny_gqa)
    count = tiny_gqa.config.vocab_size + extra
    vocabulary = {chr(97 + i): i for i in range(count)}
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    inner.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"bos_token": "b"}')
    if extra:
        with pytest.warns(UserWarning, match="has 50 tokens, the model only 41"):
            model = load(folder)
    else:
        model = load(folder)
    assert model.require_tokenizer().encode("cab", bos=True) == [1, 2, 0, 1]


def break_shard(folder):
    (folder / "model-00002-of-00002.safetensors").unlink()


def break_index(folder):
    (folder / "model.safetensors.index.json").write_text('{"weight_map"')


def break_tensor_file(folder):
    path = folder / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


def break_config(folder):
    (folder / "config.json").write_text("[1]")


def drop_config(folder):
    (folder / "config.json").unlink()


def only_torch(folder):
    for file in folder.glob("model*"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"PK")


def other_model(folder):
    (folder / "config.json").write_text('{"model_type": "mamba"}')


def empty_config(folder):
    (folder / "config.json").write_text('{"model_type": "llama"}')


def no_heads(folder):
    settings = json.loads((folder / "config.json").read_text())
    settings = settings | {"num_attention_heads": 0, "head_dim": None}
    (folder / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (break_shard, "model-00002-of-00002.safetensors is missing: fetch it"),
        (break_index, r"index\.json must be JSON"),
        (break_tensor_file, "model-00001.* must be a whole safetensors file"),
        (break_config, "must hold a JSON object, but holds a list"),
        (drop_config, r"has no config\.json"),
        (only_torch, r"only torch weights \(pytorch_model\.bin\)"),
        (other_model, "llama.*'mamba'"),
        (empty_config, "must give 'num_"),
        (no_heads, "m cannot be used"),
    ],
)
def test_a_spoilt_folder_is_one_sentence(tmp_path, tiny_gqa, spoil, sentence):
    folder = write_folder(tmp_path / "m", tiny_gqa, shards=2)
    spoil(folder)
    with pytest.raises(UserError, match=sentence) as error:
        load(folder)
    assert "\n" not in str(error.value)


# --- sources ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("smollm2-135m", "did you mean 'smollm2-135m-instruct'"),
        ("nowhere/model.gguf", "no file of this name exists"),
        ("./nowhere", "built-in name .*smollm2-135m-instruct.* hub id owner/name"),
        ("~nobody-here/model", "none of these"),
        ("", "none of these"),
        (__file__, r"is a \.py file"),
    ],
)
def test_a_wrong_source_says_what_is_expected(source, sentence):
    with pytest.raises(UserError, match=sentence):
        load(source)


def test_a_revision_belongs_to_the_hub(gguf_file):
    for source in [gguf_file, gguf_file.parent, None]:
        with pytest.raises(UserError, match="leave out the revision 'step1'"):
            load(source, revision="step1")


def test_dtypes_are_three(gguf_file):
    with pytest.raises(UserError, match=r"float32, bfloat16, float16, but is 'int8'"):
        load(gguf_file, dtype="int8")


LOAD_FROM_HUB = """
import sys
from jaxheads.errors import UserError
from jaxheads.model import load
try:
    print(load("owner/tiny", revision=sys.argv[1]).provenance)
except UserError as error:
    print(error)
"""


def test_a_hub_model_comes_from_its_cache_and_never_half(tmp_path, tiny_gqa):
    repository = tmp_path / "hub" / "models--owner--tiny"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (repository / "snapshots").mkdir(parents=True)
    write_folder(repository / "snapshots" / commit, tiny_gqa)
    (repository / "refs").mkdir()
    (repository / "refs" / "step1000").write_text(commit)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}

    def run(revision: str) -> str:
        command = [sys.executable, "-c", LOAD_FROM_HUB, revision]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout

    found = run("step1000")
    assert params_sha256(tiny_gqa.params) in found
    assert "revision='step1000'" in found and f"commit='{commit}'" in found
    assert "'owner/tiny' at revision 'main' could not be fetched" in run("main")
