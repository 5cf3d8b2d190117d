"""Converted models: the same params in any dtype and place, whole or not at all."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, random_params
from jax.sharding import Mesh, SingleDeviceSharding

from jaxheads.__main__ import main
from jaxheads.errors import UserError
from jaxheads.models import llama
from jaxheads.models.rope import Rope
from jaxheads.runs.unfinished import MARK, whole_folder
from jaxheads.weights.digest import params_sha256
from jaxheads.weights.model import Model, Provenance, load
from jaxheads.weights.store import MANIFEST, restore_params, save, save_params


def model_of(config, seed: int = 0) -> Model:
    params = random_params(config, seed)
    provenance = Provenance(
        source="owner/name",
        revision="step1",
        commit="abc",
        path="cache/abc",
        format="safetensors",
        file_sha256=None,
        params_sha256=params_sha256(params),
        dtype="float32",
        model_type=config.model_type,
        tensor_kinds={"F32": 3},
        name="a name",
        license=None,
        files=("a.safetensors", "b.safetensors"),
    )
    return Model(params, config, None, provenance, "the source has none")


def convert(*arguments) -> int:
    try:
        main(["convert", *map(str, arguments)])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def store(model_folder, tmp_path_factory) -> Path:
    """The tiny Llama with its tokenizer, converted on the command line."""
    out = tmp_path_factory.mktemp("convert") / "new" / "out"
    assert convert(model_folder, out) == 0
    return out


@pytest.fixture
def copied(store, tmp_path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "copied"))


def largest_file(folder: Path) -> Path:
    return max(folder.glob("params/**/d/*"), key=lambda path: path.stat().st_size)


CONFIGS_WITH_MORE = CONFIGS | {
    "llama-scaled": llama.Config(
        2, 18, 4, 1, 12, 30, 37, 64, rope=Rope(5e5, "llama3", 8.0, 32)
    )
}


@pytest.mark.parametrize("name", sorted(CONFIGS_WITH_MORE))
def test_every_family_comes_back(name, tmp_path):
    model = model_of(CONFIGS_WITH_MORE[name])
    save(model, tmp_path / "out")
    loaded = load(tmp_path / "out")
    assert loaded.config == model.config
    assert type(loaded.params) is type(model.params)
    assert params_sha256(loaded.params) == model.provenance.params_sha256
    assert loaded.no_tokenizer == "the source has none"


def test_the_receipt_names_the_source_and_what_was_read(tmp_path):
    model = model_of(CONFIGS["llama-mqa"])
    save(model, tmp_path / "out")
    told = load(tmp_path / "out", dtype="bfloat16").provenance.to_dict()
    assert json.loads(json.dumps(told)) == told
    first = model.provenance.to_dict()
    changed = {name for name in told if told[name] != first[name]}
    assert changed == {"path", "format", "params_sha256", "dtype", "converted"}
    assert told["path"] == str(tmp_path / "out")
    assert told["format"] == "jaxheads store" and told["dtype"] == "bfloat16"
    names = ("format", "path", "dtype", "params_sha256")
    assert told["converted"] == {name: first[name] for name in names}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_any_dtype_is_the_sources_own(dtype, store, model_folder):
    direct, restored = load(model_folder, dtype=dtype), load(store, dtype=dtype)
    assert {x.dtype.name for x in jax.tree.leaves(restored.params)} == {dtype}
    assert restored.provenance.params_sha256 == direct.provenance.params_sha256
    text = "Q: hot\nA: cold"
    assert direct.tokenizer is not None and restored.tokenizer is not None
    assert restored.tokenizer.encode(text) == direct.tokenizer.encode(text)
    assert restored.tokenizer.bos_id == direct.tokenizer.bos_id


def test_a_narrow_store_widens_and_says_so(store, tmp_path):
    assert convert(store, tmp_path / "half", "--dtype=bfloat16") == 0
    wide = load(tmp_path / "half")
    half = load(store, dtype="bfloat16")
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, b.astype(jnp.float32)),
        wide.params,
        half.params,
    )
    converted = wide.provenance.converted
    assert converted is not None and converted["dtype"] == "bfloat16"
    assert converted["converted"]["format"] == "safetensors"


def test_params_are_restored_to_their_places(store, model_folder):
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("data", "model"))
    restored = load(store, mesh=mesh, dtype="bfloat16").params
    direct = load(model_folder, mesh=mesh, dtype="bfloat16").params
    jax.tree.map(np.testing.assert_array_equal, restored, direct)
    for leaf, expected in zip(
        jax.tree.leaves(restored), jax.tree.leaves(direct), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(expected.sharding, leaf.ndim)
    assert not restored.layers.wq.is_fully_replicated


# --- damage ------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def rewrite(folder: Path, **changes) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: largest_file(folder).unlink(), "is missing"),
        (lambda folder: cut(largest_file(folder)), "bytes instead of"),
        (lambda folder: flip(largest_file(folder)), "SHA-256"),
        (lambda folder: flip(folder / "params/_METADATA"), "_METADATA is damaged"),
        (lambda folder: flip(folder / "params/manifest.ocdbt"), r"ocdbt is damaged"),
        (lambda folder: shutil.rmtree(folder / "params"), "manifest.ocdbt is missing"),
        (lambda folder: flip(folder / "tokenizer.json"), r"tokenizer\.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"tokenizer\.json"),
        (lambda folder: (folder / MANIFEST).unlink(), "broke off"),
        (lambda folder: cut(folder / MANIFEST), "must be JSON"),
        (lambda folder: rewrite(folder, dtype="float16"), "damaged"),
        (lambda folder: rewrite(folder, schema=7), "is of 7"),
        (lambda folder: (folder / MANIFEST).write_text("{}"), "is of None"),
    ],
)
def test_damage_is_one_sentence(damage, sentence, dtype, copied):
    damage(copied)
    with pytest.raises(UserError, match=sentence) as error:
        load(copied, dtype=dtype)
    message = str(error.value)
    assert str(copied) in message and "\n" not in message and len(message) < 1500


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_flipped_bit_in_a_large_file_is_found(dtype, tmp_path):
    """It is found by the hash of the params, and before a cast by the file's."""
    config = llama.Config(1, 64, 4, 1, 16, 48, 8001, 64, tied=True)
    save(model_of(config), tmp_path / "out")
    load(tmp_path / "out", dtype=dtype)
    file = largest_file(tmp_path / "out")
    assert file.stat().st_size > 2**20
    flip(file)
    with pytest.raises(UserError, match=r"wrong SHA-256|values are not those that"):
        load(tmp_path / "out", dtype=dtype)


