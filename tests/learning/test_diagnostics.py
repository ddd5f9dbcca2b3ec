"""Residual checks against statsmodels, published values and their own null distributions."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from afafilter import LinearSDE, diagnose, fit, simulate
from afafilter import families as f
from afafilter.learning.diagnostics import standardised_innovations
from tests.conftest import MODELS

NILE = sm.datasets.nile.load().data["volume"].to_numpy(float)
YEARS = np.arange(1871.0, 1971.0)
MODEL = LinearSDE([[0.0]], Q=[[1469.1]], R=[[15099.0]])


def test_nile_as_published_and_as_statsmodels() -> None:
    """Durbin & Koopman (2012), sec. 2.12.3: S = -0.03, K = 0.09 (excess), H(33) = 0.61,
    Q(9) = 8.84."""
    check = diagnose(MODEL, YEARS, NILE, lags=9)
    assert check.skewness[0] == pytest.approx(-0.03, abs=0.005)
    assert check.kurtosis[0] - 3 == pytest.approx(0.09, abs=0.005)
    assert check.heteroscedasticity[0].statistic == pytest.approx(0.61, abs=0.005)
    assert check.ljung_box[0].statistic == pytest.approx(8.84, abs=0.01)
    peer = sm.tsa.UnobservedComponents(NILE, "llevel", use_exact_diffuse=True)
    result = peer.smooth([15099.0, 1469.1])
    theirs = result.standardized_forecasts_error[0, 1:]
    np.testing.assert_allclose(check.residuals[1:, 0], theirs, rtol=1e-8)
    assert np.isnan(check.residuals[0, 0])
    serial = sm.stats.acorr_ljungbox(theirs, [9])
    assert check.ljung_box[0].statistic == pytest.approx(serial["lb_stat"].iloc[0], rel=1e-8)
    assert check.ljung_box[0].p_value == pytest.approx(serial["lb_pvalue"].iloc[0], rel=1e-8)
    jb, p, skew, kurt = sm.stats.jarque_bera(theirs)
    assert check.normality[0].statistic == pytest.approx(jb, rel=1e-8)
    assert check.normality[0].p_value == pytest.approx(p, rel=1e-8)
    assert (check.skewness[0], check.kurtosis[0]) == pytest.approx((skew, kurt))
    (variance,) = result.test_heteroskedasticity("breakvar")
    assert check.heteroscedasticity[0].statistic == pytest.approx(variance[0], rel=1e-8)
    assert check.heteroscedasticity[0].p_value == pytest.approx(variance[1], rel=1e-8)


def test_a_fit_gives_up_degrees_of_freedom() -> None:
    result = fit(f.brownian() + f.noise(), YEARS, NILE)
    assert diagnose(result, YEARS, NILE, lags=9).ljung_box[0].reference == "chi2(8)"
    assert diagnose(result, YEARS, NILE, lags=9, n_params=3).ljung_box[0].reference == "chi2(6)"
    assert diagnose(MODEL, YEARS, NILE, lags=9).ljung_box[0].reference == "chi2(9)"


def test_residuals_of_the_true_model_are_standard_normal() -> None:
    """Irregular times, missing components, correlated noise, 30 paths."""
    model = MODELS["general"]
    rng = np.random.default_rng(0)
    t = np.cumsum(rng.exponential(0.5, 80))
    z = simulate(model, t, 30, rng=rng, missing=0.1).z
    check = diagnose(model, t, z)
    values = check.residuals[~np.isnan(check.residuals)]
    assert len(values) == (~np.isnan(z)).sum()
    assert stats.kstest(values, "norm").pvalue > 1e-3
    assert check.nis == pytest.approx(1, abs=4 * np.sqrt(2 / len(values)))
    for tests in (check.ljung_box, check.normality, check.heteroscedasticity):
        assert len(tests) == 3
        assert all(test.p_value > 1e-3 for test in tests)
    assert check.nis_test.p_value > 1e-3


def test_p_values_are_uniform_under_the_null() -> None:
    model = MODELS["ou"]
    t = np.arange(120.0)
    sets = simulate(model, t, 150, rng=np.random.default_rng(2)).z
    p = np.array(
        [
            (c.ljung_box[0].p_value, c.heteroscedasticity[0].p_value, c.nis_test.p_value)
            for c in (diagnose(model, t, z, lags=5) for z in sets)
        ]
    )
    for column in p.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3


def test_each_check_finds_its_fault() -> None:
    rng = np.random.default_rng(1)
    model = LinearSDE([[-50.0]], Q=[[1e-6]], R=[[1.0]])  # white noise of variance 1
    t = np.arange(300.0)
    white = rng.standard_normal(300)
    assert diagnose(model, t, 2 * white).nis_test.p_value < 1e-6
    walk = np.convolve(rng.standard_normal(302), [0.5, 0.7, 0.5], "valid")
    assert diagnose(model, t, walk).ljung_box[0].p_value < 1e-6
    assert diagnose(model, t, rng.standard_t(3, 300)).normality[0].p_value < 1e-6
    assert diagnose(model, t, white * (1 + t / 100)).heteroscedasticity[0].p_value < 1e-6


def test_autocorrelations_and_table() -> None:
    check = diagnose(MODEL, YEARS, NILE, lags=12)
    e = check.residuals[1:, 0] - check.residuals[1:, 0].mean()
    direct = [e[k:] @ e[: len(e) - k] / (e @ e) for k in range(13)]
    np.testing.assert_allclose(check.acf[0], direct, rtol=1e-10)
    assert check.acf_band == pytest.approx(1.96 / np.sqrt(99), rel=1e-4)
    frame = check.to_pandas()
    assert frame["test"].tolist() == ["NIS", "Ljung-Box", "Jarque-Bera", "heteroscedasticity"]
    assert frame["p_value"].between(0, 1).all()


def test_residuals_keep_the_shape_of_the_data() -> None:
    model = MODELS["spiral"]
    t = np.arange(20.0)
    z = simulate(model, t, 6, rng=np.random.default_rng(0), missing=0.2).z.reshape(2, 3, 20, 2)
    residuals = standardised_innovations(model, t, z)
    assert residuals.shape == z.shape
    np.testing.assert_array_equal(np.isnan(residuals), np.isnan(z))
    np.testing.assert_allclose(residuals[1, 2], standardised_innovations(model, t, z[1, 2]))


def test_too_little_to_check() -> None:
    with pytest.raises(ValueError, match="at least 8 residuals"):
        diagnose(MODEL, YEARS[:6], NILE[:6])
    with pytest.raises(ValueError, match="lags must be below"):
        diagnose(MODEL, YEARS[:20], NILE[:20], lags=30)
