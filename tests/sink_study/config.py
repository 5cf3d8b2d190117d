"""What is asked of sinks, and the options of `jaxheads sink`."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from jaxheads.errors import check_counts, check_tasks
from jaxheads.studies.options import StudyCommand


@dataclasses.dataclass(frozen=True)
class SinkConfig:
    """How much every head attends to the first token."""

    tasks: tuple[str, ...] = ("antonym",)
    """Tasks whose prompts are read."""
    prompts: int = 4
    """Prompts a task."""

    needs_scores: ClassVar[bool] = False
    shuffles_labels: ClassVar[bool] = False

    def ranked_by(self) -> Mapping[str, tuple[str, ...]]:
        """The scores that are taken, by option: none."""
        return {}

    def check(self, study: Any) -> None:
        """Refuse what makes no sense."""
        del study
        check_counts(("--sink.prompts", self.prompts, 2))
        check_tasks("--sink.tasks", self.tasks)


Config = SinkConfig


@dataclasses.dataclass(frozen=True)
class Sink(StudyCommand):
    """How much every head attends to the first token of prompts."""

    parts = ("sink",)

    sink: SinkConfig = SinkConfig()


COMMANDS = {"sink": Sink}
