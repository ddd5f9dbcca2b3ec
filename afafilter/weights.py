"""Robust weight functions of the squared Mahalanobis distance.

A weight w(d2) multiplies the precision of one observation; d2 = r^T P r is the squared Mahalanobis
distance of its residual and dim the number of real components of that residual. Each class gives
the weight, its logarithm, and the loss rho with rho' = w and rho(0) = 0, which iterative
reweighting descends. All work elementwise, keep float32, and let NaN through.

Sources: exponential and power, arXiv:2509.04154 (v4 and later); IMQ and threshold, WoLF
(arXiv:2405.05646), whose weighting function squared multiplies the precision; Student's t and Huber
are textbook M-estimators.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from afafilter._base.checks import scalar
from afafilter._base.signatures import assign

Floats = NDArray[np.floating[Any]]
Dim = int | NDArray[np.integer[Any]]


@runtime_checkable
class Weight(Protocol):
    """What an estimator asks of a weight; any object with these three methods will do."""

    def __call__(self, d2: ArrayLike, dim: Dim) -> Floats:
        """Weights >= 0, non-increasing in d2."""

    def log(self, d2: ArrayLike, dim: Dim) -> Floats:
        """Log weights; -inf where the weight is 0."""

    def rho(self, d2: ArrayLike, dim: Dim) -> Floats:
        """Loss with derivative w with respect to d2 and rho(0) = 0."""


def _floats(d2: ArrayLike) -> Floats:
    out = np.asarray(d2)
    return out if out.dtype.kind == "f" else out.astype(np.float64)


@dataclass(frozen=True)
class _Positive:
    """Base of the weights: every parameter is one positive number."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            name = f"{type(self).__name__} {field.name}"
            assign(self, **{field.name: scalar(value, name, low=0.0, strict=True)})


@dataclass(frozen=True)
class Exponential(_Positive):
    """w = exp(-d2 / nu), the paper's exponential weight.

    Parameters
    ----------
    nu : float
        > 0, squared distance at which the weight is 1/e.

    Raises
    ------
    ValueError, TypeError
        If a parameter is not one finite positive number (all weights alike).
    """

    nu: float

    def __call__(self, d2: ArrayLike, dim: Dim) -> Floats:
        return np.asarray(np.exp(self.log(d2, dim)))

    def log(self, d2: ArrayLike, dim: Dim) -> Floats:
        return np.asarray(_floats(d2) / -self.nu)

    def rho(self, d2: ArrayLike, dim: Dim) -> Floats:
        return np.asarray(-self.nu * np.expm1(self.log(d2, dim)))


class PowerLaw(_Positive):
    """w = peak (1 + d2/scale)^-exponent."""

    def power_form(self, dim: Dim) -> tuple[float, Any, Any]:
        """(scale, exponent, peak) of the power law."""
        raise NotImplementedError

    def __call__(self, d2: ArrayLike, dim: Dim) -> Floats:
        scale, exponent, peak = self.power_form(dim)
        if isinstance(exponent, float) and exponent == 1.0:
            return np.asarray(peak / (1.0 + _floats(d2) / scale))
        return np.asarray(np.exp(self.log(d2, dim)))

    def log(self, d2: ArrayLike, dim: Dim) -> Floats:
        scale, exponent, peak = self.power_form(dim)
        x = _floats(d2)
        out = -exponent * np.log1p(x / scale) + np.log(peak)
        return np.asarray(out, dtype=x.dtype)

    def rho(self, d2: ArrayLike, dim: Dim) -> Floats:
        scale, exponent, peak = self.power_form(dim)
        x = _floats(d2)
        height = np.log1p(x / scale)
        slope = (1.0 - exponent) * height
        safe = np.where(slope == 0, 1.0, slope)
        growth = np.where(slope == 0, 1.0, np.expm1(safe) / safe)
        return np.asarray(peak * scale * height * growth, dtype=x.dtype)


@dataclass(frozen=True)
class Power(PowerLaw):
    """w = (1 + d2 / nu)^-kappa, the paper's robust weight (v4 and later).

    Parameters
    ----------
    nu : float
        > 0, degrees of freedom.
    kappa : float, optional
        > 0. None: (nu + dim) / dim.
    """

    nu: float
    kappa: float | None = None

    def power_form(self, dim: Dim) -> tuple[float, Any, Any]:
        return self.nu, (self.nu + dim) / dim if self.kappa is None else self.kappa, 1.0


@dataclass(frozen=True)
class StudentT(PowerLaw):
    """w = (nu + dim) / (nu + d2): reweighting for multivariate Student-t noise.

    The weight exceeds 1 at small distances: the scale matrix of a Student-t is smaller than its
    covariance.

    Parameters
    ----------
    nu : float
        > 0, degrees of freedom.
    """

    nu: float

    def power_form(self, dim: Dim) -> tuple[float, Any, Any]:
        return self.nu, 1.0, (self.nu + dim) / self.nu


