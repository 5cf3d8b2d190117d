"""How fast the shared-prefix engine is, against whole forwards and against the limit.

    python benchmarks/run.py            # make bench
    python benchmarks/run.py --all      # the loop over every head, not a sample of them

Everything is measured in one process, interleaved, and told as medians and ratios: the
machine's speed drifts, the ratios do not. The model is the default one, the prompts are
real 10-shot prompts, padded as the studies pad them.
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
from timing import machine, matmul, median_seconds, print_rows

import jaxheads as jh
from jaxheads.engine import plan
from jaxheads.icl.prompts import build_prompts, encode_prompts
from jaxheads.icl.tasks import load_task
from jaxheads.studies.context import PROMPT_MULTIPLE

PROMPTS, SUBSETS = 8, 32


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description="How fast the shared-prefix engine is."
    )
    parser.add_argument("--all", action="store_true", help="loop over every head")
    parser.add_argument("--task", default="english-spanish", help="of the prompts")
    chosen = parser.parse_args()

    model = jh.load()
    params, config = model.params, model.config
    layers, heads = config.num_layers, config.num_heads
    prompts = build_prompts(load_task(chosen.task), PROMPTS, 10, seed=0)
    batch = encode_prompts(
        prompts, model.require_tokenizer(), bos=False, multiple=PROMPT_MULTIPLE
    )
    tokens, lengths, targets = map(
        jnp.asarray, (batch.tokens, batch.lengths, batch.targets)
    )
    length = tokens.shape[1]
    shape = (layers, heads, config.head_dim)
    fill = 0.5 * jax.random.normal(jax.random.key(0), shape)
    last = jnp.arange(length)[None] == lengths[:, None] - 1

    @jax.jit
    def one_head(params, keep, fill):
        """The naive way: a whole forward with one head replaced."""
        ablation = jh.Ablation(keep, fill, last)
        out = jh.forward(
            params, tokens, config, lengths=lengths, ablation=ablation, logits="last"
        )
        return jh.probability(out.logits, targets)

    clean = jax.jit(
        lambda params: (
            jh.forward(params, tokens, config, lengths=lengths, logits="last").logits
        )
    )
    prefill = functools.partial(jh.prefill, params, tokens, lengths, config)
    prefix = prefill()
    sweep = functools.partial(jh.patch_each_head, params, prefix, fill, targets, config)
    subsets = (
        jax.random.uniform(jax.random.key(1), (SUBSETS, *shape[:2])) > 0.05
    ) * 1.0

    @jax.jit
    def last_position(params, prefix, keeps, fill):
        run = lambda keep: jh.last_token_logits(
            params, prefix, config, jh.Ablation(keep, fill)
        )
        return jax.vmap(run)(keeps)

    ones = jnp.ones(shape[:2])
    product, product_flops = matmul(
        PROMPTS * heads * layers, config.width, config.mlp_width
    )
    naive_s, forward_s, prefill_s, sweep_s, subsets_s, product_s = median_seconds(
        lambda: one_head(params, ones.at[layers // 2, 0].set(0), fill),
        lambda: clean(params),
        prefill,
        sweep,
        lambda: last_position(params, prefix, subsets, fill),
        product,
    )
    everything = [(l, h) for l in range(layers) for h in range(heads)]
    looped = everything if chosen.all else everything[:: len(everything) // 12]
    effects, base = (
        np.asarray(sweep()),
        np.asarray(jh.probability(prefix.logits, targets)),
    )
    start = time.perf_counter()
    expected = np.stack(
        [one_head(params, ones.at[l, h].set(0), fill) - base for l, h in looped]
    )
    loop_s = (time.perf_counter() - start) / len(looped)
    found = np.stack([effects[l, h] for l, h in looped])
    rate = product_flops / product_s
    sweep_flops = PROMPTS * plan.every_head(config, length).flops
    exact_s = prefill_s + sweep_s
    naive_total = len(everything) * min(naive_s, loop_s)

    print(f"{machine()}, float32")
    print(
        f"{model.provenance.source}: {layers} layers x {heads} heads; {PROMPTS} prompts"
    )
    print(f"of {lengths.min()} to {lengths.max()} tokens, padded to {length}")
    rows = [
        ("float32 matrix product", f"{rate / 1e9:.0f} GFLOP/s", ""),
        ("whole forward, 8 prompts", f"{forward_s:.3f} s", ""),
        (
            f"all {len(everything)} heads, one forward each",
            f"{naive_total:.1f} s",
            "looped" if chosen.all else f"from {len(looped)} heads and the median run",
        ),
        (
            "all heads, shared prefix",
            f"{exact_s:.3f} s",
            f"of which prefill {prefill_s:.3f} s",
        ),
        ("    times faster", f"{naive_total / exact_s:.0f}", "aim 100"),
        (
            "    largest difference",
            f"{np.abs(found - expected).max():.1e}",
            f"aim 5e-6; largest effect {np.abs(expected).max():.2f}",
        ),
        (
            "    sweep's share of the matrix product rate",
            f"{sweep_flops / sweep_s / rate:.2f}",
            "aim 0.75",
        ),
        (
            "one more subset, of a prompt's forward",
            f"1/{forward_s * SUBSETS / subsets_s:.0f}",
            "aim 1/40",
        ),
    ]
    print_rows(rows)


if __name__ == "__main__":
    main()
