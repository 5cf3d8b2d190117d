"""What a study of a model is handed when it runs, and when it is planned."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxheads.runs import Arrays, RunFolder
from jaxheads.tokenizer.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Given:
    """What the scores of a run give to the studies that come after them.

    Attributes:
        rankings: every score of every head, [L, H], by name.
        mean_heads: [L, H, K], mean head output at the last position of the scoring
            tasks' clean prompts; without values in a plan; None: nobody measured it.
    """

    rankings: Mapping[str, np.ndarray]
    mean_heads: Any

    @classmethod
    def of_arrays(cls, arrays: Arrays, scores: Mapping[str, Any]) -> "Given":
        """What the arrays of a run give, whose scores have these names."""
        rankings = {name: arrays[f"score/{name}"] for name in scores}
        return cls(rankings, arrays.get("fv/mean_heads"))

    @classmethod
    def stand_in(cls, config, names: tuple[str, ...]) -> "Given":
        """Anything in the place of scores that are to be computed, for a plan.

        Args:
            config: of the model.
            names: of the scores.
        """
        layers, heads = config.num_layers, config.num_heads
        anything = np.arange(layers * heads, dtype=float).reshape(layers, heads)
        mean = jax.ShapeDtypeStruct((layers, heads, config.head_dim), np.float32)
        return cls(dict.fromkeys(names, anything), mean)


@dataclasses.dataclass(frozen=True)
class Job:
    """What a study runs with, besides its inputs.

    Attributes:
        params: of the family of ``config``.
        config: of the model.
        tokenizer: to read answers; None: they are token ids.
        given: by the scores of the run.
        folder: where finished units are kept.
        budget: bytes for activations and caches on a device.
        advance: told the FLOPs that are done.
    """

    params: Any
    config: Any
    tokenizer: Tokenizer | None
    given: Given
    folder: RunFolder
    budget: int
    advance: Callable[[float], None]
