"""What ``source`` may be: a built-in name, a GGUF file, a folder, or a hub id."""

import dataclasses
import difflib
import os
import re
from pathlib import Path

from jaxheads.errors import UserError
from jaxheads.weights import smollm2
from jaxheads.weights.checkpoint import Checkpoint
from jaxheads.weights.folder import open_folder, sha256_of
from jaxheads.weights.gguf import read_gguf
from jaxheads.weights.hub import fetch_from_hub

BUILT_IN = (smollm2.NAME,)
"""Names that ``jaxheads.load`` knows by itself; the first is the default."""


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
    checkpoint: Checkpoint


def open_source(
    source: str | os.PathLike[str] | None = None, revision: str | None = None
) -> Opened:
    """Find out what a source is, fetch it if need be, and open it.

    Args:
        source: a built-in name, a ``.gguf`` file, a folder in hub layout, or a hub id
            "owner/name"; None: the default model.
        revision: of a hub id only.

    Raises:
        UserError: it is none of these, or cannot be fetched or opened.
    """
    text = BUILT_IN[0] if source is None else os.fspath(source)
    if text in BUILT_IN:
        _refuse_revision(text, revision)
        path = smollm2.fetch_default_model()
        return Opened(text, None, None, _open_gguf(path, smollm2.GGUF_SHA256))
    # os.path, not Path: these answer False or unchanged where Path's raise.
    path = Path(os.path.expanduser(text))
    if text and os.path.exists(path):
        _refuse_revision(text, revision)
        return Opened(text, None, None, _open_path(path))
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", text) or text.endswith(".gguf"):
        raise _unknown(text)
    folder = fetch_from_hub(text, revision)
    return Opened(text, revision or "main", folder.name, open_folder(folder))


def _open_path(path: Path) -> Checkpoint:
    if path.is_dir():
        return open_folder(path)
    if path.suffix.lower() == ".gguf":
        return _open_gguf(path)
    raise UserError(
        f"{path} must be a .gguf file or a folder with config.json and .safetensors "
        f"files, but is a {path.suffix or 'nameless kind of'} file: for safetensors, "
        "give the folder"
    )


def _open_gguf(path: Path, sha256: str | None = None) -> Checkpoint:
    opened = read_gguf(path)
    # A file without an output matrix uses the embedding's: the metadata does not say.
    tied = "output.weight" not in opened.tensors
    return Checkpoint(
        path=path,
        format="gguf",
        layout="gguf",
        model_type=opened.architecture,
        settings={**opened.metadata, "tied": tied},
        tensors=opened.tensors,
        file_sha256=sha256 or sha256_of(path),
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
    close = difflib.get_close_matches(text.lower(), BUILT_IN, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else "check the spelling"
    return UserError(
        f"a source must be a built-in name ({', '.join(BUILT_IN)}), a .gguf file, a "
        f"folder with config.json and .safetensors files, or a hub id owner/name, but "
        f"{text!r} is none of these and no file of this name exists: {hint}"
    )
