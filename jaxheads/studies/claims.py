"""The papers' claims, one by one: does each hold on a run, and on what evidence?

Question: which of the statements about induction and function-vector heads does this
run support, which does it contradict, and which does it leave open? The rules stand in
``claims.rules`` and beside each measure, and do not know the data.
Source: Yin & Steinhardt 2025; Todd et al. 2024; Crosbie & Shutova 2024 for controls.
"""

from typing import Any

from jaxheads.runs import Run
from jaxheads.runs.finite import plain
from jaxheads.statistics.claims import Claim, Definition, Rules, judge
from jaxheads.studies.ablation import claims as ablation
from jaxheads.studies.dynamics import claims as training
from jaxheads.studies.function_vectors import claims as vectors
from jaxheads.studies.scores import claims as scores
from jaxheads.studies.scores.numbers import with_one_induction

_YIN, _TODD = "Yin & Steinhardt 2025", "Todd et al. 2024"
_ABLATION = "few-shot accuracy"
_ABLATED = "an ablation study of both rankings"
_EXCLUDED = "an ablation study of both rankings, which has sets with exclusion"

CLAIMS = (
    Definition(
        "fv_matters_more",
        "Few-shot answers depend more on function-vector heads than on induction heads",
        f"{_YIN}, section 4",
        _ABLATION,
        _ABLATED,
        ablation.fv_matters_more,
    ),
    Definition(
        "fv_matters_more_excluded",
        "Few-shot answers depend more on function-vector heads than on induction heads"
        ", neither set holding the other ranking's top heads",
        f"{_YIN}, section 4",
        _ABLATION,
        _EXCLUDED,
        ablation.fv_matters_more_excluded,
    ),
    Definition(
        "fv_worse_than_random_excluded",
        "Without the top induction heads, function-vector heads still cost more than "
        "random heads",
        f"{_YIN}, section 4",
        _ABLATION,
        f"{_EXCLUDED}, and two random draws or more",
        ablation.fv_worse_than_random_excluded,
    ),
    Definition(
        "induction_like_random_excluded",
        "Without the top function-vector heads, replacing induction heads is no worse "
        "than replacing random heads",
        f"{_YIN}, section 4 (of models above 1B)",
        _ABLATION,
        f"{_EXCLUDED}, and random draws",
        ablation.induction_like_random_excluded,
    ),
    Definition(
        "fv_worse_than_layer_matched",
        "Function-vector heads cost more than random heads of the same layers",
        "Crosbie & Shutova 2024, section 3 (the control)",
        _ABLATION,
        "an ablation study with layer-matched draws (--ablation.matched-to)",
        ablation.fv_worse_than_layer_matched,
    ),
    Definition(
        "fv_alone_keeps_more",
        "Function-vector heads alone keep more of the answers than random heads alone",
        f"{_YIN}, section 4 (turned around)",
        _ABLATION,
        "an ablation study that keeps only some heads (--ablation.keep-only)",
        ablation.fv_alone_keeps_more,
    ),
    Definition(
        "zero_shot_less_affected",
        "Function-vector heads matter less for the same queries without demonstrations",
        f"{_YIN}, section 4",
        _ABLATION,
        "an ablation study that asks without demonstrations too (--ablation.zero-shot)",
        ablation.zero_shot_less_affected,
    ),
    Definition(
        "induction_matters_more_for_loss",
        "The gain from running text depends more on induction heads than on "
        "function-vector heads",
        f"{_YIN}, section 4 (of models above 345M)",
        "token loss",
        "token losses of both rankings, with exclusion",
        ablation.induction_matters_more_for_loss,
    ),
    Definition(
        "accuracy_and_loss_differ",
        "Few-shot accuracy and the gain from running text react differently to the "
        "same sets of heads",
        f"{_YIN}, section 4",
        "token loss",
        "an ablation study and token losses of both rankings",
        ablation.accuracy_and_loss_differ,
    ),
    Definition(
        "top_sets_differ",
        "The top function-vector and induction heads are different heads: fewer than "
        "half are shared",
        f"{_YIN}, section 3",
        "head scores",
        "both scores",
        scores.top_sets_differ,
    ),
    Definition(
        "scores_correlate",
        "Heads with a higher induction score have a higher function-vector score",
        f"{_YIN}, section 3",
        "head scores",
        "both scores",
        scores.scores_correlate,
    ),
    Definition(
        "fv_heads_deeper",
        "Function-vector heads lie deeper than induction heads",
        f"{_YIN}, section 3",
        "head scores",
        "both scores",
        scores.fv_heads_deeper,
    ),
    Definition(
        "vector_raises_zero_shot",
        "A task's function vector makes the model do the task without demonstrations",
        f"{_TODD}, section 3",
        "function vectors",
        "function vectors added to prompts",
        vectors.vector_raises_zero_shot,
    ),
    Definition(
        "vector_raises_shuffled",
        "A task's function vector makes up for shuffled labels",
        f"{_TODD}, section 3; {_YIN}, appendix A.6",
        "function vectors",
        "function vectors added to prompts",
        vectors.vector_raises_shuffled,
    ),
    Definition(
        "random_vectors_do_not",
        "Vectors of random heads do not make the model do the task without "
        "demonstrations",
        f"{_TODD}, section 3",
        "function vectors",
        "function vectors of random heads added to prompts",
        vectors.random_vectors_do_not,
    ),
    Definition(
        "induction_emerges_first",
        "Induction heads emerge earlier in training than function-vector heads",
        f"{_YIN}, section 5",
        "training",
        "the checkpoints of a training (jaxheads dynamics)",
        training.induction_emerges_first,
    ),
    Definition(
        "fv_heads_were_induction_heads",
        "Many function-vector heads were induction heads first",
        f"{_YIN}, section 5",
        "training",
        "the checkpoints of a training (jaxheads dynamics)",
        training.fv_heads_were_induction_heads,
    ),
)
"""The claims that one run can be asked about; ``across_runs`` has those of several."""


def of_run(run: Run, rules: Rules | None = None) -> list[Claim]:
    """Judge every claim on a run, those that it does not measure among them.

    Args:
        run: of any study.
        rules: None: the usual ones.
    """
    return judge(CLAIMS, with_one_induction(run), rules or Rules())


def to_rows(run: Run, rules: Rules | None = None) -> list[dict[str, Any]]:
    """Give the claims as rows for a table or JSON: None for what is not known."""
    return [plain(claim) for claim in of_run(run, rules)]
