"""What a result says of the model, the program, the machine and its own arrays."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from jaxheads import runs
from jaxheads.engine.devices import machine
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


_DIMS = {
    "score/": ["L", "H"],
    "fv/effects_by_prompt": ["A", "L", "H", "B"],
    "fv/effects": ["A", "L", "H"],
    "fv/mean_heads": ["L", "H", "K"],
    "fv/queries": ["A", "B"],
    "ablation/replaced": ["N", "L", "H"],
    "ablation/first_token": ["N", "E", "B"],
    "ablation/f1": ["N", "E", "B"],
    "ablation/queries": ["E", "B"],
    "ablation/zero_shot/": ["N", "E", "B"],
    "token_loss/replaced": ["M", "L", "H"],
    "token_loss/": ["M", "B", "P"],
    "execution/vectors": ["U", "W", "D"],
    "execution/heads": ["W", "L", "H"],
    "execution/layers": ["X"],
    "execution/queries": ["U", "B"],
    "redundancy/heads": ["C", "P"],
    "redundancy/interaction": ["C", "C"],
    "redundancy/shapley_samples": ["R", "C"],
    "redundancy/shapley": ["C"],
    "redundancy/effect": ["C"],
    "redundancy/queries": ["E", "S"],
    "redundancy/held_out_queries": ["E", "S"],
    "redundancy/clean": ["B"],
    "redundancy/floor": ["B"],
    "redundancy/backward_replaced": ["I", "L", "H"],
    "redundancy/backward_share": ["I"],
    "redundancy/backward_held_out_share": ["I"],
    "redundancy/backward_": ["I", "B"],
    "redundancy/forward_replaced": ["J", "L", "H"],
    "redundancy/forward_share": ["J"],
    "redundancy/forward_held_out_share": ["J"],
    "redundancy/forward_": ["J", "B"],
    "attribution/queries": ["A", "B"],
    "attribution/": ["L", "H"],
}


def describe_arrays(
    names: Iterable[str], scores: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict]:
    """Dims and unit of each array of a run, ready for JSON.

    Args:
        names: of the arrays.
        scores: what the scores are, by name, as the result has them.
    """
    units = {
        f"score/{name}{error}": told["unit"]
        for name, told in scores.items()
        for error in ("", "_se")
    }
    return {
        name: {"dims": _dims(name), "unit": units.get(name) or _unit(name)}
        for name in names
    }


_BY_PROMPT = ("/lengths", "/targets", "/starts", "/heads", "/tails")


_EXECUTION = {
    "_vector": ["U", "X", "B"],
    "_random": ["U", "Y", "X", "B"],
    "_random_sizes": ["U", "Y", "Z", "B"],
    "_sizes": ["U", "Z", "B"],
    "": ["U", "B"],
}


def _dims(name: str) -> list[str]:
    if name.startswith("prompts/"):
        return ["B"] if name.endswith(_BY_PROMPT) else ["B", "T"]
    if name.startswith(("execution/right/", "execution/probability/")):
        return next(dims for end, dims in _EXECUTION.items() if name.endswith(end))
    return next(dims for start, dims in _DIMS.items() if name.startswith(start))


def _unit(name: str) -> str:
    if name.endswith("queries"):
        return "prompts of a task with one number ask one query"
    if name.startswith("prompts/"):
        if name.endswith(("/starts", "/heads", "/tails")):
            return "position"
        return "tokens" if name.endswith("/lengths") else "token id"
    if name.startswith("fv/effects"):
        return "probability"
    units = {
        "fv/mean_heads": "activation",
        "ablation/replaced": "true: replaced",
        "ablation/first_token": "1: right",
        "ablation/f1": "token F1",
        "ablation/zero_shot/first_token": "1: right",
        "ablation/zero_shot/f1": "token F1",
        "token_loss/replaced": "true: replaced",
        "token_loss/": "nats",
        "execution/vectors": "residual stream",
        "execution/heads": "true: in the vector",
        "execution/layers": "layer",
        "execution/right/": "true: right",
        "execution/probability/": "probability",
        "redundancy/heads": "layer and head",
        "redundancy/backward_replaced": "true: replaced",
        "redundancy/forward_replaced": "true: replaced",
        "redundancy/backward_share": "share of the clean value",
        "redundancy/forward_share": "share of the clean value",
        "redundancy/backward_held_out_share": "share of the clean value",
        "redundancy/forward_held_out_share": "share of the clean value",
        "redundancy/": "the metric's",
        "attribution/": "true: verified"
        if name.endswith(("_top", "_sample"))
        else "the metric's",
    }
    return next(unit for start, unit in units.items() if name.startswith(start))
