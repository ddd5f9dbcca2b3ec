"""Exact diffuse starts against 400-bit arithmetic: what is determined, and what that says.

The laws hold by themselves: the order of sensors, the origin, units and rows without data change
nothing. Published numbers are those of the dense Gaussian law with 60 digits.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import block_diag, expm

from afafilter import (
    DiscreteModel,
    LinearSDE,
    brownian,
    forecast,
    kalman_filter,
    loglik,
    rts_smoother,
    seasonal,
    simulate,
    spiral,
)
from afafilter._base.doubts import BarelyDetermined, LostDigits
from afafilter.weights import StudentT
from tests.exact_oracle import ExactGaussian
from tests.flat_cases import SMALL, VELOCITY, cases, two_sensors


def sensor_data(gap, sds=(1e-2, 1e-5), level=5e6):
    t = np.array([0.0, gap, gap + 1])
    data = simulate(two_sensors(sds), t, rng=np.random.default_rng(1), x0=[level, 1.0])
    return t, data.z.reshape(3, 2)


def scaled(model, units, time=1.0):
    """The same model with components counted in other units, and time too."""
    S = np.diag(np.asarray(units, dtype=float))
    back = np.diag(1 / np.asarray(units, dtype=float))
    return LinearSDE(
        S @ model.A @ back / time,
        Q=S @ model.Q @ S / time,
        R=model.R,
        C=model.C @ back,
        prior="diffuse",
    )


def assert_exact(model, t, z, tol=1e-8):
    """Likelihood, last filtered and first smoothed law are the oracle's; also of what is seen."""
    exact = ExactGaussian(model, t, z)
    forward, both = kalman_filter(model, t, z), rts_smoother(model, t, z)
    loglik = exact.loglik()
    for estimate, at in ((forward, -1), (both, 0), (both, len(t) // 2)):
        assert float(estimate.loglik) == pytest.approx(loglik, abs=tol, rel=tol)
        mean, cov = exact.law(t[at])
        assert_law(estimate.mean[at], estimate.cov[at], mean, cov)
        seen, spread = estimate.through(model.C)
        assert_law(seen[at], spread[at], *exact.law(t[at], H=model.C))


def assert_law(mean, cov, want, want_cov):
    np.testing.assert_array_equal(np.isnan(mean), np.isnan(want))
    np.testing.assert_array_equal(np.isinf(np.diag(cov)), np.isnan(want))
    sd = np.sqrt(np.diag(want_cov))
    known = np.isfinite(sd)
    assert (np.abs(mean - want)[known] <= 1e-6 * sd[known] + 1e-9 * np.abs(want[known])).all()
    np.testing.assert_allclose(np.sqrt(np.diag(cov))[known], sd[known], rtol=1e-6)


# ---------------------------------------------------------------- rows that are not independent


@pytest.mark.parametrize(
    ("gap", "sds", "want"),
    [
        (1, (1e-2, 1e-5), 7.357662879589),
        (16, (1e-2, 1e-5), 3.583412963362),
        (18, (1e-2, 1e-5), 3.411468199621),
        (16, (1e-2, 1e-3), 3.526000881614),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_a_vague_sensor_beside_a_precise_one(gap, sds, want, swapped):
    """Every row keeps its residual, whatever the order in which sensors are listed."""
    t, z = sensor_data(gap, sds)
    if swapped:
        sds, z = sds[::-1], z[:, ::-1].copy()
    model = two_sensors(sds)
    assert ExactGaussian(model, t, z).loglik() == pytest.approx(want, abs=1e-9)
    for estimator in (kalman_filter, rts_smoother):
        assert float(estimator(model, t, z).loglik) == pytest.approx(want, abs=1e-7)
    assert_exact(model, t, z)


@pytest.mark.filterwarnings("ignore::afafilter._base.doubts.LostDigits")  # -3e9 to 1e-3
@pytest.mark.parametrize("level", [0.0, 5e6, -3e9])
def test_the_origin_does_not_matter(level):
    t = np.array([0.0, 16.0, 17.0])
    z = np.array([[0.25, 0.5], [40.0, 40.25], [43.0, 43.5]])
    model = two_sensors((0.5, 2.0**-10))
    want = float(kalman_filter(model, t, z).loglik)
    assert float(kalman_filter(model, t, z + level).loglik) == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("time", [2.0**-40, 1.0, 2.0**17, 2.0**50])
def test_units_do_not_matter(time):
    t, z = sensor_data(16, (1e-2, 1e-4))
    model = two_sensors((1e-2, 1e-4))
    want = kalman_filter(model, t, z)
    units = np.array([2.0**10, 2.0**-9])
    found = kalman_filter(scaled(model, units, time), t * time, z)
    # The flat measure is that of the state's own units.
    assert float(found.loglik) == pytest.approx(float(want.loglik) + np.log(units).sum(), abs=1e-7)
    np.testing.assert_allclose(found.mean[1:], want.mean[1:] * units, rtol=1e-9)
    np.testing.assert_array_equal(np.isnan(found.mean), np.isnan(want.mean))


def test_three_sensors_of_one_state_at_once():
    """A redundant start: one row determines the state, two keep their residuals."""
    model = LinearSDE([[0.0]], Q=[[0.0]], R=np.diag([1e-8, 1.0, 1e4]), C=np.ones((3, 1)))
    assert_exact(model, np.array([0.0]), np.array([[7.0, 8.5, -60.0]]))


# ---------------------------------------------------------------- what is not determined


@pytest.mark.parametrize("shift", [0.0, 1.7e9])
@pytest.mark.parametrize("unit", [1.0, 86400.0])
def test_the_sine_of_the_shortest_period_is_never_seen(unit, shift):
    """sin(pi k) is 1e-16 k in floating point: a seasonal of even period without that state."""
    whole = brownian(0.01, 0.09) + seasonal(12, 6, process_var=0.001)
    whole = LinearSDE(whole.A / unit, Q=whole.Q / unit, R=whole.R, C=whole.C, prior="diffuse")
    kept = np.arange(whole.dim) < whole.dim - 1
    F, _, V = (part[..., kept] for part in whole.transition(unit))
    short = DiscreteModel(F[kept], Q=V[kept], R=whole.R, H=whole.C[:, kept], prior="diffuse")
    t, z = shift + unit * np.arange(60.0), np.random.default_rng(0).standard_normal((60, 1))
    for estimator in (kalman_filter, rts_smoother):
        found, want = estimator(whole, t, z), estimator(short, z)
        assert float(found.loglik) == pytest.approx(float(want.loglik), abs=1e-8)
        part = found.mean[..., kept], found.cov[:, kept][..., kept]
        np.testing.assert_array_equal(np.isnan(part[0]), np.isnan(want.mean))
        known = np.isfinite(want.mean)
        np.testing.assert_allclose(part[0][known], want.mean[known], atol=1e-9)
        np.testing.assert_allclose(part[1][-1], want.cov[-1], atol=1e-9)
        assert np.isnan(found.mean[:, -1]).all()
        assert np.isinf(found.cov[:, -1, -1]).all()
    ahead = t[-1] + unit * np.arange(1.0, 14.0)
    fore = forecast(whole, t, z, horizon_times=ahead).info
    want = forecast(short, z, steps=13).info
    for name in ("observation_mean", "observation_cov"):
        np.testing.assert_allclose(fore[name], want[name], atol=1e-9)
    half = forecast(whole, t, z, horizon_times=ahead[:2] + 0.5 * unit).info
    assert np.isnan(half["observation_mean"]).all()  # between the steps that state does show
    assert np.isinf(half["observation_cov"]).all()


def test_the_discrete_form_knows_it_too():
    model = replace(brownian(0.01, 0.09) + seasonal(4, 2, process_var=0.001), prior="diffuse")
    t, z = np.arange(30.0), np.random.default_rng(1).standard_normal((30, 1))
    want = kalman_filter(model, t, z)
    F, _, V = model.transition(1.0)
    for discrete in (
        model.discretize(t),
        DiscreteModel(F, Q=V, H=model.C, R=model.R, prior="diffuse"),
    ):
        found = kalman_filter(discrete, z)
        assert float(found.loglik) == pytest.approx(float(want.loglik), abs=1e-9)
        np.testing.assert_array_equal(np.isnan(found.mean), np.isnan(want.mean))
        assert np.isnan(found.mean[-1]).sum() == 1


@pytest.mark.parametrize("late", [30.0, 20.0, 12.0])
def test_states_that_differ_by_what_has_decayed(late):
    model = LinearSDE(
        np.diag([-0.5, -1.0, 0.0]),
        Q=np.diag([0.0, 1.0, 0.0]),
        R=[[1e-4]],
        C=[[1.0, 1.0, 1.0]],
        prior="diffuse",
    )
    t, z = np.array([0.0, 0.0, 0.0, late, late]), np.zeros((5, 1))
    estimate = rts_smoother(model, t, z)
    if late == 30.0:
        assert float(estimate.loglik) == pytest.approx(7.978364719998, abs=1e-10)
    assert np.isinf(np.diagonal(estimate.cov, axis1=-2, axis2=-1)).all()
    assert_exact(model, t, z)


def test_a_direction_seen_after_it_has_decayed():
    """Thirty decay times later the first observation still determines the start, nothing else."""
    model = LinearSDE([[-1.0]], Q=[[0.5]], R=[[0.1]], prior="diffuse")
    t, z = np.array([0.0, 30.0, 30.5]), np.array([[np.nan], [0.4], [0.7]])
    assert_exact(model, t, z)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 86400.0, 86400e9])
@pytest.mark.parametrize("order", [2, 3])
def test_what_one_value_cannot_determine(unit, order):
    """The first values are missing: position is known from one value, its derivatives are not."""
    A = np.diag(np.ones(order - 1), 1)
    Q = np.zeros((order, order))
    Q[-1, -1] = 0.1
    model = LinearSDE(A, Q=Q, R=[[0.25]], C=np.eye(order)[:1], prior="diffuse")
    model = scaled(model, unit ** -np.arange(0.0, order), unit)
    t = unit * np.arange(6.0)
    z = np.array([[np.nan], [2.5], [np.nan], [3.0], [np.nan], [np.nan]])
    filtered = kalman_filter(model, t, z)
    for k, known in ((0, 0), (1, 1), (2, 0)):
        np.testing.assert_array_equal(np.isfinite(filtered.mean[k]), np.arange(order) < known)
    assert np.isfinite(filtered.mean[3]).all() == (order == 2)
    assert_exact(model, t, z)


@pytest.mark.parametrize("process_var", [0.0, 1.0])
def test_predictions_of_what_is_missing_along_a_flat_start(process_var):
    """S of a component without data is H P H^T + R, of what is open infinite, as for one with."""
    model = LinearSDE(
        VELOCITY,
        Q=np.diag([0.0, process_var]),
        R=np.diag([0.5, 0.2]),
        C=[[1.0, 0.0], [0.0, 1.0]],
        prior="diffuse",
    )
    t = np.array([0.0, 1.0, 1.5, 3.0])
    z = np.array([[1.0, np.nan], [np.nan, np.nan], [2.0, np.nan], [np.nan, 1.0]])
    exact, found = ExactGaussian(model, t, z), kalman_filter(model, t, z)
    for k in range(4):
        law = exact.law_at(exact.shown[k], k, model.C)
        known = np.isfinite(law.mean)
        np.testing.assert_array_equal(np.isfinite(np.diag(found.innovation_cov[k])), known)
        want = np.where(known[:, None] & known, law.cov + model.R, 0.0) + np.diag(
            np.where(known, 0.0, np.inf)
        )
        np.testing.assert_allclose(found.innovation_cov[k], want, rtol=1e-10, atol=1e-12)


def test_barely_determined_is_said():
    """Two cycles that differ by 1e-11: their sum is known, their parts have four digits left."""
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])

    def cycles(apart):
        return LinearSDE(
            block_diag(turn, (1 + apart) * turn),
            Q=np.zeros((4, 4)),
            R=[[1.0]],
            C=[[1.0, 0.0, 1.0, 0.0]],
            prior="diffuse",
        )

    t, z = np.arange(7.0), np.random.default_rng(0).standard_normal((7, 1))
    with pytest.warns(LostDigits, match="give observations"):
        kalman_filter(cycles(1e-11), t, z)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_exact(cycles(1e-4), t, z)
        assert np.isnan(kalman_filter(cycles(1e-15), t, z).mean).all()


