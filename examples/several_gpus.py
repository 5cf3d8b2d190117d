"""Score 10,000 random sets of heads, split over the GPUs of one machine.

    python examples/several_gpus.py EleutherAI/pythia-6.9b --mesh 4x2

splits the sets over 4 and each layer's heads over 2 of 8 GPUs; without --mesh every GPU
holds the whole model. `jaxheads study MODEL --mesh 4x2` does the same for a study.
"""

import argparse

import numpy as np

import jaxheads as jh
from jaxheads.engine import memory, sweeps
from jaxheads.engine.devices import data_parts, make_mesh, mesh_of
from jaxheads.icl.prompts import build_prompts, encode_prompts
from jaxheads.icl.tasks import load_task


def main() -> None:
    """Measure the answers' probability under every set and print the worst."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("--mesh", help="default: all GPUs on data")
    parser.add_argument("--sets", type=int, default=10_000)
    parser.add_argument("--shots", type=int, default=10)
    given = parser.parse_args()
    model = jh.load(given.source, dtype="bfloat16", mesh=make_mesh(given.mesh))
    prompts = build_prompts(load_task("antonym"), 16, given.shots, seed=0)
    batch = encode_prompts(prompts, model.require_tokenizer(), bos=False)
    shape = (given.sets, model.config.num_layers, model.config.num_heads)
    replaced = np.random.default_rng(0).random(shape) < 0.05
    budget = memory.budget_bytes(params=model.params)
    chunk = sweeps.subset_chunk(model.config, len(batch.tokens), 1, budget)
    values = sweeps.metric_under_subsets(
        model.params,
        *(batch.tokens, batch.lengths, batch.targets, model.config),
        *(replaced, None),
        chunk=chunk * data_parts(mesh_of(model.params)),
    ).mean(axis=1)
    worst = values.argmin()
    print(f"mean probability {values.mean():.4f}, least {values[worst]:.4f}, by")
    print(*(f"{layer}.{head}" for layer, head in np.argwhere(replaced[worst])))


if __name__ == "__main__":
    main()
