"""Prompts of strings of one random automaton each: in-context language learning."""

import dataclasses
import functools
from typing import Any, Literal

import numpy as np

from jaxheads.errors import UserError
from jaxheads.training.data.automata import Automata, Family, draw_automata
from jaxheads.training.data.windows import (
    Generator,
    Windows,
    check_at_least,
    check_batch,
    check_range,
    integers,
    uniforms,
)


@dataclasses.dataclass(frozen=True)
class RegularLanguages(Generator):
    """Windows with strings of one automaton, drawn for the window; "|" between them.

    Symbols are the ids from 0 on, then come the separator "|" and the padding ".".
    A window that the strings do not fill is padded; one that they overfill is cut.
    Separators and padding carry no loss. The first symbol of a window is read only.

    Attributes:
        sequence_length: targets in a window, T; 949 hold the longest prompt.
        family: of the automata.
        split: which of them: "train" or "test", whose languages differ.
        shortest: symbols of a string at least; the length is uniform.
        longest: at most.
        fewest_strings: in a prompt; the number is uniform.
        most_strings: at most.
        seed: of the prompts; the family has a seed of its own.

    ``info`` of its windows: "automaton" [B], its number in the split; "state" int8
    [B, T], the state that a scored target is drawn from, else -1; "string" int16
    [B, T], the number of the target's string in the prompt, or -1.

    Source: Akyürek et al. 2024, arXiv 2401.12973, and its code. There every training
    automaton gives one prompt, read 200 times; here each reading is a new prompt.
    """

    sequence_length: int = 512
    family: Family = dataclasses.field(default_factory=Family)
    split: Literal["train", "test"] = "train"
    shortest: int = 1
    longest: int = 49
    fewest_strings: int = 10
    most_strings: int = 19
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(1, sequence_length=self.sequence_length)
        check_range("shortest", self.shortest, "longest", self.longest)
        check_range(
            "fewest_strings", self.fewest_strings, "most_strings", self.most_strings
        )
        if not isinstance(self.family, Family):
            raise UserError(
                f"family must be the settings of automata, but is {self.family!r}: "
                'give such as {"symbols": 6, "most_letters": 5}'
            )
        if self.split not in ("train", "test"):
            raise UserError(
                f'split must be "train" or "test", but is {self.split!r}: give one'
            )

    @property
    def vocab_size(self) -> int:
        """Ids are below this: the symbols, the separator, the padding."""
        return self.family.symbols + 2

    @property
    def separator(self) -> int:
        """Id of "|"."""
        return self.family.symbols

    @property
    def padding(self) -> int:
        """Id of "."."""
        return self.family.symbols + 1

    @functools.cached_property
    def automata(self) -> Automata:
        """Those of the split."""
        return draw_automata(self.family)[self.split == "test"]

    def describe(self) -> dict[str, Any]:
        """See ``Source``."""
        return super().describe() | {"automata": self.automata.sha256()}

    def batch(self, index: int, size: int, *, stream: int = 0) -> Windows:
        """See ``Source``."""
        check_batch(index, size)
        most, longest = self.most_strings, self.longest
        counts = (2, most, most * longest)
        every = uniforms(
            f"regular languages, {self.split}",
            self.seed,
            stream,
            index * size,
            size,
            sum(counts),
        )
        which, lengths, steps = np.split(every, np.cumsum(counts)[:-1], axis=1)
        automaton = integers(which[:, 0], 0, len(self.automata) - 1)
        number = integers(which[:, 1], self.fewest_strings, most)
        length = integers(lengths, self.shortest, longest)  # [B, strings]
        start = np.cumsum(length + 1, axis=1) - length - 1
        # Strings that begin beyond every window are not walked.
        begun = (start <= self.sequence_length) & (np.arange(most) < number[:, None])
        seen = int(begun.sum(axis=1).max())
        steps = steps.reshape(size, most, longest)[:, :seen]
        symbols, states = self._walk(automaton, steps)
        return self._join(
            automaton, number, start[:, :seen], length[:, :seen], symbols, states
        )

    def _walk(
        self, automaton: np.ndarray, steps: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """All strings of a batch at once, symbol by symbol.

        Args:
            automaton: [B].
            steps: uniform, [B, strings, symbols].

        Returns:
            The symbols and the states that they are drawn from, [B, strings, symbols].
        """
        symbol_of, target_of = self.automata.listed
        chosen = automaton[:, None]
        state = np.zeros(steps.shape[:2], np.int16)
        symbols = np.empty(steps.shape, np.int16)
        states = np.empty(steps.shape, np.int8)
        degrees = self.automata.degree
        for place in range(steps.shape[2]):
            edge = (steps[:, :, place] * degrees[chosen, state]).astype(np.int64)
            symbols[:, :, place] = symbol_of[chosen, state, edge]
            states[:, :, place] = state
            state = target_of[chosen, state, edge]
        return symbols, states

    def _join(
        self,
        automaton: np.ndarray,
        number: np.ndarray,
        start: np.ndarray,
        length: np.ndarray,
        symbols: np.ndarray,
        states: np.ndarray,
    ) -> Windows:
        """Put the strings one after the other, separators between them.

        Args:
            automaton: [B].
            number: strings of the prompt, [B]; those seen may be fewer.
            start: of each string in the window, [B, strings].
            length: of each, [B, strings].
            symbols: [B, strings, symbols].
            states: that they are drawn from, alike.
        """
        size, most, longest = symbols.shape
        width = self.sequence_length + 1
        place = start[:, :, None] + np.arange(longest + 1)
        inside = np.arange(longest + 1) <= length[:, :, None]  # its separator, too
        inside &= (np.arange(most) < number[:, None])[:, :, None] & (place < width)
        row, string, symbol = np.nonzero(inside)
        at = place[row, string, symbol]
        ends = symbol == length[row, string]
        symbol = np.minimum(symbol, longest - 1)
        tokens = np.full((size, width), self.padding, np.int32)
        tokens[row, at] = np.where(ends, self.separator, symbols[row, string, symbol])
        state = np.full((size, width), -1, np.int8)
        state[row, at] = np.where(ends, -1, states[row, string, symbol])
        strings = np.full((size, width), -1, np.int16)
        strings[row, at] = np.where(ends, -1, string)
        # No separator follows the last string.
        last = np.minimum(number, most)[:, None] - 1
        end = np.take_along_axis(start + length, last, axis=1)[:, 0]
        within = np.flatnonzero((number <= most) & (end < width))
        tokens[within, end[within]] = self.padding
        return Windows(
            tokens,
            None,
            state[:, 1:] >= 0,
            {"automaton": automaton, "state": state[:, 1:], "string": strings[:, 1:]},
        )


def legal_next_symbol(
    predicted: np.ndarray, windows: Windows, automata: Automata
) -> np.ndarray:
    """Whether the predicted token is one that the automaton allows next.

    Chance is the number of legal symbols over the vocabulary; a model that knows the
    automaton has 1.

    Args:
        predicted: int [B, T], the likeliest token for each target.
        windows: of ``RegularLanguages``.
        automata: of the same source.

    Returns:
        bool [B, T]; False where the target is not scored.
    """
    symbols = automata.legal.shape[2]
    legal = automata.legal[windows.info["automaton"][:, None], windows.info["state"]]
    known = windows.scored & (predicted >= 0) & (predicted < symbols)
    chosen = np.clip(predicted, 0, symbols - 1)[:, :, None]
    return known & np.take_along_axis(legal, chosen, axis=2)[:, :, 0]


def total_variation(
    probabilities: np.ndarray, windows: Windows, automata: Automata
) -> np.ndarray:
    """Distance of the model's next-token distribution p from the automaton's q.

    ``1/2 sum over tokens v of |p(v) - q(v)|``: 0 is perfect, 1 is disjoint. What the
    model gives to the separator and to padding counts as wrong.

    Args:
        probabilities: float [B, T, V], for each target; V the source's or more.
        windows: of ``RegularLanguages``.
        automata: of the same source.

    Returns:
        float64 [B, T], 0 to 1; NaN where the target is not scored.
    """
    wanted = automata.probabilities[
        windows.info["automaton"][:, None], windows.info["state"]
    ]
    return distance_between(probabilities, wanted, windows)


def distance_between(
    given: np.ndarray, reference: np.ndarray, windows: Windows
) -> np.ndarray:
    """Total variation distance of two models' next-token distributions.

    Tokens beyond the reference's count as 0 there.

    Args:
        given: float [B, T, V], for each target.
        reference: float [B, T, symbols], for each target; symbols at most V.
        windows: of ``RegularLanguages``.

    Returns:
        float64 [B, T], 0 to 1; NaN where the target is not scored.

    Source: Akyürek et al. 2024; its code gives the sum of differences, twice this.
    """
    given = np.asarray(given, np.float64)
    symbols = reference.shape[2]
    distance = np.abs(given[:, :, :symbols] - reference).sum(axis=2)
    distance += given[:, :, symbols:].sum(axis=2)
    return np.where(windows.scored, distance / 2, np.nan)


def ngram_predictions(
    tokens: np.ndarray, symbols: int, separator: int, order: int = 3
) -> np.ndarray:
    """Next symbols by n-grams of the prompt so far, backing off to shorter ones.

    With c the last n - 1 symbols of the string, or the beginning of it and all symbols
    since, C counts in the strings up to here, the unfinished one included, and V the
    symbols that have been seen in the prompt:

        p_n(v) = C(c v) / C(c)                             where C(c v) > 0
                 (what is left) p_{n-1}(v) / (sum of p_{n-1} over such v)   else
        p_1(v) = C(v) / C(all symbols)

    C(c) also counts c where nothing has followed it: here, and at ends of strings.
    Where every seen symbol has followed c nothing takes what is left; the result is
    divided by its sum. Symbols that were not seen have 0.

    Args:
        tokens: int [B, T + 1], strings of ids below ``symbols``, a separator between
            them, then other ids as padding.
        symbols: how many ids are symbols.
        separator: id.
        order: N, the largest n.

    Returns:
        float64 [B, T, symbols]: of the target at t from tokens 0 to t; where no symbol
        has been seen, 1 over their number.

    Raises:
        ValueError: the order is below 1.

    Source: Akyürek et al. 2024, arXiv 2401.12973, and its code (N = 3, no smoothing).
    """
    if order < 1:
        raise ValueError(f"order must be 1 or more, but is {order}")
    return np.stack([_row(row, symbols, separator, order) for row in tokens])


def _row(tokens: np.ndarray, symbols: int, separator: int, order: int) -> np.ndarray:
    """``ngram_predictions`` of one prompt: [T + 1] -> [T, symbols]."""
    # A separator before the prompt, so that the first string begins like the others.
    row = np.concatenate([[separator], tokens])
    length = len(row)
    followed = np.append(row[1:], -1)[:, None] == np.arange(symbols)
    followed = followed.astype(np.float64)
    read = (row < symbols) | (row == separator)  # padding is no context of anything
    alike = np.tri(length, dtype=bool) & read
    before = np.tri(length, k=-1, dtype=bool)  # what followed s is known after t > s
    counts = (alike & before).astype(np.float64) @ followed
    seen = counts > 0
    some = seen.any(axis=1, keepdims=True)
    total = counts.sum(axis=1, keepdims=True)
    found = np.where(some, counts / np.maximum(total, 1), 1 / symbols)  # p_1
    for context in _contexts(row, symbols, order - 1):
        alike &= context[:, None] == context
        counts = (alike & before).astype(np.float64) @ followed
        own = counts / np.maximum(alike.sum(axis=1, keepdims=True), 1)
        shorter = np.where(seen & (counts == 0), found, 0.0)
        mass = shorter.sum(axis=1, keepdims=True)
        left = 1 - own.sum(axis=1, keepdims=True)
        shared = shorter * left / np.where(mass > 0, mass, 1.0)
        found = np.where(some, own + shared, found)
    return (found / found.sum(axis=1, keepdims=True))[1:-1]


def _contexts(row: np.ndarray, symbols: int, longest: int) -> list[np.ndarray]:
    """The symbol 0, 1, ... places back in the same string; -1 before its beginning."""
    back, inside = [], np.ones(len(row), bool)
    for shift in range(longest):
        token = np.concatenate([np.full(shift, symbols), row])[: len(row)]
        inside = inside & (token < symbols)
        back.append(np.where(inside, token, -1))
    return back
