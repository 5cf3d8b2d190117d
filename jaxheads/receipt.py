"""What a result says of the model, the program, the machine and its own arrays."""

import hashlib
import importlib.metadata
import platform
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from jaxheads import runs
from jaxheads.model import Model

VERSIONS = ("jaxheads", "jax", "jaxlib", "numpy")


def identity(model: Model, tokens: runs.Arrays, bos: bool) -> dict[str, Any]:
    """What makes two runs of one config the same: the params and the token ids."""
    digest = hashlib.sha256()
    for name, ids in sorted(tokens.items()):
        digest.update(f"{name} {ids.shape} ".encode())
        digest.update(np.ascontiguousarray(ids).tobytes())
    return {
        "params_sha256": model.provenance.params_sha256,
        "dtype": model.provenance.dtype,
        "bos": bos,
        "tokens_sha256": digest.hexdigest(),
    }


def receipt(model: Model, bos: bool) -> dict[str, Any]:
    """What a result says of the model, the program and the machine."""
    config, origin = model.config, model.provenance
    params = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    device = jax.devices()[0]
    versions = {name: importlib.metadata.version(name) for name in VERSIONS}
    return {
        "model": origin.to_dict()
        | {
            "name": origin.name or origin.source,
            "quantisation": origin.tensor_kinds,
            "num_layers": config.num_layers,
            "num_heads": config.num_heads,
            "num_kv_heads": config.num_kv_heads,
            "head_dim": config.head_dim,
            "width": config.width,
            "vocab_size": config.vocab_size,
            "num_params": params,
            "bos": bos,
        },
        "versions": versions | {"python": platform.python_version()},
        "device": {
            "kind": device.device_kind,
            "platform": device.platform,
            "count": jax.device_count(),
            "processor": platform.machine(),
        },
    }


_DIMS = {
    "score/": ["L", "H"],
    "fv/effects": ["A", "L", "H"],
    "fv/mean_heads": ["L", "H", "K"],
    "ablation/replaced": ["N", "L", "H"],
    "ablation/first_token": ["N", "E", "B"],
    "ablation/f1": ["N", "E", "B"],
    "token_loss/replaced": ["M", "L", "H"],
    "token_loss/": ["M", "B", "P"],
}


def describe_arrays(names: Iterable[str]) -> dict[str, dict]:
    """Dims and unit of each array of a run, ready for JSON."""
    return {name: {"dims": _dims(name), "unit": _unit(name)} for name in names}


def _dims(name: str) -> list[str]:
    if name.startswith("prompts/"):
        return ["B"] if name.endswith(("/lengths", "/targets")) else ["B", "T"]
    return next(dims for start, dims in _DIMS.items() if name.startswith(start))


def _unit(name: str) -> str:
    if name.startswith("prompts/"):
        return "tokens" if name.endswith("/lengths") else "token id"
    if name.startswith(("score/function_vector", "fv/effects")):
        return "probability"
    units = {
        "score/": "share of attention",
        "fv/mean_heads": "activation",
        "ablation/replaced": "true: replaced",
        "ablation/first_token": "1: right",
        "ablation/f1": "token F1",
        "token_loss/replaced": "true: replaced",
        "token_loss/": "nats",
    }
    return next(unit for start, unit in units.items() if name.startswith(start))
