"""Geometry of one (query, observation) pair: what an observation says about the state elsewhere.

For observation j of a state, seen from query time t_i at lag tau = t_i - s_j (s_j the time that the
observation shows), everything needed is a whitened equation in the query's state,

    T (z_j - b) + g = G x_i + noise,   noise ~ N(0, I)      (r rows, r = rank of the rows of C)

so that the pair's information is G^T G, its information vector G^T (T (z_j - b) + g), and the squared
Mahalanobis distance of an anchor a is |T (z_j - b) + g - G a|^2 (plus what the redundant rows of a
tall C add). This is MATH's H, S form for any C, and the paper's P_ij (arXiv:2509.04154, sec. 4) for
an invertible one.

Two forms of one formula keep it finite. Time is reversed where A expands more than it contracts, so
that "against the flow" always means that e^{-A tau} grows.
  with the flow (lag < 0):    H = C Phi(|tau|), S = R + C V(|tau|) C^T, as they stand;
  against the flow (lag >= 0): U = orthonormal basis of the rows of C Phi(-tau), M = (C Phi(-tau) U)^-1,
      U^T x_i = M (z_j - b) + U^T psi + noise of covariance U^T V U + M R M^T;
      only the directions of C Phi(-tau) are used, never its size.
Coordinates xi = W^-1 x split the state into invariant subspaces of similar decay, the fastest first,
so that scales which grow apart stay apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import block_diag, schur

from afafilter import linalg
from afafilter._validate import Array
from afafilter.models import LinearSDE

DECAY_FLOOR = 300.0
"""Factors e^{-x} stop falling at x = 300: past it a noise-free state is known to 1e-130."""

SEPARATION_LIMIT = 1e6
"""Largest condition number of W; subspaces that are closer than that stay together."""


class Coordinates(NamedTuple):
    """Block diagonal form of the model: A = W L W^-1, in the direction of time that contracts.

    sign : +1, or -1 when time is reversed (L, Q and u are those of the reversed model).
    groups : (start, stop, c) per block of L, c its mean growth rate, ascending.
    """

    W: Array
    W_inv: Array
    L: Array
    Q: Array
    u: Array
    groups: tuple[tuple[int, int, float], ...]
    sign: float


class Rows(NamedTuple):
    """Whitened equations T z + g = G xi + N(0, I): G (n, r, d), T (n, r, r), g (n, r)."""

    G: Array
    T: Array
    g: Array


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
    W_inv = W.T.copy() if np.array_equal(W.T @ W, np.eye(len(W))) else np.linalg.inv(W)
    edges = np.cumsum([0, *(piece[1].shape[1] for piece in pieces)])
    groups = tuple(
        (int(a), int(b), piece[0]) for a, b, piece in zip(edges[:-1], edges[1:], pieces, strict=True)
    )
    Q = W_inv @ model.Q @ W_inv.T
    return Coordinates(
        W, W_inv, block_diag(*(piece[2] for piece in pieces)), 0.5 * (Q + Q.T), W_inv @ u, groups,
        sign,
    )  # fmt: skip


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
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            _, Z, size = schur(
                A, output="real", sort=lambda re, im, lo=low, hi=high: lo < re <= hi
            )
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
        q, echelon = np.linalg.qr(seen[..., :rank, :], mode="complete")
        column = np.abs(echelon).max(axis=-2, keepdims=True)
        echelon = np.where(np.abs(echelon) > 1e-13 * column, echelon, 0.0)
        whiten = whiten.copy()
        whiten[..., :rank, :] = np.swapaxes(q, -1, -2) @ whiten[..., :rank, :]
        return Channel(echelon, whiten, rank)
    return Channel(seen[..., :rank, :], whiten, rank)


def pair_rows(coords: Coordinates, C: Array, lag: Array, anchor_cov: Array | None) -> Rows:
    """Whitened equations of the pairs at lags (n,), observed by C (r, d) or (n, r, d), r > 0.

    anchor_cov : (d, d) extra covariance of the query's state in xi coordinates, or None.
    """
    n, (r, d) = len(lag), C.shape[-2:]
    G, T, g = np.empty((n, r, d)), np.empty((n, r, r)), np.empty((n, r))
    lag = coords.sign * lag
    for side, rows_of in ((lag >= 0, _against), (lag < 0, _along)):
        if side.any():
            part = C if C.ndim == 2 else C[side]
            G[side], T[side], g[side] = rows_of(coords, part, np.abs(lag[side]), anchor_cov)
    return Rows(G, T, g)


def _along(coords: Coordinates, C: Array, lag: Array, anchor_cov: Array | None) -> Rows:
    Phi, psi, V = linalg.transition(coords.L, coords.Q, coords.u, lag)
    H = C @ Phi
    S = np.eye(C.shape[-2]) + C @ V @ np.swapaxes(C, -1, -2)
    if anchor_cov is not None:
        S = S + H @ anchor_cov @ np.swapaxes(H, -1, -2)
    white = lower_inverse(np.linalg.cholesky(S))
    return Rows(white @ H, white, -(white @ (C @ psi[..., None]))[..., 0])


def _against(coords: Coordinates, C: Array, lag: Array, anchor_cov: Array | None) -> Rows:
    _, psi, V = linalg.transition(coords.L, coords.Q, coords.u, lag)
    if anchor_cov is not None:
        V = V + anchor_cov
    r, d = C.shape[-2:]
    if r == d:
        M = _scaled_flow(coords, lag) @ np.linalg.inv(C)
        white = _whitener(V, M)
        return Rows(white, white @ M, (white @ psi[..., None])[..., 0])
    U, M = _directions(coords, C, lag)
    Ut = np.swapaxes(U, -1, -2)
    white = _whitener(Ut @ V @ U, M)
    G = white @ Ut
    return Rows(G, white @ M, (G @ psi[..., None])[..., 0])


def _scaled_flow(coords: Coordinates, lag: Array) -> Array:
    """Phi(lag), its decay stopped at the floor."""
    out = np.zeros((len(lag), *coords.L.shape))
    for a, b, c in coords.groups:
        turn = _turn(coords.L[a:b, a:b], c, lag)
        out[:, a:b, a:b] = turn * np.exp(np.maximum(c * lag, -DECAY_FLOOR))[:, None, None]
    return out


def _turn(block: Array, rate: float, lag: Array) -> Array:
    """e^{(block - rate I) lag}: the flow of one subspace without its common growth."""
    k = len(block)
    if k == 1:
        return np.ones((len(lag), 1, 1))
    return linalg.transition(block - rate * np.eye(k), np.zeros((k, k)), np.zeros(k), lag)[0]


def _directions(coords: Coordinates, C: Array, lag: Array) -> tuple[Array, Array]:
    """U (n, d, r) orthonormal rows of C Phi(-lag), and M = (C Phi(-lag) U)^-1 (n, r, r)."""
    n, (r, d) = len(lag), C.shape[-2:]
    rate = np.empty(d)
    H = np.zeros((n, r, d))
    for a, b, c in coords.groups:
        rate[a:b] = c
        H[:, :, a:b] = C[..., a:b] @ _turn(-coords.L[a:b, a:b], -c, lag)
    touched = (C != 0).reshape(-1, r, d).any(axis=0)
    fastest = np.array([rate[row].min() for row in touched])
    growth = np.minimum(-fastest * lag[:, None], DECAY_FLOOR)
    below = np.minimum(np.subtract.outer(fastest, rate), 0.0)
    H *= np.exp(lag[:, None, None] * below)
    U, triangle = np.linalg.qr(np.swapaxes(H, -1, -2))
    M = lower_inverse(np.swapaxes(triangle, -1, -2)) * np.exp(-growth)[:, None, :]
    return U, M


def _whitener(V: Array, M: Array) -> Array:
    """Lower triangular W with W (V + M M^T) W^T = I."""
    try:
        lower = np.linalg.cholesky(V + M @ np.swapaxes(M, -1, -2))
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
