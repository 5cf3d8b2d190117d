"""What heads do together: interactions of pairs, Shapley values.

Pure algorithms on the value of prompts under subsets of heads, as are the searches of
``greedy``. Each asks for all of its subsets in one batch, so that an engine can run
them together. C: heads of a universe.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from jaxheads.errors import UserError
from jaxheads.heads import head_name, order, parse_heads, top
from jaxheads.statistics.units import mean_and_error

Evaluate = Callable[[np.ndarray], np.ndarray]
"""Replaced heads, bool [N, L, H] -> the value of every prompt, float [N, B]."""

SIGN = (
    "interaction(i, j) = m(ij replaced) - m(i) - m(j) + m(none). Positive: the losses "
    "overlap, together they cost less than the sum of both, as where each head needs "
    "the other (complements: redundant effects). Negative: the losses compound, "
    "together they cost more, as where either head can stand in for the other "
    "(substitutes: redundant heads, backups)."
)


class Memo:
    """An evaluator that runs each different subset once.

    Attributes:
        asked: subsets that were asked for.
        evaluated: different ones, which were run.
    """

    def __init__(self, evaluate: Evaluate):
        self._evaluate = evaluate
        self._known: dict[bytes, np.ndarray] = {}
        self.asked = 0

    @property
    def evaluated(self) -> int:
        """Different subsets so far."""
        return len(self._known)

    def __call__(self, replaced: np.ndarray) -> np.ndarray:
        """Values [N, B] of subsets bool [N, L, H]; the unknown run as one batch."""
        packed = np.packbits(replaced.reshape(len(replaced), -1), axis=1)
        names = [row.tobytes() for row in packed]
        unknown: dict[bytes, int] = {}
        for row, name in enumerate(names):
            if name not in self._known:
                unknown.setdefault(name, row)
        if unknown:
            made = self._evaluate(replaced[list(unknown.values())])
            self._known.update(zip(unknown, made, strict=True))
        self.asked += len(names)
        return np.stack([self._known[name] for name in names])


def choose_heads(
    shape: tuple[int, int], names: Sequence[str], ranking: np.ndarray, count: int
) -> np.ndarray:
    """Heads by name, or else the top of a ranking, best first: int [C, 2].

    Args:
        shape: (L, H) of the model.
        names: such as "20.5"; empty: the top of the ranking.
        ranking: float [L, H].
        count: of its top heads.

    Raises:
        UserError: fewer than two heads, one that the model has not, or more than it
            has.
    """
    if names:
        chosen = np.argwhere(parse_heads(names, shape))
    else:
        top(ranking, count)  # refuses more heads than there are
        chosen = np.stack(np.unravel_index(order(ranking)[:count], shape), axis=1)
    if len(chosen) < 2:
        raise UserError(
            f"how heads work together needs two or more, not {len(chosen)}: name more "
            "with --redundancy.heads, or raise --redundancy.top"
        )
    return chosen


@dataclasses.dataclass(frozen=True, eq=False)
class Universe:
    """The heads that are kept or replaced one by one, and what happens to the others.

    Attributes:
        heads: int [C, 2], layer and head of each.
        shape: (L, H) of the model.
        others: whether the heads outside are "kept" or "replaced".

    Raises:
        UserError: there is no head.
    """

    heads: np.ndarray
    shape: tuple[int, int]
    others: Literal["kept", "replaced"] = "kept"

    def __post_init__(self):
        if len(self.heads) == 0:
            raise UserError("a universe of heads needs one or more, but has none")

    def __len__(self) -> int:
        return len(self.heads)

    @property
    def names(self) -> list[str]:
        """Each head as "layer.head"."""
        return [head_name(layer, head) for layer, head in self.heads.tolist()]

    def replaced(self, kept: np.ndarray) -> np.ndarray:
        """Subsets of the universe in the model: kept bool [N, C] -> bool [N, L, H]."""
        full = np.full((len(kept), *self.shape), self.others == "replaced")
        full[:, self.heads[:, 0], self.heads[:, 1]] = ~kept
        return full


def over_prompts(
    values: np.ndarray, queries: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean over prompts and its standard error over queries within tasks.

    Args:
        values: [..., B], the tasks one after another, all of one size.
        queries: int [E, B / E], prompts of a task with one number ask one query; tasks
            are taken as given, not as a sample. None: of one task, each its own query.

    Returns:
        Two [...]; the error is NaN of a single prompt.
    """
    shape = (1, values.shape[-1]) if queries is None else queries.shape
    return mean_and_error(values.reshape(*values.shape[:-1], *shape), queries)


