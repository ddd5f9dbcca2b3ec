"""The machinery of families: components with named parameters, and their sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import observations, scalar, times
from afafilter._base.containers import take
from afafilter.learning.start_values import GUESSES, Scales, data_scales
from afafilter.likelihood.chain import PriorArrays, System
from afafilter.linalg.block_diagonal import block_diagonal
from afafilter.models.blocks import Block
from afafilter.models.priors import Prior
from afafilter.models.sde import LinearSDE

NO_STATE = (
    "noise and constant alone have no state that moves: add a component such as brownian, "
    "ornstein_uhlenbeck or cycle"
)


@dataclass(frozen=True)
class Param:
    """A parameter: its name, where it may lie, and how to guess it from data.

    domain : "real"; "positive" (fitted by its logarithm); "nonnegative" (fitted by its square root,
        can be or become 0).
    guess : of the sizes in the data and of the rank of the component among those of its kind, or
        its name in `GUESSES`.
    amplitude : whether each axis of a component of several axes may have its own.
    axis : the component of the observations that it is about; None: all.
    """

    name: str
    domain: str
    guess: str | Callable[[Scales, int], float]
    amplitude: bool = False
    axis: int | None = None


@dataclass(frozen=True)
class Component:
    """One summand of a family: `build(values) -> Block`, values in the order of `params`.

    affine : whether the block is an affine function of the values. Its derivatives are then
        computed once per fit instead of at every evaluation.
    """

    label: str
    params: tuple[Param, ...]
    build: Callable[..., Block]
    obs_dim: int = 1
    dim: int = 1
    affine: bool = False


@dataclass(frozen=True)
class Family:
    """A sum of components with named parameters; some may be fixed or tied together.

    Attributes
    ----------
    components : tuple of Component
        The summands.
    start : mapping
        Starting values given by the caller; the others are guessed from the data.
    fixed : mapping
        Values that do not move.
    ties : mapping
        Follower name -> leader name; the follower always equals the leader.
    """

    components: tuple[Component, ...]
    start: Mapping[str, float] = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)
    ties: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        dims = {c.obs_dim for c in self.components}
        if len(dims) > 1:
            raise ValueError(f"components must observe the same number of values, got {dims}")

    @property
    def obs_dim(self) -> int:
        """Number of observed components p."""
        return self.components[0].obs_dim

    @property
    def dim(self) -> int:
        """Number of state components d."""
        return sum(c.dim for c in self.components)

    @cached_property
    def parameters(self) -> dict[str, Param]:
        """All parameters by full name."""
        several = sum(c.dim > 0 for c in self.components) > 1
        occurrences: dict[str, int] = {}
        out: dict[str, Param] = {}
        for c in self.components:
            occurrences[c.label] = count = occurrences.get(c.label, 0) + 1
            label = c.label if count == 1 else f"{c.label}{count}"
            for param in c.params:
                bare = count == 1 and not (several and c.dim > 0)
                out[param.name if bare else f"{label}.{param.name}"] = param
        return out

    @property
    def free(self) -> tuple[str, ...]:
        """Names that a fit may move: neither fixed nor followers of another."""
        return tuple(n for n in self.parameters if n not in self.fixed and n not in self.ties)

    def __add__(self, other: Family) -> Family:
        """Independent components side by side.

        Settings made before (start, fixed, ties) are carried over under the new names.
        """
        if not isinstance(other, Family):
            return NotImplemented
        total = Family(self.components + other.components)
        renamed = list(total.parameters)
        mine, theirs = list(self.parameters), list(other.parameters)
        names = dict(zip(mine, renamed)), dict(zip(theirs, renamed[len(mine) :]))
        merged: list[dict[str, Any]] = [{}, {}, {}]
        for family, name in zip((self, other), names, strict=True):
            for k, part in enumerate((family.start, family.fixed)):
                merged[k].update({name[key]: value for key, value in part.items()})
            merged[2].update({name[a]: name[b] for a, b in family.ties.items()})
        return replace(total, start=merged[0], fixed=merged[1], ties=merged[2])

    def at(self, values: Mapping[str, float] | None = None, **more: float) -> Family:
        """The family with these starting values."""
        return replace(self, start={**self.start, **self._checked(values, more)})

    def fix(self, values: Mapping[str, float] | None = None, **more: float) -> Family:
        """The family with these parameters held at these values."""
        return replace(self, fixed={**self.fixed, **self._checked(values, more, fixed=True)})

    def tie(self, leader: str, follower: str) -> Family:
        """The family with `follower` always equal to `leader`."""
        for name in (leader, follower):
            self._known(name)
        if leader == follower or leader in self.ties:
            raise ValueError(f"tie: {leader!r} cannot lead {follower!r}")
        return replace(self, ties={**self.ties, follower: leader})

    def _known(self, name: str) -> Param:
        parameters = self.parameters
        if name not in parameters:
            raise ValueError(f"unknown parameter {name!r}; this family has {', '.join(parameters)}")
        return parameters[name]

    def _checked(
        self, values: Mapping[str, float] | None, more: Mapping[str, float], fixed: bool = False
    ) -> dict[str, float]:
        out = {}
        for name, value in {**(values or {}), **more}.items():
            domain = self._known(name).domain
            low = -np.inf if domain == "real" else 0.0
            strict = domain == "positive" or (domain == "nonnegative" and not fixed)
            out[name] = scalar(value, name, low=low, strict=strict)
        return out

    def complete(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters from the free ones: fixed and tied values filled in."""
        out = {**values, **self.fixed}
        for follower, leader in self.ties.items():
            out[follower] = out[leader]
        missing = [name for name in self.parameters if name not in out]
        if missing:
            raise ValueError(
                f"params must hold a value for {', '.join(missing)}: params={{{missing[0]!r}: ...}}"
            )
        return {name: out[name] for name in self.parameters}

    def at_values(self, params: Mapping[str, float]) -> dict[str, float]:
        """All parameters from `start` and these values, each checked.

        Raises
        ------
        ValueError
            If a value is missing, unknown or outside its domain.
        """
        return self.complete(self._checked({**self.start, **params}, {}, fixed=True))

    def system(self, values: Mapping[str, float]) -> System:
        """Plain arrays of the components side by side; `values` complete and in order."""
        numbers = iter(values.values())
        blocks = [c.build(*(next(numbers) for _ in c.params)) for c in self.components]
        A, Q, P, flat = (
            block_diagonal(*(getattr(block, name) for block in blocks))
            for name in ("A", "Q", "cov", "flat")
        )
        R = np.zeros((self.obs_dim, self.obs_dim))
        R = sum((block.R for block in blocks if block.R is not None), R)
        offset = sum((b.offset for b in blocks if b.offset is not None), np.zeros(self.obs_dim))
        C, mean = np.hstack([block.C for block in blocks]), np.zeros(self.dim)
        return System(A, Q, mean, C, offset, R, PriorArrays(mean, P, flat))

    def model(self, values: Mapping[str, float] | None = None, **more: float) -> LinearSDE:
        """The model at these parameter values.

        Raises
        ------
        ValueError
            If a value is missing, unknown or outside its domain, or no component has a state.
        """
        return self.model_of(self.system(self.at_values({**(values or {}), **more})))

    def model_of(self, system: System) -> LinearSDE:
        """The model with these arrays."""
        if self.dim == 0:
            raise ValueError(NO_STATE)
        assert isinstance(system.prior, PriorArrays)
        d, q = system.prior.flat.shape
        prior: Any
        if q in (0, d):
            prior = "stationary" if q == 0 else "diffuse"
        else:
            prior = Prior(system.prior.mean, system.prior.cov, None, system.prior.flat)
        return LinearSDE(
            system.A,
            Q=system.Q,
            R=system.R,
            C=system.C,
            offset=system.offset,
            prior=prior,
            parts=tuple((c.label, c.dim) for c in self.components if c.dim > 0),
        )

    def guess(self, t: ArrayLike, z: ArrayLike) -> dict[str, float]:
        """Starting values: those of `start`, the others guessed from the data."""
        t, z, _ = take(t, z, "D", obs_dim=self.obs_dim)
        grid = times(t)
        values = observations(z, len(grid), self.obs_dim)
        return self.guess_from(data_scales(grid, values, self.obs_dim))

    def guess_from(self, scales: Scales) -> dict[str, float]:
        """As `guess`, from the sizes found in the data."""
        occurrences: dict[str, int] = {}
        out: dict[str, float] = {}
        names = iter(self.parameters)
        for c in self.components:
            rank = occurrences[c.label] = occurrences.get(c.label, -1) + 1
            for param in c.params:
                guess = GUESSES[param.guess] if isinstance(param.guess, str) else param.guess
                own = scales if param.axis is None else scales.of_component(param.axis)
                out[next(names)] = float(guess(own, rank))
        return self.complete({**out, **self.start})
