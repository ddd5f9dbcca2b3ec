"""Regressors of the observations, whose coefficients are fitted: z = C x + offset + D u(t) + v."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from afafilter._base.checks import Array, real_array
from afafilter.learning.parameters.base import ExtendedParameters, Parametrisation
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
    keys: Any = getattr(inputs, "column_names", None) or getattr(inputs, "columns", None)
    keys = inputs if isinstance(inputs, Mapping) else keys
    if keys is not None:
        names = tuple(map(str, keys))
        if not names:
            raise ValueError("inputs must hold at least one column, got none")
        columns = [real_array(inputs[key], f"inputs {key!r}", booleans=True) for key in keys]
        inputs = np.stack(columns, axis=-1)
    u = real_array(inputs, "inputs", booleans=True)
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


class InputParameters(ExtendedParameters):
    """Another parametrisation and, after its own, the entries of D."""

    def __init__(
        self, inner: Parametrisation, forcing: Forcing, effect: Array, sizes: Array
    ) -> None:
        p = len(effect)
        own = [name if p == 1 else f"{name}[{c}]" for c in range(p) for name in forcing.names]
        taken = set(own) & set(inner.names)
        if taken or len(set(own)) < len(own):
            raise ValueError(
                f"inputs must have names of their own, got {own} beside {list(inner.names)}"
            )
        self._forcing, self._shape = forcing, effect.shape
        spread = np.where(forcing.u.std(axis=0) > 0, forcing.u.std(axis=0), 1.0)
        unit = np.maximum(np.abs(effect), 0.1 * sizes[:, None] / spread)
        super().__init__(inner, own, effect.ravel(), unit.ravel())

    def _driven_by(self, theta: Array) -> Forcing:
        return replace(self._forcing, direct=np.array(theta[self._n :]).reshape(self._shape))

    def system(self, theta: Array) -> System:
        system = super().system(theta)
        assert isinstance(system, System)
        return system.driven(self._driven_by(theta))

    def pullback(self, theta: Array, grad: Any) -> Array:
        return np.append(self.inner.pullback(theta[: self._n], grad), grad.direct)

    def model(self, theta: Array) -> LinearSDE:
        model = super().model(theta)
        assert isinstance(model, LinearSDE)
        return replace(model, forcing=self._driven_by(theta))
