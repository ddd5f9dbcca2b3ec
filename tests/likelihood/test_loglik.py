"""The log-likelihood against the dense joint Gaussian, its gradient against differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from afafilter import DiscreteModel, LinearSDE, Prior, loglik
from afafilter.likelihood.chain import (
    DiscreteSystem,
    PriorArrays,
    System,
    discrete_chain,
    sde_chain,
)
from afafilter.likelihood.data import prepare, steps_of
from afafilter.likelihood.loglik import chain_loglik, evaluate, make_chain
from afafilter.linalg.transitions import transition_adjoint
from tests.conftest import MODELS, draw_data, irregular_times
from tests.exact_oracle import ExactGaussian
from tests.likelihood.test_recursions import dense_chain_loglik
from tests.oracles import dense_loglik, mp_transition

FIELDS = ("A", "Q", "drift", "C", "offset", "R")


def direction(X: np.ndarray, seed: int, symmetric: bool) -> np.ndarray:
    """A random direction whose entries are in proportion to those of X."""
    size = np.where(X != 0, np.abs(X), 0.1 * min(1.0, np.abs(X).max() or 1.0))
    E = size * np.random.default_rng(seed).uniform(-1, 1, X.shape)
    return E + E.T if symmetric else E


def slope(f: Callable[[float], float], step: float = 2e-3) -> float:
    """f'(0) by central differences with two Richardson steps (error of order step^6)."""
    d = [(f(h) - f(-h)) / (2 * h) for h in (step, step / 2, step / 4)]
    e = [(4 * d[1] - d[0]) / 3, (4 * d[2] - d[1]) / 3]
    return (16 * e[1] - e[0]) / 15


def check_system_gradient(system: Any, data: Any, fields: tuple[str, ...]) -> None:
    _, grad = evaluate(system, data)
    for k, name in enumerate(fields):
        X = getattr(system, name)
        E = direction(X, k, name in ("Q", "R"))

        def value(h: float, name: str = name, X: Any = X, E: Any = E) -> float:
            moved = system._replace(**{name: X + h * E})
            if name == "Q":  # may be singular: only the dense form goes on to indefinite ones
                return dense_chain_loglik(make_chain(moved, data)[0], data)
            return evaluate(moved, data, gradient=False)[0]

        exact = float((getattr(grad, name) * E).sum())
        assert exact == pytest.approx(slope(value), rel=1e-6, abs=1e-6), name


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_value_is_the_dense_gaussian_log_density(model: LinearSDE, missing: float) -> None:
    t = irregular_times()
    z = draw_data(model, t, missing=missing)
    value, _ = evaluate(System.of(model), prepare(t, z, model.obs_dim, None), gradient=False)
    assert value == pytest.approx(dense_loglik(model, t, z), rel=1e-10)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_gradient_of_every_array(model: LinearSDE, missing: float) -> None:
    t = irregular_times(14, seed=3)
    z = draw_data(model, t, seed=3, missing=missing)
    check_system_gradient(System.of(model), prepare(t, z, model.obs_dim, None), FIELDS)


def test_gradient_in_Q_at_Q_zero_matches_the_dense_oracle() -> None:
    """The log density is smooth through Q = 0 (R keeps the data's covariance definite)."""
    model = MODELS["noiseless_rotation"]
    t = irregular_times(8)
    z = draw_data(model, t)
    _, grad = evaluate(System.of(model), prepare(t, z, 2, None))
    E = np.array([[1.0, 0.4], [0.4, 0.7]])

    def value(h: float) -> float:
        moved = replace(model)
        object.__setattr__(moved, "Q", h * E)
        return dense_loglik(moved, t, z)

    assert (grad.Q * E).sum() == pytest.approx(slope(value, 1e-2), rel=1e-7)


