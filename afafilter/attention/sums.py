"""Attention by running sums over tiles, compiled: power laws whose weights stay in range.

The core forms every factor from a reference time (core/attention.h); this module says which heads
it may take, cuts them into blocks of rows, and puts common factors back.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
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


class Head(NamedTuple):
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
    rules: Rules | None = None
    """What the kernel wants to know of the head."""
    widest: float = -1.0
    """Largest |q - k|^2 with which no weight leaves the floating point range, or -1."""
    longest_key: float = 0.0
    """Largest |k_j|."""

    def ready(self) -> Head:
        """The head with what follows from its keys, times and parameters, whatever the queries."""
        rules = self._rules()
        longest_key = 0.0 if self.k is None else _longest_row(self.k)
        return self._replace(rules=rules, widest=self._widest(rules), longest_key=longest_key)

    def _rules(self) -> Rules:
        model, log_tolerance = self.model, -inf
        common = self.law.scale, self.law.exponent, model.beta
        rates = model.decay, model.value_decay, model.process_var
        past = Dynamics(*rates, model.query_var, model.key_var, *common, True, True)
        back = past
        if self.backward == "symmetric":
            back = past._replace(causal=False)
        elif self.backward is not None:
            back = Dynamics(*rates, model.key_var, model.query_var, *common, False, False)
        if self.tolerance > 0:
            log_tolerance = log((0.5 if self.backward else 1.0) * self.tolerance)
        turns = self.omega, self.omega_out
        omega, omega_out = (x if np.count_nonzero(x) else x[:0] for x in turns)
        window = -1 if self.window is None else self.window
        sides = past, back, 1 if self.backward is None else 2
        return Rules(window, omega, omega_out, *sides, log_tolerance, log(self.law.peak))

    @property
    def longest(self) -> float:
        """Longest lag between a query and a key."""
        if not len(self.t) or not len(self.t_query):
            return 0.0
        ends = self.t_query[-1] - self.t[0], self.t[-1] - self.t_query[0]
        return float(max(*ends, 0.0))

    def _widest(self, rules: Rules) -> float:
        """With X = S + |R|^2 / scale a power law's weight is (S^(exponent - 1) / X^exponent)^beta.

        The variance S of a pair is monotone in the lag, so that its least and largest are those of
        the ends.
        """
        (decay, value_decay, process_var, *_, beta), tau = self.model, self.longest
        largest, exponent, widest = LARGEST[self.v.dtype], self.law.exponent, inf
        # pulled back, values may grow faster than their weights fall
        growing = value_decay - 2.0 * beta * decay
        if self.backward == "exact" and not growing * tau < 0.4 * largest:
            return -1.0
        grown = process_var * float(exponential_integral(-2.0 * decay, tau))
        left = exp(-2.0 * decay * tau)
        for side in (rules.past, rules.back)[: rules.sides]:
            near, far = side.var_late + side.var_early, side.var_late + side.var_early * left
            least, most = min(near, grown + far), max(near, grown + far)
            if least <= 0.0 or not most < inf:
                return -1.0
            log_least = abs(log(least))
            log_s = max(log_least, abs(log(most)))
            room = (0.75 * largest / beta - abs(exponent - 1.0) * log_s) / exponent
            if log_least > room:
                return -1.0
            widest = min(widest, exp(min(room, 700.0)) - most)
        return widest * self.law.scale

    @property
    def even_scale(self) -> bool:
        """Whether sums over any part of the keys stay in range under one common scale."""
        growth = 2.0 * self.model.beta * self.model.decay * self.longest
        return self.backward != "exact" or growth < 0.2 * LARGEST[self.v.dtype]

    @property
    def is_summable(self) -> bool:
        """Whether running sums do: no weight can leave the range."""
        if self.law.kind == "general" or self.log_prior is not None or self.weights is not None:
            return False
        if self.q is None:
            return self.widest >= 0.0
        return (_longest_row(self.q) + self.longest_key) ** 2 <= self.widest

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
            yield Task(work, partial(sweep, self, block))


def _longest_row(x: Floats) -> float:
    """Largest |x_i| of rows (N, d), inf beyond the floating-point range."""
    with np.errstate(over="ignore"):
        squares = np.vecdot(x, x)
    return sqrt(squares[squares.argmax()]) if len(squares) else 0.0


def sweep(head: Head, block: slice) -> None:
    """Compute some output rows of one head."""
    t_query, v, n = head.t_query[block], head.v, len(head.t)
    assert head.rules is not None
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
