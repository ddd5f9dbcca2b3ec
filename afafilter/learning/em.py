"""Expectation-maximisation for linear SDEs and discrete models.

E-step: smoothed means, covariances and lag-one covariances of the states at the observation times
(Shumway & Stoffer, 1982). M-step: the expected complete-data log-likelihood is maximised
numerically, with its exact gradient, over whatever is free: on irregular grids A and Q enter every
Phi(dt) and V(dt) and have no closed form.

The complete data need a density of x_k given x_k-1, so V must be definite at every positive
interval: EM cannot start from, nor leave, Q = 0. Maximum likelihood can. V^-1 also costs digits
where intervals are very short; maximum likelihood does not need it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from afafilter._base.checks import Array
from afafilter.learning.optimise import Objective, Optimum, information, newton
from afafilter.learning.problem import Problem
from afafilter.likelihood.chain import Chain
from afafilter.likelihood.data import Data
from afafilter.likelihood.loglik import chain_loglik, make_chain
from afafilter.likelihood.recursions import Moments
from afafilter.models.sde import LinearSDE


class TransitionSums(NamedTuple):
    """Sums of smoothed second moments over the steps that share a transition."""

    steps: Array  # (K,) how many
    now: Array  # (K, d, d) E x_t x_t^T
    cross: Array  # (K, d, d) E x_t x_t-1^T
    before: Array  # (K, d, d)
    mean_now: Array  # (K, d)
    mean_before: Array  # (K, d)


class ObservationSums(NamedTuple):
    """The same over observations with one pattern of missing components (and one H, d, R)."""

    rows: Any
    at: int  # time whose H, shift and R apply
    scale: float
    number: int
    zz: Array
    zx: Array
    xx: Array
    z: Array
    x: Array


class Expectations(NamedTuple):
    """Everything the M-step needs from the E-step."""

    transitions: TransitionSums
    observations: list[ObservationSums]
    start_count: int
    start_mean: Array  # (d,) sum of E x_0
    start: Array  # (d, d) sum of E x_0 x_0^T


def expectation_maximisation(
    problem: Problem,
    theta: Array,
    bounds: tuple[Array, Array],
    *,
    max_iter: int,
    tolerance: float,
) -> Optimum:
    """Iterate E and M until the log-likelihood can rise by less than `tolerance` (Aitken)."""
    from scipy.optimize import Bounds, minimize

    par, data = problem.parametrisation, problem.data
    typical = par.typical
    limits = Bounds(bounds[0] / typical, bounds[1] / typical)
    history: list[float] = []
    message, iteration = f"stopped after {max_iter} iterations", 0
    evals = 0
    for iteration in range(1, max_iter + 1):
        value, expected = _expect(par.system(theta), data)
        history.append(value)
        if len(history) > 2 and _aitken_gain(history) < tolerance:
            message = ""
            break

        def negative(x: Array, expected: Expectations = expected) -> tuple[float, Array]:
            try:
                chain, pullback = make_chain(par.system(x * typical), data)
                bound, grad = expected_loglik(chain, expected)
            except np.linalg.LinAlgError:
                return 1e15, np.zeros(len(x))
            return -bound, -par.pull(x * typical, pullback(grad)) * typical

        if iteration == 1:
            _check_density(par.system(theta), data)
        step = minimize(
            negative,
            theta / typical,
            jac=True,
            method="L-BFGS-B",
            bounds=limits,
            options={"maxiter": 50, "ftol": 1e-13, "gtol": 1e-8},
        )
        evals += int(step.nfev)
        theta = step.x * typical
    objective = Objective(problem.objective)
    value, grad = objective(theta)
    info = information(objective, theta, typical)
    seen, blind, _, gain = newton(info, grad, typical)
    return Optimum(
        theta,
        value,
        grad,
        info,
        seen,
        blind,
        gain,
        iteration,
        not message,
        message or "converged",
        (),
        history,
        evals + objective.n_evals,
    )


def _aitken_gain(history: list[float]) -> float:
    """What a geometric continuation of the last two increments would still add."""
    last, before = history[-1] - history[-2], history[-2] - history[-3]
    if last <= 0:
        return 0.0
    rate = min(last / before, 1 - 1e-6) if before > 0 else 0.0
    return last * rate / (1 - rate) if rate > 0 else last


def _check_density(system: Any, data: Data) -> None:
    chain, _ = make_chain(system, data)
    try:
        expected_loglik(chain, _expect(system, data)[1])
    except np.linalg.LinAlgError:
        kind = LinearSDE.__name__ if hasattr(system, "A") else "DiscreteModel"
        raise ValueError(
            f"EM needs process noise that reaches every state of the {kind} in every positive "
            "interval, and definite R; use method='ml'"
        ) from None


def _expect(system: Any, data: Data) -> tuple[float, Expectations]:
    """Log-likelihood and the sums of smoothed moments."""
    chain, _ = make_chain(system, data)
    value, _, moments = chain_loglik(chain, data, gradient=False, keep=True)
    d, K = chain.F.shape[1], len(chain.F)
    now, cross, before = np.zeros((3, K, d, d))
    sums = TransitionSums(np.zeros(K), now, cross, before, np.zeros((K, d)), np.zeros((K, d)))
    observations: dict[Any, list[Any]] = {}
    start_count, start_mean, start = 0, np.zeros(d), np.zeros((d, d))
    varying = max(len(chain.H), len(chain.shift), len(chain.R)) > 1
    for group, m in zip(data.groups, moments, strict=True):
        n = group.z.shape[2]
        second = n * m.cov + m.x @ m.x.transpose(0, 2, 1)
        lagged = n * m.cross[1:] + m.x[1:] @ m.x[:-1].transpose(0, 2, 1)
        into = chain.index[1:]
        np.add.at(sums.steps, into, n)
        np.add.at(sums.now, into, second[1:])
        np.add.at(sums.cross, into, lagged)
        np.add.at(sums.before, into, second[:-1])
        np.add.at(sums.mean_now, into, m.x[1:].sum(axis=2))
        np.add.at(sums.mean_before, into, m.x[:-1].sum(axis=2))
        start_count += n
        start_mean += m.x[0].sum(axis=1)
        start += second[0]
        _add_observations(observations, group, m, second, varying)
    stats = [ObservationSums(*parts) for parts in observations.values()]
    return value, Expectations(sums, stats, start_count, start_mean, start)


def _add_observations(
    into: dict[Any, list[Any]], group: Any, m: Moments, second: Array, varying: bool
) -> None:
    patterns: dict[Any, list[int]] = {}
    for t, mask in enumerate(group.mask):
        if mask.any():
            key = (mask.tobytes(), float(group.scale[t]), t if varying else 0)
            patterns.setdefault(key, []).append(t)
    for key, where in patterns.items():
        rows = np.flatnonzero(group.mask[where[0]])
        z = group.z[where][:, rows]  # (m, r, n)
        x = m.x[where]
        parts = [
            len(where) * z.shape[2],
            np.einsum("tan,tbn->ab", z, z),
            np.einsum("tan,tin->ai", z, x),
            second[where].sum(axis=0),
            z.sum(axis=(0, 2)),
            x.sum(axis=(0, 2)),
        ]
        if key in into:
            have = into[key]
            have[3:] = [a + b for a, b in zip(have[3:], parts, strict=True)]
        else:
            into[key] = [rows, key[2], key[1], *parts]


def expected_loglik(chain: Chain, expected: Expectations) -> tuple[float, Chain]:
    """Expected complete-data log-likelihood (up to a constant) and its gradient by the chain.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a V of a positive interval, or R, is not positive definite.
    """
    s = expected.transitions
    F, b, V = chain.F, chain.b, chain.V
    gF, gb, gV = np.zeros_like(F), np.zeros_like(b), np.zeros_like(V)
    used = (s.steps > 0) & (np.abs(V).max(axis=(1, 2)) > 0)
    if ((s.steps > 0) & ~used & (np.abs(F - np.eye(F.shape[1])).max(axis=(1, 2)) > 0)).any():
        raise np.linalg.LinAlgError("V = 0 over a positive interval")
    value = 0.0
    if used.any():
        n, Fu, bu = s.steps[used], F[used], b[used]
        # Balance before factorising: V(dt) of smooth processes spans many powers of dt.
        size = np.sqrt(np.diagonal(V[used], axis1=1, axis2=2))
        if not (size > 0).all():
            raise np.linalg.LinAlgError("V is singular")
        scaled = V[used] / size[:, :, None] / size[:, None, :]
        L = np.linalg.cholesky(scaled)
        logdet = 2 * np.log(np.diagonal(L, axis1=1, axis2=2) * size).sum(axis=1)
        inverse = np.linalg.inv(scaled) / size[:, :, None] / size[:, None, :]
        Ft = Fu.transpose(0, 2, 1)
        outer = s.mean_now[used][:, :, None] * bu[:, None, :]
        carried = (Fu @ s.mean_before[used][:, :, None]) * bu[:, None, :]
        half = -(s.cross[used] @ Ft) - outer + carried
        M = s.now[used] + Fu @ s.before[used] @ Ft + half + half.transpose(0, 2, 1)
        M += n[:, None, None] * bu[:, :, None] * bu[:, None, :]
        value -= 0.5 * float((n * logdet).sum() + (inverse * M).sum())
        resid = s.cross[used] - Fu @ s.before[used] - bu[:, :, None] * s.mean_before[used][:, None]
        gF[used] = inverse @ resid
        gap = s.mean_now[used] - (Fu @ s.mean_before[used][:, :, None])[:, :, 0] - n[:, None] * bu
        gb[used] = (inverse @ gap[:, :, None])[:, :, 0]
        gV[used] = -0.5 * (n[:, None, None] * inverse - inverse @ M @ inverse)
    part, gH, gs, gR = _observed(chain, expected.observations)
    first, gm, gP = _start(chain, expected)
    grad = chain._replace(
        F=gF, b=gb, V=gV, H=gH, shift=gs, R=gR, mean=gm, cov=gP, flat=np.zeros_like(chain.flat)
    )
    return value + part + first, grad


def _observed(chain: Chain, sums: list[ObservationSums]) -> tuple[float, Array, Array, Array]:
    gH, gs, gR = np.zeros_like(chain.H), np.zeros_like(chain.shift), np.zeros_like(chain.R)
    value = 0.0
    for o in sums:
        kh, ks, kr = (o.at if len(x) > 1 else 0 for x in (chain.H, chain.shift, chain.R))
        block = np.ix_(o.rows, o.rows)
        H, e, R = chain.H[kh][o.rows], chain.shift[ks][o.rows], o.scale * chain.R[kr][block]
        L = np.linalg.cholesky(R)
        W = np.linalg.inv(R)
        half = -o.zx @ H.T - np.outer(o.z, e) + np.outer(H @ o.x, e)
        E = o.zz + H @ o.xx @ H.T + half + half.T + o.number * np.outer(e, e)
        value -= 0.5 * float(o.number * 2 * np.log(np.diag(L)).sum() + (W * E).sum())
        gH[kh, o.rows] += W @ (o.zx - H @ o.xx - np.outer(e, o.x))
        gs[ks, o.rows] += W @ (o.z - H @ o.x - o.number * e)
        gR[kr][block] += -0.5 * o.scale * (o.number * W - W @ E @ W)
    return value, gH, gs, gR


def _start(chain: Chain, expected: Expectations) -> tuple[float, Array, Array]:
    """Law of x_0 outside the flat directions; a known (singular) start says nothing."""
    d, q = chain.flat.shape
    gm, gP = np.zeros(d), np.zeros((d, d))
    if q == d:
        return 0.0, gm, gP
    U = np.eye(d) if q == 0 else np.linalg.svd(chain.flat)[0][:, q:]
    P = U.T @ chain.cov @ U
    n = expected.start_count
    try:
        L = np.linalg.cholesky(P)
    except np.linalg.LinAlgError:
        return 0.0, gm, gP
    m = U.T @ chain.mean
    first = U.T @ expected.start_mean
    E = U.T @ expected.start @ U - np.outer(first, m) - np.outer(m, first) + n * np.outer(m, m)
    W = np.linalg.inv(P)
    value = -0.5 * float(n * 2 * np.log(np.diag(L)).sum() + (W * E).sum())
    gm = U @ W @ (first - n * m)
    gP = -0.5 * U @ (n * W - W @ E @ W) @ U.T
    return value, gm, gP
