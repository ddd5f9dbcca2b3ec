"""Log-likelihood of linear Gaussian models and its exact gradient.

The gradient is the disturbance-smoother score (Koopman & Shephard, 1992; Durbin & Koopman, 2012,
sec. 7.3), extended to transitions, observation matrices and offsets, and carried through the
exact discretisation in reverse mode. It uses no inverse of V, hence is right for Q = 0, singular V
and repeated times. Flat starts are exact (de Jong, 1991).

Cost O(T d^2 (d + n)) per group of n paths with one missing pattern, memory O(T d (d + n)).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import solve_continuous_lyapunov, solve_discrete_lyapunov

from afafilter._base.checks import Array, ObsMask, observation_covariances, observations, times
from afafilter.linalg import discretiser
from afafilter.models.discrete import DiscreteModel
from afafilter.models.priors import Prior
from afafilter.models.sde import LinearSDE


class PriorArrays(NamedTuple):
    """Law of the state at t0 (None: the first time): mean, covariance, flat basis (d, q)."""

    mean: Array
    cov: Array
    flat: Array
    t0: float | None = None


PriorSpec = PriorArrays | str

LOG_2PI = float(np.log(2 * np.pi))

COMPILED_REACH = 1e4
"""||A|| dt up to which the compiled discretisation loses no more than about 1e-12."""

FLAT_RTOL = 1e-13
"""Flat directions with relatively less information than this count as not seen by the data."""


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
    vector: Array | None = None
    """A, Q, prior cov, C, R and offset end to end, where a gradient holds them so."""

    @classmethod
    def of(cls, model: LinearSDE) -> System:
        """The arrays of a model, writable."""
        A, Q, drift, C, offset, R = (
            _plain(a) for a in (model.A, model.Q, model.drift, model.C, model.offset, model.R)
        )
        return cls(A, Q, drift, C, offset, R, _prior(model.prior), model.delay)


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
        F, Q, b, H, d, R = (
            _plain(a) for a in (model.F, model.Q, model.b, model.H, model.d, model.R)
        )
        return cls(F, Q, b, H, d, R, _prior(model.prior), tuple(model.time_varying))


def _plain(array: Any) -> Array:
    """A writable C-ordered copy: the compiled functions then exist for one layout only."""
    return np.array(array, dtype=np.float64, order="C")


def _prior(prior: Any) -> PriorSpec:
    if isinstance(prior, Prior):
        law = prior.law
        return PriorArrays(_plain(law.mean), _plain(law.cov), _plain(law.diffuse), prior.t0)
    return str(prior)


class Chain(NamedTuple):
    """Discrete-time system: K distinct transitions, `index` (T,) the one that leads into t."""

    F: Array  # (K, d, d)
    b: Array  # (K, d)
    V: Array  # (K, d, d)
    index: Any  # (T,)
    H: Array  # (1 or T, p, d)
    shift: Array  # (1 or T, p)
    R: Array  # (1 or T, p, p)
    mean: Array  # (d,)
    cov: Array  # (d, d)
    flat: Array  # (d, q)


class Moments(NamedTuple):
    """Smoothed quantities of one group of paths."""

    u: Array  # (T, p, n): smoothed measurement noise is scale R u
    M: Array  # (T, p, p): its posterior covariance is scale R - scale^2 R M R
    x: Array  # (T, d, n)
    cov: Array  # (T, d, d)
    cross: Array  # (T, d, d): Cov(x_t, x_t-1 | z)


@dataclass(frozen=True)
class Group:
    """Paths that share one missing pattern and one noise scale."""

    z: Array  # (T, p, n), 0 where missing
    mask: ObsMask  # (T, p)
    scale: Array  # (T,)
    paths: Any  # (n,) positions among the flattened paths


@dataclass(frozen=True)
class Data:
    """Observations, prepared once for many evaluations."""

    t: Array
    steps: Array
    index: Any
    groups: tuple[Group, ...]
    n_obs: int
    n_paths: int
    obs_cov: Array | None
    longest: float

    def rescaled(self, scale: Array) -> Data:
        """The same data with measurement noise scale (n_paths, T) times R."""
        groups = []
        for group in self.groups:
            for column, path in enumerate(group.paths):
                z = np.ascontiguousarray(group.z[:, :, column : column + 1])
                groups.append(Group(z, group.mask, np.array(scale[path]), np.array([path])))
        return replace(self, groups=tuple(groups))


def prepare(t: ArrayLike | None, z: ArrayLike, obs_dim: int, obs_cov: ArrayLike | None) -> Data:
    """Validate data and group paths by missing pattern.

    t None: time steps 0, 1, 2... (discrete models).
    """
    if t is None:
        shape = np.shape(z)
        t = np.arange(shape[0] if len(shape) == 1 else shape[-2])
    grid = times(t)
    values = observations(z, len(grid), obs_dim)
    covs = None
    if obs_cov is not None:
        covs = _plain(observation_covariances(obs_cov, len(grid), obs_dim, np.eye(obs_dim), values))
    flat = values.reshape(-1, len(grid), obs_dim)
    present = ~np.isnan(flat)
    patterns: dict[bytes, list[int]] = {}
    for k, mask in enumerate(present):
        patterns.setdefault(mask.tobytes(), []).append(k)
    groups = tuple(
        Group(
            np.ascontiguousarray(np.where(present[members], flat[members], 0.0).transpose(1, 2, 0)),
            present[members[0]].copy(),
            np.ones(len(grid)),
            np.array(members),
        )
        for members in patterns.values()
        if present[members[0]].any()
    )
    steps, index = distinct_steps(grid)
    longest = float(steps.max())
    return Data(grid, steps, index, groups, int(present.sum()), len(flat), covs, longest)


def distinct_steps(t: Array) -> tuple[Array, Any]:
    """Distinct intervals of a grid, up to the rounding of its times, and which one leads into k."""
    gaps = np.zeros(len(t))
    np.subtract(t[1:], t[:-1], out=gaps[1:])
    order = np.argsort(gaps, kind="stable")
    rounding = 4 * np.finfo(float).eps * np.abs(t).max()
    ordered = gaps[order]
    index = np.zeros(len(t), np.int64)
    index[order[1:]] = np.cumsum(ordered[1:] - ordered[:-1] > rounding)
    steps = np.bincount(index, gaps) / np.bincount(index)
    steps[index[gaps == 0.0]] = 0.0
    return steps, index


def sde_chain(system: System, data: Data) -> tuple[Chain, Callable[[Chain], System]]:
    """The chain of an SDE on the data's grid, and the map from chain to system gradients."""
    A, Q, u = system.A, system.Q, system.drift
    from afafilter._core import transition_adjoint_kernels as kernels
    from afafilter._core.small_matrix_kernels import column_norm

    if column_norm(A) * data.longest <= COMPILED_REACH:
        F, b, V = kernels.transitions(A, Q, u, data.steps)
    else:
        F, b, V = discretiser.transition(A, Q, u, data.steps)
    mean, cov, flat, prior_pullback = _sde_prior(system, data.t[0] - system.delay)
    R = system.R[None] if data.obs_cov is None else data.obs_cov
    chain = Chain(F, b, V, data.index, system.C[None], system.offset[None], R, mean, cov, flat)

    def pullback(g: Chain) -> System:
        gA, gQ, gu = kernels.transition_adjoint(A, Q, u, data.steps, g.F, g.b, g.V)
        pA, pQ, pu, prior = prior_pullback(g.mean, g.cov, g.flat)
        if pA is not None:
            gA, gQ, gu = gA + pA, gQ + pQ, gu + pu
        gR = g.R[0] if data.obs_cov is None else np.zeros_like(system.R)
        return System(gA, gQ, gu, g.H[0], g.shift[0], gR, prior, 0.0)

    return chain, pullback


