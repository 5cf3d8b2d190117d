"""What a run will cost, before it starts: forwards, tokens, FLOPs, seconds.

What its memory will be is read off the compiled programs: see ``memory``.
"""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads import stops
from jaxheads.engine.devices import of_first_process
from jaxheads.engine.memory import Fit
from jaxheads.models import family
from jaxheads.models.parameters import num_params


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a part of a run; costs add up.

    Attributes:
        forwards: runs of the model, a run of the last position alone counted as one.
        tokens: positions that are run through layers.
        flops: floating-point operations in matrix products.
        bytes: largest memory of activations and caches at one time, of an item; an
            estimate from shapes, for chunks that are not fitted to compiled programs.
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
    live = 4 * tokens * _widest(config, tokens) + _logit_bytes(config, logits)
    live += 4 * tokens * 2 * config.num_layers * config.num_kv_heads * config.head_dim
    return Cost(1, tokens, flops + logits * unembed_flops(config), live)


def step(config, prefix: int) -> Cost:
    """One token after a prefix, in one subset."""
    flops = config.num_layers * layer_flops(config, prefix) + unembed_flops(config)
    live = 4 * _widest(config, prefix) + _logit_bytes(config, 1)
    return Cost(1, 1, flops, live)


def every_head(config, prefix: int) -> Cost:
    """All heads of one prompt patched, each alone, at the last position."""
    heads = config.num_layers * config.num_heads
    mean_layers = (config.num_layers + 1) / 2
    flops = heads * (mean_layers * layer_flops(config, prefix) + unembed_flops(config))
    live = 4 * heads * _widest(config, prefix) + _logit_bytes(config, heads)
    return Cost(heads, heads * mean_layers / config.num_layers, flops, live)


def _widest(config, keys: int) -> int:
    """Values of one position that are live at once, in attention or in the MLP."""
    heads = (2 * config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    # Scores, exponentials, patterns, and what is made on the way between them.
    attention = 5 * config.num_heads * keys + heads
    return 4 * config.width + max(attention, 3 * config.mlp_width)


def _logit_bytes(config, logits: int) -> int:
    """Bytes of logits and of what a metric makes of them."""
    return 2 * 4 * logits * config.vocab_size


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


@dataclasses.dataclass(frozen=True)
class Part:
    """What is known of a part of a run before it starts.

    Attributes:
        cost: from shapes.
        fits: its programs, at the chunks that the memory allows.
        seconds: expected, compilation not counted; None: not calibrated.
    """

    cost: Cost
    fits: tuple[Fit, ...]
    seconds: float | None = None

    @property
    def bytes(self) -> int:
        """The most memory that a device needs at one time, besides the params.

        Where no programs are known, of one item, from shapes.
        """
        return max((f.bytes for f in self.fits), default=int(self.cost.bytes))

    def receipt(self) -> dict[str, Any]:
        """Ready for JSON."""
        programs = [
            {"program": f.program.name, "chunk": f.chunk, "bytes": f.bytes}
            for f in self.fits
        ]
        told = dataclasses.asdict(self.cost) | {"bytes": self.bytes}
        told["programs"] = programs
        return told if self.seconds is None else told | {"expected_s": self.seconds}


CALIBRATION_SECONDS = 2.0
"""About how long the calibration of a run may take."""

CALIBRATION_SHARE = 0.03
"""Of the run, where that is longer."""


def calibrated(parts: dict[str, Part], rate: float) -> dict[str, Part]:
    """Expected seconds of each part, from short runs of its own programs.

    One chunk of each program is run on made-up tokens, the largest programs first and
    as long as the time allows; the others are expected to be as efficient as those.

    Args:
        parts: by name.
        rate: FLOPs a second of matrix products, see ``matmul_rate``.
    """
    rate = of_first_process(rate)
    fits = [fitted for part in parts.values() for fitted in part.fits]
    left = max(CALIBRATION_SECONDS, CALIBRATION_SHARE * sum(map(_flops, fits)) / rate)
    timed: dict[Fit, float] = {}
    for fitted in sorted(fits, key=_flops, reverse=True):
        stops.check()
        if 2 * fitted.chunk * fitted.program.flops / rate < left:
            # The clocks of several processes differ, and all must do the same.
            seconds = of_first_process(_seconds_of_chunk(fitted))
            timed[fitted] = seconds * fitted.calls
            left -= 2 * seconds
    measured = sum(timed.values())
    if measured:
        rate = sum(map(_flops, timed)) / measured
    return {
        name: dataclasses.replace(
            part,
            seconds=sum(timed.get(f, _flops(f) / rate) for f in part.fits)
            # What is in no program, such as further scores.
            + max(0.0, part.cost.flops - sum(map(_flops, part.fits))) / rate,
        )
        for name, part in parts.items()
    }


def _flops(fitted: Fit) -> float:
    """Of all calls of a program, repeated items included."""
    return fitted.calls * fitted.chunk * fitted.program.flops


def _seconds_of_chunk(fitted: Fit) -> float:
    """One call of a compiled program, once it is warm."""
    program = fitted.program
    arguments = jax.tree.map(_made_up, program.arguments(fitted.chunk))
    call = lambda: jax.block_until_ready(
        program.function(program.params, *arguments, **program.keywords)
    )
    return min(_timed(call), _timed(call))  # the first one may compile


def _timed(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _made_up(leaf):
    """Ones in the place of an array that is not there yet."""
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    if leaf.sharding is None:
        return jnp.ones(leaf.shape, leaf.dtype)
    ones = np.ones(leaf.shape, leaf.dtype)
    return jax.make_array_from_callback(leaf.shape, leaf.sharding, ones.__getitem__)
