"""The compiled kernels of attention: the one module of this package that imports the core.

Data are float32 or float64, and each kernel exists for both; times, parameters and running sums are
float64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._core import core

Floats = NDArray[np.floating[Any]]
F64 = NDArray[np.float64]
Index = NDArray[np.int64]

_KERNELS = {
    np.dtype(kind): {
        name: getattr(core, f"{name}_{kind}") for name in ("attend", "pair_up", "rotate", "finish")
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


class Rows(NamedTuple):
    """What `attend` reads and where its sums go: B queries, N keys.

    q (B, d), k (N, d), v (N, m) in the co-rotating frame; known (N, h) ones and zeros, which of h
    groups of value columns a key serves, h = 0: all; row i sees keys low[i], ..., high[i] - 1, and
    neither may decrease; lead (B,) is what decays of exact acausal pairs leave out of the distance;
    num (B, m), den (B, max(h, 1)) are added to.
    """

    q: Floats
    k: Floats
    v: Floats
    known: Floats
    t_query: F64
    t: F64
    low: Index
    high: Index
    lead: F64
    num: F64
    den: F64


def attend(rows: Rows, dynamics: Dynamics, log_tolerance: float = -np.inf) -> None:
    """Running sums of values and of weights over all keys that the rows see, nearest first.

    log_tolerance : logarithm of how much keys may weigh together, relative to those summed (less
        that of the largest weight w), to be left out.
    """
    _require(_KERNELS[rows.v.dtype]["attend"](rows, dynamics, log_tolerance))


def pair_up(
    log_p: Floats, d2: Floats, q: Floats, k: Floats, t_query: F64, t: F64, dynamics: Dynamics
) -> None:
    """log_p (B, K) = log 1/S of every pair, with log e^{-2 mu tau} where the key is late.

    d2 (B, K) += |x_late - e^{-mu tau} x_early|^2 / S, for queries q (B, d) and keys k (K, d); with
    dynamics.exponent > 0 it becomes log(1 + that / scale), which stays finite where S underflows.
    """
    _require(_KERNELS[log_p.dtype]["pair_up"](log_p, d2, q, k, t_query, t, dynamics))


def rotated(x: Floats, t: F64, omega: F64, sign: float) -> Floats:
    """A copy of x (..., N, d), channel pairs turned by the angles sign omega t (x if those are 0).

    Channels beyond twice len(omega) stay. Angles are formed in double precision.
    """
    if not x.size or not np.count_nonzero(omega):
        return np.ascontiguousarray(x)
    flat = np.ascontiguousarray(x).reshape(-1, *x.shape[-2:])
    out = np.empty(flat.shape, x.dtype)
    _require(_KERNELS[x.dtype]["rotate"](t, omega, sign, flat, out))
    return out.reshape(x.shape)


def finish(
    out: Floats, precision: Floats, num: F64, den: F64, t: F64, omega: F64, lift: F64, scale: F64
) -> None:
    """out (B, m) = e^lift num / den, turned by omega t group by group; precision = e^scale den.

    den (B, g) for g groups of m / g columns; NaN where it is 0.
    """
    _require(_KERNELS[out.dtype]["finish"](out, precision, num, den, t, omega, lift, scale))


def _require(code: int) -> None:
    if code:
        raise MemoryError("attention found no memory for the tiles of one thread (some MiB)")
