"""Definiteness and covariances of observations: units decide nothing."""

from __future__ import annotations

import numpy as np
import pytest

from afafilter import LinearSDE, StudentT, adaptive_filter, brownian, kalman_filter, rts_smoother
from afafilter import families as f
from afafilter._base.checks import correlations, covariance, is_definite
from afafilter.learning.fit import fit
from tests.oracles import dense_loglik, dense_posterior

CORRELATED = np.array([[1.0, 0.6], [0.6, 1.0]])


@pytest.mark.parametrize("sd", [[9e-8, 5.0], [5.0, 9e-8], [1e-12, 10.0], [1.0, 1.0], [1e9, 1e-9]])
def test_units_do_not_make_a_covariance_singular(sd):
    cov = CORRELATED * np.outer(sd, sd)
    assert is_definite(cov)
    np.testing.assert_array_equal(covariance(cov, "R", (2, 2), definite=True), cov)
    found, correlation = correlations(cov)
    np.testing.assert_allclose(found, sd)
    np.testing.assert_allclose(correlation, CORRELATED)


@pytest.mark.parametrize("sd", [[9e-8, 5.0], [1.0, 1.0], [1e-6, 1e6]])
def test_indefinite_and_singular_in_any_units(sd):
    scale = np.outer(sd, sd)
    with pytest.raises(ValueError, match="Q must be positive semidefinite"):
        covariance([[1.0, 1.001], [1.001, 1.0]] * scale, "Q", (2, 2))
    singular = np.ones((2, 2)) * scale
    covariance(singular, "Q", (2, 2))
    assert not is_definite(singular)
    with pytest.raises(ValueError, match="R must be positive definite, got a singular matrix"):
        covariance(singular, "R", (2, 2), definite=True)


def test_rounding_of_zero_variances_is_no_flaw():
    """As computed covariances have it: rounding squared on the diagonal, rounding beside it."""
    covariance([[1e-33, 1e-17], [1e-17, 1.0]], "P", (2, 2))
    covariance([[1e-35, 1e-17], [1e-17, 1.0]], "P", (2, 2))
    assert not is_definite(np.array([[1e-35, 1e-17], [1e-17, 1.0]]))
    covariance([[-1e-17, 1e-17], [1e-17, 1.0]], "P", (2, 2))
    with pytest.raises(ValueError, match="semidefinite"):
        covariance([[0.0, 1e-3], [1e-3, 1.0]], "P", (2, 2))
    with pytest.raises(ValueError, match="semidefinite"):
        covariance([[-1e-9, 0.0], [0.0, 1.0]], "P", (2, 2))
    covariance(np.zeros((2, 2)), "P", (2, 2))


SCALED = LinearSDE(
    np.zeros((2, 2)), Q=np.diag([1e-15, 0.4]), R=np.diag([9e-8**2, 25.0]), prior="diffuse"
)
TIMES = np.array([0.0, 1.0, 1.5, 4.0, 4.0, 7.0])
DATA = np.random.default_rng(0).standard_normal((6, 2)) * [1e-7, 5.0] + [48.0, 300.0]
COVS = np.random.default_rng(1).uniform(0.5, 2.0, 6)[:, None, None] * SCALED.R


@pytest.mark.parametrize("causal", [True, False])
def test_degrees_and_metres_together(causal):
    estimator = kalman_filter if causal else rts_smoother
    found = estimator(SCALED, TIMES, DATA, obs_cov=COVS)
    mean, cov = dense_posterior(SCALED, TIMES, DATA, causal=causal, obs_cov=COVS)
    np.testing.assert_allclose(found.mean, mean.astype(float), rtol=1e-12)
    np.testing.assert_allclose(
        np.diagonal(found.cov, axis1=1, axis2=2),
        np.diagonal(cov, axis1=1, axis2=2).astype(float),
        rtol=1e-8,
    )


def test_robust_filters_and_afa_take_degrees_and_metres():
    """In units of the noise everything is of size one, and the answers are the same."""
    unit = np.array([9e-8, 5.0])
    model = LinearSDE(np.zeros((2, 2)), Q=SCALED.Q / unit**2, R=np.eye(2), prior="diffuse")
    covs = COVS / np.outer(unit, unit)
    for estimator in (kalman_filter, adaptive_filter):
        raw = estimator(SCALED, TIMES, DATA, obs_cov=COVS, weight=StudentT(4.0))
        scaled = estimator(model, TIMES, DATA / unit, obs_cov=covs, weight=StudentT(4.0))
        sd = scaled.std * unit
        np.testing.assert_allclose(raw.std, sd, rtol=1e-6)
        assert np.abs(raw.mean - scaled.mean * unit).max() < 1e-4 * sd.min(axis=0).max()


