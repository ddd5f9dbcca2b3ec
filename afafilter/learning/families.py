"""Structured families: models with few named parameters, to be fitted.

    from afafilter import families as f
    fit(f.brownian() + f.noise(), t, z)                              # local level
    fit(f.cycle() + f.constant() + f.noise(), t, z)                  # damped cycle about a mean
    fit(f.matern(1.5).fix(length=3.0) + f.noise(), t, z)

A family is a sum of components: independent states side by side, observed through their sum.
`noise()` is the measurement noise (without it R = 0) and `constant()` a free level. Parameters bear
the names of `afafilter.models.presets`; when a family has several components with states, the names
are preceded by that of the component, as in "cycle.decay", a second cycle being "cycle2".

Undamped components start diffuse, damped ones stationary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import positive_int, scalar
from afafilter.learning.components import Block, Component, Param
from afafilter.learning.start_values import Scales, data_scales
from afafilter.likelihood.loglik import PriorArrays, System
from afafilter.models.priors import Prior
from afafilter.models.sde import LinearSDE

__all__ = [
    "Block",
    "Component",
    "Family",
    "Param",
    "assemble",
    "brownian",
    "constant",
    "constant_velocity",
    "cycle",
    "isotropic",
    "local_linear_trend",
    "matern",
    "noise",
    "ornstein_uhlenbeck",
    "oscillator",
    "seasonal",
    "spiral",
]

NO_STATE = (
    "noise and constant alone have no state that moves: add a component such as brownian, "
    "ornstein_uhlenbeck or cycle"
)


@dataclass(frozen=True)
class Family:
    """A sum of components with named parameters; some may be fixed or tied together.

    Attributes
    ----------
    components : the summands.
    start : starting values given by the caller; the others are guessed from the data.
    fixed : values that do not move.
    ties : follower name -> leader name; the follower always equals the leader.
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

    @property
    def parameters(self) -> dict[str, Param]:
        """All parameters by full name."""
        several = sum(c.dim > 0 for c in self.components) > 1
        seen: dict[str, int] = {}
        out: dict[str, Param] = {}
        for c in self.components:
            seen[c.label] = count = seen.get(c.label, 0) + 1
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
            raise ValueError(f"values are missing for {', '.join(missing)}")
        return {name: out[name] for name in self.parameters}

    def blocks(self, values: Mapping[str, Any]) -> list[Block]:
        """The block of every component; `values` complete and in order."""
        numbers = iter(values.values())
        return [c.build(*(next(numbers) for _ in c.params)) for c in self.components]

    def system(self, values: Mapping[str, Any]) -> System:
        """Plain arrays of the model (complex if a value is)."""
        kind = complex if any(isinstance(x, complex) for x in values.values()) else float
        return assemble(self.blocks(values), self.dim, self.obs_dim, kind)

    def model(self, values: Mapping[str, float] | None = None, **more: float) -> LinearSDE:
        """The model at these parameter values.

        Raises
        ------
        ValueError
            If a value is missing, unknown or outside its domain, or no component has a state.
        """
        if self.dim == 0:
            raise ValueError(NO_STATE)
        given = self._checked({**self.start, **(values or {})}, more, fixed=True)
        system = self.system(self.complete(given))
        assert isinstance(system.prior, PriorArrays)
        d, q = system.prior.flat.shape
        prior: Any
        if q in (0, d):
            prior = "stationary" if q == 0 else "diffuse"
        else:
            prior = Prior(system.prior.mean, system.prior.cov, None, system.prior.flat)
        return LinearSDE(
            system.A, system.Q, system.R, C=system.C, offset=system.offset, prior=prior
        )

    def guess(self, t: ArrayLike, z: ArrayLike) -> dict[str, float]:
        """Starting values: those of `start`, the others guessed from the data."""
        scales = data_scales(np.asarray(t, float), np.asarray(z, float), self.obs_dim)
        return self.guess_from(scales)

    def guess_from(self, scales: Scales) -> dict[str, float]:
        """As `guess`, from the sizes found in the data."""
        seen: dict[str, int] = {}
        out: dict[str, float] = {}
        names = iter(self.parameters)
        for c in self.components:
            rank = seen[c.label] = seen.get(c.label, -1) + 1
            for param in c.params:
                out[next(names)] = float(param.guess(scales, rank))
        return self.complete({**out, **self.start})


def assemble(blocks: list[Block], d: int, p: int, kind: type = float) -> System:
    """The arrays of independent components side by side."""
    A: Any = np.zeros((d, d), kind)
    Q: Any = np.zeros((d, d), kind)
    P: Any = np.zeros((d, d), kind)
    C: Any = np.zeros((p, d), kind)
    R: Any = np.zeros((p, p), kind)
    offset: Any = np.zeros(p, kind)
    flat = np.zeros((d, sum(b.flat.shape[1] for b in blocks)))
    i = j = 0
    for b in blocks:
        k, m = b.flat.shape
        if k:
            place = slice(i, i + k)
            A[place, place] = b.A
            Q[place, place] = b.Q
            P[place, place] = b.cov
            C[:, place] = b.C
            flat[place, j : j + m] = b.flat
        if b.R is not None:
            R += b.R
        if b.offset is not None:
            offset += b.offset
        i, j = i + k, j + m
    return System(A, Q, np.zeros(d), C, offset, R, PriorArrays(np.zeros(d), P, flat))


