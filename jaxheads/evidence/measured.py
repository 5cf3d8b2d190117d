"""Models of a run, run again at chosen steps: one unit of the run folder a step."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from jaxheads.evidence.attribution import ablation_attribution
from jaxheads.evidence.circuits import circuit_figures
from jaxheads.evidence.joint_ablation import joint_ablation
from jaxheads.runs import Arrays, RunFolder

if TYPE_CHECKING:
    from jaxheads.training.trained import Trained

_CURVES = {
    "icl_score": "icl_score",
    "attribution": "by_head",
    "attribution_full": "by_head_full",
}
CIRCUITS = ("copying", "prefix_matching", "previous_token", "qk_trace")


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What the models of one run said.

    Attributes:
        steps: C of them, rising.
        attribution: "icl_score" [C, N], "by_head" and "by_head_full" [C, N, L, H].
        circuits: by the names of ``CIRCUITS``, [C, N, L, H].
        clean: losses of single tokens at the last step, nats, [N, S].
        ablated: the same without each head, [N, L, H, S].
        together: "icl_score" and "removed", see ``joint_ablation``; at the last step.
    """

    steps: tuple[int, ...]
    attribution: Arrays
    circuits: Arrays
    clean: np.ndarray
    ablated: np.ndarray
    together: Arrays


def units(run: int, steps: tuple[int, ...]) -> list[str]:
    """Names of a run's units."""
    found = [f"run_{run}-step_{step}" for step in steps]
    return [*found, f"run_{run}-together"] if found else []


def measure(
    folder: RunFolder,
    run: int,
    trained: "Trained",
    steps: tuple[int, ...],
    samples: int,
    seed: int,
    advance: Callable[[], None],
) -> Measured:
    """Ablate every head and read its circuits, at every step.

    Args:
        folder: what is done there already is not done again.
        run: index of the run.
        trained: the run.
        steps: whose models are run, rising.
        samples: held-out windows.
        seed: of random sets of heads.
        advance: called after each unit.
    """
    found = []
    *names, last = units(run, steps)
    for step, name in zip(steps, names, strict=True):

        def compute(step: int = step) -> Arrays:
            made = ablation_attribution(trained, step, samples=samples)
            if step != steps[-1]:  # only the last one's are held against the change
                del made["token_losses_ablated"]
            return made | circuit_figures(trained, step)

        found.append(folder.unit(name, compute, ("seed", "L", "H")))
        advance()
    together = folder.unit(
        last,
        lambda: joint_ablation(
            trained,
            steps[-1],
            found[-1]["prefix_matching"],
            samples=samples,
            seed=seed,
        ),
    )
    advance()
    stacked = {
        name: np.stack([one[name] for one in found]) for name in (*_CURVES, *CIRCUITS)
    }
    return Measured(
        steps=steps,
        attribution={to: stacked[name] for name, to in _CURVES.items()},
        circuits={name: stacked[name] for name in CIRCUITS},
        clean=found[-1]["token_losses"],
        ablated=found[-1]["token_losses_ablated"],
        together={name: together[name] for name in ("icl_score", "removed")},
    )