@pytest.mark.parametrize("name", ["constant_velocity", "general", "trend_and_ou"])
def test_gradient_in_A_matches_the_dense_oracle(name: str) -> None:
    model = MODELS[name]
    t = irregular_times(7, seed=5)
    z = draw_data(model, t, seed=5, missing=0.1)
    _, grad = evaluate(System.of(model), prepare(t, z, model.obs_dim, None))
    E = direction(model.A, 1, False)

    def value(h: float) -> float:
        moved = replace(model)
        object.__setattr__(moved, "A", model.A + h * E)
        return dense_loglik(moved, t, z)

    assert (grad.A * E).sum() == pytest.approx(slope(value, 1e-2), rel=1e-6, abs=1e-6)


def test_paths_add_up_whatever_they_miss() -> None:
    model = MODELS["spiral"]
    t = irregular_times()
    z = draw_data(model, t, n_paths=5)
    z[1:3, 2:5, 0] = np.nan
    z[3, :4] = np.nan
    system = System.of(model)
    value, grad = evaluate(system, prepare(t, z, 2, None))
    singles = [evaluate(system, prepare(t, path, 2, None)) for path in z]
    assert value == pytest.approx(sum(v for v, _ in singles), rel=1e-12)
    for name in FIELDS:
        total = sum(getattr(g, name) for _, g in singles)
        np.testing.assert_allclose(getattr(grad, name), total, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("flat", [None, [[1.0], [0.5]]])
def test_gradient_with_a_prior_at_an_earlier_time(flat: Any) -> None:
    prior = Prior([0.5, -1.0], [[0.6, 0.1], [0.1, 0.4]], -1.3, flat)
    model = replace(MODELS["unstable"], drift=[0.2, -0.1], prior=prior, delay=0.4)
    t = irregular_times()
    z = draw_data(model, t, missing=0.2)
    data = prepare(t, z, 2, None)
    system = System.of(model)
    value, grad = evaluate(system, data)
    assert value == pytest.approx(dense_loglik(model, t, z), rel=1e-10)
    check_system_gradient(system, data, FIELDS)
    assert isinstance(system.prior, PriorArrays)
    for k, part in enumerate(("mean", "cov", "flat")):
        X = getattr(system.prior, part)
        if X.size == 0:
            continue
        E = direction(X, k, part == "cov")
        if part == "cov" and flat is not None:  # along flat directions the law has no covariance
            proper = np.eye(2) - system.prior.flat @ system.prior.flat.T
            E = proper @ E @ proper

        def moved(h: float, part: str = part, X: Any = X, E: Any = E) -> float:
            assert isinstance(system.prior, PriorArrays)
            prior = system.prior._replace(**{part: X + h * E})
            return evaluate(system._replace(prior=prior), data, gradient=False)[0]

        exact = (getattr(grad.prior, part) * E).sum()
        assert exact == pytest.approx(slope(moved), rel=1e-6, abs=1e-6)


def test_obs_cov_replaces_R() -> None:
    model = MODELS["constant_velocity"]
    t = irregular_times()
    z = draw_data(model, t, missing=0.2)
    rng = np.random.default_rng(0)
    roots = rng.standard_normal((len(t), 2, 2))
    covs = roots @ roots.swapaxes(1, 2) + 0.1 * np.eye(2)
    data = prepare(t, z, 2, covs)
    value, grad = evaluate(System.of(model), data)
    assert value == pytest.approx(dense_loglik(model, t, z, covs), rel=1e-10)
    assert not grad.R.any()
    check_system_gradient(System.of(model), data, ("A", "Q", "drift", "C", "offset"))


@pytest.mark.parametrize("prior", ["stationary", "diffuse"])
def test_discrete_model(prior: Any) -> None:
    rng = np.random.default_rng(2)
    F = 0.5 * rng.standard_normal((3, 3)) / np.sqrt(3)
    root = rng.standard_normal((3, 3))
    model = DiscreteModel(
        F,
        Q=root @ root.T,
        H=rng.standard_normal((2, 3)),
        R=[[0.5, 0.1], [0.1, 0.3]],
        b=rng.standard_normal(3),
        d=rng.standard_normal(2),
        prior=prior,
    )
    z = rng.standard_normal((15, 2)) * 2
    z[4] = np.nan
    z[7, 1] = np.nan
    data = prepare(None, z, 2, None)
    system = DiscreteSystem.of(model)
    assert evaluate(system, data)[0] == pytest.approx(
        dense_loglik(model, np.arange(15), z), rel=1e-10
    )
    check_system_gradient(system, data, ("F", "Q", "b", "H", "d", "R"))


def test_discrete_model_with_time_varying_arrays() -> None:
    rng = np.random.default_rng(4)
    T = 9
    F = 0.6 * rng.standard_normal((T, 2, 2))
    root = rng.standard_normal((T, 2, 2))
    H = rng.standard_normal((T, 1, 2))
    R = rng.uniform(0.2, 1.0, (T, 1, 1))
    model = DiscreteModel(
        F,
        Q=root @ root.swapaxes(1, 2),
        H=H,
        R=R,
        d=[0.3],
        prior=Prior([1.0, 0.0], np.eye(2)),
        time_varying=("F", "Q", "H", "R"),
    )
    z = rng.standard_normal((T, 1))
    data = prepare(None, z, 1, None)
    system = DiscreteSystem.of(model)
    value, grad = evaluate(system, data)
    assert value == pytest.approx(dense_loglik(model, np.arange(T), z), rel=1e-10)
    for k, name in enumerate(("F", "H", "R", "b", "d")):
        X = getattr(system, name)
        E = direction(X, k, False)

        def moved(h: float, name: str = name, X: Any = X, E: Any = E) -> float:
            return evaluate(system._replace(**{name: X + h * E}), data, gradient=False)[0]

        assert (getattr(grad, name) * E).sum() == pytest.approx(slope(moved), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("dt", [1e-7, 0.3, 40.0])
@pytest.mark.parametrize("name", ["constant_velocity", "stiff", "oscillator", "general"])
def test_transition_adjoint_over_tiny_and_long_gaps(name: str, dt: float) -> None:
    """<G, d(Phi, psi, V)> against differences of the 50-digit discretisation."""
    model = MODELS[name]
    d = model.dim
    rng = np.random.default_rng(3)
    drift = rng.standard_normal(d)
    gF, gb, gV = rng.standard_normal((1, d, d)), rng.standard_normal((1, d)), np.empty((1, d, d))
    gV[0] = rng.standard_normal((d, d))
    A, Q = np.array(model.A), np.array(model.Q)
    steps = np.array([dt])
    gA, gQ, gu = transition_adjoint((A, Q, drift), steps, gF, gb, gV)
    EA, EQ, Eu = direction(A, 1, False), direction(Q, 2, True), direction(drift, 3, False)
    h = 1e-6 if dt < 1 else 1e-7
    plus = mp_transition(A + h * EA, Q + h * EQ, drift + h * Eu, dt)
    minus = mp_transition(A - h * EA, Q - h * EQ, drift - h * Eu, dt)
    weights = (gF[0], gb[0], gV[0])
    parts = [float((g * (p - m)).sum() / (2 * h)) for g, p, m in zip(weights, plus, minus)]
    size = sum(abs(part) for part in parts)
    exact = (gA * EA).sum() + (gQ * EQ).sum() + (gu * Eu).sum()
    assert exact == pytest.approx(sum(parts), abs=1e-6 * size)


def test_smoothed_moments_are_those_of_the_joint_law() -> None:
    """Means, covariances and lag-one covariances by conditioning the stacked state directly."""
    model = MODELS["proper_prior"]
    t = irregular_times(6)
    z = draw_data(model, t, missing=0.2)
    data = prepare(t, z, 3, None)
    chain, _ = sde_chain(System.of(model), data)
    (m,) = chain_loglik(chain, data, keep=True)[2]
    d, T = 3, len(t)
    mean, cov = np.zeros((T, d)), np.zeros((T, d, T, d))
    mean[0], cov[0, :, 0] = chain.mean, chain.cov
    for k in range(1, T):
        F, b, V = (part[data.index[k]] for part in (chain.F, chain.b, chain.V))
        mean[k] = F @ mean[k - 1] + b
        for j in range(k):
            cov[k, :, j] = F @ cov[k - 1, :, j]
            cov[j, :, k] = cov[k, :, j].T
        cov[k, :, k] = F @ cov[k - 1, :, k - 1] @ F.T + V
    seen = ~np.isnan(z.ravel())
    H = np.kron(np.eye(T), model.C)[seen]
    R = np.kron(np.eye(T), model.R)[np.ix_(seen, seen)]
    P = cov.reshape(T * d, T * d)
    resid = (z - model.offset).ravel()[seen] - H @ mean.ravel()
    gain = np.linalg.solve(H @ P @ H.T + R, H @ P).T
    x = (mean.ravel() + gain @ resid).reshape(T, d)
    post = (P - gain @ H @ P).reshape(T, d, T, d)
    np.testing.assert_allclose(m.x[:, :, 0], x, atol=1e-10)
    for k in range(T):
        np.testing.assert_allclose(m.cov[k], post[k, :, k], atol=1e-10)
        if k:
            np.testing.assert_allclose(m.cross[k], post[k, :, k - 1], atol=1e-10)


def test_distinct_steps_merge_what_differs_by_rounding_only() -> None:
    steps, index = steps_of(np.arange(1000) * 0.1)
    assert len(steps) == 1
    np.testing.assert_allclose(steps[index[1:]], 0.1, rtol=1e-13)
    steps, index = steps_of(np.array([0.0, 1.0, 1.0, 1.0 + 1e-9, 3.0]))
    np.testing.assert_allclose(steps[index[1:]], [1, 0, 1e-9, 2.0 - 1e-9], rtol=1e-6, atol=1e-16)


def test_tiny_measurement_noise_does_not_cost_digits() -> None:
    """A random walk almost without noise, far from 0: the flat start must not cancel."""
    rng = np.random.default_rng(1)
    z = 1e4 + np.cumsum(rng.standard_normal(50))
    model = LinearSDE([[0.0]], Q=[[1.0]], R=[[1e-10]], prior="diffuse")
    value, _ = evaluate(System.of(model), prepare(np.arange(50.0), z, 1, None), gradient=False)
    noiseless = -0.5 * (50 * np.log(2 * np.pi) + (np.diff(z) ** 2).sum())
    assert value == pytest.approx(noiseless, abs=1e-7)


def test_singular_innovation_is_named() -> None:
    model = LinearSDE([[0.0]], Q=[[0.0]], R=[[0.0]], prior=Prior([0.0], [[1.0]]))
    with pytest.raises(np.linalg.LinAlgError, match=r"t\[1\]"):
        evaluate(System.of(model), prepare([0.0, 1.0], [0.1, 0.2], 1, None))


def test_wrong_length_of_time_varying_arrays() -> None:
    model = DiscreteModel(np.ones((4, 1, 1)), Q=[[1.0]], H=[[1.0]], R=[[1.0]], time_varying="F")
    with pytest.raises(ValueError, match="length 3"):
        discrete_chain(DiscreteSystem.of(model), prepare(None, np.zeros((3, 1)), 1, None))


TURNING = np.array([[-14.4675, -17.9134], [26.535, 11.2675]])


def fading(gap: float) -> tuple[LinearSDE, np.ndarray, np.ndarray]:
    """An oscillation without noise, seen before and, by what is left of it, after a gap."""
    prior = Prior([0.3, 0.1], [[0.5, 0.2], [0.2, 0.4]], 0.0)
    noise = np.diag([1.0, 0.0])
    C = [[0.0, 1.0], [1.0, 1.0]]
    model = LinearSDE(TURNING / 11.0, Q=np.zeros((2, 2)), R=noise, C=C, prior=prior)
    t = np.array([0.5, gap, gap, gap + 0.1])
    left = np.exp(-1.6 / 11.0 * gap)
    return model, t, np.array([[0.3, np.nan], [0.1, left], [0.4, np.nan], [0.2, np.nan]])


@pytest.mark.parametrize("gap", [30.0, 350.0, 400.0, 600.0])
def test_a_state_without_noise_that_has_decayed_keeps_its_digits(gap: float) -> None:
    """Exact measurements of what is e^-4 to e^-87 of the start, by ball arithmetic."""
    model, t, z = fading(gap)
    assert loglik(model, t, z) == pytest.approx(ExactGaussian(model, t, z).loglik(), rel=1e-10)
