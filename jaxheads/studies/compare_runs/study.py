"""A comparison of trainings, unit by unit: what goes on after a stop."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxheads import runs
from jaxheads.engine.devices import machine
from jaxheads.engine.progress import Progress
from jaxheads.runs import finite
from jaxheads.runs.finite import plain
from jaxheads.studies.compare_runs.claims import judge_arms
from jaxheads.studies.compare_runs.config import ArmsConfig
from jaxheads.studies.compare_runs.effects import find_effects
from jaxheads.studies.compare_runs.opening import Arms, open_arms
from jaxheads.studies.compare_runs.outcomes import curves, measure, shared
from jaxheads.studies.doctor import examine_trained
from jaxheads.training.measures import figure_dims, figure_unit
from jaxheads.training.trained import Trained

STUDY = "compare-runs"


@dataclasses.dataclass(frozen=True)
class Unit:
    """One part of the work on one arm.

    Attributes:
        arm: its number.
        part: "" for outcomes, "head_effects" or "patching".
        cost: forwards of a window, about.
        compute: gives its arrays.
    """

    arm: int
    part: str
    cost: float
    compute: Callable[[], runs.Arrays]

    @property
    def name(self) -> str:
        """In the run's folder."""
        return f"arm_{self.arm}-{self.part or 'outcomes'}"


def compare_runs(
    paths: Sequence[str | Path],
    config: ArmsConfig,
    out: str | Path,
    *,
    progress: Progress | None = None,
) -> runs.Run:
    """Compare trainings on the same windows and seeds, and write the run folder.

    Killed at any moment, the same call goes on and ends with the same arrays; a
    finished folder is read.

    Args:
        paths: folders that ``jaxheads train`` wrote, the reference first.
        config: of the comparison.
        out: the run's folder.
        progress: told what happens.

    Returns:
        The finished run; its arrays stand in ``arms.result``.

    Raises:
        UserError: see ``open_arms``; or ``out`` holds another run.
    """
    config.check()
    progress = progress or Progress()
    arms = open_arms(paths, config)
    stated = dataclasses.asdict(config) | {"step": arms.step}
    with runs.RunFolder(out, STUDY, stated, _identity(arms)) as folder:
        if folder.finished:
            return runs.load(out)
        return _compare(arms, config, folder, progress)


def _compare(
    arms: Arms, config: ArmsConfig, folder: runs.RunFolder, progress: Progress
) -> runs.Run:
    """Go through the units, and write the finished run."""
    checks = [
        check
        for one, evidence in zip(arms.trained, arms.evidence, strict=True)
        for check in examine_trained(one, arms.step, evidence.probes.repeated)
    ]
    steps = {
        "step": arms.step,
        "donor_step": _or(config.donor_step, arms.step),
        "recipient_step": _or(config.recipient_step, arms.steps[0]),
    }
    units = plan(arms, config, steps)
    progress.planned(sum(unit.cost for unit in units if not folder.has(unit.name)))
    arrays, seconds = shared(arms) | curves(arms), {}
    for unit in units:
        progress.started(f"{arms.names[unit.arm]}: {_said(unit.part)}")
        there = folder.has(unit.name)
        found = folder.unit(unit.name, unit.compute, _AXES[unit.part])
        part = unit.part or "outcomes"
        seconds[part] = seconds.get(part, 0.0) + float(found.pop("seconds"))
        start = f"arm_{unit.arm}/{unit.part}/".replace("//", "/")
        arrays |= {f"{start}{name}": values for name, values in found.items()}
        progress.advance(0.0 if there else unit.cost)
    result = _describe(arms, config, arrays, steps, seconds) | {"checks": checks}
    return folder.finish(result, arrays)


_AXES: dict[str, finite.Axes] = {
    "": {"losses": ("seed", "sample", "T"), "prefix_matching": ("seed", "L", "H")},
    "head_effects": ("seed", "L", "H"),
    "patching": ("seed", "patched layer", "L", "H"),
}
"""Of the arrays of a unit, by its part."""