@pytest.mark.parametrize("rate", [10, 20, 30, 31, 37])
def test_a_growing_direction_that_shows_only_rounding(rate):
    """C sees x1 + x2 + x3, constant; x1 - x2 grows as exp(rate t) until rounding hides x1 + x2."""
    A = block_diag(rate / 2 * np.array([[1.0, -1.0], [-1.0, 1.0]]), 0.0)
    model = LinearSDE(A, Q=np.zeros((3, 3)), R=[[1.0]], C=[[1.0, 1.0, 1.0]], prior="diffuse")
    t, z = np.array([0, 1, 1.5, 2, 2.5]), np.array([[np.nan], [1.0], [2.0], [1.5], [0.5]])
    exact = ExactGaussian(model, t, z)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        estimate = kalman_filter(model, t, z)
    assert [x.category for x in said] == [LostDigits] * (rate >= 30)
    assert_law(*(x[-1] for x in estimate.through(model.C)), *exact.law(t[-1], H=model.C))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BarelyDetermined)
        for value in (estimate.loglik, loglik(model, t, z)):
            # Where rounding hides them whole, x1 and x2 count as unseen: |C|^2 = 3 becomes 1.
            hidden = np.log(3) / 2 if rate >= 37 else 0.0
            assert float(value) == pytest.approx(exact.loglik() + hidden, abs=1e-7)


