"""Two kinds of heads by their scores alone: the numbers of the paper's figures.

Are the top heads of both kinds the same, do the scores agree, who sits deeper, how
strong are they? Each number with its uncertainty and, where there is one, its chance.
Source: Yin & Steinhardt 2025, figures 2, 3, 12, 13 and the appendix's correlations.
"""

import dataclasses
import math

import numpy as np

from jaxheads import statistics
from jaxheads.heads import top
from jaxheads.heads.comparison import top_sets
from jaxheads.heads.run_scores import top_count, top_heads, weighted_layer
from jaxheads.runs import Run
from jaxheads.scores.config import PAIR
from jaxheads.studies.scores.uncertainty import (
    SAMPLES,
    depth_p,
    over_heads,
    ranked_interval,
    resampled_scores,
    spearman_p,
)

SHARES = (0.02, 0.05)
DRAWS = 200
_RANKED = "queries, heads ranked anew"
_FIXED = "queries, heads held fixed"
_HEADS = "heads"


def with_one_induction(run: Run) -> Run:
    """A run whose sets were made by "induction_yin", told as one by "induction".

    Which normalisation ranked the heads is no difference between claims or figures:
    each of them speaks of the one induction score that the run took. That score's own
    definition, chance and ceiling come with it. Other runs are given back as they are.
    """
    kinds = ("ablation", "token_loss")
    made_by = {
        each["ranking"]
        for kind in kinds
        for each in (run.result.get(kind) or {}).get("sets", ())
    }
    if "induction_yin" not in made_by or "induction" in made_by:
        return run
    rename = {"induction_yin": "induction"}
    result, arrays = dict(run.result), dict(run.arrays)
    for kind in kinds:
        if result.get(kind):
            sets = [
                each
                | {
                    key: rename.get(each.get(key), each.get(key))
                    for key in ("ranking", "matched_to")
                }
                for each in result[kind]["sets"]
            ]
            result[kind] = result[kind] | {"sets": sets}
    scores = dict(result["scores"])
    scores["induction"] = scores.pop("induction_yin")
    result["scores"] = {
        name: scores[name] for name in run.result["scores"] if name in scores
    }
    for end in ("", "_se"):
        arrays[f"score/induction{end}"] = arrays.pop(f"score/induction_yin{end}")
    return dataclasses.replace(run, result=result, arrays=arrays)


@dataclasses.dataclass(frozen=True)
class Number:
    """One number of a figure.

    Attributes:
        name: such as "overlap_0.02".
        label: what it is, in words.
        figure: of Yin & Steinhardt 2025, where it is shown.
        value: as measured.
        low: lower end of its 95 % interval; nan: none.
        high: upper end.
        chance: expected if the one score said nothing of the other; nan: no such thing.
        p: of a value so far from chance; nan: not tested.
        over: what the interval varies.
    """

    name: str
    label: str
    figure: str
    value: float
    low: float = math.nan
    high: float = math.nan
    chance: float = math.nan
    p: float = math.nan
    over: str = ""


def numbers(run: Run, pair: tuple[str, str] = PAIR, seed: int = 0) -> list[Number]:
    """Give the numbers of the figures; none where the run lacks one of both scores."""
    if any(f"score/{name}" not in run.arrays for name in pair):
        return []
    a, b = (np.asarray(run.arrays[f"score/{name}"], np.float64) for name in pair)
    if np.isnan(a).any() or np.isnan(b).any():
        return []
    samples = [
        resampled_scores(run, name, seed + n, SAMPLES) for n, name in enumerate(pair)
    ]
    rng = np.random.default_rng(seed)
    shuffled = [rng.permuted(b.ravel()).reshape(b.shape) for _ in range(DRAWS)]
    found = []
    for share in SHARES:
        found += _of_tops(run, pair, samples, shuffled, share)
    found += _correlations(run, a, b, samples, seed)
    for name, values, made in zip(("fv", "induction"), (a, b), samples, strict=True):
        found += _strengths(name, values, made)
    return found


