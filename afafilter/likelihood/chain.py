"""Arrays of models, their discrete-time chain on the grid of the data, and the map's adjoint.

A gradient by the arrays of a chain (see `afafilter.likelihood.recursions`) is carried to those of
the model: through the exact discretisation in reverse mode, and through the law of the first state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np

from afafilter._base.checks import Array
from afafilter.likelihood.data import Data, writable
from afafilter.likelihood.inputs import InputGradient, input_shift
from afafilter.likelihood.rounding import core_suffices
from afafilter.linalg import discretiser
from afafilter.linalg.subspaces import ComponentSizes, component_sizes
from afafilter.linalg.transitions import lower_roots, transition_adjoint, transitions
from afafilter.models.discrete import DiscreteModel
from afafilter.models.forcing import Forcing
from afafilter.models.priors import InitialLaw, Prior, prior_time
from afafilter.models.sde import LinearSDE


class PriorArrays(NamedTuple):
    """Prior at t0 (None: the first time): mean (d,), covariance (d, d), flat basis (d, q)."""

    mean: Array
    cov: Array
    flat: Array
    t0: float | None = None


PriorSpec = PriorArrays | str
CONTINUOUS = "A", "Q", "drift", "C", "offset", "R"
DISCRETE = "F", "Q", "b", "H", "d", "R"


class System(NamedTuple):
    """Plain arrays of a `LinearSDE`; as a gradient, the derivative by each of them."""

    A: Array
    Q: Array
    drift: Array
    C: Array
    offset: Array
    R: Array
    prior: PriorSpec
    delay: float = 0.0
    gain: Array | None = None
    """M (d, m), how known inputs drive the state."""
    direct: Array | None = None
    """D (p, m), what they add to the observations."""
    forcing: Forcing | None = None
    """The inputs themselves, which no gradient goes to."""

    @classmethod
    def of(cls, model: LinearSDE) -> System:
        """The arrays of a model, writable."""
        A, Q, drift, C, offset, R = (writable(getattr(model, name)) for name in CONTINUOUS)
        system = cls(A, Q, drift, C, offset, R, _prior(model.prior), model.delay)
        return system if model.forcing is None else system.driven(model.forcing)

    @classmethod
    def of_vector(cls, vector: Array, d: int, p: int) -> System:
        """The arrays (views) in what `vector` gives, and flat directions by rows behind them."""
        shapes = (d, d), (d, d), (d, d), (p, d), (p, p), (p,), (d,), (d,)
        cuts = list(accumulate(map(math.prod, shapes), initial=0))
        A, Q, cov, C, R, offset, drift, mean = (
            vector[a:b].reshape(x) for (a, b), x in zip(pairwise(cuts), shapes, strict=True)
        )
        flat = vector[cuts[-1] :].reshape(-1, d).T
        return cls(A, Q, drift, C, offset, R, PriorArrays(mean, cov, flat))

    def vector(self) -> Array:
        """A, Q, prior cov, C, R, offset, drift, prior mean end to end (core/likelihood_flat.h)."""
        assert isinstance(self.prior, PriorArrays)
        parts = self.A, self.Q, self.prior.cov, self.C, self.R, self.offset, self.drift
        return np.concatenate([part.ravel() for part in (*parts, self.prior.mean)])

    def driven(self, forcing: Forcing) -> System:
        """The system under these inputs."""
        d, p, m = len(self.A), len(self.R), forcing.u.shape[1]
        direct = np.zeros((p, m)) if forcing.direct is None else writable(forcing.direct)
        return self._replace(gain=writable(forcing.gain(d)), direct=direct, forcing=forcing)


class DiscreteSystem(NamedTuple):
    """Plain arrays of a `DiscreteModel`; each as given, or with a leading time axis."""

    F: Array
    Q: Array
    b: Array
    H: Array
    d: Array
    R: Array
    prior: PriorSpec
    time_varying: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: DiscreteModel) -> DiscreteSystem:
        """The arrays of a model, writable."""
        F, Q, b, H, d, R = (writable(getattr(model, name)) for name in DISCRETE)
        return cls(F, Q, b, H, d, R, _prior(model.prior), tuple(model.time_varying))


def arrays_of(system: System | DiscreteSystem) -> tuple[str, ...]:
    """The arrays that a model of this kind has, by name."""
    return CONTINUOUS if isinstance(system, System) else DISCRETE


def _prior(prior: Any) -> PriorSpec:
    if isinstance(prior, Prior):
        law = prior.law
        return PriorArrays(writable(law.mean), writable(law.cov), writable(law.diffuse), prior.t0)
    return str(prior)


class PriorStep(NamedTuple):
    """Transition from the time of an earlier prior to the first observation.

    F (1, d, d), b (1, d), V (1, d, d) over `gap`; law: the prior, at the start of the step.
    """

    F: Array
    b: Array
    V: Array
    law: InitialLaw
    gap: float


class Chain(NamedTuple):
    """Discrete-time system of T observations; as a gradient, the derivative by each array.

    K distinct transitions F, b, V, `index` (T,) the one that leads into each observation; C rows of
    H, shift, R, `row` (T,) the one of each observation; law of the first state. times and sizes
    bound the rounding of the transitions, on which rank decisions rest (core/rank.h). root: columns
    of V's lower roots, where they are known better than V tells them. prior_step: of a prior at an
    earlier time; the recursions then start there.
    """

    F: Array  # (K, d, d)
    b: Array  # (K, d)
    V: Array  # (K, d, d)
    index: Any  # (T,)
    H: Array  # (C, p, d)
    shift: Array  # (C, p)
    R: Array  # (C, p, p)
    row: Any  # (T,)
    mean: Array  # (d,)
    cov: Array  # (d, d)
    flat: Array  # (d, q)
    times: Array  # (T,)
    sizes: ComponentSizes
    root: Array | None = None  # (K, d, d)
    prior_step: PriorStep | None = None

    def with_prior_step(self) -> Chain:
        """The chain from the time of the prior on: its step is the last transition, into node 1."""
        if self.prior_step is None:
            return self
        F, b, V, law, gap = self.prior_step
        root = self.root
        last = np.array([len(self.F)] * 2)
        return self._replace(
            F=np.concatenate([self.F, F]),
            b=np.concatenate([self.b, b]),
            V=np.concatenate([self.V, V]),
            index=np.concatenate([last, self.index[1:]]),
            row=np.concatenate([self.row[:1], self.row]),
            mean=law.mean,
            cov=law.cov,
            flat=law.diffuse,
            times=np.concatenate([self.times[:1] - gap, self.times]),
            root=None if root is None else np.concatenate([root, lower_roots(V)]),
            prior_step=None,
        )


def _observation_rows(T: int, *arrays: Array) -> tuple[Any, ...]:
    """H, shift, R of one leading length, 1 or T, and the row (T,) of each observation."""
    count = max(len(array) for array in arrays)
    row = np.arange(T) if count > 1 else np.zeros(T, np.int64)
    return (*(_repeated(array, count) for array in arrays), row)


def _repeated(array: Array, count: int) -> Array:
    if len(array) == count:
        return array
    return writable(np.broadcast_to(array, (count, *array.shape[1:])))


def _sizes(A: Array, q: int, *, given: bool = False) -> ComponentSizes:
    """Of a chain with q flat directions: without any nobody asks."""
    if q:
        return component_sizes(A, given=given)
    d = A.shape[-1]
    return ComponentSizes(
        np.zeros(d, np.int64), np.ones(d), np.zeros(d), np.zeros(d), np.zeros((d, d))
    )


def _origin(system: System, first: float) -> float:
    """Time at which the prior holds, or where a stationary one must do so before the inputs."""
    if isinstance(system.prior, PriorArrays):
        return prior_time(system.prior.t0, first)
    if system.prior == "stationary" and system.forcing is not None and len(system.forcing.t):
        return float(system.forcing.t[0])
    return first


def longest_step(system: System, data: Data) -> float:
    """The longest interval over which transitions are needed, that from the origin included."""
    first = float(data.t[0] - system.delay)
    return max(data.longest, first - _origin(system, first))


def sde_chain(
    system: System, data: Data, law: InitialLaw | None = None
) -> tuple[Chain, Callable[[Chain], System]]:
    """The chain of an SDE on the data's grid, and the map from chain to system gradients.

    law : of the first state under a stationary prior, if already computed.
    """
    A, Q, u = system.A, system.Q, system.drift
    (mean, cov, flat), prior_pullback, prior_step = _sde_prior(
        system, data.t[0] - system.delay, law
    )
    root = None
    if core_suffices(A, data.longest):
        F, b, V = transitions(A, Q, u, data.steps)
    else:
        flow = discretiser.Discretiser(A, Q, u)
        (F, b, V), root = flow(data.steps), flow.roots(data.steps)[2]
    R = system.R[None] if data.obs_cov is None else data.obs_cov
    shown, input_pullback = _shift(system, data)
    H, shift, R, row = _observation_rows(len(data.t), system.C[None], shown, R)
    sizes = _sizes(A, flat.shape[1])
    chain = Chain(
        F, b, V, data.index, H, shift, R, row, mean, cov, flat, data.t, sizes, root, prior_step
    )
    K = len(data.steps)

    def pullback(g: Chain) -> System:
        gA, gQ, gu = transition_adjoint((A, Q, u), data.steps, g.F[:K], g.b[:K], g.V[:K])
        pA, pQ, pu, prior = prior_pullback(g)
        if pA is not None:
            gA, gQ, gu = gA + pA, gQ + pQ, gu + pu
        gR = g.R.sum(axis=0) if data.obs_cov is None else np.zeros_like(system.R)
        gC = g.H.sum(axis=0)
        grad = System(gA, gQ, gu, gC, g.shift.sum(axis=0), gR, prior, 0.0)
        if input_pullback is None:
            return grad
        more = input_pullback(g.shift)
        return grad._replace(A=gA + more.A, C=gC + more.C, gain=more.gain, direct=more.direct)

    return chain, pullback


def _shift(system: System, data: Data) -> tuple[Array, Callable[[Array], InputGradient] | None]:
    """Known part of the observations: offset (1, p); with inputs offset + C x_u + D u (T, p)."""
    if system.forcing is None:
        return system.offset[None], None
    assert system.gain is not None
    assert system.direct is not None
    states = data.t - system.delay
    at = states, data.t, _origin(system, float(states[0]))
    shift, pullback = input_shift(
        system.A, system.C, system.gain, system.direct, system.forcing, at
    )
    return system.offset + shift, pullback


def _sde_prior(
    system: System, t_first: float, law: InitialLaw | None
) -> tuple[InitialLaw, Callable[[Chain], Any], PriorStep | None]:
    """Law of the first state, its pullback to (A, Q, drift, prior arrays), and the prior's step."""
    A, Q, u, prior = system.A, system.Q, system.drift, system.prior
    if isinstance(prior, PriorArrays):
        law = InitialLaw(prior.mean, prior.cov, prior.flat)
        gap = t_first - prior_time(prior.t0, t_first)
        if gap == 0:
            return law, lambda g: (None, None, None, PriorArrays(g.mean, g.cov, g.flat)), None
        return _earlier_prior(system, law, gap)
    if prior == "diffuse":
        return InitialLaw.flat(len(A)), lambda _: (None, None, None, "diffuse"), None
    law = law or InitialLaw.stationary(A, Q, u)

    def stationary(g: Chain) -> Any:
        y = np.linalg.solve(A.T, g.mean)
        Y = discretiser.stationary_adjoint(A, 0.5 * (g.cov + g.cov.T))
        return 2 * Y @ law.cov - np.outer(y, law.mean), Y, -y, "stationary"

    return law, stationary, None


