"""Prefix matching: attention to all tokens that followed earlier copies of this one.

The induction score's elder: random tokens that stand there four times, and every
earlier copy counts. Two papers' probes, and where the second one's code differs from
its text, both by name:

- "olsson": 25 tokens, 4 times, 10 examples (Olsson et al. 2022);
- "crosbie": 50 distinct tokens, 4 times, 5 seeds (Crosbie & Shutova 2024, text);
- "crosbie_code": the same probe; the published code finds the place in a copy as
  ``i % length``, with BOS at 0, so that for the last token of each copy it counts the
  first token of the first copy too, which follows BOS and no earlier copy.

Both papers leave the most and the least frequent tokens out, Crosbie & Shutova 4 % at
either end, by the rank of a token's merge in the tokenizer. Here that is the order of
the ids (``middle_ids``): the merge order in byte-pair vocabularies, and no frequency
in others.
"""

import dataclasses
from collections.abc import Sequence
from itertools import groupby

import numpy as np

from jaxheads.errors import UserError
from jaxheads.heads import HeadScores, from_samples
from jaxheads.scores import induction
from jaxheads.scores.attention import even_share, of_edges
from jaxheads.scores.config import ScoresConfig
from jaxheads.scores.part import Asked, Part, of_passes

LEFT_OUT = 0.04
"""Share of the ids that is left out at either end."""


@dataclasses.dataclass(frozen=True)
class Definition:
    """A paper's probe.

    Attributes:
        name: of the score.
        length: tokens before they repeat.
        repeats: how often they stand there.
        examples: sequences in the paper.
        spurious: the published code's extra edge is counted.
        source: paper.
    """

    name: str
    length: int
    repeats: int
    examples: int
    spurious: bool
    source: str


_CROSBIE = "Crosbie & Shutova 2024, section 3"
DEFINITIONS = {
    "olsson": Definition(
        "prefix_matching", 25, 4, 10, False, "Olsson et al. 2022, prefix matching"
    ),
    "crosbie": Definition("prefix_matching_crosbie", 50, 4, 5, False, _CROSBIE),
    "crosbie_code": Definition(
        "prefix_matching_crosbie_code", 50, 4, 5, True, f"{_CROSBIE}, published code"
    ),
}


def middle_ids(vocabulary: Sequence[int], left_out: float = LEFT_OUT) -> np.ndarray:
    """Ids in their order without a share at either end."""
    ids = np.sort(np.asarray(vocabulary))
    cut = int(left_out * len(ids))
    return ids[cut : len(ids) - cut]


def probe(
    definition: Definition,
    count: int,
    vocabulary: Sequence[int],
    bos_id: int | None,
    seed: int,
) -> np.ndarray:
    """Sequences of a definition: int32 [B, T], see ``induction.probe``."""
    ids = middle_ids(vocabulary)
    return induction.probe(
        count, definition.length, ids.tolist(), bos_id, seed, definition.repeats
    )


def edges(definition: Definition, bos: bool) -> np.ndarray:
    """Weights [T, S]: mean over the rows of the later copies, all edges of a row.

    Raises:
        UserError: the code's edges are asked for a probe without BOS.
    """
    length, repeats = definition.length, definition.repeats
    weights = induction.edges(length, bos, repeats=repeats)
    if not definition.spurious:
        return weights
    if not bos:
        raise UserError(
            f"{definition.name} is defined on a probe that begins with BOS: give "
            "--bos True, or leave the score out"
        )
    ends = np.arange(2, repeats + 1) * length  # the last token of each later copy
    weights[ends, 1] = weights.max()
    return weights


def head_scores(samples: np.ndarray, definition: Definition, bos: bool) -> HeadScores:
    """Head scores from per-sequence shares.

    Args:
        samples: [L, H, B], from ``attention_share``.
        definition: out of ``DEFINITIONS``.
        bos: whether the probe begins with BOS.

    Source: Olsson et al. 2022; Crosbie & Shutova 2024, section 3.
    """
    extra = ", and from the last token of a copy to the first of all"
    return HeadScores(
        definition.name,
        *from_samples(samples),
        definition="mean attention from a token to all tokens that followed earlier "
        f"copies of it{extra if definition.spurious else ''}, on {definition.length} "
        f"random tokens {definition.repeats} times{' after BOS' if bos else ''}, the "
        f"{LEFT_OUT:.0%} lowest and highest ids left out",
        unit="share of attention",
        chance=even_share(edges(definition, bos)),
        ceiling=1.0,
        source=definition.source,
    )


def described(chosen: ScoresConfig, shots: int) -> list[HeadScores]:
    """The scores of one head that was never run; the code's edge needs BOS."""
    none, known = np.zeros((1, 1, 2)), DEFINITIONS.values()
    return [head_scores(none, each, bos=each.spurious) for each in known]


def parts(names: Sequence[str], asked: Asked) -> list[Part]:
    """What computes the scores, those of one probe together."""
    wanted = [each for each in DEFINITIONS.values() if each.name in names]
    alike = groupby(wanted, lambda each: (each.length, each.repeats))
    return [_part(list(some), asked) for _, some in alike]


def _part(definitions: Sequence[Definition], asked: Asked) -> Part:
    """Shares [L, H, B] by definition, from one pass over their probe."""
    first, source, count = definitions[0], asked.source, asked.chosen.probe_sequences
    bos = source.bos_id is not None
    made = probe(first, count, source.vocabulary, source.bos_id, source.seed)
    named = {each.name: edges(each, bos) for each in definitions}
    return of_passes(
        first.name,
        {f"prompts/{first.name}": made},
        lambda config: [of_edges(made, config, named)],
        lambda shares: shares,
        lambda shares: [
            head_scores(shares[each.name], each, bos) for each in definitions
        ],
    )
