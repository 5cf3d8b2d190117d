"""A local folder in hub layout: config.json and safetensors, whole or sharded."""

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (gives numpy the name "bfloat16" that safetensors asks for)
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxheads.errors import UserError
from jaxheads.weights.checkpoint import Checkpoint, StoredTensor

INDEX = "model.safetensors.index.json"


def open_folder(folder: Path) -> Checkpoint:
    """Open a folder in hub layout; tensors are read later, one by one.

    Args:
        folder: holds config.json and either one .safetensors file, or shards with
            their index.

    Raises:
        UserError: a file is missing, damaged, or of a kind that cannot be read.
    """
    settings = _settings(folder)
    files = _weight_files(folder)
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        for name, tensor in _open_safetensors(file).items():
            if name in tensors:
                raise UserError(
                    f"{folder} must hold each tensor once, but {name!r} is in "
                    f"{file.name} and in an earlier file: keep one set of weights"
                )
            tensors[name] = tensor
    return Checkpoint(
        path=folder,
        format="safetensors",
        layout="hf",
        model_type=settings["model_type"],
        settings=settings,
        tensors=tensors,
        file_sha256=sha256_of(files[0]) if len(files) == 1 else None,
        name=settings.get("_name_or_path") or None,
    )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that must hold an object.

    Raises:
        UserError: the file cannot be read or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path} must be readable, but: {reason}") from error
    except ValueError as error:  # not JSON, or not UTF-8
        raise UserError(
            f"{path} must be JSON, but is not ({error}): fetch or write it again"
        ) from error
    if not isinstance(value, dict):
        raise UserError(
            f"{path} must hold a JSON object, but holds a {type(value).__name__}"
        )
    return value


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        ggufs = sorted(file.name for file in folder.glob("*.gguf"))
        hint = f": to load {ggufs[0]}, give its own path" if ggufs else ""
        raise UserError(
            f"{folder} must be a model folder with config.json and .safetensors files, "
            f"but has no config.json{hint}"
        )
    settings = read_json_object(path)
    if not isinstance(settings.get("model_type"), str):
        raise UserError(f'{path} must give "model_type", such as "llama", but does not')
    return settings


def _weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: those of the index, else every .safetensors."""
    if (folder / INDEX).is_file():
        shards = read_json_object(folder / INDEX).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise UserError(f'{folder / INDEX} must give a "weight_map", but does not')
        files = [folder / str(name) for name in sorted(set(shards.values()))]
        absent = [file.name for file in files if not file.is_file()]
        if absent:
            raise UserError(
                f"{folder} must hold the {len(files)} shards that {INDEX} names, but "
                f"{', '.join(absent)} is missing: fetch it into the folder"
            )
        return files
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        torch = sorted(file.name for file in folder.glob("*.bin"))
        got = (
            f"has only torch weights ({torch[0]}), which are not read yet"
            if torch
            else "has none"
        )
        raise UserError(
            f"{folder} must hold .safetensors weights, but {got}: save the model with "
            "safe serialization"
        )
    return files


def _open_safetensors(path: Path) -> Mapping[str, StoredTensor]:
    try:
        file = safe_open(path, framework="numpy")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} must be a whole safetensors file, but is not ({error}): "
            "fetch it again"
        ) from error
    return {
        name: StoredTensor(
            tuple(part.get_shape()),
            part.get_dtype(),
            functools.partial(_read_tensor, file, name, path),
        )
        for name, part in slices.items()
    }


def _read_tensor(file: Any, name: str, path: Path) -> np.ndarray:
    try:
        return file.get_tensor(name)
    except (SafetensorError, TypeError) as error:  # TypeError: no such numpy dtype
        raise UserError(
            f"the tensor {name!r} of {path} must be float32, float16 or bfloat16, but "
            f"cannot be read ({error})"
        ) from error
