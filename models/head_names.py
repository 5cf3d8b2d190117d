"""Heads by name: "layer.head", both counted from 0."""

from collections.abc import Iterable

import numpy as np


def named_heads(names: Iterable[str], shape: tuple[int, int]) -> np.ndarray:
    """The set of the heads that are named, such as "20.5": bool [L, H].

    Raises:
        ValueError: a name is not of that form, or the model has no such head.
    """
    chosen = np.zeros(shape, bool)
    for name in names:
        layer, dot, head = name.partition(".")
        if not (dot and layer.isdecimal() and head.isdecimal()):
            raise ValueError(f'a head is written "layer.head", like 20.5, not {name!r}')
        if int(layer) >= shape[0] or int(head) >= shape[1]:
            raise ValueError(
                f"head {name} is out of range: the model has layers 0 to "
                f"{shape[0] - 1} with heads 0 to {shape[1] - 1}"
            )
        chosen[int(layer), int(head)] = True
    return chosen
