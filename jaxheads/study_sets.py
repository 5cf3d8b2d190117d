"""The sets of heads of a study's parts, what they cost, and how a run states them."""

from typing import Any

import numpy as np

from jaxheads import fills, plan, runs
from jaxheads.heads import head_names, parse_heads
from jaxheads.inputs import PARTS, Prepared, needs_scores
from jaxheads.model import Model
from jaxheads.redundancy import choose_heads
from jaxheads.saved_sets import read_sets
from jaxheads.sets import Described, SetPlan, chosen_set
from jaxheads.studies.config import StudyConfig


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
