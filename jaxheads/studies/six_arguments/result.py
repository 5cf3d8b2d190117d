"""What a finished ``jaxheads evidence`` says, and how its arrays are named.

Arrays of run r (``run_0`` is the first that was given; E evaluations, C steps whose
models were run, N seeds, P bins of positions, S samples)::

    run_0/curves/step                     [E]           step
    run_0/curves/prefix_matching          [E, N, L, H]  share of attention
    run_0/curves/icl_score                [E, N]        nats, late minus early loss
    run_0/curves/loss_step                [B]           step, blocks of batches
    run_0/curves/loss                     [B, N]        nats, all targets of a batch
    run_0/positions/index                 [P]           target of a window, from 1
    run_0/positions/loss                  [E, N, P]     nats
    run_0/positions/derivative            [E, N, P]     nats per unit of ln(position)
    run_0/attribution/step                [C]           step
    run_0/attribution/icl_score           [C, N]        nats, nothing ablated
    run_0/attribution/by_head             [C, N, L, H]  nats, pattern-preserving
    run_0/attribution/by_head_full        [C, N, L, H]  nats, zero ablation
    run_0/attribution/NAME                [C, N]        see ``head_effects.carried``
    run_0/together/icl_score              [2 + draws, N] nats; see ``joint_ablation``
    run_0/together/removed                [2 + draws, N, L, H]
    run_0/circuits/step                   [C]           step
    run_0/circuits/copying                [C, N, L, H]  -1 to 1
    run_0/circuits/prefix_matching        [C, N, L, H]  share of attention
    run_0/circuits/previous_token         [C, N, L, H]  share of attention
    run_0/circuits/qk_trace               [C, N, L, H]
    run_0/before_and_after/step           [N, 3]        before, after, last
    run_0/before_and_after/by_head        [N, L, H]     nats along the unit vector
    run_0/before_and_after/NAME           further arrays of ``before_and_after``
    run_0/components/step                 [E]           step
    run_0/components/coordinates          [E, N, 2]     nats
    run_0/components/pivot                [N]           step of the largest turn
    run_0/components/angle                [N]           of that turn, degrees
    components/explained                  [2]           share of the variance

A seed without a phase change has -1 for its steps before and after, and NaN by head.
Without ablations there are no attribution, circuits and before-and-after.
``result["evidence"]["runs"][r]`` tells what run r is: "name", "path", "fingerprint",
"variant" ("vanilla", "smeared keys", "KV shift"), "objective", "layers", "heads",
"width", "num_params", "seeds", "tokens_a_step", "last_step".
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxheads.engine.devices import machine
from jaxheads.runs import Arrays
from jaxheads.runs.finite import plain
from jaxheads.studies.six_arguments import ablation_and_mechanism
from jaxheads.studies.six_arguments.co_occurrence import HEADS, co_occurrence
from jaxheads.studies.six_arguments.co_perturbation import co_perturbation
from jaxheads.studies.six_arguments.config import ArgumentsConfig
from jaxheads.studies.six_arguments.continuity import continuity, loss_slopes
from jaxheads.studies.six_arguments.curves import Curves, by_position, loss_blocks
from jaxheads.studies.six_arguments.loss_components import loss_components
from jaxheads.studies.six_arguments.measured import Measured
from jaxheads.studies.six_arguments.removal import before_and_after
from jaxheads.studies.six_arguments.verdicts import judge

if TYPE_CHECKING:
    from jaxheads.training.trained import Trained

TITLE = "Where does in-context learning come from?"


def gather(
    trained: "Sequence[Trained]",
    curves: Sequence[Curves],
    measured: Sequence[Measured | None],
    config: ArgumentsConfig,
) -> tuple[dict[str, Any], Arrays]:
    """Put everything together that the runs say.

    Args:
        trained: the runs.
        curves: what their trainings measured.
        measured: what their models said, None: they were not run.
        config: of the command.

    Returns:
        The result without its seconds, ready for JSON; and the arrays.
    """
    arrays: Arrays = {}
    for r, (one, ran) in enumerate(zip(curves, measured, strict=True)):
        found = _of_curves(one)
        if ran is not None:
            found |= _of_models(trained[r], one, ran)
        arrays |= {f"run_{r}/{name}": values for name, values in found.items()}
    arrays |= _components(trained)
    said: dict[str, Any] = {
        "runs": [one.about for one in curves],
        "config": dataclasses.asdict(config),
        "left_out": [text for one in curves if (text := one.left_out)],
        "co_occurrence": [co_occurrence(one) for one in curves],
        "co_perturbation": co_perturbation(curves),
        "attribution": [_carried(arrays, r) for r in range(len(curves))],
        "generality": [
            ablation_and_mechanism.fall_in_window(
                one.steps, one.other_icl_score, one.changes[HEADS].each
            )
            for one in curves
        ],
        "circuits": [_circuits(arrays, r) for r in range(len(curves))],
        "continuity": [continuity(one) for one in curves],
        "slopes": loss_slopes(curves) if len(curves) > 1 else None,
    }
    verdicts = judge(said)
    said["arguments"] = [dataclasses.asdict(one) for one in verdicts]
    result = {
        "title": TITLE,
        "model": {
            "source": ", ".join(one.about["name"] for one in curves),
            "name": f"{len(curves)} training run" + "s" * (len(curves) > 1),
            "runs": {one.about["name"]: one.about["fingerprint"] for one in curves},
        },
        "scores": {},
        "evidence": said,
        **machine(),
        "arrays": {name: _told(name, arrays[name]) for name in sorted(arrays)},
    }
    return result, arrays


def _of_curves(curves: Curves) -> Arrays:
    _, centres, losses, _ = loss_blocks(curves.losses)
    found = {
        "curves/step": curves.steps,
        "curves/prefix_matching": _single(curves.prefix_matching),
        "curves/icl_score": _single(curves.icl_score),
        "curves/loss_step": np.exp(centres),
        "curves/loss": _single(losses),
    }
    return found | {
        f"positions/{name}": _single(values)
        for name, values in by_position(curves.loss_by_position).items()
    }


def _of_models(trained: "Trained", curves: Curves, ran: Measured) -> Arrays:
    found = {f"attribution/{name}": one for name, one in ran.attribution.items()}
    summed = ablation_and_mechanism.carried(
        np.asarray(ran.attribution["by_head"], np.float64),
        ran.circuits["prefix_matching"],
        np.asarray(ran.attribution["icl_score"], np.float64),
    )
    found |= {f"attribution/{name}": _single(one) for name, one in summed.items()}
    found |= {f"circuits/{name}": one for name, one in ran.circuits.items()}
    found |= {f"together/{name}": one for name, one in ran.together.items()}
    steps = np.array(ran.steps)
    found |= {"attribution/step": steps, "circuits/step": steps}
    changed = _before_and_after(trained, curves, ran)
    return found | {f"before_and_after/{name}": one for name, one in changed.items()}


def _before_and_after(trained: "Trained", curves: Curves, ran: Measured) -> Arrays:
    """Effects of heads at the last step along the change over the heads' window."""
    windows = np.array(
        [
            [-1.0 if at is None else at for at in (one.begin, one.end)]
            for one in curves.changes[HEADS].each
        ]
    )
    losses = trained.evaluated("token_losses")
    assert losses is not None  # ``read_curves`` has seen to it
    both = min(losses.shape[-1], ran.clean.shape[-1])  # the first ones are the same
    made = before_and_after(
        curves.steps,
        losses[..., :both],
        windows[:, 0],
        windows[:, 1],
        ran.clean[..., :both],
        ran.ablated[..., :both],
    )
    last = np.full((len(windows), 1), float(ran.steps[-1]))
    steps = np.concatenate([windows, last], axis=1).astype(int)
    return {name: _single(one) for name, one in made.items()} | {"step": steps}


