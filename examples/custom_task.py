"""Which heads carry a task of your own? From pairs to function-vector effects.

    python examples/custom_task.py [SOURCE]

Prompts with right labels give each head's mean output. Where labels are shuffled, a
head that carries the task and is set to it brings the answer back: the rise of the
answer's probability is its effect. Then the leading heads together, on prompts that did
not choose them, beside as many random heads of the same layers.

Papers: Todd et al. 2024 (arXiv 2310.15213), section 2; Yin & Steinhardt 2025.
"""

import sys

import jax
import numpy as np

import jaxheads as jh
from jaxheads import heads
from jaxheads.icl import prompts, tasks

PAIRS = """gold Au, silver Ag, iron Fe, copper Cu, lead Pb, tin Sn, sodium Na, zinc Zn,
potassium K, carbon C, oxygen O, hydrogen H, helium He, neon Ne, nickel Ni, iodine I,
calcium Ca, argon Ar, lithium Li, sulfur S, chlorine Cl, silicon Si, nitrogen N"""
given, wanted = zip(*(pair.split() for pair in PAIRS.split(",")), strict=True)
task = tasks.Task("element-symbol", "abstractive", given, wanted, source="made here")
model = jh.load(*sys.argv[1:])
params, config = model.params, model.config


def run(seed: int, corrupt: str | None = None) -> tuple[jh.Prefix, np.ndarray]:
    """Draw 16 prompts of 8 shots and run them: the prefix, and the answers [B]."""
    drawn = prompts.build_prompts(task, 16, shots=8, seed=seed, corrupt=corrupt)
    batch = prompts.encode_prompts(drawn, model.require_tokenizer(), bos=False)
    return jh.prefill(params, batch.tokens, batch.lengths, config), batch.targets


means = run(seed=0)[0].heads.mean(axis=1)  # [L, B, H, K] -> [L, H, K]
shuffled, targets = run(seed=0, corrupt="derangement")
effects = jh.patch_each_head(params, shuffled, means, targets, config)  # [L, H, B]
mean, error = heads.from_samples(np.asarray(effects))
for head in heads.order(mean)[:5]:
    name = heads.head_name(*divmod(head, config.num_heads))
    print(f"{name:>6}  {mean.flat[head]:+.4f} ± {error.flat[head]:.4f}")

shuffled, targets = run(seed=1, corrupt="derangement")
top, rng = heads.top(mean, 5), np.random.default_rng(0)
random = [heads.layer_matched(rng, top) for _ in range(20)]
sets = np.stack([np.zeros_like(top), top, *random])  # bool [N, L, H]


def answer(replaced: jax.Array) -> jax.Array:
    """Probability of the right answers: bool [L, H] -> [B]."""
    ablation = jh.Ablation.of(replaced, fill=means)
    logits = jh.last_token_logits(params, shuffled, config, ablation)
    return jh.probability(logits, targets)


none, chosen, *others = jax.vmap(answer)(sets).mean(axis=1)
print(f"other prompts, labels shuffled: p(answer) {none:.3f}")
print(f"... with these five heads at their means: {chosen:.3f}")
print(
    f"... with random ones, 20 draws: {np.mean(others):.3f}, at most {max(others):.3f}"
)
