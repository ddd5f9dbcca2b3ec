"""The search for the best parameters from one or several starts, and the report of it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from afafilter._base.checks import Array
from afafilter.kalman.estimators import kalman_filter
from afafilter.learning.likelihood_each import EachObjective
from afafilter.learning.optimise import Objective, Optimum, as_batch, maximise, near
from afafilter.learning.problem import FitWarning, Problem
from afafilter.learning.result import FitResult
from afafilter.learning.search_each import Starts, promising, search_each
from afafilter.results import Estimate

GAUSSIAN_MEDIAN = 0.6744897501960817
"""Median of |u|, u standard normal."""
MISMATCH = 1e-6
"""Relative difference from the filter's log-likelihood at which a fit is an error."""


def solve(
    problem: Problem, points: list[Array], starts: int = 1, rng: np.random.Generator | None = None
) -> FitResult:
    """Run the chosen method from the promising ones of `points`, and report the best optimum.

    rng : draws `starts` - 1 further ones around the first.
    """
    objective, found = EachObjective.of(problem), None
    stopping = problem.options.stopping
    if objective is not None or len(points) > 1:
        begin = promising(objective or as_batch(Objective(problem.objective)), [points])
        points = list(begin.thetas)
    if rng is not None:
        shape = starts - 1, len(points[0])
        drawn = points[0] + problem.parametrisation.typical * rng.standard_normal(shape)
        points = [*points, *drawn]
    if objective is not None and np.isfinite(begin.values[0]):
        if rng is not None:
            none = np.zeros(len(drawn), int)
            more = none, drawn, *objective(drawn, none)
            begin = Starts(*(np.concatenate(pair) for pair in zip(begin, more, strict=True)))
        found = next(search_each(objective, begin, (near(stopping), stopping), every=True))
    best, reached = found or _one_by_one(problem, points)
    filtered = compare_with_filter(problem, best.theta, best.value)
    result = report(problem, best, reached, count_outliers(filtered))
    if result.trouble:
        warnings.warn(result.trouble, FitWarning, stacklevel=3)
    return result


def _one_by_one(problem: Problem, points: list[Array]) -> tuple[Optimum, tuple[float, ...]]:
    """As `search_each` of one problem; ValueError if the first start is not feasible."""
    results = []
    for k, point in enumerate(points):
        try:
            results.append(_solve_one(problem, point))
        except ValueError:
            if k == 0:
                raise
    results.sort(key=lambda r: (np.isfinite(r.value), r.value), reverse=True)
    return results[0], tuple(float(r.value) for r in results)


def _solve_one(problem: Problem, theta: Array) -> Optimum:
    par, options = problem.parametrisation, problem.options
    lower, upper = problem.bounds(theta)
    theta = np.clip(theta, lower, upper)
    function: Any = problem.objective
    if options.method == "student_t":
        from afafilter.learning.student_t import StudentBound

        function = StudentBound(problem, options.dof)
    try:
        value, grad = function(theta)
    except np.linalg.LinAlgError as error:
        raise ValueError(f"the likelihood does not exist at the start: {error}") from None
    if not np.isfinite(value):
        raise ValueError("the likelihood is not finite at the start; choose another start")
    if options.method == "em":
        from afafilter.learning.em import expectation_maximisation

        return expectation_maximisation(problem, theta, (lower, upper))
    objective = Objective(function, (theta, value, grad))
    limited = None if problem.constraints is None else problem.constraints.limited()
    optimum = maximise(objective, theta, (lower, upper), par, options.stopping, limited)
    optimum.n_evals = objective.n_evals
    if options.method == "student_t":
        function(optimum.theta)
        optimum.extra = {"dof": function.dof(optimum.theta), "weights": function.weights}
    return optimum


