"""What ``source`` may be: a name, a GGUF file, a folder, or a hub id."""

import dataclasses
import difflib
import os
import re
from pathlib import Path

import numpy as np

from jaxheads.errors import UserError
from jaxheads.weights import smollm2
from jaxheads.weights.checkpoint import Checkpoint, listed
from jaxheads.weights.folder import open_folder
from jaxheads.weights.gguf import read_gguf
from jaxheads.weights.hub import fetch_from_hub
from jaxheads.weights.presets import PRESETS
from jaxheads.weights.store import Store, is_store, open_store

BUILT_IN = (smollm2.NAME,)
"""Names that ``jaxheads.load`` knows by itself; the first is the default."""

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclasses.dataclass(frozen=True)
class Opened:
    """A source, resolved and opened.

    Attributes:
        source: as the user wrote it, the default's name if they wrote nothing.
        revision: as asked for; None for files and folders.
        commit: the hub's commit, if the source is on the hub.
        checkpoint: what it holds.
    """

    source: str
    revision: str | None
    commit: str | None
    checkpoint: Checkpoint | Store


def open_source(
    source: str | os.PathLike[str] | None = None, revision: str | None = None
) -> Opened:
    """Find out what a source is, fetch it if need be, and open it.

    Args:
        source: a built-in name, a ``.gguf`` file, a folder in hub layout, the name of a
            preset such as "gpt2-xl", or a hub id "owner/name"; None: the default model.
            A file or folder that is there goes before a preset and a hub id.
        revision: of a preset or a hub id only.

    Raises:
        UserError: it is none of these, or cannot be fetched or opened.
    """
    text = BUILT_IN[0] if source is None else os.fspath(source)
    if text in BUILT_IN:
        _refuse_revision(text, revision)
        path = smollm2.fetch_default_model()
        return Opened(text, None, None, _open_gguf(path, smollm2.GGUF_SHA256))
    hub_id = PRESETS[text].hub_id if text in PRESETS else text
    # os.path, not Path: these answer False or unchanged where Path's raise.
    path = Path(os.path.expanduser(text))
    if text and os.path.exists(path):
        return _open_local(text, path, revision, hub_id)
    if not HUB_ID.fullmatch(hub_id) or hub_id.lower().endswith(".gguf"):
        raise _unknown(text)
    folder = fetch_from_hub(hub_id, revision)
    return Opened(text, revision or "main", folder.name, open_folder(folder))


def _open_local(text: str, path: Path, revision: str | None, hub_id: str) -> Opened:
    try:
        _refuse_revision(text, revision)
        return Opened(text, None, None, _open_path(path))
    except UserError as error:
        if hub_id == text:
            raise
        # A folder of results may well be called "gpt2".
        raise UserError(
            f"{error}; or, for the model of this name on the hub, give {hub_id}"
        ) from error


def _open_path(path: Path) -> Checkpoint | Store:
    if path.is_dir():
        return open_store(path) if is_store(path) else open_folder(_in_cache(path))
    if path.suffix.lower() == ".gguf":
        return _open_gguf(path)
    raise UserError(
        f"{path} must be a .gguf file or a folder with config.json and weights, but is "
        f"a {path.suffix or 'nameless kind of'} file: for .safetensors and .bin, give "
        "the folder"
    )


def _in_cache(path: Path) -> Path:
    """The snapshot within, if a folder is a model's in the hub's cache; else itself."""
    snapshots = path if path.name == "snapshots" else path / "snapshots"
    if (path / "config.json").exists() or not snapshots.is_dir():
        return path
    found = sorted(each for each in snapshots.iterdir() if each.is_dir())
    if len(found) != 1:
        names = listed([str(each) for each in found]) or "none"
        raise UserError(
            f"{path} is a folder of the hub's cache, which must hold one snapshot to "
            f"be opened, but holds {len(found)} ({names}): give the folder of one"
        )
    return found[0]


def _open_gguf(path: Path, sha256: str | None = None) -> Checkpoint:
    opened = read_gguf(path)
    tensors = dict(opened.tensors)
    # What the metadata does not say, and configs need: whether the embedding is also
    # the output matrix, and by what Llama 3.1 divides its rotary frequencies.
    settings = {**opened.metadata, "tied": "output.weight" not in tensors}
    factors = tensors.pop("rope_freqs.weight", None)
    if factors is not None:
        settings["rope_freqs"] = tuple(np.asarray(factors, np.float64).tolist())
    return Checkpoint(
        path=path,
        format="gguf",
        layout="gguf",
        model_type=opened.architecture,
        settings=settings,
        tensors=tensors,
        file_sha256=sha256,
        files=tuple(part.name for part in opened.paths),
        name=opened.metadata.get("general.name"),
        license=opened.metadata.get("general.license"),
    )


def _refuse_revision(source: str, revision: str | None) -> None:
    if revision is not None:
        raise UserError(
            f"a revision belongs to a hub id such as owner/name, but {source} is not "
            f"one: leave out the revision {revision!r}"
        )


def _unknown(text: str) -> UserError:
    close = _closest(text)
    hint = f"did you mean {close!r}?" if close else "check the spelling"
    return UserError(
        f"a source must be a built-in name ({', '.join(BUILT_IN)}), a .gguf file, a "
        "folder with config.json and weights, the name of a preset (see jaxheads "
        f"models), or a hub id owner/name, but {text!r} is none of these and no file "
        f"of this name exists: {hint}"
    )


def _closest(text: str) -> str | None:
    """What the text may have been meant as: a name, or the hub id in a web address."""
    address = re.fullmatch(
        r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(.*)", text
    )
    if address:
        hub_id = HUB_ID.match(address[1])
        return hub_id[0] if hub_id else None
    names = [*BUILT_IN, *PRESETS]
    close = difflib.get_close_matches(text.lower(), names, n=1, cutoff=0.5)
    return close[0] if close else None
