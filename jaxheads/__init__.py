"""Which attention heads carry in-context learning? Every head, every subset, exactly.

The names below load on first use, so that ``import jaxheads`` starts nothing.
"""

import importlib

TYPE_CHECKING = False  # not of typing, whose import takes longer than all else here
if TYPE_CHECKING:
    from typing import Any

    from jaxheads.heads import HeadScores
    from jaxheads.models.ablation import Ablation
    from jaxheads.models.forward import (
        Output,
        Prefix,
        forward,
        generate,
        last_token_logits,
        patch_each_head,
        prefill,
    )
    from jaxheads.models.metrics import log_probability, logit_difference, probability
    from jaxheads.weights.model import Model, load

_HOMES = {
    "HeadScores": "jaxheads.heads",
    "Model": "jaxheads.weights.model",
    "load": "jaxheads.weights.model",
    "Ablation": "jaxheads.models.ablation",
    "Output": "jaxheads.models.forward",
    "Prefix": "jaxheads.models.forward",
    "forward": "jaxheads.models.forward",
    "generate": "jaxheads.models.forward",
    "last_token_logits": "jaxheads.models.forward",
    "log_probability": "jaxheads.models.metrics",
    "logit_difference": "jaxheads.models.metrics",
    "patch_each_head": "jaxheads.models.forward",
    "prefill": "jaxheads.models.forward",
    "probability": "jaxheads.models.metrics",
}

__all__ = [
    "Ablation",
    "HeadScores",
    "Model",
    "Output",
    "Prefix",
    "forward",
    "generate",
    "last_token_logits",
    "load",
    "log_probability",
    "logit_difference",
    "patch_each_head",
    "prefill",
    "probability",
]


def __getattr__(name: str) -> "Any":
    """Load a public name from its home module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value  # the next access finds it here
    return value


def __dir__() -> list[str]:
    """Public names, loaded or not."""
    return sorted({*globals(), *__all__})
