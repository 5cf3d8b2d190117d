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

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxheads import runs
from jaxheads.errors import UserError, check_file, first_line
from jaxheads.tokenizer import Tokenizer
from jaxheads.training.data.corpora import Corpus
from jaxheads.training.data.store_writer import PARTIAL, Progress, StoreWriter, identity
from jaxheads.weights.folder import read_json_object, sha256_of

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
    progress: Callable[[Progress], None] | None = None,
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
