"""Text to token ids and back, by a folder's tokenizer files or a GGUF vocabulary."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from jaxheads import runs
from jaxheads.errors import UserError
from jaxheads.icl.encoding import check_text
from jaxheads.tokenizer.folder import read_folder
from jaxheads.tokenizer.gguf import gguf_tokenizer
from jaxheads.tokenizer.library import told, tried
from jaxheads.tokenizer.sentencepiece import NotBuilt

_ENCODING = ("every text must be such that it can be encoded, but", "leave it out")


class Tokenizer:
    """A tokenizer that adds nothing by itself.

    Args:
        inner: the tokenizer that does the work.
        bos_id: id of the token that begins a sequence, if the source names one.
        adds_bos: whether the model was made with that token before every text; what
            to do about it is the caller's choice.
        rows: of the embedding of the model that it is for: a text that needs an id
            beyond them is refused; None: of no model yet.
    """

    def __init__(
        self,
        inner: tokenizers.Tokenizer,
        bos_id: int | None,
        adds_bos: bool,
        rows: int | None = None,
    ):
        self._inner = inner
        self.bos_id = bos_id
        self.adds_bos = adds_bos and bos_id is not None
        self._rows = rows

    def for_model(self, rows: int) -> "Tokenizer":
        """The same tokenizer, for a model with so many rows in its embedding."""
        return Tokenizer(self._inner, self.bos_id, self.adds_bos, rows)

    @classmethod
    def from_folder(cls, folder: Path) -> tuple["Tokenizer | None", str]:
        """Read the tokenizer of a folder in hub layout.

        Args:
            folder: with tokenizer.json, or vocab.json and merges.txt (GPT-2), or
                tokenizer.model (SentencePiece); tokenizer_config.json,
                special_tokens_map.json and config.json name the token that begins a
                sequence.

        Returns:
            The tokenizer, or None and why there is none.

        Raises:
            UserError: a file cannot be read or is damaged.
        """
        try:
            return cls(*tried(lambda: read_folder(folder), str(folder))), ""
        except NotBuilt as error:
            return None, str(error)

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> "Tokenizer":
        """Build the tokenizer that a GGUF file describes.

        Args:
            metadata: of the file, with its ``tokenizer.ggml`` keys.

        Raises:
            UserError: the file has no vocabulary, or one of a kind or with a
                pre-tokenizer that is not built here.
        """
        return cls(*tried(lambda: gguf_tokenizer(metadata), "the GGUF file"))

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, for ``from_folder``.

        Args:
            folder: is made if need be; files of these names are replaced.
        """
        folder.mkdir(parents=True, exist_ok=True)
        begin = None if self.bos_id is None else self._inner.id_to_token(self.bos_id)
        settings = {"bos_token": begin, "add_bos_token": self.adds_bos}
        for name, text in (
            ("tokenizer_config.json", json.dumps(settings, indent=2) + "\n"),
            ("tokenizer.json", self._inner.to_str()),
        ):
            runs.write_text(folder / name, text)

    @property
    def ids(self) -> list[int]:
        """Ids of all tokens, added ones included, in order; some may be left out."""
        return sorted({*self._inner.get_vocab(with_added_tokens=True).values()})

    @property
    def vocab_size(self) -> int:
        """One more than the highest id; a model may have more rows."""
        return max(self.ids, default=-1) + 1

    @property
    def sha256(self) -> str:
        """Hash of all that decides the ids, in hexadecimal."""
        return hashlib.sha256(self._inner.to_str().encode()).hexdigest()

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of control tokens, which no text means: not for random probes."""
        added = self._inner.get_added_tokens_decoder()
        return frozenset(index for index, token in added.items() if token.special)

    def encode(self, text: str, bos: bool = False) -> list[int]:
        """Token ids of a text; special tokens written in it are recognised.

        Bytes for which the vocabulary has no token are dropped, as in the original
        tokenizers (SmolLM2's lacks a few control characters).

        Args:
            text: any text.
            bos: put the token that begins a sequence first; nothing else is ever added.

        Raises:
            UserError: there is no such token, or the text begins with it already; or an
                id is beyond the model's embedding, or the text has half a character.
        """
        check_text(text, "a text to encode")
        with told(*_ENCODING):
            ids = self._inner.encode(text, add_special_tokens=False).ids
        self._check(text, ids)
        if not bos:
            return ids
        if self.bos_id is None:
            raise UserError(
                "bos=True needs a token that begins a sequence, but this tokenizer "
                "names none: encode without it"
            )
        if ids[:1] == [self.bos_id]:
            raise UserError(
                f"the text begins with {self.decode(ids[:1])!r} already: encode it "
                "without bos=True, so that there is one"
            )
        self._check(text, [self.bos_id])
        return [self.bos_id, *ids]

    def _check(self, text: str, ids: Sequence[int]) -> None:
        beyond = [id for id in ids if self._rows is not None and id >= self._rows]
        if beyond:
            raise UserError(
                f"the text {text[:30]!r} needs the token "
                f"{self._inner.id_to_token(beyond[0])!r} with id {beyond[0]}, but the "
                f"model's embedding has {self._rows} rows: leave it out of the text, "
                "or give the model its own tokenizer"
            )

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of many texts, each as from ``encode``; on all cores."""
        texts = list(texts)
        for text in texts:
            check_text(text, "a text to encode")
        with told(*_ENCODING):
            batch = self._inner.encode_batch_fast(texts, add_special_tokens=False)
        for text, encoding in zip(texts, batch, strict=True):
            self._check(text, encoding.ids)
        return [encoding.ids for encoding in batch]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids [T]; special tokens are kept."""
        return self._inner.decode(
            [int(token) for token in ids], skip_special_tokens=False
        )
