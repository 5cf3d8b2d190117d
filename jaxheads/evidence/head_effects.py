"""Arguments 3 and 5, summed up: what induction heads carry, and how they are built.

Source: Olsson et al. 2022, arguments 3 and 5.
"""

from typing import Any

import numpy as np

from jaxheads.evidence.phase_changes import LEAST
from jaxheads.evidence.rules import Answer, NotAsked, against, interval, spelled
from jaxheads.statistics import spearman

INDUCTION = 0.3
"""Prefix-matching score above which a head is called an induction head."""


def carried(
    by_head: np.ndarray, prefix_matching: np.ndarray, score: np.ndarray
) -> dict[str, np.ndarray]:
    """How much of the ICL score induction heads carry, in every model.

    Heads are ablated one at a time, so that effects of heads that do the same work add
    up to less than that of ablating them together.

    Args:
        by_head: ICL score with a head ablated minus without, nats, [..., L, H].
        prefix_matching: of the same models, [..., L, H].
        score: ICL score, nats, [...]; negative where a model learns in context.

    Returns:
        "correlation": Spearman, over heads, of effect and prefix-matching score;
        "share": sum of the induction heads' effects over minus the ICL score, NaN where
        that is nearly none; "share_of_effects": the same sum over that of all heads'
        positive effects; "induction_heads": their number; each [...], float64.
    """
    lead = score.shape
    flat = by_head.reshape(*lead, -1)
    chosen = prefix_matching.reshape(*lead, -1) > INDUCTION
    order = [
        spearman(one, other)
        for one, other in zip(
            flat.reshape(-1, flat.shape[-1]),
            prefix_matching.reshape(-1, flat.shape[-1]),
            strict=True,
        )
    ]
    number, total = chosen.sum(axis=-1), np.where(chosen, flat, 0).sum(axis=-1)
    positive = np.maximum(flat, 0).sum(axis=-1)
    learned = -score >= LEAST["icl_score"]
    nan = np.full(lead, np.nan)
    return {
        "correlation": np.array(order, float).reshape(lead),
        "share": np.divide(total, -score, out=nan.copy(), where=learned),
        "share_of_effects": np.divide(total, positive, out=nan, where=positive > 0),
        "induction_heads": number.astype(float),
    }


def lost(scores: np.ndarray) -> dict[str, np.ndarray]:
    """Share of the ICL score that is lost where heads are removed together.

    ``(score without - score) / -score``

    Args:
        scores: [2 + draws, N], see ``joint_ablation``.

    Returns:
        "lost" [N], without all induction heads; "more_than_others" [N], the same minus
        the mean over draws of as many others; NaN where there is nearly no ICL score,
        or no such heads.
    """
    whole = np.where(-scores[0] >= LEAST["icl_score"], scores[0], np.nan)
    shares = (scores[1:] - whole) / -whole
    return {"lost": shares[0], "more_than_others": shares[0] - shares[1:].mean(axis=0)}


def apart(values: np.ndarray, prefix_matching: np.ndarray) -> np.ndarray:
    """Mean of a figure over induction heads minus its mean over the others.

    Args:
        values: of every head, [..., L, H]; NaN does not count.
        prefix_matching: of the same heads, [..., L, H].

    Returns:
        [...]; NaN where there are no heads of one kind.
    """
    chosen = prefix_matching > INDUCTION
    others = np.where(chosen, np.nan, values)
    return of_induction(values, prefix_matching) - of_induction(
        others, np.full_like(prefix_matching, np.inf)
    )


def of_induction(values: np.ndarray, prefix_matching: np.ndarray) -> np.ndarray:
    """Mean of a figure over induction heads.

    Args:
        values: of every head, [..., L, H]; NaN does not count.
        prefix_matching: of the same heads, [..., L, H].

    Returns:
        [...]; NaN where there are none.
    """
    counts = np.isfinite(values) & (prefix_matching > INDUCTION)
    count = counts.sum(axis=(-2, -1))
    total = np.where(counts, values, 0).sum(axis=(-2, -1))
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def change_in_window(
    steps: np.ndarray, values: np.ndarray, changes: Any
) -> list[float | None]:
    """By how much a figure changes over the window of the heads, in every seed.

    Args:
        steps: [E], of the evaluations.
        values: [E, N].
        changes: of the heads, N of ``PhaseChange``.

    Returns:
        Last minus first value of the window; None where there is no window, or no
        value.
    """
    found: list[float | None] = []
    for n, one in enumerate(changes):
        if one.begin is None or one.end is None:
            found.append(None)
            continue
        begin, end = np.searchsorted(steps, [one.begin, one.end])
        change = float(values[end, n] - values[begin, n])
        found.append(change if np.isfinite(change) else None)
    return found


