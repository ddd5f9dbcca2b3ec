"""Scores against hand computation, scoringrules, statsmodels, and calibrated Gaussians."""

from __future__ import annotations

import numpy as np
import pytest
import scoringrules
from scipy.stats import chi2, chisquare, multivariate_normal, norm
from scipy.stats import t as student
from statsmodels.stats.diagnostic import acorr_ljungbox

from afafilter import Estimate, Score, Trajectories, score
from afafilter.scoring.gaussian import energy_gaussian, mean_norm


def gaussian_errors(n, steps, cov, seed=0, claimed=1.0):
    """Estimate whose errors are N(0, cov), with the covariance `claimed * cov`."""
    rng = np.random.default_rng(seed)
    d = len(cov)
    truth = rng.normal(size=(n, steps, d))
    mean = truth + rng.multivariate_normal(np.zeros(d), cov, size=(n, steps))
    shared = np.broadcast_to(claimed * cov, (n, steps, d, d))
    return Estimate(np.arange(float(steps)), mean, shared, label="test"), truth


COV = np.array([[1.0, 0.5, 0.0], [0.5, 2.0, -0.3], [0.0, -0.3, 0.5]])


def test_hand_computed():
    mean = np.array([[[1.0, 0.0], [3.0, 0.0]], [[0.0, 0.0], [0.0, 2.0]]])
    cov = np.broadcast_to(np.diag([4.0, 1.0]), (2, 2, 2, 2))
    s = score(Estimate(np.array([0.0, 1.0]), mean, cov), np.zeros((2, 2, 2)))
    assert s.value("rmse", "x0") == pytest.approx(np.sqrt(10 / 4))
    assert s.value("rmse", "x1") == pytest.approx(1.0)
    assert s.value("rmse") == pytest.approx(np.sqrt(14 / 8))
    assert s.value("bias", "x0") == pytest.approx(1.0)
    assert s.value("nees") == pytest.approx((1 / 4 + 9 / 4 + 4) / 8)
    assert s.value("coverage90", "x0") == 1.0
    assert s.value("coverage90", "x1") == 0.75
    assert s.value("coverage50", "x0") == 0.75
    mse = np.array([5.0, 0.0])
    se = mse.std(ddof=1) / np.sqrt(2)
    row = s.frame.query("metric == 'rmse' and component == 'x0'").iloc[0]
    assert row["se"] == pytest.approx(se / (2 * np.sqrt(2.5)))
    bias = s.frame.query("metric == 'bias' and component == 'x1'").iloc[0]
    per_path = np.array([0.0, 1.0])
    assert bias["se"] == pytest.approx(per_path.std(ddof=1) / np.sqrt(2))
    over = s.over_time().query("metric == 'rmse' and component == 'x0'")
    np.testing.assert_allclose(over["value"], [np.sqrt(0.5), np.sqrt(4.5)])
    paths = s.per_path().query("metric == 'rmse' and component == 'x0'")
    np.testing.assert_allclose(paths["value"], [np.sqrt(5.0), 0.0])


@pytest.mark.parametrize("shared", [True, False])
def test_densities_and_proper_scores(shared):
    rng = np.random.default_rng(3)
    est, truth = gaussian_errors(4, 5, COV, seed=1, claimed=0.7)
    factor = np.ones((4, 5)) if shared else rng.uniform(0.5, 2.0, size=(4, 5))
    cov = est.cov if shared else factor[..., None, None] * est.cov
    s = score(Estimate(est.t, est.mean, cov), truth, energy=True)
    density = [
        -multivariate_normal.logpdf(truth[i, k], est.mean[i, k], cov[i, k])
        for i in range(4)
        for k in range(5)
    ]
    assert s.value("nlpd") == pytest.approx(np.mean(density), rel=1e-12)
    sd = np.sqrt(np.diagonal(cov, axis1=-2, axis2=-1))
    marginal = -norm.logpdf(truth, est.mean, sd)
    assert s.value("nlpd", "x2") == pytest.approx(marginal[..., 2].mean(), rel=1e-12)
    crps = scoringrules.crps_normal(truth, est.mean, sd)
    assert s.value("crps") == pytest.approx(crps.mean(), rel=1e-12)
    assert s.value("crps", "x1") == pytest.approx(crps[..., 1].mean(), rel=1e-12)
    e = truth - est.mean
    nees = np.einsum("nti,ntij,ntj->nt", e, np.linalg.inv(cov), e)
    assert s.value("nees") == pytest.approx(nees.mean() / 3, rel=1e-12)


