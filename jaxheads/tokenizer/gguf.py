"""The vocabulary of a GGUF file as a tokenizer.

Source: the ``tokenizer.ggml`` keys of the GGUF specification, with the defaults of
llama.cpp (src/llama-vocab.cpp).
"""

from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import AddedToken

from jaxheads.errors import UserError
from jaxheads.tokenizer.byte_level import SPLITS, Split, byte_level_tokenizer
from jaxheads.tokenizer.library import Parts
from jaxheads.tokenizer.sentencepiece import (
    CONTROL,
    USER_DEFINED,
    Piece,
    sentencepiece_tokenizer,
)


def gguf_tokenizer(metadata: Mapping[str, Any]) -> Parts:
    """Build the tokenizer that a GGUF file describes.

    Args:
        metadata: of the file, with its ``tokenizer.ggml`` keys.

    Returns:
        The tokenizer, the id of the token that begins a sequence, and whether the model
        was made with that token before every text.

    Raises:
        UserError: the file has no vocabulary, or one of a kind or with a pre-tokenizer
            that is not built here.
    """
    keys = {
        key.removeprefix("tokenizer.ggml."): value
        for key, value in metadata.items()
        if key.startswith("tokenizer.ggml.")
    }
    kind = keys.get("model")
    if kind == "llama":
        inner, adds_bos = _sentencepiece(keys), True
    elif kind == "gpt2":
        split = _split(keys, str(metadata.get("general.architecture")))
        inner, adds_bos = _byte_level(keys, split), split.adds_bos
    else:
        raise UserError(
            "a GGUF file's tokenizer must be byte-level BPE ('gpt2') or SentencePiece "
            f"BPE ('llama') to be used here, but is {kind!r}: take the model's hub "
            "folder with its tokenizer.json"
        )
    number = keys.get("bos_token_id")
    bos_id = number if number in range(inner.get_vocab_size()) else None
    return inner, bos_id, bool(keys.get("add_bos_token", adds_bos))


def _sentencepiece(keys: Mapping[str, Any]) -> tokenizers.Tokenizer:
    columns = [_column(keys, key) for key in ("tokens", "scores", "token_type")]
    if not columns[0] or len({len(column) for column in columns}) > 1:
        sizes = ", ".join(str(len(column)) for column in columns)
        raise UserError(
            "a SentencePiece tokenizer needs as many scores and token_types as tokens, "
            f"but the GGUF file has {sizes}: take a file with its vocabulary"
        )
    pieces = [Piece(*row) for row in zip(*columns, strict=True)]
    return sentencepiece_tokenizer(pieces, bool(keys.get("add_space_prefix", True)))


_OLDER = {"gpt2": "gpt-2", "gptneox": "olmo", "qwen2": "qwen2"}
"""Architectures with files older than that key, which have one split each."""


def _split(keys: Mapping[str, Any], architecture: str) -> Split:
    pre = keys.get("pre", "default")
    if pre == "default":
        pre = _OLDER.get(architecture, pre)
    if not isinstance(pre, str) or pre not in SPLITS:
        raise UserError(
            f"a GGUF file's pre-tokenizer must be one of {', '.join(sorted(SPLITS))}, "
            f"but is {pre!r}: take the model's hub folder with its tokenizer.json"
        )
    return SPLITS[pre]


def _byte_level(keys: Mapping[str, Any], split: Split) -> tokenizers.Tokenizer:
    tokens, merges = _column(keys, "tokens"), _column(keys, "merges")
    if not tokens or not merges:
        raise UserError(
            "a byte-level BPE tokenizer needs tokens and merges, but the GGUF file has "
            "not both: take a file with its vocabulary"
        )
    try:
        inner = byte_level_tokenizer(
            {token: index for index, token in enumerate(tokens)},
            [merge.split(" ", 1) for merge in merges],
            split,
        )
    except Exception as error:  # the library raises Exception itself
        raise UserError(
            f"the GGUF file's merges and tokens must belong together, but: {error}"
        ) from error
    inner.add_tokens(
        [
            AddedToken(token, special=kind == CONTROL, normalized=False)
            for token, kind in zip(tokens, _column(keys, "token_type"), strict=False)
            if kind in (CONTROL, USER_DEFINED)
        ]
    )
    return inner


def _column(keys: Mapping[str, Any], name: str) -> list[Any]:
    """A list in the metadata; an empty one if there is none."""
    values = keys.get(name)
    return values if isinstance(values, list) else []
