"""Text as packed windows: the documents of a token store, one after the other."""

import dataclasses
import functools
import hashlib
from typing import Any, Literal

import numpy as np

from jaxheads.errors import UserError
from jaxheads.training.data.token_store import TokenStore
from jaxheads.training.data.windows import Windows, check_at_least, check_batch

_SHARES = 2.0**64  # values of a document's hash


@dataclasses.dataclass(frozen=True, eq=False)
class TextWindows:
    """Windows of T + 1 tokens that cut the chain of all documents every T tokens.

    Neighbours share one token, so every token but the first is a target once an epoch;
    less than a window at the end of the chain is left out. Documents keep the order of
    the corpus within the chain. Training reads the windows in a random order: each once
    an epoch, in another order the next, and in another one in each stream.

    A document belongs to the held-out split by the hash of its text. So the split is
    the same for every tokenizer, order and size of the corpus, and copies of a document
    stand on one side.

    Attributes:
        store: the documents' tokens.
        sequence_length: targets in a window, T.
        vocab_size: of the model; ids are below it.
        split: "train" or "held-out" documents, or "all" of them.
        held_out: share of the documents that is held out, about; from 0 to below 1.
        bos_id: a token before each document; None: none.
        eos_id: a token after each document; None: none.
        separate: whether documents are separate: tokens see their own document only
            (``Windows.segments``), and a document's first token is no target. If not,
            every token is one.
        shuffled: whether windows come in random order; if not, in the order of the
            corpus, the same in every stream and epoch, as evaluation wants.
        seed: of the order.

    Raises:
        UserError: the split has no window; ids are beyond the vocabulary; or Grain,
            which makes the order, is not installed.
    """

    store: TokenStore
    sequence_length: int
    vocab_size: int
    split: Literal["train", "held-out", "all"] = "train"
    held_out: float = 0.01
    bos_id: int | None = None
    eos_id: int | None = None
    separate: bool = False
    shuffled: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(1, sequence_length=self.sequence_length)
        if self.split not in ("train", "held-out", "all"):
            raise UserError(
                f'split must be "train", "held-out" or "all", but is {self.split!r}: '
                "give one of them"
            )
        if not 0 <= self.held_out < 1:
            raise UserError(
                f"held_out must be a share from 0 to below 1, but is {self.held_out}: "
                "give another"
            )
        for name, value in (
            ("the text", self.store.receipt["highest_id"]),
            ("bos_id", self.bos_id),
            ("eos_id", self.eos_id),
        ):
            if value is not None and not 0 <= value < self.vocab_size:
                raise UserError(
                    f"ids must be below the model's vocabulary of {self.vocab_size}, "
                    f"but {name} has {value}: take the tokenizer of the model, or a "
                    "model with a larger vocabulary"
                )
        if not self.windows:
            chosen = "" if self.split == "all" else f" of the {self.split} split"
            raise UserError(
                f"{self.sequence_length + 1} tokens make a window, but the "
                f"{len(self._chosen)} documents{chosen} in {self.store.path} have "
                f"{self._ends[-1]}: give more text, another held-out share or shorter "
                "windows"
            )
        if self.shuffled:
            _grain()

    @property
    def windows(self) -> int:
        """How many an epoch has."""
        return max(int(self._ends[-1]) - 1, 0) // self.sequence_length

    @functools.cached_property
    def _chosen(self) -> np.ndarray:
        """The documents of the split."""
        # Python would round the product up to 2 ** 64 for a share just below 1.
        limit = np.uint64(min(int(self.held_out * _SHARES), 2**64 - 1))
        held = self.store.hashes < limit
        if self.split == "all":
            return np.arange(self.store.documents)
        return np.flatnonzero(held if self.split == "held-out" else ~held)

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        """Where each of them ends in the chain, after a 0: int64 [chosen + 1]."""
        lengths = np.diff(self.store.offsets)[self._chosen] + self._added
        return np.concatenate([[0], np.cumsum(lengths)])

    @property
    def _added(self) -> int:
        return (self.bos_id is not None) + (self.eos_id is not None)

    def describe(self) -> dict[str, Any]:
        """See ``Source``; the hash is of the store's tokens and documents."""
        receipt = self.store.receipt
        content = receipt["sha256"] + receipt["documents_sha256"]
        settings = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "store"
        }
        return {
            "source": type(self).__name__,
            **settings,
            "corpus": receipt["corpus"],
            "tokenizer": receipt["tokenizer"],
            "documents": len(self._chosen),
            "tokens": int(self._ends[-1]),
            "windows": self.windows,
            "sha256": hashlib.sha256(content.encode()).hexdigest(),
        }

    def batch(self, index: int, size: int, *, stream: int = 0) -> Windows:
        """See ``Source``; ``info`` has "window" [B], the number in the chain."""
        check_batch(index, size)
        rows = range(index * size, (index + 1) * size)
        if self.shuffled:
            order = self._order(stream)
            numbers = np.array([order[row] for row in rows])
        else:
            numbers = np.array(rows) % self.windows
        return self._cut(numbers)

    def _order(self, stream: int) -> Any:
        """Window number by row, without end; a permutation each epoch."""
        text = f"text windows/{self.seed}/{stream}"
        # Grain adds the epoch to the seed: seeds of streams must lie far apart.
        digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
        seed = int.from_bytes(digest, "little")
        return _grain().MapDataset.range(self.windows).shuffle(seed=seed).repeat()

    def _cut(self, numbers: np.ndarray) -> Windows:
        """Windows by number: tokens, and the document of each."""
        start = numbers[:, None] * self.sequence_length
        position = start + np.arange(self.sequence_length + 1)  # in the chain
        document = np.searchsorted(self._ends, position, side="right") - 1
        within = position - self._ends[document] - (self.bos_id is not None)
        first = self.store.offsets[self._chosen[document]]
        length = self.store.offsets[self._chosen[document] + 1] - first
        own = (within >= 0) & (within < length)
        tokens = self.store.tokens[np.where(own, first + within, 0)].astype(np.int32)
        if self.bos_id is not None:
            tokens[within < 0] = self.bos_id
        if self.eos_id is not None:
            tokens[within >= length] = self.eos_id
        segments = (document - document[:, :1]).astype(np.int32)
        inside = segments[:, 1:] == segments[:, :-1]
        return Windows(
            tokens,
            segments if self.separate else None,
            inside if self.separate else np.ones_like(inside),
            {"window": numbers},
        )


def _grain() -> Any:
    try:
        import grain
    except ImportError as error:
        raise UserError(
            "training on text needs grain, which is not installed: run pip install "
            "'jaxheads[train]'"
        ) from error
    return grain
