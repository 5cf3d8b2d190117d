"""Finished training runs, opened again: their models at every step, and their data.

What analyses over runs begin with. Params of all seeds come stacked, [N, ...], as the
training step and its evidence take them.
"""

import dataclasses
import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads import models, runs
from jaxheads.errors import UserError
from jaxheads.training.checkpoints import Place
from jaxheads.training.choices import GENERATORS
from jaxheads.training.config import EvidenceConfig, TrainConfig
from jaxheads.training.data.windows import Source
from jaxheads.training.measures import TrainingEvidence, make_evidence
from jaxheads.weights.model import Model, load
from jaxheads.weights.store import from_json


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A finished training run; from ``open_trained``.

    Attributes:
        run: what it wrote: curves, evaluations, receipt.
        config: of the training.
        model_config: the family's ``Config``.
        place: where its models lie.
        source: of its training windows.
        held_out: of its held-out windows; None: ``source``, in an order of its own.
    """

    run: runs.Run
    config: TrainConfig
    model_config: Any
    place: Place
    source: Source
    held_out: Source | None

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.run.path.name

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the N models."""
        return self.place.seeds

    @functools.cached_property
    def steps(self) -> tuple[int, ...]:
        """Steps whose models are there, of every seed, rising.

        Models that were removed since the training are told in a warning.
        """
        there = self.place.model_steps()
        written = self.run.arrays["train/checkpoints"].tolist()
        if there and (gone := sorted(set(written) - set(there))):
            warnings.warn(
                f"{self.run.path / 'checkpoints'} had models of step "
                f"{', '.join(map(str, gone))}, which have been removed since: what "
                "follows goes without them",
                stacklevel=2,
            )
        return tuple(there)

    @property
    def eval_steps(self) -> np.ndarray:
        """Steps of the evaluations, int [E]; empty where there were none."""
        return self.run.arrays.get("evaluation/step", np.zeros(0, int))

    def evaluated(self, name: str) -> np.ndarray | None:
        """A figure at every evaluation of every seed, [E, N, ...]; None: not there."""
        return self.run.arrays.get(f"evaluation/{name}")

    def model(self, seed: int, step: int) -> Model:
        """One model, with its receipt.

        Raises:
            UserError: it is not there, or damaged.
        """
        folder = self.place.model(seed, step)
        if not folder.is_dir():
            there = ", ".join(map(str, self.steps[:20])) or "none"
            raise UserError(
                f"{self.run.path} must have the models of step {step}, but has "
                f"those of {there}: train with --checkpoints {step}, or ask for these"
            )
        return load(folder)

    def params(self, step: int) -> Any:
        """Params of all seeds at a step, leaves float32 [N, ...].

        Raises:
            UserError: they are not there, or damaged.
        """
        each = [self.model(seed, step).params for seed in self.seeds]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)

    def evidence(self, **changes: Any) -> TrainingEvidence:
        """What the run was measured with: the same probes and windows, drawn again.

        Args:
            changes: fields of ``EvidenceConfig`` that differ.

        Raises:
            UserError: choices that do not fit the data.
        """
        told = self.run.result["model"]["evidence"] or {}
        fields = {field.name for field in dataclasses.fields(EvidenceConfig)}
        given = {name: value for name, value in told.items() if name in fields}
        for name in ("evidence_positions", "evidence_tasks"):
            if given.get(name) is not None:
                given[name] = tuple(given[name])
        config = EvidenceConfig(**given | changes)
        tokenizer = None
        if config.evidence_tasks:  # it lies beside every model
            tokenizer = self.model(self.seeds[0], self.steps[-1]).tokenizer
        return make_evidence(
            config, self.model_config, self.source, self.held_out, tokenizer
        )


def open_trained(path: str | Path) -> Trained:
    """Open a folder that ``jaxheads train`` wrote.

    Raises:
        UserError: it is no finished training run, or its data are not there any more,
            or are not what they were.
    """
    run = runs.load(path)
    if "train" not in run.result:
        raise UserError(
            f"{run.path} must hold a training run, but holds {run.result['study']!r}: "
            "give a folder that `jaxheads train` wrote"
        )
    told = run.result["model"]
    try:
        config = from_json(TrainConfig, run.result["config"])
        kind = models.family(told["model"]["model_type"]).Config
        model_config = from_json(kind, told["model"])
    except (KeyError, TypeError, ValueError) as error:  # fields of another version
        raise UserError(
            f"{run.path} must be of a training that this version knows, but is not "
            f"({error}): train again"
        ) from error
    return Trained(
        run,
        config,
        model_config,
        Place(run.path, tuple(run.result["train"]["seeds"])),
        _source(told["data"], run.path),
        told["held_out"] and _source(told["held_out"], run.path),
    )


def open_all(paths: Sequence[str | Path]) -> tuple[Trained, ...]:
    """Open several runs.

    Raises:
        UserError: see ``open_trained``; or a folder is given twice.
    """
    resolved = [Path(path).resolve() for path in paths]
    for at, path in enumerate(resolved):
        if path in resolved[:at]:
            raise UserError(f"each run must be given once, but {path} stands twice")
    return tuple(map(open_trained, paths))


def _source(told: dict[str, Any], run: Path) -> Source:
    """Data as they were described, checked against the hash of their content."""
    kinds = {kind.__name__: kind for kind in GENERATORS.values()}
    try:
        if told["source"] in kinds:
            source = _made(kinds[told["source"]], told)
        else:
            source = _text(told, run)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{run} must name data that this version knows, but does not ({error}): "
            "train again"
        ) from error
    if source.describe()["sha256"] != told["sha256"]:
        raise UserError(
            f"{run} was trained on other data than {told['source']} gives now (another "
            "SHA-256): train again with this version"
        )
    return source


def _made(kind: Any, told: dict[str, Any]) -> Source:
    fields = {field.name for field in dataclasses.fields(kind) if field.init}
    given = {name: value for name, value in told.items() if name in fields}
    return from_json(kind, given)


def _text(told: dict[str, Any], run: Path) -> Source:
    """Windows of the tokens that lie beside the run."""
    from jaxheads.training.data.text_windows import TextWindows
    from jaxheads.training.data.token_store import open_store

    store = open_store(run.with_name(f"{run.name}-tokens"))
    fields = {field.name for field in dataclasses.fields(TextWindows)} - {"store"}
    return TextWindows(store, **{name: told[name] for name in fields})
