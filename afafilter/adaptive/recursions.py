"""The core's kernels of AFA, one function each: least squares over pairs, exact sweeps.

Queries lie side by side in bundles of 8: arrays of the core end in that axis, (bundles, ..., 8).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from afafilter._base.checks import Array
from afafilter._core import core
from afafilter.adaptive.geometry import Channels, Flow, Index, Queries

BUNDLE = 8
"""Queries that lie side by side."""


class PairInputs(NamedTuple):
    """Everything that the equations of all pairs follow from; reversed : time is, in the flow."""

    flow: Flow
    channels: Channels
    queries: Queries
    reversed: bool

    def bundles(self) -> int:
        return -(-len(self.queries.times) // BUNDLE)


class Chain(NamedTuple):
    """Observations in order: y_k = H_k x + N(0, I), rank_k rows.

    F, N : (T, d, d) lead to each from the one before, N the lower root of the noise; H : (T, r, d).
    """

    F: Array
    N: Array
    H: Array
    rank: Index


class QuerySteps(NamedTuple):
    """Queries with the past first <= k < split and the future split <= k < last.

    Fq, Nq : (Tq, d, d) lead from the last past observation to the query, Fn, Nn from the query to
    the first future one; N the lower roots of the noises.
    """

    first: Index
    split: Index
    last: Index
    Fq: Array
    Nq: Array
    Fn: Array
    Nn: Array

    def at(self, some: slice) -> QuerySteps:
        """Some of them."""
        return QuerySteps(*(part[some] for part in self))  # type: ignore[arg-type]

    def share(self) -> bool:
        """Whether one sweep serves all: they use the same observations, or have none ahead."""
        alike = (self.last == self.last[0]).all() or (self.split >= self.last).all()
        return bool(alike and (self.first == self.first[0]).all())


class SweepResult(NamedTuple):
    """Of every query: x = a + B theta + N(0, L L^T), theta flat, and R theta = s + N(0, I).

    a : (., n, d, m); B, L : (., n, d, d); tri : (., n, d, d + m) = [R | s].
    """

    a: Array
    B: Array
    L: Array
    tri: Array


def side_by_side(x: Array | Index) -> Array:
    """x (P, nq, ...) with the queries in bundles, (P, bundles, ..., 8), zeros beyond the last."""
    P, n = x.shape[:2]
    full = np.zeros((P, -(-n // BUNDLE) * BUNDLE, *x.shape[2:]))
    full[:, :n] = x
    full = full.reshape(P, -1, BUNDLE, *x.shape[2:])
    return np.ascontiguousarray(np.moveaxis(full, 2, -1))


def one_by_one(x: Array, n: int) -> Array:
    """The inverse of `side_by_side`: (P, bundles, ..., 8) as (P, n, ...)."""
    apart: Array = np.moveaxis(x, -1, 2)
    return np.asarray(apart.reshape(len(x), -1, *apart.shape[3:])[:, :n])


def plain_triangles(inputs: PairInputs, y: Array) -> Array:
    """Rows [R | s] (nq, d, d + m) of least squares with weights 1; y (n, r, m)."""
    d, m = len(inputs.flow.rate), y.shape[-1]
    out = np.zeros((inputs.bundles(), d + m, d, BUNDLE))
    core.plain_triangles(*inputs[:3], inputs.reversed, np.ascontiguousarray(y), out)
    first: Array = _rows(out[None], len(inputs.queries.times))[0]
    return first


def pair_equations(inputs: PairInputs, low: int, n: int) -> Array:
    """Equations (bundles, n, r (d + r), 8) of the observations low <= j < low + n."""
    r, d = inputs.channels.C.shape[1:]
    out = np.empty((inputs.bundles(), n, r * (d + r), BUNDLE))
    core.pair_equations(*inputs[:3], inputs.reversed, low, out)
    return out


def pair_distances(pairs: Array, y: Array, redundant: Array, anchor: Array) -> Array:
    """d2 (P, bundles, n, 8) of anchors (P, bundles, d, 8); y (P, n, r), redundant (P, n)."""
    out = np.empty((len(y), *pairs.shape[:2], BUNDLE))
    core.pair_distances(
        pairs, np.ascontiguousarray(y), np.ascontiguousarray(redundant), anchor, out
    )
    return out


def weighted_triangles(pairs: Array, y: Array, root: Array, d: int, n_queries: int) -> Array:
    """Rows [R | s] (L, nq, d, d + m), equations times root (L, bundles, n, 8); y (L, n, r, m)."""
    out = np.zeros((len(y), len(pairs), d + y.shape[-1], d, BUNDLE))
    flat = out.reshape(*out.shape[:2], -1, BUNDLE)
    core.weighted_triangles(pairs, np.ascontiguousarray(y), root, flat, d)
    return _rows(out, n_queries)


def pair_shares(pairs: Array, X: Array, root: Array) -> Array:
    """|G X|^2 root^2 (L, bundles, n, 8) for X (L, nq, d, d)."""
    lead, _, d, _ = X.shape
    flat = side_by_side(X.reshape(lead, -1, d * d))
    out = np.empty(root.shape)
    core.pair_shares(pairs, flat, root, out, d)
    return out


def pair_log_dets(pairs: Array, unit: Array, W_inv: Array, rank: Index) -> Array:
    """log det^{1/r} (bundles, n, 8) of the information of each pair on x; unit (nq, d)."""
    out = np.empty((*pairs.shape[:2], BUNDLE))
    core.pair_log_dets(pairs, side_by_side(unit[None])[0], np.ascontiguousarray(W_inv), rank, out)
    return out


def _rows(triangle: Array, n: int) -> Array:
    """Upper triangular rows (L, n, d, d + m) from the core's (L, bundles, d + m, d, 8)."""
    return np.ascontiguousarray(np.swapaxes(one_by_one(triangle, n), -1, -2))


def sweep_shared(chain: Chain, query_steps: QuerySteps, y: Array) -> SweepResult:
    """Every query by weights 1, leading axis 1; y (T, r, m)."""
    found = _found(1, len(query_steps.split), chain.H.shape[2], y.shape[2])
    core.sweep_shared(chain, query_steps, np.ascontiguousarray(y), found)
    return found


def sweep_each(chain: Chain, query_steps: QuerySteps, y: Array, low: int, w: Array) -> SweepResult:
    """Every path's queries by weights w (P, bundles, n, 8) of the observations from `low` on.

    y : (P, T, r) whitened observations.
    """
    found = _found(len(y), len(query_steps.split), chain.H.shape[2], 1)
    core.sweep_each(chain, query_steps, np.ascontiguousarray(y), low, w, found)
    return found


def _found(P: int, n: int, d: int, m: int) -> SweepResult:
    return SweepResult(*(np.empty((P, n, d, k)) for k in (m, d, d, d + m)))
