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

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxheads.errors import UserError, check_file
from jaxheads.heads import MEANING, HeadScores, from_samples, head_name
from jaxheads.heads.set_files import Shape, read_text
from jaxheads.weights import torch_bin
from jaxheads.weights.pickles import Array, open_pickle

_BLANK = re.compile(r"(?:\s+|#[^\n]*)*")
_OPENING = re.compile(r"(?:[A-Za-z_]\w*\s*=\s*)?[\[(]")
_ENTRY = re.compile(
    r"[\[(]\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,\s*([-+]?[\d.]{1,40}(?:[eE][-+]?\d{1,4})?)"
    r"\s*,?\s*[\])]"
)


@dataclasses.dataclass(frozen=True)
class HeadList:
    """Some heads with their scores, in the file's order; of the others nothing.

    Attributes:
        name: of the score.
        heads: (layer, head) of each.
        scores: of each.
    """

    name: str
    heads: tuple[tuple[int, int], ...]
    scores: tuple[float, ...]


def read_head_list(path: str | Path, name: str | None = None) -> HeadList:
    """Read [(layer, head, score), ...]: JSON, or Python's, such as ``heads = [...]``.

    Brackets are round or square; # begins a comment. The text is taken apart by this
    grammar and never evaluated.

    Args:
        path: a text file.
        name: for the score; None: the file's.

    Raises:
        UserError: anything else stands in the file, or a head is twice.
    """
    path = Path(path)
    text = read_text(path)
    rows, at = [], _skip(text, 0)
    opening = _OPENING.match(text, at)
    more = opening is not None
    at = opening.end() if opening else at
    while more:
        at = _skip(text, at)
        entry = _ENTRY.match(text, at)
        if entry:
            rows.append(entry.groups())
            at = _skip(text, entry.end())
        more = entry is not None and text.startswith(",", at)
        at += more
    closed = opening is not None and text.startswith(("]", ")"), at)
    if not closed or _skip(text, at + 1) != len(text):
        line = text.count("\n", 0, at) + 1
        raise UserError(
            f"{path}, line {line}: a list of heads is written "
            f"[(layer, head, score), ...] and nothing else, not {text[at : at + 40]!r}"
        )
    try:
        values = [(int(l), int(h), float(score)) for l, h, score in rows]
    except ValueError as error:
        raise UserError(f"{path} has a score that is no number ({error})") from error
    return list_heads(path, name or path.stem, values)


def completed(path: Path, listed: HeadList, shape: Shape) -> HeadScores:
    """Scores of all heads from a list of the top ones; the others count as 0.

    Args:
        path: of the list, for messages.
        listed: some heads, with scores above 0.
        shape: (L, H) of the model.

    Raises:
        UserError: a head is out of range, or a score is so low that heads which are not
            listed would come before it.
    """
    mean = np.zeros(shape)
    for at, score in zip(listed.heads, listed.scores, strict=True):
        if at[0] >= shape[0] or at[1] >= shape[1]:
            raise UserError(
                f"{path} lists head {head_name(*at)}, but the model has {shape[0]} "
                f"layers of {shape[1]} heads: give a list of this model"
            )
        mean[at] = score
    lowest = min(listed.scores)
    if lowest <= 0 and len(listed.heads) < mean.size:
        raise UserError(
            f"{path} lists a head with the score {lowest:g}, but heads that are not "
            "listed count as 0, below all others: list every head, or those above 0"
        )
    said = {
        "definition": f"of the {len(listed.heads)} heads that a file lists; the others "
        f"of {mean.size} count as 0",
        "source": str(path),
    }
    unknown = np.full(shape, np.nan)
    return HeadScores(listed.name, mean, unknown, **meaning(said))


def meaning(said: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``HeadScores`` that are no arrays; unknown: "" and nan."""
    found = {key: said.get(key) for key in MEANING}
    for key in ("chance", "ceiling"):
        value = found[key]
        known = isinstance(value, int | float)
        found[key] = float(value) if known else float("nan")
    return {key: "" if value is None else value for key, value in found.items()}


def list_heads(path: Path, name: str, rows: list[Any]) -> HeadList:
    """A list from rows of (layer, head, score).

    Args:
        path: of the file, for messages.
        name: of the score.
        rows: whatever the file has.

    Raises:
        UserError: a row is something else, a head is twice, or there are none.
    """
    found: dict[Shape, float] = {}
    for row in rows:
        three = isinstance(row, list | tuple) and len(row) == 3
        if not three or any(type(n) is not int or n < 0 for n in row[:2]):
            raise UserError(
                f"{path} must list heads as (layer, head, score), but has {_shown(row)}"
            )
        at = row[0], row[1]
        if at in found:
            raise UserError(f"{path} has head {head_name(*at)} twice")
        found[at] = number(path, head_name(*at), row[2])
    if not found:
        raise UserError(f"{path} must list heads as (layer, head, score), but has none")
    return HeadList(name, tuple(found), tuple(found.values()))


def number(path: Path, head: str, value: Any) -> float:
    """A finite number from a file.

    Args:
        path: of the file, for messages.
        head: its name.
        value: whatever the file has there.

    Raises:
        UserError: it is none.
    """
    if type(value) not in (int, float) or not abs(value) < 1e300:
        raise UserError(
            f"{path}: the score of head {head} must be a finite number, not "
            f"{_shown(value)}"
        )
    return float(value)


def finite(scores: np.ndarray, path: Path | None = None) -> np.ndarray:
    """Scores as float64 [L, H], which must be finite.

    Args:
        scores: of all heads.
        path: of the file that they are from, for messages.

    Raises:
        UserError: another shape, or a number that is not finite.
    """
    values = np.asarray(scores, np.float64)
    if values.ndim != 2 or 0 in values.shape or not np.isfinite(values).all():
        raise UserError(
            f"{path or 'a ranking'} must be made of finite numbers [L, H], but these "
            f"have the shape {list(values.shape)}"
            + (" and some are not finite" if values.ndim == 2 and values.size else "")
        )
    return values


def _skip(text: str, at: int) -> int:
    """Past blanks and comments."""
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _shown(value: Any) -> str:
    """A value from a file; containers, which may hold themselves, by kind alone."""
    plain = isinstance(value, str | int | float | None)
    return f"{value!r:.60}" if plain else f"something of type {type(value).__name__}"


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