def decide_ablation(found: dict[str, Any], seed: int) -> tuple[Answer, str]:
    """The share of the ICL score that goes with all induction heads together.

    Asked at the last step of all seeds that learn in context and have heads with a
    prefix-matching score above 0.3: these heads removed at once, with attention
    patterns kept, by how much the ICL score rises, over minus the ICL score; mean over
    seeds. Holds: its interval of 95 %
    is above one half, and that of the difference from removing as many other heads
    (mean of 4 random sets) above 0. Refuted: the interval of the share is below one
    half. Else, and where there are not as many other heads, undecided. Heads removed
    one by one, which stand in for one another, are reported and decide nothing.
    """
    runs = [run for run in found["attribution"] if run is not None]
    if not runs:
        raise NotAsked("models that are run (leave out --no-ablations)")
    pooled = {
        name: interval([v for run in runs for v in _asked(run, name)], seed)
        for name in ("lost", "more_than_others", "share", "correlation")
    }
    lost, more = pooled["lost"], pooled["more_than_others"]
    if lost is None:
        raise NotAsked(
            f"seeds with an ICL score and heads of a prefix-matching score above "
            f"{INDUCTION:g} at the last step"
        )
    said = f"Share of the ICL score lost without all induction heads: {spelled(lost)}"
    if more:
        said += f"; more than without as many others: {spelled(more)}"
    for name, noun in (
        ("share", "Sum of the shares lost without each of them alone"),
        ("correlation", "Rank correlation of a head's effect and prefix matching"),
    ):
        made = pooled[name]
        if made:
            said += f". {noun}: {spelled(made)}"
    answer = against(lost, 0.5)
    if answer == "holds" and not (more and against(more, 0.0) == "holds"):
        answer = "undecided"
    return answer, f"{said}."


def _asked(run: dict[str, Any], name: str) -> list[float]:
    """A figure of the seeds that learn in context and have induction heads."""
    pairs = zip(run[name], run["lost"], strict=True)
    return [value for value, lost in pairs if value is not None and lost is not None]


def decide_generality(found: dict[str, Any], seed: int) -> tuple[Answer, str]:
    """Whether the ICL score changes with the heads where no copy helps.

    The published examples, translation and abstract patterns, need a model of natural
    language. Asked instead: does the ICL score of windows whose early and late
    target no copy of a bigram gives fall in the window in which heads form? Mean over
    seeds. Holds: the interval of 95 % of the change is below -0.05 nats. Refuted: it is
    above. Else undecided.
    """
    changes = [one for run in found["generality"] for one in run if one is not None]
    made = interval([-change for change in changes], seed)
    if made is None:
        raise NotAsked(
            "seeds whose heads have a phase change, and held-out windows with targets "
            "that no copy gives (text, or data with such targets)"
        )
    said = (
        "Where no copy of a bigram helps, the ICL score fell in the window of the "
        f"heads by {spelled(made)} nats; the published examples are not asked."
    )
    return against(made, 0.05), said


def decide_mechanism(found: dict[str, Any], seed: int) -> tuple[Answer, str]:
    """Whether induction heads copy, and look for what came before them.

    At the last step: the mean copying score of heads with a prefix-matching score above
    0.3 minus that of the other heads; and the mean QK trace of these heads, whose
    chance level is 0, behind the first layer, which has none. Means over seeds. Holds:
    both intervals of 95 % are above 0. Refuted: one of them is below 0. Else undecided.
    """
    runs = [run for run in found["circuits"] if run is not None]
    if not runs:
        raise NotAsked("models that are run (leave out --no-ablations)")
    made = {
        name: interval([v for run in runs for v in run[name] if v is not None], seed)
        for name in ("copying", "qk_trace")
    }
    copying, trace = made["copying"], made["qk_trace"]
    if copying is None or trace is None:
        raise NotAsked(
            f"seeds with heads of a prefix-matching score above {INDUCTION:g}, behind "
            "the first layer, and others"
        )
    said = (
        f"Copying of induction heads minus that of others: {spelled(copying)}. Their "
        f"QK trace: {spelled(trace)}."
    )
    answers = {against(copying, 0.0), against(trace, 0.0)}
    if "refuted" in answers:
        return "refuted", said
    return ("undecided" if "undecided" in answers else "holds"), said
