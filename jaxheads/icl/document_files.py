"""Documents out of one file, one at a time: text, JSON lines, parquet, arrow.

A null in the place of a text is no document, in every kind of file.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from jaxheads.errors import UserError, check_file

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


def parquet_documents(path: Path, column: str) -> Iterator[str]:
    """Read the column ``column`` of a parquet file, some rows at a time.

    Raises:
        UserError: pyarrow is missing, or the file cannot be read or has no such column
            of texts, or a text is not UTF-8.
    """
    arrow = _pyarrow(path)
    import pyarrow.parquet as parquet

    check_file(path)

    try:
        with parquet.ParquetFile(path) as file:
            _check_column(path, file.schema_arrow, column)
            rows = 0
            for batch in file.iter_batches(_ROWS, columns=[column]):
                yield from _texts(path, batch.column(0), rows)
                rows += len(batch)
    except (OSError, arrow.ArrowException) as error:
        raise _unreadable(path, "parquet", error) from error


def arrow_documents(path: Path, column: str) -> Iterator[str]:
    """Read the column ``column`` of an arrow stream, as ``save_to_disk`` writes it.

    Raises:
        UserError: pyarrow is missing, or the file cannot be read or has no such column
            of texts, or a text is not UTF-8.
    """
    arrow = _pyarrow(path)
    check_file(path)
    try:
        with arrow.memory_map(str(path)) as file, arrow.ipc.open_stream(file) as stream:
            _check_column(path, stream.schema, column)
            rows = 0
            for batch in stream:
                yield from _texts(path, batch.column(column), rows)
                rows += len(batch)
    except (OSError, arrow.ArrowException) as error:
        raise _unreadable(path, "arrow", error) from error


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


def _unreadable(path: Path, kind: str, error: Exception) -> UserError:
    reason = str(error) or "unreadable"
    return UserError(f"{path} is not a readable {kind} file ({reason}): check the file")
