"""Many small maximisations side by side: BFGS, whose steps are the core's.

`Objectives` are of S problems; a single one is the case S = 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from afafilter._base.checks import Array
from afafilter._core import core
from afafilter.learning.curvature import Objectives, Spectrum

NEARBY, BENT = 0.01, 0.1
"""Points on one hill: at most half the squared distance in standard errors, and its relative error.
"""

ENOUGH = 1e-3
"""Fraction of the tolerance at which the batched search of many series stops."""


class Stopping(NamedTuple):
    """When a search ends: after `max_iter` iterations, or with at most `tolerance` to gain."""

    max_iter: int = 500
    tolerance: float = 1e-6


class Point(NamedTuple):
    """A point of the search, the objective and its gradient there."""

    theta: Array
    value: float
    grad: Array


class SearchResult(NamedTuple):
    """End point of a search, number of iterations, history of the objective.

    curved : the information there (minus the Hessian) and its spectrum.
    """

    at: Point
    n_iter: int
    history: list[float]
    curved: tuple[Array, Spectrum]


class SearchResults(NamedTuple):
    """End points of S searches, iterations and histories of the objective.

    joined : (S,) the search that goes on from each: itself, or a higher one on whose hill it came.
    """

    thetas: Array
    values: Array
    grads: Array
    n_iter: Any
    histories: list[list[float]]
    joined: Any

    def of(self, s: int, curved: tuple[Array, Spectrum], h: int) -> SearchResult:
        """Search s alone, with the information at its end and its spectrum, the h-th of several."""
        at = Point(self.thetas[s], float(self.values[s]), self.grads[s])
        info, (values, vectors) = curved
        own = info[h], (values[h], vectors[h])
        return SearchResult(at, int(self.n_iter[s]), self.histories[s], own)


def bfgs(
    objective: Objectives,
    at: tuple[Array, Array, Array],
    bounds: tuple[Array, Array],
    scale: Array,
    stopping: Stopping,
    owner: Any = None,
) -> SearchResults:
    """BFGS from `at`, points (S, n) with their values and gradients, each search at its own pace.

    In units of `scale` the first step has length 1. A search ends when the predicted gain
    g^T H g / 2 is at most the tolerance, its line search fails, or it has come to the hill that a
    higher one of the same owner climbs. The steps themselves: core/search.h.

    owner : (S,) whose search each is, in order; None: each is alone.
    """
    thetas, values, grads = (np.array(x, order="C") for x in at)
    S, n = thetas.shape
    n_iter, histories = np.zeros(S, int), [[value] for value in values.tolist()]
    trials, room = np.empty((S, n)), np.zeros((S, 14 + 4 * n * (n + 1)))
    iterates, (lower, upper) = (thetas, values, grads), map(np.ascontiguousarray, bounds)
    searches = *iterates, trials, scale, lower, upper, room, stopping.tolerance
    pairs, joined = _pairs(owner), np.arange(S)
    pairs = pairs[np.isfinite(values[pairs]).all(axis=1)]
    active = np.flatnonzero(np.isfinite(values))
    begin = True
    while len(active):
        told = (values[active], grads[active]) if begin else objective(trials[active], active)
        going, moved = np.empty((2, len(active)), bool)
        f, g = map(np.ascontiguousarray, told)
        fits = core.search_on(searches, active, begin, f, g, going, moved)
        assert fits, "the room of a search has another size"
        came = active[moved]
        n_iter[came] += 1
        for s in came.tolist():
            histories[s].append(float(values[s]))
        going &= n_iter[active] < stopping.max_iter
        if len(pairs) and len(came):
            _join(pairs, iterates, joined, active[going | moved])
            going &= joined[active] == active
        active, begin = active[going], False
    while (joined[joined] != joined).any():
        joined = joined[joined]
    return SearchResults(thetas, values, grads, n_iter, histories, joined)


def _pairs(owner: Any) -> Array:
    """Pairs (P, 2) of searches with one owner."""
    found: list[Any] = [np.zeros((0, 2), np.int64)]
    for apart in range(1, 0 if owner is None else len(owner)):
        first = np.flatnonzero(owner[:-apart] == owner[apart:])
        if not len(first):
            break
        found.append(first[:, None] + [0, apart])
    return np.concatenate(found)


def _join(pairs: Array, at: tuple[Array, Array, Array], joined: Any, active: Any) -> None:
    """Where an active search is on the hill of a higher one, `joined` becomes the latter.

    On a concave quadratic f the rise over a step s is (g + g')^T s / 2, of which the curvature
    takes b = (g - g')^T s / 2 from either end: both points are on one hill where the rise is that
    to within `BENT` b, and they are close, b <= `NEARBY`.
    """
    thetas, values, grads = at
    i, j = pairs.T
    step, g, h = thetas[j] - thetas[i], grads[i], grads[j]
    bend = 0.5 * _dot(g - h, step)
    one = (bend >= 0) & (bend <= NEARBY)
    if one.any():
        off = np.abs(values[j] - values[i] - 0.5 * _dot(g + h, step))
        one &= (off <= BENT * bend) & (joined[pairs] == pairs).all(axis=1)
        low, high = np.where(values[i] <= values[j], (i, j), (j, i))[:, one]
        climbing = np.isin(low, active)
        joined[low[climbing]] = high[climbing]


def _dot(a: Array, b: Array) -> Array:
    """Scalar products of rows."""
    return np.asarray(np.add.reduce(a * b, axis=1))
