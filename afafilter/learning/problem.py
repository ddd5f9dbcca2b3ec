"""What is fitted to which data and how, and the warning that it may give."""

from __future__ import annotations

from dataclasses import dataclass

from afafilter._base.checks import Array
from afafilter.learning.constraints import Constraints
from afafilter.learning.optimise_each import Stopping
from afafilter.learning.parameters.base import Parametrisation
from afafilter.likelihood.data import Data
from afafilter.likelihood.loglik import evaluate


class FitWarning(UserWarning):
    """A fit that did not converge, or whose data do not identify all parameters."""


@dataclass(frozen=True)
class Problem:
    """Parametrised model, data and options of a fit: kept for profiles, bootstrap and refits."""

    parametrisation: Parametrisation
    data: Data
    z: Array
    stopping: Stopping
    method: str = "ml"
    dof: float | None = None
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
        """Lower and upper bounds of theta, for a search from a given start."""
        lower, upper = self.parametrisation.bounds(theta)
        return (lower, upper) if self.constraints is None else self.constraints.within(lower, upper)

    def log_prior(self, theta: Array) -> float:
        """Log prior density of the parameters."""
        return 0.0 if self.constraints is None else self.constraints.density(theta)[0]