@dataclasses.dataclass(frozen=True, eq=False)
class Interactions:
    """What heads cost alone and in pairs; see ``SIGN``.

    Attributes:
        clean: [B], value with the whole universe kept.
        effect: [C], m(i) - m(none), mean over prompts; negative: the value falls.
        effect_error: [C], standard error over queries.
        pair: [C, C], symmetric, the interactions; NaN on the diagonal.
        pair_error: [C, C], standard error over queries.
    """

    clean: np.ndarray
    effect: np.ndarray
    effect_error: np.ndarray
    pair: np.ndarray
    pair_error: np.ndarray


def interactions(
    evaluate: Evaluate, universe: Universe, queries: np.ndarray | None = None
) -> Interactions:
    """Exact interaction of every pair of heads, prompt by prompt, in one batch.

    ``I(i, j) = m(ij) - m(i) - m(j) + m(none)`` with m(S) the value of a prompt while
    the heads S of the universe are replaced. It is the second difference of the value
    at the unablated model, symmetric in i and j. ``SIGN`` says what its sign means. A
    value that cannot fall below 0 makes it positive where one head alone takes all.

    Args:
        evaluate: values of subsets.
        universe: two heads or more.
        queries: of prompts, see ``over_prompts``.

    Raises:
        UserError: the universe has one head.
    """
    count = len(universe)
    if count < 2:
        raise UserError(
            f"interactions need two heads or more, but only {universe.names[0]} was "
            "chosen: name another"
        )
    first, second = np.triu_indices(count, 1)
    single = ~np.eye(count, dtype=bool)
    kept = np.concatenate(
        [np.ones((1, count), bool), single, single[first] & single[second]]
    )
    values = np.asarray(evaluate(universe.replaced(kept)), np.float64)
    clean, alone, both = values[0], values[1 : 1 + count], values[1 + count :]
    effect, effect_error = over_prompts(alone - clean[None], queries)
    made = both - alone[first] - alone[second] + clean[None]  # [pairs, B]
    matrices = []
    for part in over_prompts(made, queries):
        matrix = np.full((count, count), np.nan)
        matrix[first, second] = matrix[second, first] = part
        matrices.append(matrix)
    return Interactions(clean, effect, effect_error, *matrices)


@dataclasses.dataclass(frozen=True, eq=False)
class Shapley:
    """Shapley values of the heads of a universe.

    Attributes:
        value: [C], mean over permutations and prompts.
        error: [C], standard error over permutations (over pairs of them if antithetic):
            what more permutations would take away.
        prompt_error: [C], standard error over queries: what more queries would.
        samples: [R, C], each permutation's marginal values, mean over prompts; each
            row sums to the value of all minus that of none.
        none: [B], value with the whole universe replaced.
        all: [B], value with the whole universe kept.
    """

    value: np.ndarray
    error: np.ndarray
    prompt_error: np.ndarray
    samples: np.ndarray
    none: np.ndarray
    all: np.ndarray


def shapley(
    evaluate: Evaluate,
    universe: Universe,
    permutations: int,
    seed: int,
    *,
    antithetic: bool = True,
    queries: np.ndarray | None = None,
) -> Shapley:
    """Shapley value of every head, by sampled permutations.

    ``phi(i) = E[v(those before i and i) - v(those before i)]`` over random orders of
    the universe, with v(S) the value while S is kept and the rest of the universe is
    replaced. All prefixes of all orders are one batch; a set that comes twice runs
    once. With C heads there are 2^C sets: many orders of few heads cost no more.

    Args:
        evaluate: values of subsets.
        universe: the players.
        permutations: orders to draw, 2 or more for an error.
        seed: of the orders.
        antithetic: run each order backwards too, which doubles them; a head that comes
            early in one comes late in the other, so that the mean of both varies less.
        queries: of prompts, see ``over_prompts``.

    Source: Castro, Gomez & Tejada 2009 (sampling); Mitchell et al. 2022 (antithetic
        permutations).
    """
    count = len(universe)
    rng = np.random.default_rng([seed, 5])
    orders = rng.permuted(np.tile(np.arange(count), (permutations, 1)), axis=1)
    if antithetic:
        orders = np.stack([orders, orders[:, ::-1]], axis=1).reshape(-1, count)
    places = np.argsort(orders, axis=1)  # [R, C], where each head comes
    kept = places[:, None] < np.arange(count + 1)[None, :, None]  # [R, C + 1, C]
    once = evaluate if isinstance(evaluate, Memo) else Memo(evaluate)
    values = once(universe.replaced(kept.reshape(-1, count)))
    values = np.asarray(values, np.float64).reshape(len(orders), count + 1, -1)
    gains = np.diff(values, axis=1)  # [R, C, B], by place
    gains = np.take_along_axis(gains, places[..., None], axis=1)  # by head
    samples = gains.mean(axis=-1)
    draws = samples.reshape(permutations, -1, count).mean(axis=1)  # pairs together
    value, error = over_prompts(draws.T)
    _, prompt_error = over_prompts(gains.mean(axis=0), queries)
    none, every = values[0, 0], values[0, -1]
    return Shapley(value, error, prompt_error, samples, none, every)
