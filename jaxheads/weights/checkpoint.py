"""What every format gives: settings and named tensors, opened but not yet read."""

import dataclasses
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

MOST_NAMED = 12
"""Problems that an error spells out; of the others it gives the number."""


def listed(problems: Sequence[str]) -> str:
    """Clauses joined for one sentence; of a long list the first ones and a count."""
    shown = "; ".join(problems[:MOST_NAMED])
    more = len(problems) - MOST_NAMED
    return f"{shown}; and {more} more" if more > 0 else shown


def warn_of_not_finite(source: str, dtype: str, names: Sequence[str]) -> None:
    """Warn of tensors with NaN or infinity by name, if there are any."""
    if names:
        warnings.warn(
            f"{source} has NaN or infinite weights as {dtype}: {listed(names)}",
            stacklevel=3,
        )


def quoted(name: str) -> str:
    """A name from a file as a message shows it: escaped, and cut if it is very long."""
    return repr(name if len(name) <= 120 else name[:120] + "...")


def _keep() -> None:
    """Nothing is held that could be given back."""


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: its shape is known, its values are read by ``np.asarray``.

    Attributes:
        shape: as the layout's table writes it, slowest axis first.
        kind: element type in the file, such as "F32", "BF16" or "Q4_1".
        read: reads (and dequantises) the values; may be a view of the mapped file.
        release: gives back the memory of a mapped file; to be called when the values
            have been copied. Views stay valid: they are read again if need be.
        read_rows: reads indices ``start`` to ``stop`` of the first axis only, for kinds
            whose values are made and not viewed; None: a slice of all is as cheap.
    """

    shape: tuple[int, ...]
    kind: str
    read: Callable[[], np.ndarray]
    release: Callable[[], None] = _keep
    read_rows: Callable[[int, int], np.ndarray] | None = None

    def rows(self, start: int, stop: int) -> np.ndarray:
        """The values at indices ``start`` to ``stop`` of the first axis."""
        if self.read_rows is not None:
            return self.read_rows(start, stop)
        return self.read()[start:stop]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.read(), dtype=dtype, copy=copy)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A source of weights, opened.

    Attributes:
        path: the file or the folder.
        format: "gguf", "safetensors" or "torch" (a restricted reading of .bin files).
        layout: which of a family's tables names the tensors.
        model_type: picks the family.
        settings: config.json, or the metadata of a GGUF file.
        tensors: by the file's own names.
        file_sha256: of the one file that holds the weights, where it has been checked;
            None elsewhere: a large file is not read twice, the params are hashed.
        name: what the source calls the model, if it does.
        license: what the source says of its licence, if it does.
        files: names of the weight files that were used, in order.
    """

    path: Path
    format: Literal["gguf", "safetensors", "torch"]
    layout: Literal["gguf", "hf"]
    model_type: str
    settings: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    file_sha256: str | None = None
    name: str | None = None
    license: str | None = None
    files: tuple[str, ...] = ()

    def tensor_kinds(self) -> dict[str, int]:
        """How many tensors are stored in each element type, most frequent first."""
        kinds = Counter(tensor.kind for tensor in self.tensors.values())
        return dict(kinds.most_common())
