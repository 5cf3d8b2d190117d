"""What the arguments read off finished trainings, and whether they can be compared."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxheads.errors import UserError
from jaxheads.evidence import phase_changes
from jaxheads.evidence.loss_bump import find_bumps
from jaxheads.training.phase_change import PhaseChanges, over_seeds

if TYPE_CHECKING:
    from jaxheads.training.trained import Trained

BUMP = "loss_bump"
DATED = (*phase_changes.LEAST, BUMP)
"""Names of the figures that are dated."""

_NEEDED = (*phase_changes.LEAST, "token_losses", "loss_by_position")
_SAME = ("sha256", "evidence_positions", "evidence_samples", "evidence_seed")


@dataclasses.dataclass(frozen=True, eq=False)
class Curves:
    """One training as the arguments see it.

    Attributes:
        about: what the run is, ready for JSON; see ``result``.
        steps: of the evaluations, int [E].
        prefix_matching: of every head, [E, N, L, H].
        icl_score: late minus early loss, nats, [E, N].
        other_icl_score: the same where no copy of a bigram helps, [E, N]; NaN where
            there are no such windows.
        loss_by_position: nats, [E, N, T].
        losses: of the training batches, all targets, nats, [S, N].
        changes: dates by name, of ``DATED``.
    """

    about: dict[str, Any]
    steps: np.ndarray
    prefix_matching: np.ndarray
    icl_score: np.ndarray
    other_icl_score: np.ndarray
    loss_by_position: np.ndarray
    losses: np.ndarray
    changes: dict[str, PhaseChanges]

    @property
    def seeds(self) -> int:
        """N."""
        return self.icl_score.shape[1]

    @property
    def top_prefix(self) -> np.ndarray:
        """Of the head with the largest score, [E, N]."""
        return phase_changes.top_head(self.prefix_matching)

    @property
    def last_score(self) -> list[float | None]:
        """The ICL score of every seed's last evaluation that is a number."""
        return [_last(values) for values in self.icl_score.T]

    @property
    def last_prefix(self) -> list[float | None]:
        """The same of the top head's prefix matching."""
        return [_last(values) for values in self.top_prefix.T]

    @property
    def left_out(self) -> str:
        """Evaluations that are left out, a sentence; "" where there are none."""
        broken = ~np.isfinite(self.prefix_matching).all(axis=(2, 3))
        broken |= ~np.isfinite(self.icl_score)
        told = [
            f"seed {self.about['seeds'][n]} at step {self.steps[e]:,}"
            for e, n in np.argwhere(broken)
        ]
        if not told:
            return ""
        return (
            f"{self.about['name']}: evaluations whose scores are not finite are left "
            f"out: {', '.join(told)}."
        )


def _last(values: np.ndarray) -> float | None:
    there = values[np.isfinite(values)]
    return float(there[-1]) if there.size else None


def read_curves(trained: "Trained") -> Curves:
    """Read one training, and date what it measured.

    Raises:
        UserError: it was not evaluated as the arguments need.
    """
    found = {name: trained.evaluated(name) for name in _NEEDED}
    missing = [name for name, values in found.items() if values is None]
    if missing or len(trained.eval_steps) < 2:
        raise UserError(
            f"{trained.run.path} must have evaluations with evidence, but lacks "
            f"{' and '.join(missing) or 'a second one'}: train with --evidence and "
            "--eval-every"
        )
    arrays = {name: np.asarray(values, np.float64) for name, values in found.items()}
    score = arrays["icl_score"]
    other = trained.evaluated("icl_score_non_extractive")
    losses = np.asarray(trained.run.arrays["train/all_loss"], np.float64)
    top = phase_changes.top_head(arrays["prefix_matching"])
    dated = {"prefix_matching": top, "icl_score": score}
    steps = np.asarray(trained.eval_steps)
    changes = {
        name: phase_changes.dated(steps, name, curves) for name, curves in dated.items()
    }
    return Curves(
        about=describe(trained),
        steps=steps,
        prefix_matching=arrays["prefix_matching"],
        icl_score=score,
        other_icl_score=np.full_like(score, np.nan) if other is None else other,
        loss_by_position=arrays["loss_by_position"],
        losses=losses,
        changes=changes | {BUMP: over_seeds(find_bumps(losses))},
    )


def describe(trained: "Trained") -> dict[str, Any]:
    """What a run is, ready for JSON."""
    told, model = trained.run.result["train"], trained.model_config
    return {
        "name": trained.name,
        "path": str(trained.run.path),
        "fingerprint": trained.run.result["fingerprint"],
        "variant": variant(model),
        "objective": trained.config.objective,
        "model_type": model.model_type,
        "layers": model.num_layers,
        "heads": model.num_heads,
        "width": model.width,
        "mlp_width": model.mlp_width,
        "num_params": told["num_params"],
        "seeds": list(trained.seeds),
        "tokens_a_step": told["tokens_a_seed"] // trained.config.steps,
        "last_step": trained.config.steps,
        "evaluations": len(trained.eval_steps),
        "training": training_choices(trained),
    }


def variant(model_config: Any) -> str:
    """How keys see the token before: "vanilla", "smeared keys" or "KV shift"."""
    if getattr(model_config, "smeared_keys", False):
        return "smeared keys"
    return "KV shift" if getattr(model_config, "shifted", False) else "vanilla"


def training_choices(trained: "Trained") -> dict[str, Any]:
    """What else may differ between runs, and would explain a difference of theirs."""
    config = dataclasses.asdict(trained.config)
    aside = ("seed", "seeds", "checkpoints", "keep_last", "resume_every", "eval_every")
    aside += ("eval_batches", "dense_every", "dense_by", "dense_change", "dense_window")
    kept = {name: value for name, value in config.items() if name not in aside}
    model = dataclasses.asdict(trained.model_config)
    kept |= {
        name: value
        for name, value in model.items()
        if name not in ("smeared_keys", "shifted", "num_layers")
    }
    return kept | {"data": trained.run.result["model"]["data"]["sha256"]}


def check_comparable(runs: Sequence["Trained"]) -> None:
    """See that runs were measured on the same windows and probes.

    Raises:
        UserError: no run is given, or they were not.
    """
    if not runs:
        raise UserError(
            "evidence takes one or more folders that `jaxheads train` wrote, but none "
            "was given"
        )
    first, *others = runs
    told = first.run.result["model"]["evidence"] or {}
    for other in others:
        here = other.run.result["model"]["evidence"] or {}
        differs = [name for name in _SAME if here.get(name) != told.get(name)]
        if differs:
            names = {"sha256": "other windows or random tokens"}
            what = ", ".join(names.get(name, f"another {name}") for name in differs)
            raise UserError(
                f"runs must be measured on the same held-out windows, but "
                f"{other.run.path} has {what} than {first.run.path}: give runs of the "
                "same data and evidence options, or one command to each kind"
            )