def test_energy_score_agrees_with_samples():
    rng = np.random.default_rng(5)
    x = np.array([1.0, -2.0, 0.5])
    draws = rng.multivariate_normal(np.zeros(3), COV, size=20_000)
    first = np.linalg.norm(draws - x, axis=1)
    second = np.linalg.norm(draws - rng.permutation(draws), axis=1)
    ours = float(energy_gaussian(-x[None, None], COV[None, None])[0, 0])
    error = np.hypot(first.std(), second.std() / 2) / np.sqrt(len(draws))
    assert abs(ours - (first.mean() - second.mean() / 2)) < 4 * error
    sample = scoringrules.es_ensemble(x, draws[:1500])
    assert ours == pytest.approx(float(sample), abs=8 * error)


def test_energy_score_of_one_component_is_the_crps():
    error = np.array([0.0, 1e-9, 0.3, -2.0, 40.0])[None, :, None]
    var = np.array([1.0, 1.0, 1e-8, 4.0, 0.25])[None, :, None, None]
    crps = scoringrules.crps_normal(error[0, :, 0], 0.0, np.sqrt(var[0, :, 0, 0]))
    np.testing.assert_allclose(energy_gaussian(error, var)[0], crps, atol=1e-8)


def test_mean_norm_of_rayleigh_maxwell_and_rice():
    ones = np.ones(3)
    assert mean_norm(0 * ones[:2], ones[:2]) == pytest.approx(np.sqrt(np.pi / 2), abs=1e-9)
    assert mean_norm(0 * ones, ones) == pytest.approx(np.sqrt(8 / np.pi), abs=1e-9)
    from scipy.stats import rice

    assert mean_norm(np.array([3.0, 0.0]), ones[:2]) == pytest.approx(rice.mean(3.0), abs=1e-9)


def test_calibrated_gaussian_lies_in_its_bands_and_overconfident_one_does_not():
    right, truth = gaussian_errors(60, 200, COV, seed=7)
    s = score(right, truth)
    nees = s.over_time().query("metric == 'nees'")
    inside = nees["value"].between(nees["band_low"], nees["band_high"]).mean()
    # 200 independent steps, each inside with probability 0.95.
    assert 0.95 - 4 * np.sqrt(0.95 * 0.05 / 200) < inside < 1.0
    np.testing.assert_allclose(nees["band_low"], chi2.ppf(0.025, 180) / 180)
    row = s.frame.query("metric == 'nees'").iloc[0]
    assert row["low"] < 1 < row["high"]
    assert row["band_low"] == pytest.approx(chi2.ppf(0.025, 180) / 180)
    for level, name in ((0.5, "coverage50"), (0.9, "coverage90"), (0.95, "coverage95")):
        bound = 4 * np.sqrt(level * (1 - level) / (60 * 200))
        assert s.value(name, "x1") == pytest.approx(level, abs=bound)

    over, truth = gaussian_errors(60, 200, COV, seed=7, claimed=0.25)
    row = score(over, truth).frame.query("metric == 'nees'").iloc[0]
    assert row["value"] > row["band_high"]
    assert row["value"] == pytest.approx(4.0, rel=0.05)
    timid, truth = gaussian_errors(60, 200, COV, seed=7, claimed=4.0)
    row = score(timid, truth).frame.query("metric == 'nees'").iloc[0]
    assert row["value"] < row["band_low"]


def test_interval_over_paths_covers_at_its_level():
    """Correlated errors within a path do not shrink the interval."""
    rng = np.random.default_rng(11)
    hits = 0
    for _ in range(300):
        common = rng.normal(size=(20, 1, 1)) + 0.1 * rng.normal(size=(20, 10, 1))
        est = Estimate(np.arange(10.0), common, np.full((20, 10, 1, 1), 1.01))
        row = score(est, np.zeros((20, 10, 1))).frame.query("metric == 'bias'").iloc[0]
        hits += row["low"] <= 0.0 <= row["high"]
    assert abs(hits / 300 - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 300)


