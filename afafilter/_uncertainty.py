"""Profile likelihood intervals and the parametric bootstrap of a fit."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from afafilter._likelihood import chain_loglik, make_chain, prepare
from afafilter._optimise import Objective, information
from afafilter._validate import Array
from afafilter.models import LinearSDE

if TYPE_CHECKING:
    from afafilter.fit import FitResult

FAR = 15.0
"""A logarithm that moved this far without loss of likelihood is not bounded by the data."""


def profile(result: FitResult, name: str, level: float) -> tuple[float, float]:
    """Extremes of one parameter where the log-likelihood is within chi2/2 of its maximum."""
    from scipy.stats import chi2

    if result.method == "student_t":
        raise ValueError("profile intervals need a likelihood: method 'student_t' has a bound only")
    drop = 0.5 * float(chi2.ppf(level, 1))
    which = list(result.params).index(name)
    return _end(result, which, drop, -1.0), _end(result, which, drop, 1.0)


def _end(result: FitResult, which: int, drop: float, sign: float) -> float:
    from scipy.optimize import minimize

    par = result.problem.parametrisation
    objective = Objective(result.problem.objective)
    centre, target = result.theta, result.loglik - drop
    info = information(objective, centre, par.typical)
    values, vectors = np.linalg.eigh(info * np.outer(par.typical, par.typical))
    frame = par.typical[:, None] * vectors / np.sqrt(np.maximum(np.abs(values), 1.0))
    log = bool(par.logs[which])

    def size(theta: Array) -> float:
        return float(theta[which] if log else par.natural(theta)[which])

    def slope(theta: Array) -> Array:
        if log:
            return np.asarray(np.eye(len(theta))[which])
        return np.asarray(par.jacobian(theta)[which])

    unit = float(np.linalg.norm(slope(centre) @ frame)) or float(par.typical[which])
    last: dict[bytes, tuple[float, Array]] = {}

    def likelihood(u: Array) -> tuple[float, Array]:
        key = u.tobytes()
        if key not in last:
            value, grad = objective(centre + frame @ u)
            last.clear()
            last[key] = (value - target if np.isfinite(value) else -1e6, frame.T @ grad)
        return last[key]

    towards = frame.T @ slope(centre)
    norm = float(np.linalg.norm(towards))
    step = sign * np.sqrt(2 * drop) * (towards / norm if norm > 0 else np.ones(len(centre)) * 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # SLSQP clips steps to its bounds
        found = minimize(
            lambda u: -sign * size(centre + frame @ u) / unit,
            0.9 * step,
            jac=lambda u: -sign * (frame.T @ slope(centre + frame @ u)) / unit,
            constraints={
                "type": "ineq",
                "fun": lambda u: likelihood(u)[0],
                "jac": lambda u: likelihood(u)[1],
            },
            bounds=[(-50.0 * np.sqrt(2 * drop), 50.0 * np.sqrt(2 * drop))] * len(centre),
            method="SLSQP",
            options={"maxiter": 200, "ftol": 1e-9},
        )
    theta = centre + frame @ found.x
    if log and sign * (theta[which] - centre[which]) > FAR:
        return 0.0 if sign < 0 else np.inf
    if not found.success or likelihood(found.x)[0] < -1e-3 * drop:
        return np.nan
    return float(par.natural(theta)[which])


def bootstrap(result: FitResult, n: int, rng: np.random.Generator) -> Array:
    """Estimates (n, k) from data simulated under the fitted model."""
    from afafilter.fit import FitWarning, Problem, solve

    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy Generator, got {rng!r}")
    problem = result.problem
    missing = np.isnan(problem.z)
    out = np.full((n, len(result.params)), np.nan)
    for k in range(n):
        z = _simulated(result, rng)
        z[missing] = np.nan
        data = prepare(problem.data.t, z, z.shape[-1], problem.obs_cov)
        again = Problem(
            problem.source, problem.parametrisation, data, z, problem.obs_cov, problem.options
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FitWarning)
            try:
                refit = solve(again, result.theta + 0.0)
            except ValueError:
                continue
        if refit.converged:
            out[k] = list(refit.params.values())
    return out


def _simulated(result: FitResult, rng: np.random.Generator) -> Array:
    """One data set (..., T, p) from the fitted model; diffuse starts at their smoothed value."""
    from afafilter.simulate import simulate

    problem, model = result.problem, result.model
    data, z = problem.data, problem.z
    paths = z.reshape(-1, *z.shape[-2:])
    system = problem.parametrisation.system(result.theta)
    chain, _ = make_chain(system, data)
    x0 = None
    if chain.flat.shape[1]:
        x0 = np.zeros((len(paths), model.dim))
        moments = chain_loglik(chain, data, gradient=False, keep=True)[2]
        for group, smoothed in zip(data.groups, moments, strict=True):
            x0[group.paths] = smoothed.x[0].T
    t = data.t
    if isinstance(model, LinearSDE) and model.delay > 0:
        t, model = t - model.delay, replace(model, delay=0.0)
    x = simulate(model, t, len(paths), rng=rng, x0=x0).x
    clean = np.einsum("tij,ntj->nti", np.broadcast_to(chain.H, (len(t), *chain.H.shape[1:])), x)
    clean += chain.shift
    values, vectors = np.linalg.eigh(np.broadcast_to(chain.R, (len(t), *chain.R.shape[1:])))
    roots = vectors * np.sqrt(np.clip(values, 0.0, None))[:, None, :]
    noise = np.einsum("tij,ntj->nti", roots, rng.standard_normal(clean.shape))
    return np.asarray((clean + noise).reshape(z.shape))
