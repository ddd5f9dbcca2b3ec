"""Maximisation of a smooth log-likelihood whose exact gradient is known.

BFGS (`optimise_each`) finds the neighbourhood; Newton steps with the Hessian (differences of the
exact gradient) finish, bound the distance to the optimum and find the unidentified directions, the
null space of the information matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from afafilter._base.checks import Array
from afafilter.learning.curvature import (
    Objectives,
    Spectrum,
    curvatures,
    informations,
    search_scales,
    spectra,
)
from afafilter.learning.optimise_each import Point, SearchResult, Stopping, bfgs
from afafilter.learning.parameters.base import Parametrisation

NULL_EIGENVALUE = 1e-5
"""Eigenvalues of the scaled information matrix below this count as zero."""

NEAR = 0.1
"""Fraction of the tolerance at which BFGS stops and Newton steps take over."""

OFF_ZERO = (0.03, 0.1, 0.3)
"""Fractions of the typical size at which a parameter at 0 is tried again."""
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
    identified, null_space : eigenvectors of `information` in theta, (n, k) and (n, n - k), with
        positive eigenvalues and with those that count as zero.
    gain : estimated increase of the objective to its maximum.
    """

    theta: Array
    value: float
    grad: Array
    information: Array
    identified: Array
    null_space: Array
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
    par: Parametrisation,
    stopping: Stopping,
    limited: Any = None,
) -> Optimum:
    """Maximise from `start`; converged when at most the tolerance can still be gained.

    Where Newton steps in square roots of nonnegative parameters are slow, steps in their logarithms
    are tried as well: ridges along which parameters vanish in proportion are straight there.

    limited : (n,) bool, coordinates that may rest at a bound, where only inward slopes count.
    """
    value, grad = objective(start)
    at, limits = (start[None], np.array([value]), grad[None]), (bounds[0][None], bounds[1][None])
    batched, typical = as_batch(objective), par.typical[None]
    scale = search_scales(batched, at[0], at[2], typical, par.roots)
    top = bfgs(batched, at, limits, scale, near(stopping))
    found = top.of(0, curvatures(batched, top.thetas, top.grads, typical), 0)
    return refine(objective, found, bounds, par, stopping, limited)


def near(stopping: Stopping) -> Stopping:
    """When the Newton steps take over."""
    return stopping._replace(tolerance=NEAR * stopping.tolerance)


def refine(
    objective: Objective,
    found: SearchResult,
    bounds: tuple[Array, Array],
    par: Parametrisation,
    stopping: Stopping,
    limited: Any = None,
) -> Optimum:
    """Newton steps from the end of a search to the optimum; arguments as of `maximise`."""
    typical, roots = par.typical, par.roots
    max_iter, tolerance = stopping
    at, n_iter, history, (info, spectrum) = found
    n = len(at.theta)
    if not np.isfinite(at.value):
        info, identified, null_space = np.full((n, n), np.nan), np.zeros((n, 0)), np.eye(n)
        message = "no feasible point was found"
        return Optimum(
            *at, info, identified, null_space, np.inf, n_iter, False, message, (), history
        )
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
        here = at.theta[None], at.grad[None], typical[None]
        (info,), ((values,), (vectors,)) = curvatures(as_batch(objective), *here)
        spectrum = values, vectors
    at, boundary = _vanished(objective, at, par.vanishing(at.theta), tolerance)
    for i in boundary:  # a square root's gradient is 0 at 0, also where the objective rises farther
        trials = [at.theta + share * typical * np.eye(n)[i] for share in OFF_ZERO]
        off = _first_increase(objective, at, trials, bounds)
        if off is not None and off.value > at.value + tolerance:
            return maximise(objective, off.theta, bounds, par, stopping, limited)
    boundary = tuple(dict.fromkeys((*boundary, *active)))
    if boundary:
        identified, null_space = _reduced_newton(boundary, info, at.grad, typical)[:2]
    outcome = n_iter, not message, message or "converged"
    info = _at_optimum(info, where, at.theta, roots)
    return Optimum(*at, info, identified, null_space, gain, *outcome, boundary, history)


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
    inner = np.setdiff1d(np.arange(n), active)
    if not len(inner):
        return np.zeros((n, 0)), np.zeros((n, 0)), np.zeros(n), 0.0
    *directions, short, gain = newton(info[np.ix_(inner, inner)], grad[inner], typical[inner])
    identified, null_space = (np.zeros((n, x.shape[1])) for x in directions)
    identified[inner], null_space[inner] = directions
    step = np.zeros(n)
    step[inner] = short
    return identified, null_space, step, gain


def _first_increase(
    objective: Objective, at: Point, trials: list[Array], bounds: tuple[Array, Array]
) -> Point | None:
    """The first trial point with a larger objective, or a later one while it still increases."""
    best = None
    for theta in trials:
        theta = np.clip(theta, *bounds)
        value, grad = objective(theta)
        if value > (at if best is None else best).value:
            best = Point(theta, value, grad)
        elif best is not None:
            break
    return best


def _vanished(
    objective: Objective, at: Point, candidates: list[int], tolerance: float
) -> tuple[Point, tuple[int, ...]]:
    """Set candidates to 0 where the objective loses at most `tolerance`; the point, and which."""
    boundary = []
    for i in candidates:
        theta = at.theta.copy()
        theta[i] = 0.0
        value, grad = objective(theta)
        if value >= at.value - tolerance:
            at = Point(theta, value, grad)
            boundary.append(i)
    return at, tuple(boundary)


def information(objective: Objective, theta: Array, typical: Array) -> Array:
    """Minus the Hessian, by central differences of the exact gradient."""
    return np.asarray(informations(as_batch(objective), theta[None], typical[None])[0])


def as_batch(objective: Objective) -> Objectives:
    """A single objective in the batched form of `optimise_each`."""

    def one_by_one(thetas: Array, which: Any) -> tuple[Array, Array]:
        found = [objective(theta) for theta in thetas]
        return np.array([value for value, _ in found]), np.array([grad for _, grad in found])

    return one_by_one


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
