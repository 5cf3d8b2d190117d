"""The size of what a head can write: a whole score, as one is added."""

import numpy as np

from jaxheads.engine import plan
from jaxheads.heads import HeadScores
from jaxheads.scores.part import Part


def head_scores(norms):
    """Norms of the heads' output matrices, [L, H]."""
    return HeadScores(
        "output_norm",
        norms,
        np.zeros_like(norms),
        definition="Frobenius norm of the head's output matrix",
        unit="activation",
        chance=0.0,
        ceiling=float("inf"),
        source="none",
    )


def described(chosen, shots):
    return [head_scores(np.ones((1, 1)))]


def parts(names, asked):
    def measure(params, config, budget_bytes, known):
        weights = np.asarray(params.layers.wo)  # [L, H, K, D]
        return {"norms": np.linalg.norm(weights, axis=(-2, -1))}

    return [
        Part(
            "output_norm",
            {},
            lambda config: plan.Cost(flops=1.0),
            lambda *_: [],
            measure,
            lambda measured: [head_scores(measured["norms"])],
        )
    ]
