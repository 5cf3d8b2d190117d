"""QK trace: does a head look for keys that hold, one position on, the current token?

An induction head's keys carry what an earlier, previous-token head wrote there. With
``S`` the sum of what earlier layers' heads write, each weighted by its previous-token
score, token u's query meets the key at a position after token w with the product
``W[u, w] = (E Q)_u . (E S K)_w``. Matching means that W is large on its diagonal.

``W`` [V, V] has rank K: its trace and its eigenvalues other than 0 are those of
``K^T S^T (E^T E) Q`` [K, K].
"""

from collections.abc import Sequence

import numpy as np

from jaxheads.heads import HeadScores
from jaxheads.runs import Arrays
from jaxheads.scores import circuits
from jaxheads.scores.config import ScoresConfig
from jaxheads.scores.part import Asked, Known, Part

DEFINITIONS = ("trace", "positivity")


def matching_circuits(params, config, previous_token: np.ndarray) -> np.ndarray:
    """``K^T S^T (E^T E) Q`` of every head: float64 [L, H, K, K].

    Rotations of queries and keys are left out, and the division by sqrt(K).

    Args:
        params: of the family of ``config``.
        config: of the model.
        previous_token: [L, H], share of attention to the token before.

    Returns:
        [L, H, K, K]; zeros in the first layer, which has no earlier heads.

    Source: Olsson et al. 2022, QK eigenvalue (trace) analysis.
    """
    gram = circuits.embed_embed(params)
    written = np.zeros_like(gram)  # S
    products = []
    for maps, weights in zip(
        circuits.layers(params, config), previous_token, strict=True
    ):
        keys = written @ maps.keys  # [H, D, K]
        products.append(keys.swapaxes(-1, -2) @ (gram @ maps.queries))
        weighted = maps.values * weights[:, None, None]
        written = written + (weighted @ maps.outputs).sum(axis=0)
    return np.stack(products)


def head_scores(products: np.ndarray, definition: str = "positivity") -> HeadScores:
    """Head scores from the circuits.

    Args:
        products: [L, H, K, K], from ``matching_circuits``.
        definition: "trace", which is the paper's and grows with the weights; or
            "positivity", the trace (the sum of the eigenvalues) over the sum of the
            eigenvalues' magnitudes, by which heads of all layers can be compared.

    Source: Olsson et al. 2022, QK eigenvalue (trace) analysis; Elhage et al. 2021.
    """
    if definition not in DEFINITIONS:
        raise ValueError(f"definition must be one of {DEFINITIONS}, not {definition!r}")
    trace = definition == "trace"
    scores = np.trace(products, axis1=-2, axis2=-1)
    scores = scores if trace else circuits.positivity(products)
    return HeadScores(
        "qk_trace" if trace else "qk_positivity",
        scores,
        np.zeros_like(scores),
        definition="trace of the products of tokens' queries with keys that earlier "
        "heads write from the token before (weighted by their previous-token scores)"
        + ("" if trace else ", over the sum of the eigenvalues' magnitudes")
        + "; positions left out, the scales of norms take part; read off the weights, "
        "so without sampling error; chance: random weights, on average",
        unit="products of queries and keys"
        if trace
        else "share of eigenvalues' magnitude",
        chance=0.0,
        ceiling=float("inf") if trace else 1.0,
        source="Olsson et al. 2022, QK trace"
        + ("" if trace else "; Elhage et al. 2021"),
    )


def described(chosen: ScoresConfig, shots: int) -> list[HeadScores]:
    """The scores of one head that was never run."""
    return [head_scores(np.ones((1, 1, 1, 1)), each) for each in DEFINITIONS]


def parts(names: Sequence[str], asked: Asked) -> list[Part]:
    """What computes both scores."""

    def read(params, config, known: Known) -> Arrays:
        weights = known["previous_token"].mean
        return {"qk": matching_circuits(params, config, weights)}

    def scores(measured: Arrays) -> list[HeadScores]:
        return [head_scores(measured["qk"], each.removeprefix("qk_")) for each in names]

    return [circuits.of_weights("qk_trace", len(names), read, scores)]
