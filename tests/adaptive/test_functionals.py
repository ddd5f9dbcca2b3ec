"""Functionals that AFA determines of states that it does not: normal equations in ball arithmetic.

By independent pairs h x = h (sum G^T G)^+ sum G^T y, with variance h (sum G^T G)^+ h^T, where h
lies in the rows of the G; by the exact correlation the joint Gaussian law of states and data.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import block_diag, expm

from afafilter import (
    AdaptiveFilterStream,
    DiscreteModel,
    LinearSDE,
    adaptive_filter,
    adaptive_smoother,
    kalman_filter,
    theory,
)
from afafilter.adaptive import solutions
from afafilter.adaptive.determined import left_open
from afafilter.weights import StudentT, Threshold
from tests.exact_adaptive import average, pairs
from tests.exact_oracle import ExactGaussian, to_float

LEVELS = LinearSDE(
    np.zeros((2, 2)),
    Q=np.diag([0.1, 0.2]),
    R=[[1.0]],
    C=[[1.0, 1.0]],
    offset=[0.5],
    prior="diffuse",
)
THREE = LinearSDE(
    np.zeros((3, 3)),
    Q=np.diag([0.3, 0.1, 0.0]),
    R=[[1.0, 0.2], [0.2, 0.5]],
    C=[[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]],
    drift=[0.3, 0.0, -0.2],
    prior="diffuse",
)
TRENDS = LinearSDE(  # a trend and a decaying state beside a level: all slopes and sums differ
    [[0.0, 1.0, 0.0, 0.0], [0.0] * 4, [0.0, 0.0, -0.3, 0.0], [0.0] * 4],
    Q=np.diag([0.1, 0.05, 0.4, 0.02]),
    R=[[0.4]],
    C=[[1.0, 0.0, 1.0, 1.0]],
    prior="diffuse",
)
CASES = {  # model, functionals that are determined in the end, one that is not
    "two levels": (LEVELS, [[1.0, 1.0], [-2.0, -2.0]], [1.0, -1.0]),
    "three levels": (THREE, [[1.0, 2.0, 0.0], [1.0, 0.0, 2.0], [1.0, 3.0, -1.0]], [0.0, 1.0, 1.0]),
    "trend": (TRENDS, [[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]], [1.0, 0.0, 0.0, 0.0]),
}
T = np.array([0.0, 0.7, 1.0, 1.0, 2.5, 4.0, 4.2])


def data_of(model, seed=0):
    return 3.0 + np.random.default_rng(seed).standard_normal((len(T), model.obs_dim))


def exact_law(model, z, at, stop, H, correlation):
    """Mean and variances of H x(at) from the first `stop` observations."""
    e = ExactGaussian(model, T, z, queries=[at])
    if correlation == "exact":
        mean, cov = e.law(at, stop, H)
        return mean, np.diag(cov)
    shown = pairs(e, at, range(stop))
    mean, cov, _ = average(e, at, shown, [1] * len(shown))
    rows = e.put("H", np.asarray(H, float))
    law = rows @ mean, np.diag(rows @ cov @ rows.T)
    return tuple(np.array([to_float(x) for x in part]) for part in law)


@pytest.mark.parametrize("correlation", ["independent", "exact"])
@pytest.mark.parametrize("estimator", [adaptive_filter, adaptive_smoother])
@pytest.mark.parametrize("name", CASES)
def test_determined_functionals_of_a_state_that_is_not(name, estimator, correlation):
    model, H, open_ = CASES[name]
    z = data_of(model)
    queries = np.array([4.2, 6.0])
    batch = np.stack([z, np.full_like(z, np.nan), data_of(model, 1)])
    batch[2, 1] = np.nan
    found = estimator(model, T, batch, correlation=correlation, query_times=queries)
    assert np.isnan(found.mean[0]).any(axis=-1).all()
    mean, cov = found.through([*H, open_])
    for i, at in enumerate(queries):
        for path in (0, 2):
            wanted = exact_law(model, batch[path], at, len(T), H, correlation)
            np.testing.assert_allclose(mean[path, i, :-1], wanted[0], rtol=1e-9)
            np.testing.assert_allclose(np.diag(cov[path, i])[:-1], wanted[1], rtol=1e-9)
    assert np.isnan(mean[1]).all()
    assert np.isnan(mean[..., -1]).all()
    assert np.isinf(cov[..., -1, -1]).all()
    assert (cov[..., -1, :-1] == 0).all()


@pytest.mark.parametrize("correlation", ["independent", "exact"])
def test_as_observations_come_in(correlation):
    """What is not determined yet, and what a query before all others rests on."""
    model, H, _ = CASES["trend"]
    z = data_of(model)
    mean, cov = adaptive_filter(model, T, z, correlation=correlation).through([*H, *model.C])
    for i in (0, 1):  # one equation, then two of four
        assert np.isnan(mean[i, :2]).all()
        wanted = exact_law(model, z, T[i], i + 1, model.C, correlation)
        np.testing.assert_allclose([mean[i, 2], cov[i, 2, 2]], np.ravel(wanted), rtol=1e-9)
    wanted = exact_law(model, z, T[4], 5, [*H, *model.C], correlation)
    np.testing.assert_allclose(mean[4], wanted[0], rtol=1e-8)
    np.testing.assert_allclose(np.diag(cov[4]), wanted[1], rtol=1e-8)


@pytest.mark.parametrize("correlation", ["independent", "exact"])
@pytest.mark.parametrize("window", [None, 3])
def test_robust_windowed_and_tempered(correlation, window):
    """An anchor that is not determined leaves its query plain; no variance is claimed if beta is
    not 1."""
    model, H, _ = CASES["three levels"]
    z = np.stack([data_of(model), data_of(model, 1)])
    options = {"correlation": correlation, "window": window}
    plain = adaptive_filter(model, T, z, **options).through(H)
    robust = adaptive_filter(model, T, z, weight="student_t", iterations=4, **options).through(H)
    for a, b in zip(plain, robust, strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=1e-12)
    for p in (0, 1):
        js = z[p, -window:] if window else z[p]
        e = ExactGaussian(model, T[-len(js) :], js)
        if correlation == "exact":
            wanted = e.law(T[-1], None, H).mean
        else:
            balls = average(e, T[-1], pairs(e, T[-1], range(len(js))), [1] * len(js))[0]
            wanted = [to_float(x) for x in e.put("H", np.array(H)) @ balls]
        np.testing.assert_allclose(plain[0][p, -1], wanted, rtol=1e-9)
    if correlation == "independent":
        mean, cov = adaptive_filter(model, T, z, inverse_temperature=2.0, window=window).through(H)
        assert np.isfinite(mean).all()
        assert np.isnan(cov).all()


@pytest.mark.parametrize("correlation", ["independent", "exact"])
def test_a_weight_of_nothing_leaves_a_sum(correlation):
    """Path 1 rejects both observations of what tells two constants apart: its sum is left."""
    model = LinearSDE(
        np.zeros((2, 2)), Q=np.zeros((2, 2)), R=np.eye(2), C=[[1.0, 1.0], [1.0, -1.0]],
        prior="diffuse",
    )  # fmt: skip
    z = np.full((2, 6, 2), np.nan)
    z[:, :4, 0], z[:, 4:, 1] = [4.0, 5.0, 6.0, 5.0], [[0.5, 1.5], [-500.0, 500.0]]
    found = adaptive_smoother(
        model, np.arange(6.0), z, weight=Threshold(3.0), anchor="estimate", correlation=correlation
    )
    mean, cov = found.through(model.C)
    np.testing.assert_allclose(mean, [[[5.0, 1.0]] * 6, [[5.0, np.nan]] * 6])
    np.testing.assert_allclose(
        cov, [[np.diag([0.25, 0.5])] * 6, [np.diag([0.25, np.inf])] * 6], atol=1e-12
    )
    assert np.isnan(found.mean[1]).all()


SWING = np.array([[0.0, -np.pi], [np.pi, 0.0]])
EMPTY = {  # dynamics, C, which one of the observations at 0, 0.7 and 1 is there
    "velocity": ([[0.0, 1.0], [0.0, 0.0]], [[-1.0, 1.0]], 2),  # -1, 0 of the state at 0
    "swings": (block_diag(SWING, SWING), [[0.5, 1.0, 0.0, 1.0]], 0),
}


@pytest.mark.parametrize("correlation", ["independent", "exact"])
@pytest.mark.parametrize("name", EMPTY)
def test_columns_that_nothing_shows(name, correlation):
    A, C, there = EMPTY[name]
    model = LinearSDE(A, Q=0.1 * np.eye(len(A)), R=[[0.5]], C=C, prior="diffuse")
    z = np.full((len(T), 1), np.nan)
    z[there] = 1.5
    mean, cov = adaptive_filter(model, T, z, correlation=correlation).through(C)
    wanted = exact_law(model, z, T[2], 3, C, correlation)
    np.testing.assert_allclose([mean[2, 0], cov[2, 0, 0]], np.ravel(wanted), rtol=1e-9)


@pytest.mark.parametrize("drift", [0.0, 0.4])
def test_modes_beyond_the_range(drift):
    """Before the data a mode that decays at 500 is lost; the slow one is a scalar average."""
    S, rates, noise = expm([[0.0, 0.6], [-0.6, 0.0]]), np.array([500.0, 1.0]), np.array([3.0, 0.2])
    model = LinearSDE(
        -S @ np.diag(rates) @ S.T, Q=S @ np.diag(noise) @ S.T, R=np.eye(2), C=np.eye(2),
        drift=drift * S[:, 1], prior="diffuse",
    )  # fmt: skip
    t, z, at = np.array([0.0, 0.5, 2.0]), data_of(THREE)[:3], -3.0
    found = adaptive_smoother(model, t, z, method="modal", query_times=[at])
    assert np.isnan(found.mean).all()
    mean, cov = found.through(S.T)
    grow = np.exp(t - at)
    var = grow**2 * (1.0 + noise[1] / 2.0 * (1.0 - grow**-2.0))
    pulled = grow * (z @ S[:, 1] - drift) + drift
    np.testing.assert_allclose(mean[0], [np.nan, (pulled / var).sum() / (1 / var).sum()], rtol=1e-9)
    np.testing.assert_allclose(cov[0], np.diag([np.inf, 1 / (1 / var).sum()]), rtol=1e-9)


def test_streams_and_models_in_steps():
    z = data_of(LEVELS)
    stream = AdaptiveFilterStream(LEVELS, window=4, correlation="exact")
    wanted = adaptive_filter(LEVELS, T, z, window=4, correlation="exact").observed()
    for i, (t, row) in enumerate(zip(T, z, strict=True)):
        now = stream.update(t, row).observed()
        np.testing.assert_allclose(now.mean[0], wanted.mean[i], rtol=1e-9)
        np.testing.assert_allclose(now.cov[0], wanted.cov[i], rtol=1e-9)
    steps = DiscreteModel(np.eye(2), Q=LEVELS.Q, H=LEVELS.C, R=LEVELS.R, prior="diffuse")
    found, peer = adaptive_filter(steps, z, correlation="exact"), kalman_filter(steps, z)
    for a, b in zip(found.through(steps.H), peer.through(steps.H), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


@pytest.mark.parametrize("unit", [[1.0, 1.0, 1.0], [1e-8, 1e8, 1.0]])
@pytest.mark.parametrize("estimator", [adaptive_filter, adaptive_smoother])
def test_calibrated_beside_what_is_open(estimator, unit):
    """A level seen alone, two by their sum: as models of one state each, in any units."""
    S, noise = np.array(unit), np.diag([0.3, 0.1, 0.2])
    model = LinearSDE(
        np.zeros((3, 3)),
        Q=S[:, None] * noise * S,
        R=np.diag([0.5, 2.0]),
        C=np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]) / S,
    )
    z = np.random.default_rng(0).standard_normal((len(T), 2))
    found = estimator(model, T, z, calibrated=True)
    shown = found.through(model.C)
    for i, q in enumerate((0.3, 0.1 + 0.2)):
        one = LinearSDE([[0.0]], Q=[[q]], R=model.R[i : i + 1, i : i + 1])
        wanted = estimator(one, T, z[:, i], calibrated=True)
        np.testing.assert_allclose(shown[0][:, i], wanted.mean[:, 0], atol=1e-12)
        np.testing.assert_allclose(shown[1][:, i, i], wanted.cov[:, 0, 0], rtol=1e-10)
    np.testing.assert_allclose(found.cov[:, 0, 0], shown[1][:, 0, 0] * S[0] ** 2, rtol=1e-12)
    assert np.isinf(np.diagonal(found.cov, axis1=1, axis2=2)[:, 1:]).all()
    assert np.isnan(found.mean[:, 1:]).all()


@pytest.mark.parametrize("name", CASES)
def test_calibrated_functionals_of_what_is_optimal(name):
    """The Kalman filter claims the truth; under another truth, which has drifted, it does not."""
    model, H, open_ = CASES[name]
    z = data_of(model)
    found = theory.calibrated(kalman_filter)(model, T, z).through([*H, open_])
    own = kalman_filter(model, T, z).through([*H, open_])
    np.testing.assert_allclose(found[1], own[1], rtol=1e-9, atol=1e-9)
    assert np.isinf(found[1][-1, -1, -1])
    truth = replace(model, offset=model.offset + 0.7)
    wrong = theory.calibrated(kalman_filter, truth=truth)(model, T, z).through(H)[1]
    bias = kalman_filter(model, T, z + 0.7).through(H)[0] - kalman_filter(model, T, z).through(H)[0]
    spread = bias[:, :, None] * bias[:, None, :]
    law = theory.error_covariance(model, T, truth=truth)
    np.testing.assert_array_equal(np.isinf(law.mse), np.isinf(law.claimed))
    assert np.isnan(law.overconfidence).all()
    known = np.isfinite(own[1][:, :-1, :-1])
    np.testing.assert_allclose(
        wrong[known], (own[1][:, :-1, :-1] + np.nan_to_num(spread))[known], rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("weight", [StudentT(4.0), Threshold(1.5)])
@pytest.mark.parametrize("correlation", ["independent", "exact"])
def test_paths_that_count_the_same_rows_are_looked_at_together(weight, correlation, monkeypatch):
    """Of a model that is always open, in windows: one look for all paths, as for each alone."""
    looks = []

    def counted(*given):
        looks.append(given)
        return left_open(*given)

    monkeypatch.setattr(solutions, "left_open", counted)
    z = 2.0 * np.random.default_rng(0).standard_normal((20, len(T), 1))
    options = {"window": 3, "weight": weight, "anchor": "estimate", "correlation": correlation}
    found = adaptive_filter(LEVELS, T, z, **options)
    if isinstance(weight, StudentT):  # no weight is 0
        assert len(looks) <= 2 * len(T)
    for p in (0, 7, 19):
        alone = adaptive_filter(LEVELS, T, z[p], **options).through(LEVELS.C)
        for part, own in zip(found.through(LEVELS.C), alone, strict=True):
            np.testing.assert_allclose(part[p], own, rtol=1e-12)
