"""The compiled kernels of attention: the one module of this package that imports the core.

Data are float32 or float64, and each kernel exists for both; times, parameters and running sums are
float64.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from afafilter._core import core

Floats = NDArray[np.floating[Any]]
F64 = NDArray[np.float64]
Index = NDArray[np.int64]
Kind = TypeVar("Kind", bound=np.floating[Any])

_KERNELS = {
    np.dtype(kind): {
        name: getattr(core, f"{name}_{kind}") for name in ("output_rows", "pair_up", "rotate")
    }
    for kind in ("float64", "float32")
}


class Dynamics(NamedTuple):
    """One direction of time: how keys are pulled to queries, and the power law of their distances.

    S = V(tau) + var_late + e^{-2 mu tau} var_early is the variance of a pair, V(tau) =
    process_var (1 - e^{-2 mu tau}) / (2 mu), mu = decay. The weight is (1 + d2 / scale)^-exponent
    to the power beta.
    """

    decay: float
    value_decay: float
    process_var: float
    var_late: float
    var_early: float
    scale: float
    exponent: float
    beta: float
    causal: bool
    query_late: bool


class Rules(NamedTuple):
    """What a head knows besides its data.

    window: how many keys count on each side, -1: all; omega (n,), omega_out (o,): rotation of
    queries and of the output, none where nothing turns; the two directions of time, of which so
    many `sides` are swept; log_tolerance: logarithm of how much keys may weigh together, relative
    to those summed (less that of the largest weight w), to be left out; log_peak: log w(0).
    """

    window: int
    omega: F64
    omega_out: F64
    past: Dynamics
    back: Dynamics
    sides: int
    log_tolerance: float
    log_peak: float


def output_rows(
    q: Floats,
    k: Floats,
    v: Floats,
    known: Floats,
    t_query: F64,
    t: F64,
    seen: Index,
    rules: Rules,
    out: Floats,
    precision: Floats,
) -> None:
    """Fill out (B, m) and precision (B, g), NaN and 0 where no key has weight.

    q (B, d) as it is, k (N, d) and v (N, m) in the co-rotating frame; known (N, h) ones and zeros,
    which of h = g groups of value columns a key serves, h = 0: all; row i sees seen[i] keys as its
    past, which may not decrease.
    """
    data = q, k, v, known, t_query, t, seen
    _require(_KERNELS[v.dtype]["output_rows"](*data, rules, out, precision))


def pair_up(
    log_p: Floats, d2: Floats, q: Floats, k: Floats, t_query: F64, t: F64, dynamics: Dynamics
) -> None:
    """log_p (B, K) = log 1/S of every pair, with log e^{-2 mu tau} where the key is late.

    d2 (B, K) += |x_late - e^{-mu tau} x_early|^2 / S, for queries q (B, d) and keys k (K, d); with
    dynamics.exponent > 0 it becomes log(1 + that / scale), which stays finite where S underflows.
    """
    _require(_KERNELS[log_p.dtype]["pair_up"](log_p, d2, q, k, t_query, t, dynamics))


def rotated(x: NDArray[Kind], t: F64, omega: F64, sign: float) -> NDArray[Kind]:
    """A copy of x (..., N, d), channel pairs turned by the angles sign omega t (x if those are 0).

    Channels beyond twice len(omega) stay. Angles are formed in double precision.
    """
    if not x.size or not np.count_nonzero(omega):
        return np.ascontiguousarray(x)
    flat = np.ascontiguousarray(x).reshape(-1, *x.shape[-2:])
    out = np.empty(flat.shape, x.dtype)
    _require(_KERNELS[x.dtype]["rotate"](t, omega, sign, flat, out))
    return out.reshape(x.shape)


def _require(code: int) -> None:
    if code:
        raise MemoryError("attention found no memory for the tiles of one thread (some MiB)")