def _components(trained: "Sequence[Trained]") -> Arrays:
    plane = loss_components(trained)
    found = {"components/explained": _single(plane.explained)}
    parts = zip(plane.coordinates, plane.pivot, plane.angle, strict=True)
    for r, (coordinates, pivot, angle) in enumerate(parts):
        found |= {
            f"run_{r}/components/step": np.asarray(trained[r].eval_steps),
            f"run_{r}/components/coordinates": _single(coordinates),
            f"run_{r}/components/pivot": np.asarray(pivot, float),
            f"run_{r}/components/angle": _single(angle),
        }
    return found


def _carried(arrays: Arrays, run: int) -> dict[str, Any] | None:
    """What induction heads carry at the last step, one number a seed."""
    if f"run_{run}/attribution/step" not in arrays:
        return None
    names = ("correlation", "share", "share_of_effects", "induction_heads")
    found: dict[str, Any] = {
        name: np.asarray(arrays[f"run_{run}/attribution/{name}"][-1], np.float64)
        for name in names
    }
    found["step"] = int(arrays[f"run_{run}/attribution/step"][-1])
    scores = np.asarray(arrays[f"run_{run}/together/icl_score"], np.float64)
    return plain(found | ablation_and_mechanism.lost(scores))


def _circuits(arrays: Arrays, run: int) -> dict[str, Any] | None:
    """How induction heads are built at the last step, one number a seed."""
    if f"run_{run}/circuits/step" not in arrays:
        return None
    last = {
        name: np.asarray(arrays[f"run_{run}/circuits/{name}"][-1], np.float64)
        for name in ("prefix_matching", "copying", "qk_trace")
    }
    last["qk_trace"][:, 0] = np.nan  # no layer is before the first
    prefix = last["prefix_matching"]
    return plain(
        {
            "copying": ablation_and_mechanism.apart(last["copying"], prefix),
            "qk_trace": ablation_and_mechanism.of_induction(last["qk_trace"], prefix),
        }
    )


