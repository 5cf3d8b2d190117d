"""What a study asks of scores before anything runs, as errors for users."""

from collections.abc import Collection, Iterable

from jaxheads import runs
from jaxheads.errors import UserError
from jaxheads.model import Model
from jaxheads.studies.config import StudyConfig


def check_ranking(model: Model, config: StudyConfig, ranking: runs.Run) -> None:
    """Refuse a ranking of another model, or one made with an evaluation task."""
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
    shared = set(ranking.result["scoring_tasks"]) & set(config.ablation.tasks)
    if shared:
        raise UserError(
            "scoring and evaluation tasks must be disjoint, but the ranking in "
            f"{ranking.path} was made with {', '.join(sorted(shared))}: drop them from "
            "--ablation.tasks"
        )


def check_disjoint(
    scoring: Iterable[str], evaluation: Iterable[str], option: str
) -> None:
    """Refuse to evaluate on a task that the heads were scored by."""
    shared = sorted(set(scoring) & set(evaluation))
    if shared:
        raise UserError(
            "scoring and evaluation tasks must be disjoint, but the scores are made "
            f"with {', '.join(shared)}: drop them from {option}"
        )


def check_scores(
    config: StudyConfig, parts: Iterable[str], ranking: runs.Run | None
) -> None:
    """Refuse sets of heads by a score that is not computed, or that a run lacks."""
    there = list(ranking.result["scores"]) if ranking else list(config.score_names)
    options = {
        "ablation": {
            "--ablation.rankings": config.ablation.rankings,
            "--ablation.matched-to": config.ablation.matched_to,
        },
        "token_loss": {"--token-loss.rankings": config.token_loss.rankings},
        "execution": {"--execution.ranking-by": (config.execution.ranking_by,)},
        "redundancy": {"--redundancy.ranking-by": (config.redundancy.ranking_by,)},
    }
    for part in parts:
        for option, names in options.get(part, {}).items():
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


def needs_scores(parts: Collection[str], ranking: runs.Run | None) -> bool:
    """Whether heads are scored: some part needs it, and no other run gives scores."""
    return ranking is None and set(parts) != {"attribution"}


def check_shots(
    config: StudyConfig, parts: Collection[str], ranking: runs.Run | None
) -> None:
    """Refuse prompts without demonstrations where their labels are shuffled.

    Few-shot accuracy, token loss and redundancy are measured without any, too, by the
    ranking of another run.
    """
    shuffled = {"execution", "attribution"} & set(parts)
    if needs_scores(parts, ranking):
        shuffled.add("scores")
    if config.shots == 0 and shuffled:
        raise UserError(
            f"{' and '.join(sorted(shuffled))} must have prompts with demonstrations, "
            "whose labels are shuffled, but --shots is 0: give 1 or more, or, for what "
            "is measured without, --ranking of a run with scores"
        )
