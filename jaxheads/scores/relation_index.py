"""Relation index: does a head that looks at one end of a relation write the other?

A triplet (t_s, relation, t_o) names two tokens of a text, at s and o, such as a country
and its capital. At a position j at or after both, the head qualifies if it looks at s
before all else: ``s = argmax_k A[j, k]`` and ``A[j, s] > tau max_{k != s} A[j, k]``
with tau = 2.2; tau = 1 drops the second condition (the paper's training analysis).

What the head writes is read off its weights: ``p = softmax(x W_OV W_U)``, with x the
embedding that enters the first layer, without norms and biases; of the current token
(x = x_j, "current") or of the one that is looked at (x = x_s, "attended"): the first as
an audit restates the paper, the second what the head would read there. Over the
distinct tokens k of the text up to j: ``q = max(0, p - mean p)``, ``a = q_o / sum q``.
The softmax's sum cancels in a, so only these tokens' logits are needed.

The index is the mean of a over all triplets and positions that qualify. A head that
qualifies in fewer texts than ``least`` (the paper's: any) has index 0 here, so that
every head has a place in a ranking, and none a high one by a single position.

Source: Ren et al. 2024 (arXiv 2402.13055), equations 2 and 3.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.engine import plan
from jaxheads.engine.passes import Pass
from jaxheads.errors import UserError
from jaxheads.heads import HeadScores
from jaxheads.icl import generators
from jaxheads.models import family
from jaxheads.models.forward import forward
from jaxheads.models.layer_scan import sequence_positions
from jaxheads.scores.config import ScoresConfig
from jaxheads.scores.part import Asked, Part, of_passes

TAU = 2.2
NAMES = {"current": "relation_index", "attended": "relation_index_attended"}
READS = tuple(NAMES)
RELATIONS = {
    "country-capital": (" The capital of", " is"),
    "country-currency": (" The currency of", " is the"),
    "product-company": (" The company behind", " is"),
    "antonym": (" The opposite of", " is"),
    "english-french": (" The French word for", " is"),
}
"""Built-in tasks whose pairs are relations, and the words before and between a pair."""


class Triplets(NamedTuple):
    """Texts with a triplet each, right padded; a text may stand there several times.

    Attributes:
        tokens: int32 [B, T].
        lengths: int32 [B].
        heads: int32 [B], s: position of the head token, the relation's first end.
        tails: int32 [B], o: position of the tail token.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    heads: np.ndarray
    tails: np.ndarray


def from_pairs(
    pairs: Mapping[str, Sequence[tuple[str, str]]],
    encode: Callable[[str], list[int]],
    count: int,
    bos_id: int | None,
    seed: int,
    facts: int = 6,
) -> tuple[Triplets, float]:
    """Texts of a few facts; the first one's pair is the triplet.

    Such as " The capital of France is Paris. The opposite of above is below. ...", put
    together from token ids. Pairs of single tokens are taken first; where they are too
    few, the head token is the last one of the first name, the tail token the first one
    of the second.

    Args:
        pairs: by relation, out of ``RELATIONS``.
        encode: text to ids.
        count: texts, B.
        bos_id: put first, if not None.
        seed: of the draw.
        facts: of a text.

    Returns:
        The triplets, and the share of their pairs that are single tokens.

    Raises:
        UserError: fewer pairs than a text has facts.
    """
    rng = np.random.default_rng([seed, 8])
    known = []
    for relation, listed in pairs.items():
        before, between = (encode(text) for text in RELATIONS[relation])
        for pair in listed:
            first, second = (encode(" " + name) for name in pair)
            if first and second:
                known.append((before, first, between, second))
    if len(known) < facts:
        raise UserError(
            f"a text of the relation index needs {facts} pairs, but only {len(known)} "
            "are there"
        )
    order = rng.permutation(len(known))
    known = sorted(
        (known[index] for index in order),
        key=lambda fact: max(len(fact[1]), len(fact[3])) > 1,
    )
    single = sum(max(len(fact[1]), len(fact[3])) == 1 for fact in known)
    # Distractors too come from the pairs of single tokens while there are enough.
    pool = known[: max(single, facts)]
    stop = encode(".")
    rows, heads, tails = [], [], []
    for index in range(count):
        others = rng.choice(len(pool) - 1, facts - 1, replace=False)
        first = index % len(pool)
        drawn = [pool[first], *(pool[i + (i >= first)] for i in others)]
        row = [] if bos_id is None else [bos_id]
        for place, (before, one, between, other) in enumerate(drawn):
            row += [*before, *one]
            if place == 0:
                heads.append(len(row) - 1)
                tails.append(len(row) + len(between))
            row += [*between, *other, *stop]
        rows.append(row)
    lengths = np.array([len(row) for row in rows], np.int32)
    tokens = np.zeros((count, lengths.max()), np.int32)
    for at, row in zip(tokens, rows, strict=True):
        at[: len(row)] = row
    share = float(np.mean([index % len(pool) < single for index in range(count)]))
    made = Triplets(
        tokens, lengths, np.array(heads, np.int32), np.array(tails, np.int32)
    )
    return made, share


