"""Covariances, profile likelihood intervals and the parametric bootstrap of a fit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from afafilter._base.checks import Array, generator
from afafilter.learning.curvature import informations
from afafilter.learning.likelihood_each import EachObjective
from afafilter.learning.optimise import Optimum
from afafilter.learning.parameters.base import Parametrisation
from afafilter.learning.problem import FitWarning, Problem
from afafilter.likelihood.data import prepare
from afafilter.likelihood.loglik import chain_loglik, make_chain
from afafilter.models.sde import LinearSDE

FAR = 15.0
"""A logarithm that moved this far without loss of likelihood is not bounded by the data."""


def covariance(par: Parametrisation, best: Optimum) -> Array:
    """Of the parameters, by the delta method; NaN where the data leave one open or it rests."""
    J = par.jacobian(best.theta)
    cov = J @ _inverse(best.information, best.identified) @ J.T
    undetermined = np.zeros(len(J), bool)
    if best.null_space.size:
        size = np.maximum(np.abs(J) @ np.abs(par.typical), np.finfo(float).tiny)
        sensitivity = np.abs(J @ best.null_space) / size[:, None]
        largest = np.abs(best.null_space / par.typical[:, None]).max(initial=1.0)
        undetermined = sensitivity.max(axis=1) > 1e-3 * largest
    undetermined[list(best.resting)] = True
    cov[undetermined, :] = cov[:, undetermined] = np.nan
    return np.asarray(cov)


def _inverse(information: Array, identified: Array) -> Array:
    """Inverse of the information on the identified subspace; eigenvalues <= 0 are left out."""
    inner = identified.T @ information @ identified
    size = np.sqrt(np.maximum(inner.diagonal(), 0.0))
    if not size.all():
        inner, identified = inner[size > 0][:, size > 0], identified[:, size > 0]
        size = size[size > 0]
    values, vectors = np.linalg.eigh(inner / size / size[:, None])
    if len(values) and values[0] <= 0:
        values, vectors = values[values > 0], vectors[:, values > 0]
    root = (identified / size) @ (vectors / np.sqrt(values))
    return np.asarray(root @ root.T)


def profile(
    problem: Problem, theta: Array, loglik: float, which: int, level: float
) -> tuple[float, float]:
    """Extremes of one parameter where the log-likelihood is within chi2/2 of its maximum."""
    from scipy.stats import chi2

    drop = 0.5 * float(chi2.ppf(level, 1))
    low, high = (_end(problem, theta, loglik, which, drop, sign) for sign in (-1.0, 1.0))
    return low, high


def _end(
    problem: Problem, centre: Array, loglik: float, which: int, drop: float, sign: float
) -> float:
    from scipy.optimize import minimize

    par = problem.parametrisation
    objective, alone = EachObjective.of(problem), np.zeros(1, int)
    target = loglik - drop
    (info,) = informations(objective, centre[None], par.typical[None])
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
            (value,), (grad,) = objective((centre + frame @ u)[None], alone)
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


def bootstrap(
    problem: Problem,
    theta: Array,
    refit: Callable[[Problem], Array | None],
    n: int,
    rng: np.random.Generator | int,
) -> Array:
    """Estimates (n, k) from data simulated under the model of theta; NaN where refit gives None."""
    rng = generator(rng)
    missing = np.isnan(problem.z)
    out = np.full((n, len(theta)), np.nan)
    for k in range(n):
        z = _simulated(problem, theta, rng)
        z[missing] = np.nan
        data = prepare(problem.data.t, z, z.shape[-1], problem.data.obs_cov)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FitWarning)
            found = refit(replace(problem, data=data, z=z))
        if found is not None:
            out[k] = found
    return out


def _simulated(problem: Problem, theta: Array, rng: np.random.Generator) -> Array:
    """One data set (..., T, p) from the fitted model; diffuse starts at their smoothed value."""
    from afafilter.simulation.simulate import simulate

    model = problem.parametrisation.model(theta)
    data, z = problem.data, problem.z
    paths = z.reshape(-1, *z.shape[-2:])
    system = problem.parametrisation.system(theta)
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
    if isinstance(model, LinearSDE):
        model = replace(model, forcing=None)  # the chain's shift has what inputs show
    x = simulate(model, t, len(paths), rng=rng, x0=x0).x
    clean = np.einsum("tij,ntj->nti", np.broadcast_to(chain.H, (len(t), *chain.H.shape[1:])), x)
    clean += chain.shift
    values, vectors = np.linalg.eigh(np.broadcast_to(chain.R, (len(t), *chain.R.shape[1:])))
    roots = vectors * np.sqrt(np.clip(values, 0.0, None))[:, None, :]
    noise = np.einsum("tij,ntj->nti", roots, rng.standard_normal(clean.shape))
    return np.asarray((clean + noise).reshape(z.shape))
