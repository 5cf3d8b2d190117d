"""What every format gives: settings and named tensors, opened but not yet read."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: its shape is known, its values are read by ``np.asarray``.

    Attributes:
        shape: as the layout's table writes it, slowest axis first.
        kind: element type in the file, such as "F32", "BF16" or "Q4_1".
        read: reads (and dequantises) the values.
    """

    shape: tuple[int, ...]
    kind: str
    read: Callable[[], np.ndarray]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self.read(), dtype=dtype)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A source of weights, opened.

    Attributes:
        path: the file or the folder.
        format: "gguf" or "safetensors".
        layout: which of a family's tables names the tensors.
        model_type: picks the family.
        settings: config.json, or the metadata of a GGUF file.
        tensors: by the file's own names.
        file_sha256: of the one file that holds the weights; None for several.
        name: what the source calls the model, if it does.
        license: what the source says of its licence, if it does.
    """

    path: Path
    format: Literal["gguf", "safetensors"]
    layout: Literal["gguf", "hf"]
    model_type: str
    settings: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    file_sha256: str | None = None
    name: str | None = None
    license: str | None = None

    def tensor_kinds(self) -> dict[str, int]:
        """How many tensors are stored in each element type, most frequent first."""
        kinds = Counter(tensor.kind for tensor in self.tensors.values())
        return dict(kinds.most_common())
