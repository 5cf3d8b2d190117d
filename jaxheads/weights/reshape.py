"""Reshapes written in dim letters, such as ``"(h k) d -> d h k"``."""

import dataclasses
import math
import re
from collections.abc import Mapping

import numpy as np

Axes = tuple[tuple[str, ...], ...]
"""Axes of an array; each is the letters that it is the product of, major first."""


@dataclasses.dataclass(frozen=True)
class Reshape:
    """A permutation of dim letters, between two ways of grouping them into axes.

    Attributes:
        source: axes before.
        target: axes after; the same letters.
    """

    source: Axes
    target: Axes

    @classmethod
    def parse(cls, text: str) -> "Reshape":
        """Read ``"(h k) d -> d h k"``: brackets hold the letters of one axis.

        Raises:
            ValueError: the text is not of this form, or the sides' letters differ.
        """
        left, arrow, right = text.partition("->")
        source, target = _axes(left), _axes(right)
        before, after = sorted(_letters(source)), sorted(_letters(target))
        if not arrow or before != after or len(set(before)) != len(before):
            raise ValueError(
                "a reshape must be like '(h k) d -> d h k', with each letter once on "
                f"either side, but is {text!r}"
            )
        return cls(source, target)

    def inverse(self) -> "Reshape":
        """The reshape that undoes this one."""
        return Reshape(self.target, self.source)

    def source_shape(self, dims: Mapping[str, int]) -> tuple[int, ...]:
        """Shape of the arrays that ``apply`` takes."""
        return _shape(self.source, dims)

    def target_shape(self, dims: Mapping[str, int]) -> tuple[int, ...]:
        """Shape of the arrays that ``apply`` gives."""
        return _shape(self.target, dims)

    def view(self, array: np.ndarray, dims: Mapping[str, int]) -> np.ndarray:
        """An array with an axis for each letter, in the target's order; no copy.

        Args:
            array: of shape ``source_shape(dims)``.
            dims: sizes by letter.
        """
        letters = _letters(self.source)
        order = [letters.index(letter) for letter in _letters(self.target)]
        return array.reshape([dims[letter] for letter in letters]).transpose(order)

    def apply(self, array: np.ndarray, dims: Mapping[str, int]) -> np.ndarray:
        """Reshape, transpose, reshape.

        Args:
            array: of shape ``source_shape(dims)``.
            dims: sizes by letter.

        Returns:
            Array of shape ``target_shape(dims)``; a view where numpy can give one.
        """
        return self.view(array, dims).reshape(self.target_shape(dims))


def _axes(text: str) -> Axes:
    if re.sub(r"\(\s*\w(\s+\w)*\s*\)|\b\w\b|\s", "", text):
        return ()  # stray characters: the caller's comparison of letters fails
    groups = re.findall(r"\(([^)]*)\)|(\w)", text)
    return tuple(tuple(bracket.split()) or (letter,) for bracket, letter in groups)


def _letters(axes: Axes) -> list[str]:
    return [letter for axis in axes for letter in axis]


def _shape(axes: Axes, dims: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(math.prod(dims[letter] for letter in axis) for axis in axes)
