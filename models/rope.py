"""Rotary position embedding and its scalings, as all families use them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SCALINGS = ("none", "linear", "dynamic", "llama3", "yarn")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Rope:
    """How rotary phases follow from positions; static under jit.

    Attributes:
        theta: base of the wavelengths.
        scaling: one of ``SCALINGS``. "dynamic" widens the base only beyond the context
            that the model was trained for; ``forward`` refuses such sequences, so here
            it is equal to "none".
        factor: how many times longer the context was made.
        original_context: positions before it was made longer ("llama3", "yarn").
        low_frequency: "llama3": turns in ``original_context`` below which a wavelength
            is stretched by the whole factor.
        high_frequency: "llama3": turns above which it is left alone.
        beta_fast: "yarn": turns above which a wavelength is left alone.
        beta_slow: "yarn": turns below which it is stretched by the whole factor.
        truncate: "yarn": round the two borders between wavelengths outward.
        attention_factor: "yarn": scale of the rotated queries and keys.

    Source: Su et al. 2021 (RoFormer); Peng et al. 2023 (YaRN), sections 3.1 to 3.4.
    """

    theta: float = 10000.0
    scaling: str = "none"
    factor: float = 1.0
    original_context: int = 0
    low_frequency: float = 1.0
    high_frequency: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float = 1.0

    @classmethod
    def from_hf(cls, settings: Mapping[str, Any], context: int) -> "Rope":
        """Read the rotary settings of a config.json of any age.

        Args:
            settings: the parsed file: ``rope_parameters``, or ``rope_scaling`` beside
                ``rope_theta`` or the older ``rotary_emb_base``.
            context: ``max_position_embeddings``, what scalings fall back on.

        Raises:
            ValueError: a scaling that is not built, or one without its numbers.
        """
        given = dict(settings.get("rope_scaling") or {})
        given.update(settings.get("rope_parameters") or {})
        old_base = settings.get("rotary_emb_base", 10000.0)
        nested = [name for name, value in given.items() if isinstance(value, Mapping)]
        if nested:
            raise ValueError(
                "the rotary settings must be the same in all layers, but the config "
                f"gives them by kind of layer ({', '.join(nested)})"
            )
        theta = float(given.get("rope_theta", settings.get("rope_theta", old_base)))
        kind = given.get("rope_type", given.get("type")) or "default"
        scaling = "none" if kind == "default" else kind
        if scaling not in SCALINGS:
            raise ValueError(
                f"the rotary scaling must be one of {', '.join(SCALINGS)}, but the "
                f"config asks for {kind!r}"
            )
        if scaling == "none":
            return cls(theta)
        if "factor" not in given:
            raise ValueError(f"the rotary scaling {kind!r} must give a factor")
        factor = float(given["factor"])
        if factor < 1:
            raise ValueError(f"the rotary factor must be 1 or more, but is {factor}")
        original = given.get("original_max_position_embeddings")
        original = original or settings.get("original_max_position_embeddings")
        return cls(
            theta,
            scaling,
            factor,
            int(original or context),
            float(given.get("low_freq_factor", 1.0)),
            float(given.get("high_freq_factor", 4.0)),
            float(given.get("beta_fast") or 32.0),
            float(given.get("beta_slow") or 1.0),
            bool(given.get("truncate", True)),
            _attention_factor(given, factor) if scaling == "yarn" else 1.0,
        )

    def frequencies(self, width: int) -> np.ndarray:
        """Radians a position of each rotary pair: float64 [width / 2].

        Args:
            width: how much of the head is rotated; even.
        """
        plain = self.theta ** (-np.arange(0, width, 2) / width)
        if self.scaling == "linear":
            return plain / self.factor
        if self.scaling == "llama3":
            return self._llama3(plain)
        if self.scaling == "yarn":
            return self._yarn(plain, width)
        return plain

    def _llama3(self, plain: np.ndarray) -> np.ndarray:
        turns = self.original_context * plain / (2 * math.pi)
        span = self.high_frequency - self.low_frequency
        share = np.clip((turns - self.low_frequency) / span, 0, 1)
        return share * plain + (1 - share) * plain / self.factor

    def _yarn(self, plain: np.ndarray, width: int) -> np.ndarray:
        def pair_of(turns: float) -> float:
            """The pair, as a real number, that makes so many turns in the context."""
            wavelength = self.original_context / (2 * math.pi * turns)
            return width * math.log(wavelength) / (2 * math.log(self.theta))

        first, last = pair_of(self.beta_fast), pair_of(self.beta_slow)
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, width - 1)
        span = max(last - first, 0.001)
        stretched = np.clip((np.arange(width // 2) - first) / span, 0, 1)
        return stretched * plain / self.factor + (1 - stretched) * plain


def _attention_factor(given: Mapping[str, Any], factor: float) -> float:
    """YaRN's scale of queries and keys: stated, or from the factor (section 3.4)."""
    if given.get("attention_factor") is not None:
        return float(given["attention_factor"])

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0

    if given.get("mscale") and given.get("mscale_all_dim"):
        return scale(given["mscale"]) / scale(given["mscale_all_dim"])
    return scale(1.0)


def rotary(
    x: jax.Array, positions: jax.Array, rope: Rope, width: int | None = None
) -> jax.Array:
    """Rotate half-split pairs (i, i + width/2) by ``position * frequency``.

    Args:
        x: queries or keys [B, T, H, K].
        positions: int [B, T].
        rope: base and scaling.
        width: how much of K is rotated, from its start; None: all.

    Returns:
        [B, T, H, K] in the dtype of ``x``. Phases are float32 whatever it is: bfloat16
        cannot tell position 257 from 256.
    """
    width = x.shape[-1] if width is None else width
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    frequencies = jnp.asarray(rope.frequencies(width), dtype)  # [width / 2]
    phases = positions.astype(dtype)[:, :, None, None] * frequencies[None, None, None]
    cos = rope.attention_factor * jnp.cos(phases)  # [B, T, 1, width / 2]
    sin = rope.attention_factor * jnp.sin(phases)
    turned, rest = x[..., :width].astype(dtype), x[..., width:]
    first, second = jnp.split(turned, 2, axis=-1)
    rotated = jnp.concatenate(
        [first * cos - second * sin, second * cos + first * sin], axis=-1
    )
    return jnp.concatenate([rotated.astype(x.dtype), rest], axis=-1)
