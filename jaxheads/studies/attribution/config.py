"""What is asked of gradients."""

import dataclasses
from typing import Literal

from jaxheads.icl.task_names import SCORING_TASKS
from jaxheads.scores.config import ATTRIBUTION_METHODS, AttributionMethod


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
