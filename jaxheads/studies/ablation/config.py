"""What is asked of ablations."""

import dataclasses
from pathlib import Path
from typing import Literal

from jaxheads.icl.task_names import EVALUATION_TASKS
from jaxheads.scores.config import ScoreName


@dataclasses.dataclass(frozen=True)
class AblationConfig:
    """Few-shot accuracy while sets of heads are replaced at the last position."""

    tasks: tuple[str, ...] = EVALUATION_TASKS
    """Tasks that are evaluated; none may be a scoring task."""
    prompts: int = 10
    """Prompts a task."""
    rankings: tuple[ScoreName, ...] = (
        "function_vector",
        "induction",
    )
    """Scores by which heads are taken; exclusion goes between the first two."""
    fractions: tuple[float, ...] = (0.01, 0.03, 0.05, 0.07, 0.09, 0.15, 0.20)
    """Shares of all heads that are replaced, each besides none."""
    exclusion: float = 0.02
    """Share of the other ranking's top heads that is dropped first."""
    exclusions: tuple[float, ...] = ()
    """Further such shares to try, to see how much depends on the choice."""
    exclusions_at: tuple[float, ...] = ()
    """Fractions at which those are tried; none: at all."""
    exclusion_least: int = 1
    """Heads that are dropped at least, whatever the share; 0: none where the share is
    less than a head (what the reference study's code does)."""
    zero_shot: bool = False
    """Ask the same queries without demonstrations too, under the same sets."""
    keep_only: tuple[float, ...] = (0.02, 0.05)
    """Shares of heads that are kept while all others are replaced."""
    draws: int = 20
    """Random sets of each kind at the share nearest to 5 %, which the claims take: with
    3, a true effect of 0.25 is found in a fifth of runs, with 20 in four of five."""
    draws_elsewhere: int = 2
    """At most so many of them at the other shares."""
    matched_to: tuple[str, ...] = ("function_vector",)
    """Rankings whose sets get random sets with the same number of heads a layer."""
    heads: tuple[str, ...] = ()
    """One more set to replace, by name, such as 20.5 18.6."""
    sets: Path | None = None
    """A JSON file of named sets, each of which is replaced too."""
    value: Literal["mean", "zero", "shuffled_mean", "resample"] = "mean"
    """What replaces a head: its mean over the scoring tasks' clean prompts, 0, the mean
    of another head drawn at random, or its output on a prompt of another task."""
    max_new_tokens: int = 5
    """Tokens of an answer, for F1, besides those that all answers begin with."""
    f1_style: Literal["fixed", "yin2025"] = "fixed"
    """How answers are parsed for F1; yin2025 has the published code's quirks."""


TokenLossValue = Literal["mean", "zero", "mean_by_position", "resample", "bos"]


@dataclasses.dataclass(frozen=True)
class TokenLossConfig:
    """Loss at an early token minus loss at a late one, heads replaced everywhere."""

    documents: int = 10
    """Documents that are scored."""
    allow_fewer: bool = False
    """Score as many documents as the text has, where it has fewer."""
    packing: Literal["documents", "stream"] = "documents"
    """What is scored: the beginnings of documents, or pieces of all documents in one
    stream (what the reference study's code does)."""
    average: Literal["mean", "published"] = "mean"
    """Of the documents; published: a sum over one more than it is divided by (what the
    reference study's code does)."""
    fill_documents: int = 4
    """Other documents, which give the heads' mean outputs, pooled over positions."""
    positions: tuple[int, int] = (50, 500)
    """The early and the late token of a document, counted from 1, BOS not counted."""
    window: int = 21
    """Tokens around each of the two whose losses are averaged; 1: the papers'."""
    rankings: tuple[ScoreName, ...] = (
        "function_vector",
        "induction",
    )
    """Scores by which heads are taken."""
    fractions: tuple[float, ...] = (0.05,)
    """Shares of all heads that are replaced."""
    exclusion: float = 0.02
    """Share of the other ranking's top heads that is dropped first."""
    exclusion_least: int = 1
    """Heads that are dropped at least, whatever the share; 0: none where the share is
    less than a head (what the reference study's code does)."""
    draws: int = 8
    """Random sets at the share nearest to 5 %, which the claims take, under the first
    value; fewer than of answers, for fewer claims share the level."""
    draws_elsewhere: int = 1
    """At most so many of them at the other shares, and under the other values."""
    side_by_side: tuple[float, ...] = ()
    """Fractions at which the values after the first are tried; none: at all."""
    values: tuple[TokenLossValue, ...] = ("mean", "zero")
    """What replaces a head: its mean over the other documents' positions, 0, its mean
    at each position, its output in another document at the same position, or its output
    on BOS (what the reference study's code does)."""
