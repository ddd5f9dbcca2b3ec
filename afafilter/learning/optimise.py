"""Newton steps that end the maximisation of a smooth log-likelihood whose exact gradient is known.

BFGS (`optimise_each`) finds the neighbourhood; Newton steps with the Hessian (differences of the
exact gradient) finish, bound the distance to the optimum and find the unidentified directions, the
null space of the information matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afafilter._base.checks import Array
from afafilter.learning.curvature import Objectives, Spectrum, curvatures, search_scales, spectra
from afafilter.learning.optimise_each import Point, SearchResult, Stopping, bfgs
from afafilter.learning.problem import Problem

NULL_EIGENVALUE = 1e-5
"""Eigenvalues of the scaled information matrix below this count as zero."""

NEAR = 0.1
"""Fraction of the tolerance at which BFGS stops and Newton steps take over."""

OFF_ZERO = (0.03, 0.1, 0.3)
"""Fractions of the typical size at which a parameter at 0 is tried again."""
SHRINKING = (1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-5)


@dataclass(frozen=True)
class Optimum:
    """Where the search ended.

    information : minus the Hessian at theta, in theta.
    identified, null_space : eigenvectors of `information` in theta, (n, k) and (n, n - k), with
        positive eigenvalues and with those that count as zero.
    resting : coordinates at the boundary of their domain.
    """

    theta: Array
    value: float
    grad: Array
    information: Array
    identified: Array
    null_space: Array
    n_iter: int
    converged: bool
    message: str
    history: tuple[float, ...]
    resting: tuple[int, ...] = ()
    n_evals: int = 0
    dof: float = np.inf
    weights: Array | None = None


def maximise(
    objective: Objectives, at: Point, bounds: tuple[Array, Array], problem: Problem
) -> Optimum:
    """Maximise from a point; converged when at most the tolerance can still be gained."""
    par, stopping = problem.parametrisation, problem.stopping
    typical = par.typical[None]
    start = at.theta[None], np.array([at.value]), at.grad[None]
    scale = search_scales(objective, start[0], start[2], typical, par.roots)
    limits = bounds[0][None], bounds[1][None]
    top = bfgs(objective, start, limits, scale, near(stopping))
    found = top.of(0, curvatures(objective, top.thetas, top.grads, typical), 0)
    return refine(objective, found, bounds, problem)


def near(stopping: Stopping) -> Stopping:
    """When the Newton steps take over."""
    return stopping._replace(tolerance=NEAR * stopping.tolerance)


def refine(
    objective: Objectives, found: SearchResult, bounds: tuple[Array, Array], problem: Problem
) -> Optimum:
    """Newton steps from the end of a search to the optimum.

    Where Newton steps in square roots of nonnegative parameters are slow, steps in their logarithms
    are tried as well: ridges along which parameters vanish in proportion are straight there.
    """
    par, (max_iter, tolerance) = problem.parametrisation, problem.stopping
    typical, roots, n = par.typical, par.roots, len(par.typical)
    limited = None if problem.constraints is None else problem.constraints.limited()
    at, n_iter, history, (info, spectrum) = found
    if not np.isfinite(at.value):
        unknown = np.full((n, n), np.nan), np.zeros((n, 0)), np.eye(n)
        return Optimum(*at, *unknown, n_iter, False, "no feasible point was found", tuple(history))
    message, rounds, where = "", 0, at
    while True:
        active = _active_bounds(at, bounds, limited)
        if len(active):
            identified, null_space, step, gain = _reduced_newton(active, info, at.grad, typical)
        else:
            identified, null_space, step, gain = _newton(spectrum, at.grad, typical)
        if gain <= tolerance:
            # One free step: quadratic convergence makes the optimum exact to rounding.
            if gain > 1e-3 * tolerance:
                at = _first_increase(objective, at, [at.theta + step], bounds) or at
            break
        if n_iter >= max_iter:
            message = f"stopped after {max_iter} iterations"
            break
        n_iter += 1
        rounds += 1
        trials = [at.theta + shrink * step for shrink in SHRINKING]
        if rounds > 3 and roots.any():
            trials.insert(0, _proportional_step(info, at.grad, at.theta, typical, roots))
        better = _first_increase(objective, at, trials, bounds)
        if better is None:
            message = "no further improvement found along the Newton direction"
            break
        at = where = better
        history.append(at.value)
        (info,), ((values,), (vectors,)) = curvatures(
            objective, at.theta[None], at.grad[None], typical[None]
        )
        spectrum = values, vectors
    at, vanished = _vanished(objective, at, par.vanishing(at.theta), tolerance)
    for i in vanished:  # a square root's gradient is 0 at 0, also where the objective rises farther
        off = np.tile(at.theta, (len(OFF_ZERO), 1))
        off[:, i] = np.clip(np.multiply(OFF_ZERO, typical[i]), bounds[0][i], bounds[1][i])
        values, grads = objective(off, np.zeros(len(off), int))
        k = int(np.argmax(values))
        if values[k] > at.value + tolerance:
            return maximise(objective, Point(off[k], float(values[k]), grads[k]), bounds, problem)
    resting = tuple(dict.fromkeys((*vanished, *active)))
    if resting:
        identified, null_space = _reduced_newton(resting, info, at.grad, typical)[:2]
    curved = _at_optimum(info, where, at.theta, roots), identified, null_space
    outcome = n_iter, not message, message or "converged"
    return Optimum(*at, *curved, *outcome, tuple(history), resting)


def _at_optimum(info: Array, where: Point, theta: Array, roots: Any) -> Array:
    """The information at the optimum theta, from that at a nearby point `where`.

    Of a square v = theta^2: -d2L/dtheta2 = 4 theta^2 (-d2L/dv2) - 2 dL/dv. At the optimum
    dL/dv = grad / (2 theta) is 0; what the search left of it would dominate where theta is small.
    """
    known = roots & (where.theta != 0) & (theta != 0)
    root = np.where(known, where.theta, 1.0)
    ratio = np.where(known, theta / root, 1.0)
    exact = info + np.diag(np.where(known, where.grad / root, 0.0))
    return np.asarray(exact * ratio * ratio[:, None])


def _active_bounds(at: Point, bounds: tuple[Array, Array], limited: Any) -> tuple[int, ...]:
    """Active bounds: coordinates at a bound with a gradient that points outward."""
    if limited is None:
        return ()
    lower, upper = bounds
    out = ((at.theta <= lower) & (at.grad < 0)) | ((at.theta >= upper) & (at.grad > 0))
    return tuple(np.flatnonzero(out & limited).tolist())


def _reduced_newton(
    active: Sequence[int], info: Array, grad: Array, typical: Array
) -> tuple[Array, Array, Array, float]:
    """`newton` on the free coordinates; those in `active` do not move."""
    n = len(grad)
    inner = np.delete(np.arange(n), active)
    if not len(inner):
        return np.zeros((n, 0)), np.zeros((n, 0)), np.zeros(n), 0.0
    *directions, short, gain = newton(info[np.ix_(inner, inner)], grad[inner], typical[inner])
    identified, null_space = (np.zeros((n, x.shape[1])) for x in directions)
    identified[inner], null_space[inner] = directions
    step = np.zeros(n)
    step[inner] = short
    return identified, null_space, step, gain


def _first_increase(
    objective: Objectives, at: Point, trials: list[Array], bounds: tuple[Array, Array]
) -> Point | None:
    """The first trial point with a larger objective, or a later one while it still increases."""
    best = None
    for theta in trials:
        new = _at(objective, np.minimum(np.maximum(theta, bounds[0]), bounds[1]))
        if new.value > (at if best is None else best).value:
            best = new
        elif best is not None:
            break
    return best


def _at(objective: Objectives, theta: Array) -> Point:
    (value,), (grad,) = objective(theta[None], np.zeros(1, int))
    return Point(theta, float(value), grad)


def _vanished(
    objective: Objectives, at: Point, candidates: list[int], tolerance: float
) -> tuple[Point, tuple[int, ...]]:
    """Set candidates to 0 where the objective loses at most `tolerance`; the point, and which."""
    boundary = []
    for i in candidates:
        theta = at.theta.copy()
        theta[i] = 0.0
        new = _at(objective, theta)
        if new.value >= at.value - tolerance:
            at = new
            boundary.append(i)
    return at, tuple(boundary)


def _proportional_step(info: Array, grad: Array, theta: Array, typical: Array, roots: Any) -> Array:
    """The point reached by a Newton step in the logarithms of the square roots."""
    factor = np.where(roots, theta, 1.0)
    curved = np.where(roots, grad * theta, 0.0)
    moved = info * factor * factor[:, None] - np.diag(curved)
    step = newton(moved, grad * factor, np.where(roots, 0.5, typical))[2]
    return np.where(roots, theta * np.exp(np.where(roots, step, 0.0)), theta + step)


def newton(info: Array, grad: Array, typical: Array) -> tuple[Array, Array, Array, float]:
    """Identified directions, null space, Newton step, and its predicted gain.

    Negative eigenvalues change sign, so that the step is always an ascent direction.
    """
    return _newton(spectra(info, typical), grad, typical)


def _newton(spectrum: Spectrum, grad: Array, typical: Array) -> tuple[Array, Array, Array, float]:
    values, directions = spectrum
    informative = np.abs(values) > NULL_EIGENVALUE
    slope = directions.T @ grad
    coefficient = informative * slope / np.where(informative, np.abs(values), 1.0)
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
    return directions[:, informative], directions[:, ~informative], step, gain
