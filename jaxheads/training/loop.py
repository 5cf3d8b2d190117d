"""The training loop: steps, curves, evidence, checkpoints, and going on again."""

import dataclasses
import math
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxheads import models, runs, stops
from jaxheads.engine.memory import free_main_memory
from jaxheads.errors import UserError
from jaxheads.models.parameters import num_params
from jaxheads.training.checkpoints import Place, Saver, load_latest, step_name
from jaxheads.training.config import TrainConfig
from jaxheads.training.data.windows import EVALUATION_STREAM, Source
from jaxheads.training.measures import AXES
from jaxheads.training.result import describe
from jaxheads.training.schedule import (
    NAMES,
    Curves,
    evidence_moves,
    fixed_steps,
    loss_moves,
    sound_rows,
)
from jaxheads.training.state import (
    Batch,
    TrainState,
    abstract_state,
    init_state,
    params_of_each,
    place_batch,
    stack,
)
from jaxheads.training.step import Metrics, make_evaluation, make_step
from jaxheads.weights.digest import params_sha256
from jaxheads.weights.store import open_store, restore

Evidence = Callable[[int, Any], dict[str, np.ndarray]]
"""(step, params of one seed) -> arrays by name, always the same names and shapes."""

Report = Callable[[int, dict[str, Any]], None]
"""(step, its row of the curves): told as training goes on."""

_ROWS, _SECONDS = 16, 0.5
"""Steps, or seconds, after which rows are written."""


