"""A whole study in one run folder: scores, ablation, token loss, receipt."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxheads import runs
from jaxheads.engine import fills, memory, plan
from jaxheads.engine.progress import Progress
from jaxheads.heads import head_names, parse_heads
from jaxheads.heads.set_files import read_sets
from jaxheads.heads.sets import Described, SetPlan, chosen_set
from jaxheads.runs import processes
from jaxheads.studies.ablation import few_shot, token_loss
from jaxheads.studies.attribution import study as attribution
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.context import PARTS, STUDY, Prepared, needs_scores, prepare
from jaxheads.studies.doctor import examine_study
from jaxheads.studies.function_vectors import study as execution
from jaxheads.studies.receipt import describe_arrays, identity, receipt
from jaxheads.studies.redundancy import study as redundancy
from jaxheads.studies.redundancy.shapley import choose_heads
from jaxheads.studies.scores import study as head_scores
from jaxheads.weights.model import Model


def chosen_sets(model: Model, config: StudyConfig) -> list[Described]:
    """The user's own sets of the ablation study: the file's, then the one by heads.

    Raises:
        UserError: a head that the model has not, or a file of another model.
    """
    shape = (model.config.num_layers, model.config.num_heads)
    sets = []
    if config.ablation.sets is not None:
        params = model.provenance.params_sha256
        named = read_sets(config.ablation.sets, shape, params)
        sets += [chosen_set(name, heads) for name, heads in named.items()]
    if config.ablation.heads:
        own = parse_heads(config.ablation.heads, shape)
        sets.append(chosen_set(" ".join(config.ablation.heads), own))
    return sets


def stated_config(
    config: StudyConfig,
    own: list[Described],
    parts: tuple[str, ...],
    ranking: runs.Run | None = None,
) -> dict[str, Any]:
    """The config as the run's folder states it: what decides the numbers of its parts.

    Options of parts that do not run are left out. A file of sets stands there as its
    sets, not by its path, and scores of another run by its fingerprint.

    Args:
        config: of the study.
        own: the user's own sets.
        parts: that run.
        ranking: a run whose scores are taken; None: they are computed if need be.
    """
    stated = config.to_dict()
    needed = set(parts) | ({"scores"} if needs_scores(parts, ranking) else set())
    for part in set(PARTS) - needed:
        del stated[part]
    if config.ablation.sets is not None and "ablation" in needed:
        stated["ablation"]["sets"] = [
            {"name": described["name"], "heads": head_names(heads)}
            for described, heads in own
        ]
    return stated | {"ranking": ranking and ranking.result["fingerprint"]}


def ablation_fill(config: StudyConfig, mean_heads: np.ndarray) -> np.ndarray | None:
    """What replaces heads in every task; None: zeros, or made for each task."""
    if config.ablation.value == "shuffled_mean":
        return fills.shuffled(np.random.default_rng([config.seed, 7]), mean_heads)
    return mean_heads if config.ablation.value == "mean" else None


def ablation_sets(config: StudyConfig) -> SetPlan:
    """The sets that the ablation study makes of rankings."""
    chosen = config.ablation
    return SetPlan(
        chosen.rankings,
        chosen.fractions,
        chosen.exclusion,
        chosen.keep_only,
        chosen.draws,
        chosen.matched_to,
        config.seed,
        chosen.exclusions,
        chosen.exclusions_at,
        chosen.exclusion_least,
        chosen.draws_elsewhere,
    )


def redundancy_heads(
    model_config, config: StudyConfig, ranking: np.ndarray
) -> np.ndarray:
    """The heads of the redundancy study."""
    asked = config.redundancy
    shape = (model_config.num_layers, model_config.num_heads)
    return choose_heads(shape, asked.heads, ranking, asked.top)


def token_loss_sets(config: StudyConfig) -> SetPlan:
    """The sets that the token-loss study makes of rankings."""
    chosen = config.token_loss
    return SetPlan(
        chosen.rankings,
        chosen.fractions,
        chosen.exclusion,
        draws=chosen.draws,
        seed=config.seed,
        exclusion_least=chosen.exclusion_least,
        draws_elsewhere=chosen.draws_elsewhere,
    )


def planned_sets(
    prepared: Prepared, model_config, config: StudyConfig, own: list[Described]
) -> dict[str, list[Described]]:
    """Sets like those that each part will go through, of heads that stand for them."""
    shape = (model_config.num_layers, model_config.num_heads)
    anything = np.arange(shape[0] * shape[1], dtype=float).reshape(shape)
    named = {*config.ablation.rankings, *config.ablation.matched_to}
    rankings = dict.fromkeys({*named, *config.token_loss.rankings}, anything)
    rankings |= dict.fromkeys(config.score_names, anything)
    sets = {}
    if prepared.ablation:
        sets["ablation"] = [*ablation_sets(config).build(rankings), *own]
    if prepared.token_loss:
        sets["token_loss"] = token_loss_sets(config).build(rankings)
    return sets


def cost(
    prepared: Prepared, model_config, config: StudyConfig, own: list[Described]
) -> dict[str, plan.Cost]:
    """What each part will cost, from shapes alone."""
    sets = planned_sets(prepared, model_config, config, own)
    costs = {}
    if prepared.scores:
        costs["scores"] = prepared.scores.cost(model_config)
    if prepared.ablation:
        costs["ablation"] = prepared.ablation.cost(model_config, len(sets["ablation"]))
    if prepared.token_loss:
        costs["token_loss"] = prepared.token_loss.cost(model_config, sets["token_loss"])
    if prepared.execution:
        costs["execution"] = prepared.execution.cost(model_config)
    if prepared.redundancy:
        shape = (model_config.num_layers, model_config.num_heads)
        redundancy_heads(model_config, config, np.zeros(shape))
        costs["redundancy"] = prepared.redundancy.cost(model_config)
    if prepared.attribution:
        costs["attribution"] = prepared.attribution.cost(model_config)
    return costs


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
            what is free (see ``jaxheads.engine.memory``).
        calibrate: time short runs of the study's own programs first, so that the plan
            says how long it will take.
        progress: told what happens.
        prepared: the inputs of these parts, made of token ids already; None: they are
            made of the config's tasks and texts, by the model's tokenizer.

    Returns:
        The finished run.

    Raises:
        UserError: inputs that do not fit, a folder of another config, less memory than
            the smallest step needs, a check of ``doctor`` that does not hold, or a
            value that is not finite.
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
        planned = fitted(prepared, model, config, costs, sets, budget)
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
        answered = few_shot.run(
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


_ADVICE = {
    "scores": "give fewer --shots, a shorter --scores.sequence-length or a shorter "
    "--scores.document-length",
    "ablation": "give fewer --shots or --ablation.max-new-tokens",
    "token_loss": "give earlier --token-loss.positions",
    "attribution": "give fewer --shots",
    "execution": "give fewer --shots",
}


def fitted(
    prepared: Prepared,
    model: Model,
    config: StudyConfig,
    costs: dict[str, plan.Cost],
    sets: dict[str, list[Described]],
    budget: int,
) -> dict[str, plan.Part]:
    """Each part's programs at the chunks that a device's memory allows.

    Args:
        prepared: inputs of the study.
        model: to study.
        config: of the study.
        costs: of each part.
        sets: as those that a part goes through, see ``study_sets.planned_sets``.
        budget: bytes on a device, see ``memory.budget_bytes``.

    Raises:
        UserError: the smallest step of a part does not fit.
    """
    fits: dict[str, list[memory.Fit]] = {}
    common = (model.params, model.config)
    if prepared.scores:
        fits["scores"] = prepared.scores.fits(*common, budget)
    if prepared.ablation:
        dims = model.config
        mean = (dims.num_layers, dims.num_heads, dims.head_dim)
        fill = jax.ShapeDtypeStruct(mean, np.float32)
        fits["ablation"] = prepared.ablation.fits(
            *common,
            len(sets["ablation"]),
            fill if config.ablation.value == "mean" else None,
            budget,
        )
    if prepared.token_loss:
        fits["token_loss"] = prepared.token_loss.fits(
            *common, sets["token_loss"], budget
        )
    if prepared.attribution:
        fits["attribution"] = prepared.attribution.fits(*common, budget)
    if prepared.execution:
        fits["execution"] = prepared.execution.fits(*common, budget)
    for name, found in fits.items():
        memory.refuse_what_cannot_fit(found, budget, _ADVICE[name])
    return {
        name: plan.Part(cost, tuple(fits.get(name, ()))) for name, cost in costs.items()
    }
