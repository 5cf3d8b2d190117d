"""Documents as rows of tokens: the beginning of each, or pieces of all in a stream."""

import contextlib
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from jaxheads.errors import UserError, check_file
from jaxheads.icl.encoding import Tokenizer, check_text, encode_text

_CHARACTERS = 1 << 20  # of a text file, read at once
_ROWS = 512  # of a parquet file, read at once


def text_documents(path: Path, separator: str | None) -> Iterator[str]:
    """Read a text file: one document, or several with a separator between them.

    Raises:
        UserError: it cannot be read or is not UTF-8.
    """
    with _Opened(path) as file:
        if separator is None:
            yield file.read()
            return
        rest = ""
        while piece := file.read(_CHARACTERS):
            *whole, rest = (rest + piece).split(separator)
            yield from whole
        yield rest


def jsonl_documents(path: Path, column: str) -> Iterator[str]:
    """Read the field ``column`` of every line.

    Raises:
        UserError: it cannot be read, or a line is not an object with this text.
    """
    # Only "\n" ends a line: JSON text may hold other line separators as they are.
    with _Opened(path, newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                item = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(
                    f"line {number} of {path} is not valid JSON ({error}): mend or "
                    "delete it"
                ) from error
            text = item.get(column, 0) if isinstance(item, dict) else 0
            if text is None:
                continue
            if not isinstance(text, str):
                raise UserError(
                    f"line {number} of {path} must be an object with a text field "
                    f'"{column}", it is not: mend or delete it'
                )
            yield text


def arrow_documents(path: Path, column: str) -> Iterator[str]:
    """Read the column ``column`` of a table, some rows at a time.

    A .parquet file; else an arrow stream, as ``save_to_disk`` writes it.

    Raises:
        UserError: pyarrow is missing, or the file cannot be read or has no such column
            of texts, or a text is not UTF-8.
    """
    arrow = _pyarrow(path)
    check_file(path)
    kind = "parquet" if path.suffix == ".parquet" else "arrow"
    try:
        with contextlib.ExitStack() as opened:
            if kind == "parquet":
                from pyarrow.parquet import ParquetFile

                file = opened.enter_context(ParquetFile(path))
                _check_column(path, file.schema_arrow, column)
                batches = file.iter_batches(_ROWS, columns=[column])
            else:
                file = opened.enter_context(arrow.memory_map(str(path)))
                batches = opened.enter_context(arrow.ipc.open_stream(file))
                _check_column(path, batches.schema, column)
            rows = 0
            for batch in batches:
                yield from _texts(path, batch.column(column), rows)
                rows += len(batch)
    except (OSError, arrow.ArrowException) as error:
        reason = str(error) or "unreadable"
        raise UserError(
            f"{path} is not a readable {kind} file ({reason}): check the file"
        ) from error


class _Opened:
    """A text file, plain or .gz, that is read within ``with``."""

    def __init__(self, path: Path, newline: str | None = None):
        self._path = path
        self._newline = newline

    def __enter__(self) -> TextIO:
        path, how = self._path, {"encoding": "utf-8-sig", "newline": self._newline}
        check_file(path)
        try:
            zipped = path.suffix == ".gz"
            self._file: Any = (
                gzip.open(path, "rt", **how) if zipped else path.open(**how)
            )
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror}): check its permissions"
            ) from error
        return self._file

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._file.close()
        if isinstance(error, UnicodeDecodeError):
            raise UserError(
                f"{self._path} is not UTF-8 text: save it as UTF-8"
            ) from error
        if isinstance(error, OSError | EOFError | zlib.error):
            raise UserError(
                f"{self._path} cannot be read to its end ({error}): check the file"
            ) from error


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise UserError(
            f"reading {path} needs pyarrow, which is not installed: run pip install "
            "'jaxheads[parquet]'"
        ) from error
    return pyarrow


def _check_column(path: Path, schema: Any, column: str) -> None:
    from pyarrow import types

    named = schema.names
    kind = schema.field(column).type if named.count(column) == 1 else None
    if kind is not None and types.is_dictionary(kind):
        kind = kind.value_type
    texts = ("is_string", "is_large_string", "is_string_view", "is_binary",
             "is_large_binary", "is_binary_view", "is_null")  # fmt: skip
    if kind is None or not any(getattr(types, check)(kind) for check in texts):
        raise UserError(
            f'{path} must have a column "{column}" of texts, its columns are '
            f"{', '.join(named)}: name another or convert it"
        )


def _texts(path: Path, column: Any, rows: int) -> Iterator[str]:
    """The texts of a column's part, which begins behind ``rows`` rows.

    They may be stored as bytes, and strings need not be UTF-8: arrow does not look. Nor
    does it at where each begins, and damage there ends the process.
    """
    import pyarrow

    try:
        column.validate(full=True)
    except pyarrow.ArrowInvalid as error:
        if "UTF8" not in str(error):  # told below, with its row
            raise
    for row, value in enumerate(column, start=rows + 1):
        try:
            text = value.as_py()
            text = text.decode() if isinstance(text, bytes) else text
        except UnicodeDecodeError as error:
            raise UserError(
                f"row {row} of {path} is not UTF-8 text (byte {error.start}): save it "
                "as UTF-8"
            ) from error
        if text is not None:
            yield text


