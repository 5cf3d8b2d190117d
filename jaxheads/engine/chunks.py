"""Many prompts, or subsets, in chunks of one length, split over the devices."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxheads import stops
from jaxheads.engine.devices import data_parts, gather, mesh_of, replicate, split
from jaxheads.engine.memory import balanced


def chunks(count: int, size: int, parts: int = 1) -> Iterator[np.ndarray]:
    """Index arrays of one length, at most ``size``, that cover ``range(count)``.

    One length means one compile; the chunks are balanced, so that the last one repeats
    its last index a few times at most. Before each one is a safe place to stop.

    Args:
        count: items.
        size: of a chunk, at most; no less than ``parts``.
        parts: each chunk is a multiple of it, see ``devices.data_parts``.
    """
    size = balanced(count, max(size // parts, 1) * parts, parts)
    for start in range(0, count, size):
        stops.check()
        yield np.minimum(np.arange(start, start + size), count - 1)


def over_prompts(
    function: Any,
    params,
    prompts: tuple[np.ndarray, ...],
    others: tuple,
    *,
    chunk: int,
    **keywords: Any,
) -> list[Any]:
    """Call a function on chunks of prompts, split over the devices.

    Args:
        function: jitted; of params, prompts, others.
        params: of the model; where they lie is where it runs.
        prompts: arrays [B, ...], one row a prompt.
        others: arguments that all prompts share.
        chunk: prompts that run at once.
        **keywords: static arguments of the function.

    Returns:
        Numpy results of the chunks; the last repeats its last prompt where B does not
        fill it.
    """
    mesh = mesh_of(params)
    others = replicate(others, mesh)
    return [
        gather(
            function(
                params,
                *split(tuple(rows[index] for rows in prompts), mesh),
                *others,
                **keywords,
            )
        )
        for index in chunks(len(prompts[0]), chunk, data_parts(mesh))
    ]


def part_of_fill(fill: Any, part: Any, axis: int = 1) -> Any:
    """What replaces heads in some of the prompts, or at some of the positions.

    Args:
        fill: array or ``jax.ShapeDtypeStruct`` [L, H, K] or [L, B, T, H, K] (B or T may
            be 1), or None.
        part: a slice or indices.
        axis: 1: of prompts; 2: of positions.
    """
    if fill is None or len(fill.shape) != 5 or fill.shape[axis] == 1:
        return fill
    if isinstance(fill, jax.ShapeDtypeStruct):
        count = len(np.arange(fill.shape[axis])[part])
        shape = (*fill.shape[:axis], count, *fill.shape[axis + 1 :])
        return jax.ShapeDtypeStruct(shape, fill.dtype)
    return fill[(slice(None),) * axis + (part,)]


def distinct(replaced: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different ones of sets, so that none is run twice.

    Args:
        replaced: bool [N, L, H].

    Returns:
        Indices of the first set of each kind, in order, [M]; and which of these each
        set is, [N]: ``replaced[first][place]`` are all sets again.
    """
    rows = replaced.reshape(len(replaced), -1)
    _, first, place = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[place.reshape(-1)]


def whole_chunks(replaced: np.ndarray, chunk: int) -> np.ndarray:
    """Sets [N, L, H] with the last one repeated, so that they fill chunks of a size.

    Then the program that was planned for more sets runs fewer of them as it is.
    """
    missing = -len(replaced) % chunk
    return np.concatenate([replaced, np.repeat(replaced[-1:], missing, axis=0)])
