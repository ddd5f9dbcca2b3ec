"""The noise levels of a model built from presets, as what a fit may move: structure stays.

One parameter for the process noise of every summand and one for the measurement noise, each
scaling a covariance that keeps its pattern: Q = sum_k q_k Q_k, R = r R_1. What is 0 stays 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from afafilter._base.checks import Array
from afafilter.io.model_toml import model_from_table, parameters, read_toml
from afafilter.learning.parameters.base import Parametrisation
from afafilter.likelihood.chain import PriorArrays, System
from afafilter.models.priors import Prior
from afafilter.models.sde import LinearSDE


class NoiseLevels(Parametrisation):
    """Levels by their square roots, at which the likelihood is smooth also where one is 0.

    Parameters
    ----------
    model : LinearSDE
        The whole.
    parts : sequence of tuple
        Of every summand, in the order of the states, its name, its number
        of states and whether its share of the prior is its stationary law, which follows its level.
    obs_cov : bool
        Whether the measurement noise is given with the data, so that R does not move.
    """

    def __init__(
        self, model: LinearSDE, parts: Sequence[tuple[str, int, bool]], obs_cov: bool = False
    ) -> None:
        self._model = model
        self._base: Any = System.of(model)
        prior: Any = self._base.prior
        joined = isinstance(prior, PriorArrays)
        names: list[str] = []
        levels: list[float] = []
        directions: list[Any] = []
        first = 0
        for name, dim, stationary in parts:
            own = slice(first, first + dim)
            first += dim
            level = float(np.diag(model.Q)[own].max())
            if level == 0:
                continue
            shape: Any = self._zero()
            shape.Q[own, own] = model.Q[own, own] / level
            if joined and stationary:
                shape.prior.cov[own, own] = prior.cov[own, own] / level
            names.append(name)
            levels.append(level)
            directions.append(shape)
        noise = float(np.diag(model.R).max())
        if noise > 0 and not obs_cov:
            shape = self._zero()
            shape.R[:] = model.R / noise
            names.append("obs_var")
            levels.append(noise)
            directions.append(shape)
        if not names:
            raise ValueError("nothing to fit: every noise of the model is 0; see --free")
        self._move(names, np.array(levels), directions)

    def _move(self, names: Sequence[str], levels: Array, directions: Sequence[Any]) -> None:
        self.names, self._levels, self._directions = tuple(names), levels, directions
        self.typical = np.sqrt(levels)
        self.positive = self.roots = np.ones(len(levels), dtype=bool)
        self.logs = np.zeros(len(levels), dtype=bool)

    def only(self, names: Sequence[str]) -> NoiseLevels:
        """The same with some of the levels free; ValueError for a name that is none of them."""
        for name in names:
            if name not in self.names:
                raise ValueError(
                    f"free must name levels of the model ({', '.join(self.names)}) or its arrays "
                    f"(A, Q, R, C, drift, offset), got {name!r}"
                )
        chosen = [self.names.index(name) for name in dict.fromkeys(names)]
        out = copy(self)
        directions = [self._directions[k] for k in chosen]
        out._move([self.names[k] for k in chosen], self._levels[chosen], directions)
        return out

    def _zero(self) -> System:
        base = self._base
        prior = base.prior
        if isinstance(prior, PriorArrays):
            prior = prior._replace(cov=np.zeros_like(prior.cov))
        zero: System = base._replace(Q=np.zeros_like(base.Q), R=np.zeros_like(base.R), prior=prior)
        return zero

    def start(self) -> Array:
        return self.typical.copy()

    def vanishing(self, theta: Array) -> list[int]:
        """Levels that are nearly 0 and may be put to 0 exactly."""
        return np.flatnonzero(np.abs(theta) < 0.03 * self.typical).tolist()

    def natural(self, theta: Array) -> Array:
        return np.asarray(theta**2)

    def jacobian(self, theta: Array) -> Array:
        return np.diag(2 * theta)

    def system(self, theta: Array) -> System:
        change = theta**2 - self._levels
        Q, R = self._base.Q.copy(), self._base.R.copy()
        prior = self._base.prior
        own = isinstance(prior, PriorArrays)
        cov = prior.cov.copy() if own else None
        for by, shape in zip(change, self._directions, strict=True):
            Q += by * shape.Q
            R += by * shape.R
            if own:
                cov += by * shape.prior.cov
        system: System = self._base._replace(
            Q=Q, R=R, prior=prior._replace(cov=cov) if own else prior
        )
        return system

    def pullback(self, theta: Array, grad: Any) -> Array:
        out = np.empty(len(theta))
        for k, shape in enumerate(self._directions):
            out[k] = np.vdot(grad.Q, shape.Q) + np.vdot(grad.R, shape.R)
            if isinstance(self._base.prior, PriorArrays):
                out[k] += np.vdot(grad.prior.cov, shape.prior.cov)
        return 2 * theta * out

    def model(self, theta: Array) -> LinearSDE:
        system, old = self.system(theta), self._model.prior
        changes: dict[str, Any] = {"Q": system.Q, "R": system.R}
        if isinstance(old, Prior) and isinstance(system.prior, PriorArrays):
            changes["prior"] = Prior(system.prior.mean, system.prior.cov, old.t0, old.diffuse)
        return replace(self._model, **changes)


def noise_levels(path: Path, model: LinearSDE, obs_cov: bool = False) -> NoiseLevels | None:
    """The noise levels of a model from a file of presets or a sum; None if it gives matrices."""
    table = read_toml(path)["model"]
    if "preset" not in table and "sum" not in table:
        return None
    parts = list(_parts(table))
    labels = [part[0] for part in parts]
    names = []
    for k, label in enumerate(labels):
        word, _, level = label.partition(".")
        rank = labels[: k + 1].count(label)
        names.append(level if len(parts) == 1 else f"{word}{rank if rank > 1 else ''}.{level}")
    named = [(name, *part[1:]) for name, part in zip(names, parts, strict=True)]
    return NoiseLevels(model, named, obs_cov)


def _parts(table: Mapping[str, Any], own: bool = True) -> list[tuple[str, int, bool]]:
    """Of every summand: preset and name of its level, states, whether stationary.

    own : whether no sum around it has a prior that replaces the summands' own.
    """
    from afafilter.models import presets

    if "sum" in table:
        return [
            part for inner in table["sum"] for part in _parts(inner, own and "prior" not in table)
        ]
    name = table.get("preset", "model")
    takes = parameters(getattr(presets, name)) if "preset" in table else []
    level = "process_var" if "process_var" in takes and name != "random_stable" else "Q"
    part = model_from_table(table)
    stationary = isinstance(part.prior, str) and part.prior == "stationary"
    return [(f"{name}.{level}", part.dim, own and stationary)]
