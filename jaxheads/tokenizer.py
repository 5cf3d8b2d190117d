"""Text to token ids and back, by a tokenizer.json or a GGUF file's vocabulary."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from jaxheads.errors import UserError


class Tokenizer:
    """A tokenizer that adds nothing by itself.

    Args:
        inner: the tokenizer that does the work.
        bos_id: id of the token that begins a sequence, if the source names one.
        adds_bos: whether the model was made with that token before every text; what
            to do about it is the caller's choice.
    """

    def __init__(self, inner: tokenizers.Tokenizer, bos_id: int | None, adds_bos: bool):
        # A tokenizer.json may ask for both, and a cut text would go unnoticed.
        inner.no_truncation()
        inner.no_padding()
        self._inner = inner
        self.bos_id = bos_id
        self.adds_bos = adds_bos and bos_id is not None

    @classmethod
    def from_file(cls, path: Path, settings: Path | None = None) -> "Tokenizer":
        """Read a tokenizer.json.

        Args:
            path: the file.
            settings: tokenizer_config.json, which names the token that begins a
                sequence; None: no such token.

        Raises:
            UserError: a file cannot be read or is damaged.
        """
        try:
            inner = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises Exception itself
            raise UserError(
                f"{path} must be a tokenizer.json, but cannot be read ({error}): "
                "fetch it again"
            ) from error
        bos_id, adds_bos = None, None
        if settings is not None:
            bos_id, adds_bos = _read_settings(settings, inner)
        if adds_bos is None:  # then what the file's own template does
            adds_bos = bos_id is not None and inner.encode("").ids[:1] == [bos_id]
        return cls(inner, bos_id, adds_bos)

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> "Tokenizer":
        """Build the tokenizer that a GGUF file describes (byte-level BPE only).

        Args:
            metadata: of the file, with its ``tokenizer.ggml`` keys.

        Raises:
            UserError: the file has no vocabulary, or one of a kind or with a
                pre-tokenizer that is not built here.
        """
        keys = {
            key.removeprefix("tokenizer.ggml."): value
            for key, value in metadata.items()
            if key.startswith("tokenizer.ggml.")
        }
        pre = _pre_tokenizer_name(keys, str(metadata.get("general.architecture")))
        tokens, merges = keys.get("tokens"), keys.get("merges")
        if not tokens or merges is None:
            raise UserError(
                "a byte-level BPE tokenizer needs tokens and merges, but the GGUF file "
                "has not both: take a file with its vocabulary"
            )
        try:
            inner = tokenizers.Tokenizer(
                models.BPE(
                    vocab={token: index for index, token in enumerate(tokens)},
                    merges=[tuple(merge.split(" ", 1)) for merge in merges],
                    ignore_merges=pre == "llama-bpe",
                )
            )
        except Exception as error:  # the library raises Exception itself
            raise UserError(
                f"the GGUF file's merges and tokens must belong together, but: {error}"
            ) from error
        inner.pre_tokenizer = _PRE_TOKENIZERS[pre]()
        inner.decoder = decoders.ByteLevel()
        inner.add_tokens(_added_tokens(tokens, keys.get("token_type") or ()))
        adds_bos = keys.get("add_bos_token", pre == "llama-bpe")
        return cls(inner, keys.get("bos_token_id"), bool(adds_bos))

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included; a model may have more rows."""
        return self._inner.get_vocab_size(with_added_tokens=True)

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
            UserError: there is no such token, or the text begins with it already.
        """
        ids = self._inner.encode(text, add_special_tokens=False).ids
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
        return [self.bos_id, *ids]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids [T]; special tokens are kept."""
        return self._inner.decode(
            [int(token) for token in ids], skip_special_tokens=False
        )


def _read_settings(
    path: Path, inner: tokenizers.Tokenizer
) -> tuple[int | None, bool | None]:
    """The id of the first token and whether it is added, from tokenizer_config.json."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        token = settings.get("bos_token")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} must hold a JSON object, but cannot be read so ({error}): "
            "fetch it again"
        ) from error
    if isinstance(token, dict):  # an AddedToken, written out
        token = token.get("content")
    bos_id = inner.token_to_id(token) if isinstance(token, str) else None
    return bos_id, settings.get("add_bos_token")


def _gpt2() -> pre_tokenizers.PreTokenizer:
    """Words with their leading space, contractions, runs of digits (Radford 2019)."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _single_digits() -> pre_tokenizers.PreTokenizer:
    """Every digit by itself, then as GPT-2."""
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, _gpt2()])


def _llama3() -> pre_tokenizers.PreTokenizer:
    """Contractions in any case, at most three digits, newlines joined to signs."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
        r"|[^\r\n\p{L}\p{N}]?\p{L}+"
        r"|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+"
        r"|\s+(?!\S)"
        r"|\s+"
    )
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, to_bytes])


_PRE_TOKENIZERS: Mapping[str, Callable[[], pre_tokenizers.PreTokenizer]] = {
    "gpt-2": _gpt2,
    "mpt": _gpt2,
    "olmo": _gpt2,
    "smollm": _single_digits,
    "starcoder": _single_digits,
    "refact": _single_digits,
    "llama-bpe": _llama3,
}
"""llama.cpp's names (``tokenizer.ggml.pre``) of the splits before BPE."""


def _pre_tokenizer_name(keys: Mapping[str, Any], architecture: str) -> str:
    kind = keys.get("model")
    if kind != "gpt2":
        raise UserError(
            "a GGUF file's tokenizer must be byte-level BPE ('gpt2') to be used here, "
            f"but is {kind!r}: take the model's hub folder with its tokenizer.json"
        )
    pre = keys.get("pre", "default")
    if pre == "default" and architecture in ("gpt2", "gptneox"):
        return "gpt-2"  # files older than the key; these families have one split
    if pre not in _PRE_TOKENIZERS:
        raise UserError(
            f"a GGUF file's pre-tokenizer must be one of "
            f"{', '.join(sorted(_PRE_TOKENIZERS))}, but is {pre!r}: take the model's "
            "hub folder with its tokenizer.json"
        )
    return pre


_CONTROL, _USER_DEFINED = 3, 4


def _added_tokens(tokens: list[str], types: Iterable[int]) -> list[AddedToken]:
    """Tokens that are found in the text before it is split."""
    return [
        AddedToken(token, special=kind == _CONTROL, normalized=False)
        for token, kind in zip(tokens, types, strict=False)
        if kind in (_CONTROL, _USER_DEFINED)
    ]
