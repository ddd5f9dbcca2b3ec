"""The recursions of core/likelihood.h against a readable twin: the dense Gaussian of the chain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from afafilter import LinearSDE, Prior, kalman_filter
from afafilter.likelihood.chain import Chain, PriorArrays, System
from afafilter.likelihood.data import Data, prepare
from afafilter.likelihood.loglik import chain_loglik, evaluate, make_chain
from afafilter.likelihood.recursions import loglik_group, no_slopes
from tests.conftest import draw_data, irregular_times

FIELDS = ("F", "b", "V", "H", "shift", "R", "mean", "cov", "flat")


def dense_chain_loglik(chain: Chain, data: Data) -> float:
    """Log-density of all observations as one Gaussian vector, flat directions by projection.

    Analytic in every array, V indefinite by a little included.
    """
    T, d, q = len(data.t), len(chain.mean), chain.flat.shape[1]
    # States as x = mean + D delta + noise, noise of covariance cov (T d, T d).
    mean, D = [chain.mean], [chain.flat]
    cov = np.zeros((T, d, T, d))
    cov[0, :, 0] = chain.cov
    for t in range(1, T):
        F, b, V = (part[chain.index[t]] for part in (chain.F, chain.b, chain.V))
        mean.append(F @ mean[-1] + b)
        D.append(F @ D[-1])
        for s in range(t):
            cov[t, :, s] = F @ cov[t - 1, :, s]
            cov[s, :, t] = cov[t, :, s].T
        cov[t, :, t] = F @ cov[t - 1, :, t - 1] @ F.T + V
    total = 0.0
    for group in data.groups:
        rows = [(t, a) for t in range(T) for a in np.flatnonzero(group.mask[t])]
        H = np.array([chain.H[chain.row[t], a] for t, a in rows])
        at = np.array([t for t, _ in rows])
        S = np.einsum("ia,iajb,jb->ij", H, cov[at][:, :, at], H)
        for i, (t, a) in enumerate(rows):
            for j, (s, c) in enumerate(rows):
                S[i, j] += group.scale[t] * chain.R[chain.row[t], a, c] * (t == s)
        E = np.einsum("ia,iaq->iq", H, np.array(D)[at])
        level = [h @ mean[t] + chain.shift[chain.row[t], a] for h, (t, a) in zip(H, rows)]
        Si = np.linalg.inv(S)
        info = E.T @ Si @ E
        for path in range(group.z.shape[2]):
            v = np.array([group.z[t, a, path] for t, a in rows]) - level
            total -= 0.5 * (len(rows) * np.log(2 * np.pi) + np.linalg.slogdet(S)[1])
            total -= 0.5 * (v @ Si @ v)
            if q:
                g = E.T @ Si @ v
                total += 0.5 * (g @ np.linalg.solve(info, g) - np.linalg.slogdet(info)[1])
    return float(total)


def slope(f: Any, h: float = 1e-3) -> float:
    """f'(0), error of order h^6."""
    d = [(f(x) - f(-x)) / (2 * x) for x in (h, h / 2, h / 4)]
    e = [(4 * d[1] - d[0]) / 3, (4 * d[2] - d[1]) / 3]
    return (16 * e[1] - e[0]) / 15


def check_every_array(chain: Chain, data: Data) -> None:
    value, grad, _ = chain_loglik(chain, data)
    assert value == pytest.approx(dense_chain_loglik(chain, data), rel=1e-9)
    rng = np.random.default_rng(5)
    for name in FIELDS:
        X = getattr(chain, name)
        if X.size == 0:
            continue
        E = rng.uniform(-1, 1, X.shape) * np.maximum(np.abs(X), 0.05 * np.abs(X).max() + 1e-3)
        if name in ("V", "R", "cov"):
            E = E + np.swapaxes(E, -1, -2)

        def moved(h: float, name: str = name, X: Any = X, E: Any = E) -> float:
            return dense_chain_loglik(chain._replace(**{name: X + h * E}), data)

        exact = float((getattr(grad, name) * E).sum())
        size = 1e-6 * max(1.0, abs(exact), float(np.abs(getattr(grad, name) * E).sum()))
        assert exact == pytest.approx(slope(moved), abs=size), name


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_value_and_gradient_by_every_array(model: LinearSDE, missing: float) -> None:
    t = irregular_times(10, seed=4)
    z = draw_data(model, t, seed=4, missing=missing)
    data = prepare(t, z, model.obs_dim, None)
    check_every_array(make_chain(System.of(model), data)[0], data)


def test_several_paths_share_gaps(model: LinearSDE) -> None:
    t = irregular_times(6, seed=2)
    z = draw_data(model, t, n_paths=3)
    z[:, 2, 0] = np.nan
    data = prepare(t, z, model.obs_dim, None)
    assert len(data.groups) == 1
    check_every_array(make_chain(System.of(model), data)[0], data)


@pytest.mark.parametrize("times", [[0.0, 0.0, 0.0, 0.5, 0.5], [0.0, 1.0, 1.0, 1.0, 4.0]])
def test_repeated_times(model: LinearSDE, times: list[float]) -> None:
    z = draw_data(model, np.array(times), seed=1)
    data = prepare(times, z, model.obs_dim, None)
    check_every_array(make_chain(System.of(model), data)[0], data)