def test_undetermined_entries_are_left_out_and_counted():
    est, truth = gaussian_errors(3, 6, COV, seed=2)
    mean, cov = est.mean.copy(), est.cov.copy()
    mean[:, 0], cov[:, 0] = np.nan, np.diag([np.inf] * 3)
    mean[1, 1, 0] = np.nan
    cov[1, 1, 0, :] = cov[1, 1, :, 0] = 0.0
    cov[1, 1, 0, 0] = np.inf
    s = score(Estimate(est.t, mean, cov), truth)
    rows = s.frame.set_index(["metric", "component"])
    assert rows.loc[("rmse", "x0"), "n_used"] == 3 * 5 - 1
    assert rows.loc[("rmse", "x0"), "undetermined"] == 4
    assert rows.loc[("nees", "all"), "n_used"] == 3 * 5 * 3 - 1
    e = truth - mean
    total = 0.0
    for i in range(3):
        for k in range(1, 6):
            keep = [1, 2] if (i, k) == (1, 1) else [0, 1, 2]
            total += e[i, k, keep] @ np.linalg.solve(cov[i, k][np.ix_(keep, keep)], e[i, k, keep])
    assert s.value("nees") == pytest.approx(total / (3 * 5 * 3 - 1), rel=1e-12)
    assert s.value("rmse", "x1") == pytest.approx(np.sqrt((e[:, 1:, 1] ** 2).mean()))


def test_nothing_determined_gives_nan_not_a_warning():
    est = Estimate(
        np.arange(2.0), np.full((2, 2, 1), np.nan), np.full((2, 2, 1, 1), np.inf), label="blind"
    )
    s = score(est, np.zeros((2, 2, 1)))
    assert np.isnan(s.value("rmse"))
    assert np.isnan(s.value("nees"))
    assert (s.frame["undetermined"] > 0).all()


def test_certain_and_right_against_certain_and_wrong():
    """A known start has zero variance: a right one costs nothing, a wrong one everything."""
    cov = np.zeros((1, 2, 2, 2))
    cov[0, 1] = [[1.0, 1.0], [1.0, 1.0]]
    truth = np.array([[[2.0, 3.0], [1.0, 1.0]]])
    t = np.arange(2.0)
    right = score(Estimate(t, truth + np.array([[0, 0], [0.5, 0.5]]), cov), truth)
    assert right.value("nees") == pytest.approx(0.25)
    assert np.isnan(right.value("nlpd"))
    assert right.value("crps", "x0") == pytest.approx(
        scoringrules.crps_normal(0.5, 0.0, 1.0) / 2, rel=1e-12
    )
    wrong = score(Estimate(t, truth + np.array([[0, 0], [0.5, -0.5]]), cov), truth)
    assert wrong.value("nees") == np.inf
    assert wrong.value("nlpd") == np.inf
    start = score(Estimate(t, truth + np.array([[0.1, 0], [0.5, 0.5]]), cov), truth)
    assert start.value("nees") == np.inf
    assert start.value("coverage95", "x0") == 0.5


def test_joining_batches_changes_nothing():
    est, truth = gaussian_errors(7, 6, COV, seed=4)
    whole = score(est, truth, energy=True)
    parts = [
        score(Estimate(est.t, est.mean[s], est.cov[s]), truth[s], energy=True)
        for s in (slice(0, 3), slice(3, 7))
    ]
    joined = Score.join(parts)
    columns = ["value", "se", "low", "high", "band_low", "band_high", "n_used"]
    np.testing.assert_allclose(joined.frame[columns], whole.frame[columns], rtol=1e-12)
    np.testing.assert_allclose(joined.over_time()["value"], whole.over_time()["value"], rtol=1e-12)


def innovations(n, steps, p, seed, cov, corr=0.0):
    rng = np.random.default_rng(seed)
    L = np.linalg.cholesky(cov)
    e = rng.normal(size=(n, steps, p))
    for k in range(1, steps):
        e[:, k] = corr * e[:, k - 1] + np.sqrt(1 - corr**2) * e[:, k]
    return e @ L.T


def innovation_score(v, cov, **options):
    n, steps, p = v.shape
    est = Estimate(
        np.arange(float(steps)),
        np.zeros((n, steps, 1)),
        np.ones((n, steps, 1, 1)),
        innovation=v,
        innovation_cov=np.broadcast_to(cov, (n, steps, p, p)),
    )
    return score(est, None, **options)


