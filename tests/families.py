"""Tiny random models of every family, and how closely they must agree."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxheads.models import family, gemma2, gpt2, gpt_neox, llama, olmo2, qwen, toy
from jaxheads.models.parameters import Leaf, is_leaf
from jaxheads.models.rope import Rope

CONFIGS: dict[str, Any] = {
    "llama-gqa": llama.Config(3, 22, 6, 2, 10, 34, 41, 64, tied=True),
    "llama-mha": llama.Config(2, 26, 3, 3, 8, 38, 43, 64, rope=Rope(500.0)),
    "llama-mqa": llama.Config(2, 18, 4, 1, 12, 30, 37, 64),
    "mistral": llama.Config(
        2, 22, 6, 3, 10, 34, 41, 64, windows=(5, 5), model_type="mistral"
    ),
    "qwen2": qwen.Config(
        2, 26, 6, 3, 8, 30, 37, 64, tied=True, output_bias=True, mlp_bias=True
    ),
    "qwen3": qwen.Config(
        2, 18, 6, 3, 12, 34, 43, 64, qkv_bias=False, qk_norm=True, model_type="qwen3"
    ),
    "olmo2": olmo2.Config(3, 22, 4, 2, 10, 30, 41, 64),
    "gemma2": gemma2.Config(
        num_layers=2,
        width=26,
        num_heads=6,
        num_kv_heads=3,
        head_dim=8,
        mlp_width=34,
        vocab_size=43,
        context_length=64,
        tied=True,
        windows=(None, 5),
        query_scalar=20.0,
        score_cap=6.0,
        logit_cap=10.0,
    ),
    "gpt_neox": gpt_neox.Config(2, 30, 3, 34, 41, 64, rotary_width=4),
    "gpt_neox-sequential": gpt_neox.Config(
        2, 24, 4, 38, 43, 64, rotary_width=2, parallel=False
    ),
    "gpt2": gpt2.Config(3, 28, 2, 34, 47, 64),
    "toy": toy.Config(2, 22, 5, 6, 41, 64, norms=False),
    "toy-smeared": toy.Config(
        2, 26, 3, 8, 43, 64, mlp_width=38, smeared_keys=True, ngram_orders=(2, 1)
    ),
    "toy-shifted": toy.Config(3, 18, 4, 10, 37, 64, positions="rotary", shifted=True),
}
"""Dims are pairwise distinct, so that a swapped axis cannot pass."""

_QUICK = ("llama-gqa", "qwen2", "olmo2", "gemma2", "gpt_neox", "gpt2", "toy-smeared")
EVERY = [
    pytest.param(name, marks=() if name in _QUICK else pytest.mark.slow)
    for name in CONFIGS
]
"""All of them, for tests that compile much: what only variants have is slow."""

LLAMAS = [one for one in EVERY if str(one.values[0]).startswith("llama")]

TOLERANCE = 2e-5
"""Of the largest value: what float32 rounding does to two orders of the same sums."""


def assert_close(actual, expected, tolerance: float = TOLERANCE) -> None:
    """Agreement to rounding, relative to the largest value (at least 1)."""
    expected = np.asarray(expected)
    atol = tolerance * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


def random_params(config, seed: int = 0, scale: float = 2.5):
    """Large random values in every leaf, norms' scales and biases included.

    Attention is sharp then, and a leaf that is swapped or forgotten is seen. Drawn by
    numpy: jax would compile a draw for every shape.
    """
    rng = np.random.default_rng(seed)

    def make(leaf: Leaf) -> jax.Array:
        values = rng.normal(size=leaf.shape)
        if leaf.init == "normal":
            values *= scale / np.sqrt(leaf.fan_in)
        else:
            values = (leaf.init == "ones") + 0.4 * values
        return jnp.asarray(values, jnp.float32)

    abstract = family(config.model_type).abstract(config)
    return jax.tree.map(make, abstract, is_leaf=is_leaf)


def cast(params, dtype):
    """Params in another dtype; by numpy, which compiles nothing."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(np.asarray(leaf).astype(dtype)), params
    )


class Tiny:
    """A random model with large weights, and a padded batch of prompts for it."""

    def __init__(self, config):
        self.config = config
        self.params = random_params(config)
        rng = np.random.default_rng(1)
        self.lengths = jnp.array([13, 7, 1, 10])
        self.tokens = jnp.asarray(
            rng.integers(0, config.vocab_size, (4, 13)), jnp.int32
        )
        self.targets = jnp.asarray(rng.integers(0, config.vocab_size, 4), jnp.int32)
        shape = (config.num_layers, config.num_heads, config.head_dim)
        self.fill = jnp.asarray(rng.normal(size=shape), jnp.float32)

    def keep(self, seed: int, count: int | None = None) -> jax.Array:
        """Random 0/1 keeps, [L, H] or [N, L, H]."""
        shape = (self.config.num_layers, self.config.num_heads)
        shape = shape if count is None else (count, *shape)
        rng = np.random.default_rng(seed)
        return jnp.asarray(rng.random(shape) > 0.4, jnp.float32)

    @property
    def last(self) -> jax.Array:
        """Bool [B, T], True at each prompt's last position."""
        return jnp.arange(self.tokens.shape[1])[None] == self.lengths[:, None] - 1
