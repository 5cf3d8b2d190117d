r"""Score every head on all the chips of a TPU VM, on one host or on many.

Every host runs the same command; each holds all prompts and works on its chips' share:

    gcloud compute tpus tpu-vm ssh NAME --worker=all --command \
        "cd jaxheads && .venv/bin/python examples/tpu_vm.py EleutherAI/pythia-1.4b"

The first host alone writes the run folder; the same command goes on where it stopped.
A model that one chip cannot hold: --mesh data=8,model=4 (their product: all chips).
"""

import argparse

import jax

import jaxheads as jh
from jaxheads.engine.devices import make_mesh
from jaxheads.scores.config import ScoresConfig
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.run import run_study


def main() -> None:
    """Load the model over all chips and score its heads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="hub id, preset or folder, alike on every host")
    parser.add_argument("--out", default="runs/tpu-vm")
    parser.add_argument("--mesh", help="default: all chips on data")
    parser.add_argument("--tasks", nargs="+", default=ScoresConfig().tasks)
    parser.add_argument("--shots", type=int, default=10)
    # A TPU VM knows its hosts; other machines are told who they are.
    parser.add_argument("--coordinator", help="host:port of the first process")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    given = parser.parse_args()
    # Before anything asks for devices.
    jax.distributed.initialize(given.coordinator, given.processes, given.process)
    model = jh.load(given.source, mesh=make_mesh(given.mesh))
    config = StudyConfig(
        scores=ScoresConfig(tasks=tuple(given.tasks)), shots=given.shots
    )
    run = run_study(model, config, given.out, parts=("scores",))
    if jax.process_index() == 0:
        scores = run.arrays["score/function_vector"]
        print("leading head (layer, head):", divmod(scores.argmax(), scores.shape[1]))


if __name__ == "__main__":
    main()
