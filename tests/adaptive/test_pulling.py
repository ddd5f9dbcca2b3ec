"""Pulled-forward estimates against the dense posterior of one observation, and by quadrature."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad_vec
from scipy.linalg import expm

from afafilter import LinearSDE, adaptive_filter, adaptive_smoother, pull_forward
from tests.conftest import MODELS, draw_data
from tests.oracles import dense_posterior

INVERTIBLE = sorted(
    name
    for name, model in MODELS.items()
    if model.obs_dim == model.dim and np.linalg.matrix_rank(model.C) == model.dim
)
T = np.array([0.0, 0.3, 0.3, 1.1, 2.0])
TARGET = 0.9


def test_models_were_found():
    assert len(INVERTIBLE) >= 5


@pytest.mark.parametrize("name", INVERTIBLE)
@pytest.mark.parametrize("delay", [0.0, 0.4])
def test_equals_posterior_of_the_single_observation(name, delay):
    """Dense joint Gaussian law with a flat prior, one observation at a time, on both sides."""
    model = replace(MODELS[name], prior="diffuse", delay=delay)
    z = draw_data(model, T, seed=3)
    pulled = pull_forward(model, T, z, TARGET)
    for j, stamp in enumerate(T):
        mean, cov = dense_posterior(
            model, [stamp], z[j : j + 1], causal=False, query_times=[TARGET]
        )
        assert_allclose(pulled.mean[j], mean[0].astype(float), rtol=1e-9, atol=1e-10)
        assert_allclose(pulled.cov[j], cov[0].astype(float), rtol=1e-9, atol=1e-10)


def skewed_model() -> LinearSDE:
    return LinearSDE(
        [[-0.3, 1.0], [0.0, -0.9]],
        Q=[[0.5, 0.1], [0.1, 0.2]],
        R=[[0.4, 0.1], [0.1, 0.3]],
        C=[[1.0, 0.5], [-0.2, 2.0]],
        drift=[0.3, -0.7],
        offset=[1.0, -2.0],
        prior="diffuse",
    )


def test_equals_the_definition_by_quadrature():
    """The equations of the paper's sec. 4, integrals done numerically, C not the identity."""
    model = skewed_model()
    z = draw_data(model, T, seed=4)
    pulled = pull_forward(model, T, z, TARGET)
    inverse = np.linalg.inv(model.C)
    for j, stamp in enumerate(T):
        tau = TARGET - stamp
        sign = np.sign(tau)

        def spread(s, sign=sign):
            return expm(sign * model.A * s) @ model.Q @ expm(sign * model.A * s).T

        V = quad_vec(spread, 0, abs(tau), epsrel=1e-12)[0]
        psi = (
            sign
            * quad_vec(
                lambda s, sign=sign: expm(sign * model.A * s) @ model.drift,
                0,
                abs(tau),
                epsrel=1e-12,
            )[0]
        )
        M = expm(model.A * tau) @ inverse
        assert_allclose(pulled.mean[j], M @ (z[j] - model.offset) + psi, rtol=1e-10)
        assert_allclose(pulled.cov[j], V + M @ model.R @ M.T, rtol=1e-10)


def test_precision_weighted_mean_is_plain_afa():
    model = skewed_model()
    z = draw_data(model, T, seed=5, n_paths=3)
    z[:, 1] = np.nan
    seen = np.array([0, 2, 3, 4])
    for estimator, used in ((adaptive_filter, seen[:2]), (adaptive_smoother, seen)):
        mean, cov = pull_forward(model, T, z, TARGET)
        P = np.linalg.inv(cov[used])
        wanted = np.einsum("jab,njb->na", P, mean[:, used]) @ np.linalg.inv(P.sum(0))
        found = estimator(model, T, z, query_times=[TARGET])
        assert_allclose(found.mean[:, 0], wanted, rtol=1e-9)
        assert_allclose(found.cov[0, 0], np.linalg.inv(P.sum(0)), rtol=1e-9)


def test_at_lag_zero_the_observation_itself():
    model = MODELS["spiral"]
    mean, cov = pull_forward(model, [2.0], [[3.0, -1.0]], 2.0)
    assert_allclose(mean, [[3.0, -1.0]])
    assert_allclose(cov, model.R[None])


def test_observation_covariances_replace_R():
    model = MODELS["spiral"]
    z = draw_data(model, T, seed=6)
    R = np.array([k * np.array([[1.0, 0.2], [0.2, 0.5]]) for k in range(1, 6)])
    whole = pull_forward(model, T, z, TARGET, obs_cov=R)
    for j in range(len(T)):
        alone = pull_forward(replace(model, R=R[j]), T[j : j + 1], z[j : j + 1], TARGET)
        assert_allclose(whole.cov[j], alone.cov[0], rtol=1e-12)


def test_missing_rows_are_nan_and_long_causal_lags_settle():
    model = MODELS["spiral"]
    z = np.array([[1.0, 2.0], [np.nan, np.nan]])
    mean, cov = pull_forward(model, [0.0, 0.0], z, 1e5)
    assert np.isnan(mean[1]).all()
    assert_allclose(mean[0], 0.0, atol=1e-300)
    assert_allclose(cov[0], model.stationary_covariance(), rtol=1e-12, atol=1e-15)


def test_clear_errors():
    spiral = MODELS["spiral"]
    z = np.zeros((1, 2))
    with pytest.raises(ValueError, match="C must be invertible"):
        pull_forward(MODELS["matern32"], [0.0], [0.0], 1.0)
    singular = LinearSDE(np.zeros((2, 2)), Q=np.eye(2), R=np.eye(2), C=[[1.0, 1.0], [1.0, 1.0]])
    with pytest.raises(ValueError, match="rank 1"):
        pull_forward(singular, [0.0], z, 1.0)
    with pytest.raises(ValueError, match="adaptive_smoother"):
        pull_forward(spiral, [1e5], z, 0.0)
    with pytest.raises(ValueError, match="missing in part"):
        pull_forward(spiral, [0.0], [[1.0, np.nan]], 1.0)
    with pytest.raises(ValueError, match="target"):
        pull_forward(spiral, [0.0], z, np.inf)
    with pytest.raises(TypeError, match="LinearSDE"):
        pull_forward("spiral", [0.0], z, 1.0)
