"""How many heads can a model lose before it stops learning in context?

    python examples/vectorised_ablation.py [SOURCE]

Random sets of heads are replaced by their mean outputs where a few-shot prompt ends.
The prompts run once; `jax.vmap` over `keep` [N, L, H] runs all sets of a size from
there, exactly, each at the cost of one token.

Paper: Yin & Steinhardt 2025 (arXiv 2502.14010), the controls of its ablations.
"""

import sys

import jax
import numpy as np

import jaxheads as jh
from jaxheads import heads
from jaxheads.icl import prompts, tasks
from jaxheads.statistics import units

model = jh.load(*sys.argv[1:])
params, config = model.params, model.config
drawn = prompts.build_prompts(tasks.load_task("antonym"), 16, shots=10, seed=0)
queries = prompts.query_numbers(drawn)  # prompts that ask the same are one sample
batch = prompts.encode_prompts(drawn, model.require_tokenizer(), bos=False)
prefix = jh.prefill(params, batch.tokens, batch.lengths, config)
means = prefix.heads.mean(axis=1)  # [L, B, H, K] -> [L, H, K]


def answer(keep: jax.Array) -> jax.Array:
    """Probability of the right answers: keep [L, H] -> [B]."""
    logits = jh.last_token_logits(params, prefix, config, jh.Ablation(keep, means))
    return jh.probability(logits, batch.targets)


rng = np.random.default_rng(0)
print("p(answer): mean [95 % over queries], and of the worst and the best of 32 sets")
for share in (0, 0.05, 0.1, 0.2, 0.4, 0.8):
    count = heads.count_of(share, config.num_layers * config.num_heads)
    shape = (config.num_layers, config.num_heads)
    replaced = np.stack([heads.uniform(rng, shape, count) for _ in range(32)])
    p = np.asarray(jax.vmap(answer)(1 - replaced.astype(np.float32)))  # [N, B]
    found = units.estimate(p.mean(axis=0), queries, bounds=units.ANSWERS)
    mean, low, high = found.interval()
    print(f"{count:4} heads {mean:.3f} [{low:.3f}, {high:.3f}]", end="  ")
    print(f"{p.mean(axis=1).min():.3f} to {p.mean(axis=1).max():.3f}")
