"""mixture_filter against the exact mixture over all histories, and against the Kalman filter."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.special import logsumexp

from afafilter import (
    DiscreteModel,
    LinearSDE,
    Outliers,
    Prior,
    kalman_filter,
    mixture_filter,
    simulate,
)
from tests.conftest import draw_data, irregular_times


def histories(model, t, z, rate, scale):
    """Exact mean, cov and log-likelihood at the last time: all 2^T histories, each by a filter."""
    logs, means, covs = [], [], []
    for struck in product((False, True), repeat=len(t)):
        factor = np.where(struck, scale, 1.0)
        found = kalman_filter(model, t, z, obs_cov=factor[:, None, None] * model.R)
        prior = np.log(np.where(struck, rate, 1 - rate)).sum()
        logs.append(found.loglik + prior)
        means.append(found.mean[-1])
        covs.append(found.cov[-1])
    total = logsumexp(logs)
    w = np.exp(np.array(logs) - total)
    last = np.array([struck[-1] for struck in product((False, True), repeat=len(t))])
    mean = w @ np.array(means)
    apart = np.array(means) - mean
    cov = np.einsum("h,hij->ij", w, np.array(covs) + apart[:, :, None] * apart[:, None, :])
    return mean, cov, total, w[last].sum()


def proper(model):
    """The model with a proper prior."""
    d = model.dim
    return replace(model, prior=Prior(np.full(d, 0.3), 2.0 * np.eye(d)))


def test_without_outliers_it_is_the_kalman_filter(model, t, z_missing):
    wanted = kalman_filter(model, t, z_missing)
    for rate, scale in ((0.0, 50.0), (0.2, 1.0)):
        found = mixture_filter(model, t, z_missing, outlier_rate=rate, outlier_scale=scale)
        for name in ("mean", "cov", "loglik_steps", "innovation", "innovation_cov"):
            a, b = getattr(found, name), getattr(wanted, name)
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11, err_msg=name)


def test_a_scale_near_one_is_near_the_kalman_filter(model, t, z_missing):
    wanted = kalman_filter(model, t, z_missing)
    found = mixture_filter(model, t, z_missing, outlier_rate=0.3, outlier_scale=1 + 1e-9)
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.cov, wanted.cov, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.loglik, wanted.loglik, rtol=1e-6, atol=1e-7)


def test_the_first_observation_is_exact(model):
    own = proper(model)
    z = draw_data(model, np.zeros(1), seed=3) + 2.0
    found = mixture_filter(own, [0.0], z, outlier_rate=0.2, outlier_scale=30.0)
    mean, cov, loglik, r = histories(own, np.zeros(1), z, 0.2, 30.0)
    np.testing.assert_allclose(found.mean[0], mean, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.cov[0], cov, rtol=1e-10, atol=1e-12)
    assert found.loglik == pytest.approx(loglik, rel=1e-11)
    assert found.info["outlier_probability"][0] == pytest.approx(r, rel=1e-9)


def test_two_times_have_the_exact_likelihood_of_what_is_collapsed(model):
    """One more step from the collapsed law: by hand, from the definition."""
    own, t, e, s = proper(model), np.array([0.0, 0.7]), 0.15, 40.0
    z = draw_data(model, t, seed=5)
    z[0] += 3.0
    found = mixture_filter(own, t, z, outlier_rate=e, outlier_scale=s)
    Phi, psi, V = model.transition(0.7)
    m, P = Phi @ found.mean[0] + psi, Phi @ found.cov[0] @ Phi.T + V
    v = z[1] - model.C @ m - model.offset
    logs = []
    for prior, scale in ((1 - e, 1.0), (e, s)):
        S = model.C @ P @ model.C.T + scale * model.R
        _, volume = np.linalg.slogdet(2 * np.pi * S)
        logs.append(np.log(prior) - 0.5 * (volume + v @ np.linalg.solve(S, v)))
    assert found.loglik_steps[1] == pytest.approx(logsumexp(logs), rel=1e-9)
    r = np.exp(logs[1] - logsumexp(logs))
    assert found.info["outlier_probability"][1] == pytest.approx(r, rel=1e-8)
    assert found.info["robust_weights"][1] == pytest.approx(1 - r + r / s, rel=1e-8)
    mixed = model.C @ P @ model.C.T + (1 - e + e * s) * model.R
    np.testing.assert_allclose(found.innovation_cov[1], mixed, rtol=1e-9)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_close_to_all_histories(seed, flat):
    A = np.array([[-0.1, -1.0], [1.0, -0.1]])
    model = LinearSDE(A, Q=0.3 * np.eye(2), R=0.5 * np.eye(2), prior="diffuse" if flat else None)
    t = irregular_times(9, seed=seed)
    rng = np.random.default_rng(seed)
    z = draw_data(model, t, seed=seed)
    struck = rng.random(9) < 0.25
    struck[0] = seed == 0 and not flat
    z[struck] += 10.0 * rng.standard_normal((struck.sum(), 2))
    found = mixture_filter(model, t, z, outlier_rate=0.2, outlier_scale=101.0)
    mean, cov, loglik, _ = histories(model, t, z, 0.2, 101.0)
    sd = np.sqrt(np.diag(cov))
    assert (np.abs(found.mean[-1] - mean) < 0.35 * sd).all()
    np.testing.assert_allclose(found.std[-1], sd, rtol=0.35)
    # Nothing predicts a flat start, whose two components, R and 101 R, become one.
    assert found.loglik == pytest.approx(loglik, abs=4.0 if flat else 1.0)
    plain = kalman_filter(model, t, z)
    if struck.any():
        assert np.abs(found.mean[-1] - mean).sum() < np.abs(plain.mean[-1] - mean).sum()


def test_a_flat_start_keeps_prior_odds_and_mean_variance():
    """Limit of wide proper priors: nothing predicts the observations that begin a trend."""
    model = LinearSDE(
        [[0.0, 1.0], [0.0, 0.0]], Q=np.diag([0.0, 0.1]), R=[[0.5]], C=[[1.0, 0.0]], prior="diffuse"
    )
    t, z = np.array([0.0, 1.0, 2.5, 3.0]), np.array([1.0, 2.0, 9.0, 4.0])[:, None]
    found = mixture_filter(model, t, z, outlier_rate=0.1, outlier_scale=60.0)
    np.testing.assert_allclose(found.info["outlier_probability"][:2], 0.1, rtol=1e-12)
    assert np.isnan(found.mean[0, 1])
    assert np.isinf(found.cov[0, 1, 1])
    assert found.cov[0, 0, 0] == pytest.approx(0.5 * (0.9 + 6.0), rel=1e-12)
    wide = replace(model, prior=Prior(np.zeros(2), 1e8 * np.eye(2)))
    near = mixture_filter(wide, t, z, outlier_rate=0.1, outlier_scale=60.0)
    np.testing.assert_allclose(found.mean[1:], near.mean[1:], rtol=1e-5)
    np.testing.assert_allclose(found.cov[1:], near.cov[1:], rtol=1e-5)
    np.testing.assert_allclose(found.loglik_steps[2:], near.loglik_steps[2:], rtol=1e-5)


def test_flat_start_of_every_model_is_the_limit_of_wide_priors(model, t, z_missing):
    if model.dim > 3:
        pytest.skip("wide priors leave too few digits")
    flat = replace(model, prior="diffuse")
    wide = replace(model, prior=Prior(np.zeros(model.dim), 1e12 * np.eye(model.dim)))
    options = {"outlier_rate": 0.2, "outlier_scale": 20.0}
    found, near = (mixture_filter(m, t, z_missing, **options) for m in (flat, wide))
    exact = kalman_filter(flat, t, z_missing)
    np.testing.assert_array_equal(np.isnan(found.mean), np.isnan(exact.mean))
    late = ~np.isnan(exact.mean).any(axis=-1)
    late[: int(late.argmax()) + 2] = False
    np.testing.assert_allclose(found.mean[late], near.mean[late], rtol=1e-5, atol=1e-5)


def test_paths_and_gaps_are_those_of_single_runs(model, t):
    z = draw_data(model, t, seed=8, n_paths=4, missing=0.3)
    z[1, 3] = np.nan
    options = {"outlier_rate": 0.1, "outlier_scale": 25.0}
    whole = mixture_filter(model, t, z, **options)
    for path in range(4):
        one = mixture_filter(model, t, z[path], **options)
        np.testing.assert_array_equal(whole.mean[path], one.mean)
        np.testing.assert_array_equal(whole.cov[path], one.cov)
        np.testing.assert_array_equal(whole.loglik[path], one.loglik)
    assert np.isnan(whole.info["outlier_probability"][1, 3])
    assert whole.info["robust_weights"][1, 3] == 1.0


def test_missing_components_are_rows_removed():
    rng = np.random.default_rng(2)
    model = LinearSDE(
        [[-0.5, 0.2], [0.0, -0.3]], Q=np.eye(2), R=[[1.0, 0.3], [0.3, 0.5]], prior="stationary"
    )
    t = np.array([0.0, 0.4, 1.1])
    z = rng.standard_normal((3, 2)) * 3
    z[1, 0] = np.nan
    first = replace(model, C=model.C[1:], R=model.R[1:, 1:], offset=model.offset[1:])
    # From the law after t[0], the second observation alone.
    options = {"outlier_rate": 0.2, "outlier_scale": 15.0}
    whole = mixture_filter(model, t[:2], z[:2], **options)
    start = mixture_filter(model, t[:1], z[:1], **options)
    after = replace(first, prior=Prior(start.mean[0], start.cov[0], t0=0.0))
    rest = mixture_filter(after, t[1:2], z[1:2, 1:], **options)
    np.testing.assert_allclose(whole.mean[1], rest.mean[0], rtol=1e-12)
    np.testing.assert_allclose(whole.cov[1], rest.cov[0], rtol=1e-12)


def test_query_times_are_predictions(t):
    model = LinearSDE.isotropic(0.1, 1.0, process_var=0.3, obs_var=0.5)
    z = draw_data(model, t, seed=1)
    asked = np.array([t[0], t[4] + 0.01, t[-1] + 2.0])
    options = {"outlier_rate": 0.1, "outlier_scale": 25.0}
    found = mixture_filter(model, t, z, query_times=asked, **options)
    last = mixture_filter(model, t, z, **options)
    Phi, psi, V = model.transition(2.0)
    np.testing.assert_allclose(found.mean[-1], Phi @ last.mean[-1] + psi, rtol=1e-10)
    np.testing.assert_allclose(found.cov[-1], Phi @ last.cov[-1] @ Phi.T + V, rtol=1e-10)


def test_discrete_models_and_error_bars():
    model = LinearSDE.isotropic(0.1, 1.0, process_var=0.3, obs_var=0.5, prior="diffuse")
    t = irregular_times(10)
    z = draw_data(model, t, seed=4)
    options = {"outlier_rate": 0.1, "outlier_scale": 25.0}
    bars = np.linspace(0.2, 2.0, 10)[:, None, None] * np.eye(2)
    wanted = mixture_filter(model, t, z, obs_cov=bars, **options)
    steps = model.discretize(t)
    assert isinstance(steps, DiscreteModel)
    found = mixture_filter(steps, z, obs_cov=bars, **options)
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-12)
    np.testing.assert_allclose(found.loglik, wanted.loglik, rtol=1e-12)


def test_rate_and_scale_are_learned():
    model = replace(LinearSDE.isotropic(0.1, 1.0, process_var=0.05, obs_var=1.0), prior="diffuse")
    t = 0.1 * np.arange(400)
    data = simulate(
        model,
        t,
        10,
        rng=np.random.default_rng(6),
        x0=np.array([20.0, 0.0]),
        outliers=Outliers(rate=0.08, scale=8.0),
    )
    found = mixture_filter(model, t, data.z, outlier_rate=0.3, outlier_scale=10.0, estimate=True)
    assert found.info["converged"]
    assert found.info["outlier_rate"] == pytest.approx(0.08, abs=0.015)
    assert found.info["outlier_scale"] == pytest.approx(65.0, rel=0.2)
    start = mixture_filter(model, t, data.z, outlier_rate=0.3, outlier_scale=10.0)
    assert found.loglik.sum() > start.loglik.sum()
    struck = found.info["outlier_probability"] > 0.5
    assert (struck == data.outliers).mean() > 0.98


def test_a_contaminated_series_is_followed():
    model = replace(LinearSDE.isotropic(0.1, 1.0, process_var=0.3, obs_var=1.0), prior="diffuse")
    data = simulate(
        model,
        0.1 * np.arange(128),
        50,
        rng=np.random.default_rng(3),
        x0=np.array([20.0, 0.0]),
        outliers=Outliers(rate=0.1, scale=10.0),
    )

    def rmse(estimate):
        return np.sqrt(np.mean((estimate.mean - data.x)[:, 20:] ** 2))

    robust = mixture_filter(model, data.t, data.z, outlier_rate=0.1, outlier_scale=101.0)
    assert rmse(robust) < 0.55 * rmse(kalman_filter(model, data.t, data.z))
    error = (robust.mean - data.x)[:, 20:]
    nees = np.einsum("nti,ntij,ntj->nt", error, np.linalg.inv(robust.cov[:, 20:]), error)
    assert nees.mean() == pytest.approx(2.0, rel=0.12)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"outlier_rate": 1.0, "outlier_scale": 9.0}, "outlier_rate must be a probability below 1"),
        ({"outlier_rate": -0.1, "outlier_scale": 9.0}, "outlier_rate"),
        ({"outlier_rate": 0.1, "outlier_scale": 0.5}, "outlier_scale"),
        ({"outlier_rate": 0.0, "outlier_scale": 9.0, "estimate": True}, "starts from outlier_rate"),
        ({"outlier_rate": 0.1, "outlier_scale": 9.0, "iterations": 3}, "would change nothing"),
    ],
)
def test_bad_options(options, said):
    model = LinearSDE([[-1.0]], Q=[[1.0]], R=[[1.0]])
    with pytest.raises(ValueError, match=said):
        mixture_filter(model, [0.0, 1.0], [[0.0], [1.0]], **options)


def test_nothing_to_learn_from_is_said():
    model = LinearSDE([[-1.0]], Q=[[1.0]], R=[[1.0]])
    with pytest.raises(ValueError, match="all of z is missing"):
        mixture_filter(model, [0.0], [[np.nan]], outlier_rate=0.1, outlier_scale=9.0, estimate=True)