def test_files_of_two_stores_do_not_mix(tmp_path):
    for seed, name in enumerate(("a", "b")):
        save(model_of(CONFIGS["llama-mqa"], seed), tmp_path / name)
    shutil.rmtree(tmp_path / "b" / "params")
    shutil.copytree(tmp_path / "a" / "params", tmp_path / "b" / "params")
    with pytest.raises(UserError, match="is missing"):
        load(tmp_path / "b")


def test_params_that_do_not_fit_the_config_are_named(tmp_path, monkeypatch):
    config = CONFIGS["llama-mqa"]
    save(model_of(config), tmp_path / "out")
    abstract = llama.abstract

    def changed(config):
        tree: Any = abstract(config)
        return tree.replace(final_norm=None, embedding=tree.unembedding)

    monkeypatch.setattr(llama, "abstract", changed)
    with pytest.raises(UserError) as error:
        load(tmp_path / "out")
    assert "'final_norm' is unexpected" in str(error.value)
    assert "'embedding' has shape [37, 18] instead of [18, 37]" in str(error.value)


def test_weights_that_are_not_finite_are_named(tmp_path):
    model = model_of(CONFIGS["llama-mqa"])
    layers = model.params.layers
    layers = layers.replace(wq=layers.wq.at[0, 0, 0, 0].set(1e6))
    params = model.params.replace(layers=layers)
    sha256 = params_sha256(params)
    provenance = dataclasses.replace(model.provenance, params_sha256=sha256)
    save(Model(params, model.config, None, provenance), tmp_path / "out")
    load(tmp_path / "out")
    with pytest.warns(UserWarning, match=r"infinite weights as float16: layers\.wq"):
        load(tmp_path / "out", dtype="float16")


