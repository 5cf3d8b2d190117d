"""A local folder in hub layout: config.json and weights, whole or in shards.

Which weights: the standard names in the order of ``_SETS``, so safetensors before
torch's .bin; what else lies in the folder (other formats, optimizers) is left alone.
Only when no standard name is there, a lone .safetensors file is taken. An adapter,
which transformers would add to the weights, is refused.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from jaxheads.errors import UserError, check_file
from jaxheads.weights.checkpoint import Checkpoint, StoredTensor, listed, quoted
from jaxheads.weights.safetensors import open_safetensors
from jaxheads.weights.torch_bin import open_torch

Format = Literal["safetensors", "torch"]
ADAPTER = "adapter_config.json"
INDEX = "model.safetensors.index.json"

# Whole file (its shards are named alike), index of the shards, and how they are read.
_SETS: tuple[tuple[str, str, Format], ...] = (
    ("model.safetensors", INDEX, "safetensors"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json", "torch"),
)
_OPEN = {"safetensors": open_safetensors, "torch": open_torch}
_LONGEST_NAME = 255  # bytes
_BYTES = ("utf-8", "surrogatepass")
_SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)(\.\w+)")


@dataclasses.dataclass(frozen=True)
class _Weights:
    """The files that hold the weights, and the shard of each tensor by the index."""

    files: tuple[str, ...]
    format: Format
    index: str | None = None
    shard_of: Mapping[str, str] = dataclasses.field(default_factory=dict)


def open_folder(folder: Path) -> Checkpoint:
    """Open a folder in hub layout; tensors are read later, one by one.

    Args:
        folder: holds config.json and weights: safetensors or torch's .bin, in one file
            or in shards.

    Raises:
        UserError: files are missing, damaged, of a kind that cannot be read, or do not
            belong together; all problems are named.
    """
    if (folder / ADAPTER).exists():
        raise UserError(
            f"{folder} must hold a whole model, but has {ADAPTER}, an adapter that "
            "changes the weights of a model: merge it into them (merge_and_unload of "
            "peft) and save that, or take the file away to leave the adapter out"
        )
    settings = _settings(folder)
    weights = _weights(folder)
    return Checkpoint(
        path=folder,
        format=weights.format,
        layout="hf",
        model_type=settings["model_type"],
        settings=settings,
        tensors=_tensors(folder, weights),
        name=settings.get("_name_or_path") or None,
        files=weights.files,
    )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    check_file(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that must hold an object.

    Raises:
        UserError: the file cannot be read or holds something else.
    """
    check_file(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path} must be readable, but: {reason}") from error
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, too deep
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
            f"{folder} must be a model folder with config.json and weights, but has no "
            f"config.json{hint}"
        )
    settings = read_json_object(path)
    if not isinstance(settings.get("model_type"), str):
        raise UserError(f'{path} must give "model_type", such as "llama", but does not')
    return settings


def _weights(folder: Path) -> _Weights:
    """The first standard set of weights that the folder has any file of."""
    for whole, index, format in _SETS:
        if (folder / whole).is_file():
            return _Weights((whole,), format)
        if (folder / index).is_file():
            return _indexed(folder, index, format)
        if files := _bare_shards(folder, whole):
            return _Weights(files, format)
    others = sorted(file.name for file in folder.glob("*.safetensors"))
    if len(others) == 1:
        return _Weights((others[0],), "safetensors")
    raise _no_weights(folder, others)


def _no_weights(folder: Path, safetensors: list[str]) -> UserError:
    if safetensors:
        return UserError(
            f"{folder} must hold one set of weights, but has {', '.join(safetensors)}: "
            "keep one of them, or name it model.safetensors"
        )
    kinds = (
        "*.bin",
        "*.pt",
        "*.pth",
        "*.h5",
        "*.msgpack",
        "*.gguf",
        "*.onnx",
        "*.ckpt",
    )
    found = sorted(file.name for kind in kinds for file in folder.glob(kind))
    got = f"has only {listed(found)}" if found else "has none"
    return UserError(
        f"{folder} must hold weights (model.safetensors or pytorch_model.bin, or their "
        f"shards), but {got}: fetch them into it, or save the model there with "
        "save_pretrained"
    )


def _indexed(folder: Path, index: str, format: Format) -> _Weights:
    shard_of = read_json_object(folder / index).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of:
        raise UserError(f'{folder / index} must give a "weight_map", but does not')
    for file in shard_of.values():
        if not is_name(file):
            raise UserError(
                f"{folder / index} must name files of its folder, but names "
                f"{quoted(str(file))}: fetch it again"
            )
    return _Weights(tuple(sorted(set(shard_of.values()))), format, index, shard_of)


