"""Functional model definitions: one family a file, imported as ``jaxheads.models``.

The letters of every shape comment, docstring and einsum string:

    N  subsets of heads      T  query position      H  query heads      F  MLP width
    L  layers                S  key position        G  key/value heads  V  vocabulary
    B  batch (prompts)       D  residual width      K  head width       P  positions
    M  new tokens            R  rows: runs of one prompt that share its prefix

A family's file gives ``Config``, ``Params``, ``abstract``, ``embed``, ``block``,
``unembed``, ``TENSORS`` and ``IGNORED``; see ``llama.py``. A new family is a new file
and a line in ``FAMILIES``. ``forward.py`` is the only code that runs layers.
"""

import importlib
from types import ModuleType

if __name__ == "models":
    raise ImportError(
        "this folder is jaxheads.models; a plain `import models` would make a second "
        "copy of every class: write `from jaxheads import models` instead"
    )

FAMILIES = {
    "llama": "llama",
}
"""Model type, as checkpoints name it, to the file of its family."""


def family(model_type: str) -> ModuleType:
    """The module that defines the family of a model type.

    Args:
        model_type: the name that the checkpoint gives, such as "llama".

    Raises:
        ValueError: no family in the table reads this model type.
    """
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise ValueError(
            f"the model type must be one of {known}; this one is {model_type!r}"
        )
    return importlib.import_module(f"{__name__}.{FAMILIES[model_type]}")
