"""What is fitted to what, and the warning that a fit may give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from afafilter._base.checks import Array
from afafilter.learning.family import Family
from afafilter.learning.parameters.parametrisation import Parametrisation
from afafilter.likelihood.data import Data
from afafilter.likelihood.loglik import evaluate
from afafilter.models.discrete import DiscreteModel
from afafilter.models.sde import LinearSDE


class FitWarning(UserWarning):
    """A fit that did not converge, or whose data leave parameters open."""


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
