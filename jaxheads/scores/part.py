"""What computes the scores that are asked for: parts of the score study.

A part knows its token arrays, its cost and programs, how to measure, and how to turn
what was measured into scores. Parts run one after the other, each kept as a unit of the
run. `catalogue` makes them.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from jaxheads.engine import plan
from jaxheads.engine.memory import Fit
from jaxheads.engine.passes import Pass
from jaxheads.heads import HeadScores
from jaxheads.runs import Arrays

Known = Mapping[str, HeadScores]
"""The usual scores, which are there before any part runs."""


class OfPasses:
    """A part whose runs of the model are passes over prompts."""

    def passes(self, config) -> list[Pass]:
        """All passes, in the order of ``measure``."""
        raise NotImplementedError

    def cost(self, config) -> plan.Cost:
        """What ``measure`` costs."""
        costs = (each.cost * len(each.prompts[0]) for each in self.passes(config))
        return sum(costs, plan.Cost())

    def fits(self, params, config, budget_bytes: int) -> list[Fit]:
        """The programs that ``measure`` calls."""
        return [each.fit(params, budget_bytes) for each in self.passes(config)]

    def runs(self, params, config, budget_bytes: int) -> list[Any]:
        """What each pass gives, of all prompts."""
        return [each.run(params, budget_bytes) for each in self.passes(config)]


class Part(Protocol):
    """Scores that share their runs of the model."""

    @property
    def name(self) -> str:
        """Of the unit in the run's folder."""
        ...

    def tokens(self) -> Arrays:
        """What is fed to the model, by name."""
        ...

    def cost(self, config) -> plan.Cost:
        """What ``measure`` costs."""
        ...

    def fits(self, params, config, budget_bytes: int) -> list[Fit]:
        """The programs that ``measure`` calls."""
        ...

    def measure(self, params, config, budget_bytes: int, known: Known) -> Arrays:
        """Run the model, or read its weights."""
        ...

    def scores(self, measured: Arrays) -> list[HeadScores]:
        """Scores from what was measured."""
        ...
