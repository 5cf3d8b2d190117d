"""The parts that a page is put together from."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from jaxheads.report.tables import Table

if TYPE_CHECKING:  # the terminal knows sections without the packages of figures
    from jaxheads.report.figures import Figure


@dataclasses.dataclass(frozen=True)
class Key:
    """One entry of a legend."""

    label: str
    colour: str
    mark: str = "line"


@dataclasses.dataclass(frozen=True)
class Row:
    """Figures that stand side by side under one small heading."""

    title: str
    figures: "list[Figure]"
    columns: int = 2


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading with its explanation, legend, figures, facts and tables."""

    anchor: str
    title: str
    text: str
    keys: list[Key] = dataclasses.field(default_factory=list)
    rows: list[Row] = dataclasses.field(default_factory=list)
    facts: list[str] = dataclasses.field(default_factory=list)
    tables: list[Table] = dataclasses.field(default_factory=list)


class Statement(NamedTuple):
    """A sentence or two, with the word or two that say what it is about."""

    lead: str
    text: str


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
    """Bars at the head of a page that show one comparison at a glance."""

    title: str
    bars: list[HeadlineBar]


@dataclasses.dataclass(frozen=True)
class Topic:
    """What one study tells of a run; nothing, where the run is not its own.

    Attributes:
        sections: in reading order.
        verdict: answers the question at the head of the page; of several studies', the
            last one's stands.
        statements: for the head of the page.
        last: sections that come after those of all studies.
        tables: that stand open at the end.
        folded: long ones, folded away.
    """

    sections: Sequence[Section | None] = ()
    verdict: str | None = None
    statements: Sequence[Statement] = ()
    last: Sequence[Section | None] = ()
    tables: Sequence[Table | None] = ()
    folded: Sequence[Table | None] = ()
