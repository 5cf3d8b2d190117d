"""Claims about what replacing heads does to few-shot answers.

Each function measures one claim on a run; its docstring is the rule of its judgement.
"""

import numpy as np

from jaxheads.report import words
from jaxheads.runs import Run
from jaxheads.statistics.claims import Definition, Measured, Rules
from jaxheads.statistics.paired_tests import equivalence
from jaxheads.statistics.units import of_means
from jaxheads.studies.ablation.effects import (
    FV,
    INDUCTION,
    against,
    against_random,
    clean_mean,
    few_shot,
    gap,
    like_sets,
    of_random,
    of_sets,
    place,
    random_sets,
    ranked,
    share_of_clean,
    top_set,
    where,
    zero_shot,
)

_EQUAL = {
    "equal": "they are",
    "different": "they are not",
    "undecided": "that is open",
}


def fv_matters_more(run: Run, rules: Rules) -> Measured:
    """Accuracy left without the top induction heads minus that left without FV heads.

    At the measured share of heads nearest to 5 %. p is the largest of three: a
    sign-flip test over queries; Student's t of a difference between two random sets,
    over the draws; and that the set which leaves less costs anything. The interval is
    over queries and sets.
    """
    outcome = few_shot(run)
    return gap(outcome, place(outcome, "top", rules.fraction), rules)


def fv_matters_more_excluded(run: Run, rules: Rules) -> Measured:
    """Accuracy left without induction heads minus that left without FV heads.

    Each set is taken without the other ranking's top heads, at the measured share of
    heads nearest to 5 %. p is the largest of three: a sign-flip test over queries;
    Student's t of a difference between two random sets, over the draws; and that the
    set which leaves less costs anything. The interval is over queries and sets.
    """
    outcome = few_shot(run)
    return gap(outcome, place(outcome, "exclusion", rules.fraction), rules)


def fv_worse_than_random_excluded(run: Run, rules: Rules) -> Measured:
    """Accuracy left without random heads minus that left without FV heads.

    The FV heads without the top induction heads. p is the larger of two: over queries,
    that the set equals the mean of the random draws; over draws, that it is one more.
    The interval is over queries and sets.
    """
    outcome = few_shot(run)
    at = place(outcome, "exclusion", rules.fraction)
    return against_random(outcome, FV, at, "uniform", rules)


def fv_worse_than_layer_matched(run: Run, rules: Rules) -> Measured:
    """Accuracy left without random heads of the same layers, minus without FV heads.

    As many random heads in each layer as the top FV set has there. p is the larger of
    two: over queries, and over draws. The interval is over queries and sets.
    """
    outcome = few_shot(run)
    at = place(outcome, "top", rules.fraction)
    return against_random(outcome, FV, at, "layer_matched", rules)


def induction_like_random_excluded(run: Run, rules: Rules) -> Measured:
    """Accuracy left without induction heads minus that left without random heads.

    The induction heads without the top FV heads. A claim of no difference: the
    one-sided test is against a loss of a tenth of the clean accuracy, over queries and
    sets, and the claim does not hold where the 95 % interval lies below that.
    """
    outcome = few_shot(run)
    at = place(outcome, "exclusion", rules.fraction)
    margin = rules.smallest * clean_mean(outcome)
    found = against(outcome, INDUCTION, at, "uniform", rules)
    left = outcome.values[top_set(outcome, INDUCTION, at)]
    difference = like_sets(found, of_random(outcome, at, "uniform"))
    equal = equivalence(difference.interval(0.9), margin)
    own, random = words.aligned(left.mean(), left.mean() - difference.mean)
    return Measured(
        *difference.interval(),
        p=difference.p_above(-margin),
        over=f"{outcome.over}, and sets of heads",
        p_over=f"{outcome.over}, and sets of heads",
        evidence=f"{where(outcome, at)}, replacing the induction heads leaves {own}, "
        f"random ones {random}; no worse means by less than {words.number(margin)}, "
        f"equal by less either way: {_EQUAL[equal]}. {ranked(found, outcome.over)}",
        unit="accuracy",
        smallest=margin,
        null=-margin,
    )


