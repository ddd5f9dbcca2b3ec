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
Coordinates xi = W^-1 x split the state into invariant subspaces of similar decay, the fastest
first, so that scales which grow apart stay apart. What is fast and free of process noise is known
ever better, e^{mu tau}, from its past: such coordinates are counted in units of e^{-kappa}, kappa =
mu times the query's longest lag.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array
from afafilter.linalg.discretiser import Discretiser, transition
from afafilter.linalg.doubling import components
from afafilter.linalg.subspaces import balanced_units, rank_of
from afafilter.models.sde import LinearSDE

Index = NDArray[np.intp]

DECAY_FLOOR = 300.0
"""Factors e^{-x} stop falling at x = 300: past it a noise-free state is known to 1e-130."""

QUIET_DECAY = 10.0
"""Noise-free subspaces that decay by more than e^{-10} over the data get units of their own."""

SEPARATION_LIMIT = 1e6
"""Largest condition number of W; subspaces that are closer than that stay together."""


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Block diagonal form of the model: A = W L W^-1, in the direction of time that contracts.

    sign : +1, or -1 when time is reversed (L, Q and u are those of the reversed model).
    groups : (start, stop, c) per block of L, c its mean growth rate, ascending.
    quiet : (d,) -c where a fast subspace has no process noise, else 0.
    """

    W: Array
    W_inv: Array
    L: Array
    Q: Array
    u: Array
    groups: tuple[tuple[int, int, float], ...]
    sign: float
    quiet: Array

    @cached_property
    def rate(self) -> Array:
        """(d,) growth rate c of each coordinate's block."""
        return np.repeat([c for _, _, c in self.groups], [b - a for a, b, _ in self.groups])

    @cached_property
    def flow(self) -> Discretiser:
        """e^{L tau} and the root of V(tau)."""
        return Discretiser(self.L, self.Q, np.zeros(len(self.L)))

    @cached_property
    def forward(self) -> Discretiser:
        """Phi and V in the direction of time."""
        return Discretiser(self.sign * self.L, self.Q, np.zeros(len(self.L)))

    @cached_property
    def turns(self) -> tuple[Discretiser, Discretiser] | None:
        """E = e^{(L - c) tau} and its inverse; None where every block is one coordinate: E = I."""
        d = len(self.L)
        if len(self.groups) == d:
            return None
        turn = self.L - np.diag(self.rate)
        nothing = np.zeros((d, d)), np.zeros(d)
        return Discretiser(turn, *nothing), Discretiser(-turn, *nothing)


class Flow(NamedTuple):
    """Observations in order of time, and the steps that lead to each from the one before.

    stamps : (n,); rate, quiet : (d,) growth rate and unit rate of each coordinate; phi, root :
    (n, d, d) e^{L s} and the lower root of V(s) over the steps s; turn, back : (n, d, d)
    E = e^{(L - rate) s}, by blocks, and its inverse.
    """

    stamps: Array
    rate: Array
    quiet: Array
    phi: Array
    turn: Array
    back: Array
    root: Array


