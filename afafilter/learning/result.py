"""What a fit returns: the model, its uncertainty, and how the search went."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from afafilter._base.checks import Array, fraction, positive_int
from afafilter._base.normal import half_width
from afafilter._base.shown import ShownAsText, load
from afafilter.kalman.estimators import kalman_filter
from afafilter.learning.optimise import Optimum
from afafilter.learning.problem import Problem
from afafilter.learning.uncertainty import bootstrap, covariance, profile
from afafilter.models.discrete import DiscreteModel
from afafilter.models.priors import Prior
from afafilter.models.sde import LinearSDE
from afafilter.results import Estimate

if TYPE_CHECKING:
    import pandas as pd


GAUSSIAN_MEDIAN = 0.6744897501960817
"""Median of |u|, u standard normal."""
MISMATCH = 1e-6
"""Relative difference from the filter's log-likelihood at which a fit is an error."""
FAR = 10.0
"""From so many of their spreads between data and the mean of a stationary model a fit says so."""


@dataclass(frozen=True, repr=False, kw_only=True)
class FitResult(ShownAsText, Optimum):
    """A fitted model and how sure it is.

    Attributes
    ----------
    model : LinearSDE or DiscreteModel
        The fitted `LinearSDE` or `DiscreteModel`, ready for every estimator (made when first
        asked for).
    loglik : float
        Maximised log-likelihood (2 pi for every observed component, exact diffuse). For
        method "student_t" the evidence lower bound.
    params : dict
        Name -> value of every free parameter.
    std_errors : dict
        Name -> standard error from the observed information (delta method); NaN where
        the data leave the parameter open or it sits on the boundary of its domain.
    cov : ndarray, shape (n, n)
        Covariance of the parameters, in the order of `params`.
    converged, message
        Whether the optimum was reached, and if not, why.
    n_iter, n_evals : int
        Iterations of the optimiser; evaluations of likelihood and gradient.
    aic, bic : float
        Akaike's and Schwarz's criterion; smaller is better.
    n_obs : int
        Number of observed scalars.
    gradient_norm : float
        Largest gradient component at the optimum, in log-likelihood per
        unit of the (unconstrained, scaled) parameter.
    unidentified : tuple of str
        Combinations of parameters that the data do not determine, in words.
    boundary : tuple of str
        Parameters whose best value is exactly 0, the end of their domain, or at a bound.
    history : tuple of float
        Log-likelihood after every step that raised it.
    starts : tuple of float
        Maximised log-likelihood per start, best first (one entry unless `starts` > 1).
    method : str
        "ml", "em" or "student_t".
    dof : float
        Degrees of freedom of the measurement noise (method "student_t"), else inf.
    time_unit : str
        Unit that dates were counted in, which `model` remembers; "" for other times.
    start : datetime64, int or None
        First stamp of data with dates or whole numbers beyond 2^53, which `model` remembers.
    weights : ndarray, shape (..., T), optional
        Weight of each observation (method "student_t"), else None.
    outliers : int
        Innovations that lie where hardly one of a million Gaussian ones does; 0 for "student_t".
    log_prior : float
        What the densities given as `priors` add to the log-likelihood; 0 without any.
    """

    problem: Problem
    starts: tuple[float, ...]
    refit: Callable[[Problem, list[Array]], FitResult] = field(repr=False)
    params: dict[str, float]
    log_prior: float
    time_unit: str = ""
    start: Any = None

    @classmethod
    def of(
        cls, problem: Problem, best: Optimum, starts: tuple[float, ...], refit: Any
    ) -> FitResult:
        """The optimum of a problem, what each start reached, and how to fit again."""
        par = problem.parametrisation
        params = dict(zip(par.names, par.natural(best.theta).tolist(), strict=True))
        log_prior = problem.log_prior(best.theta)
        about = {"starts": starts, "refit": refit, "params": params, "log_prior": log_prior}
        return cls(**vars(best), problem=problem, **about)

    @property
    def loglik(self) -> float:
        """Maximised log-likelihood."""
        return self.value - self.log_prior

    @property
    def method(self) -> str:
        """How it was fitted."""
        return self.problem.method

    @property
    def n_obs(self) -> int:
        """Number of observed scalars."""
        return self.problem.data.n_obs

    @property
    def aic(self) -> float:
        """Akaike's criterion."""
        return 2 * len(self.params) - 2 * self.loglik

    @property
    def bic(self) -> float:
        """Schwarz's criterion."""
        return len(self.params) * float(np.log(self.n_obs)) - 2 * self.loglik

    @property
    def gradient_norm(self) -> float:
        """Largest scaled gradient component at the optimum."""
        return float(np.abs(self.grad * self.problem.parametrisation.typical).max())

    @property
    def boundary(self) -> tuple[str, ...]:
        """Parameters at an end of their domain."""
        return tuple(self.problem.parametrisation.names[i] for i in self.resting)

    @cached_property
    def unidentified(self) -> tuple[str, ...]:
        """Combinations of parameters that the data do not determine, in words."""
        par = self.problem.parametrisation
        return tuple(_described(column / par.typical, par.names) for column in self.null_space.T)

    @cached_property
    def cov(self) -> Array:
        """Covariance of the parameters."""
        return covariance(self.problem.parametrisation, self)

    @cached_property
    def std_errors(self) -> dict[str, float]:
        """Standard errors by name."""
        return dict(zip(self.params, np.sqrt(self.cov.diagonal()).tolist(), strict=True))

    @cached_property
    def outliers(self) -> int:
        """Innovations that hardly one of a million Gaussian ones exceeds."""
        found = self.verified()
        return 0 if found is None else count_outliers(found)

    def verified(self) -> Estimate | None:
        """The Kalman filter's estimate; None where none has the likelihood that was maximised.

        Raises
        ------
        ArithmeticError
            If its likelihood differs from that maximised.
        """
        if self.method == "student_t" or not np.isfinite(self.value):
            return None
        problem = self.problem
        found = kalman_filter(self.model, problem.data.t, problem.z, obs_cov=problem.data.obs_cov)
        value = float(np.sum(np.asarray(found.loglik))) + self.log_prior
        if not abs(value - self.value) <= MISMATCH * max(1.0, abs(value)):
            raise ArithmeticError(
                f"the maximised log-likelihood is {self.value:.8g}, the Kalman filter's at the "
                f"same parameters {value:.8g}; please report the data and the model as a fault"
            )
        return found

    @cached_property
    def model(self) -> LinearSDE | DiscreteModel:
        """The fitted model."""
        model = self.problem.parametrisation.model(self.theta)
        if not isinstance(model, LinearSDE):
            return model
        changes: dict[str, Any] = {"time_unit": self.time_unit} if self.time_unit else {}
        if self.start is not None and model.forcing is not None:
            changes["forcing"] = replace(model.forcing, start=self.start)
        prior = model.prior
        if isinstance(self.start, np.integer) and isinstance(prior, Prior) and prior.t0 is not None:
            changes["prior"] = replace(prior, t0=prior.t0 + float(self.start))
        return replace(model, **changes) if changes else model

    @property
    def trouble(self) -> str:
        """What a `FitWarning` says of the fit; "" if there is nothing to say."""
        said = [] if self.converged else [f"the fit did not converge: {self.message}"]
        if self.unidentified and self.converged:
            said.append("the data do not determine: " + "; ".join(self.unidentified))
        return "; ".join([*said, *([self.off_level] if self.off_level else [])])

    @cached_property
    def off_level(self) -> str:
        """That data lie far from the mean of a stationary model, for their own spread; else ""."""
        model, z = self.model, self.problem.z.reshape(-1, self.problem.z.shape[-1])
        if not isinstance(model, LinearSDE) or model.prior != "stationary" or model.forcing:
            return ""
        level = model.C @ model.initial_law(0.0).mean + model.offset
        seen = ~np.isnan(z)
        with np.errstate(invalid="ignore", divide="ignore"):
            n = seen.sum(axis=0)
            mean = np.where(seen, z, 0.0).sum(axis=0) / n
            spread = np.sqrt((np.where(seen, z - mean, 0.0) ** 2).sum(axis=0) / n)
            far = np.nan_to_num(np.abs(mean - level) / spread)
        c = int(np.argmax(far))
        if far[c] <= FAR:
            return ""
        return (
            f"the mean of z, {mean[c]:.6g}, lies {far[c]:.2g} times the spread of z from the "
            f"model's, {level[c]:.6g}: add a constant (a family's '+ constant', a model's offset)"
        )

    def interval(self, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Wald intervals; those of positive parameters are symmetric in the logarithm."""
        half = half_width(fraction(level, "level"))
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
        if self.method == "student_t":
            raise ValueError(
                "profile intervals need a likelihood: method 'student_t' has a bound only"
            )
        which = list(self.params).index(_known(name, self.params))
        ends = profile(self.problem, self.theta, self.value, which, fraction(level, "level"))
        constraints = self.problem.constraints
        return ends if constraints is None else constraints.clip(name, ends)

    def bootstrap(self, n: int, rng: np.random.Generator | int) -> Array:
        """Parametric bootstrap: (n, k) estimates from data simulated under the fitted model.

        Same times, missing pattern and measurement covariances; diffuse starts are replaced by
        the smoothed start. Refits that fail are NaN rows.
        """
        n = positive_int(n, "n")
        return bootstrap(self.problem, self.theta, self._again, n, rng)

    def _again(self, problem: Problem) -> Array | None:
        """Estimates from other data, starting at these; None if the fit fails."""
        try:
            found = self.refit(problem, [self.theta + 0.0])
        except ValueError:
            return None
        return np.array(list(found.params.values())) if found.converged else None

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
        positive_int(digits, "digits")
        fraction(level, "level")
        lines = [r"\begin{tabular}{lrrrr}", r"\hline"]
        ends = rf"{100 * level:g} \% lower & {100 * level:g} \% upper"
        lines += [rf"parameter & value & std.\ error & {ends} \\", r"\hline"]
        for name, row in self.to_pandas(level).iterrows():
            cells = " & ".join("--" if np.isnan(x) else f"{x:.{digits}g}" for x in row)
            safe = str(name).replace("_", r"\_")
            lines.append(rf"{safe} & {cells} \\")
        return "\n".join([*lines, r"\hline", r"\end{tabular}"])

    def __str__(self) -> str:
        return self.summary()

    def plot(self, **options: Any) -> Any:
        """Draw the fit to the data: signal, components, residuals; see `plotting.fit`."""
        return load("plotting").fit(self, **options)

    def summary(self, level: float = 0.95) -> str:
        """A page of text: parameters, intervals, likelihood, criteria, convergence."""
        percent = f"{100 * fraction(level, 'level'):g}%"
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
        if self.outliers:
            lie = "observation lies" if self.outliers == 1 else "observations lie"
            lines += [
                "",
                f"{self.outliers} {lie} far outside "
                'of Gaussian noise, which they widen: method "student_t" (--method student_t) '
                "fits the noise without them",
            ]
        if self.unidentified:
            lines += ["", "not determined by the data: " + "; ".join(self.unidentified)]
        return "\n".join(lines)


def _known(name: str, params: Mapping[str, float]) -> str:
    if name not in params:
        raise ValueError(f"unknown parameter {name!r}; there are {', '.join(params)}")
    return name


def count_outliers(filtered: Estimate) -> int:
    """Number of innovations beyond about 5 robust standard deviations.

    The scale is the median absolute standardised innovation, which outliers do not inflate as they
    do the fitted variances. Threshold 5 (1 + 4 / sqrt(n)): the median of a small sample is noisy.
    """
    assert filtered.innovation is not None
    assert filtered.innovation_cov is not None
    variance = np.diagonal(filtered.innovation_cov, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.abs(filtered.innovation) / np.sqrt(variance)
    size = np.sort(size[np.isfinite(size)])
    n = len(size)
    sd = float(size[(n - 1) // 2] + size[n // 2]) / (2 * GAUSSIAN_MEDIAN) if n else 0.0
    return int((size > 5 * (1 + 4 / n**0.5) * sd).sum()) if sd > 0 else 0


def _described(direction: Array, names: tuple[str, ...]) -> str:
    """Names of the parameters with the largest components of a direction in theta."""
    scaled = direction / np.abs(direction).max()
    order = np.argsort(-np.abs(scaled), kind="stable")
    large = [str(names[k]) for k in order if abs(scaled[k]) > 0.1][:4]
    return large[0] if len(large) == 1 else "combination of " + ", ".join(large)
