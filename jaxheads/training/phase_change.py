"""When in training a figure jumps: a date, a window, and how sure both are.

A curve over steps is fitted, by least squares, with a level, a straight rise and
another level::

    f(t) = low                                      t <= begin
           low + (high - low) (t - begin) / (end - begin)    between
           high                                     t >= end

``begin`` and ``end`` are evaluations; neighbours are a jump, the sharpest rise that the
evaluations can show. The fit gives the levels, and its middle the change point. What is
read off the curve itself is the date: the step at which it first passes half of the
rise, between evaluations by a straight line. Single wild evaluations do not count there:
each value is replaced by the median of it and its neighbours.

Nothing is found where the rise is smaller than ``least``, or so small against the
scatter around the fit that a curve without any rise would show it. A slow, even rise
over the whole of training is found, too: its window says so.

Source: Olsson et al. 2022, arguments 1 and 2, date the window by eye; the fit and the
intervals are this project's.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from jaxheads.errors import UserError
from jaxheads.statistics import LEVEL

LEAST = 0.1
"""Rise below which nothing is found: of a share of attention, or in nats."""

_NORMALS = {0.9: 1.6449, 0.95: 1.96, 0.99: 2.5758}
