"""Folders in hub layout: which weights are taken, and what is wrong with the others."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import tokenizers
from families import random_params
from model_folder import write_folder
from safetensors.numpy import load_file, save_file
from torch_files import write_torch

from jaxheads.errors import UserError
from jaxheads.icl.prompts import build_prompts, encode_prompts
from jaxheads.icl.tasks import Task
from jaxheads.icl.templates import Template
from jaxheads.icl.texts import encode_documents, encode_stream
from jaxheads.weights.digest import params_sha256
from jaxheads.weights.folder import open_folder
from jaxheads.weights.inspection import inspect_source
from jaxheads.weights.model import load
from jaxheads.weights.store import save

INDEX = "model.safetensors.index.json"
TORCH_INDEX = "pytorch_model.bin.index.json"
SHARDS = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
TORCH_SHARDS = [f"pytorch_model-0000{i}-of-00003.bin" for i in (1, 2, 3)]


def write(folder: Path, tiny, shards: int = 1, dtype=np.float32) -> Path:
    """A tiny model's folder, in safetensors."""
    return write_folder(folder, tiny.config, tiny.params, shards, dtype)


def to_torch(folder: Path) -> Path:
    """Write each safetensors file and the index again as torch's, and remove them."""
    for file in folder.glob("*.safetensors"):
        name = file.name.replace("model", "pytorch_model").replace("safetensors", "bin")
        write_torch(folder / name, load_file(file))
        file.unlink()
    if (folder / INDEX).exists():
        index = (folder / INDEX).read_text().replace("model-", "pytorch_model-")
        (folder / TORCH_INDEX).write_text(index.replace(".safetensors", ".bin"))
        (folder / INDEX).unlink()
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        open_folder(folder)
    message = str(error.value)
    assert str(folder) in message and "\n" not in message
    return message


# --- what is taken ---------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 3])
def test_a_folder_loads(tmp_path, tiny, shards):
    model = load(write(tmp_path / "m", tiny, shards))
    assert model.config == tiny.config
    assert params_sha256(model.params) == params_sha256(tiny.params)
    with pytest.raises(UserError, match=r"no tokenizer\.json in .*m: copy it there"):
        model.require_tokenizer()


@pytest.mark.parametrize("shards", [1, 3])
def test_torch_weights_load_equally(tmp_path, tiny_gqa, shards):
    model = load(to_torch(write(tmp_path / "m", tiny_gqa, shards)))
    assert params_sha256(model.params) == params_sha256(tiny_gqa.params)
    assert model.provenance.format == "torch"


@pytest.mark.parametrize("stored", [ml_dtypes.bfloat16, np.float16])
def test_narrow_floats_load_as_they_are(tmp_path, tiny_gqa, stored):
    folder = write(tmp_path / "m", tiny_gqa, dtype=stored)
    expected = jax.tree.map(lambda x: x.astype(stored), tiny_gqa.params)
    narrow = load(folder, dtype=np.dtype(stored).name)
    assert params_sha256(narrow.params) == params_sha256(expected)
    wide = jax.tree.map(lambda x: x.astype(np.float32), expected)
    assert params_sha256(load(folder).params) == params_sha256(wide)


@pytest.mark.parametrize("extra", [0, 9])
def test_a_folders_tokenizer_comes_with_it(tmp_path, tiny_gqa, extra):
    folder = write(tmp_path / "m", tiny_gqa)
    count = tiny_gqa.config.vocab_size + extra
    vocabulary = {chr(97 + i): i for i in range(count)}
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    inner.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"bos_token": "b"}')
    if extra:
        said = "its ids go up to 49, but the model has only 41 .* 9 of 50 tokens cannot"
        with pytest.warns(UserWarning, match=said):
            model = load(folder)
    else:
        model = load(folder)
    assert model.require_tokenizer().encode("cab", bos=True) == [1, 2, 0, 1]