def test_an_exact_measurement_among_others():
    model = brownian(0.5, 1.0, dim=2)
    covs = np.tile(np.eye(2), (6, 1, 1))
    covs[2] = np.diag([0.0, 3.0])
    covs[4] = 0.0
    covs[3] = [[2.0, 1.0], [1.0, 2.0]]
    t = np.arange(6.0)
    for estimator, causal in ((kalman_filter, True), (rts_smoother, False)):
        found = estimator(model, t, DATA, obs_cov=covs)
        mean, cov = dense_posterior(model, t, DATA, causal=causal, obs_cov=covs)
        np.testing.assert_allclose(found.mean, mean.astype(float), atol=1e-9)
        np.testing.assert_allclose(found.cov, cov.astype(float), atol=1e-9)
    assert found.mean[2, 0] == pytest.approx(DATA[2, 0], abs=1e-9)
    assert found.loglik == pytest.approx(dense_loglik(model, t, DATA, covs), rel=1e-9)
    family = f.brownian(2) + f.noise(2)
    with pytest.raises(ValueError, match="obs_cov must be positive definite"):
        adaptive_filter(model, t, DATA, obs_cov=covs)
    fitted = fit(family.fix(obs_var=1.0), t, DATA, obs_cov=covs)
    again = kalman_filter(fitted.model, t, DATA, obs_cov=covs)
    assert fitted.loglik == pytest.approx(again.loglik, rel=1e-8)


def test_nan_beside_a_missing_value():
    model, t = brownian(0.5, 1.0, dim=2), np.arange(6.0)
    z, covs = DATA.copy(), np.tile([[2.0, 1.0], [1.0, 2.0]], (6, 1, 1))
    z[1, 0] = z[3] = np.nan
    filled = covs.copy()
    covs[1, 0] = covs[1, :, 0] = covs[3] = np.nan
    filled[1] = np.diag([7.0, 2.0])
    for estimator in (kalman_filter, rts_smoother):
        found = estimator(model, t, z, obs_cov=covs)
        wanted = estimator(model, t, z, obs_cov=filled)
        np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-12)
        assert found.loglik == pytest.approx(float(wanted.loglik), rel=1e-12)
    whole = z.copy()
    whole[1] = np.nan
    np.testing.assert_allclose(
        adaptive_filter(model, t, whole, obs_cov=covs).mean,
        adaptive_filter(model, t, whole, obs_cov=filled).mean,
    )
    with pytest.raises(ValueError, match=r"NaN in obs_cov\[1, 0, 0\] beside an observation"):
        kalman_filter(model, t, np.stack([z, DATA]), obs_cov=covs)


@pytest.mark.parametrize("sd", [[1e-9, 1e9, 1.0], [9e-8, 5.0, 1e12]])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight": StudentT(4.0), "anchor": "estimate"},
        {"correlation": "exact"},
        {"correlation": "exact", "weight": StudentT(4.0), "anchor": "estimate"},
    ],
)
def test_units_far_apart_beside_correlations(sd, options):
    """Estimates in other units are the same estimates."""
    R, z = np.full((3, 3), 0.5) + 0.5 * np.eye(3), np.random.default_rng(3).normal(size=(6, 3))
    A, t, scale = np.diag([-0.1, -0.2, -0.3]), TIMES, np.outer(sd, sd)
    found = [
        adaptive_filter(
            LinearSDE(A, Q=np.eye(3) * s, R=R * s),
            t,
            data,
            **options,
        )
        for s, data in ((np.ones((3, 3)), z), (scale, z * sd))
    ]
    np.testing.assert_allclose(found[1].mean / sd, found[0].mean, rtol=1e-9)
    np.testing.assert_allclose(found[1].cov / scale, found[0].cov, rtol=1e-9, atol=1e-12)


def test_calibrated_covariances_in_any_units():
    """The weights are found from impulses in the units of the noise."""
    sd, R = np.array([1e-9, 1e9]), np.array([[1.0, 0.5], [0.5, 1.0]])
    scale, A = np.outer(sd, sd), np.diag([-0.1, -0.2])
    found = [
        adaptive_filter(
            LinearSDE(A, Q=np.eye(2) * s, R=R * s), TIMES, np.ones((6, 2)), calibrated=True
        ).cov
        for s in (np.ones((2, 2)), scale)
    ]
    np.testing.assert_allclose(found[1] / scale, found[0], rtol=1e-9)