def test_ljung_box_equals_statsmodels():
    cov = np.array([[2.0, 0.6], [0.6, 1.0]])
    v = innovations(2, 80, 2, 8, cov, corr=0.3)
    v -= v.mean(1, keepdims=True)  # statsmodels does so; innovations have mean zero anyway
    s = innovation_score(v, cov, lags=7)
    white = np.linalg.solve(np.linalg.cholesky(cov), v[..., None])[..., 0]
    expected = [
        float(acorr_ljungbox(white[i, :, c], lags=[7])["lb_stat"].iloc[0])
        for i in range(2)
        for c in range(2)
    ]
    assert s.value("ljung_box") == pytest.approx(sum(expected) / 28, rel=1e-10)


def test_ljung_box_has_mean_one_for_short_and_gappy_series():
    v = innovations(20_000, 12, 1, 12, np.eye(1))
    v[:, 5] = np.nan
    row = innovation_score(v, np.eye(1), lags=4).frame.set_index("metric").loc["ljung_box"]
    assert abs(row["value"] - 1) < 4 * row["se"]
    assert row["se"] < 0.006


def test_innovation_diagnostics_tell_white_from_coloured_and_wrong_size():
    cov = np.array([[2.0, 0.6], [0.6, 1.0]])
    white = innovation_score(innovations(40, 100, 2, 9, cov), cov)
    rows = white.frame.set_index("metric")
    for name in ("nis", "ljung_box"):
        assert rows.loc[name, "band_low"] < rows.loc[name, "value"] < rows.loc[name, "band_high"]
    assert rows.loc["nis", "n_used"] == 40 * 100 * 2
    coloured = innovation_score(innovations(40, 100, 2, 9, cov, corr=0.3), cov).frame
    row = coloured.set_index("metric").loc["ljung_box"]
    assert row["value"] > row["band_high"]
    small = innovation_score(innovations(40, 100, 2, 9, cov), 0.5 * cov).frame
    row = small.set_index("metric").loc["nis"]
    assert row["value"] > row["band_high"]


def test_missing_innovations_are_left_out():
    cov = np.eye(2)
    v = innovations(30, 100, 2, 10, cov)
    v[np.random.default_rng(0).random(v.shape) < 0.2] = np.nan
    rows = innovation_score(v, cov).frame.set_index("metric")
    assert rows.loc["nis", "n_used"] == np.isfinite(v).sum()
    assert rows.loc["nis", "value"] == pytest.approx(np.nanmean(v**2), rel=1e-12)
    row = rows.loc["ljung_box"]
    assert row["band_low"] < row["value"] < row["band_high"]


def test_steps_select_times():
    est, truth = gaussian_errors(5, 10, COV)
    part = score(est, truth, steps=slice(4, None))
    tail = score(Estimate(est.t[4:], est.mean[:, 4:], est.cov[:, 4:]), truth[:, 4:])
    np.testing.assert_array_equal(part.frame["value"], tail.frame["value"])
    mask = np.arange(10) >= 4
    np.testing.assert_array_equal(score(est, truth, steps=mask).frame["value"], tail.frame["value"])
    np.testing.assert_array_equal(
        score(est, truth, steps=[4, 5, 6, 7, 8, 9]).frame["value"], tail.frame["value"]
    )


def test_truth_as_trajectories_and_without_path_axis():
    est, truth = gaussian_errors(1, 10, COV)
    one = Estimate(est.t, est.mean[0], est.cov[0])
    s = score(one, Trajectories(est.t, truth[0], truth[0]))
    assert s.n_paths == 1
    assert s.value("rmse") == score(est, truth).value("rmse")
    assert np.isnan(s.frame["se"]).all()


