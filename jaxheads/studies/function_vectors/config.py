"""What is asked of function vectors at work."""

import dataclasses
from typing import Literal

from jaxheads.icl.task_names import EXECUTION_TASKS
from jaxheads.scores.config import ScoreName


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