# ---------------------------------------------------------------- functionals


def test_a_sum_is_known_where_its_parts_are_not():
    model = LinearSDE(
        np.zeros((2, 2)), Q=np.diag([0.3, 0.7]), R=[[0.5]], C=[[1.0, 1.0]], prior="diffuse"
    )
    total = LinearSDE([[0.0]], Q=[[1.0]], R=[[0.5]], prior="diffuse")
    t, z = np.arange(5.0), np.array([[1.0], [2.0], [4.0], [5.0], [4.0]])
    for estimator in (kalman_filter, rts_smoother):
        found, want = estimator(model, t, z), estimator(total, t, z)
        assert np.isnan(found.mean).all()
        mean, cov = found.through(model.C)
        np.testing.assert_allclose(mean, want.mean, atol=1e-12)
        np.testing.assert_allclose(cov, want.cov, atol=1e-12)
        difference, spread = found.through([[1.0, -1.0]])
        assert np.isnan(difference).all()
        assert np.isinf(spread).all()
    ahead = np.array([4.0, 4.5, 9.0])
    fore = forecast(model, t, z, horizon_times=ahead)
    want = forecast(total, t, z, horizon_times=ahead)
    for name in ("observation_mean", "observation_cov"):
        np.testing.assert_allclose(fore.info[name], want.info[name], atol=1e-12)
    many = forecast(
        model, t, np.stack([z, z + 1, np.where(z == 2.0, np.nan, z)]), horizon_times=ahead
    )
    np.testing.assert_allclose(many.info["observation_mean"][0], want.info["observation_mean"])
    np.testing.assert_allclose(many.info["observation_mean"][1], 1 + want.info["observation_mean"])


