"""Ten thousand subsets of heads, and every head at every position.

    python benchmarks/sweeps.py               # make bench-sweeps; about 10 minutes
    python benchmarks/sweeps.py --subsets 1000

The default model. Random subsets of a twentieth of the heads are replaced at the last
position of 16 real 10-shot prompts; then each head alone at every position of two
sequences. Rates are against a float32 matrix product of the subsets' own shape,
measured in between.
"""

import argparse
import resource
import statistics

import jax
import jax.numpy as jnp
import numpy as np
from timing import machine, matmul, median_seconds, print_rows, wall_seconds

import jaxheads as jh
from jaxheads.engine import plan, sweeps
from jaxheads.heads import singles
from jaxheads.icl.prompts import build_prompts, encode_prompts
from jaxheads.icl.tasks import load_task
from jaxheads.studies.context import PROMPT_MULTIPLE

BUDGET = 2 * 10**9


def peak_gb() -> float:
    """Most memory that this process has held, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def last_position(model, count: int, prompts: int) -> list[tuple[str, str, str]]:
    """Many random subsets at the last position."""
    params, config = model.params, model.config
    drawn = build_prompts(load_task("english-spanish"), prompts, 10, seed=0)
    batch = encode_prompts(
        drawn, model.require_tokenizer(), bos=False, multiple=PROMPT_MULTIPLE
    )
    rng = np.random.default_rng(0)
    shape = (config.num_layers, config.num_heads)
    fill = (0.5 * rng.normal(size=(*shape, config.head_dim))).astype(np.float32)
    chunk = sweeps.subset_chunk(config, prompts, 1, BUDGET)
    product, product_flops = matmul(chunk * prompts, config.width, config.mlp_width)
    median_seconds(product)
    rates: list[float] = []

    def run(number: int) -> np.ndarray:
        replaced = rng.random((number, *shape)) < 0.05
        return sweeps.metric_under_subsets(
            params, batch.tokens, batch.lengths, batch.targets, config, replaced, fill,
            chunk=chunk,
        )  # fmt: skip

    run(chunk)  # compile
    parts = 10
    run(max(1, count // parts))
    before, seconds = peak_gb(), []
    for _ in range(parts):  # with the matrix product's rate in between
        seconds.append(wall_seconds(lambda: run(count // parts)))
        product_s = statistics.median(wall_seconds(product) for _ in range(20))
        rates.append(product_flops / product_s)
    length = batch.tokens.shape[1]
    flops = count // parts * prompts * plan.step(config, length).flops
    prefix = prompts * plan.sequence(config, length).flops
    shares = [
        (flops + prefix) / s / rate for s, rate in zip(seconds, rates, strict=True)
    ]
    total = sum(seconds)
    return [
        (
            f"{count} subsets x {prompts} prompts, last position",
            f"{total:.0f} s",
            f"{total / count / prompts * 1e3:.2f} ms each, {chunk} subsets at once",
        ),
        (
            "    share of the matrix-product rate",
            f"{statistics.median(shares):.2f}",
            f"aim 0.75; the product {statistics.median(rates) / 1e9:.0f} GFLOP/s",
        ),
        (
            "    memory that more subsets took",
            f"{peak_gb() - before:.2f} GB",
            f"aim 0; peak {peak_gb():.1f} GB, from {count // parts} subsets on",
        ),
    ]


def every_position(model, rows: int, length: int) -> list[tuple[str, str, str]]:
    """Each head alone, replaced at every position of sequences."""
    params, config = model.params, model.config
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, config.vocab_size, (rows, length)).astype(np.int32)
    at = np.full((rows, 1), length - 1)
    targets = rng.integers(0, config.vocab_size, (rows, 1))
    given = [jnp.asarray(values) for values in (tokens, at, targets)]
    shape = (config.num_layers, config.num_heads)
    fill = (0.5 * rng.normal(size=(*shape, config.head_dim))).astype(np.float32)
    chunk = sweeps.subset_chunk(config, rows, length, BUDGET)

    @jax.jit
    def one(params, keep, fill):
        """The naive way: an independent forward, the same positions unembedded."""
        ablation = jh.Ablation(keep, fill)
        tokens, at, targets = given
        out = jh.forward(params, tokens, config, ablation=ablation, logits=at)
        return jh.log_probability(out.logits, targets)

    heads = singles(np.ones(shape, bool))
    sweep = lambda: sweeps.sweep_under_subsets(
        params, tokens, config, heads, fill, at, targets, chunk=chunk
    )
    looped = heads[:: len(heads) // 18]
    keeps = [jnp.asarray(1.0 - subset, jnp.float32) for subset in looped]
    loop = lambda: [one(params, keep, fill) for keep in keeps]
    expected, found = np.stack(loop()), sweep()[:: len(heads) // 18]
    ratios = []
    for _ in range(3):  # in turn: half of the loop, the sweep, the other half
        first = wall_seconds(loop)
        fast = wall_seconds(sweep)
        slow = (first + wall_seconds(loop)) / 2 * len(heads) / len(looped)
        ratios.append((slow / fast, slow, fast))
    ratio, slow, fast = statistics.median(ratios)
    return [
        (
            f"{len(heads)} heads, each alone at all {length} positions of {rows} rows",
            f"{slow:.0f} s",
            f"one forward each, from {len(looped)} heads",
        ),
        ("    resumed at the head's layer", f"{fast:.0f} s", f"{chunk} heads at once"),
        ("    times faster", f"{ratio:.2f}", "aim 1.9"),
        (
            "    largest difference, nats",
            f"{np.abs(found - expected).max():.1e}",
            f"largest effect {np.abs(expected - expected.mean(0)).max():.2f}",
        ),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Sweeps over subsets of heads.")
    parser.add_argument("--subsets", type=int, default=10_000)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--rows", type=int, default=2, help="of all positions")
    parser.add_argument("--length", type=int, default=128, help="of all positions")
    chosen = parser.parse_args()
    model = jh.load()
    print(f"{machine()}, float32; {model.provenance.source}")
    print_rows(every_position(model, chosen.rows, chosen.length))
    print_rows(last_position(model, chosen.subsets, chosen.prompts))


if __name__ == "__main__":
    main()
