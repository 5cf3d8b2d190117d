"""Exact effects beside estimates: of the top heads, and of a sample of the rest."""

import dataclasses
from collections.abc import Callable

import numpy as np

from jaxheads.errors import UserError
from jaxheads.heads import top
from jaxheads.runs.finite import plain
from jaxheads.statistics import spearman

Effects = Callable[[np.ndarray], np.ndarray]
"""Subsets bool [N, L, H], True where a head is replaced, to exact effects [N]."""


@dataclasses.dataclass(frozen=True, eq=False)
class Verified:
    """Estimated effects of all heads and exact ones of some.

    Attributes:
        estimate: float [L, H].
        exact: float [L, H], NaN where a head was not verified.
        top: bool [L, H], the heads with the largest estimates, all verified.
        sample: bool [L, H], drawn from the others.
        rank_agreement: Spearman's correlation of estimates and exact effects over the
            verified heads; NaN if one of them is constant.
        sign_agreement: share of verified heads whose estimate has the exact one's sign,
            weighted by the exact effect's size; NaN for magnitudes.
        worst_miss: largest exact effect, by size, in the sample: what the estimate
            ranked below its top.
        worst_miss_head: (layer, head) of it.
        missed: sampled heads that are among the k largest exact effects, by size, of
            all verified heads, with k heads in the top.
        bound: with 95 % confidence no larger a share of the heads outside the top has
            a larger effect than ``worst_miss``.
    """

    estimate: np.ndarray
    exact: np.ndarray
    top: np.ndarray
    sample: np.ndarray
    rank_agreement: float
    sign_agreement: float
    worst_miss: float
    worst_miss_head: tuple[int, int]
    missed: int
    bound: float

    def describe(self) -> dict:
        """Everything but the arrays, ready for JSON; None for NaN."""
        fields = ("rank_agreement", "sign_agreement", "worst_miss", "missed", "bound")
        told = {name: getattr(self, name) for name in fields}
        return plain(told | {"worst_miss_head": self.worst_miss_head})


def verify(
    estimate: np.ndarray,
    effects: Effects,
    top_k: int,
    sample: int,
    seed: int,
    *,
    signed: bool = True,
) -> Verified:
    """Compute the exact effects of the top heads and of a random sample of the rest.

    Args:
        estimate: float [L, H]; the top is taken by size.
        effects: runs each head alone, exactly.
        top_k: heads with the largest estimates that are verified.
        sample: others that are verified.
        seed: of the sample.
        signed: whether estimates have a sign; if not, sizes are compared.

    Raises:
        UserError: nothing to verify, or more heads than there are.
    """
    if top_k < 1 or sample < 1 or top_k + sample > estimate.size:
        raise UserError(
            "to verify takes one head or more in the top and in the sample, together "
            f"no more than the model's {estimate.size}, not {top_k} and {sample}"
        )
    first = top(np.abs(estimate), top_k)
    rest = np.flatnonzero(~first)
    rng = np.random.default_rng([seed, 6])
    drawn = np.zeros(estimate.size, bool)
    drawn[rng.choice(rest, sample, replace=False)] = True
    drawn = drawn.reshape(estimate.shape)
    heads = np.flatnonzero(first | drawn)
    singles = np.zeros((len(heads), estimate.size), bool)
    singles[np.arange(len(heads)), heads] = True
    found = np.asarray(effects(singles.reshape(-1, *estimate.shape)), np.float64)
    exact = np.full(estimate.size, np.nan)
    exact[heads] = found
    exact = exact.reshape(estimate.shape)
    guesses, sizes = estimate.reshape(-1)[heads], np.abs(found)
    miss = np.abs(np.where(drawn, exact, np.nan))
    head = np.unravel_index(int(np.nanargmax(miss)), exact.shape)
    return Verified(
        estimate=estimate,
        exact=exact,
        top=first,
        sample=drawn,
        rank_agreement=spearman(guesses, found if signed else sizes),
        sign_agreement=(
            float(sizes[np.sign(guesses) == np.sign(found)].sum() / sizes.sum())
            if signed and sizes.any()
            else float("nan")
        ),
        worst_miss=float(exact[head]),
        worst_miss_head=(int(head[0]), int(head[1])),
        missed=int((drawn & top(np.nan_to_num(np.abs(exact), nan=-1), top_k)).sum()),
        # The sample's largest is below a share q of the others with chance (1 - q)^s.
        bound=float(1 - 0.05 ** (1 / sample)),
    )
