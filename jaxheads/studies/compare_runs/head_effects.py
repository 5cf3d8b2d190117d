"""What every head does for the right token: P(correct) without it, minus with it.

Asked on random tokens that repeat, and on kinds of targets of the held-out windows, so
that heads that copy can be told from heads that help or harm elsewhere. Dims besides
the usual: S samples (sequences or windows), P positions that are unembedded in each.

The sign: an effect is P(correct) with the head removed minus P(correct) of the whole
model. Negative: the head helps. Positive: it stands in the way of the right token; of a
prefix-matching head that is "anti-induction". Figures of Sahin et al. 2025 say what a
head does where it is present (L6H4 -0.13 is one that lowers P(correct)): for a removal
their sign is the other one.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.engine.chunks import chunks
from jaxheads.errors import UserError
from jaxheads.models.ablation import Ablation
from jaxheads.models.forward import forward
from jaxheads.models.metrics import probability
from jaxheads.scores.attention import attention_shares
from jaxheads.studies.compare_runs.head_tests import effects
from jaxheads.training.held_out import HeldOut
from jaxheads.training.probes import BUDGET_BYTES, Probes
from jaxheads.training.trained import Trained

TARGETS = 16
"""Of a kind, in a window, that are asked at most: the rest tells little more."""


@dataclasses.dataclass(frozen=True, eq=False)
class Questions:
    """Sequences, and which of their next tokens are asked.

    Attributes:
        tokens: int32 [S, T], what the model reads.
        segments: int32 [S, T], see ``forward``, -1: padding; None: one document each.
        at: int32 [S, P], positions whose next token is asked.
        wanted: int32 [S, P], the right ones.
        weights: float32 [S, P] by group: 1 over its targets in the window at each of
            them, else 0. All zeros where a window has none.
    """

    tokens: np.ndarray
    segments: np.ndarray | None
    at: np.ndarray
    wanted: np.ndarray
    weights: dict[str, np.ndarray]


def of_probes(probes: Probes) -> Questions:
    """Ask for the tokens of each repetition: the last one alone, and all of them."""
    count, length = probes.cut.shape
    asked = probes.wanted.shape[1]
    at = np.arange(length - asked, length, dtype=np.int32)
    last = np.zeros((count, asked), np.float32)
    last[:, -1] = 1
    return Questions(
        tokens=probes.cut,
        segments=None,
        at=np.tile(at, (count, 1)),
        wanted=probes.wanted,
        weights={"repetition": last, "repetition_whole": np.full_like(last, 1 / asked)},
    )


def of_windows(held: HeldOut, targets: int = TARGETS) -> Questions:
    """Ask for targets of every group of the held-out windows, always the same ones.

    Args:
        held: the windows.
        targets: of a group and window at most.
    """
    windows = held.windows
    groups = {"copyable": held.copyable, "plain": ~held.copyable} | held.groups
    groups = {name: group & windows.scored for name, group in groups.items()}
    # One order for all groups, so that those that overlap share targets.
    rank = np.random.default_rng([0, 2]).random(windows.scored.shape)
    drawn = {}
    for name, group in groups.items():
        first = np.argsort(np.where(group, rank, 2.0), axis=1)[:, :targets]
        drawn[name] = np.zeros_like(group)
        np.put_along_axis(drawn[name], first, True, axis=1)
        drawn[name] &= group
    either = np.any(list(drawn.values()), axis=0)
    positions = max(1, int(either.sum(axis=1).max()))
    at = np.argsort(~either, axis=1, kind="stable")[:, :positions].astype(np.int32)
    weights = {}
    for name, group in drawn.items():
        if group.any():
            chosen = np.take_along_axis(group, at, axis=1).astype(np.float32)
            count = np.maximum(chosen.sum(axis=1, keepdims=True), 1)
            weights[name] = (chosen / count).astype(np.float32)
    segments = windows.segments
    return Questions(
        tokens=windows.inputs,
        segments=None if segments is None else segments[:, :-1],
        at=at,
        wanted=np.take_along_axis(windows.targets, at, axis=1),
        weights=weights,
    )


REPLACED_BY = ("mean", "zero")


def head_effects(
    trained: Trained,
    step: int,
    *,
    samples: int = 128,
    targets: int = TARGETS,
    replaced_by: str = "mean",
) -> dict[str, np.ndarray]:
    """Remove each head alone, in the models of all seeds at a step.

    ``effect[l, h] = mean over samples of P(correct | head l, h replaced) - P(correct)``

    A head's output is replaced at every position by its mean over positions and samples
    of the same kind of input (random tokens, or windows), or by zeros. Groups are:
    "repetition", r_s after r_1 ... r_s r_1 ... r_(s-1); "repetition_whole", the mean
    over r_2 ... r_s there; "copyable", targets of held-out windows that complete a
    bigram seen before; "answer", answers of in-context functions after a first one,
    where the windows have them; "plain", the others; and the source's own further
    kinds. A window counts by the mean over its targets.

    Args:
        trained: the run.
        step: of its models.
        samples: held-out windows and repeated sequences, S at most.
        targets: of a group in a window, drawn at random where there are more.
        replaced_by: "mean" or "zero".

    Returns:
        By name: "prefix_matching" float32 [N, L, H], share of attention; and for every
        group g "probability/g" float32 [N], P(correct) of the whole model; "effect/g"
        float32 [N, L, H], changes of it, negative where the head helps, see the
        module; "effect_se/g", its standard error over samples; "effect_p/g" float64, p
        of a paired t test over samples, by Holm over the heads of seed and group; and
        "samples/g" int []. A group that no window has is left out.

    Raises:
        UserError: the step has no models, or ``replaced_by`` is none of the two.

    Source: Sahin et al. 2025, arXiv 2511.05743 (effects of prefix-matching heads).
    """
    if replaced_by not in REPLACED_BY:
        raise UserError(
            f"heads must be replaced by one of {', '.join(REPLACED_BY)}, but here by "
            f"{replaced_by!r}: choose one"
        )
    evidence = trained.evidence(repetitions=samples, evidence_samples=samples)
    asked = (of_probes(evidence.probes), of_windows(evidence.held_out, targets))
    params, config = trained.params(step), trained.model_config
    runs = []
    for n in range(len(trained.seeds)):
        one = jax.tree.map(lambda leaf, n=n: leaf[n], params)
        found: dict[str, np.ndarray] = {
            "prefix_matching": prefix_matching(one, evidence.probes, config)
        }
        for questions in asked:
            fill = _fill(one, questions, config, replaced_by)
            for group, values in answered(one, questions, config, fill).items():
                found |= effects(group, values, (config.num_layers, config.num_heads))
        runs.append(found)
    made = {name: np.stack([found[name] for found in runs]) for name in runs[0]}
    return {
        name: values[0] if name.startswith("samples/") else values
        for name, values in made.items()
    }


def prefix_matching(params: Any, probes: Probes, config: Any) -> np.ndarray:
    """Prefix-matching score of every head of one model, float32 [L, H]."""
    edges = {"prefix_matching": probes.edges["prefix_matching"]}
    shares = attention_shares(params, probes.repeated, config, edges, chunk=16)
    return shares["prefix_matching"].mean(axis=-1, dtype=np.float32)


def _fill(params, questions: Questions, config, replaced_by: str) -> np.ndarray:
    """What replaces heads, float32 [L, H, K]."""
    shape = (config.num_layers, config.num_heads, config.head_dim)
    if replaced_by == "zero":
        return np.zeros(shape, np.float32)
    tokens, segments = questions.tokens, questions.segments
    counts = np.ones(tokens.shape, np.float32)
    if segments is not None:
        counts = (segments >= 0).astype(np.float32)
    size = max(1, BUDGET_BYTES // _row_bytes(config, tokens.shape[1], 1))
    total = np.zeros(shape)
    for index in chunks(len(tokens), size):
        fresh = np.append(True, np.diff(index) > 0)  # the last row may be repeated
        rows = None if segments is None else segments[index]
        weights = counts[index] * fresh[:, None].astype(np.float32)
        total += np.asarray(_head_sums(params, tokens[index], rows, weights, config))
    return (total / counts.sum()).astype(np.float32)


@jax.jit
def _head_sums(params, tokens, segments, weights, config):
    """Weighted sums of head outputs over rows and positions, [L, H, K]."""
    none = jnp.zeros((len(tokens), 0), jnp.int32)  # no logits
    out = forward(
        params, tokens, config, logits=none, capture=("heads",), segments=segments
    )
    assert out.heads is not None
    return jnp.einsum(
        "lbthk,bt->lhk", out.heads.astype(jnp.float32), weights, precision="highest"
    )


def answered(
    params: Any, questions: Questions, config: Any, fill: np.ndarray
) -> dict[str, np.ndarray]:
    """P(correct) of one model, whole and without each head.

    Args:
        params: of the family of ``config``, without the axis N.
        questions: what is asked.
        config: of the model.
        fill: float32 [L, H, K], what replaces heads.

    Returns:
        float32 [1 + L H, S] by group: first of the whole model, then without each head,
        layer by layer; NaN of windows that have no target of the group.
    """
    tokens, segments = questions.tokens, questions.segments
    weights = np.stack(list(questions.weights.values()))  # [G, S, P]
    heads = config.num_layers * config.num_heads
    keeps = np.concatenate([np.ones((1, heads)), 1 - np.eye(heads)])
    keeps = keeps.reshape(-1, config.num_layers, config.num_heads).astype(np.float32)
    found = np.zeros((len(keeps), *weights.shape[:2]), np.float32)
    many_rows, many_heads = _chunk(config, tokens.shape, questions.at.shape[1])
    for rows in chunks(len(tokens), many_rows):
        asked = (
            tokens[rows],
            None if segments is None else segments[rows],
            questions.at[rows],
            questions.wanted[rows],
            weights[:, rows],
        )
        for subset in chunks(len(keeps), many_heads):
            made = _means(params, *asked, keeps[subset], fill, config)
            found[np.ix_(subset, np.arange(len(weights)), rows)] = made
    found = np.where(weights.any(axis=2), found, np.nan)
    return {name: found[:, g] for g, name in enumerate(questions.weights)}


@jax.jit
def _means(params, tokens, segments, at, wanted, weights, keeps, fill, config):
    """Weighted means of P(wanted), [C, G, B], under each of keeps [C, L, H]."""

    def under(keep):
        out = forward(
            params,
            tokens,
            config,
            ablation=Ablation(keep, fill),
            logits=at,
            segments=segments,
        )
        given = probability(out.logits, wanted)  # [B, P]
        return jnp.einsum("bp,gbp->gb", given, weights, precision="highest")

    return jax.vmap(under)(keeps)


def _chunk(config, shape: tuple[int, int], positions: int) -> tuple[int, int]:
    """Rows, and heads without which they run, at once."""
    rows, length = shape
    each = _row_bytes(config, length, positions)
    most = BUDGET_BYTES // each
    if jax.default_backend() == "cpu":  # more falls out of its caches
        most = min(most, max(1, 1024 // length))
    rows = int(np.clip(most, 1, rows))
    return rows, max(1, int(most // rows))


def _row_bytes(config, length: int, positions: int) -> int:
    wide = 8 * config.width + 4 * config.mlp_width + 2 * config.num_heads * length
    return 4 * (length * wide + 3 * positions * config.vocab_size)
