"""Documents as rows of tokens: the beginning of each, or pieces of all in a stream."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxheads.errors import UserError
from jaxheads.icl.encoding import Tokenizer, encode_text


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
        documents = [_text(each) for each in files]
    elif path.suffix == ".txt":
        documents = [_text(path)]
    elif path.suffix == ".jsonl":
        documents = _json_lines(path)
    elif path.suffix == ".parquet":
        documents = _parquet(path)
    else:
        raise UserError(
            f"{path} must be a .txt, .jsonl or .parquet file or a folder of .txt "
            "files: rename or convert it."
        )
    documents = [document for document in documents if document.strip()]
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


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): check its permissions."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8."
        ) from error


def _json_lines(path: Path) -> list[str]:
    documents = []
    # Only "\n" ends a line: JSON text may hold other line separators as they are.
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"line {number} of {path} is not valid JSON ({error}): mend or delete "
                "it."
            ) from error
        text = item.get("text") if isinstance(item, dict) else None
        if not isinstance(text, str):
            raise UserError(
                f'line {number} of {path} must be an object with a text field "text", '
                "it is not: mend or delete it."
            )
        documents.append(text)
    return documents


def _parquet(path: Path) -> list[str]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError(
            f"reading {path} needs pyarrow, which is not installed: run pip install "
            "'jaxheads[parquet]'."
        ) from error
    try:
        file = parquet.ParquetFile(path)
        names = file.schema_arrow.names
        column = file.read(columns=["text"]).column("text") if "text" in names else None
    except (OSError, arrow.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else "unreadable"
        raise UserError(
            f"{path} is not a readable parquet file ({reason}): check the file."
        ) from error
    if column is None or not (
        arrow.types.is_string(column.type) or arrow.types.is_large_string(column.type)
    ):
        raise UserError(
            f'{path} must have a column "text" of strings, its columns are '
            f"{', '.join(names)}: rename or convert the column."
        )
    return [text for text in column.to_pylist() if text is not None]
