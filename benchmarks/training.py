"""How fast training is, against the matrix-product rate and against runs in turn.

    python benchmarks/training.py

Everything is measured in one process, in turn, and told as medians and ratios: the
machine's speed drifts, the ratios do not.
"""

import argparse
import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
from timing import Run, machine, matmul, median_seconds, print_rows

from jaxheads.models import toy
from jaxheads.training.config import TrainConfig
from jaxheads.training.objectives import kept_targets
from jaxheads.training.state import Batch, init_state, place_batch
from jaxheads.training.step import _step, make_step

VOCABULARY, LENGTH, BATCH = 5000, 512, 8


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How fast training is.")
    parser.add_argument("--repeats", type=int, default=5, help="of every timing")
    repeats = parser.parse_args().repeats
    print(machine())
    for name, mlp_width in (("attention only", 0), ("with MLP", 3072)):
        print_rows(against_matmul(name, mlp_width, repeats))
    print_rows(objectives(repeats))
    print_rows(seeds_at_once(repeats))
    print_rows(whole_runs())


def against_matmul(name: str, mlp_width: int, repeats: int) -> list:
    """A step of two layers of width 768, and its FLOPs at the rate of a product."""
    config = TrainConfig(batch_size=BATCH)
    sizes = toy.Config(2, 768, 12, 64, VOCABULARY, LENGTH, mlp_width)
    product, flops = matmul(BATCH * LENGTH, 768, 768)
    step, alone = median_seconds(
        training(config, sizes, LENGTH), product, repeats=repeats
    )
    needed = step_flops(sizes, BATCH, LENGTH) * alone / flops
    tokens = BATCH * LENGTH / step
    return [
        (
            f"{name}: step's share of the product rate",
            f"{needed / step:.2f}",
            f"{step:.2f} s a step, {tokens:,.0f} tokens/s; products "
            f"{flops / alone / 1e9:.0f} GFLOP/s",
        )
    ]


def objectives(repeats: int) -> list:
    """What the masks cost, of a step of the attention-only model."""
    config = TrainConfig(batch_size=BATCH)
    sizes = toy.Config(2, 768, 12, 64, VOCABULARY, LENGTH)
    batch = random_batch(config, VOCABULARY, LENGTH)
    tokens, scored = jnp.asarray(batch.tokens[0]), jnp.asarray(batch.scored[0])
    embedding = jax.random.normal(jax.random.key(0), (VOCABULARY, 768))
    names = ("hapax", "hapax-thresholded", "offset", "repeat")
    compiled = jax.jit(
        lambda name, *given: kept_targets(name, *given), static_argnums=0
    )  # tokens and embedding are arguments: as constants they would be computed before
    masks = [
        functools.partial(compiled, name, tokens, None, scored, embedding)
        for name in names
    ]
    step, *times = median_seconds(
        training(config, sizes, LENGTH), *masks, repeats=repeats
    )
    return [
        (f"{name}: mask, of a step", f"{seconds / step:.2%}", f"{seconds * 1e3:.1f} ms")
        for name, seconds in zip(names, times, strict=True)
    ]


def seeds_at_once(repeats: int, seeds: int = 8, steps: int = 20) -> list:
    """Steps of several seeds of a small model in one program, and one by one."""
    sizes = toy.Config(2, 64, 4, 16, 64, 64)
    alone = TrainConfig(batch_size=16)
    together = dataclasses.replace(alone, seeds=seeds)
    once = training(together, sizes, 64, steps)
    single = training(alone, sizes, 64, steps)
    one, each = median_seconds(once, single, repeats=repeats)
    return [
        (
            f"{seeds} seeds in one program, times faster than one by one",
            f"{seeds * each / one:.2f}",
            f"{one / steps * 1e3:.1f} ms and {seeds} x {each / steps * 1e3:.1f} ms",
        )
    ]


def whole_runs(seeds: int = 8, steps: int = 300) -> list:
    """The same from nothing: programs compiled, and so many steps made."""
    sizes = toy.Config(2, 64, 4, 16, 64, 64)
    alone = TrainConfig(batch_size=16)

    def seconds(config: TrainConfig) -> float:
        jax.clear_caches()
        _step.cache_clear()
        start = time.perf_counter()
        jax.block_until_ready(training(config, sizes, 64, steps)())
        return time.perf_counter() - start

    one = seconds(dataclasses.replace(alone, seeds=seeds))
    each = [seconds(dataclasses.replace(alone, seed=seed)) for seed in range(2)]
    mean = sum(each) / len(each)
    return [
        (
            f"... from nothing to step {steps}, compilation included",
            f"{seeds * mean / one:.2f}",
            f"{one:.1f} s and {seeds} x {mean:.1f} s",
        )
    ]


def training(config: TrainConfig, sizes, length: int, steps: int = 1) -> Run:
    """Steps that go on from where the last call stopped."""
    step = make_step(config, sizes)
    state = init_state(config, sizes)
    batch = place_batch(random_batch(config, sizes.vocab_size, length), config, None)

    def run():
        nonlocal state
        metrics = None
        for _ in range(steps):
            state, metrics = step(state, batch)
        return metrics

    return run


def random_batch(config: TrainConfig, vocabulary: int, length: int) -> Batch:
    """Random tokens for every seed."""
    rng = np.random.default_rng(0)
    shape = (config.seeds, config.batch_size, length)
    tokens = rng.integers(0, vocabulary, (*shape[:2], length + 1)).astype(np.int32)
    return Batch(tokens, None, np.ones(shape, bool))  # type: ignore[arg-type]


def step_flops(sizes, batch: int, length: int) -> float:
    """Of the products forward and backward: 2 and 4 for each weight and token.

    Attention counts as it is computed, all keys for every query.
    """
    d, f, layers = sizes.width, sizes.mlp_width, sizes.num_layers
    inner = sizes.num_heads * sizes.head_dim
    weights = layers * (4 * d * inner + 2 * d * f) + d * sizes.vocab_size
    scores = layers * 2 * length * inner
    return 6.0 * batch * length * (weights + scores)


if __name__ == "__main__":
    main()
