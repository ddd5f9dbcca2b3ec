"""Regressors of the observations, whose coefficients are fitted: z = C x + offset + D u(t) + v."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from afafilter._base.checks import Array, real_array
from afafilter.learning.parameters.parametrisation import Parametrisation
from afafilter.likelihood.chain import System
from afafilter.models.forcing import Forcing
from afafilter.models.sde import LinearSDE


def regressors(inputs: Any, t: Array) -> Forcing:
    """Inputs as `fit` takes them: a `Forcing` without matrices whose names are told.

    Raises
    ------
    ValueError
        Wrong lengths, values missing, two values at one time, a `Forcing` with matrices.
    """
    if isinstance(inputs, Forcing):
        if inputs.matrix is not None or inputs.direct is not None:
            raise ValueError(
                "inputs are regressors whose effect is fitted; a Forcing with matrix or direct is "
                "part of the model: replace(model, forcing=...)"
            )
        inputs.values(t)
        m = inputs.u.shape[1]
        return inputs if inputs.names else replace(inputs, names=_numbered(m))
    names: tuple[str, ...] = ()
    if isinstance(inputs, Mapping) or hasattr(inputs, "columns"):
        names = tuple(map(str, inputs))
        if not names:
            raise ValueError("inputs must hold at least one column, got none")
        inputs = np.stack([real_array(inputs[key], f"inputs {key!r}") for key in inputs], axis=-1)
    u = real_array(inputs, "inputs")
    if u.ndim == 1:
        u = u[:, None]
    if u.ndim != 2 or len(u) != len(t):
        raise ValueError(
            f"inputs must have shape ({len(t)}, m), one row for each time, got {u.shape}"
        )
    first = np.flatnonzero(np.diff(t, prepend=-np.inf) > 0)
    own = np.repeat(first, np.diff([*first, len(t)]))
    if (u != u[own]).any():
        at = int(np.flatnonzero((u != u[own]).any(axis=1))[0])
        raise ValueError(f"inputs must have one value at a time, got two at t = {t[at]:g}")
    return Forcing(t[first], u[first], names=names or _numbered(u.shape[1]))


def _numbered(m: int) -> tuple[str, ...]:
    return tuple(f"input{k}" for k in range(m)) if m > 1 else ("input",)


def first_effect(forcing: Forcing, t: Array, z: Array) -> Array:
    """D (p, m) to start from: least squares between the differences of neighbours in time."""
    u = forcing.values(t)
    du = np.diff(u, axis=0)
    dz = np.diff(z, axis=-2).reshape(-1, len(du), z.shape[-1])
    D = np.zeros((z.shape[-1], u.shape[1]))
    for c in range(z.shape[-1]):
        path, row = np.nonzero(np.isfinite(dz[:, :, c]))
        if len(row):
            D[c] = np.linalg.lstsq(du[row], dz[path, row, c], rcond=1e-10)[0]
    return D


class InputParameters:
    """Another parametrisation and, after its own, the entries of D."""

    def __init__(
        self, inner: Parametrisation, forcing: Forcing, effect: Array, size: float
    ) -> None:
        self.inner, self._forcing, self._start = inner, forcing, effect
        p, m = effect.shape
        own = [name if p == 1 else f"{name}[{c}]" for c in range(p) for name in forcing.names]
        taken = set(own) & set(inner.names)
        if taken or len(set(own)) < len(own):
            raise ValueError(
                f"inputs must have names of their own, got {own} beside {list(inner.names)}"
            )
        self.names = (*inner.names, *own)
        no = np.zeros(p * m, dtype=bool)
        self.positive, self.logs, self.roots = (
            np.concatenate([np.asarray(flags), no])
            for flags in (inner.positive, inner.logs, inner.roots)
        )
        spread = np.where(forcing.u.std(axis=0) > 0, forcing.u.std(axis=0), 1.0)
        unit = np.maximum(np.abs(effect), 0.1 * size / spread)
        self.typical = np.concatenate([inner.typical, unit.ravel()])
        self._n = len(inner.typical)

    def start(self) -> Array:
        """Theta of the starting model."""
        return np.concatenate([self.inner.start(), self._start.ravel()])

    def alternatives(self) -> list[Array]:
        """Other starts."""
        others: list[Array] = getattr(self.inner, "alternatives", list)()
        return [np.concatenate([theta, self._start.ravel()]) for theta in others]

    def bounds(self, theta: Array) -> tuple[Array, Array]:
        """Lower and upper bounds around a starting theta."""
        lower, upper = self.inner.bounds(theta[: self._n])
        reach = np.full(len(theta) - self._n, np.inf)
        return np.concatenate([lower, -reach]), np.concatenate([upper, reach])

    def _effect(self, theta: Array) -> Array:
        return np.array(theta[self._n :]).reshape(self._start.shape)

    def system(self, theta: Array) -> System:
        """Arrays of the model."""
        system = self.inner.system(theta[: self._n])
        assert isinstance(system, System)
        return system.driven(replace(self._forcing, direct=self._effect(theta)))

    def pull(self, theta: Array, grad: Any) -> Array:
        """Gradient by theta from the gradients by the model's arrays."""
        return np.concatenate([self.inner.pull(theta[: self._n], grad), grad.direct.ravel()])

    def natural(self, theta: Array) -> Array:
        """Natural parameters (n,)."""
        return np.concatenate([self.inner.natural(theta[: self._n]), theta[self._n :]])

    def jacobian(self, theta: Array) -> Array:
        """d natural / d theta (n, n)."""
        out = np.eye(len(theta))
        out[: self._n, : self._n] = self.inner.jacobian(theta[: self._n])
        return out

    def vanishing(self, theta: Array) -> list[int]:
        """Coordinates that are nearly 0 and may be put to 0 exactly."""
        return self.inner.vanishing(theta[: self._n])

    def model(self, theta: Array) -> LinearSDE:
        """The validated model, with these inputs."""
        model = self.inner.model(theta[: self._n])
        assert isinstance(model, LinearSDE)
        return replace(model, forcing=replace(self._forcing, direct=self._effect(theta)))
