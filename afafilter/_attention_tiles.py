"""Tiles of isotropic filter attention: running sums over blocks of queries and keys.

For a query i, a key j and tau = |t_i - t_j|, with E = e^{-mu tau} and
Vp(tau) = sigma^2 (1 - e^{-2 mu tau}) / (2 mu), the sides of a pair are "late" and "early":

    S   = Vp(tau) + var_late + E^2 var_early            |R|^2 = |x_late - E x_early|^2
    W   = S^-beta w(|R|^2 / S)^beta                     (x in the co-rotating frame)

Causal pairs have the query late; so have acausal ones with the symmetric decay. Exact acausal
pairs have the key late, and factor E^{2 beta} in the denominator and E^{2 beta} / E_v in the
numerator, because there S and R carry E^-2 and the value E_v^-1: combined, nothing overflows.

Distances of query a and of key b from a reference time between them make every factor separable,
    E = e_a e_b,   Vp(a + b) = Vp(a) + e_a^2 Vp(b),
    |R|^2 = |P_late|^2 + e_late^2 |P_early|^2 - 2 e_late <P_late, P_early>,
    P_late = x_late - e_late c,   P_early = e_early x_early - c      (any centre c),
so S + |R|^2 / nu is one matrix product. Tiles that the diagonal crosses reuse it when b is only
slightly negative, and else form E pair by pair. Where the product would lose digits, it is centred,
and where that does not help, differences are taken directly.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter.weights import Exponential, Huber, PowerLaw, Threshold, Weight

Floats = NDArray[np.floating[Any]]
F64 = NDArray[np.float64]

ROWS = {np.dtype(np.float64): 256, np.dtype(np.float32): 512}
"""Queries per block: a tile of KEYS keys fills half a typical second-level cache."""
KEYS = 512
LOST = {np.dtype(np.float64): 1e-11, np.dtype(np.float32): 5e-5}
"""Relative rounding of S + |R|^2/nu above which the fused product is not used."""
SERIAL_PAIRS = 2_000_000
"""Below this many pairs, starting threads costs more than it gains."""


class Law(NamedTuple):
    """The robust weight in the form that the tiles use.

    kind "plain": w = 1. "power": w = peak (1 + d2/scale)^-exponent. "general": `weight` itself;
    there `scale` only says at which d2 the weight bends.
    """

    kind: str = "plain"
    scale: float = 1.0
    exponent: float = 0.0
    peak: float = 1.0
    weight: Weight | None = None
    dim: int = 1


def law_of(weight: Weight | None, dim: int) -> Law:
    """The tiles' form of a weight."""
    if weight is None:
        return Law(dim=dim)
    if isinstance(weight, PowerLaw):
        scale, exponent, peak = weight.power_form(dim)
        return Law("power", scale, exponent, peak, weight, dim)
    scale = 1.0
    if isinstance(weight, Exponential):
        scale = weight.nu
    elif isinstance(weight, Huber | Threshold):
        scale = weight.c**2
    return Law("general", scale, 1.0, 1.0, weight, dim)