def test_a_text_with_a_token_beyond_the_embedding_is_refused(tmp_path, tiny_gqa):
    """Its highest id counts: here are 31 tokens, and one of them has id 90."""
    folder = write(tmp_path / "m", tiny_gqa)
    vocabulary = {chr(97 + i): i for i in range(30)} | {"?": 90}
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    inner.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"bos_token": "?"}')
    with pytest.warns(UserWarning, match="ids go up to 90.* only 41 .* 1 of 31 tokens"):
        tokenizer = load(folder).require_tokenizer()
    assert tokenizer.vocab_size == 91 and len(tokenizer.ids) == 31
    said = r"the text 'why\?' needs the token '\?' with id 90, .* has 41 rows"
    task = Task("t", "abstractive", ("why?", "a", "b"), ("c", "d", "e"), source="here")
    shown = build_prompts(task, 3, shots=2, seed=0, template=Template("", "", "", ""))
    for run in (
        lambda: tokenizer.encode("why?"),
        lambda: tokenizer.encode_batch(["a", "why?"]),
        lambda: encode_documents(["why?"], tokenizer, bos=False, length=2),
        lambda: encode_stream(["why?"], tokenizer, bos=False, length=2),
    ):
        with pytest.raises(UserError, match=said):
            run()
    with pytest.raises(UserError, match=r"needs the token '.' with id 90"):
        encode_prompts(shown, tokenizer, bos=False)
    with pytest.raises(UserError, match=r"'abc' needs the token '.' with id 90"):
        tokenizer.encode("abc", bos=True)


def test_another_models_tokenizer_is_refused(tmp_path, tiny_gqa):
    folder = write(tmp_path / "m", tiny_gqa)
    vocabulary = {chr(97 + i): 10 * i for i in range(8)}  # 4 of 8 in 41 rows
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    inner.save(str(folder / "tokenizer.json"))
    with pytest.warns(UserWarning, match="3 of 8 tokens cannot be used"):
        load(folder)
    vocabulary |= {"y": 500, "z": 600}
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    inner.save(str(folder / "tokenizer.json"))
    with pytest.raises(
        UserError, match=r"another model's: its ids go up to 600, .* 5 of"
    ):
        load(folder)
    assert "is another model's" in inspect_source(folder).refusal


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rms_norm_eps": -1}, "norm_epsilon must be positive and finite, but is -1"),
        ({"rms_norm_eps": float("nan")}, "norm_epsilon must be .* but is nan"),
        ({"rms_norm_eps": 0}, "norm_epsilon must be .* but is 0"),
        ({"rope_theta": float("nan")}, "theta must be .* but is nan"),
        ({"rope_theta": -10000.0}, "theta must be .* but is -10000"),
        (
            {"rope_scaling": {"type": "linear", "factor": float("nan")}},
            "factor must be .* but is nan",
        ),
        ({"num_hidden_layers": 10**9}, "num_layers must be .* at most 100000, but is"),
        ({"vocab_size": 2**40}, "vocab_size must be .* at most 2147483647, but is"),
        ({"intermediate_size": -34}, "mlp_width must be positive .* but is -34"),
    ],
)
def test_a_number_that_no_model_has_is_refused(tmp_path, tiny_gqa, changes, said):
    folder = write(tmp_path / "m", tiny_gqa)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=said):
        load(folder)
    assert re.search(said, inspect_source(folder).refusal)


def without_index(folder):
    for index in folder.glob("*.index.json"):
        index.unlink()


def with_other_formats(folder):
    (folder / "consolidated.safetensors").write_bytes(b"not read")
    (folder / "training_args.bin").write_bytes(b"not read")


def with_torch_too(folder):
    write_torch(folder / "pytorch_model.bin", {"stray": np.ones(3, np.float32)})


def with_old_shards(folder):
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"not read")


def renamed(folder):
    (folder / "model.safetensors").rename(folder / "pythia.safetensors")


@pytest.mark.parametrize(
    ("shards", "torch", "change", "files"),
    [
        (1, False, with_torch_too, ["model.safetensors"]),
        (1, False, with_other_formats, ["model.safetensors"]),
        (1, False, with_old_shards, ["model.safetensors"]),
        (1, False, renamed, ["pythia.safetensors"]),
        (1, True, with_other_formats, ["pytorch_model.bin"]),
        (3, False, with_torch_too, SHARDS),
        (3, False, with_old_shards, SHARDS),
        (3, False, without_index, SHARDS),
        (3, True, without_index, TORCH_SHARDS),
        (3, True, with_other_formats, TORCH_SHARDS),
    ],
)
def test_the_standard_names_are_taken(tmp_path, tiny_gqa, shards, torch, change, files):
    folder = write(tmp_path / "m", tiny_gqa, shards)
    expected = {n: np.asarray(t) for n, t in open_folder(folder).tensors.items()}
    if torch:
        to_torch(folder)
    change(folder)
    opened = open_folder(folder)
    assert opened.files == tuple(files) and opened.file_sha256 is None
    assert (opened.format, opened.layout) == ("torch" if torch else "safetensors", "hf")
    assert set(opened.tensors) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(np.asarray(opened.tensors[name]), values)


