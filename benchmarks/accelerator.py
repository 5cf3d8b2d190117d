"""Every head of a large model on one accelerator: milliseconds a prompt, and scaling.

    python benchmarks/accelerator.py --out runs/accelerator  # Pythia-6.9b's shape
    python benchmarks/accelerator.py --model pythia-70m-deduped --dtype float32 --quick

Random weights, made on the device: nothing is downloaded. Writes figures.json and,
where the report's packages are installed, scaling.html.
"""

import argparse
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
from timing import machine, matmul, median_seconds, print_rows

import jaxheads as jh
from jaxheads.engine import plan
from jaxheads.models import family
from jaxheads.models.parameters import init_params
from jaxheads.weights.presets import PRESETS

TASKS, PROMPTS = 29, 100  # of the published function-vector scores


def make_params(config, dtype):
    """Random params, made where they stay."""
    abstract = family(config.model_type).abstract(config)
    make = functools.partial(init_params, abstract, dtype=dtype)
    return jax.jit(make)(jax.random.key(0))


def measure(params, config, batch: int, length: int, repeats: int) -> dict:
    """Seconds of a prompt's own pass, of a forward and of the sweep over all heads."""
    key = jax.random.key(1)
    tokens = jax.random.randint(key, (batch, length), 0, config.vocab_size)
    lengths = jnp.full((batch,), length)
    shape = (config.num_layers, config.num_heads, config.head_dim)
    fill = 0.5 * jax.random.normal(key, shape, params.embedding.dtype)
    targets = tokens[:, -1]
    prefill = functools.partial(jh.prefill, params, tokens, lengths, config)
    prefix = prefill()
    sweep = functools.partial(jh.patch_each_head, params, prefix, fill, targets, config)
    where = jnp.arange(length)[None] == lengths[:1, None] - 1
    keep = jnp.ones(shape[:2]).at[0, 0].set(0)

    @jax.jit
    def one_head(params, keep, fill):
        """What a loop does for every head: a whole forward, batch 1."""
        ablation = jh.Ablation(keep, fill, where)
        return jh.forward(
            params, tokens[:1], config, ablation=ablation, logits="last"
        ).logits

    prefill_s, sweep_s, forward_s = median_seconds(
        prefill, sweep, lambda: one_head(params, keep, fill), repeats=repeats
    )
    flops = batch * plan.every_head(config, length).flops
    return {
        "batch": batch,
        "length": length,
        "heads": config.num_layers * config.num_heads,
        "prefill_s": prefill_s,
        "sweep_s": sweep_s,
        "forward_s": forward_s,
        "prompt_ms": (prefill_s + sweep_s) / batch * 1e3,
        "sweep_flops": flops,
    }


def scaling(figures: list[dict], out: Path) -> None:
    """A page with milliseconds a prompt against batch and prompt length."""
    import altair

    charts = [
        altair.Chart(altair.Data(values=[f for f in figures if f["part"] == part]))
        .mark_line(point=True)
        .encode(
            x=altair.X(f"{part}:Q", scale=altair.Scale(type="log", base=2)),
            y=altair.Y("prompt_ms:Q", title="ms a prompt, all heads"),
        )
        .properties(width=260, height=200, title=f"by {part}")
        for part in ("batch", "length", "heads")
    ]
    altair.hconcat(*charts).save(out / "scaling.html", inline=True)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Every head on an accelerator.")
    parser.add_argument(
        "--model", default="pythia-6.9b-deduped", help="a preset's shape"
    )
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--length", type=int, default=110)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="no scaling")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()

    config = PRESETS[chosen.model].config()
    dtype = jnp.dtype(chosen.dtype)
    params = make_params(config, dtype)
    size = 8192 if jax.default_backend() != "cpu" else 1024
    product, product_flops = matmul(size, size, size, dtype)
    (product_s,) = median_seconds(product)
    rate = product_flops / product_s
    main_figure = measure(params, config, chosen.batch, chosen.length, 5)
    heads = main_figure["heads"]
    loop_hours = TASKS * PROMPTS * heads * main_figure["forward_s"] / 3600
    ours_hours = TASKS * PROMPTS * main_figure["prompt_ms"] / 3.6e6
    share = main_figure["sweep_flops"] / main_figure["sweep_s"] / rate
    print(f"{machine()}, {chosen.dtype}; {chosen.model}'s shape, random weights")
    print_rows(
        [
            (f"{chosen.dtype} matrix product", f"{rate / 1e12:.2f} TFLOP/s", ""),
            (
                f"all {heads} heads of a prompt of {chosen.length} tokens",
                f"{main_figure['prompt_ms']:.1f} ms",
                f"in a batch of {chosen.batch}; of which the prompts' own pass "
                f"{main_figure['prefill_s'] / chosen.batch * 1e3:.1f} ms",
            ),
            ("    share of the product's rate", f"{share:.2f}", "aim 0.60"),
            (
                f"{TASKS} tasks x {PROMPTS} prompts",
                f"{ours_hours:.2f} h",
                f"one forward a head, batch 1: {loop_hours:.1f} h",
            ),
        ]
    )
    figures = [main_figure | {"part": "main"}]
    if not chosen.quick:
        for batch in (1, 2, 4, 8, 16, 32):
            made = measure(params, config, batch, chosen.length, 3)
            figures.append(made | {"part": "batch"})
        for length in (64, 128, 256, 512, 1024):
            made = measure(params, config, 4, length, 3)
            figures.append(made | {"part": "length"})
        del params
        for size in ("160m", "410m", "1.4b", "2.8b"):
            smaller = f"pythia-{size}-deduped"
            other = PRESETS[smaller].config()
            made = measure(
                make_params(other, dtype), other, chosen.batch, chosen.length, 3
            )
            figures.append(made | {"part": "heads", "model": smaller})
        figures.append(main_figure | {"part": "heads", "model": chosen.model})
    if chosen.out:
        chosen.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"machine": machine(), "rate": rate, "figures": figures})
        (chosen.out / "figures.json").write_text(text)
        if not chosen.quick:
            scaling(figures, chosen.out)


if __name__ == "__main__":
    main()
