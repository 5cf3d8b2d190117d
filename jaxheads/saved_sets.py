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
from jaxheads.errors import UserError
from jaxheads.head_files import SCHEMA, Shape, check_made_for, read_object
from jaxheads.heads import head_names, parse_heads

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
    path: str | Path,
    sets: Mapping[str, np.ndarray],
    params_sha256: str | None = None,
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
