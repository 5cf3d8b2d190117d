"""Retrieval score: does a head look at the token of the needle that is being copied?

A needle, the answer to a question, stands in a sentence somewhere in a haystack of
other text; then the question makes the model copy it. At the step that generates token
w a head retrieves if its strongest attention is on a position of the needle that holds
w. The score is the share of the needle's tokens for which it does.

Two variants, by name:

- "greedy": the model generates as many tokens as the needle has (the paper's);
- "teacher_forced": the needle is given token by token, and a step counts only where
  the model's own first choice is the needle's token. It needs no generation, and a
  first wrong token does not end the copy.

The paper averages over trials that the model solves (the published code: ROUGE-1
recall above 50 %). Here every trial counts, and the definition of the result says what
share of the needles' tokens came out right, which is what a perfect head could reach.

Prompts are put together from token ids, so that the needle's place is known and never
searched for.
"""

import dataclasses
import functools
from collections.abc import Sequence
from itertools import cycle, islice
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.engine import plan
from jaxheads.engine.passes import Pass
from jaxheads.errors import UserError
from jaxheads.heads import HeadScores, from_samples
from jaxheads.icl import generators
from jaxheads.models.forward import forward, generate, prefill
from jaxheads.runs import Arrays
from jaxheads.scores.config import ScoresConfig
from jaxheads.scores.part import Asked, Part, of_passes

NAMES = {"greedy": "retrieval", "teacher_forced": "retrieval_teacher_forced"}
VARIANTS = tuple(NAMES)
LENGTH_OPTION = "haystack-length"
_NEEDLES = ("animal", "fruit", "object")
_NEEDLE_WORDS = 5


class Trial(NamedTuple):
    """Token ids of one needle: the sentence around it, and what asks for it."""

    before: list[int]
    needle: list[int]
    after: list[int]
    question: list[int]


class Needles(NamedTuple):
    """Needles in haystacks, right padded.

    Attributes:
        tokens: int32 [B, T], prompts that end with the question.
        lengths: int32 [B].
        starts: int32 [B], position of the needle's first token.
        needles: int32 [B, M], the needles' tokens, right padded.
        needle_lengths: int32 [B].
    """

    tokens: np.ndarray
    lengths: np.ndarray
    starts: np.ndarray
    needles: np.ndarray
    needle_lengths: np.ndarray


def hide(trials: Sequence[Trial], haystacks: np.ndarray, bos_id: int | None) -> Needles:
    """Put each needle's sentence into a haystack, at depths spread evenly over it.

    ``[BOS] haystack[:d] before needle after haystack[d:] question`` with
    d = (b + 1/2) / B of the haystack in prompt b.

    Args:
        trials: B of them.
        haystacks: int [B, T'], documents without BOS.
        bos_id: put first, if not None.

    Raises:
        UserError: there is no trial, or a needle is empty.
    """
    if not trials or not all(trial.needle for trial in trials):
        raise UserError("a retrieval probe needs one or more needles, none empty")
    rows, starts = [], []
    begin = [] if bos_id is None else [bos_id]
    for index, (trial, straw) in enumerate(zip(trials, haystacks, strict=True)):
        depth = int((index + 0.5) / len(trials) * len(straw))
        upper, lower = straw[:depth].tolist(), straw[depth:].tolist()
        head = [*begin, *upper, *trial.before]
        starts.append(len(head))
        rows.append([*head, *trial.needle, *trial.after, *lower, *trial.question])
    tokens, lengths = _padded(rows)
    needles, needle_lengths = _padded([trial.needle for trial in trials])
    return Needles(tokens, lengths, np.array(starts, np.int32), needles, needle_lengths)


