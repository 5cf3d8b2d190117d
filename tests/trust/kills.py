"""Kill commands at any moment, go on, and hold the end against an undisturbed run.

    python tests/trust/kills.py --count 300 --seed 0

Every try is a process of its own that gets a signal, after a random time or right after
the n-th change in its folder. Some tries follow each other in one
folder; then the same command runs to its end. What is counted stands in ``Row``.
"""

import argparse
import collections
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from model_folder import write_tiny_llama

TINY = [
    "--scores.tasks=antonym",
    "--shots=2",
    "--scores.clean-prompts=3",
    "--scores.corrupted-prompts=2",
    "--scores.sequences=2",
    "--scores.sequence-length=8",
    "--scores.documents=2",
    "--scores.document-length=12",
]
ABLATION = [
    "--ablation.tasks=synonym",
    "--ablation.prompts=2",
    "--ablation.fractions=0.2",
    "--ablation.keep-only=0.2",
    "--ablation.draws=1",
    "--ablation.max-new-tokens=2",
]
LOSS = [
    "--token-loss.documents=2",
    "--token-loss.fill-documents=1",
    "--token-loss.positions",
    "5",
    "15",
    "--token-loss.window=1",
    "--token-loss.draws=1",
]
TRAIN = [
    "--data=function-mixture",
    "--layers=2",
    "--width=16",
    "--heads=2",
    "--steps=24",
    "--seeds=2",
    "--batch-size=2",
    "--eval-every=6",
    "--checkpoints",
    "every=12",
    "--resume-every=5",
    "--evidence-samples=4",
    "--probe-sequences=2",
    "--repetitions=2",
]
WHOLE = 6
"""Tries in one folder before the command may end."""
PAGES = ("study", "report")
"""Commands that draw a page; the others run as in the base install, for a page costs
more than all they compute, and half of the stops would come within it."""
_BASE = "import sys; sys.modules['altair'] = None; from jaxheads.__main__ import main"
PATIENCE = 150.0
"""Seconds after a signal, or of a command, that are no hang yet."""
_TEARDOWN = 3.0
"""Seconds in which a process that had ended may still be there."""
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CODES = {
    signal.SIGKILL: (-9,),
    signal.SIGHUP: (129, -1),
    signal.SIGINT: (130, -2),
    signal.SIGTERM: (143, -15),
}


