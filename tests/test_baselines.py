"""Peers: the filterpy adapters and raw observations, and our filter beside statsmodels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from afafilter import (
    DiscreteModel,
    LinearSDE,
    Prior,
    filterpy_filter,
    filterpy_smoother,
    forecast,
    kalman_filter,
    raw_observation,
    rts_smoother,
)
from tests.conftest import MODELS, draw_data, irregular_times
from tests.oracles import dense_loglik, dense_posterior

sm = pytest.importorskip("statsmodels.api")


# --------------------------------- filterpy


@pytest.mark.parametrize("name", ["ou", "general", "proper_prior", "stiff", "matern52"])
@pytest.mark.parametrize("f", [filterpy_filter, filterpy_smoother])
def test_filterpy_equals_dense_gaussian(name, f):
    """Drift, offset, irregular and repeated times, gaps: all the places where it trips."""
    model, t = MODELS[name], irregular_times(8)
    z = draw_data(model, t, n_paths=2, missing=0.2)
    estimate = f(model, t, z)
    for i in range(2):
        mean, cov = dense_posterior(model, t, z[i], causal=f is filterpy_filter)
        np.testing.assert_allclose(estimate.mean[i], mean, atol=1e-8)
        np.testing.assert_allclose(estimate.cov[i], cov, atol=1e-8)
        assert estimate.loglik[i] == pytest.approx(dense_loglik(model, t, z[i]), abs=1e-8)


def test_filterpy_with_noise_per_observation_and_discrete_model():
    rng = np.random.default_rng(1)
    model = DiscreteModel([[0.9]], Q=[[0.2]], H=[[1.0]], R=[[0.5]], b=[0.3], d=[-1.0])
    z, obs_cov = rng.standard_normal((6, 1)), rng.uniform(0.1, 2.0, (6, 1, 1))
    estimate = filterpy_smoother(model, np.arange(6.0), z, obs_cov=obs_cov)
    mean, cov = dense_posterior(model, np.arange(6), z, causal=False, obs_cov=obs_cov)
    np.testing.assert_allclose(estimate.mean, mean, atol=1e-10)
    np.testing.assert_allclose(estimate.cov, cov, atol=1e-10)


def test_a_discrete_model_needs_no_times():
    z = np.random.default_rng(2).standard_normal((6, 1))
    model = DiscreteModel([[0.9]], Q=[[0.2]], H=[[2.0]], R=[[0.5]], d=[-1.0])
    mean, _ = dense_posterior(model, np.arange(6), z, causal=True)
    np.testing.assert_allclose(filterpy_filter(model, z).mean, mean, atol=1e-10)
    np.testing.assert_allclose(raw_observation(model, z).mean, (z + 1.0) / 2.0, atol=1e-15)


def test_filterpy_innovations():
    model, t = MODELS["proper_prior"], irregular_times(6)
    z = draw_data(model, t, missing=0.2)
    theirs, ours = filterpy_filter(model, t, z), kalman_filter(model, t, z)
    np.testing.assert_allclose(theirs.innovation, ours.innovation, atol=1e-9)
    np.testing.assert_allclose(theirs.innovation_cov, ours.innovation_cov, atol=1e-9)


def test_filterpy_has_no_flat_prior():
    """A large variance comes close, and closer the larger it is (until rounding)."""
    model, t = MODELS["brownian"], irregular_times(8)
    z = draw_data(model, t)
    exact, _ = dense_posterior(model, t, z, causal=True)
    errors = [
        np.abs(filterpy_filter(model, t, z, diffuse_var=var).mean - exact).max()
        for var in (1e2, 1e4, 1e6)
    ]
    assert errors[0] > 50 * errors[1] > 2500 * errors[2] > 0


def test_filterpy_says_what_it_cannot_do():
    known = LinearSDE([[0.0]], Q=[[0.0]], R=[[1.0]], prior=Prior([0.0], [[0.0]]))
    with pytest.raises(ValueError, match="filterpy inverts the predicted covariance"):
        filterpy_smoother(known, [0.0, 1.0], [0.0, 1.0])
    with pytest.raises(ValueError, match="delay"):
        filterpy_filter(replace(MODELS["ou"], delay=1.0), [0.0], [0.0])
    with pytest.raises(ValueError, match="diffuse_var must be > 0"):
        filterpy_filter(MODELS["ou"], [0.0], [0.0], diffuse_var=0.0)
    with pytest.raises(ValueError, match="t must not decrease"):
        filterpy_filter(MODELS["ou"], [1.0, 0.0], [0.0, 0.0])


# --------------------------------- raw observations


@pytest.mark.parametrize("delay", [0.0, 0.7])
def test_raw_is_the_flat_prior_posterior_of_one_observation(delay):
    C = np.array([[1.0, 0.5], [0.0, 2.0]])
    model = LinearSDE(
        [[-0.2, 1.0], [-1.0, -0.2]],
        Q=0.3 * np.eye(2),
        R=[[0.4, 0.1], [0.1, 0.3]],
        C=C,
        drift=[0.1, 0.2],
        offset=[1.0, -1.0],
        delay=delay,
        prior="diffuse",
    )
    t = np.array([0.0, 0.3, 0.3, 2.0])
    z = draw_data(replace(model, delay=0.0), t, n_paths=3)
    estimate = raw_observation(model, t, z)
    for i in range(3):
        for k in range(4):
            mean, cov = dense_posterior(model, t[k : k + 1], z[i, k : k + 1], causal=True)
            np.testing.assert_allclose(estimate.mean[i, k], mean[0], atol=1e-10)
            np.testing.assert_allclose(estimate.cov[i, k], cov[0], atol=1e-10)
    assert estimate.cov.strides[0] == 0


def test_raw_with_missing_components():
    """z = (x0 + x1/2, 2 x1): x1 needs the second only, x0 needs both."""
    model = LinearSDE(np.zeros((2, 2)), Q=np.eye(2), R=np.eye(2), C=[[1.0, 0.5], [0.0, 2.0]])
    estimate = raw_observation(model, [0.0, 1.0], [[np.nan, 4.0], [3.0, np.nan]])
    np.testing.assert_array_equal(estimate.mean, [[np.nan, 2.0], [np.nan, np.nan]])
    np.testing.assert_allclose(estimate.cov[0], [[np.inf, 0.0], [0.0, 0.25]])
    np.testing.assert_array_equal(estimate.cov[1], np.diag([np.inf, np.inf]))


def test_raw_whatever_the_units_of_the_components():
    """C = diag(1, 1e-14) is as invertible as the identity: the second component counts in 1e14."""
    C, R = np.diag([1.0, 1e-14]), np.diag([1.0, 1e-28])
    model = LinearSDE(-np.eye(2), Q=np.eye(2), R=R, C=C)
    z = np.array([[1.0, 2e-14], [3.0, -4e-14]])
    found = raw_observation(model, [0.0, 1.0], z)
    np.testing.assert_allclose(found.mean, [[1.0, 2.0], [3.0, -4.0]], rtol=1e-15)
    np.testing.assert_allclose(found.cov[0], np.eye(2), rtol=1e-15, atol=1e-20)


def test_raw_needs_an_invertible_observation():
    with pytest.raises(ValueError, match=r"invertible observation matrix, got one of shape \(1, 2"):
        raw_observation(MODELS["matern32"], [0.0], [0.0])
    flat = LinearSDE(np.zeros((2, 2)), Q=np.eye(2), R=np.eye(2), C=np.ones((2, 2)))
    with pytest.raises(ValueError, match="a singular one"):
        raw_observation(flat, [0.0], np.zeros((1, 2)))


# --------------------------------- statsmodels


def as_discrete(ssm, prior):
    """A statsmodels state-space representation in our words."""
    Q = ssm["selection"] @ ssm["state_cov"] @ ssm["selection"].T
    return DiscreteModel(
        ssm["transition"],
        Q=Q,
        H=ssm["design"],
        R=ssm["obs_cov"],
        b=np.ravel(ssm["state_intercept"]),
        d=np.ravel(ssm["obs_intercept"]),
        prior=prior,
    )


def assert_same(ours_filter, ours_smoother, theirs, skip=0, tol=1e-7):
    for ours, mean, cov in (
        (ours_filter, theirs.filtered_state, theirs.filtered_state_cov),
        (ours_smoother, theirs.smoothed_state, theirs.smoothed_state_cov),
    ):
        for a, b in ((ours.mean, mean.T), (ours.cov, np.moveaxis(cov, -1, 0))):
            np.testing.assert_allclose(a[skip:], b[skip:], atol=tol * np.abs(b[skip:]).max())
    theirs_loglik = theirs.llf_obs.sum()
    assert ours_filter.loglik == pytest.approx(theirs_loglik, abs=1e-7)
    np.testing.assert_allclose(ours_filter.loglik_steps[skip:], theirs.llf_obs[skip:], atol=1e-7)


@pytest.fixture(scope="module")
def nile():
    return sm.datasets.nile.load_pandas().data["volume"].to_numpy(float)


def test_nile_local_level(nile):
    """As Brownian motion with noise; the likelihood is the published one."""
    model = LinearSDE([[0.0]], Q=[[1469.1]], R=[[15099.0]])
    years = 1871.0 + np.arange(100)
    peer = sm.tsa.UnobservedComponents(nile, "llevel", use_exact_diffuse=True)
    theirs = peer.smooth([15099.0, 1469.1])
    assert_same(kalman_filter(model, years, nile), rts_smoother(model, years, nile), theirs)
    assert kalman_filter(model, years, nile).loglik == pytest.approx(-633.4646, abs=5e-5)
    vague = replace(model, prior=Prior([0.0], [[1e7]]))
    assert kalman_filter(vague, years, nile).loglik == pytest.approx(-641.5856, abs=5e-5)


def test_local_linear_trend_with_gaps(nile):
    data = nile.copy()
    data[20:40], data[60] = np.nan, np.nan
    peer = sm.tsa.UnobservedComponents(data, "lltrend", use_exact_diffuse=True)
    theirs = peer.smooth([15000.0, 1300.0, 20.0])
    model = as_discrete(peer.ssm, "diffuse")
    ours = kalman_filter(model, data)
    assert np.isnan(ours.mean[0, 1])
    assert np.isinf(ours.cov[0, 1, 1])
    assert_same(ours, rts_smoother(model, data), theirs, skip=2)
    ahead = forecast(model, data, steps=5)
    want = theirs.get_forecast(5)
    np.testing.assert_allclose(ahead.info["observation_mean"][:, 0], want.predicted_mean, rtol=1e-8)
    got = ahead.info["observation_cov"][:, 0, 0]
    np.testing.assert_allclose(got, want.var_pred_mean, rtol=1e-7)


def test_arma_of_sunspots():
    """No measurement noise, companion form, stationary start."""
    spots = sm.datasets.sunspots.load_pandas().data["SUNACTIVITY"].to_numpy(float)
    peer = sm.tsa.SARIMAX(spots - spots.mean(), order=(2, 0, 1))
    peer.ssm.tolerance = 0
    theirs = peer.smooth([1.4, -0.7, -0.2, 230.0])
    model = as_discrete(peer.ssm, "stationary")
    data = spots - spots.mean()
    assert_same(kalman_filter(model, data), rts_smoother(model, data), theirs)


def test_vector_autoregression_with_missing_components():
    rng = np.random.default_rng(21)
    data = rng.standard_normal((120, 2)).cumsum(axis=0) * 0.3 + rng.standard_normal((120, 2))
    data[rng.random(data.shape) < 0.1] = np.nan
    peer = sm.tsa.VARMAX(data, order=(1, 0), trend="c", measurement_error=True)
    peer.ssm.tolerance = 0
    params = [0.1, -0.2, 0.6, 0.2, -0.1, 0.5, 1.0, 0.3, 0.8, 0.2, 0.4]
    theirs = peer.smooth(params)
    model = as_discrete(peer.ssm, "stationary")
    assert_same(kalman_filter(model, data), rts_smoother(model, data), theirs)
