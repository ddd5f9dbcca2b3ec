"""Interface of a parametrisation, and its extension by further coordinates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from afafilter._base.checks import Array
from afafilter.likelihood.chain import DiscreteSystem, System
from afafilter.models.discrete import DiscreteModel
from afafilter.models.sde import LinearSDE


class Parametrisation(ABC):
    """From an unconstrained vector theta to a model, and gradients back."""

    names: tuple[str, ...]
    positive: Any  # (n,) bool: natural parameters that cannot be negative
    typical: Array  # (n,) sizes of meaningful changes of theta
    logs: Any  # (n,) bool: coordinates that are the logarithm of their natural parameter
    roots: Any  # (n,) bool: coordinates that are the square root of it

    @abstractmethod
    def start(self) -> Array:
        """Theta of the starting model."""

    def alternatives(self) -> list[Array]:
        """Other starts."""
        return []

    def starts(self) -> list[Array]:
        """All starts, the first one first."""
        return [self.start(), *self.alternatives()]

    def bounds(self, theta: Array) -> tuple[Array, Array]:
        """Lower and upper bounds around a starting theta."""
        return np.full(len(theta), -np.inf), np.full(len(theta), np.inf)

    @abstractmethod
    def system(self, theta: Array) -> System | DiscreteSystem:
        """Arrays of the model."""

    @abstractmethod
    def pullback(self, theta: Array, grad: Any) -> Array:
        """Gradient by theta from the gradients by the model's arrays."""

    @abstractmethod
    def natural(self, theta: Array) -> Array:
        """Natural parameters (n,)."""

    @abstractmethod
    def jacobian(self, theta: Array) -> Array:
        """d natural / d theta (n, n)."""

    def vanishing(self, theta: Array) -> list[int]:
        """Coordinates near the boundary 0, which may be set to 0 exactly."""
        return []

    @abstractmethod
    def model(self, theta: Array) -> LinearSDE | DiscreteModel:
        """The validated model."""


class ExtendedParameters(Parametrisation):
    """A parametrisation extended by coordinates that are natural parameters themselves."""

    def __init__(
        self, inner: Parametrisation, names: Sequence[str], start: Array, typical: Array
    ) -> None:
        self.inner, self._n, self._more = inner, len(inner.typical), start
        self.names = (*inner.names, *names)
        no = np.zeros(len(start), dtype=bool)
        self.positive, self.logs, self.roots = (
            np.append(flags, no) for flags in (inner.positive, inner.logs, inner.roots)
        )
        self.typical = np.append(inner.typical, typical)

    def start(self) -> Array:
        return np.append(self.inner.start(), self._more)

    def alternatives(self) -> list[Array]:
        return [np.append(theta, self._more) for theta in self.inner.alternatives()]

    def bounds(self, theta: Array) -> tuple[Array, Array]:
        lower, upper = self.inner.bounds(theta[: self._n])
        rest = np.full(len(self._more), np.inf)
        return np.append(lower, -rest), np.append(upper, rest)

    def system(self, theta: Array) -> System | DiscreteSystem:
        return self.inner.system(theta[: self._n])

    def pullback(self, theta: Array, grad: Any) -> Array:
        """The last entries, which no array of the inner model determines, are 0."""
        return np.append(self.inner.pullback(theta[: self._n], grad), np.zeros(len(self._more)))

    def natural(self, theta: Array) -> Array:
        return np.append(self.inner.natural(theta[: self._n]), theta[self._n :])

    def jacobian(self, theta: Array) -> Array:
        out = np.eye(len(theta))
        out[: self._n, : self._n] = self.inner.jacobian(theta[: self._n])
        return out

    def vanishing(self, theta: Array) -> list[int]:
        return self.inner.vanishing(theta[: self._n])

    def model(self, theta: Array) -> LinearSDE | DiscreteModel:
        return self.inner.model(theta[: self._n])
