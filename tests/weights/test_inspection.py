"""What `jaxheads inspect` says of every kind of source, and that load agrees."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxheads.__main__ import main
from jaxheads.errors import UserError
from jaxheads.weights.checkpoint import StoredTensor
from jaxheads.weights.inspection import RecordedSettings, inspect_source
from jaxheads.weights.model import load
from jaxheads.weights.smollm2 import default_model_path


def inspect(capfd, source, *options) -> tuple[int, str, str]:
    """On the command line: exit code, stdout, stderr."""
    code = 0
    try:
        main(["inspect", str(source), *options])
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, *capfd.readouterr()


@pytest.fixture
def folder(model_folder, tmp_path) -> Path:
    """A copy of the tiny Llama that a test may damage."""
    return Path(shutil.copytree(model_folder, tmp_path / "m"))


def edit_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(folder: Path, edit) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def refusal(source) -> str:
    with pytest.raises(UserError) as error:
        load(source)
    return str(error.value)


def test_a_folder(folder, capfd):
    edit_config(folder, initializer_range=0.02, architectures=["X"])
    code, said, _ = inspect(capfd, folder)
    assert code == 0 and said.endswith("loadable: yes\n")
    model = load(folder)
    count = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    for part in (
        f"path        {folder}",
        "format      safetensors",
        "bytes of weights in model.safetensors",
        "tokenizer.json (",
        "family      llama",
        "L 3  H 6  G 2  K 10  D 22  F 34  V 600  context 512",
        f"parameters  {count:,}: ",
        "not read: initializer_range, architectures",
        "600 tokens; '<s>' begins a sequence",
        "29 F32",
        "29 fill the params",
    ):
        assert part in said, part
    read = next(line for line in said.splitlines() if " read: " in line)
    for name in ("hidden_size", "rms_norm_eps", "rope_theta", "tie_word_embeddings"):
        assert name in read


def test_no_weight_is_read(folder, monkeypatch):
    def read(self, dtype=None, copy=None):
        raise AssertionError("a value was read")

    monkeypatch.setattr(StoredTensor, "__array__", read)
    found = inspect_source(folder)
    assert not found.refusal and len(found.tensors.consumed) == 29  # type: ignore[union-attr]


def test_ignored_tensors_are_named_with_the_reason(folder, capfd):
    def edit(tensors):
        for layer in range(3):
            name = f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"
            tensors[name] = np.ones(5, np.float32)

    edit_tensors(folder, edit)
    code, said, _ = inspect(capfd, folder)
    assert code == 0
    assert "3 ignored, recomputed from the config: model.layers.0" in said
    assert "29 fill the params" in said


def damaged_tensors(tensors):
    tensors["model.norm.weight"] = np.ones(21, np.float32)
    tensors["stray"] = tensors.pop("model.layers.2.mlp.up_proj.weight")


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


REFUSED = {
    "tensors": (
        lambda folder: edit_tensors(folder, damaged_tensors),
        [
            "'model.norm.weight' has shape [21] instead of [22]",
            "'model.layers.2.mlp.up_proj.weight' is missing",
            "'stray' is unexpected",
            "27 fill the params",
            "600 tokens",
        ],
    ),
    "setting": (
        lambda folder: edit_config(folder, hidden_act="relu6"),
        ["29 F32", "600 tokens", "hidden_act", "model.safetensors"],
    ),
    "missing setting": (
        lambda folder: edit_config(folder, hidden_size=None),
        ["29 F32", "600 tokens", "config.json ("],
    ),
    "model type": (
        lambda folder: edit_config(folder, model_type="mamba"),
        ["29 F32", "600 tokens", "config.json ("],
    ),
    "truncated": (truncate, ["L 3  H 6  G 2", "model.safetensors (", "parameters"]),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        ["L 3  H 6  G 2", "tokenizer.json ("],
    ),
    "no config": (
        lambda folder: (folder / "config.json").unlink(),
        ["model.safetensors (", "path "],
    ),
    "config": (
        lambda folder: (folder / "config.json").write_text("{"),
        ["model.safetensors ("],
    ),
    "tokenizer": (
        lambda folder: (folder / "tokenizer.json").write_text("{"),
        ["L 3  H 6  G 2", "29 fill the params", "tokenizer   damaged"],
    ),
}


@pytest.mark.parametrize("damage", sorted(REFUSED))
def test_what_is_known_is_told_before_the_refusal_of_load(damage, folder, capfd):
    spoil, known = REFUSED[damage]
    spoil(folder)
    code, said, error = inspect(capfd, folder)
    assert code == 2
    assert error == f"jaxheads: {refusal(folder)}\n"
    assert "loadable" not in said
    for part in known:
        assert part in said, part


@pytest.mark.parametrize(
    "source", ["no/such/folder/x", "/no/such.gguf", "gtp2", "{folder}/config.json"]
)
def test_a_source_that_is_none_is_refused_as_by_load(source, folder, capfd):
    source = source.format(folder=folder)
    code, said, error = inspect(capfd, source)
    assert code == 2 and error == f"jaxheads: {refusal(source)}\n"
    assert said.startswith("source")


def test_brackets_in_a_path_stay(folder, capfd):
    moved = folder.rename(folder.with_name("[bold]m[red]"))
    code, said, _ = inspect(capfd, moved)
    assert code == 0 and str(moved) in said


def test_a_tokenizer_with_more_tokens_than_the_model_is_told(folder):
    edit_config(folder, vocab_size=599)

    def edit(tensors):
        name = "model.embed_tokens.weight"
        tensors[name] = tensors[name][:599].copy()

    edit_tensors(folder, edit)
    found = inspect_source(folder)
    assert not found.refusal
    assert "ids go up to 599, but the model has only 599 rows" in found.tokenizer


def test_a_store_whole_and_damaged(folder, tmp_path, capfd):
    out = tmp_path / "out"
    main(["convert", str(folder), str(out), "--dtype=bfloat16"])
    code, said, _ = inspect(capfd, out)
    assert code == 0
    for part in (
        "format      jaxheads store",
        "L 3  H 6  G 2",
        "11 bfloat16",
        "11 fill the params",
        "600 tokens; '<s>' begins a sequence",
    ):
        assert part in said, part
    assert "settings" not in said
    path = max(out.rglob("*"), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1])
    code, said, error = inspect(capfd, out)
    assert code == 2 and error == f"jaxheads: {refusal(out)}\n"
    assert "L 3  H 6  G 2" in said and "600 tokens" in said
    shutil.rmtree(out / "params")
    (out / "jaxheads.json").unlink()
    code, said, error = inspect(capfd, out)
    assert code == 2 and error == f"jaxheads: {refusal(out)}\n"


@pytest.mark.skipif(
    not default_model_path().is_file(), reason="the default model is not fetched"
)
def test_a_gguf_file_whole_and_truncated(tmp_path, capfd):
    code, said, _ = inspect(capfd, default_model_path())
    assert code == 0
    for part in (
        "format      gguf",
        "L 30  H 9  G 3  K 64  D 576  F 1536  V 49152",
        "134,515,008",
        "210 Q4_1, 61 F32, 1 Q8_0",
        "272 fill the params",
        "49,152 tokens",
    ):
        assert part in said, part
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(default_model_path().read_bytes()[:3_000_000])
    code, said, error = inspect(capfd, cut)
    assert code == 2 and error == f"jaxheads: {refusal(cut)}\n"
    assert "cut.gguf (3,000,000 bytes)" in said


def test_settings_are_recorded_when_they_are_looked_up():
    settings = RecordedSettings({"a": 1, "b": 2, "c": None, "d": 4})
    assert settings["a"] == 1 and settings.get("c") is None and "d" in settings
    assert settings.get("e", 5) == 5
    assert len(settings) == 4 and settings.read == {"a", "c", "d"}