def test_first_observations_missing_and_scaled_noise() -> None:
    """The flat start goes on past a gap; noise has a scale of its own at every time."""
    model = LinearSDE(
        [[0, 1], [0, 0]], Q=np.diag([0.0, 0.5]), C=[[1.0, 0.0]], R=[[0.2]], prior="diffuse"
    )
    t = np.array([0.0, 0.4, 1.0, 1.5, 3.0, 3.3])
    z = draw_data(model, t)
    z[0] = z[2] = np.nan
    data = prepare(t, z, 1, None).rescaled(np.array([[1.0, 2.0, 1.0, 0.5, 3.0, 1.0]]))
    check_every_array(make_chain(System.of(model), data)[0], data)


@pytest.mark.parametrize("unseen", [0, 1])
def test_partly_flat_first_state(unseen: int) -> None:
    """One flat direction that is not orthonormal; one more that nothing ever sees."""
    flat = np.array([[2.0, 0.0], [0.5, 0.0], [0.0, 1.0]])[:, : 1 + unseen]
    prior = Prior([0.3, -0.2, 0.0], np.diag([0.4, 0.1, 0.7]), None, flat)
    A = np.array([[-0.2, 1.0, 0.0], [-1.0, -0.2, 0.0], [0.0, 0.0, -0.1]])
    model = LinearSDE(A, Q=0.3 * np.eye(3), C=[[1.0, 0.0, 0.0]], R=[[0.1]], prior=prior)
    t = irregular_times(8)
    z = draw_data(model, t)
    data = prepare(t, z, 1, None)
    chain = make_chain(System.of(model), data)[0]._replace(flat=np.array(flat))
    if not unseen:
        return check_every_array(chain, data)
    seen = chain._replace(flat=np.array(flat[:, :1]))
    value, grad, _ = chain_loglik(chain, data)
    wanted, by_seen, _ = chain_loglik(seen, data)
    assert value == pytest.approx(wanted, rel=1e-12)
    for name in FIELDS[:-1]:
        found, other = getattr(grad, name), getattr(by_seen, name)
        np.testing.assert_allclose(found, other, rtol=1e-9, atol=1e-9, err_msg=name)


def test_dimensions_known_and_not_known_to_the_compiler() -> None:
    """A decoupled state that nobody sees makes d larger than any instance of the kernel."""
    A = np.array([[-0.2, 1.0], [-1.0, -0.2]])
    small = LinearSDE(A, Q=0.3 * np.eye(2), C=[[1.0, 0.2]], R=[[0.1]], prior="stationary")
    wide = np.kron(np.diag([1.0, 0, 0]), A) + np.diag([0, 0, -1.0, -1, -1, -1])
    large = LinearSDE(
        wide, Q=0.3 * np.eye(6), C=[[1.0, 0.2, 0, 0, 0, 0]], R=[[0.1]], prior="stationary"
    )
    t = irregular_times(9)
    z = draw_data(small, t)
    data = prepare(t, z, 1, None)
    (one, a), (two, b) = (evaluate(System.of(model), data) for model in (small, large))
    assert one == pytest.approx(two, rel=1e-12)
    np.testing.assert_allclose(b.A[:2, :2], a.A, rtol=1e-10)
    np.testing.assert_allclose(b.R, a.R, rtol=1e-10)


@pytest.mark.parametrize("variance", [1e7, 1e10, 1e13])
def test_precise_sensors_and_a_wide_prior(variance: float) -> None:
    """The likelihood keeps the digits that the filter keeps."""
    model = LinearSDE(
        [[0, 1], [0, 0]],
        Q=np.diag([0.0, 0.1]),
        C=[[1, 0], [1, 0]],
        R=1e-6 * np.eye(2),
        prior=Prior([0, 0], variance * np.eye(2)),
    )
    t = np.arange(10.0)
    z = draw_data(model, t, seed=3)
    z -= z[:1, :1]
    value, grad = evaluate(System.of(model), prepare(t, z, 2, None))
    assert value == pytest.approx(kalman_filter(model, t, z).loglik, rel=1e-12)
    h = 1e-3 * variance
    ends = [
        kalman_filter(replace(model, prior=Prior([0, 0], P)), t, z)
        for P in (np.diag([variance + h, variance]), np.diag([variance - h, variance]))
    ]
    slope = (ends[0].loglik - ends[1].loglik) / (2 * h)
    assert isinstance(grad.prior, PriorArrays)
    assert grad.prior.cov[0, 0] == pytest.approx(slope, rel=1e-5)


def test_likelihood_is_the_filters(model: LinearSDE) -> None:
    t = irregular_times(40)
    z = draw_data(model, t, missing=0.2)
    value, _ = evaluate(System.of(model), prepare(t, z, model.obs_dim, None), gradient=False)
    assert value == pytest.approx(float(kalman_filter(model, t, z).loglik), rel=1e-11, abs=1e-11)


def test_singular_innovation_is_reported() -> None:
    model = LinearSDE([[0.0]], Q=[[0.0]], R=[[0.0]], prior=Prior([0.0], [[1.0]]))
    data = prepare([0.0, 1.0], [[0.1], [0.2]], 1, None)
    chain, _ = make_chain(System.of(model), data)
    assert loglik_group(chain, data.groups[0], no_slopes(chain), None)[0] == 1