def pydoc_topics() -> list[str]:
    """List the interpreter's own help topics (``pydoc_data.topics``) by key.

    The texts differ a little between Python versions.
    """
    # The interpreter's data module is large, and only this study needs it.
    from pydoc_data.topics import topics

    return [topics[key] for key in sorted(topics)]


def read_documents(path: str | Path) -> list[str]:
    """Read documents from a file or a folder.

    Args:
        path: A .txt file (one document), a folder of .txt files (one document each,
            by name), a .jsonl file (field "text") or a .parquet file (column "text").

    Returns:
        The documents; empty ones are left out.

    Raises:
        UserError: There is no such file, its kind is unknown, its content is not what
            the kind says, or it holds no text.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(
            f"a text file or a folder of .txt files was expected at {path}, nothing is "
            "there: check the path."
        )
    if path.is_dir():
        files = sorted(each for each in path.glob("*.txt") if each.is_file())
        read = (text for each in files for text in text_documents(each, None))
    elif path.suffix == ".txt":
        read = text_documents(path, None)
    elif path.suffix == ".jsonl":
        read = jsonl_documents(path, "text")
    elif path.suffix == ".parquet":
        read = arrow_documents(path, "text")
    else:
        raise UserError(
            f"{path} must be a .txt, .jsonl or .parquet file or a folder of .txt "
            "files: rename or convert it."
        )
    documents = []
    for number, document in enumerate(read, start=1):
        check_text(document, f"document {number} of {path}")
        if document.strip():
            documents.append(document)
    if not documents:
        raise UserError(
            f"{path} holds no text: give a file or a folder with at least one document."
        )
    return documents


def encode_documents(
    documents: Sequence[str],
    tokenizer: Tokenizer,
    *,
    bos: bool,
    length: int,
    count: int | None = None,
    least: int | None = None,
) -> np.ndarray:
    """Turn documents into rows of equal length: the first tokens of each.

    Documents shorter than a row are left out, so no row is padded or holds two
    documents.

    Args:
        documents: Texts, taken in this order.
        tokenizer: The model's tokenizer.
        bos: Whether each row begins with the BOS token, which counts as one of its
            tokens.
        length: Tokens a row, T.
        count: Rows wanted, B; None takes every document that is long enough.
        least: Rows that are enough where there are fewer; None: ``count``.

    Returns:
        Ids, int32 [B, T].

    Raises:
        UserError: Too few documents are long enough; or as ``encode_text``.
    """
    _check_rows(length, count)
    rows = []
    for document in documents:
        if len(rows) == count:
            break
        ids = encode_text(document, tokenizer, bos)
        if len(ids) >= length:
            rows.append(ids[:length])
    needed = least or count or 1
    if len(rows) < needed:
        raise UserError(
            f"{needed} documents of {length} tokens or more are needed, "
            f"{len(rows)} of {len(documents)} are long enough: ask for fewer or give "
            "longer texts."
        )
    return np.array(rows, np.int32)


def encode_stream(
    documents: Sequence[str],
    tokenizer: Tokenizer,
    *,
    bos: bool,
    length: int,
    count: int | None = None,
    least: int | None = None,
) -> np.ndarray:
    """Turn documents into rows of equal length: pieces of all of them in one stream.

    Documents are joined in their order, the tokenizer's BOS token between any two if
    it has one, and cut without gap or overlap; what is left at the end makes no row.

    Args:
        documents: Texts, taken in this order.
        tokenizer: The model's tokenizer.
        bos: Whether the BOS token is put before each piece, as one of its row's tokens.
        length: Tokens a row, T.
        count: Rows wanted, B; None takes every whole one.
        least: Rows that are enough where there are fewer; None: ``count``.

    Returns:
        Ids, int32 [B, T].

    Raises:
        UserError: The text is too short; or as ``encode_text``.

    Source: Yin & Steinhardt 2025, code of the token-loss difference, which separates
    documents by the end-of-text token (in GPT-2 and Pythia the BOS token too) and cuts
    1024 tokens, of which it reads the first 501.
    """
    _check_rows(length, count)
    own = length - bos  # tokens of the stream in a row
    separator = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    stream: list[int] = []
    for document in documents:
        if count is not None and len(stream) >= count * own:
            break
        between = separator if stream else []
        stream += [*between, *encode_text(document, tokenizer, bos)[int(bos) :]]
    whole = len(stream) // own
    needed = least or count or 1
    if whole < needed:
        raise UserError(
            f"a stream of {needed} pieces of {length} tokens is needed, "
            f"{len(documents)} documents give {whole}: ask for fewer or give more text."
        )
    rows = np.array(stream[: whole * own], np.int32).reshape(whole, own)[:count]
    if bos:
        rows = np.pad(rows, [(0, 0), (1, 0)], constant_values=tokenizer.bos_id or 0)
    return rows


def _check_rows(length: int, count: int | None) -> None:
    if length < 1 or (count is not None and count < 1):
        raise UserError(
            f"rows of 1 token or more and 1 row or more are needed, not {length} "
            f"tokens and {count} rows."
        )
