"""Coordinates of the state in which subspaces of similar decay stand apart.

xi = W^-1 x splits the state into invariant subspaces of similar decay, the fastest first, so that
scales which grow apart stay apart. What is fast and free of process noise is known ever better from
its past, as e^{mu tau}, or e^{(mu - nu) tau} where the same observations show what has noise and
decays at the rate nu: such coordinates are counted in units of e^{-exponent}, the exponent mu - nu
(nu the largest) times the query's longest lag.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array
from afafilter.linalg.block_diagonal import block_diagonal
from afafilter.linalg.discretiser import Discretiser, transition
from afafilter.linalg.doubling import balanced, components
from afafilter.linalg.subspaces import (
    ROUNDING,
    ComponentSizes,
    balanced_units,
    component_sizes,
)
from afafilter.models.sde import LinearSDE

EPS = float(np.finfo(np.float64).eps)

SCALED_DECAY = 10.0
"""Noise-free subspaces that decay by more than e^{-10} over the data get units of their own."""

SEPARATION_LIMIT = 1e6
"""Largest condition number of W; subspaces that are closer than that stay together."""


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Block diagonal form of the model: A = W L W^-1, in the direction of time that contracts.

    sign : +1, or -1 when time is reversed (L, Q and u are those of the reversed model).
    groups : (start, stop, c) per block of L, c its mean growth rate, ascending.
    zeroed : whether rounding of Q was taken for no noise at all.
    unit_rate : (d,) -c - nu where a fast subspace has no process noise, else 0; nu >= 0 the fastest
    decay of those that have.
    """

    W: Array
    W_inv: Array
    L: Array
    Q: Array
    u: Array
    groups: tuple[tuple[int, int, float], ...]
    sign: float
    unit_rate: Array
    zeroed: bool

    @cached_property
    def rate(self) -> Array:
        """(d,) growth rate c of each coordinate's block."""
        return np.repeat([c for _, _, c in self.groups], [b - a for a, b, _ in self.groups])

    @cached_property
    def begins(self) -> NDArray[np.intp]:
        """First coordinate of each block."""
        return np.array([a for a, _, _ in self.groups])

    @cached_property
    def sizes(self) -> ComponentSizes:
        """How exact transitions of xi are, in the direction of time."""
        return component_sizes(self.L)

    @cached_property
    def condition(self) -> float:
        """Condition number of W, its rows and columns in units of their own."""
        W = self.W / np.abs(self.W).max(axis=1, keepdims=True)
        return float(np.linalg.cond(W / np.abs(W).max(axis=0)))

    def shown(self, C: Array) -> Array:
        """C W of rows C (..., d); what is only rounding is 0."""
        rows = C @ self.W
        return np.where(np.abs(rows) > ROUNDING * np.abs(C) @ np.abs(self.W), rows, 0.0)

    @cached_property
    def flow(self) -> Discretiser:
        """e^{L tau} and the root of V(tau)."""
        return Discretiser(self.L, self.Q, np.zeros(len(self.L)))

    @cached_property
    def forward(self) -> Discretiser:
        """Phi and V in the direction of time."""
        return Discretiser(self.sign * self.L, self.Q, np.zeros(len(self.L)))

    @cached_property
    def unscaled(self) -> Coordinates:
        """The same without units."""
        return replace(self, unit_rate=np.zeros_like(self.unit_rate))

    @cached_property
    def turns(self) -> tuple[Discretiser, Discretiser] | None:
        """E = e^{(L - c) tau} and its inverse; None where every block is one coordinate: E = I."""
        d = len(self.L)
        if len(self.groups) == d:
            return None
        turn = self.L - np.diag(self.rate)
        nothing = np.zeros((d, d)), np.zeros(d)
        return Discretiser(turn, *nothing), Discretiser(-turn, *nothing)


