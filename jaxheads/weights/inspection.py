"""What a source holds, and why it would be refused, without reading its weights."""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.text import Text

from jaxheads.errors import UserError
from jaxheads.models.parameters import num_params
from jaxheads.runs.files import read_json_object
from jaxheads.weights.checkpoint import Checkpoint, listed
from jaxheads.weights.convert import Survey, survey, to_params
from jaxheads.weights.model import configure, ids_beyond, read_tokenizer
from jaxheads.weights.presets import BYTES
from jaxheads.weights.sources import open_source
from jaxheads.weights.store import FORMAT, Store, check

_NO_SETTINGS = ("tokenizer.", "general.", "split.")
"""Beginnings of a GGUF file's keys that are not the config's."""


class RecordedSettings(Mapping[str, Any]):
    """Settings that remember which of them were read.

    Attributes:
        read: names that were looked up and are there.
    """

    def __init__(self, settings: Mapping[str, Any]):
        self._settings = settings
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        value = self._settings[name]
        self.read.add(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._settings)

    def __len__(self) -> int:
        return len(self._settings)


@dataclasses.dataclass
class Inspection:
    """What is known of a source; fields that could not be found out are empty.

    Attributes:
        source: as it was given.
        revision: as it was given.
        commit: of a hub model.
        path: the file or folder.
        format: as in ``Provenance``.
        files: bytes by name.
        used: names of the files with the weights.
        config: the family's ``Config``.
        parameters: how many scalars the config asks for.
        settings_read: names of settings that the config was made from.
        settings_not_read: names of the other settings.
        tokenizer: what it is, or why there is none.
        tensor_kinds: how many tensors are stored in each element type.
        tensors: how they fit the config.
        refusal: what ``jaxheads.load`` would say; "" if it would load the source.
    """

    source: str
    revision: str | None = None
    commit: str | None = None
    path: Path | None = None
    format: str = ""
    files: Mapping[str, int] = dataclasses.field(default_factory=dict)
    used: tuple[str, ...] = ()
    config: Any = None
    parameters: int = 0
    settings_read: tuple[str, ...] = ()
    settings_not_read: tuple[str, ...] = ()
    tokenizer: str = ""
    tensor_kinds: Mapping[str, int] = dataclasses.field(default_factory=dict)
    tensors: Survey | None = None
    refusal: str = ""


def inspect_source(
    source: str | os.PathLike[str], revision: str | None = None
) -> Inspection:
    """Find out what a source holds, as far as it can be read.

    Values of weights are not read, but of a head that is stored beside a tied embedding
    and has to be compared with it. What is on the hub is fetched first, as by ``load``.

    Args:
        source: as for ``jaxheads.load``.
        revision: of a preset or a hub id.
    """
    found = Inspection(os.fspath(source), revision)
    local = Path(os.path.expanduser(found.source))
    try:
        opened = open_source(source, revision)
    except UserError as error:
        found.refusal = str(error)
        if found.source and os.path.exists(local):
            found.path, found.files = local, _sizes(local)
            _inspect_config_file(found, local / "config.json")
        return found
    checkpoint = opened.checkpoint
    found.revision, found.commit = opened.revision, opened.commit
    found.path, found.files = checkpoint.path, _sizes(checkpoint.path)
    if isinstance(checkpoint, Store):
        found.format = FORMAT
        found.used = tuple(n for n in checkpoint.files if n.startswith("params/"))
    else:
        found.format = checkpoint.format
        found.used = checkpoint.files or (checkpoint.path.name,)
        found.tensor_kinds = checkpoint.tensor_kinds()
    family = _inspect_config(found, checkpoint)
    _inspect_tokenizer(found, checkpoint)
    if family is not None:
        _inspect_tensors(found, checkpoint, family)
    return found


def print_inspection(found: Inspection, console: Console) -> None:
    """Print what is known, a line a fact, and the refusal left out."""
    for name, lines in _facts(found):
        for line in lines:
            # As Text: brackets in a path are no markup.
            console.print(Text(f"{name:<12}{line}"), soft_wrap=True)
            name = ""


