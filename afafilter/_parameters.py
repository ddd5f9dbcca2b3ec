"""From an unconstrained vector theta to a model, and gradients back.

A parametrisation knows its natural parameters (what is reported), the arrays of the model at theta,
and the chain rule from gradients by those arrays to the gradient by theta.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from afafilter._likelihood import DiscreteSystem, PriorArrays, System
from afafilter._matrix_parameters import MatrixParameters
from afafilter._noise_levels import NoiseLevels
from afafilter._start_values import data_scales
from afafilter._validate import Array
from afafilter.families import Block, Component, Family, assemble
from afafilter.models import DiscreteModel, LinearSDE

TINY = 1e-30
LOG_REACH = 25.0
"""Logarithms of positive parameters stay within this of their start."""


class Parametrisation(Protocol):
    """What a fit needs to know about its parameters."""

    names: tuple[str, ...]
    positive: Any  # (n,) bool: natural parameters that cannot be negative
    typical: Array  # (n,) sizes of meaningful changes of theta
    logs: Any  # (n,) bool: coordinates that are the logarithm of their natural parameter
    roots: Any  # (n,) bool: coordinates that are the square root of it

    def start(self) -> Array:
        """Theta of the starting model."""

    def bounds(self, theta: Array) -> tuple[Array, Array]:
        """Lower and upper bounds around a starting theta."""

    def system(self, theta: Array) -> System | DiscreteSystem:
        """Arrays of the model."""

    def pull(self, theta: Array, grad: Any) -> Array:
        """Gradient by theta from the gradients by the model's arrays."""

    def natural(self, theta: Array) -> Array:
        """Natural parameters (n,)."""

    def jacobian(self, theta: Array) -> Array:
        """d natural / d theta (n, n)."""

    def vanishing(self, theta: Array) -> list[int]:
        """Coordinates that are nearly 0 and may be put to 0 exactly (a boundary)."""

    def model(self, theta: Array) -> LinearSDE | DiscreteModel:
        """The validated model."""


class FamilyParameters:
    """Free parameters of a family: positive ones by their logarithm, nonnegative by their root.

    The root makes a maximum at 0 an ordinary one: the likelihood is smooth in the root and its
    slope there is 0, whereas a logarithm would run away. Derivatives of the matrices by complex
    steps: exact to rounding for the analytic formulas of which families are made.
    """

    def __init__(self, family: Family, start: Mapping[str, float], size: float) -> None:
        self.family = family
        self.names = family.free
        if not self.names:
            raise ValueError("nothing to fit: every parameter of the family is fixed or tied")
        parameters = family.parameters
        domains = np.array([parameters[name].domain for name in self.names])
        self.logs, self.roots = domains == "positive", domains == "nonnegative"
        self.positive = domains != "real"
        self._start = np.array([float(start[name]) for name in self.names])
        for name, value, positive in zip(self.names, self._start, self.positive, strict=True):
            if not np.isfinite(value) or (positive and value <= 0):
                raise ValueError(f"start value of {name} must be finite and > 0, got {value:g}")
        level = np.array(["offset" in name for name in self.names])
        real = np.where(level, size, np.maximum(np.abs(self._start), TINY))
        self._kinds = [2 if log else int(sq) for log, sq in zip(self.logs, self.roots)]
        root = np.sqrt(np.abs(self._start))
        self.typical = np.where(self.logs, 1.0, np.where(self.roots, root, real))
        self._layout = _layout(family, self.names)
        self._dims = family.dim, family.obs_dim

    def start(self) -> Array:
        x = np.abs(self._start)
        logs = np.log(np.where(self.logs, x, 1.0))
        return np.where(self.logs, logs, np.where(self.roots, np.sqrt(x), self._start))

    def bounds(self, theta: Array) -> tuple[Array, Array]:
        reach = np.where(self.logs, LOG_REACH, np.inf)
        return theta - reach, theta + reach

    def natural(self, theta: Array) -> Array:
        return np.array(self._natural(theta))

    def _natural(self, theta: Array) -> list[float]:
        return [
            x if kind == 0 else x * x if kind == 1 else math.exp(x)
            for x, kind in zip(theta.tolist(), self._kinds, strict=True)
        ]

    def _slopes(self, theta: Array) -> list[float]:
        return [
            1.0 if kind == 0 else 2 * x if kind == 1 else math.exp(x)
            for x, kind in zip(theta.tolist(), self._kinds, strict=True)
        ]

    def jacobian(self, theta: Array) -> Array:
        return np.diag(self._slopes(theta))

    def vanishing(self, theta: Array) -> list[int]:
        """Coordinates that may be exactly 0: nonnegative parameters that are nearly so."""
        return np.flatnonzero(self.roots & (np.abs(theta) < 0.03 * self.typical)).tolist()

    def _arguments(self, values: list[float]) -> list[list[Any]]:
        return [
            [values[k] if k >= 0 else fixed for k, fixed in sources] for _, sources in self._layout
        ]

    def system(self, theta: Array) -> System:
        blocks = [
            component.build(*given)
            for (component, _), given in zip(
                self._layout, self._arguments(self._natural(theta)), strict=True
            )
        ]
        return assemble(blocks, *self._dims)

    def pull(self, theta: Array, grad: System) -> Array:
        out = [0.0] * len(theta)
        slopes = self._slopes(theta)
        arguments = self._arguments(self._natural(theta))
        row = 0
        for (component, sources), given in zip(self._layout, arguments, strict=True):
            place = slice(row, row + component.dim)
            for i, (k, _) in enumerate(sources):
                if k >= 0:
                    stepped = list(given)
                    stepped[i] = complex(given[i], TINY)
                    slope = _inner(component.build(*stepped), grad, place)
                    out[k] += slope * slopes[k] / TINY
            row += component.dim
        return np.array(out)

    def model(self, theta: Array) -> LinearSDE:
        values = dict(zip(self.names, self._natural(theta), strict=True))
        return self.family.model(self.family.complete(values))


