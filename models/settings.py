"""Reading checkpoints' settings: sizes by their names of every age, loud refusals."""

from collections.abc import Mapping
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
    """Raise ValueError at the first size, by name, that is not positive."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} must be positive, but is {value}")