def _sde_prior(system: System, t_first: float) -> Any:
    """Initial law and the pullback of its gradient to (A, Q, drift, prior arrays)."""
    A, Q, u, prior = system.A, system.Q, system.drift, system.prior
    d = len(A)
    if isinstance(prior, PriorArrays):
        if prior.t0 is None or prior.t0 == t_first:
            return (
                prior.mean, prior.cov, prior.flat,
                lambda gm, gP, gD: (None, None, None, PriorArrays(gm, gP, gD)),
            )  # fmt: skip
        if prior.t0 > t_first:
            raise ValueError(
                f"prior t0 must not be after the first time, got t0 = {prior.t0:g} "
                f"and first time {t_first:g}"
            )
        gap = np.array([t_first - prior.t0])
        (F,), (b,), (V,) = discretiser.transition(A, Q, u, gap)

        def propagated(gm: Array, gP: Array, gD: Array) -> Any:
            from afafilter._core.transition_adjoint_kernels import transition_adjoint

            gF = np.outer(gm, prior.mean) + 2 * gP @ F @ prior.cov + gD @ prior.flat.T
            parts = transition_adjoint(A, Q, u, gap, gF[None], gm[None], gP[None])
            return *parts, PriorArrays(F.T @ gm, F.T @ gP @ F, F.T @ gD)

        return F @ prior.mean + b, F @ prior.cov @ F.T + V, F @ prior.flat, propagated
    if prior == "diffuse":
        return np.zeros(d), np.zeros((d, d)), np.eye(d), lambda *_: (None, None, None, "diffuse")
    if not discretiser.is_stable(A):
        raise np.linalg.LinAlgError("a stationary prior needs a stable A")
    mean = np.linalg.solve(A, -u)
    P = discretiser.stationary_covariance(A, Q)

    def stationary(gm: Array, gP: Array, gD: Array) -> Any:
        y = np.linalg.solve(A.T, gm)
        Y = solve_continuous_lyapunov(A.T, -gP)
        Y = 0.5 * (Y + Y.T)
        return 2 * Y @ P - np.outer(y, mean), Y, -y, "stationary"

    return mean, P, np.zeros((d, 0)), stationary