# --- whole or not at all ------------------------------------------------------------


def test_a_folder_in_use_is_refused_before_a_model_is_read(store, tmp_path, capfd):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for out, sentence in (
        (store, "holds"),
        (tmp_path / "full", "holds notes.txt"),
        (tmp_path / "file", "is a file"),
    ):
        assert convert("no/such/source", out) == 2
        assert sentence in capfd.readouterr().err
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"


def test_a_folder_that_another_process_wrote_meanwhile_is_kept(tmp_path):
    with pytest.raises(UserError, match="holds theirs"), whole_folder(tmp_path / "out"):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "theirs"]


def test_an_empty_folder_is_taken(model_folder, tmp_path):
    (tmp_path / "out").mkdir()
    assert convert(model_folder, tmp_path / "out") == 0
    assert load(tmp_path / "out").provenance.source == str(model_folder)
    assert os.listdir(tmp_path) == ["out"]


def test_a_mistake_leaves_nothing(tmp_path, capfd):
    assert convert("no/such/source/x", tmp_path / "deep" / "out") == 2
    assert "no/such/source/x" in capfd.readouterr().err
    assert not os.listdir(tmp_path)


HALFWAY = """
import sys, time
from jaxheads import stops
from jaxheads.__main__ import main
from jaxheads.tokenizer.tokenizer import Tokenizer

def wait(self, folder):  # the params are written then
    print("halfway", flush=True)
    for _ in range(600):
        time.sleep(0.1)
        stops.check()

Tokenizer.save = wait
main(["convert", *sys.argv[1:]])
"""


def stopped_halfway(source: Path, out: Path, how: int) -> subprocess.Popen:
    command = [sys.executable, "-c", HALFWAY, str(source), str(out)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "halfway\n"
    process.send_signal(how)
    return process


def test_a_kill_leaves_nothing_that_looks_complete(model_folder, tmp_path):
    out = tmp_path / "out"
    process = stopped_halfway(model_folder, out, signal.SIGKILL)
    process.communicate()
    (left,) = tmp_path.iterdir()
    assert left.name == f"out{MARK}{process.pid}"
    with pytest.raises(UserError, match="conversion broke off"):
        load(left)
    assert convert(model_folder, out) == 0
    assert os.listdir(tmp_path) == ["out"]
    load(out)


def test_an_interrupt_leaves_nothing(model_folder, tmp_path):
    process = stopped_halfway(model_folder, tmp_path / "deep/out", signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130 and "Traceback" not in said
    assert not os.listdir(tmp_path)


def test_a_conversion_that_still_runs_is_left_alone(model_folder, tmp_path):
    out = tmp_path / "out"
    process = stopped_halfway(model_folder, out, 0)
    try:
        assert convert(model_folder, out) == 2
        (left,) = os.listdir(tmp_path)
        assert left.startswith(f"out{MARK}")
    finally:
        process.kill()
        process.communicate()
    assert convert(model_folder, out) == 0 and os.listdir(tmp_path) == ["out"]


def test_a_full_disk_is_one_sentence(model_folder, tmp_path, monkeypatch, capfd):
    def full(*_):
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device")

    # The only way to fill a disk in a test without one to fill.
    monkeypatch.setattr("jaxheads.weights.store.save_params", full)
    assert convert(model_folder, tmp_path / "out") == 2
    assert "No space left on device" in capfd.readouterr().err
    assert not os.listdir(tmp_path)


def test_an_optional_leaf_may_be_absent_on_the_disk(tmp_path):
    stored = {"first": np.arange(6.0, dtype=np.float32).reshape(2, 3), "none": None}
    save_params(tmp_path / "params", stored)
    (device,) = jnp.zeros(()).devices()
    place = SingleDeviceSharding(device)
    leaf = jax.ShapeDtypeStruct((2, 3), np.float32, sharding=place)
    read = restore_params(tmp_path / "params", {"first": leaf, "later": {"new": None}})
    assert read["later"] == {"new": None}
    np.testing.assert_array_equal(read["first"], stored["first"])
