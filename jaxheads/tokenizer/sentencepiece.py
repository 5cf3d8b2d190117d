"""SentencePiece vocabularies of the BPE kind (Llama 1 and 2, Mistral, Gemma).

Source: Kudo & Richardson 2018 (SentencePiece); field numbers from its
sentencepiece_model.proto.
"""

import dataclasses
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers

from jaxheads.errors import UserError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""What a piece is; GGUF files use the same numbers."""

SPACE = "\u2581"
"""What stands for a space in a piece."""


class NotBuilt(UserError):
    """The vocabulary is whole, but of a kind that is not built here."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """A token: its text, with "\u2581" for a space, its score, and what it is."""

    text: str
    score: float
    kind: int = NORMAL


def sentencepiece_tokenizer(
    pieces: Sequence[Piece], prefix: bool
) -> tokenizers.Tokenizer:
    """Build the tokenizer of a vocabulary; it gives the ids that SentencePiece gives.

    Control and unknown pieces, which SentencePiece itself does not look for, are found
    in the text before all else, and so are user-defined ones. With ``prefix``, the text
    after such a piece gets its space too, as in llama.cpp and the hub's tokenizers.

    Args:
        pieces: the tokens, in the order of their ids.
        prefix: whether a space is put before the text (``add_dummy_prefix``).

    Raises:
        UserError: the pieces do not make a vocabulary.
    """
    unknown = [piece.text for piece in pieces if piece.kind == UNKNOWN]
    vocab = {_spelled(piece): index for index, piece in enumerate(pieces)}
    try:
        inner = tokenizers.Tokenizer(
            models.BPE(
                vocab=vocab,
                merges=_merges(pieces),
                unk_token=unknown[0] if unknown else None,
                fuse_unk=True,
                byte_fallback=any(piece.kind == BYTE for piece in pieces),
            )
        )
    except Exception as error:  # the library raises Exception itself
        raise UserError(
            f"a SentencePiece vocabulary must be a list of different pieces, but: "
            f"{error}"
        ) from error
    spaces = normalizers.Replace(" ", SPACE)
    before = [normalizers.Prepend(SPACE), spaces] if prefix else [spaces]
    inner.normalizer = normalizers.Sequence(before)  # type: ignore[assignment]
    after = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix:
        after.append(decoders.Strip(" ", 1, 0))
    inner.decoder = decoders.Sequence(after)  # type: ignore[assignment]
    inner.add_tokens(
        [
            AddedToken(
                _spelled(piece),
                special=piece.kind != USER_DEFINED,
                # Looked for in the normalised text, it would itself get the prefix.
                normalized=piece.kind == USER_DEFINED and not prefix,
            )
            for piece in pieces
            if piece.kind in (UNKNOWN, CONTROL, USER_DEFINED)
        ]
    )
    return inner


def _spelled(piece: Piece) -> str:
    """The text as the vocabulary has it: user-defined pieces as in the user's text."""
    if piece.kind == USER_DEFINED:
        return piece.text.replace(SPACE, " ")
    return piece.text


def _merges(pieces: Sequence[Piece]) -> list[tuple[str, str]]:
    """Every way to join two pieces into a third, in the order SentencePiece joins.

    It joins the pair with the best score, the leftmost of equals. Of pieces with equal
    scores the longer one goes first here, so that a run grows from its left end.
    """
    scores = {piece.text: piece.score for piece in pieces if piece.kind == NORMAL}
    best_first = sorted(scores, key=lambda text: (-scores[text], -len(text)))
    return [
        (text[:at], text[at:])
        for text in best_first
        for at in range(1, len(text))
        if text[:at] in scores and text[at:] in scores
    ]


def read_sentencepiece(path: Path) -> tuple[tokenizers.Tokenizer, int | None]:
    """Read a SentencePiece model, such as Llama's tokenizer.model.

    Args:
        path: the file.

    Returns:
        The tokenizer, and the id of the token that begins a sequence.

    Raises:
        NotBuilt: it is not BPE, or changes the text before splitting it.
        UserError: it is damaged.
    """
    try:
        data = path.read_bytes()
        tiktoken = re.match(rb"[A-Za-z0-9+/=]+ \d+\r?\n", data)
        pieces, trainer, normalizer = ([], {}, {}) if tiktoken else _parts(data)
    except (OSError, ValueError, LookupError, struct.error) as error:
        raise UserError(
            f"{path} must be a SentencePiece model, but cannot be read ({error}): "
            "fetch it again"
        ) from error
    for wrong, what in (
        (tiktoken, "is a tiktoken vocabulary"),
        (trainer.get(3, 1) != 2, "is not of the BPE kind"),
        (trainer.get(24, 0), "puts spaces behind words"),
        (normalizer.get(2), "rewrites characters"),
        (normalizer.get(4, 1), "drops spaces"),
        (not normalizer.get(5, 1), "keeps spaces as they are"),
    ):
        if wrong:
            raise NotBuilt(
                f"{path} {what}, which is not built here: copy the model's "
                "tokenizer.json there"
            )
    bos_id = trainer.get(41, 1)  # a negative one reads as a very large number
    if not isinstance(bos_id, int) or bos_id >= len(pieces):
        bos_id = None
    return sentencepiece_tokenizer(pieces, bool(normalizer.get(3, 1))), bos_id


def _parts(
    data: bytes,
) -> tuple[list[Piece], dict[int, int | bytes], dict[int, int | bytes]]:
    """The pieces, and the settings of the trainer and of the normaliser."""
    fields = [(number, _bytes(value)) for number, value in _fields(data)]
    pieces = [_piece(value) for number, value in fields if number == 1]
    last = dict(fields)
    return pieces, dict(_fields(last.get(2, b""))), dict(_fields(last.get(3, b"")))


def _piece(data: bytes) -> Piece:
    fields = dict(_fields(data))
    (score,) = struct.unpack("<f", _bytes(fields.get(2, bytes(4))))
    kind = fields.get(3, NORMAL)
    if not isinstance(kind, int) or not NORMAL <= kind <= BYTE:
        raise ValueError(f"a piece has the kind {kind}")
    return Piece(_bytes(fields[1]).decode(), score, kind)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a protobuf message; messages within it stay bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(data, at)
        elif wire in (1, 2, 5):
            fixed = {1: 8, 5: 4}
            length, at = (fixed[wire], at) if wire in fixed else _varint(data, at)
            value = data[at : at + length]
            if len(value) < length:
                raise ValueError("it ends within a field")
            at += length
        else:
            raise ValueError(f"byte {at} is no field")
        yield tag >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first; and where it ends."""
    number = shift = 0
    while data[at] >= 0x80:
        if shift > 63:
            raise ValueError(f"byte {at} is within no number")
        number |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return number | data[at] << shift, at + 1


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a field is a number that must be text")
    return value
