"""Dynamics of a run of ``jaxheads train``: all of its seeds, each at every checkpoint.

A training on text is scored as any other series of checkpoints; one on token ids with
the tasks of its own source (``token_inputs``). Of several seeds the folder holds

    seed_0/        a dynamics run of its own, see ``dynamics.run``
    result.json    what the seeds say together
    arrays.npz     their scores, stacked along N, the seeds, and U, the steps
"""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jaxheads import runs
from jaxheads.errors import UserError
from jaxheads.runs.files import read_json_object
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.dynamics import emergence
from jaxheads.studies.dynamics.run import StepProgress, run_dynamics
from jaxheads.studies.dynamics.seeds import DEFINITIONS, count, order
from jaxheads.studies.dynamics.token_inputs import (
    own_config,
    prepare_tokens,
    require_tasks,
)
from jaxheads.studies.dynamics.transitions import Trajectories
from jaxheads.studies.inputs import Prepared
from jaxheads.studies.run import stated_config
from jaxheads.training.data.text_windows import TextWindows
from jaxheads.training.trained import Trained, open_trained

TITLE = "How attention heads form in training, seed by seed"

Shown = Callable[[int], contextlib.AbstractContextManager[StepProgress]]
"""A seed -> how its run tells what it does."""


def is_training(source: str | Path) -> bool:
    """Whether a source is the folder of a finished run of ``jaxheads train``."""
    path = Path(source) / "result.json"
    return path.is_file() and "train" in read_json_object(path)


def run_trained(
    source: str | Path,
    config: StudyConfig,
    out: str | Path,
    *,
    seeds: Sequence[int] = (),
    steps: Sequence[int] = (),
    few_shot: bool = True,
    dtype: str = "float32",
    mesh: Mesh | None = None,
    memory_gb: float | None = None,
    shown: Shown = lambda seed: contextlib.nullcontext(StepProgress()),
) -> runs.Run:
    """Score the heads of every checkpoint of every seed, and write the run folder.

    Killed at any moment, the same call goes on. A finished folder takes more seeds and
    more steps.

    Args:
        source: the training's folder.
        config: as for ``run_dynamics``; of a training on token ids see
            ``token_inputs.own_config``.
        out: the run's folder.
        seeds: of the training; none: all.
        steps: of the training; none: all checkpoints.
        few_shot: measure few-shot accuracy, too.
        dtype: of the params.
        mesh: as for ``jaxheads.load``.
        memory_gb: as for ``run_study``.
        shown: given a seed, how its run tells what it does.

    Returns:
        The finished run: of one seed its dynamics, of several what they say together.

    Raises:
        UserError: a seed or a step that is not there; data without tasks; see
            ``run_dynamics``.
    """
    trained = open_trained(source)
    chosen = _chosen(trained, seeds)
    parts = ("scores", "ablation") if few_shot else ("scores",)
    config, prepared = _inputs(trained, config, parts)
    common: dict[str, Any] = dict(
        steps=steps or trained.steps,
        few_shot=few_shot,
        dtype=dtype,
        mesh=mesh,
        memory_gb=memory_gb,
        prepared=prepared,
    )

    def of_seed(seed: int, folder: Path) -> runs.Run:
        models = str(trained.place.models(seed))
        with shown(seed) as progress:
            return run_dynamics(models, config, folder, progress=progress, **common)

    if len(chosen) == 1:
        return of_seed(chosen[0], Path(out))
    stated = stated_config(config, parts) | {"parts": list(parts)}
    stated = {"source": str(Path(source).resolve())} | stated
    with runs.RunFolder(out, "dynamics of seeds", stated, {"dtype": dtype}) as folder:
        each = {seed: of_seed(seed, folder.path / f"seed_{seed}") for seed in chosen}
        result, arrays = gather(trained.run.path, each)
        if folder.finished:
            done = runs.load(folder.path)
            if done.result["dynamics_seeds"] == result["dynamics_seeds"]:
                return done
            folder.reopen()
        return folder.finish(result, arrays)


def _chosen(trained: Trained, seeds: Sequence[int]) -> tuple[int, ...]:
    unknown = [seed for seed in seeds if seed not in trained.seeds]
    if unknown:
        there = ", ".join(map(str, trained.seeds))
        raise UserError(
            f"--seeds takes seeds of {trained.run.path}, {there}, not {unknown[0]}: "
            "leave it out for all"
        )
    return tuple(sorted(set(seeds))) or trained.seeds


def _inputs(
    trained: Trained, config: StudyConfig, parts: tuple[str, ...]
) -> tuple[StudyConfig, Prepared | None]:
    """The config as it holds of the run, and inputs where there is no tokenizer."""
    if isinstance(trained.source, TextWindows):
        return config, None
    source = require_tasks(trained.source, str(trained.run.path))
    context = trained.model_config.context_length
    config = own_config(config, source, context)
    return config, prepare_tokens(config, source, context, parts)


def gather(
    source: Path, each: dict[int, runs.Run]
) -> tuple[dict[str, Any], runs.Arrays]:
    """Put the dynamics of several seeds together.

    Args:
        source: the training's folder.
        each: finished dynamics runs of the same steps, by seed.

    Returns:
        What ``result.json`` says, and the arrays.

    Raises:
        UserError: a seed was scored at other steps than the others.
    """
    first = next(iter(each.values()))
    steps = first.arrays["dynamics/step"]
    for run in each.values():
        if not np.array_equal(run.arrays["dynamics/step"], steps):
            raise UserError(
                f"all seeds must be scored at the same steps, but {run.path} has other "
                f"ones than {first.path}: give another --out"
            )
    trainings = [Trajectories.of_run(run) for run in each.values()]
    dates = [run.result["dynamics"]["emergence"] for run in each.values()]
    arrays = _stack(list(each.values())) | {"dynamics/step": steps}
    told = first.result
    return {
        "title": TITLE,
        "model": told["model"]
        | {"source": str(source), "name": source.name}
        | {"seeds": list(each)},
        "versions": told["versions"],
        "device": told["device"],
        "scores": told["scores"],
        "scoring_tasks": told["scoring_tasks"],
        "evaluation_tasks": told["evaluation_tasks"],
        "task_info": told["task_info"],
        "wall_s": {
            f"seed {seed}": sum(run.result["wall_s"].values())
            for seed, run in each.items()
        },
        "dynamics_seeds": {
            "seeds": [
                {
                    "seed": seed,
                    "folder": run.path.name,
                    "fingerprint": run.result["fingerprint"],
                    "emergence": run.result["dynamics"]["emergence"],
                    "followed": run.result["dynamics"]["transitions"]["followed"],
                }
                for seed, run in each.items()
            ],
            "steps": steps.tolist(),
            "first": {name: order(dates, name) for name in emergence.REFERENCES},
            "transitions": [
                count(trainings, definition).to_dict() for definition in DEFINITIONS
            ],
        },
        "arrays": {name: _describe(name, told) for name in sorted(arrays)},
    }, arrays  # fmt: skip


def _stack(each: list[runs.Run]) -> runs.Arrays:
    """Scores, curves and accuracy of the seeds, stacked along N."""
    names = [name for name in each[0].arrays if name != "dynamics/step"]
    return {name: np.stack([run.arrays[name] for run in each]) for name in names}


def _describe(name: str, told: dict[str, Any]) -> dict[str, Any]:
    """Dims and unit: those of a seed's array, N before them."""
    own = told["arrays"][name]
    return own if name == "dynamics/step" else own | {"dims": ["N", *own["dims"]]}