@functools.partial(jax.jit, static_argnames="reads")
def sums(
    params,
    tokens: jax.Array,
    lengths: jax.Array,
    heads: jax.Array,
    tails: jax.Array,
    config,
    tau: float | jax.Array = TAU,
    *,
    reads: tuple[str, ...] = ("current",),
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Sum of a over the positions that qualify, and how many do.

    Args:
        params: of the family of ``config``.
        tokens: as in ``Triplets``, and so are the next three.
        lengths: int [B].
        heads: int [B].
        tails: int [B].
        config: of the model.
        tau: how far the attention to s must lead; 1: it must be the largest.
        reads: out of ``READS``; static. They share the pass.

    Returns:
        Sums [L, H, B] by read-out, and counts [L, H, B].
    """
    out = forward(params, tokens, config, capture=("patterns",))
    embed = family(config.model_type).embed
    positions = sequence_positions(*tokens.shape)
    embedded = embed(params, tokens, positions, config)  # [B, T, D]
    at_head = jnp.take_along_axis(embedded, heads[:, None, None], axis=1)
    sources = {
        "current": embedded,
        "attended": jnp.broadcast_to(at_head, embedded.shape),
    }
    if params.unembedding is None:
        columns = params.embedding[tokens]  # [B, S, D]
    else:
        columns = jnp.moveaxis(params.unembedding[:, tokens], 0, -1)
    known, tail = _distinct(tokens, tails)
    late = _late(tokens, lengths, heads, tails)  # [B, T]

    def of_layer(seen):
        patterns, wv, wo = seen
        there = _qualifies(patterns, heads, tau) & late[:, None]
        totals = {}
        for read in reads:
            share = _share(sources[read], columns, wv, wo, known, tail)  # [B, H, T]
            totals[read] = jnp.sum(jnp.where(there, share, 0), axis=-1).T
        return totals, jnp.sum(there, axis=-1).T  # [H, B]

    layers = params.layers
    return jax.lax.map(of_layer, (out.patterns, layers.wv, layers.wo))


def _late(tokens, lengths, heads, tails) -> jax.Array:
    """Positions at or after both ends of the triplet: bool [B, T]."""
    places = jnp.arange(tokens.shape[1])[None]
    start = jnp.maximum(heads, tails)[:, None]
    return (places >= start) & (places < lengths[:, None])


def _distinct(tokens, tails) -> tuple[jax.Array, jax.Array]:
    """Which positions [B, T, S] stand for the distinct tokens up to each, and the tail.

    A token's first position stands for it: bool [B, T, S], and int [B] for t_o.
    """
    t = tokens.shape[1]
    same = tokens[:, :, None] == tokens[:, None]  # [B, S, S]
    first = jnp.argmax(same, axis=-1)  # [B, S]
    is_first = first == jnp.arange(t)[None]
    known = is_first[:, None] & jnp.tril(jnp.ones((t, t), bool))[None]
    return known, jnp.take_along_axis(first, tails[:, None], axis=1)[:, 0]


def _qualifies(patterns: jax.Array, heads, tau) -> jax.Array:
    """Where s leads all other positions by tau: patterns [B, H, T, S] -> [B, H, T]."""
    s = patterns.shape[-1]
    here = (jnp.arange(s)[None] == heads[:, None])[:, None, None]
    at_head = jnp.max(jnp.where(here, patterns, 0), axis=-1)
    return at_head > tau * jnp.max(jnp.where(here, 0, patterns), axis=-1)


def _share(embedded, columns, wv, wo, known, tail) -> jax.Array:
    """The tail's share a in one layer, at every position: [B, H, T]."""
    values = jnp.einsum("btd,dgk->btgk", embedded, wv, precision="highest")
    values = jnp.repeat(values, wo.shape[0] // wv.shape[1], axis=2)  # [B, T, H, K]
    # From the side of the few tokens: [B, S, H, K] is smaller than [B, T, H, D].
    wanted = jnp.einsum("hkd,bsd->bshk", wo, columns, precision="highest")
    logits = jnp.einsum("bthk,bshk->bhts", values, wanted, precision="highest")
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    known = known[:, None]  # [B, 1, T, S]
    p = jax.nn.softmax(logits, axis=-1, where=known)
    mean = 1 / jnp.sum(known, axis=-1, keepdims=True)  # p sums to 1 over the known
    q = jnp.where(known, jnp.maximum(p - mean, 0), 0)
    total = q.sum(axis=-1)
    at_tail = jnp.take_along_axis(q, tail[:, None, None, None], axis=-1)[..., 0]
    return at_tail / jnp.where(total > 0, total, 1)


def chance(triplets: Triplets) -> float:
    """Index of a head that raises tokens of the text at random: the mean of 1 / them.

    Each position at or after both ends counts once, as for a head that qualifies
    everywhere.
    """
    tokens, lengths, heads, tails = map(jnp.asarray, triplets)
    known, _ = _distinct(tokens, tails)
    late = np.asarray(_late(tokens, lengths, heads, tails))
    return float(np.mean(1 / np.asarray(known.sum(axis=-1))[late]))


def head_scores(
    totals: np.ndarray,
    counts: np.ndarray,
    triplets: Triplets,
    single: float,
    tau: float = TAU,
    read: str = "current",
    least: int = 1,
) -> HeadScores:
    """Head scores from per-text sums.

    Args:
        totals: [L, H, B], from ``sums``.
        counts: [L, H, B], from ``sums``.
        triplets: what they were measured on.
        single: share of pairs of single tokens, from ``from_pairs``.
        tau: as given to ``sums``.
        read: which of the sums.
        least: texts in which a head must qualify.

    Returns:
        The index; its standard error treats texts as the samples of a ratio.

    Source: Ren et al. 2024, equations 2 and 3.
    """
    totals, counts = (np.asarray(each, np.float64) for each in (totals, counts))
    texts, count = totals.shape[-1], np.maximum(counts.sum(axis=-1), 1)
    mean = totals.sum(axis=-1) / count
    spread = ((totals - mean[..., None] * counts) ** 2).sum(axis=-1)
    error = np.sqrt(spread * texts / max(texts - 1, 1)) / count
    seen = (counts > 0).sum(axis=-1)  # texts
    enough = seen >= least
    return HeadScores(
        name=NAMES[read],
        mean=np.where(enough, mean, 0),
        standard_error=np.where(enough & (seen > 1), error, np.nan),
        definition="share of a relation's tail token in what the head's weights write "
        f"for the {read} token's embedding, above the mean over the text's tokens, "
        "where the head looks at the relation's head token before all else (by a "
        f"factor of {tau}); 0 for the {np.mean(~enough):.0%} of heads that do so in "
        f"fewer than {least} of {texts} texts of facts ({single:.0%} of the texts with "
        "a pair of single tokens)",
        unit="share of raised probability",
        chance=chance(triplets),
        ceiling=1.0,
        source="Ren et al. 2024, equations 2 and 3",
    )


def described(chosen: ScoresConfig, shots: int) -> list[HeadScores]:
    """The scores of one head that was never run; chance depends on a run's texts."""
    one, none = np.ones(1, int), np.zeros((1, 1, 1))
    texts = Triplets(one[:, None], one, 0 * one, 0 * one)
    made = [head_scores(none, none, texts, 1.0, read=read) for read in READS]
    return [dataclasses.replace(score, chance=np.nan) for score in made]


def parts(names: Sequence[str], asked: Asked) -> list[Part]:
    """What computes both scores: sums [L, H, B] by read-out, and counts."""
    source, count = asked.source, asked.chosen.relation_texts
    facts = {name: generators.read_facts(name) for name in RELATIONS}
    texts, single = from_pairs(facts, source.encode, count, source.bos_id, source.seed)
    reads = tuple(read for read, name in NAMES.items() if name in names)
    length, least = texts.tokens.shape[1], max(2, count // 8)

    def passes(config) -> list[Pass]:
        name = f"relation indices of {length}-token texts"
        others, cost = (config, np.float32(TAU)), plan.sequence(config, length, 0)
        return [Pass(name, sums, tuple(texts), others, cost, {"reads": reads})]

    return [
        of_passes(
            "relation_index",
            {
                "prompts/relation_index": texts.tokens,
                "prompts/relation_index/lengths": texts.lengths,
                "prompts/relation_index/heads": texts.heads,
                "prompts/relation_index/tails": texts.tails,
            },
            passes,
            lambda made: made[0] | {"counts": made[1]},
            lambda measured: [
                head_scores(
                    measured[read], measured["counts"], texts, single, TAU, read, least
                )
                for read in reads
            ],
        )
    ]