def is_name(value: Any) -> bool:
    """Whether what a file says is the name of a file beside it.

    A name with a folder in it could point at any file of the machine; of a longer one
    the system cannot even say that it is missing.
    """
    if (
        not isinstance(value, str)
        or not 0 < len(value.encode(*_BYTES)) <= _LONGEST_NAME
    ):
        return False
    return Path(value).name == value and "\0" not in value


def _bare_shards(folder: Path, whole: str) -> tuple[str, ...]:
    """Shards without an index, if they are one whole set; none: the folder has none."""
    stem, _, ending = whole.rpartition(".")
    found = sorted(
        file.name
        for file in folder.glob(f"{stem}-*-of-*.{ending}")
        if _SHARD.fullmatch(file.name)
    )
    totals = {name.rsplit("-of-")[-1] for name in found}
    if len(totals) > 1:
        raise UserError(
            f"{folder} must hold one set of shards, but has {listed(found)}: keep "
            "those that belong together"
        )
    if problems := _count_problems(found):
        raise UserError(
            f"{folder} must hold all shards of one set, but {listed(problems)}: fetch "
            "them into the folder"
        )
    return tuple(found)


def _count_problems(names: list[str] | tuple[str, ...]) -> list[str]:
    """Numbers that a set of names "...-00001-of-00003..." leaves out."""
    numbered = [match for name in names if (match := _SHARD.fullmatch(name))]
    if not numbered or len(numbered) < len(names):
        return []
    totals = sorted({int(match[3]) for match in numbered})
    if len(totals) > 1:
        return [f"the shards are named as parts of {' and of '.join(map(str, totals))}"]
    numbers = {int(match[2]) for match in numbered}
    begin, _, _, ending = numbered[0].groups()
    width, total = len(numbered[0][2]), numbered[0][3]
    # A damaged name may ask for billions of shards.
    absent = [n for n in range(1, min(totals[0], 10_000) + 1) if n not in numbers]
    problems = [f"{begin}-{n:0{width}}-of-{total}{ending} is missing" for n in absent]
    if max(numbers) > totals[0] or 0 in numbers:
        problems.append(f"{names[-1]} is none of {totals[0]} shards")
    return problems


def _tensors(folder: Path, weights: _Weights) -> dict[str, StoredTensor]:
    """The tensors of all files, each from the one file that should have it."""
    if len(weights.files) == 1 and weights.index is None:
        return dict(_OPEN[weights.format](folder / weights.files[0]))
    opened, problems = _open_all(folder, weights)
    if weights.index and (count := _count_problems(weights.files)):
        problems += [f"by its index, {problem}" for problem in count]
    for name, file in weights.shard_of.items():
        if file in opened and name not in opened[file]:
            problems.append(f"{quoted(name)} is not in {file}, where the index puts it")
    tensors: dict[str, StoredTensor] = {}
    holder: dict[str, str] = {}
    for file, found in opened.items():
        for name, tensor in found.items():
            place = weights.shard_of.get(name, file)
            if place != file:
                problems.append(
                    f"{quoted(name)} is in {file}, but the index puts it in {place}"
                )
            elif name in holder:
                problems.append(f"{quoted(name)} is in {holder[name]} and in {file}")
            tensors[name], holder[name] = tensor, file
    if problems:
        raise UserError(
            f"{folder} must hold one whole set of shards, but {listed(problems)}: "
            "fetch what is missing or damaged into the folder"
        )
    return tensors


def _open_all(
    folder: Path, weights: _Weights
) -> tuple[dict[str, Mapping[str, StoredTensor]], list[str]]:
    """The files that can be opened, and what is wrong with the others."""
    opened: dict[str, Mapping[str, StoredTensor]] = {}
    problems: list[str] = []
    read: Callable[[Path], Mapping[str, StoredTensor]] = _OPEN[weights.format]
    for file in weights.files:
        if not (folder / file).is_file():
            held = [quoted(n) for n, place in weights.shard_of.items() if place == file]
            more = f" and {len(held) - 2} more" if len(held) > 2 else ""
            names = ", ".join(held[:2]) + more
            problems.append(f"{file} is missing ({names})")
            continue
        try:
            opened[file] = read(folder / file)
        except UserError as error:
            problems.append(str(error))
    return opened, problems
