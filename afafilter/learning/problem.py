"""What is fitted to what, and the warning that a fit may give."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from afafilter._base.checks import Array
from afafilter.learning.constraints import Constraints
from afafilter.learning.family import Family
from afafilter.learning.optimise_each import Stopping
from afafilter.learning.parameters.base import Parametrisation
from afafilter.likelihood.data import Data
from afafilter.likelihood.loglik import evaluate
from afafilter.models.discrete import DiscreteModel
from afafilter.models.sde import LinearSDE


class FitWarning(UserWarning):
    """A fit that did not converge, or whose data leave parameters open."""


@dataclass(frozen=True)
class Options:
    """How `fit` was asked to fit."""

    free: Any = None
    method: str = "ml"
    stable: bool | None = None
    dof: float | None = None
    stopping: Stopping = field(default_factory=Stopping)


@dataclass(frozen=True)
class Problem:
    """What was fitted to what: kept for profiles, bootstrap and refits."""

    source: LinearSDE | DiscreteModel | Family
    parametrisation: Parametrisation
    data: Data
    z: Array
    obs_cov: Array | None
    options: Options
    constraints: Constraints | None = None

    def objective(self, theta: Array) -> tuple[float, Array]:
        """Log-likelihood and gradient by theta."""
        value, grad = evaluate(self.parametrisation.system(theta), self.data)
        slope = self.parametrisation.pullback(theta, grad)
        if self.constraints is None:
            return value, slope
        more, by_theta = self.constraints.density(theta)
        return value + more, slope + by_theta

    def bounds(self, theta: Array) -> tuple[Array, Array]:
        """Lower and upper bounds of theta around a starting one."""
        lower, upper = self.parametrisation.bounds(theta)
        return (lower, upper) if self.constraints is None else self.constraints.within(lower, upper)

    def log_prior(self, theta: Array) -> float:
        """What the parameters' densities add to the log-likelihood."""
        return 0.0 if self.constraints is None else self.constraints.density(theta)[0]