def fv_alone_keeps_more(run: Run, rules: Rules) -> Measured:
    """Accuracy kept by the top FV heads alone minus that kept by random heads alone.

    All other heads are replaced, at the measured share kept nearest to 5 %. p is the
    larger of two: over queries, and over draws. The interval is over queries and sets.
    """
    outcome = few_shot(run)
    at = place(outcome, "keep_only", rules.fraction)
    return against_random(outcome, FV, at, "keep_only_random", rules, sign=1)


def zero_shot_less_affected(run: Run, rules: Rules) -> Measured:
    """Share of few-shot accuracy that FV heads cost, minus that of zero-shot accuracy.

    The same queries with demonstrations and without, at the measured share of heads
    nearest to 5 %. p is the larger of two: Student's t over queries within tasks, and
    over random sets, how far these react differently to the two. The interval is over
    queries and sets.
    """
    few, zero = few_shot(run), zero_shot(run)
    at = place(few, "top", rules.fraction)
    for outcome in (few, zero):
        clean_mean(outcome)
    draws = random_sets(few, at, "uniform")

    def both(n: int) -> np.ndarray:
        return np.concatenate([one.values[[one.clean or 0, n]] for one in (few, zero)])

    def difference(means: np.ndarray) -> float:
        return means[3] / means[2] - means[1] / means[0]

    rows = both(top_set(few, FV, at))
    clean, left, clean_zero, left_zero = words.aligned(*rows.mean((1, 2)))
    each = np.array([difference(both(n).mean((1, 2))) for n in draws])
    return share_of_clean(
        of_means(rows, difference, few.queries),
        of_sets(each, share=1, chosen=1),
        few.over,
        f"{where(few, at)}, replacing the FV heads takes few-shot accuracy from "
        f"{clean} to {left}, zero-shot accuracy from {clean_zero} to {left_zero}.",
        rules,
    )


_YIN = "Yin & Steinhardt 2025"
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
        fv_matters_more,
    ),
    Definition(
        "fv_matters_more_excluded",
        "Few-shot answers depend more on function-vector heads than on induction heads"
        ", neither set holding the other ranking's top heads",
        f"{_YIN}, section 4",
        _ABLATION,
        _EXCLUDED,
        fv_matters_more_excluded,
    ),
    Definition(
        "fv_worse_than_random_excluded",
        "Without the top induction heads, function-vector heads still cost more than "
        "random heads",
        f"{_YIN}, section 4",
        _ABLATION,
        f"{_EXCLUDED}, and two random draws or more",
        fv_worse_than_random_excluded,
    ),
    Definition(
        "induction_like_random_excluded",
        "Without the top function-vector heads, replacing induction heads is no worse "
        "than replacing random heads",
        f"{_YIN}, section 4 (of models above 1B)",
        _ABLATION,
        f"{_EXCLUDED}, and random draws",
        induction_like_random_excluded,
    ),
    Definition(
        "fv_worse_than_layer_matched",
        "Function-vector heads cost more than random heads of the same layers",
        "Crosbie & Shutova 2024, section 3 (the control)",
        _ABLATION,
        "an ablation study with layer-matched draws (--ablation.matched-to)",
        fv_worse_than_layer_matched,
    ),
    Definition(
        "fv_alone_keeps_more",
        "Function-vector heads alone keep more of the answers than random heads alone",
        f"{_YIN}, section 4 (turned around)",
        _ABLATION,
        "an ablation study that keeps only some heads (--ablation.keep-only)",
        fv_alone_keeps_more,
    ),
    Definition(
        "zero_shot_less_affected",
        "Function-vector heads matter less for the same queries without demonstrations",
        f"{_YIN}, section 4",
        _ABLATION,
        "an ablation study that asks without demonstrations too (--ablation.zero-shot)",
        zero_shot_less_affected,
    ),
)
"""What a run may be asked of this study."""
