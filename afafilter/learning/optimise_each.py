"""Many small maximisations side by side: what the search asks of all at once.

The objective of S problems, `objective(thetas, which)`, gives the values (M,) and gradients (M, n)
at M points, point m of problem which[m]; -inf and zeros where a model is infeasible. A single
problem is the case S = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from afafilter._base.checks import Array

Objectives: TypeAlias = Callable[[Array, Any], tuple[Array, Array]]

DOUBTFUL_EIGENVALUE = 1e-2
"""With a smaller one forward differences may err, and central ones are taken."""

SHARP_LIMIT = 8
"""With more coordinates than this their scales are left to the search."""

FIRST_STEP = 0.5
"""Length of the search's first step, in typical sizes; a whole one overshoots more often."""

LONGEST_STEP = 10.0
"""Longest step of a coordinate, in units of the search."""

SUFFICIENT = 1e-3
"""Wolfe's first condition: least share of the rise that the slope promises."""

STEEP = 0.9
"""Wolfe's second condition: a step ends where the slope is no more than this share of the first."""

TRIALS, LONGER = 12, 3
"""Points tried along a step, and how often of these it may grow because the slope is steep."""

ENOUGH = 1e-3
"""Share of the tolerance that the common search of many series leaves to be gained."""

Spectrum: TypeAlias = tuple[Array, Array]


class Point(NamedTuple):
    """A point of the search, the objective and its gradient there."""

    theta: Array
    value: float
    grad: Array


class Found(NamedTuple):
    """Where a first search ended, after how many iterations, and the values that rose.

    curved : minus the Hessian there and its spectrum.
    """

    at: Point
    n_iter: int
    history: list[float]
    curved: tuple[Array, Spectrum]


class Climb(NamedTuple):
    """Where each of S searches ended, and the values of each that rose."""

    thetas: Array
    values: Array
    grads: Array
    n_iter: Any
    histories: list[list[float]]

    def of(self, s: int, curved: tuple[Array, Spectrum]) -> Found:
        """Where search s ended, with minus the Hessian there and its spectrum."""
        at = Point(self.thetas[s], float(self.values[s]), self.grads[s])
        return Found(at, int(self.n_iter[s]), self.histories[s], curved)


def search_scales(
    objective: Objectives, start: Array, grad: Array, typical: Array, roots: Any
) -> Array:
    """Units of the search (S, n): less than typical where the likelihood is far sharper.

    (Such are the frequencies of long records.)
    """
    sharp = np.flatnonzero(~roots)
    scale = FIRST_STEP * typical
    if len(sharp) > SHARP_LIMIT:
        return scale
    every = np.arange(len(start))
    for i in sharp:
        rows = _rows(objective, (start, grad), every, int(i), 1e-5 * typical[:, i])
        curvature = np.abs(rows[:, i])
        narrow = curvature * typical[:, i] ** 2 > 100.0
        scale[narrow, i] = 10.0 / np.sqrt(curvature[narrow])
    return scale


def climb(
    objective: Objectives,
    at: tuple[Array, Array, Array],
    bounds: tuple[Array, Array],
    scale: Array,
    *,
    max_iter: int,
    enough: float,
) -> Climb:
    """BFGS from `at`, points (S, n) with their values and gradients, each problem at its own pace.

    In units of `scale` the first step has length 1. A search ends when it expects to gain no more
    than `enough`, g^T H g / 2, or finds no rise. Nocedal & Wright (2006), secs. 3.1 and 6.1.
    """
    thetas, values, grads = (np.array(x) for x in at)
    S, n = thetas.shape
    n_iter, histories = np.zeros(S, int), [[value] for value in values.tolist()]
    start = np.arange(S), thetas, values, grads, scale, *bounds, *_unknown(S, n)
    now = _Searches(*start).of(np.isfinite(values))
    limited = bool(np.isfinite(bounds).any())
    for k in range(max_iter):
        slope = now.grads * now.scale
        free = (
            np.where(slope > 0, now.thetas < now.upper, now.thetas > now.lower) if limited else None
        )
        step, slope = _step(now.H, slope, free)
        rise = _dot(step, slope)
        promising = 0.5 * rise > enough
        now, step, rise = now.of(promising), step[promising], rise[promising]
        if not len(rise):
            break
        longest = np.sqrt(_dot(step, step)) if k == 0 else np.abs(step).max(axis=1)
        share = np.minimum(1.0, (1.0 if k == 0 else LONGEST_STEP) / longest)
        found, risen = _line_search(objective, now, (step * now.scale, rise, share))
        now, (x, f, g) = now.of(risen), (part[risen] for part in found)
        moved, change = (x - now.thetas) / now.scale, (now.grads - g) * now.scale
        H, W, M = _updated((now.H, now.W, now.M), moved, change)
        now = now._replace(thetas=x, values=f, grads=g, H=H, W=W, M=M)
        thetas[now.which], values[now.which], grads[now.which] = x, f, g
        n_iter[now.which] += 1
        for s, value in zip(now.which.tolist(), f.tolist(), strict=True):
            histories[s].append(value)
    return Climb(thetas, values, grads, n_iter, histories)


