"""Influence and breakdown curves against what linear and bounded estimators must do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from afafilter import (
    Estimate,
    LinearSDE,
    Trajectories,
    breakdown_curve,
    influence_curve,
    kalman_filter,
)
from afafilter.scoring.influence import gaussian_divergence

MODEL = LinearSDE([[-0.5]], Q=[[0.4]], R=[[0.3]])
T = 0.5 * np.arange(12)


def median(model, t, z):
    """Median of the last five observations: a point estimator."""
    mean = np.stack([np.median(z[:, max(k - 4, 0) : k + 1], axis=1) for k in range(len(t))], axis=1)
    return Estimate(t, mean)


def test_a_linear_filter_moves_in_proportion():
    z = np.random.default_rng(0).standard_normal((5, 12, 1))
    sizes = np.array([0.0, 1.0, -2.0, 50.0])
    curve = influence_curve(kalman_filter, MODEL, T, z, step=7, sizes=sizes)
    bumped = z.copy()
    bumped[:, 7] += 1.0
    here = kalman_filter(MODEL, T, z)
    gain = (kalman_filter(MODEL, T, bumped).mean - here.mean)[0, 7, 0]
    np.testing.assert_allclose(curve["shift"], np.abs(sizes) * gain, atol=1e-12)
    wanted = (sizes * gain) ** 2 / (2 * here.cov[0, 7, 0, 0])  # equal covariances
    np.testing.assert_allclose(curve["divergence"], wanted, atol=1e-9)
    later = influence_curve(kalman_filter, MODEL, T, z, step=7, sizes=sizes, lag=3)
    assert later["shift"].iloc[1] < gain


def test_a_median_is_bounded_and_claims_no_law():
    z = np.random.default_rng(1).standard_normal((5, 12, 1))
    curve = influence_curve(median, MODEL, T, z, step=-1, sizes=[10.0, 1e3, 1e6])
    assert curve["shift"].nunique() == 1
    assert curve["divergence"].isna().all()


def test_breakdown_of_mean_and_median():
    rng = np.random.default_rng(2)
    x = np.zeros((40, 200, 1))
    truth = Trajectories(np.arange(200.0), x, rng.standard_normal(x.shape))
    raw = breakdown_curve(lambda m, t, z: Estimate(t, z), MODEL, truth, rates=[0, 0.25], size=100.0)
    np.testing.assert_allclose(raw["rmse"], [1.0, np.sqrt(1 + 0.25 * 100.0**2)], rtol=0.05)
    assert (raw["low"] < raw["rmse"]).all()
    rates = [0.0, 0.1, 0.6]
    robust = breakdown_curve(median, MODEL, truth, rates=rates, size=100.0, steps=slice(5, None))
    assert robust["rmse"].iloc[1] < 25.0 < robust["rmse"].iloc[2]


def test_divergence_of_gaussians_by_quadrature():
    m1, s1, m0, s0 = 0.7, 0.6, -0.4, 1.3
    one, other = norm(m1, s1), norm(m0, s0)
    wanted = quad(lambda x: one.pdf(x) * (one.logpdf(x) - other.logpdf(x)), -6, 8)[0]
    found = gaussian_divergence(*(np.array(v) for v in ([m1], [[s1**2]], [m0], [[s0**2]])))
    assert float(found) == pytest.approx(wanted, rel=1e-9)
    rng = np.random.default_rng(3)
    root, shift = rng.standard_normal((3, 3)), rng.standard_normal(3)
    P1, P0 = root @ root.T + np.eye(3), np.diag([1.0, 2.0, 3.0])
    draws = rng.multivariate_normal(shift, P1, size=200_000)
    from scipy.stats import multivariate_normal as mvn

    logs = mvn.logpdf(draws, shift, P1) - mvn.logpdf(draws, np.zeros(3), P0)
    found = gaussian_divergence(shift, P1, np.zeros(3), P0)
    assert abs(found - logs.mean()) < 4 * logs.std() / np.sqrt(len(draws))
    assert np.isnan(gaussian_divergence(shift, P1, np.full(3, np.nan), P0))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"step": 12, "sizes": [1.0]}, "within the 12 times"),
        ({"step": 11, "sizes": [1.0], "lag": 1}, "within the 12 times"),
        ({"step": 1, "sizes": 1.0}, "shape \\(K,\\)"),
        ({"step": 1, "sizes": [1.0], "direction": [0.0]}, "must not be zero"),
    ],
)
def test_refusals(options, words):
    with pytest.raises(ValueError, match=words):
        influence_curve(kalman_filter, MODEL, T, np.zeros((12, 1)), **options)
    truth = Trajectories(T, np.zeros((12, 1)), np.zeros((12, 1)))
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        breakdown_curve(kalman_filter, MODEL, truth, rates=[1.5], size=1.0)
