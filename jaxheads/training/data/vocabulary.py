"""A tokenizer made for the training text."""

from collections.abc import Iterable, Sequence

from tokenizers import pre_tokenizers, trainers

from jaxheads.errors import UserError
from jaxheads.tokenizer.byte_level import SPLITS, byte_level_tokenizer
from jaxheads.tokenizer.tokenizer import Tokenizer
from jaxheads.training.data.corpora import Corpus

BEGIN = "<|bos|>"
END = "<|endoftext|>"


def train_tokenizer(
    corpus: Corpus,
    vocab_size: int,
    *,
    special_tokens: Sequence[str] = (BEGIN, END),
    bos_token: str | None = BEGIN,
    characters: int = 200_000_000,
) -> Tokenizer:
    """Learn a byte-level BPE with GPT-2's split of a text into words.

    Every byte has a token, so any text can be encoded. The same corpus gives the same
    tokenizer. ``Tokenizer.save`` writes it as a folder's tokenizer.json.

    Args:
        corpus: the text.
        vocab_size: tokens, special ones and the 256 bytes included.
        special_tokens: get the first ids, in order.
        bos_token: out of them: what begins a sequence; None: nothing does.
        characters: of the beginning of the corpus that is read; the rest would change
            little and take memory.

    Raises:
        UserError: the vocabulary is too small, or larger than the text allows.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    least = len(alphabet) + len(special_tokens)
    if vocab_size < least:
        raise UserError(
            f"vocab_size must be {least} or more, for the bytes and the special "
            f"tokens, but is {vocab_size}: give a larger one"
        )
    if bos_token is not None and bos_token not in special_tokens:
        raise UserError(
            f"bos_token {bos_token!r} must be one of the special tokens "
            f"{', '.join(special_tokens)}: add it to them"
        )
    inner = byte_level_tokenizer({}, [], SPLITS["gpt-2"])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    inner.train_from_iterator(_beginning(corpus, characters), trainer)
    if inner.get_vocab_size() < vocab_size:
        raise UserError(
            f"a vocabulary of {vocab_size} tokens was asked for, but the text gives "
            f"only {inner.get_vocab_size()}: give more text or ask for fewer"
        )
    bos_id = None if bos_token is None else inner.token_to_id(bos_token)
    return Tokenizer(inner, bos_id, adds_bos=bos_id is not None)


def _beginning(corpus: Corpus, characters: int) -> Iterable[str]:
    for unit in range(len(corpus.units)):
        for text in corpus.documents(unit):
            if characters <= 0:
                return
            characters -= len(text)
            yield text.encode("utf-8", "replace").decode()
