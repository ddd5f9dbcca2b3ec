"""What AFA answers where it was once silently wrong, against laws and other ways to compute it."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from afafilter import (
    Huber,
    LinearSDE,
    Power,
    RadialTangentialSDE,
    StudentT,
    adaptive_filter,
    adaptive_smoother,
)
from tests.adaptive.test_estimators import BOTH, assert_same
from tests.exact_adaptive import Robust, reweighted
from tests.exact_oracle import ExactGaussian
from tests.fuzz.truth import TOLERANCE, law_apart

GRID = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 2.7, 3.0, 3.4, 4.0, 5.0])


def draws(T, p, seed=0):
    return np.random.default_rng(seed).standard_normal((T, p))


@pytest.mark.parametrize("delay", [0.0, 3e-5])
@pytest.mark.parametrize("step", [1e-5, 1e-3])
def test_unix_seconds_keep_every_lag_that_stamps_resolve(delay, step):
    model = LinearSDE([[0, 1], [0, 0]], Q=np.diag([0, 1.0]), R=[[1e-12]], C=[[1, 0]], delay=delay)
    rng = np.random.default_rng(1)
    late = 1.7e9 + np.cumsum(step * (1 + 0.3 * rng.random(30)))
    z = 1e-5 * np.cumsum(rng.standard_normal((30, 1)), axis=0)
    here = adaptive_filter(model, late, z)
    there = adaptive_filter(model, late - late[0], z)
    sd = np.sqrt(np.diagonal(there.cov, axis1=1, axis2=2))
    np.testing.assert_allclose((here.mean / sd)[2:], (there.mean / sd)[2:], atol=1e-9)


@BOTH
@pytest.mark.parametrize("window", [1, 2, 4])
def test_a_windowed_prediction_is_the_same_by_every_method(estimator, window):
    """The anchor: the plain estimate from the `window` observations before the query's own."""
    model = LinearSDE.isotropic(0.1, 1.0, process_var=0.3, obs_var=0.5)
    z = draws(10, 2)
    z[4] += 8.0
    z[6] = np.nan
    options = {"weight": StudentT(3.0), "anchor": "prediction", "window": window}
    found = [
        estimator(model, GRID, z, method=name, **options)
        for name in ("dense", "modal", "isotropic")
    ]
    for other in found[1:]:
        assert_same(other.mean, found[0].mean)
        assert_same(other.cov, found[0].cov)
    i = 8
    seen = [j for j in range(i) if not np.isnan(z[j]).any()][-window:]
    anchor = adaptive_filter(model, GRID[seen], z[seen], query_times=[GRID[i]]).mean[0]
    ahead = list(range(i + 1, min(i + 1 + window, 10)))
    ahead = ahead if estimator is adaptive_smoother else []
    used = [j for j in range(i + 1) if not np.isnan(z[j]).any()][-window:] + ahead
    total, vector = np.zeros((2, 2)), np.zeros(2)
    for j in used:
        one = adaptive_smoother(model, GRID[[j]], z[[j]], query_times=[GRID[i]])
        P = np.linalg.inv(one.cov[0])
        r = one.mean[0] - anchor
        w = float(StudentT(3.0)(r @ P @ r, 2))
        total, vector = total + w * P, vector + w * P @ one.mean[0]
    np.testing.assert_allclose(found[0].mean[i], np.linalg.solve(total, vector), rtol=1e-9)


@BOTH
@pytest.mark.parametrize("method", ["dense", "modal", "isotropic"])
@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_the_anchor_of_a_windowed_prediction_has_the_temperature_too(estimator, method, beta):
    """Scalars by hand: factors V^-beta of what lies before, then V^-beta w^beta around it."""
    model = LinearSDE.isotropic(0.1, 1.0, process_var=0.3, obs_var=0.5)
    z, window, weight = draws(10, 2, seed=3), 2, StudentT(3.0)
    z[4] += 8.0

    def pulled(i, rows, anchor=None):
        total, vector = 0.0, np.zeros(2)
        for j in rows:
            lag = GRID[i] - GRID[j]
            V = 0.5 * np.exp(-0.2 * lag) + 0.3 * abs(np.expm1(-0.2 * lag)) / 0.2
            c, s = np.exp(-0.1 * lag) * np.cos(lag), np.exp(-0.1 * lag) * np.sin(lag)
            x = np.array([[c, -s], [s, c]]) @ z[j]
            w = 1.0 if anchor is None else float(weight(np.sum((x - anchor) ** 2) / V, 2))
            total, vector = total + (w / V) ** beta, vector + (w / V) ** beta * x
        return vector / total

    options = {"anchor": "prediction", "window": window, "inverse_temperature": beta}
    found = estimator(model, GRID, z, weight=weight, method=method, **options)
    ahead = window if estimator is adaptive_smoother else 0
    for i in range(window, 10):
        anchor = pulled(i, range(i - window, i))
        wanted = pulled(i, range(i - window + 1, min(i + 1 + ahead, 10)), anchor)
        np.testing.assert_allclose(found.mean[i], wanted, rtol=1e-9)


