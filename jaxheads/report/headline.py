"""The bars at the head of the page."""

import dataclasses

from jaxheads.report import words
from jaxheads.report.findings import Comparison, Findings


@dataclasses.dataclass(frozen=True)
class HeadlineBar:
    """One bar of the headline; lengths in percent of the track."""

    label: str
    colour: str
    text: str
    hint: str
    start: float
    length: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Headline:
    """The bars that show one comparison at a glance."""

    title: str
    bars: list[HeadlineBar]


def collect(found: Findings) -> list[Headline]:
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
