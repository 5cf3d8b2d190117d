"""Qwen2 and Qwen3: Llama, with biases or norms on queries and keys.

What is particular to them, against Llama:

- Qwen2 has biases on queries, keys and values, and none elsewhere;
- Qwen3 has norms of each head's queries and keys in their place;
- layers from ``max_window_layers`` on may have a sliding window, mostly switched off;
- GGUF files keep the rows of q and k as they are on the hub.

Source: Yang et al. 2024 (Qwen2), section 2.2.1; Yang et al. 2025 (Qwen3), section 2.
"""

import dataclasses
from collections.abc import Mapping

import jax

from jaxheads.models import llama
from jaxheads.models.llama import (  # noqa: F401  (the rest is all Llama's)
    GGUF,
    HF,
    IGNORED,
    OFF,
    OUTPUT,
    PREFIX,
    SILU,
    Layers,
    Params,
    abstract,
    attention_input,
    block,
    contributions,
    embed,
    gguf_sizes,
    hf_sizes,
    hf_windows,
    layered,
    unembed,
)
from jaxheads.models.settings import flag, size


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Config(llama.Config):
    """Sizes and constants of a Qwen2 or Qwen3 model; static under jit."""

    qkv_bias: bool = True
    model_type: str = "qwen2"

    @classmethod
    def from_hf(cls, settings: Mapping) -> "Config":
        """Read the hub's config.json of a "qwen2" or "qwen3" model.

        Args:
            settings: the parsed file.

        Raises:
            ValueError: a size is missing, or a setting that changes the arithmetic has
                a value that this file does not implement.
        """
        kind = settings.get("model_type", "qwen2")
        left_out = {"sliding_window": 4096, "max_window_layers": 28}
        if kind == "qwen3":
            left_out["head_dim"] = 128
        settings = layered(settings, left_out)
        if not flag(settings, "use_sliding_window", False):
            settings = layered({"sliding_window": None}, settings)
        first = size(settings, "max_window_layers")
        biases = kind == "qwen3" and flag(settings, "attention_bias", False)
        return cls(
            **hf_sizes(settings, {"hidden_act": SILU, "mlp_bias": OFF}),
            windows=hf_windows(settings, lambda layer: layer >= first),
            qkv_bias=kind == "qwen2" or biases,
            output_bias=biases,
            qk_norm=kind == "qwen3",
            model_type=kind,
        )

    @classmethod
    def from_gguf(cls, metadata: Mapping) -> "Config":
        """Read the metadata of a GGUF file of architecture "qwen2" or "qwen3".

        Args:
            metadata: see ``gguf_sizes``.

        Raises:
            ValueError: as for ``from_hf``.
        """
        kind = metadata["general.architecture"]
        return cls(
            **gguf_sizes(metadata, kind, {"attention.sliding_window": (None, 0)}),
            qkv_bias=kind == "qwen2",
            qk_norm=kind == "qwen3",
            model_type=kind,
        )


TENSORS = {"hf": HF, "gguf": GGUF}
"""Checkpoint names and reshapes of every leaf, by layout of the source."""