def _layout(family: Family, names: tuple[str, ...]) -> list[tuple[Component, list[Any]]]:
    """Per component the source of each argument: (index into the free values, -1: fixed value)."""
    order = iter(family.parameters)
    out = []
    for component in family.components:
        sources = []
        for _ in component.params:
            name = next(order)
            name = family.ties.get(name, name)
            free = name in names
            sources.append((names.index(name) if free else -1, family.fixed.get(name)))
        out.append((component, sources))
    return out


def _inner(block: Block, grad: System, place: slice) -> float:
    """Inner product of a gradient with the imaginary part of a component's block."""
    assert isinstance(grad.prior, PriorArrays)
    own = (place, place)
    parts = (
        (block.R, grad.R, ...),
        (block.offset, grad.offset, ...),
        (block.A, grad.A, own),
        (block.Q, grad.Q, own),
        (block.C, grad.C, (..., place)),
        (block.cov, grad.prior.cov, own),
    )
    return sum(
        float(np.vdot(value.imag, target[where]))
        for value, target, where in parts
        if value is not None and value.dtype.kind == "c"
    )


def parametrisation(
    model: LinearSDE | DiscreteModel | Family,
    t: ArrayLike,
    z: Array,
    free: Sequence[str] | Mapping[str, Any] | NoiseLevels | None,
    *,
    stable: bool | None = None,
    obs_cov: bool = False,
) -> Parametrisation:
    """The parametrisation that `fit` works with."""
    if isinstance(free, NoiseLevels):
        return free
    if isinstance(model, Family):
        scales = data_scales(np.asarray(t, float), z, model.obs_dim)
        start = model.guess_from(scales)
        if free is not None:
            if isinstance(free, Mapping):
                raise ValueError("free of a family must be names, not masks")
            for name in free:
                if name not in model.free:
                    raise ValueError(f"free must name {', '.join(model.free)}; got {name!r}")
            model = model.fix({n: start[n] for n in model.free if n not in free})
        return FamilyParameters(model, start, scales.var**0.5)
    if free is None:
        if isinstance(model, LinearSDE):
            free = [name for name in ("A", "Q", "R", "drift") if not (name == "R" and obs_cov)]
        else:
            free = [
                name
                for name in ("F", "Q", "R", "b")
                if name not in model.time_varying and not (name == "R" and obs_cov)
            ]
    elif isinstance(free, str):
        free = [free]
    scales = data_scales(np.asarray(t, float), z, model.obs_dim)
    return MatrixParameters(model, free, (scales.var, scales.gap), stable=stable, obs_cov=obs_cov)
