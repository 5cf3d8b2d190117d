"""What a result says of the model, the program, the machine and its own arrays."""

import fnmatch
import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxheads import runs
from jaxheads.engine.devices import machine
from jaxheads.studies import registry
from jaxheads.weights.model import Model


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
        **machine(),
    }


def describe_arrays(
    arrays: runs.Arrays, scores: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict]:
    """Dims and unit of each array of a run, ready for JSON.

    Args:
        arrays: by name.
        scores: what the scores are, by name, as the result has them.

    Raises:
        RuntimeError: ``ARRAYS`` of no study tells an array, or it tells other dims.
    """
    units = {
        f"score/{name}{error}": told["unit"]
        for name, told in scores.items()
        for error in ("", "_se")
    }
    known = {
        pattern: told
        for study in registry.of_models()
        for pattern, told in registry.load(study, "study").ARRAYS.items()
    }
    told = {name: _describe(name, known, units) for name in arrays}
    for name, array in arrays.items():
        if np.ndim(array) != len(told[name]["dims"]):
            raise RuntimeError(
                f"{name} has shape {np.shape(array)}, but ARRAYS of its study says "
                f"{' '.join(told[name]['dims'])}"
            )
    return told


def _describe(
    name: str, known: Mapping[str, tuple[str, str]], units: Mapping[str, str]
) -> dict[str, Any]:
    """Dims and unit of an array: of prompts, or as its study tells."""
    if name.startswith("prompts/"):
        each = name.endswith(("/lengths", "/targets", "/starts", "/heads", "/tails"))
        return {"dims": ["B"] if each else ["B", "T"], "unit": _unit_of_prompts(name)}
    fits = (one for pattern, one in known.items() if fnmatch.fnmatchcase(name, pattern))
    told = next(fits, None)
    if told is None:
        raise RuntimeError(f"ARRAYS of no study tells what {name} is")
    dims, unit = told
    if name.endswith("queries"):
        unit = "prompts of a task with one number ask one query"
    return {"dims": dims.split(), "unit": units.get(name, unit)}


def _unit_of_prompts(name: str) -> str:
    if name.endswith(("/starts", "/heads", "/tails")):
        return "position"
    return "tokens" if name.endswith("/lengths") else "token id"