def _frequency(s: Scales, rank: int) -> float:
    peaks = s.peaks
    return float(peaks[min(rank, len(peaks) - 1)]) if len(peaks) else 2 * np.pi / (10 * s.gap)


def _decay(s: Scales, rank: int) -> float:
    return max(0.1 * _frequency(s, rank), 1.0 / s.span)


def _rate(s: Scales) -> float:
    return max(0.1 / s.gap, 1.0 / s.span)


def _noise_var(s: Scales) -> float:
    return min(s.noise, 0.7 * s.var)


def _stateless(p: int) -> Block:
    none = np.zeros((0, 0))
    return Block(none, none, np.zeros((p, 0)), none, none)


def noise(dim: int = 1) -> Family:
    """White measurement noise: R = obs_var I."""
    p = positive_int(dim, "dim")
    eye, empty = np.eye(p), _stateless(p)
    params = (Param("obs_var", "nonnegative", lambda s, _: _noise_var(s)),)
    return Family((Component("noise", params, lambda r: empty._replace(R=r * eye), p, 0, True),))


def constant(dim: int = 1) -> Family:
    """A free level: the observations' offset."""
    p = positive_int(dim, "dim")
    empty = _stateless(p)
    if p == 1:
        params: tuple[Param, ...] = (Param("offset", "real", lambda s, _: s.mean[0]),)
    else:
        params = tuple(
            Param(f"offset[{c}]", "real", lambda s, _, c=c: s.mean[c])  # type: ignore[misc]
            for c in range(p)
        )

    def build(*level: Any) -> Block:
        return empty._replace(offset=np.array(level))

    return Family((Component("constant", params, build, p, 0, True),))


def brownian() -> Family:
    """Brownian motion, diffuse start: dx = sqrt(process_var) dw. With `noise()`: local level."""
    zero, one = np.zeros((1, 1)), np.ones((1, 1))
    params = (Param("process_var", "nonnegative", lambda s, _: s.drift / s.gap),)

    def build(q: Any) -> Block:
        return Block(zero, q * one, one, zero, one)

    return Family((Component("brownian", params, build, affine=True),))


def ornstein_uhlenbeck() -> Family:
    """dx = -rate x dt + sqrt(process_var) dw, stationary."""
    one, none = np.ones((1, 1)), np.zeros((1, 0))

    def build(rate: Any, q: Any) -> Block:
        return Block(-rate * one, q * one, one, q / (2 * rate) * one, none)

    params = (
        Param("rate", "positive", lambda s, _: _rate(s)),
        Param(
            "process_var", "nonnegative", lambda s, _: 1.4 * s.var * max(0.1 / s.gap, 1 / s.span)
        ),
    )
    return Family((Component("ou", params, build),))


