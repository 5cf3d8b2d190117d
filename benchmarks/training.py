"""How fast training is, against the matrix-product rate and against runs in turn.

    python benchmarks/training.py  # steps, masks, several seeds, whole runs
    python benchmarks/training.py --parts seeds --sizes small

Everything is measured in one process, in turn, and told as medians and ratios: the
machine's speed drifts, the ratios do not. CPU time tells the work where other programs
run on the machine as well.
"""

import argparse
import dataclasses
import functools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from timing import Run, machine, matmul, median_seconds, wall_seconds

from jaxheads.engine.devices import make_seed_mesh
from jaxheads.models import toy
from jaxheads.training.config import TrainConfig
from jaxheads.training.data.repeats import RepeatedTokens
from jaxheads.training.loop import train
from jaxheads.training.objectives import kept_targets
from jaxheads.training.side_by_side import SideBySide
from jaxheads.training.state import Batch, init_state, place_batch
from jaxheads.training.step import make_step

VOCABULARY, LENGTH, BATCH = 5000, 512, 8
SIZES = {  # width, heads, T, B of two layers of attention only
    "small": (32, 2, 64, 8),
    "middle": (64, 4, 128, 32),
    "large": (128, 4, 128, 32),
}
SEEDS = 8
Row = tuple[str, ...]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How fast training is.")
    parser.add_argument("--repeats", type=int, default=5, help="of every timing")
    parser.add_argument(
        "--parts",
        nargs="+",
        default=["product", "masks", "seeds", "runs"],
        choices=["product", "masks", "seeds", "runs"],
    )
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--steps", type=int, default=200, help="of whole runs")
    chosen = parser.parse_args()
    mesh = make_seed_mesh(None, SEEDS)
    console = Console(width=110)
    console.print(machine())
    head: Row = ("what", "share or ratio", "measured")
    if "product" in chosen.parts:
        rows = []
        for name, mlp_width in (("attention only", 0), ("with MLP", 3072)):
            rows += against_matmul(name, mlp_width, chosen.repeats)
        show(console, "A step of 2 layers of width 768", head, rows)
    if "masks" in chosen.parts:
        show(console, "Masks, of such a step", head, masks(chosen.repeats))
    title = f"{SEEDS} seeds in one program, times faster than {SEEDS} "
    head = ("size", "how", "wall", "CPU time", "measured")
    if "seeds" in chosen.parts:
        rows = [
            row
            for size in chosen.sizes
            for row in seeds_at_once(size, mesh, chosen.repeats)
        ]
        show(console, title + "programs: steps", head, rows)
    if "runs" in chosen.parts:
        rows = [
            row for size in chosen.sizes for row in whole_runs(size, mesh, chosen.steps)
        ]
        show(console, title + f"runs of `train`: {chosen.steps} steps", head, rows)


def show(console: Console, title: str, head: Row, rows: list[Row]) -> None:
    """One table."""
    table = Table(title=title, title_justify="left")
    for name in head:
        table.add_column(name)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def against_matmul(name: str, mlp_width: int, repeats: int) -> list[Row]:
    """A step of two layers of width 768, and its FLOPs at the rate of a product."""
    config = TrainConfig(batch_size=BATCH)
    sizes = toy.Config(2, 768, 12, 64, VOCABULARY, LENGTH, mlp_width)
    product, flops = matmul(BATCH * LENGTH, 768, 768)
    step, alone = median_seconds(
        training(config, sizes, LENGTH), product, repeats=repeats
    )
    rate = flops / alone
    share = step_flops(sizes, BATCH, LENGTH) / step / rate
    tokens = BATCH * LENGTH / step
    note = f"{step:.2f} s, {tokens:,.0f} tokens/s; products {rate / 1e9:.0f} GFLOP/s"
    return [(f"{name}: share of the product rate", f"{share:.2f}", note)]


def masks(repeats: int) -> list[Row]:
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
    runs = [
        functools.partial(compiled, name, tokens, None, scored, embedding)
        for name in names
    ]
    step, *times = median_seconds(
        training(config, sizes, LENGTH), *runs, repeats=repeats
    )
    return [
        (name, f"{seconds / step:.2%}", f"{seconds * 1e3:.1f} ms")
        for name, seconds in zip(names, times, strict=True)
    ]