def discrete_chain(
    system: DiscreteSystem, data: Data
) -> tuple[Chain, Callable[[Chain], DiscreteSystem]]:
    """The chain of a discrete-time system, and the map from chain to system gradients."""
    T = len(data.t)
    varying = system.time_varying
    moving = bool({"F", "Q", "b"} & set(varying))
    lead = {name: len(getattr(system, name)) for name in varying}
    if any(length != T for length in lead.values()):
        raise ValueError(f"time-varying arrays must have the data's length {T}, got {lead}")

    def spread(name: str) -> Array:
        value: Array = getattr(system, name)
        if name in varying:
            return value
        count = T if moving and name in ("F", "Q", "b") else 1
        return _plain(np.broadcast_to(value, (count, *value.shape)))

    n = system.F.shape[-1]
    mean: Any
    if system.prior == "diffuse":
        mean, cov, flat = np.zeros(n), np.zeros((n, n)), np.eye(n)
    elif system.prior == "stationary":
        if np.abs(np.linalg.eigvals(system.F)).max() >= 1:
            raise np.linalg.LinAlgError("a stationary prior needs a stable F")
        mean = np.linalg.solve(np.eye(n) - system.F, system.b)
        P = solve_discrete_lyapunov(system.F, system.Q)
        cov, flat = 0.5 * (P + P.T), np.zeros((n, 0))
    else:
        assert isinstance(system.prior, PriorArrays)
        mean, cov, flat, _ = system.prior
    index = np.arange(T, dtype=np.int64) if moving else np.zeros(T, np.int64)
    R = spread("R") if data.obs_cov is None else data.obs_cov
    chain = Chain(
        spread("F"), spread("b"), spread("Q"), index, spread("H"), spread("d"), R, mean, cov, flat
    )

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
            Y = solve_discrete_lyapunov(system.F.T, g.cov)
            Y = 0.5 * (Y + Y.T)
            gF, gb, gV = gF + np.outer(y, mean) + 2 * Y @ system.F @ cov, gb + y, gV + Y
        if data.obs_cov is not None:
            gR = np.zeros_like(system.R)
        return DiscreteSystem(gF, gV, gb, gH, gd, gR, prior, varying)

    return chain, pullback


