"""Reading checkpoints' settings: sizes by their names of every age, loud refusals."""

import dataclasses
import math
import numbers
from collections.abc import Collection, Mapping
from typing import Any


def size(settings: Mapping[str, Any], *names: str) -> int:
    """The first of several names of a size that the settings give.

    Raises:
        ValueError: none is given, or the value is no whole number.
    """
    value = given(settings, *names)
    if value is None:
        raise ValueError(f"the config must give {names[0]!r}, but does not")
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{names[0]!r} must be a whole number, but is {value!r}")
    return value


def given(settings: Mapping[str, Any], *names: str, default: Any = None) -> Any:
    """The first of several names' values that is there and not null."""
    for name in names:
        if settings.get(name) is not None:
            return settings[name]
    return default


def number(settings: Mapping[str, Any], *names: str, default: Any = None) -> float:
    """The first of several names of a number that the settings give.

    Raises:
        ValueError: none is given and there is no default, or the value is no number:
            neither true nor a text is taken for one.
    """
    value = given(settings, *names, default=default)
    if value is None:
        raise ValueError(f"the config must give {names[0]!r}, but does not")
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"{names[0]!r} must be a number, but is {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{names[0]!r} is larger than any float") from None


def flag(settings: Mapping[str, Any], name: str, default: bool) -> bool:
    """A setting that is true or false; ``default`` only if it is not there at all.

    Raises:
        ValueError: it is anything else, null included.
    """
    value = settings.get(name, default)
    if not isinstance(value, bool):
        raise ValueError(f"{name!r} must be true or false, but is {value!r}")
    return value


def refuse_unbuilt(settings: Mapping[str, Any]) -> None:
    """Raise ValueError at settings of a config.json that no family has built.

    Args:
        settings: the parsed file.
    """
    quantized = settings.get("quantization_config")
    if isinstance(quantized, Mapping):
        quantized = quantized and quantized.get("quant_method", "unnamed")
    refuse_unless(
        {
            "quantization_config": (quantized or None, (None,)),
            "is_causal": (settings.get("is_causal"), (None, True)),
        }
    )


def refuse_unread(settings: Mapping[str, Any], used: Mapping[str, Any]) -> None:
    """Raise ValueError where a config says otherwise under other families' names.

    transformers passes over such names, so that one cannot tell what is meant.

    Args:
        settings: a parsed config.json.
        used: by a name that is not read, what the other settings give.
    """
    for name, value in used.items():
        if settings.get(name) not in (None, value):
            raise ValueError(
                f"the config gives {name} = {settings[name]!r}, which is not read for "
                f"{settings.get('model_type')!r}, and what is read gives {value!r}: "
                "remove the one that the model was not trained with"
            )


def refuse_window(settings: Mapping[str, Any]) -> None:
    """Raise ValueError at an attention window where the family has none.

    transformers keeps the window's positions in its cache and attends to all without
    one: its own results differ, so that there is no right one.
    """
    window = settings.get("sliding_window")
    if window is not None:
        raise ValueError(
            f"the config gives sliding_window = {window!r}, but the model type "
            f"{settings.get('model_type')!r} has no attention window: remove the "
            "setting, or name the model type that the model was trained as"
        )


def refuse_unless(checks: Mapping[str, tuple[Any, tuple]]) -> None:
    """Raise one ValueError that names every setting with an unsupported value.

    Args:
        checks: by name, the value and the values that are built.
    """
    wrong = [
        f"{name} = {value!r} (supported: {', '.join(map(repr, allowed))})"
        for name, (value, allowed) in checks.items()
        if value not in allowed
    ]
    if wrong:
        raise ValueError("the config asks for what is not built: " + "; ".join(wrong))


def check_sizes(sizes: Mapping[str, int]) -> None:
    """Raise ValueError at the first size, by name, that no model can have."""
    for name, value in sizes.items():
        _check_size(name, value, may_be_zero=False)


LARGEST = 2**31 - 1
"""Of a size: positions and ids are int32."""

MOST_LAYERS = 100_000
"""Each has tensors of its own names, which are looked for one by one."""


def check_numbers(config: Any, may_be_zero: Collection[str] = ()) -> None:
    """Raise ValueError at the first number of a config that no model can have.

    Sizes are whole numbers from 1 to ``LARGEST``; all others are finite and above 0.

    Args:
        config: a dataclass; its fields of type int and float, float or None, and tuple
            of floats are looked at.
        may_be_zero: names of fields that 0 is right for, too.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.type is int:
            _check_size(field.name, value, field.name in may_be_zero)
        elif field.type in (float, float | None, tuple[float, ...]):
            several = value if isinstance(value, tuple) else (value,)
            for each in several:
                if each is not None or field.type is float:
                    _check_number(field.name, each, field.name in may_be_zero)


def _check_size(name: str, value: Any, may_be_zero: bool) -> None:
    least = 0 if may_be_zero else 1
    most = MOST_LAYERS if name == "num_layers" else LARGEST
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number, but is {value!r}")
    if not least <= value <= most:
        said = "0 or more" if may_be_zero else "positive"
        raise ValueError(f"{name} must be {said} and at most {most}, but is {value}")


def _check_number(name: str, value: Any, may_be_zero: bool) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number, but is {value!r}")
    if not math.isfinite(value) or value < 0 or (value == 0 and not may_be_zero):
        said = "0 or more and finite" if may_be_zero else "positive and finite"
        raise ValueError(f"{name} must be {said}, but is {value}")