def test_a_state_that_is_never_seen_leaves_forecasts_alone():
    model = LinearSDE(np.zeros((2, 2)), Q=np.eye(2), R=[[1.0]], C=[[1.0, 0.0]], prior="diffuse")
    alone = LinearSDE([[0.0]], Q=[[1.0]], R=[[1.0]], prior="diffuse")
    t, z = np.arange(4.0), np.array([[1.0], [2.0], [4.0], [5.0]])
    found = forecast(model, t, z, horizon_times=[4.0, 5.0])
    want = forecast(alone, t, z, horizon_times=[4.0, 5.0])
    for name in ("observation_mean", "observation_cov"):
        np.testing.assert_allclose(found.info[name], want.info[name], atol=1e-12)
    assert np.isinf(found.cov[:, 1, 1]).all()
    F = DiscreteModel(np.eye(2), Q=np.eye(2), H=[[1.0, 0.0]], R=[[1.0]], prior="diffuse")
    steps = forecast(F, z, steps=2)
    np.testing.assert_allclose(
        steps.info["observation_cov"], want.info["observation_cov"], atol=1e-12
    )


def test_queries_between_and_before():
    model = LinearSDE(
        np.zeros((2, 2)), Q=np.diag([0.3, 0.7]), R=[[0.5]], C=[[1.0, 1.0]], prior="diffuse"
    )
    t, z = np.array([0.0, 1.0, 3.0]), np.array([[1.0], [2.0], [4.0]])
    asked = np.array([-1.0, 0.0, 0.5, 1.0, 2.0, 4.0])
    exact = ExactGaussian(model, t, z, queries=asked)
    forward = kalman_filter(model, t, z, query_times=asked).through(model.C)
    both = rts_smoother(model, t, z, query_times=asked).through(model.C)
    assert np.isnan(forward[0][0]).all()
    for k, at in enumerate(asked[1:], 1):
        assert_law(forward[0][k], forward[1][k], *exact.law(at, int((t <= at).sum()), H=model.C))
        assert_law(both[0][k], both[1][k], *exact.law(at, H=model.C))


