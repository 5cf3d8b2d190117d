"""A training's checkpoints by step: sub-folders of a folder, or a hub's revisions."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from jaxheads.errors import UserError
from jaxheads.runs.unfinished import MARK
from jaxheads.weights.presets import PRESETS
from jaxheads.weights.sources import BUILT_IN, HUB_ID
from jaxheads.weights.store import is_store

PATTERN = "step{step}"
"""Names of the hub's revisions: those of Pythia."""
PAPER_STEPS = (1, 64, 256, 1000, 4000, 16000, 64000, 143000)
"""Of Pythia, in Yin & Steinhardt 2025."""

Missing = Literal["error", "skip"]
Signature = list[list[str | int]]

_NUMBERED = re.compile(r"(?:.*\D)?(\d+)", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """One checkpoint.

    Attributes:
        step: of the training.
        source: as ``jaxheads.load`` takes it.
        revision: as ``jaxheads.load`` takes it; None for a folder.
    """

    step: int
    source: str
    revision: str | None = None

    def signature(self) -> Signature | None:
        """Name, size and time of each file of a folder; None for the hub's.

        What has the same signature has not been written since.
        """
        if self.revision is not None:
            return None
        root = Path(self.source)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return [
            [path.relative_to(root).as_posix(), told.st_size, told.st_mtime_ns]
            for path in files
            for told in (path.stat(),)
        ]


@dataclasses.dataclass(frozen=True)
class Series:
    """Checkpoints of one training.

    Attributes:
        name: what identifies it: the folder's whole path, or the hub's "owner/name".
        source: as the user wrote it.
        hub_id: "owner/name"; None for a folder.
        pattern: of the hub's revisions.
        known: checkpoints by step; None: the hub was not asked, or gave no answer.
        usual: steps that are taken when none are asked for.
        passed_over: sub-folders that end in a number and hold no model.
    """

    name: str
    source: str
    hub_id: str | None
    pattern: str
    known: dict[int, Checkpoint] | None
    usual: Sequence[int]
    passed_over: Sequence[str] = ()

    @property
    def main(self) -> Checkpoint | None:
        """The main branch's weights; None for a folder."""
        return None if self.hub_id is None else Checkpoint(-1, self.source, "main")

    def choose(
        self, steps: Iterable[int], missing: Missing = "error"
    ) -> tuple[list[Checkpoint], list[int]]:
        """The checkpoints of steps, in order, and the steps that do not exist.

        Args:
            steps: that are asked for; none: the usual ones.
            missing: "error", or "skip" to go on without those that do not exist.

        Raises:
            UserError: a step does not exist, or none does; says which do.
        """
        asked = sorted(set(steps) or set(self.usual))
        if not asked:
            raise UserError(
                f"--steps must name the checkpoints of {self.source} to take, such as "
                "--steps 1 64 1000: which it has is not known beforehand"
            )
        if asked[0] < 0:
            raise UserError(f"--steps takes steps of 0 or more, not {asked[0]}")
        if self.known is None:
            made = {
                step: Checkpoint(step, self.source, self.pattern.format(step=step))
                for step in asked
            }
        else:
            made = self.known
        absent = [step for step in asked if step not in made]
        there = [made[step] for step in asked if step in made]
        if absent and (missing == "error" or not there):
            raise self.without(absent)
        return there, absent

    def without(self, absent: Sequence[int]) -> UserError:
        """The error of steps that do not exist."""
        has = f"it has {_some(sorted(self.known))}" if self.known else ""
        if self.hub_id and not self.known:
            has = "see the branches and tags on its page"
        passed = f" ({_some(self.passed_over)}: no model)" if self.passed_over else ""
        return UserError(
            f"{self.source} has no checkpoint of step {', '.join(map(str, absent))}: "
            f"{has}{passed}; leave it out, or add --missing skip"
        )


def open_series(source: str | os.PathLike[str], pattern: str = PATTERN) -> Series:
    """Find a training's checkpoints.

    Args:
        source: a folder with one sub-folder a checkpoint, in itself or in its
            ``checkpoints/``, named by anything that ends in the step ("step1000",
            "checkpoint-1000", "step_00001000"), each in hub layout or of ``jaxheads
            convert``; or a preset or a hub id whose checkpoints are revisions.
        pattern: of the revisions' names, such as "step{step}"; "*" stands for anything,
            which the hub's own list of branches and tags then decides.

    Raises:
        UserError: it is neither, two sub-folders stand for one step, or none does.
    """
    text = os.fspath(source)
    path = Path(os.path.expanduser(text))
    if text not in BUILT_IN and path.is_dir():
        return _of_folder(text, path)
    hub_id = PRESETS[text].hub_id if text in PRESETS else text
    if text in BUILT_IN or path.exists() or not HUB_ID.fullmatch(hub_id):
        raise UserError(
            "dynamics takes a hub id or a preset whose checkpoints are revisions (see "
            "jaxheads models), or a folder with one sub-folder a checkpoint, such as "
            f"step1000, but {text!r} is neither: to look at one model, give it to "
            "jaxheads study"
        )
    return _of_hub(text, hub_id, pattern)


def _of_folder(text: str, folder: Path) -> Series:
    found: dict[int, Checkpoint] = {}
    passed_over = []
    for parent in (folder, folder / "checkpoints"):
        for path in sorted(parent.iterdir()) if parent.is_dir() else ():
            number = _NUMBERED.fullmatch(path.name)
            unfinished = path.name.startswith(".") or MARK in path.name
            if not number or unfinished or not path.is_dir():
                continue
            if not ((path / "config.json").is_file() or is_store(path)):
                passed_over.append(path.relative_to(folder).as_posix())
                continue
            step = int(number[1])
            if step in found:
                raise UserError(
                    f"{text} must have one folder a step, but {found[step].source} and "
                    f"{path} are both of step {step}: move one of them away"
                )
            found[step] = Checkpoint(step, str(path))
    if not found:
        raise UserError(
            f"{text} must have a sub-folder with a model for each step, such as "
            f"step1000, but has {_some(passed_over) or 'none'}: give the folder that "
            "holds the checkpoints"
        )
    name = str(folder.resolve())
    return Series(name, text, None, "", found, sorted(found), passed_over)


def _of_hub(text: str, hub_id: str, pattern: str) -> Series:
    try:
        wild = pattern.format(step=1) == pattern.format(step=2)
    except (LookupError, ValueError):
        wild = True
    if wild:
        raise UserError(
            "--revision-pattern must say where the step stands, such as step{step}, "
            f"not {pattern!r}"
        )
    preset = next((one for one in PRESETS.values() if one.hub_id == hub_id), None)
    names = preset.checkpoints if preset and pattern == PATTERN else _revisions(hub_id)
    known = None
    if names:
        form = re.escape(pattern).replace(r"\*", ".*")
        form = re.sub(r"\\\{step.*?\\\}", r"(\\d+)", form)
        matches = [match for name in names if (match := re.fullmatch(form, name))]
        known = {int(m[1]): Checkpoint(int(m[1]), text, m[0]) for m in matches}
    elif "*" in pattern:
        raise UserError(
            f"--revision-pattern {pattern} needs the hub's list of branches, but "
            f"{hub_id} gave none: write the revisions without *"
        )
    usual = [step for step in PAPER_STEPS if known and step in known] if preset else []
    return Series(hub_id, text, hub_id, pattern, known, usual)


def _revisions(hub_id: str) -> list[str]:
    """Branches and tags on the hub; none if it does not answer."""
    from huggingface_hub import HfApi

    try:
        refs = HfApi().list_repo_refs(hub_id)
    except Exception:  # not reached, no access, offline: fetching says what is wrong
        return []
    return [ref.name for ref in (*refs.branches, *refs.tags)]


def is_missing(error: UserError) -> bool:
    """Whether the hub refused a source because it has no such revision."""
    from huggingface_hub.errors import RevisionNotFoundError

    return isinstance(error.__cause__, RevisionNotFoundError)


def _cache(hub_id: str) -> Path:
    """Where the hub's client keeps the files of a model."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=hub_id, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / folder


def cached_files(hub_id: str) -> list[str]:
    """Every file and link that the hub's cache has of a model."""
    root = _cache(hub_id)
    return sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    )


