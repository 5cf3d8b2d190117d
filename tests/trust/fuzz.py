"""Reads thousands of broken files of every kind: each is refused in one sentence.

    python tests/trust/fuzz.py --count 20000 --seed 0

Files are broken by flipped, cut, inserted and extreme bytes, and within: JSON with
other types, huge numbers, deep nesting, missing keys and keys that stand twice; text in
another encoding; archives whose members are broken; pickles that ask for a command; a
folder, a pipe, a device or a link to nowhere in place of a file. A number and a seed
make an input, so that any can be made again (``--reader``, ``--first``, ``--count 1``).

Inputs are read in processes of their own, many in each, with limits of time and memory;
one that hangs or dies is counted and a new one goes on. Where a reader starts a
program, opens a connection, or writes anywhere but to a temporary file (or, of what a
command goes on with, to its own folder), that counts. So does what is read with other
content than was written, where a hash is there to tell ("silent").
"""

import argparse
import collections
import dataclasses
import io
import json
import os
import pickle
import random
import re
import selectors
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from pathlib import Path
from typing import Any

SECONDS = 60.0
"""That an input may take; a machine that does other things is slow."""

MORE_MEMORY = 3 * 2**30
"""Bytes of addresses that reading may take besides what the process has."""

ROOT = Path(__file__).parents[2]
"""Of the project: its own code is read with, wherever another is installed."""

_ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "0",  # which is written
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiles in half the time
}

OUTCOMES = ("refused", "loaded", "traceback", "hang", "crash", "effect", "silent")


@dataclasses.dataclass
class Found:
    """What became of the inputs of one reader.

    Attributes:
        counts: of each outcome.
        wrong: of each input that was neither refused nor loaded, its number and why.
    """

    counts: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )
    wrong: list[tuple[int, str]] = dataclasses.field(default_factory=list)


# --- Breaking files -------------------------------------------------------------------

EXTREMES = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)


class _Canary:
    """What a pickle runs when it is read without care."""

    def __reduce__(self):
        return os.system, ("touch executed-by-a-pickle",)


def write_broken(source: Path, into: Path, rng: random.Random) -> None:
    """Write a file's broken content, or, now and then, what is no such file."""
    into.unlink(missing_ok=True)
    way = rng.randrange(8) if rng.random() < 0.04 else 0
    if way == 1:
        into.mkdir()
    elif way == 2:
        os.mkfifo(into)
    elif way > 2:
        target = ("/dev/null", "/dev/zero", "/nowhere", into, into.parent)[way - 3]
        into.symlink_to(target)
    else:
        into.write_bytes(broken(source.read_bytes(), source.name, rng))


def broken(data: bytes, name: str, rng: random.Random) -> bytes:
    """A file's bytes, broken in one way or in a few."""
    ways = [_bytes_broken]
    if name.endswith((".json", ".jsonl")):
        ways += [_json_broken] * 3
    if name.endswith((".json", ".jsonl", ".txt", ".csv", ".py")):
        ways += [_other_encoding]
    if data[:4] == b"PK\3\4":
        ways += [_archive_broken] * 2
    if name.endswith(".safetensors"):
        ways += [_header_broken] * 2
    if name.endswith((".bin", ".pt", ".pkl")):
        ways += [_executing]
    made = rng.choice(ways)(data, rng)
    return _bytes_broken(made, rng) if rng.random() < 0.1 else made


