"""Text to ids with at most one BOS token, for every tokenizer that speaks so."""

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
