"""Free arrays of a model as an unconstrained vector: see `parametrisation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from afafilter._base.checks import Array
from afafilter.learning.parameters.base import Parametrisation
from afafilter.likelihood.chain import DiscreteSystem, PriorArrays, System
from afafilter.linalg.discretiser import stationary_covariance
from afafilter.models.discrete import DiscreteModel
from afafilter.models.priors import Prior
from afafilter.models.sde import LinearSDE


@dataclass(frozen=True)
class _Block:
    """Entries of one array of the model that are free."""

    field: str
    label: str
    kind: str  # "entries", "covariance" or "stable"
    index: tuple[Any, ...]  # index arrays (n,) of the natural parameters in the array
    rows: Any = None  # of a covariance, the components that are free

    @property
    def names(self) -> list[str]:
        return [f"{self.label}[{','.join(map(str, k))}]" for k in zip(*self.index, strict=True)]

    @property
    def free(self) -> Any:
        """Index of the part of a covariance that is free."""
        return np.ix_(self.rows, self.rows)


SDE_FIELDS = ("A", "Q", "R", "C", "drift", "offset")
INPUT_FIELDS = {"input": "gain", "direct": "direct"}
"""How inputs drive the state and add to observations: free where the model has forcing."""
DISCRETE_FIELDS = ("F", "Q", "H", "R", "b", "d")
COVARIANCES = ("Q", "R", "prior cov")
LARGEST_NOISE = 100.0
"""Largest variance of noise, in those of the data, that is taken for a start."""

SMALL_NOISE = 0.03
"""Standard deviation of noise, in those of the data, that is a meaningful change of any smaller."""


class MatrixParameters(Parametrisation):
    """Free arrays of a model: entries as they are, covariances by their Cholesky factor.

    stable: A = (S - I) X with S skew and X positive definite, which holds exactly the stable
    matrices (X^-1 solves A P + P A^T = -2 I), in units of each state's own size.
    """

    def __init__(
        self,
        model: LinearSDE | DiscreteModel,
        free: Sequence[str] | Mapping[str, Any],
        units: tuple[Array, float],
        *,
        stable: bool | None = None,
        obs_cov: bool = False,
    ) -> None:
        """`units`: sizes (p,) of the observed components, and the usual interval."""
        self._model = model
        continuous = isinstance(model, LinearSDE)
        if stable and not continuous:
            raise ValueError("stable=True is for LinearSDE")
        self.base: Any = System.of(model) if continuous else DiscreteSystem.of(model)  # type: ignore[arg-type]
        masks = dict(free) if isinstance(free, Mapping) else dict.fromkeys(free)
        if stable is not None and continuous and "A" not in masks:
            raise ValueError(f"stable={stable} would change nothing where A is not free")
        if stable is None:
            stable = continuous and self.base.prior == "stationary" and masks.get("A", 0) is None
        allowed = [*(SDE_FIELDS if continuous else DISCRETE_FIELDS), "prior mean", "prior cov"]
        if isinstance(self.base, System) and self.base.forcing is not None:
            allowed += list(INPUT_FIELDS)
        self.blocks: list[_Block] = []
        for name, mask in masks.items():
            if name not in allowed:
                hint = "; the model has no forcing" if name in INPUT_FIELDS else ""
                raise ValueError(f"free must name {', '.join(allowed)}; got {name!r}{hint}")
            if name == "R" and obs_cov:
                raise ValueError("R cannot be free when obs_cov gives the measurement noise")
            if not continuous and name in model.time_varying:  # type: ignore[union-attr]
                raise ValueError(f"{name} varies with time and cannot be free")
            self.blocks.append(self._block(name, mask, stable))
        if not self.blocks:
            raise ValueError("nothing to fit: free is empty")
        self._sizes, self._gap = units
        self._states = _state_sizes(self.base, *units)
        self._make_definite()
        self.names = tuple(name for b in self.blocks for name in b.names)
        self.positive = np.concatenate(
            [(b.kind == "covariance") & (b.index[0] == b.index[-1]) for b in self.blocks]
        )
        self.typical = np.concatenate([self._typical(b) for b in self.blocks])
        self.logs = self.roots = np.zeros(len(self.names), dtype=bool)

    def _array(self, system: Any, field: str) -> Array:
        if field.startswith("prior"):
            if not isinstance(system.prior, PriorArrays):
                raise ValueError(f"{field} can be free only when the model has a Prior")
            return np.asarray(getattr(system.prior, field.split()[1]))
        return np.asarray(getattr(system, field))

    def _block(self, name: str, mask: Any, stable: bool) -> _Block:
        value = self._array(self.base, INPUT_FIELDS.get(name, name))
        if name in COVARIANCES:
            rows = np.arange(len(value))
            if mask is not None:
                chosen = np.asarray(mask, dtype=bool)
                if chosen.shape != (len(value),):
                    raise ValueError(
                        f"free[{name!r}] must be a mask of the {len(value)} free components, "
                        f"got shape {chosen.shape}"
                    )
                rows = np.flatnonzero(chosen)
                rest = np.setdiff1d(np.arange(len(value)), rows)
                if value[np.ix_(rows, rest)].any():
                    raise ValueError(f"free[{name!r}]: fixed and free components are correlated")
            i, j = np.tril_indices(len(rows))
            return _Block(name, name, "covariance", (rows[i], rows[j]), rows)
        if stable and name == "A":
            if mask is not None:
                raise ValueError("free['A'] cannot be a mask with stable=True")
            if np.linalg.eigvals(value).real.max() >= 0:
                raise ValueError("stable=True needs a stable A to start from")
            return _Block(name, name, "stable", tuple(np.indices(value.shape).reshape(2, -1)))
        chosen = np.ones(value.shape, bool) if mask is None else np.asarray(mask, dtype=bool)
        if chosen.shape != value.shape:
            raise ValueError(
                f"free[{name!r}] must be a mask of shape {value.shape}, got {chosen.shape}"
            )
        return _Block(INPUT_FIELDS.get(name, name), name, "entries", np.nonzero(chosen))

    def _make_definite(self) -> None:
        """Free covariances start definite, or they could not move: a little is added if not.

        In units of each component's own size, of which R is no more than `LARGEST_NOISE`: what is
        larger was thought of in other units, and a tenth of the data's variances starts instead.
        """
        for block in self.blocks:
            if block.kind != "covariance":
                continue
            value = self._array(self.base, block.field)
            unit = (self._sizes if block.field == "R" else self._states)[block.rows]
            if block.field == "Q" and isinstance(self.base, System):
                unit = unit / self._gap**0.5
            part = value[block.free] / np.outer(unit, unit)
            if block.field == "R" and part.diagonal().max(initial=0.0) > LARGEST_NOISE:
                part = 0.1 * np.eye(len(part))
                value[block.free] = part * np.outer(unit, unit)
            floor = 1e-4 * max(float(np.trace(part)) / max(len(part), 1), 1e-2)
            if len(part) and np.linalg.eigvalsh(part)[0] < 1e-10 * floor:
                value[block.free] += floor * np.diag(unit**2)

    def _typical(self, block: _Block) -> Array:
        value = self._array(self.base, block.field)
        if block.kind == "covariance":
            size = np.sqrt(value[block.index[0], block.index[0]])
            least = (
                SMALL_NOISE * self._sizes[block.rows][block.index[0]] if block.field == "R" else 0.0
            )
            return np.asarray(np.maximum(size, least))
        if block.kind == "stable":
            skew, lower = self._split(self._theta(block, value))
            return np.concatenate([np.ones(len(skew)), np.full(len(lower), np.abs(lower).max())])
        rows = self._sizes if block.field in ("C", "H", "offset", "d", "direct") else self._states
        unit = rows / self._gap if block.field in ("A", "drift") else rows
        if block.field in ("A", "C", "F", "H"):
            relative = np.abs(value) * self._states / unit[:, None]
            unit = max(float(relative.max()), 0.1) * unit[:, None] / self._states
        elif value.ndim == 2:
            unit = unit[:, None]
        return np.asarray(np.broadcast_to(unit, value.shape)[block.index])

    def start(self) -> Array:
        return np.concatenate(
            [self._theta(b, self._array(self.base, b.field)) for b in self.blocks]
        )

    def _theta(self, block: _Block, value: Array) -> Array:
        if block.kind == "entries":
            return np.asarray(value[block.index])
        if block.kind == "stable":
            d, value = len(value), value / self._state_units()
            P = stationary_covariance(value, 2 * np.eye(d))
            S = value @ P + np.eye(d)
            L = np.linalg.cholesky(np.linalg.inv(P))
            return np.concatenate([0.5 * (S - S.T)[np.tril_indices(d, -1)], _lower(L)])
        return _lower(np.linalg.cholesky(value[block.free]))

    def _parts(self) -> list[tuple[_Block, slice]]:
        ends = np.cumsum([0, *(len(b.index[0]) for b in self.blocks)])
        return [(b, slice(ends[k], ends[k + 1])) for k, b in enumerate(self.blocks)]

    def system(self, theta: Array) -> Any:
        changed: dict[str, Array] = {}
        prior = self.base.prior
        for block, part in self._parts():
            value = self._array(self.base, block.field).copy()
            x = theta[part]
            if block.kind == "entries":
                value[block.index] = x
            elif block.kind == "stable":
                S, L = self._stable_factors(x)
                value = (S - np.eye(len(S))) @ L @ L.T * self._state_units()
            else:
                L = _from_lower(x, len(block.rows))
                value[block.free] = L @ L.T
            if block.field.startswith("prior"):
                prior = prior._replace(**{block.field.split()[1]: value})
            else:
                changed[block.field] = value
        return self.base._replace(prior=prior, **changed)

    def _state_units(self) -> Array:
        """Unit s_i / s_j of each entry of A, in which it is parametrised where it is stable."""
        return np.asarray(self._states[:, None] / self._states)

    def _split(self, x: Array) -> tuple[Array, Array]:
        """Of a stable A, the lower triangles of S and of the factor of X."""
        d = len(self.base.A)
        return x[: d * (d - 1) // 2], x[d * (d - 1) // 2 :]

    def _stable_factors(self, x: Array) -> tuple[Array, Array]:
        d = len(self.base.A)
        S, (skew, lower) = np.zeros((d, d)), self._split(x)
        S[np.tril_indices(d, -1)] = skew
        return S - S.T, _from_lower(lower, d)

    def pullback(self, theta: Array, grad: Any) -> Array:
        return np.concatenate(
            [
                self._pullback(b, theta[part], self._array(grad, b.field))
                for b, part in self._parts()
            ]
        )

    def _pullback(self, block: _Block, x: Array, G: Array) -> Array:
        """Gradient by one block's coordinates from that by its array."""
        if block.kind == "entries":
            return np.asarray(G[block.index])
        if block.kind == "stable":
            S, L = self._stable_factors(x)
            G = G * self._state_units()
            M = G @ L @ L.T
            gX = (S - np.eye(len(S))).T @ G
            return np.concatenate([(M - M.T)[np.tril_indices(len(M), -1)], _lower((gX + gX.T) @ L)])
        L = _from_lower(x, len(block.rows))
        G = G[block.free]
        return _lower((G + G.T) @ L)

    def natural(self, theta: Array) -> Array:
        system = self.system(theta)
        return np.concatenate([self._array(system, b.field)[b.index] for b in self.blocks])

    def jacobian(self, theta: Array) -> Array:
        """Row by row: the pull of one unit of each natural parameter."""
        out = np.zeros((len(theta), len(theta)))
        for block, part in self._parts():
            for k, place in enumerate(zip(*block.index, strict=True)):
                unit = np.zeros_like(self._array(self.base, block.field))
                unit[place] = 1.0
                if block.kind == "covariance":
                    unit = 0.5 * (unit + unit.T)
                out[part.start + k, part] = self._pullback(block, theta[part], unit)
        return out

    def model(self, theta: Array) -> LinearSDE | DiscreteModel:
        system = self.system(theta)
        changes: dict[str, Any] = {
            b.field: getattr(system, b.field)
            for b in self.blocks
            if not b.field.startswith("prior") and b.label not in INPUT_FIELDS
        }
        if {b.label for b in self.blocks} & INPUT_FIELDS.keys():
            forcing = system.forcing
            changes["forcing"] = replace(forcing, matrix=system.gain, direct=system.direct)
        old = self._model.prior
        if isinstance(old, Prior) and isinstance(system.prior, PriorArrays):
            changes["prior"] = Prior(system.prior.mean, system.prior.cov, old.t0, old.diffuse)
        return replace(self._model, **changes)


def _state_sizes(base: Any, sizes: Array, gap: float) -> Array:
    """Sizes (d,) of states that show as `sizes` (p,) of observed components.

    A state that none shows has the size that moves one so far in an interval, through others. The
    unit of a state or of an observed component changes only its own size.
    """
    dynamics, C = (base.A * gap, base.C) if isinstance(base, System) else (base.F, base.H)
    d, p = C.shape[-1], len(sizes)
    coupling = np.abs(dynamics).reshape(-1, d, d).max(axis=0)
    shown = np.abs(C).reshape(-1, p, d).max(axis=0) / sizes[:, None]
    largest = shown.max(axis=0)
    for _ in range(d - 1):
        if largest.all():
            break
        shown = shown @ coupling
        largest = np.where(largest > 0, largest, shown.max(axis=0))
    return np.where(largest > 0, 1.0 / np.where(largest > 0, largest, 1.0), 1.0)


def _from_lower(x: Array, n: int) -> Array:
    L = np.zeros((n, n))
    L[np.tril_indices(n)] = x
    return L


def _lower(L: Any) -> Array:
    return np.asarray(L[np.tril_indices(len(L))])