def compare_with_filter(problem: Problem, theta: Array, maximum: float) -> Estimate | None:
    """The Kalman filter at theta, its log-likelihood checked against the maximum found.

    None under Student-t noise, whose variational bound is not the filter's likelihood.

    ArithmeticError: If the two differ.
    """
    if problem.options.method == "student_t" or not np.isfinite(maximum):
        return None
    model = problem.parametrisation.model(theta)
    found = kalman_filter(model, problem.data.t, problem.z, obs_cov=problem.obs_cov)
    value = float(np.sum(np.asarray(found.loglik))) + problem.log_prior(theta)
    if not abs(value - maximum) <= MISMATCH * max(1.0, abs(value)):
        raise ArithmeticError(
            f"the maximised log-likelihood is {maximum:.8g}, the Kalman filter's at the same "
            f"parameters {value:.8g}; please report the data and the model as a fault"
        )
    return found


def count_outliers(filtered: Estimate | None) -> int:
    """Number of innovations beyond about 5 robust standard deviations.

    The scale is the median absolute standardised innovation, which outliers do not inflate as they
    do the fitted variances. Threshold 5 (1 + 4 / sqrt(n)): the median of a small sample is noisy.
    """
    if filtered is None or filtered.innovation is None:
        return 0
    assert filtered.innovation_cov is not None
    variance = np.diagonal(filtered.innovation_cov, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.abs(filtered.innovation) / np.sqrt(variance)
    size = np.sort(size[np.isfinite(size)])
    n = len(size)
    sd = float(size[(n - 1) // 2] + size[n // 2]) / (2 * GAUSSIAN_MEDIAN) if n else 0.0
    return int((size > 5 * (1 + 4 / n**0.5) * sd).sum()) if sd > 0 else 0


def report(
    problem: Problem, best: Optimum, starts: tuple[float, ...], outliers: int = 0
) -> FitResult:
    """Natural parameters, their uncertainty and criteria."""
    par = problem.parametrisation
    theta = best.theta
    natural, J = par.natural(theta), par.jacobian(theta)
    cov = J @ _inverse(best.information, best.identified) @ J.T
    undetermined = np.zeros(len(theta), bool)
    if best.null_space.size:
        size = np.maximum(np.abs(J) @ np.abs(par.typical), np.finfo(float).tiny)
        sensitivity = np.abs(J @ best.null_space) / size[:, None]
        largest = np.abs(best.null_space / par.typical[:, None]).max(initial=1.0)
        undetermined = sensitivity.max(axis=1) > 1e-3 * largest
    undetermined[list(best.boundary)] = True
    if undetermined.any():
        cov[undetermined, :] = cov[:, undetermined] = np.nan
    names = par.names
    unidentified = tuple(_described(column / par.typical, names) for column in best.null_space.T)
    k, n_obs = len(theta), problem.data.n_obs
    log_prior = problem.log_prior(theta)
    loglik = best.value - log_prior
    return FitResult(
        loglik=loglik,
        log_prior=log_prior,
        params=dict(zip(names, natural.tolist(), strict=True)),
        std_errors=dict(zip(names, np.sqrt(cov.diagonal()).tolist(), strict=True)),
        cov=cov,
        converged=best.success,
        message=best.message,
        n_iter=best.n_iter,
        n_evals=best.n_evals,
        aic=2 * k - 2 * loglik,
        bic=k * float(np.log(n_obs)) - 2 * loglik,
        n_obs=n_obs,
        gradient_norm=float(np.abs(best.grad * par.typical).max()),
        unidentified=unidentified,
        boundary=tuple(names[i] for i in best.boundary),
        history=tuple(best.history),
        starts=starts,
        outliers=outliers,
        method=problem.options.method,
        problem=problem,
        theta=theta,
        refit=solve,
        **_extra(problem, best),
    )


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


def _extra(problem: Problem, best: Optimum) -> dict[str, Any]:
    if "weights" not in best.extra:
        return {}
    shape = problem.z.shape[:-1]
    return {"dof": best.extra["dof"], "weights": best.extra["weights"].reshape(shape)}


def _described(direction: Array, names: tuple[str, ...]) -> str:
    """Names of the parameters with the largest components of a direction in theta."""
    scaled = direction / np.abs(direction).max()
    order = np.argsort(-np.abs(scaled), kind="stable")
    large = [str(names[k]) for k in order if abs(scaled[k]) > 0.1][:4]
    return large[0] if len(large) == 1 else "combination of " + ", ".join(large)
