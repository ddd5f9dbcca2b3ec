"""Geometry of one (query, observation) pair: what an observation says about the state elsewhere.

For observation j of a state, seen from query time t_i at lag tau = t_i - s_j (s_j the time that the
observation shows), everything needed is a whitened equation in the query's state,

    T y_j = G x_i + noise,   noise ~ N(0, I)      (r rows, r = rank of the rows of C)

with y_j = z_j - b - C m(s_j), x_i counted from m(t_i), and m one path of the noise-free model. Its
information is G^T G, its information vector G^T T y_j, and the squared Mahalanobis distance of an
anchor a is |T y_j - G a|^2 (plus what the redundant rows of a tall C add). This is the paper's P_ij
(arXiv:2509.04154, sec. 4) for an invertible C, and beyond the paper for any other.

The equations themselves are formed in the core (`core/pairs.h`) from what is prepared here. Two
forms of one formula keep them finite. Time is reversed where A expands more than it contracts, so
that "against the flow" always means that e^{-A tau} grows.
  with the flow (lag < 0): H = C Phi(|tau|), S = R + C V(|tau|) C^T, as they stand;
  against it (lag >= 0): with U an orthonormal basis of the rows of C Phi(-tau), and
      M = (C Phi(-tau) U)^-1,
      U^T x_i = M y_j + noise of covariance U^T V U + M R M^T;
      only the directions of C Phi(-tau) are used, never its size.
The coordinates xi = W^-1 x are those of `coordinates`.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array
from afafilter.adaptive.coordinates import Coordinates
from afafilter.linalg.discretiser import Discretiser
from afafilter.linalg.doubling import turned_root
from afafilter.linalg.subspaces import ROUNDING, rank_of

Index = NDArray[np.intp]

DECAY_FLOOR = 300.0
"""Factors e^{-x} stop falling at x = 300: past it a noise-free state is known to 1e-130."""


class Flow(NamedTuple):
    """Observations in order of time, and the steps that lead to each from the one before.

    stamps : (n,); rate, unit_rate : (d,) growth rate and unit rate of each coordinate; phi, root :
    (n, d, d) e^{L s} and the lower root of V(s) over the steps s; turn, back : (n, d, d)
    E = e^{(L - rate) s}, by blocks, and its inverse.
    """

    stamps: Array
    rate: Array
    unit_rate: Array
    phi: Array
    turn: Array
    back: Array
    root: Array


class Channels(NamedTuple):
    """How the observations see the state.

    rank : (n,); C : (n, r, d), rows beyond the rank zero; inverse : (n, d, d), C^-1 where the rank
    is d, or (0, d, d); echelon : (K, n, r, d) rotation^T C, for each order of growth; rotation :
    (K, n, r, r) its transpose, or (0, n, r, r) where it is the identity; change : (K - 1,) lags,
    relative to the longest, at which the order changes.
    """

    rank: Index
    C: Array
    inverse: Array
    echelon: Array
    rotation: Array
    change: Array


class Queries(NamedTuple):
    """Queries i, which use the observations first <= j < last; those before split are the past.

    longest_lag : (Tq,) against the flow. turn, back, root : (Tq, d, d) as in `Flow`, over the lag
    to the nearest observation of the past and of the future.
    """

    times: Array
    longest_lag: Array
    first: Index
    split: Index
    last: Index
    turn_past: Array
    back_past: Array
    root_past: Array
    turn_next: Array
    back_next: Array
    root_next: Array

    def at(self, some: slice) -> Queries:
        """Some of them."""
        return Queries(*(part[some] for part in self))  # type: ignore[arg-type]


class Channel(NamedTuple):
    """Observation with unit noise and independent rows: y = C xi + N(0, I).

    C : (..., r, d) in the coordinates xi; whiten : (..., p, p') rotates z - b of the p' observed
    components: the first r entries are y, the others pure noise N(0, I).
    """

    C: Array
    whiten: Array
    rank: int


def channel(coords: Coordinates, C: Array, R: Array) -> Channel:
    """Whiten and compress observations: C (p, d), R (..., p, p), p the observed components.

    Rows of much noise are whitened first, so that nothing that a precise one has in common with
    them is magnified. Later rows of the result do not see the coordinates that decay fastest
    (echelon form), so that rows which grow at different rates stay apart.
    """
    p, shown = C.shape[0], coords.shown(C)
    size = np.linalg.norm(shown, axis=-1)
    sd = np.sqrt(np.einsum("...aa->...a", R)) / np.where(size > 0, size, 1.0)
    order = np.argsort(-sd, axis=-1, kind="stable")
    lower = np.linalg.cholesky(
        np.take_along_axis(
            np.take_along_axis(R, order[..., None], axis=-2), order[..., None, :], axis=-1
        )
    )
    seen = np.linalg.solve(lower, shown[order])
    whiten = np.linalg.solve(lower, np.eye(p)[order])
    rank = rank_of(shown)
    if 0 < rank < max(C.shape):
        q, seen = _echelon(seen, rank)
        whiten = np.swapaxes(q, -1, -2) @ whiten
    return Channel(seen[..., :rank, :], whiten, rank)


def _echelon(C: Array, rank: int) -> tuple[Array, Array]:
    """Orthogonal q and row echelon form q^T C of rows (..., p, d), its rounding cut off.

    Row a begins at the a-th column that those before it do not explain. Householder's reflections
    keep the digits of small rows where the large ones come first (Cox & Higham, "Stability of
    Householder QR factorization for weighted least squares problems", 1998).
    """
    p, d = C.shape[-2:]
    if p == 1:
        return np.ones((*C.shape[:-2], 1, 1)), C
    first = C.reshape(-1, p, d)[0]
    begins, rows = _begins(first, rank), np.argsort(-np.abs(first).max(axis=1), kind="stable")
    q = np.empty((*C.shape[:-1], p))
    q[..., rows, :] = np.linalg.qr(C[..., rows[:, None], begins], mode="complete")[0]
    upper = (np.swapaxes(q, -1, -2) @ C)[..., :rank, :]
    column = np.abs(upper).max(axis=-2, keepdims=True)
    shows = (np.abs(upper) > 1e-13 * column) & (np.arange(d) >= begins[:, None])
    return q, np.where(shows, upper, 0.0)


def _begins(C: Array, rank: int) -> Index:
    """Columns of C (p, d) that those before them do not explain."""
    size = np.abs(C).max(axis=1, keepdims=True)
    rows = C / np.where(size > 0, size, 1.0)
    found: list[int] = []
    known: list[list[float]] = []  # orthonormal
    for k, column in enumerate(rows.T.tolist()):
        rest = column
        for unit in known + known:
            along = sum(x * u for x, u in zip(rest, unit, strict=True))
            rest = [x - along * u for x, u in zip(rest, unit, strict=True)]
        if len(found) < rank and max(map(abs, rest)) > ROUNDING * max(map(abs, column)):
            length = math.hypot(*rest)
            known.append([x / length for x in rest])
            found.append(k)
    return np.array(found if len(found) == rank else range(rank))  # else: at the rounding's border


def make_steps(
    coords: Coordinates,
    stamps: Array,
    times: Array,
    first: Index,
    last: Index,
    anchor_cov: Array | None,
) -> tuple[Flow, Queries]:
    """Steps between the observations, n >= 1, and from each query to the observations next to it.

    anchor_cov : (d, d) in xi coordinates, or None.
    """
    n, m = len(stamps), len(times)
    split = np.clip(np.searchsorted(stamps, times, side="right"), first, last)
    step = np.diff(stamps, prepend=stamps[0])
    past = np.where(split > first, np.abs(times - stamps[np.maximum(split - 1, 0)]), 0.0)
    ahead = np.where(split < last, np.abs(times - stamps[np.minimum(split, n - 1)]), 0.0)
    phi, turn, back, root = (
        np.split(part, [n, n + m]) for part in _moves(coords, np.concatenate([step, past, ahead]))
    )
    if anchor_cov is not None:
        values, vectors = np.linalg.eigh(anchor_cov)
        extra = vectors * np.sqrt(np.maximum(values, 0.0))
        for k, against in ((1, coords.sign > 0), (2, coords.sign < 0)):
            moved = np.broadcast_to(extra, root[k].shape) if against else phi[k] @ extra
            rows = (part.swapaxes(-1, -2) for part in (root[k], moved))
            root[k] = np.ascontiguousarray(turned_root(np.eye(len(extra)), *rows).swapaxes(-1, -2))
    ends = stamps[np.minimum(first, n - 1)], stamps[np.maximum(last - 1, 0)]
    longest_lag = np.maximum(coords.sign * (times - ends[0]), coords.sign * (times - ends[1]))
    longest_lag = np.where(first < last, np.maximum(longest_lag, 0.0), 0.0)
    return (
        Flow(stamps, coords.rate, coords.unit_rate, phi[0], turn[0], back[0], root[0]),
        Queries(
            *(times, longest_lag, first, split, last),
            *(part[k] for k in (1, 2) for part in (turn, back, root)),
        ),
    )


def join_channels(coords: Coordinates, channels: list[tuple[Index, Channel]], n: int) -> Channels:
    """The channels of the observations js, put together; the others see nothing."""
    d = len(coords.L)
    r = max((found.rank for _, found in channels), default=1)
    rank, C = np.zeros(n, np.int64), np.zeros((n, r, d))
    for js, found in channels:
        rank[js], C[js, : found.rank] = found.rank, found.C
    inverse = np.zeros((n if r == d else 0, d, d))
    if r == d:
        inverse[rank == d] = np.linalg.inv(C[rank == d])
    if (rank == d).all() or not coords.unit_rate.any():
        return Channels(rank, C, inverse, C[None], np.zeros((0, n, r, r)), np.zeros(0))
    orders, change = _orders(coords)
    echelon, rotation = np.zeros((len(orders), n, r, d)), np.zeros((len(orders), n, r, r))
    for k, order in enumerate(orders):
        for js, found in channels:
            q, upper = _echelon(found.C[..., order], found.rank)
            upper = upper[..., np.argsort(order)]
            q, upper = _apart(coords, q, upper, order)
            echelon[k, js, : found.rank] = upper
            rotation[k, js, : found.rank, : found.rank] = np.swapaxes(q, -1, -2)
    return Channels(rank, C, inverse, echelon, rotation, change)


def _apart(coords: Coordinates, q: Array, C: Array, order: Index) -> tuple[Array, Array]:
    """Rows q^T C that begin within one group of coordinates that grow alike, the last one first.

    Whitened from above, the first of them stay without what decays fastest.
    """
    group = np.unique(np.stack([coords.rate, coords.unit_rate]), axis=1, return_inverse=True)[1]
    seen = (C != 0).reshape(-1, *C.shape[-2:]).any(axis=0)[:, order]
    lead = group.ravel()[order][seen.argmax(axis=1)]
    for mine in (np.flatnonzero(lead == g) for g in np.unique(lead)):
        if len(mine) > 1:
            C[..., mine, :], q[..., mine] = C[..., mine[::-1], :], q[..., mine[::-1]]
    return q, C


def _orders(coords: Coordinates) -> tuple[list[Index], Array]:
    """Orders of the coordinates by the growth of C Phi(-lag) e^{-exponent}, the fastest first.

    The growth is -(rate lag + unit_rate longest_lag): the order depends on lag / longest_lag alone.
    """
    rate = coords.rate
    slope, start = rate[:, None] - rate, coords.unit_rate - coords.unit_rate[:, None]
    meet = np.divide(start, slope, out=np.full_like(slope, np.inf), where=slope != 0)
    edges = np.array([0.0, *np.unique(meet[(meet > 0) & (meet < 1)]), 1.0])
    orders: list[Index] = []
    change: list[float] = []
    for low, high in pairwise(edges):
        order = np.argsort(rate * 0.5 * (low + high) + coords.unit_rate, kind="stable")
        if orders and np.array_equal(order, orders[-1]):
            continue
        if orders:
            change.append(low)
        orders.append(order)
    return orders, np.array(change)


def _moves(coords: Coordinates, lag: Array) -> tuple[Array, Array, Array, Array]:
    """e^{L lag}, E, its inverse and the lower root of V(lag), all (n, d, d)."""
    phi, root = steps(coords.flow, lag)
    if coords.turns is None:
        turn = back = np.ascontiguousarray(np.broadcast_to(np.eye(len(coords.L)), phi.shape))
    else:
        turn, back = (part(lag)[0] for part in coords.turns)
    return phi, turn, back, root


def steps(flow: Discretiser, lag: Array) -> tuple[Array, Array]:
    """Phi and the lower root of V over lags (n,), both (n, d, d)."""
    distinct, which = np.unique(lag, return_inverse=True)
    columns, _, roots = flow.roots(distinct)
    phi, root = (part.swapaxes(1, 2)[which] for part in (columns, roots))
    return np.ascontiguousarray(phi), np.ascontiguousarray(root)
