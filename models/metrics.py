"""What is read off logits: functions (logits [..., V], targets) -> [...]."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxheads.models.arguments import Array, check_array, check_ids

Metric = Callable[[jax.Array, jax.Array], jax.Array]


def probability(logits: Array, targets: Array) -> jax.Array:
    """p(target): logits [..., V], targets int [...] -> [...]."""
    return jnp.exp(log_probability(logits, targets))


def log_probability(logits: Array, targets: Array) -> jax.Array:
    """Log p(target) in nats: logits [..., V], targets int [...] -> [...]."""
    _check(targets, logits, logits.shape[:-1])
    picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return picked - jax.nn.logsumexp(logits, axis=-1)


def logit_difference(logits: Array, targets: Array) -> jax.Array:
    """Logit of one token minus that of another.

    Args:
        logits: [..., V].
        targets: int [..., 2], the wanted token and the other.

    Returns:
        [...], nats.
    """
    _check(targets, logits, (*logits.shape[:-1], 2))
    picked = jnp.take_along_axis(logits, targets, axis=-1)
    return picked[..., 0] - picked[..., 1]


TOKEN_METRICS = (probability, log_probability, logit_difference)
"""Metrics whose targets are token ids."""


def check_targets(metric: Any, targets: Any, vocab_size: int, shape: tuple) -> None:
    """Raise unless targets fit what is read, and are tokens where a metric wants them.

    Args:
        metric: that will read them.
        targets: [B, ...] or [B, P, ...].
        vocab_size: V.
        shape: (B,) or (B, P).
    """
    if metric in TOKEN_METRICS:
        check_array(targets, "targets", "int")
        check_ids(targets, "targets", vocab_size)
    letters = "[B, ...]" if len(shape) == 1 else "[B, P, ...]"
    if targets.shape[: len(shape)] != shape:
        raise ValueError(
            f"targets must be {letters} with {shape}, but have shape {targets.shape}"
        )


def _check(targets: Any, logits: Array, shape: tuple[int, ...]) -> None:
    check_array(targets, "targets", "int", f"{list(shape)}")
    if targets.shape != shape:
        raise ValueError(
            f"targets must be int {list(shape)}, one, or of a difference the wanted "
            f"token and the other, for each of the logits {list(logits.shape)}, but "
            f"have shape {list(targets.shape)}"
        )
    check_ids(targets, "targets", logits.shape[-1])