def chain_loglik(
    chain: Chain, data: Data, *, gradient: bool = True, keep: bool = False
) -> tuple[float, Chain, list[Moments]]:
    """Log-likelihood, its gradient by every array of the chain, and smoothed moments if asked.

    Every observed component counts log 2 pi; flat directions are integrated out with respect to
    an orthonormal basis at the prior's own time, those that the data do not see are left out.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the covariance of an innovation is not positive definite (which step is said).
    """
    from afafilter._core.likelihood_kernels import score_group

    F, b, V, index, H, shift, R, mean, cov, flat = chain
    total = -0.5 * data.n_obs * LOG_2PI
    grads: Any = None
    moments = []
    for group in data.groups:
        status = -2
        if not keep:
            status, value, parts = score_group(
                F, b, V, index, H, shift, R, group.scale, mean, cov, flat, group.z, group.mask,
                _sizes(group, flat), gradient,
            )  # fmt: skip
        if status == -2:
            status, value, parts, smoothed = _careful_group(chain, group)
            moments.append(smoothed)
        _refuse_singular(status)
        total += value
        grads = parts if grads is None else [a + b for a, b in zip(grads, parts, strict=True)]
    if grads is None:
        grads = [np.zeros_like(part) for part in (F, b, V, H, shift, R, mean, cov, flat)]
    gF, gb, gV, gH, gs, gR, gm, gP, gD = grads
    return float(total), Chain(gF, gb, gV, index, gH, gs, gR, gm, gP, gD), moments


def _sizes(group: Group, flat: Array) -> Any:
    """Numbers of states, components, paths and flat directions as the compiled functions take them.

    The smallest case, one number of each, is compiled with loops of known length (see `size`).
    """
    _, p, n = group.z.shape
    d, q = flat.shape
    if d == p == n == 1:
        return (0,), (0,), (0,), (0,) * q
    return d, p, n, q


def _refuse_singular(status: int) -> None:
    if status >= 0:
        raise np.linalg.LinAlgError(
            f"the innovation covariance at t[{status}] is not positive definite; "
            "R is singular or too small there"
        )


def _careful_group(chain: Chain, group: Group) -> tuple[int, float, Any, Any]:
    """As `score_group`, also for flat directions that the data do not see; with the moments."""
    from afafilter._core import likelihood_kernels as kernels

    F, b, V, index, H, shift, R, mean, cov, flat = chain
    n, q = group.z.shape[2], flat.shape[1]
    sizes = _sizes(group, flat)
    T = len(group.z)
    filtered, room = kernels.empty_filtered(T, sizes), kernels.make_room(sizes)
    failed, logdet = kernels.filter_pass(
        F, b, V, index, H, shift, R, group.scale, mean, cov, flat, group.z, group.mask, sizes,
        filtered, room,
    )  # fmt: skip
    if failed >= 0:
        return failed, -np.inf, (), None
    delta, root = np.zeros((q, n)), np.zeros((q, q))
    if q:
        info, rhs = np.empty((q, q)), np.empty((q, n))
        kernels.flat_moments(filtered.v, filtered.Si, sizes, room, info, rhs)
        solve, root, information = _flat_posterior(info)
        # The second round refines: the first leaves rounding of the size of the data's level.
        for refining in (False, True):
            if refining:
                kernels.flat_moments(filtered.v, filtered.Si, sizes, room, info, rhs)
            step = solve(rhs)
            delta += step
            kernels.shift_columns(filtered.M, step, sizes[0], sizes)
            kernels.shift_columns(filtered.v, step, sizes[1], sizes)
        logdet += information
    value = -0.5 * (n * logdet + kernels.quadratic(filtered.v, filtered.Si, sizes))
    scores = kernels.no_scores(F, H, R, T, sizes)
    smoothed = kernels.empty_smoothed(T, sizes)
    kernels.score_pass(
        F, V, index, H, R, group.scale, group.mask, filtered, root, sizes, scores, smoothed, room
    )
    gF, gb, gV, gH, gs, gR, r, G = scores
    gs = gs if len(shift) > 1 else gs.sum(axis=0)[None]
    gD = r[:, :n] @ delta.T + n * r[:, n:] @ root @ root.T
    parts = (gF, gb, gV, gH, gs, gR, r[:, :n].sum(axis=1), G, gD)
    return -1, value, parts, Moments(*smoothed)


