"""What is asked of scores, and the options of `jaxheads score`."""

import dataclasses

from jaxheads.scores.config import ScoresConfig
from jaxheads.studies.options import ProtocolCommand

Config = ScoresConfig


@dataclasses.dataclass(frozen=True)
class Score(ProtocolCommand):
    """Score every head: function vector, induction, previous token."""

    parts = ("scores",)

    scores: ScoresConfig = ScoresConfig()


COMMANDS = {"score": Score}
