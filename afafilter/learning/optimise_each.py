"""Many small maximisations side by side: batched BFGS.

`Objectives` are of S problems; a single one is the case S = 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from afafilter._base.checks import Array
from afafilter.learning.curvature import Objectives, Spectrum

LONGEST_STEP = 10.0
"""Largest step of a coordinate, in scaled units."""

SUFFICIENT_INCREASE = 1e-3
"""c1 of the first Wolfe (Armijo) condition, f(x + alpha p) >= f(x) + c1 alpha g^T p."""

CURVATURE_CONDITION = 0.9
"""c2 of the second Wolfe (curvature) condition, g(x + alpha p)^T p <= c2 g^T p."""

TRIALS, EXPANSIONS = 12, 3
"""Trial points of a line search, and how many of them may fail the curvature condition alone."""

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
    """BFGS from `at`, points (S, n) with their values and gradients, each problem at its own pace.

    In units of `scale` the first step has length 1. A search ends when the predicted gain
    g^T H g / 2 is at most the tolerance, its line search fails, or it has come to the hill that a
    higher one of the same owner climbs. Nocedal & Wright (2006), secs. 3.1 and 6.1.

    owner : (S,) whose search each is, in order; None: each is alone.
    """
    thetas, values, grads = (np.array(x) for x in at)
    S, n = thetas.shape
    n_iter, histories = np.zeros(S, int), [[value] for value in values.tolist()]
    unit = np.tile(np.eye(n), (S, 1, 1))
    start = np.arange(S), thetas, values, grads, scale, unit, unit, np.zeros((S, n, n))
    state = _Iterates(*start).of(np.isfinite(values))
    box = bounds if np.isfinite(bounds).any() else None
    pairs, joined = _pairs(owner), np.arange(S)
    pairs = pairs[np.isfinite(values[pairs]).all(axis=1)]
    for k in range(stopping.max_iter):
        step, slope = _step(state, box)
        increase = _dot(step, slope)
        promising = increase > 2 * stopping.tolerance
        if not promising.all():
            state, step, increase = state.of(promising), step[promising], increase[promising]
        if not len(increase):
            break
        longest = np.sqrt(_dot(step, step)) if k == 0 else np.abs(step).max(axis=1)
        alpha = np.minimum(1.0, (1.0 if k == 0 else LONGEST_STEP) / longest)
        found, increased = _line_search(
            objective, state, (step * state.scale, increase, alpha), box
        )
        if not increased.all():
            state, found = state.of(increased), [part[increased] for part in found]
        x, f, g = found
        moved, change = (x - state.thetas) / state.scale, (state.grads - g) * state.scale
        state = state.at(x, f, g, _bfgs_update((state.H, state.W, state.M), moved, change))
        own = state.which
        thetas[own], values[own], grads[own] = x, f, g
        n_iter[own] += 1
        for s, value in zip(own.tolist(), f.tolist(), strict=True):
            histories[s].append(value)
        if len(pairs):
            _join(pairs, (thetas, values, grads), joined, own)
            state = state.of(joined[own] == own)
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
    off = np.abs(values[j] - values[i] - 0.5 * _dot(g + h, step))
    one = (bend >= 0) & (bend <= NEARBY) & (off <= BENT * bend)
    if one.any():
        one &= (joined[pairs] == pairs).all(axis=1)
        low, high = np.where(values[i] <= values[j], (i, j), (j, i))[:, one]
        climbing = np.isin(low, active)
        joined[low[climbing]] = high[climbing]


class _Iterates(NamedTuple):
    """Current iterates of the searches that have not ended, and their scales.

    H (S, n, n), the inverse of minus the Hessian in scaled units, is gamma W W^T + M.
    """

    which: Any
    thetas: Array
    values: Array
    grads: Array
    scale: Array
    H: Array
    W: Array
    M: Array

    def of(self, kept: Any) -> _Iterates:
        """A subset of the searches."""
        return self if kept.all() else _Iterates(*(part[kept] for part in self))

    def at(self, x: Array, f: Array, g: Array, inverse: tuple[Array, ...]) -> _Iterates:
        """At the next points."""
        return _Iterates(self.which, x, f, g, self.scale, *inverse)


Box = tuple[Array, Array] | None
"""Bounds of all searches; None: there are none."""


def _dot(a: Array, b: Array) -> Array:
    """Scalar products of rows."""
    return np.asarray(np.add.reduce(a * b, axis=1))


def _step(state: _Iterates, box: Box) -> tuple[Array, Array]:
    """Step H (g + lambda) and free gradient; multipliers lambda keep active coordinates at 0."""
    slope, H = state.grads * state.scale, state.H
    step = (H @ slope[..., None])[..., 0]
    if box is None:
        return step, slope
    lower, upper = (bound[state.which] for bound in box)
    free = np.where(slope > 0, state.thetas < upper, state.thetas > lower)
    if free.all():
        return step, slope
    kept = np.where(free[:, :, None] | free[:, None, :], np.eye(slope.shape[1]), H)
    multiplier = np.linalg.solve(kept, np.where(free, 0.0, -step)[..., None])
    return np.where(free, step + (H @ multiplier)[..., 0], 0.0), np.where(free, slope, 0.0)


def _bfgs_update(inverse: tuple[Array, Array, Array], s: Array, y: Array) -> tuple[Array, ...]:
    """H, W and M after steps s over which the gradients fell by y.

    BFGS: H <- (I - s y^T / s^T y) H (I - y s^T / s^T y) + s s^T / s^T y where s^T y > 0. The first
    matrix, gamma I, has gamma = s^T y / y^T y of the last step, as limited memory has it (Nocedal &
    Wright, 2006, sec. 7.2), here with all steps.
    """
    sy, yy = _dot(s, y), _dot(y, y)
    curved = sy > 1e-10 * yy
    if not curved.all():
        H, *_ = kept = [np.array(part) for part in inverse]
        H[~curved] *= 4.0  # no positive curvature along s: lengthen the step
        some = _bfgs_update((H[curved], kept[1][curved], kept[2][curved]), s[curved], y[curved])
        for whole, part in zip(kept, some, strict=True):
            whole[curved] = part
        return tuple(kept)
    _, W, M = inverse
    unit = s[:, :, None] / sy[:, None, None]
    left = np.eye(s.shape[1]) - unit * y[:, None, :]
    W, M = left @ W, left @ M @ left.swapaxes(1, 2) + unit * s[:, None, :]
    return (sy / yy)[:, None, None] * (W @ W.swapaxes(1, 2)) + M, W, M


def _line_search(
    objective: Objectives, state: _Iterates, move: tuple[Array, Array, Array], box: Box
) -> tuple[list[Array], Any]:
    """Line search to the Wolfe conditions: points, values, gradients, and which increased.

    move : directions p, first-order increases g^T p, and first step lengths alpha.
    """
    step, increase, alpha = move
    # Step length, gain, slope: at the best point so far, and at the nearest beyond that fails.
    inner, outer = np.zeros((3, len(increase))), np.full((3, len(increase)), np.inf)
    left, inner[2] = np.arange(len(increase)), increase
    best = [state.thetas, state.values, state.grads]
    for trial in range(TRIALS):
        new, along = state.thetas + alpha[:, None] * step, step
        if box is not None:
            lower, upper = (bound[state.which] for bound in box)
            new = np.minimum(np.maximum(new, lower), upper)
            along = np.where((new > lower) & (new < upper), step, 0.0)
        value, grad = objective(new, state.which)
        gain, slope = value - state.values, _dot(grad, along)
        up = gain > np.maximum(SUFFICIENT_INCREASE * alpha * increase, inner[1, left])
        more = ~up | (slope > CURVATURE_CONDITION * increase) if trial < EXPANSIONS else ~up
        if trial == 0:
            if not more.any():
                return [new, value, grad], up
            best = [np.array(part) for part in best]
        for part, found in zip(best, (new, value, grad), strict=True):
            part[left[up]] = found[up]
        tried, former = np.array([alpha, gain, slope]), inner[:, left[more]]
        inner[:, left[up]], outer[:, left[~up]] = tried[:, up], tried[:, ~up]
        left, state, step, increase = left[more], state.of(more), step[more], increase[more]
        if not len(left):
            break
        alpha = _cubic_step(inner[:, left], outer[:, left], former)
    return best, inner[0] > 0


def _cubic_step(inner: Array, outer: Array, former: Array) -> Array:
    """Next step length: inside the bracket (inner, outer), or beyond inner where it is still open.

    Where the cubic through two points and their slopes is largest (Nocedal & Wright, eq. 3.59).
    """
    open_ = np.isinf(outer[0])
    a, fa, da = inner
    b, fb, db = np.where(open_, former, outer)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = da + db - 3 * (fa - fb) / (a - b)
        root = np.sign(b - a) * np.sqrt(mean**2 - da * db)
        best = b - (b - a) * (mean + root - db) / (da - db + 2 * root)
    wide = np.where(open_, a, outer[0] - a)
    least = a + np.where(open_, 0.1, 0.01) * wide
    most = a + np.where(open_, 3.0, 0.9) * wide
    unknown = a + np.where(open_, 3.0, 0.1) * wide
    return np.asarray(np.clip(np.where(np.isfinite(best), best, unknown), least, most))
