"""Token- and concept-copying effects: what one head's output carries over.

The prompts, as token ids, with an entity e = e_1 ... e_k of 2 to 5 tokens, r_1 ... r_m
and c_1 ... c_30 shuffled tokens of text, m = 30 - k:

    clean      [BOS] r_1 ... r_m e_1 ... e_k  NEWLINE  r_1 ... r_m e_1
    corrupted  [BOS] c_1 ... ...  ...   c_30  NEWLINE  r_1 ... r_m e_1

Both end alike; only the clean one shows how it goes on. The second r_m is position -2,
e_1 is position -1. One head's output at position -2 is set, in the corrupted prompt, to
its output there in the clean prompt, and two predictions are read:

- at position -2, the same one: the rise of p(e_1), the *next* token. With entities of
  random tokens, which have to be copied one by one, this is the token-copying score;
- at position -1, one later: the rise of p(e_2), the token *after the next*. Nothing at
  position -1 is changed; later layers read the patched position through attention.
  With real entities, whose tokens belong together, this is the concept-copying score.

Any of the two kinds of entities can be read at any of the two places (``READS``). The
published code's two scripts differ: causal_scores.py prints the rise of p(e_2) for both
kinds, convert_causal_scores.py, which made the published rankings, p(e_1) for random
entities as above and in the text.

Exact, at the cost of two tokens a head: nothing before position -2 changes, so all
heads share one prefix, and a run is its last two tokens from the head's layer on.

Source: Feucht et al. 2025 (The Dual-Route Model of Induction), section 2 and code.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxheads.engine import plan
from jaxheads.engine.devices import gather, mesh_of, replicate
from jaxheads.engine.memory import Fit
from jaxheads.engine.sweeps import Sweep, predictions
from jaxheads.errors import UserError
from jaxheads.heads import HeadScores, from_samples
from jaxheads.icl import generators
from jaxheads.models.forward import prefill
from jaxheads.models.metrics import probability
from jaxheads.runs import Arrays
from jaxheads.scores.config import ScoresConfig
from jaxheads.scores.part import Asked, Known, Part

READS = ("next", "after_next")
ENTITIES = {
    "token_copying": ("next", "2 to 5 shuffled tokens of text"),
    "concept_copying": ("after_next", "2 to 5 tokens, places and people"),
}
"""What is read, and of which entities, by score."""
LENGTH = 30
"""Tokens before NEWLINE."""
ENTITY_LENGTHS = (2, 3, 4, 5)
_NAMED = (
    "landmark-country",
    "national_parks",
    "park-country",
    "person-instrument",
    "person-occupation",
    "person-sport",
)


class Pairs(NamedTuple):
    """Clean and corrupted prompts without their last token, right padded.

    Attributes:
        clean: int32 [B, T].
        corrupted: int32 [B, T].
        lengths: int32 [B]; position ``lengths - 1`` is the one that is patched.
        entities: int32 [B, 2]: e_1, which follows it, and e_2.
    """

    clean: np.ndarray
    corrupted: np.ndarray
    lengths: np.ndarray
    entities: np.ndarray


def pairs(
    entities: Sequence[Sequence[int]],
    pool: np.ndarray,
    newline: int,
    bos_id: int | None,
    seed: int,
    length: int = LENGTH,
) -> Pairs:
    """Make the prompts of entities.

    Args:
        entities: token ids, 2 or more each.
        pool: int [...], tokens of text to draw the shuffled ones from.
        newline: id of NEWLINE.
        bos_id: put first, if not None.
        seed: of the draws.
        length: tokens before NEWLINE.

    Raises:
        UserError: there is no entity, or one has fewer than 2 or ``length`` tokens.
    """
    if not entities or not all(2 <= len(each) < length for each in entities):
        raise UserError(
            f"copying effects need entities of 2 to {length - 1} tokens, one or more"
        )
    rng = np.random.default_rng([seed, 5])
    begin = [] if bos_id is None else [bos_id]
    total = len(begin) + 2 * length + 1
    clean = np.zeros((len(entities), total), np.int32)
    corrupted = np.zeros_like(clean)
    lengths = np.zeros(len(entities), np.int32)
    for row, entity in enumerate(entities):
        shuffled = rng.choice(pool.ravel(), length - len(entity))
        other = rng.choice(pool.ravel(), length)
        first = [*begin, *shuffled, *entity, newline, *shuffled]
        lengths[row] = len(first)
        clean[row, : len(first)] = first
        corrupted[row, : len(first)] = [*begin, *other, newline, *shuffled]
    longest = int(lengths.max())
    starts = np.array([entity[:2] for entity in entities], np.int32)
    return Pairs(clean[:, :longest], corrupted[:, :longest], lengths, starts)


def random_entities(
    pool: np.ndarray, count: int, seed: int, lengths: Sequence[int] = ENTITY_LENGTHS
) -> list[list[int]]:
    """Entities of shuffled tokens of text, the lengths in turn."""
    rng = np.random.default_rng([seed, 6])
    return [
        rng.choice(pool.ravel(), lengths[index % len(lengths)]).tolist()
        for index in range(count)
    ]


def real_entities(
    names: Sequence[str],
    encode: Callable[[str], list[int]],
    count: int,
    seed: int,
    lengths: Sequence[int] = ENTITY_LENGTHS,
) -> list[list[int]]:
    """Names as token ids, each with a space before it; the lengths in turn.

    Where names of a length run out, the others take its turns.

    Args:
        names: to choose from.
        encode: text to ids.
        count: entities wanted.
        seed: of the order.
        lengths: in tokens.

    Raises:
        UserError: fewer names than ``count`` have one of the lengths.
    """
    order = np.random.default_rng([seed, 7]).permutation(len(names))
    found: dict[int, list[list[int]]] = {length: [] for length in lengths}
    for index in order:
        ids = encode(" " + names[int(index)])
        if len(ids) in found:
            found[len(ids)].append(ids)
    chosen: list[list[int]] = []
    while len(chosen) < count and any(found.values()):
        chosen += [found[length].pop(0) for length in lengths if found[length]]
    if len(chosen) < count:
        raise UserError(
            f"{count} entities of {lengths[0]} to {lengths[-1]} tokens are needed, but "
            f"only {len(chosen)} of {len(names)} names have as many in this "
            "tokenizer: ask for fewer with --scores.entities"
        )
    return chosen[:count]


def effects(params, made: Pairs, config, budget_bytes: int) -> np.ndarray:
    """Rise of the probability of an entity's first two tokens, for every head.

    ``effect[i, l, h, b] = p(e_i | head (l, h) at -2 := clean) - p(e_i)`` in the
    corrupted prompt, p(e_1) at position -2 and p(e_2) at position -1.

    Args:
        params: of the family of ``config``.
        made: from ``pairs``.
        config: of the model.
        budget_bytes: memory for activations.

    Returns:
        float32 [2, L, H, B], probability; in the order of ``READS``.
    """
    layers, heads = config.num_layers, config.num_heads
    # One set a head, and the empty one.
    replaced = np.zeros((layers * heads + 1, layers * heads), bool)
    np.fill_diagonal(replaced, True)
    replaced = replaced.reshape(-1, layers, heads)
    out = np.zeros((len(replaced), len(made.lengths), 2), np.float32)
    for rows in by_length(made):
        clean = made.clean[rows, : int(made.lengths[rows[0]])]
        clean = replicate(clean, mesh_of(params))
        fill = gather(prefill(params, clean, None, config).heads)[:, :, None]
        # As the plan has it, of params of half precision too; no value changes.
        fill = fill.astype(np.promote_types(fill.dtype, np.float32))
        sweep = of_pairs(made, rows, config, fill)
        chunk = sweep.fit(params, len(replaced), budget_bytes)[1].chunk
        out[:, rows] = sweep.run(params, replaced, chunk=chunk)
    rise = (out[:-1] - out[-1]).reshape(layers, heads, -1, 2)
    return np.moveaxis(rise, -1, 0)


def by_length(made: Pairs) -> list[np.ndarray]:
    """Prompts of one length together: position -2 is then the same in all."""
    return [np.flatnonzero(made.lengths == n) for n in np.unique(made.lengths)]


def of_pairs(made: Pairs, rows: np.ndarray, config, fill: Any = None) -> Sweep:
    """Probabilities of two tokens under every set, on prompts of a length.

    Args:
        made: from ``pairs``.
        rows: which of them.
        config: of the model.
        fill: [L, B, 1, H, K], by what; None: not there yet.
    """
    length, count = int(made.lengths[rows[0]]), len(rows)
    if fill is None:
        shape = (config.num_layers, count, 1, config.num_heads, config.head_dim)
        fill = jax.ShapeDtypeStruct(shape, np.float32)
    sweep = predictions(
        np.concatenate([made.corrupted[rows, :length], made.entities[rows, :1]], 1),
        config,
        fill,
        np.broadcast_to([length - 1, length], (count, 2)),
        made.entities[rows],
        np.tile(np.arange(length + 1) == length - 1, (count, 1)),
        metric=probability,
    )
    name = f"effects of all heads on two tokens of {count} {length}-token prompts"
    heads = config.num_layers * config.num_heads
    cost = plan.every_head(config, length) * (2 * count / heads)
    return dataclasses.replace(
        sweep, names=(sweep.names[0], name), costs=(sweep.costs[0], cost)
    )


def head_scores(samples: np.ndarray, name: str, read: str, entities: str) -> HeadScores:
    """Head scores from per-prompt effects.

    Args:
        samples: [L, H, B], one of the two of ``effects``.
        name: of the score.
        read: out of ``READS``, which of the two.
        entities: what they are, such as "random tokens".

    Source: Feucht et al. 2025, section 2.
    """
    what = {
        "next": "the entity's first token, at that position",
        "after_next": "the entity's second token, one position later",
    }[read]
    return HeadScores(
        name,
        *from_samples(samples),
        definition=f"rise of the probability of {what}, when the head's output just "
        "before a repeated entity comes from a prompt in which the same tokens stood "
        f"before; entities of {entities}",
        unit="probability",
        chance=0.0,
        ceiling=1.0,
        source="Feucht et al. 2025, section 2",
    )


def described(chosen: ScoresConfig, shots: int) -> list[HeadScores]:
    """The scores of one head that was never run."""
    none = np.zeros((1, 1, 2))
    return [head_scores(none, name, *told) for name, told in ENTITIES.items()]


def parts(names: Sequence[str], asked: Asked) -> list[Part]:
    """What computes each score, from entities of its own."""
    return [_part(name, asked) for name in names]


def _part(name: str, asked: Asked) -> Part:
    source, chosen = asked.source, asked.chosen
    pool = source.straw(chosen.document_length, chosen.documents)
    newline = source.encode("\n")
    if not newline:
        raise UserError(
            f"{name} needs a token for the end of a line, but this tokenizer has none: "
            "leave the score out"
        )
    if name == "token_copying":
        entities = random_entities(pool, chosen.entities, source.seed)
    else:
        listed = [pair[0] for task in _NAMED for pair in generators.read_facts(task)]
        entities = real_entities(
            list(dict.fromkeys(listed)), source.encode, chosen.entities, source.seed
        )
    made = pairs(entities, pool, newline[-1], source.bos_id, source.seed)
    read, told = ENTITIES[name]

    def cost(config) -> plan.Cost:
        """Two passes a prompt, and two tokens from each head's layer on."""
        length = made.clean.shape[1]
        tail = plan.every_head(config, length) * 2
        return (plan.sequence(config, length) * 2 + tail) * len(made.clean)

    def fits(params, config, budget_bytes: int) -> list[Fit]:
        """The runs of the last two tokens, by prompt length."""
        subsets = config.num_layers * config.num_heads + 1
        sweeps = (of_pairs(made, rows, config) for rows in by_length(made))
        made_fits = (each.fit(params, subsets, budget_bytes) for each in sweeps)
        return [program for both in made_fits for program in both]

    def measure(params, config, budget_bytes: int, known: Known) -> Arrays:
        return {"effects": effects(params, made, config, budget_bytes)}

    def scores(measured: Arrays) -> list[HeadScores]:
        samples = measured["effects"][READS.index(read)]
        return [head_scores(samples, name, read, told)]

    tokens = {
        f"prompts/{name}_clean": made.clean,
        f"prompts/{name}_corrupted": made.corrupted,
        f"prompts/{name}_corrupted/lengths": made.lengths,
        f"prompts/{name}_entities": made.entities,
    }
    return Part(name, tokens, cost, fits, measure, scores)
