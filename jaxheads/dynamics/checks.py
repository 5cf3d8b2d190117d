"""What the steps of a dynamics run must have in common."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxheads import runs
from jaxheads.dynamics.result import Step
from jaxheads.dynamics.series import Checkpoint
from jaxheads.errors import UserError
from jaxheads.model import Model

_SIZES = ("model_type", "num_layers", "num_heads", "head_dim", "width", "vocab_size")


def tokens_sha256(arrays: runs.Arrays) -> str:
    """The hash of all token ids that a run's model was given."""
    digest = hashlib.sha256()
    for name in sorted(name for name in arrays if name.startswith("prompts/")):
        digest.update(f"{name} {arrays[name].shape} ".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def refuse_other_model(
    one: Checkpoint, model: Model, path: Path, there: Mapping[int, Step]
) -> None:
    """Refuse a checkpoint of another model, or changed since it was scored.

    Args:
        one: the checkpoint.
        model: that was loaded of it.
        path: of the step's run.
        there: the steps that are done.

    Raises:
        UserError: says which step differs, and in what.
    """
    if (path / "result.json").is_file():
        scored = runs.load(path).result["model"]["params_sha256"]
        if scored != model.provenance.params_sha256:
            raise UserError(
                f"step {one.step} must hold the weights that were scored, but "
                f"{model.provenance.path} has changed since: delete {path} to score "
                "it again, or give another --out"
            )
    for step, other in there.items():
        told = runs.load(other.path).result["model"]
        for name in _SIZES:
            own = getattr(model.config, name)
            if own != told[name]:
                raise UserError(
                    f"the checkpoints must be of one model, but step {one.step} has "
                    f"{name.replace('_', ' ')} {own} and step {step} {told[name]}: "
                    "leave one out"
                )
        return  # the others were held against this one


def refuse_other_tokens(
    record: dict[str, Any], path: Path, there: Mapping[int, Step]
) -> None:
    """Refuse a step that was given other tokens than the others, and delete its run.

    Raises:
        UserError: its tokenizer reads the prompts otherwise.
    """
    for step, other in there.items():
        if other.record["tokens_sha256"] != record["tokens_sha256"]:
            shutil.rmtree(path)
            raise UserError(
                "every step must be given the same tokens, but the tokenizer of step "
                f"{record['step']} reads the prompts otherwise than that of step "
                f"{step}: give both the same tokenizer files"
            )
