"""Arguments 3 and 5, summed up: what induction heads carry, and how they are built.

Source: Olsson et al. 2022, arguments 3 and 5.
"""

from typing import Any

import numpy as np

from jaxheads.statistics import spearman
from jaxheads.statistics.claims import Verdict
from jaxheads.statistics.phase_change import LEAST_CHANGES
from jaxheads.statistics.seeds import FEWEST
from jaxheads.studies.six_arguments.co_occurrence import too_few, wide
from jaxheads.studies.six_arguments.rules import (
    NotAsked,
    against,
    interval,
    known,
    over_runs,
    spelled,
)

INDUCTION = 0.3
"""Prefix-matching score above which a head is called an induction head."""

NO_FALL, NO_DIFFERENCE = 0.05, 0.1
"""Falls of the ICL score (nats), and differences of copying scores and QK traces, that
count as none: the usual tenth of the scale for these. Of no paper."""


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
    learned = -score >= LEAST_CHANGES["icl_score"]
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
    whole = np.where(-scores[0] >= LEAST_CHANGES["icl_score"], scores[0], np.nan)
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


def fall_in_window(
    steps: np.ndarray, values: np.ndarray, changes: Any
) -> list[float | None]:
    """By how much a figure falls over the heads' window, more than an even fall would.

    ``value(begin) - value(end)``, minus the fall over all evaluations times the
    window's share of the steps between the first and the last one.

    Args:
        steps: [E], of the evaluations.
        values: [E, N]; evaluations where one is NaN are left out.
        changes: of the heads, N of ``PhaseChange``.

    Returns:
        Of each seed; None where there is no window, or fewer than two values.
    """
    found: list[float | None] = []
    for n, one in enumerate(changes):
        there = np.isfinite(values[:, n])
        if one.begin is None or one.end is None or there.sum() < 2:
            found.append(None)
            continue
        x, y = steps[there], values[there, n]
        begin, end = np.interp([one.begin, one.end], x, y)
        even = (y[0] - y[-1]) * (one.end - one.begin) / (x[-1] - x[0])
        found.append(float(begin - end - even))
    return found


def _asked(found: dict[str, Any], part: str) -> list[tuple[str, dict[str, Any]]]:
    """Names of the runs whose models were run, and what a part says of each."""
    named = [
        (about["name"], run)
        for about, run in zip(found["runs"], found[part], strict=True)
        if run is not None
    ]
    if not named:
        raise NotAsked("models that are run (leave out --no-ablations)")
    return named


def decide_ablation(found: dict[str, Any]) -> tuple[Verdict, str]:
    """The share of the ICL score that goes with all induction heads together.

    Asked at the last step of every run by itself, of its seeds that learn in context
    and have heads with a prefix-matching score above 0.3: these heads removed at once,
    with attention patterns kept, by how much the ICL score rises, over minus the ICL
    score; mean over seeds. Holds: its interval of 95 % is above one half, and that of
    the difference from removing as many other heads (mean of 4 random sets) above 0.
    Does not hold: the interval of the share is below one half. Else, and of fewer than
    3 such seeds that have as many other heads, undecided. Of several runs, what all of
    3 such seeds or more say; undecided if they differ. Heads removed one by one, which
    stand in for one another, are reported and decide nothing.
    """
    asked = [
        (name, run) for name, run in _asked(found, "attribution") if known(run["lost"])
    ]
    if not asked:
        raise NotAsked(
            f"seeds with an ICL score and heads of a prefix-matching score above "
            f"{INDUCTION:g} at the last step"
        )
    nouns = {
        "lost": "share of the ICL score lost without all induction heads",
        "more_than_others": "more than without as many others",
        "share": "sum of the shares lost without each of them alone",
        "correlation": "rank correlation of a head's effect and prefix matching",
    }
    answers, said = [], []
    for name, run in asked:
        seeds = [n for n, lost in enumerate(run["lost"]) if lost is not None]
        of = {key: [run[key][n] for n in seeds] for key in nouns}
        answer = against(of["lost"], 0.5)
        more = against(of["more_than_others"], 0.0)
        if answer == "holds" and more != "holds":
            answer = "undecided"
        parts = [
            f"{noun} {spelled(made)}"
            for key, noun in nouns.items()
            if (made := interval(of[key]))
        ]
        said.append(f"{name}: {'; '.join(parts)}: {answer}.")
        if len(known(of["more_than_others"])) >= FEWEST:
            answers.append(answer)
    return over_runs(answers), " ".join(said)


