"""Geometry of one (query, observation) pair: what an observation says about the state elsewhere.

For observation j of a state, seen from query time t_i at lag tau = t_i - s_j (s_j the time that the
observation shows), everything needed is a whitened equation in the query's state,

    T y_j = G x_i + noise,   noise ~ N(0, I)      (r rows, r = rank of the rows of C)

with y_j = z_j - b - C m(s_j), x_i counted from m(t_i), and m one path of the noise-free model. Its
information is G^T G, its information vector G^T T y_j, and the squared Mahalanobis distance of an
anchor a is |T y_j - G a|^2 (plus what the redundant rows of a tall C add). This is the paper's P_ij
(arXiv:2509.04154, sec. 4) for an invertible C, and beyond the paper for any other.

Two forms of one formula keep it finite. Time is reversed where A expands more than it contracts, so
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

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag, schur

from afafilter._base.checks import Array
from afafilter.linalg import discretiser
from afafilter.models.sde import LinearSDE

Index = NDArray[np.intp]

DECAY_FLOOR = 300.0
"""Factors e^{-x} stop falling at x = 300: past it a noise-free state is known to 1e-130."""

QUIET_DECAY = 10.0
"""Noise-free subspaces that decay by more than e^{-10} over the data get units of their own."""

SEPARATION_LIMIT = 1e6
"""Largest condition number of W; subspaces that are closer than that stay together."""


class Coordinates(NamedTuple):
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


class Rows(NamedTuple):
    """Whitened equations T y = G xi + N(0, I): G (n, r, d), T (n, r, r)."""

    G: Array
    T: Array


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
    rates = np.linalg.eigvals(model.A).real
    sign = 1.0 if -rates.min() >= rates.max() else -1.0
    A, u = sign * model.A, sign * model.drift
    pieces: list[tuple[float, Array, Array]] = []
    for members in _components(A):
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
    Q = W_inv @ model.Q @ W_inv.T
    rounding = 1e-15 * np.abs(W_inv) @ np.abs(model.Q) @ np.abs(W_inv).T
    quiet = np.zeros(model.dim)
    for a, b, c in groups:
        if (np.abs(Q[a:b, a:b]) <= rounding[a:b, a:b]).all():
            Q[a:b] = Q[:, a:b] = 0.0
            if -c * span > QUIET_DECAY:
                quiet[a:b] = -c
    return Coordinates(
        W, W_inv, block_diag(*(piece[2] for piece in pieces)), 0.5 * (Q + Q.T), W_inv @ u, groups,
        sign, quiet,
    )  # fmt: skip


def free_path(coords: Coordinates, t: Array, origin: float) -> Array:
    """m (n, d) in xi coordinates: the noise-free path from 0 at `origin`, at times t."""
    lag = coords.sign * (t - origin)
    return discretiser.transition(coords.L, np.zeros_like(coords.Q), coords.u, lag)[1]


def _components(A: Array) -> list[list[int]]:
    """Index sets of the irreducible diagonal blocks of A (as an undirected graph)."""
    linked = (A != 0) | (A.T != 0)
    left, out = set(range(len(A))), []
    while left:
        found: set[int] = set()
        frontier = {min(left)}
        while frontier:
            found |= frontier
            frontier = {int(k) for j in frontier for k in np.flatnonzero(linked[j])} - found
        out.append(sorted(found))
        left -= found
    return out


def _subspaces(A: Array, span: float) -> list[Array]:
    """Orthonormal bases of invariant subspaces of A whose decay rates lie apart."""
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
    scale = np.abs(C).max(axis=0, initial=0.0).max(initial=0.0)
    rank = int(np.linalg.matrix_rank(C)) if scale > 0 else 0
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


def pair_rows(
    coords: Coordinates, C: Array, lag: Array, anchor_cov: Array | None, kappa: Array | None
) -> Rows:
    """Whitened equations of the pairs at lags (n,), observed by C (r, d) or (n, r, d), r > 0.

    anchor_cov : (d, d) extra covariance of the query's state in xi coordinates, or None.
    kappa : (n, d) or None: the equations are in the state e^{kappa} xi of their query.
    """
    n, (r, d) = len(lag), C.shape[-2:]
    G, T = np.empty((n, r, d)), np.empty((n, r, r))
    lag = coords.sign * lag
    kappa = np.zeros((n, d)) if kappa is None else kappa
    for side, rows_of in ((lag >= 0, _against), (lag < 0, _along)):
        if side.any():
            part = C if C.ndim == 2 else C[side]
            G[side], T[side] = rows_of(coords, part, np.abs(lag[side]), anchor_cov, kappa[side])
    return Rows(G, T)


def _along(
    coords: Coordinates, C: Array, lag: Array, anchor_cov: Array | None, kappa: Array
) -> tuple[Array, Array]:
    Phi, _, V = discretiser.transition(coords.L, coords.Q, np.zeros(len(coords.L)), lag)
    H = C @ Phi
    S = np.eye(C.shape[-2]) + C @ V @ np.swapaxes(C, -1, -2)
    if anchor_cov is not None:
        S = S + H @ anchor_cov @ np.swapaxes(H, -1, -2)
    white = lower_inverse(np.asarray(np.linalg.cholesky(S)))
    return white @ (H * np.exp(-kappa)[:, None, :]), white


def _against(
    coords: Coordinates, C: Array, lag: Array, anchor_cov: Array | None, kappa: Array
) -> tuple[Array, Array]:
    V = discretiser.transition(coords.L, coords.Q, np.zeros(len(coords.L)), lag)[2]
    if anchor_cov is not None:
        V = V + anchor_cov
    r, d = C.shape[-2:]
    if r == d:
        M = _flow(coords, lag, kappa) @ np.linalg.inv(C)
        white = _whitener(V, M)
        return white, white @ M
    white, G = np.empty((len(lag), r, r)), np.empty((len(lag), r, d))
    for order, pairs in _orders(coords, lag, kappa):
        part = C if C.ndim == 2 else C[pairs]
        turn = np.eye(r)
        if kappa.any():
            turn, upper = _echelon(part[..., order])
            part = upper[..., np.argsort(order)]
        U, M = _directions(coords, part, lag[pairs], kappa[pairs], order)
        Ut = np.swapaxes(U, -1, -2)
        whitener = _whitener(Ut @ V[pairs] @ U, M)
        G[pairs], white[pairs] = whitener @ Ut, whitener @ M @ np.swapaxes(turn, -1, -2)
    return G, white


def _orders(coords: Coordinates, lag: Array, kappa: Array) -> list[tuple[Index, Index]]:
    """Coordinates by the growth of H = C Phi(-lag) e^{-kappa}, and the pairs of that order."""
    if not kappa.any():
        return [(np.arange(kappa.shape[1]), np.arange(len(lag)))]
    rate = np.repeat([c for _, _, c in coords.groups], [b - a for a, b, _ in coords.groups])
    order = np.argsort(rate * lag[:, None] + kappa, axis=1, kind="stable")
    distinct, member = np.unique(order, axis=0, return_inverse=True)
    member = member.reshape(-1)
    return [(row, np.flatnonzero(member == k)) for k, row in enumerate(distinct)]


def _flow(coords: Coordinates, lag: Array, kappa: Array) -> Array:
    """e^{kappa} Phi(lag), its growth and decay stopped at the floor."""
    out = np.zeros((len(lag), *coords.L.shape))
    for a, b, c in coords.groups:
        growth = np.clip(c * lag + kappa[:, a], -DECAY_FLOOR, DECAY_FLOOR)
        out[:, a:b, a:b] = _turn(coords.L[a:b, a:b], c, lag) * np.exp(growth)[:, None, None]
    return out


def _turn(block: Array, rate: float, lag: Array) -> Array:
    """e^{(block - rate I) lag}: the flow of one subspace without its common growth."""
    k = len(block)
    if k == 1:
        return np.ones((len(lag), 1, 1))
    return discretiser.transition(block - rate * np.eye(k), np.zeros((k, k)), np.zeros(k), lag)[0]


def _directions(
    coords: Coordinates, C: Array, lag: Array, kappa: Array, order: Index
) -> tuple[Array, Array]:
    """U (n, d, r) orthonormal rows of H = C Phi(-lag) e^{-kappa}, and M = (H U)^-1 (n, r, r).

    C is in echelon form when its coordinates are taken in this order, the fastest growing first.
    """
    n, (r, d) = len(lag), C.shape[-2:]
    growth = np.empty((n, 1, d))
    H = np.zeros((n, r, d))
    for a, b, c in coords.groups:
        growth[:, 0, a:b] = -c * lag[:, None] - kappa[:, a:b]
        H[:, :, a:b] = C[..., a:b] @ _turn(-coords.L[a:b, a:b], -c, lag)
    touched = (C != 0).reshape(-1, r, d).any(axis=0)
    top = np.where(touched, growth, -np.inf).max(axis=-1)
    H *= np.exp(np.minimum(growth - top[..., None], 0.0))
    sorted_U, triangle = np.linalg.qr(np.swapaxes(H[..., order], -1, -2))
    U = sorted_U[:, np.argsort(order)]
    size = np.exp(-np.clip(top, -DECAY_FLOOR, DECAY_FLOOR))
    return U, lower_inverse(np.swapaxes(triangle, -1, -2)) * size[:, None, :]


def _whitener(V: Array, M: Array) -> Array:
    """Lower triangular W with W (V + M M^T) W^T = I."""
    try:
        lower: Array = np.asarray(np.linalg.cholesky(V + M @ np.swapaxes(M, -1, -2)))
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(V)
        root = vectors * np.sqrt(np.clip(values, 0.0, None))[..., None, :]
        stacked = np.concatenate([np.swapaxes(root, -1, -2), np.swapaxes(M, -1, -2)], axis=-2)
        lower = np.swapaxes(np.linalg.qr(stacked, mode="r"), -1, -2)
    return lower_inverse(lower)


def lower_inverse(lower: Array) -> Array:
    """Inverse of lower triangular matrices (..., r, r), row by row: exact zeros, small errors."""
    out = np.zeros_like(lower)
    for i in range(lower.shape[-1]):
        out[..., i, :i] = -(lower[..., i : i + 1, :i] @ out[..., :i, :i])[..., 0, :]
        out[..., i, i] = 1.0
        out[..., i, : i + 1] /= lower[..., i, i, None]
    return out
