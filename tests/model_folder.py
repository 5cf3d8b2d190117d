"""Writes a model as the hub has it, for tests of loading and of studies."""

import json
from pathlib import Path

import jax
import numpy as np
import tokenizers
from safetensors.numpy import save_file
from tokenizers import decoders, models, pre_tokenizers, trainers

from jaxheads.icl.tasks import load_tasks
from jaxheads.models import llama
from jaxheads.models.parameters import init_params
from jaxheads.weights.convert import from_params


def write_folder(
    folder: Path, config: llama.Config, params, shards: int = 1, dtype=np.float32
) -> Path:
    """Write config.json and safetensors, in one file or in shards with an index."""
    folder.mkdir(exist_ok=True)
    settings = {
        "model_type": "llama",
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.width,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.mlp_width,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "rope_theta": config.rope.theta,
        "rms_norm_eps": config.norm_epsilon,
        "tie_word_embeddings": config.tied,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    tensors = from_params(params, llama, config, "hf")
    tensors = {name: values.astype(dtype) for name, values in tensors.items()}
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = dict(list(tensors.items())[i::shards])
        save_file(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = json.dumps({"weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(index)
    return folder


def write_tiny_llama(folder: Path) -> Path:
    """Write a tiny random Llama with a tokenizer trained on the tasks."""
    folder.mkdir(exist_ok=True)
    lines = [
        f"Q: {given}\nA: {wanted}\n\n"
        for task in load_tasks(None)
        for given, wanted in zip(task.inputs, task.outputs, strict=True)
    ]
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        lines,
        trainers.BpeTrainer(
            vocab_size=600,
            initial_alphabet=alphabet,
            special_tokens=["<s>"],
            show_progress=False,
        ),
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    config = llama.Config(3, 22, 6, 2, 10, 34, 600, 512, tied=True)
    params = init_params(llama.abstract(config), jax.random.key(7), scale=2.0)
    return write_folder(folder, config, params)