def _earlier_prior(
    system: System, law: InitialLaw, gap: float
) -> tuple[InitialLaw, Callable[[Chain], Any], PriorStep]:
    """`_sde_prior` of a law that holds by `gap` before the first state.

    The pullback takes a gradient by `Chain.with_prior_step`, or by a chain without that step.
    """
    A, Q, u = system.A, system.Q, system.drift
    steps = np.array([gap])
    Phi, psi, V = discretiser.transition(A, Q, u, steps)

    def pullback(g: Chain) -> Any:
        if g.prior_step is None:
            parts, first = (g.F[-1:], g.b[-1:], g.V[-1:]), PriorArrays(g.mean, g.cov, g.flat)
        else:
            (F,), gm, gP, gD = Phi, g.mean, g.cov, g.flat
            gF = np.outer(gm, law.mean) + 2 * gP @ F @ law.cov + gD @ law.diffuse.T
            parts, first = (
                (gF[None], gm[None], gP[None]),
                PriorArrays(F.T @ gm, F.T @ gP @ F, F.T @ gD),
            )
        return *transition_adjoint((A, Q, u), steps, *parts), first

    return law.predicted(Phi[0], psi[0], V[0]), pullback, PriorStep(Phi, psi, V, law, gap)


def discrete_chain(
    system: DiscreteSystem, data: Data, law: InitialLaw | None = None
) -> tuple[Chain, Callable[[Chain], DiscreteSystem]]:
    """The chain of a discrete-time system, and the map from chain to system gradients.

    law : of the first state under a stationary prior, if already computed.
    """
    T = len(data.t)
    varying = system.time_varying
    moving = bool({"F", "Q", "b"} & set(varying))
    lengths = {name: len(getattr(system, name)) for name in varying}
    if any(length != T for length in lengths.values()):
        raise ValueError(f"time-varying arrays must have the data's length {T}, got {lengths}")

    def spread(name: str) -> Array:
        value: Array = getattr(system, name)
        if name in varying:
            return value
        count = T if moving and name in ("F", "Q", "b") else 1
        return writable(np.broadcast_to(value, (count, *value.shape)))

    n = system.F.shape[-1]
    if isinstance(system.prior, PriorArrays):
        mean, cov, flat, _ = system.prior
    elif system.prior == "diffuse":
        mean, cov, flat = InitialLaw.flat(n)
    else:
        law = law or InitialLaw.stationary_steps(system.F, system.Q, system.b)
        mean, cov, flat = law
    index = np.arange(T, dtype=np.int64) if moving else np.zeros(T, np.int64)
    R = spread("R") if data.obs_cov is None else data.obs_cov
    H, shift, R, row = _observation_rows(T, spread("H"), spread("d"), R)
    sizes = _sizes(system.F, flat.shape[1], given=True)
    F, b, V = spread("F"), spread("b"), spread("Q")
    chain = Chain(F, b, V, index, H, shift, R, row, mean, cov, flat, data.t, sizes)

    def pullback(g: Chain) -> DiscreteSystem:
        gF, gb, gV, gH, gd, gR = (
            part if name in varying else part.sum(axis=0)
            for name, part in zip("FbQHdR", (g.F, g.b, g.V, g.H, g.shift, g.R), strict=True)
        )
        prior: PriorSpec = system.prior
        if isinstance(prior, PriorArrays):
            prior = PriorArrays(g.mean, g.cov, g.flat)
        elif prior == "stationary":
            y = np.linalg.solve((np.eye(n) - system.F).T, g.mean)
            P = 0.5 * (g.cov + g.cov.T)
            Y = discretiser.stationary_steps_covariance(system.F.T, P)
            gF, gb, gV = gF + np.outer(y, mean) + 2 * Y @ system.F @ cov, gb + y, gV + Y
        if data.obs_cov is not None:
            gR = np.zeros_like(system.R)
        return DiscreteSystem(gF, gV, gb, gH, gd, gR, prior, varying)

    return chain, pullback
