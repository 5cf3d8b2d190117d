"""Checkpoints of a training run: models to study, and states to go on from.

    RUN/checkpoints/step_00000100          a model, as `jaxheads convert` writes it
    RUN/checkpoints/seed_3/step_00000100   of each seed, where there are several
    RUN/state/step_00000100                params and optimiser; the last two stay

Every folder gets its name when it is whole and on the disk, models before the state of
their step: a process that is killed at any moment leaves a run that goes on.
"""

import contextlib
import dataclasses
import json
import re
import shutil
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from jaxheads.engine.devices import gather
from jaxheads.errors import UserError, first_line
from jaxheads.runs.files import read_json_object
from jaxheads.runs.unfinished import MARK, whole_folder
from jaxheads.training.state import TrainState
from jaxheads.weights.digest import dotted, params_sha256
from jaxheads.weights.model import Model, Provenance
from jaxheads.weights.store import (
    json_sha256,
    restore_params,
    save as save_store,
    save_params,
)

STATES_KEPT = 2
_SEAL = "state_sha256"
_STEP = re.compile(r"step_(\d{8})")


def step_name(step: int) -> str:
    """The folder of a step."""
    return f"step_{step:08d}"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a run's checkpoints lie.

    Attributes:
        run: the run's folder.
        seeds: of the runs side by side.
    """

    run: Path
    seeds: tuple[int, ...]

    def models(self, seed: int) -> Path:
        """The folder of a seed's models."""
        whole = self.run / "checkpoints"
        return whole / f"seed_{seed}" if len(self.seeds) > 1 else whole

    def model(self, seed: int, step: int) -> Path:
        """One model, a source for ``jaxheads.load``."""
        return self.models(seed) / step_name(step)

    @property
    def states(self) -> Path:
        """The folder of states to go on from."""
        return self.run / "state"

    def model_steps(self) -> list[int]:
        """Steps whose models are there, of every seed."""
        found = [set(_steps(self.models(seed))) for seed in self.seeds]
        return sorted(set.intersection(*found))

    def state_steps(self) -> list[int]:
        """Steps with a state to go on from."""
        return _steps(self.states)

    def remove_after(self, step: int) -> None:
        """Remove what an earlier try left unfinished, or made after a step."""
        for folder in (self.states, *map(self.models, self.seeds)):
            for path in folder.glob("step_*"):
                found = _STEP.fullmatch(path.name)
                if MARK in path.name or (found and int(found[1]) > step):
                    shutil.rmtree(path, ignore_errors=True)


def _steps(folder: Path) -> list[int]:
    found = (_STEP.fullmatch(path.name) for path in folder.glob("step_*"))
    return sorted(int(match[1]) for match in found if match)