def seeds_at_once(size: str, mesh: Any, repeats: int, steps: int = 4) -> list[Row]:
    """Steps of several seeds in one program, three ways, and of one seed."""
    sizes, length, alone = small_model(size)
    together = dataclasses.replace(alone, seeds=SEEDS)
    ways = {
        "vmapped": training(together, sizes, length, steps, how=SideBySide()),
        "in turn": training(together, sizes, length, steps, how=SideBySide(True)),
    }
    if mesh is not None:
        name = f"in turn, {mesh.size} CPU devices"
        ways[name] = training(together, sizes, length, steps, mesh)
    times = interleaved(
        [training(alone, sizes, length, steps), *ways.values()], repeats
    )
    (wall, work), *others = times
    rows = []
    for name, (seconds, cpu) in zip(ways, others, strict=True):
        note = (
            f"{seconds / steps * 1e3:.1f} ms, {SEEDS} x {wall / steps * 1e3:.1f} ms; "
            f"CPU {cpu / steps * 1e3:.1f}, {SEEDS} x {work / steps * 1e3:.1f} ms"
        )
        faster = (SEEDS * wall / seconds, SEEDS * work / cpu)
        rows.append((size, name, *(f"{ratio:.2f}" for ratio in faster), note))
    return rows


def interleaved(runs: list[Run], repeats: int) -> list[tuple[float, float]]:
    """Median wall and CPU time of each of several computations, run in turn."""
    seen = [[clocks(run) for run in runs] for _ in range(repeats + 1)][1:]
    return [
        (statistics.median(w for w, _ in one), statistics.median(c for _, c in one))
        for one in zip(*seen, strict=True)
    ]


def clocks(run: Run) -> tuple[float, float]:
    """Wall and CPU time of one computation, all threads."""
    start = time.process_time()
    wall = wall_seconds(run)
    return wall, time.process_time() - start


def whole_runs(size: str, mesh: Any, steps: int) -> list[Row]:
    """Runs of ``train`` as a user has them, evaluations and checkpoints included.

    Cold: every run compiles, as every command does (starting Python and importing come
    on top of a command). Warm: one process trains seed after seed.
    """
    sizes, length, alone = small_model(size)
    alone = dataclasses.replace(alone, steps=steps)
    source = RepeatedTokens(64, length, longest_period=min(32, length // 2))
    together = dataclasses.replace(alone, seeds=SEEDS)

    def measure(config: TrainConfig, cold: bool) -> tuple[float, float]:
        if cold:
            jax.clear_caches()
        there = mesh if config.seeds > 1 else None
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            return clocks(lambda: train(config, sizes, source, out, mesh=there).arrays)

    rows = []
    for cold in (True, False):
        each = [
            measure(dataclasses.replace(alone, seed=seed), cold) for seed in range(2)
        ]
        if not cold:
            each = each[1:]  # the first one compiles what others share
            measure(together, cold)
        one = measure(together, cold)
        mean = [sum(values) / len(values) for values in zip(*each, strict=True)]
        ratios = [f"{SEEDS * m / o:.2f}" for m, o in zip(mean, one, strict=True)]
        note = f"{one[0]:.1f} s, {SEEDS} x {mean[0]:.1f} s; CPU {one[1]:.1f}"
        note += f", {SEEDS} x {mean[1]:.1f} s"
        name = "each compiles" if cold else "compiled before"
        rows.append((size, name, *ratios, note))
    return rows


def small_model(size: str) -> tuple[toy.Config, int, TrainConfig]:
    """Model, T and training of a size."""
    width, heads, length, batch = SIZES[size]
    sizes = toy.Config(2, width, heads, width // heads, 64, length)
    return sizes, length, TrainConfig(batch_size=batch)


def training(
    config: TrainConfig,
    sizes: Any,
    length: int,
    steps: int = 1,
    mesh: Any = None,
    how: SideBySide | None = None,
) -> Run:
    """Steps that go on from where the last call stopped."""
    step = make_step(config, sizes, how=how)
    state = init_state(config, sizes, mesh)
    batch = place_batch(random_batch(config, sizes.vocab_size, length), config, mesh)

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


def step_flops(sizes: toy.Config, batch: int, length: int) -> float:
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
