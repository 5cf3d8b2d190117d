"""What makes an induction head matter: where it looks, what it reads, what it writes?

    python examples/kinds_of_ablation.py [SOURCE]

Random tokens stand there twice; the loss on the second copy says how well a model
copies. The top 2 % of heads by induction score are ablated in six ways, and beside them
as many random heads of the same layers, five draws.

Papers: attention knockout, Crosbie & Shutova 2024 (arXiv 2407.07011), section 3;
pattern-preserving ablation, Olsson et al. 2022 (arXiv 2209.11895).
"""

import sys

import numpy as np

import jaxheads as jh
from jaxheads import heads
from jaxheads.scores.induction import edges, probe
from jaxheads.scores.prefix_matching import middle_ids

model = jh.load(*sys.argv[1:])
params, config, bos = model.params, model.config, model.require_tokenizer().bos_id
ids = middle_ids(range(config.vocab_size)).tolist()
tokens = probe(6, 40, ids, bos, seed=0)  # [B, T]: 40 random tokens, twice
induction = edges(40, bos=bos is not None)  # [T, S]
knocked = np.broadcast_to(induction > 0, (6, *induction.shape))  # [B, T, S]

names = ("heads", "queries", "patterns")
clean = jh.forward(params, tokens, config, capture=names)
score = np.einsum("lbhts,ts->lh", clean.patterns, induction) / 6
# Means over the probe itself; of other prompts, BOS or positions: engine.fills.
z, q = clean.heads.mean(axis=(1, 2)), clean.queries.mean(axis=(1, 2))  # each [L, H, K]


def kinds(replaced: np.ndarray) -> dict:
    """Every kind of ablation of a set of heads [L, H]."""
    of = jh.Ablation.of
    # Under grouped queries, heads that share their values lose them together: [L, G].
    groups = replaced.reshape(len(replaced), config.num_kv_heads, -1).any(axis=-1)
    frozen = of(np.ones_like(replaced), fill=clean.patterns, site="pattern")
    return {
        "none": None,
        "output := 0": of(replaced),
        "output := mean": of(replaced, fill=z),
        "query := mean": of(replaced, fill=q, site="q"),
        "value of the group := 0": of(groups, site="v"),
        "induction edges knocked out": of(replaced, where=knocked, site="pattern"),
        "output := 0, patterns preserved": (of(replaced), frozen),
    }


def loss(ablation) -> np.ndarray:
    """Loss of the second copy's tokens but the first, nats: [B]."""
    at = np.arange(tokens.shape[1])[-39:]
    before = np.broadcast_to(at - 1, (6, 39))  # [B, P]
    out = jh.forward(params, tokens, config, ablation=ablation, logits=before)
    return -np.asarray(jh.log_probability(out.logits, tokens[:, at])).mean(axis=1)


top, rng = heads.top_fraction(score, 0.02), np.random.default_rng(0)
random = [kinds(heads.layer_matched(rng, top)) for _ in range(5)]
print(f"loss (± standard error) without {', '.join(heads.head_names(top))}; random")
for name, ablation in kinds(top).items():
    others = np.mean([loss(each[name]) for each in random], axis=0)
    told = "{:6.2f} ± {:.2f}   {:6.2f} ± {:.2f}"
    both = *heads.from_samples(loss(ablation)), *heads.from_samples(others)
    print(f"{name:32}", told.format(*both))
