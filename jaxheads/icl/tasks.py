"""Tasks: built-in ones by name, and the reference studies' JSON folders."""

import difflib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxheads.errors import UserError
from jaxheads.icl import generators
from jaxheads.icl.encoding import check_text

SPLITS = ("_train", "_val", "_valid", "_test")


def stem(name: str) -> str:
    """A task's name without that of a split: "antonym_val" to "antonym"."""
    for split in SPLITS:
        name = name.removesuffix(split)
    return name


ABSTRACTIVE, EXTRACTIVE, UNKNOWN = "abstractive", "extractive", "unknown"


@dataclass(frozen=True)
class Task:
    """Pairs of an input and its answer.

    Attributes:
        name: Name of the task; a file's name without ``.json``.
        kind: "abstractive" (the answer is not a part of the input), "extractive" (it
            is), or "unknown".
        inputs: Inputs, in the order of the source.
        outputs: Answers, stripped, one an input.
        source: "built-in", "built-in NAME" for a split that another task stands for, or
            the path of the file.
        skipped: Items of the file that were left out because their answer is empty:
            they have no first token.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    source: str
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def answers(self) -> tuple[str, ...]:
        """All answers, each once, in the order of the source."""
        return tuple(dict.fromkeys(self.outputs))


def task_names(kind: str | None = None) -> tuple[str, ...]:
    """List the built-in tasks.

    Args:
        kind: "abstractive" or "extractive"; None lists both.

    Returns:
        The names, sorted within each kind, abstractive ones first.

    Raises:
        UserError: The kind is neither of the two.
    """
    kinds = _built_in()
    if kind is not None and kind not in kinds:
        raise UserError(
            f"a kind of task is one of {', '.join(kinds)}, not {kind!r}: name one of "
            "them, or none for all."
        )
    return tuple(
        name for each in kinds if kind in (None, each) for name in sorted(kinds[each])
    )


def load_task(name: str, folder: str | Path | None = None) -> Task:
    """Load one task.

    Args:
        name: Name of the task: ``<name>.json`` anywhere below ``folder`` (so a split
            such as "antonym_val" has a name too), else a built-in name; a built-in
            task stands for a split of its name that is nowhere.
        folder: Folder of JSON files, searched recursively; a task that is both there
            and built in comes from there.

    Returns:
        The task. A built-in one has distinct inputs; a file's items are kept as they
        are, but answers are stripped, a list answer stands for its first item, numbers
        become text, and items with an empty answer are left out and counted.

    Raises:
        UserError: There is no such task, folder or readable file.

    Source: file layout of Todd et al. 2024 (arXiv 2310.15213), code repository.
    """
    return _load(name, {} if folder is None else _files(folder), folder)


def load_tasks(
    names: Sequence[str] | None, folder: str | Path | None = None, min_items: int = 0
) -> list[Task]:
    """Load several tasks and check that each is large enough.

    Args:
        names: Names as in ``load_task``. None means every task of the folder (a split
            such as ``antonym_val`` is left out where ``antonym`` itself is there), or
            every built-in task when there is no folder.
        folder: As in ``load_task``.
        min_items: Distinct inputs that a task needs: shots and one query.

    Returns:
        The tasks, in the order of the names.

    Raises:
        UserError: As ``load_task``; or a task has fewer than ``min_items`` inputs; or
            the folder holds no task.
    """
    files = {} if folder is None else _files(folder)
    if names is None:
        names = task_names() if folder is None else _whole(files)
        if not names:
            raise UserError(
                f"{folder} holds no .json file: give the folder of the task files."
            )
    elif not names:
        raise UserError(
            "at least one task is needed, none was named: name some, or leave the "
            "list out for all."
        )
    tasks = [_load(name, files, folder) for name in names]
    for task in tasks:
        items = len(set(task.inputs))
        if items < min_items:
            raise UserError(
                f"task {task.name} ({task.source}) has {items} items with different "
                f"inputs, {min_items} are needed for {min_items - 1} shots and a "
                "query: ask for fewer shots or leave the task out."
            )
    return tasks


def _built_in() -> dict[str, Mapping[str, Callable[[], generators.Pairs]]]:
    return {ABSTRACTIVE: generators.abstractive(), EXTRACTIVE: generators.extractive()}


def _load(
    name: str, files: dict[str, list[Path]], folder: str | Path | None = None
) -> Task:
    found = files.get(name, [])
    if len(found) > 1:
        raise UserError(
            f"task {name} is in {len(found)} files ({found[0]}, {found[1]}): give the "
            "folder that holds the one you mean."
        )
    if found:
        pairs = _read(found[0])
        kept = [(given, wanted) for given, wanted in pairs if wanted]
        if not kept:
            raise UserError(
                f"the task file {found[0]} holds no items with an answer: fill it or "
                "leave it out."
            )
        inputs, outputs = zip(*kept, strict=True)
        kind, skipped = _kind(found[0]), len(pairs) - len(kept)
        return Task(name, kind, inputs, outputs, str(found[0]), skipped)
    for kind, table in _built_in().items():
        there = name if name in table else stem(name)
        if there in table:
            first: dict[str, str] = {}
            for given, wanted in table[there]():
                first.setdefault(given, wanted)
            source = "built-in" if there == name else f"built-in {there}"
            return Task(name, kind, tuple(first), tuple(first.values()), source)
    known = sorted({*task_names(), *files})
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    where = "" if folder is None else f" or in {folder}"
    mend = f"the closest names are {', '.join(close)}" if close else "none is named so"
    raise UserError(
        f"there is no task {name!r} built in{where}: {mend}; `jaxheads tasks` lists all"
    )


def _files(folder: str | Path) -> dict[str, list[Path]]:
    """Find the JSON files below a folder by name; hidden folders are passed over."""
    root = Path(folder)
    if not root.is_dir():
        came = "a file" if root.exists() else "nothing"
        raise UserError(
            f"a folder of task files was expected at {root}, {came} is there: give "
            "the folder that holds the .json files."
        )
    files: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.json")):
        inner = path.relative_to(root).parts
        if path.is_file() and not any(part.startswith(".") for part in inner):
            files.setdefault(path.stem, []).append(path)
    return files


def _whole(files: Mapping[str, object]) -> list[str]:
    """List the names, without the splits of a task that is there whole."""
    return [
        name for name in sorted(files) if stem(name) == name or stem(name) not in files
    ]


def _kind(path: Path) -> str:
    """Tell a file's kind by its folder, else by the built-in task of its name."""
    kinds = _built_in()
    if path.parent.name in kinds:
        return path.parent.name
    name = stem(path.stem)
    return next((kind for kind in kinds if name in kinds[kind]), UNKNOWN)


