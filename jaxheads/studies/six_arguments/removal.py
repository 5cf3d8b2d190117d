"""How much of the in-context learning score heads carry, by removing them.

At one checkpoint, for every seed, on the held-out windows of the run. Removed are a
head's output with all attention patterns as they were (pattern-preserving), so that
only what flows through values is lost, and its output with nothing fixed.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.engine.chunks import chunks
from jaxheads.engine.devices import data_parts, gather, mesh_of, split
from jaxheads.models.ablation import Ablation
from jaxheads.models.forward import forward
from jaxheads.models.metrics import log_probability
from jaxheads.models.removal import Removed, remove_each_head
from jaxheads.studies.six_arguments.ablation_and_mechanism import INDUCTION
from jaxheads.training.held_out import HeldOut, mean_where
from jaxheads.training.step import over_runs
from jaxheads.training.trained import Trained

BUDGET_BYTES = 2**28
"""For the activations and logits of what runs at once."""


def ablation_attribution(
    trained: Trained, step: int, *, samples: int | None = None
) -> dict[str, np.ndarray]:
    """The in-context learning score without each head, at one checkpoint.

    ``attribution[n, l, h] = score(head (l, h) removed) - score``, and the score is the
    loss of the late target minus that of the early one: a head that carries in-context
    learning has a positive attribution, because without it the score is less negative.

    Args:
        trained: a run; its windows are those of its evaluations.
        step: of the checkpoint.
        samples: held-out windows S, at most; None: as many as the run was measured on.

    Returns:
        By name, float32, nats:

        - "icl_score" [N]: late minus early loss, nothing removed;
        - "attribution" [N, L, H]: pattern-preserving;
        - "attribution_full" [N, L, H]: later heads may attend elsewhere;
        - "token_losses" [N, S]: of one random target of each window, as in the
          evaluations; NaN where a window has none that counts;
        - "token_losses_ablated" [N, L, H, S]: the same targets, pattern-preserving.

        Scores are means over windows whose early and late targets both count; NaN
        without any.

    Raises:
        UserError: there are no models of this step, or they are damaged.

    Source: Olsson et al. 2022, argument 3 (ablation attribution to the score).
    """
    held = _held_out(trained, samples)
    losses = in_chunks(removal_losses, trained.params(step), held, trained.model_config)
    clean, fixed, free = (
        np.asarray(x, np.float64)
        for x in (losses.clean, losses.preserving, losses.whole)
    )  # [N, S, 3], [N, L, H, S, 3] twice; early, late, chosen
    score = _score(clean, held)
    has_one = held.chosen >= 0
    found = {
        "icl_score": score,
        "attribution": _score(fixed, held) - score[:, None, None],
        "attribution_full": _score(free, held) - score[:, None, None],
        "token_losses": np.where(has_one, clean[..., 2], np.nan),
        "token_losses_ablated": np.where(has_one, fixed[..., 2], np.nan),
    }
    return {name: values.astype(np.float32) for name, values in found.items()}


def scores_without(
    trained: Trained, step: int, removed: np.ndarray, *, samples: int | None = None
) -> np.ndarray:
    """The in-context learning score with sets of heads removed, patterns kept.

    Heads that do the same work stand in for each other: without one of them the others
    still give the answer. Removed together, they show what they carry. With the
    patterns kept, removing earlier heads does not blind the induction heads that they
    write keys for, so that sets of heads of all layers can be held against each other.

    Args:
        trained: a run; its windows are those of its evaluations.
        step: of the checkpoint.
        removed: bool [G, N, L, H], G sets of heads, of each seed.
        samples: held-out windows, at most; None: as many as the run was measured on.

    Returns:
        Late minus early loss, float64 [G, N], nats.

    Raises:
        UserError: there are no models of this step, or they are damaged.

    Source: Olsson et al. 2022, pattern-preserving ablation; sets of heads are ours.
    """
    held, config = _held_out(trained, samples), trained.model_config
    keep = np.moveaxis(~removed, 0, 1).astype(np.float32)  # [N, G, L, H]
    losses = in_chunks(_kept_losses, trained.params(step), held, config, keep)
    return _score(np.asarray(losses, np.float64), held).T


def _held_out(trained: Trained, samples: int | None) -> HeldOut:
    changes = {} if samples is None else {"evidence_samples": samples}
    return trained.evidence(**changes).held_out


def _score(losses: np.ndarray, held: HeldOut) -> np.ndarray:
    """Late minus early loss, mean over the windows that count: [..., S, 3] -> [...]."""
    difference = losses[..., 1] - losses[..., 0]  # [..., S]
    flat = difference.reshape(-1, difference.shape[-1])
    return np.reshape(mean_where(flat, held.samples[""]), difference.shape[:-1])


def in_chunks(
    function: Callable, params: Any, held: HeldOut, config: Any, *others: Any
) -> Any:
    """Call a function on as many windows as memory allows; join its [..., S, 3].

    The columns are the early, the late and the chosen target (the first one, where a
    window has none).
    """
    mesh, windows = mesh_of(params), held.windows
    count, segments = len(windows.tokens), windows.segments
    at = [np.full(count, each) for each in held.at] + [np.maximum(held.chosen, 0)]
    at = np.stack(at, axis=1)  # [S, 3]
    targets = np.take_along_axis(windows.targets, at, axis=1)
    size = max(1, BUDGET_BYTES // _bytes_a_window(params, held, config))
    parts = []
    for index in chunks(count, size, data_parts(mesh)):
        rows = (
            windows.inputs[index],
            at[index],
            targets[index],
            None if segments is None else segments[index, :-1],
        )
        parts.append(gather(function(params, *split(rows, mesh), config, *others)))
    join = lambda *each: np.concatenate(each, axis=-2)[..., :count, :]
    return jax.tree.map(join, *parts)


def _bytes_a_window(params: Any, held: HeldOut, config: Any) -> int:
    runs = jax.tree.leaves(params)[0].shape[0]
    length, heads = held.windows.targets.shape[1], config.num_heads
    patterns = (config.num_layers + 3) * heads * length**2  # kept, and one layer's work
    rows = 2 * config.num_layers * heads + 2 * config.num_layers + 8
    streams = rows * length * config.width + 2 * length * config.mlp_width
    return 4 * runs * (patterns + streams + 9 * config.vocab_size)


@jax.jit
def removal_losses(params, tokens, at, targets, segments, config) -> Removed:
    """Losses with each head removed: clean [N, B, 3], the others [N, L, H, B, 3]."""

    def of_run(one) -> Removed:
        log = remove_each_head(one, tokens, at, targets, config, segments=segments)
        return jax.tree.map(lambda each: -each, log)

    return over_runs(of_run)(params)


@jax.jit
def _kept_losses(params, tokens, at, targets, segments, config, keep) -> jax.Array:
    """Losses with only some heads kept, patterns as in the clean run: [N, G, B, 3]."""

    def of_run(one, keep):
        run = functools.partial(forward, one, tokens, config, segments=segments)
        patterns = run(capture=("patterns",)).patterns
        frozen = Ablation(jnp.zeros(keep.shape[1:]), patterns, site="pattern")

        def of_group(kept):
            out = run(logits=at, ablation=(Ablation(kept), frozen))
            return -log_probability(out.logits, targets)

        return jax.lax.map(of_group, keep)

    return over_runs(of_run)(params, keep)


DRAWS = 4
"""Random sets of other heads."""


def joint_ablation(
    trained: Trained,
    step: int,
    prefix_matching: np.ndarray,
    *,
    samples: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """ICL scores with nothing, all induction heads, or as many others removed.

    Attention patterns stay as they were, see ``scores_without``.

    Args:
        trained: the run.
        step: of the checkpoint.
        prefix_matching: of its models, [N, L, H]; induction heads are above 0.3.
        samples: held-out windows, at most.
        seed: of the draws.

    Returns:
        "icl_score" float32 [2 + draws, N], nats: of the whole model, without its
        induction heads, without each draw of as many others; NaN where a seed has no
        induction head, or fewer others. "removed" bool [2 + draws, N, L, H].
    """
    chosen = prefix_matching > INDUCTION
    removed = np.stack(
        [np.zeros_like(chosen), chosen, *draw_others(chosen, DRAWS, seed)]
    )
    scores = scores_without(trained, step, removed, samples=samples)
    scores[1:][~removed[1:].any(axis=(2, 3))] = np.nan
    return {"icl_score": scores.astype(np.float32), "removed": removed}


def draw_others(chosen: np.ndarray, draws: int, seed: int) -> list[np.ndarray]:
    """Random sets of as many heads as are chosen, of those that are not.

    Args:
        chosen: bool [N, L, H].
        draws: sets of each seed.
        seed: of the draws.

    Returns:
        ``draws`` arrays bool [N, L, H]; nothing of a seed that has fewer others.
    """
    rng = np.random.default_rng([seed, 16])
    found = []
    for _ in range(draws):
        made = np.zeros_like(chosen)
        for n, each in enumerate(chosen):
            others = np.flatnonzero(~each.ravel())
            if each.sum() <= len(others):
                made[n].flat[rng.permutation(others)[: each.sum()]] = True
        found.append(made)
    return found


def before_and_after(
    steps: np.ndarray,
    token_losses: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    clean: np.ndarray,
    ablated: np.ndarray,
) -> dict[str, np.ndarray]:
    """Effects of heads along the change of per-token losses over the phase change.

    ``u = (after - before) / |after - before|`` over the S losses, and
    ``by_head[l, h] = u . (losses with head (l, h) removed - losses)``. Where losses
    fell u is negative, so a head whose removal raises just those losses has a negative
    product; one of ``-|after - before|`` undoes the whole change.

    Args:
        steps: int [E], of the evaluations, rising.
        token_losses: [E, N, S], nats, of the evaluations. Targets that are NaN
            anywhere, of windows without one that counts, are left out.
        before: [N], step at which the phase change begins; negative or NaN: the seed
            has none. The evaluation nearest to it is taken.
        after: [N], step at which it is over.
        clean: [N, S], losses of the model whose heads are removed.
        ablated: [N, L, H, S], with each head removed, see ``ablation_attribution``. Of
            these and the evaluations, those of more samples are cut to the first S of
            the others: windows are drawn in one order.

    Returns:
        float64 by name: "by_head" [N, L, H], nats along u (with S samples a loss that
        falls by d everywhere has a change of length ``d sqrt(S)``); "share"
        [N, L, H], ``by_head`` over the length, -1: the whole change is undone; "length"
        [N], nats; "direction" [N, S], u, 0 at targets that are left out. NaN for seeds
        without a phase change, or whose losses did not change.

    Source: Olsson et al. 2022, before-and-after vectors.
    """
    samples = min(token_losses.shape[-1], clean.shape[-1])
    token_losses, clean, ablated = (
        np.asarray(each, np.float64)[..., :samples]
        for each in (token_losses, clean, ablated)
    )
    runs = len(clean)
    change = np.full((runs, samples), np.nan)
    for n, ends in enumerate(zip(before, after, strict=True)):
        if np.isfinite(ends).all() and min(ends) >= 0:
            begin, end = (np.abs(np.asarray(steps) - step).argmin() for step in ends)
            change[n] = token_losses[end, n] - token_losses[begin, n]
    effects = ablated - clean[:, None, None]  # [N, L, H, S]
    dated = np.isfinite(change).any(axis=1)
    counted = np.isfinite(change) & np.isfinite(effects).all(axis=(1, 2))
    change = np.where(counted, change, 0.0)
    length = np.where(dated, np.linalg.norm(change, axis=1), np.nan)
    length = np.where(length > 0, length, np.nan)
    direction = change / length[:, None]  # [N, S]
    effects = np.where(counted[:, None, None], effects, 0.0)
    by_head = np.einsum("nlhs,ns->nlh", effects, direction)
    return {
        "by_head": by_head,
        "share": by_head / length[:, None, None],
        "length": length,
        "direction": direction,
    }
