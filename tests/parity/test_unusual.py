"""Checkpoints and tokenizers that are a little unusual, against transformers itself."""

# pyright: reportMissingImports=false

import dataclasses
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from reference import random_model, run, save
from reference_case import LOGITS, distance
from safetensors.numpy import load_file, save_file
from tokenizers import decoders, models, pre_tokenizers, trainers
from variants import VARIANTS

from jaxheads.errors import UserError
from jaxheads.models.forward import forward
from jaxheads.tokenizer.tokenizer import Tokenizer
from jaxheads.weights.model import load

pytestmark = pytest.mark.parity

TOKENS = np.random.default_rng(0).integers(0, 37, (2, 24))
LENGTHS = np.array([24, 24])
FAMILIES = sorted({variant.settings["model_type"] for variant in VARIANTS.values()})
HEADS = ("lm_head.weight", "embed_out.weight")
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight")


@pytest.fixture(scope="module", autouse=True)
def quiet() -> None:
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def theirs(folder: Path) -> np.ndarray:
    """Logits of transformers' own reading of a folder."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    return run(model.eval(), TOKENS, LENGTHS).logits


def ours(folder: Path) -> np.ndarray:
    """Logits of jaxheads' reading."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* is tied by its config")
        model = load(folder)
    return np.asarray(forward(model.params, jnp.asarray(TOKENS), model.config).logits)


def edit(folder: Path, change: Callable[[dict, dict[str, np.ndarray]], None]) -> None:
    """Change a folder's config and tensors."""
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    change(config, tensors)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def untied(family: str):
    """A random model whose head is a matrix of its own."""
    variants = VARIANTS.values()
    first = next(v for v in variants if v.settings["model_type"] == family)
    settings = first.settings | {"tie_word_embeddings": False}
    return random_model(dataclasses.replace(first, settings=settings))


@pytest.mark.parametrize("stored", ["both", "the same twice", "the head alone"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_beside_a_tied_embedding(family, stored, tmp_path):
    save(untied(family), tmp_path)

    def change(config: dict, tensors: dict[str, np.ndarray]) -> None:
        (head,) = (name for name in tensors if name in HEADS)
        (embedding,) = (name for name in tensors if name.endswith(EMBEDDINGS))
        config["tie_word_embeddings"] = True
        if family in ("gemma2", "gpt2"):  # their default
            del config["tie_word_embeddings"]
        if stored == "the same twice":
            tensors[head] = tensors[embedding].copy()
        if stored == "the head alone":
            del tensors[embedding]

    edit(tmp_path, change)
    assert distance(ours(tmp_path), theirs(tmp_path)) <= LOGITS


LINEAR = {"rope_type": "linear", "factor": 4.0}
DEFAULT = {"rope_type": "default", "rope_theta": 500.0}


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_scaling": LINEAR, "rope_parameters": DEFAULT},
        {"rope_scaling": LINEAR | {"rope_theta": 99.0}, "rope_parameters": DEFAULT},
        {"rope_scaling": {"rope_theta": 99.0}, "rope_parameters": LINEAR | DEFAULT},
        {"rope_scaling": {}, "rope_parameters": DEFAULT},
        {"rope_scaling": None, "rope_parameters": LINEAR},
    ],
)
@pytest.mark.parametrize("name", ["llama-gqa", "gemma2", "gpt_neox-more-rotary"])
def test_one_object_of_rotary_settings_counts(name, settings, tmp_path):
    save(random_model(VARIANTS[name]), tmp_path)
    edit(tmp_path, lambda config, tensors: config.update(settings))
    assert distance(ours(tmp_path), theirs(tmp_path)) <= LOGITS


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gpt_neox-more-rotary", {"rope_theta": 500.0}),
        ("gpt_neox-more-rotary", {"partial_rotary_factor": 0.25}),
        ("gpt_neox-more-rotary", {"rotary_dim": 2}),
        ("llama-gqa", {"rotary_emb_base": 500.0}),
        ("gpt2", {"hidden_act": "relu"}),
        ("gpt2", {"layer_norm_eps": 0.1}),
    ],
)
def test_names_that_transformers_passes_over_are_refused(name, settings, tmp_path):
    save(random_model(VARIANTS[name]), tmp_path)
    before = theirs(tmp_path)
    edit(tmp_path, lambda config, tensors: config.update(settings))
    assert distance(theirs(tmp_path), before) == 0
    with pytest.raises(UserError, match=rf"{next(iter(settings))} = .* is not read"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["llama-gqa", "olmo2", "gpt2", "gpt_neox"])
def test_a_window_is_refused_where_transformers_disagrees_with_itself(name, tmp_path):
    """All positions at once it attends to all; with its cache, to the window."""
    save(random_model(VARIANTS[name]), tmp_path)
    edit(tmp_path, lambda config, tensors: config.update(sliding_window=7))
    whole = theirs(tmp_path)[:, -1]
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32
    )
    cache, logits = None, None
    with torch.no_grad():
        for token in torch.tensor(TOKENS).T:
            out = model(token[:, None], past_key_values=cache, use_cache=True)
            cache, logits = out.past_key_values, out.logits[:, -1].numpy()
    assert logits is not None and distance(logits, whole) > 1
    with pytest.raises(UserError, match="sliding_window = 7, but the model type"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["llama-gqa", "gemma2", "gpt2", "gpt_neox"])