# ---------------------------------------------------------------- other uses


def test_a_noise_free_mode_decays_below_the_smallest_number():
    """355 decay times without process noise: the covariance ends in subnormal numbers."""
    model = replace(spiral(decay=1.0, process_var=0.0, obs_var=0.5), prior="diffuse")
    t = 0.1 * np.arange(5000)
    z = np.random.default_rng(2).standard_normal((3, 5000, 2))
    z[1:][np.random.default_rng(3).random((2, 5000, 2)) < 0.3] = np.nan
    for estimator in (kalman_filter, rts_smoother):
        estimate = estimator(model, t, z)
        assert np.isfinite(estimate.mean[:, 20:]).all()
        assert (np.diagonal(estimate.cov[:, -1], axis1=-2, axis2=-1) == 0).all()
        early = estimator(model, t[:200], z[:, :200])
        drift = estimate.loglik_steps[:, 200:] - stats_of_noise(z[:, 200:], 0.5)
        np.testing.assert_allclose(drift, 0.0, atol=1e-6)
        np.testing.assert_allclose(estimate.loglik_steps[:, :200], early.loglik_steps, atol=1e-9)


def stats_of_noise(z, variance):
    """Log density of pure noise, observation by observation."""
    terms = -0.5 * (np.log(2 * np.pi * variance) + z**2 / variance)
    return np.nansum(terms, axis=-1)


@pytest.mark.parametrize("anchor", ["prediction", "estimate"])
def test_robust_filters_start_flat_by_the_same_rule(anchor):
    """With weights of nearly one they give the plain answer, also where one state is never seen."""
    model = replace(brownian(0.01, 0.09) + seasonal(4, 2, process_var=0.001), prior="diffuse")
    t, z = np.arange(30.0), np.random.default_rng(1).standard_normal((30, 1))
    want = kalman_filter(model, t, z)
    found = kalman_filter(model, t, z, weight=StudentT(1e9), anchor=anchor)
    assert float(found.loglik) == pytest.approx(float(want.loglik), abs=1e-5)
    np.testing.assert_array_equal(np.isnan(found.mean), np.isnan(want.mean))
    smooth = rts_smoother(model, t, z, weight=StudentT(1e9), anchor=anchor)
    np.testing.assert_allclose(smooth.mean, rts_smoother(model, t, z).mean, atol=1e-5)


