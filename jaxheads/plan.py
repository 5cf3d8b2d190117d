"""What a run will cost, before it starts: forwards, tokens, FLOPs, bytes, seconds."""

import dataclasses
import time

import jax
import jax.numpy as jnp

from jaxheads.models import family
from jaxheads.models.parameters import num_params


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a part of a run; costs add up.

    Attributes:
        forwards: runs of the model, a run of the last position alone counted as one.
        tokens: positions that are run through layers.
        flops: floating-point operations in matrix products.
        bytes: largest memory of activations and caches at one time.
    """

    forwards: float = 0.0
    tokens: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.forwards + other.forwards,
            self.tokens + other.tokens,
            self.flops + other.flops,
            max(self.bytes, other.bytes),
        )

    def __mul__(self, times: float) -> "Cost":
        return Cost(
            self.forwards * times, self.tokens * times, self.flops * times, self.bytes
        )


def layer_flops(config, keys: float) -> float:
    """FLOPs of one token in one layer that attends to ``keys`` positions."""
    leaves = num_params(family(config.model_type).abstract(config).layers)
    attention = 4 * config.num_heads * config.head_dim * keys
    return 2 * leaves / config.num_layers + attention


def unembed_flops(config) -> float:
    """FLOPs of one token's logits."""
    return 2.0 * config.width * config.vocab_size


def sequence(config, tokens: int, logits: int = 1) -> Cost:
    """One sequence of ``tokens`` positions, ``logits`` of them unembedded."""
    flops = tokens * config.num_layers * layer_flops(config, tokens)
    cache = 2 * config.num_layers * config.num_kv_heads * config.head_dim
    live = 4 * tokens * (4 * config.mlp_width + 2 * config.num_heads * tokens + cache)
    return Cost(1, tokens, flops + logits * unembed_flops(config), live)


def step(config, prefix: int) -> Cost:
    """One token after a prefix, in one subset."""
    flops = config.num_layers * layer_flops(config, prefix) + unembed_flops(config)
    return Cost(1, 1, flops, 4 * (4 * config.mlp_width + 3 * config.vocab_size))


def every_head(config, prefix: int) -> Cost:
    """All heads of one prompt patched, each alone, at the last position."""
    heads = config.num_layers * config.num_heads
    mean_layers = (config.num_layers + 1) / 2
    flops = heads * (mean_layers * layer_flops(config, prefix) + unembed_flops(config))
    live = 4 * heads * (4 * config.mlp_width + 4 * config.width)
    return Cost(heads, heads * mean_layers / config.num_layers, flops, live)


def matmul_rate(seconds: float = 0.3) -> float:
    """FLOPs a second of a square float32 matrix product, measured here and now."""
    size = 1024 if jax.default_backend() == "cpu" else 8192
    matrix = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    product(matrix).block_until_ready()
    best, start = float("inf"), time.perf_counter()
    while time.perf_counter() - start < seconds:
        begun = time.perf_counter()
        product(matrix).block_until_ready()
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best
