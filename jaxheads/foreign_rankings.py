"""Rankings and mean heads in the files of the published codes.

====================================  ==================================================
file                                  what it holds
====================================  ==================================================
fv.pkl, induction.pkl                 a pickle of {"layer.head": score} for every head
indirect_effect.pt                    a tensor [N, L, H], or [N, L, H, C] for C classes
                                      of tokens, the last of which is the last token
mean_head_activations.pt              a tensor [L, H, T, K], or [L, H, K]: mean outputs,
                                      before the output projection, at the T slots of
                                      the prompt's template; the last is the last token
a list of top heads, .json .txt .py   (layer, head, score) for each of them
====================================  ==================================================

Nothing in any of them is executed. Layers and heads count from 0 everywhere.

Sources: Yin & Steinhardt 2025, published code icl-heads (the first three); Todd et al.
2024, published code function_vectors (the last three, of one task each).
"""

import math
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxheads import runs
from jaxheads.errors import UserError, check_file
from jaxheads.head_files import Shape
from jaxheads.head_lists import (
    HeadList,
    finite,
    list_heads,
    meaning,
    number,
    read_head_list,
)
from jaxheads.heads import HeadScores, from_samples, head_name
from jaxheads.weights import torch_bin
from jaxheads.weights.inert_arrays import Array, open_pickle

_PICKLES = (".pkl", ".pickle")
_TENSORS = (".pt", ".pth")
_TEXTS = (".txt", ".py")


def is_foreign(path: Path) -> bool:
    """Whether ``read_scores`` is to read a file, by its ending or its first letter."""
    ending = path.suffix.lower()
    if ending == ".json":
        check_file(path)
        try:
            with path.open("rb") as file:
                first = file.read(200).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
        except OSError:
            return False
        return first == b"["
    return ending in _PICKLES + _TENSORS + _TEXTS


def read_scores(path: str | Path, name: str | None = None) -> HeadScores | HeadList:
    """Read what a published code says of heads: scores of all, or a list of some.

    Args:
        path: of one of the files above, but for the mean heads.
        name: for the score; None: the file's.

    Returns:
        Scores [L, H]; standard errors over the N trials of an indirect effect, else
        nan. A file of icl-heads has averaged over tasks, trial by trial: the error is
        that of the mean over these tasks' prompts. Or a list.

    Raises:
        UserError: the file is damaged, asks for something to be run, or holds something
            else; nothing of it is run.
    """
    path = Path(path)
    name = name or path.stem
    ending = path.suffix.lower()
    if ending in _TENSORS:
        return _from_effects(path, name)
    if ending in _PICKLES:
        return _from_pickle(path, name)
    return read_head_list(path, name)


def read_mean_heads(
    path: str | Path, shape: tuple[int, int, int] | None = None
) -> np.ndarray:
    """Read mean head outputs: a ``fill`` for ``jh.Ablation``.

    Args:
        path: a tensor [L, H, K], or [L, H, T, K], of which the last slot is taken: the
            one that a function vector is made of and that an ablation of the last token
            uses.
        shape: (L, H, K) of the model that it is for; None: any.

    Returns:
        float32 [L, H, K].

    Raises:
        UserError: the file is damaged, asks for something to be run, or was made for
            another model.
    """
    path = Path(path)
    if "indirect_effect" in path.name:  # of the same number of axes
        raise UserError(f"{path} holds scores, as its name says, and no mean heads")
    values = torch_bin.open_tensor(path, "mean head outputs")
    if values.ndim not in (3, 4) or 0 in values.shape:
        raise UserError(
            f"{path} must hold mean head outputs [L, H, K] or [L, H, T, K], but its "
            f"tensor has the shape {list(values.shape)}"
        )
    means = np.array(values if values.ndim == 3 else values[:, :, -1], np.float32)
    if shape is not None and means.shape != tuple(shape):
        raise UserError(
            f"{path} was made for a model of [L, H, K] = {list(means.shape)}, but this "
            f"one has {list(shape)}: give a file of this model"
        )
    if not np.isfinite(means).all():
        raise UserError(f"{path} has mean head outputs that are no finite numbers")
    return means