@pytest.mark.parametrize(
    "options",
    [{"anchor": "estimate"}, {"iterations": 5}, {"anchor": "prediction", "iterations": 2}],
)
def test_robust_options_without_a_weight_are_refused(options):
    model = LinearSDE.isotropic(0.1, 1.0, process_var=0.3, obs_var=0.5)
    with pytest.raises(ValueError, match="change nothing without a robust weight"):
        adaptive_filter(model, GRID, draws(10, 2), **options)
    if options == {"anchor": "estimate"}:  # whose rounds rest at the first one
        with pytest.raises(ValueError, match="change nothing without a robust weight"):
            adaptive_filter(model, GRID, draws(10, 2), step=0.5, **options)
    else:  # here they do
        adaptive_filter(model, GRID, draws(10, 2), step=0.5, **options)
    if options.get("anchor") != "prediction":  # and here: the direction is the anchor's
        radial = RadialTangentialSDE(
            0.1, 1.0, radial_var=0.1, tangential_var=0.2, obs_radial_var=0.3, obs_tangential_var=0.4
        )
        adaptive_filter(radial, GRID, draws(10, 2) + 5.0, **options)


@pytest.mark.parametrize(
    "rates", [(3.0, 2.0, 1.0), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (500.0, 0, 1)]
)
@BOTH
def test_a_state_that_nothing_sees_does_not_hide_the_others(estimator, rates):
    model = LinearSDE(-np.diag(rates), Q=np.eye(3), R=np.eye(2), C=[[0, 1, 1], [0, 1, 2]])
    seen = LinearSDE(-np.diag(rates[1:]), Q=np.eye(2), R=np.eye(2), C=[[1, 1], [1, 2]])
    found, wanted = (estimator(m, GRID, draws(10, 2)) for m in (model, seen))
    assert np.isnan(found.mean[:, 0]).all()
    assert np.isinf(found.cov[:, 0, 0]).all()
    assert_same(found.mean[:, 1:], wanted.mean)
    assert_same(found.cov[:, 1:, 1:], wanted.cov)


@pytest.mark.parametrize("method", ["dense", "modal"])
def test_a_stiff_model_before_its_data(method):
    """What decays by e^-1000 is not known before it; its neighbour is, as if it were alone."""
    model = LinearSDE(-np.diag([500.0, 1.0]), Q=np.eye(2), R=np.eye(2))
    z = draws(10, 2)
    found = adaptive_smoother(model, GRID, z, query_times=[-2.0, 1.2], method=method)
    alone = adaptive_smoother(
        LinearSDE([[-1.0]], Q=[[1.0]], R=[[1.0]]), GRID, z[:, 1:], query_times=[-2.0, 1.2]
    )
    assert np.isnan(found.mean[0, 0])
    assert np.isinf(found.cov[0, 0, 0])
    assert_same(found.mean[:, 1], alone.mean[:, 0])
    assert_same(found.cov[:, 1, 1], alone.cov[:, 0, 0])


@BOTH
@pytest.mark.parametrize("options", [{}, {"weight": Power(3.0)}, {"correlation": "exact"}])
def test_only_zero_rows_of_C_are_observed(estimator, options):
    model = LinearSDE(-np.eye(2), Q=np.eye(2), R=np.eye(2), C=[[1, 0], [0, 0]])
    z = draws(10, 2)
    z[:, 0] = np.nan
    found = estimator(model, GRID, z, **options)
    assert np.isnan(found.mean).all()
    assert np.isinf(np.diagonal(found.cov, axis1=1, axis2=2)).all()