# --- what is refused -------------------------------------------------------------


def rewrite_json(path: Path, **changed):
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def break_index(folder):
    (folder / INDEX).write_text('{"weight_map"')


def deepen_index(folder):
    (folder / INDEX).write_text("[" * 100_000)


def empty_index(folder):
    (folder / INDEX).write_text('{"weight_map": {}}')


def outside_index(folder):
    rewrite_json(folder / INDEX, weight_map={"w": "../secret.safetensors"})


def listed_index(folder):
    rewrite_json(folder / INDEX, weight_map={"w": ["a"]})


def break_config(folder):
    (folder / "config.json").write_text("[1]")


def drop_config(folder):
    (folder / "config.json").unlink()
    (folder / "tiny.gguf").touch()


def other_model(folder):
    (folder / "config.json").write_text('{"model_type": "mamba"}')


def empty_config(folder):
    (folder / "config.json").write_text('{"model_type": "llama"}')


def nameless_config(folder):
    (folder / "config.json").write_text("{}")


def no_heads(folder):
    rewrite_json(folder / "config.json", num_attention_heads=0, head_dim=None)


def no_weights(folder):
    for file in folder.glob("*model*"):
        file.unlink()


def other_weights(folder):
    no_weights(folder)
    (folder / "tf_model.h5").touch()
    (folder / "optimizer.bin").touch()


def two_sets(folder):
    no_weights(folder)
    save_file({"w": np.ones(2, np.float32)}, folder / "a.safetensors")
    save_file({"w": np.ones(2, np.float32)}, folder / "b.safetensors")


def two_shard_sets(folder):
    without_index(folder)
    (folder / "model-00001-of-00002.safetensors").touch()


def hostile_torch(folder):
    no_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02cos\nsystem\n.")


def add_adapter(folder):
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (add_adapter, r"has adapter_config\.json, an adapter .*: merge it into them"),
        (break_index, r"index\.json must be JSON"),
        (deepen_index, r"index\.json must be JSON"),
        (empty_index, 'must give a "weight_map"'),
        (outside_index, r"files of its folder, but names '\.\./secret"),
        (listed_index, "files of its folder"),
        (break_config, "must hold a JSON object, but holds a list"),
        (drop_config, r"no config\.json: to load tiny\.gguf, give its own path"),
        (other_model, "llama.*'mamba'"),
        (empty_config, "must give 'num_"),
        (nameless_config, 'must give "model_type"'),
        (no_heads, "m cannot be used"),
        (no_weights, "but has none: fetch them into it, or save the model"),
        (other_weights, r"has only optimizer\.bin; tf_model\.h5"),
        (two_sets, r"has a\.safetensors, b\.safetensors: keep one"),
        (two_shard_sets, "one set of shards, but has .*-of-00002.*-of-00003"),
        (hostile_torch, r"pytorch_model\.bin .* asks for os\.system.* nothing in it"),
    ],
)
def test_a_spoilt_folder_is_one_sentence(tmp_path, tiny_gqa, spoil, sentence):
    folder = write(tmp_path / "m", tiny_gqa, shards=3)
    spoil(folder)
    with pytest.raises(UserError, match=sentence) as error:
        load(folder)
    assert "\n" not in str(error.value)


def weight_map(folder: Path) -> dict[str, str]:
    return json.loads((folder / INDEX).read_text())["weight_map"]


def test_all_that_is_wrong_with_shards_comes_in_one_error(tmp_path, tiny_gqa):
    folder = write(tmp_path / "m", tiny_gqa, shards=3)
    places = weight_map(folder)
    first, second, third = ([n for n in places if places[n] == s] for s in SHARDS)
    (folder / SHARDS[0]).unlink()
    cut = (folder / SHARDS[1]).read_bytes()[:-9]
    (folder / SHARDS[1]).write_bytes(cut)
    moved = {third[0]: SHARDS[1], "absent": SHARDS[2]}
    rewrite_json(folder / INDEX, weight_map=places | moved)
    message = refusal(folder)
    more = len(first) - 2
    for sentence in [
        f"{SHARDS[0]} is missing ('{first[0]}', '{first[1]}' and {more} more)",
        f"{SHARDS[1]} must be a whole safetensors file, but '",
        f"'{third[0]}' is in {SHARDS[2]}, but the index puts it in {SHARDS[1]}",
        f"'absent' is not in {SHARDS[2]}, where the index puts it",
    ]:
        assert sentence in message
    assert any(f"'{name}' ends at byte" in message for name in second)


