"""Expectation-maximisation for linear SDEs and discrete models.

E-step: smoothed means, covariances and lag-one covariances of the states at the observation times
(Shumway & Stoffer, 1982). M-step: the expected complete-data log-likelihood is maximised
numerically, with its exact gradient, over whatever is free: on irregular grids A and Q enter every
Phi(dt) and V(dt) and have no closed form.

Transitions, observations and the start are regressions of one form, x = G y + N(0, S), with
y = (x_k-1, 1) and G = [F b], y = (x_k, 1) and G = [H shift], or y = 1 and G = mean.

The complete data need a density of x_k given x_k-1, so V must be definite at every positive
interval: EM cannot start from, nor leave, Q = 0. Maximum likelihood can. V^-1 also costs digits
where intervals are very short; maximum likelihood does not need it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from afafilter._base.checks import Array
from afafilter.learning.curvature import informations
from afafilter.learning.likelihood_each import EachObjective
from afafilter.learning.optimise import Optimum, newton
from afafilter.learning.problem import Problem
from afafilter.likelihood.chain import Chain
from afafilter.likelihood.data import Data
from afafilter.likelihood.loglik import chain_loglik, make_chain
from afafilter.likelihood.recursions import Moments
from afafilter.models.sde import LinearSDE

STALLED = 1e-2
"""Log-likelihood that a Newton step would add to where EM stops, from which that is no optimum."""


class RegressionSums(NamedTuple):
    """Sums of expected second moments over n samples of a regression of x on y; stacks (..., )."""

    n: Any
    xx: Array  # E x x^T
    xy: Array  # E x y^T
    yy: Array  # E y y^T


class Expectations(NamedTuple):
    """Everything the M-step needs from the E-step."""

    transitions: RegressionSums  # (K, ...)
    observations: list[tuple[Any, int, float, RegressionSums]]
    """Of each pattern: observed components, row of H, shift and R, scale of R, sums."""
    start: RegressionSums


def expectation_maximisation(
    problem: Problem,
    theta: Array,
    bounds: tuple[Array, Array],
) -> Optimum:
    """Iterate E and M until the log-likelihood can rise by less than the tolerance (Aitken)."""
    from scipy.optimize import Bounds, minimize

    par, data = problem.parametrisation, problem.data
    max_iter, tolerance = problem.stopping
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
            return -bound, -par.pullback(x * typical, pullback(grad)) * typical

        if iteration == 1:
            _check_density(par.system(theta), data, expected)
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
    objective = EachObjective.of(problem)
    value, grad = problem.objective(theta)
    info = informations(objective, theta[None], typical[None])[0]
    identified, null_space, _, gain = newton(info, grad, typical)
    if not message and gain > STALLED:
        message = "steps became short though the likelihood still rises; use method='ml'"
    evals += 1 + int(objective.n_evals[0])
    outcome = iteration, not message, message or "converged", tuple(history), (), evals
    return Optimum(theta, value, grad, info, identified, null_space, *outcome)


def _aitken_gain(history: list[float]) -> float:
    """What a geometric continuation of the last two increments would still add."""
    last, before = history[-1] - history[-2], history[-2] - history[-3]
    if last <= 0:
        return 0.0
    rate = min(last / before, 1 - 1e-6) if before > 0 else 0.0
    return last * rate / (1 - rate) if rate > 0 else last


def _check_density(system: Any, data: Data, expected: Expectations) -> None:
    try:
        expected_loglik(make_chain(system, data)[0], expected)
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
    K, d = chain.b.shape
    steps = RegressionSums(
        np.zeros(K), np.zeros((K, d, d)), np.zeros((K, d, d + 1)), np.zeros((K, d + 1, d + 1))
    )
    observations: dict[Any, Any] = {}
    start = RegressionSums(0, np.zeros((d, d)), np.zeros((d, 1)), np.zeros((1, 1)))
    into = chain.index[1:]
    for group, m in zip(data.groups, moments, strict=True):
        n = group.z.shape[2]
        second = n * m.cov + m.x @ m.x.transpose(0, 2, 1)  # E x_k x_k^T
        lagged = n * m.cross[1:] + m.x[1:] @ m.x[:-1].transpose(0, 2, 1)  # E x_k x_k-1^T
        first = m.x.sum(axis=2)[:, :, None]
        joint = np.concatenate([second, first], axis=2)  # E x_k (x_k, 1)^T
        last = np.concatenate([first.transpose(0, 2, 1), np.full((len(first), 1, 1), n)], axis=2)
        yy = np.concatenate([joint, last], axis=1)
        parts = n, second[1:], np.concatenate([lagged, first[1:]], axis=2), yy[:-1]
        for total, part in zip(steps, parts, strict=True):
            np.add.at(total, into, part)
        start = _added(start, RegressionSums(n, second[0], first[0], np.full((1, 1), n)))
        _add_observations(observations, chain.row, group, m, yy)
    observed = [
        (np.frombuffer(key[0], bool).nonzero()[0], *key[1:], observations[key])
        for key in observations
    ]
    return value, Expectations(steps, observed, start)


def _added(a: RegressionSums, b: RegressionSums) -> RegressionSums:
    return RegressionSums(*(x + y for x, y in zip(a, b, strict=True)))


def _add_observations(
    into: dict[Any, RegressionSums], row: Any, group: Any, m: Moments, yy: Array
) -> None:
    """Sums over the times with one pattern of missing components, one row and one scale."""
    patterns: dict[Any, list[int]] = {}
    for t, mask in enumerate(group.mask):
        if mask.any():
            patterns.setdefault((mask.tobytes(), int(row[t]), float(group.scale[t])), []).append(t)
    for key, where in patterns.items():
        z = group.z[where][:, group.mask[where[0]]]  # (m, r, n)
        zx = np.einsum("tan,tin->ai", z, m.x[where])
        found = RegressionSums(
            len(where) * z.shape[2],
            np.einsum("tan,tbn->ab", z, z),
            np.column_stack([zx, z.sum(axis=(0, 2))]),
            yy[where].sum(axis=0),
        )
        into[key] = _added(into[key], found) if key in into else found


def _regression(G: Array, S: Array, sums: RegressionSums) -> tuple[float, Array, Array]:
    """Expected log density of x = G y + N(0, S) without 2 pi, and its gradient by G and S.

    -(n log det S + tr S^-1 M) / 2 with M = E (x - G y) (x - G y)^T, summed over the stack.

    LinAlgError: If an S is not positive definite.
    """
    n, xx, xy, yy = sums
    # Balance before factorising: V(dt) of smooth processes spans many powers of dt.
    size = np.sqrt(np.diagonal(S, axis1=-2, axis2=-1))
    if not (size > 0).all():
        raise np.linalg.LinAlgError("a covariance is singular")
    unit = size[..., :, None] * size[..., None, :]
    L = np.linalg.cholesky(S / unit)
    logdet = 2 * np.log(np.diagonal(L, axis1=-2, axis2=-1) * size).sum(axis=-1)
    W = np.linalg.inv(S / unit) / unit
    cross = G @ xy.swapaxes(-1, -2)
    M = xx - cross - cross.swapaxes(-1, -2) + G @ yy @ G.swapaxes(-1, -2)
    value = -0.5 * float((n * logdet).sum() + (W * M).sum())
    return value, W @ (xy - G @ yy), -0.5 * (np.asarray(n)[..., None, None] * W - W @ M @ W)


def expected_loglik(chain: Chain, expected: Expectations) -> tuple[float, Chain]:
    """Expected complete-data log-likelihood (up to a constant) and its gradient by the chain.

    LinAlgError: If a V of a positive interval, or R, is not positive definite.
    """
    F, V, R = chain.F, chain.V, chain.R
    G, H = (
        np.concatenate([x, y[..., None]], axis=2) for x, y in ((F, chain.b), (chain.H, chain.shift))
    )
    gG, gV, gH, gR = (np.zeros_like(x) for x in (G, V, H, R))
    value = 0.0
    some = expected.transitions.n > 0
    used = some & (np.abs(V).max(axis=(1, 2)) > 0)
    if (some & ~used & (np.abs(F - np.eye(F.shape[1])).max(axis=(1, 2)) > 0)).any():
        raise np.linalg.LinAlgError("V = 0 over a positive interval")
    if used.any():
        sums = RegressionSums(*(part[used] for part in expected.transitions))
        value, gG[used], gV[used] = _regression(G[used], V[used], sums)
    for rows, k, scale, sums in expected.observations:
        block = np.ix_(rows, rows)
        part, slope, by_cov = _regression(H[k][rows], scale * R[k][block], sums)
        value += part
        gH[k, rows] += slope
        gR[k][block] += scale * by_cov
    part, gm, gP = _start(chain, expected.start)
    (gF, gb), (gH, gs) = _columns(gG), _columns(gH)
    flat = np.zeros_like(chain.flat)
    grad = chain._replace(F=gF, b=gb, V=gV, H=gH, shift=gs, R=gR, mean=gm, cov=gP, flat=flat)
    return value + part, grad


def _columns(G: Array) -> tuple[Array, Array]:
    """What of G belongs to x, and what to the constant."""
    return np.ascontiguousarray(G[..., :-1]), np.ascontiguousarray(G[..., -1])


def _start(chain: Chain, sums: RegressionSums) -> tuple[float, Array, Array]:
    """Law of x_0 outside the flat directions; a known (singular) start says nothing."""
    d, q = chain.flat.shape
    none = 0.0, np.zeros(d), np.zeros((d, d))
    if q == d:
        return none
    U = np.eye(d) if q == 0 else np.linalg.svd(chain.flat)[0][:, q:]
    across = sums._replace(xx=U.T @ sums.xx @ U, xy=U.T @ sums.xy)
    try:
        value, gm, gP = _regression(U.T @ chain.mean[:, None], U.T @ chain.cov @ U, across)
    except np.linalg.LinAlgError:
        return none
    return value, (U @ gm)[:, 0], U @ gP @ U.T