def test_attention_that_looks_ahead_is_refused(name, tmp_path):
    save(random_model(VARIANTS[name]), tmp_path)
    before = theirs(tmp_path)
    edit(tmp_path, lambda config, tensors: config.update(is_causal=False))
    assert distance(theirs(tmp_path), before) > 1
    with pytest.raises(UserError, match="is_causal = False"):
        load(tmp_path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 3:UserWarning")
@pytest.mark.parametrize("protocol", [2, 3])
def test_the_old_torch_format_loads_in_both_protocols(protocol, tmp_path):
    save(random_model(VARIANTS["llama-gqa"]), tmp_path)
    expected = ours(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(
        {name: torch.tensor(values) for name, values in tensors.items()},
        tmp_path / "pytorch_model.bin",
        _use_new_zipfile_serialization=False,
        pickle_protocol=protocol,
    )
    assert distance(theirs(tmp_path), expected) <= LOGITS
    assert distance(ours(tmp_path), expected) == 0


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_a_wrappers_names_are_refused_where_transformers_draws_weights(
    prefix, tmp_path
):
    save(random_model(VARIANTS["gpt2"]), tmp_path)
    before = theirs(tmp_path)

    def change(config: dict, tensors: dict[str, np.ndarray]) -> None:
        for name in list(tensors):
            tensors[prefix + name] = tensors.pop(name)

    edit(tmp_path, change)
    assert distance(theirs(tmp_path), before) > 1
    with pytest.raises(UserError, match=f"'{prefix}transformer.* what a wrapper puts"):
        load(tmp_path)


# --- tokenizers ------------------------------------------------------------------

TEXTS = [
    *("", " ", "  ", "\n", "a", " a", "a ", "two  spaces", "tab\tx", "a\n\nb"),
    *("The quick brown fox", "na\u00efve caf\u00e9", "\u65e5\u672c", "\U0001f600"),
    *("12345", "it's", "user\u00a0x", "a<|im_start|>user", "<|im_start|>"),
    *("a <|im_start|> b", "hi<|im_end|>\n", "<pad>a", "a<x>", " <x> ", "<x><y>"),
    *("x<|endoftext|>", "<|endoftext|><|endoftext|>x", "<mask>", "NEW1NEW2", " NEW1 "),
]


def byte_level() -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=350,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    inner.train_from_iterator(
        ["The quick brown fox, user and im_start. 12345"], trainer
    )
    return inner


def flags(text: str, **changes) -> dict:
    """A token as tokenizer_config.json lists it."""
    names = ("lstrip", "normalized", "rstrip", "single_word")
    return {"content": text, "special": True} | dict.fromkeys(names, False) | changes


COUNT = byte_level().get_vocab_size()
BY_ID = {
    str(COUNT): flags("<|im_start|>", lstrip=True),
    str(COUNT + 1): flags("NEW1", special=False, normalized=True),
}
START = flags("<|im_start|>", rstrip=True) | {"__type": "AddedToken"}


@pytest.mark.parametrize("kind", ["PreTrainedTokenizerFast", "GPT2TokenizerFast"])
@pytest.mark.parametrize(
    "files",
    [
        {"settings": {"added_tokens_decoder": BY_ID}},
        {"settings": {"added_tokens_decoder": BY_ID, "pad_token": "<pad>"}},
        {"settings": {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}},
        {"settings": {"extra_special_tokens": ["<x>", "<y>"]}},
        {"settings": {"extra_special_tokens": {"image_token": "<x>"}}},
        {"settings": {"image_token": "<x>", "mask_token": "<mask>"}},
        {"settings": {"bos_token": "<|im_start|>", "pad_token": "<pad>"}},
        {"settings": {"bos_token": START, "eos_token": "<|im_end|>"}},
        {"specials": {"bos_token": "<|im_start|>", "pad_token": flags("<pad>")}},
        {"specials": {"additional_special_tokens": ["<x>"]}},
        {
            "settings": {"bos_token": "<|im_end|>", "extra_special_tokens": ["<y>"]},
            "specials": {"bos_token": "<|im_start|>", "extra_special_tokens": ["<x>"]},
        },
        {
            "settings": {"additional_special_tokens": ["<y>"]},
            "specials": {"additional_special_tokens": ["<x>"]},
        },
        {"added": {"<|im_start|>": COUNT, "NEW1": COUNT + 1}},
        {"settings": {"pad_token": "<x>"}, "added": {"<y>": COUNT, "<x>": COUNT + 1}},
        {
            "settings": {"added_tokens_decoder": BY_ID},
            "specials": {"bos_token": "<y>"},
            "added": {"<x>": COUNT},
        },
        {"settings": {"add_prefix_space": True}},
        {"settings": {"add_prefix_space": False}},
        {"settings": {"add_prefix_space": True, "pad_token": "<x>"}},
    ],
)
def test_ids_are_those_of_transformers(kind, files, tmp_path):
    byte_level().save(str(tmp_path / "tokenizer.json"))
    settings = {"tokenizer_class": kind} | files.get("settings", {})
    for name, values in (
        ("config", {"model_type": "llama"}),
        ("tokenizer_config", settings),
        ("special_tokens_map", files.get("specials")),
        ("added_tokens", files.get("added")),
    ):
        if values is not None:
            (tmp_path / f"{name}.json").write_text(json.dumps(values))
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    tokenizer, reason = Tokenizer.from_folder(tmp_path)
    assert tokenizer is not None, reason
    for text in TEXTS:
        expected = reference.encode(text, add_special_tokens=False)
        assert tokenizer.encode(text) == expected, text
    assert tokenizer.vocab_size == len(reference)
    assert set(reference.all_special_ids) <= tokenizer.special_ids
    if reference.bos_token != "<|endoftext|>":  # what a class takes where no file says
        assert tokenizer.bos_id == reference.bos_token_id