@pytest.mark.parametrize("anchor", ["prediction", "estimate"])
@pytest.mark.parametrize("sds", [(0.0,), (1e-3,), (0.0, 0.1)])
def test_robust_filters_take_exact_measurements_from_a_flat_start(anchor, sds):
    """With weights of one the answer is the exact law's, in which sd 1e-12 stands for none."""
    p = len(sds)
    model = LinearSDE(
        [[0.0, 1.0], [0.0, -0.5]],
        Q=np.diag([0.3, 1.0]),
        R=np.diag(np.square(sds)),
        C=[[1.0, 0.0], [0.5, 1.0]][:p],
        prior="diffuse",
    )
    t, z = np.array([0.0, 0.7, 1.0, 2.5]), np.random.default_rng(3).standard_normal((4, p))
    found = kalman_filter(model, t, z, weight=StudentT(1e12), metric="raw", anchor=anchor)
    exact = ExactGaussian(replace(model, R=np.diag(np.square(np.maximum(sds, 1e-12)))), t, z)
    assert float(found.loglik) == pytest.approx(exact.loglik(), abs=1e-6)
    law = exact.law(t[-1], len(t))
    np.testing.assert_allclose(found.mean[-1], law.mean, atol=1e-8)
    np.testing.assert_allclose(found.cov[-1], law.cov, atol=1e-8)


# ---------------------------------------------------------------- laws


def assert_same(found, want, units=1.0, shift=0.0, noise=1e-6):
    """Equal laws, relative to their own standard deviations; units as in `scaled`."""
    assert float(found.loglik) == pytest.approx(float(want.loglik) + shift, abs=1e-6, rel=1e-7)
    np.testing.assert_array_equal(np.isnan(found.mean), np.isnan(want.mean))
    sd = want.std * units
    known = np.isfinite(sd)
    off = np.abs(found.mean - want.mean * units)[known]
    assert (off <= noise * sd[known] + 1e-9 * np.abs(found.mean[known])).all()
    np.testing.assert_allclose(found.std[known], sd[known], rtol=1e-6, atol=1e-12)


@settings(SMALL, max_examples=12)
@given(cases(longest=4))
def test_against_sixty_digits(case):
    assert_exact(*case)


@SMALL
@given(cases())
def test_the_order_of_sensors_does_not_matter(case):
    model, t, z = case
    swapped = replace(model, C=model.C[::-1], R=model.R[::-1, ::-1])
    for estimator in (kalman_filter, rts_smoother):
        assert_same(estimator(swapped, t, z[:, ::-1].copy()), estimator(model, t, z))


@SMALL
@given(cases(), st.integers(-20, 20), st.integers(-20, 20), st.integers(-12, 12))
def test_neither_do_units(case, first, step, time):
    model, t, z = case
    units = 2.0 ** (first + step * np.arange(model.dim) / 4).round()
    want, other = rts_smoother(model, t, z), scaled(model, units, 2.0**time)
    found = rts_smoother(other, t * 2.0**time, z)
    whole = np.isfinite(want.mean[-1]).all()
    shift = np.log(units).sum() if whole else float(found.loglik) - float(want.loglik)
    assert_same(found, want, units, shift)


@SMALL
@given(cases(), st.lists(st.integers(0, 5), min_size=1, max_size=3), st.booleans())
def test_rows_without_data_change_nothing(case, where, between):
    model, t, z = case
    at = np.unique(np.minimum(where, len(t) - 1))
    stamps = t[at]
    if between:
        later = t[np.minimum(at + 1, len(t) - 1)]
        stamps = 0.5 * (stamps + later)
    place = np.searchsorted(t, stamps, side="right")
    t2 = np.insert(t, place, stamps)
    z2 = np.insert(z, place, np.nan, axis=0)
    kept = np.delete(np.arange(len(t2)), place + np.arange(len(place)))
    want, found = rts_smoother(model, t, z), rts_smoother(model, t2, z2)
    part = replace(found, mean=found.mean[kept], cov=found.cov[kept])
    assert_same(part, want)