class _Searches(NamedTuple):
    """Searches that go on: which they are, where they stand, units and bounds.

    H (S, n, n), the inverse of minus the Hessian in units of scale, is gamma W W^T + M.
    """

    which: Any
    thetas: Array
    values: Array
    grads: Array
    scale: Array
    lower: Array
    upper: Array
    H: Array
    W: Array
    M: Array

    def of(self, kept: Any) -> _Searches:
        """Some of them."""
        return self if kept.all() else _Searches(*(part[kept] for part in self))


def _dot(a: Array, b: Array) -> Array:
    """Scalar products of rows."""
    return np.asarray((a * b).sum(axis=1))


def _unknown(S: int, n: int) -> tuple[Array, Array, Array]:
    """H, W and M before the first step."""
    unit = np.tile(np.eye(n), (S, 1, 1))
    return unit, unit, np.zeros((S, n, n))


def _step(H: Array, slope: Array, free: Any) -> tuple[Array, Array]:
    """The step H g, and the slope; 0 along what is not free, held by a force: H (g + force)."""
    step = (H @ slope[..., None])[..., 0]
    if free is None or free.all():
        return step, slope
    held = np.where(free[:, :, None] | free[:, None, :], np.eye(slope.shape[1]), H)
    force = np.linalg.solve(held, np.where(free, 0.0, -step)[..., None])
    return np.where(free, step + (H @ force)[..., 0], 0.0), np.where(free, slope, 0.0)


def _updated(inverse: tuple[Array, Array, Array], s: Array, y: Array) -> tuple[Array, ...]:
    """H, W and M after steps s over which the slopes fell by y.

    BFGS: H <- (I - s y^T / s^T y) H (I - y s^T / s^T y) + s s^T / s^T y where s^T y > 0. The first
    matrix, gamma I, has gamma = s^T y / y^T y of the last step, as limited memory has it (Nocedal &
    Wright, 2006, sec. 7.2), here with all steps.
    """
    sy, yy = _dot(s, y), _dot(y, y)
    curved = sy > 1e-10 * yy
    if not curved.all():
        H, *_ = kept = [np.array(part) for part in inverse]
        H[~curved] *= 4.0  # the slope did not fall: go farther
        some = _updated((H[curved], kept[1][curved], kept[2][curved]), s[curved], y[curved])
        for whole, part in zip(kept, some, strict=True):
            whole[curved] = part
        return tuple(kept)
    _, W, M = inverse
    unit = s[:, :, None] / sy[:, None, None]
    left = np.eye(s.shape[1]) - unit * y[:, None, :]
    W, M = left @ W, left @ M @ left.swapaxes(1, 2) + unit * s[:, None, :]
    return (sy / yy)[:, None, None] * (W @ W.swapaxes(1, 2)) + M, W, M


def _line_search(
    objective: Objectives, now: _Searches, move: tuple[Array, Array, Array]
) -> tuple[list[Array], Any]:
    """Go along steps until Wolfe's conditions hold: points, values, gradients, and which rose.

    move : steps, the rises that they promise to first order, and the shares to try first.
    """
    step, rise, share = move
    left = np.arange(len(rise))
    # Share, gain and slope of the best point so far, and of the nearest beyond that is too far.
    low = np.array([np.zeros(len(rise)), np.zeros(len(rise)), rise])
    high, best = np.full_like(low, np.inf), [now.thetas, now.values, now.grads]
    for trial in range(TRIALS):
        new = np.minimum(np.maximum(now.thetas + share[:, None] * step, now.lower), now.upper)
        value, grad = objective(new, now.which)
        gain = value - now.values
        slope = _dot(grad, np.where((new > now.lower) & (new < now.upper), step, 0.0))
        former = low[:, left]
        up = gain > np.maximum(SUFFICIENT * share * rise, former[1])
        more = ~up | (slope > STEEP * rise) if trial < LONGER else ~up
        if trial == 0:
            if not more.any():
                return [new, value, grad], up
            best = [np.array(part) for part in best]
        for part, found in zip(best, (new, value, grad), strict=True):
            part[left[up]] = found[up]
        tried = np.array([share, gain, slope])
        low[:, left[up]], high[:, left[~up]] = tried[:, up], tried[:, ~up]
        left, former, now, step, rise = (
            left[more],
            former[:, more],
            now.of(more),
            step[more],
            rise[more],
        )
        if not len(left):
            break
        share = _between(low[:, left], high[:, left], former)
    return best, low[0] > 0


