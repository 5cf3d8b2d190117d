"""Rotary position embedding and its scalings, as all families use them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.models.settings import (
    check_numbers,
    check_sizes,
    flag,
    given,
    number,
    refuse_unless,
    size,
)

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
        factors: what each pair's wavelength is stretched by, beside ``scaling``; empty:
            nothing. GGUF files state "llama3" this way.

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
    factors: tuple[float, ...] = ()

    def __post_init__(self):
        _check_scaling(self.scaling)
        check_numbers(self, may_be_zero=("original_context",))
        if self.theta <= 1:
            raise ValueError(f"the rotary base must exceed 1, but is {self.theta}")
        if self.factor < 1:
            raise ValueError(
                f"the rotary factor must be 1 or more, but is {self.factor}"
            )
        if self.scaling == "llama3" and self.low_frequency >= self.high_frequency:
            raise ValueError(
                "the rotary low_freq_factor must be below the high_freq_factor, but "
                f"they are {self.low_frequency} and {self.high_frequency}"
            )

    @classmethod
    def from_hf(cls, settings: Mapping[str, Any], context: int) -> "Rope":
        """Read the rotary settings of a config.json of any age.

        Args:
            settings: the parsed file: ``rope_parameters``, or ``rope_scaling`` beside
                ``rope_theta``.
            context: ``max_position_embeddings``, what scalings fall back on.

        Raises:
            ValueError: a scaling or a number of it that is not built, or a scaling
                without its numbers.
        """
        numbers = _numbers(settings)
        base = number(settings, "rope_theta", default=10000.0)
        theta = number(numbers, "rope_theta", default=base)
        kind = numbers.get("rope_type", numbers.get("type", "default"))
        if kind in ("default", "none"):
            if number(numbers, "factor", default=1) != 1:
                raise ValueError(
                    f"the rotary settings give the factor {numbers['factor']}, which "
                    "no scaling reads: name its rope_type, or remove it"
                )
            return cls(theta)
        before = "original_max_position_embeddings"
        original = size(
            {before: given(settings, before, default=numbers.get(before, context))},
            before,
        )
        check_sizes({before: original})
        if kind == "yarn" and (before in settings or before in numbers):
            numbers.setdefault("factor", context / original)
        needed = ["factor"]
        if kind == "llama3":
            needed += ["low_freq_factor", "high_freq_factor"]
        if missing := [name for name in needed if name not in numbers]:
            raise ValueError(
                f"the rotary scaling {kind!r} must give {' and '.join(missing)}"
            )
        factor = number(numbers, "factor")
        return cls(
            theta,
            kind,
            factor,
            original if kind in ("llama3", "yarn") else 0,
            number(numbers, "low_freq_factor", default=1.0),
            number(numbers, "high_freq_factor", default=4.0),
            number(numbers, "beta_fast", default=32.0) or 32.0,
            number(numbers, "beta_slow", default=1.0) or 1.0,
            flag(numbers, "truncate", True),
            _attention_factor(numbers, factor) if kind == "yarn" else 1.0,
        )

    @classmethod
    def from_gguf(
        cls, metadata: Mapping[str, Any], architecture: str, context: int
    ) -> "Rope":
        """Read the rotary settings of a GGUF file.

        Args:
            metadata: keys such as "llama.rope.freq_base"; "rope_freqs" holds the values
                of the tensor ``rope_freqs.weight``, if the file has it.
            architecture: what the keys begin with.
            context: the context length, what "yarn" falls back on.

        Raises:
            ValueError: a scaling or a number of it that is not built.
        """
        scaling = f"{architecture}.rope.scaling."
        refused = {
            f"{scaling}alpha": (None, 0),
            f"{scaling}attn_factor": (None, 1),
            f"{scaling}yarn_ext_factor": (None, 1),
            f"{scaling}yarn_log_multiplier": (None, 0),
            f"{architecture}.rope.dimension_sections": (None,),
        }
        refuse_unless({name: (metadata.get(name), ok) for name, ok in refused.items()})
        old = f"{architecture}.rope.scale_linear"
        factor = number(metadata, f"{scaling}factor", old, default=1.0) or 1.0
        # Files that give a factor and no type mean "linear"; a factor of 0 is none.
        kind = metadata.get(f"{scaling}type") or ("none" if factor == 1 else "linear")
        theta = number(metadata, f"{architecture}.rope.freq_base", default=10000.0)
        factors = tuple(float(f) for f in metadata.get("rope_freqs", ()))
        if kind != "yarn":
            return cls(theta, kind, factor, factors=factors)
        numbers = {"attention_factor": metadata.get(f"{scaling}yarn_attn_factor")}
        return cls(
            theta,
            kind,
            factor,
            int(metadata.get(f"{scaling}original_context_length") or context),
            beta_fast=number(metadata, f"{scaling}yarn_beta_fast", default=32.0)
            or 32.0,
            beta_slow=number(metadata, f"{scaling}yarn_beta_slow", default=1.0) or 1.0,
            attention_factor=_attention_factor(numbers, factor),
            factors=factors,
        )

    def frequencies(self, width: int) -> np.ndarray:
        """Radians a position of each rotary pair: float64 [width / 2].

        Args:
            width: how much of the head is rotated; even.
        """
        plain = self.theta ** (-np.arange(0, width, 2) / width)
        if self.factors:
            if len(self.factors) != width // 2:
                raise ValueError(
                    f"the rotary factors must be {width // 2}, one for each pair of "
                    f"the head, but are {len(self.factors)}"
                )
            plain = plain / np.asarray(self.factors)
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
        span = last - first or 0.001
        stretched = np.clip((np.arange(width // 2) - first) / span, 0, 1)
        return stretched * plain / self.factor + (1 - stretched) * plain


_KNOWN = {
    *("rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings"),
    *("low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow", "truncate"),
    *("attention_factor", "mscale", "mscale_all_dim", "finetuned"),
    "partial_rotary_factor",  # families read it
}


def _check_scaling(scaling: str) -> None:
    if scaling not in SCALINGS:
        raise ValueError(
            f"the rotary scaling must be one of {', '.join(SCALINGS)}, but the config "
            f"asks for {scaling!r}"
        )


def nested_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """A config.json's own object of rotary settings.

    ``rope_scaling``, the older name, stands for the whole of ``rope_parameters`` where
    a file has both, as in transformers.

    Raises:
        ValueError: it is no object.
    """
    both = [settings.get(name) for name in ("rope_scaling", "rope_parameters")]
    for found in both:
        if found is not None and not isinstance(found, Mapping):
            raise ValueError(
                f"the rotary settings must be an object, but are {found!r}"
            )
    return both[0] or both[1] or {}


def _numbers(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The nested rotary settings, without nulls."""
    found = nested_settings(settings)
    nested = [name for name, value in found.items() if isinstance(value, Mapping)]
    if nested:
        raise ValueError(
            "the rotary settings must be the same in all layers, but the config "
            f"gives them by kind of layer ({', '.join(nested)})"
        )
    kind = found.get("rope_type", found.get("type")) or "default"
    _check_scaling("none" if kind == "default" else kind)
    found = {name: value for name, value in found.items() if value is not None}
    unknown = sorted(found.keys() - _KNOWN)
    if unknown:
        raise ValueError(
            f"the rotary settings must be among {', '.join(sorted(_KNOWN))}, but the "
            f"config also gives {', '.join(unknown)}"
        )
    return found


def _attention_factor(numbers: Mapping[str, Any], factor: float) -> float:
    """YaRN's scale of queries and keys: stated, or from the factor (section 3.4)."""
    if numbers.get("attention_factor") is not None:
        return number(numbers, "attention_factor")

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0

    if numbers.get("mscale") and numbers.get("mscale_all_dim"):
        each = [number(numbers, name) for name in ("mscale", "mscale_all_dim")]
        return scale(each[0]) / scale(each[1])
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
