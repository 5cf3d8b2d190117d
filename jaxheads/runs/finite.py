"""What must be a number before it is written, and what may be unknown, with reasons.

A study stops at the first value that is not finite: its units as they are computed,
and its arrays before ``result.json``. Arrays that hold NaN on purpose stand in
``UNKNOWN``; no array may hold infinity.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxheads.errors import UserError

Axes = Sequence[str] | Mapping[str, Sequence[str]]
"""Letters or words of an array's axes, or these by the name of an array."""

_NO_TARGET = "a mean over targets of which there is none"
_WINDOWS = (
    r"(icl_score|token_loss_difference|early_loss|late_loss)(_\w+)?|loss_by_position|"
    r"token_losses(_ablated)?|accuracy(_\w+)?|(?!all_loss)\w+_loss|loss_by_shot|"
    r"legal_next_symbol\w*|total_variation\w*"
)
UNKNOWN = {
    r"(score|attribution|redundancy)/\w+_se": "one sample has no standard error",
    r"attribution/\w+_exact": "a head that was not verified",
    r"redundancy/interaction": "a head with itself",
    r"redundancy/\w+_held_out_share": "the held-out value does not lie above the floor",
    rf"(evaluation/|arm_\d+/train/)?({_WINDOWS})": _NO_TARGET,
    rf"run_\d+/(curves|attribution)/({_WINDOWS})": _NO_TARGET,
    r"run_\d+/(curves/\w+|components/coordinates)": "an evaluation left out",
    r"run_\d+/positions/(loss|derivative)": "no target is scored there",
    r"by_head(_full)?|attribution(_full)?": _NO_TARGET,
    r"run_\d+/attribution/(by_head\w*|correlation|share\w*)": _NO_TARGET,
    r"run_\d+/together/icl_score": "a seed has no induction head to leave out",
    r"run_\d+/before_and_after/\w+": "a seed has no phase change",
    r"run_\d+/components/(pivot|angle)": "the trajectory turns nowhere",
    r"arm_\d+[/-]patching/(prefix_matching|control)(_se)?": "a layer not reached",
    r"(arm_\d+/head_effects/)?(effect|probability|loss)/\w+": _NO_TARGET,
}
"""Names of arrays that may hold NaN, as patterns, and what NaN says there.

An array of a unit is known by its own name, or by the unit's and its own.
"""

_WORDS = {
    "L": "layer", "H": "head", "G": "key/value head", "B": "prompt", "T": "position",
    "P": "position", "A": "task", "E": "task", "U": "task", "N": "set", "M": "set",
    "W": "vector", "K": "element", "D": "element", "S": "position",
}  # fmt: skip
_TRAINED = {"N": "seed", "E": "evaluation", "C": "step", "S": "sample"}
_OF_ARRAYS = {
    r"token_loss/.*": {"B": "document"},
    r"(evaluation|train|components|run_\d+|arm_\d+)/.*": _TRAINED,
}
"""Words of letters that mean something else in some arrays of a result."""
_ADVICE = {
    "float16": "float16 ends at 65,504: give --dtype bfloat16 or float32",
    "bfloat16": "if `jaxheads doctor` finds the weights whole, give --dtype float32",
}


def plain(value: Any) -> Any:
    """A value as JSON has it: null for a number that is not finite, text for a path.

    A dataclass becomes a mapping, a tuple or an array a list.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def unknown(name: str) -> str:
    """Why an array may hold NaN; "": it may not."""
    found = (why for made, why in UNKNOWN.items() if re.fullmatch(made, name))
    return next(found, "")


def first(
    values: np.ndarray, may_be_nan: bool = False
) -> tuple[tuple[int, ...], int] | None:
    """Index of the first value that is not finite, and how many there are.

    Args:
        values: any array; only floats can fail.
        may_be_nan: infinity alone counts.

    Returns:
        The index in the order of the axes; None: all values are finite.
    """
    values = np.asarray(values)
    if values.dtype.kind not in "fc":
        return None
    wrong = np.isinf(values) if may_be_nan else ~np.isfinite(values)
    if not wrong.any():
        return None
    at = np.unravel_index(int(wrong.argmax()), wrong.shape)
    return tuple(map(int, at)), int(wrong.sum())


def place(
    at: Sequence[int],
    axes: Sequence[str],
    names: Mapping[str, Sequence[Any]] | None = None,
) -> str:
    """An index in words, such as "layer 3, head 2, prompt 5".

    Args:
        at: the index.
        axes: letters or words of the axes; too few: the index as it is.
        names: of the things on an axis, by its letter.
    """
    if len(axes) != len(at):
        return f"index {tuple(at)}"
    told = []
    for axis, index in zip(axes, at, strict=True):
        listed = (names or {}).get(axis, ())
        name = listed[index] if index < len(listed) else index
        told.append(f"{_WORDS.get(axis, axis)} {name}")
    return ", ".join(told) or "its one value"


def check_arrays(
    arrays: Mapping[str, np.ndarray],
    axes: Axes,
    where: str,
    identity: Mapping[str, Any],
    names: Mapping[str, Mapping[str, Sequence[Any]]] | None = None,
) -> None:
    """Refuse arrays with values that are not finite.

    Args:
        arrays: that are to be written.
        axes: of all of them, or of each by name.
        where: what they belong to.
        identity: of the run: "study", "config" and "model".
        names: of the things on an array's axes, by array and letter.

    Raises:
        UserError: names the array, the place of the first such value and what to do.
    """
    for name, values in arrays.items():
        may_be_nan = bool(unknown(name) or unknown(f"{where}/{name}"))
        found = first(values, may_be_nan)
        if found is None:
            continue
        at, count = found
        own = axes.get(name, ()) if isinstance(axes, Mapping) else axes
        other = (w for made, w in _OF_ARRAYS.items() if re.fullmatch(made, name))
        words = next(other, {})
        own = [words.get(axis, axis) for axis in own]
        spot = place(at, own, (names or {}).get(name))
        more = f", the first of {count:,} in {np.size(values):,}" if count > 1 else ""
        raise UserError(
            f"{name} of {where} must be finite, but is {np.asarray(values)[at]} at "
            f"{spot}{more}: {_advice(identity)}; nothing is written of it"
        )


def check_result(value: Any, name: str = "") -> None:
    """Refuse a number that JSON does not have.

    Args:
        value: what ``result.json`` is to say.
        name: where in it this stands.

    Raises:
        UserError: names it.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            check_result(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            check_result(inner, f"{name}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(
            f"{name} of the result must be finite, but is {value}: nothing is written; "
            "`jaxheads doctor` says if the model's values are numbers"
        )


def _advice(identity: Mapping[str, Any]) -> str:
    """What to try, by the study and the dtype of the params."""
    if identity.get("study") == "train":
        return "give a lower --learning-rate, a longer --warmup or a --clip"
    dtype = (identity.get("model") or {}).get("dtype")
    whole = "`jaxheads doctor` says which weights of the model are no numbers"
    return _ADVICE.get(str(dtype), whole)