def isotropic(dim: int = 2) -> Family:
    """A = -decay I + rotations by `frequency`, Q = process_var I, all observed (the paper's case).

    Stationary. `dim` = 2 n or 2 n + 1 components; all pairs share the one frequency. dim = 2 with
    `noise(2)` is the spiral.
    """
    d = positive_int(dim, "dim")
    eye, none, turn = np.eye(d), np.zeros((d, 0)), np.zeros((d, d))
    for k in range(d // 2):
        turn[2 * k, 2 * k + 1], turn[2 * k + 1, 2 * k] = -1.0, 1.0

    def build(mu: Any, w: Any, q: Any) -> Block:
        return Block(-mu * eye + w * turn, q * eye, eye, q / (2 * mu) * eye, none)

    params = (
        Param("decay", "positive", _decay),
        Param("frequency", "real", _frequency),
        Param("process_var", "nonnegative", lambda s, k: 1.4 * _decay(s, k) * s.var),
    )
    return Family((Component("isotropic", params, build, d, d),))


def spiral() -> Family:
    """`isotropic(2) + noise(2)`: decay, frequency, process_var, obs_var."""
    return isotropic(2) + noise(2)


def cycle(damped: bool = True) -> Family:
    """Stochastic cycle: a rotating pair with isotropic noise, its first component observed.

    damped: stationary with parameters decay, frequency, process_var. Otherwise without decay and
    with a diffuse start. Harvey, Forecasting, Structural Time Series Models and the Kalman Filter
    (1989), sec. 2.3.
    """
    eye, turn = np.eye(2), np.array([[0.0, -1.0], [1.0, 0.0]])
    C, none, zero = np.array([[1.0, 0.0]]), np.zeros((2, 0)), np.zeros((2, 2))

    def build(mu: Any, w: Any, q: Any) -> Block:
        return Block(-mu * eye + w * turn, q * eye, C, q / (2 * mu) * eye, none)

    def undamped(w: Any, q: Any) -> Block:
        return Block(w * turn, q * eye, C, zero, eye)

    rate = Param("decay", "positive", _decay)
    params = (
        Param("frequency", "positive", _frequency),
        Param("process_var", "nonnegative", lambda s, k: 1.4 * _decay(s, k) * s.var),
    )
    if damped:
        return Family((Component("cycle", (rate, *params), build, 1, 2),))
    return Family((Component("cycle", params, undamped, 1, 2, True),))


def oscillator() -> Family:
    """Damped oscillator under a white force, position observed, stationary.

    x'' + 2 decay x' + (decay^2 + frequency^2) x = sqrt(process_var) white noise.
    """
    C, none = np.array([[1.0, 0.0]]), np.zeros((2, 0))

    def build(mu: Any, w: Any, q: Any) -> Block:
        stiffness = mu**2 + w**2
        A = np.array([[0.0, 1.0], [-stiffness, -2 * mu]])
        cov = np.array([[q / (4 * mu * stiffness), 0.0], [0.0, q / (4 * mu)]])
        return Block(A, np.array([[0.0, 0.0], [0.0, q]]), C, cov, none)

    def force(s: Scales, k: int) -> float:
        mu, w = _decay(s, k), _frequency(s, k)
        return 4 * mu * (mu**2 + w**2) * 0.7 * s.var

    params = (
        Param("decay", "positive", _decay),
        Param("frequency", "positive", _frequency),
        Param("process_var", "nonnegative", force),
    )
    return Family((Component("oscillator", params, build, 1, 2),))


def matern(nu: float = 1.5) -> Family:
    """Gaussian process with Matern covariance: length, variance; nu = 0.5, 1.5 or 2.5."""
    if nu not in (0.5, 1.5, 2.5):
        raise ValueError(f"nu must be 0.5, 1.5 or 2.5, got {nu!r}")
    order = int(nu - 0.5)
    d = order + 1
    C, none = np.eye(1, d), np.zeros((d, 0))
    ratio = math.factorial(order) ** 2 / math.factorial(2 * order)
    binomial = [math.comb(d, k) for k in range(d)]

    def build(length: Any, var: Any) -> Block:
        lam = math.sqrt(2 * nu) / length
        A = np.eye(d, k=1) + 0.0 * lam
        A[-1] = [-binomial[k] * lam ** (d - k) for k in range(d)]
        Q, P = np.zeros_like(A * var), np.zeros_like(A * var)
        Q[-1, -1] = var * ratio * (2 * lam) ** (2 * order + 1)
        if d == 1:
            P[0, 0] = var
        elif d == 2:
            P[0, 0], P[1, 1] = var, lam**2 * var
        else:
            P[0, 0], P[1, 1], P[2, 2] = var, lam**2 / 3 * var, lam**4 * var
            P[0, 2] = P[2, 0] = -(lam**2) / 3 * var
        return Block(A, Q, C, P, none)

    params = (
        Param("length", "positive", lambda s, _: min(5 * s.gap, s.span)),
        Param("variance", "positive", lambda s, _: 0.7 * s.var),
    )
    return Family((Component("matern", params, build, 1, d),))


def constant_velocity() -> Family:
    """Position with white acceleration, diffuse start; process_var in position^2/time^3."""
    return _trend(False)


def local_linear_trend() -> Family:
    """Level and slope, both random walks, diffuse start: level_var, slope_var."""
    return _trend(True)


def _trend(level: bool) -> Family:
    A, C = np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[1.0, 0.0]])
    eye, zero = np.eye(2), np.zeros((2, 2))

    def build(*q: Any) -> Block:
        top = q[0] if level else 0.0
        return Block(A, np.array([[top, 0.0], [0.0, q[-1]]]), C, zero, eye)

    def slope(s: Scales, _: int) -> float:
        return 1e-2 * s.jump / s.gap**3

    if not level:
        params: tuple[Param, ...] = (Param("process_var", "nonnegative", slope),)
        return Family((Component("velocity", params, build, 1, 2, True),))
    params = (
        Param("level_var", "nonnegative", lambda s, _: 0.1 * s.jump / s.gap),
        Param("slope_var", "nonnegative", slope),
    )
    return Family((Component("trend", params, build, 1, 2, True),))


def seasonal(period: float, harmonics: int = 1) -> Family:
    """Slowly changing periodic component: harmonics of 2 pi / period, diffuse start, process_var.

    `.fix(process_var=0.0)` makes the pattern constant.
    """
    base = 2 * np.pi / scalar(period, "period", low=0.0, strict=True)
    n = positive_int(harmonics, "harmonics")
    d = 2 * n
    A = np.zeros((d, d))
    for k in range(n):
        A[2 * k, 2 * k + 1], A[2 * k + 1, 2 * k] = -(k + 1) * base, (k + 1) * base
    C, eye, zero = np.tile([[1.0, 0.0]], n), np.eye(d), np.zeros((d, d))
    params = (Param("process_var", "nonnegative", lambda s, _: 0.01 * s.jump / period),)

    def build(q: Any) -> Block:
        return Block(A, q * eye, C, zero, eye)

    return Family((Component("seasonal", params, build, 1, d, True),))
