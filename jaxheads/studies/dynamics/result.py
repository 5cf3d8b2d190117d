"""The steps of a dynamics run, put together: arrays, receipt, and what stands out."""

import collections
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from jaxheads import runs
from jaxheads.studies.dynamics import emergence, transitions
from jaxheads.studies.dynamics.transitions import Trajectories

TITLE = "How attention heads form in training"

_OF_A_STEP = ("params_sha256", "file_sha256", "commit", "path", "files", "converted")
"""What a model's receipt says of one checkpoint only."""


@dataclasses.dataclass(frozen=True)
class Step:
    """A step that is done.

    Attributes:
        path: the folder of its run.
        record: which checkpoint it is of.
    """

    path: Path
    record: dict[str, Any]


def gather(
    steps: list[Step],
    *,
    source: str,
    missing: list[int],
    passed_over: list[str],
    main: dict[str, Any] | None,
) -> tuple[dict[str, Any], runs.Arrays]:
    """Put steps together, and analyse them.

    Args:
        steps: in order.
        source: as the user wrote it.
        missing: steps that were asked for and do not exist.
        passed_over: sub-folders without a model.
        main: the main branch's params_sha256 and commit, or a note why not.

    Returns:
        What ``result.json`` says, and the arrays.
    """
    done = [runs.load(step.path) for step in steps]
    last = done[-1].result
    arrays = _stack([run.arrays for run in done])
    arrays["dynamics/step"] = np.array([step.record["step"] for step in steps])
    found, curves = analyse(arrays, last["scores"], last["config"]["scores"])
    arrays |= curves
    model = {k: v for k, v in last["model"].items() if k not in _OF_A_STEP}
    result = {
        "title": TITLE,
        "model": model | {"source": source, "name": Path(source).name}
        | {"revision": None},
        "versions": last["versions"],
        "device": last["device"],
        "checks": last.get("checks", []),
        "scores": last["scores"],
        "scoring_tasks": last["scoring_tasks"],
        "evaluation_tasks": last.get("evaluation_tasks", []),
        "task_info": last["task_info"],
        "wall_s": {f"step {s.record['step']}": s.record["seconds"] for s in steps},
        "dynamics": {
            "steps": [_told(step, run) for step, run in zip(steps, done, strict=True)],
            "missing": missing,
            "passed_over": passed_over,
            "main": main,
            "tokens_sha256": steps[0].record["tokens_sha256"],
            "flags": flags(steps, missing, passed_over, main),
        }
        | found,
        "arrays": {name: _describe(name, last["scores"]) for name in sorted(arrays)},
    }  # fmt: skip
    return result, arrays


def analyse(
    arrays: runs.Arrays, scores: dict[str, Any], config: dict[str, Any]
) -> tuple[dict[str, Any], runs.Arrays]:
    """What the steps' scores tell: dates and transitions, and the curves as arrays.

    Args:
        arrays: the steps' scores, stacked.
        scores: what they mean.
        config: how they were measured, the steps' ``ScoresConfig`` as JSON.
    """
    seen = Trajectories.of(arrays, scores, config)
    curves = emergence.curves(seen)
    found = {
        "emergence": dataclasses.asdict(emergence.find(seen, curves)),
        "transitions": transitions.find(seen).to_dict(),
    }
    return found, {
        f"dynamics/curve/{name}/{which}": np.stack(getattr(curve, which), axis=1)
        for name, curve in curves.items()
        for which in ("top", "final", "every")
    }


def flags(
    steps: list[Step],
    missing: list[int],
    passed_over: list[str],
    main: dict[str, Any] | None,
) -> list[dict[str, Any]]:
    """What is strange about the checkpoints: kind, steps, and a sentence each."""
    found: list[dict[str, Any]] = []

    def flag(kind: str, of: list[int], text: str) -> None:
        found.append({"kind": kind, "steps": of, "text": text})

    alike = collections.defaultdict(list)
    for step in steps:
        alike[step.record["params_sha256"]].append(step.record["step"])
    for same in alike.values():
        if len(same) > 1:
            names = _listed([f"step {step}" for step in same])
            flag("identical", same, f"{names} hold the same weights")
    for step in missing:
        flag("missing", [step], f"there is no checkpoint of step {step}: left out")
    for name in passed_over:
        flag("no model", [], f"{name} holds no model: passed over")
    if main is not None:
        last = steps[-1].record
        if "note" in main:
            text = f"the main branch was {main['note']}"
            flag("main not compared", [last["step"]], text)
        elif main["params_sha256"] != last["params_sha256"]:
            text = f"step {last['step']}, the last, and the main branch hold different"
            flag("main differs", [last["step"]], f"{text} weights")
    return found


def _told(step: Step, run: runs.Run) -> dict[str, Any]:
    """What the result says of a step."""
    record = {k: v for k, v in step.record.items() if k != "files"}
    folder = step.path.relative_to(step.path.parents[1]).as_posix()
    return record | {"folder": folder, "fingerprint": run.result["fingerprint"]}


def _stack(arrays: list[runs.Arrays]) -> runs.Arrays:
    """The steps' scores and clean accuracy, stacked along U."""
    names = [name for name in arrays[0] if name.startswith("score/")]
    stacked = {
        f"dynamics/{name}": np.stack([one[name] for one in arrays]) for name in names
    }
    stacked["dynamics/fv_effects"] = np.stack([one["fv/effects"] for one in arrays])
    for name in ("first_token", "f1"):
        if f"ablation/{name}" in arrays[0]:  # the first set is empty: clean
            each = [one[f"ablation/{name}"][0] for one in arrays]
            stacked[f"dynamics/{name}"] = np.stack(each)
    if "ablation/queries" in arrays[0]:  # all steps ask the same prompts
        stacked["dynamics/queries"] = arrays[0]["ablation/queries"]
    return stacked


def _describe(name: str, scores: dict[str, Any]) -> dict[str, Any]:
    """Dims and unit; U: the steps."""
    if name == "dynamics/step":
        return {"dims": ["U"], "unit": "training step"}
    if name.startswith("dynamics/curve/"):  # W: mean, and ends of its 95 % interval
        return {"dims": ["U", "W"], "unit": scores[name.split("/")[2]]["unit"]}
    if name == "dynamics/fv_effects":
        return {"dims": ["U", "A", "L", "H"], "unit": "probability"}
    if name == "dynamics/queries":
        return {"dims": ["E", "B"], "unit": "number of the query"}
    if name.startswith("dynamics/score/"):
        score = name.removeprefix("dynamics/score/").removesuffix("_se")
        return {"dims": ["U", "L", "H"], "unit": scores[score]["unit"]}
    unit = "token F1" if name.endswith("f1") else "1: right"
    return {"dims": ["U", "E", "B"], "unit": unit}


def _listed(names: list[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}"
