"""The compiled recurrence of sums of exponentials: the one module here that imports the core."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array
from afafilter._core import core


class Rates(NamedTuple):
    """Rates (K,) and coefficients (K,), both real or both complex, of the weight's terms; further
    decays of numerator and denominator."""

    rates: NDArray[Any]
    coefs: NDArray[Any]
    num_rate: float
    den_rate: float


class Observed(NamedTuple):
    """Observation times (T,), their weights (T,), signals (T, D); query times (M,) and how many
    observations come before each, visible (M,)."""

    t: Array
    weight: Array
    signal: Array
    t_query: Array
    visible: NDArray[np.int64]


def sweep(
    law: Rates, seen: Observed, clock: float, num: NDArray[Any], den: NDArray[Any]
) -> tuple[Array, Array, float]:
    """Advance the states num (D, K), den (K,), which stand at `clock`, over the observations.

    Returns the sums at the queries, (M, D) and (M,), and the time of the states, which is that of
    the last observation. A query before the first observation has sums of 0.
    """
    num_out = np.empty((len(seen.t_query), num.shape[0]))
    den_out = np.empty(len(seen.t_query))
    kernel = core.sweep_complex128 if num.dtype.kind == "c" else core.sweep_float64
    now = kernel(*law, *seen, clock, num, den, num_out, den_out)
    if np.isnan(now):
        raise MemoryError(f"no memory for {num.size} states of the recurrence")
    return num_out, den_out, now
