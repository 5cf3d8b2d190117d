r"""Training on one accelerator: model FLOPs utilisation, the Hapax mask included.

    python benchmarks/utilisation.py --peak 989          # Pythia-1b's shape, an H200
    python benchmarks/utilisation.py --shape pythia-70m-deduped --layers 1 \
        --length 64 --batch 2                            # a trial on a CPU

Random weights and tokens: nothing is downloaded.
"""

import argparse
import dataclasses

import jax
import jax.numpy as jnp
from rich.console import Console
from timing import machine, matmul, median_seconds
from training import Row, show, training

from jaxheads.models import family
from jaxheads.models.parameters import num_params
from jaxheads.training.config import TrainConfig
from jaxheads.weights.presets import PRESETS


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Training on one accelerator.")
    parser.add_argument("--shape", default="pythia-1b-deduped", help="of a preset")
    parser.add_argument("--layers", type=int, help="fewer, for a trial")
    parser.add_argument("--length", type=int, default=2048, help="tokens of a window")
    parser.add_argument("--batch", type=int, default=8, help="windows of a part")
    parser.add_argument("--accumulate", type=int, default=1, help="parts of a step")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--rematerialise", action="store_true")
    parser.add_argument("--peak", type=float, help="TFLOP/s of the device, as sold")
    parser.add_argument("--repeats", type=int, default=5, help="of every timing")
    chosen = parser.parse_args()
    console = Console(width=110)
    console.print(machine())
    head = ("what", "share", "measured")
    show(console, f"A step at {chosen.shape}'s shape", head, utilisation(chosen))


def utilisation(chosen: argparse.Namespace) -> list[Row]:
    """Steps at a model's shape, the Hapax mask included: share of the product rate.

    FLOPs a token are 6 for each param but the embedding's, and 12 L T H K of attention
    over all keys, as model FLOPs utilisation counts them.
    """
    config = PRESETS[chosen.shape].config()
    if chosen.layers:
        config = dataclasses.replace(config, num_layers=chosen.layers)
    size = chosen.batch * chosen.accumulate
    hapax = TrainConfig(
        objective="hapax",
        dtype=chosen.dtype,
        batch_size=size,
        accumulate=chosen.accumulate,
        rematerialise=chosen.rematerialise,
    )
    vanilla = dataclasses.replace(hapax, objective="vanilla")
    side = 8192 if jax.default_backend() != "cpu" else 1024
    product, product_flops = matmul(side, side, side, jnp.dtype(chosen.dtype))
    seconds = {}
    for name, one in (("hapax", hapax), ("vanilla", vanilla)):
        run = training(one, config, chosen.length)  # one state at a time
        seconds[name], alone = median_seconds(run, product, repeats=chosen.repeats)
        del run
    params = num_params(family(config.model_type).abstract(config))
    inner = config.num_layers * config.num_heads * config.head_dim
    weights = params - config.vocab_size * config.width
    flops = 6.0 * weights + 12.0 * inner * chosen.length
    tokens = size * chosen.length / seconds["hapax"]
    rate = product_flops / alone
    rows = [
        (
            f"{chosen.shape}'s shape, {params / 1e6:,.0f}M params: share of the "
            f"{chosen.dtype} product rate",
            f"{tokens * flops / rate:.3f}",
            f"{seconds['hapax']:.2f} s a step of {size * chosen.length:,} tokens, "
            f"{tokens:,.0f} tokens/s, {tokens * flops / 1e12:.2f} TFLOP/s; products "
            f"{rate / 1e12:.2f} TFLOP/s",
        )
    ]
    if chosen.peak:
        share = tokens * flops / chosen.peak / 1e12
        rows.append(("model FLOPs utilisation", f"{share:.3f}", f"of {chosen.peak:g}"))
    mask = seconds["hapax"] / seconds["vanilla"] - 1
    rows.append(("Hapax mask, of a vanilla step", f"{mask:.2%}", "the whole step"))
    return rows


if __name__ == "__main__":
    main()
