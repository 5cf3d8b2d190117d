"""Random probabilistic automata: the languages of in-context language learning.

An automaton reads symbols one at a time. Every state accepts; a symbol without an edge
is illegal. A string is drawn by a walk from state 0 that takes each outgoing edge of a
state with the same probability.
"""

import dataclasses
import functools
import hashlib

import numpy as np

from jaxheads.errors import UserError
from jaxheads.training.data.windows import (
    check_at_least,
    check_range,
    integers,
    uniforms,
    without_replacement,
)

NONE = -1
"""No edge, in tables of edges."""


@dataclasses.dataclass(frozen=True)
class Family:
    """Which automata are drawn; the defaults are the benchmark's.

    Attributes:
        symbols: letters there are.
        fewest_states: before minimising.
        most_states: before minimising.
        fewest_letters: of an automaton's own alphabet.
        most_letters: at most ``symbols``.
        most_edges: outgoing ones of a state; one at least.
        training: automata to train on.
        test: automata to test on; none of them has the language of one to train on.
        seed: of the draws.
    """

    symbols: int = 18
    fewest_states: int = 4
    most_states: int = 12
    fewest_letters: int = 4
    most_letters: int = 18
    most_edges: int = 3
    training: int = 5000
    test: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(
            "fewest_states", self.fewest_states, "most_states", self.most_states
        )
        check_range(
            "fewest_letters", self.fewest_letters, "most_letters", self.most_letters
        )
        check_at_least(1, training=self.training, test=self.test)
        # A state's edges go to different other states, by different letters.
        check_at_least(1, most_edges=self.most_edges)
        check_at_least(self.most_edges + 1, fewest_states=self.fewest_states)
        check_at_least(self.most_edges, fewest_letters=self.fewest_letters)
        if self.most_letters > self.symbols:
            raise UserError(
                f"most_letters must be at most symbols {self.symbols}, but is "
                f"{self.most_letters}: give fewer"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Automata:
    """N minimal automata in their canonical form; state 0 begins.

    Attributes:
        edges: int16 [N, states, symbols], the next state, or NONE; states that an
            automaton does not have are all NONE.
    """

    edges: np.ndarray

    def __len__(self) -> int:
        return len(self.edges)

    @functools.cached_property
    def legal(self) -> np.ndarray:
        """Which symbols may come next, bool [N, states, symbols]."""
        return self.edges != NONE

    @functools.cached_property
    def degree(self) -> np.ndarray:
        """How many symbols may come next, [N, states]."""
        return self.legal.sum(axis=2)

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """Of each next symbol, float64 [N, states, symbols]; sums to 1, or 0."""
        return self.legal / np.maximum(self.degree, 1)[:, :, None]

    @functools.cached_property
    def listed(self) -> tuple[np.ndarray, np.ndarray]:
        """The legal symbols of each state and where they lead, [N, states, edges]."""
        width = int(self.degree.max(initial=1))
        symbol = np.argsort(~self.legal, axis=2, kind="stable")[:, :, :width]
        return symbol, np.take_along_axis(self.edges, symbol, axis=2)

    def sha256(self) -> str:
        """Hash of the automata."""
        return hashlib.sha256(self.edges.astype("<i2").tobytes()).hexdigest()


def draw_automata(family: Family) -> tuple[Automata, Automata]:
    """Draw automata to train on and to test on, all with different languages.

    Each is drawn, trimmed to the states that can be reached, minimised and brought to
    its canonical form; one whose form has come before is drawn again. Two minimal
    automata have the same language if and only if their canonical forms are equal.

    Returns:
        The training automata, and the test automata.

    Raises:
        UserError: the family has too few languages.

    Source: Akyürek et al. 2024, arXiv 2401.12973, and its code's generator. Trimming
    and minimising may leave fewer states than were drawn, and merged states may give an
    edge back to its own state; such automata are kept.
    """
    wanted = family.training + family.test
    found: dict[bytes, np.ndarray] = {}
    first, fruitless = 0, 0
    while len(found) < wanted:
        before = len(found)
        rows = wanted - before + 64
        for form in canonical_forms(_draw(family, first, rows)):
            found.setdefault(form.tobytes(), form)
        first += rows
        fruitless = fruitless + 1 if len(found) == before else 0
        if fruitless == 20:
            raise UserError(
                f"{wanted} automata with different languages are wanted, but only "
                f"{len(found)} were found: ask for fewer, or give more states or "
                "letters"
            )
    forms = np.stack(list(found.values())[:wanted])
    return Automata(forms[: family.training]), Automata(forms[family.training :])


def _draw(family: Family, first: int, rows: int) -> np.ndarray:
    """Random automata as drawn, int16 [N, states, symbols]; state 0 begins.

    Each state gets its edges with different letters and to different other states.
    """
    states, symbols, most = family.most_states, family.symbols, family.most_edges
    counts = (2, symbols, states, states * most, states * most)
    every = uniforms("automata", family.seed, 0, first, rows, sum(counts))
    sizes, order, degrees, letters, targets = np.split(
        every, np.cumsum(counts)[:-1], axis=1
    )
    state_count = integers(sizes[:, 0], family.fewest_states, family.most_states)
    letter_count = integers(sizes[:, 1], family.fewest_letters, family.most_letters)
    alphabet = without_replacement(order, symbols)
    degree = integers(degrees, 1, most)  # [N, states]
    letter = _different(letters.reshape(rows, states, -1), letter_count)
    target = _different(targets.reshape(rows, states, -1), state_count - 1)
    target += target >= np.arange(states)[:, None]  # every state but its own
    edges = np.full((rows, states, symbols), NONE, np.int16)
    row, state, edge = np.nonzero(
        (np.arange(most) < degree[:, :, None])
        & (np.arange(states)[:, None] < state_count[:, None, None])
    )
    edges[row, state, alphabet[row, letter[row, state, edge]]] = target[
        row, state, edge
    ]
    return edges


def _different(uniform: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Different integers from 0 to ``count - 1`` along the last axis.

    Args:
        uniform: [N, S, E], in [0, 1).
        count: [N], each E or more.

    Returns:
        int64 [N, S, E].
    """
    drawn = np.empty(uniform.shape, np.int64)
    for place in range(uniform.shape[2]):
        left = count[:, None] - place
        value = (uniform[:, :, place] * left).astype(np.int64)  # rank among those left
        for taken in np.moveaxis(np.sort(drawn[:, :, :place], axis=2), 2, 0):
            value += value >= taken
        drawn[:, :, place] = value
    return drawn


def canonical_forms(edges: np.ndarray) -> np.ndarray:
    """Trim and minimise automata and number their states in one way.

    States are numbered as a search in breadth meets them, from state 0 on, symbols in
    their order.

    Args:
        edges: int [N, states, symbols], the next state or NONE.

    Returns:
        int16 of the same shape.
    """
    same = equivalent_states(edges)
    member = same.argmax(axis=2)  # the first state that each is equivalent to
    forms = np.full(edges.shape, NONE, np.int16)
    symbols = [
        [np.flatnonzero(row != NONE).tolist() for row in automaton]
        for automaton in edges
    ]
    for n in range(len(edges)):
        numbers = {int(member[n, 0]): 0}
        queue = [int(member[n, 0])]
        for state in queue:  # grows while it is read
            for symbol in symbols[n][state]:
                target = int(member[n, edges[n, state, symbol]])
                if target not in numbers:
                    numbers[target] = len(numbers)
                    queue.append(target)
                forms[n, numbers[state], symbol] = numbers[target]
    return forms


def equivalent_states(edges: np.ndarray) -> np.ndarray:
    """Which states accept the same strings, by refinement until nothing changes.

    Two states are told apart if one has an edge that the other lacks, or if the same
    symbol leads to states that are told apart.

    Args:
        edges: int [N, states, symbols], the next state or NONE.

    Returns:
        bool [N, states, states].
    """
    legal = edges != NONE
    same = (legal[:, :, None] == legal[:, None]).all(axis=3)
    # Equal sets of symbols: the k-th symbols of two states are the same symbol.
    width = max(int(legal.sum(axis=2).max(initial=0)), 1)
    symbol = np.argsort(~legal, axis=2, kind="stable")[:, :, :width]
    target = np.take_along_axis(edges, symbol, axis=2)  # [N, states, width]
    missing = target == NONE
    target = np.where(missing, 0, target)
    row = np.arange(len(edges))[:, None, None]
    while True:
        finer = same.copy()
        for k in range(width):
            led = same[row, target[:, :, None, k], target[:, None, :, k]]
            finer &= led | missing[:, :, None, k]
        if (finer == same).all():
            return same
        same = finer