def _between(low: Array, high: Array, former: Array) -> Array:
    """The next share to try: between low and high, or beyond low where nothing was too far.

    Where the cubic through two points and their slopes is largest (Nocedal & Wright, eq. 3.59).
    """
    open_ = np.isinf(high[0])
    a, fa, da = low
    b, fb, db = np.where(open_, former, high)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = da + db - 3 * (fa - fb) / (a - b)
        root = np.sign(b - a) * np.sqrt(mean**2 - da * db)
        best = b - (b - a) * (mean + root - db) / (da - db + 2 * root)
    wide = np.where(open_, a, high[0] - a)
    least = a + np.where(open_, 0.1, 0.01) * wide
    most = a + np.where(open_, 3.0, 0.9) * wide
    unknown = a + np.where(open_, 3.0, 0.1) * wide
    return np.asarray(np.clip(np.where(np.isfinite(best), best, unknown), least, most))


def clear_informations(objective: Objectives, thetas: Array, grads: Array, typical: Array) -> Array:
    """As `informations`, by central differences where forward ones leave an eigenvalue in doubt."""
    info = informations(objective, thetas, typical, grads)
    lowest = np.abs(np.linalg.eigvalsh(scaled(info, typical)[0])).min(axis=1)
    doubtful = np.flatnonzero(lowest < DOUBTFUL_EIGENVALUE)
    if len(doubtful):

        def those(points: Array, which: Any) -> tuple[Array, Array]:
            return objective(points, doubtful[which])

        info[doubtful] = informations(those, thetas[doubtful], typical[doubtful])
    return info


def scaled(info: Array, typical: Array) -> tuple[Array, Array]:
    """Information (..., n, n) in units of its own diagonal or of typical sizes, and these units."""
    diagonal = np.abs(np.diagonal(info, axis1=-2, axis2=-1))
    size = np.sqrt(np.maximum(diagonal, 10.0 / typical**2))
    return info / size[..., None, :] / size[..., :, None], size


def spectra(info: Array, typical: Array) -> Spectrum:
    """Eigenvalues of scaled informations (..., n, n), and eigenvectors as directions in theta."""
    relative, size = scaled(info, typical)
    values, vectors = np.linalg.eigh(relative)
    return values, vectors / size[..., None]


def informations(
    objective: Objectives, thetas: Array, typical: Array, grads: Array | None = None
) -> Array:
    """Minus the Hessians (S, n, n) at S points, by differences of the exact gradient.

    Central differences; forward ones (half the cost, relative error about 1e-5) where the gradients
    at thetas are given.
    """
    S, n = thetas.shape
    H = np.zeros((S, n, n))
    for i in range(n):
        h = (1e-4 if grads is None else 1e-5) * typical[:, i]
        which = np.arange(S)
        for _ in range(4):
            H[which, i] = _rows(objective, (thetas, grads), which, i, h[which])
            spread = 1.0 / np.sqrt(np.maximum(np.abs(H[which, i, i]), 1e-300))
            wide = h[which] > 0.1 * spread
            which = which[wide]
            if not len(which):
                break
            # The first step left the region where the likelihood is quadratic.
            h[which] = 0.01 * spread[wide]
    return np.asarray(0.5 * (H + H.swapaxes(1, 2)))


def _rows(
    objective: Objectives, at: tuple[Array, Array | None], which: Any, i: int, h: Array
) -> Array:
    """Row i of minus the Hessian of each problem in `which`, by steps h."""
    thetas, grads = at

    def end(step: Array) -> tuple[Array, Array, Any]:
        moved = thetas[which]
        moved[:, i] += step
        value, there = objective(moved, which)
        return moved[:, i], there, np.isfinite(value)

    x, gx, fine = end(h)
    if grads is None:
        y, gy, also = end(-h)
    else:
        y, gy, also = thetas[which, i], grads[which], np.ones(len(which), bool)
    alone = ~(fine & also)
    if alone.any():
        centre = thetas[which, i][alone]
        there = objective(thetas[which[alone]], which[alone])[1] if grads is None else gy[alone]
        x[alone] = np.where(fine[alone], x[alone], y[alone])
        gx[alone] = np.where(fine[alone, None], gx[alone], gy[alone])
        y[alone], gy[alone] = centre, there
    apart = x - y
    known = (apart != 0)[:, None]
    return np.where(known, -(gx - gy) / np.where(known[:, 0], apart, 1.0)[:, None], 0.0)
