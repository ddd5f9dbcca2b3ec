"""Maximisation of a smooth log-likelihood whose exact gradient is known.

L-BFGS-B finds the neighbourhood; Newton steps with the Hessian (central differences of the exact
gradient) finish, tell how far the optimum still is, and which directions the data leave open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from afafilter._validate import Array

WORSE = 1e15
FLAT_EIGENVALUE = 1e-5
"""Eigenvalues of the scaled information below this count as no information."""


class Objective:
    """The function to maximise, counted and recorded; infeasible points count as very bad."""

    def __init__(self, function: Callable[[Array], tuple[float, Array]]) -> None:
        self._function = function
        self.n_evals = 0
        self.history: list[float] = []

    def __call__(self, theta: Array) -> tuple[float, Array]:
        """Value and gradient; -inf and zeros where the model is infeasible."""
        self.n_evals += 1
        try:
            value, grad = self._function(theta)
        except (np.linalg.LinAlgError, ValueError, OverflowError):
            return -np.inf, np.zeros(len(theta))
        if not (np.isfinite(value) and np.isfinite(grad).all()):
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
    vanishing: Callable[[Array], list[int]] = lambda _: [],
) -> Optimum:
    """Maximise from `start`; converged when at most `tolerance` of the objective can be gained.

    Coordinates that `vanishing` names are put to 0 where that costs no more than the tolerance.
    """
    from scipy.optimize import Bounds, minimize

    lower, upper = bounds
    best: tuple[float, Array, Array] = (-np.inf, start, np.zeros(len(start)))
    history: list[float] = []

    def scaled(x: Array) -> tuple[float, Array]:
        nonlocal best
        theta = np.clip(x * typical, lower, upper)
        value, grad = objective(theta)
        if value > best[0]:
            best = (value, theta, grad)
        return (-value, -grad * typical) if np.isfinite(value) else (WORSE, np.zeros(len(x)))

    first = minimize(
        scaled,
        start / typical,
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(lower / typical, upper / typical),
        callback=lambda _: history.append(best[0]),
        options={"maxiter": max_iter, "ftol": 1e-9, "gtol": 1e-7, "maxcor": 20},
    )
    n_iter = int(first.nit)
    value, theta, grad = best
    if not np.isfinite(value):
        n = len(theta)
        return Optimum(
            theta, value, grad, np.full((n, n), np.nan), np.zeros((n, 0)), np.eye(n), np.inf,
            n_iter, False, "no feasible point was found", (), history,
        )  # fmt: skip
    message = ""
    while True:
        info = information(objective, theta, typical, (lower, upper))
        seen, blind, step, gain = newton(info, grad, typical)
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
        for shrink in (1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-5):
            trial = np.clip(theta + shrink * step, lower, upper)
            new, new_grad = objective(trial)
            if new > value:
                break
        else:
            message = "no further improvement found along the Newton direction"
            break
        value, theta, grad = new, trial, new_grad
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
    bounds: tuple[Array, Array] | None = None,
) -> Array:
    """Minus the Hessian, by central differences of the exact gradient."""
    n = len(theta)
    H = np.empty((n, n))
    for i in range(n):
        h = 1e-4 * typical[i]
        ends = []
        for sign in (1.0, -1.0):
            moved = theta.copy()
            moved[i] += sign * h
            value, grad = objective(moved)
            if not np.isfinite(value):
                moved, grad = theta, objective(theta)[1]
            ends.append((moved[i], grad))
        (a, ga), (b, gb) = ends
        H[i] = -(ga - gb) / (a - b) if a != b else np.nan
    if not np.isfinite(H).all():
        H = np.nan_to_num(H)
    return 0.5 * (H + H.T)


def newton(info: Array, grad: Array, typical: Array) -> tuple[Array, Array, Array, float]:
    """Directions seen and not seen by the data, the Newton step, and its expected gain.

    Negative curvature is turned round, so that the step always ascends.
    """
    size = np.sqrt(np.maximum(np.abs(np.diag(info)), 10.0 / typical**2))
    values, vectors = np.linalg.eigh(info / size / size[:, None])
    directions = vectors / size[:, None]
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
