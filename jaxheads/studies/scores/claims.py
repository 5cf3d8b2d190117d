"""Claims about two kinds of heads that follow from their scores alone.

Each function measures one claim on a run; its docstring is the rule of its judgement.
"""

import math

import numpy as np

from jaxheads import statistics
from jaxheads.heads import run_scores, top
from jaxheads.heads.run_scores import top_count
from jaxheads.report import words
from jaxheads.runs import Run
from jaxheads.scores.config import PAIR
from jaxheads.statistics.claims import Definition, Measured, Rules, Untested
from jaxheads.statistics.units import student_t_quantile
from jaxheads.studies.scores.uncertainty import (
    SAMPLES,
    depth_p,
    over_heads,
    ranked_interval,
    resampled_scores,
    spearman_p,
)

_RANKED = "queries, heads ranked anew"
_FEWEST = 3  # heads of a set below which its share or its depth says too little


def top_sets_differ(run: Run, rules: Rules) -> Measured:
    """One half minus the share of the top 2 % of heads that both rankings share.

    Top sets of 3 heads or more, the best of which stands out from chance. The interval
    reaches from the heads that are in both top sets for sure to those that may be in
    both: that fewer heads than are in a set are better for sure. Test by bootstrap over
    queries, heads ranked anew each time, corrected for the noise that this adds.
    """
    pair, count = _scores(run), _count(run, rules)
    for name in PAIR:
        if not run_scores.standing_out(run, name).any():
            raise Untested(
                "undecided", f"No head stands out from chance by {words.short(name)}."
            )
    shared = statistics.overlap(*(top(scores, count) for scores in pair))
    made = np.array(
        [
            statistics.overlap(top(a, count), top(b, count))
            for a, b in zip(*_resampled(run, rules), strict=True)
        ]
    )
    members = [
        top_members(
            scores, run_scores.errors(run, name), run_scores.samples(run, name), count
        )
        for name, scores in zip(PAIR, pair, strict=True)
    ]
    sure, may = (np.logical_and(*each).sum() for each in zip(*members, strict=True))
    low = min(float(sure) / count, shared)
    high = max(min(float(may) / count, 1.0), shared)
    corrected = 2 * shared - made
    beyond = min(int(np.sum(corrected >= 0.5)), int(np.sum(corrected <= 0.5)))
    total = pair[0].size
    p_chance = statistics.overlap_p_value(round(shared * count), count, count, total)
    return Measured(
        0.5 - shared,
        0.5 - high,
        0.5 - low,
        p=min(1.0, 2 * (1 + beyond) / (1 + SAMPLES)),
        over="queries",
        p_over=_RANKED,
        evidence=f"The top {words.percent(rules.top)} share {round(shared * count)} of "
        f"{count} heads, {words.percent(round(shared, 2))}; by chance "
        f"{words.percent(round(count / total, 3))} (so many or more: p "
        f"{words.p_value(p_chance)}).",
        unit="share of heads",
        smallest=rules.smallest,
    )


