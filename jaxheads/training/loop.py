"""The training loop: steps, curves, evidence, checkpoints, and going on again."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from jaxheads import models, runs
from jaxheads.errors import UserError
from jaxheads.memory import free_main_memory
from jaxheads.models.parameters import num_params
from jaxheads.training.attempt import Attempt, Evidence, Report
from jaxheads.training.config import TrainConfig
from jaxheads.training.data.windows import Source
from jaxheads.training.result import describe
from jaxheads.weights.digest import params_sha256


def train(
    config: TrainConfig,
    model_config: Any,
    source: Source,
    out: str | Path,
    *,
    held_out: Source | None = None,
    evidence: Evidence | None = None,
    embedding: jax.Array | None = None,
    mesh: Mesh | None = None,
    report: Report | None = None,
    tokenizer: Any = None,
) -> runs.Run:
    """Train a model, or several of different seeds at once, into a run folder.

    A run that stopped goes on from its last state with the same call and ends with the
    same arrays; a finished one is read.

    Args:
        config: of the run.
        model_config: the family's ``Config``.
        source: of the windows; each seed reads its own order (``stream``) of it.
        out: the run's folder.
        held_out: of the windows of the held-out loss; None: ``source``, in an order
            that no seed reads.
        evidence: what is measured at every evaluation, of each seed; ``make_evidence``,
            or any function. If it has ``describe()``, that identifies the run, too.
        embedding: [V, D] that "hapax-thresholded" compares; None: the model's own.
        mesh: devices; "data" takes the seeds if there are several, else the windows of
            a batch, "model" the params.
        report: told the metrics of steps as they come.
        tokenizer: to keep with the models.

    Returns:
        The finished run: curves "train/*" [steps, N], evaluations "evaluation/*"
        [evaluations, N, ...]; models lie in its folder "checkpoints".

    Raises:
        UserError: choices that do not fit; the loss is not finite; the disk is full;
            another process trains in the folder.
        KeyboardInterrupt: Ctrl-C, or SIGTERM, after the state was written.
    """
    config.check()
    check_fit(config, model_config, source, mesh)
    describe_evidence = getattr(evidence, "describe", None)
    told = {
        "model": dataclasses.asdict(model_config),
        "data": source.describe(),
        "held_out": None if held_out is None else held_out.describe(),
        "embedding": None if embedding is None else params_sha256(embedding),
        "evidence": describe_evidence and describe_evidence(),
    }
    with runs.RunFolder(out, "train", dataclasses.asdict(config), told) as folder:
        if folder.finished:
            return runs.load(folder.path)
        attempt = Attempt(
            config,
            model_config,
            source,
            folder,
            source if held_out is None else held_out,
            evidence,
            embedding,
            mesh,
            report,
            tokenizer,
        )
        arrays, seconds = attempt.run()
        result = describe(
            config,
            model_config,
            source.sequence_length,
            arrays,
            attempt.place,
            seconds,
            attempt.names,
            told,
        )
        # Not before all is whole: a finished run is not gone on with.
        run = folder.finish(result, arrays)
        (folder.path / "curves.jsonl").unlink(missing_ok=True)
        shutil.rmtree(attempt.place.states, ignore_errors=True)
        return run


def check_fit(
    config: TrainConfig, model_config: Any, source: Source, mesh: Mesh | None
) -> None:
    """Refuse choices that do not fit each other, before anything is made.

    Args:
        config: of the training.
        model_config: the family's ``Config``.
        source: of the windows.
        mesh: devices; None: the default one.

    Raises:
        UserError: model, data, devices and memory do not fit.
    """
    if source.vocab_size > model_config.vocab_size:
        raise UserError(
            f"the model must know every token of the data, but has "
            f"{model_config.vocab_size} and the data {source.vocab_size}: give it a "
            "larger vocabulary"
        )
    if source.sequence_length > model_config.context_length:
        raise UserError(
            f"the data's windows of {source.sequence_length} tokens must fit the "
            f"model's context of {model_config.context_length}: shorten the windows"
        )
    params = num_params(models.family(model_config.model_type).abstract(model_config))
    batch = config.batch_size * source.sequence_length
    needed = config.seeds * (12 * params + 4 * batch)  # with two moments of each param
    free = free_main_memory()
    if (
        jax.default_backend() == "cpu" and needed > free
    ):  # an accelerator says it itself
        raise UserError(
            f"training needs {needed / 1e9:,.1f} GB of memory at the very least, but "
            f"{free / 1e9:,.1f} GB is free: give fewer --seeds, a smaller --batch-size "
            "or a smaller model"
        )
    if jax.process_count() > 1:
        raise UserError(
            "training takes one process, with all of its devices, but there are "
            f"{jax.process_count()}: start one"
        )
    parts = 1 if mesh is None else mesh.shape.get("data", 1)
    name, count = ("--seeds", config.seeds)
    if config.seeds == 1:
        name, count = "--batch-size / --accumulate", config.batch_size
        count //= config.accumulate
    if count % parts:
        raise UserError(
            f"{name} must be a multiple of the {parts} devices on --mesh data, but is "
            f"{count}"
        )