@BOTH
@pytest.mark.parametrize("correlation", ["independent", "exact"])
@pytest.mark.parametrize("window", [8, 9])
def test_a_window_of_rows_that_show_nothing(estimator, window, correlation):
    """The newest rows are of a sensor that no state moves; queries after them, alone."""
    model = LinearSDE(-np.eye(2), Q=np.eye(2), R=np.eye(2), C=[[1, 1], [0, 0]])
    z = np.where(np.arange(10)[:, None] < [2, 10], draws(10, 2), np.nan)
    options = {"weight": Huber(2.0), "window": window, "correlation": correlation}
    found = estimator(model, GRID, z, query_times=[5.5, 6.0], **options)
    assert np.isnan(found.mean).all()
    assert np.isinf(np.diagonal(found.cov, axis1=1, axis2=2)).all()
    assert np.isnan(found.observed().mean[:, 0]).all() == (window == 8)


@BOTH
@pytest.mark.parametrize("method", ["dense", "modal"])
def test_a_window_far_from_the_queries_and_a_path_without_data(estimator, method):
    model = LinearSDE(-np.diag([0.5, 1.0]), Q=np.eye(2), R=np.eye(2))
    z = np.stack([draws(10, 2), np.full((10, 2), np.nan)])
    found = estimator(model, GRID, z, query_times=[2.0, 9.0], window=3, method=method)
    last = estimator(model, GRID[-3:], z[0, -3:], query_times=[9.0], method=method)
    assert_same(found.mean[0, 1], last.mean[0])
    assert np.isnan(found.mean[1]).all()


