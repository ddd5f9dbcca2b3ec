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

SUFFICIENT = 1e-4
"""Armijo's condition: share of the rise that the slope promises."""

TRIALS = 12

ENOUGH = 1e-3
"""Share of the tolerance that the common search leaves to be gained."""

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
    than `enough`, g^T H g / 2, or finds no rise. Nocedal & Wright (2006), sec. 6.1.
    """
    thetas, values, grads = (np.array(x) for x in at)
    S, n = thetas.shape
    H = np.tile(np.eye(n), (S, 1, 1))  # inverse of minus the Hessian, in units of scale
    n_iter, histories = np.zeros(S, int), [[value] for value in values.tolist()]
    active = np.flatnonzero(np.isfinite(values))
    for k in range(max_iter):
        slope = grads[active] * scale[active]
        step = np.einsum("sij,sj->si", H[active], slope)
        rise = (step * slope).sum(axis=1)
        promising = 0.5 * rise > enough
        active, step, rise = active[promising], step[promising], rise[promising]
        if not len(active):
            break
        longest = np.linalg.norm(step, axis=1) if k == 0 else np.abs(step).max(axis=1)
        short = np.minimum(1.0, (1.0 if k == 0 else LONGEST_STEP) / longest)
        before = thetas[active], grads[active]
        risen = _line_search(
            objective, (thetas, values, grads), active, (step * scale[active], rise, short), bounds
        )
        active = active[risen]
        moved = (thetas[active] - before[0][risen]) / scale[active]
        change = (before[1][risen] - grads[active]) * scale[active]
        _update(H, active, moved, change, first=k == 0)
        n_iter[active] += 1
        for s, value in zip(active.tolist(), values[active].tolist(), strict=True):
            histories[s].append(value)
    return Climb(thetas, values, grads, n_iter, histories)


def _line_search(
    objective: Objectives,
    at: tuple[Array, Array, Array],
    active: Any,
    move: tuple[Array, Array, Array],
    bounds: tuple[Array, Array],
) -> Any:
    """Backtrack along the steps of `active` until each rises; `at` is moved there; which did.

    move : steps, the rises that they promise to first order, and the shares to try first.
    """
    thetas, values, grads = at
    step, rise, share = move
    risen = np.zeros(len(active), bool)
    left = np.arange(len(active))
    for _ in range(TRIALS):
        s = active[left]
        new = np.clip(thetas[s] + share[left, None] * step[left], bounds[0][s], bounds[1][s])
        value, grad = objective(new, s)
        gained, promised = value - values[s], share[left] * rise[left]
        up = gained > SUFFICIENT * promised
        risen[left[up]] = True
        thetas[s[up]], values[s[up]], grads[s[up]] = new[up], value[up], grad[up]
        # The parabola through value, slope and the value found.
        short = promised - gained
        fall = np.where(np.isfinite(short), 0.5 * promised / np.where(up, 1.0, short), 0.1)
        left, fall = left[~up], fall[~up]
        if not len(left):
            break
        share[left] *= np.clip(fall, 0.1, 0.5)
    return risen


def _update(H: Array, which: Any, moved: Array, change: Array, *, first: bool) -> None:
    """BFGS: H <- (I - s y^T / s^T y) H (I - y s^T / s^T y) + s s^T / s^T y where s^T y > 0."""
    sy = (moved * change).sum(axis=1)
    yy = (change**2).sum(axis=1)
    curved = sy > 1e-10 * yy
    H[which[~curved]] *= 4.0  # the slope did not fall: go farther
    which, s, y = which[curved], moved[curved], change[curved]
    sy, yy = sy[curved, None, None], yy[curved, None, None]
    old = np.eye(H.shape[1]) * (sy / yy) if first else H[which]
    left = np.eye(H.shape[1]) - s[:, :, None] * y[:, None, :] / sy
    H[which] = left @ old @ left.swapaxes(1, 2) + s[:, :, None] * s[:, None, :] / sy


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
