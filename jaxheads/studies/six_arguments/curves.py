"""What the arguments read off finished trainings, and whether they can be compared."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxheads.errors import UserError
from jaxheads.statistics import phase_change
from jaxheads.statistics.phase_change import PhaseChange, PhaseChanges, over_seeds

if TYPE_CHECKING:
    from jaxheads.training.trained import Trained


LEAST = 0.1
"""Prominence below which there is no bump: nats per unit of ln(step)."""

_BLOCKS, _FEWEST = 30, 6
_ERRORS = 4.0  # standard errors that the prominence must have; there are many peaks


def loss_blocks(
    losses: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Average a loss over blocks that lie evenly in ln(step).

    Args:
        losses: [S, N], of steps 1 to S.

    Returns:
        Ends of the blocks, steps, int [B + 1]: block b holds the steps after its own
        and up to the next; means of ln(step) [B]; mean losses [B, N]; squared standard
        errors [B, N], of noise that is independent from step to step.
    """
    ends = np.geomspace(1, len(losses), _BLOCKS + 1).round().astype(int)
    ends = np.unique(np.concatenate([[0], ends]))
    steps = np.log(np.arange(1, len(losses) + 1))
    parts = [slice(a, b) for a, b in itertools.pairwise(ends)]
    centres = np.array([steps[part].mean() for part in parts])
    means = np.stack([losses[part].mean(axis=0) for part in parts])
    counts = np.diff(ends)[:, None]
    # Neighbours differ by noise twice, and hardly by the trend.
    jumps = np.stack([_jumps(losses, part) for part in parts])
    return ends, centres, means, jumps / 2 / counts


def find_bumps(losses: np.ndarray) -> tuple[PhaseChange, ...]:
    """Date the bump of every seed's training loss.

    Args:
        losses: [S, N], of steps 1 to S, nats.

    Returns:
        Of each seed the step of the fastest fall, and as its window the blocks around
        it in which the rate is in the upper half of its prominence.
    """
    losses = np.asarray(losses, np.float64)
    ends, centres, means, variances = loss_blocks(losses)
    if len(centres) < _FEWEST:
        few = PhaseChange(
            reason=f"{len(centres)} blocks of steps are too few, {_FEWEST} are needed"
        )
        return (few,) * len(losses[0])
    rates = -np.gradient(means, centres, axis=0)
    width = (centres[2:] - centres[:-2])[:, None]
    errors = np.sqrt(variances[2:] + variances[:-2]) / width  # of the inner blocks
    errors = np.pad(errors, [(1, 1), (0, 0)])
    seeds = zip(rates.T, errors.T, strict=True)
    return tuple(_bump(ends, centres, rate, error) for rate, error in seeds)


def prominence(rates: np.ndarray, at: int) -> float:
    """Height of a peak above the higher of the lowest places on its two sides.

    Args:
        rates: [B].
        at: index of the peak; each side reaches to the next higher value, or the end.
    """
    floors = []
    for side in (rates[:at][::-1], rates[at + 1 :]):
        higher = np.flatnonzero(side > rates[at])
        near = side[: higher[0]] if len(higher) else side
        floors.append(near.min(initial=rates[at]))
    return float(rates[at] - max(floors))


def _jumps(losses: np.ndarray, part: slice) -> np.ndarray:
    """Mean squared differences of neighbours, with one neighbour on either side."""
    around = losses[max(part.start - 1, 0) : part.stop + 1]
    return (np.diff(around, axis=0) ** 2).mean(axis=0)


def _bump(
    ends: np.ndarray, centres: np.ndarray, rates: np.ndarray, errors: np.ndarray
) -> PhaseChange:
    if not np.isfinite(rates).all():
        return PhaseChange(reason="some training losses are not finite")
    heights = np.array([prominence(rates, at) for at in range(len(rates))])
    largest = float(heights.max())
    if largest < LEAST:
        return PhaseChange(
            reason=f"the fall speeds up by {largest:.3g}, below {LEAST:.3g}"
        )
    peaks = np.flatnonzero((heights >= LEAST) & (heights > _ERRORS * errors))
    if not len(peaks):
        return PhaseChange(
            reason=f"a bump of {largest:.3g} does not stand out from the noise"
        )
    peak = int(peaks[-1])
    low = np.flatnonzero(rates < rates[peak] - heights[peak] / 2)
    first = low[low < peak].max(initial=-1) + 1
    last = low[low > peak].min(initial=len(rates)) - 1
    return PhaseChange(
        step=float(np.exp(centres[peak])),
        begin=float(ends[first]),
        end=float(ends[last + 1]),
    )


BUMP = "loss_bump"
_NEEDED = (*phase_change.LEAST_CHANGES, "token_losses", "loss_by_position")
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
        changes: dates by name: of ``phase_change.LEAST_CHANGES`` and ``BUMP``.
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
        return phase_change.top_head(self.prefix_matching)

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
    top = phase_change.top_head(arrays["prefix_matching"])
    dated = {"prefix_matching": top, "icl_score": score}
    steps = np.asarray(trained.eval_steps)
    changes = {
        name: phase_change.dated(steps, name, curves) for name, curves in dated.items()
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


BINS = 32
"""Most bins of positions, evenly spaced in the logarithm."""


def by_position(losses: np.ndarray, bins: int = BINS) -> dict[str, np.ndarray]:
    """Average the loss over bins of positions, and differentiate it.

    ``d loss / d ln(position)``: between neighbouring bins where they are the first or
    the last, else the slope of the parabola through a bin and its two neighbours.

    Args:
        losses: [..., T], means over windows, nats; NaN where no target is scored.
        bins: most bins.

    Returns:
        "index": the position of each bin, from 1 on, the exponential of the mean of
        ln(position), [P]; "loss" and "derivative", [..., P], nats, and nats per unit of
        ln(position).
    """
    losses = np.asarray(losses, np.float64)
    scored = np.isfinite(losses).reshape(-1, losses.shape[-1]).any(axis=0)
    at = np.flatnonzero(scored)
    logs = np.log(at + 1.0)
    ends = np.unique(np.geomspace(1, len(at) + 1, bins + 1).round().astype(int)) - 1
    parts = [slice(a, b) for a, b in itertools.pairwise(ends)]
    centres = np.array([logs[part].mean() for part in parts])
    kept = losses[..., at]
    means = np.stack([kept[..., part].mean(axis=-1) for part in parts], axis=-1)
    if len(centres) > 1:
        derivative = np.gradient(means, centres, axis=-1)
    else:
        derivative = np.full_like(means, np.nan)
    return {"index": np.exp(centres), "loss": means, "derivative": derivative}