def _read(path: Path) -> generators.Pairs:
    """Read one JSON list of {"input", "output"}."""
    try:
        items = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(
            f"the task file {path} cannot be read ({error.strerror}): check its "
            "permissions."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"the task file {path} is not UTF-8 text (byte {error.start}): save it as "
            "UTF-8."
        ) from error
    except (ValueError, RecursionError) as error:
        where = str(error)
        if isinstance(error, json.JSONDecodeError):
            where = f"line {error.lineno}: {error.msg}"
        raise UserError(
            f"the task file {path} is not valid JSON ({where}): mend it or leave it "
            "out."
        ) from error
    if not isinstance(items, list):
        raise UserError(
            f"the task file {path} must be a list of objects with input and output, "
            f"it is a {type(items).__name__}: put the pairs into one list."
        )
    return [_pair(item, index, path) for index, item in enumerate(items)]


def _pair(item: object, index: int, path: Path) -> tuple[str, str]:
    fields = []
    for field in ("input", "output"):
        value = item.get(field) if isinstance(item, dict) else None
        if field == "output" and isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, int | float) and not isinstance(value, bool):
            # NaN and infinity are no answers.
            value = str(value) if abs(value) < math.inf else value
        if not isinstance(value, str) or not (value.strip() or field == "output"):
            came = f"its {field} is {json.dumps(value)[:60]}"
            if not isinstance(item, dict):
                came = f"it is {json.dumps(item)[:60]}"
            raise UserError(
                f"item {index + 1} of the task file {path} must be an object with "
                f"an input and an output, text or number, {came}: mend the item."
            )
        check_text(value, f"the {field} of item {index + 1} of the task file {path}")
        fields.append(value)
    return fields[0], fields[1].strip()
