"""A whole study in one run folder: scores, ablation, token loss, receipt."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxheads import plan, runs
from jaxheads.errors import UserError
from jaxheads.heads import parse_heads
from jaxheads.inputs import PARTS, Prepared, prepare
from jaxheads.model import Model
from jaxheads.receipt import describe_arrays, identity, receipt
from jaxheads.sets import Described, SetPlan
from jaxheads.studies import ablation, head_scores, token_loss
from jaxheads.studies.config import StudyConfig


@dataclasses.dataclass(frozen=True)
class Progress:
    """How a study tells what it does; every field may be replaced.

    Attributes:
        planned: called with the cost by part before anything runs.
        started: called with the name of a part when it starts.
        advance: called with the FLOPs that are done since the last call.
    """

    planned: Callable[[dict[str, plan.Cost]], None] = lambda costs: None
    started: Callable[[str], None] = lambda part: None
    advance: Callable[[float], None] = lambda flops: None


def run_study(
    model: Model,
    config: StudyConfig,
    out: str | Path,
    *,
    parts: tuple[str, ...] = PARTS,
    ranking: runs.Run | None = None,
    memory_gb: float = 2.0,
    progress: Progress | None = None,
) -> runs.Run:
    """Run the parts of a study and write the run folder.

    A folder that holds the same study unfinished is gone on with; a finished one is
    read. Killed at any moment, the same call ends with the same arrays.

    Args:
        model: to study.
        config: everything else that decides the numbers.
        out: the run's folder.
        parts: out of "scores", "ablation" and "token_loss"; the last two need scores,
            computed here or taken from ``ranking``.
        ranking: a finished run of the same model with scores.
        memory_gb: for activations, besides the params.
        progress: told what happens.

    Returns:
        The finished run.

    Raises:
        UserError: inputs that do not fit, or a folder of another config.
    """
    if memory_gb <= 0:
        raise UserError(f"--memory-gb must be positive, but is {memory_gb}")
    progress = progress or Progress()
    prepared = prepare(model, config, parts, ranking)
    costs = cost(prepared, model.config, config)  # refuses sets that cannot be made
    folder = runs.RunFolder(
        out,
        "+".join(parts),
        config.to_dict() | {"ranking": ranking and ranking.result["fingerprint"]},
        identity(model, prepared.token_arrays(), prepared.bos),
    )
    if folder.finished:
        return runs.load(folder.path)
    progress.planned(costs)
    return _run(model, config, prepared, ranking, folder, memory_gb, progress, costs)


def _run(
    model: Model,
    config: StudyConfig,
    prepared: Prepared,
    ranking: runs.Run | None,
    folder: runs.RunFolder,
    memory_gb: float,
    progress: Progress,
    costs: dict[str, plan.Cost],
) -> runs.Run:
    """Run what is prepared and write the finished run."""
    common = (folder, int(memory_gb * 1e9), progress.advance)
    result: dict[str, Any] = receipt(model, prepared.bos)
    result["plan"] = {
        "rows": [{"part": part} | dataclasses.asdict(c) for part, c in costs.items()]
    }
    result["task_info"] = prepared.tasks
    result["wall_s"] = {}
    arrays = prepared.token_arrays()
    if prepared.scores:
        progress.started("scores")
        scored = head_scores.run(prepared.scores, model.params, model.config, *common)
        arrays |= scored.arrays()
        result["scores"] = {n: score.describe() for n, score in scored.scores.items()}
        result["scoring_tasks"] = list(prepared.scores.clean)
        result["wall_s"]["scores"] = scored.seconds
    elif ranking:
        taken = [name for name in ranking.arrays if name.startswith(("score/", "fv/"))]
        arrays |= {name: ranking.arrays[name] for name in taken}
        result["scores"] = ranking.result["scores"]
        result["scoring_tasks"] = ranking.result["scoring_tasks"]
        result["task_info"] = ranking.result["task_info"] | prepared.tasks
        result["ranking"] = ranking.result["fingerprint"]
    rankings = {name: arrays[f"score/{name}"] for name in result["scores"]}
    if prepared.ablation:
        progress.started("ablation")
        chosen = config.ablation
        answered = ablation.run(
            prepared.ablation,
            model.params,
            model.config,
            model.require_tokenizer(),
            ablation_sets(config, rankings),
            arrays["fv/mean_heads"] if chosen.value == "mean" else None,
            *common,
        )
        arrays |= answered.arrays()
        result["evaluation_tasks"] = list(chosen.tasks)
        result["ablation"] = {
            "value": chosen.value,
            "positions": "last",
            "fractions": list(chosen.fractions),
            "sets": answered.sets,
            "metrics": ["first_token", "f1"],
            "f1_style": chosen.f1_style,
        }
        result["wall_s"]["ablation"] = answered.seconds
    if prepared.token_loss:
        progress.started("token loss")
        lost = token_loss.run(
            prepared.token_loss,
            model.params,
            model.config,
            _token_loss_sets(config).build(rankings),
            *common,
        )
        arrays |= lost.arrays()
        result["token_loss"] = {
            "text": prepared.token_loss.text,
            "documents": len(prepared.token_loss.documents),
            "positions": list(config.token_loss.positions),
            "window": config.token_loss.window,
            "fractions": list(config.token_loss.fractions),
            "sets": lost.sets,
        }
        result["wall_s"]["token_loss"] = lost.seconds
    result["arrays"] = describe_arrays(arrays)
    return folder.finish(result, arrays)


def ablation_sets(
    config: StudyConfig, rankings: dict[str, np.ndarray]
) -> list[Described]:
    """The sets of the ablation study, the user's own one last."""
    sets = _ablation_sets(config).build(rankings)
    if config.ablation.heads:
        shape = next(iter(rankings.values())).shape
        own = parse_heads(config.ablation.heads, (shape[0], shape[1]))
        described = {
            "name": " ".join(config.ablation.heads),
            "ranking": "chosen",
            "mode": "chosen",
            "matched_to": None,
            "fraction": float(own.mean()),
            "count": int(own.sum()),
            "draw": 0,
        }
        sets.append((described, own))
    return sets


def _ablation_sets(config: StudyConfig) -> SetPlan:
    chosen = config.ablation
    return SetPlan(
        chosen.rankings,
        chosen.fractions,
        chosen.exclusion,
        chosen.keep_only,
        chosen.draws,
        chosen.matched_to,
        config.seed,
    )


def _token_loss_sets(config: StudyConfig) -> SetPlan:
    chosen = config.token_loss
    return SetPlan(
        chosen.rankings,
        chosen.fractions,
        chosen.exclusion,
        draws=chosen.draws,
        seed=config.seed,
    )


def cost(prepared: Prepared, model_config, config: StudyConfig) -> dict[str, plan.Cost]:
    """What each part will cost, from shapes alone."""
    shape = (model_config.num_layers, model_config.num_heads)
    anything = np.arange(shape[0] * shape[1], dtype=float).reshape(shape)
    rankings = {
        name: anything for name in ("function_vector", "induction", "previous_token")
    }
    costs = {}
    if prepared.scores:
        costs["scores"] = prepared.scores.cost(model_config)
    if prepared.ablation:
        sets = len(ablation_sets(config, rankings))
        costs["ablation"] = prepared.ablation.cost(model_config, sets)
    if prepared.token_loss:
        sets = len(_token_loss_sets(config).build(rankings))
        costs["token_loss"] = prepared.token_loss.cost(model_config, sets)
    return costs