@BOTH
@pytest.mark.filterwarnings("ignore::afafilter._base.doubts.LostDigits")  # of queries before it has
@pytest.mark.parametrize("unseen", [[1.0, -1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
@pytest.mark.parametrize("late", [3.0, 300.0])
def test_what_is_never_seen_stays_open_however_long_it_has_decayed(estimator, unseen, late):
    """Rates 5, 5, 1 in mixed components; sensors see all but one direction of the modes."""
    S = np.array([[1.0, 0.4, -0.3], [0.2, 1.0, 0.5], [-0.4, 0.1, 1.0]])
    back = np.linalg.inv(S)
    seen = np.linalg.svd(np.array([unseen]))[2][1:]
    model = LinearSDE(S @ -np.diag([5.0, 5.0, 1.0]) @ back, Q=S @ S.T, R=np.eye(2), C=seen @ back)
    open_ = np.abs(S @ unseen) > 1e-12
    found = estimator(model, late / 10 * GRID, draws(10, 2), method="dense")
    np.testing.assert_array_equal(np.isnan(found.mean[-1]), open_)
    np.testing.assert_array_equal(np.isinf(np.diag(found.cov[-1])), open_)


@BOTH
def test_a_mode_that_nothing_sees_does_not_hide_others_when_it_has_decayed(estimator):
    A = np.diag([-30.0, -0.1, -0.2])
    C = np.array([[0.0, 1.0, 1.0]])
    model = LinearSDE(A, Q=np.eye(3), R=[[0.1]], C=C)
    alone = LinearSDE(A[1:, 1:], Q=np.eye(2), R=[[0.1]], C=C[:, 1:])
    z = draws(10, 1)
    found, wanted = (estimator(m, GRID, z, method="dense") for m in (model, alone))
    assert np.isnan(found.mean[:, 0]).all()
    assert_same(found.mean[:, 1:], wanted.mean)


def test_robust_distances_beyond_the_range_are_refused_or_right():
    """Noise-free decay over 1480 decay times: the isotropic form reckons in logarithms."""
    model = LinearSDE([[-2.0]], Q=[[0.0]], R=[[1e-3]])
    t, z = [0.0, 34.7, 77.3, 741.8], np.array([[1.47], [0.41], [0.43], [0.16]])
    robust = {"weight": StudentT(3.0)}
    found = adaptive_filter(model, t, z, **robust)
    r2 = (z[:-1, 0] * np.exp(-2.0 * (741.8 - np.array(t[:-1]))) - z[-1, 0]) ** 2
    w = np.append(4.0 / r2, 4.0 / (3.0 * 1e-3))  # w P: P r^2 is all there is of d2
    np.testing.assert_allclose(found.mean[-1, 0], w[-1] * z[-1, 0] / w.sum(), rtol=1e-9)
    for method in ("dense", "modal"):
        with pytest.raises(ValueError, match="exceed the floating-point range"):
            adaptive_filter(model, t, z, method=method, **robust)


@pytest.mark.parametrize("anchor", ["observation", "estimate"])
@pytest.mark.parametrize("late", [200.0, 430.0, 800.0])
def test_anchors_hundreds_of_decays_before_the_data(late, anchor):
    """Pulled back they grow beyond the range of squares: one row's weight changes no mean."""
    model = LinearSDE([[-1.25, -2.0], [2.0, -1.25]], Q=np.zeros((2, 2)), R=0.01 * np.eye(2))
    t, z = np.array([0.0, late, late + 1.0]), np.array([[np.nan] * 2, [0.3, -0.2], [np.nan] * 2])
    options = {"weight": Power(4.0), "anchor": anchor, "method": "isotropic"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = adaptive_smoother(model, t, z, **options)
    wanted = adaptive_smoother(model, t[1:], z[1:], method="dense")
    np.testing.assert_allclose(found.mean[1:], wanted.mean, rtol=1e-9)
    assert (
        np.isfinite(found.cov[0]).all()
        == (2 * 1.25 * late < 705)
        == np.isfinite(found.mean[0]).all()
    )


def test_a_model_that_is_isotropic_once_its_noise_is_whitened():
    """The paper's 2-D system: S Lam S^-1, noises S S^H (arXiv:2509.04154, section 6)."""
    S = np.array([[1 - 1j, 1 + 1j], [1, 1]])
    noise = (S @ S.conj().T).real
    A = (S @ np.diag([-0.1 + 1j, -0.1 - 1j]) @ np.linalg.inv(S)).real
    model = LinearSDE(A, Q=0.3 * noise, R=0.5 * noise, drift=[0.1, -0.2], offset=[1.0, 2.0])
    t = 0.1 * np.arange(40)
    z = draws(40, 2)
    z[7] = np.nan
    dense = adaptive_filter(model, t, z, method="dense")
    for method in ("isotropic", "linear", "fft", "auto"):
        found = adaptive_filter(model, t, z, method=method)
        assert_same(found.mean, dense.mean)
        assert_same(found.cov, dense.cov)
    robust = {"weight": StudentT(4.0), "anchor": "estimate", "iterations": 4, "tolerance": 0.0}
    for more in ({}, {"anchor_cov": 0.2 * noise}):
        dense = adaptive_smoother(model, t, z, method="dense", **robust, **more)
        found = adaptive_smoother(model, t, z, method="isotropic", **robust, **more)
        assert_same(found.mean, dense.mean)
        assert_same(found.cov, dense.cov)
    with pytest.raises(ValueError, match="needs an isotropic model"):
        adaptive_filter(replace(model, R=np.eye(2)), t, z, method="isotropic")


def test_forms_are_remembered_by_threads_alike():
    model = LinearSDE(-np.diag([0.5, 1.0, 2.0]), Q=np.eye(3), R=np.eye(2), C=np.eye(3)[:2])
    z = draws(10, 2)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: adaptive_filter(model, GRID, z).mean, range(16)))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


@pytest.mark.parametrize("rounds", [1, 2, 3, 6])
@pytest.mark.parametrize("turns", [1.0, 2.0, 7.0])
@pytest.mark.parametrize("weight", [Huber(2.0), Power(4.0)])
def test_rounds_go_on_where_what_was_known_before_is_open_now(weight, turns, rounds):
    """Half turns show one state; the prediction, from rows that are no half turn apart, knows both.

    From the second round on no anchor is known, and all weights are 1.
    """
    A, Q = np.array([[0.0, -np.pi], [np.pi, 0.0]]), 0.1 * np.eye(2)
    model = LinearSDE(A, Q=Q, R=[[0.01]], C=[[1.0, 0.0]], prior="diffuse")
    t, z = np.array([0.0, 0.3, 0.3 + turns]), np.array([[1.0], [2.0], [-3.0]])
    found = adaptive_filter(
        model, t, z, window=2, weight=weight, anchor="prediction", iterations=rounds,
        tolerance=0.0, method="dense", query_times=t[2:],
    )  # fmt: skip
    wanted = reweighted(ExactGaussian(model, t, z), t[2], Robust([1, 2], [0, 1], weight, rounds))
    np.testing.assert_array_equal(np.isnan(wanted.mean), [False, True])
    assert law_apart((found.mean[0], found.cov[0]), wanted, 1.0) <= TOLERANCE