def _single(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32)


_DIMS = {
    "curves/prefix_matching": ("E", "N", "L", "H"),
    "curves/icl_score": ("E", "N"),
    "curves/loss_step": ("B",),
    "curves/loss": ("B", "N"),
    "positions/index": ("P",),
    "positions/loss": ("E", "N", "P"),
    "positions/derivative": ("E", "N", "P"),
    "attribution/by_head": ("C", "N", "L", "H"),
    "attribution/by_head_full": ("C", "N", "L", "H"),
    "together/icl_score": ("2 + draws", "N"),
    "together/removed": ("2 + draws", "N", "L", "H"),
    "before_and_after/step": ("N", "3"),
    "before_and_after/by_head": ("N", "L", "H"),
    "before_and_after/share": ("N", "L", "H"),
    "before_and_after/length": ("N",),
    "before_and_after/direction": ("N", "S"),
    "components/coordinates": ("E", "N", "2"),
    "components/pivot": ("N",),
    "components/angle": ("N",),
    "components/explained": ("2",),
}
_FIRST = {"curves": "E", "components": "E", "attribution": "C", "circuits": "C"}


def _told(name: str, values: np.ndarray) -> dict[str, Any]:
    """Dims and unit of an array."""
    short = name.split("/", 1)[1] if name.startswith("run_") else name
    kind, own = short.split("/")
    dims = _DIMS.get(short, (_FIRST.get(kind, ""), "N", "L", "H")[: values.ndim])
    return {"dims": list(dims), "unit": _unit(kind, own)}


def _unit(kind: str, own: str) -> str:
    if own in ("step", "loss_step", "pivot"):
        return "step"
    if own in ("prefix_matching", "previous_token"):
        return "share of attention"
    named = {
        "index": "position",
        "derivative": "nats per unit of ln(position)",
        "angle": "degrees",
        "explained": "share of the variance",
        "direction": "",
        "correlation": "",
        "induction_heads": "heads",
        "removed": "",
    }
    if own in named:
        return named[own]
    if own.startswith("share"):
        return "share"
    return "" if kind == "circuits" else "nats"
