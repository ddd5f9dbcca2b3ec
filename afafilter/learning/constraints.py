"""Prior knowledge of parameters: bounds, and densities that the fit adds.

With densities the fit maximises log-likelihood + sum of log densities of the natural parameters
(the mode of the posterior by the natural parameters).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from afafilter._base.checks import Array, scalar
from afafilter.learning.parameters.base import Parametrisation

STEP = 6e-6
"""Relative step of the central difference where a density does not say its slope."""


@dataclass(frozen=True)
class Normal:
    """A parameter is about `mean`, give or take `sd`.

    Parameters
    ----------
    mean : float
        In units of the parameter.
    sd : float
        Standard deviation, > 0.
    """

    mean: float
    sd: float

    def __post_init__(self) -> None:
        scalar(self.mean, "mean")
        scalar(self.sd, "sd", low=0.0, strict=True)

    def logpdf(self, x: float) -> float:
        """Log density at x."""
        return -0.5 * ((x - self.mean) / self.sd) ** 2 - math.log(self.sd * math.sqrt(2 * math.pi))

    def slope(self, x: float) -> float:
        """Its derivative."""
        return (self.mean - x) / self.sd**2


@dataclass(frozen=True)
class LogNormal:
    """A positive parameter is about `median`, within a factor e^{+-sigma}.

    Parameters
    ----------
    median : float
        > 0, in units of the parameter.
    sigma : float
        Standard deviation of its logarithm, > 0.
    """

    median: float
    sigma: float

    def __post_init__(self) -> None:
        scalar(self.median, "median", low=0.0, strict=True)
        scalar(self.sigma, "sigma", low=0.0, strict=True)

    def logpdf(self, x: float) -> float:
        """Log density at x; -inf for x <= 0."""
        if x <= 0:
            return -math.inf
        y = math.log(x / self.median) / self.sigma
        return -0.5 * y * y - math.log(x * self.sigma * math.sqrt(2 * math.pi))

    def slope(self, x: float) -> float:
        """Its derivative."""
        return -(math.log(x / self.median) / self.sigma**2 + 1.0) / x if x > 0 else 0.0


class Constraints:
    """Bounds and densities of the parameters of a fit, by name.

    ValueError, TypeError: Unknown names, bounds in the wrong order or on an entry that depends on
    several coordinates, densities without `logpdf`.
    """

    def __init__(
        self,
        par: Parametrisation,
        bounds: Mapping[str, tuple[float | None, float | None]],
        priors: Mapping[str, Any],
    ) -> None:
        self._par = par
        self._names = list(par.names)
        self._limits = {self._place(k, "bounds"): _pair(k, pair) for k, pair in bounds.items()}
        self._densities = {self._place(k, "priors"): _density(k, x) for k, x in priors.items()}
        point = par.start() + 0.1 * par.typical * np.sqrt(2.0 + np.arange(len(self._names)))
        J, natural = par.jacobian(point), par.natural(point)
        self._root = dict.fromkeys(self._limits, False)
        for i, (low, high) in self._limits.items():
            alone = np.count_nonzero(J[i]) == 1 and J[i, i] != 0
            same = alone and math.isclose(natural[i], point[i], rel_tol=1e-9)
            square = alone and math.isclose(natural[i], point[i] ** 2, rel_tol=1e-9)
            if not (par.logs[i] or par.roots[i] or same or square):
                raise ValueError(
                    f"bounds of {self._names[i]!r} cannot be kept: it is made of several "
                    "coordinates of a matrix; bound the parameters of a family, or give a prior"
                )
            self._root[i] = bool(par.roots[i] or (square and not same))
            if par.positive[i] and high <= 0:
                raise ValueError(
                    f"bounds of {self._names[i]!r} must reach above 0, got {low, high}"
                )

    def _place(self, name: str, what: str) -> int:
        if name not in self._names:
            raise ValueError(f"{what} must name {', '.join(self._names)}; got {name!r}")
        return self._names.index(name)

    def limited(self) -> Any:
        """(n,) which coordinates have bounds."""
        out = np.zeros(len(self._names), dtype=bool)
        out[list(self._limits)] = True
        return out

    def within(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """The bounds of theta with these."""
        lower, upper = lower.copy(), upper.copy()
        for i, (low, high) in self._limits.items():
            if self._par.logs[i]:
                low = math.log(low) if low > 0 else -math.inf
                high = math.log(high)
            elif self._root[i]:
                high = math.sqrt(high)
                low = math.sqrt(low) if low > 0 else -high
            lower[i], upper[i] = max(lower[i], low), min(upper[i], high)
        return lower, upper

    def density(self, theta: Array) -> tuple[float, Array]:
        """Sum of the log densities, and its gradient by theta."""
        value, by_natural = 0.0, np.zeros(len(theta))
        natural = self._par.natural(theta)
        for i, prior in self._densities.items():
            x = float(natural[i])
            value += float(prior.logpdf(x))
            by_natural[i] = _slope(prior, x)
        return value, self._par.jacobian(theta).T @ by_natural

    def clip(self, name: str, ends: tuple[float, float]) -> tuple[float, float]:
        """An interval of a parameter, within its bounds."""
        low, high = self._limits.get(self._names.index(name), (-math.inf, math.inf))
        a, b = ends
        return (max(a, low), min(b, high))


def _slope(prior: Any, x: float) -> float:
    if hasattr(prior, "slope"):
        return float(prior.slope(x))
    h = STEP * max(abs(x), 1e-8)
    return float(prior.logpdf(x + h) - prior.logpdf(x - h)) / (2 * h)


def _pair(name: str, pair: Any) -> tuple[float, float]:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(f"bounds[{name!r}] must be a pair (low, high), None = open, got {pair!r}")
    low = -math.inf if pair[0] is None else float(pair[0])
    high = math.inf if pair[1] is None else float(pair[1])
    if not low < high:
        raise ValueError(f"bounds[{name!r}] must be low < high, got ({low:g}, {high:g})")
    return low, high


def _density(name: str, prior: Any) -> Any:
    if not callable(getattr(prior, "logpdf", None)):
        raise TypeError(
            f"priors[{name!r}] must be a density with logpdf(x), such as families.LogNormal or one "
            f"of scipy.stats, got {prior!r}"
        )
    return prior
