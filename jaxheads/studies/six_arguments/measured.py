"""Models of a run, run again at chosen steps: one unit of the run folder a step."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from jaxheads.errors import UserError
from jaxheads.runs import Arrays, RunFolder
from jaxheads.scores import qk_trace
from jaxheads.statistics.phase_change import PhaseChange
from jaxheads.studies.six_arguments.co_occurrence import HEADS
from jaxheads.studies.six_arguments.config import MOST_STEPS
from jaxheads.studies.six_arguments.curves import Curves
from jaxheads.studies.six_arguments.removal import ablation_attribution, joint_ablation
from jaxheads.training.probes import head_figures
from jaxheads.training.trained import Trained

_MEASURED = ("copying", "prefix_matching", "previous_token")


def circuit_figures(trained: Trained, step: int) -> dict[str, np.ndarray]:
    """Head figures of all seeds at one checkpoint.

    - "copying", "prefix_matching", "previous_token": see
      ``training.evidence_probes.head_figures``; out of the run's evaluations where
      there is one of this step, else measured on the same sequences;
    - "qk_trace": does a head look for keys that hold, through earlier heads weighted by
      their previous-token score, the current token? The trace of the circuit between
      tokens over the sum of its eigenvalues' magnitudes (``scores.qk_trace``,
      "positivity"), so that heads, layers and steps can be compared: 1 if every
      direction is matched to itself, -1 if to its opposite. Chance: random weights have
      0 on average and, as their eigenvalues point anywhere, about 1 over the head's
      width for a standard deviation. 0 in the first layer, which has no earlier heads;
      what smeared or shifted keys take up is no part of it.

    Args:
        trained: a run.
        step: of the checkpoint.

    Returns:
        float32 [N, L, H] by name.

    Raises:
        UserError: there are no models of this step, or they are damaged.

    Source: Olsson et al. 2022, head activation evaluators; QK eigenvalue (trace).
    """
    params, config = trained.params(step), trained.model_config
    found = _evaluated(trained, step)
    if found is None:
        found = head_figures(params, trained.evidence().probes, config)
    weights = np.asarray(found["previous_token"], np.float64)  # [N, L, H]
    traces = np.full(weights.shape, np.nan)  # so it stays where a model is broken
    for n, shares in enumerate(weights):
        if np.isfinite(shares).all():
            one = jax.tree.map(lambda leaf, n=n: leaf[n], params)
            circuits = qk_trace.matching_circuits(one, config, shares)
            traces[n] = qk_trace.head_scores(circuits, "positivity").mean
    return found | {"qk_trace": traces.astype(np.float32)}


def _evaluated(trained: Trained, step: int) -> dict[str, np.ndarray] | None:
    """The measured figures as they were at the evaluation of a step, if there is."""
    at = np.flatnonzero(trained.eval_steps == step)
    values = {name: trained.evaluated(name) for name in _MEASURED}
    if not len(at) or any(each is None for each in values.values()):
        return None
    made = {name: each[at[0]] for name, each in values.items() if each is not None}
    # An evaluation that is no number is none: the model itself may be sound.
    return made if all(np.isfinite(each).all() for each in made.values()) else None


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
    trained: Trained,
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
            trained, steps[-1], found[-1]["prefix_matching"], samples=samples, seed=seed
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


def choose_steps(
    there: tuple[int, ...], curves: Curves, asked: tuple[int, ...] = ()
) -> tuple[int, ...]:
    """Steps of one run at which every head is ablated, rising.

    Args:
        there: steps whose models are there, rising.
        curves: of the run.
        asked: steps by name; none: all that are there, or 12 of them, among which are
            the first, the last, and those around the windows of all seeds' heads.

    Raises:
        UserError: a step's models are not there.
    """
    absent = sorted(set(asked) - set(there))
    if absent or not there:
        named = ", ".join(map(str, there[:20])) or "none"
        raise UserError(
            f"{curves.about['path']} must have models of every step of "
            f"--attribution-steps, but has those of {named} and not of "
            f"{', '.join(map(str, absent)) or 'any'}: name others, or train with "
            "--checkpoints"
        )
    if asked:
        return tuple(sorted(set(asked)))
    if len(there) <= MOST_STEPS:
        return there
    kept = {there[0], there[-1]}
    for one in curves.changes[HEADS].each:
        kept |= set(around(there, one) or ())
    if len(kept) > MOST_STEPS:  # many seeds, each with a window of its own
        inner = sorted(kept)
        kept = {inner[0], inner[1], inner[-2], inner[-1]}
    places = np.linspace(0, len(there) - 1, MOST_STEPS - len(kept) + 2)[1:-1]
    return tuple(sorted(kept | {there[int(place)] for place in places.round()}))


def around(there: tuple[int, ...], change: PhaseChange) -> tuple[int, int] | None:
    """The last step not after a window's begin, and the first not before its end.

    Args:
        there: steps, rising.
        change: the window; None of it: None.
    """
    if change.begin is None or change.end is None:
        return None
    before = [step for step in there if step <= change.begin]
    after = [step for step in there if step >= change.end]
    return (before[-1], after[0]) if before and after else None