class Attempt:
    """One try of a run, from its last state on; arguments as ``train`` has them."""

    def __init__(
        self,
        config: TrainConfig,
        model_config: Any,
        source: Source,
        folder: runs.RunFolder,
        held_out: Source,
        evidence: Evidence | None,
        embedding: jax.Array | None,
        mesh: Mesh | None,
        report: Report | None,
        tokenizer: Any,
    ):
        self._config, self._model_config = config, model_config
        self._source, self._held_out = source, held_out
        self._folder, self._mesh = folder, mesh
        self._evidence, self._report = evidence, report
        self._step = make_step(config, model_config, embedding)
        self._evaluate = make_evaluation(config, model_config, embedding)
        self._fixed = fixed_steps(config.checkpoints, config.steps)
        self._waiting: list[tuple[int, Metrics]] = []
        self._evaluations: dict[int, runs.Arrays] = {}
        self._name = f"{model_config.model_type}-{config.objective}"
        self._tokenizer = tokenizer
        self.place = Place(folder.path, config.seed_numbers())
        self.names: list[str] = []

    def run(self) -> tuple[runs.Arrays, float]:
        """Train to the end: the run's arrays, and the seconds of all tries."""
        config = self._config
        state, first, before = self._begin()
        self._started = self._told = time.monotonic()
        self._saver = saver = Saver(
            self.place,
            self._model_config,
            self._folder.fingerprint,
            self._name,
            config.keep_last,
            self._tokenizer,
        )
        with saver, stops.listening():
            batch = self._batch(first)
            for step in range(first, config.steps + 1):
                seconds = before + time.monotonic() - self._started
                try:
                    self._at(step, state, saver, seconds)
                    if step < config.steps:
                        stops.check()
                except stops.Stopped:
                    self._flush()
                    saver.save(step, state, seconds, model=False)
                    saver.wait()
                    raise stops.Stopped(
                        f"step {step} of {config.steps} is saved in {self.place.run}; "
                        "the same command goes on from there"
                    ) from None
                if step == config.steps:
                    break
                state, metrics = self._step(state, batch)
                self._waiting.append((step + 1, metrics))
                if step + 1 < config.steps:  # made while the devices compute
                    batch = self._batch(step + 1)
                self._pace()
            self._flush()
            saver.wait()
        return self._arrays(), before + time.monotonic() - self._started

    def _begin(self) -> tuple[TrainState, int, float]:
        """The last state, or a new one; its step, and the seconds until then."""
        config, model_config = self._config, self._model_config
        like = abstract_state(config, model_config, self._mesh)
        path = self._folder.path / "curves.jsonl"
        rows = sound_rows(path, config.seeds)
        steps = self._steps_to_go_on_from(len(rows))
        found = load_latest(self.place, like, self._folder.fingerprint, steps)
        step = 0 if found is None else found[1]["step"]
        self._curves = Curves(path, rows[:step])
        self.place.remove_after(step if found else -1)
        for unit in (self._folder.path / "units").glob("evaluation_*.npz"):
            if int(unit.stem.split("_")[1]) > step:
                unit.unlink()
        if found is None:
            return init_state(config, model_config, self._mesh), 0, 0.0
        self._say_what_was_removed(step)
        for lost in self._lost_evaluations(step):
            self._evaluations[lost] = self._evaluation(lost, self._saved(lost, like))
        return found[0], step, float(found[1]["seconds"])

    def _steps_to_go_on_from(self, rows: int) -> list[int]:
        """Steps with a state that the curves and the evaluations reach.

        An evaluation that is lost is measured again from its models, if they are there.

        Raises:
            UserError: there are states, but none such.
        """
        there = self.place.state_steps()
        if not there:
            return []
        models = self.place.model_steps()
        lost = [s for s in self._lost_evaluations(there[-1]) if s not in models]
        last = min([rows, *lost])
        if found := [step for step in there if step <= last]:
            return found
        run = self._folder.path
        if rows < there[0]:
            raise UserError(
                f"{run / 'curves.jsonl'} must have the curves of {there[0]} steps, but "
                f"has {rows}: delete the folder and train anew"
            )
        raise UserError(
            f"{run / 'units' / _unit(lost[0])}.npz must hold an evaluation, but is "
            f"missing or damaged, and no models of step {lost[0]} are there to measure "
            "it again: delete the folder and train anew"
        )

    def _lost_evaluations(self, before: int) -> list[int]:
        """Steps before another whose evaluation is missing or damaged."""
        every = self._config.eval_every
        due = range(0, before, every) if every else ()
        return [step for step in due if "loss" not in self._evaluation_at(step)]

    def _saved(self, step: int, like: TrainState) -> Any:
        """Params of every seed out of a step's models, where the state's are."""
        each = []
        for seed in self.place.seeds:
            store = open_store(self.place.model(seed, step))
            each.append(jax.device_get(restore(store, "float32")[0]))
        whole = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
        return jax.tree.map(
            lambda x, one: jax.device_put(x, one.sharding), whole, like.params
        )

    def _say_what_was_removed(self, step: int) -> None:
        """Warn of models that were written and are not there any more."""
        due = {at for at in self._fixed if at < step}
        gone = sorted(due - set(self.place.model_steps()))
        if gone and not self._config.keep_last:
            warnings.warn(
                f"{self.place.run / 'checkpoints'} had models of step "
                f"{', '.join(map(str, gone))}, which have been removed since: the run "
                "goes on and ends without them",
                stacklevel=2,
            )

    def _batch(self, index: int) -> Batch:
        """The windows of every seed, on the devices."""
        size = self._config.batch_size
        windows = [
            self._source.batch(index, size, stream=seed) for seed in self.place.seeds
        ]
        return place_batch(stack(windows), self._config, self._mesh)

    def _at(self, step: int, state: TrainState, saver: Saver, seconds: float) -> None:
        """What is due after so many updates: evaluation, checkpoint, state."""
        config = self._config
        every = config.eval_every
        if every and (step % every == 0 or step == config.steps):
            self._flush()
            self._evaluations[step] = self._evaluation(step, state.params)
        model = step in self._fixed or self._dense(step)
        if model or step % config.resume_every == 0:
            self._flush()  # a state after a loss that is not finite is never written
            saver.save(step, state, seconds, model)

    def _evaluation(self, step: int, params: Any) -> runs.Arrays:
        """Held-out loss and evidence, kept in the run's folder."""

        def compute() -> runs.Arrays:
            config, arrays = self._config, {}
            seen = []
            for index in range(config.eval_batches):
                windows = self._held_out.batch(
                    index, config.batch_size, stream=EVALUATION_STREAM
                )
                batch = stack([windows] * config.seeds)
                batch = place_batch(batch, config, self._mesh)
                seen.append(self._evaluate(params, batch))
            seen = jax.device_get(seen)
            for name in ("loss", "all_loss"):
                arrays[name] = np.mean([getattr(one, name) for one in seen], axis=0)
            if self._evidence is not None:
                each = []
                for one in params_of_each(params):
                    stops.check()
                    each.append(self._evidence(step, one))
                for name in each[0]:
                    if name in arrays:
                        raise ValueError(f"an evidence must not be called {name!r}")
                    arrays[name] = np.stack([np.asarray(one[name]) for one in each])
            return arrays

        arrays = dict(self._folder.unit(_unit(step), compute, AXES))
        arrays.pop("seconds")
        self.names = sorted(arrays)
        return arrays

    def _dense(self, step: int) -> bool:
        """Whether a step lies where what is watched moves fast."""
        config = self._config
        if not config.dense_every or step % config.dense_every:
            return False
        self._flush()
        if config.dense_by == "loss":
            window = config.dense_window
            losses = self._curves.values("loss", last=2 * window)
            return loss_moves(losses, window, config.dense_change)
        every = config.eval_every
        due = [at for at in range(0, step + 1, every or step + 1)][-2:]
        records = [self._evaluation_at(at) for at in due]
        if config.dense_by not in records[-1]:
            raise UserError(
                "--dense-by takes loss or an evidence, one of "
                f"{', '.join(records[-1]) or 'none'}, not {config.dense_by!r}"
            )
        watched = np.array([record[config.dense_by] for record in records])
        return evidence_moves(watched, config.dense_change)

    def _evaluation_at(self, step: int) -> runs.Arrays:
        """An evaluation of this try or an earlier one; empty if there was none."""
        if step not in self._evaluations:
            stored = self._folder.stored(_unit(step)) or {}
            stored.pop("seconds", None)
            self._evaluations[step] = stored
        return self._evaluations[step]

    def _pace(self) -> None:
        """Keep one step ahead of the devices, and write rows every while."""
        if len(self._waiting) > 1:
            jax.block_until_ready(self._waiting[-2][1].loss)
        late = time.monotonic() - self._told > _SECONDS
        if late or len(self._waiting) >= _ROWS:
            self._flush()

    def _flush(self) -> None:
        """Write the rows of all steps so far.

        Raises:
            UserError: a loss or a gradient is not finite.
        """
        waiting, self._waiting = self._waiting, []
        rows = []
        for step, metrics in waiting:
            row: dict[str, Any] = {"step": step}
            for name in NAMES:
                values = np.asarray(getattr(metrics, name), np.float64).tolist()
                if not all(map(math.isfinite, values)):
                    self._curves.append(rows)
                    self._refuse(step, name, values)
                row[name] = values
            row["learning_rate"] = self._config.learning_rate_at(step - 1)
            rows.append(row)
        if rows:
            self._curves.append(rows)
            self._told = time.monotonic()
            if self._report is not None:
                self._report(rows[-1]["step"], rows[-1])

    def _refuse(self, step: int, name: str, values: list[float]) -> None:
        """Stop at numbers that are not finite."""
        index = next(i for i, value in enumerate(values) if not math.isfinite(value))
        self._saver.wait()
        models = self.place.model_steps()
        last = step_name(models[-1]) if models else "none"
        raise UserError(
            f"the {name.replace('_', ' ')} must stay finite, but is {values[index]} at "
            f"step {step} of seed {self.place.seeds[index]} (last checkpoint: {last}): "
            "give a lower --learning-rate, a longer --warmup or a --clip, and another "
            "--out"
        )

    def _arrays(self) -> runs.Arrays:
        """Curves and evaluations of the whole run."""
        arrays = self._curves.arrays()
        config = self._config
        if config.eval_every:
            steps = sorted({*range(0, config.steps, config.eval_every), config.steps})
            records = [self._evaluation_at(step) for step in steps]
            arrays["evaluation/step"] = np.array(steps)
            for name in self.names:
                values = np.stack([record[name] for record in records])
                arrays[f"evaluation/{name}"] = values
        arrays["train/checkpoints"] = np.array(self.place.model_steps())
        return arrays


def _unit(step: int) -> str:
    """The name of an evaluation in the run's folder."""
    return f"evaluation_{step:08d}"


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
