"""The induction probe that went through text: its program, its shares, its scores."""

import dataclasses

import numpy as np

from jaxheads import plan, programs
from jaxheads.chunks import over_prompts
from jaxheads.heads import HeadScores
from jaxheads.memory import Program, fit
from jaxheads.runs import Arrays
from jaxheads.scores import induction_text


@dataclasses.dataclass(frozen=True)
class TextProbe:
    """Sequences of ``jaxheads.scores.induction_text.probe``.

    Attributes:
        tokens: int32 [B, T], padded on the right.
        lengths: int32 [B].
    """

    tokens: np.ndarray
    lengths: np.ndarray

    def program(self, params, config) -> Program:
        """What ``shares`` will call."""
        length = self.tokens.shape[1]
        return programs.over_prompts(
            f"attention patterns of {length} tokens read from text",
            induction_text.attention_share,
            params,
            (self.tokens, self.lengths),
            (config,),
            plan.sequence(config, length, 0),
            length,
        )

    def shares(self, params, config, budget_bytes: int) -> Arrays:
        """Per-sequence shares of attention by the scores' names, [L, H, B] each."""
        parts = over_prompts(
            induction_text.attention_share,
            params,
            (self.tokens, self.lengths),
            (config,),
            chunk=fit(self.program(params, config), budget_bytes).chunk,
        )
        made: Arrays = {}
        for name in induction_text.NAMES:
            rows = np.concatenate([part[name] for part in parts], axis=-1)
            made[name] = rows[..., : len(self.tokens)].astype(np.float32)
        return made

    def scores(self, shares: Arrays) -> list[HeadScores]:
        """Head scores of what ``shares`` gave."""
        read = (self.tokens, self.lengths)
        return [
            induction_text.head_scores(shares[name], name, *read)
            for name in induction_text.NAMES
        ]
