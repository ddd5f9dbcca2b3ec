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
from afafilter.learning.problem import Problem
from afafilter.models.discrete import DiscreteModel
from afafilter.models.priors import Prior
from afafilter.models.sde import LinearSDE

if TYPE_CHECKING:
    import pandas as pd


FAR = 10.0
"""From so many of their spreads between data and the mean of a stationary model a fit says so."""


@dataclass(frozen=True, repr=False)
class FitResult(ShownAsText):
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
    refit: Callable[[Problem, list[Array]], FitResult] = field(repr=False)
    dof: float = np.inf
    weights: Array | None = None
    time_unit: str = ""
    log_prior: float = 0.0
    outliers: int = 0
    start: Any = None

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
        seen = np.ma.masked_invalid(z)
        mean, spread = (x.filled(np.nan) for x in (seen.mean(axis=0), seen.std(axis=0)))
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
        from afafilter.learning.uncertainty import profile

        if self.method == "student_t":
            raise ValueError(
                "profile intervals need a likelihood: method 'student_t' has a bound only"
            )
        which = list(self.params).index(_known(name, self.params))
        top = self.loglik + self.log_prior
        ends = profile(self.problem, self.theta, top, which, fraction(level, "level"))
        constraints = self.problem.constraints
        return ends if constraints is None else constraints.clip(name, ends)

    def bootstrap(self, n: int, rng: np.random.Generator | int) -> Array:
        """Parametric bootstrap: (n, k) estimates from data simulated under the fitted model.

        Same times, missing pattern and measurement covariances; diffuse starts are replaced by
        the smoothed start. Refits that fail are NaN rows.
        """
        from afafilter.learning.uncertainty import bootstrap

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