class Sight(NamedTuple):
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

    reach : (Tq,) longest lag against the flow. turn, back, root : (Tq, d, d) as in `Flow`, over the
    lag to the nearest observation of the past and of the future.
    """

    times: Array
    reach: Array
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


def coordinates(model: LinearSDE, span: float) -> Coordinates:
    """Coordinates fit for lags up to `span`."""
    from scipy.linalg import block_diag

    unit = balanced_units(model.component_sizes, model.C, model.R)
    A = model.A * (unit / unit[:, None])
    rates = np.linalg.eigvals(A).real
    sign = 1.0 if -rates.min() >= rates.max() else -1.0
    A, u = sign * A, sign * model.drift / unit
    pieces: list[tuple[float, Array, Array]] = []
    for members in components(A):
        block = A[np.ix_(members, members)]
        for basis in _subspaces(block, span):
            embedded = np.zeros((model.dim, basis.shape[1]))
            embedded[members] = basis
            inner = basis.T @ block @ basis
            pieces.append((float(np.trace(inner)) / len(inner), embedded, inner))
    pieces.sort(key=lambda piece: piece[0])
    W = np.hstack([piece[1] for piece in pieces])
    permuted = np.array_equal(W.T @ W, np.eye(len(W)))
    W_inv: Array = np.asarray(W.T.copy() if permuted else np.linalg.inv(W))
    edges = np.cumsum([0, *(piece[1].shape[1] for piece in pieces)])
    groups = tuple(
        (int(a), int(b), piece[0])
        for a, b, piece in zip(edges[:-1], edges[1:], pieces, strict=True)
    )
    noise = model.Q / (unit * unit[:, None])
    Q = W_inv @ noise @ W_inv.T
    rounding = 1e-15 * np.abs(W_inv) @ np.abs(noise) @ np.abs(W_inv).T
    quiet = np.zeros(model.dim)
    for a, b, c in groups:
        if (np.abs(Q[a:b, a:b]) <= rounding[a:b, a:b]).all():
            Q[a:b] = Q[:, a:b] = 0.0
            if -c * span > QUIET_DECAY:
                quiet[a:b] = -c
    return Coordinates(
        unit[:, None] * W,
        W_inv / unit,
        block_diag(*(piece[2] for piece in pieces)),
        0.5 * (Q + Q.T),
        W_inv @ u,
        groups,
        sign,
        quiet,
    )


def free_path(coords: Coordinates, t: Array, origin: float) -> Array:
    """m (n, d) in xi coordinates: the noise-free path from 0 at `origin`, at times t."""
    if not coords.u.any():
        return np.zeros((len(t), len(coords.u)))
    lag = coords.sign * (t - origin)
    return transition(coords.L, np.zeros_like(coords.Q), coords.u, lag)[1]


def _subspaces(A: Array, span: float) -> list[Array]:
    """Orthonormal bases of invariant subspaces of A whose decay rates lie apart."""
    from scipy.linalg import schur

    rates = np.sort(np.linalg.eigvals(A).real)
    gaps = np.diff(rates)
    cuts = [k for k in np.argsort(-gaps) if gaps[k] * span > 1.0]
    while cuts:
        edges = [-np.inf, *sorted(0.5 * (rates[k] + rates[k + 1]) for k in cuts), np.inf]
        bases = []
        for low, high in pairwise(edges):
            _, Z, size = schur(A, output="real", sort=lambda re, im, lo=low, hi=high: lo < re <= hi)
            bases.append(Z[:, :size])
        W = np.hstack(bases)
        if W.shape[1] == len(A) and np.linalg.cond(W) < SEPARATION_LIMIT:
            return bases
        cuts.pop()
    return [np.eye(len(A))]


def channel(coords: Coordinates, C: Array, R: Array) -> Channel:
    """Whiten and compress observations: C (p, d), R (..., p, p), p the observed components.

    Later rows of the result do not see the coordinates that decay fastest (echelon form), so that
    rows which grow at different rates stay apart.
    """
    lower = np.linalg.cholesky(R)
    p = C.shape[0]
    seen = np.linalg.solve(lower, np.broadcast_to(C @ coords.W, (*R.shape[:-2], *C.shape)))
    whiten = np.linalg.solve(lower, np.broadcast_to(np.eye(p), R.shape))
    rank = rank_of(C @ coords.W)
    if rank < p:
        turn = np.swapaxes(np.linalg.svd(seen)[0], -1, -2)
        seen, whiten = turn @ seen, turn @ whiten
    if 0 < rank < C.shape[1]:
        q, echelon = _echelon(seen[..., :rank, :])
        whiten = whiten.copy()
        whiten[..., :rank, :] = np.swapaxes(q, -1, -2) @ whiten[..., :rank, :]
        return Channel(echelon, whiten, rank)
    return Channel(seen[..., :rank, :], whiten, rank)


def _echelon(C: Array) -> tuple[Array, Array]:
    """Orthogonal q and upper echelon q^T C, its rounding cut off."""
    q, upper = np.linalg.qr(C, mode="complete")
    column = np.abs(upper).max(axis=-2, keepdims=True)
    return np.asarray(q), np.where(np.abs(upper) > 1e-13 * column, upper, 0.0)


def make_walk(
    coords: Coordinates,
    stamps: Array,
    times: Array,
    first: Index,
    last: Index,
    anchor_cov: Array | None,
) -> tuple[Flow, Queries]:
    """Steps between the observations, n >= 1, and what the walk from each query begins with.

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
            root[k] = _joined_root(root[k], moved)
    ends = stamps[np.minimum(first, n - 1)], stamps[np.maximum(last - 1, 0)]
    reach = np.maximum(coords.sign * (times - ends[0]), coords.sign * (times - ends[1]))
    reach = np.where(first < last, np.maximum(reach, 0.0), 0.0)
    return (
        Flow(stamps, coords.rate, coords.quiet, phi[0], turn[0], back[0], root[0]),
        Queries(
            times,
            reach,
            first,
            split,
            last,
            turn[1],
            back[1],
            root[1],
            turn[2],
            back[2],
            root[2],
        ),
    )


