"""What is asked of gradients."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from jaxheads.errors import UserError, check_counts, check_tasks
from jaxheads.icl.task_names import SCORING_TASKS
from jaxheads.scores.config import (
    ATTRIBUTION_METHODS,
    AttributionMethod,
    check_shuffling,
)
from jaxheads.studies.options import StudyCommand


@dataclasses.dataclass(frozen=True)
class AttributionConfig:
    """Effects of all heads estimated from gradients, and exact ones of some."""

    tasks: tuple[str, ...] = SCORING_TASKS
    """Tasks on whose prompts effects are estimated."""
    clean_prompts: int = 16
    """Clean prompts a task; their mean head outputs, or queries, are patched in."""
    corrupted_prompts: int = 10
    """Prompts a task with shuffled labels, on which effects are estimated."""
    corrupt: Literal["permutation", "derangement"] = "permutation"
    """How labels are shuffled; a permutation may leave some in place (the papers')."""
    methods: tuple[AttributionMethod, ...] = ATTRIBUTION_METHODS
    """Slopes with all heads kept, with all replaced, or averaged on the way between
    them; sizes that cancelling paths cannot hide; effects of queries (QK fix)."""
    metric: Literal["probability", "log_probability"] = "probability"
    """Of the right answer's first token."""
    steps: int = 8
    """Points of "integrated"."""
    top_k: int = 20
    """Heads with the largest estimates that are verified exactly, by each method."""
    sample: int = 20
    """Others, drawn at random, that are verified too. In a model with fewer heads than
    both together all of them are."""

    needs_scores: ClassVar[bool] = False
    shuffles_labels: ClassVar[bool] = True

    def ranked_by(self) -> Mapping[str, tuple[str, ...]]:
        """The scores that are taken, by option: none."""
        return {}

    def check(self, study: Any) -> None:
        """Refuse what makes no sense; see ``ScoresConfig.check``."""
        check_shuffling(self.corrupt, study.drawing)
        methods, known = self.methods, ATTRIBUTION_METHODS
        if not methods or len(set(methods)) < len(methods) or set(methods) - {*known}:
            raise UserError(
                f"--attribution.methods takes different ones of {', '.join(known)}, "
                f"not {' '.join(methods)!r}"
            )
        check_counts(
            ("--attribution.clean-prompts", self.clean_prompts, 1),
            ("--attribution.corrupted-prompts", self.corrupted_prompts, 2),
            ("--attribution.steps", self.steps, 1),
            ("--attribution.top-k", self.top_k, 1),
            ("--attribution.sample", self.sample, 1),
        )
        check_tasks("--attribution.tasks", self.tasks)


Config = AttributionConfig


@dataclasses.dataclass(frozen=True)
class Attribution(StudyCommand):
    """Effects of all heads estimated from gradients, verified exactly on some."""

    parts = ("attribution",)

    attribution: AttributionConfig = AttributionConfig()


COMMANDS = {"attribution": Attribution}
