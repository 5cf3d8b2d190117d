"""Argument 6: the same figures over models of several sizes; and the order of losses.

Source: Olsson et al. 2022, argument 6, and the derivative of the loss by the logarithm
of the tokens seen, whose order over models changes at the phase change.
"""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxheads.statistics import spearman
from jaxheads.statistics.claims import Verdict
from jaxheads.statistics.phase_change import windows_overlap
from jaxheads.studies.six_arguments import co_occurrence
from jaxheads.studies.six_arguments.co_occurrence import HEADS, SCORE
from jaxheads.studies.six_arguments.curves import Curves
from jaxheads.studies.six_arguments.rules import NotAsked, interval, over_runs


def continuity(curves: Curves) -> dict[str, Any]:
    """The figures of one run that are held against other sizes, ready for JSON.

    Returns:
        "icl_score" and "top_prefix" at the last evaluation, means over seeds with an
        interval; "tokens": mean date of the heads, in tokens of a seed, with "low"
        and "high" of its interval; "found": seeds in which heads form; "together":
        seeds in which the ICL score changes in the same window.
    """
    heads, score = curves.changes[HEADS], curves.changes[SCORE]
    each = curves.about["tokens_a_step"]
    dates = {"tokens": heads.step, "low": heads.low, "high": heads.high}
    return {
        "icl_score": interval(curves.last_score),
        "top_prefix": interval(curves.last_prefix),
        "found": heads.found,
        "score_found": score.found,
        "together": sum(map(windows_overlap, heads.each, score.each)),
        **{name: None if at is None else at * each for name, at in dates.items()},
    }


def loss_slopes(runs: Sequence[Curves]) -> dict[str, Any] | None:
    """How fast every run's loss falls before and after the phase change.

    ``- d loss / d ln(tokens)``, the least-squares slope of the seeds' mean training
    loss, over the steps from a quarter of the begin of the heads' window to its begin,
    and from its end to four times that. The window of a run reaches from the first to
    the last of its seeds'; of a run without one, it is the median one of the others.

    Args:
        runs: two or more.

    Returns:
        "before" and "after": of each run, nats per unit of ln(tokens), or None where a
        stretch has fewer than 3 steps; "window": [begin, end] in steps of each run;
        "rank_correlation": Spearman of the two orders, or None of fewer than 3 runs.
        None where no run has a window.
    """
    windows = [_window(run) for run in runs]
    known = [window for window in windows if window is not None]
    if not known:
        return None
    usual = tuple(statistics.median(ends) for ends in zip(*known, strict=True))
    taken = [usual if window is None else window for window in windows]
    before, after = [], []
    for run, (begin, end) in zip(runs, taken, strict=True):
        losses = run.losses.mean(axis=1)
        before.append(loss_slope(losses, begin / 4, begin))
        after.append(loss_slope(losses, end, 4 * end))
    both = [pair for pair in zip(before, after, strict=True) if None not in pair]
    order = float(spearman(*np.array(both, float).T)) if len(both) > 2 else None
    return {
        "before": before,
        "after": after,
        "window": [list(window) for window in taken],
        "rank_correlation": order if order is None or np.isfinite(order) else None,
    }


def loss_slope(losses: np.ndarray, begin: float, end: float) -> float | None:
    """Least-squares slope of ``-loss`` on ln(step), of the steps begin to end.

    Args:
        losses: [S], of steps 1 to S, nats.
        begin: first step that counts.
        end: last step that counts.

    Returns:
        Nats per unit of ln(step); None of fewer than 3 steps.
    """
    steps = np.arange(1, len(losses) + 1)
    inside = (steps >= begin) & (steps <= end)
    if inside.sum() < 3:
        return None
    x = np.log(steps[inside])
    x -= x.mean()
    return float(-(x @ losses[inside]) / (x @ x))


def _window(run: Curves) -> tuple[float, float] | None:
    each = [
        (one.begin, one.end)
        for one in run.changes[HEADS].each
        if one.begin is not None and one.end is not None
    ]
    if not each:
        return None
    begins, ends = zip(*each, strict=True)
    return min(begins), max(ends)


def decide(found: dict[str, Any]) -> tuple[Verdict, str]:
    """Whether heads and ICL score change together at every size.

    Asked of runs of two or more sizes (layers, width or MLP) of one variant; sizes in
    which neither changes do not count, nor do vanilla models of one layer, which can
    have no induction heads. Each size is asked argument 1. Holds: it holds at every
    size. Does not hold: at one size or more it does not, and at another it does. Else
    undecided, so of windows that span more than half of the training.
    """
    sizes: dict[tuple, list[Verdict]] = {}
    counts: dict[tuple, list[int]] = {}
    rows = zip(found["runs"], found["continuity"], found["co_occurrence"], strict=True)
    for run, row, dated in rows:
        able = run["layers"] > 1 or run["variant"] != "vanilla"
        if able and dated["either"]:
            size = (run["variant"], run["layers"], run["width"], run["mlp_width"])
            sizes.setdefault(size, []).append(co_occurrence.of_run(dated))
            total = counts.setdefault(size, [0, 0])
            total[0] += row["together"]
            total[1] += dated["either"]
    variants = [size[0] for size in sizes]
    kept = {
        size: over_runs(answers)
        for size, answers in sizes.items()
        if variants.count(size[0]) > 1
    }
    if not kept:
        raise NotAsked(
            "runs of two or more sizes of one architecture in which a phase change is "
            f"found{co_occurrence.too_few(found)}"
        )
    said = "; ".join(
        f"{variant}, {layers} layers, width {width}"
        + (f", MLP {mlp}" if mlp else "")
        + ": windows overlap in {} of {} seeds".format(
            *counts[variant, layers, width, mlp]
        )
        + f", argument 1: {answer}"
        for (variant, layers, width, mlp), answer in kept.items()
    )
    answers = set(kept.values())
    if answers == {"holds"}:
        return "holds", f"{said}."
    if answers >= {"holds", "does not hold"}:
        return "does not hold", f"{said}."
    return "undecided", f"{said}."