def delete_fetched(
    hub_id: str, before: Iterable[str], revisions: Iterable[str]
) -> list[str]:
    """Delete what the hub's cache got of some revisions since ``before`` was listed.

    Args:
        hub_id: "owner/name".
        before: of ``cached_files``; none of these is touched.
        revisions: whose files may be deleted.

    Returns:
        What was deleted; a file that another revision links to stays.
    """
    root = _cache(hub_id)
    fetched = sorted(set(cached_files(hub_id)) - set(before))
    mine: list[str] = []
    for revision in revisions:
        ref = root / "refs" / revision
        commit = ref.read_text().strip() if ref.is_file() else revision
        own = {commit, f"{commit}.json"}  # snapshots, what is absent, lists of files
        mine += [name for name in fetched if own.intersection(name.split("/")[1:2])]
        mine += [name for name in fetched if name == f"refs/{revision}"]
    for name in dict.fromkeys(mine):
        (root / name).unlink(missing_ok=True)
    links = (path for path in root.rglob("*") if path.is_symlink())
    needed = {path.resolve() for path in links}
    for name in fetched:
        # What is incomplete may be another program's download.
        whole = name.startswith("blobs/") and not name.endswith(".incomplete")
        if whole and (root / name).resolve() not in needed:
            (root / name).unlink()
            mine.append(name)
    folders = [path for path in root.rglob("*") if path.is_dir()]
    for folder in sorted(folders, reverse=True):
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()
    return mine


def _some(items: Sequence) -> str:
    """A few of many: "0, 1, 2, 4, ..., 143000 (154)"."""
    if len(items) <= 12:
        return ", ".join(map(str, items))
    return f"{', '.join(map(str, items[:10]))}, ..., {items[-1]} ({len(items)} in all)"
