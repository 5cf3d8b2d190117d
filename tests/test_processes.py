"""Two processes with two devices each give what one device gives."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from families import Tiny, assert_close
from model_folder import write_folder

import jaxheads as jh
from jaxheads import runs
from jaxheads.models import llama
from jaxheads.models.metrics import log_probability
from jaxheads.scores.config import ScoresConfig
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.run import run_study

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

HERE = Path(__file__).parent


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def run_all(commands: list[list[object]], devices: int) -> list[str]:
    """Run Python scripts side by side; their outputs. None outlives the test."""
    flag = f"--xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"}
    started = [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment | {"PYTHONPATH": str(HERE.parent)},
            text=True,
        )
        for command in commands
    ]
    try:
        said = [process.communicate(timeout=240)[0] for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    for process, text in zip(started, said, strict=True):
        assert process.returncode == 0, text
    return said


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """A model folder, its inputs, and naive results of whole forwards."""
    root = tmp_path_factory.mktemp("two")
    tiny = Tiny(llama.Config(3, 22, 4, 4, 10, 36, 44, 64))
    write_folder(root / "model", tiny.config, tiny.params)
    replaced = np.asarray(tiny.keep(3, 6)) == 0  # 6 subsets do not fill 4 devices
    at = np.array([2, 6])
    inputs = {
        "tokens": np.asarray(tiny.tokens)[:3],  # nor do 3 prompts
        "lengths": np.asarray(tiny.lengths)[:3],
        "targets": np.asarray(tiny.targets)[:3],
        "fill": np.asarray(tiny.fill),
        "replaced": replaced,
        "at": at,
    }
    np.savez(root / "inputs.npz", **inputs)
    tokens, lengths, targets = (inputs[n] for n in ("tokens", "lengths", "targets"))
    rows = np.arange(3)
    last = np.arange(tokens.shape[1])[None] == lengths[:, None] - 1

    def run(keep, where, tokens=tokens):
        ablation = jh.Ablation(jnp.asarray(keep, jnp.float32), tiny.fill, where)
        out = jh.forward(tiny.params, tokens, tiny.config, ablation=ablation)
        return out.logits

    def log_probabilities(logits):
        return np.asarray(log_probability(logits[rows, lengths - 1], targets))

    short = tokens[:, :7]
    clean = np.exp(log_probabilities(run(np.ones((3, 4)), last)))
    probability, losses, first = [], [], []
    for subset in replaced:
        logits = run(1 - subset, last)
        probability.append(np.exp(log_probabilities(logits)))
        first.append(logits[rows, lengths - 1].argmax(-1))
        logits = run(1 - subset, None, short)
        losses.append(-np.asarray(log_probability(logits[:, at - 1], short[:, at])))
    effects = np.zeros((3, 4, 3))
    for layer, head in np.ndindex(3, 4):
        keep = np.ones((3, 4))
        keep[layer, head] = 0
        effects[layer, head] = np.exp(log_probabilities(run(keep, last))) - clean
    results = {"probability": probability, "losses": losses, "effects": effects}
    return root, {n: np.asarray(v) for n, v in results.items()}, np.asarray(first)


@pytest.mark.parametrize("mesh", ["data=4", "data=2,model=2", "data=1,model=4"])
def test_two_processes_equal_whole_forwards_on_one_device(expected, mesh):
    root, results, first = expected
    out = root / mesh.replace(",", "-")
    script, port = HERE / "one_process.py", free_port()
    run_all(
        [[script, port, 2, index, root / "model", mesh, out] for index in range(2)], 2
    )
    for index in range(2):  # every process holds the whole result
        made = np.load(f"{out}-{index}.npz")
        for name, values in results.items():
            assert_close(made[name], values)
        np.testing.assert_array_equal(made["generated"][..., 0], first)


def test_the_example_for_a_tpu_vm_scores_as_one_device_does(model_folder, tmp_path):
    options = ["--tasks", "antonym", "--shots", 2, "--processes", 2]
    options += ["--coordinator", f"localhost:{free_port()}", "--mesh", "2x2"]
    script, out = HERE.parent / "examples" / "tpu_vm.py", tmp_path / "two"
    command = [script, model_folder, "--out", out, *options]
    said = run_all([[*command, "--process", index] for index in range(2)], 2)
    assert "leading head" in said[0] and "leading head" not in said[1]
    config = StudyConfig(scores=ScoresConfig(tasks=("antonym",)), shots=2)
    one = run_study(jh.load(model_folder), config, tmp_path / "one", parts=("scores",))
    two = runs.load(out)
    assert sorted(os.listdir(out)) == ["arrays.npz", "result.json"]
    assert two.result["device"]["count"] == 4
    assert two.result["fingerprint"] == one.result["fingerprint"]
    for name, values in one.arrays.items():
        assert_close(two.arrays[name], values)


def test_the_example_for_several_gpus_runs(model_folder):
    script = HERE.parent / "examples" / "several_gpus.py"
    command = [script, model_folder, "--mesh", "4x2", "--sets", 30, "--shots", 2]
    (said,) = run_all([command], 8)
    assert "mean probability 0." in said
