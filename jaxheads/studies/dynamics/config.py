"""The options of `jaxheads dynamics`."""

import dataclasses
from typing import Any, Literal, Self

import tyro

from jaxheads.scores.config import ScoresConfig
from jaxheads.studies.ablation.config import AblationConfig
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.options import ProtocolCommand

WHOLE_MODEL = dict(
    fractions=(), exclusions=(), exclusions_at=(), keep_only=(), draws=0,
    matched_to=(), zero_shot=False,
)  # fmt: skip
"""Of the ablations of a protocol: none, but the accuracy with no head replaced."""


@dataclasses.dataclass(frozen=True)
class Dynamics(ProtocolCommand):
    """Score the heads of every checkpoint of a training; few-shot accuracy beside."""

    source: tyro.conf.Positional[str] = tyro.MISSING
    """A preset or a hub id whose checkpoints are revisions; a folder with one
    sub-folder a checkpoint, such as step1000, here or in its checkpoints/; or a run of
    `jaxheads train` on text or on function-mixture, whose functions are the tasks."""
    steps: tuple[int, ...] = ()
    """Of the training; default: all of a folder, the paper's eight of Pythia."""
    seeds: tuple[int, ...] = ()
    """Of a run of `jaxheads train`; default: all, each in a folder of its own."""
    revision_pattern: str = "step{step}"
    """How the hub's revisions are named; * stands for anything."""
    few_shot: bool = True
    """Measure few-shot accuracy of the whole model, too."""
    missing: Literal["error", "skip"] = "error"
    """What to do about steps that do not exist."""
    compare_main: bool = True
    """Of the hub's: load the main branch, too, if the last checkpoint is among the
    steps, and say if their weights differ."""
    delete: bool = False
    """Delete the hub's files of each checkpoint afterwards, if they were fetched for
    it: room for one is enough."""
    scores: ScoresConfig = ScoresConfig()
    ablation: AblationConfig = dataclasses.replace(AblationConfig(), **WHOLE_MODEL)  # pyright: ignore[reportArgumentType]
    """The few-shot tasks; fractions and the like: ablations at every step."""

    parts = ("scores", "ablation")

    @classmethod
    def of_protocol(cls, config: StudyConfig, **others: Any) -> Self:
        """As of any command, but without ablations."""
        return super().of_protocol(
            config,
            source=tyro.MISSING,
            ablation=dataclasses.replace(config.ablation, **WHOLE_MODEL),
            **others,
        )


COMMANDS = {"dynamics": Dynamics}
