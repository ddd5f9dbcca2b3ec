"""Where double precision runs out: right to the exact answer, or a warning, by every way alike."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.linalg import block_diag

from afafilter import (
    DiscreteModel,
    KalmanStream,
    LinearSDE,
    Prior,
    brownian,
    forecast,
    kalman_filter,
    loglik,
    rts_smoother,
    seasonal,
)
from afafilter._base.doubts import BarelyDetermined, LostDigits
from tests.exact_oracle import ExactGaussian
from tests.fuzz.truth import law_apart

TURN = np.array([[0.0, -1.0], [1.0, 0.0]])
MAGNIFIED = pytest.mark.filterwarnings("ignore::afafilter._base.doubts.LostDigits")
"""Of data so large that last digits of the model's numbers, exact here, would show."""


def stream(model, t, z):
    """The last estimate of a stream, and its likelihood."""
    run = KalmanStream(model)
    for at, row in zip(t, z):
        last = run.update(float(at), row)
    return last, run.loglik


WAYS = {
    "filter": lambda *given: float(kalman_filter(*given).loglik),
    "smoother": lambda *given: float(rts_smoother(*given).loglik),
    "stream": lambda *given: stream(*given)[1],
    "loglik": lambda *given: loglik(*given),
    "gradient": lambda *given: loglik(*given, gradient=True)[0],
}


