"""Scores of every head over the steps of a training (numpy only).

Dims: U steps, A scoring tasks, L layers, H heads.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxheads.runs import Arrays, Run
from jaxheads.statistics.standing_out import stands_out

LEAST = {"induction": 0.1, "function_vector": 0.0}
"""How far above chance a score must be for a kind of head to be there: the best of a
few untrained heads is a little above it, and that with hardly any error."""


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectories:
    """Two scores of every head over the steps.

    Attributes:
        steps: int [U], in order.
        induction: [U, L, H], share of attention.
        induction_se: [U, L, H].
        induction_chance: of a head that attends evenly.
        fv: [U, L, H], probability.
        fv_se: [U, L, H].
        fv_effects: [U, A, L, H], the FV score by task.
        sequences: that the induction scores and their errors rest on.
        prompts: of each task, that the FV scores rest on.
    """

    steps: np.ndarray
    induction: np.ndarray
    induction_se: np.ndarray
    induction_chance: float
    fv: np.ndarray
    fv_se: np.ndarray
    fv_effects: np.ndarray
    sequences: int
    prompts: int

    @classmethod
    def of(
        cls, arrays: Arrays, scores: Mapping[str, Any], config: Mapping[str, Any]
    ) -> "Trajectories":
        """Out of the arrays of a dynamics run.

        Args:
            arrays: of the run.
            scores: what its scores mean.
            config: how they were measured, the run's ``ScoresConfig`` as JSON.
        """
        named = {
            name: np.asarray(arrays[f"dynamics/score/{name}"], np.float64)
            for score in ("induction", "function_vector")
            for name in (score, f"{score}_se")
        }
        return cls(
            np.asarray(arrays["dynamics/step"]),
            named["induction"],
            named["induction_se"],
            float(scores["induction"]["chance"]),
            named["function_vector"],
            named["function_vector_se"],
            np.asarray(arrays["dynamics/fv_effects"], np.float64),
            int(config["sequences"]),
            int(config["corrupted_prompts"]),
        )

    @classmethod
    def of_run(cls, run: Run) -> "Trajectories":
        """Out of a loaded dynamics run."""
        return cls.of(run.arrays, run.result["scores"], run.result["config"]["scores"])

    def shows(self, name: str, level: float = 0.05) -> np.ndarray:
        """Which heads stand out from chance at each step: bool [U, L H].

        Args:
            name: "induction" or "function_vector".
            level: at each step, over all heads together.
        """
        if name == "induction":
            asked = (self.induction, self.induction_se, self.induction_chance)
            found = stands_out(*asked, self.sequences, level)
        else:
            found = stands_out(self.fv, self.fv_se, 0.0, self.prompts, level)
        return found.reshape(len(found), -1)


def ranks(scores: np.ndarray) -> np.ndarray:
    """Rank heads from 1 (largest) at each step: [U, L, H] -> int [U, L H].

    Of equal scores the earlier head has the better rank.
    """
    flat = scores.reshape(len(scores), -1)
    places = np.empty(flat.shape, int)
    order = np.argsort(-flat, axis=1, kind="stable")
    np.put_along_axis(places, order, np.arange(1, flat.shape[1] + 1)[None], axis=1)
    return places
