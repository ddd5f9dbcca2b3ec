"""Maximisation of a smooth log-likelihood whose exact gradient is known.

L-BFGS-B finds the neighbourhood; Newton steps with the Hessian (differences of the exact gradient)
finish, tell how far the optimum still is, and which directions the data leave open.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from afafilter._base.checks import Array

WORSE = 1e15
FLAT_EIGENVALUE = 1e-5
"""Eigenvalues of the scaled information below this count as no information."""

DOUBTFUL_EIGENVALUE = 1e-2
"""With a smaller one forward differences may err, and central ones are taken."""

SHARP_LIMIT = 8
"""With more coordinates than this their scales are left to L-BFGS."""

FIRST_STEP = 0.5
"""Length of the search's first step, in typical sizes; a whole one overshoots more often."""

SHRINKING = (1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-5)


class Objective:
    """The function to maximise, counted; infeasible points count as very bad.

    known : a point with the value and the gradient there, not to be computed again.
    """

    def __init__(
        self,
        function: Callable[[Array], tuple[float, Array]],
        known: tuple[Array, float, Array] | None = None,
    ) -> None:
        self._function = function
        self._known = known
        self._known_at = None if known is None else known[0].tolist()
        self.n_evals = int(known is not None)

    def __call__(self, theta: Array) -> tuple[float, Array]:
        """Value and gradient; -inf and zeros where the model is infeasible."""
        if self._known is not None and theta.tolist() == self._known_at:
            return self._known[1:]
        self.n_evals += 1
        try:
            value, grad = self._function(theta)
        except (np.linalg.LinAlgError, ValueError, OverflowError):
            return -np.inf, np.zeros(len(theta))
        if not math.isfinite(value + float(grad @ grad)):
            return -np.inf, np.zeros(len(theta))
        return value, grad


@dataclass
class Optimum:
    """Where the search ended.

    information : minus the Hessian at theta, in theta.
    seen, blind : eigen-directions in theta with and without information: (n, k), (n, n - k).
    gain : estimated distance of the log-likelihood from its maximum.
    """

    theta: Array
    value: float
    grad: Array
    information: Array
    seen: Array
    blind: Array
    gain: float
    n_iter: int
    success: bool
    message: str
    boundary: tuple[int, ...] = ()
    history: list[float] = field(default_factory=list)
    n_evals: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


def maximise(
    objective: Objective,
    start: Array,
    bounds: tuple[Array, Array],
    typical: Array,
    *,
    max_iter: int,
    tolerance: float,
    roots: Any = None,
    vanishing: Callable[[Array], list[int]] = lambda _: [],
) -> Optimum:
    """Maximise from `start`; converged when at most `tolerance` of the objective can be gained.

    roots : (n,) bool, coordinates that are square roots of nonnegative parameters. Where Newton
        steps in them are slow, steps in their logarithms are tried as well: ridges along which
        parameters vanish in proportion are straight there.
    vanishing : names coordinates to be put to 0 where that costs no more than the tolerance.
    """
    from scipy.optimize import Bounds, minimize

    lower, upper = bounds
    best: tuple[float, Array, Array] = (-np.inf, start, np.zeros(len(start)))
    history: list[float] = []

    scale = _scales(objective, start, typical, roots)
    downhill = -scale

    here: tuple[float, Array] = (WORSE, np.zeros(len(start)))

    def scaled(x: Array) -> float:
        nonlocal best, here
        theta = start + x * scale
        value, grad = objective(theta)
        if value > best[0]:
            best = (value, theta, grad)
            history.append(value)
        here = (-value, grad * downhill) if math.isfinite(value) else (WORSE, np.zeros(len(x)))
        return here[0]

    limits = None
    if np.isfinite(lower).any() or np.isfinite(upper).any():
        limits = Bounds((lower - start) / scale, (upper - start) / scale)
    first = minimize(
        scaled,
        np.zeros(len(start)),
        jac=lambda _: here[1],  # asked right after the value, at the same point
        method="L-BFGS-B",
        bounds=limits,
        options={"maxiter": max_iter, "ftol": 1e-7, "gtol": 1e-7, "maxcor": 20},
    )
    n_iter = int(first.nit)
    value, theta, grad = best
    if not np.isfinite(value):
        n = len(theta)
        return Optimum(
            theta, value, grad, np.full((n, n), np.nan), np.zeros((n, 0)), np.eye(n), np.inf,
            n_iter, False, "no feasible point was found", (), history,
        )  # fmt: skip
    message, rounds = "", 0
    best_new = best
    while True:
        info = information(objective, theta, typical, grad)
        spectrum = _spectrum(info, typical)
        if np.abs(spectrum[0]).min() < DOUBTFUL_EIGENVALUE:
            info = information(objective, theta, typical)
            spectrum = _spectrum(info, typical)
        seen, blind, step, gain = _newton(spectrum, grad, typical)
        if gain <= tolerance:
            # One free step: quadratic convergence makes the optimum exact to rounding.
            if gain > 1e-3 * tolerance:
                trial = np.clip(theta + step, lower, upper)
                new, new_grad = objective(trial)
                if new > value:
                    value, theta, grad = new, trial, new_grad
            break
        if n_iter >= max_iter:
            message = f"stopped after {max_iter} iterations"
            break
        n_iter += 1
        rounds += 1
        moves = [theta + shrink * step for shrink in SHRINKING]
        if rounds > 3 and roots is not None and roots.any():
            moves.insert(0, _proportional_step(info, grad, theta, typical, roots))
        found = False
        for trial in moves:
            trial = np.clip(trial, lower, upper)
            new, new_grad = objective(trial)
            if new > value and (not found or new > best_new[0]):
                best_new, found = (new, trial, new_grad), True
            elif found:
                break
        if not found:
            message = "no further improvement found along the Newton direction"
            break
        value, theta, grad = best_new
        history.append(value)
    boundary = []
    for i in vanishing(theta):
        trial = theta.copy()
        trial[i] = 0.0
        new, new_grad = objective(trial)
        if new >= value - tolerance:
            value, theta, grad = new, trial, new_grad
            boundary.append(i)
    if boundary:
        inner = np.setdiff1d(np.arange(len(theta)), boundary)
        part = newton(info[np.ix_(inner, inner)], grad[inner], typical[inner])
        seen, blind = (np.zeros((len(theta), x.shape[1])) for x in part[:2])
        seen[inner], blind[inner] = part[:2]
    success = not message
    message = message or "converged"
    return Optimum(
        theta, value, grad, info, seen, blind, gain, n_iter, success, message, tuple(boundary),
        history,
    )  # fmt: skip


