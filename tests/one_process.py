"""One process of several: engine/test_processes.py runs it, nothing imports it.

python one_process.py PORT COUNT INDEX MODEL MESH OUT
"""

import os
import sys

import jax
import numpy as np

import jaxheads as jh
from jaxheads.engine import sweeps
from jaxheads.engine.chunks import over_prompts
from jaxheads.engine.devices import make_mesh, mesh_of
from jaxheads.scores.function_vector import effects


def main(port: str, count: str, index: str, folder: str, spec: str, out: str) -> None:
    """Run the engine on inputs that lie beside OUT and write what it gives."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_disable_most_optimizations", True)
    jax.distributed.initialize(
        f"localhost:{port}", int(count), int(index), initialization_timeout=60
    )
    assert len(jax.local_devices()) == 2 < jax.device_count()
    model = jh.load(folder, mesh=make_mesh(spec))
    mesh = mesh_of(model.params)
    assert mesh is not None and mesh.size == jax.device_count()
    given = dict(np.load(os.path.join(os.path.dirname(out), "inputs.npz")))
    prompts = (given["tokens"], given["lengths"])
    common = (model.config, given["replaced"], given["fill"])
    parts = over_prompts(
        effects,
        model.params,
        (*prompts, given["targets"]),
        (given["fill"], model.config),
        chunk=4,
    )
    made = {
        "probability": sweeps.metric_under_subsets(
            model.params, *prompts, given["targets"], *common, chunk=4
        ),
        "generated": sweeps.generate_under_subsets(
            model.params, *prompts, *common, 3, chunk=4
        ),
        "losses": sweeps.losses_under_subsets(
            model.params, given["tokens"][:, :7], *common, given["at"], chunk=4
        ),
        "effects": np.concatenate(parts, axis=-1)[..., : len(prompts[0])],
    }
    np.savez(f"{out}-{index}.npz", **made)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