def _bytes_broken(data: bytes, rng: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        # Headers are where most goes wrong.
        end = len(made) if rng.random() < 0.5 else min(len(made), 200)
        at = rng.randrange(end) if end else 0
        way = rng.randrange(7)
        if way == 0 and made:
            made[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            del made[at:]
        elif way == 2:
            made[at:at] = rng.randbytes(rng.choice((1, 8, 300)))
        elif way == 3:
            del made[at : at + rng.choice((1, 4, 64))]
        elif way == 4:
            size, kind = rng.choice(((4, "<I"), (8, "<Q"), (8, ">Q")))
            number = rng.choice(EXTREMES) % 2 ** (8 * size)
            made[at : at + size] = struct.pack(kind, number)
        elif way == 5:
            made[at : at + 16] = bytes(16)
        else:
            part = made[at : at + rng.choice((4, 64, 1000))]
            made[at:at] = part * rng.choice((1, 3))
    return bytes(made)


def _json_broken(data: bytes, rng: random.Random) -> bytes:
    """JSON, or lines of it, with a part replaced; what is no JSON has bytes broken."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    try:
        try:
            value, lines = json.loads(data), []
        except ValueError:
            value = json.loads(lines[at])
    except (ValueError, RecursionError):
        return _bytes_broken(data, rng)
    for _ in range(rng.choice((1, 1, 2))):
        value = _changed(value, rng)
    text = re.sub(r'"TWICE \d+ ', '"', json.dumps(value))
    depth = rng.choice((50, 3000, 200_000))
    text = text.replace('"DEEP"', "[" * depth + "]" * depth)
    text = text.replace('"LONG"', "9" * rng.choice((30, 400, 5000)))
    made = text.encode("utf-8", "surrogatepass")
    return b"\n".join([*lines[:at], made, *lines[at + 1 :]]) if lines else made


def _changed(value: Any, rng: random.Random) -> Any:
    """A JSON value with one of its parts, at any depth, replaced, left out or twice."""
    inside = isinstance(value, dict | list) and len(value) > 0
    if inside and rng.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = rng.choice(keys)
        made = value.copy()
        way = rng.random()
        if way < 0.15:
            del made[key]
        elif way < 0.2 and isinstance(made, list):
            made.insert(key, made[key])
        elif way < 0.23 and isinstance(made, dict):
            made[f"TWICE {rng.randrange(9)} {key}"] = _changed(made[key], rng)
        elif way < 0.27 and isinstance(made, dict):
            made[rng.choice(("", "x", "\ud83d", str(key) + " "))] = made.pop(key)
        else:
            made[key] = _changed(made[key], rng)
        return made
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and rng.random() < 0.6
    ):
        numbers = (0, -1, 1, value + 1, -value, 2 * value, 2**31 - 1, 2**31, 2**63)
        numbers += (10**12, 10**9, 99_999, 1e308, -1e-300, 0.5, float("nan"))
        return rng.choice((*numbers, float("inf"), float("-inf"), "LONG"))
    if isinstance(value, str) and rng.random() < 0.4:
        return rng.choice(("", value * 2, value[:-1], value.upper(), f" {value}"))
    others = (None, True, False, 0, -1, 3, 0.5, "", "x", "x" * 300, "../x", "a\0b")
    others += ("\ud83d", "\n\x1b[31m", [], {}, [None], [[1]], {"x": 1}, {"type": "x"})
    return rng.choice((*others, [value], {"0": value}, "DEEP", "LONG", 2**40, 1e400))


def _other_encoding(data: bytes, rng: random.Random) -> bytes:
    """Text with a byte order mark, in another encoding, with other line ends, or none.

    What is no UTF-8 has a mark put before it.
    """
    way = rng.randrange(6)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        way = 0
        text = ""
    if way == 0:
        return b"\xef\xbb\xbf" + data
    if way == 1:
        return b""
    if way == 2:
        return data.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\0")))
    return text.encode(("utf-16", "utf-32", "latin-1")[way - 3], "replace")


def _archive_broken(data: bytes, rng: random.Random) -> bytes:
    """A zip whose member is broken, with the right checksum."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(members))
    way = rng.random()
    if way < 0.1:
        del members[name]
    elif way < 0.2:
        members[rng.choice((" ", "../x", "x" * 300, "\n"))] = members.pop(name)
    else:
        members[name] = _bytes_broken(members[name], rng)
    made = io.BytesIO()
    kind = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(made, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return made.getvalue()


def _header_broken(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file whose header is other JSON of a length that fits."""
    size = int.from_bytes(data[:8], "little")
    header = _json_broken(data[8 : 8 + size], rng)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def _executing(data: bytes, rng: random.Random) -> bytes:
    """A pickle that runs a command, alone or where the archive has its own."""
    asks = pickle.dumps({"w": _Canary()}, rng.choice((0, 2, 4)))
    if data[:4] != b"PK\3\4":
        return asks + data if rng.random() < 0.3 else asks
    made = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as archive,
        zipfile.ZipFile(made, "w") as other,
    ):
        for name in archive.namelist():
            pickled = name.endswith("data.pkl")
            other.writestr(name, asks if pickled else archive.read(name))
    return made.getvalue()


# --- The worker, a process that reads ------------------------------------------------

_EFFECTS = {
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty"),
    *("subprocess.Popen", "socket.connect", "socket.getaddrinfo", "ctypes.dlopen"),
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink"),
    *("os.truncate", "os.chmod", "shutil.rmtree", "shutil.move", "shutil.copyfile"),
}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class _Watch:
    """Notes what the interpreter does besides reading, while ``on``."""

    def __init__(self, free: Path):
        self.on, self.seen = False, []
        self.free: tuple[str, ...] = (str(free), os.devnull)
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple) -> None:
        if not self.on:
            return
        place = str(arguments[0]) if arguments else ""
        if event == "os.truncate" and place.isdecimal():
            return  # a file that was opened for writing, which is watched
        if event in ("os.remove", "os.rmdir") and arguments[1] >= 0:
            place = os.path.join(os.readlink(f"/proc/self/fd/{arguments[1]}"), place)
        if event == "open":
            effect = arguments[2] & _WRITES and isinstance(arguments[0], str)
        else:
            effect = event in _EFFECTS
        if effect and not place.startswith(self.free):
            self.seen.append(f"{event} {place:.80}")


def work(samples: Path, scratch: Path, seed: int) -> None:
    """Read the inputs that standard input asks for; a line of JSON for each."""
    import resource

    # Lines of libraries go to standard error, and the answers have an own way out.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from fuzz_samples import READERS, make_samples

    warnings.simplefilter("ignore")
    if not samples.is_dir():
        make_samples(samples)
    temporary = scratch / "temporary"
    temporary.mkdir(exist_ok=True)
    tempfile.tempdir = str(temporary)
    watch = _Watch(temporary)
    whole: dict[tuple[str, str], object] = {}
    for name, reader in READERS.items():  # imports what reading needs
        for path in _parts(samples / reader.sample, reader.broken):
            if reader.broken:
                path = _copied(samples / reader.sample, scratch)
            whole[name, path.name] = reader.read(path)
            if reader.broken:
                break
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MORE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.chdir(scratch)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        name, number = json.loads(line)
        told = _read_one(name, number, samples, scratch, seed, watch, whole)
        print(json.dumps(told), file=answers, flush=True)


def _parts(sample: Path, patterns: tuple[str, ...]) -> list[Path]:
    """The files of a sample, one of which is broken."""
    if sample.is_file():
        return [sample]
    found = {file for pattern in patterns or ("*",) for file in sample.glob(pattern)}
    return sorted(file for file in found if file.is_file())


def _copied(sample: Path, scratch: Path) -> Path:
    """A sample's folder, to be read or written."""
    shutil.rmtree(scratch / "input", ignore_errors=True)
    return shutil.copytree(sample, scratch / "input" / sample.name, symlinks=True)


def _read_one(
    name: str, number: int, samples: Path, scratch: Path, seed: int, watch, whole
) -> tuple[str, str]:
    from fuzz_samples import READERS

    from jaxheads.errors import UserError

    reader = READERS[name]
    rng = random.Random(f"{seed} {name} {number}")
    sample = samples / reader.sample
    chosen = rng.choice(_parts(sample, reader.broken))
    if reader.broken:
        folder = _copied(sample, scratch)
        into = folder / chosen.relative_to(sample)
    else:
        shutil.rmtree(scratch / "input", ignore_errors=True)
        folder = scratch / "input" / sample.name
        folder.mkdir(parents=True)
        into = folder / chosen.name
    write_broken(chosen, into, rng)
    before = _listing(scratch)
    watch.free = watch.free[:2] + ((str(folder.parent),) if reader.writes else ())
    watch.seen, watch.on = [], True
    path = folder if reader.broken else into
    outcome = "loaded", ""
    try:
        value = reader.read(path)
        if reader.exact and value != whole[name, path.name]:
            outcome = "silent", f"{chosen.name}: {value!r:.150}"
    except UserError as error:
        outcome = "refused", str(error)
        if "\n" in str(error):
            outcome = "traceback", f"a message of several lines: {error}"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in last if "jaxheads" in frame.filename] or last
        at = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
        kind = type(error).__name__
        outcome = "traceback", f"{chosen.name}: {kind} at {at}: {str(error)[:150]}"
    finally:
        watch.on = False
    if watch.seen:
        return "effect", f"{chosen.name}: {watch.seen[0]}"
    if not reader.writes and _listing(scratch) != before:
        return "effect", f"{chosen.name}: the folder changed"
    return outcome


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    return sorted(
        (str(path), path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    )


# --- The driver ----------------------------------------------------------------------


class _Worker:
    """A process that reads; a new one takes its place when it has died."""

    def __init__(self, samples: Path, scratch: Path, seed: int):
        self._arguments = [str(samples), str(scratch), str(seed)]
        self._log = scratch.with_name("stderr.txt")
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, name: str, number: int) -> tuple[str, str]:
        """What becomes of an input."""
        process = self._process or self._start()
        assert process.stdin is not None
        process.stdin.write(json.dumps([name, number]).encode() + b"\n")
        process.stdin.flush()
        line = self._line(process, SECONDS)
        if line:
            outcome, why = json.loads(line)
            return outcome, why
        hangs = process.poll() is None and line is None
        self.close()
        if hangs:
            return "hang", f"no answer in {SECONDS:.0f} s"
        end = self._log.read_bytes()[-300:].decode("utf-8", "replace")
        return "crash", f"exit {process.returncode}: {end!r}"

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()  # closes its pipes, too
        self._process = None

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, __file__, "--work", *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | _ENVIRONMENT,
            )
        if self._line(self._process, 10 * SECONDS) != b"ready\n":
            end = self._log.read_text(errors="replace")[-3000:]
            raise RuntimeError(f"whole files must be read, but: {end}")
        return self._process

    @staticmethod
    def _line(process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
        """The next line; b"" at the end, None when it takes too long."""
        assert process.stdout is not None
        with selectors.DefaultSelector() as waiting:
            waiting.register(process.stdout, selectors.EVENT_READ)
            return process.stdout.readline() if waiting.select(seconds) else None


def fuzz(
    count: int,
    seed: int = 0,
    reader: str | None = None,
    first: int = 0,
    seconds: float = float("inf"),
) -> dict[str, Found]:
    """Read broken files of every kind, or of one.

    Args:
        count: inputs in all.
        seed: of all of them.
        reader: the kind; None: all.
        first: number of the first input of a kind.
        seconds: after which no more are read.

    Returns:
        What became of them, by reader.
    """
    from fuzz_samples import READERS

    chosen = {n: r for n, r in READERS.items() if reader in (None, n)}
    shares = sum(one.share for one in chosen.values())
    found = {name: Found() for name in chosen}
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as root:
        samples, scratch = Path(root, "samples"), Path(root, "scratch")
        scratch.mkdir()
        worker = _Worker(samples, scratch, seed)
        try:
            for name, one in chosen.items():
                wanted = max(1, round(count * one.share / shares))
                for number in range(first, first + wanted):
                    if time.monotonic() > end:
                        return found
                    outcome, why = worker.ask(name, number)
                    found[name].counts[outcome] += 1
                    if outcome not in OUTCOMES[:2]:
                        found[name].wrong.append((number, f"{outcome}: {why}"))
                    elif reader and count == 1:
                        print(outcome, why)
                print(table({name: found[name]}), file=sys.stderr, flush=True)
        finally:
            worker.close()
    return found


def table(found: dict[str, Found]) -> str:
    """Counts by reader, and what went wrong."""
    rows = [f"{'reader':<28}{'inputs':>8}" + "".join(f"{o:>11}" for o in OUTCOMES)]
    total = Found()
    for name, one in [*found.items(), ("all", total)]:
        total.counts.update(one.counts if one is not total else {})
        counts = "".join(f"{one.counts[outcome]:>11}" for outcome in OUTCOMES)
        rows.append(f"{name:<28}{one.counts.total():>8}{counts}")
    rows += [
        f"{name} {number}: {why}"
        for name, one in found.items()
        for number, why in one.wrong
    ]
    return "\n".join(rows)


def main() -> int:
    """Fuzz, print the table; 1 if anything went wrong."""
    sys.path.insert(0, str(ROOT))
    if sys.argv[1:2] == ["--work"]:
        work(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", default=None)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    found = fuzz(**vars(parser.parse_args()))
    print(table(found))
    return int(any(one.wrong for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