@dataclass(frozen=True)
class Rational(PowerLaw):
    """w = 1 / (1 + alpha d2).

    Parameters
    ----------
    alpha : float
        > 0.
    """

    alpha: float

    def power_form(self, dim: Dim) -> tuple[float, Any, Any]:
        return 1.0 / self.alpha, 1.0, 1.0


@dataclass(frozen=True)
class IMQ(PowerLaw):
    """w = 1 / (1 + d2 / c^2): squared inverse multiquadric, as WoLF applies it to a precision.

    Parameters
    ----------
    c : float
        > 0, distance (not squared) at which the weight is 1/2.
    """

    c: float

    def power_form(self, dim: Dim) -> tuple[float, Any, Any]:
        return self.c**2, 1.0, 1.0


@dataclass(frozen=True)
class Huber(_Positive):
    """w = min(1, c / sqrt(d2)).

    Parameters
    ----------
    c : float
        > 0, distance (not squared) up to which the weight is 1.
    """

    c: float

    def __call__(self, d2: ArrayLike, dim: Dim) -> Floats:
        return np.asarray(self.c / np.sqrt(np.maximum(_floats(d2), self.c**2)))

    def log(self, d2: ArrayLike, dim: Dim) -> Floats:
        return np.asarray(-0.5 * np.log(np.maximum(_floats(d2) / self.c**2, 1.0)))

    def rho(self, d2: ArrayLike, dim: Dim) -> Floats:
        x = _floats(d2)
        tail = self.c * (2.0 * np.sqrt(np.maximum(x, self.c**2)) - self.c)
        return np.asarray(np.where(x <= self.c**2, x, tail))


@dataclass(frozen=True)
class Threshold(_Positive):
    """w = 1 if d2 <= c^2, else 0: observations are kept or rejected.

    Parameters
    ----------
    c : float
        > 0, distance (not squared) up to which observations are kept.
    """

    c: float

    def __call__(self, d2: ArrayLike, dim: Dim) -> Floats:
        x = _floats(d2)
        return np.where(np.isnan(x), x, (x <= self.c**2).astype(x.dtype))

    def log(self, d2: ArrayLike, dim: Dim) -> Floats:
        x = _floats(d2)
        return np.where(np.isnan(x), x, np.where(x <= self.c**2, x.dtype.type(0), -np.inf))

    def rho(self, d2: ArrayLike, dim: Dim) -> Floats:
        return np.asarray(np.minimum(_floats(d2), self.c**2))


_NAMES: dict[str, Callable[..., Weight]] = {
    "exponential": Exponential,
    "power": Power,
    "student_t": StudentT,
    "rational": Rational,
    "imq": IMQ,
    "huber": Huber,
    "threshold": Threshold,
}
USUAL: dict[str, dict[str, float]] = {
    "student_t": {"nu": 4.0},
    "imq": {"c": 2.0},
    "huber": {"c": 2.0},
    "threshold": {"c": 3.0},
    "exponential": {"nu": 9.0},
}
"""Parameters that a weight given by its word alone has."""
_CLASS_NAMES = {str(kind.__name__): name for name, kind in _NAMES.items()}


def weight_from_name(name: str, **parameters: float) -> Weight:
    """The weight of that name, or class name such as "StudentT", with its parameters, e.g. nu=4.0.

    ValueError for an unknown name, a missing or unknown parameter, or one that is not positive.
    """
    short = _CLASS_NAMES.get(name, name)
    if short not in _NAMES:
        raise ValueError(f"weight must be one of {', '.join(_NAMES)}, got {name!r}")
    kind = _NAMES[short]
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise ValueError(
            f"weight {name!r} takes the parameters {', '.join(known)}, got {', '.join(unknown)}"
        )
    missing = [k for k in known if k not in parameters and k != "kappa"]
    if missing:
        raise ValueError(f"weight {name!r} needs the parameter {', '.join(missing)}")
    return kind(**parameters)


@cache
def _usual(word: str) -> Weight:
    return weight_from_name(word, **USUAL.get(_CLASS_NAMES.get(word, word), {}))


def as_weight(weight: Weight | str | None) -> Weight | None:
    """A weight as it is; that of a word, with its parameters in `USUAL` where there are some."""
    if isinstance(weight, str):
        return _usual(weight)
    if weight is not None and (isinstance(weight, type) or not isinstance(weight, Weight)):
        raise TypeError(
            "weight must be None, a word such as 'student_t' or a weight such as Power(nu=4.0), "
            f"got {weight!r}"
        )
    return weight
