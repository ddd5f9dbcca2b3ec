"""Attention by running sums over tiles, compiled: power laws whose weights stay in range.

The core forms every factor from a reference time (core/attention.h); this module says which heads
it may take, cuts them into blocks of rows, and puts common factors back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from math import exp, inf, log, sqrt
from typing import Any, NamedTuple

import numpy as np

from afafilter.attention.inputs import Index
from afafilter.attention.law import Law, LogPrior
from afafilter.attention.recursions import F64, Dynamics, Floats, Rules, output_rows
from afafilter.attention.threads import Task
from afafilter.linalg.integrals import exponential_integral

BAND = 1024
"""Most queries of a block: they share the columns made of far keys."""
LEAST_BAND = 96
"""Fewest queries of a block."""
BANDS = 8
"""Blocks where there are queries enough, so that threads have some each."""
LARGEST = {np.dtype(kind): log(float(np.finfo(kind).max)) for kind in (np.float64, np.float32)}
"""Logarithms of the largest numbers."""


class Model(NamedTuple):
    """Parameters of one head: numbers, or (n,) where its n modes are apart; beta a number."""

    decay: Any
    value_decay: Any
    process_var: Any
    key_var: Any
    query_var: Any
    beta: Any
    prior_precision: Any = 0.0


class Head(NamedTuple):
    """One head or path: its data in the co-rotating frame, its parameters, and where results go.

    q (Nq, d) is not rotated, k (N, d) and v (N, m) are; d = 0 where distances do not count. known
    (N, g) ones and zeros: which of g groups of value columns key j serves, g = 0: all. apart: every
    pair of channels is a mode. out (Nq, paths, m / paths), precision (Nq, paths or modes), weights
    (modes, Nq, N) or None; columns: those of `weights` that the keys have, None: all.

    Of running sums: rules for the kernel, widest |q - k|^2 with which no weight leaves the floating
    point range (-1: some do, or the head has no running sums), longest_key: the largest |k_j|.
    """

    t_query: F64
    t: F64
    n_visible: Index
    k: Floats
    v: Floats
    known: Floats
    omega: F64
    omega_out: F64
    model: Model
    law: Law
    log_prior: LogPrior | None
    backward: str | None
    window: int | None
    tolerance: float
    apart: bool
    columns: Index | None
    q: Floats
    out: Floats
    precision: Floats
    weights: Floats | None = None
    rules: Rules | None = None
    widest: float = -1.0
    longest_key: float = 0.0

    def ready(self) -> Head:
        """The head with what running sums need to know, whatever the queries."""
        if self.apart or self.law.kind == "general" or self.log_prior is not None:
            return self
        law, log_tolerance, omega = self.law, -inf, _turning(self.omega)
        if self.tolerance > 0:
            log_tolerance = log((0.5 if self.backward else 1.0) * self.tolerance)
        omega_out = omega if self.omega_out is self.omega else _turning(self.omega_out)
        window = -1 if self.window is None else self.window
        sides = _sides(self.model, law.scale, law.exponent, self.backward)
        rules = Rules(window, omega, omega_out, *sides, log_tolerance, log(law.peak))
        limits = self.longest, LARGEST[self.v.dtype]
        widest = law.scale * _widest(self.model, law.exponent, self.backward, *limits)
        return self._replace(rules=rules, widest=widest, longest_key=_longest_row(self.k))

    @property
    def longest(self) -> float:
        """Longest lag between a query and a key."""
        if not len(self.t) or not len(self.t_query):
            return 0.0
        ends = self.t_query[-1] - self.t[0], self.t[-1] - self.t_query[0]
        return float(max(*ends, 0.0))

    @property
    def even_scale(self) -> bool:
        """Whether sums over any part of the keys stay in range under one common scale."""
        growth = 2.0 * self.model.beta * self.model.decay * self.longest
        return self.backward != "exact" or growth < 0.2 * LARGEST[self.v.dtype]

    @property
    def is_summable(self) -> bool:
        """Whether running sums do: no weight can leave the range."""
        far = (_longest_row(self.q) + self.longest_key) ** 2 if self.widest >= 0.0 else inf
        return self.weights is None and far <= self.widest

    def blocks(
        self, rows: int, cost: int, do: Callable[[slice], None], *, uses_blas: bool = False
    ) -> Iterator[Task]:
        """Tasks of so many rows, of which a pair costs so many multiplications."""
        for start in range(0, len(self.t_query), rows):
            block = slice(start, min(start + rows, len(self.t_query)))
            keys = len(self.t) if self.backward else int(self.n_visible[block.stop - 1])
            if self.window is not None:
                keys = min(keys, (2 if self.backward else 1) * (self.window + rows))
            yield Task((block.stop - start) * keys * cost, partial(do, block), uses_blas)


@lru_cache
def _sides(
    model: Model, scale: float, exponent: float, backward: str | None
) -> tuple[Dynamics, Dynamics, int]:
    """The directions of time, and how many of them are swept."""
    rates, common = model[:3], (scale, exponent, model.beta)
    past = Dynamics(*rates, model.query_var, model.key_var, *common, True, True)
    if backward is None:
        return past, past, 1
    if backward == "symmetric":
        return past, past._replace(causal=False), 2
    return past, Dynamics(*rates, model.key_var, model.query_var, *common, False, False), 2


@lru_cache
def _widest(
    model: Model, exponent: float, backward: str | None, longest: float, largest: float
) -> float:
    """Largest |q - k|^2 / scale that keeps weights in range, for lags up to the longest, or -1.

    With X = S + |R|^2 / scale a power law's weight is (S^(exponent - 1) / X^exponent)^beta. The
    variance S of a pair is monotone in the lag: least and largest at its ends.
    """
    decay, value_decay, process_var, key_var, query_var, beta, _ = model
    # pulled back, values may grow faster than their weights fall
    if backward == "exact" and not (value_decay - 2.0 * beta * decay) * longest < 0.4 * largest:
        return -1.0
    grown = process_var * float(exponential_integral(-2.0 * decay, longest))
    left, widest = exp(-2.0 * decay * longest), inf
    sides = (query_var, key_var), (key_var, query_var)
    for late, early in sides if backward == "exact" else sides[:1]:
        ends = late + early, grown + late + early * left
        least, most = min(ends), max(ends)
        if not 0.0 < least <= most < inf:
            return -1.0
        log_least = abs(log(least))
        log_s = max(log_least, abs(log(most)))
        room = (0.75 * largest / beta - abs(exponent - 1.0) * log_s) / exponent
        if log_least > room:
            return -1.0
        widest = min(widest, exp(min(room, 700.0)) - most)
    return widest


def _turning(omega: F64) -> F64:
    """Rates of rotation, none where nothing turns."""
    return omega if np.count_nonzero(omega) else omega[:0]


def _longest_row(x: Floats) -> float:
    """Largest |x_i| of rows (N, d), inf beyond the floating-point range."""
    if not x.size:
        return 0.0
    with np.errstate(over="ignore"):
        squares = np.vecdot(x, x)
    return sqrt(squares[squares.argmax()])


def tasks(head: Head) -> Iterator[Task]:
    """Blocks of rows, the same for any number of threads: sums are taken block by block."""
    rows = min(max(-(-len(head.t_query) // BANDS), LEAST_BAND), BAND)
    return head.blocks(rows, head.v.shape[1] + head.q.shape[1], partial(sweep, head))


def sweep(head: Head, block: slice) -> None:
    """Compute some output rows of one head."""
    assert head.rules is not None
    out, precision, v, t_query = head.out[block], head.precision[block], head.v, head.t_query[block]
    to = out.reshape(len(t_query), -1), precision
    if not (out.flags.c_contiguous and precision.flags.c_contiguous):
        to = np.empty((len(t_query), v.shape[1]), v.dtype), np.empty(precision.shape, v.dtype)
    data = np.ascontiguousarray(head.q[block]), head.k, v, head.known, t_query, head.t
    output_rows(*data, head.n_visible[block], head.rules, *to)
    if to[1] is not precision:
        out[...], precision[...] = to[0].reshape(out.shape), to[1]
