"""Attention by running sums over tiles, compiled: power laws whose weights stay in range.

The core forms every factor from a reference time (core/attention.h); this module says which heads
it may take, cuts them into blocks of rows, and puts common factors back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import exp, inf, log, sqrt
from typing import NamedTuple

import numpy as np

from afafilter.attention.inputs import Index
from afafilter.attention.law import Law, LogPrior
from afafilter.attention.recursions import F64, Dynamics, Floats, Rules, output_rows
from afafilter.attention.threads import Task
from afafilter.linalg.integrals import exponential_integral

BAND = 1024
"""Most queries of a block: they share the columns made of far keys."""
LEAST_BAND = 96
"""Fewest queries of a block that is made so that every thread has some."""
LARGEST = {np.dtype(kind): log(float(np.finfo(kind).max)) for kind in (np.float64, np.float32)}
"""Logarithms of the largest numbers."""


class Model(NamedTuple):
    """Parameters of one head."""

    decay: float
    value_decay: float
    process_var: float
    key_var: float
    query_var: float
    beta: float


@dataclass(frozen=True, eq=False)
class Head:
    """One head or path: its data in the co-rotating frame, its parameters, and where results go."""

    t_query: F64
    t: F64
    n_visible: Index
    q: Floats | None
    """(Nq, d), not rotated."""
    k: Floats | None
    """(N, d), rotated."""
    v: Floats
    """(N, m), rotated."""
    known: Floats | None
    """(N, g) ones and zeros: which of g groups of value columns key j serves. None: all."""
    omega: F64
    omega_out: F64
    model: Model
    law: Law
    log_prior: LogPrior | None
    backward: str | None
    window: int | None
    tolerance: float
    out: Floats
    """(Nq, paths, m / paths)"""
    precision: Floats
    """(Nq, paths)"""
    weights: Floats | None = None
    columns: Index | None = None
    """Columns of `weights` that the keys have; None: all."""

    def growth(self, tau: float) -> float:
        """V(tau)."""
        return self.model.process_var * float(exponential_integral(-2.0 * self.model.decay, tau))

    @cached_property
    def longest(self) -> float:
        """Longest lag between a query and a key."""
        if not len(self.t) or not len(self.t_query):
            return 0.0
        ends = self.t_query[-1] - self.t[0], self.t[-1] - self.t_query[0]
        return float(max(*ends, 0.0))

    @cached_property
    def sides(self) -> tuple[Dynamics, ...]:
        """The directions to sweep."""
        common = (self.law.scale, self.law.exponent, self.model.beta)
        model = (self.model.decay, self.model.value_decay, self.model.process_var)
        past = Dynamics(*model, self.model.query_var, self.model.key_var, *common, True, True)
        if self.backward is None:
            return (past,)
        if self.backward == "symmetric":
            return past, past._replace(causal=False)
        late, early = self.model.key_var, self.model.query_var
        return past, Dynamics(*model, late, early, *common, False, False)

    @cached_property
    def rules(self) -> Rules:
        """What the kernel wants to know of the head."""
        log_tolerance = -inf
        if self.tolerance > 0:
            log_tolerance = log((0.5 if self.backward else 1.0) * self.tolerance)
        turns = self.omega, self.omega_out
        omega, omega_out = (x if np.count_nonzero(x) else x[:0] for x in turns)
        window = -1 if self.window is None else self.window
        sides = self.sides[0], self.sides[-1], len(self.sides)
        return Rules(window, omega, omega_out, *sides, log_tolerance, log(self.law.peak))

    @cached_property
    def variances(self) -> tuple[tuple[float, float], ...]:
        """Least and largest variance of a pair in each direction: it is monotone in the lag."""
        grown = self.growth(self.longest)
        left = exp(-2.0 * self.model.decay * self.longest)
        return tuple(
            (min(ends), max(ends))
            for late, early in {(side.var_late, side.var_early) for side in self.sides}
            for ends in ((late + early, grown + late + early * left),)
        )

    @cached_property
    def longest_key(self) -> float:
        """Largest |k_j|."""
        return _longest_row(self.k)

    def asked(
        self, q: Floats | None, out: Floats, precision: Floats, weights: Floats | None
    ) -> Head:
        """The same keys and times for other queries: what is known of them is kept."""
        head = object.__new__(Head)
        head.__dict__.update(self.__dict__, q=q, out=out, precision=precision, weights=weights)
        return head

    @cached_property
    def widest(self) -> float:
        """Largest |q - k|^2 / scale with which no weight leaves the floating point range, or -1.

        With X = S + |R|^2 / scale a power law's weight is (S^(exponent - 1) / X^exponent)^beta.
        """
        limit, widest = 0.75 * LARGEST[self.v.dtype], inf
        # pulled back, values may grow faster than their weights fall
        growing = self.model.value_decay - 2.0 * self.model.beta * self.model.decay
        if self.backward == "exact" and not growing * self.longest < 0.4 * LARGEST[self.v.dtype]:
            return -1.0
        for least, most in self.variances:
            if least <= 0.0 or not most < inf:
                return -1.0
            log_s = max(abs(log(least)), abs(log(most)))
            exponent = self.law.exponent
            room = (limit / self.model.beta - abs(exponent - 1.0) * log_s) / exponent
            if abs(log(least)) > room:
                return -1.0
            widest = min(widest, exp(min(room, 700.0)) - most)
        return widest

    @property
    def stays_in_range(self) -> bool:
        """Whether no weight can leave it."""
        if self.law.kind != "power":
            return self.widest >= 0.0
        return (_longest_row(self.q) + self.longest_key) ** 2 <= self.widest * self.law.scale

    @property
    def even_scale(self) -> bool:
        """Whether sums over any part of the keys stay in range under one common scale."""
        growth = 2.0 * self.model.beta * self.model.decay * self.longest
        few = self.backward != "exact" or growth < 0.2 * LARGEST[self.v.dtype]
        return self.stays_in_range and few

    @property
    def is_summable(self) -> bool:
        """Whether running sums do."""
        special = self.law.kind == "general" or self.log_prior is not None
        return not special and self.weights is None and self.stays_in_range

    def tasks(self, threads: int) -> Iterator[Task]:
        """Blocks of rows."""
        size = len(self.t_query)
        rows = min(max(-(-size // (2 * threads)), LEAST_BAND), BAND)
        channels = self.v.shape[1] + (0 if self.q is None else self.q.shape[1])
        for start in range(0, size, rows):
            block = slice(start, min(start + rows, size))
            keys = len(self.t) if self.backward else int(self.n_visible[block.stop - 1])
            if self.window is not None:
                keys = min(keys, (2 if self.backward else 1) * (self.window + rows))
            work = (block.stop - start) * keys * channels
            yield Task(work, lambda block=block: sweep(self, block))  # type: ignore[misc]


def _longest_row(x: Floats | None) -> float:
    """Largest |x_i| of rows (N, d), inf beyond the floating-point range."""
    if x is None or not len(x):
        return 0.0
    with np.errstate(over="ignore"):
        squares = np.vecdot(x, x)
    return sqrt(float(squares[squares.argmax()]))


def sweep(head: Head, block: slice) -> None:
    """Compute some output rows of one head."""
    t_query, v, n = head.t_query[block], head.v, len(head.t)
    if head.q is None or head.k is None:
        q, k = np.empty((len(t_query), 0), v.dtype), np.empty((n, 0), v.dtype)
    else:
        q, k = np.ascontiguousarray(head.q[block]), head.k
    known = np.empty((n, 0), v.dtype) if head.known is None else head.known
    out, precision = head.out[block], head.precision[block]
    if out.flags.c_contiguous and precision.flags.c_contiguous:
        to = out.reshape(len(t_query), -1), precision
    else:
        to = np.empty((len(t_query), v.shape[1]), v.dtype), np.empty(precision.shape, v.dtype)
    output_rows(q, k, v, known, t_query, head.t, head.n_visible[block], head.rules, *to)
    if to[1] is not precision:
        out[...], precision[...] = to[0].reshape(out.shape), to[1]
