"""What is asked of heads that stand in for each other."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from jaxheads.errors import UserError, check_counts, check_tasks
from jaxheads.icl.task_names import EVALUATION_TASKS
from jaxheads.scores.config import ScoresConfig
from jaxheads.studies.options import RankedCommand


@dataclasses.dataclass(frozen=True)
class RedundancyConfig:
    """What heads do together: pairs, the smallest set that does, Shapley values."""

    tasks: tuple[str, ...] = EVALUATION_TASKS
    """Tasks that are evaluated; none may be a scoring task."""
    prompts: int = 8
    """Prompts a task to measure and choose sets by; as many more are held out."""
    ranking_by: str = "function_vector"
    """The score by which heads are chosen."""
    top: int = 8
    """How many of its top heads."""
    heads: tuple[str, ...] = ()
    """These heads instead, by name, such as 20.5 18.6."""
    metric: Literal["probability", "accuracy"] = "probability"
    """What a prompt is worth: the probability of the right answer's first token (see
    `targets`), or whether it is the likeliest."""
    value: Literal["mean", "zero"] = "mean"
    """What replaces a head: its mean over the scoring tasks' clean prompts, or 0."""
    others: Literal["kept", "replaced"] = "kept"
    """What happens to all the other heads meanwhile."""
    universe: Literal["chosen", "all"] = "chosen"
    """The heads that the greedy searches go through; all of them is hours of work."""
    share: float = 0.9
    """Share of the clean value that the smallest set has to keep."""
    share_of: Literal["clean", "gain"] = "clean"
    """Of the clean value, or of what it has above the value with the whole universe
    replaced."""
    permutations: int = 32
    """Random orders of the heads, for the Shapley values."""
    antithetic: bool = True
    """Run each order backwards too: less noise, and twice the orders."""

    needs_scores: ClassVar[bool] = True
    shuffles_labels: ClassVar[bool] = False

    def ranked_by(self) -> Mapping[str, tuple[str, ...]]:
        """The scores that are taken, by option."""
        return {"--redundancy.ranking-by": (self.ranking_by,)}

    def check(self, study: Any) -> None:
        """Refuse what makes no sense; see ``ScoresConfig.check``."""
        del study
        if not 0 < self.share <= 1:
            raise UserError(
                "--redundancy.share takes a share above 0 and at most 1, not "
                f"{self.share}"
            )
        check_counts(
            ("--redundancy.prompts", self.prompts, 2),
            ("--redundancy.top", self.top, 2),
            ("--redundancy.permutations", self.permutations, 2),
        )
        check_tasks("--redundancy.tasks", self.tasks)


Config = RedundancyConfig


@dataclasses.dataclass(frozen=True)
class Redundancy(RankedCommand):
    """How the top heads work together: pairs, smallest sets, Shapley values."""

    parts = ("scores", "redundancy")

    scores: ScoresConfig = ScoresConfig()
    redundancy: RedundancyConfig = RedundancyConfig()


COMMANDS = {"redundancy": Redundancy}
