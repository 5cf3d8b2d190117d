"""Corpora: documents one at a time, from files that need not fit in memory."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from jaxheads.errors import UserError
from jaxheads.icl.texts import arrow_documents, jsonl_documents, text_documents
from jaxheads.runs.files import read_json_object
from jaxheads.weights.folder import is_name

_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}\.(?:parquet|arrow)")
"""A file of a data set on the hub, such as train-00000-of-00002.parquet."""


class Corpus(Protocol):
    """Documents in a fixed order, in units that can be read by themselves."""

    @property
    def units(self) -> Sequence[str]:
        """Names of the units, in order."""
        ...

    def documents(self, unit: int) -> Iterator[str]:
        """The documents of a unit, in order."""
        ...

    def identity(self) -> dict[str, Any]:
        """What tells it from another corpus, ready for JSON."""
        ...


@dataclasses.dataclass(frozen=True)
class FileCorpus:
    """The documents of files.

    Attributes:
        path: see ``open_corpus``.
        files: relative to ``path`` if that is a folder, in order.
        column: field or column with the text.
        separator: what stands between the documents of a .txt file; None: such a file
            is one document.
    """

    path: Path
    files: tuple[Path, ...]
    column: str = "text"
    separator: str | None = None

    @property
    def units(self) -> Sequence[str]:
        """The files, relative to the folder."""
        return tuple(file.as_posix() for file in self.files)

    def documents(self, unit: int) -> Iterator[str]:
        """The documents of a file.

        Raises:
            UserError: it is not what its name says, or lacks the field or column.
        """
        path = self.path / self.files[unit]
        kind = _kind(path)
        if kind == ".txt":
            return text_documents(path, self.separator)
        if kind == ".jsonl":
            return jsonl_documents(path, self.column)
        return arrow_documents(path, self.column)

    def identity(self) -> dict[str, Any]:
        """Names and sizes of the files and how they are read; not where they lie."""
        return {
            "files": [
                [unit, (self.path / file).stat().st_size]
                for unit, file in zip(self.units, self.files, strict=True)
            ],
            "column": self.column,
            "separator": self.separator,
        }


def open_corpus(
    path: str | Path,
    *,
    column: str = "text",
    separator: str | None = None,
    split: str | None = None,
) -> FileCorpus:
    """Find the files of a corpus; nothing is read yet.

    Args:
        path: a .txt, .jsonl (either may be .gz too), .parquet or .arrow file; a folder
            with such files at any depth, taken in order of their names; or a data set
            of Hugging Face, as ``save_to_disk`` writes it or as parquet shards.
        column: field or column with the text.
        separator: what stands between the documents of a .txt file, such as
            "<|endoftext|>"; None: a file is one document.
        split: which split, of a data set that has several.

    Raises:
        UserError: there is no such path, or no file of a known kind, or the data set
            has several splits and none is named, or not this one.
    """
    path = Path(path)
    if path.is_file():
        if split is not None:
            raise UserError(
                f"a split is taken of a folder, but {path} is a file: give no split"
            )
        if not _kind(path):
            raise UserError(
                f"{path} must be a .txt, .jsonl, .parquet or .arrow file or a folder "
                "of them: rename or convert it"
            )
        return FileCorpus(path.parent, (Path(path.name),), column, separator)
    if not path.is_dir():
        raise UserError(
            f"a text file or a folder of text files was expected at {path}, nothing is "
            "there: check the path"
        )
    if (path / "dataset_dict.json").is_file():
        splits = read_json_object(path / "dataset_dict.json").get("splits")
        if not (isinstance(splits, list) and splits and all(map(is_name, splits))):
            raise UserError(
                f"{path / 'dataset_dict.json'} must list the folders of its splits, "
                "but does not: save the data set again"
            )
        path, split = path / _choose(path, splits, split), None
    if (path / "state.json").is_file():
        files = _saved_files(path)
    else:
        files = [
            file.relative_to(path)
            for file in sorted(path.rglob("*"))
            if file.is_file() and _kind(file) and not file.name.startswith(".")
        ]
        files = _of_split(path, files, split)
    if not files:
        raise UserError(
            f"{path} must hold a .txt, .jsonl, .parquet or .arrow file, but does not: "
            "give another folder"
        )
    return FileCorpus(path, tuple(files), column, separator)


def _kind(path: Path) -> str:
    """The suffix of a known kind, without .gz; or ""."""
    suffixes = path.suffixes
    if path.suffix == ".gz":
        return suffixes[-2] if suffixes[-2:-1] in ([".txt"], [".jsonl"]) else ""
    known = (".txt", ".jsonl", ".parquet", ".arrow")
    return path.suffix if path.suffix in known else ""


def _choose(path: Path, splits: Sequence[str], split: str | None) -> str:
    if split is None and len(splits) == 1:
        return splits[0]
    if split is None or split not in splits:
        asked = "none is named" if split is None else f"{split!r} is asked for"
        raise UserError(
            f"{path} has the splits {', '.join(splits)}, but {asked}: name one of them"
        )
    return split


def _saved_files(path: Path) -> list[Path]:
    """The files that ``save_to_disk`` lists."""
    state = read_json_object(path / "state.json")
    # An old data set that was shuffled or filtered: rows of the files that do not
    # belong to it.
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise UserError(
            f"{path} is a data set with an index of its rows: flatten it with "
            "flatten_indices() and save it again"
        )
    try:
        names = [file["filename"] for file in state["_data_files"]]
        if not all(map(is_name, names)):
            raise ValueError(f"not {names}")
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(
            f"{path / 'state.json'} must list _data_files with the name of a file of "
            "the folder each, but does not: save the data set again"
        ) from error
    return [Path(name) for name in names]


def _of_split(path: Path, files: list[Path], split: str | None) -> list[Path]:
    """The shards of one split; all files where shards' names tell no split."""
    named = {file: match[1] for file in files if (match := _SHARD.match(file.name))}
    splits = sorted(set(named.values()))
    if split is None and len(splits) < 2:
        return files
    chosen = _choose(path, splits, split)
    return [file for file in files if named.get(file) == chosen]
