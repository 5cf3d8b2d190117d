"""A dynamics run without a model: made-up scores over made-up checkpoints."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from synthetic_run import make_run

from jaxheads.runs import Run
from jaxheads.studies.dynamics.result import TITLE, analyse

STEPS = (0, 1, 64, 256, 1000, 4000, 16000, 64000, 143000)


def make_dynamics(
    steps: tuple[int, ...] = STEPS, seed: int = 0, few_shot: bool = True
) -> Run:
    """Make a training up: induction heads come at 1000, FV heads out of them later.

    Of 20 layers with 15 heads, six lead by FV score in the end; four of them were
    induction heads before.
    """
    rng = np.random.default_rng(seed)
    layers, heads, tasks = 20, 15, 4
    log = np.log2(np.maximum(steps, 1))[:, None, None]
    strength = np.zeros((2, layers, heads))
    strength[0, 8:12, 3] = 0.7
    strength[0, 7:11, 6] = (0.8, 0.6, 0.5, 0.4)
    strength[1, 8:12, 3] = (0.05, 0.03, 0.025, 0.02)
    strength[1, 13:15, 9] = (0.03, 0.028)
    rises = 1 / (1 + np.exp(-3 * (log - 9.5)))
    later = 1 / (1 + np.exp(-1.2 * (log - 14.5)))
    fades = 1 - 0.8 * later * (strength[1] > 0)
    noise = 0.002
    induction = 0.02 + strength[0] * rises * fades
    induction = induction + noise * rng.normal(size=induction.shape)
    effects = (later * strength[1])[:, None] * rng.uniform(0.5, 1.5, (tasks, 1, 1))
    effects = effects + noise * rng.normal(size=effects.shape)
    shape = (len(steps), 3, 20)  # tasks, prompts
    right = rng.random(shape) < np.linspace(0, 0.6, len(steps))[:, None, None]
    arrays: dict[str, np.ndarray] = {
        "dynamics/step": np.array(steps),
        "dynamics/score/induction": induction,
        "dynamics/score/induction_se": np.full(induction.shape, noise),
        "dynamics/score/function_vector": effects.mean(axis=1),
        "dynamics/score/function_vector_se": np.full(induction.shape, noise / 2),
        "dynamics/fv_effects": effects,
    }
    if few_shot:
        arrays["dynamics/first_token"] = right
        arrays["dynamics/f1"] = 0.8 * right
    arrays = {
        name: array if name.endswith("step") else array.astype(np.float32)
        for name, array in arrays.items()
    }
    base = make_run(parts=("scores",))
    config = {"sequences": 40, "corrupted_prompts": 40}
    config = base.result["config"]["scores"] | config
    found, curves = analyse(arrays, base.result["scores"], config)
    told = [
        {"step": step, "source": "made/up", "revision": f"step{step}", "seconds": 3.0}
        | {"commit": f"{n:040x}", "params_sha256": f"{min(n, 7):064x}"}
        for n, step in enumerate(steps)
    ]
    flag = {"kind": "identical", "steps": list(steps[7:])}
    flag["text"] = "step 64000 and step 143000 hold the same weights"
    part = {"steps": told, "missing": [], "passed_over": [], "main": None}
    result: dict[str, Any] = base.result | {"title": TITLE, "study": "dynamics"}
    result |= {"dynamics": part | {"flags": [flag]} | found}
    result["config"] = result["config"] | {"scores": config}
    result["model"] = result["model"] | {"num_layers": layers, "num_heads": heads}
    del result["plan"]
    return dataclasses.replace(
        base, path=Path("run"), result=result, arrays=arrays | curves
    )
