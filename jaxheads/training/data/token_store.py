"""A corpus as tokens on the disk: tokenised once, read without loading it.

A finished store is a folder::

    store.json    whose corpus and tokenizer it is of, counts and hashes
    tokens.bin    the tokens of all documents, one after the other, uint16 or uint32
    offsets.npy   where each document begins, and the end; int64 [documents + 1]
    hashes.npy    a hash of each document's text, which any split goes by; uint64

No special tokens are in it: they are added when windows are cut. An unfinished one has
``progress.json`` in place of ``store.json``: the same call goes on from there and ends
with the same bytes.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxheads import runs, stops
from jaxheads.errors import UserError, check_file, first_line
from jaxheads.runs.files import read_json_object, sha256_of
from jaxheads.runs.locks import alone
from jaxheads.tokenizer.tokenizer import Tokenizer
from jaxheads.training.data.corpora import Corpus
from jaxheads.weights.store import json_sha256

PARTIAL = ("lengths.partial", "hashes.partial")
"""Files of an unfinished store alone: 8 bytes for each document."""

_FILES = ("tokens.bin", *PARTIAL)


@dataclasses.dataclass(frozen=True)
class Tokenised:
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
        progress: Callable[[Tokenised], None] | None,
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
        progress: Callable[[Tokenised], None] | None,
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
        self.done = Tokenised(
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

    def _resume(self) -> Tokenised:
        """How far it got; what was written after that is cut off."""
        path = self._path / "progress.json"
        if (self._path / "store.json").is_file():
            raise UserError(
                f"{self._path} has just been finished by another process: give the "
                "same command again"
            )
        self.done = done = Tokenised()
        if not path.is_file():
            self._write_progress()
        record = read_json_object(path)
        try:
            if record.pop("sha256") != json_sha256(record):
                raise ValueError("another SHA-256 than it says")
            names = [field.name for field in dataclasses.fields(Tokenised)]
            done = Tokenised(**{name: record[name] for name in names})
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


SCHEMA = 1

_SMALL = ("offsets.npy", "hashes.npy")
"""Files that are hashed whenever the store is opened."""
_COUNTS = ("tokens", "documents", "characters", "vocab_size", "highest_id")

_MEND = "delete the folder and tokenise again"


@dataclasses.dataclass(frozen=True, eq=False)
class TokenStore:
    """A finished store, open for reading.

    Attributes:
        path: its folder.
        receipt: what ``store.json`` says.
        tokens: uint16 or uint32 [tokens], mapped into memory.
        offsets: int64 [documents + 1].
        hashes: uint64 [documents].
    """

    path: Path
    receipt: dict[str, Any]
    tokens: np.ndarray = dataclasses.field(repr=False)
    offsets: np.ndarray = dataclasses.field(repr=False)
    hashes: np.ndarray = dataclasses.field(repr=False)

    @property
    def documents(self) -> int:
        """How many."""
        return len(self.offsets) - 1

    def document(self, number: int) -> np.ndarray:
        """The tokens of a document."""
        return self.tokens[self.offsets[number] : self.offsets[number + 1]]

    def verify(self) -> None:
        """Compare every byte with the hash that was written down.

        Raises:
            UserError: they differ.
        """
        found = sha256_of(self.path / "tokens.bin")
        if found != self.receipt["sha256"]:
            raise UserError(
                f"{self.path / 'tokens.bin'} must have the sha256 "
                f"{self.receipt['sha256'][:12]}... of store.json, but has "
                f"{found[:12]}...: {_MEND}"
            )


def open_store(path: str | Path) -> TokenStore:
    """Open a finished store; all is checked but the tokens' bytes, see ``verify``.

    Raises:
        UserError: there is none, it has not finished, or it is damaged.
    """
    path = Path(path)
    if not (path / "store.json").is_file():
        if (path / "progress.json").is_file():
            raise UserError(
                f"{path} holds a store that has not finished: tokenise the same "
                "corpus into it again and it goes on where it stopped"
            )
        raise UserError(
            f"{path} should be a folder with store.json and tokens.bin, but has none: "
            "give a folder that a corpus was tokenised into"
        )
    receipt = read_json_object(path / "store.json")
    if receipt.get("schema") != SCHEMA:
        raise UserError(
            f"{path} was written with another schema than {SCHEMA}, the one that this "
            f"version reads: {_MEND}"
        )
    try:
        if "receipt_sha256" in receipt or "files" in receipt:  # 0.1.0 wrote neither
            if receipt["receipt_sha256"] != _sha256_of_receipt(receipt):
                raise ValueError("store.json has another SHA-256 than it says")
            for name in _SMALL:
                if receipt["files"][name] != sha256_of(path / name):
                    raise ValueError(f"{name} has another SHA-256 than store.json says")
        for name in ("tokens.bin", *_SMALL):
            check_file(path / name)
        dtype = np.dtype(receipt["dtype"]).newbyteorder("<")
        tokens = np.memmap(path / "tokens.bin", dtype, mode="r")
        offsets = np.load(path / "offsets.npy", allow_pickle=False)
        hashes = np.load(path / "hashes.npy", allow_pickle=False)
        if (np.diff(offsets) <= 0).any() or offsets[0] != 0:
            raise ValueError("offsets.npy must rise from 0")
        sizes = len(tokens), len(offsets) - 1, len(hashes), int(offsets[-1])
        count, documents = receipt["tokens"], receipt["documents"]
        whole = all(type(receipt[name]) is int for name in _COUNTS)
        if not whole or not isinstance(receipt["sha256"], str):
            raise ValueError("store.json has counts that are no numbers, or no hash")
    except PermissionError:
        raise
    except Exception as error:  # numpy raises many kinds
        raise UserError(f"{path} is damaged ({first_line(error)}): {_MEND}") from error
    if sizes != (count, documents, documents, count):
        raise UserError(
            f"{path} must hold {count} tokens of {documents} documents, but its files "
            f"hold {sizes[0]} of {sizes[1]}: {_MEND}"
        )
    return TokenStore(path, receipt, tokens, offsets, hashes)


def tokenise(
    corpus: Corpus,
    tokenizer: Tokenizer,
    path: str | Path,
    *,
    progress: Callable[[Tokenised], None] | None = None,
    chunk: int = 2 << 20,
) -> TokenStore:
    """Tokenise a corpus into a folder, or open the folder if that is done.

    Documents of white space only, and those that have no tokens, are left out. Half
    characters (lone surrogates, which only damaged JSON has) become "?".

    Args:
        corpus: the documents.
        tokenizer: special tokens written in a text are recognised.
        path: the folder; a new or an empty one, or one of the same corpus and
            tokenizer.
        progress: is told after each chunk what is done.
        chunk: characters, or a few more, that are tokenised at once, on all cores;
            what is lost if the process is killed. The bytes do not depend on it.

    Raises:
        UserError: the folder is of another corpus or tokenizer, or is in use; the
            corpus holds no text, or a file of it cannot be read.
    """
    path = Path(path)
    own = identity(corpus, tokenizer)
    for name in ("store.json", "progress.json"):
        if (path / name).is_file():
            _refuse_unless_same(path, read_json_object(path / name), own)
            break
    else:
        if path.exists() and not (path.is_dir() and runs.is_empty(path)):
            raise UserError(
                f"{path} must be a new or an empty folder, but is not: give another"
            )
    if not (path / "store.json").is_file():
        with StoreWriter(path, own, tokenizer.vocab_size) as writer:
            writer.write(corpus, tokenizer, chunk, progress)
            _finish(path, own, writer)
    for name in ("progress.json", *PARTIAL):
        (path / name).unlink(missing_ok=True)
    return open_store(path)


def _finish(path: Path, own: dict[str, Any], writer: StoreWriter) -> None:
    """Write what is made of the whole; ``store.json``, last, makes it a store."""
    done = writer.done
    if not done.documents:
        raise UserError(
            "the corpus must have one document or more, but holds no text: give another"
        )
    lengths = np.fromfile(path / "lengths.partial", "<i8", done.documents)
    hashes = np.fromfile(path / "hashes.partial", "<u8", done.documents)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    for name, array in zip(_SMALL, (offsets, hashes), strict=True):
        with io.BytesIO() as made:
            np.save(made, array)
            runs.write_bytes(path / name, made.getvalue())
    receipt = {
        "schema": SCHEMA,
        **own,
        "vocab_size": writer.vocab_size,
        "dtype": writer.dtype.name,
        "documents": done.documents,
        "tokens": done.tokens,
        "characters": done.characters,
        "highest_id": done.highest_id,
        "sha256": sha256_of(path / "tokens.bin"),
        "documents_sha256": hashlib.sha256(hashes.tobytes()).hexdigest(),
        "files": {name: sha256_of(path / name) for name in _SMALL},
    }
    sealed = receipt | {"receipt_sha256": _sha256_of_receipt(receipt)}
    runs.write_json(path / "store.json", sealed)


def _sha256_of_receipt(receipt: dict[str, Any]) -> str:
    told = {name: x for name, x in receipt.items() if name != "receipt_sha256"}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _refuse_unless_same(path: Path, there: dict[str, Any], own: dict[str, Any]) -> None:
    # As JSON gives them back: a tuple is a list there.
    own = json.loads(json.dumps(own))
    if there.get("tokenizer") != own["tokenizer"]:
        raise UserError(
            f"{path} was tokenised with another tokenizer "
            f"({str(there.get('tokenizer'))[:12]}... there, "
            f"{own['tokenizer'][:12]}... here): give another folder"
        )
    if there.get("corpus") != own["corpus"]:
        was = there.get("corpus")
        was = was if isinstance(was, dict) else {}
        changed = ", ".join(
            f"{key} {_short(was.get(key))} there, {_short(value)} here"
            for key, value in own["corpus"].items()
            if was.get(key) != value
        )
        raise UserError(
            f"{path} was tokenised from another corpus ({changed}): give another folder"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
