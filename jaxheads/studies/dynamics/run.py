"""How heads came about: the same scores at every checkpoint of a training.

Question: when in training do induction heads and function-vector heads appear, and do
the latter begin as the former? Source: Yin & Steinhardt 2025, section 5.

A dynamics run is a folder of runs:

    steps/step1000/    a run of its own, of scores and clean few-shot accuracy
    result.json        all steps together, with what was found of them
    arrays.npz         the steps' scores, stacked along U, the steps in order

One checkpoint is in memory at a time, and all of them run the same compiled programs.
"""

import dataclasses
import gc
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxheads import runs
from jaxheads.engine import memory
from jaxheads.engine.progress import Progress
from jaxheads.errors import UserError
from jaxheads.icl.tasks import load_tasks
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.dynamics.result import Step, gather
from jaxheads.studies.dynamics.series import (
    PATTERN,
    Checkpoint,
    Missing,
    Series,
    cached_files,
    delete_fetched,
    is_missing,
    open_series,
)
from jaxheads.studies.inputs import Prepared
from jaxheads.studies.run import run_study, stated_config
from jaxheads.weights.model import Model, load

_SIZES = ("model_type", "num_layers", "num_heads", "head_dim", "width", "vocab_size")


def tokens_sha256(arrays: runs.Arrays) -> str:
    """The hash of all token ids that a run's model was given."""
    digest = hashlib.sha256()
    for name in sorted(name for name in arrays if name.startswith("prompts/")):
        digest.update(f"{name} {arrays[name].shape} ".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def refuse_other_model(
    one: Checkpoint, model: Model, path: Path, there: Mapping[int, Step]
) -> None:
    """Refuse a checkpoint of another model, or changed since it was scored.

    Args:
        one: the checkpoint.
        model: that was loaded of it.
        path: of the step's run.
        there: the steps that are done.

    Raises:
        UserError: says which step differs, and in what.
    """
    if (path / "result.json").is_file():
        scored = runs.load(path).result["model"]["params_sha256"]
        if scored != model.provenance.params_sha256:
            raise UserError(
                f"step {one.step} must hold the weights that were scored, but "
                f"{model.provenance.path} has changed since: delete {path} to score "
                "it again, or give another --out"
            )
    for step, other in there.items():
        told = runs.load(other.path).result["model"]
        for name in _SIZES:
            own = getattr(model.config, name)
            if own != told[name]:
                raise UserError(
                    f"the checkpoints must be of one model, but step {one.step} has "
                    f"{name.replace('_', ' ')} {own} and step {step} {told[name]}: "
                    "leave one out"
                )
        return  # the others were held against this one


def refuse_other_tokens(
    record: dict[str, Any], path: Path, there: Mapping[int, Step]
) -> None:
    """Refuse a step that was given other tokens than the others, and delete its run.

    Raises:
        UserError: its tokenizer reads the prompts otherwise.
    """
    for step, other in there.items():
        if other.record["tokens_sha256"] != record["tokens_sha256"]:
            shutil.rmtree(path)
            raise UserError(
                "every step must be given the same tokens, but the tokenizer of step "
                f"{record['step']} reads the prompts otherwise than that of step "
                f"{step}: give both the same tokenizer files"
            )


RECORD = "checkpoint.json"
"""Beside a step's result: which checkpoint it is of."""
_RECORD: dict[str, Any] = {
    "step": int, "source": str, "revision": str | None, "commit": str | None,
    "params_sha256": str, "tokens_sha256": str, "load_s": float, "seconds": float,
    "files": object,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class StepProgress(Progress):
    """How a dynamics run tells what it and the study of each step do.

    Attributes:
        chosen: called with the steps that will be run and those that are there.
        loading: called with a step when its checkpoint is fetched and loaded.
        done: called with a step and its seconds.
    """

    chosen: Callable[[list[int], list[int]], None] = lambda todo, there: None
    loading: Callable[[int], None] = lambda step: None
    done: Callable[[int, float], None] = lambda step, seconds: None


@dataclasses.dataclass(frozen=True)
class _Work:
    """What the steps share."""

    series: Series
    revisions: list[str]
    config: StudyConfig
    parts: tuple[str, ...]
    out: Path
    dtype: str
    mesh: Mesh | None
    missing: Missing
    delete: bool
    memory_gb: float | None
    progress: StepProgress
    prepared: Prepared | None


def run_dynamics(
    source: str | Path,
    config: StudyConfig,
    out: str | Path,
    *,
    steps: Iterable[int] = (),
    pattern: str = PATTERN,
    few_shot: bool = True,
    dtype: str = "float32",
    mesh: Mesh | None = None,
    missing: Missing = "error",
    compare_main: bool = True,
    delete: bool = False,
    memory_gb: float | None = None,
    progress: StepProgress | None = None,
    prepared: Prepared | None = None,
) -> runs.Run:
    """Score the heads of every checkpoint and write the run folder.

    Killed at any moment, the same call goes on and ends with the same arrays. A
    finished folder is read; asked for more steps, it gets those, and keeps the others.

    Args:
        source: see ``series.open_series``.
        config: the scores, and in its ablation the few-shot tasks; ablations that it
            asks for besides are run at every step.
        out: the run's folder.
        steps: of the training; none: all of a local folder, the paper's of Pythia.
        pattern: of the hub's revisions.
        few_shot: measure few-shot accuracy, too.
        dtype: of the params.
        mesh: as for ``jaxheads.load``.
        missing: "error", or "skip" to go on without steps that do not exist.
        compare_main: of a hub source, compare the last step with the main branch.
        delete: delete the hub's files of a checkpoint afterwards, if fetched here.
        memory_gb: as for ``run_study``; None: a share of what is free at the first
            step, and the same for all others.
        progress: told what happens.
        prepared: inputs of every step as token ids; None: each step's tokenizer reads
            the config's tasks and texts.

    Returns:
        The finished run.

    Raises:
        UserError: as ``jaxheads.load`` and ``run_study``; checkpoints that differ in
            their sizes or read text differently; a step that does not exist.
    """
    if jax.process_count() > 1:
        raise UserError(
            "dynamics runs in one process, of any number of devices, but there are "
            f"{jax.process_count()}: run each part of the steps in one of them"
        )
    series = open_series(source, pattern)
    asked, absent = series.choose(steps, missing)
    parts = ("scores", "ablation") if few_shot else ("scores",)
    if prepared is None:
        for tasks in (config.scores.tasks, config.ablation.tasks)[: len(parts)]:
            # A mistake is told before anything is fetched.
            load_tasks(tasks, config.tasks, min_items=config.shots + 1)
    stated = stated_config(config, parts)
    stated = {"source": series.name, "revision_pattern": pattern} | stated
    with runs.RunFolder(
        out, "dynamics", stated | {"parts": list(parts)}, {"dtype": dtype}
    ) as folder:
        work = _Work(
            series, [*(one.revision or "" for one in asked), "main"], config, parts,
            folder.path, dtype, mesh, missing, delete, memory_gb,
            progress or StepProgress(), prepared,
        )  # fmt: skip
        there = recorded(folder.path)
        todo = [one for one in asked if not _is_current(one, there.get(one.step))]
        if folder.finished:
            done = runs.load(out)
            told = done.result["dynamics"]
            if not todo and set(absent) <= set(told["missing"]):
                return done
            absent = [*absent, *told["missing"]]
            folder.reopen()
        work.progress.chosen([one.step for one in todo], sorted(there))
        for one in todo:
            try:
                there[one.step] = _run_step(work, one, there, calibrate=one is todo[0])
            except UserError as error:
                if missing == "error" or not is_missing(error):
                    raise
                absent = [*absent, one.step]
        if not there:
            raise series.without(sorted(absent))
        main = _main(work, max(there)) if compare_main else None
        if delete:
            _delete(work, None)
        result, arrays = gather(
            [there[step] for step in sorted(there)],
            source=series.source,
            missing=sorted(set(absent) - set(there)),
            passed_over=list(series.passed_over),
            main=main,
        )
        return folder.finish(result, arrays)


def recorded(out: Path) -> dict[int, Step]:
    """The steps of a dynamics run's folder that are done."""
    found = {}
    for path in (out / "steps").glob(f"step*/{RECORD}"):
        if (path.parent / "result.json").is_file():
            record = _recalled(path)
            if (
                isinstance(record, dict)
                and record.keys() >= _RECORD.keys()
                and all(isinstance(record[name], _RECORD[name]) for name in _RECORD)
                and path.parent == step_folder(out, record["step"])
            ):
                found[record["step"]] = Step(path.parent, record)
    return found


def _recalled(path: Path) -> Any:
    """What a file of an earlier try says; None: it is damaged, or there is none."""
    try:
        return json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None


def step_folder(out: Path, step: int) -> Path:
    """Where the run of a step stands."""
    return out / "steps" / f"step{step}"


def _is_current(one: Checkpoint, there: Step | None) -> bool:
    """Whether a step is done, of files that have not been written since."""
    return there is not None and there.record["files"] == one.signature()


def _run_step(
    work: _Work, one: Checkpoint, there: dict[int, Step], calibrate: bool
) -> Step:
    """Fetch, load, score and free one checkpoint."""
    work.progress.loading(one.step)
    start = time.perf_counter()
    _before_fetching(work)
    path = step_folder(work.out, one.step)
    files = one.signature()
    # The step that was run last frees its params before the next ones are loaded.
    gc.collect()
    model = load(one.source, one.revision, work.dtype, work.mesh)
    loaded = time.perf_counter() - start
    refuse_other_model(one, model, path, there)
    run = run_study(
        model,
        work.config,
        path,
        parts=work.parts,
        memory_gb=_memory_gb(work, model),
        calibrate=calibrate,
        progress=work.progress,
        prepared=work.prepared,
    )
    del model
    record = {
        "step": one.step,
        "source": one.source,
        "revision": one.revision,
        "commit": run.result["model"]["commit"],
        "params_sha256": run.result["model"]["params_sha256"],
        "tokens_sha256": tokens_sha256(run.arrays),
        "load_s": loaded,
        "seconds": time.perf_counter() - start,
        "files": files,
    }
    refuse_other_tokens(record, path, there)
    runs.write_json(path / RECORD, record)
    work.progress.done(one.step, record["seconds"])
    if work.delete and one.revision is not None:
        _delete(work, one)
    return Step(path, record)


def _memory_gb(work: _Work, model: Model) -> float:
    """The budget of the first step serves all: equal chunks, and one compilation."""
    path = work.out / "steps" / "memory.json"
    if work.memory_gb is not None:
        return work.memory_gb
    told = _recalled(path)
    found = told.get("memory_gb") if isinstance(told, dict) else None
    if isinstance(found, int | float) and 0 < found < math.inf:
        return float(found)
    path.parent.mkdir(parents=True, exist_ok=True)
    free = memory.budget_bytes(None, model.params) / 1e9
    runs.write_json(path, {"memory_gb": free})
    return free


def _main(work: _Work, last: int) -> dict[str, Any] | None:
    """The main branch's weights, to hold the last step against."""
    one = work.series.main
    if one is None:
        return None
    known = work.series.known
    if known and last != max(known):
        return {"note": f"not compared: step {last} is not the last, {max(known)} is"}
    path = work.out / "steps" / "main.json"
    told = _recalled(path)
    if isinstance(told, dict) and isinstance(told.get("params_sha256"), str):
        return told
    _before_fetching(work)
    try:
        model = load(one.source, one.revision, work.dtype, work.mesh)
    except UserError as error:
        return {"note": f"not compared: {error}"}
    origin = model.provenance
    told = {"commit": origin.commit, "params_sha256": origin.params_sha256}
    runs.write_json(path, told)
    return told


def _before_fetching(work: _Work) -> None:
    """Note what the hub's cache has, to delete only what comes to it."""
    path = work.out / "steps" / "before.json"
    if work.delete and work.series.hub_id and not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        runs.write_json(path, cached_files(work.series.hub_id))


def _delete(work: _Work, one: Checkpoint | None) -> None:
    """Delete what was fetched; the last step's stays until main is compared."""
    path = work.out / "steps" / "before.json"
    if work.series.hub_id is None or not path.is_file():
        return
    known = work.series.known
    if one is not None and known and one.step == max(known):
        return  # main has the same files, as a rule: fetched once
    before = _recalled(path)
    if not (isinstance(before, list) and all(isinstance(x, str) for x in before)):
        return  # damaged: nobody knows what was fetched here
    delete_fetched(work.series.hub_id, before, work.revisions)
    path.unlink()
