"""The arms of a comparison: opened, and held to the same data, seeds and steps."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxheads.errors import UserError
from jaxheads.report import words
from jaxheads.statistics.seeds import FEWEST
from jaxheads.studies.compare_runs.config import ArmsConfig
from jaxheads.training.measures import TrainingEvidence
from jaxheads.training.trained import Trained, open_all

_NO_DIFFERENCE = (
    "seed", "seeds", "eval_every", "eval_batches", "resume_every", "checkpoints",
    "keep_last", "dense_every", "dense_by", "dense_change", "dense_window",
)  # fmt: skip
"""Fields of a training's config that are checked otherwise, or change no model."""
_OBJECTIVE = ("objective", "threshold", "divide_by")


@dataclasses.dataclass(frozen=True, eq=False)
class Arms:
    """Trainings that can be compared; from ``open_arms``.

    Attributes:
        trained: each of them, the reference first.
        names: of each, all different.
        evidence: the same probes and windows for each.
        steps: whose models all have, rising.
        step: at which they are compared.
        differences: "objective: vanilla, hapax" of everything that differs.
        warnings: sentences on what differs besides the objective.
    """

    trained: tuple[Trained, ...]
    names: tuple[str, ...]
    evidence: tuple[TrainingEvidence, ...]
    steps: tuple[int, ...]
    step: int
    differences: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of every arm."""
        return self.trained[0].seeds


def open_arms(paths: Sequence[str | Path], config: ArmsConfig) -> Arms:
    """Open trainings, and refuse those whose models cannot be paired.

    Data and held-out data, the probes and held-out windows drawn from them, and seeds
    must be the same: then seed n of one arm began with the same params as seed n of the
    other (where their models are alike) and read the same windows in the same order.

    Args:
        paths: two folders or more that ``jaxheads train`` wrote, the reference first.
        config: of the comparison.

    Raises:
        UserError: see ``open_trained``; or fewer than two runs, or runs that cannot be
            compared.
    """
    if len(paths) < 2:
        raise UserError(
            "compare-runs takes two trainings or more, the reference first, but "
            f"{len(paths)} {'was' if len(paths) == 1 else 'were'} given: name the "
            "folders of the others, too"
        )
    trained = open_all(paths)
    for name, told in (
        ("data", [one.run.result["model"]["data"]["sha256"] for one in trained]),
        ("held-out data", [_held_out(one) for one in trained]),
        ("seeds", [one.seeds for one in trained]),
        ("vocabulary", [one.model_config.vocab_size for one in trained]),
    ):
        _refuse_unless_same(trained, name, told)
    steps, step = _steps(trained, config)
    evidence = _evidence(trained, config)
    hashes = [one.describe()["sha256"] for one in evidence]
    _refuse_unless_same(trained, "probes and held-out windows", hashes)
    differences, warnings = _compare(trained, step)
    return Arms(trained, _names(trained), evidence, steps, step, differences, warnings)


def _held_out(trained: Trained) -> str | None:
    told = trained.run.result["model"]["held_out"]
    return told and told["sha256"]


def _refuse_unless_same(trained: Sequence[Trained], name: str, told: list) -> None:
    for one, value in zip(trained, told, strict=True):
        if value != told[0]:
            raise UserError(
                f"arms must have the same {name}, but {trained[0].run.path} has "
                f"{_short(told[0])} and {one.run.path} {_short(value)}: train both on "
                "the same data with the same --seed and --seeds"
            )


def _short(value: Any) -> str:
    """A value in a message; of a hash its beginning."""
    text = str(value)
    return f"{text[:12]}..." if isinstance(value, str) and len(text) == 64 else text


def _steps(
    trained: Sequence[Trained], config: ArmsConfig
) -> tuple[tuple[int, ...], int]:
    """Steps of which all arms have models, and the one that is compared."""
    common = sorted(set.intersection(*(set(one.steps) for one in trained)))
    if not common:
        raise UserError(
            "arms must have models of the same step, but have none in common: train "
            "them with the same --steps and --checkpoints"
        )
    for name, asked in (
        ("--step", config.step),
        ("--donor-step", config.donor_step),
        ("--recipient-step", config.recipient_step),
    ):
        if asked is not None and asked not in common:
            there = ", ".join(map(str, common[:20]))
            raise UserError(
                f"{name} must be a step whose models all arms have ({there}), but is "
                f"{asked}: give one of these"
            )
    return tuple(common), common[-1] if config.step is None else config.step


def _evidence(
    trained: Sequence[Trained], config: ArmsConfig
) -> tuple[TrainingEvidence, ...]:
    """The first arm's choices for all."""
    first = trained[0].evidence(
        evidence_samples=config.samples, repetitions=config.repetitions
    )
    chosen = dataclasses.asdict(first.config)
    return (first, *(one.evidence(**chosen) for one in trained[1:]))


def _compare(
    trained: Sequence[Trained], step: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What differs, and warnings of what differs besides the objective."""
    training = {
        field.name: [getattr(one.config, field.name) for one in trained]
        for field in dataclasses.fields(trained[0].config)
        if field.name not in _NO_DIFFERENCE
    }
    kinds = [one.run.result["model"]["model"] for one in trained]
    names = dict.fromkeys(name for kind in kinds for name in kind)
    model = {f"model.{name}": [kind.get(name) for kind in kinds] for name in names}
    changed = {
        name: f"{name}: {', '.join(map(str, told))}"
        for name, told in (training | model).items()
        if any(value != told[0] for value in told)
    }
    warnings = []
    others = [text for name, text in changed.items() if name not in _OBJECTIVE]
    if others:
        warnings.append(
            "The arms differ in more than the objective, so an effect may come from "
            f"any of it: {'; '.join(others)}."
        )
    ends = [max(one.steps) for one in trained]
    if any(end != step for end in ends):
        warnings.append(
            f"Compared at step {step}, but the last steps of the arms are "
            f"{', '.join(map(str, ends))}."
        )
    if len(trained[0].seeds) < FEWEST:
        count = words.plural(len(trained[0].seeds), "seed").capitalize()
        warnings.append(
            f"{count}: fewer than {FEWEST} say nothing of other seeds, and the claims "
            "stay undecided."
        )
    return tuple(changed.values()), tuple(warnings)


def _names(trained: Sequence[Trained]) -> tuple[str, ...]:
    """The objectives where they tell the arms apart, or else the folders' names."""
    for names in (
        [one.config.objective for one in trained],
        [one.name for one in trained],
        [str(one.run.path) for one in trained],
    ):
        if len(set(names)) == len(names):
            break
    return tuple(names)