def _of_tops(
    run: Run, pair: tuple[str, str], samples, shuffled, share: float
) -> list[Number]:
    a, b = (np.asarray(run.arrays[f"score/{name}"], np.float64) for name in pair)
    count = top_count(a.size, share)
    said = top_sets(a, b, share, shuffled, count)
    overlaps, in_b, in_a, depth = (
        np.array(column)
        for column in zip(
            *(_placed(one, other, count) for one, other in zip(*samples, strict=True)),
            strict=True,
        )
    )
    text, key = f"top {100 * share:g} % ({count})", f"{share:g}"

    def number(name, label, figure, value, made, chance, limits, p=math.nan):
        low, high = np.clip(ranked_interval(value, made), *limits)
        return Number(
            f"{name}_{key}",
            label.format(text),
            figure,
            value,
            float(low),
            float(high),
            chance,
            p,
            _RANKED,
        )

    everywhere = (-math.inf, math.inf)
    top_a, top_b = top(a, count), top(b, count)
    return [
        number(
            "overlap",
            "share of the {} FV heads that are induction heads too",
            "3a",
            said.share,
            overlaps,
            said.shared_chance / count,
            (0, 1),
            said.p_value,
        ),
        number(
            "fv_heads_percentile",
            "percentile of the {} FV heads' mean among all induction scores",
            "3b",
            said.percentile_a_in_b,
            in_b,
            said.percentile_a_in_b_chance,
            (0, 100),
        ),
        number(
            "induction_heads_percentile",
            "percentile of the {} induction heads' mean among all FV scores",
            "3c",
            said.percentile_b_in_a,
            in_a,
            said.percentile_b_in_a_chance,
            (0, 100),
        ),
        number(
            "depth_difference",
            "mean layer of the {} FV heads minus that of the induction heads",
            "2, 13",
            said.depth_difference,
            depth,
            0.0,
            everywhere,
            depth_p(top_a, top_b),
        ),
        Number(
            f"fv_depth_{key}",
            f"score-weighted mean layer, {text} FV heads",
            "2, 13",
            weighted_layer(top_heads(run, pair[0], count)),
        ),
        Number(
            f"induction_depth_{key}",
            f"score-weighted mean layer, {text} induction heads",
            "2, 13",
            weighted_layer(top_heads(run, pair[1], count)),
        ),
    ]


def _placed(a: np.ndarray, b: np.ndarray, count: int) -> tuple[float, ...]:
    """Overlap, A's percentile in B, B's in A, and depth difference of the top sets."""
    top_a, top_b = top(a, count), top(b, count)
    layers = [float(np.nonzero(heads)[0].mean()) for heads in (top_a, top_b)]
    return (
        statistics.overlap(top_a, top_b),
        statistics.percentile_of(b, top_a),
        statistics.percentile_of(a, top_b),
        layers[0] - layers[1],
    )


def _correlations(run: Run, a, b, samples, seed: int) -> list[Number]:
    count = top_count(a.size, SHARES[0])
    either, top_b = top(a, count) | top(b, count), top(b, count)
    groups = {
        "spearman": ("all heads", "corr.pdf", np.ones(a.shape, bool)),
        "spearman_union": ("the heads of either top-2 % set", "corr.pdf", either),
        "spearman_induction": ("the top-2 % induction heads", "corr.pdf", top_b),
    }
    found = []
    for name, (label, figure, heads) in groups.items():
        value = statistics.spearman(a[heads], b[heads])
        low, high, over = math.nan, math.nan, ""
        if "fv/effects_by_prompt" in run.arrays:
            made = np.array(
                [statistics.spearman(x[heads], y[heads]) for x, y in zip(*samples)]  # noqa: B905
            )
            low, high = np.clip(ranked_interval(value, made), -1, 1)
            over = _FIXED
        elif heads.sum() > 3:
            low, high = over_heads(a[heads], b[heads], seed)
            over = _HEADS
        # The union is chosen by both scores: no chance level is simple there.
        chance = math.nan if name == "spearman_union" else 0.0
        p = math.nan if math.isnan(chance) else spearman_p(value, int(heads.sum()))
        text = f"Spearman of FV and induction score, {label}"
        found.append(
            Number(name, text, figure, value, float(low), float(high), chance, p, over)
        )
    return found


def _strengths(name: str, values: np.ndarray, made: np.ndarray) -> list[Number]:
    count = top_count(values.size, SHARES[0])
    groups = {
        "max": (top(values, 1), "largest"),
        "top": (top(values, count), f"mean of the top 2 % ({count})"),
        "mean": (np.ones(values.shape, bool), "mean over all heads"),
    }
    short = {"fv": "FV", "induction": "induction"}[name]
    found = []
    for key, (heads, label) in groups.items():
        low, high = np.percentile(made[:, heads].mean(axis=1), [2.5, 97.5])
        text = f"{short} score, {label}"
        value = float(values[heads].mean())
        found.append(
            Number(
                f"{name}_{key}",
                text,
                "12",
                value,
                float(low),
                float(high),
                over=_FIXED,
            )
        )
    return found
