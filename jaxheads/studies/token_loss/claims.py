"""Claims about what replacing heads does to token losses.

Each function measures one claim on a run; its docstring is the rule of its judgement.
"""

import numpy as np

from jaxheads.report import words
from jaxheads.runs import Run
from jaxheads.statistics.claims import Definition, Measured, Rules
from jaxheads.statistics.units import Estimate, of_means
from jaxheads.studies.ablation.effects import (
    NOUN,
    OfSets,
    clean_mean,
    few_shot,
    gap,
    of_sets,
    place,
    random_sets,
    set_means,
    share_of_clean,
    token_loss,
    top_set,
    where,
)
from jaxheads.studies.ablation.outcomes import Outcome


def induction_matters_more_for_loss(run: Run, rules: Rules) -> Measured:
    """Token-loss difference left without FV heads minus that without induction heads.

    Each set is taken without the other ranking's top heads, and replaced by its mean
    where that was measured, at the share nearest to 5 %. p is the largest of three: a
    sign-flip test over documents; Student's t of a difference between two random sets,
    over the draws; and that the set which leaves less costs anything. The interval is
    over documents and sets.
    """
    outcome = token_loss(run)
    at = place(outcome, "exclusion", rules.fraction)
    return gap(outcome, at, rules, sign=-1)


def accuracy_and_loss_differ(run: Run, rules: Rules) -> Measured:
    """How much more FV than induction heads cost: of the accuracy, minus of the loss.

    A cost is the share of the clean value that replacing a set takes away; with
    exclusion where that was measured. p is the larger of two: Student's t over queries
    and documents, and over random sets. The interval is over all three.
    """
    costs, sets_of, said, shown = [], [], [], ""
    for outcome in (few_shot(run), token_loss(run)):
        clean_mean(outcome)
        mode = "exclusion" if outcome.find(mode="exclusion") else "top"
        at = place(outcome, mode, rules.fraction)
        sets = [outcome.clean or 0, *(top_set(outcome, name, at) for name in NOUN)]
        rows = outcome.values[sets]
        costs.append(of_means(rows, _extra_cost, outcome.queries))
        draws = set_means(outcome, random_sets(outcome, at, "uniform"))
        sets_of.append(of_sets(draws / rows[0].mean(), share=2, chosen=2))
        said.append(_costs(outcome, rows.reshape(3, -1).mean(1)))
        shown = shown or where(outcome, at)
    few, loss = costs
    both = few.with_source(loss.variance, loss.freedom)
    joined = Estimate(0.0, *sets_of[0][:2]).with_source(*sets_of[1][:2])
    least = max(one.least_p for one in sets_of)
    return share_of_clean(
        both._replace(mean=few.mean - loss.mean),
        OfSets(joined.variance, joined.freedom, least),
        "queries, and documents",
        f"{shown}, {' and '.join(said)}.",
        rules,
    )


def _extra_cost(means: np.ndarray) -> float:
    """What FV heads cost more than induction heads: [3] clean, FV, induction."""
    return (means[2] - means[1]) / means[0]


def _costs(outcome: Outcome, means: np.ndarray) -> str:
    costs = [
        words.percent(round(float(1 - left / means[0]), 2)).replace("-", words.MINUS)
        for left in means[1:]
    ]
    return (
        f"FV heads cost {costs[0]} of the {outcome.quantity}, induction heads "
        f"{costs[1]}"
    )


_YIN = "Yin & Steinhardt 2025"
CLAIMS = (
    Definition(
        "induction_matters_more_for_loss",
        "The gain from running text depends more on induction heads than on "
        "function-vector heads",
        f"{_YIN}, section 4 (of models above 345M)",
        "token loss",
        "token losses of both rankings, with exclusion",
        induction_matters_more_for_loss,
    ),
    Definition(
        "accuracy_and_loss_differ",
        "Few-shot accuracy and the gain from running text react differently to the "
        "same sets of heads",
        f"{_YIN}, section 4",
        "token loss",
        "an ablation study and token losses of both rankings",
        accuracy_and_loss_differ,
    ),
)
"""What a run may be asked of this study."""
