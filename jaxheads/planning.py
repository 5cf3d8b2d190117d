"""The plan of a study: the programs of its parts, fitted to the memory."""

import jax
import numpy as np

from jaxheads import memory, plan
from jaxheads.inputs import Prepared
from jaxheads.model import Model
from jaxheads.sets import Described
from jaxheads.studies.config import StudyConfig

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
