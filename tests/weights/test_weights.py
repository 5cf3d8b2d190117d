"""Checkpoints into params: the checker, GGUF and safetensors files."""

import dataclasses
import json
import types
from pathlib import Path

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, random_params
from flax import struct

from jaxheads.errors import UserError
from jaxheads.models import family, llama
from jaxheads.models.parameters import Leaf
from jaxheads.weights import convert
from jaxheads.weights.checkpoint import StoredTensor
from jaxheads.weights.convert import Reshape, from_params, to_params, with_stored_head
from jaxheads.weights.digest import params_sha256
from jaxheads.weights.model import load

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
    PREFIX="",
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


TIED = sorted(name for name, config in CONFIGS.items() if hasattr(config, "tied"))


@pytest.mark.parametrize("name", TIED)
@pytest.mark.parametrize("bare", [False, True])
def test_the_values_tell_whether_a_model_is_tied(name, bare):
    tied = dataclasses.replace(CONFIGS[name], tied=True)
    untied, module = dataclasses.replace(tied, tied=False), family(tied.model_type)
    params = random_params(untied)
    tensors = from_params(params, module, untied, "hf")
    embedding, head = (module.TENSORS["hf"][p][0] for p in ("embedding", "unembedding"))
    if bare:
        tensors = {n.removeprefix(module.PREFIX): v for n, v in tensors.items()}
        embedding = embedding.removeprefix(module.PREFIX)
    with pytest.warns(UserWarning, match=f"m is tied .* {head!r} is not its"):
        config = with_stored_head(tensors, module, tied, "m")
    assert config == untied
    found = to_params(tensors, module, config, "hf")
    assert params_sha256(found) == params_sha256(params)

    wide = {**tensors, head: tensors[embedding].astype(np.float64)}
    assert with_stored_head(wide, module, tied, "m") is tied
    expected = params.replace(unembedding=None)
    found = to_params(wide, module, tied, "hf")
    assert params_sha256(found) == params_sha256(expected)

    # Stored once, under the other name.
    wide.pop(embedding)
    assert with_stored_head(wide, module, tied, "m") is tied
    found = to_params(wide, module, tied, "hf")
    assert params_sha256(found) == params_sha256(expected)
    with pytest.raises(UserError, match=f"{embedding!r} is missing"):
        to_params(wide, module, untied, "hf")


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        (np.zeros((3, 2), np.float32), r"has shape \[3, 2\] instead of"),
        (np.zeros((37, 18), np.int8), "is stored as int8 instead of floats"),
    ],
)
def test_a_head_that_cannot_be_one_is_not_dropped(head, sentence):
    config = dataclasses.replace(CONFIGS["llama-mqa"], tied=True)
    tensors = from_params(random_params(config), llama, config, "hf")
    tensors["lm_head.weight"] = head
    with pytest.warns(UserWarning, match="is not its"):
        untied = with_stored_head(tensors, llama, config, "m")
    with pytest.raises(UserError, match=f"'lm_head.weight' {sentence}"):
        to_params(tensors, llama, untied, "hf")


def test_the_two_matrices_are_compared_in_pieces(monkeypatch):
    monkeypatch.setattr(convert, "_PIECE_BYTES", 4 * 18 * 5)
    config = dataclasses.replace(CONFIGS["llama-mqa"], tied=True)
    matrix = np.random.default_rng(0).normal(size=(37, 18)).astype(np.float32)
    read: list[int] = []

    def stored(values):
        def rows(start, stop):
            read.append(len(values[start:stop]))
            return values[start:stop]

        return StoredTensor(values.shape, "F32", lambda: values, read_rows=rows)

    other = matrix.copy()
    names = ("model.embed_tokens.weight", "lm_head.weight")
    tensors = {n: stored(v) for n, v in zip(names, (matrix, other), strict=True)}
    assert with_stored_head(tensors, llama, config, "m") is config
    assert max(read) == 5 and sum(read) == 2 * 37
    other[-1, -1] += 1
    with pytest.warns(UserWarning, match="is not its"):
        assert not with_stored_head(tensors, llama, config, "m").tied


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
    writer.add_rope_freq_base(config.rope.theta)
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


def test_another_architecture_is_named(tmp_path, tiny_gqa):
    config = tiny_gqa.config
    tensors = from_params(tiny_gqa.params, llama, config, "hf")
    write_gguf(tmp_path / "x.gguf", config, tensors, architecture="mamba")
    with pytest.raises(UserError, match=r"x\.gguf.*llama.*'mamba'"):
        load(tmp_path / "x.gguf")