def make_sight(coords: Coordinates, channels: list[tuple[Index, Channel]], n: int) -> Sight:
    """The channels of the observations js, put together; the others see nothing."""
    d = len(coords.L)
    r = max((found.rank for _, found in channels), default=1)
    rank, C = np.zeros(n, np.int64), np.zeros((n, r, d))
    for js, found in channels:
        rank[js], C[js, : found.rank] = found.rank, found.C
    inverse = np.zeros((n if r == d else 0, d, d))
    if r == d:
        inverse[rank == d] = np.linalg.inv(C[rank == d])
    if r == d and (rank == d).all():
        return Sight(rank, C, inverse, np.zeros((1, n, r, d)), np.zeros((0, n, r, r)), np.zeros(0))
    if not coords.quiet.any():
        return Sight(rank, C, inverse, C[None], np.zeros((0, n, r, r)), np.zeros(0))
    orders, change = _orders(coords)
    echelon, rotation = np.zeros((len(orders), n, r, d)), np.zeros((len(orders), n, r, r))
    for k, order in enumerate(orders):
        for js, found in channels:
            q, upper = _echelon(found.C[..., order])
            echelon[k, js, : found.rank] = upper[..., np.argsort(order)]
            rotation[k, js, : found.rank, : found.rank] = np.swapaxes(q, -1, -2)
    return Sight(rank, C, inverse, echelon, rotation, change)


def _orders(coords: Coordinates) -> tuple[list[Index], Array]:
    """Orders of the coordinates by the growth of C Phi(-lag) e^{-kappa}, the fastest first.

    The growth is -(rate lag + quiet reach): the order depends on lag / reach alone.
    """
    rate = coords.rate
    slope, start = rate[:, None] - rate, coords.quiet - coords.quiet[:, None]
    meet = np.divide(start, slope, out=np.full_like(slope, np.inf), where=slope != 0)
    edges = np.array([0.0, *np.unique(meet[(meet > 0) & (meet < 1)]), 1.0])
    orders: list[Index] = []
    change: list[float] = []
    for low, high in pairwise(edges):
        order = np.argsort(rate * 0.5 * (low + high) + coords.quiet, kind="stable")
        if orders and np.array_equal(order, orders[-1]):
            continue
        if orders:
            change.append(low)
        orders.append(order)
    return orders, np.array(change)


def _moves(coords: Coordinates, lag: Array) -> tuple[Array, Array, Array, Array]:
    """e^{L lag}, E, its inverse and the lower root of V(lag), all (n, d, d)."""
    distinct, which = np.unique(lag, return_inverse=True)
    columns, _, roots = coords.flow.roots(distinct)
    phi, root = columns.swapaxes(1, 2)[which], roots.swapaxes(1, 2)[which]
    if coords.turns is None:
        turn = back = np.broadcast_to(np.eye(len(coords.L)), phi.shape)
    else:
        turn, back = (part(distinct)[0][which] for part in coords.turns)
    return tuple(np.ascontiguousarray(part) for part in (phi, turn, back, root))  # type: ignore[return-value]


def _joined_root(a: Array, b: Array) -> Array:
    """Lower root of a a^T + b b^T, diagonal >= 0."""
    stacked = np.concatenate([np.swapaxes(a, -1, -2), np.swapaxes(b, -1, -2)], axis=-2)
    lower = np.swapaxes(np.linalg.qr(stacked, mode="r"), -1, -2)
    sign = np.where(np.diagonal(lower, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
    return np.ascontiguousarray(lower * sign[..., None, :])
