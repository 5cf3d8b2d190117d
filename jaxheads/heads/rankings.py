"""Rankings as files: a run's scores, JSON with what they mean, or a plain table.

A table (CSV) has the columns layer, head, score and standard_error, with a row for
every head; the JSON says besides which params were scored and what the score is.
``foreign_rankings`` reads the files of the published codes.
"""

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxheads import runs
from jaxheads.errors import UserError
from jaxheads.heads import HeadScores, count_of, head_name, published_files
from jaxheads.heads.published_files import HeadList, completed, meaning
from jaxheads.heads.set_files import (
    SCHEMA,
    Shape,
    check_made_for,
    read_object,
    read_text,
)
from jaxheads.runs.finite import plain

_COLUMNS = ("layer", "head", "score", "standard_error")


@dataclasses.dataclass(frozen=True, eq=False)
class Ranking:
    """Scores of all heads, and of which model.

    Attributes:
        scores: means and standard errors [L, H] (nan where unknown), and their meaning.
        path: of the run or file that they were read from.
        model: its name; None: unknown.
        params_sha256: of the params that were scored; None: unknown.
        listed: heads whose score the file has, where it has the top ones alone and the
            others count as 0; None: it has all.
    """

    scores: HeadScores
    path: Path
    model: str | None = None
    params_sha256: str | None = None
    listed: int | None = None

    def check_fractions(self, fractions: Sequence[float]) -> None:
        """Refuse top sets that take more heads than a list of the top ones has.

        Args:
            fractions: of all heads, by ``count_of``.

        Raises:
            UserError: a set would take heads whose score nobody knows.
        """
        size = np.asarray(self.scores.mean).size
        for fraction in fractions:
            if self.listed is not None and count_of(fraction, size) > self.listed:
                raise UserError(
                    f"{self.path} lists {self.listed} of {size} heads, but a top set "
                    f"of {fraction:g} has {count_of(fraction, size)}: give --fraction "
                    f"of {math.floor(1000 * self.listed / size) / 1000:g} at most"
                )


def read_ranking(
    path: str | Path,
    score: str | None = None,
    *,
    shape: Shape | None = None,
    params_sha256: str | None = None,
) -> Ranking:
    """Read a ranking from a run's folder or from a file of ``write_ranking``.

    Args:
        path: a folder of `jaxheads score` or `study`, a .json or .csv file, or what
            ``foreign_rankings.read_scores`` reads: .pkl, .pt, or a list of heads.
        score: its name; None: "function_vector" of a run, and of a file what it holds.
            A file other than our .json does not say: its name is then the file's.
        shape: (L, H) of the model that it is for; None: any. A list of the top heads
            is read only with it.
        params_sha256: of that model; None: any.

    Raises:
        UserError: there is no such score, the file is damaged, or it was made for
            another model.
    """
    path = Path(path)
    found = _read(path, score)
    if isinstance(found, HeadList):
        if shape is None:
            raise UserError(
                f"{path} lists {len(found.heads)} heads, but not how many the model "
                "has: set it against a run of the model, or give the shape"
            )
        return _completed(path, found, shape)
    size = found.scores.mean.shape
    check_made_for(path, size, found.params_sha256, shape, params_sha256)
    return found


def read_two(
    a: str | Path, b: str | Path, score: str | None = None, score_b: str | None = None
) -> tuple[Ranking, Ranking]:
    """Read two rankings; where one is a list of top heads, the other has the shape.

    Args:
        a: as for ``read_ranking``.
        b: the same.
        score: name of A's.
        score_b: name of B's.

    Raises:
        UserError: as for ``read_ranking``, or both are lists.
    """
    a, b = Path(a), Path(b)
    one, other = _read(a, score), _read(b, score_b)
    if isinstance(one, HeadList):
        if isinstance(other, HeadList):
            raise UserError(
                f"{a} and {b} list heads, but not how many the model has: one of the "
                "two must be a run or a ranking of all heads"
            )
        return _completed(a, one, other.scores.mean.shape), other
    if isinstance(other, HeadList):
        return one, _completed(b, other, one.scores.mean.shape)
    return one, other


def write_ranking(
    path: str | Path,
    scores: HeadScores,
    *,
    model: str | None = None,
    params_sha256: str | None = None,
) -> None:
    """Write a ranking, atomically, for ``read_ranking`` and for other programs.

    Args:
        path: its ending decides: .json, or .csv, which keeps the numbers alone.
        scores: of all heads.
        model: its name.
        params_sha256: of the params that were scored; in the JSON.

    Raises:
        UserError: another ending, or a score that is no finite number.
    """
    path = Path(path)
    mean = np.asarray(scores.mean, np.float64)
    if not np.isfinite(mean).all():
        raise UserError("a ranking must be made of finite numbers to be written")
    path.parent.mkdir(parents=True, exist_ok=True)
    error = np.asarray(scores.standard_error, np.float64)
    if path.suffix.lower() == ".csv":
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for (layer, head), value in np.ndenumerate(mean):
            spread = error[layer, head]
            shown = "" if math.isnan(spread) else repr(float(spread))
            writer.writerow([layer, head, repr(float(value)), shown])
        runs.write_text(path, table.getvalue())
    elif path.suffix.lower() == ".json":
        origin = {"model": model, "params_sha256": params_sha256}
        numbers = {"score": mean.tolist(), "standard_error": plain(error)}
        said = {"schema": SCHEMA, "name": scores.name, **origin}
        said |= plain(scores.describe())
        runs.write_json(path, said | {"shape": list(mean.shape)} | numbers)
    else:
        raise UserError(f"a ranking is written as .json or .csv, not as {path.name}")


