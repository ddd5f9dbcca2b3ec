"""Learning a model from data: maximum likelihood, EM, robust fits; uncertainty and model choice.

    result = fit(families.brownian() + families.noise(), t, z)
    result.params, result.interval(), result.model

The likelihood and its gradient are exact (see `afafilter._likelihood`); nothing is differentiated
by finite differences but the gradient itself, once, for the observed information.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from afafilter._likelihood import Data, evaluate, prepare
from afafilter._model_choice import RatioTest as RatioTest
from afafilter._model_choice import held_out_score as held_out_score
from afafilter._model_choice import likelihood_ratio as likelihood_ratio
from afafilter._optimise import Objective, Optimum, maximise
from afafilter._parameters import Parametrisation, parametrisation
from afafilter._validate import Array, choice, observations, positive_int, scalar
from afafilter.families import Family
from afafilter.models import DiscreteModel, LinearSDE

if TYPE_CHECKING:
    import pandas as pd

METHODS = ("ml", "em", "student_t")
START_DOF = 4.0


class FitWarning(UserWarning):
    """A fit that did not converge, or whose data leave parameters open."""


@dataclass(frozen=True)
class FitResult:
    """A fitted model and how sure it is.

    Attributes
    ----------
    model : the fitted `LinearSDE` or `DiscreteModel`, ready for every estimator (made when first
        asked for).
    loglik : maximised log-likelihood (2 pi for every observed component, exact diffuse). For
        method "student_t" the evidence lower bound.
    params : name -> value of every free parameter.
    std_errors : name -> standard error from the observed information (delta method); NaN where
        the data leave the parameter open or it sits on the boundary of its domain.
    cov : (n, n) covariance of the parameters, in the order of `params`.
    converged, message : whether the optimum was reached, and if not, why.
    n_iter, n_evals : iterations of the optimiser; evaluations of likelihood and gradient.
    aic, bic : Akaike's and Schwarz's criterion; smaller is better.
    n_obs : number of observed scalars.
    gradient_norm : largest gradient component at the optimum, in log-likelihood per
        unit of the (unconstrained, scaled) parameter.
    unidentified : combinations of parameters that the data do not determine, in words.
    boundary : parameters whose best value is exactly 0, the end of their domain.
    history : log-likelihood after every step that raised it.
    starts : maximised log-likelihood per start, best first (one entry unless `starts` > 1).
    method : "ml", "em" or "student_t".
    dof : degrees of freedom of the measurement noise (method "student_t"), else inf.
    weights : (..., T) weight of each observation (method "student_t"), else None.
    """

    loglik: float
    params: dict[str, float]
    std_errors: dict[str, float]
    cov: Array
    converged: bool
    message: str
    n_iter: int
    n_evals: int
    aic: float
    bic: float
    n_obs: int
    gradient_norm: float
    unidentified: tuple[str, ...]
    boundary: tuple[str, ...]
    history: tuple[float, ...]
    starts: tuple[float, ...]
    method: str
    problem: Problem
    theta: Array
    dof: float = np.inf
    weights: Array | None = None

    @cached_property
    def model(self) -> LinearSDE | DiscreteModel:
        """The fitted model."""
        return self.problem.parametrisation.model(self.theta)

    def interval(self, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Wald intervals; those of positive parameters are symmetric in the logarithm."""
        from scipy.special import ndtri

        half = float(ndtri(0.5 + 0.5 * _level(level)))
        out = {}
        positive = self.problem.parametrisation.positive
        for (name, value), log in zip(self.params.items(), positive, strict=True):
            se = half * self.std_errors[name]
            if log and value > 0:
                factor = float(np.exp(min(se / value, 700.0))) if np.isfinite(se) else np.nan
                out[name] = (value / factor, value * factor)
            else:
                out[name] = (value - se, value + se)
        return out

    def profile(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Profile likelihood interval of one parameter.

        The end points extremise the parameter over the region where the log-likelihood is within
        half the chi-square quantile of its maximum (Venzon & Moolgavkar, 1988). Cost: some tens of
        likelihood evaluations per end. An end that the data do not bound is the boundary of the
        search (0, inf or -inf).
        """
        from afafilter._uncertainty import profile

        return profile(self, _known(name, self.params), _level(level))

    def bootstrap(self, n: int, rng: np.random.Generator) -> Array:
        """Parametric bootstrap: (n, k) estimates from data simulated under the fitted model.

        Same times, missing pattern and measurement covariances; diffuse starts are replaced by
        the smoothed start. Refits that fail are NaN rows.
        """
        from afafilter._uncertainty import bootstrap

        return bootstrap(self, positive_int(n, "n"), rng)

    def to_pandas(self, level: float = 0.95) -> pd.DataFrame:
        """One row per parameter: value, std_error, lower, upper."""
        import pandas as pd

        ends = self.interval(level)
        rows = {
            name: (value, self.std_errors[name], *ends[name]) for name, value in self.params.items()
        }
        columns = ["value", "std_error", "lower", "upper"]
        frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
        named: pd.DataFrame = frame.rename_axis("parameter")
        return named

    def to_latex(self, level: float = 0.95, digits: int = 4) -> str:
        """The parameter table as a LaTeX tabular."""
        lines = [r"\begin{tabular}{lrrrr}", r"\hline"]
        lines += [r"parameter & value & std.\ error & lower & upper \\", r"\hline"]
        for name, row in self.to_pandas(level).iterrows():
            cells = " & ".join("--" if np.isnan(x) else f"{x:.{digits}g}" for x in row)
            safe = str(name).replace("_", r"\_")
            lines.append(rf"{safe} & {cells} \\")
        return "\n".join([*lines, r"\hline", r"\end{tabular}"])

    def summary(self, level: float = 0.95) -> str:
        """A page of text: parameters, intervals, likelihood, criteria, convergence."""
        percent = f"{100 * level:g}%"
        width = max(len("parameter"), *(len(name) for name in self.params))
        lines = [
            f"Fit by {self.method}: {self.n_obs} observations, log-likelihood {self.loglik:.4f}, "
            f"AIC {self.aic:.2f}, BIC {self.bic:.2f}",
            f"{'converged' if self.converged else 'NOT CONVERGED'} "
            f"({self.message}; {self.n_iter} iterations, {self.n_evals} evaluations)",
            "",
            f"{'parameter':<{width}} {'value':>12} {'std. error':>12} {percent + ' interval':>27}",
        ]
        ends = self.interval(level)
        for name, value in self.params.items():
            low, high = ends[name]
            lines.append(
                f"{name:<{width}} {value:>12.6g} {self.std_errors[name]:>12.4g} "
                f"{low:>13.6g} {high:>13.6g}"
            )
        if np.isfinite(self.dof):
            lines += ["", f"measurement noise: Student-t, {self.dof:.3g} degrees of freedom"]
        if self.boundary:
            lines += ["", "at the boundary of the domain: " + ", ".join(self.boundary)]
        if self.unidentified:
            lines += ["", "not determined by the data: " + "; ".join(self.unidentified)]
        return "\n".join(lines)


@dataclass(frozen=True)
class Problem:
    """What was fitted to what: kept for profiles, bootstrap and refits."""

    source: LinearSDE | DiscreteModel | Family
    parametrisation: Parametrisation
    data: Data
    z: Array
    obs_cov: Array | None
    options: Mapping[str, Any]

    def objective(self, theta: Array) -> tuple[float, Array]:
        """Log-likelihood and gradient by theta."""
        value, grad = evaluate(self.parametrisation.system(theta), self.data)
        return value, self.parametrisation.pull(theta, grad)


def fit(
    model: LinearSDE | DiscreteModel | Family,
    t: ArrayLike | None,
    z: ArrayLike,
    *,
    free: Sequence[str] | Mapping[str, ArrayLike | None] | None = None,
    method: str = "ml",
    starts: int = 1,
    rng: np.random.Generator | None = None,
    obs_cov: ArrayLike | None = None,
    stable: bool | None = None,
    dof: float | None = None,
    max_iter: int = 500,
    tolerance: float = 1e-6,
) -> FitResult:
    """Fit a model to data.

    Parameters
    ----------
    model : a `LinearSDE` or `DiscreteModel` to start from, or a `Family` of models
        (see `afafilter.families`), whose starting values are guessed unless given.
    t : (T,) non-decreasing times; None for a `DiscreteModel`.
    z : (..., T, p) observations, NaN = missing; leading axes are independent paths.
    free : what may move. Of a family: parameter names. Of a `LinearSDE`: any of "A", "Q", "R",
        "C", "drift", "offset", "prior mean", "prior cov"; of a `DiscreteModel` "F", "Q", "H", "R",
        "b", "d". A mapping name -> mask frees single entries (of Q, R, prior cov: components).
        None: all of a family; A, Q, R and drift (F, Q, R and b) of a model. C and offset move
        only when named, since they merely change coordinates that A, Q and drift can change too.
    method : "ml" maximum likelihood; "em" expectation-maximisation (same optimum, slower, monotone;
        cannot leave Q = 0); "student_t" heavy-tailed measurement noise (variational).
    starts, rng : number of starting points; those after the first are drawn around it by `rng`.
    obs_cov : (T, p, p) measurement covariances in place of R.
    stable : keep A stable by its parametrisation. None: where the prior is stationary and the
        whole of A is free.
    dof : degrees of freedom for "student_t"; None: estimated.
    max_iter : limit of iterations of every start.
    tolerance : converged when the log-likelihood can still rise by no more than this (estimated
        by half the squared Newton decrement).

    Returns
    -------
    FitResult

    Raises
    ------
    ValueError, TypeError
        Bad arguments; no observations, fewer than parameters, or all equal; a start outside the
        domain, or where the likelihood does not exist.

    Warns
    -----
    FitWarning
        Not converged, or parameters that the data do not determine.

    Notes
    -----
    Gradient: the disturbance-smoother score carried through the exact discretisation, O(T d^3) per
    evaluation like the filter itself; right for Q = 0 and repeated times. A free covariance that is
    singular at the start is first made definite by a small multiple of the identity: on the
    logarithmic scale it could not leave 0. Durbin & Koopman (2012), ch. 7.
    """
    choice(method, "method", METHODS)
    max_iter = positive_int(max_iter, "max_iter")
    tolerance = scalar(tolerance, "tolerance", low=0.0, strict=True)
    starts = positive_int(starts, "starts")
    if starts > 1 and not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy Generator when starts > 1, got {rng!r}")
    if not isinstance(model, (LinearSDE, DiscreteModel, Family)):
        raise TypeError(f"model must be a LinearSDE, DiscreteModel or Family, got {model!r}")
    if t is None and not isinstance(model, DiscreteModel):
        raise TypeError("t is needed for a continuous-time model")
    if dof is not None:
        if method != "student_t":
            raise ValueError("dof is for method='student_t'")
        dof = scalar(dof, "dof", low=0.0, strict=True)
    options = {
        "free": free, "method": method, "stable": stable, "dof": dof,
        "max_iter": max_iter, "tolerance": tolerance,
    }  # fmt: skip
    data = prepare(t, z, model.obs_dim, obs_cov)
    values = observations(z, len(data.t), model.obs_dim)
    _refuse_degenerate(values, data)
    par = parametrisation(model, data.t, values, free, stable=stable, obs_cov=obs_cov is not None)
    if method == "student_t" and dof is None:
        from afafilter._robust_fit import StudentParameters

        par = StudentParameters(par, START_DOF)
    problem = Problem(model, par, data, values, data.obs_cov, options)
    theta = par.start()
    flat = _flat_count(par.system(theta))
    if data.n_obs <= len(theta) + flat * data.n_paths:
        raise ValueError(
            f"too few data: {data.n_obs} observed values for {len(theta)} parameters"
            + (f" and {flat * data.n_paths} diffuse start components" if flat else "")
        )
    return solve(problem, theta, starts, rng)


def solve(
    problem: Problem, theta: Array, starts: int = 1, rng: np.random.Generator | None = None
) -> FitResult:
    """Run the chosen method from one or several starts and report the best."""
    points = [theta]
    if rng is not None:
        spread = problem.parametrisation.typical
        points += [theta + spread * rng.standard_normal(len(theta)) for _ in range(starts - 1)]
    results = []
    for k, point in enumerate(points):
        try:
            results.append(_solve_one(problem, point))
        except ValueError:
            if k == 0:
                raise
    results.sort(key=lambda r: (np.isfinite(r.value), r.value), reverse=True)
    return report(problem, results[0], tuple(float(r.value) for r in results))


def _solve_one(problem: Problem, theta: Array) -> Optimum:
    par, options = problem.parametrisation, problem.options
    lower, upper = par.bounds(theta)
    function: Any = problem.objective
    if options["method"] == "student_t":
        from afafilter._robust_fit import StudentBound

        function = StudentBound(problem, options["dof"])
    try:
        value, grad = function(theta)
    except np.linalg.LinAlgError as error:
        raise ValueError(f"the likelihood does not exist at the start: {error}") from None
    if not np.isfinite(value):
        raise ValueError("the likelihood is not finite at the start; choose another start")
    search = {"max_iter": options["max_iter"], "tolerance": options["tolerance"]}
    if options["method"] == "em":
        from afafilter.em import expectation_maximisation

        return expectation_maximisation(problem, theta, (lower, upper), **search)
    objective = Objective(function, (theta, value, grad))
    optimum = maximise(
        objective,
        theta,
        (lower, upper),
        par.typical,
        roots=par.roots,
        vanishing=par.vanishing,
        **search,
    )
    optimum.n_evals = objective.n_evals
    if options["method"] == "student_t":
        function(optimum.theta)
        optimum.extra = {"dof": function.dof(optimum.theta), "weights": function.weights}
    return optimum


def report(problem: Problem, best: Optimum, starts: tuple[float, ...]) -> FitResult:
    """Natural parameters, their uncertainty, criteria and warnings."""
    par = problem.parametrisation
    theta = best.theta
    natural, J = par.natural(theta), par.jacobian(theta)
    curvature = (best.seen * (best.information @ best.seen)).sum(axis=0)
    good = curvature > 0
    root = J @ (best.seen[:, good] / np.sqrt(curvature[good]))
    cov = root @ root.T
    reach = np.maximum(np.abs(J) @ np.abs(par.typical), np.finfo(float).tiny)
    open_ = np.abs(J @ best.blind) / reach[:, None]
    blind = open_.max(axis=1, initial=0.0) > 1e-3 * np.abs(best.blind / par.typical[:, None]).max(
        initial=1.0
    )
    blind[list(best.boundary)] = True
    cov[blind, :] = cov[:, blind] = np.nan
    names = par.names
    unidentified = tuple(_in_words(column / par.typical, names) for column in best.blind.T)
    k, n_obs = len(theta), problem.data.n_obs
    if not best.success:
        warnings.warn(f"the fit did not converge: {best.message}", FitWarning, stacklevel=4)
    elif unidentified:
        warnings.warn(
            "the data do not determine: " + "; ".join(unidentified), FitWarning, stacklevel=4
        )
    return FitResult(
        loglik=best.value,
        params=dict(zip(names, natural.tolist(), strict=True)),
        std_errors=dict(zip(names, np.sqrt(cov.diagonal()).tolist(), strict=True)),
        cov=cov,
        converged=best.success,
        message=best.message,
        n_iter=best.n_iter,
        n_evals=best.n_evals,
        aic=2 * k - 2 * best.value,
        bic=k * float(np.log(n_obs)) - 2 * best.value,
        n_obs=n_obs,
        gradient_norm=float(np.abs(best.grad * par.typical).max()),
        unidentified=unidentified,
        boundary=tuple(names[i] for i in best.boundary),
        history=tuple(best.history),
        starts=starts,
        method=str(problem.options["method"]),
        problem=problem,
        theta=theta,
        **_extra(problem, best),
    )


def _extra(problem: Problem, best: Optimum) -> dict[str, Any]:
    if "weights" not in best.extra:
        return {}
    shape = problem.z.shape[:-1]
    return {"dof": best.extra["dof"], "weights": best.extra["weights"].reshape(shape)}


def _in_words(direction: Array, names: tuple[str, ...]) -> str:
    """The parameters that a direction in theta moves most."""
    scaled = direction / np.abs(direction).max()
    order = np.argsort(-np.abs(scaled), kind="stable")
    large = [str(names[k]) for k in order if abs(scaled[k]) > 0.1][:4]
    return large[0] if len(large) == 1 else "combination of " + ", ".join(large)


def _refuse_degenerate(z: Array, data: Data) -> None:
    if data.n_obs == 0:
        raise ValueError("z holds no observation: every value is missing")
    columns = z.reshape(-1, z.shape[-1])
    for c in range(columns.shape[1]):
        seen = columns[~np.isnan(columns[:, c]), c]
        if len(seen) > 1 and np.ptp(seen) == 0:
            raise ValueError(
                f"component {c} of z is constant ({seen[0]:g}): the likelihood has no maximum"
            )


def _flat_count(system: Any) -> int:
    prior = system.prior
    if isinstance(prior, str):
        d = (system.A if hasattr(system, "A") else system.F).shape[-1]
        return int(d) if prior == "diffuse" else 0
    return int(prior.flat.shape[1])


def _known(name: str, params: Mapping[str, float]) -> str:
    if name not in params:
        raise ValueError(f"unknown parameter {name!r}; there are {', '.join(params)}")
    return name


def _level(level: float) -> float:
    level = scalar(level, "level", low=0.0, strict=True)
    if level >= 1:
        raise ValueError(f"level must lie in (0, 1), got {level:g}")
    return level
