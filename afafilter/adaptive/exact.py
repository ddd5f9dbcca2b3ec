"""Exact correlation: generalised least squares over the pulled-forward observations.

The errors of pulled observations share process noise; weighting by the inverse of their joint
covariance (dense) is solved here in O(N) per query. The observations form a Markov chain: given the
state theta at the first one, each is predicted from the one before, so that residuals decorrelate
one by one; theta itself, flat, is then estimated by least squares from them. No dynamics are
inverted on the way, so that long gaps, singular Q and unstable A are normal input. Beyond the
paper, which counts errors as independent.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array
from afafilter.adaptive.dense import LEAK_TOL, Group, Plan, Solution, Tile, scaled_solver
from afafilter.adaptive.geometry import DECAY_FLOOR, Index
from afafilter.linalg import discretiser


class Chain(NamedTuple):
    """Transitions along the observations and to the queries, in the coordinates xi.

    first, split, last : (Tq,) query i has the past first <= j < split and future split <= j < last.
    F, V : (T, d, d) to each stamp from the one before; Fq, Vq : (Tq, d, d) from the last past stamp
    to the query; Fn, Vn from the query to the first future stamp.
    H : (T, r, d), ranks : (T,), y : (P, T, r) observations with unit noise.
    """

    first: Index
    split: Index
    last: Index
    F: Array
    V: Array
    Fq: Array
    Vq: Array
    Fn: Array
    Vn: Array
    H: Array
    ranks: NDArray[np.int64]
    y: Array


def make_chain(plan: Plan, groups: list[Group], n_paths: int) -> Chain:
    """Everything the recursions need, for the observations of one missing pattern."""
    n, d = len(plan.stamps), plan.model.dim
    shown = np.searchsorted(plan.stamps, plan.times, side="right")
    split = np.clip(shown, plan.first, plan.last)
    past = plan.times - plan.stamps[np.maximum(split - 1, 0)]
    ahead = plan.stamps[np.minimum(split, n - 1)] - plan.times
    F, V = _moves(plan, np.diff(plan.stamps, prepend=plan.stamps[0]))
    Fq, Vq = _moves(plan, np.where(split > plan.first, past, 0.0))
    Fn, Vn = _moves(plan, np.where(split < plan.last, ahead, 0.0))
    width = max((g.channel.rank for g in groups), default=0)
    H, y = np.zeros((n, width, d)), np.zeros((n_paths, n, width))
    ranks = np.zeros(n, dtype=np.int64)
    for group in groups:
        r = group.channel.rank
        H[group.js, :r], y[:, group.js, :r], ranks[group.js] = group.channel.C, group.y, r
    return Chain(plan.first, split, plan.last, F, V, Fq, Vq, Fn, Vn, H, ranks, y)


def _moves(plan: Plan, lag: Array) -> tuple[Array, Array]:
    coords = plan.coords
    distinct, inverse = np.unique(np.maximum(lag, 0.0), return_inverse=True)
    Phi, _, V = discretiser.transition(
        coords.sign * coords.L, coords.Q, np.zeros(len(coords.L)), distinct
    )
    return Phi[inverse], V[inverse]


def solve_exact(
    plan: Plan, chain: Chain, tile: Tile, paths: slice, n_paths: int, scales: list[Array] | None
) -> Solution:
    """Estimates of the tile's queries; scales = log robust weights of its parts, None = all 1."""
    from afafilter._core.adaptive_kernels import sweep_shared
    from afafilter._core.adaptive_lane_kernels import sweep_each

    q = tile.queries
    n, d = len(tile.kappa), plan.model.dim
    moves = (chain.Fq[q], chain.Vq[q], chain.Fn[q], chain.Vn[q])
    ranges = (chain.first[q], chain.split[q], chain.last[q])
    along = (chain.F, chain.V, chain.H, chain.ranks)
    lead = () if scales is None else (n_paths,)
    m = n_paths if scales is None else 1
    a, B = np.empty((*lead, n, d, m)), np.empty((*lead, n, d, d))
    P, tri = np.empty_like(B), np.empty((*lead, n, d, d + m))
    weights = None
    if scales is None:
        y = np.ascontiguousarray(np.moveaxis(chain.y[paths], 0, -1))
        sweep_shared(*ranges, *along, y, *moves, a, B, P, tri)
        a, B, P, tri = a[None], B[None], P[None], tri[None]
    else:
        weights = np.zeros((n_paths, n, len(plan.stamps)))
        for part, scale in zip(tile.parts, scales, strict=True):
            weights[..., part.group.js[part.columns]] = np.exp(scale)
        y = np.ascontiguousarray(chain.y[paths])[..., None]
        sweep_each(*ranges, *along, y, weights, *moves, a, B, P, tri)
    X, null = scaled_solver(tri[..., :d])
    mean = a + B @ (X @ tri[..., d:])
    spread = B @ X
    cov = P + spread @ np.swapaxes(spread, -1, -2)
    mean = np.moveaxis(mean[0], -1, 0) if weights is None else mean[..., 0]
    unit = np.exp(np.minimum(tile.kappa, DECAY_FLOOR))
    return Solution(
        mean * unit, cov * unit[:, :, None] * unit[:, None, :],
        _leaks(plan, B, null) * unit[:, :, None], weights,
    )  # fmt: skip


def _leaks(plan: Plan, B: Array, null: Array) -> Array:
    """Flat directions as they reach the query; what has decayed below LEAK_TOL is gone."""
    size = np.abs(plan.coords.W @ null).max(axis=-2, keepdims=True)
    reach = B @ (null / np.where(size > 0, size, 1.0))
    return np.where(np.abs(reach) > LEAK_TOL, reach, 0.0)
