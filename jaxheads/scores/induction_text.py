"""Induction scores on random tokens that went through text, as published.

The published code of Yin & Steinhardt 2025 decodes its random sequences and lets the
tokenizer read them again. Tokens merge and fall apart, so that the second half need not
repeat the first one token for token; a second BOS stands in front; sequences differ in
length. What counts as induction is found in each sequence by its tokens.

Let B be the number of sequences, T and S the padded length.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.engine import plan
from jaxheads.engine.passes import Pass
from jaxheads.errors import UserError
from jaxheads.heads import HeadScores, from_samples
from jaxheads.models.forward import forward

NAMES = ("induction", "induction_yin")
_SOURCE = "Yin & Steinhardt 2025, code: src/find_induction_heads.py"


def probe(
    count: int,
    length: int,
    vocabulary: Sequence[int],
    decode: Callable[[Sequence[int]], str],
    encode: Callable[[str], list[int]],
    bos_id: int | None,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Random tokens repeated once, through text: [BOS] [BOS] and what is read again.

    Args:
        count: sequences, B.
        length: tokens before they repeat, as drawn; one may be drawn twice.
        vocabulary: ids to draw from.
        decode: ids to text; an id without text counts for nothing.
        encode: text to ids, without BOS.
        bos_id: put first, twice, if not None.
        seed: of the draw.

    Returns:
        Tokens, padded on the right with 0, int32 [B, T], and lengths, int32 [B].

    Raises:
        UserError: a sequence has no token left.
    """
    rng = np.random.default_rng([seed, 0])
    drawn = rng.choice(np.asarray(vocabulary), (count, length))
    start = [] if bos_id is None else [bos_id] * 2
    rows = [[*start, *encode(decode([*ids, *ids]))] for ids in drawn.tolist()]
    lengths = np.array([len(row) for row in rows], np.int32)
    if lengths.min() < 1:
        raise UserError(
            f"{length} random tokens of this vocabulary make no text: ask for longer "
            "sequences, or for --scores.probe-tokens ids"
        )
    tokens = np.zeros((count, lengths.max()), np.int32)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)] = ids
    return tokens, lengths


@jax.jit
def attention_share(
    params, tokens: jax.Array, lengths: jax.Array, config
) -> dict[str, jax.Array]:
    """Attention to the tokens after earlier copies of the current one.

    ``mass[l, h, b] = sum over t, s of edges[b, t, s] * attention[l, b, h, t, s]``

    Args:
        params: of the family of ``config``.
        tokens: int [B, T], right padded.
        lengths: int [B].
        config: of the model.

    Returns:
        [L, H, B] by name: "induction", the mass over the number of rows that have an
        edge; "induction_yin", over all attention, of which each row has 1.

    Source: Yin & Steinhardt 2025, code: the measure "mul" of TransformerLens's
    ``detect_head``, which is in force whatever that code asks for.
    """
    edges = following_edges(tokens, lengths)
    out = forward(params, tokens, config, lengths=lengths, capture=("patterns",))
    mass = jax.lax.map(
        lambda patterns: jnp.einsum(
            "bhts,bts->hb", patterns, edges, precision="highest"
        ),
        out.patterns,
    )
    rows = edges.any(axis=-1).sum(axis=-1)
    shared = {"induction": jnp.maximum(rows, 1), "induction_yin": lengths}
    return {name: mass / count[None, None] for name, count in shared.items()}


def following_edges(tokens: jax.Array, lengths: jax.Array) -> jax.Array:
    """0/1 [B, T, S]: column s follows a copy of row t's token, and is not after t."""
    before = jnp.roll(tokens, 1, axis=1)  # column 0 follows nothing
    same = before[:, None, :] == tokens[:, :, None]
    at = jnp.arange(tokens.shape[1])
    seen = (at[None, :] >= 1) & (at[None, :] <= at[:, None])  # [T, S]
    within = at[None, :] < lengths[:, None]  # [B, T]
    return (same & seen[None] & within[:, :, None]).astype(jnp.float32)


def head_scores(
    samples: np.ndarray, name: str, tokens: np.ndarray, lengths: np.ndarray
) -> HeadScores:
    """Head scores from per-sequence shares.

    Args:
        samples: [L, H, B], from ``attention_share``.
        name: "induction" or "induction_yin".
        tokens: of the probe.
        lengths: of the probe.
    """
    chance, ceiling = _even_and_most(name, tokens, lengths)
    how = {
        "induction": "mean, over the tokens that came before, of the attention",
        "induction_yin": "share of a head's whole attention mass, over all positions,",
    }[name]
    return HeadScores(
        name,
        *from_samples(samples),
        definition=f"{how} to the tokens after earlier copies of the current one, on "
        f"random tokens repeated once and read again from text, {lengths.min()} to "
        f"{lengths.max()} tokens",
        unit="share of attention",
        chance=chance,
        ceiling=ceiling,
        source=_SOURCE,
    )


def _even_and_most(
    name: str, tokens: np.ndarray, lengths: np.ndarray
) -> tuple[float, float]:
    """Scores of a head that attends evenly, and of one that only hits; mean over B."""
    even, most = [], []
    for row, length in zip(tokens, lengths, strict=True):
        edges = np.asarray(following_edges(row[None, :length], length[None]))[0]
        hits = edges.sum(axis=1)
        total = max(1, np.count_nonzero(hits)) if name == "induction" else length
        even.append((hits / np.arange(1, length + 1)).sum() / total)
        most.append(np.count_nonzero(hits) / total)
    return float(np.mean(even)), float(np.mean(most))


def reading(tokens: np.ndarray, lengths: np.ndarray, config) -> Pass:
    """The pass of ``attention_share`` over a probe."""
    length = tokens.shape[1]
    name = f"attention patterns of {length} tokens read from text"
    cost = plan.sequence(config, length, 0)
    return Pass(name, attention_share, (tokens, lengths), (config,), cost)