@dataclass(frozen=True, eq=False)
class Head:
    """One head or path: its data in the co-rotating frame, its parameters, and where results go."""

    t_query: F64
    t: F64
    n_visible: NDArray[np.intp]
    q: Floats | None
    """(Nq, d), not rotated."""
    k: Floats | None
    """(N, d), rotated."""
    v: Floats
    """(N, m), rotated."""
    known: Floats | None
    """(N, g) ones and zeros: which of g groups of value columns key j serves. None: all."""
    omega: F64 | None
    omega_out: F64 | None
    mu: float
    mu_value: float
    sigma2: float
    key_var: float
    query_var: float
    beta: float
    law: Law
    backward: str | None
    window: int | None
    tolerance: float
    out: Floats
    """(Nq, paths, m / paths)"""
    precision: Floats
    """(Nq, paths)"""
    weights: Floats | None = None
    columns: NDArray[np.intp] | None = None
    """Columns of `weights` that the keys have; None: all."""

    def variance(self, tau: Any, late: float, early: float) -> Any:
        """S at lags tau >= 0 (slightly negative ones too)."""
        lag = np.asarray(tau)
        return self.growth(lag) + (late + early * np.exp(-2.0 * self.mu * lag))

    def growth(self, tau: Any) -> Any:
        """Vp(tau)."""
        if self.mu < 1e-200:
            return self.sigma2 * tau
        return self.sigma2 * (-np.expm1(-2.0 * self.mu * tau) / (2.0 * self.mu))

    @cached_property
    def largest_query(self) -> float:
        """max |q|^2."""
        return 0.0 if self.q is None else float(squared_norms(self.q).max(initial=0.0))

    @cached_property
    def key_norms(self) -> Floats:
        """|k|^2, shape (N,)."""
        return np.zeros(1) if self.k is None else squared_norms(self.k)

    @cached_property
    def largest_key(self) -> float:
        """max |k|^2."""
        return float(self.key_norms.max(initial=0.0))

    @cached_property
    def longest(self) -> float:
        """Longest lag between a query and a key."""
        if not len(self.t) or not len(self.t_query):
            return 0.0
        ends = (self.t_query[-1] - self.t[0], self.t[-1] - self.t_query[0])
        return float(max(*ends, 0.0))

    def least_variance(self, side: _Side, shortest: float, longest: float) -> float:
        """Least S over a range of lags: S is monotone, so it is at an end."""
        lags = np.array([shortest, longest])
        return float(self.variance(lags, side.var_late, side.var_early).min())

    @cached_property
    def needs_running_maximum(self) -> bool:
        """Whether weights could leave the range of the floating point type."""
        law = self.law
        if law.kind == "general":
            return True
        limit = 0.75 * float(np.log(np.finfo(self.v.dtype).max))
        reach = (np.sqrt(self.largest_query) + np.sqrt(self.largest_key)) ** 2 / law.scale
        for side in self.sides():
            S = self.variance(np.array([0.0, self.longest]), side.var_late, side.var_early)
            if S.min() == 0.0 or not np.isfinite(S.max() + reach):
                return True
            log_s = float(np.abs(np.log(S)).max())
            log_x = max(abs(float(np.log(S.min()))), abs(float(np.log(S.max() + reach))))
            size = log_s
            if law.kind == "power":
                size = abs(law.exponent - 1.0) * log_s + law.exponent * log_x
            if self.beta * size > limit:
                return True
        return False

    @property
    def even_scale(self) -> bool:
        """Whether sums over any part of the keys stay in range under one common scale."""
        growth = 2.0 * self.beta * self.mu * self.longest if self.backward == "exact" else 0.0
        limit = 0.2 * float(np.log(np.finfo(self.v.dtype).max))
        return not self.needs_running_maximum and growth < limit

    def blocks(self) -> Iterator[tuple[int, int, int]]:
        """Blocks of queries: (start, stop, pairs to visit)."""
        n, rows = len(self.t), ROWS[self.v.dtype]
        for start in range(0, len(self.t_query), rows):
            stop = min(start + rows, len(self.t_query))
            keys = n if self.backward else int(self.n_visible[stop - 1])
            if self.window is not None:
                keys = min(keys, (2 if self.backward else 1) * (self.window + rows))
            yield start, stop, (stop - start) * keys

    def sides(self) -> list[_Side]:
        """The directions to sweep."""
        causal = _Side(True, True, self.query_var, self.key_var)
        if self.backward is None:
            return [causal]
        if self.backward == "symmetric":
            return [causal, causal._replace(causal=False)]
        return [causal, _Side(False, False, self.key_var, self.query_var)]


class _Side(NamedTuple):
    """One direction in time."""

    causal: bool
    query_late: bool
    var_late: float
    var_early: float


class _Operand(NamedTuple):
    """One side of a tile: distances from the reference time and the columns made of them."""

    distance: F64
    lag_columns: Floats
    """Two columns whose products sum to S."""
    columns: Floats | None
    """Columns whose products sum to S + |R|^2/nu ("power") or |R|^2 ("general")."""
    points: Floats | None
    """P of the module docstring where there is a centre."""
    e: Floats
    largest: float
    """max |P|^2."""


def squared_norms(x: Floats) -> Floats:
    """|x|^2 along the last axis, in pieces."""
    out = np.empty(len(x), x.dtype)
    for start in range(0, len(x), 1024):
        part = x[start : start + 1024]
        np.sum(part * part, axis=1, out=out[start : start + 1024])
    return out


