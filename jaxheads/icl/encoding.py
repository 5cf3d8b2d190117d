"""Text to ids with at most one BOS token, and ids of answers to text."""

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Protocol

from jaxheads.errors import UserError


class Tokenizer(Protocol):
    """What is asked of a tokenizer here."""

    @property
    def bos_id(self) -> int | None:
        """Id of the beginning-of-text token, if there is one."""
        ...

    def encode(self, text: str, bos: bool = False) -> list[int]:
        """Turn text into ids."""
        ...


class Decoder(Protocol):
    """What is asked of a tokenizer where ids are read."""

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of control tokens, such as the end of a text."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Turn ids into text."""
        ...


def decode_answers(rows: Iterable[Sequence[int]], tokenizer: Decoder) -> list[str]:
    """Turn generated ids into texts, each up to the first control token.

    What a model generates after the end of a text, such as "<|im_end|>", is no part of
    its answer, and neither is that token's name.

    Args:
        rows: Ids of each answer, those that its prompt ends with among them.
        tokenizer: The model's.

    Returns:
        A text for each.
    """
    special = tokenizer.special_ids
    return [
        tokenizer.decode(takewhile(lambda token: token not in special, row))
        for row in rows
    ]


def encode_text(text: str, tokenizer: Tokenizer, bos: bool) -> list[int]:
    """Turn one text into ids, with one BOS in front if asked; two are refused.

    Args:
        text: The text.
        tokenizer: The model's tokenizer.
        bos: Whether to put the BOS token first.

    Returns:
        The ids.

    Raises:
        UserError: The tokenizer has no BOS token, or the text begins with it already.
    """
    ids = tokenizer.encode(text)
    if not bos:
        return ids
    if tokenizer.bos_id is None:
        raise UserError(
            "a BOS token in front was asked for, this tokenizer has none: turn BOS off."
        )
    if ids[:1] == [tokenizer.bos_id]:
        raise UserError(
            f"one BOS token in front was asked for, the text {text[:30]!r} already "
            "begins with it: turn BOS off or take it out of the text."
        )
    return [tokenizer.bos_id, *ids]


def check_text(text: str, what: str) -> None:
    """Refuse a text that is none: half of a surrogate pair has no bytes.

    Args:
        text: Of a file or a user; JSON can write such a half.
        what: It is, for the message.

    Raises:
        UserError: It has such a half.
        TypeError: It is no text.
    """
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a text, not {text!r:.60}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        around = text[max(error.start - 20, 0) : error.start + 20]
        raise UserError(
            f"{what} must be whole characters, but has half of one (a lone surrogate) "
            f"at {error.start}, {around!r}: mend the text or leave it out."
        ) from error