@pytest.mark.parametrize("torch", [False, True])
def test_a_missing_shard_is_named_with_and_without_an_index(tmp_path, tiny_gqa, torch):
    folder = write(tmp_path / "m", tiny_gqa, shards=3)
    name = (TORCH_SHARDS if torch else SHARDS)[1]
    if torch:
        to_torch(folder)
    (folder / name).unlink()
    assert f"{name} is missing ('" in refusal(folder)
    without_index(folder)
    assert f"all shards of one set, but {name} is missing: fetch" in refusal(folder)


def test_an_index_that_leaves_out_a_shard_is_refused(tmp_path, tiny_gqa):
    folder = write(tmp_path / "m", tiny_gqa, shards=3)
    places = {n: s for n, s in weight_map(folder).items() if s != SHARDS[2]}
    rewrite_json(folder / INDEX, weight_map=places)
    assert f"by its index, {SHARDS[2]} is missing" in refusal(folder)


def test_an_index_of_mixed_sets_is_refused(tmp_path, tiny_gqa):
    folder = write(tmp_path / "m", tiny_gqa, shards=3)
    other = "model-00003-of-00004.safetensors"
    (folder / SHARDS[2]).rename(folder / other)
    index = (folder / INDEX).read_text().replace(SHARDS[2], other)
    (folder / INDEX).write_text(index)
    assert "named as parts of 3 and of 4" in refusal(folder)


def test_a_tensor_in_two_shards_is_refused(tmp_path, tiny_gqa):
    folder = write(tmp_path / "m", tiny_gqa, shards=3)
    places = weight_map(folder)
    name = next(n for n in places if places[n] == SHARDS[0])
    twice = load_file(folder / SHARDS[1]) | {name: np.ones(2, np.float32)}
    save_file(twice, folder / SHARDS[1])
    sentence = f"'{name}' is in {SHARDS[1]}, but the index puts it in {SHARDS[0]}"
    assert sentence in refusal(folder)
    without_index(folder)
    assert f"'{name}' is in {SHARDS[0]} and in {SHARDS[1]}" in refusal(folder)


def test_a_nonsense_number_of_shards_is_no_list_of_them(tmp_path, tiny_gqa):
    folder = write(tmp_path / "m", tiny_gqa)
    (folder / "model.safetensors").rename(
        folder / "model-00001-of-99999999999.safetensors"
    )
    message = refusal(folder)
    assert "and 9987 more" in message and len(message) < 1500


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model."])
def test_names_behind_a_wrappers_prefix_are_named(tmp_path, tiny_gqa, prefix):
    folder = write(tmp_path / "m", tiny_gqa)
    tensors = load_file(folder / "model.safetensors")
    named = {prefix + name: values for name, values in tensors.items()}
    save_file(named, folder / "model.safetensors")
    first = re.escape(f"{prefix}model.embed_tokens.weight")
    more = f"and {len(tensors) - 1} more names begin with what a wrapper"
    with pytest.raises(UserError, match=f"but '{first}' {more}") as error:
        load(folder)
    assert "missing" not in str(error.value) and "unexpected" not in str(error.value)


# --- the tied matrix -------------------------------------------------------------


@pytest.mark.parametrize("torch", [False, True])
def test_a_head_beside_a_tied_embedding_is_compared_with_it(tmp_path, tiny_gqa, torch):
    """Tied by the config: another head is used, an equal one costs no memory."""
    config = dataclasses.replace(tiny_gqa.config, tied=False)
    params = random_params(config)
    folder = write_folder(tmp_path / "m", config, params)
    rewrite_json(folder / "config.json", tie_word_embeddings=True)
    tensors = load_file(folder / "model.safetensors")
    if torch:
        to_torch(folder)
    with pytest.warns(UserWarning, match=r"'lm_head\.weight' is not its 'model\.embed"):
        model = load(folder)
    assert model.config == config
    assert params_sha256(model.params) == params_sha256(params)
    save(model, tmp_path / "store")
    assert load(tmp_path / "store").config == config
    restored = load(tmp_path / "store").provenance.params_sha256
    assert restored == model.provenance.params_sha256

    for file in folder.glob("*model*"):
        file.unlink()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    save_file(tensors, folder / "model.safetensors")
    if torch:
        to_torch(folder)
    same = load(folder)
    assert same.config.tied and same.params.unembedding is None
