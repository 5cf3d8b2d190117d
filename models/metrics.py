"""What is read off logits: functions (logits [..., V], targets) -> [...]."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Metric = Callable[[jax.Array, jax.Array], jax.Array]


def probability(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """p(target): logits [..., V], targets int [...] -> [...]."""
    return jnp.exp(log_probability(logits, targets))


def log_probability(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Log p(target) in nats: logits [..., V], targets int [...] -> [...]."""
    picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return picked - jax.nn.logsumexp(logits, axis=-1)


def logit_difference(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Logit of one token minus that of another.

    Args:
        logits: [..., V].
        targets: int [..., 2], the wanted token and the other.

    Returns:
        [...], nats.
    """
    picked = jnp.take_along_axis(logits, targets, axis=-1)
    return picked[..., 0] - picked[..., 1]
