"""Every input of a run as token ids, made before the first forward."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from jaxheads import runs
from jaxheads.errors import UserError
from jaxheads.studies import registry
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.context import Context
from jaxheads.weights.model import Model

STUDY = ("scores", "ablation", "token_loss")
"""The studies that run where none are named."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A run's inputs.

    Attributes:
        inputs: of each study, by its name; see ``registry``.
        tasks: what the tasks are, by name, ready for JSON.
        bos: whether prompts, probes and documents begin with BOS.
    """

    inputs: Mapping[str, Any]
    tasks: dict[str, dict]
    bos: bool

    def token_arrays(self) -> runs.Arrays:
        """Everything that is fed to the model, as token ids."""
        named: runs.Arrays = {}
        for inputs in self.inputs.values():
            named |= inputs.tokens()
        return named


def prepare(
    model: Model,
    config: StudyConfig,
    parts: tuple[str, ...] = STUDY,
    ranking: runs.Run | None = None,
) -> Prepared:
    """Make every input of a run: prompts, probes and documents as token ids.

    Raises:
        UserError: an unknown study, tasks or texts that do not fit, a ranking of
            another model.
    """
    known = registry.of_models()
    if set(parts) - set(known) or not parts:
        raise UserError(f"the parts of a study are {(*known,)}, not {tuple(parts)}")
    context = Context(model, config, ranking)
    if ranking:
        check_ranking(model, ranking)
    _check_scores(config, parts, ranking)
    needed = with_scores(parts, ranking)
    _check_shots(config, needed)
    inputs = {
        name: registry.load(name, "study").prepare(context)
        for name in known
        if name in needed
    }
    return Prepared(inputs, context.tasks, context.bos)


def with_scores(parts: Collection[str], ranking: runs.Run | None) -> tuple[str, ...]:
    """The parts, and scores where one needs them that no other run gives."""
    known = registry.of_models()
    if ranking is not None:
        return tuple(name for name in known if name in parts and name != "scores")
    scored = any(known[name].needs_scores for name in parts)
    return tuple(
        name for name in known if name in parts or (name == "scores" and scored)
    )


def check_ranking(model: Model, ranking: runs.Run) -> None:
    """Refuse a ranking without scores, or of another model."""
    if not {"score/function_vector", "fv/mean_heads"} <= set(ranking.arrays):
        raise UserError(
            f"{ranking.path} has no scores of heads: give --ranking a run of "
            "`jaxheads score` or `jaxheads study`"
        )
    there = ranking.result["model"]["params_sha256"]
    here = model.provenance.params_sha256
    if there != here:
        raise UserError(
            f"the ranking in {ranking.path} was made for other params "
            f"({there[:12]}..., these are {here[:12]}...): score this model first"
        )


def _check_scores(
    config: StudyConfig, parts: Iterable[str], ranking: runs.Run | None
) -> None:
    """Refuse sets of heads by a score that is not computed, or that a run lacks."""
    there = list(ranking.result["scores"]) if ranking else list(config.score_names)
    for part in parts:
        for option, names in config.studies[part].ranked_by().items():
            for name in names:
                if name not in there:
                    mend = (
                        f"{ranking.path} has {', '.join(there)}: name one of them, or "
                        "score the model with it"
                        if ranking
                        else f"add it to --scores.names, or name one of "
                        f"{', '.join(there)}"
                    )
                    raise UserError(
                        f"{option} takes scores that are computed, and {name!r} is "
                        f"not: {mend}"
                    )


def _check_shots(config: StudyConfig, parts: Iterable[str]) -> None:
    """Refuse prompts without demonstrations where their labels are shuffled.

    Few-shot accuracy, token loss and redundancy are measured without any, too, by the
    ranking of another run.
    """
    shuffled = [part for part in parts if config.studies[part].shuffles_labels]
    if config.shots == 0 and shuffled:
        raise UserError(
            f"{' and '.join(sorted(shuffled))} must have prompts with demonstrations, "
            "whose labels are shuffled, but --shots is 0: give 1 or more, or, for what "
            "is measured without, --ranking of a run with scores"
        )
