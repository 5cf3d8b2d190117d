"""What files about one model's heads share: checked JSON, and for which params."""

import json
from pathlib import Path
from typing import Any

from jaxheads.errors import UserError, check_file

SCHEMA = 1
Shape = tuple[int, int]


def read_text(path: Path) -> str:
    """Read a whole text file.

    Raises:
        UserError: it cannot be read, or is no text.
    """
    check_file(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} must be a readable file, but: {reason}") from error


def read_object(path: Path, what: str, needed: tuple[str, ...]) -> dict[str, Any]:
    """Read a JSON object of this schema.

    Args:
        path: of the file.
        what: it holds, for the message.
        needed: keys that it must have.

    Raises:
        UserError: it is no such object, or a key stands twice in one.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        said = dict(pairs)
        if len(said) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{path} has {twice!r} twice")
        return said

    try:
        said = json.loads(read_text(path), object_pairs_hook=unique)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} must be JSON, but is not: {error}") from error
    lacking = ["schema", *needed]
    if isinstance(said, dict):
        lacking = [key for key in lacking if key not in said]
    if lacking:
        raise UserError(
            f"{path} must hold {what} as a JSON object, but has no {', '.join(lacking)}"
        )
    if said["schema"] != SCHEMA:
        raise UserError(
            f"{path} has schema {said['schema']!r}, but this version reads {SCHEMA}"
        )
    return said


def check_made_for(
    path: Path,
    found: tuple[int, ...],
    found_sha256: str | None,
    shape: Shape | None,
    params_sha256: str | None,
) -> None:
    """Refuse a file that was made for another model.

    Args:
        path: of the file.
        found: (L, H) that it was made for.
        found_sha256: of the params that it was made for; None: unknown.
        shape: (L, H) of the model that it is for; None: any.
        params_sha256: of that model; None: any.

    Raises:
        UserError: shapes or hashes differ.
    """
    if shape is not None and found != tuple(shape):
        raise UserError(
            f"{path} was made for a model of {found[0]} layers of {found[1]} heads, "
            f"but this one has {shape[0]} of {shape[1]}: give a file of this model"
        )
    if found_sha256 and params_sha256 and found_sha256 != params_sha256:
        raise UserError(
            f"{path} was made for other params ({str(found_sha256)[:12]}..., these "
            f"are {params_sha256[:12]}...): give a file of this model, or one that "
            'says "params_sha256": null'
        )