def write_pickled_scores(path: str | Path, scores: np.ndarray) -> None:
    """Write {"layer.head": score}, atomically, as icl-heads reads it.

    Args:
        path: such as fv.pkl or induction.pkl.
        scores: float [L, H].

    Raises:
        UserError: a score is no finite number.
    """
    values = finite(scores)
    named = {head_name(*at): float(value) for at, value in np.ndenumerate(values)}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    runs.write_bytes(path, pickle.dumps(named, 4))


def grid(
    path: Path, rows: Mapping[Shape, tuple[float, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and standard errors by (layer, head) -> two [L, H].

    Raises:
        UserError: a head is missing.
    """
    shape = tuple(1 + max((at[n] for at in rows), default=-1) for n in (0, 1))
    # Indices from a file can be of any size: the first gap ends the search.
    every = ((l, h) for l in range(shape[0]) for h in range(shape[1]))
    absent = next((at for at in every if at not in rows), None)
    if absent or not rows:
        what = f"head {head_name(*absent)}" if absent else "any row"
        raise UserError(f"{path} must have a row for every head, but not {what}")
    numbers = np.array([rows[at] for at in np.ndindex(*shape)]).reshape(*shape, 2)
    return numbers[..., 0], numbers[..., 1]


def _from_pickle(path: Path, name: str) -> HeadScores | HeadList:
    value = open_pickle(path, "scores of heads")
    if isinstance(value, Array) and value.values is not None:
        mean = finite(value.values, path)
        return _unexplained(path, name, mean)
    if isinstance(value, list):
        return list_heads(path, name, value)
    if not isinstance(value, dict) or not value:
        raise UserError(
            f'{path} must hold scores by head, {{"layer.head": score}}, an array '
            f"[L, H] or a list of (layer, head, score), but holds something of type "
            f"{type(value).__name__}{'' if value else ' that is empty'}"
        )
    rows: dict[Shape, tuple[float, float]] = {}
    for key, score in value.items():
        layer, dot, head = str(key).partition(".")
        if not (dot and _is_index(layer) and _is_index(head)):
            raise UserError(
                f"{path} must hold scores by head, such as '20.5', but has {key!r:.60}"
            )
        at = int(layer), int(head)
        if at in rows:
            raise UserError(f"{path} has head {head_name(*at)} twice")
        if isinstance(score, Array) and score.values is not None:
            score = score.values.item() if score.values.size == 1 else score
        rows[at] = number(path, head_name(*at), score), math.nan
    return _unexplained(path, name, grid(path, rows)[0])


def _from_effects(path: Path, name: str) -> HeadScores:
    if "mean_head_activations" in path.name:  # of the same number of axes
        raise UserError(
            f"{path} holds mean head outputs, as its name says, and no scores: give "
            "fv.pkl or indirect_effect.pt from beside it"
        )
    values = torch_bin.open_tensor(path, "indirect effects")
    if values.ndim not in (3, 4) or 0 in values.shape:
        raise UserError(
            f"{path} must hold indirect effects [N, L, H] of N trials, or "
            f"[N, L, H, C] for C classes of tokens, but its tensor has the shape "
            f"{list(values.shape)}"
        )
    trials = np.asarray(values if values.ndim == 3 else values[..., -1], np.float64)
    mean, error = from_samples(np.moveaxis(trials, 0, -1))  # [L, H, N]
    said = {
        "definition": f"mean over {len(trials)} trials of p(answer | head at the last "
        "token := its mean) - p(answer), prompts with shuffled labels",
        "unit": "probability",
        "chance": 0.0,
        "ceiling": 1.0,
        "source": str(path),
    }
    return HeadScores(name, finite(mean, path), error, **meaning(said))


def _unexplained(path: Path, name: str, mean: np.ndarray) -> HeadScores:
    """Scores of which the file says nothing but the numbers."""
    error = np.full(mean.shape, np.nan)
    return HeadScores(name, mean, error, **meaning({"source": str(path)}))


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10