def information(
    objective: Callable[[Array], tuple[float, Array]],
    theta: Array,
    typical: Array,
    grad: Array | None = None,
) -> Array:
    """Minus the Hessian, by differences of the exact gradient.

    Central differences; forward ones (half the cost, relative error about 1e-5) where the gradient
    at theta is given.
    """
    n = len(theta)
    H = np.zeros((n, n))
    for i in range(n):
        h = (1e-4 if grad is None else 1e-5) * typical[i]
        for _ in range(4):
            H[i] = _row(objective, theta, i, h, grad)
            spread = 1.0 / math.sqrt(max(abs(H[i, i]), 1e-300))
            if h <= 0.1 * spread:
                break
            h = 0.01 * spread  # the first step left the region where the likelihood is quadratic
    return 0.5 * (H + H.T)


def _row(
    objective: Callable[[Array], tuple[float, Array]],
    theta: Array,
    i: int,
    h: float,
    grad: Array | None,
) -> Array:
    """One row of minus the Hessian."""
    ends = []
    for step in (h, -h) if grad is None else (h,):
        moved = theta.copy()
        moved[i] += step
        value, there = objective(moved)
        if math.isfinite(value):
            ends.append((moved[i], there))
    if len(ends) < 2:
        ends.append((theta[i], objective(theta)[1] if grad is None else grad))
    (x, gx), (y, gy) = ends[:2]
    return -(gx - gy) / (x - y) if x != y else np.zeros(len(theta))


def _scales(objective: Objective, start: Array, typical: Array, roots: Any) -> Array:
    """Units of the search: less than typical where the likelihood is far sharper.

    (Such are the frequencies of long records.)
    """
    sharp = np.arange(len(start)) if roots is None else np.flatnonzero(~roots)
    scale = FIRST_STEP * typical
    if not len(sharp) or len(sharp) > SHARP_LIMIT:
        return scale
    grad = objective(start)[1]
    for i in sharp:
        curvature = abs(_row(objective, start, int(i), 1e-5 * typical[i], grad)[i])
        if curvature * typical[i] ** 2 > 100.0:
            scale[i] = 10.0 / math.sqrt(curvature)
    return scale


def _proportional_step(info: Array, grad: Array, theta: Array, typical: Array, roots: Any) -> Array:
    """Where a Newton step in the logarithms of the roots leads."""
    factor = np.where(roots, theta, 1.0)
    curved = np.where(roots, grad * theta, 0.0)
    moved = info * factor * factor[:, None] - np.diag(curved)
    step = newton(moved, grad * factor, np.where(roots, 0.5, typical))[2]
    return np.where(roots, theta * np.exp(np.where(roots, step, 0.0)), theta + step)


def _spectrum(info: Array, typical: Array) -> tuple[Array, Array]:
    """Eigenvalues of the scaled information, and its eigenvectors as directions in theta."""
    size = np.sqrt(np.maximum(np.abs(info.diagonal()), 10.0 / typical**2))
    values, vectors = np.linalg.eigh(info / size / size[:, None])
    return values, vectors / size[:, None]


def newton(info: Array, grad: Array, typical: Array) -> tuple[Array, Array, Array, float]:
    """Directions seen and not seen by the data, the Newton step, and its expected gain.

    Negative curvature is turned round, so that the step always ascends.
    """
    return _newton(_spectrum(info, typical), grad, typical)


def _newton(
    spectrum: tuple[Array, Array], grad: Array, typical: Array
) -> tuple[Array, Array, Array, float]:
    values, directions = spectrum
    informed = np.abs(values) > FLAT_EIGENVALUE
    slope = directions.T @ grad
    coefficient = np.where(informed, slope / np.where(informed, np.abs(values), 1.0), 0.0)
    gain = 0.5 * float(slope @ coefficient)
    saddle = values < -1e-3
    if saddle.any():
        gain = max(gain, 1.0)
        away = np.where(slope < 0, -1.0, 1.0) * np.maximum(np.abs(coefficient), 0.3)
        coefficient = np.where(saddle, away, coefficient)
    step = directions @ coefficient
    limit = np.abs(step / typical).max(initial=0.0)
    if limit > 5.0:
        step = step * (5.0 / limit)
    return directions[:, informed], directions[:, ~informed], step, gain
