"""The models that are compared: by name, the settings of transformers' config.

Sizes are pairwise distinct wherever the family allows it, so that a swapped axis cannot
pass; there are three layers, so that an off-by-one in a layer cannot pass either.
Norms' epsilons are large, so that another one shows.
"""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Variant:
    """A tiny model.

    Attributes:
        settings: "model_type" and what else transformers' config takes.
        gain: times the usual standard deviation of weights (1 / sqrt(fan in)). As large
            as transformers' own float32 rounding allows: about 2e-5 in the logits.
    """

    settings: dict[str, Any]
    gain: float


_LLAMA = {
    "num_hidden_layers": 3,
    "hidden_size": 20,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "intermediate_size": 28,
    "vocab_size": 37,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-3,
}
_NEOX = {
    "model_type": "gpt_neox",
    "num_hidden_layers": 3,
    "hidden_size": 24,
    "num_attention_heads": 3,
    "intermediate_size": 34,
    "vocab_size": 37,
    "max_position_embeddings": 64,
    "layer_norm_eps": 1e-3,
}
_GPT2 = {
    "model_type": "gpt2",
    "n_layer": 3,
    "n_embd": 24,
    "n_head": 3,
    "n_inner": 34,
    "vocab_size": 37,
    "n_positions": 64,
    "layer_norm_epsilon": 1e-3,
}


def _llama(kind: str = "llama", gain: float = 1.3, **changes: Any) -> Variant:
    return Variant({"model_type": kind, **_LLAMA, **changes}, gain)


def _rope(kind: str, **numbers: Any) -> Variant:
    rope = {"rope_type": kind, "rope_theta": 1000.0, **numbers}
    gain = 1.1 if "attention_factor" in numbers else 1.3  # it sharpens attention
    # Eight rotary pairs: borders between wavelengths fall among them.
    return _llama(
        gain=gain,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        rope_parameters=rope,
    )


def _neox(**changes: Any) -> Variant:
    return Variant({**_NEOX, "rotary_pct": 0.25, **changes}, 2.0)


def _gpt2(gain: float = 1.8, **changes: Any) -> Variant:
    return Variant({**_GPT2, **changes}, gain)


VARIANTS = {
    "llama-gqa": _llama(),
    "llama-mha": _llama(num_key_value_heads=4, rope_theta=500.0),
    "llama-mqa": _llama(num_key_value_heads=1),
    "llama-head-dim": _llama(num_attention_heads=2, head_dim=14),
    "llama-tied": _llama(tie_word_embeddings=True),
    "llama-biases": _llama(attention_bias=True, mlp_bias=True),
    "llama-linear": _rope("linear", factor=4.0),
    "llama-dynamic": _rope("dynamic", factor=2.0),
    "llama-llama3": _rope(
        "llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=32,
    ),
    "llama-yarn": _rope("yarn", factor=2.0, original_max_position_embeddings=32),
    "llama-yarn-given": _rope(
        "yarn",
        factor=3.0,
        original_max_position_embeddings=32,
        attention_factor=1.3,
        beta_fast=4.0,
        beta_slow=0.5,
        truncate=False,
    ),
    "mistral-window": _llama("mistral", sliding_window=7),
    "mistral": _llama("mistral", sliding_window=None),
    "qwen2": _llama("qwen2"),
    "qwen2-windows": _llama(
        "qwen2", use_sliding_window=True, sliding_window=7, max_window_layers=1
    ),
    "qwen3": _llama("qwen3"),
    "qwen3-tied-biases": _llama("qwen3", tie_word_embeddings=True, attention_bias=True),
    "olmo2": _llama("olmo2"),
    "gemma2": _llama(
        "gemma2",
        gain=2.5,
        sliding_window=7,
        query_pre_attn_scalar=11,
        attn_logit_softcapping=8.0,
        final_logit_softcapping=12.0,
    ),
    "gpt_neox": _neox(),
    "gpt_neox-sequential": _neox(use_parallel_residual=False),
    "gpt_neox-whole-rotary": _neox(rotary_pct=1.0, rotary_emb_base=500),
    "gpt_neox-more-rotary": _neox(rotary_pct=0.75),
    "gpt_neox-tanh": _neox(hidden_act="gelu_fast"),
    "gpt_neox-tied": _neox(tie_word_embeddings=True),
    "gpt2": _gpt2(),
    "gpt2-unscaled": _gpt2(gain=1.4, scale_attn_weights=False),
    "gpt2-untied": _gpt2(tie_word_embeddings=False),
    "gpt2-other-mlp": _gpt2(n_inner=None, activation_function="gelu"),
}
"""The first variant of each model type stands for it where one is enough."""

CHANGES = [
    ("llama-gqa", {"rms_norm_eps": 1e-5}),
    ("llama-mha", {"rope_theta": 1000.0}),
    ("llama-linear", {"rope_parameters": {"rope_type": "default"}}),
    ("llama-llama3", {"rope_parameters": {"rope_type": "default"}}),
    ("llama-llama3", {"rope_parameters": {"low_freq_factor": 2.0}}),
    ("llama-llama3", {"rope_parameters": {"high_freq_factor": 8.0}}),
    ("llama-yarn", {"rope_parameters": {"rope_type": "default"}}),
    ("llama-yarn", {"rope_parameters": {"attention_factor": 1.0}}),
    ("llama-yarn", {"rope_parameters": {"truncate": False}}),
    ("llama-yarn-given", {"rope_parameters": {"beta_slow": 1.0}}),
    ("llama-yarn-given", {"rope_parameters": {"beta_fast": 32.0}}),
    ("mistral-window", {"sliding_window": 8}),
    ("qwen2", {"rms_norm_eps": 1e-5}),
    ("qwen2-windows", {"use_sliding_window": False}),
    ("qwen2-windows", {"max_window_layers": 2}),
    ("qwen3", {"rms_norm_eps": 1e-5}),
    ("olmo2", {"rms_norm_eps": 1e-5}),
    ("gemma2", {"sliding_window": 6}),
    ("gemma2", {"query_pre_attn_scalar": 6}),
    ("gemma2", {"attn_logit_softcapping": None}),
    ("gemma2", {"final_logit_softcapping": None}),
    ("gemma2", {"hidden_activation": "gelu"}),
    ("gemma2", {"rms_norm_eps": 1e-5}),
    ("gpt_neox", {"layer_norm_eps": 1e-5}),
    ("gpt_neox", {"use_parallel_residual": False}),
    ("gpt_neox", {"rotary_pct": 0.75}),
    ("gpt_neox", {"hidden_act": "gelu_new"}),
    ("gpt2", {"layer_norm_epsilon": 1e-5}),
    ("gpt2", {"activation_function": "gelu"}),
    ("gpt2", {"scale_attn_weights": False}),
]
"""Settings that must be seen in a variant's logits, if the comparisons are to tell."""
