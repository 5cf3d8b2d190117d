"""N-gram head layers in plain numpy, position by position."""

import jax
import numpy as np


def looked_at(tokens, n):
    """Positions s that each t looks at, by the definition: a list of lists."""
    return [
        [
            s
            for s in range(n, t + 1)
            if t >= n - 1 and list(tokens[s - n : s]) == list(tokens[t - n + 1 : t + 1])
        ]
        for t in range(len(tokens))
    ]


def plain_embedding(params, tokens, config):
    """The stream that enters the first layer of a toy, in float64: [T] -> [T, D]."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x = [p.embedding[token] for token in tokens]
    for i, n in enumerate(config.ngram_orders):
        u = list(x)
        if config.norms:
            scale, bias = p.ngrams.norm[i], p.ngrams.norm_bias[i]
            spread = lambda y: np.sqrt(y.var() + config.norm_epsilon)
            u = [(y - y.mean()) / spread(y) * scale + bias for y in x]
        out = []
        for t, found in enumerate(looked_at(tokens, n)):
            h = np.zeros(config.width)
            for s in found:
                h += u[s] / len(found)
            out.append(x[t] + h @ p.ngrams.w_matched[i] + u[t] @ p.ngrams.w_own[i])
        x = out
    return np.stack(x)