def _sizes(path: Path) -> dict[str, int]:
    """Bytes of a file, or of all files of a folder by their relative names."""
    if path.is_file():
        return {path.name: path.stat().st_size}
    return {
        file.relative_to(path).as_posix(): file.stat().st_size
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def _inspect_config_file(found: Inspection, path: Path) -> None:
    """The config of a folder whose weights could not be opened."""
    if not path.is_file():
        return
    try:
        settings = read_json_object(path)
    except UserError:
        return  # the refusal says it
    kind = str(settings.get("model_type"))
    _inspect_config(
        found, Checkpoint(path.parent, "safetensors", "hf", kind, settings, {})
    )


def _inspect_config(
    found: Inspection, checkpoint: Checkpoint | Store
) -> ModuleType | None:
    settings = RecordedSettings({})
    if isinstance(checkpoint, Checkpoint):
        settings = RecordedSettings(checkpoint.settings)
        checkpoint = dataclasses.replace(checkpoint, settings=settings)
    family = None
    try:
        family, found.config = configure(checkpoint)
        found.parameters = num_params(family.abstract(found.config))
    except UserError as error:
        found.refusal = found.refusal or str(error)
    names = [name for name in settings if not name.startswith(_NO_SETTINGS)]
    found.settings_read = tuple(name for name in names if name in settings.read)
    found.settings_not_read = tuple(name for name in names if name not in settings.read)
    return family


def _inspect_tokenizer(found: Inspection, checkpoint: Checkpoint | Store) -> None:
    try:
        tokenizer, reason = read_tokenizer(checkpoint)
    except UserError as error:
        found.tokenizer = "damaged"
        found.refusal = found.refusal or str(error)
        return
    if tokenizer is None:
        found.tokenizer = f"none: {reason}"
        return
    begins = "none begins a sequence"
    if tokenizer.bos_id is not None:
        begins = f"{tokenizer.decode([tokenizer.bos_id])!r} begins a sequence"
    found.tokenizer = f"{len(tokenizer.ids):,} tokens; {begins}"
    if found.config is None:
        return
    try:
        beyond = ids_beyond(tokenizer, found.config, found.source)
    except UserError as error:
        found.refusal = found.refusal or str(error)
        return
    found.tokenizer += f"; its {beyond}" if beyond else ""


def _inspect_tensors(
    found: Inspection, checkpoint: Checkpoint | Store, family: ModuleType
) -> None:
    try:
        if isinstance(checkpoint, Store):
            found.tensors = Survey(list(check(checkpoint)), {}, [])
            found.tensor_kinds = {checkpoint.dtype: len(found.tensors.consumed)}
            return
        parts = (checkpoint.tensors, family, found.config, checkpoint.layout)
        found.tensors = survey(*parts)
        if found.tensors.problems:
            to_params(*parts, source=found.source)  # raises, before it reads a value
    except UserError as error:
        found.refusal = found.refusal or str(error)


def _facts(found: Inspection) -> Iterator[tuple[str, list[str]]]:
    yield "source", [found.source]
    if found.revision:
        commit = f", commit {found.commit}" if found.commit else ""
        yield "revision", [f"{found.revision}{commit}"]
    if found.path is not None:
        yield "path", [str(found.path)]
    if found.format:
        yield "format", [found.format]
    if found.files:
        yield "files", _file_lines(found)
    if found.config is not None:
        config = found.config
        sizes = {
            "L": config.num_layers,
            "H": config.num_heads,
            "G": config.num_kv_heads,
            "K": config.head_dim,
            "D": config.width,
            "F": config.mlp_width,
            "V": config.vocab_size,
            "context": config.context_length,
        }
        yield "family", [config.model_type]
        yield (
            "sizes",
            ["  ".join(f"{name} {size}" for name, size in sizes.items() if size)],
        )
        yield "config", [_constants(config)]
    if found.parameters:
        memory = ", ".join(
            f"{found.parameters * size / 1e9:.3g} GB as {dtype}"
            for dtype, size in BYTES.items()
        )
        yield "parameters", [f"{found.parameters:,}: {memory}"]
    if found.settings_read or found.settings_not_read:
        yield (
            "settings",
            [
                f"read: {', '.join(found.settings_read) or 'none'}",
                f"not read: {', '.join(found.settings_not_read) or 'none'}",
            ],
        )
    if found.tokenizer:
        yield "tokenizer", [found.tokenizer]
    if found.tensor_kinds or found.tensors is not None:
        yield "tensors", _tensor_lines(found)


def _file_lines(found: Inspection) -> list[str]:
    used = [name for name in found.files if name in found.used]
    others = [name for name in found.files if name not in found.used]
    size = sum(found.files[name] for name in used)
    lines = [f"{size:,} bytes of weights in {listed(used)}"] if used else []
    if others:
        shown = [f"{name} ({found.files[name]:,} bytes)" for name in others]
        lines.append(f"{'besides: ' if used else ''}{listed(shown)}")
    return lines


def _constants(config: Any) -> str:
    """All of a config but its sizes: what is no plain whole number."""
    fields = ((f.name, getattr(config, f.name)) for f in dataclasses.fields(config))
    return ", ".join(f"{name} {x!r}" for name, x in fields if type(x) is not int)


def _tensor_lines(found: Inspection) -> list[str]:
    kinds = ", ".join(f"{count} {kind}" for kind, count in found.tensor_kinds.items())
    lines = [kinds or "none"]
    if found.tensors is None:
        return lines
    lines.append(f"{len(found.tensors.consumed)} fill the params")
    for reason, count in Counter(found.tensors.ignored.values()).items():
        names = [n for n, why in found.tensors.ignored.items() if why == reason]
        more = ", ..." if count > 3 else ""
        lines.append(f"{count} ignored, {reason}: {', '.join(names[:3])}{more}")
    lines += found.tensors.problems
    return lines
