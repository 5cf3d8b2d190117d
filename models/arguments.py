"""What callers give, checked before it is compiled: arrays, tokens, positions.

Types and shapes are known always. Values are looked at where they are there: not under
``jit``, and not of arrays that are spread over several processes.
"""

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray
"""What every public function takes: numpy's arrays and jax's."""

KINDS = {
    "int": jnp.integer,
    "float": jnp.floating,
    "number": (jnp.integer, jnp.floating),
    "bool": jnp.bool_,
}


def check_array(
    array: Any, name: str, kind: str, letters: str = "", shape: tuple | None = None
) -> None:
    """Raise unless something is an array of a kind and a shape.

    Args:
        array: what was given.
        name: of the argument.
        kind: one of ``KINDS``.
        letters: of the shape, such as "[B, T]".
        shape: sizes, None where any will do; None: any shape.

    Raises:
        TypeError: it is no array, or one of another kind.
        ValueError: it has another shape.
    """
    if not hasattr(array, "dtype") or not hasattr(array, "shape"):
        raise TypeError(
            f"{name} must be an array, {kind} {letters}".rstrip()
            + f", but is a {type(array).__name__}: make it one with np.array"
        )
    kinds = KINDS[kind] if isinstance(KINDS[kind], tuple) else (KINDS[kind],)
    if not any(jnp.issubdtype(array.dtype, one) for one in kinds):
        raise TypeError(
            f"{name} must be {kind} {letters}".rstrip() + f", but is {array.dtype}"
        )
    if shape is None:
        return
    sizes = zip(array.shape, shape, strict=False)
    fits = all(wanted in (None, size) for size, wanted in sizes)
    if len(array.shape) != len(shape) or not fits:
        said = f" = {shape}" if None not in shape else ""
        raise ValueError(
            f"{name} must be {kind} {letters}{said}, but has shape {array.shape}"
        )


def _known(array: Any) -> bool:
    """Whether an array's values are there to be looked at."""
    if isinstance(array, jax.core.Tracer):
        return False
    return getattr(array, "is_fully_addressable", True)


def check_range(array: Any, name: str, least: int, most: int, what: str) -> None:
    """Raise ValueError at the first integer that is out of a range.

    Args:
        array: int [...], whose values are looked at where they are there.
        name: of the argument.
        least: smallest integer that is right.
        most: largest.
        what: what there is, for the message: "the model has 640 tokens".
    """
    if not _known(array) or not array.size:
        return
    values = np.asarray(array)
    if least <= values.min() and values.max() <= most:
        return
    place = np.argwhere((values < least) | (values > most))[0].tolist()
    where = f"{name}{place or ''}"
    raise ValueError(f"{where} is {values[tuple(place)]}, {what}: {least} to {most}")


def check_finite(array: Any, name: str) -> None:
    """Raise ValueError at the first value that is NaN or infinite."""
    if not _known(array):
        return
    if isinstance(array, jax.Array):
        # Where it lies: a fill may be large, and on an accelerator.
        with jax.ensure_compile_time_eval():
            if _finite(array):
                return
    values = np.asarray(array)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        place = wrong[0].tolist()
        raise ValueError(
            f"{name} must be finite, but {name}{place or ''} is {values[tuple(place)]}"
        )


@jax.jit
def _finite(array: jax.Array) -> jax.Array:
    return jnp.isfinite(array).all()


def check_ids(ids: Any, name: str, vocab_size: int) -> None:
    """Raise ValueError at the first token id that a model does not have."""
    what = f"the model has {vocab_size} tokens"
    check_range(ids, name, 0, vocab_size - 1, what)


def check_answers(lengths: Any, max_new_tokens: int, config: Any) -> None:
    """Raise unless so many new tokens behind prompts fit a model's context.

    Args:
        lengths: int [B], of the prompts.
        max_new_tokens: M; the last one is not run.
        config: of the model.
    """
    m = max_new_tokens
    if not isinstance(m, int | np.integer) or isinstance(m, bool):
        raise TypeError(f"max_new_tokens must be an int, but is {m!r}")
    context = config.context_length
    if not 1 <= m <= context:
        raise ValueError(
            f"max_new_tokens must be 1 to the context of {context}, but is {m}"
        )
    what = f"{m} new tokens leave of the context of {context}"
    check_range(lengths, "lengths", 1, context - m + 1, what)


def check_positions(at: Any, name: str, shape: tuple[int, ...]) -> None:
    """Raise unless positions are int [B, P] within sequences of a shape (B, T)."""
    rows, length = shape
    check_array(at, name, "int", "[B, P]", (rows, None))
    what = f"the sequences have {length} positions"
    check_range(at, name, 0, length - 1, what)


def check_tokens(
    tokens: Any, config: Any, lengths: Any = None, segments: Any = None
) -> None:
    """Raise unless a model can be run on tokens.

    Args:
        tokens: int [B, T], ids of the model, T within its context.
        config: of the model.
        lengths: int [B], 1 to T; or None.
        segments: int [B, T]; or None.

    Raises:
        TypeError: something is no array of integers.
        ValueError: a shape, an id or a length does not fit.
    """
    check_array(tokens, "tokens", "int", "[B, T]", (None, None))
    b, t = tokens.shape
    if not t:
        raise ValueError("tokens must be int [B, T] with one token or more, but T is 0")
    if t > config.context_length:
        raise ValueError(
            f"the sequence has {t} tokens, but the model's context is "
            f"{config.context_length}: shorten it (fewer shots, shorter documents)"
        )
    check_ids(tokens, "tokens", config.vocab_size)
    if lengths is not None:
        check_array(lengths, "lengths", "int", "[B]", (b,))
        check_range(lengths, "lengths", 1, t, f"the rows have {t} tokens")
    if segments is not None:
        check_array(segments, "segments", "int", "[B, T]", (b, t))