def plan(arms: Arms, config: ArmsConfig, steps: dict[str, int]) -> list[Unit]:
    """The units of a comparison, cheap ones of all arms first.

    Args:
        arms: that are compared.
        config: of the comparison.
        steps: "step", "donor_step" and "recipient_step".
    """
    units = [
        Unit(
            at,
            "",
            config.samples,
            functools.partial(measure, one, evidence, steps["step"]),
        )
        for at, (one, evidence) in enumerate(
            zip(arms.trained, arms.evidence, strict=True)
        )
    ]
    if not config.causal:
        return units
    for at, one in enumerate(arms.trained):
        kind = one.model_config
        heads = kind.num_layers * kind.num_heads
        samples = config.causal_samples
        cost = 2.0 * heads * samples
        units.append(
            Unit(
                at,
                "head_effects",
                cost,
                functools.partial(_effects, one, steps, samples),
            )
        )
        if steps["donor_step"] != steps["recipient_step"]:
            sequences = arms.evidence[0].config.probe_sequences
            cost = 2.0 * kind.num_layers * sequences
            units.append(
                Unit(at, "patching", cost, functools.partial(_patching, one, steps))
            )
    return units


def _effects(trained: Trained, steps: dict[str, int], samples: int) -> runs.Arrays:
    from jaxheads.studies.compare_runs.head_effects import head_effects

    return head_effects(trained, steps["step"], samples=samples)


def _patching(trained: Trained, steps: dict[str, int]) -> runs.Arrays:
    from jaxheads.studies.compare_runs.checkpoint_patching import (
        patch_across_checkpoints,
    )

    return patch_across_checkpoints(
        trained, steps["donor_step"], steps["recipient_step"]
    )


def _or(asked: int | None, default: int) -> int:
    return default if asked is None else asked


def _said(part: str) -> str:
    """A unit in words."""
    words = {"": "held-out windows", "head_effects": "effects of heads"}
    return words.get(part, "patching across checkpoints")


def _identity(arms: Arms) -> dict[str, Any]:
    """What tells one comparison from another, besides its config."""
    first = arms.trained[0].run.result["model"]
    return {
        "runs": [one.run.result["fingerprint"] for one in arms.trained],
        "evidence": arms.evidence[0].describe()["sha256"],
        "data": first["data"]["sha256"],
    }


def _describe(
    arms: Arms,
    config: ArmsConfig,
    arrays: runs.Arrays,
    compared: dict[str, Any],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """The result of a comparison, ready for JSON.

    Args:
        arms: that were compared.
        config: of the comparison.
        arrays: of the comparison.
        compared: steps.
        seconds: of every part.
    """
    effects = find_effects(arrays, config)
    claims = judge_arms(effects, arms.names, config)
    told = arms.trained[0].run.result["model"]
    return {
        "title": "What is left without induction copying?",
        "model": _identity(arms)
        | {
            "source": " against ".join(reversed(arms.names)),
            "name": f"{told['name']} in {len(arms.names)} ways",
            "num_layers": told["num_layers"],
            "num_heads": told["num_heads"],
            "num_params": told["num_params"],
        },
        "scores": {},
        "arms": [
            {
                "name": name,
                "path": str(one.run.path),
                "objective": one.config.objective,
                "seeds": list(one.seeds),
                "steps": list(one.steps),
                "dropped": float(arrays[f"arm_{at}/dropped"].mean()),
            }
            for at, (name, one) in enumerate(zip(arms.names, arms.trained, strict=True))
        ],
        "compared": compared
        | {
            "differences": list(arms.differences),
            "warnings": list(arms.warnings),
            "evidence": arms.evidence[0].describe(),
        },
        "effects": [plain(one) for one in effects],
        "claims": [[plain(claim) for claim in each] for each in claims],
        **machine(),
        "wall_s": seconds,
        "arrays": {
            name: _describe_array(name, values.ndim) for name, values in arrays.items()
        },
    }


_DIMS = {
    "correct": ["N", "S", "T"],
    "losses": ["N", "S", "T"],
    "repeated": ["N", "B", "s - 1"],
    "head_effects": ["N", "L", "H"],
    "patching": ["N", "L", "L", "H"],
}


def _describe_array(name: str, axes: int) -> dict[str, Any]:
    """Dims and unit of an array; see ``arms.result``."""
    first, second, *rest = name.split("/")
    if first == "targets":
        dims = ["S", "T"]
    elif second == "train":
        dims = ["E", "N", *figure_dims(rest[0])]
    elif first == "train":
        dims = ["E"]
    elif second in _DIMS:
        dims = _DIMS[second]
    else:
        dims = ["N", "L", "H"]
    if len(dims) > axes:
        dims = ["N", "L", "H"][:axes]
    nats = second == "losses" or (second == "train" and figure_unit(rest[0]) == "nats")
    return {"dims": dims, "unit": "nats" if nats else ""}