def top_members(
    scores: np.ndarray, errors: np.ndarray, samples: int | None, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which heads are among the top ones for sure, and which may be.

    A head is above another for sure if their difference is above Student's t quantile
    at 1 - 0.025 / (L H) times its standard error: then of all heads each is held
    against all others at 5 %. It may be among the top ``count`` heads if fewer than so
    many are above it for sure; and is if all but fewer than so many are below.

    Args:
        scores: [L, H].
        errors: standard errors, [L, H]; with one that is nan nothing is sure.
        samples: that the errors rest on; None: the scores are exact.
        count: of top heads.

    Returns:
        bool [L, H] twice: for sure, and maybe.
    """
    flat, error = scores.ravel(), errors.ravel()
    if samples is None:
        quantile, error = 0.0, np.zeros_like(flat)
    else:
        level = 1 - 0.05 / flat.size
        quantile = student_t_quantile(level, samples - 1) if samples > 1 else np.inf
    spread = np.hypot(error[:, None], error)
    above = flat[:, None] - flat > quantile * np.where(spread > 0, spread, np.nan)
    above |= (spread == 0) & (flat[:, None] > flat)
    shape = scores.shape
    sure = flat.size - 1 - above.sum(axis=1) < count
    return sure.reshape(shape), (above.sum(axis=0) < count).reshape(shape)


def scores_correlate(run: Run, rules: Rules) -> Measured:
    """Spearman's correlation of FV and induction score over all heads.

    Student's t test over heads, interval by resampling heads; beside it the
    correlation within layers, which depth alone cannot make.
    """
    fv, induction = _scores(run)
    rho = statistics.spearman(fv, induction)
    if fv.size < 5 or math.isnan(rho):
        raise Untested("undecided", "The scores of too few heads differ to correlate.")
    low, high = over_heads(fv, induction, rules.seed)
    inside = _within_layers(fv, induction)
    text = f"Over {fv.size:,} heads the rank correlation is {words.number(rho)}"
    if not math.isnan(inside):
        text += f"; within layers {words.number(inside)}"
    return Measured(
        rho,
        low,
        high,
        p=spearman_p(rho, fv.size),
        over="heads",
        p_over="heads",
        evidence=text + ".",
        unit="rank correlation",
        smallest=rules.smallest,
    )


def fv_heads_deeper(run: Run, rules: Rules) -> Measured:
    """Mean layer of the top 2 % FV heads minus that of the top 2 % induction heads.

    Top sets of 3 heads or more. Permutation test over heads, those of both sets left
    out; interval by bootstrap over queries, heads ranked anew each time.
    """
    pair, count = _scores(run), _count(run, rules)
    tops = [top(scores, count) for scores in pair]
    layers = [float(np.nonzero(heads)[0].mean()) for heads in tops]
    made = []
    for a, b in zip(*_resampled(run, rules), strict=True):
        one, other = (np.nonzero(top(each, count))[0].mean() for each in (a, b))
        made.append(one - other)
    difference = layers[0] - layers[1]
    low, high = ranked_interval(difference, np.array(made))
    first, second = words.aligned(*layers)
    return Measured(
        difference,
        low,
        high,
        p=depth_p(*tops, seed=rules.seed),
        over=_RANKED,
        p_over="heads",
        evidence=f"The top {count} FV heads lie in layer {first} on average, the top "
        f"{count} induction heads in layer {second}, of {len(pair[0])}.",
        unit="layers",
        smallest=rules.smallest_layers,
    )


def _scores(run: Run) -> tuple[np.ndarray, np.ndarray]:
    missing = [name for name in PAIR if f"score/{name}" not in run.arrays]
    if missing:
        names = " and ".join(words.short(name) for name in missing)
        raise Untested("not measured", f"The run has no {names} scores.")
    fv, induction = (np.asarray(run.arrays[f"score/{n}"], np.float64) for n in PAIR)
    if not (np.isfinite(fv).all() and np.isfinite(induction).all()):
        raise Untested("undecided", "Some scores are not numbers.")
    return fv, induction


def _count(run: Run, rules: Rules) -> int:
    count = top_count(_scores(run)[0].size, rules.top)
    if count < _FEWEST:
        raise Untested(
            "undecided",
            f"The top {words.percent(rules.top)} are {words.plural(count, 'head')}: "
            "too few to tell.",
        )
    return count


def _resampled(run: Run, rules: Rules) -> list[np.ndarray]:
    return [
        resampled_scores(run, name, rules.seed + n, SAMPLES)
        for n, name in enumerate(PAIR)
    ]


def _within_layers(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of ranks within layers, each layer's mean rank taken away."""
    if a.shape[1] < 2:
        return math.nan
    ranks = [
        np.stack([statistics.average_ranks(row) for row in scores])
        - (a.shape[1] + 1) / 2
        for scores in (a, b)
    ]
    scale = math.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
    return float((ranks[0] * ranks[1]).sum() / scale) if scale else math.nan


_YIN = "Yin & Steinhardt 2025"
CLAIMS = (
    Definition(
        "top_sets_differ",
        "The top function-vector and induction heads are different heads: fewer than "
        "half are shared",
        f"{_YIN}, section 3",
        "head scores",
        "both scores",
        top_sets_differ,
    ),
    Definition(
        "scores_correlate",
        "Heads with a higher induction score have a higher function-vector score",
        f"{_YIN}, section 3",
        "head scores",
        "both scores",
        scores_correlate,
    ),
    Definition(
        "fv_heads_deeper",
        "Function-vector heads lie deeper than induction heads",
        f"{_YIN}, section 3",
        "head scores",
        "both scores",
        fv_heads_deeper,
    ),
)
"""What a run may be asked of this study."""