def test_bad_input():
    est, truth = gaussian_errors(2, 4, COV)
    with pytest.raises(ValueError, match="shape of the estimate's mean"):
        score(est, truth[:, :-1])
    with pytest.raises(ValueError, match="same times"):
        score(est, Trajectories(est.t + 1, truth, truth))
    with pytest.raises(ValueError, match="levels"):
        score(est, truth, levels=(95,))
    with pytest.raises(ValueError, match="at least one time"):
        score(est, truth, steps=slice(4, None))
    with pytest.raises(ValueError, match="steps"):
        score(est, truth, steps=[17])
    with pytest.raises(ValueError, match="no innovations"):
        score(est, None)
    with pytest.raises(ValueError, match="variances"):
        score(Estimate(est.t, est.mean, -est.cov), truth)
    indefinite = np.broadcast_to(np.eye(3) - 0.9, (2, 4, 3, 3)) + np.diag([0.1] * 3)
    with pytest.raises(ValueError, match="positive semidefinite"):
        score(Estimate(est.t, est.mean, indefinite), truth)
    s = score(est, truth)
    with pytest.raises(ValueError, match="metric"):
        s.value("mse")
    with pytest.raises(ValueError, match="component"):
        s.value("nees", "x0")
    with pytest.raises(ValueError, match="at least one score"):
        Score.join([])
    with pytest.raises(ValueError, match="same metrics"):
        Score.join([s, score(est, truth, energy=True)])


def test_swapped_arguments_are_named():
    with pytest.raises(TypeError, match=r"score\(estimate, truth\)"):
        score(np.zeros((3, 1)), np.zeros((3, 1)))


def test_interval_score_against_scoringrules():
    est, truth = gaussian_errors(5, 40, COV, seed=11, claimed=0.6)
    s = score(est, truth, levels=(0.5, 0.9))
    for level, name in ((0.5, "interval50"), (0.9, "interval90")):
        low, high = est.interval(level)
        wanted = scoringrules.interval_score(truth, low, high, 1 - level)
        assert s.value(name) == pytest.approx(wanted.mean(), rel=1e-12)
        assert s.value(name, "x1") == pytest.approx(wanted[..., 1].mean(), rel=1e-12)


def test_pit_and_reliability_against_scipy():
    est, truth = gaussian_errors(30, 50, COV, seed=12, claimed=0.5)
    est.mean[0, 0, 0] = np.nan
    s = score(est, truth)
    u = norm.cdf(truth, est.mean, est.std)
    found = s.pit_histogram().query("component == 'x1'")
    counts, edges = np.histogram(u[..., 1], bins=20, range=(0, 1))
    np.testing.assert_allclose(found["share"], counts / 1500)
    np.testing.assert_allclose(found["upper"], edges[1:])
    assert s.pit_histogram().query("component == 'x0'")["share"].sum() == pytest.approx(1.0)
    reliability = s.reliability().query("component == 'x2'").set_index("level")
    low, high = norm.interval(0.5, est.mean, est.std)
    inside = ((truth >= low) & (truth <= high))[..., 2].mean(axis=1)
    row = reliability.loc[0.5]
    assert row["coverage"] == pytest.approx(inside.mean())
    half = student.ppf(0.975, 29) * inside.std(ddof=1) / np.sqrt(30)
    assert row["high"] - row["coverage"] == pytest.approx(half)
    joined = Score.join(
        [
            score(Estimate(est.t, est.mean[k], est.cov[k]), truth[k])
            for k in (slice(0, 12), slice(12, 30))
        ]
    )
    np.testing.assert_array_equal(joined.pit, s.pit)


def test_a_calibrated_pit_is_uniform_and_an_overconfident_one_is_not():
    right, truth = gaussian_errors(400, 10, np.eye(1), seed=13)
    share = score(right, truth).pit.sum(axis=(0, 1))
    assert chisquare(share).pvalue > 0.01
    bold = Estimate(right.t, right.mean, 0.5 * right.cov)
    histogram = score(bold, truth).pit.sum(axis=(0, 1))
    assert chisquare(histogram).pvalue < 1e-6
    assert histogram[[0, -1]].mean() > 1.5 * histogram[9:11].mean()


def test_point_estimates_are_scored_by_what_they_have():
    est, truth = gaussian_errors(6, 8, COV, seed=14)
    point = Estimate(est.t, est.mean, label="point")
    assert point.is_point
    assert not est.is_point
    s = score(point, truth)
    assert s.metrics == ("rmse", "bias", "crps")
    assert s.value("rmse") == pytest.approx(score(est, truth).value("rmse"))
    assert s.value("crps", "x1") == pytest.approx(np.abs(truth - est.mean)[..., 1].mean())
    assert s.value("crps") == pytest.approx(
        scoringrules.crps_ensemble(truth, est.mean[..., None], estimator="nrg").mean()
    )
    with pytest.raises(ValueError, match="knows no probabilities"):
        s.reliability()
    with pytest.raises(ValueError, match="point estimate"):
        point.sample(2, 0)