@dataclasses.dataclass
class Row:
    """What was seen of one command."""

    kills: int = 0
    ended: int = 0
    """Tries that had ended before the signal came."""
    codes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    tracebacks: int = 0
    hangs: int = 0
    crashes: int = 0
    lost: int = 0
    """Units that were on the disk and were written again."""
    unequal: int = 0
    """Ends that differ from the undisturbed one."""
    left: int = 0
    """Ends with something half-written in or beside the folder."""
    faults: list[str] = dataclasses.field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing went wrong."""
        wrong = (self.tracebacks, self.hangs, self.crashes, self.lost, self.unequal)
        return not any(wrong) and not self.left and not self.faults


class Driver:
    """Runs commands on tiny models and stops them.

    Args:
        home: an empty folder.
        model: a tiny model in hub layout with a tokenizer.
        seed: of the moments and of the signals.
    """

    def __init__(self, home: Path, model: Path, seed: int):
        self._home, self._rng = home, random.Random(seed)
        self._environment = os.environ | {
            # Nothing is compiled twice, nor by the next driver where a cache is named.
            "JAX_COMPILATION_CACHE_DIR": os.environ.get(
                "JAX_COMPILATION_CACHE_DIR", str(home / "compiled")
            ),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "JAX_PLATFORMS": "cpu",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPYCACHEPREFIX": str(home / "bytecode"),
        }
        for name in ("XLA_FLAGS", "PYTHONDONTWRITEBYTECODE"):
            self._environment.pop(name, None)
        for number in (signal.SIGINT, signal.SIGHUP):
            # In the background or under nohup they are ignored, and would be by what
            # is started here; a handler is not handed on.
            if signal.getsignal(number) == signal.SIG_IGN:
                signal.signal(number, lambda *_: None)
        text = home / "texts"
        text.mkdir()
        for n in range(20):
            words = (f"word{n * k % 17} of text {k}" for k in range(40))
            (text / f"{n}.txt").write_text(" ".join(words))
        trained, run, hub = home / "trained", home / "scored", str(model)
        ranked = [hub, "--ranking", str(run), *TINY]
        self.commands: dict[str, list[str]] = {
            "train": ["train", *TRAIN, "--out", "{out}"],
            "score": ["score", hub, *TINY, "--out", "{out}"],
            "study": ["study", hub, *TINY, *ABLATION, *LOSS, "--out", "{out}"],
            "ablate": ["ablate", *ranked, *ABLATION, "--out", "{out}"],
            "token-loss": ["token-loss", *ranked, *LOSS, "--out", "{out}"],
            "execution": [
                "execution", *ranked, "--execution.tasks=synonym",
                "--execution.prompts=2", "--execution.clean-prompts=2",
                "--execution.sizes", "0.1", "--execution.random-sets=1",
                "--out", "{out}",
            ],
            "redundancy": [
                "redundancy", *ranked, "--redundancy.tasks=synonym",
                "--redundancy.prompts=2", "--redundancy.top=3",
                "--redundancy.permutations=2", "--out", "{out}",
            ],
            "attribution": [
                "attribution", hub, "--shots=2", "--attribution.tasks=antonym",
                "--attribution.clean-prompts=2", "--attribution.corrupted-prompts=2",
                "--attribution.steps=2", "--attribution.top-k=2",
                "--attribution.sample=2", "--out", "{out}",
            ],
            "dynamics": [
                "dynamics", str(trained), "--seeds=0", "--shots=2",
                "--scores.clean-prompts=3", "--scores.corrupted-prompts=2",
                "--scores.sequences=2", "--scores.sequence-length=8",
                "--ablation.prompts=2", "--out", "{out}",
            ],
            "train on text": [
                "train", "--data", str(text), "--tokenizer", hub, "--data-settings",
                "sequence_length=16", "held_out=0.2", "--layers=1", "--width=16",
                "--heads=2", "--steps=12", "--batch-size=2", "--eval-every=6",
                "--resume-every=5", "--no-evidence", "--out", "{out}",
            ],
            "evidence": [
                "evidence", str(trained), "--samples=4", "--out", "{out}",
            ],
            "compare-runs": [
                "compare-runs", str(trained), str(home / "other"), "--samples=4",
                "--causal-samples=2", "--repetitions=10", "--out", "{out}",
            ],
            "convert": ["convert", hub, "{out}"],
            "report": ["report", str(run), "--out", "{out}/page.html", "--figures=csv"],
        }  # fmt: skip
        self._sources = {"train": (trained,), "score": (run,)}
        self._other = ["train", *TRAIN, "--objective=hapax", "--out"]
        self._wanted: dict[str, tuple[dict[str, str], float, int]] = {}

    def _command(self, name: str, out: Path) -> list[str]:
        given = [word.replace("{out}", str(out)) for word in self.commands[name]]
        if name in PAGES:
            return [sys.executable, "-m", "jaxheads", *given]
        return [sys.executable, "-c", f"{_BASE}; main()", *given]

    def undisturbed(self, name: str) -> tuple[dict[str, str], float, int]:
        """The content of the command's end, its seconds, and changes in its folder."""
        if name in self._wanted:
            return self._wanted[name]
        for before in ("train", "score"):
            if name not in ("train", "score", "convert", "attribution", "study"):
                self.undisturbed(before)
        if name == "compare-runs":
            other = str(self._home / "other")
            self._run([sys.executable, "-m", "jaxheads", *self._other, other])
        home = self._home / f"whole-{name.replace(' ', '-')}"
        home.mkdir()
        self._run(self._command(name, home / "out"))  # compiles
        shutil.rmtree(home)
        home.mkdir()
        start, changes = time.monotonic(), Changes(home)
        process = self._start(self._command(name, home / "out"))
        while process.poll() is None:
            changes.count()
            time.sleep(0.002)
        error = process.communicate()[1]
        if process.returncode:
            raise RuntimeError(f"{name} ended with {process.returncode}: {error}")
        seconds = time.monotonic() - start
        for source in self._sources.get(name, ()):
            shutil.copytree(home / "out", source)
        self._wanted[name] = content(home), seconds, changes.count()
        return self._wanted[name]

    def _start(self, command: list[str]) -> subprocess.Popen:
        return subprocess.Popen(
            command,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _run(self, command: list[str]) -> tuple[int, str]:
        """Exit code, or 9999 for a hang, and what was said."""
        process = self._start(command)
        try:
            error = process.communicate(timeout=4 * PATIENCE)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            return 9999, process.communicate()[1]
        return process.returncode, error

    def chain(self, name: str, tries: int, row: Row) -> None:
        """Stop a command some times in one folder, then let it end."""
        wanted, seconds, changes = self.undisturbed(name)
        home = Path(tempfile.mkdtemp(dir=self._home))
        command = self._command(name, home / "out")
        for _ in range(tries):
            before, ended = units(home), row.ended
            self._stop(command, home, seconds, changes, row, name)
            after = units(home)
            row.lost += sum(
                after.get(path) != at and not is_finished(path)
                for path, at in before.items()
            )
            if row.ended > ended:  # the next would find a finished folder
                break
        code, error = self._run(command)
        self._judge(code, error, row)
        if code:
            row.faults.append(
                f"{name}: {home} ended with {code}: {error.strip()[-300:]}"
            )
            return
        found = content(home)
        if found != wanted:
            other = sorted(k for k in found | wanted if found.get(k) != wanted.get(k))
            row.unequal += 1
            row.faults.append(f"{name}: {home} has other {', '.join(other[:5])}")
        elif half := left_behind(home):
            row.left += 1
            row.faults.append(f"{name}: {home} has {', '.join(half[:5])}")
        else:
            shutil.rmtree(home)

    def _stop(self, command, home, seconds, changes, row: Row, name: str) -> None:
        """One try."""
        how = self._rng.choice(SIGNALS)
        at_change = self._rng.random() < 0.5 and changes > 1
        number = self._rng.randrange(1, max(2, changes))
        moment = self._rng.uniform(0.05, seconds)
        watched, start = Changes(home), time.monotonic()
        process = self._start(command)
        while process.poll() is None:
            if at_change and watched.count() >= number:
                break
            if not at_change and time.monotonic() - start > moment:
                break
            time.sleep(0.001 if at_change else 0.01)
        if process.poll() is not None:
            row.ended += 1
            self._judge(process.returncode, process.communicate()[1], row)
            return
        process.send_signal(how)
        sent = time.monotonic()
        try:
            error = process.communicate(timeout=PATIENCE)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            error = process.communicate()[1]
            row.kills += 1
            row.hangs += 1
            row.faults.append(f"{name}: {how.name} hung: {error.strip()[-300:]}")
            return
        if process.returncode == 0 and time.monotonic() - sent < _TEARDOWN:
            row.ended += 1  # all was done, and the system was taking it down
            return
        row.kills += 1
        row.codes[process.returncode] += 1
        self._judge(process.returncode, error, row)
        if process.returncode not in CODES[how]:
            row.faults.append(
                f"{name}: {how.name} ended with {process.returncode}: "
                f"{error.strip()[-300:]}"
            )

    def _judge(self, code: int, error: str, row: Row) -> None:
        if "Traceback" in error:
            row.tracebacks += 1
            row.faults.append(error.strip()[-600:])
        if code in (-11, -6, -7, -4, 139, 134):
            row.crashes += 1
            row.faults.append(f"crashed with {code}: {error.strip()[-300:]}")
        row.hangs += code == 9999


class Changes:
    """Counts what changes in a folder: names, and sizes of files."""

    def __init__(self, folder: Path):
        self._folder, self._seen, self._count = folder, {}, 0
        self.count()
        self._count = 0  # what is there already is no change

    def count(self) -> int:
        """Changes so far."""
        seen = {}
        for folder, inner, files in os.walk(self._folder):
            seen |= {f"{folder}/{name}": 0 for name in inner}
            for name in files:
                with contextlib.suppress(OSError):  # gone again
                    seen[f"{folder}/{name}"] = os.lstat(f"{folder}/{name}").st_size
        both = seen.keys() | self._seen.keys()
        self._count += sum(seen.get(path) != self._seen.get(path) for path in both)
        self._seen = seen
        return self._count


def units(home: Path) -> dict[Path, int]:
    """When each unit was written that is on the disk.

    Evaluations do not count: a training goes back to its last state.
    """
    return {
        path: path.stat().st_mtime_ns
        for path in home.rglob("units/[!.]*.npz")
        if not path.name.startswith("evaluation_")
    }


def content(home: Path) -> dict[str, str]:
    """What a command's end must have in common with another, by name."""
    found = {}
    for path in sorted(home.rglob("*")):
        name = path.relative_to(home).as_posix()
        if path.name == "arrays.npz":
            with np.load(path) as file:
                for key in file.files:
                    whole = f"{file[key].dtype}{file[key].shape}".encode()
                    digest = hashlib.sha256(whole + file[key].tobytes())
                    found[f"{name}:{key}"] = digest.hexdigest()
        elif path.name == "jaxheads.json":
            found[name] = json.loads(path.read_text())["params_sha256"]
        elif path.suffix in (".bin", ".npy", ".csv", ".html") and path.is_file():
            # A page of the run itself states its seconds.
            own = path.name == "report.html" or "params" in path.parts
            found[name] = "" if own else hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def is_finished(unit: Path) -> bool:
    """Whether the run of a unit has ended, which needs no units any more.

    Within a run there may be others: of each step of a training, of each seed.
    """
    return any((path / "result.json").exists() for path in unit.parents)


def left_behind(home: Path) -> list[str]:
    """Names of what only an unfinished run has."""
    names = {"units", "run.json", "curves.jsonl", "state", ".lock", "progress.json"}
    return sorted(
        path.relative_to(home).as_posix()
        for path in home.rglob("*")
        if path.name in names
        or path.name.endswith(".partial")
        or ".unfinished-" in path.name
    )


def run(
    driver: Driver, count: int, names: list[str], seed: int, tell: Callable[[str], None]
) -> dict[str, Row]:
    """Stop commands until ``count`` signals have been sent.

    Args:
        driver: of the commands.
        count: signals.
        names: of commands, taken in turn.
        seed: of how many tries each folder sees.
        tell: told of each folder.
    """
    rows = {name: Row() for name in names}
    rng = random.Random(seed)
    while sum(row.kills for row in rows.values()) < count:
        for name in names:
            sent = sum(row.kills for row in rows.values())
            if sent >= count:
                break
            tries = min(rng.randrange(1, WHOLE + 1), count - sent)
            driver.chain(name, tries, rows[name])
            tell(f"{name}: {rows[name]}")
    return rows


def table(rows: dict[str, Row]) -> str:
    """The table for people."""
    lines = [
        "command | kills | exit codes | tracebacks | hangs | crashes | lost units | "
        "unequal | left behind"
    ]
    total = Row()
    for name, row in [*rows.items(), ("all", total)]:
        if row is not total:
            for field in dataclasses.fields(Row):
                if field.name != "faults":
                    value = getattr(total, field.name) + getattr(row, field.name)
                    setattr(total, field.name, value)
        codes = ", ".join(f"{code}: {n}" for code, n in sorted(row.codes.items()))
        lines.append(
            f"{name} | {row.kills} | {codes} | {row.tracebacks} | {row.hangs} | "
            f"{row.crashes} | {row.lost} | {row.unequal} | {row.left}"
        )
    return "\n".join(lines)


def main() -> int:
    """Run as the options say; 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=300, help="signals to send")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="*", help="default: all")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp())
    model = write_tiny_llama(home / "tiny-llama")
    driver = Driver(home, model, options.seed)
    names = options.commands or list(driver.commands)
    tell = functools.partial(print, flush=True)
    rows = run(driver, options.count, names, options.seed, tell)
    tell(table(rows))
    sound = all(row.sound for row in rows.values())
    if sound:
        shutil.rmtree(home)
    else:  # is left for whoever mends it
        tell(*(fault for row in rows.values() for fault in row.faults), sep="\n")
    return not sound


if __name__ == "__main__":
    sys.exit(main())
