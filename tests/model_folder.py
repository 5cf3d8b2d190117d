"""Writes a model as the hub has it, for tests of loading and of studies."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from jaxheads.models import llama
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