@pytest.mark.parametrize("A", [[[-1, 1], [0, -1]], [[-1, 0.5], [0, -3]], [[-2, 4], [0, -1]]])
def test_what_drives_another_state_is_forgotten_with_it(A):
    """After 400 decay times a flat state is gone, also where it has driven another on its way.

    A row without data in between changes nothing: there is no new beginning there.
    """
    model = LinearSDE(A, Q=np.diag([0.0, 2e-6]), R=[[0.01]], C=[[1.0, 0.0]], prior="diffuse")
    t, z = np.array([0.0, 400.0, 401.0]), np.array([[1.6e3], [0.08], [0.24]])
    exact = ExactGaussian(model, t, z).forgetful()
    between = np.array([0.0, 0.5, 30.0, 400.0, 401.0])
    gaps = np.array([z[0], [np.nan], [np.nan], z[1], z[2]])
    for found in (kalman_filter(model, t, z), kalman_filter(model, between, gaps)):
        assert_law(found.mean[-1], found.cov[-1], *exact.law(401.0))


# ---------------------------------------------------------------- decays


def regression(model, t, z):
    """Without process noise a flat start is a least-squares problem: log-likelihood and x(t[0])."""
    F, rows = expm(model.A * (t[1] - t[0])), [model.C]
    for _ in t[1:]:
        rows.append(np.where(np.abs(rows[-1]) < 1e-290, 0.0, rows[-1]) @ F)
    X = np.concatenate(rows)
    seen, sd = ~np.isnan(z.ravel()), np.sqrt(np.tile(np.diag(model.R), len(t)))
    X, y, sd = (X / sd[:, None])[seen], (z.ravel() / sd)[seen], sd[seen]
    q, r = np.linalg.qr(X)
    left = y - q @ (q.T @ y)
    volume = 2 * np.log(sd).sum() + 2 * np.log(np.abs(np.diag(r))).sum()
    return -0.5 * (len(y) * np.log(2 * np.pi) + volume + left @ left), np.linalg.solve(r, q.T @ y)


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize(
    ("A", "C"),
    [
        (np.diag([-2.0, 0.0]), [[1.0, 1.0]]),
        ([[-2.0, 1.0], [0.0, -2.0]], [[1.0, 0.0]]),
        (
            block_diag([[-3.0, -1.0], [1.0, -3.0]], VELOCITY),
            [[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]],
        ),
    ],
)
def test_a_mode_that_underflows_beside_one_that_stays(A, C, gaps):
    """What decays to nothing is gone; what stays goes on being learnt, on regular grids too."""
    d, p, T = len(A), len(C), 1200
    model = LinearSDE(A, Q=np.zeros((d, d)), C=C, R=0.2 * np.eye(p), prior="diffuse")
    rng = np.random.default_rng(0)
    t, z = 0.5 * np.arange(T), rng.normal(size=(T, p))
    if gaps:
        z[rng.random((T, p)) < 0.2] = np.nan
    want, start = regression(model, t, z)
    found = rts_smoother(model, t, z)
    assert found.loglik == pytest.approx(want, rel=1e-10)
    np.testing.assert_allclose(found.mean[0], start, atol=1e-10)
    assert np.isfinite(found.mean).all()
    assert np.isfinite(found.cov).all()


@pytest.mark.parametrize("turn", [0.0, 0.8])
def test_a_start_long_forgotten_says_nothing_in_any_basis(turn):
    """A flat state 200 decay times before the first value is the stationary one, asked anywhere."""
    A, Q = [[-1.0, -turn], [turn, -1.0]], 5.0 * np.eye(2)
    flat, t = LinearSDE(A, Q=Q, R=np.eye(2), prior="diffuse"), np.array([0.0, 200.0, 200.0])
    known = replace(flat, prior="stationary")
    z = np.array([[np.nan, np.nan], [0.7, -2.3], [0.8, -0.2]])
    for query in (None, [125.0, 190.0], [150.0]):
        for estimator in (kalman_filter, rts_smoother):
            found, want = (estimator(m, t, z, query_times=query) for m in (flat, known))
            np.testing.assert_allclose(found.mean[-1], want.mean[-1], rtol=1e-10, atol=1e-18)
            np.testing.assert_allclose(found.cov[-1], want.cov[-1], rtol=1e-10, atol=1e-14)
            assert found.loglik == pytest.approx(float(want.loglik), rel=1e-12)