def decide_generality(found: dict[str, Any]) -> tuple[Verdict, str]:
    """Whether the ICL score changes with the heads where no copy helps.

    The published examples, translation and abstract patterns, need a model of natural
    language. Asked instead, of every run by itself: does the ICL score of windows whose
    early and late target no copy of a bigram gives fall in the window in which heads
    form, by more than an even fall over the training would? Mean over seeds; less than
    0.05 nats count as none. Holds: the interval of 95 % is above 0. Too small to
    matter: it is within 0.05 nats of 0. Does not hold: it is below 0. Undecided: else,
    of fewer than 3 seeds, and where the windows span more than half of the training.
    Of several runs, what all of 3 such seeds or more say; undecided if they differ.
    """
    rows = zip(found["runs"], found["generality"], found["co_occurrence"], strict=True)
    asked = [
        (about["name"], falls, wide(dated["extent"]))
        for about, falls, dated in rows
        if known(falls)
    ]
    if not asked:
        raise NotAsked(
            "seeds whose heads have a phase change, and held-out windows with targets "
            f"that no copy gives (text, or data with such targets){too_few(found)}"
        )
    answers, said = [], []
    for name, falls, most in asked:
        made, answer = interval(falls), against(falls, 0.0, NO_FALL)
        answer = "undecided" if most else answer
        assert made is not None  # there are some
        said.append(
            f"{name}: where no copy of a bigram helps, the ICL score fell in the "
            f"window of the heads by {spelled(made)} nats more than evenly"
            f"{', a window that spans most of the training' if most else ''}: {answer}."
        )
        if len(known(falls)) >= FEWEST:
            answers.append(answer)
    said.append("The published examples are not asked.")
    return over_runs(answers), " ".join(said)


def decide_mechanism(found: dict[str, Any]) -> tuple[Verdict, str]:
    """Whether induction heads copy, and look for what came before them.

    At the last step of every run by itself: the mean copying score of heads with a
    prefix-matching score above 0.3 minus that of the other heads; and the mean QK trace
    of these heads, whose chance level is 0, behind the first layer, which has none.
    Means over seeds; less than 0.1 of either counts as none. Holds: both intervals of
    95 % are above 0. Does not hold: one of them is below 0. Too small to matter: one is
    within 0.1 of 0. Else, and of fewer than 3 such seeds, undecided. Of several runs,
    what all of 3 such seeds or more say; undecided if they differ.
    """
    asked = [
        (name, run)
        for name, run in _asked(found, "circuits")
        if known(run["copying"]) and known(run["qk_trace"])
    ]
    if not asked:
        raise NotAsked(
            f"seeds with heads of a prefix-matching score above {INDUCTION:g}, behind "
            "the first layer, and others"
        )
    answers, said = [], []
    for name, run in asked:
        both = [run["copying"], run["qk_trace"]]
        each = [against(values, 0.0, NO_DIFFERENCE) for values in both]
        # One that fails decides; the worst one first.
        order: tuple[Verdict, ...] = (
            "does not hold", "too small to matter", "undecided", "holds",
        )  # fmt: skip
        answer = next(one for one in order if one in each)
        copying, trace = (spelled(made) for x in both if (made := interval(x)))
        said.append(
            f"{name}: copying of induction heads minus that of others {copying}, their "
            f"QK trace {trace}: {answer}."
        )
        if min(len(known(values)) for values in both) >= FEWEST:
            answers.append(answer)
    return over_runs(answers), " ".join(said)
