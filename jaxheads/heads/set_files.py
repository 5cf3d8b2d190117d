"""Named sets of heads in a JSON file, to keep, to share and to write by hand.

::

    {
      "schema": 1,
      "shape": [30, 9],
      "params_sha256": null,
      "sets": {"two strong ones": ["18.6", "20.5"], "early": ["0.1"]}
    }

``shape`` is layers, and heads a layer; with a hash the sets are for those params alone.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxheads import runs
from jaxheads.errors import UserError, check_file
from jaxheads.heads import head_names, parse_heads

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


_MOST_HEADS = 10**7
"""That a file may say of a model, which then has room."""


def read_sets(
    path: str | Path, shape: Shape | None = None, params_sha256: str | None = None
) -> dict[str, np.ndarray]:
    """Read named sets of heads: a bool array [L, H] by name, in the file's order.

    Args:
        path: of ``write_sets``, or written by hand in its form.
        shape: (L, H) of the model that they are for; None: any.
        params_sha256: of that model; None: any. A file with null fits every model of
            its shape.

    Raises:
        UserError: the file is damaged, a head is out of range, a set is empty, or the
            sets were made for another model.
    """
    path = Path(path)
    said = read_object(path, "sets of heads", ("shape", "sets"))
    found, named = said["shape"], said["sets"]
    if not _is_shape(found):
        raise UserError(
            f"{path}: shape must be [layers, heads] of a model, not {found!r}"
        )
    if not isinstance(named, dict) or not named:
        raise UserError(
            f'{path}: sets must be one or more, like {{"a name": ["20.5", "18.6"]}}'
        )
    found = (found[0], found[1])
    check_made_for(path, found, said.get("params_sha256"), shape, params_sha256)
    sets = {}
    for name, heads in named.items():
        listed = isinstance(heads, list) and all(isinstance(h, str) for h in heads)
        if not name or not listed or not heads:
            raise UserError(
                f"{path}: set {name!r} must have a name and a list of heads, like "
                f'["20.5", "18.6"], not {json.dumps(heads)[:40]}'
            )
        try:
            sets[name] = parse_heads(heads, found)
        except UserError as error:
            raise UserError(f"{path}, set {name!r}: {error}") from error
    return sets


def write_sets(
    path: str | Path, sets: Mapping[str, np.ndarray], params_sha256: str | None = None
) -> None:
    """Write named sets of heads as JSON, atomically.

    Args:
        path: a .json file; one that is there is replaced.
        sets: bool [L, H] by name, of one shape.
        params_sha256: of the model they were chosen for
            (``model.provenance.params_sha256``); None: they fit any of their shape.

    Raises:
        UserError: no sets, sets of different shapes, or a set without heads.
    """
    shapes = sorted({np.shape(heads) for heads in sets.values()})
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise UserError(
            f"sets in one file must be one or more, of one shape [L, H], but these are "
            f"{len(sets)} of shapes {', '.join(str(list(s)) for s in shapes) or 'none'}"
        )
    for name, heads in sets.items():
        if not name or not np.any(heads):
            raise UserError(f"set {name!r} must have a name and a head, to be saved")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    said = {"schema": SCHEMA, "shape": list(shapes[0]), "params_sha256": params_sha256}
    named = {name: head_names(heads) for name, heads in sets.items()}
    runs.write_json(Path(path), said | {"sets": named})


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(size) is int and size > 0 for size in value)
        and value[0] * value[1] <= _MOST_HEADS
    )