def _flat_posterior(info: Array) -> tuple[Callable[[Array], Array], Array, float]:
    """Solver, root of the inverse and log-determinant of the information on the flat directions.

    Directions without information are dropped from all three.
    """
    q = len(info)
    size = np.sqrt(np.diag(info))
    seen = size > 0
    scaled = info / np.where(seen, size, 1.0) / np.where(seen, size, 1.0)[:, None]
    values = np.linalg.eigvalsh(scaled)
    if seen.all() and values[0] > FLAT_RTOL * q:
        L = np.linalg.cholesky(scaled)
        root = np.linalg.solve(L, np.eye(q)).T / size[:, None]
        logdet = 2 * float(np.log(np.diag(L)).sum() + np.log(size).sum())
    else:
        values, vectors = np.linalg.eigh(info)
        known = values > FLAT_RTOL * max(float(values[-1]), np.finfo(float).tiny)
        root = vectors[:, known] / np.sqrt(values[known])
        root = np.concatenate([root, np.zeros((q, q - root.shape[1]))], axis=1)
        logdet = float(np.log(values[known]).sum())
    return lambda rhs: root @ (root.T @ rhs), np.ascontiguousarray(root), logdet


def make_chain(system: System | DiscreteSystem, data: Data) -> tuple[Chain, Callable[[Chain], Any]]:
    """The chain of either kind of system and the pullback of its gradient."""
    if isinstance(system, System):
        return sde_chain(system, data)
    return discrete_chain(system, data)


def evaluate(
    system: System | DiscreteSystem, data: Data, *, gradient: bool = True
) -> tuple[float, Any]:
    """Log-likelihood and its gradient (a system of the same type)."""
    if gradient and isinstance(system, System) and len(data.groups) == 1:
        prior = system.prior
        if isinstance(prior, PriorArrays) and prior.t0 is None:
            found = _evaluate_at_once(system, prior, data)
            if found is not None:
                return found
    chain, pullback = make_chain(system, data)
    value, grad, _ = chain_loglik(chain, data, gradient=gradient)
    return value, pullback(grad) if gradient else None


def _evaluate_at_once(
    system: System, prior: PriorArrays, data: Data
) -> tuple[float, System] | None:
    """As `evaluate`, in one compiled call; None where that call does not do."""
    from afafilter._core.likelihood_kernels import score_sde

    A, Q, u, C, offset, R = system[:6]
    (group,) = data.groups
    status, value, vector = score_sde(
        A, Q, u, C, offset, R[None] if data.obs_cov is None else data.obs_cov,
        prior.mean, prior.cov, prior.flat,
        data.steps, data.index, group.scale, group.z, group.mask, _sizes(group, prior.flat),
        COMPILED_REACH,
    )  # fmt: skip
    if status == -2:
        return None
    _refuse_singular(status)
    parts, end = [], 0
    for array in (A, Q, prior.cov, C, R, offset, u, prior.mean, prior.flat):
        parts.append(vector[end : end + array.size].reshape(array.shape))
        end += array.size
    gA, gQ, gP, gC, gR, g_offset, gu, gm, gD = parts
    if data.obs_cov is not None:
        gR[...] = 0.0
    value = float(value - 0.5 * data.n_obs * LOG_2PI)
    shared = vector[: end - u.size - prior.mean.size - prior.flat.size]
    prior = PriorArrays(gm, gP, gD)
    return value, System(gA, gQ, gu, gC, g_offset, gR, prior, vector=shared)