def test_a_direction_that_cancels_is_not_forgotten():
    """Sum and difference of two decays are seen once each, a third by 1e-28 of what it was."""
    A = np.diag([-1.0, -5.0, -1e3, -1.0])
    A[0, 3] = 0.5
    Q = block_diag(np.ones((2, 2)), np.diag([50.0, 1.0]))
    C = np.array([[-1.0, 1.0, -1.0, 0.0], [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    model = LinearSDE(A, Q=Q, R=np.diag([1e-2, 1e-4, 1e-6]), C=C, prior="diffuse")
    t = 2460000.5 + np.array([0.0, 10.94650727, 12.53016754, 12.53029389, 12.87369089])
    z = np.array([[np.nan, np.nan, -0.53], [0.08, np.nan, np.nan], [-0.05, -0.56, -0.54],
                  [-0.14, -0.54, np.nan], [np.nan, -0.31, -0.31]])  # fmt: skip
    found, exact = kalman_filter(model, t, z), ExactGaussian(model, t, z).with_rounding(1e-30)
    assert found.loglik == pytest.approx(exact.loglik(), rel=1e-12)
    assert_law(found.mean[-1], found.cov[-1], *exact.law(t[-1]))


@pytest.mark.parametrize("steps", [False, True])
@pytest.mark.parametrize("gap", [50.0, 116.0, 130.0, 300.0])
def test_what_has_decayed_by_fifty_decades_is_settled_by_what_stays(gap, steps):
    """Sum of a decay and a level at 0, the level after the gap: with delta the difference of data,
    the decay is e^-gap delta, var(delta) = 2 R, which has -R in common with the level."""
    A, C, R = np.diag([-1.0, 0.0]), np.ones((1, 2)), [[0.25]]
    none, kept = np.zeros((2, 2)), np.exp(-gap)
    model = LinearSDE(A, Q=none, C=C, R=R, prior="diffuse")
    if steps:
        model = DiscreteModel(np.diag([kept, 1.0]), Q=none, H=C, R=R, prior="diffuse")
    t, z = np.array([0.0, 1.0 if steps else gap]), np.array([[3.0], [1.0]])
    for estimator in (kalman_filter, rts_smoother):
        found = estimator(model, t, z)
        unit = np.array([kept, 1.0])
        np.testing.assert_allclose(found.mean[-1] / unit, [2.0, 1.0], rtol=1e-12)
        cov = found.cov[-1] / np.outer(unit, unit)
        np.testing.assert_allclose(cov, [[0.5, -0.25], [-0.25, 0.25]], rtol=1e-12)


def test_a_fast_mode_beside_slow_ones_of_which_some_are_open():
    """After 127 decay times, in a slow part that is still being told apart."""
    A = block_diag([[-2.0]], 1e-2 * np.diag([1.0, 1.0], 1))
    Q, C = np.diag([0.0, 0.0, 0.0, 1e-4]), np.array([[1.0, -1.0, 0.0, -1.0], [1.0, 0.5, -1.0, 0.5]])
    model = LinearSDE(A, Q=Q, R=np.diag([1e-8, 1e-6]), C=C, prior="diffuse")
    t = np.array([0.0, 9.5, 63.7, 65.0, 65.0])
    z = np.array([[-0.19, np.nan], [-2.4, 1.1], [-0.1, 2.1], [1.1, np.nan], [-1.3, 0.6]])
    found, exact = kalman_filter(model, t, z), ExactGaussian(model, t, z)
    for k in (2, 4):
        assert_law(found.mean[k], found.cov[k], *exact.law(t[k], k + 1 if k < 3 else None))