class Workspace:
    """Reusable buffers of one thread."""

    def __init__(self) -> None:
        self._buffers: dict[str, Floats] = {}

    def get(self, name: str, shape: tuple[int, ...], dtype: Any) -> Floats:
        size = prod(shape)
        held = self._buffers.get(name)
        if held is None or held.size < size or held.dtype != dtype:
            held = self._buffers[name] = np.empty(size, dtype)
        return held[:size].reshape(shape)


def phases(t: F64, omega: F64, dtype: Any) -> NDArray[Any] | None:
    """e^{i omega t}, shape (N, n), computed in double; None where nothing turns."""
    if not omega.any():
        return None
    half = np.tan(t[:, None] * (0.5 * omega))  # one vectorised call instead of two slow ones
    scale = 2.0 / (1.0 + half * half)
    turn = np.empty(half.shape, np.complex64 if dtype == np.float32 else np.complex128)
    turn.real, turn.imag = scale - 1.0, half * scale
    return turn


def turn_pairs(x: Floats, turn: NDArray[Any] | None, out: Floats) -> Floats:
    """out (..., N, d) = x with channel pairs times `turn` (N, n); an odd last channel stays."""
    if out is not x:
        out[...] = x
    if turn is not None:
        pairs: NDArray[Any] = out[..., : 2 * turn.shape[1]].view(turn.dtype)
        pairs *= turn
    return out


def to_rotating_frame(arrays: Sequence[Floats], t: F64, omega: F64) -> list[Floats]:
    """Copies of x (..., N, d) seen from the frame that turns with e^{i omega t}."""
    if not omega.any():
        return [np.asarray(x) for x in arrays]
    out: list[Floats] = [np.empty(x.shape, x.dtype) for x in arrays]
    for start in range(0, len(t), 1024):
        rows = slice(start, start + 1024)
        turn = phases(t[rows], omega, out[0].dtype)
        assert turn is not None
        np.conjugate(turn, out=turn)
        for x, turned in zip(arrays, out):
            turn_pairs(x[..., rows, :], turn, turned[..., rows, :])
    return out


class _Totals:
    """Running sums of one block of queries, with running maxima when exponents are large."""

    def __init__(self, rows: int, values: int, groups: int) -> None:
        self.num = np.zeros((rows, values))
        self.den = np.zeros((rows, groups))
        self.num_shift = np.full(rows, -np.inf)
        self.den_shift = np.full(rows, -np.inf)
        self.pieces: list[tuple[Any, NDArray[np.bool_] | None, F64]] = []

    @staticmethod
    def lift(sums: F64, shift: F64, top: F64) -> F64:
        """Rescale sums to a new running maximum; returns it, 0 where nothing was seen yet."""
        new = np.maximum(shift, top)
        scale = np.exp(np.where(np.isneginf(shift), 0.0, shift - new))
        sums *= scale[:, None]
        shift[:] = new
        return np.where(np.isneginf(new), 0.0, new)


def sweep(head: Head, start: int, stop: int, space: Workspace) -> None:
    """Compute the output rows start:stop of one head."""
    block = _Block(head, start, stop, space)
    for side in head.sides():
        block.run(side)
    block.finish()