def _read(path: Path, score: str | None) -> Ranking | HeadList:
    if path.is_dir():
        return _from_run(runs.load(path), score or "function_vector")
    if path.suffix.lower() == ".csv":
        return Ranking(_from_csv(path, score or path.stem), path)
    if published_files.is_foreign(path):
        found = published_files.read_scores(path, score)
        return found if isinstance(found, HeadList) else Ranking(found, path)
    return _from_json(path, score)


def _completed(path: Path, listed: HeadList, shape: Shape) -> Ranking:
    scores = completed(path, listed, shape)
    return Ranking(scores, path, listed=len(listed.heads))


def _from_run(run: runs.Run, score: str) -> Ranking:
    told = run.result.get("scores")
    told = told if isinstance(told, dict) else {}
    known = {name: told[name] for name in told if f"score/{name}" in run.arrays}
    if score not in known:
        none = "none"
        if "dynamics" in run.result:
            none = "a run of each step, in its folder steps: give one of those"
        raise UserError(
            f"{run.path} has no score {score!r}: it has {', '.join(known) or none}"
        )
    try:
        mean = np.asarray(run.arrays[f"score/{score}"], np.float64)
        unknown = np.full(mean.shape, np.nan)
        error = np.asarray(run.arrays.get(f"score/{score}_se", unknown), np.float64)
        if mean.ndim != 2 or error.shape != mean.shape:
            raise ValueError(f"the shapes {list(mean.shape)} and {list(error.shape)}")
        model = run.result["model"]
        name = " ".join(filter(None, [model["name"], model.get("revision")]))
        scores = HeadScores(score, mean, error, **meaning(known[score]))
        return Ranking(scores, run.path, name, model["params_sha256"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{run.path} must hold scores [L, H] and say of which model they are, but "
            f"does not ({type(error).__name__}: {error}): score the model again"
        ) from error


def _from_json(path: Path, score: str | None) -> Ranking:
    said = read_object(path, "a ranking", ("name", "score"))
    name = str(said["name"])
    if score not in (None, name):
        raise UserError(f"{path} holds the score {name!r}, not {score!r}")
    mean = _matrix(path, "score", said["score"])
    error = np.full(mean.shape, np.nan)
    if said.get("standard_error") is not None:
        error = _matrix(path, "standard_error", said["standard_error"], missing=True)
    if not np.isfinite(mean).all() or error.shape != mean.shape:
        raise UserError(
            f"{path}: score must be finite numbers [L, H], and standard_error numbers "
            f"or null of the same shape, but have {list(mean.shape)} and "
            f"{list(error.shape)}"
        )
    scores = HeadScores(name, mean, error, **meaning(said))
    return Ranking(scores, path, said.get("model"), said.get("params_sha256"))


def _from_csv(path: Path, name: str) -> HeadScores:
    rows: dict[Shape, tuple[float, float]] = {}
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    missing = [name for name in _COLUMNS[:3] if name not in (reader.fieldnames or ())]
    if missing:
        raise UserError(
            f"{path} must be a table with columns {', '.join(_COLUMNS)}, but has no "
            f"{', '.join(missing)}"
        )
    for row in reader:
        try:
            at = int(row["layer"]), int(row["head"])
            values = float(row["score"]), float(row.get("standard_error") or "nan")
            if min(at) < 0 or not math.isfinite(values[0]):
                raise ValueError("a negative index or a score that is no finite number")
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{path}, line {reader.line_num}: a row is a layer, a head and a "
                f"number, not {list(row.values())} ({error})"
            ) from error
        if at in rows:
            raise UserError(f"{path} has head {head_name(*at)} twice")
        rows[at] = values
    mean, error = published_files.grid(path, rows)
    return HeadScores(name, mean, error, **meaning({}))


def _matrix(path: Path, key: str, rows: Any, missing: bool = False) -> np.ndarray:
    try:
        if not missing and any(value is None for row in rows for value in row):
            raise ValueError("a value is null")
        values = np.array(rows, np.float64)  # null becomes nan
        if values.ndim != 2 or not values.size:
            raise ValueError(f"it has the shape {list(values.shape)}")
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UserError(
            f"{path}: {key} must be a list of layers, each a list of one number a "
            f"head, but is not ({error})"
        ) from error
    return values
