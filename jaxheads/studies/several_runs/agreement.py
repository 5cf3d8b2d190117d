"""Several runs together: one model under several seeds, and models of several sizes.

Question: do seeds agree on the top heads, are the reported standard errors as large as
the differences between seeds, and does what heads do grow with the model? Runs of the
same params are seeds of one model; runs of others are sizes.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxheads import statistics
from jaxheads.heads import head_name, top
from jaxheads.heads.run_scores import errors, score, top_count
from jaxheads.report import words
from jaxheads.report.tables import Cell, Table
from jaxheads.runs import Run
from jaxheads.statistics.claims import (
    Claim,
    Definition,
    Measured,
    Rules,
    Untested,
    judge,
)
from jaxheads.statistics.units import Estimate, student_t_p, student_t_quantile
from jaxheads.studies.ablation.effects import (
    clean_mean,
    few_shot,
    gap_over_samples,
    place,
)

_PERMUTATIONS = 9999


@dataclasses.dataclass(frozen=True)
class TopHead:
    """One of the top heads over all seeds.

    Attributes:
        name: "layer.head".
        mean: of its score over seeds.
        deviation: standard deviation of the score over seeds.
        error: root mean square of the standard errors that the runs report.
        rank: mean rank over seeds, from 1.
    """

    name: str
    mean: float
    deviation: float
    error: float
    rank: float


@dataclasses.dataclass(frozen=True)
class SeedAgreement:
    """How one score's rankings agree over runs of one model that differ in seed.

    Attributes:
        score: its name.
        model: its name.
        seeds: of the runs.
        leaders: the top head of each run, by name.
        leader_scores: its score in each run.
        leader_errors: the standard error that the run reports of it.
        rank_correlation: Spearman over all heads, mean over pairs of runs.
        lowest_rank_correlation: of the pairs.
        count: heads of a top set, 2 % rounded up.
        jaccard: of the top sets, mean over pairs.
        heads: those at the top by the mean over seeds.
        ratio: root mean square over these heads of the deviation over seeds, each
            divided by its reported error; 1: the errors are honest, more: too small.
        ratio_low: lower end of the 95 % interval of the ratio, if seeds are normally
            distributed and heads independent.
        ratio_high: upper end.
    """

    score: str
    model: str
    seeds: tuple[Any, ...]
    leaders: tuple[str, ...]
    leader_scores: tuple[float, ...]
    leader_errors: tuple[float, ...]
    rank_correlation: float
    lowest_rank_correlation: float
    count: int
    jaccard: float
    heads: tuple[TopHead, ...]
    ratio: float
    ratio_low: float
    ratio_high: float

    @property
    def same_leader(self) -> bool:
        """Whether all runs have the same top head."""
        return len(set(self.leaders)) == 1


def by_model(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Group runs by their model's params, in order of appearance."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        model = run.result["model"]
        key = str(model.get("params_sha256") or model.get("source"))
        groups.setdefault(key, []).append(run)
    return groups


def seed_agreement(
    runs: Sequence[Run], name: str, share: float = 0.02
) -> SeedAgreement | None:
    """Compare a score over runs of one model.

    Args:
        runs: of one model, of several seeds.
        name: of the score.
        share: of all heads, the top sets.

    Returns:
        None where fewer than two of the runs have the score.
    """
    runs = [run for run in runs if f"score/{name}" in run.arrays]
    if len(runs) < 2:
        return None
    values = np.stack([score(run, name) for run in runs])  # [R, L, H]
    spread = np.stack([errors(run, name) for run in runs])
    count = top_count(values[0].size, share)
    tops = [top(each, count) for each in values]
    pairs = [*itertools.combinations(range(len(runs)), 2)]
    correlations = [statistics.spearman(values[a], values[b]) for a, b in pairs]
    flat, flat_error = values.reshape(len(runs), -1), spread.reshape(len(runs), -1)
    first = flat.argmax(axis=1)
    at = np.arange(len(runs))
    heads = _top_heads(values, spread, count)
    ratio, low, high = _honesty(heads, len(runs))
    return SeedAgreement(
        score=name,
        model=str(runs[0].result["model"].get("name") or ""),
        seeds=tuple((run.result.get("config") or {}).get("seed") for run in runs),
        leaders=tuple(head_name(*_unflat(head, values)) for head in first),
        leader_scores=tuple(flat[at, first].tolist()),
        leader_errors=tuple(flat_error[at, first].tolist()),
        rank_correlation=float(np.mean(correlations)),
        lowest_rank_correlation=float(np.min(correlations)),
        count=count,
        jaccard=float(
            np.mean([statistics.jaccard(tops[a], tops[b]) for a, b in pairs])
        ),
        heads=heads,
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
    )


def _unflat(head: int, values: np.ndarray) -> tuple[int, int]:
    return divmod(int(head), values.shape[2])


def _top_heads(
    values: np.ndarray, spread: np.ndarray, count: int
) -> tuple[TopHead, ...]:
    mean = values.mean(axis=0).ravel()
    ranks = np.stack([1 + np.argsort(np.argsort(-each.ravel())) for each in values])
    deviation = values.std(axis=0, ddof=1).ravel()
    error = np.sqrt((spread**2).mean(axis=0)).ravel()
    return tuple(
        TopHead(
            head_name(*_unflat(head, values)),
            float(mean[head]),
            float(deviation[head]),
            float(error[head]),
            float(ranks[:, head].mean()),
        )
        for head in np.argsort(-mean, kind="stable")[:count]
    )


def _honesty(heads: Sequence[TopHead], runs: int) -> tuple[float, float, float]:
    """Deviation over seeds in units of the reported error, with a 95 % interval.

    The sum over heads of (R - 1) deviation^2 / error^2 has a chi-square distribution;
    a score of weights alone has no error, and does not count.
    """
    from scipy import stats

    squares = [(head.deviation / head.error) ** 2 for head in heads if head.error > 0]
    if not squares:
        return math.nan, math.nan, math.nan
    freedom = (runs - 1) * len(squares)
    total = freedom * float(np.mean(squares))
    low, high = (total / stats.chi2.ppf(end, freedom) for end in (0.975, 0.025))
    return math.sqrt(total / freedom), math.sqrt(low), math.sqrt(high)


def table(runs: Sequence[Run]) -> Table | None:
    """A row a model and score, where a model has several runs; None where none has."""
    found = [
        agreed
        for group in by_model(runs).values()
        for name in group[0].result.get("scores") or {}
        if (agreed := seed_agreement(group, name))
    ]
    columns = ["model", "score", "runs", "top head", "its score"]
    columns += ["rank correlation", "top-2 % sets", "spread / reported error"]
    rows = [_row(agreed) for agreed in found]
    return Table("Agreement over runs", columns, rows, 2) if rows else None


def _row(agreed: SeedAgreement) -> list[str | Cell]:
    leaders = ", ".join(dict.fromkeys(agreed.leaders))
    scores = agreed.leader_scores
    low, high = words.aligned(min(scores), max(scores))
    ratio = (agreed.ratio, agreed.ratio_low, agreed.ratio_high)
    return [
        agreed.model or words.NONE,
        words.short(agreed.score),
        str(len(agreed.leaders)),
        leaders + (" in all" if agreed.same_leader else ""),
        low if low == high else f"{low} to {high}",
        Cell(
            words.number(agreed.rank_correlation),
            f"lowest {words.number(agreed.lowest_rank_correlation)}",
        ),
        words.number(agreed.jaccard),
        words.with_interval(*ratio) if math.isfinite(agreed.ratio) else words.NONE,
    ]


def gap_grows_with_size(runs: Sequence[Run], rules: Rules) -> Measured:
    """Slope over log10 of the params of what FV heads cost more than induction heads.

    Few-shot, with exclusion, at the share nearest to 5 %; seeds of a model averaged. p
    is the larger of two: over prompts, the models given; over the models, permuted,
    which takes five models or more to be below 5 %.
    """
    sizes, gaps, noise, clean = [], [], [], []
    for group in by_model(runs).values():
        params = group[0].result["model"].get("num_params")
        made = [found for run in group if (found := _gap_of(run, rules))]
        if not params or not made:
            continue
        sizes.append(math.log10(params))
        gaps.append(float(np.mean([one.mean for one, _ in made])))
        # Seeds share most of their items: their mean is no more certain than one.
        noise.append(math.sqrt(np.mean([one.variance for one, _ in made])))
        clean.append(float(np.mean([whole for _, whole in made])))
    if len(set(sizes)) < 3:
        raise Untested(
            "not measured", f"The runs are of {words.plural(len(set(sizes)), 'size')}."
        )
    x, y = np.array(sizes) - np.mean(sizes), np.array(gaps)
    total = float(x @ x)
    slope = float(x @ y) / total
    by_noise = math.sqrt(float((x**2) @ (np.array(noise) ** 2))) / total
    left = y - y.mean() - slope * x
    freedom = len(x) - 2
    by_models = math.sqrt(float(left @ left) / freedom / total)
    half = max(
        student_t_quantile(0.95, math.inf) * by_noise,
        student_t_quantile(0.95, freedom) * by_models,
    )
    p_noise = float(student_t_p(slope / by_noise, math.inf))
    p_models = _permuted_p(x, y, rules.seed)
    order = np.argsort(sizes)
    listed = ", ".join(
        f"{words.number(gaps[n])} at {words.magnitude(10 ** sizes[n])}" for n in order
    )
    return Measured(
        slope,
        slope - half,
        slope + half,
        p=max(p_noise, p_models),
        over="queries, or models where they vary more",
        p_over="the larger of two: queries; models",
        evidence=f"The gap is {listed} parameters (p {words.p_value(p_noise)} over "
        f"prompts, {words.p_value(p_models)} over models).",
        unit="accuracy for ten times the parameters",
        smallest=rules.smallest * float(np.mean(clean)),
    )


def _gap_of(run: Run, rules: Rules) -> tuple[Estimate, float] | None:
    """A run's gap over queries, and its clean accuracy."""
    try:
        outcome = few_shot(run)
        at = place(outcome, "exclusion", rules.fraction)
        return gap_over_samples(outcome, at), clean_mean(outcome)
    except Untested:
        return None


def _permuted_p(x: np.ndarray, y: np.ndarray, seed: int) -> float:
    """Two-sided p value of x @ y with y permuted: twice that of its own side."""
    measured = float(x @ y)
    if len(x) <= 7:
        made, added = np.array([*itertools.permutations(y)]) @ x, 0
    else:
        rng = np.random.default_rng(seed)
        made, added = rng.permuted(np.tile(y, (_PERMUTATIONS, 1)), axis=1) @ x, 1
    above = int(np.sum(made >= measured - 1e-12))
    below = int(np.sum(made <= measured + 1e-12))
    return min(1.0, 2 * (min(above, below) + added) / (len(made) + added))


CLAIMS = (
    Definition(
        "gap_grows_with_size",
        "The larger the model, the more few-shot answers depend on function-vector "
        "rather than induction heads",
        "Yin & Steinhardt 2025, section 4",
        "size",
        "ablation studies, with exclusion, of three sizes or more of a model",
        gap_grows_with_size,
    ),
)


def claims_of_runs(runs: Sequence[Run], rules: Rules | None = None) -> list[Claim]:
    """Judge the claims that take several runs."""
    return judge(CLAIMS, runs, rules or Rules())
