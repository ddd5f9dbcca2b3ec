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
so S + |R|^2 / nu is one matrix product. Tiles that the diagonal crosses have keys with b < 0; all
pairs that count keep a + b >= 0 and with it bounded products, so the same form serves unless its
factors themselves overflow: then E is formed pair by pair. Where the product would lose digits, it
is centred, and where that does not help, differences are taken directly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter.attention.law import Law

Floats = NDArray[np.floating[Any]]
F64 = NDArray[np.float64]

ROWS = 512
"""Queries per tile where tiles are not compiled."""
KEYS = 1024
"""Keys per tile."""
COMPILED_KEYS = 8192
"""Keys per tile where tiles are compiled: they work on a few at a time by themselves."""
EDGE_KEYS = 256
"""Keys per tile where some queries do not see all keys and tiles are not compiled."""
BAND = 1024
"""Queries per block: they share the columns made of far keys."""
SCRATCH = 2**20
"""Bytes of weights at a time where a tile is not compiled."""
LOST = {np.dtype(np.float64): 1e-11, np.dtype(np.float32): 5e-5}
"""Relative rounding of S + |R|^2/nu above which the fused product is not used."""


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
    def query_norms(self) -> Floats:
        """|q|^2, shape (Nq,)."""
        return np.zeros(1) if self.q is None else squared_norms(self.q)

    @cached_property
    def largest_query(self) -> float:
        """max |q|^2."""
        return float(self.query_norms.max(initial=0.0))

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

    def least_variance(self, side: Side, shortest: float, longest: float) -> float:
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

    def loses_digits(self, side: Side, far: float) -> bool:
        """Whether the uncentred product of points up to |x|^2 = far is not exact enough."""
        least = self.least_variance(side, 0.0, self.longest)
        dtype = self.v.dtype
        return 5 * float(np.finfo(dtype).eps) * far > LOST[dtype] * self.law.scale * least

    @cached_property
    def may_need_centre(self) -> bool:
        """Whether some block of queries needs a centre of its own."""
        far = min(self.largest_query, self.largest_key)
        return any(self.loses_digits(side, far) for side in self.sides())

    def rates(self, side: Side) -> tuple[float, float]:
        """Decay rates of the values and of the weights that logits do not hold."""
        if side.query_late:
            return self.mu_value, 0.0
        if self.needs_running_maximum:
            return 0.0, 0.0
        common = 2.0 * self.beta * self.mu
        return common - self.mu_value, common

    @property
    def even_scale(self) -> bool:
        """Whether sums over any part of the keys stay in range under one common scale."""
        growth = 2.0 * self.beta * self.mu * self.longest if self.backward == "exact" else 0.0
        limit = 0.2 * float(np.log(np.finfo(self.v.dtype).max))
        return not self.needs_running_maximum and growth < limit

    def blocks(self) -> Iterator[tuple[int, int, int]]:
        """Blocks of queries: (start, stop, pairs to visit)."""
        n, rows = len(self.t), ROWS
        blocks = -(-len(self.t_query) // rows)
        alone = self.window is not None or self.tolerance > 0 or self.may_need_centre
        size = rows * (1 if alone else int(np.clip(blocks // 8, 1, max(BAND // rows, 1))))
        for start in range(0, len(self.t_query), size):
            stop = min(start + size, len(self.t_query))
            keys = n if self.backward else int(self.n_visible[stop - 1])
            if self.window is not None:
                keys = min(keys, (2 if self.backward else 1) * (self.window + rows))
            yield start, stop, (stop - start) * keys

    def sides(self) -> list[Side]:
        """The directions to sweep."""
        causal = Side(True, True, self.query_var, self.key_var)
        if self.backward is None:
            return [causal]
        if self.backward == "symmetric":
            return [causal, causal._replace(causal=False)]
        return [causal, Side(False, False, self.key_var, self.query_var)]


class Side(NamedTuple):
    """One direction in time."""

    causal: bool
    query_late: bool
    var_late: float
    var_early: float

    def degenerate(self, head: Head) -> bool:
        """Whether S = E^2 var_early exactly, so that its logarithm outlives it."""
        return head.sigma2 == 0.0 and self.var_late == 0.0


class Decay(NamedTuple):
    """Decays e^{-rate distance} of the values ("num") and of the weights ("den"); None: 1."""

    num: Floats | None
    den: Floats | None

    @classmethod
    def over(cls, rates: tuple[float, float], distance: F64, dtype: Any) -> Decay:
        """Decays over distances, in double and then as dtype."""
        num, den = (None if rate == 0 else np.exp(-rate * distance).astype(dtype) for rate in rates)
        return cls(num, den)


class Operand(NamedTuple):
    """One side of a tile: distances from the reference time and the columns made of them.

    All arrays have a row for each query or key.
    """

    distance: F64
    lag_columns: Floats
    """Two columns whose products sum to S."""
    outer: Floats
    """Columns that, followed by x times scale, have products that sum to S + |R|^2/nu ("power") or
    |R|^2 ("general")."""
    x: Floats
    scale: Floats
    points: Floats | None
    """P of the module docstring where there is a centre."""
    e: Floats
    decay: Decay
    largest: float
    """max |P|^2, where there is a centre."""

    def part(self, rows: slice) -> Operand:
        """Some of the rows."""

        def cut(x: Any) -> Any:
            return None if x is None else x[rows]

        return Operand(
            self.distance[rows], self.lag_columns[rows], self.outer[rows], self.x[rows],
            self.scale[rows], cut(self.points), self.e[rows],
            Decay(cut(self.decay.num), cut(self.decay.den)), self.largest,
        )  # fmt: skip

    def columns(self, out: Floats) -> Floats:
        """All columns in one array."""
        extra = self.outer.shape[1]
        out[:, :extra] = self.outer
        np.multiply(self.x, self.scale[:, None], out=out[:, extra:])
        return out


def squared_norms(x: Floats) -> Floats:
    """|x|^2 along the last axis."""
    return np.asarray(np.vecdot(x, x))


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


def key_chunks(
    low: NDArray[np.intp], high: NDArray[np.intp], descending: bool, most: int, most_edge: int
) -> Iterator[tuple[int, int, bool]]:
    """Key ranges (j0, j1, whether some rows do not see all of it), nearest first.

    most, most_edge : keys of a range that all rows see, and of one that they do not.
    """
    start, stop = int(low[0]), int(high[-1])
    inner = (int(low[-1]), int(high[0]))
    cuts = sorted({start, stop, *(c for c in inner if start < c < stop)})
    pieces = []
    for a, b in pairwise(cuts):
        edge = a < inner[0] or b > inner[1]
        count = -(-(b - a) // (most_edge if edge else most))
        marks = [b - (b - a) * i // count for i in range(count + 1)][::-1]
        pieces += [(x, y, edge) for x, y in pairwise(marks)]
    yield from reversed(pieces) if descending else pieces


def operand(
    head: Head,
    side: Side,
    space: Workspace,
    is_query: bool,
    x: Floats | None,
    x2: Floats,
    distance: F64,
    centre: Floats | None,
    lead: F64 | float = 0.0,
) -> Operand:
    """Columns of the queries or the keys x of a tile, see the module docstring.

    lead: the part of the distance that the decays leave out.
    """
    n, dtype, law = len(distance), head.v.dtype, head.law
    name = "queries" if is_query else "keys"
    late = is_query == side.query_late
    e64 = np.exp(-head.mu * distance)
    e64[e64 < np.finfo(dtype).tiny] = 0.0
    growth = head.growth(distance)
    lag = space.get(name + "lag", (n, 2), dtype)
    if is_query:
        lag[:, 0], lag[:, 1] = growth + side.var_late, e64**2
    else:
        lag[:, 0], lag[:, 1] = 1.0, growth + side.var_early * e64**2
    e = e64.astype(dtype)
    decay = Decay.over(head.rates(side), distance - lead, np.float64 if is_query else dtype)
    if x is None:
        return Operand(distance, lag, lag, np.empty((n, 0), dtype), e, None, e, decay, 0.0)
    power = law.kind == "power"
    merged = power and side.query_late
    outer = space.get(name + "outer", (n, 4 if power and not merged else 2), dtype)
    factor = dtype.type((-2.0 / law.scale if power else -2.0) if is_query else 1.0)
    points = None
    if centre is None:
        norms = x2 if late else x2 * e64**2
        scale = factor * e
    else:
        points = space.get(name + "points", x.shape, dtype)
        np.multiply(x, 1 if late else e[:, None], out=points)
        points -= e[:, None] * centre if late else centre
        norms = squared_norms(points)
        x, scale = points, factor * e if late else np.full(n, factor)
    scaled = norms / law.scale if power else norms
    if merged:
        outer[...] = lag
        outer[:, 0 if late else 1] += scaled
    else:
        outer[:, :-2] = lag[:, : outer.shape[1] - 2]
        pair = (scaled, e64**2) if late else (1.0, scaled)
        outer[:, -2], outer[:, -1] = pair
    if centre is None:
        return Operand(distance, lag, outer, x, scale, None, e, decay, 0.0)
    if not late:  # early points beyond the reference are longer than what any pair makes of them
        norms = norms * np.minimum(1.0, np.exp(2.0 * head.mu * distance))
    largest = float(norms.max(initial=0.0))
    return Operand(distance, lag, outer, x, scale, points, e, decay, largest)


class Keys:
    """Keys j0:j1 seen from a reference time, and the columns made of them when first needed.

    The buffers belong to the Workspace: one such tile at a time.
    """

    def __init__(
        self,
        head: Head,
        side: Side,
        space: Workspace,
        where: tuple[int, int],
        reference: float,
        centre: Floats | None,
    ) -> None:
        self.head, self.side, self.space, self.centre = head, side, space, centre
        self.rows = slice(*where)
        t = head.t[self.rows]
        self.gap = reference - t if side.causal else t - reference
        ends = float(self.gap[0]), float(self.gap[-1])
        self.nearest, self.farthest = min(ends), max(ends)
        self.x = None if head.law.kind == "plain" or head.k is None else head.k[self.rows]
        self.norms = head.key_norms[self.rows]

    @cached_property
    def operand(self) -> Operand:
        """Columns of the product that gives variances and distances."""
        return operand(
            self.head, self.side, self.space, False, self.x, self.norms, self.gap, self.centre,
        )  # fmt: skip

    @cached_property
    def columns(self) -> Floats:
        """All columns of the operand in one array."""
        x = self.operand
        shape = (len(x.x), x.outer.shape[1] + x.x.shape[1])
        return x.columns(self.space.get("keyscolumns", shape, x.x.dtype))

    @property
    def values(self) -> Floats:
        """Values (n, m), not decayed."""
        return self.head.v[self.rows]

    @cached_property
    def sums(self) -> Floats:
        """Columns (n, m + g) that the weights sum: decayed values, and ones or `known`."""
        values, decay = self.values, self.operand.decay
        m = values.shape[1]
        ones = self.ones
        both = self.space.get("both", (len(values), m + ones.shape[1]), values.dtype)
        np.multiply(values, 1 if decay.num is None else decay.num[:, None], out=both[:, :m])
        np.multiply(ones, 1 if decay.den is None else decay.den[:, None], out=both[:, m:])
        return both

    @property
    def ones(self) -> Floats:
        """Columns (n, g) for the sums of weights."""
        known = self.head.known
        return np.ones((len(self.gap), 1), self.head.v.dtype) if known is None else known[self.rows]


def direct_squares(
    out: Floats, step: Floats, query_late: bool, queries: Operand, keys: Operand
) -> None:
    """|P_late - e_late P_early|^2, channel by channel: no cancellation of large products."""
    assert queries.points is not None
    assert keys.points is not None
    out[...] = 0.0
    for c in range(queries.points.shape[1]):
        if query_late:
            np.multiply(queries.e[:, None], keys.points[:, c], out=step)
            np.subtract(queries.points[:, c, None], step, out=step)
        else:
            np.multiply(keys.e, queries.points[:, c, None], out=step)
            np.subtract(keys.points[:, c], step, out=step)
        np.multiply(step, step, out=step)
        out += step


def explicit_squares(q: Floats, k: Floats, E: Floats, query_late: bool) -> Floats:
    """|x_late - E x_early|^2 with E formed pair by pair, channel by channel."""
    out = np.zeros_like(E)
    for c in range(k.shape[1]):
        a, b = q[:, c, None], k[:, c]
        out += (a - E * b if query_late else b - E * a) ** 2
    return out