class _Block:
    """One block of queries of one head."""

    def __init__(self, head: Head, start: int, stop: int, space: Workspace) -> None:
        self.head, self.rows, self.space = head, slice(start, stop), space
        self.t_rows = head.t_query[self.rows]
        self.dtype = head.v.dtype
        self.eps = float(np.finfo(self.dtype).eps)
        self.lost = LOST[self.dtype]
        self.reach = 0.4 * float(np.log(np.finfo(self.dtype).max))
        groups = 1 if head.known is None else head.known.shape[1]
        self.totals = _Totals(stop - start, head.v.shape[1], groups)
        self.online = head.needs_running_maximum
        if not self.online:
            self.totals.num_shift[:] = self.totals.den_shift[:] = 0.0
        self.turn_out: NDArray[Any] | None = None
        self.q: Floats | None = None
        self.q2: Floats = np.zeros(1)
        if head.law.kind != "plain":
            assert head.q is not None
            self.q = np.ascontiguousarray(head.q[self.rows])
            if head.omega is not None and head.omega.any():
                turn = phases(self.t_rows, head.omega, self.dtype)
                if head.omega_out is not None and np.array_equal(head.omega, head.omega_out):
                    self.turn_out = turn
                turned = space.get("turned", self.q.shape, self.dtype)
                self.q = turn_pairs(self.q, None if turn is None else turn.conj(), turned)
            self.q2 = squared_norms(self.q)
        # Queries before the first key: the common factor E^{2 beta} of all their weights may
        # underflow, so it is left out here and put back at the end.
        exact = head.backward == "exact" and not self.online
        first = head.t[0] if len(head.t) else self.t_rows[0]
        self.lead = np.maximum(first - self.t_rows, 0.0) if exact else np.zeros(stop - start)

    def spans(self, side: _Side) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Keys [low, high) of each row."""
        seen, n = self.head.n_visible[self.rows], len(self.head.t)
        width = n if self.head.window is None else self.head.window
        if side.causal:
            return np.maximum(seen - width, 0), seen
        return seen, np.minimum(seen + width, n)

    def run(self, side: _Side) -> None:
        """Add all keys of one direction, nearest first."""
        head = self.head
        low, high = self.spans(side)
        if high[-1] <= low[0]:
            return
        if side.causal:
            reference = self.t_rows[0]
            distance = self.t_rows - reference
        else:
            reference = max(self.t_rows[-1], head.t[0])
            distance = reference - self.t_rows
        centre = self.centre(side)
        queries = self.operand(
            "q", self.q, self.q2, distance, side.query_late, side, centre, -2.0 / head.law.scale
            if head.law.kind == "power" else -2.0,
        )  # fmt: skip
        for j0, j1, edge in _chunks(low, high, side.causal):
            gap = reference - head.t[j0:j1] if side.causal else head.t[j0:j1] - reference
            outside = None
            if edge:
                index = np.arange(j0, j1)
                outside = (index < low[:, None]) | (index >= high[:, None])
            self.tile(side, queries, j0, j1, gap, centre, outside)
            left = (j0 - low[0]) if side.causal else (high[-1] - j1)
            if head.tolerance > 0 and left > 0 and self.negligible(side, j0, j1, int(left)):
                return

    def centre(self, side: _Side) -> Floats | None:
        """A point near the block's queries when uncentred products would lose digits."""
        head = self.head
        if self.q is None or head.k is None:
            return None
        far = min(float(self.q2.max()), head.largest_key)
        least = head.least_variance(side, 0.0, head.longest)
        if 5 * self.eps * far <= self.lost * head.law.scale * least:
            return None
        return np.asarray(np.median(self.q, axis=0), dtype=self.dtype)

    def operand(
        self,
        name: str,
        x: Floats | None,
        x2: Floats,
        distance: F64,
        late: bool,
        side: _Side,
        centre: Floats | None,
        factor: float,
    ) -> _Operand:
        """Columns of one side (rows: queries; or keys), see the module docstring."""
        head, n = self.head, len(distance)
        tiny = np.finfo(self.dtype).tiny
        e64 = np.exp(-head.mu * distance)
        e64[e64 < tiny] = 0.0
        growth = head.growth(distance)
        lag = self.space.get(name + "lag", (n, 2), self.dtype)
        if late:
            lag[:, 0], lag[:, 1] = growth + side.var_late, e64**2
        else:
            lag[:, 0], lag[:, 1] = 1.0, growth + side.var_early * e64**2
        e = e64.astype(self.dtype)
        if x is None:
            return _Operand(distance, lag, None, None, e, 0.0)
        columns = self.space.get(name + "columns", (n, x.shape[1] + 2), self.dtype)
        points = None
        if centre is None:
            norms = x2 if late else x2 * e64**2
            np.multiply(x, (factor * e)[:, None], out=columns[:, 2:])
        else:
            points = self.space.get(name + "points", x.shape, self.dtype)
            np.multiply(x, 1 if late else e[:, None], out=points)
            points -= e[:, None] * centre if late else centre
            norms = squared_norms(points)
            np.multiply(points, factor * e[:, None] if late else factor, out=columns[:, 2:])
        if head.law.kind == "power":
            columns[:, :2] = lag
        else:
            columns[:, :2] = [0.0, 1.0] if late else [1.0, 0.0]
            if late:
                columns[:, 1] = lag[:, 1]
        columns[:, 0 if late else 1] += (
            norms / head.law.scale if head.law.kind == "power" else norms
        )
        # Points ahead of the reference are longer than what any pair makes of them.
        largest = float(
            (norms * np.minimum(1.0, np.exp(2.0 * head.mu * distance))).max(initial=0.0)
        )
        return _Operand(distance, lag, columns, points, e, largest)

    def tile(
        self,
        side: _Side,
        queries: _Operand,
        j0: int,
        j1: int,
        gap: F64,
        centre: Floats | None,
        outside: NDArray[np.bool_] | None,
    ) -> None:
        """Add the keys j0:j1."""
        head, law = self.head, self.head.law
        shape = (len(self.t_rows), j1 - j0)
        nearest, longest = float(gap.min()), float(gap.max() + queries.distance.max())
        least = head.least_variance(side, max(nearest, 0.0), max(longest, 0.0))
        behind = max(-nearest, 0.0)
        fastest = max(2.0, 2.0 * head.beta) * max(head.mu, head.mu_value) * behind
        separable = fastest <= self.reach and (
            self.eps * (8 + fastest) * head.growth(behind) <= self.lost * least
        )
        k = None if law.kind == "plain" or head.k is None else head.k[j0:j1]
        k2 = head.key_norms[j0:j1]
        S = X = tau = E = None
        if separable:
            keys = self.operand("k", k, k2, gap, not side.query_late, side, centre, 1.0)
            if law.kind != "power" or law.exponent != 1.0 or head.beta != 1.0 or self.online:
                S = self.space.get("S", shape, self.dtype)
                np.matmul(queries.lag_columns, keys.lag_columns.T, out=S)
            if k is not None:
                assert queries.columns is not None
                assert keys.columns is not None
                X = self.space.get("X", shape, self.dtype)
                far = min(queries.largest, keys.largest)
                if centre is None or 5 * self.eps * far <= self.lost * law.scale * least:
                    np.matmul(queries.columns, keys.columns.T, out=X)
                else:
                    self.squares(X, side, queries, keys)
                    X = self.with_variance(X, S, queries, keys)
            if self.online and (not side.query_late or self.degenerate(side)):
                tau = queries.distance[:, None] + gap
        else:
            tau = np.abs(self.t_rows[:, None] - head.t[j0:j1])
            E = np.exp(-head.mu * tau).astype(self.dtype)
            S = np.asarray(head.variance(tau, side.var_late, side.var_early), dtype=self.dtype)
            if k is not None:
                X = self.explicit_squares(k, k2, E, side, least)
                if law.kind == "power":
                    X /= law.scale
                    X += S
        num_factors, den_factors = self.factors(side, queries, gap, tau, E)
        if self.online:
            self.add_online(side, S, X, tau, outside, j0, j1, num_factors)
        else:
            W = self.linear_weights(S, X)
            if outside is not None:
                np.copyto(W, 0.0, where=outside)
            self.add(W, W, j0, j1, num_factors, den_factors)
            if head.weights is not None:
                self.keep(self.scaled(W, den_factors), outside, j0, j1, np.zeros(shape[0]))

    def with_variance(
        self, squares: Floats, S: Floats | None, queries: _Operand, keys: _Operand
    ) -> Floats:
        """|R|^2 or, for the power law, S + |R|^2/nu."""
        if self.head.law.kind == "power":
            squares /= self.head.law.scale
            squares += queries.lag_columns @ keys.lag_columns.T if S is None else S
        return squares

    def squares(self, out: Floats, side: _Side, queries: _Operand, keys: _Operand) -> None:
        """|P_late - e_late P_early|^2, channel by channel: no cancellation of large products."""
        assert queries.points is not None
        assert keys.points is not None
        step = self.space.get("step", out.shape, self.dtype)
        out[...] = 0.0
        for c in range(queries.points.shape[1]):
            if side.query_late:
                np.multiply(queries.e[:, None], keys.points[:, c], out=step)
                np.subtract(queries.points[:, c, None], step, out=step)
            else:
                np.multiply(keys.e, queries.points[:, c, None], out=step)
                np.subtract(keys.points[:, c], step, out=step)
            np.multiply(step, step, out=step)
            out += step

    def explicit_squares(
        self, k: Floats, k2: Floats, E: Floats, side: _Side, least: float
    ) -> Floats:
        """|x_late - E x_early|^2 with E formed pair by pair."""
        assert self.q is not None
        q2 = self.q2[:, None]
        if 5 * self.eps * min(q2.max(), k2.max()) <= self.lost * self.head.law.scale * least:
            late, early = (q2, k2) if side.query_late else (k2, q2)
            return np.asarray(late + E * (E * early - 2.0 * (self.q @ k.T)))
        out = np.zeros(E.shape, self.dtype)
        for c in range(k.shape[1]):
            a, b = self.q[:, c, None], k[:, c]
            out += (a - E * b if side.query_late else b - E * a) ** 2
        return out

    def linear_weights(self, S: Floats | None, X: Floats | None) -> Floats:
        """W without a running maximum, in place."""
        law, beta = self.head.law, self.head.beta
        if law.kind == "plain":
            assert S is not None
            return np.reciprocal(S, out=S) if beta == 1.0 else np.power(S, -beta, out=S)
        assert X is not None
        if law.exponent == 1.0:
            return np.reciprocal(X, out=X) if beta == 1.0 else np.power(X, -beta, out=X)
        assert S is not None
        if beta == 1.0:
            np.divide(S, X, out=S)
            np.log(S, out=S)
            S *= law.exponent - 1.0
            np.exp(S, out=S)
            return np.divide(S, X, out=S)
        np.log(S, out=S)
        np.log(X, out=X)
        S *= beta * (law.exponent - 1.0)
        X *= beta * law.exponent
        S -= X
        return np.exp(S, out=S)

    def degenerate(self, side: _Side) -> bool:
        """Whether S = E^2 var_early exactly, so that its logarithm outlives it."""
        return self.head.sigma2 == 0.0 and side.var_late == 0.0

    def log_weights(self, side: _Side, S: Floats, X: Floats | None, tau: F64 | None) -> Floats:
        """Logits beta (log P + log w), without the factor E^{2 beta} of exact acausal pairs."""
        head, law = self.head, self.head.law
        if self.degenerate(side):
            assert tau is not None
            log_s: Floats = (np.log(side.var_early) - 2.0 * head.mu * tau).astype(self.dtype)
        elif law.kind == "general":
            log_s = np.log(S)
        else:
            log_s = np.log(S, out=S)
        info = np.finfo(self.dtype)
        if law.kind == "plain":
            np.negative(log_s, out=log_s)
        elif law.kind == "power":
            assert X is not None
            np.log(np.maximum(X, info.tiny, out=X), out=X)
            X *= law.exponent
            log_s *= law.exponent - 1.0
            log_s -= X
        else:
            assert X is not None
            assert law.weight is not None
            np.maximum(X, 0.0, out=X)
            if self.degenerate(side):
                S = np.exp(np.maximum(log_s, -0.9 * np.log(info.max)))
            X /= S
            np.minimum(X, info.max, out=X)
            np.subtract(law.weight.log(X, law.dim), log_s, out=log_s)
        if head.beta != 1.0:
            log_s *= head.beta
        return log_s

    def add_online(
        self,
        side: _Side,
        S: Floats | None,
        X: Floats | None,
        tau: F64 | None,
        outside: NDArray[np.bool_] | None,
        j0: int,
        j1: int,
        num_factors: _Factors,
    ) -> None:
        """Add one tile with the running maximum."""
        head, totals = self.head, self.totals
        assert S is not None
        logits = self.log_weights(side, S, X, tau)
        growing = None
        if not side.query_late:
            assert tau is not None
            logits -= (2.0 * head.beta * head.mu) * tau
            if head.mu_value > 0:
                growing = logits + head.mu_value * tau
        if outside is not None:
            for array in (logits, growing):
                if array is not None:
                    np.copyto(array, -np.inf, where=outside)
        top = logits.max(axis=1).astype(np.float64)
        shift = totals.lift(totals.den, totals.den_shift, top)
        logits -= shift[:, None]
        den_weights = np.exp(logits, out=logits)
        if growing is None:
            totals.lift(totals.num, totals.num_shift, top)
            num_weights = den_weights
        else:
            top = growing.max(axis=1).astype(np.float64)
            own = totals.lift(totals.num, totals.num_shift, top)
            num_weights = np.exp(growing - own[:, None]).astype(self.dtype)
        self.add(num_weights, den_weights, j0, j1, num_factors, _Factors())
        if head.weights is not None:
            self.keep(den_weights, outside, j0, j1, shift)

    def factors(
        self, side: _Side, queries: _Operand, gap: F64, tau: F64 | None, E: Floats | None
    ) -> tuple[_Factors, _Factors]:
        """Decays of the values and of the weights: as rows and columns, or pair by pair."""
        head = self.head
        if side.query_late:
            num, den = head.mu_value, 0.0
        else:
            den = 2.0 * head.beta * head.mu
            num = den - head.mu_value
        if self.online and not side.query_late:
            return _Factors(), _Factors()
        distance = queries.distance if side.query_late else queries.distance - self.lead
        if E is None:
            return (
                _Factors.separable(num, distance, gap, self.dtype),
                _Factors.separable(den, distance, gap, self.dtype),
            )
        assert tau is not None
        if not side.query_late:
            tau = tau - self.lead[:, None]
        pairs = [
            None if rate == 0 else E if rate == head.mu and side.query_late
            else np.exp(-rate * tau).astype(self.dtype)
            for rate in (num, den)
        ]  # fmt: skip
        return _Factors(pair=pairs[0]), _Factors(pair=pairs[1])

    def add(
        self,
        num_weights: Floats,
        den_weights: Floats,
        j0: int,
        j1: int,
        num: _Factors,
        den: _Factors,
    ) -> None:
        """Both sums; one matrix product where the weights are the same."""
        head, totals = self.head, self.totals
        values = head.v[j0:j1]
        known = None if head.known is None else head.known[j0:j1]
        m = values.shape[1]
        if num_weights is not den_weights or num.pair is not None or den.pair is not None:
            totals.num += self.product(num_weights, values, num)
            ones = np.ones((j1 - j0, 1), self.dtype) if known is None else known
            totals.den += self.product(den_weights, ones, den)
            return
        both = self.space.get("both", (j1 - j0, m + totals.den.shape[1]), self.dtype)
        np.multiply(values, 1 if num.key is None else num.key[:, None], out=both[:, :m])
        both[:, m:] = 1.0 if known is None else known
        if den.key is not None:
            both[:, m:] *= den.key[:, None]
        sums = self.space.get("sums", (len(num_weights), both.shape[1]), self.dtype)
        np.matmul(num_weights, both, out=sums)
        totals.num += sums[:, :m] if num.row is None else sums[:, :m] * num.row[:, None]
        totals.den += sums[:, m:] if den.row is None else sums[:, m:] * den.row[:, None]

    def product(self, weights: Floats, columns: Floats, factors: _Factors) -> Floats:
        """Weights times columns, with their decay."""
        if factors.pair is not None:
            return np.asarray((weights * factors.pair) @ columns)
        scaled = columns if factors.key is None else columns * factors.key[:, None]
        out = weights @ scaled
        return np.asarray(out if factors.row is None else out * factors.row[:, None])

    @staticmethod
    def scaled(weights: Floats, factors: _Factors) -> Floats:
        """The weights times their decay, as an array of their own."""
        if factors.pair is not None:
            return np.asarray(weights * factors.pair)
        if factors.row is None or factors.key is None:
            return weights.copy()
        return np.asarray(weights * factors.row[:, None] * factors.key)

    def keep(
        self,
        weights: Floats,
        outside: NDArray[np.bool_] | None,
        j0: int,
        j1: int,
        shift: F64,
    ) -> None:
        """Store weights; `finish` normalises them."""
        head = self.head
        assert head.weights is not None
        columns = slice(j0, j1) if head.columns is None else head.columns[j0:j1]
        if outside is not None:
            weights = np.where(outside, head.weights[self.rows, columns], weights)
        head.weights[self.rows, columns] = weights
        self.totals.pieces.append((columns, outside, shift))

    def negligible(self, side: _Side, j0: int, j1: int, left: int) -> bool:
        """Whether the keys beyond j0:j1 together weigh less than the tolerance in every row."""
        head, totals = self.head, self.totals
        edge = head.t[j0] if side.causal else head.t[j1 - 1]
        end = head.t[0] if side.causal else head.t[-1]
        near, far = np.abs(self.t_rows - edge), np.abs(self.t_rows - end)
        with np.errstate(divide="ignore"):
            log_weight = -head.beta * np.log(
                np.minimum(
                    head.variance(near, side.var_late, side.var_early),
                    head.variance(far, side.var_late, side.var_early),
                )
            )
            if not side.query_late:
                rate = 2.0 * head.beta * head.mu
                slowest = min(rate, rate - head.mu_value)
                log_weight -= slowest * (near if slowest > 0 else far) - rate * self.lead
            total = np.log(totals.den.min(axis=1)) + totals.den_shift
        if head.law.weight is not None:
            log_weight += head.beta * float(head.law.weight.log(0.0, head.law.dim))
        share = 0.5 if head.backward else 1.0
        bound = np.log(left) + log_weight - np.log(share * head.tolerance)
        return bool((bound <= total).all())

    def finish(self) -> None:
        """Normalise, put factors back, rotate to the query times, write."""
        head, totals = self.head, self.totals
        empty = totals.den == 0
        shift = np.where(np.isneginf(totals.den_shift), 0.0, totals.den_shift)
        lift = np.where(np.isneginf(totals.num_shift), 0.0, totals.num_shift) - shift
        den = np.where(empty, np.nan, totals.den)
        mean = totals.num.reshape(len(den), head.out.shape[1], -1) / den[:, :, None]
        mean *= np.exp(lift + head.mu_value * self.lead)[:, None, None]
        paths: Floats = np.ascontiguousarray(mean.swapaxes(0, 1), dtype=self.dtype)
        if head.omega_out is not None:
            if self.turn_out is None:
                self.turn_out = phases(self.t_rows, head.omega_out, self.dtype)
            turn_pairs(paths, self.turn_out, paths)
        head.out[self.rows] = paths.swapaxes(0, 1)
        scale = head.beta * np.log(head.law.peak) + shift - 2 * head.beta * head.mu * self.lead
        head.precision[self.rows] = totals.den * np.exp(scale)[:, None]
        if head.weights is not None:
            for columns, outside, seen in totals.pieces:
                scale = (np.exp(seen - shift) / den[:, 0])[:, None]
                if outside is not None:
                    scale = np.where(outside, 1.0, scale)
                head.weights[self.rows, columns] *= scale


