"""Weights, exact error law, efficiency and tuning of linear estimators."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from afafilter import (
    LinearSDE,
    Prior,
    StudentT,
    adaptive_filter,
    adaptive_smoother,
    kalman_filter,
    rts_smoother,
    simulate,
    spiral,
    theory,
)
from tests.conftest import draw_data, irregular_times

ESTIMATORS = {
    "kalman": kalman_filter,
    "rts": rts_smoother,
    "afa": adaptive_filter,
    "afa_smoother": adaptive_smoother,
    "afa_exact": partial(adaptive_filter, correlation="exact"),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_rows_reproduce_the_estimates(model, t, z_missing, name):
    seen = ~np.isnan(z_missing)
    found = theory.linear_map(model, t, ESTIMATORS[name], observed=seen)
    rebuilt = found.constant + np.einsum("ijab,jb->ia", found.weights, np.nan_to_num(z_missing))
    direct = ESTIMATORS[name](model, t, z_missing).mean
    scale = np.nanmax(np.abs(direct), initial=1.0)
    np.testing.assert_allclose(rebuilt, direct, atol=1e-9 * scale, rtol=1e-9)


@pytest.mark.parametrize("estimator", [kalman_filter, rts_smoother])
def test_optimal_estimators_claim_their_true_covariance(model, t, estimator):
    law = theory.error_covariance(model, t, estimator)
    known = np.isfinite(law.claimed)
    np.testing.assert_array_equal(np.isinf(law.cov), ~known)
    np.testing.assert_array_equal(np.isnan(law.bias), ~known.all(axis=-1))
    true, claimed = (np.where(known, cov, 0.0) for cov in (law.cov, law.claimed))
    scale = np.abs(claimed).max(axis=(1, 2), keepdims=True)
    assert np.max(np.abs(true - claimed) / np.where(scale > 0, scale, 1.0)) < 1e-7
    if isinstance(model.prior, str) and model.prior == "stationary":
        assert np.abs(law.bias).max() < 1e-8


def test_reference_efficiencies_of_the_isotropic_case():
    found = theory.efficiency(spiral(), 0.1 * np.arange(100))
    got = found[[1, 5, 20, 99]]
    np.testing.assert_allclose(got, [1.000, 0.975, 0.602, 0.204], atol=6e-4)
    assert found[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "estimator",
    [adaptive_filter, adaptive_smoother, partial(adaptive_filter, inverse_temperature=3.0)],
)
def test_error_law_agrees_with_monte_carlo(estimator):
    truth = LinearSDE(
        [[-0.2, -1.0], [1.1, -0.3]],
        Q=[[0.4, 0.1], [0.1, 0.2]],
        R=[[0.5, 0.1], [0.1, 0.8]],
        drift=[0.3, -0.1],
        offset=[0.2, 0.4],
        prior=Prior(np.array([2.0, -1.0]), np.diag([0.5, 1.5])),
    )
    t = irregular_times(10, seed=5)
    n = 20_000
    data = simulate(truth, t, n, rng=np.random.default_rng(8))
    error = estimator(truth, t, data.z).mean - data.x
    law = theory.error_covariance(truth, t, estimator)
    sample = np.einsum("nta,ntb->tab", error, error) / n
    spread = np.sqrt((law.mse**2 + np.einsum("taa,tbb->tab", law.mse, law.mse)) / n)
    assert np.max(np.abs(sample - law.mse) / spread) < 4.5
    assert (
        np.max(np.abs(error.mean(0) - law.bias) / np.sqrt(np.einsum("taa->ta", law.cov) / n)) < 4.5
    )


def test_mismatch_agrees_with_monte_carlo():
    prior = Prior(np.array([3.0, 0.0]), 0.2 * np.eye(2))
    truth = replace(spiral(0.3, 1.4, process_var=0.5, obs_var=0.4), prior=prior)
    assumed = replace(spiral(0.1, 1.0, process_var=0.1, obs_var=1.0), prior="diffuse")
    t = 0.2 * np.arange(15)
    n = 20_000
    data = simulate(truth, t, n, rng=np.random.default_rng(2))
    for estimator in (kalman_filter, adaptive_filter):
        error = estimator(assumed, t, data.z).mean - data.x
        law = theory.error_covariance(assumed, t, estimator, truth=truth)
        sample = np.einsum("nta,nta->ta", error, error) / n
        exact = np.einsum("taa->ta", law.mse)
        assert np.max(np.abs(sample / exact - 1)) < 5 * np.sqrt(2 / n)
        assert np.abs(law.bias).max() > 0.05, "a wrong model is biased from a known start"


def test_flat_truth_makes_a_biased_estimator_unboundedly_wrong():
    truth = replace(spiral(), prior="diffuse")
    shrinking = replace(truth, prior=Prior(np.zeros(2), np.eye(2)))
    law = theory.error_covariance(shrinking, 0.1 * np.arange(5), kalman_filter, truth=truth)
    assert np.isinf(law.cov[:, 0, 0]).all()
    assert np.isnan(law.bias).all()


def test_closed_form_of_the_isotropic_case():
    mu, sigma2, eta2 = 0.1, 0.3, 0.5
    t = 0.1 * np.arange(40)
    model = replace(spiral(mu, 1.0, process_var=sigma2, obs_var=eta2), prior="diffuse")
    weights = adaptive_filter(model, t, np.zeros((40, 2)), return_weights=True).weights
    closed = theory.isotropic_mse(weights, t, decay=mu, process_var=sigma2, obs_var=eta2)
    law = theory.error_covariance(model, t, adaptive_filter)
    np.testing.assert_allclose(closed, np.trace(law.mse, axis1=1, axis2=2) / 2, rtol=1e-9)


def test_afa_is_overconfident_under_process_noise_and_calibration_mends_it():
    model = replace(spiral(), prior="diffuse")
    t = 0.1 * np.arange(60)
    law = theory.error_covariance(model, t, adaptive_filter)
    assert law.overconfidence[0] == pytest.approx(1.0)
    assert law.overconfidence[-1] > 5
    z = draw_data(model, t)
    calibrated = theory.calibrated(adaptive_filter)(model, t, z)
    np.testing.assert_allclose(calibrated.cov, law.mse, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(calibrated.mean, adaptive_filter(model, t, z).mean, atol=1e-12)


def test_calibrated_argument_of_the_adaptive_estimators():
    model = replace(spiral(), prior="diffuse")
    t = irregular_times(9)
    z = draw_data(model, t, n_paths=3)
    z[:, 4, 0] = np.nan
    for estimator in (adaptive_filter, adaptive_smoother):
        for options in ({}, {"inverse_temperature": 4.0}, {"query_times": [0.5, 1.5]}):
            honest = estimator(model, t, z, calibrated=True, **options)
            law = theory.error_covariance(model, t, estimator, observed=~np.isnan(z[0]), **options)
            np.testing.assert_allclose(honest.cov, np.broadcast_to(law.mse, honest.cov.shape))
            np.testing.assert_array_equal(honest.mean, estimator(model, t, z, **options).mean)
    with pytest.raises(ValueError, match="leave out weight"):
        adaptive_filter(model, t, z, weight=StudentT(4.0), calibrated=True)
    for estimator in (adaptive_filter, adaptive_smoother):
        for options in ({}, {"query_times": [0.5]}, {"window": 3}):
            with pytest.raises(ValueError, match="calibrated=True would change nothing"):
                estimator(model, t, z, calibrated=True, correlation="exact", **options)
        exact = {"correlation": "exact", "step": 0.5}  # moves from the anchor: another law
        cov, mse = (estimator(model, t, z, calibrated=c, **exact).cov for c in (False, True))
        assert not np.allclose(cov, mse, rtol=1e-3)
    z[0, 0] = np.nan
    with pytest.raises(ValueError, match="same components in every path"):
        adaptive_filter(model, t, z, calibrated=True)


def test_smoother_efficiency_is_against_the_smoother():
    t = 0.1 * np.arange(30)
    share = theory.efficiency(spiral(), t, adaptive_smoother, reference=rts_smoother)
    assert (share <= 1 + 1e-9).all()
    assert share.min() < 0.9
    quiet = theory.efficiency(
        spiral(process_var=0.0), t, adaptive_smoother, reference=rts_smoother, per_component=True
    )
    np.testing.assert_allclose(quiet, 1.0, atol=1e-8)


def test_off_grid_queries():
    model = replace(spiral(), prior="diffuse")
    t = 0.3 * np.arange(8)
    law = theory.error_covariance(model, t, kalman_filter, query_times=[0.0, 0.75, 3.0])
    np.testing.assert_allclose(law.cov, law.claimed, rtol=1e-9, atol=1e-12)


def test_tuning_recovers_most_of_the_lost_efficiency():
    model = spiral()
    tuned = theory.tune(model, 0.1 * np.arange(60), max_evaluations=120)
    assert tuned.plain_efficiency[-1] < 0.3
    assert tuned.efficiency[-1] > 0.9
    estimate = adaptive_filter(tuned.model, [0.0, 0.1], np.ones((2, 2)), **tuned.options)
    assert np.isfinite(estimate.mean).all()


def test_refuses_what_is_not_linear():
    robust = partial(adaptive_filter, weight=StudentT(4.0), anchor="estimate")
    with pytest.raises(ValueError, match="affine"):
        theory.equivalent_weights(spiral(), 0.1 * np.arange(6), robust)


def test_bad_input():
    with pytest.raises(ValueError, match="observed must have shape"):
        theory.linear_map(spiral(), [0.0, 1.0], kalman_filter, observed=np.ones(2, bool))
    with pytest.raises(ValueError, match="truth must have"):
        theory.error_covariance(
            spiral(), [0.0, 1.0], truth=LinearSDE([[-1.0]], Q=[[1.0]], R=[[1.0]])
        )
    with pytest.raises(TypeError, match="model must be a LinearSDE"):
        theory.efficiency("spiral", [0.0, 1.0])
    with pytest.raises(ValueError, match="free must name"):
        theory.tune(spiral(), [0.0, 1.0], free=("nu",))
    with pytest.raises(ValueError, match="causal rows"):
        theory.isotropic_mse(np.ones((2, 2)), [0.0, 1.0], decay=0.1, process_var=1.0, obs_var=1.0)
