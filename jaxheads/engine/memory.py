"""How much memory there is, and how much of a study's work fits in it at once.

What a chunk needs is read off the compiled program itself, so it holds for every
family, dtype, backend and mesh. Nothing is compiled for that alone: a run calls the
very program that was looked at.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxheads import stops
from jaxheads.engine.devices import data_parts, mesh_of
from jaxheads.errors import UserError

try:
    import resource
except ImportError:  # not on Windows
    resource = None

ACCELERATOR_SHARE = 0.85
"""Of an accelerator's free memory that is planned with; the rest is for libraries'
work space and fragments."""

CPU_SHARE = 0.5
"""Of the free main memory that is planned with; other programs want some too."""

CPU_MOST = 2e9
"""Bytes; chunks that need more are no faster on a CPU."""


def budget_bytes(memory_gb: float | None = None, params: Any = None) -> int:
    """Memory that a device has for activations, besides the params that are there.

    Args:
        memory_gb: as the user wants it; None: a share of what is free.
        params: that are loaded; their devices are asked. None: all local ones.

    Returns:
        Bytes a device, the least of all devices and processes.

    Raises:
        UserError: ``memory_gb`` is not positive and finite.
    """
    if memory_gb is not None:
        if not 0 < memory_gb < math.inf:
            raise UserError(
                f"--memory-gb must be positive and finite, but is {memory_gb}: give "
                "gigabytes, or leave it out for a share of what is free"
            )
        return int(memory_gb * 1e9)
    devices = jax.local_devices()
    if params is not None:
        leaf = jax.tree.leaves(params)[0]
        devices = [device for device in leaf.devices() if device in devices]
    least = min(_of_device(device, len(devices)) for device in devices)
    if jax.process_count() > 1:
        everyone = multihost_utils.process_allgather(np.float32(least / 2**20))
        least = float(np.min(everyone)) * 2**20
    return int(least)


def _of_device(device: Any, sharing: int) -> float:
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        free = stats["bytes_limit"] - stats["bytes_in_use"]
        return ACCELERATOR_SHARE * free
    # Virtual CPU devices share one memory.
    return min(CPU_SHARE * free_main_memory(), CPU_MOST) / sharing


def free_main_memory() -> float:
    """Bytes of main memory that this process can still take.

    The least of what the system has available (MemAvailable), what the process' control
    group leaves (versions 2 and 1) and what its own limits leave; infinite where the
    system tells nothing.
    """
    free = [math.inf]
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            free.append(1024 * float(line.split()[1]))
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        limit, used = (
            _read(f"/sys/fs/cgroup/{name}").strip() for name in (limit, used)
        )
        if limit.isdigit() and used.isdigit():
            free.append(float(limit) - float(used))
    pages = _read("/proc/self/statm").split()
    if resource is not None and pages:
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            free.append(limit - float(pages[0]) * resource.getpagesize())
    return max(min(free), 0.0)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError:
        return ""


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A compiled function that a study runs again and again, a chunk at a time.

    Attributes:
        name: what it does and on what, for the plan.
        function: jitted, of the params and other arguments.
        params: of the model.
        arguments: chunk size -> the other arguments, static ones included, by position
            as the run gives them; ``jax.ShapeDtypeStruct`` where they are arrays,
            placed as the run will place them.
        items: prompts or subsets of one sweep.
        most: items at once, on a device, beyond which nothing is gained.
        flops: of an item.
        sweeps: how often the study does this, for the plan.
        keywords: static arguments of the function.
        split: whether items are split over the devices.
    """

    name: str
    function: Any
    params: Any
    arguments: Callable[[int], tuple]
    items: int
    most: int
    flops: float
    sweeps: int = 1
    keywords: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    split: bool = True


