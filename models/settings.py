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
