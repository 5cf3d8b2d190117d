"""Configs and what else a store says of itself, as JSON and back."""

import dataclasses
import hashlib
import json
import types
import typing
from typing import Any


def to_json(value: Any) -> str:
    """JSON of plain values and dataclasses."""
    return json.dumps(
        value,
        default=lambda x: {f.name: getattr(x, f.name) for f in dataclasses.fields(x)},
        indent=1,
        ensure_ascii=False,
        allow_nan=False,
    )


def json_sha256(value: Any) -> str:
    """SHA-256 of a value's JSON, in hexadecimal."""
    return hashlib.sha256(to_json(value).encode()).hexdigest()


def from_json(kind: Any, value: Any) -> Any:
    """A parsed JSON value as its type would have it.

    Args:
        kind: a dataclass, or what an annotation of a field may be; lists become tuples.
        value: as ``json.loads`` gives it.

    Raises:
        TypeError: a dataclass has no such field, or lacks one.
        KeyError: likewise.
    """
    if isinstance(value, list):
        return tuple(from_json(None, item) for item in value)
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    for option in kinds:
        if isinstance(value, dict) and dataclasses.is_dataclass(option):
            hints = typing.get_type_hints(option)
            given = {name: from_json(hints[name], x) for name, x in value.items()}
            return option(**given)  # type: ignore[operator]
    return value
