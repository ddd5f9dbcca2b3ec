"""Exact correlation: generalised least squares over the pulled-forward observations.

The errors of pulled observations share process noise; weighting by the inverse of their joint
covariance (dense) is solved here in O(N) per query. The observations form a Markov chain: given the
state theta at the first one, each is predicted from the one before, so that residuals decorrelate
one by one; theta itself, flat, is then estimated by least squares from them. No dynamics are
inverted on the way, so that long gaps, singular Q and unstable A are normal input. Beyond the
paper, which counts errors as independent.
"""

from __future__ import annotations

import numpy as np

from afafilter._base.checks import Array
from afafilter.adaptive.dense import (
    Pattern,
    Plan,
    Tile,
    spread_out,
)
from afafilter.adaptive.geometry import DECAY_FLOOR, Index, steps
from afafilter.adaptive.recursions import Chain, QuerySteps, sweep_each, sweep_shared
from afafilter.adaptive.solutions import Solution, reached, settle, weighty
from afafilter.linalg.subspaces import DECAYED


def make_chain(pattern: Pattern) -> Chain:
    """Transitions along the observations of one missing pattern, in xi."""
    flow, channels, _, _ = pattern.inputs
    F, N = _moves(pattern.plan, np.diff(flow.stamps, prepend=flow.stamps[0]))
    return Chain(F, N, channels.C, channels.rank)


def make_query_steps(pattern: Pattern, ends: tuple[Index, Index]) -> QuerySteps:
    """Transitions to the queries, which use the observations first <= j < last = ends."""
    stamps, (first, last) = pattern.inputs.flow.stamps, ends
    split = np.clip(pattern.inputs.queries.split, first, last)
    past = pattern.plan.times - stamps[np.maximum(split - 1, 0)]
    ahead = stamps[np.minimum(split, len(stamps) - 1)] - pattern.plan.times
    Fq, Nq = _moves(pattern.plan, np.where(split > first, past, 0.0))
    Fn, Nn = _moves(pattern.plan, np.where(split < last, ahead, 0.0))
    return QuerySteps(first, split, last, Fq, Nq, Fn, Nn)


def _moves(plan: Plan, lag: Array) -> tuple[Array, Array]:
    """Phi and the lower root of V in the direction of time."""
    return steps(plan.coords.forward, np.maximum(lag, 0.0))


def solve_exact(
    pattern: Pattern,
    along: Chain,
    query_steps: QuerySteps,
    queries: slice,
    paths: slice,
    reweighted: tuple[Tile, Array] | None,
    *,
    shares: bool,
    early: bool,
) -> Solution:
    """Estimates of these queries; reweighted : their tile and robust weights, None = all 1."""
    plan = pattern.plan
    d = plan.model.dim
    query_steps = query_steps.at(queries)
    weights = counted = None
    if reweighted is None:
        a, B, L, tri = sweep_shared(along, query_steps, np.moveaxis(pattern.y[paths], 0, -1))
    else:
        tile, w = reweighted
        weights, counted = spread_out(pattern, tile, w) if shares else None, weighty(tile, w)
        a, B, L, tri = sweep_each(along, query_steps, pattern.y[paths], tile.low, w)

    def columns(_at: Index, _here: Array, first: Array) -> Array:
        return np.asarray(first @ plan.coords.W_inv.T)

    X, unknown, lost, magnified = settle(
        pattern, queries, tri[..., :d], columns, early=early, counted=counted
    )
    if lost.any():
        unknown = unknown | reached(plan, lost, np.abs(B))
    if magnified.max(initial=0.0) > MOST:
        known = _magnified(tri[..., :d], X, B)
        magnified = np.where(np.isinf(magnified), magnified, known)
    mean = a + B @ (X @ tri[..., d:])
    with np.errstate(over="ignore", invalid="ignore"):  # of `finish`
        root = np.concatenate([L, B @ X], axis=-1)
    mean = np.moveaxis(mean[0], -1, 0) if reweighted is None else mean[..., 0]
    unit = np.exp(np.minimum(pattern.exponent[queries], DECAY_FLOOR))
    return Solution(mean * unit, root, unknown, weights, magnified)


MOST = 1.0 / (64 * np.finfo(np.float64).eps)
"""A column of the triangle that the others explain but for less than 1 / MOST: is it forgotten."""


def _magnified(triangle: Array, X: Array, B: Array) -> Array:
    """By how much R^-1 = X magnifies roundings, but for directions that x = B theta forgets."""
    size = np.abs(triangle).max(axis=-2)[..., None]
    with np.errstate(over="ignore", invalid="ignore"):
        left = np.abs(B @ X).max(axis=-2) > DECAYED * np.abs(X).max(axis=-2)
        columns = np.where(left, (np.abs(X) * size).max(axis=-2), 0.0)
    return np.asarray(columns.max(axis=-1))