@dataclasses.dataclass(frozen=True)
class Fit:
    """A program at the chunk that was chosen.

    Attributes:
        program: that was fitted.
        chunk: items that run at once, on all devices together.
        bytes: that a device needs for it, besides the params.
    """

    program: Program
    chunk: int
    bytes: int

    @property
    def calls(self) -> int:
        """How often the program will be called."""
        return self.program.sweeps * -(-self.program.items // self.chunk)


def fit(program: Program, budget: int) -> Fit:
    """The largest chunk whose compiled program stays within a budget.

    Args:
        program: to be run.
        budget: bytes on a device, see ``budget_bytes``.

    Returns:
        Chunk and bytes; the bytes exceed the budget where not even one item a device
        fits (see ``refuse_what_cannot_fit``).
    """
    parts = data_parts(mesh_of(program.params)) if program.split else 1
    size = max(1, min(program.most, -(-program.items // parts)))
    while True:
        stops.check()
        chunk = balanced(program.items, size * parts, parts)
        needed = program_bytes(program, chunk)
        if needed <= budget or size == 1:
            return Fit(program, chunk, needed)
        size = max(1, min(size // 2, int(size * budget / needed)))


def balanced(count: int, most: int, parts: int = 1) -> int:
    """Size of equal chunks of ``count`` items, at most ``most``.

    Both are multiples of ``parts``, the number of devices that share a chunk.
    """
    count = max(1, count)
    size = -(-count // -(-count // most))
    return -(-size // parts) * parts


def program_bytes(program: Program, chunk: int) -> int:
    """Bytes on a device of one run of a compiled program, besides the params."""
    others = program.arguments(chunk)
    lowered = program.function.lower(program.params, *others, **program.keywords)
    compiled = lowered.compile()
    stats = compiled.memory_analysis()
    given = sum(_device_bytes(leaf) for leaf in jax.tree.leaves(others))
    if jax.default_backend() == "cpu":
        given += _within_fusions(compiled.as_text())
    return stats.temp_size_in_bytes + stats.output_size_in_bytes + given


def _within_fusions(text: str) -> int:
    """Bytes of the values within the largest fusion that a CPU library runs.

    The library keeps them in memory of its own, which the compiler does not count.
    """
    bodies = dict(re.findall(r"^%(\S+) \([^\n]*\{\n(.*?)^\}", text, re.M | re.S))
    called = set(re.findall(r"kind=kCustom, calls=%([^,\s]+)", text))
    return max((_value_bytes(bodies.get(name, "")) for name in called), default=0)


def _value_bytes(body: str) -> int:
    """Bytes of what a computation makes; its inputs and mere views are not made."""
    views = {"parameter", "constant", "broadcast", "bitcast", "reshape"}
    made = re.findall(r"^ +%\S+ = [a-z]+(\d*)\[([\d,]*)\]\S* ([\w-]+)\(", body, re.M)
    return sum(
        math.prod(int(size) for size in dims.split(",") if size) * int(bits or 8) // 8
        for bits, dims, operation in made
        if operation not in views
    )


def shapes(arrays: Any, count: int | None = None) -> Any:
    """Arrays without their values, for ``Program.arguments``.

    Args:
        arrays: tree of arrays.
        count: length of each first axis; None: as it is.

    Returns:
        The same tree with ``jax.ShapeDtypeStruct``.
    """

    def shape_of(leaf):
        if not hasattr(leaf, "dtype"):
            return leaf
        shape = leaf.shape if count is None else (count, *leaf.shape[1:])
        dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
        return jax.ShapeDtypeStruct(shape, dtype)

    return jax.tree.map(shape_of, arrays)


def _device_bytes(leaf: Any) -> int:
    """Bytes of an array, or of what it will be, on one device; 0 of other things."""
    if not hasattr(leaf, "dtype"):
        return 0
    shape = np.shape(leaf)
    sharding = getattr(leaf, "sharding", None)
    if sharding is not None:
        shape = sharding.shard_shape(shape)
    return math.prod(shape) * np.dtype(leaf.dtype).itemsize


def refuse_what_cannot_fit(fits: list[Fit], budget: int, advice: str) -> None:
    """Say before a run that its smallest step is larger than the memory.

    Args:
        fits: of everything that will run.
        budget: bytes on a device.
        advice: what makes it smaller.

    Raises:
        UserError: a program does not fit.
    """
    worst = max(fits, key=lambda fitted: fitted.bytes)
    if worst.bytes > budget:
        raise UserError(
            f"{worst.program.name} need {_size(worst.bytes)} of memory besides the "
            f"params, {worst.chunk} at a time, but {_size(budget)} is there: {advice}, "
            "or give a larger --memory-gb if the device has more"
        )


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count > 1e8 else f"{count / 1e6:.2f} MB"