def _padded(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(row) for row in rows], np.int32)
    tokens = np.zeros((len(rows), lengths.max()), np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return tokens, lengths


@functools.partial(jax.jit, static_argnames="variant")
def retrieved(
    params,
    tokens: jax.Array,
    lengths: jax.Array,
    starts: jax.Array,
    needles: jax.Array,
    needle_lengths: jax.Array,
    config,
    *,
    variant: str = "greedy",
) -> tuple[jax.Array, jax.Array]:
    """Share of each needle that each head retrieves, and that the model gets right.

    ``share[l, h, b] = mean over steps m of [argmax_s A[t_m, s] is in the needle, holds
    w_m, and w_m counts]``, t_m being the position that predicts w_m. Every token that
    is generated counts; teacher-forced, those that the model chooses itself.

    Args:
        params: of the family of ``config``.
        tokens: as in ``Needles``, and so are the next four.
        lengths: int [B].
        starts: int [B].
        needles: int [B, M].
        needle_lengths: int [B].
        config: of the model.
        variant: out of ``VARIANTS``; static.

    Returns:
        [L, H, B], share of the needle's tokens; and [B], the share of the needle's
        tokens that the model predicts, each at its step.

    Source: Wu et al. 2024, section 2.
    """
    b, m = needles.shape
    steps = lengths[:, None] - 1 + jnp.arange(m)[None]  # [B, M]
    made = needles
    if variant == "greedy":
        prefix = prefill(params, tokens, lengths, config)
        made = generate(params, prefix, config, m)
    tokens = jnp.pad(tokens, [(0, 0), (0, m)])
    tokens = tokens.at[jnp.arange(b)[:, None], steps + 1].set(made)
    tokens = tokens[:, :-1]  # the last token is only ever predicted
    out = forward(params, tokens, config, logits=steps, capture=("patterns",))
    chosen = made if variant == "greedy" else jnp.argmax(out.logits, axis=-1)
    wanted = jnp.arange(m)[None] < needle_lengths[:, None]
    right = wanted & (chosen == needles)  # [B, M]
    counts = wanted if variant == "greedy" else right

    def of_layer(patterns):  # [B, H, T, S]
        rows = jnp.take_along_axis(patterns, steps[:, None, :, None], axis=2)
        seen = jnp.argmax(rows, axis=-1)  # [B, H, M]
        place = seen - starts[:, None, None]
        inside = (place >= 0) & (place < needle_lengths[:, None, None])
        flat = jnp.take_along_axis(tokens, seen.reshape(b, -1), axis=1)
        hit = inside & (flat.reshape(seen.shape) == made[:, None])
        return jnp.sum(hit & counts[:, None], axis=-1).T  # [H, B]

    hits = jax.lax.map(of_layer, out.patterns)
    shares = hits / needle_lengths[None, None]
    return shares, jnp.sum(right, axis=-1) / needle_lengths


def chance(probe: Needles) -> float:
    """Score of a head whose strongest attention falls anywhere that it may look.

    Were the whole needle copied: the mean over steps of the share of the visible
    positions that lie in the needle and hold the step's token.
    """
    each = []
    for b, length in enumerate(probe.lengths):
        needle = probe.needles[b, : probe.needle_lengths[b]]
        same = (needle[:, None] == needle[None]).sum(axis=1)
        each.append(np.mean(same / (length + np.arange(len(needle)))))
    return float(np.mean(each))


def head_scores(
    samples: np.ndarray, right: np.ndarray, probe: Needles, variant: str
) -> HeadScores:
    """Head scores from per-prompt shares.

    Args:
        samples: [L, H, B], from ``retrieved``.
        right: [B], from ``retrieved``.
        probe: from ``hide``.
        variant: out of ``VARIANTS``.

    Source: Wu et al. 2024, section 2.
    """
    how = {
        "greedy": "generates a token of the needle",
        "teacher_forced": "rightly predicts the next token of the given needle",
    }[variant]
    return HeadScores(
        NAMES[variant],
        *from_samples(samples),
        definition="share of a needle's tokens for which the head's strongest "
        f"attention is on that token in the needle while the model {how}; "
        f"{len(right)} needles of {probe.needles.shape[1]} tokens or fewer in "
        f"haystacks of documents, of whose tokens the model got {right.mean():.0%} "
        "right",
        unit="share of needle tokens",
        chance=chance(probe),
        ceiling=1.0,
        source="Wu et al. 2024, section 2",
    )


def sentence(
    encode, name: str, words: Sequence[str], template: tuple[str, str, str]
) -> Trial:
    """A needle of unforeseeable words, as token ids.

    Args:
        encode: text to ids.
        name: whose list it is; tells the needles of several prompts apart.
        words: the needle, joined as an enumeration.
        template: texts before and after the needle, and the question; ``{name}`` in
            them is filled in.
    """
    before, after, question = (text.format(name=name) for text in template)
    needle = " " + ", ".join(words)
    return Trial(encode(before), encode(needle), encode(after), encode(question))


TEMPLATE = (
    "\nThe secret list of {name} is:",
    ".\n",
    "\nQuestion: What is the secret list of {name}?\nAnswer: The secret list of {name} "
    "is:",
)
"""Texts around a needle."""


def described(chosen: ScoresConfig, shots: int) -> list[HeadScores]:
    """The scores of one head that was never run; chance depends on a run's texts."""
    one = np.ones(1, int)
    probe = Needles(one[:, None], one, one, one[:, None], one)
    made = [head_scores(np.zeros((1, 1, 2)), one, probe, each) for each in VARIANTS]
    return [dataclasses.replace(score, chance=np.nan) for score in made]


def parts(names: Sequence[str], asked: Asked) -> list[Part]:
    """What computes both scores."""
    source, chosen = asked.source, asked.chosen
    rng = np.random.default_rng([source.seed, 9])
    words = rng.permutation(generators.words(*_NEEDLES))
    people = [country for country, _ in generators.read_facts("country-capital")]
    owners = rng.permutation(people)
    drawn = cycle(words.tolist())
    trials = [
        sentence(
            source.encode,
            str(owners[index % len(owners)]),
            list(islice(drawn, _NEEDLE_WORDS)),
            TEMPLATE,
        )
        for index in range(chosen.needles)
    ]
    straw = source.straw(chosen.haystack_length, chosen.needles)
    probe = hide(trials, straw, source.bos_id)
    return [_part([key for key, name in NAMES.items() if name in names], probe)]


def _part(variants: Sequence[str], probe: Needles) -> Part:
    """Shares [L, H, B] and what the model gets right [B], a pass a variant."""
    length, new = probe.tokens.shape[1], probe.needles.shape[1]

    def one(variant: str, config) -> Pass:
        name = f"{variant} copies of needles in {length}-token prompts"
        cost = plan.sequence(config, length + new, new)
        if variant == "greedy":
            cost += plan.sequence(config, length) + plan.step(config, length) * new
        told = {"variant": variant}
        return Pass(name, retrieved, tuple(probe), (config,), cost, told)

    def read(*made) -> Arrays:
        measured: Arrays = {}
        for variant, each in zip(variants, made, strict=True):
            measured[variant], measured[f"{variant}_right"] = each
        return measured

    return of_passes(
        "retrieval",
        {
            "prompts/retrieval": probe.tokens,
            "prompts/retrieval/lengths": probe.lengths,
            "prompts/retrieval/starts": probe.starts,
            "prompts/retrieval_needles": probe.needles,
            "prompts/retrieval_needles/lengths": probe.needle_lengths,
        },
        lambda config: [one(variant, config) for variant in variants],
        read,
        lambda measured: [
            head_scores(measured[each], measured[f"{each}_right"], probe, each)
            for each in variants
        ],
    )