def coordinates(model: LinearSDE, span: float, *, loud: bool = False) -> Coordinates:
    """Coordinates fit for lags up to `span`; loud : rounding of Q counts as noise."""
    unit = balanced_units(model.component_sizes, model.C, model.R)
    A = model.A * (unit / unit[:, None])
    rates = np.linalg.eigvals(A).real
    sign = 1.0 if -rates.min() >= rates.max() else -1.0
    A, u = sign * A, sign * model.drift / unit
    pieces: list[tuple[float, Array, Array]] = []  # growth rate, block of L, basis
    for members in components(A):
        scale, block, bases = _subspaces(A[np.ix_(members, members)], span)
        for basis in bases:
            embedded = np.zeros((model.dim, basis.shape[1]))
            embedded[members] = scale[:, None] * basis
            pieces.append((*_restricted(block, basis), embedded))
    pieces.sort(key=lambda piece: piece[0])
    W = np.hstack([piece[2] for piece in pieces])
    permuted = np.array_equal(W.T @ W, np.eye(len(W)))
    W_inv: Array = np.asarray(W.T.copy() if permuted else np.linalg.inv(W))
    edges = np.cumsum([0, *(len(piece[1]) for piece in pieces)])
    groups = tuple(
        (int(a), int(b), piece[0])
        for a, b, piece in zip(edges[:-1], edges[1:], pieces, strict=True)
    )
    noise = model.Q / (unit * unit[:, None])
    Q = W_inv @ noise @ W_inv.T
    rounding = ROUNDING * np.abs(W_inv) @ np.abs(noise) @ np.abs(W_inv).T
    silent = [bool((np.abs(Q[a:b, a:b]) <= rounding[a:b, a:b]).all()) for a, b, _ in groups]
    zeroed = any(still and Q[a:b].any() for (a, b, _), still in zip(groups, silent, strict=True))
    if loud and zeroed:
        Q += np.diag(np.diag(rounding)) * (EPS / ROUNDING)
        silent = [not Q[a:b].any() for a, b, _ in groups]
    loudest = max(
        (-c for (*_, c), still in zip(groups, silent, strict=True) if not still), default=0.0
    )
    unit_rate = np.zeros(model.dim)
    for (a, b, c), still in zip(groups, silent, strict=True):
        if still:
            Q[a:b] = Q[:, a:b] = 0.0
            excess = -c - max(loudest, 0.0)
            unit_rate[a:b] = excess if excess * span > SCALED_DECAY else 0.0
    return Coordinates(
        unit[:, None] * W,
        W_inv / unit,
        block_diagonal(*(piece[1] for piece in pieces)),
        0.5 * (Q + Q.T),
        W_inv @ u,
        groups,
        sign,
        unit_rate,
        zeroed,
    )


def _restricted(A: Array, basis: Array) -> tuple[float, Array]:
    """Mean growth rate c of A on an invariant subspace, and A there; c and L - c up to rounding.

    What cancels is 0, so that nilpotent parts stay nilpotent.
    """
    inner = basis.T @ A @ basis
    rounding = ROUNDING * np.abs(basis.T) @ np.abs(A) @ np.abs(basis)
    rate = float(np.trace(inner)) / len(inner)
    rate = 0.0 if abs(rate) <= rounding.max() else rate
    turn = inner - rate * np.eye(len(inner))
    turn[np.abs(turn) <= rounding] = 0.0
    return rate, turn + rate * np.eye(len(inner))


def free_path(coords: Coordinates, t: Array, origin: float) -> Array:
    """m (n, d) in xi coordinates: the noise-free path from 0 at `origin`, at times t."""
    if not coords.u.any():
        return np.zeros((len(t), len(coords.u)))
    lag = coords.sign * (t - origin)
    return transition(coords.L, np.zeros_like(coords.Q), coords.u, lag)[1]


def _subspaces(A: Array, span: float) -> tuple[Array, Array, list[Array]]:
    """Units s, A in them, and there orthonormal bases of subspaces whose decay rates lie apart.

    Where blocks drive others strongly, subspaces lie close together but in units that balance A.
    """
    given, (scale, A) = A, balanced(A)
    rates = np.sort(np.linalg.eigvals(A).real)
    gaps = np.diff(rates)
    cuts = [k for k in np.argsort(-gaps) if gaps[k] * span > 1.0]
    while cuts:
        edges = [-np.inf, *sorted(0.5 * (rates[k] + rates[k + 1]) for k in cuts), np.inf]
        bases = [_leading(A, low, high) for low, high in pairwise(edges)]
        W = np.hstack(bases)
        if W.shape[1] == len(A) and np.linalg.cond(W) < SEPARATION_LIMIT:
            return scale, A, bases
        cuts.pop()
    return np.ones(len(A)), given, [np.eye(len(A))]


def _leading(A: Array, low: float, high: float) -> Array:
    """Orthonormal basis of the subspace of eigenvalues with low < Re <= high, if they are apart."""
    from scipy.linalg import LinAlgError, schur

    try:
        _, Z, size = schur(A, output="real", sort=lambda re, im: low < re <= high)
    except LinAlgError:  # rounding moves them across the border
        return np.zeros((len(A), 0))
    return np.where(np.abs(Z[:, :size]) > ROUNDING, Z[:, :size], 0.0)
