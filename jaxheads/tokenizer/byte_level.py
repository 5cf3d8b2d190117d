"""Byte-level BPE (GPT-2's kind): the splits before it, by model family.

Source: the names and patterns of llama.cpp (src/llama-vocab.cpp), which leaves out
Unicode forms; these are from the tokenizer.json files that the families publish.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers


def byte_level_tokenizer(
    vocab: Mapping[str, int], merges: Sequence[Sequence[str]], split: "Split"
) -> tokenizers.Tokenizer:
    """Build a tokenizer.

    Args:
        vocab: ids by token, in the alphabet that has a letter for each byte.
        merges: pairs of tokens that are joined, the first of them first.
        split: how a text is split before.

    Raises:
        Exception: from the library: the merges need tokens that are not there.
    """
    inner = tokenizers.Tokenizer(
        models.BPE(
            vocab=dict(vocab),
            merges=[(left, right) for left, right in merges],
            ignore_merges=split.whole_words,
        )
    )
    inner.pre_tokenizer = split.build()
    if split.composed:
        inner.normalizer = normalizers.NFC()  # type: ignore[assignment]
    inner.decoder = decoders.ByteLevel()
    return inner


@dataclasses.dataclass(frozen=True)
class Split:
    """How a text is split before byte-level BPE.

    Attributes:
        build: makes the splitter.
        composed: whether characters are composed first (Unicode form NFC).
        whole_words: whether a part that is a token is taken as it is, whatever the
            merges would make of it.
        adds_bos: whether these models begin every text with their first token.
    """

    build: Callable[[], pre_tokenizers.PreTokenizer]
    composed: bool = False
    whole_words: bool = False
    adds_bos: bool = False


def _gpt2() -> pre_tokenizers.PreTokenizer:
    """Words with their leading space, contractions, runs of digits (Radford 2019)."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _single_digits() -> pre_tokenizers.PreTokenizer:
    """Every digit by itself, then as GPT-2."""
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, _gpt2()])


def _by_pattern(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, to_bytes])


_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"


def _triple_digits() -> pre_tokenizers.PreTokenizer:
    """Contractions in any case, at most three digits, newlines joined to signs."""
    return _by_pattern(rf"{_WORDS}|\p{{N}}{{1,3}}|{_SIGNS}|{_SPACES}")


def _qwen2() -> pre_tokenizers.PreTokenizer:
    """As Llama 3, but every digit by itself."""
    return _by_pattern(rf"{_WORDS}|\p{{N}}|{_SIGNS}|{_SPACES}")


def _tekken() -> pre_tokenizers.PreTokenizer:
    """Words begin at a capital; every digit by itself."""
    upper = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
    lower = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    before = r"[^\r\n\p{L}\p{N}]?"
    return _by_pattern(
        rf"{before}{upper}*{lower}+|{before}{upper}+{lower}*"
        rf"|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
    )


_LLAMA3 = Split(_triple_digits, whole_words=True, adds_bos=True)
_QWEN2 = Split(_qwen2, composed=True)

SPLITS: Mapping[str, Split] = {
    "gpt-2": Split(_gpt2),
    "olmo": Split(_gpt2, composed=True),  # GPT-NeoX, Pythia, the first OLMo
    "mpt": Split(_gpt2, composed=True),  # the same vocabulary
    "smollm": Split(_single_digits),
    "starcoder": Split(_single_digits),
    "refact": Split(_single_digits),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "dbrx": Split(_triple_digits),  # OLMo-2
    "smaug-bpe": Split(_triple_digits),
    "qwen2": _QWEN2,  # Qwen 2, 2.5 and 3
    "deepseek-r1-qwen": _QWEN2,
    "tekken": Split(_tekken, whole_words=True, adds_bos=True),
}
"""By llama.cpp's names (``tokenizer.ggml.pre``)."""
