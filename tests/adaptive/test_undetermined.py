"""Dense AFA leaves open what the flat Kalman filter and smoother leave open."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.linalg import block_diag, solve_continuous_lyapunov

from afafilter import (
    LinearSDE,
    Prior,
    adaptive_filter,
    adaptive_smoother,
    kalman_filter,
    rts_smoother,
)
from tests.exact_adaptive import pulled
from tests.exact_oracle import ExactGaussian
from tests.flat_cases import SMALL, cases
from tests.fuzz.truth import TOLERANCE, law_apart

PAIRS = ((adaptive_filter, kalman_filter), (adaptive_smoother, rts_smoother))


def assert_same_open(model, t, z):
    for estimator, peer in PAIRS:
        want = peer(model, t, z)
        found = estimator(model, t, z, correlation="exact", method="dense")
        np.testing.assert_array_equal(np.isnan(found.mean), np.isnan(want.mean))
        known = np.isfinite(want.std)
        off = np.abs(found.mean - want.mean)[known]
        sd = np.sqrt(np.diagonal(want.innovation_cov, axis1=-2, axis2=-1))
        misfit = np.nanmax(np.abs(want.innovation) / sd, initial=1.0)
        bound = (1e-6 + 1e-9 * misfit) * want.std[known] + 1e-8 * np.abs(want.mean[known])
        assert (off <= bound).all()
        seen, (wanted, spread) = found.through(model.C)[0], want.through(model.C)
        np.testing.assert_array_equal(np.isnan(seen), np.isnan(wanted))
        known = ~np.isnan(wanted)
        sd = np.sqrt(np.diagonal(spread, axis1=-2, axis2=-1))[known]
        bound = (1e-6 + 1e-9 * misfit) * sd + 1e-8 * np.abs(wanted[known])
        assert (np.abs(seen - wanted)[known] <= bound).all()


@pytest.mark.filterwarnings("ignore::afafilter._base.doubts.LostDigits")  # of a few 1e-6 sd
@settings(SMALL, max_examples=25)
@given(cases())
def test_on_all_models(case):
    assert_same_open(*case)


@pytest.mark.parametrize("late", [12.0, 30.0])
def test_states_that_differ_by_what_has_decayed(late):
    model = LinearSDE(
        np.diag([-0.5, -1.0, 0.0]),
        Q=np.diag([0.0, 1.0, 0.0]),
        R=[[1e-4]],
        C=[[1.0, 1.0, 1.0]],
        prior="diffuse",
    )
    t, z = np.array([0.0, 0.0, 0.0, late, late]), np.zeros((5, 1))
    assert_same_open(model, t, z)
    for estimator, _ in PAIRS:
        plain = estimator(model, t, z, method="dense")
        assert np.isnan(plain.mean).all()
        assert np.isinf(np.diagonal(plain.cov, axis1=-2, axis2=-1)).all()


@pytest.mark.parametrize("rates", [(3.0, 2.0, 1.0), (0.0, 0.0, 0.0), (500.0, 2.0, 1.0)])
@pytest.mark.parametrize("correlation", ["independent", "exact"])
def test_a_state_that_is_never_seen(rates, correlation):
    model = LinearSDE(
        -np.diag(rates),
        Q=np.eye(3),
        R=np.eye(2),
        C=[[0.0, 1.0, 1.0], [0.0, 1.0, 2.0]],
        prior="diffuse",
    )
    t, z = np.array([0.0, 0.05, 0.12]), np.random.default_rng(0).standard_normal((3, 2))
    for estimator, _ in PAIRS:
        found = estimator(model, t, z, correlation=correlation, method="dense")
        np.testing.assert_array_equal(np.isnan(found.mean), [[True, False, False]] * 3)
        assert (np.abs(found.mean[:, 1:]) < 20).all()


@pytest.mark.parametrize("late", [27.0, 57.0, 300.0])
@pytest.mark.parametrize("first_sd", [1e-4, 1.0])
def test_what_has_decayed_far_is_told_from_rounding(late, first_sd):
    """Two modes seen by their sum, then what is left of the slow one: the flat Kalman filter."""
    model = LinearSDE(
        -np.diag([1000.0, 1.0]), Q=np.diag([5e3, 1e-4]), R=[[1e-6]], C=[[1.0, 1.0]], prior="diffuse"
    )
    t = np.array([-3.0, late, late + 0.5, late + 2.0])
    z = np.array([[-0.8], [3.6], [-2.4], [1.1]])
    obs_cov = np.array([first_sd**2, 1e-6, 1e-6, 1e-6])[:, None, None]
    wanted = kalman_filter(model, t, z, obs_cov=obs_cov)
    found = adaptive_filter(model, t, z, obs_cov=obs_cov, correlation="exact")
    sd = np.sqrt(np.diagonal(wanted.cov, axis1=1, axis2=2))
    np.testing.assert_allclose((found.mean / sd)[1:], (wanted.mean / sd)[1:], atol=1e-7)
    np.testing.assert_allclose(found.cov[1:], wanted.cov[1:], rtol=1e-6, atol=1e-12)
    assert np.isnan(found.mean[0]).all() == np.isnan(wanted.mean[0]).all()


@pytest.mark.parametrize("scale", [1.0, 1e8])
def test_exact_sensors_beside_rough_ones_leave_no_rounding_in_what_decays(scale):
    """Three precise rows for four states; the fourth direction is seen e^-30 later."""
    model = LinearSDE(
        -np.diag([1.0, 5.0, 1000.0, 1.0]),
        Q=np.diag([100.0, 1e-8, 0.5, 1e-4]),
        R=np.diag([1e-2, 1e-8, 1.0]),
        C=[[0, 0.5, 0, 0.5], [1, 1, -1, 1], [1, 0, 1, -1]],
        prior="diffuse",
    )
    t = np.array([0.0, 30.0, 30.1, 37.1])
    z = np.array([[8.6, 14.8, -3.9], [-0.02, 8.2, 16.3], [np.nan, 3.2, np.nan], [0.01, 3.3, 0.3]])
    obs_cov = np.tile(scale * model.R, (4, 1, 1))
    wanted = kalman_filter(model, t, z, obs_cov=obs_cov)
    found = adaptive_filter(model, t, z, obs_cov=obs_cov, correlation="exact")
    sd = np.sqrt(np.diagonal(wanted.cov, axis1=1, axis2=2))
    np.testing.assert_allclose((found.mean / sd)[1:], (wanted.mean / sd)[1:], atol=1e-6)


SWINGING = np.array([[-0.1, -1.1], [1.1, -0.1]])
WAITED_FOR = {  # what decays and its noise
    "swings without noise": (SWINGING, np.zeros((2, 2))),
    "swings": (SWINGING, 0.3 * np.eye(2)),
    "stiff": (-np.diag([1000.0, 1.0]), np.diag([50.0, 1.0])),
    "alike": (np.array([[-1.3, 1.0], [0.0, -1.3]]), np.diag([0.0, 7.0])),
}


@pytest.mark.parametrize("name", WAITED_FOR)
@pytest.mark.parametrize(("decays", "mixed"), [(45, True), (80, True), (130, False), (300, False)])
def test_a_long_wait_for_the_first_observation(name, decays, mixed):
    """What decays is as noise has made it, a level is open: the Kalman filter from then on."""
    fast, noise = WAITED_FOR[name]
    wait = -decays / np.linalg.eigvals(fast).real.max()
    S = np.array([[1.0, 0.4, -0.3], [0.2, 1.0, 0.5], [-0.4, 0.1, 1.0]]) if mixed else np.eye(3)
    A, Q = (M @ block_diag(part, 0.0) @ N for M, part, N in
            ((S, fast, np.linalg.inv(S)), (S, noise, S.T)))  # fmt: skip
    law = S @ block_diag(solve_continuous_lyapunov(fast, -noise), 0.0) @ S.T
    model = LinearSDE(A, Q=0.5 * (Q + Q.T), R=[[1e-2]], C=[[1.0, 0.5, 1.0]], prior="diffuse")
    t, z = wait + np.array([-wait, 0.0, 0.7, 5.0]), np.array([[np.nan], [-114.2], [-113.1], [-115]])
    begun = LinearSDE(
        A, Q=model.Q, R=model.R, C=model.C,
        prior=Prior(np.zeros(3), 0.5 * (law + law.T), None, S[:, 2:] / np.linalg.norm(S[:, 2])),
    )  # fmt: skip
    for estimator, peer in PAIRS:
        found = estimator(model, t, z, correlation="exact")
        wanted = peer(begun, t[1:], z[1:])
        sd = np.sqrt(np.diagonal(wanted.cov, axis1=1, axis2=2)) + 1e-12
        np.testing.assert_allclose((found.mean[1:] - wanted.mean) / sd, 0.0, atol=1e-6)
        spread = (found.cov[1:] - wanted.cov) / sd[:, None] / sd[:, :, None]
        np.testing.assert_allclose(spread, 0.0, atol=1e-6)


@pytest.mark.parametrize("gap", [0.3, 0.9, 7.0])
@pytest.mark.parametrize("estimator", [adaptive_filter, adaptive_smoother])
def test_a_fast_mode_seen_with_a_slow_one_after_a_gap(estimator, gap):
    """Only their sum is known, whether or not e^-1000 gap is within the floating-point range."""
    model = LinearSDE(
        block_diag([[0.0, 1.0], [-1.69, -2.6]], -1000.0, -1.0), Q=np.diag([0.0, 7.0, 50.0, 1.0]),
        R=np.diag([1e-4, 1e-6]), C=[[1.0, 0.5, 0.0, 0.0], [1.0, 0.0, 1.0, 1.0]], prior="diffuse",
    )  # fmt: skip
    t, z = np.array([0.0, gap]), np.array([[-1.8, np.nan], [-3.5, -1.1]])
    found = estimator(model, t, z, method="dense")
    wanted = pulled(ExactGaussian(model, t, z, bits=6400), gap, [0, 1])
    np.testing.assert_array_equal(np.isnan(found.mean[1]), [False, False, True, True])
    assert law_apart((found.mean[1], found.cov[1]), wanted, 1.0) <= TOLERANCE


@pytest.mark.parametrize("lead", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("turns", [0.5, 1.0])
def test_half_turns_beside_a_stiff_mode_show_nothing_new(lead, turns):
    """What later rows alone leave open is no less for queries that lie before them."""
    A = block_diag(-1000.0, -1.0, [[0.0, -np.pi], [np.pi, 0.0]])
    model = LinearSDE(
        A, Q=np.diag([50.0, 1.0, 0.1, 0.1]), R=np.diag([1e-8, 1e-8, 1.0]), prior="diffuse",
        C=[[1.0, 0.0, 1.0, 1.0], [-1.0, 1.0, 1.0, 1.0], [0.5, 0.0, 1.0, 1.0]],
    )  # fmt: skip
    t = lead + 2.0 * turns * np.array([0.0, 0.0, 1.0, 2.0])
    z = np.random.default_rng(0).standard_normal((4, 3))
    z[0, 1] = z[3, 0] = np.nan
    found = adaptive_smoother(model, t, z, method="dense", query_times=[t[0], t[0] + 0.25, t[3]])
    turned = [[False, False, True, True], [False, False, True, False], [False, False, True, True]]
    np.testing.assert_array_equal(np.isnan(found.mean), turned)


@pytest.mark.parametrize("unit", [1.0, 1e5])
@pytest.mark.parametrize("row", [[1.0, 0.0], [0.0, -0.5], [1.0, 1.0]])
@pytest.mark.parametrize(("estimator", "turns"), [(adaptive_filter, 7.0), (adaptive_smoother, 2.0)])
def test_half_turns_in_a_window_show_one_state(estimator, turns, row, unit):
    """The other one is open, also where its column holds nothing but rounding."""
    A, Q = np.array([[0.0, -np.pi * unit], [np.pi / unit, 0.0]]), np.diag([unit, 1.0 / unit])
    C = np.array([row]) / [[unit, 1.0]]
    model = LinearSDE(A, Q=Q * unit, R=[[1e-4]], C=C, prior="diffuse")
    t = np.array([0.0, 1.0, 1.0, 3.0, 3.0 + turns])
    z = np.random.default_rng(0).standard_normal((5, 1))
    found = estimator(model, t, z, window=2, method="dense")
    for i in range(5):
        js = range(max(i - 1, 0), i + 1 if estimator is adaptive_filter else min(i + 3, 5))
        wanted = pulled(ExactGaussian(model, t, z), t[i], js)
        assert np.isnan(wanted.mean).sum() == (1 if 0.0 in row else 2)
        assert law_apart((found.mean[i], found.cov[i]), wanted, 1.0) <= TOLERANCE


@pytest.mark.parametrize("late", [160.0, 400.0, 2000.0])
@pytest.mark.parametrize("unit", [1.0, 1e-4, 1e5])
@pytest.mark.parametrize("estimator", [adaptive_filter, adaptive_smoother])
def test_the_units_of_a_fast_mode_begin_where_it_is_shown(estimator, unit, late):
    """Far back only a slow state is seen; the fast one, without noise, by the last two rows."""
    A, Q = block_diag([[0.0, 1.0], [-4.0, -0.3]], -2.0), np.diag([0.0, 5e-7, 0.0])
    C = np.array([[1.0, -1.0, 0.0], [1.0, 0.0, 1.0 / unit]])
    model = LinearSDE(A, Q=Q, R=np.diag([0.01, 1e-4]), C=C, prior="diffuse")
    t = np.array([0.0, 1.0, late, late, late + 0.5])
    z = np.random.default_rng(0).standard_normal((5, 2))
    z[:2, 1] = np.nan
    found = estimator(model, t, z, method="dense")
    for i in (2, 3, 4):
        js = range(i + 1 if estimator is adaptive_filter else 5)
        wanted = pulled(ExactGaussian(model, t, z).forgetful(), t[i], js)
        assert law_apart((found.mean[i], found.cov[i]), wanted, 100.0) <= TOLERANCE


@pytest.mark.parametrize("late", [40.0, 130.0, 200.0, 400.0])
@pytest.mark.parametrize("fast", [2.0, 5.0])
@pytest.mark.parametrize("gain", [1.0, 1e-3])
def test_what_has_faded_beyond_the_range_of_factors_is_0(fast, late, gain):
    """A mode without noise beside one that forgets faster: no unit follows it."""
    model = LinearSDE(
        -np.diag([1000.0, fast]), Q=np.diag([50.0, 0.0]), R=np.diag([1.0, 1e-6]) * gain**2,
        C=gain * np.array([[1.0, 1.0], [0.0, 1.0]]), prior="diffuse",
    )  # fmt: skip
    t, z = np.array([0.0, 1.0, 1.0 + late]), gain * np.ones((3, 2))
    found = adaptive_filter(model, t, z, method="dense")
    wanted = pulled(ExactGaussian(model, t, z).forgetful(), t[2], range(3))
    assert not np.isnan(wanted.mean).any()
    assert law_apart((found.mean[2], found.cov[2]), wanted, 1.0) <= TOLERANCE


FADING = {
    "equal rates": (block_diag([[0.0, 1.0], [-1.69, -2.6]], 0.0), np.diag([0.0, 7.0, 1.0])),
    "a spiral": (block_diag([[-1.0, -2.0], [2.0, -1.0]], 0.0), np.diag([0.0, 7.0, 0.0])),
    "two of them": (
        block_diag([[0.0, 1.0], [-1.69, -2.6]], [[0.0, 1.0], [-0.64, -1.6]]),
        np.diag([0.0, 7.0, 0.0, 1.0]),
    ),
}


@pytest.mark.parametrize("name", FADING)
@pytest.mark.parametrize("gap", [200.0, 400.0, 900.0])
@pytest.mark.parametrize("row", [[1.0, 0.5, 1.0, 0.7], [0.0, 0.5, 1.0, 0.0]])
def test_one_row_determines_nothing_whatever_comes_later(name, gap, row):
    """It shows a sum of states, which later rows tell apart: none of them is known before."""
    A, Q = FADING[name]
    for unit in (np.ones(len(A)), np.geomspace(1e-4, 1e3, len(A))):
        S = np.diag(unit)
        C = np.array([row[: len(A)]]) / unit
        model = LinearSDE(S @ A / unit, Q=S @ Q @ S, R=[[1e-6]], C=C, prior="diffuse")
        t, z = np.r_[0.0, gap, gap, gap + 30.0, gap + 31.0], np.ones((5, 1))
        found = adaptive_filter(model, t, z, method="dense", query_times=[0.0])
        assert np.isnan(found.mean).all()
        assert np.isinf(np.diagonal(found.cov[0])).all()


DRIVEN = np.array([[0.0, 1, 0, 0.5], [-4, -0.3, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
SLOWER = block_diag([[-0.2, 1.0], [0.0, -0.2]], -0.02 * np.eye(2))


@pytest.mark.parametrize("estimator", [adaptive_filter, adaptive_smoother])
@pytest.mark.parametrize("gap", [100.0, 300.0, 462.0, 650.0])
@pytest.mark.parametrize("A", [DRIVEN, SLOWER, -SLOWER], ids=["driven", "slower", "growing"])
@pytest.mark.parametrize("row", [[1.0, 1.0, -1.0, -1.0], [0.5, -1.0, 2.0, 1.0]])
def test_a_row_before_a_gap_and_fewer_after_it_than_states(estimator, A, gap, row):
    """Three rows show of four states three sums: no state is known, however far modes decay."""
    model = LinearSDE(
        A, Q=np.diag([0, 5e-7, 0, 1e-6]), R=np.eye(2), C=[row, [1, -1, 0, 1]], prior="diffuse"
    )
    t, z = np.array([0.0, gap]), np.array([[2.8, np.nan], [63.0, -2.1]])
    found = estimator(model, t, z, method="dense")
    exact = ExactGaussian(model, t, z).with_rounding(1e-200)
    for k in range(2):
        wanted = pulled(exact, t[k], range(2 if estimator is adaptive_smoother else k + 1))
        np.testing.assert_array_equal(np.isnan(found.mean[k]), np.isnan(wanted.mean))


@pytest.mark.parametrize(
    ("rates", "hidden"),
    [
        ((16.7, 1 / 60, 1 / 60, 5 / 60), 2),
        ((50.6, 0.037, 0.014, 0.25), 2),
        ((38.7, 0.006, 0.0127, 0.0709), 1),
    ],
)
def test_what_is_never_seen_takes_nothing_along(rates, hidden):
    """Between modes that fade over a long gap: the others as if the model did not have it."""
    Q, C = np.diag([5e-5, 1e-6, 1e-6, 1e-6]), np.array([[0.5, 1.0, 1.0, -1.0]])
    C[0, hidden] = 0.0
    t = np.cumsum([0.0, 1.1, 390.0, 0.9, 2.6, 0.8, 1.5, 1.0])
    z = np.random.default_rng(5).standard_normal((len(t), 1))
    model, seen = LinearSDE(-np.diag(rates), Q=Q, R=[[1e-4]], C=C, prior="diffuse"), C[0] != 0
    smaller = LinearSDE(
        -np.diag(rates)[np.ix_(seen, seen)], Q=Q[np.ix_(seen, seen)], R=[[1e-4]], C=C[:, seen],
        prior="diffuse",
    )  # fmt: skip
    for estimator, peer in PAIRS:
        found = estimator(model, t, z, correlation="exact")
        wanted = peer(smaller, t, z)
        np.testing.assert_allclose(
            (found.mean[:, seen] - wanted.mean) / wanted.std, 0.0 * wanted.mean, atol=1e-6
        )
        np.testing.assert_allclose(found.std[:, seen], wanted.std, rtol=1e-6)
        assert np.isnan(found.mean[:, hidden]).all()
