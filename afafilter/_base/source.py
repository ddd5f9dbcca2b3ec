"""What is kept beside an estimate so that it can be asked for more than states."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from afafilter._base.checks import Array


class Source(NamedTuple):
    """What an estimate was made of, as far as it is asked for more than states.

    An observation of the state x would show H x + offset + v, v ~ N(0, R), each with or without a
    leading time axis; `parts` are name and number of states of the model's summands; `draw(n, rng)`
    gives paths (n, ..., T, d) given all data, None where the estimates have no joint law.
    """

    H: Array
    offset: Array
    R: Array
    parts: tuple[tuple[str, int], ...] = ()
    draw: Callable[[int, np.random.Generator], Array] | None = None
