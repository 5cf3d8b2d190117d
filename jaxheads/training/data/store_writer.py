"""Writes a token store in chunks, each complete on the disk before the next."""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxheads import runs, stops
from jaxheads.errors import UserError
from jaxheads.locks import alone
from jaxheads.tokenizer import Tokenizer
from jaxheads.training.data.corpora import Corpus
from jaxheads.weights.folder import read_json_object
from jaxheads.weights.manifest import json_sha256

PARTIAL = ("lengths.partial", "hashes.partial")
"""Files of an unfinished store alone: 8 bytes for each document."""

_FILES = ("tokens.bin", *PARTIAL)


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a corpus is tokenised.

    Attributes:
        unit: which of the corpus's units is next.
        read: documents of it that are done, left out ones included.
        documents: that are in the store.
        tokens: of them.
        characters: of them.
        highest_id: largest token id among them.
    """

    unit: int = 0
    read: int = 0
    documents: int = 0
    tokens: int = 0
    characters: int = 0
    highest_id: int = -1


class StoreWriter(contextlib.AbstractContextManager):
    """An unfinished store that belongs to this process.

    Args:
        path: its folder; made if absent.
        own: its identity.
        vocab_size: of the tokenizer.

    Attributes:
        done: how far it is.
        dtype: of the tokens on the disk.

    Raises:
        UserError: another process writes it, or it is damaged.
    """

    def __init__(self, path: Path, own: dict[str, Any], vocab_size: int):
        self._path = path
        self._own = own
        self.vocab_size = vocab_size
        self.dtype = np.dtype("uint16" if vocab_size <= 1 << 16 else "uint32")
        self._digests = {name: hashlib.sha256() for name in _FILES}
        path.mkdir(parents=True, exist_ok=True)
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            stack.enter_context(alone(path, "folder"))
            self.done = self._resume()
            self._files = {
                name: stack.enter_context((path / name).open("ab")) for name in _FILES
            }
            self._stack = stack.pop_all()

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def write(
        self,
        corpus: Corpus,
        tokenizer: Tokenizer,
        chunk: int,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        """Tokenise what is left of a corpus."""
        texts: list[str] = []
        characters = 0
        first = self.done.unit
        for unit in range(first, len(corpus.units)):
            read = 0
            skipped = self.done.read if unit == first else 0
            for text in corpus.documents(unit):
                read += 1
                if read <= skipped:
                    continue
                if text.strip():
                    texts.append(text)
                    characters += len(text)
                if characters >= chunk:
                    self._append(texts, tokenizer, unit, read, progress)
                    texts, characters = [], 0
            if texts or unit + 1 == len(corpus.units):
                self._append(texts, tokenizer, unit + 1, 0, progress)
                texts, characters = [], 0

    def _append(
        self,
        texts: list[str],
        tokenizer: Tokenizer,
        unit: int,
        read: int,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        # What is not Unicode has no tokens: damaged JSON may hold half characters.
        encoded = [text.encode("utf-8", "replace") for text in texts]
        ids = tokenizer.encode_batch([text.decode() for text in encoded])
        kept = [number for number, row in enumerate(ids) if row]
        rows = [np.array(ids[number], np.int64) for number in kept]
        tokens = np.concatenate([np.zeros(0, np.int64), *rows])
        highest = int(tokens.max(initial=-1))
        if highest >= self.vocab_size:
            raise UserError(
                f"the tokenizer must give ids below {self.vocab_size}, but gave "
                f"{highest}: give another tokenizer"
            )
        digests = [hashlib.blake2b(encoded[n], digest_size=8).digest() for n in kept]
        content = {
            "tokens.bin": tokens.astype(self.dtype.newbyteorder("<")).tobytes(),
            "lengths.partial": np.array([len(row) for row in rows], "<i8").tobytes(),
            "hashes.partial": b"".join(digests),
        }
        for name, file in self._files.items():
            _append_safely(file, content[name])
            self._digests[name].update(content[name])
        done = self.done
        self.done = Progress(
            unit,
            read,
            done.documents + len(rows),
            done.tokens + len(tokens),
            done.characters + sum(len(texts[number]) for number in kept),
            max(done.highest_id, highest),
        )
        self._write_progress()
        if progress is not None:
            progress(self.done)
        stops.check()

    def _write_progress(self) -> None:
        files = {name: digest.hexdigest() for name, digest in self._digests.items()}
        record = self._own | dataclasses.asdict(self.done) | {"files": files}
        sealed = record | {"sha256": json_sha256(record)}
        runs.write_json(self._path / "progress.json", sealed)

    def _resume(self) -> Progress:
        """How far it got; what was written after that is cut off."""
        path = self._path / "progress.json"
        if (self._path / "store.json").is_file():
            raise UserError(
                f"{self._path} has just been finished by another process: give the "
                "same command again"
            )
        self.done = done = Progress()
        if not path.is_file():
            self._write_progress()
        record = read_json_object(path)
        try:
            if record.pop("sha256") != json_sha256(record):
                raise ValueError("another SHA-256 than it says")
            names = [field.name for field in dataclasses.fields(Progress)]
            done = Progress(**{name: record[name] for name in names})
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} is damaged ({error}): delete the folder and tokenise again"
            ) from error
        for name in _FILES:
            file = self._path / name
            size = 8 * done.documents
            if name == "tokens.bin":
                size = self.dtype.itemsize * done.tokens
            there = file.stat().st_size if file.is_file() else 0
            if there < size:
                raise UserError(
                    f"{file} must hold {size} bytes, but holds {there}: delete the "
                    "folder and tokenise again"
                )
            if there > size:
                os.truncate(file, size)
            if size:
                with file.open("rb") as written:
                    self._digests[name] = hashlib.file_digest(written, "sha256")
            if record["files"][name] != self._digests[name].hexdigest():
                raise UserError(
                    f"{file} must be as it was written, but is damaged (wrong "
                    "SHA-256): delete the folder and tokenise again"
                )
        return done


def identity(corpus: Corpus, tokenizer: Tokenizer) -> dict[str, Any]:
    """Whose store it is: ``{"corpus": {...}, "tokenizer": hash}``."""
    return {"corpus": corpus.identity(), "tokenizer": tokenizer.sha256}


def _append_safely(file: BinaryIO, content: bytes) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