class _Factors(NamedTuple):
    """A decay e^{-rate tau}: row and key parts, or pair by pair, or nothing (rate 0)."""

    row: Floats | None = None
    key: Floats | None = None
    pair: Floats | None = None

    @classmethod
    def separable(cls, rate: float, distance: F64, gap: F64, dtype: Any) -> _Factors:
        if rate == 0:
            return cls()
        return cls(np.exp(-rate * distance), np.exp(-rate * gap).astype(dtype))


def _chunks(
    low: NDArray[np.intp], high: NDArray[np.intp], descending: bool
) -> Iterator[tuple[int, int, bool]]:
    """Key ranges (j0, j1, whether some rows do not see all of it), nearest first."""
    start, stop = int(low[0]), int(high[-1])
    inner = (int(low[-1]), int(high[0]))
    cuts = sorted({start, stop, *(c for c in inner if start < c < stop)})
    pieces = []
    for a, b in pairwise(cuts):
        edge = a < inner[0] or b > inner[1]
        count = -(-(b - a) // KEYS)
        marks = [b - (b - a) * i // count for i in range(count + 1)][::-1]
        pieces += [(x, y, edge) for x, y in pairwise(marks)]
    yield from reversed(pieces) if descending else pieces


@cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def available_threads() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run(tasks: Sequence[tuple[int, Any]], threads: int) -> None:
    """Do tasks (pairs to visit, function of a Workspace), the long ones first, over threads."""
    queue = deque(sorted(tasks, key=lambda task: -task[0]))
    threads = min(threads, len(queue)) if sum(cost for cost, _ in tasks) > SERIAL_PAIRS else 1

    def work() -> None:
        space = Workspace()
        with np.errstate(all="ignore"):
            while queue:
                try:
                    _, task = queue.popleft()
                except IndexError:
                    return
                task(space)

    if threads <= 1:
        work()
        return
    with _blas().limit(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work) for _ in range(threads)]:
            done.result()