def said(call, *given):
    """What a call returns, and the kinds of its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = call(*given)
    return found, {x.category for x in caught}


def assert_law(found, wanted, tol=1e-6):
    assert law_apart(found, wanted, 1.0) <= tol


def assert_all_laws(model, t, z, exact, loglik, tol):
    """Filter and smoother, without a warning: the likelihood, and the law at every time."""
    for estimator in (kalman_filter, rts_smoother):
        found, kinds = said(estimator, model, t, z)
        assert kinds == set()
        assert found.loglik == loglik
        for k in range(len(t)):
            wanted = exact.law(t[k], k + 1 if estimator is kalman_filter else None)
            assert_law((found.mean[k], found.cov[k]), wanted, tol)


# ------------------------------------------------------------------- every way gives the warning


def cycles(apart):
    A = block_diag(TURN, (1 + apart) * TURN)
    C = [[1.0, 0.0, 1.0, 0.0]]
    return LinearSDE(A, Q=np.zeros((4, 4)), R=[[1.0]], C=C, prior="diffuse")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("apart", [1e-11, 3e-11, 1e-4])
def test_barely_determined_directions_are_said_by_all(way, apart):
    t, z = np.arange(7.0), np.random.default_rng(0).standard_normal((7, 1))
    value, kinds = said(WAYS[way], cycles(apart), t, z)
    assert kinds == (set() if apart == 1e-4 else {LostDigits})
    if apart == 1e-4:
        assert value == pytest.approx(ExactGaussian(cycles(apart), t, z).loglik(), abs=1e-6)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rate", [20, 30, 37])
def test_a_growing_direction_is_said_by_all(way, rate):
    A = block_diag(rate / 2 * np.array([[1.0, -1.0], [-1.0, 1.0]]), 0.0)
    model = LinearSDE(A, Q=np.zeros((3, 3)), R=[[1.0]], C=[[1.0, 1.0, 1.0]], prior="diffuse")
    t, z = np.array([0, 1, 1.5, 2, 2.5]), np.array([[np.nan], [1.0], [2.0], [1.5], [0.5]])
    value, kinds = said(WAYS[way], model, t, z)
    if rate >= 30:
        assert kinds == {LostDigits}
    else:
        assert kinds <= {LostDigits}
    assert np.isfinite(value)
    if rate < 30:
        assert value == pytest.approx(ExactGaussian(model, t, z).loglik(), abs=1e-6)


def hidden(start):
    """A half turn between two rows hides from the second what stamps of this size blur; later rows
    see it, far from 0."""
    unit = 1e7
    A = block_diag(np.pi * np.array([[0.0, -unit], [1 / unit, 0.0]]), -1.0)
    C = 1e-6 * np.array([[0.5, 1.0, 1.0], [10.0, 10.0, 10.0]])
    model = LinearSDE(A, Q=np.diag([0.1, 1e-15, 1e-12]), R=1e-18 * np.eye(2), C=C, prior="diffuse")
    t = start + np.array([0.0, 1.0, 1.25, 2.25])
    Phi, _, V = model.transition(np.diff(t))
    x, rng = np.array([2e2, 0.3, -1e2]), np.random.default_rng(1)
    z = [C @ x]
    for F, noise in zip(Phi, V):
        x = F @ x + np.linalg.cholesky(noise) @ rng.standard_normal(3)
        z.append(C @ x)
    return model, t, np.array(z) + 1e-9 * rng.standard_normal((4, 2))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("start", [0.0, 1e5, 1.7e9])
def test_what_the_stamps_hide_is_said_by_all(way, start):
    given = hidden(start)
    value, kinds = said(WAYS[way], *given)
    if BarelyDetermined in kinds:
        assert start > 0
    else:
        assert kinds <= {LostDigits}  # data of 24 with sd 1e-9
        exact = ExactGaussian(*given)
        # Data of 24 with sd 1e-9 are known to 4e-6 of it, and stamps of 1e5 to their rounding.
        assert value == pytest.approx(exact.loglik(), abs=1e-3 if start else 1e-4)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lost", [True, False])
def test_lost_digits_are_said_along_a_flat_start_too(way, lost):
    """Process noise of 400 time units makes a prediction 1e10 times as vague as its sensor."""
    A = np.diag([1.0, 1.0], 1)
    C, R = [[1.0, 0.0, -1.0], [0.0, 1.0, 0.5]], np.diag([1e-6 if lost else 1e-2, 1.0])
    model = LinearSDE(A, Q=np.diag([0.0, 0.0, 1e3]), R=R, C=C, prior="diffuse")
    t = np.array([0.0, 400.0, 400.0, 400.0])
    z = np.array([[435.0, np.nan], [-1e7, np.nan], [-1e7, -1.1e4], [np.nan, -1.1e4]])
    value, kinds = said(WAYS[way], model, t, z)
    assert kinds == ({LostDigits} if lost else set())
    if not lost:
        assert value == pytest.approx(ExactGaussian(model, t, z).loglik(), abs=1e-6)


def two_lines(unit):
    """Positions that the same sensors see, of speeds in units far apart."""
    A = block_diag([[0.0, unit], [0.0, 0.0]], [[0.0, 1 / unit], [0.0, 0.0]])
    C = np.array([[1.0, -1.0, 1.0, 0.5], [1.0, 0.5, 0.0, -1.0]])
    Q = np.diag([0.0, 1e-8, 0.0, 1e-4 * unit**2])
    model = LinearSDE(A, Q=Q, R=1e-6 * np.eye(2), C=C, prior="diffuse")
    t = np.array([0.0, 1e-4, 0.11, 0.23, 3.5])
    x, rng = np.array([0.8, 1.1, 2.0, -0.2]), np.random.default_rng(0)
    z = [C @ x]
    for F, V in zip(*model.transition(np.diff(t))[::2]):
        x = F @ x + np.linalg.cholesky(V + 1e-12 * np.eye(4)) @ rng.standard_normal(4)
        z.append(C @ x)
    return model, t, np.array(z)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("unit", [1e2, 1e4, 1e5, 1e7])
def test_what_a_seen_direction_leaves_in_the_others(way, unit):
    """A direction of 1e3 is taken out of one of which a later row sees 1e-12."""
    given = two_lines(unit)
    value, kinds = said(WAYS[way], *given)
    if unit == 1e5:
        assert kinds <= {LostDigits}
    else:
        assert kinds == ({LostDigits} if unit == 1e7 else set())
    if unit < 1e7:
        assert value == pytest.approx(ExactGaussian(*given).loglik(), abs=1e-5)


def grown_beside_decay(rate, gap):
    """Long after the start a sensor shows what has grown, and of what has decayed only rounding."""
    A = block_diag([[0.0, 1.0], [-1.69, -2.6]], rate)
    C = np.array([[1.0, 0.0, -1.0], [0.5, 1.0, 0.5]])
    model = LinearSDE(A, Q=np.diag([0.0, 7.0, 0.3]), R=np.diag([1.0, 1e-6]), C=C, prior="diffuse")
    t = np.array([0.0, gap, gap + 0.1, gap + 0.2])
    z = np.array([[np.nan, -0.63], [-0.26, 1.85], [0.5, 1.66], [-1.0, -0.45]])
    return model, t, z


def line_beside_a_spiral(gap):
    """A spiral that decays to nothing and a line: values that follow show the line alone."""
    A = block_diag([[-0.1, -1.0], [1.0, -0.1]], [[0.0, 1.0], [0.0, 0.0]])
    Q, C = np.diag([0.3, 0.3, 0.0, 1.0]), [[1.0, 1.0, -1.0, 0.0]]
    model = LinearSDE(A, Q=Q, R=[[1e-4]], C=C, prior="diffuse")
    t = np.array([0.0, 0.0, gap, gap + 1, gap + 1.25, gap + 1.5])
    return model, t, np.array([[-8.5], [-8.5], [234.0], [235.0], [235.6], [np.nan]])


def lasting_beside_a_cycle(gap, late):
    """A constant drives a cycle that has decayed; two of three directions are seen."""
    A = np.array([[-0.1, -1.1, -1.0], [1.1, -0.1, 0.0], [0.0, 0.0, 0.0]])
    model = LinearSDE(A, Q=np.zeros((3, 3)), R=[[1e-8]], C=[[-1.0, 0.5, 0.5]], prior="diffuse")
    t = 2460000.5 * late + np.array([0.0, 0.0, gap, 2 * gap])
    return model, t, np.array([[-2.2], [0.69], [-0.09], [-0.14]])


HIDDEN_BESIDE = {
    "growth": lambda case: grown_beside_decay((0.4, 0.3, 0.45)[case], (29.9, 25.0, 26.0)[case]),
    "line": lambda case: line_beside_a_spiral((400.0, 360.0, 450.0)[case]),
    "constant": lambda case: lasting_beside_a_cycle((400.0, 420.0, 500.0)[case], case == 0),
}


@pytest.mark.parametrize("case", [0, 1, 2])
@pytest.mark.parametrize("kind", HIDDEN_BESIDE)
def test_what_a_row_hides_of_one_direction_while_it_sees_another(kind, case):
    """Where h n_2 is rounding, n_2 is moved until it is 0: later rows show what is its own."""
    model, t, z = HIDDEN_BESIDE[kind](case)
    exact = ExactGaussian(model, t, z).with_rounding(1e-30)
    for estimator in (kalman_filter, rts_smoother):
        found, kinds = said(estimator, model, t, z)
        assert kinds == set()
        for k in range(len(t)):
            wanted = exact.law(t[k], k + 1 if estimator is kalman_filter else None)
            assert_law((found.mean[k], found.cov[k]), wanted, 1e-5)


BESIDE_DECAY = np.array([[-1.11, -2.93, 2.52], [0.825, 0.485, -0.705], [-0.118, -0.739, 0.824]])


@pytest.mark.parametrize("last", [15.0, 22.0, 30.0])
def test_open_directions_beside_growth_and_decay(last):
    """What has grown to 1e5 is taken out of what has decayed, to the rounding of the latter."""
    v = np.array([11.7, 6.43, 14.5])
    C, R = [[0.0, 1.0, 0.5], [1.0, 1.0, -1.0]], np.diag([1.0, 1e-4])
    model = LinearSDE(BESIDE_DECAY, Q=np.outer(v, v), R=R, C=C, prior="diffuse")
    t = np.array([0.0, last - 0.01, last])
    z = -1e10 * np.array([[np.nan, np.nan], [np.nan, 40.839], [100.0, 40.988]])
    found, kinds = said(kalman_filter, model, t, z)
    assert kinds == {LostDigits}
    assert_law((found.mean[-1], found.cov[-1]), ExactGaussian(model, t, z).law(last), 2e-4)


def decayed(rate):
    """The first sensor sees only what has decayed, the second that and a cycle that has not."""
    A = block_diag(-rate * np.eye(2) + np.diag([1.0], 1), 0.3 * TURN)
    C = [[1.0, 1.0, 0.0, 0.0], [0.5, 1.0, -1.0, 1.0]]
    model = LinearSDE(
        A, Q=np.diag([0.0, 7e-6, 3e-7, 3e-7]), R=np.diag([1e-6, 1e-2]), C=C, prior="diffuse"
    )
    t = np.array([0.0, 30.0, 37.0, 37.0, 37.5])
    z = np.array([[np.nan, 2.9], [7.3, -2.6], [-1.5, -1.6], [-1.5, -3.8], [-2.4, -1.9]])
    return model, t, z


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rate", [0.1, 0.5, 1.3, 1.5])
def test_rows_that_show_what_has_decayed_beside_what_has_not(way, rate):
    value, kinds = said(WAYS[way], *decayed(rate))
    assert kinds == set()
    assert value == pytest.approx(ExactGaussian(*decayed(rate)).loglik(), rel=1e-9)


def in_steps(parts, model, t, z):
    """The model given by its steps, and data with so many steps from one row to the next."""
    at = np.concatenate([t[:1], *(np.linspace(a, b, parts + 1)[1:] for a, b in pairwise(t))])
    rows = np.full((len(at), z.shape[1]), np.nan)
    rows[::parts] = z
    F, _, V = model.transition(np.diff(at, prepend=at[0]))
    varying = ("F", "Q")
    steps = DiscreteModel(F, H=model.C, Q=V, R=model.R, prior=model.prior, time_varying=varying)
    return steps, rows


@pytest.mark.parametrize("parts", [1, 30])
@pytest.mark.parametrize("rate", [0.1, 1.3, 1.5])
def test_steps_that_decay_keep_their_digits_beside_those_that_do_not(rate, parts):
    """What F tells of the decay of each block decides which direction is determined first."""
    model, z = in_steps(parts, *decayed(rate))
    exact = ExactGaussian(model, np.arange(float(len(z))), z).with_rounding(1e-45)
    for estimator in (kalman_filter, rts_smoother):
        found, kinds = said(estimator, model, z)
        assert kinds == set()
        assert found.loglik == pytest.approx(exact.loglik(), rel=1e-9)
        for k in range(0, len(z), parts):
            wanted = exact.law(float(k), k + 1 if estimator is kalman_filter else None)
            assert_law((found.mean[k], found.cov[k]), wanted)
    value, slopes = loglik(model, None, z, gradient=True)
    assert value == pytest.approx(exact.loglik(), rel=1e-9)
    assert all(np.isfinite(np.asarray(slope)).all() for slope in slopes.values())


def walk_beside_a_spiral(gap, rate, sd):
    """After the gap the first sensor sees only what has decayed, the second a walk too."""
    A = block_diag(0.0, -rate * np.eye(2) + TURN)
    C = [[0.0, 0.5, -1.0], [1.0, 0.5, 0.5]]
    model = LinearSDE(A, Q=np.diag([1.0, 0.3, 0.3]), R=sd**2 * np.eye(2), C=C, prior="diffuse")
    t = np.append(0.0, gap + np.array([0.0, 0.1, 0.35, 0.35]))
    z = np.array([[-3.0, -2.0], [-0.4, -23.4], [-0.1, -23.8], [0.1, -23.0], [0.1, -23.0]])
    return model, t, z


def line_beside_two_decays(gap, rate):
    """Three of four directions are seen, all by the first value alike, two later after decay."""
    A = block_diag([[0.0, 0.01], [0.0, 0.0]], [[-rate, 10.0], [0.0, -rate]])
    C = [[0.0, -1.0, -1.0, -1.0]]
    model = LinearSDE(A, Q=np.diag([0.0, 0.1, 0.0, 0.2]), R=[[0.01]], C=C, prior="diffuse")
    return model, np.array([0.0, gap, gap + 1.0]), np.array([[-2.0], [-5.7], [-6.1]])


BESIDE_FAST = {
    "origin": lambda: walk_beside_a_spiral(400.0, 0.1, 1e-4),
    "origin, sooner": lambda: walk_beside_a_spiral(250.0, 0.12, 1e-3),
    "origin, later": lambda: walk_beside_a_spiral(70.0, 0.9, 1e-4),
    "line": lambda: line_beside_two_decays(58.9, 1.0),
    "line, faster": lambda: line_beside_two_decays(20.0, 2.5),
    "line, sooner": lambda: line_beside_two_decays(35.0, 1.0),
}


@pytest.mark.parametrize("case", BESIDE_FAST)
def test_what_decays_fast_keeps_its_digits_beside_what_does_not(case):
    model, t, z = BESIDE_FAST[case]()
    exact = ExactGaussian(model, t, z).with_rounding(1e-45)
    assert_all_laws(model, t, z, exact, pytest.approx(exact.loglik(), rel=1e-8), 1e-6)


def test_a_stream_says_it_once_and_old_states_go_on():
    t, z = np.arange(7.0), np.random.default_rng(0).standard_normal((7, 1))
    run = KalmanStream(cycles(1e-11))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for k in range(4):
            run.update(t[k], z[k])
        kept = run.state()
        del kept["doubt"], kept["late"]  # as it was saved before there was any
        again = KalmanStream.from_state(cycles(1e-11), kept)
        for k in range(4, 7):
            run.update(t[k], z[k])
            again.update(t[k], z[k])
    assert [x.category for x in caught] == [LostDigits]
    assert again.loglik == run.loglik


# ----------------------------------------------------------------- what cancels in H P H^T


@pytest.mark.parametrize("steps", [False, True])
@pytest.mark.parametrize("spread", [1e3, 1e5])
def test_forecasts_of_sums_whose_parts_are_vague(spread, steps):
    """x1 + x2 / 2 is known to 1e-4, the parts only to `spread`."""
    prior = Prior([0.5, 1.0], spread**2 * np.array([[1.0, 0.3], [0.3, 2.0]]))
    C, R = [[1.0, 0.5], [1.0, 0.5]], np.diag([1e-8, 1e-2])
    z, ahead = np.array([[0.467, 0.42], [0.4671, 0.5]]), np.array([1.5, 7.0])
    if steps:
        model = DiscreteModel(np.eye(2), Q=np.zeros((2, 2)), R=R, H=C, prior=prior)
        found = forecast(model, z, steps=2).info
    else:
        model = LinearSDE(np.zeros((2, 2)), Q=np.zeros((2, 2)), R=R, C=C, prior=prior, delay=0.25)
        found = forecast(model, [0.0, 1.0], z, horizon_times=ahead).info
    # One number y with a flat start, to 1e-16: its law given both sensors at both times.
    weights = np.array([1e8, 1e2, 1e8, 1e2])
    y, variance = weights @ z.ravel() / weights.sum(), 1 / weights.sum()
    for mean, cov in zip(found["observation_mean"], found["observation_cov"]):
        np.testing.assert_allclose(mean, y, atol=1e-14 * spread)
        np.testing.assert_allclose(cov, variance + R, rtol=1e-6)


@MAGNIFIED
def test_forecasts_of_a_constant_beside_a_long_line():
    """A direction that grows with time cancels in what the sensor shows of two others."""
    A = np.zeros((3, 3))
    A[0, 1], A[1, 2] = 1e-5, 1e6
    model = LinearSDE(
        A, Q=np.diag([0.0, 0.0, 1e-14]), R=[[1e-4]], C=[[1.0, 1.0, 0.0]], prior="diffuse"
    )
    t = np.array([0.0, 0.0, 0.1, 1.1, 2.1, 402.1])
    z = np.array([[0.49], [0.5], [-2.7e4], [-3.0e5], [-5.8e5], [-1.1e8]])
    exact = ExactGaussian(model, t, z, queries=[403.5])
    found = forecast(model, t, z, horizon_times=[403.5]).info
    wanted = exact.law(403.5, H=model.C)
    assert found["observation_cov"][0, 0, 0] == pytest.approx(wanted.cov[0, 0] + 1e-4, rel=1e-6)


def test_covariances_of_missing_observations_know_what_stays_open():
    """The second sensor is silent: what it alone would show stays open, before and after."""
    model = LinearSDE(
        np.zeros((2, 2)), Q=np.diag([0.1, 0.2]), R=np.eye(2), C=np.eye(2), prior="diffuse"
    )
    z = np.column_stack([np.arange(20.0), np.full(20, np.nan)])
    found = kalman_filter(model, np.arange(20.0), z)
    assert np.isinf(found.innovation_cov[:, 1, 1]).all()
    assert (found.innovation_cov[:, 0, 1] == 0).all()
    alone = LinearSDE([[0.0]], Q=[[0.1]], R=[[1.0]], prior="diffuse")
    want = kalman_filter(alone, np.arange(20.0), z[:, :1]).innovation_cov
    np.testing.assert_allclose(found.innovation_cov[1:, :1, :1], want[1:], rtol=1e-12)


# ------------------------------------------------------------- what decays, what grows


@pytest.mark.parametrize("after", [50.0, 120.0, 223.88])
@pytest.mark.parametrize("rate", [1.0, 1.4])
def test_queries_long_after_the_first_observation(after, rate):
    """What is known of a decaying state has a variance, however small."""
    A = rate * (0.5 * TURN - np.eye(2))
    model = LinearSDE(A, Q=np.zeros((2, 2)), R=0.1 * np.eye(2), prior="diffuse")
    t, z = np.array([-3.0, 397.0]), np.array([[-5.6e5, 9.6e6], [-0.4, -0.3]])
    asked = np.array([after - 3.0])
    exact = ExactGaussian(model, t, z, queries=asked)
    found = kalman_filter(model, t, z, query_times=asked)
    assert found.cov[0, 0, 0] > 0
    wanted = exact.law(asked[0], 1)
    np.testing.assert_allclose(found.cov[0], wanted.cov, rtol=1e-9, atol=1e-12 * wanted.cov[0, 0])


GROWING = np.array([[0.236, 0.079, 0.080], [17.9, -0.295, -10.9], [0.174, 0.496, 0.159]])


@pytest.mark.parametrize("gap", [10.0, 25.0, 30.0])
def test_noise_beside_a_growing_direction_keeps_its_digits(gap):
    """V over the gap is of rank one but for 1e-12 of it: its root is made without it."""
    prior = Prior(np.zeros(3), np.diag([1e-2, 5e-2, 5e-3]))
    C, Q = [[0.5, 1.0, 0.5], [1.0, 0.5, 0.5]], np.diag([1.5e-7, 7.4e-7, 3.8e-7])
    model = LinearSDE(GROWING, Q=Q, R=np.diag([1e-6, 1e-8]), C=C, prior=prior)
    t, z = np.array([0.0, gap, gap]), np.array([[-0.8, 1.1], [0.2, -0.7], [0.1, 0.1]])
    wanted = ExactGaussian(model, t, z).law(gap)
    found = kalman_filter(model, t, z)
    np.testing.assert_allclose(found.cov[-1], wanted.cov, rtol=2e-7)
    last, _ = stream(model, t, z)
    np.testing.assert_allclose(last.cov[0], wanted.cov, rtol=2e-7)


@pytest.mark.parametrize("unit", [1.0, 86400.0])
def test_nor_does_the_unit_of_time_matter_there(unit):
    prior = Prior(np.zeros(3), np.diag([1e-2, 5e-2, 5e-3]))
    C, Q = [[0.5, 1.0, 0.5], [1.0, 0.5, 0.5]], np.diag([1.5e-7, 7.4e-7, 3.8e-7])
    model = LinearSDE(GROWING / unit, Q=Q / unit, R=np.diag([1e-6, 1e-8]), C=C, prior=prior)
    t = np.array([0.0, 25.0, 27.0, 52.0])
    found = model.discretiser.roots(np.diff(t * unit))[2]
    for k, gap in enumerate(np.diff(t)):
        exact = ExactGaussian(
            replace(model, A=GROWING, Q=Q), np.array([0.0, gap]), np.zeros((2, 2))
        )
        V = exact.steps[0][2]
        wanted = np.linalg.cholesky(np.array([[float(x.mid()) for x in row] for row in V]))
        np.testing.assert_allclose(np.abs(np.diag(found[k]))[:1], np.diag(wanted)[:1], rtol=1e-9)
        from flint import arb_mat

        pivots = np.diag(found[k]) ** 2
        minors = [float(arb_mat(V[:m, :m].tolist()).det().mid()) for m in (1, 2, 3)]
        exact_pivots = np.array([minors[0], minors[1] / minors[0], minors[2] / minors[1]])
        np.testing.assert_allclose(pivots, exact_pivots, rtol=1e-7)


# ------------------------------------------------------------- stamps near their own rounding


@pytest.mark.parametrize("gap", [1e-4, 3e-6])
@pytest.mark.parametrize("start", [2460000.5, 1.7e9])
def test_filter_stream_and_likelihood_count_the_same_gaps(start, gap):
    """Gaps near the rounding of the stamps are what their differences say."""
    model = LinearSDE(
        np.diag([1.0], 1),
        Q=np.diag([0.0, 1.0 / gap**3]),
        R=[[0.01]],
        C=[[1.0, 0.0]],
        prior="diffuse",
    )
    t = start + gap * np.arange(12.0)
    z = np.random.default_rng(3).standard_normal((12, 1))
    want = ExactGaussian(model, t, z).loglik()
    for name, way in WAYS.items():
        assert way(model, t, z) == pytest.approx(want, abs=1e-6), name


@pytest.mark.parametrize("angle", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("shrunk", [0.0, 1e-9])
def test_steps_on_the_unit_circle_are_not_stationary(angle, shrunk):
    """A lasting cycle whose basis rounds it a little inwards starts flat by default."""
    turn = (1 - shrunk) * np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    for seed in range(5):
        S = np.eye(3) + 0.4 * np.random.default_rng(seed).standard_normal((3, 3))
        F = S @ block_diag(turn, 0.5) @ np.linalg.inv(S)
        model = DiscreteModel(F, Q=S @ S.T, R=[[1.0]], H=[[1.0, 1.0, 1.0]])
        assert model.prior == ("stationary" if shrunk else "diffuse")


# ------------------------------------------------ observations far more precise than predictions

VAGUE = {
    "a sum": ([[1.0, 1.0]], [[1e-8]]),
    "correlated sensors": ([[1.0, 1.0], [1.0, -0.5]], [[1e-8, -9.9e-5], [-9.9e-5, 1.0]]),
    "an exact sensor beside another": ([[1.0, 2.0], [1.0, 0.5]], [[0.0, 0.0], [0.0, 1e-6]]),
}


@pytest.mark.parametrize("given", VAGUE)
@pytest.mark.parametrize("run", [kalman_filter, rts_smoother])
@pytest.mark.parametrize("batch", [False, True])
def test_precise_observations_of_vague_states_keep_their_digits(given, run, batch):
    """What is left of a state of sd 1e5 has an sd of 1, and of the sum that is seen one of 1e-4."""
    C, R = VAGUE[given]
    prior = Prior(np.array([0.5, -1.0]), np.array([[1.0, 3e4], [3e4, 1e10]]))
    Q = np.array([[1.0, -3e4], [-3e4, 1e10]])
    model = LinearSDE(np.diag([-1.0, 0.0]), Q=Q, R=R, C=C, prior=prior)
    t, rng = np.array([0.0, 0.0, 1.0, 2.5]), np.random.default_rng(0)
    z = rng.standard_normal((5, 4, len(C)))
    if given.startswith("an exact"):
        z[:, 1, 0] = np.nan  # not twice at a time
    z[np.arange(3), np.arange(3) + 1] = np.nan
    found = run(model, t, z if batch else z[-1])
    for path in range(5) if batch else [4]:
        exact = ExactGaussian(model, t, z[path])
        own = [np.asarray(x)[path] if batch else x for x in (found.mean, found.cov, found.loglik)]
        assert own[2] == pytest.approx(exact.loglik(), rel=1e-10)
        for k, at in enumerate(t):
            law = exact.law(at, k + 1 if run is kalman_filter else None)
            assert law_apart((own[0][k], own[1][k]), law, exact.stretch()) <= 1e-9


@MAGNIFIED
@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
@pytest.mark.parametrize("sd", [1e-2, 1e-1, 1.0])
def test_flat_directions_that_a_precise_sensor_sees_keep_their_digits(order, sd):
    """A slow oscillator in units of 1e-8 and two decays; what the second sensor, of sd 1e3, shows
    of the direction that the first one leaves is told from it by 1e-6 of its size."""
    A = block_diag([[0.0, 1e-8 / 60], [-4e8 / 60, -0.005]], -1 / 60, -5 / 60)
    Q = block_diag(0.0, 5e7, [[1.0, 1e2], [1e2, 1e4]])
    C, R = np.array([[0.5, 0.5, 1.0, -1.0], [-1e4, 0.0, -1e4, -1e4]]), np.diag([sd**2, 1e6])
    model = LinearSDE(A, Q=Q, R=R[order][:, order], C=C[order], prior="diffuse")
    t = np.array([-3.0, -1.0, 1.0, 1.0, 2.0])
    first = [471.3654, -6848045123.0, -13597678456.0, -13597678456.01, -16926543210.0]
    second = [-2967945.3, -3852528.1, -4763128.2, -4763925.4, -7453399.9]
    z = np.column_stack([first, second])[:, order]
    found, exact = kalman_filter(model, t, z), ExactGaussian(model, t, z)
    for k in range(1, 5):
        assert_law((found.mean[k], found.cov[k]), exact.law(t[k], k + 1), 3e-8)


# ------------------------------------------------ powers of time in another basis, over a long gap


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("prior", ["diffuse", Prior(np.zeros(3), np.eye(3))], ids=["flat", "known"])
@pytest.mark.parametrize(("integrals", "gap"), [(2, 400.0), (3, 40.0), (3, 100.0), (3, 400.0)])
def test_a_long_gap_in_another_basis(way, prior, integrals, gap):
    """Integrated noise and a decay, turned: powers of e^{At} cancel, V is nearly singular."""
    S = np.array([[1.0, 0.3, -0.2], [0.4, 1.0, 0.5], [-0.6, 0.2, 1.0]])
    A = block_diag(np.diag(np.ones(integrals - 1), 1), -0.5 * np.eye(3 - integrals))
    Q = S @ np.diag([0.0, 1.0, 1.0] if integrals == 2 else [0.0, 0.0, 1.0]) @ S.T
    model = LinearSDE(
        S @ A @ np.linalg.inv(S), Q=(Q + Q.T) / 2, R=[[1.0]], C=[[1.0, 0.0, 0.5]], prior=prior
    )
    t, z = np.array([0.0, 1.0, 2.0]), np.random.default_rng(0).standard_normal((6, 1))
    t = np.concatenate([t, t + 2.0 + gap])
    value, kinds = said(WAYS[way], model, t, z)
    assert kinds == set()
    assert value == pytest.approx(ExactGaussian(model, t, z).loglik(), abs=1e-7)


# ------------------------------------------------------------- stamps that blur a row


def slow(gap, start):
    """Four slow states of one block, seen at stamps close together and long after."""
    A = 0.01 * np.array(
        [
            [-0.4, 1.4, 0.5, -0.3],
            [0.4, 0.6, 1.7, -0.1],
            [0.2, -0.5, -0.2, 0.1],
            [-0.2, -0.2, -0.7, 0],
        ]
    )
    C = [[-1.0, -1.0, 0.0, -1.0]]
    model = LinearSDE(A, Q=1e-6 * np.eye(4), R=[[1e-8]], C=C, prior="diffuse")
    t = start + np.array([0.0, gap, 2 * gap, 2 * gap + 400.0])
    return model, t, np.array([[-4.4], [-4.5], [-4.6], [-32.0]])


def driven(rate, start):
    """An oscillator drives a cycle, and three numbers show three of the four directions."""
    A = rate * block_diag(0.05 * TURN, [[0.0, 0.017], [-0.067, -0.005]])
    A[0, 3] = 0.008 * rate
    Q, C = np.diag([100.0, 100.0, 0.0, 500.0]), [[-1.0, 0.0, 0.0, 1.0]]
    model = LinearSDE(A, Q=Q, R=[[1.0]], C=C, prior="diffuse")
    return model, start + np.array([0.0, 1.0, 2.0]), np.array([[1.7], [21.3], [67.7]])


@pytest.mark.parametrize("start", [0.0, 2460000.5, 1.7e9])
@pytest.mark.parametrize("size", [0, 1, 2])
@pytest.mark.parametrize("kind", [slow, driven])
def test_stamps_blur_a_row_and_not_what_all_rows_share(kind, size, start):
    """The rounding of a stamp moves the row at this stamp: two directions that it moves alike, and
    steps from one node to the next, are known as well as they were."""
    model, t, z = kind(((0.01, 0.02, 0.1) if kind is slow else (0.5, 1.0, 2.0))[size], start)
    ahead = t[-1] + 0.4
    exact = ExactGaussian(model, t, z, queries=[ahead])
    loglik = pytest.approx(exact.loglik(), abs=1e-6)
    assert_all_laws(model, t, z, exact, loglik, 1e-3)  # of sums of large numbers
    found = forecast(model, t, z, horizon_times=[ahead]).info
    assert np.isnan(found["observation_mean"]).all() == np.isnan(exact.law(ahead, H=model.C).mean)


@pytest.mark.parametrize("start", [0.0, 2460000.5, 1.7e9])
@pytest.mark.parametrize("unit", [0.1, 1 / 24, 60.0])
def test_the_shortest_period_is_unseen_at_stamps_that_are_rounded(unit, start):
    """sin(pi k) is 1e-6 in steps of 0.1 s of unix time: no number for the state behind it."""
    whole = brownian(0.01, 0.09) + seasonal(12, 6, process_var=0.001)
    model = LinearSDE(whole.A / unit, Q=whole.Q / unit, R=whole.R, C=whole.C, prior="diffuse")
    z = np.random.default_rng(0).standard_normal((60, 1))
    found = kalman_filter(model, start + unit * np.arange(60.0), z)
    wanted = kalman_filter(replace(whole, prior="diffuse"), np.arange(60.0), z)
    assert np.isinf(found.cov[-1, -1, -1])
    assert float(found.loglik) == pytest.approx(float(wanted.loglik), abs=1e-5)


@pytest.mark.filterwarnings("ignore:only rounding tells")
@pytest.mark.parametrize("ahead", [1e-3, 0.5, 1.5, 4.0])
def test_a_forecast_has_a_mean_where_it_has_a_variance(ahead):
    """Long after the start two values close together leave of a fast line what rounding hides."""
    A = np.zeros((4, 4))
    A[0, 1], A[1, 2] = 1e-6, 0.1
    Q, C = np.diag([0.0, 0.0, 1e6, 1e4]), 1e-3 * np.array([[-1.0, 0.0, 1.0, -1.0]])
    model = LinearSDE(A, Q=Q, R=[[1e-15]], C=C, prior="diffuse")
    t, z = np.array([0.0, 400.25, 400.2501]), np.array([[np.nan], [-0.8767], [-0.8834]])
    found = forecast(model, t, z, horizon_times=[t[-1] + ahead]).info
    mean, variance = found["observation_mean"][0, 0], found["observation_cov"][0, 0, 0]
    assert np.isnan(mean) == np.isinf(variance)
    exact = ExactGaussian(model, t, z, queries=[t[-1] + ahead])
    laws = [exact.with_rounding(r).law(t[-1] + ahead, H=model.C) for r in (1e-30, 1e-13)]
    assert any(np.isnan(law.mean[0]) == np.isnan(mean) for law in laws)


@pytest.mark.parametrize("last", [20.25, 25.25, 30.25])
@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_what_is_seen_of_a_direction_later_leaves_the_filter_before_as_it_was(last, rate):
    """What has decayed by e^-30 puts a direction's origin at 1e13, which its earlier means, of 1e5,
    need not follow: one row at state time 0 tells the first state of time 1 / (2 rate) exactly."""
    model = LinearSDE(
        [[-rate, rate], [0.0, -rate]],
        Q=np.diag([0.0, 2.0]),
        R=np.diag([1.0, 1e-4, 1e-2]),
        C=[[0.5, 1.0], [0.5, 0.0], [1.0, 0.5]],
        delay=0.25 / rate,
        prior="diffuse",
    )
    t = np.array([0.25, 0.5, 0.25 + last]) / rate
    z = np.full((3, 3), np.nan)
    z[0, 2], z[2] = 387832.97, [1.69, 0.47, 1.59]
    found = kalman_filter(model, t, z)
    exact = ExactGaussian(model, t, z)
    for k, at in enumerate(t):
        assert_law((found.mean[k], found.cov[k]), exact.law(at, k + 1), 1e-9)
