"""What computes the scores that are asked for: parts of the score study.

Parts run one after the other, each kept as a unit of the run. A score's file makes its
own (`registry`).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from jaxheads.engine import plan
from jaxheads.engine.memory import Fit
from jaxheads.engine.passes import Pass
from jaxheads.heads import HeadScores
from jaxheads.icl.prompts import Batch
from jaxheads.runs import Arrays
from jaxheads.scores import registry
from jaxheads.scores.config import ScoresConfig

Known = Mapping[str, HeadScores]
"""The usual scores, which are there before any part runs."""


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """Scores that share their runs of the model.

    Attributes:
        name: of the unit in the run's folder.
        tokens: what is fed to the model, by name.
        cost: of the model's config: what ``measure`` costs.
        fits: of params, config and bytes of memory: the programs that it calls.
        measure: of these and the usual scores: runs the model, or reads its weights.
        scores: of what was measured.
    """

    name: str
    tokens: Arrays
    cost: Callable[[Any], plan.Cost]
    fits: Callable[[Any, Any, int], list[Fit]]
    measure: Callable[[Any, Any, int, Known], Arrays]
    scores: Callable[[Arrays], list[HeadScores]]


def of_passes(
    name: str,
    tokens: Arrays,
    passes: Callable[[Any], list[Pass]],
    read: Callable[..., Arrays],
    scores: Callable[[Arrays], list[HeadScores]],
) -> Part:
    """A part whose runs of the model are passes over prompts.

    Args:
        name: of the unit.
        tokens: what is fed to the model, by name.
        passes: of the model's config: all passes.
        read: of what each of them gives, in their order: arrays [L, H, B] by name.
        scores: of these arrays.
    """

    def cost(config) -> plan.Cost:
        costs = (each.cost * len(each.prompts[0]) for each in passes(config))
        return sum(costs, plan.Cost())

    def fits(params, config, budget_bytes: int) -> list[Fit]:
        return [each.fit(params, budget_bytes) for each in passes(config)]

    def measure(params, config, budget_bytes: int, known: Known) -> Arrays:
        return read(*(each.run(params, budget_bytes) for each in passes(config)))

    return Part(name, tokens, cost, fits, measure, scores)


class Source(Protocol):
    """What probes are made from.

    Attributes:
        bos_id: put first, or None.
        vocabulary: ids that random tokens are drawn from.
        seed: of every draw.
    """

    bos_id: int | None
    vocabulary: Sequence[int]
    seed: int

    def encode(self, text: str) -> list[int]:
        """Text to ids, without BOS."""
        ...

    def straw(self, length: int, count: int) -> np.ndarray:
        """Documents without BOS: int32 [count, length]."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """What parts are made from.

    Attributes:
        chosen: which scores, and how many of everything.
        source: what probes are made from.
        prompts: clean few-shot prompts, by task.
        shots: of those.
        queries: of those by task, int [B]: prompts with one number ask one query;
            empty: not known, each asks its own.
    """

    chosen: ScoresConfig
    source: Source
    prompts: Mapping[str, Batch]
    shots: int
    queries: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def parts(asked: Asked) -> tuple[Part, ...]:
    """The parts that compute the scores that are asked for, in the registry's order.

    Raises:
        UserError: a tokenizer or a text that does not fit.
    """
    files: dict[str, list[str]] = {}
    for name, score in registry.EXTRA_SCORES.items():
        if name in asked.chosen.names and not score.on_probe:
            files.setdefault(score.file, []).append(name)
    made = (registry.load(names[0]).parts(names, asked) for names in files.values())
    return tuple(part for some in made for part in some)
