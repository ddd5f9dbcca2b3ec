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
    lower, upper = bounds
    limited = bool(np.isfinite(lower).any() or np.isfinite(upper).any())
    S, n = thetas.shape
    inverse = Inverse(S, n)
    n_iter, histories = np.zeros(S, int), [[value] for value in values.tolist()]
    active = np.flatnonzero(np.isfinite(values))
    for k in range(max_iter):
        slope = grads[active] * scale[active]
        if limited:
            x = thetas[active]
            free = np.where(slope > 0, x < upper[active], x > lower[active])
            step, slope = inverse.held_step(active, slope, free), np.where(free, slope, 0.0)
        else:
            step = inverse.step(active, slope)
        rise = (step * slope).sum(axis=1)
        promising = 0.5 * rise > enough
        active, step, rise = active[promising], step[promising], rise[promising]
        if not len(active):
            break
        longest = np.sqrt((step**2).sum(axis=1)) if k == 0 else np.abs(step).max(axis=1)
        first = np.minimum(1.0, (1.0 if k == 0 else LONGEST_STEP) / longest)
        before = thetas[active], grads[active]
        risen = _line_search(
            objective, (thetas, values, grads), active, (step * scale[active], rise, first), bounds
        )
        active = active[risen]
        moved = (thetas[active] - before[0][risen]) / scale[active]
        change = (before[1][risen] - grads[active]) * scale[active]
        inverse.update(active, moved, change)
        n_iter[active] += 1
        for s, value in zip(active.tolist(), values[active].tolist(), strict=True):
            histories[s].append(value)
    return Climb(thetas, values, grads, n_iter, histories)


class Inverse:
    """The inverses H (S, n, n) of minus the Hessians, as steps and slopes tell them.

    BFGS: H <- (I - s y^T / s^T y) H (I - y s^T / s^T y) + s s^T / s^T y where s^T y > 0. The first
    matrix, gamma I, has gamma = s^T y / y^T y of the last step, as limited memory has it (Nocedal &
    Wright, 2006, sec. 7.2), here with all steps: H = gamma W W^T + M.
    """

    def __init__(self, S: int, n: int) -> None:
        self.H = np.tile(np.eye(n), (S, 1, 1))
        self._W, self._M = self.H.copy(), np.zeros((S, n, n))

    def step(self, which: Array, slope: Array) -> Array:
        """H g of some of the problems."""
        return np.asarray((self.H[which] @ slope[..., None])[..., 0])

    def held_step(self, which: Array, slope: Array, free: Array) -> Array:
        """The step while coordinates that are not free are held: H (g + force), 0 along these."""
        step = self.step(which, slope)
        if free.all():
            return step
        both = ~(free[:, :, None] | free[:, None, :])
        held = np.where(both, self.H[which], np.eye(len(free[0])))
        force = np.linalg.solve(held, np.where(free, 0.0, -step)[..., None])[..., 0]
        return np.where(free, step + self.step(which, force), 0.0)

    def update(self, which: Array, s: Array, y: Array) -> None:
        """Steps s of some of the problems, over which their slopes fell by y."""
        sy, yy = (s * y).sum(axis=1), (y**2).sum(axis=1)
        curved = sy > 1e-10 * yy
        if not curved.all():
            self.H[which[~curved]] *= 4.0  # the slope did not fall: go farther
            which, s, y, sy, yy = which[curved], s[curved], y[curved], sy[curved], yy[curved]
        unit = s[:, :, None] / sy[:, None, None]
        left = np.eye(s.shape[1]) - unit * y[:, None, :]
        W = left @ self._W[which]
        M = left @ self._M[which] @ left.swapaxes(1, 2) + unit * s[:, None, :]
        self._W[which], self._M[which] = W, M
        self.H[which] = (sy / yy)[:, None, None] * (W @ W.swapaxes(1, 2)) + M


def _line_search(
    objective: Objectives,
    at: tuple[Array, Array, Array],
    active: Any,
    move: tuple[Array, Array, Array],
    bounds: tuple[Array, Array],
) -> Any:
    """Go along the steps of `active` until Wolfe's conditions hold; `at` is moved; which rose.

    move : steps, the rises that they promise to first order, and the shares to try first.
    """
    thetas, values, grads = at
    step, rise, share = move
    origin, base = thetas[active], values[active]
    # Share, gain and slope of the best point so far, and of the nearest beyond that is too far.
    low, high = np.zeros((3, len(active))), np.full((3, len(active)), np.inf)
    low[2] = rise
    left = np.arange(len(active))
    for trial in range(TRIALS):
        s, lower, upper = active[left], bounds[0][active[left]], bounds[1][active[left]]
        new = np.clip(origin[left] + share[left, None] * step[left], lower, upper)
        value, grad = objective(new, s)
        inside = (new > lower) & (new < upper)
        tried = np.array([share[left], value - base[left], (grad * step[left] * inside).sum(1)])
        up = tried[1] > np.maximum(SUFFICIENT * share[left] * rise[left], low[1, left])
        thetas[s[up]], values[s[up]], grads[s[up]] = new[up], value[up], grad[up]
        former = low[:, left]
        low[:, left[up]], high[:, left[~up]] = tried[:, up], tried[:, ~up]
        more = ~up
        if trial < LONGER:
            more |= tried[2] > STEEP * rise[left]
        left, former = left[more], former[:, more]
        if not len(left):
            break
        share[left] = _between(low[:, left], high[:, left], former)
    return low[0] > 0


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
