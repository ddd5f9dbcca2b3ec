"""correlation="exact" against the dense joint Gaussian, and its robust form against dense sums."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import expm

from afafilter import (
    Huber,
    LinearSDE,
    Power,
    StudentT,
    adaptive_filter,
    adaptive_smoother,
    kalman_filter,
    rts_smoother,
)
from tests.adaptive.test_estimators import BOTH, assert_same
from tests.conftest import MODELS, draw_data, irregular_times
from tests.oracles import dense_posterior, step_noise


def is_causal(estimator):
    return estimator is adaptive_filter


@BOTH
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_is_the_flat_prior_kalman_filter_and_smoother(model, t, estimator, missing):
    flat = replace(model, prior="diffuse")
    z = draw_data(model, t, missing=missing)
    found = estimator(flat, t, z, correlation="exact")
    mean, cov = dense_posterior(flat, t, z, causal=is_causal(estimator))
    assert_same(found.mean, mean)
    assert_same(found.cov, cov)
    other = (kalman_filter if is_causal(estimator) else rts_smoother)(flat, t, z)
    assert_same(found.mean, other.mean)
    assert_same(found.cov, other.cov)


@BOTH
@pytest.mark.parametrize("name", ["general", "constant_velocity", "unstable", "stiff"])
def test_off_the_grid_with_error_bars_and_delay(name, estimator):
    model, t = replace(MODELS[name], prior="diffuse"), irregular_times()
    if name == "general":
        model = replace(model, delay=0.4)
    z = draw_data(model, t, missing=0.2)
    queries = np.array([-0.2, 0.0, 0.3, t[4], t[4], 2.1, t[-1], t[-1] + 1.0])
    if name == "general":
        queries = queries[1:]
    noise = np.stack([(0.3 + k % 3) * model.R for k in range(len(t))])
    options = {"query_times": queries, "obs_cov": noise}
    found = estimator(model, t, z, correlation="exact", **options)
    mean, cov = dense_posterior(model, t, z, causal=is_causal(estimator), **options)
    if is_causal(estimator):  # before the data only the flat prior's own time differs
        seen = queries >= t[0]
        found_mean, found_cov, mean, cov = found.mean[seen], found.cov[seen], mean[seen], cov[seen]
    else:
        found_mean, found_cov = found.mean, found.cov
    assert_same(found_mean, mean)
    assert_same(found_cov, cov)


def joint_estimate(model, t, z, i, weights, *, causal):
    """Dense GLS over pulled observations: H_ij = C Phi(t_j - t_i) and their joint covariance.

    weights : (T,) each divides its observation's R.
    """
    A, Q, C = model.A, model.Q, model.C
    use = [j for j in range(len(t)) if (j <= i or not causal) and weights[j] > 0]
    p = len(C)
    H = np.vstack([C @ expm(A * (t[j] - t[i])) for j in use])
    S = np.zeros((len(use) * p, len(use) * p))
    for a, j in enumerate(use):
        for b, k in enumerate(use):
            block = np.zeros((p, p))
            if j == k:
                block += model.R / weights[j]
            if t[j] <= t[i] and t[k] <= t[i]:
                gap = t[i] - max(t[j], t[k])
                V = step_noise(A, Q, gap)
                block += C @ expm(A * (t[j] - t[i])) @ V @ expm(A * (t[k] - t[i])).T @ C.T
            elif t[j] > t[i] and t[k] > t[i]:
                first = min(t[j], t[k])
                V = step_noise(A, Q, first - t[i])
                block += C @ expm(A * (t[j] - first)) @ V @ expm(A * (t[k] - first)).T @ C.T
            S[a * p : (a + 1) * p, b * p : (b + 1) * p] = block
    y = np.concatenate([z[j] for j in use])
    cov = np.linalg.inv(H.T @ np.linalg.solve(S, H))
    return cov @ H.T @ np.linalg.solve(S, y), cov


ROBUST = {
    "square": LinearSDE(
        [[-0.3, -1.0], [0.6, -0.5]], Q=[[0.3, 0.1], [0.1, 0.2]], R=np.diag([0.5, 0.4])
    ),
    "velocity": LinearSDE(
        [[0.0, 1.0], [0.0, 0.0]], Q=np.diag([0.0, 0.4]), R=[[0.3]], C=[[1.0, 0.0]]
    ),
}


@BOTH
@pytest.mark.parametrize("name", ROBUST)
def test_every_query_reweights_its_whole_history(estimator, name):
    model, causal = ROBUST[name], is_causal(estimator)
    t = np.array([0.0, 0.3, 0.3, 0.9, 1.4, 2.0])
    z = draw_data(model, t, 4)
    z[2] += 8.0
    weight, rounds = StudentT(3.0), 3
    found = estimator(
        model,
        t,
        z,
        correlation="exact",
        weight=weight,
        anchor="estimate",
        iterations=rounds,
        return_weights=True,
    )
    for i in range(3, len(t)):
        weights = np.ones(len(t))
        a, _ = joint_estimate(model, t, z, i, weights, causal=causal)
        for _ in range(rounds):
            for j in range(len(t)):
                tau = t[i] - t[j]
                H = model.C @ expm(-model.A * tau)
                V = step_noise(-model.A if tau >= 0 else model.A, model.Q, abs(tau))
                r = z[j] - H @ a
                S = model.R + model.C @ V @ model.C.T
                weights[j] = weight(r @ np.linalg.solve(S, r), len(r))
            a, cov = joint_estimate(model, t, z, i, weights, causal=causal)
        used = weights * ((np.arange(len(t)) <= i) | (not causal))
        assert_same(found.weights[i], used)
        assert_same(found.mean[i], a)
        assert_same(found.cov[i], cov)


@BOTH
@pytest.mark.parametrize("window", [None, 5])
def test_neighbouring_queries_keep_their_own_weights(estimator, window):
    """Given the weights it reports, every estimate is the posterior with noise R / weight."""
    model = replace(ROBUST["velocity"], prior="diffuse")
    t = np.sort(np.random.default_rng(3).uniform(0.0, 12.0, 45))
    t[7] = t[6]
    z = draw_data(model, t, 1, missing=0.2)
    z[::9] += 6.0
    options = {"weight": StudentT(2.0), "anchor": "estimate", "iterations": 2, "window": window}
    found = estimator(model, t, z, correlation="exact", return_weights=True, **options)
    assert (found.weights[found.weights > 0] < 0.5).any()
    for i in range(6, len(t)):
        use = np.flatnonzero(found.weights[i] > 0)
        at = {
            "query_times": t[i : i + 1],
            "obs_cov": model.R / found.weights[i, use][:, None, None],
        }
        mean, cov = dense_posterior(model, t[use], z[use], causal=False, **at)
        assert_same(found.mean[i], mean[0])
        assert_same(found.cov[i], cov[0])


@BOTH
@pytest.mark.parametrize("weight", [None, Huber(1e6)])
@pytest.mark.parametrize("window", [None, 2])
def test_weights_are_1_for_what_a_query_uses(estimator, weight, window):
    """With and without a robust weight that finds no outlier; missing rows have none."""
    model, t = ROBUST["square"], np.array([0.0, 0.3, 0.3, 0.9, 1.4, 2.0])
    z = draw_data(model, t, 4)
    z[[0, 3]] = np.nan
    z[4, 1] = np.nan
    options = {"correlation": "exact", "return_weights": True, "window": window}
    seen, queries = np.array([1, 2, 4, 5]), np.array([-1.0, 0.3, 1.0])
    for asked, past in ((None, np.arange(1, 7)), (queries, np.array([0, 3, 4]))):
        found = estimator(model, t, z, weight=weight, query_times=asked, **options)
        assert found.weights.shape == (len(past), len(t))
        for row, n in zip(found.weights, past, strict=True):
            sides = [seen[seen < n]] + [seen[seen >= n]] * (not is_causal(estimator))
            if window is not None:
                sides = [sides[0][-window:], *(side[:window] for side in sides[1:])]
            np.testing.assert_array_equal(row, np.isin(np.arange(len(t)), np.hstack(sides)))


@BOTH
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("weight", [Power(4.0), StudentT(4.0)])
def test_a_first_time_without_data_does_not_matter(estimator, weight):
    """The flat start lies there; it is no pair of its own, and all missing is no error."""
    model, t = ROBUST["square"], np.array([0.0, 0.3, 0.9, 1.4])
    z = draw_data(model, t, 4)
    z[0] = np.nan
    options = {"correlation": "exact", "weight": weight, "anchor": "estimate"}
    found, alone = estimator(model, t, z, **options), estimator(model, t[1:], z[1:], **options)
    assert_same(found.mean[1:], alone.mean)
    assert_same(found.cov[1:], alone.cov)
    assert np.isnan(estimator(model, t, np.full_like(z, np.nan), **options).mean).all()


@BOTH
def test_window_forgets_older_observations(estimator):
    model, t = replace(MODELS["constant_velocity"], prior="diffuse"), irregular_times()
    z = draw_data(model, t)
    found = estimator(model, t, z, correlation="exact", window=4)
    for i in (3, 5, 9):
        near = slice(max(i - 3, 0), i + 1 if is_causal(estimator) else i + 5)
        mean, cov = dense_posterior(model, t[near], z[near], causal=is_causal(estimator))
        row = i - max(i - 3, 0)
        assert_same(found.mean[i], mean[row])
        assert_same(found.cov[i], cov[row])


@BOTH
def test_many_paths_share_their_covariance(estimator):
    model, t = MODELS["general"], irregular_times()
    z = draw_data(model, t, n_paths=5)
    found = estimator(model, t, z, correlation="exact")
    for k in range(5):
        assert_same(found.mean[k], estimator(model, t, z[k], correlation="exact").mean, 1e-12)
    assert found.cov.strides[0] == 0


def test_an_outlier_costs_the_robust_form_little():
    model, t = MODELS["spiral"], 0.1 * np.arange(60)
    z = draw_data(model, t, 2)
    spoilt = z.copy()
    spoilt[25] += 40.0
    clean = adaptive_filter(model, t, z, correlation="exact").mean[26:30]
    options = {"weight": StudentT(4.0), "anchor": "estimate", "iterations": 50}
    plain = adaptive_filter(model, t, spoilt, correlation="exact").mean[26:30]
    robust = adaptive_filter(model, t, spoilt, correlation="exact", **options).mean[26:30]
    assert np.abs(robust - clean).max() < 0.25 * np.abs(plain - clean).max()


def test_long_series_in_linear_time():
    model = replace(MODELS["oscillator"], prior="diffuse")
    t = np.sort(np.random.default_rng(0).uniform(0.0, 2000.0, 20000))
    z = np.random.default_rng(1).standard_normal((20000, 1))
    found = adaptive_filter(model, t, z, correlation="exact")
    other = kalman_filter(model, t, z)
    assert_same(found.mean, other.mean)
    smooth = adaptive_smoother(model, t, z, correlation="exact")
    assert_same(smooth.mean, rts_smoother(model, t, z).mean)


def test_kalman_is_not_used(monkeypatch):
    """But for its doubts, which change no number."""
    from pathlib import Path

    import afafilter
    from afafilter.adaptive import last_digits

    sources = list((Path(afafilter.__file__).parent / "adaptive").rglob("*.py"))
    assert len(sources) > 15
    for file in sources:
        text = file.read_text().replace("Kalman", "")
        if file.name == "last_digits.py":
            lines = [line for line in text.splitlines() if "kalman" in line]
            assert lines == [
                "from afafilter.kalman.run import doubts_of_flat_start",
                "from afafilter.kalman.timeline import timeline",
            ]
        else:
            assert "kalman" not in text, file
    model, t = MODELS["spiral"], np.arange(9.0)
    z = draw_data(model, t)
    wanted = adaptive_smoother(model, t, z, correlation="exact")
    asked = []
    monkeypatch.setattr(last_digits, "doubts_of_flat_start", lambda *_: asked.append(1) or (0, 0))
    found = adaptive_smoother(model, t, z, correlation="exact")
    assert asked
    np.testing.assert_array_equal(found.mean, wanted.mean)
    np.testing.assert_array_equal(found.cov, wanted.cov)
