"""What is asked of function vectors at work."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from jaxheads.errors import UserError, check_counts, check_tasks
from jaxheads.icl.task_names import EXECUTION_TASKS
from jaxheads.scores.config import ScoresConfig
from jaxheads.scores.registry import ScoreName
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.options import ProtocolCommand, RankedCommand


@dataclasses.dataclass(frozen=True)
class ExecutionConfig:
    """Tasks carried out by function vectors: added to prompts that do not show them."""

    tasks: tuple[str, ...] = EXECUTION_TASKS
    """Tasks whose function vectors are made and tried."""
    prompts: int = 25
    """Queries a task, each after clean demonstrations, shuffled ones, and none."""
    clean_prompts: int = 16
    """Other prompts a task, whose mean head outputs are summed to its vector."""
    mean: Literal["task", "tasks"] = "task"
    """Mean head outputs of a vector: the task's own, or those of all scoring tasks
    (what the reference study's code does)."""
    ranking_by: ScoreName = "function_vector"
    """The score by which heads are chosen."""
    size: float = 0.02
    """Share of all heads that are summed, rounded up."""
    sizes: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.2)
    """Shares to try beside it, at one layer."""
    layers: Literal["third", "all"] = "all"
    """Where vectors are added: a third of the way up, or at every layer in turn."""
    place: Literal["leaving", "entering"] = "leaving"
    """Of the layer's residual stream."""
    bias: Literal["none", "each_head"] = "none"
    """The output projection's bias, where there is one: left out of a vector, or added
    once for each head (what the reference study's code does)."""
    random_sets: int = 3
    """Vectors of as many random heads, for control."""
    read_out: int = 10
    """Tokens that are named in a vector's read-out through the unembedding."""

    needs_scores: ClassVar[bool] = True
    shuffles_labels: ClassVar[bool] = True

    def ranked_by(self) -> Mapping[str, tuple[str, ...]]:
        """The scores that are taken, by option."""
        return {"--execution.ranking-by": (self.ranking_by,)}

    def check(self, study: Any) -> None:
        """Refuse what makes no sense; see ``ScoresConfig.check``."""
        del study
        sizes = (("size", self.size), *(("sizes", size) for size in self.sizes))
        for name, size in sizes:
            if not 0 < size <= 1:
                raise UserError(
                    f"--execution.{name} takes shares of heads above 0 and at most 1, "
                    f"not {size}"
                )
        check_counts(
            ("--execution.prompts", self.prompts, 2),
            ("--execution.clean-prompts", self.clean_prompts, 1),
            ("--execution.random-sets", self.random_sets, 0),
            ("--execution.read-out", self.read_out, 1),
        )
        # A study without function vectors at work names no tasks for them.
        check_tasks("--execution.tasks", self.tasks, least=0)


Config = ExecutionConfig


@dataclasses.dataclass(frozen=True)
class Execution(RankedCommand, ProtocolCommand):
    """Carry tasks out by function vectors: added to prompts that do not show them."""

    parts = ("scores", "execution")

    scores: ScoresConfig = ScoresConfig()
    execution: ExecutionConfig = ExecutionConfig()

    @classmethod
    def of_protocol(cls, config: StudyConfig, **others: Any) -> Self:
        """As of any command; but it runs this study if the protocol does not, too."""
        if not config.execution.tasks:
            others = {"execution": ExecutionConfig()} | others
        return super().of_protocol(config, **others)


COMMANDS = {"execution": Execution}
