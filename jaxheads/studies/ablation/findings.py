"""The numbers behind the answer at the head of the page (numpy only)."""

import dataclasses

import numpy as np

from jaxheads import statistics
from jaxheads.heads import run_scores
from jaxheads.heads.run_scores import Head
from jaxheads.report import theme, words
from jaxheads.report.layout import Headline, HeadlineBar
from jaxheads.runs import Run
from jaxheads.scores.config import PAIR
from jaxheads.statistics import Interval
from jaxheads.studies.ablation import outcomes
from jaxheads.studies.ablation.outcomes import Outcome

HEADLINE_SHARE = 0.05


@dataclasses.dataclass(frozen=True)
class Bar:
    """One number of the headline, with the range that ``spread`` says."""

    label: str
    colour: str
    interval: Interval
    spread: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What replacing the top heads left, at one fraction, next to its controls.

    Numbers alone: what they say of a claim, ``claims.of_run`` decides.
    """

    quantity: str
    unit: str
    mode: str
    fraction: float
    count: int
    total: int
    bars: dict[str, Bar]


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What replacing the user's own heads did, and its change from clean."""

    name: str
    count: int
    quantity: str
    interval: Interval
    change: Interval


@dataclasses.dataclass(frozen=True)
class Overlap:
    """How far two rankings agree on their top heads."""

    share: float
    count: int
    shared: int
    chance: float


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How FV and induction scores relate over all heads."""

    spearman: float
    overlaps: list[Overlap]
    fv_heads_in_induction: float
    induction_heads_in_fv: float


@dataclasses.dataclass(frozen=True)
class Findings:
    """All the numbers that the head of the page rests on."""

    leaders: dict[str, list[Head]]
    comparisons: list[Comparison]
    chosen: list[Chosen]
    agreement: Agreement | None

    def comparison(self, mode: str, unit: str = "") -> Comparison | None:
        """Pick a comparison: accuracies have no unit, token-loss differences nats."""
        found = [c for c in self.comparisons if (c.mode, c.unit) == (mode, unit)]
        return found[0] if found else None


def find(run: Run) -> Findings:
    """Compute the findings of a run from its arrays."""
    leaders = {
        name: run_scores.top_heads(run, name, 10) for name in run_scores.names(run)
    }
    measured: list[Outcome] = outcomes.accuracy(run)[:1]
    loss = outcomes.token_loss(run)
    measured += [loss] if loss else []
    compared = [
        comparison
        for outcome in measured
        for mode in ("top", "exclusion")
        if (comparison := compare(run, outcome, mode))
    ]
    own = [one for outcome in outcomes.accuracy(run)[:1] for one in chosen(outcome)]
    return Findings(leaders, compared, own, agreement(run))


def chosen(outcome: Outcome) -> list[Chosen]:
    """Read the sets that the user named head by head."""
    if outcome.clean is None:
        return []
    return [
        Chosen(
            name=str(outcome.sets[n].get("name", "")),
            count=int(outcome.replaced[n]),
            quantity=outcome.quantity,
            interval=outcome.interval(n),
            change=outcome.difference([n], [outcome.clean]),
        )
        for n in outcome.find(mode="chosen")
    ]


def nearest_fraction(outcome: Outcome, mode: str) -> float | None:
    """Pick the measured fraction next to 5 %."""
    found = [fraction for fraction in outcome.fractions(mode=mode) if fraction > 0]
    return min(found, key=lambda f: abs(f - HEADLINE_SHARE)) if found else None


def compare(run: Run, outcome: Outcome, mode: str) -> Comparison | None:
    """Set the top heads of each ranking against clean and random heads.

    Args:
        run: the loaded run.
        outcome: an accuracy, or the token-loss difference.
        mode: "top" or "exclusion".

    Returns:
        The comparison at the fraction nearest to 5 %; None where none was measured.
    """
    fraction = nearest_fraction(outcome, mode)
    if fraction is None:
        return None
    # Token loss is measured under several replacements, some not at all fractions; the
    # headline takes the mean, if it can.
    found_at = outcome.find(mode=mode, fraction=fraction)
    values = [outcome.sets[n].get("value") for n in found_at]
    chosen = "mean" if "mean" in values else values[0]
    wanted = {"value": chosen} if chosen else {}
    at = {"fraction": fraction} | wanted
    rankings = outcome.rankings(mode=mode, **at)
    found = {name: outcome.find(mode=mode, ranking=name, **at) for name in rankings}
    draws = outcome.find(mode="uniform", **at)
    bars = {}
    if outcome.clean is not None:
        interval = outcome.interval(outcome.clean)
        bars["clean"] = Bar("no head replaced", "ink", interval, "95 % interval")
    for name in rankings:
        label = f"top {words.short(name)} heads"
        interval = outcome.interval(found[name][0])
        shade = theme.colour(name, rankings)
        bars[name] = Bar(label, shade, interval, "95 % interval")
    if draws:
        point = outcome.point(draws)
        spread = f"range of {len(draws)} draws" if len(draws) > 1 else "95 % interval"
        interval = Interval(point.value, point.low, point.high)
        bars["random"] = Bar("random heads", "random", interval, spread)
    first = found[rankings[0]][0]
    return Comparison(
        quantity=outcome.quantity,
        unit=outcome.unit,
        mode=mode,
        fraction=fraction,
        count=int(outcome.replaced[first]),
        total=int(run.result["model"]["num_layers"] * run.result["model"]["num_heads"]),
        bars=bars,
    )


def agreement(run: Run) -> Agreement | None:
    """Relate the FV and the induction scores; None where one is missing."""
    if not set(PAIR) <= set(run_scores.names(run)):
        return None
    fv, induction = (run_scores.score(run, name) for name in PAIR)
    overlaps = []
    for share in (0.02, 0.05, 0.1):
        count = run_scores.top_count(fv.size, share)
        masks = [run_scores.top_mask(values, count) for values in (fv, induction)]
        overlaps.append(
            Overlap(
                share,
                count,
                int(np.sum(masks[0] & masks[1])),
                statistics.overlap_chance(count, count, fv.size) * count,
            )
        )
    count = overlaps[0].count
    return Agreement(
        spearman=statistics.spearman(fv, induction),
        overlaps=overlaps,
        fv_heads_in_induction=statistics.percentile_of(
            induction, run_scores.top_mask(fv, count)
        ),
        induction_heads_in_fv=statistics.percentile_of(
            fv, run_scores.top_mask(induction, count)
        ),
    )


def headline(found: Findings) -> list[Headline]:
    """Draw the plain comparisons of accuracy and of token loss."""
    plain = [found.comparison("top", unit) for unit in ("", "nats")]
    return [_bars(comparison) for comparison in plain if comparison]


def _bars(said: Comparison) -> Headline:
    intervals = [bar.interval for bar in said.bars.values()]
    left = min(0.0, *(interval.low for interval in intervals))
    right = max(0.0, *(interval.high for interval in intervals))

    def place(value: float) -> float:
        return 100 * (value - left) / (right - left or 1.0)

    texts = words.aligned(*(interval.mean for interval in intervals))
    bars = [
        HeadlineBar(
            label=bar.label,
            colour=bar.colour,
            text=text,
            hint=f"{words.with_interval(*bar.interval)}, {bar.spread}",
            start=place(min(0.0, bar.interval.mean)),
            length=abs(place(bar.interval.mean) - place(0.0)),
            low=place(bar.interval.low),
            high=place(bar.interval.high),
        )
        for bar, text in zip(said.bars.values(), texts, strict=True)
    ]
    unit = f" ({said.unit})" if said.unit else ""
    replaced = f"{words.percent(said.fraction)} of heads replaced"
    return Headline(f"{words.sentence(said.quantity)}{unit}, {replaced}", bars)
