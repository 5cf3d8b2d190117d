"""Attribution: the effect of every head estimated from gradients in ``keep``.

Replacing head (l, h) alone takes ``keep[l, h]`` from 1 to 0, so that its effect is
``m(1 - e) - m(1)``, which a straight line puts at minus the slope of m in ``keep``. All
heads' slopes come from one backward pass. Where the model is not straight the estimate
misses: attention that is saturated, or a direct and an indirect effect that cancel. The
exact effects of the heads that matter, and of a sample of the others, always go beside
it (``jaxheads.studies.attribution.verification``).

Source: Nanda 2023 (attribution patching); Kramár et al. 2024 (AtP*); Sundararajan et
al. 2017 (integrated gradients).
"""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from jaxheads.models.ablation import Ablation, Ablations, StopGradient
from jaxheads.models.forward import Prefix, heads_under, last_token_logits
from jaxheads.models.metrics import Metric, probability

Point = Literal["clean", "ablated", "integrated"]
STEPS = 8


def slopes(
    value: Callable[[jax.Array], jax.Array],
    shape: tuple[int, int],
    point: Point = "clean",
    steps: int = STEPS,
) -> jax.Array:
    """Minus the gradient of a value in ``keep``: the estimated effect of each head.

    Args:
        value: keep [L, H] -> scalar.
        shape: of ``keep``.
        point: where the slope is taken: "clean": all heads kept; "ablated": all
            replaced; "integrated": the mean over ``steps`` points on the way between
            them, whose sum over heads is ``m(all replaced) - m(all kept)``.
        steps: points of "integrated", at the middles of equal parts.

    Returns:
        [*shape], in the value's unit.
    """
    slope = jax.grad(value)
    if point == "clean":
        return -slope(jnp.ones(shape))
    if point == "ablated":
        return -slope(jnp.zeros(shape))
    if point != "integrated":
        raise ValueError(
            f'point takes "clean", "ablated" or "integrated", not {point!r}'
        )
    along = (jnp.arange(steps) + 0.5) / steps
    total = jax.lax.map(lambda a: slope(jnp.full(shape, a)), along)
    return -total.mean(axis=0)


@functools.partial(jax.jit, static_argnames=("metric", "point", "steps", "site"))
def at_last_position(
    params,
    prefix: Prefix,
    fill: jax.Array | None,
    targets: jax.Array,
    config,
    *,
    metric: Metric = probability,
    point: Point = "clean",
    steps: int = STEPS,
    site: str = "z",
    stopped: jax.Array | None = None,
) -> jax.Array:
    """Estimated effects of replacing each head, alone, at the last position.

    Estimates ``patch_each_head``, for one token forward and one backward.

    Args:
        params: of the family of ``config``.
        prefix: of B prompts.
        fill: [L, H, K] or [L, B, 1, H, K], what each head is replaced by; None: zeros.
        targets: int [B], or whatever the metric reads of each prompt [B, ...].
        config: of the model; static.
        metric: (logits [..., V], targets [...]) -> [...].
        point: see ``slopes``.
        steps: see ``slopes``.
        site: "z", "q", "k" or "v"; with G heads at the last two.
        stopped: bool [L], layers through which no gradient flows; None: none.

    Returns:
        [L, H, B], in the metric's unit.
    """
    layers, heads = len(prefix.heads), prefix.heads.shape[2]
    if site in ("k", "v"):
        heads = prefix.keys.shape[3]

    def one(prompt: Prefix, fill, target):
        def value(keep):
            ablation: Ablations = (Ablation(keep, fill, site=site),)
            if stopped is not None:
                ablation = (*ablation, StopGradient(stopped))
            logits = last_token_logits(params, prompt, config, ablation)
            return metric(logits, target[None])[0]

        return slopes(value, (layers, heads), point, steps)

    each, axis = _one_prompt_each(prefix), None
    if fill is not None and fill.ndim == 5:
        fill, axis = fill[:, :, None], 1
    run = jax.vmap(one, in_axes=(0, axis, 0))
    return run(each, fill, targets).transpose(1, 2, 0)


def _one_prompt_each(prefix: Prefix) -> Prefix:
    """A batch of prompts as prefixes of one prompt, along a new first axis."""
    layered = ("keys", "values", "residual", "queries", "heads", "unmixed")
    leading = ("lengths", "last_tokens", "final", "logits", "earlier")
    changed = {
        name: jax.tree.map(
            lambda leaf: jnp.moveaxis(leaf, 1, 0)[:, :, None], getattr(prefix, name)
        )
        for name in layered
    }
    changed |= {
        name: jax.tree.map(lambda leaf: leaf[:, None], getattr(prefix, name))
        for name in leading
    }
    return Prefix(**changed)


@functools.partial(jax.jit, static_argnames="metric")
def dropped_gradients(
    params,
    prefix: Prefix,
    fill: jax.Array | None,
    targets: jax.Array,
    config,
    *,
    metric: Metric = probability,
) -> jax.Array:
    """GradDrop: magnitudes that a cancellation of paths cannot hide.

    ``sum over d of |slope with no gradient through layer d| / (L - 1)``: a direct and
    an indirect effect that cancel do not when the layer between them is left out. A
    head has no slope when its own layer is, which is why the divisor is L - 1.

    Args:
        params: of the family of ``config``.
        prefix: of B prompts.
        fill: as for ``at_last_position``.
        targets: as for ``at_last_position``.
        config: of the model; static; of two layers or more.
        metric: as for ``at_last_position``.

    Returns:
        [L, H, B], magnitudes in the metric's unit: no sign is left.

    Source: Kramár et al. 2024 (AtP*), GradDrop.
    """
    layers = prefix.keys.shape[0]
    if layers < 2:
        raise ValueError("GradDrop leaves out one layer of several; this model has one")

    def run(dropped):
        estimate = at_last_position(
            params, prefix, fill, targets, config, metric=metric, stopped=dropped
        )
        return jnp.abs(estimate)

    return jax.lax.map(run, jnp.eye(layers) > 0).sum(axis=0) / (layers - 1)


def repatched(
    params,
    tokens: jax.Array,
    lengths: jax.Array,
    config,
    fill: jax.Array,
    site: str,
) -> jax.Array:
    """The QK fix: head outputs with the last position's query, key or value replaced.

    The softmax is computed again, instead of followed along its slope, which is flat
    where attention is saturated. As a fill of ``at_last_position`` at "z" it gives the
    estimated effect of replacing each head's query (key, value) there.

    Args:
        params: of the family of ``config``.
        tokens: int [B, T], right padded.
        lengths: int [B].
        config: of the model; static.
        fill: [L, H, K] or [L, B, 1, H, K], with G for H at "k" and "v".
        site: "q", "k" or "v"; a key/value head's effect is the sum over its group.

    Returns:
        [L, B, 1, H, K].

    Source: Kramár et al. 2024 (AtP*), QK fix.
    """
    b, t = tokens.shape
    heads = config.num_heads if site == "q" else config.num_kv_heads
    where = jnp.arange(t)[None] == lengths[:, None] - 1
    keep = jnp.zeros((config.num_layers, heads))
    found = heads_under(params, tokens, config, Ablation(keep, fill, where, site))
    last = (lengths - 1).reshape(1, b, 1, 1, 1)
    return jnp.take_along_axis(found, last, axis=2)