class Saver(contextlib.AbstractContextManager):
    """Writes checkpoints in the background, one at a time.

    Args:
        place: of the run.
        model_config: the family's ``Config``.
        fingerprint: of the run's config, which a state must have to be gone on from.
        name: what the models are called.
        keep_last: models that stay, the latest; 0: all.
        tokenizer: that goes with the models, or None.
    """

    def __init__(
        self,
        place: Place,
        model_config: Any,
        fingerprint: str,
        name: str,
        keep_last: int = 0,
        tokenizer: Any = None,
    ):
        self._place = place
        self._model_config = model_config
        self._fingerprint = fingerprint
        self._name = name
        self._keep_last = keep_last
        self._tokenizer = tokenizer
        self._pool = ThreadPoolExecutor(1, "checkpoints")
        self._pending: Future | None = None

    def __exit__(self, *error) -> None:
        self._pool.shutdown()

    def save(self, step: int, state: TrainState, seconds: float, model: bool) -> None:
        """Begin to write a step's state, and its models; waits for the one before.

        Args:
            step: updates made so far.
            state: copied before this returns.
            seconds: that training took so far.
            model: whether the models are written, too.

        Raises:
            UserError: the one before could not be written.
        """
        self.wait()
        # Copied: on a processor numpy would see memory that the next step takes over.
        whole = jax.tree.map(np.array, gather(state))
        if jax.process_index() == 0:
            self._pending = self._pool.submit(self._write, step, whole, seconds, model)

    def wait(self) -> None:
        """Wait until everything is on the disk.

        Raises:
            UserError: it could not be written; earlier checkpoints are whole.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def _write(self, step: int, state: TrainState, seconds: float, model: bool) -> None:
        if model:
            for index, seed in enumerate(self._place.seeds):
                params = jax.tree.map(lambda x, i=index: x[i], state.params)
                folder = self._place.model(seed, step)
                if not folder.exists():
                    save_store(self._model(params, seed, step, folder), folder)
        folder = self._place.states / step_name(step)
        if not folder.exists():
            told = {"step": step, "fingerprint": self._fingerprint, "seconds": seconds}
            save_state(folder, state, told)
        for old in self._place.state_steps()[:-STATES_KEPT]:
            shutil.rmtree(self._place.states / step_name(old))
        if self._keep_last:
            for seed in self._place.seeds:
                models = self._place.models(seed)
                for old in _steps(models)[: -self._keep_last]:
                    shutil.rmtree(models / step_name(old))

    def _model(self, params: Any, seed: int, step: int, folder: Path) -> Model:
        return Model(
            params=params,
            config=self._model_config,
            tokenizer=self._tokenizer,
            provenance=Provenance(
                source=str(self._place.run),
                revision=step_name(step),
                commit=None,
                path=str(folder),
                format="jaxheads train",
                file_sha256=None,
                params_sha256=params_sha256(params),
                dtype="float32",
                model_type=self._model_config.model_type,
                tensor_kinds={},
                name=f"{self._name}-seed{seed}-{step_name(step)}",
                license=None,
            ),
            no_tokenizer="its training data are token ids",
        )


def save_state(folder: Path, state: TrainState, told: dict[str, Any]) -> None:
    """Write a state of host arrays.

    Args:
        folder: new.
        state: of numpy arrays.
        told: what ``state.json`` says, besides the hash.

    Raises:
        UserError: the disk does not take it; nothing is left of it.
    """
    leaves = _named(state)
    with whole_folder(folder) as unfinished:
        try:
            save_params(unfinished / "arrays", leaves)
        except Exception as error:  # of Orbax, TensorStore or the disk
            raise UserError(
                f"{folder} must be writable, but the state cannot be stored "
                f"({first_line(error)}): free some room and give the same command "
                "again, it goes on from the last checkpoint"
            ) from error
        told = told | {"sha256": params_sha256(leaves)}
        text = json.dumps(told | {_SEAL: json_sha256(told)}, indent=1)
        (unfinished / "state.json").write_text(text + "\n", encoding="utf-8")


def load_state(folder: Path, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """Read a state, bit for bit.

    Args:
        folder: that ``save_state`` wrote.
        like: the same tree of ``jax.ShapeDtypeStruct``, with a sharding or for the
            default device.

    Returns:
        The state on the devices, and what ``state.json`` says.

    Raises:
        UserError: it is damaged, or has other arrays.
    """
    told = read_json_object(folder / "state.json")
    _refuse_unsound(folder, told)
    (device,) = jax.numpy.zeros(()).devices()
    one = SingleDeviceSharding(device)
    target = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or one)
        for name, x in _named(like).items()
    }
    try:
        leaves = restore_params(folder / "arrays", target)
        sound = told["sha256"] == params_sha256(gather(leaves))
    except Exception as error:  # Orbax and TensorStore have none of their own
        raise UserError(
            f"{folder} must hold a training state, but cannot be read "
            f"({first_line(error)}): delete it, the run goes on from the one before"
        ) from error
    if not sound:
        raise UserError(
            f"{folder} must hold a training state as it was written, but is damaged "
            "(wrong SHA-256): delete it, the run goes on from the one before"
        )
    return jax.tree.unflatten(jax.tree.structure(like), list(leaves.values())), told


def _refuse_unsound(folder: Path, told: dict[str, Any]) -> None:
    """Raise UserError unless ``state.json`` says what ``save_state`` wrote for it."""
    try:
        sound = told.pop(_SEAL, None) == json_sha256(told)
    except ValueError:  # NaN or half a character, which no state is written with
        sound = False
    sound = sound and folder.name == step_name(told["step"])
    if not sound:
        raise UserError(
            f"{folder / 'state.json'} must tell the step, the seconds and the hashes "
            "of a training state, but does not: delete its folder, the run goes on "
            "from the one before"
        )


def load_latest(
    place: Place, like: TrainState, fingerprint: str, steps: list[int]
) -> tuple[TrainState, dict[str, Any]] | None:
    """The latest state of a run that can be read; None: there is none.

    A damaged one is told in a warning and the one before it is taken.

    Args:
        place: of the run.
        like: see ``load_state``.
        fingerprint: of the run's config, which the state must have.
        steps: out of ``place.state_steps()``.
    """
    for step in reversed(steps):
        try:
            state, told = load_state(place.states / step_name(step), like)
        except UserError as error:
            warnings.warn(str(error), stacklevel=2)
            continue
        if told.get("fingerprint") == fingerprint:
            return state, told
    return None


def _named(state: TrainState) -> dict[str, Any]:
    """Leaves by number and path, in the order of the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {f"{i:03d}.{dotted(path)}": leaf for i, (path, leaf) in enumerate(leaves)}
