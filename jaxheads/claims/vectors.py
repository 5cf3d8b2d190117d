"""Claims about function vectors that are added to prompts which do not show the task.

Each function measures one claim on a run; its docstring is the rule of its judgement.
"""

import numpy as np

from jaxheads.claims.rules import Measured, Rules, Untested
from jaxheads.report import words
from jaxheads.runs import Run
from jaxheads.statistics.paired_tests import Estimate, estimate, sign_flip_p

_NAMES = {"zero_shot": "zero-shot", "shuffled": "shuffled-label"}


def vector_raises_zero_shot(run: Run, rules: Rules) -> Measured:
    """Zero-shot accuracy with the task's function vector minus without.

    Added a third of the way up, in the first-token accuracy of all prompts. Sign-flip
    test over queries; a tenth of the clean accuracy is the smallest gain of interest.
    """
    return _gain(run, "zero_shot", rules)


def vector_raises_shuffled(run: Run, rules: Rules) -> Measured:
    """Accuracy after shuffled labels, with the task's function vector minus without.

    Added a third of the way up, in the first-token accuracy of all prompts. Sign-flip
    test over queries; a tenth of the clean accuracy is the smallest gain of interest.
    """
    return _gain(run, "shuffled", rules)


def random_vectors_do_not(run: Run, rules: Rules) -> Measured:
    """Zero-shot accuracy without a vector minus with vectors of as many random heads.

    A claim of no gain: the one-sided test is against a gain of a tenth of the clean
    accuracy, over queries and random sets, and the claim does not hold where the 95 %
    interval lies beyond that.
    """
    plain, random = _right(run, "zero_shot"), _right(run, "zero_shot_random")
    margin = rules.smallest * _clean(run)
    difference = plain - random.mean(0)
    found, _ = by_query(difference, _queries(run))
    if len(random) > 1:
        spread = float(random.mean((1, 2)).var(ddof=1))
        found = found.with_source(spread / len(random), len(random) - 1)
    p = found.p_above(-margin)
    if found.variance == 0 and found.mean > -margin:
        p = (1 - margin) ** difference.size  # no prompt of n differs
    before, after = words.aligned(plain.mean(), random.mean())
    return Measured(
        *found.interval(),
        p=p,
        evidence=f"Vectors of random heads ({words.plural(len(random), 'draw')}) take "
        f"zero-shot accuracy from {before} to {after}; no gain means less than "
        f"{words.number(margin)}.",
        unit="accuracy",
        smallest=margin,
        null=-margin,
    )


def _gain(run: Run, kind: str, rules: Rules) -> Measured:
    plain, steered = _right(run, kind), _right(run, f"{kind}_vector")
    clean = _clean(run)
    difference = steered - plain
    found, sums = by_query(difference, _queries(run))
    before, after, whole = words.aligned(plain.mean(), steered.mean(), clean)
    tasks = int(np.sum(difference.mean(1) > 0))
    return Measured(
        *found.interval(),
        p=sign_flip_p(sums, rules.seed),
        evidence=f"At layer {run.result['execution']['layer']} the function vector "
        f"takes {_NAMES[kind]} accuracy from {before} to {after}, up in {tasks} of "
        f"{words.plural(len(difference), 'task')} (clean {whole}).",
        unit="accuracy",
        smallest=rules.smallest * clean,
    )


def by_query(
    differences: np.ndarray, queries: np.ndarray
) -> tuple[Estimate, np.ndarray]:
    """Estimate a mean where several prompts ask one query, which count as one sample.

    Args:
        differences: [E, B].
        queries: int [E, B]; prompts of a task with one number ask one query.

    Returns:
        The mean of the tasks' means; and the sums of each query's differences, flat,
        for ``sign_flip_p``.
    """
    if all(len(np.unique(row)) == len(row) for row in queries):
        return estimate(differences), differences.ravel()
    variance, freedom, sums = 0.0, 0, []
    for row, numbers in zip(differences, queries, strict=True):
        _, place = np.unique(numbers, return_inverse=True)
        each = np.bincount(place.ravel(), weights=row)
        sums.append(each)
        if len(each) > 1:
            variance += len(each) * float(each.var(ddof=1))
            freedom += len(each) - 1
    total = differences.size
    spread = variance / total**2 if freedom else float("nan")
    mean = float(differences.mean())
    return Estimate(mean, spread, float(freedom)), np.concatenate(sums)


def _right(run: Run, name: str) -> np.ndarray:
    """Answers [U, B]; of random vectors [Y, U, B]; at a third of the layers."""
    values = run.arrays.get(f"execution/right/{name}")
    if values is None or "execution" not in run.result:
        raise Untested("not measured", "The run adds no function vectors to prompts.")
    values = np.asarray(values, np.float64)
    if name.endswith(("_vector", "_random")):
        layers = np.asarray(run.arrays["execution/layers"])
        found = np.flatnonzero(layers == run.result["execution"]["layer"])
        at = int(found[0]) if found.size else 0
        values = values[..., at, :]
    if name.endswith("_random"):
        values = np.moveaxis(values, 1, 0)
    if not values.size:
        raise Untested("not measured", "The run has no such vectors or prompts.")
    return values


def _queries(run: Run) -> np.ndarray:
    right = run.arrays["execution/right/clean"]
    each = np.tile(np.arange(right.shape[1]), (len(right), 1))
    return np.asarray(run.arrays.get("execution/queries", each))


def _clean(run: Run) -> float:
    clean = float(_right(run, "clean").mean())
    if clean == 0:
        raise Untested(
            "undecided", "The model answers no prompt of these tasks: nothing to raise."
        )
    return clean
