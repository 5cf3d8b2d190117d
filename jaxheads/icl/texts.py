"""Documents as rows of tokens: the beginning of each, or pieces of all in a stream."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxheads.errors import UserError
from jaxheads.icl.document_files import (
    jsonl_documents,
    parquet_documents,
    text_documents,
)
from jaxheads.icl.encoding import Tokenizer, check_text, encode_text


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
        read = parquet_documents(path, "text")
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
