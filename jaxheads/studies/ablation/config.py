"""What is asked of ablations."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from jaxheads.errors import (
    MOST_TOKENS,
    UserError,
    check_counts,
    check_shares,
    check_tasks,
)
from jaxheads.icl.task_names import EVALUATION_TASKS
from jaxheads.scores.config import ScoresConfig
from jaxheads.scores.registry import ScoreName
from jaxheads.studies.options import ProtocolCommand, RankedCommand


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

    needs_scores: ClassVar[bool] = True
    shuffles_labels: ClassVar[bool] = False

    def ranked_by(self) -> Mapping[str, tuple[str, ...]]:
        """The scores that are taken, by option."""
        return {
            "--ablation.rankings": self.rankings,
            "--ablation.matched-to": self.matched_to,
        }

    def check(self, study: Any) -> None:
        """Refuse what makes no sense; see ``ScoresConfig.check``."""
        shared = sorted(set(study.scores.tasks) & set(self.tasks))
        if shared:
            raise UserError(
                "scoring and evaluation tasks must be disjoint, but both have "
                f"{', '.join(shared)}: drop them from --scores.tasks or "
                "--ablation.tasks"
            )
        check_shares(
            ("--ablation.fractions", self.fractions),
            ("--ablation.keep-only", self.keep_only),
            ("--ablation.exclusion", (self.exclusion,)),
            ("--ablation.exclusions-at", self.exclusions_at),
            ("--ablation.exclusions", self.exclusions),
        )
        same = {self.exclusion} & set(self.exclusions)
        if same or len(set(self.exclusions)) < len(self.exclusions):
            raise UserError(
                "--ablation.exclusions takes different shares, none of them that of "
                f"--ablation.exclusion, {self.exclusion:g}"
            )
        check_counts(
            ("--ablation.prompts", self.prompts, 2),
            ("--ablation.draws", self.draws, 0),
            ("--ablation.draws-elsewhere", self.draws_elsewhere, 0),
            ("--ablation.exclusion-least", self.exclusion_least, 0),
        )
        most = MOST_TOKENS
        check_counts(("--ablation.max-new-tokens", self.max_new_tokens, 1), most=most)
        check_tasks("--ablation.tasks", self.tasks)
        if self.value == "resample" and len(self.tasks) < 2:
            raise UserError(
                "--ablation.value resample takes a head's output from a prompt of "
                f"another task, but --ablation.tasks has {', '.join(self.tasks)} "
                "alone: give two tasks or more"
            )


Config = AblationConfig


@dataclasses.dataclass(frozen=True)
class Ablate(RankedCommand, ProtocolCommand):
    """Few-shot accuracy while sets of heads are replaced at the last position."""

    parts = ("scores", "ablation")

    scores: ScoresConfig = ScoresConfig()
    ablation: AblationConfig = AblationConfig()


COMMANDS = {"ablate": Ablate}
