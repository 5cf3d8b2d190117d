"""What is asked of token losses."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from jaxheads.errors import UserError, check_counts, check_shares
from jaxheads.scores.config import ScoresConfig
from jaxheads.scores.registry import ScoreName
from jaxheads.studies.options import ProtocolCommand, RankedCommand

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

    needs_scores: ClassVar[bool] = True
    shuffles_labels: ClassVar[bool] = False

    def ranked_by(self) -> Mapping[str, tuple[str, ...]]:
        """The scores that are taken, by option."""
        return {"--token-loss.rankings": self.rankings}

    def check(self, study: Any) -> None:
        """Refuse what makes no sense; see ``ScoresConfig.check``."""
        del study
        check_shares(
            ("--token-loss.fractions", self.fractions),
            ("--token-loss.exclusion", (self.exclusion,)),
        )
        beside = set(self.side_by_side) - set(self.fractions)
        if beside:
            raise UserError(
                "--token-loss.side-by-side takes some of --token-loss.fractions, not "
                f"{min(beside):g}"
            )
        if not self.values or len(set(self.values)) < len(self.values):
            raise UserError(
                "--token-loss.values takes one or more different values, not "
                f"{' '.join(self.values)!r}"
            )
        (early, late), window = self.positions, self.window
        if window < 1 or window % 2 == 0 or window // 2 > early - 2:
            raise UserError(
                "--token-loss.window takes an odd number of tokens that begins after "
                f"the first, not {window} around token {early}"
            )
        if not early < late:
            raise UserError(
                "--token-loss.positions takes an early token and a later one, not "
                f"{early} and {late}"
            )
        check_counts(
            ("--token-loss.exclusion-least", self.exclusion_least, 0),
            ("--token-loss.documents", self.documents, 2),
            ("--token-loss.fill-documents", self.fill_documents, 1),
            ("--token-loss.draws", self.draws, 0),
            ("--token-loss.draws-elsewhere", self.draws_elsewhere, 0),
        )


Config = TokenLossConfig


@dataclasses.dataclass(frozen=True)
class TokenLoss(RankedCommand, ProtocolCommand):
    """Loss at an early minus a late token of documents, heads replaced everywhere."""

    parts = ("scores", "token_loss")

    scores: ScoresConfig = ScoresConfig()
    token_loss: TokenLossConfig = TokenLossConfig()


COMMANDS = {"token-loss": TokenLoss}
