"""A whole study in one run folder: scores, ablation, token loss, receipt."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxheads import memory, plan, planning, processes, runs
from jaxheads.doctor import examine_study
from jaxheads.inputs import STUDY, Prepared, prepare
from jaxheads.model import Model
from jaxheads.receipt import describe_arrays, identity, receipt
from jaxheads.sets import Described
from jaxheads.studies import (
    ablation,
    attribution,
    execution,
    head_scores,
    redundancy,
    token_loss,
)
from jaxheads.studies.config import StudyConfig
from jaxheads.study_sets import (
    ablation_fill,
    ablation_sets,
    chosen_sets,
    cost,
    planned_sets,
    redundancy_heads,
    stated_config,
    token_loss_sets,
)


@dataclasses.dataclass(frozen=True)
class Progress:
    """How a study tells what it does; every field may be replaced.

    Attributes:
        planned: called with the plan by part before anything runs.
        started: called with the name of a part when it starts.
        advance: called with the FLOPs that are done since the last call.
    """

    planned: Callable[[dict[str, plan.Part]], None] = lambda parts: None
    started: Callable[[str], None] = lambda part: None
    advance: Callable[[float], None] = lambda flops: None


def run_study(
    model: Model,
    config: StudyConfig,
    out: str | Path,
    *,
    parts: tuple[str, ...] = STUDY,
    ranking: runs.Run | None = None,
    memory_gb: float | None = None,
    calibrate: bool = False,
    progress: Progress | None = None,
    prepared: Prepared | None = None,
) -> runs.Run:
    """Run the parts of a study and write the run folder.

    A folder that holds the same study unfinished is gone on with; a finished one is
    read. Killed at any moment, the same call ends with the same arrays.

    Args:
        model: to study.
        config: everything else that decides the numbers.
        out: the run's folder.
        parts: out of "scores", "ablation", "token_loss", "execution", "redundancy"
            and "attribution"; all but the first and the last need scores, computed
            here or taken from ``ranking``.
        ranking: a finished run of the same model with scores.
        memory_gb: for activations, besides the params, on each device; None: a share of
            what is free (see ``jaxheads.memory``).
        calibrate: time short runs of the study's own programs first, so that the plan
            says how long it will take.
        progress: told what happens.
        prepared: the inputs of these parts, made of token ids already; None: they are
            made of the config's tasks and texts, by the model's tokenizer.

    Returns:
        The finished run.

    Raises:
        UserError: inputs that do not fit, a folder of another config, less memory than
            the smallest step needs, a check of ``jaxheads.doctor`` that does not hold,
            or a value that is not finite.
    """
    budget = memory.budget_bytes(memory_gb, model.params)
    progress = progress or Progress()
    own = chosen_sets(model, config) if "ablation" in parts else []
    prepared = prepared or prepare(model, config, parts, ranking)
    # Sets that cannot be made are refused here.
    costs = cost(prepared, model.config, config, own)
    planned = {}
    if not processes.is_file(Path(out) / "result.json"):
        sets = planned_sets(prepared, model.config, config, own)
        planned = planning.fitted(prepared, model, config, costs, sets, budget)
    with processes.open_folder(
        out,
        "+".join(parts),
        stated_config(config, own, parts, ranking),
        identity(model, prepared.token_arrays(), prepared.bos),
    ) as folder:
        if folder.finished:
            return processes.load(folder.path)
        checks = examine_study(model, prepared.token_arrays(), prepared.bos)
        if calibrate:
            planned = plan.calibrated(planned, plan.matmul_rate())
        progress.planned(planned)
        return _run(
            model,
            config,
            prepared,
            ranking,
            own,
            folder,
            budget,
            progress,
            planned,
            checks,
        )


def _run(
    model: Model,
    config: StudyConfig,
    prepared: Prepared,
    ranking: runs.Run | None,
    own: list[Described],
    folder: runs.RunFolder,
    budget: int,
    progress: Progress,
    planned: dict[str, plan.Part],
    checks: list[dict[str, Any]],
) -> runs.Run:
    """Run what is prepared and write the finished run."""
    common = (folder, budget, progress.advance)
    result: dict[str, Any] = receipt(model, prepared.bos)
    result["plan"] = {
        "rows": [{"part": name} | part.receipt() for name, part in planned.items()]
    }
    result["checks"] = checks
    result["task_info"] = prepared.tasks
    result["wall_s"] = {}
    arrays = prepared.token_arrays()
    if prepared.scores:
        progress.started("scores")
        scored = head_scores.run(prepared.scores, model.params, model.config, *common)
        arrays |= scored.arrays()
        result["scores"] = scored.describe()
        result["scoring_tasks"] = list(prepared.scores.clean)
        result["wall_s"]["scores"] = scored.seconds
    elif ranking:
        taken = [name for name in ranking.arrays if name.startswith(("score/", "fv/"))]
        arrays |= {name: ranking.arrays[name] for name in taken}
        result["scores"] = ranking.result["scores"]
        result["scoring_tasks"] = ranking.result["scoring_tasks"]
        result["task_info"] = ranking.result["task_info"] | prepared.tasks
        result["ranking"] = ranking.result["fingerprint"]
    rankings = {
        name: arrays[f"score/{name}"] for name in result.setdefault("scores", {})
    }
    if prepared.ablation:
        progress.started("ablation")
        chosen = config.ablation
        answered = ablation.run(
            prepared.ablation,
            model.params,
            model.config,
            model.tokenizer,  # without one, inputs were made of token ids
            [*ablation_sets(config).build(rankings), *own],
            ablation_fill(config, arrays["fv/mean_heads"]),
            *common,
        )
        arrays |= answered.arrays()
        result["evaluation_tasks"] = list(prepared.ablation.prompts)
        result["ablation"] = {
            "value": chosen.value,
            "positions": "last",
            "fractions": list(chosen.fractions),
            "zero_shot": chosen.zero_shot,
            "sets": answered.sets,
            "sets_run": answered.runs,
            "metrics": [
                name for name in ("first_token", "f1") if f"ablation/{name}" in arrays
            ],
            "f1_style": chosen.f1_style,
        }
        result["wall_s"]["ablation"] = answered.seconds
    if prepared.token_loss:
        progress.started("token loss")
        lost = token_loss.run(
            prepared.token_loss,
            model.params,
            model.config,
            token_loss_sets(config).build(rankings),
            *common,
        )
        arrays |= lost.arrays()
        result["token_loss"] = {
            "text": prepared.token_loss.text,
            "packing": config.token_loss.packing,
            "documents": len(prepared.token_loss.documents),
            "divided_by": prepared.token_loss.divided_by,
            "positions": list(config.token_loss.positions),
            "window": config.token_loss.window,
            "fractions": list(config.token_loss.fractions),
            "sets": lost.sets,
            "sets_run": lost.runs,
        }
        result["wall_s"]["token_loss"] = lost.seconds
    if prepared.execution:
        progress.started("execution")
        executed = execution.run(
            prepared.execution,
            model.params,
            model.config,
            model.require_tokenizer(),
            rankings[config.execution.ranking_by],
            arrays["fv/mean_heads"],
            *common,
        )
        arrays |= executed.arrays()
        result["execution"] = executed.describe()
        result["wall_s"]["execution"] = executed.seconds
    if prepared.redundancy:
        progress.started("redundancy")
        asked = config.redundancy
        together = redundancy.run(
            prepared.redundancy,
            model.params,
            model.config,
            redundancy_heads(model.config, config, rankings[asked.ranking_by]),
            arrays["fv/mean_heads"] if asked.value == "mean" else None,
            *common,
        )
        arrays |= together.arrays()
        result["redundancy"] = together.describe()
        result["wall_s"]["redundancy"] = together.seconds
    if prepared.attribution:
        progress.started("attribution")
        estimated = attribution.run(
            prepared.attribution, model.params, model.config, *common
        )
        arrays |= estimated.arrays()
        result["attribution"] = estimated.describe()
        result["wall_s"]["attribution"] = estimated.seconds
    result["arrays"] = describe_arrays(arrays, result["scores"])
    return folder.finish(result, arrays)
