"""Answers that are taken again with other last digits: wrong ones are said, ordinary ones not."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import block_diag

from afafilter import (
    DiscreteModel,
    KalmanStream,
    LinearSDE,
    Prior,
    brownian,
    constant_velocity,
    damped_oscillator,
    forecast,
    kalman_filter,
    loglik,
    matern,
    ornstein_uhlenbeck,
    rts_smoother,
    seasonal,
    spiral,
)
from afafilter._base import doubts
from afafilter._base.doubts import BarelyDetermined, LostDigits
from afafilter.kalman import stream as module
from tests.exact_oracle import ExactGaussian
from tests.fuzz.truth import law_apart

TURN = np.array([[1.0, 0.3, -0.2], [0.4, 1.0, 0.5], [-0.6, 0.2, 1.0]])
GRIDS = {
    "days": np.arange(40.0),
    "irregular": np.sort(np.random.default_rng(0).uniform(0.0, 200.0, 40)),
    "repeated": np.repeat(np.arange(20.0), 2),
    "unix": 1.7e9 + 10.0 * np.arange(40),
}
PRESETS = {
    "walk": lambda prior: brownian(0.01, 0.09, prior=prior),
    "ou": lambda prior: ornstein_uhlenbeck(prior=prior),
    "matern": lambda prior: matern(prior=prior),
    "velocity": lambda prior: constant_velocity(process_var=1.0, obs_var=0.1, prior=prior),
    "oscillator": lambda prior: damped_oscillator(prior=prior),
    "spiral": lambda prior: spiral(prior=prior),
    "season": lambda prior: brownian(0.01, 0.09, prior=prior) + seasonal(7.0, 2, process_var=0.01),
}


def integrals(gap, prior):
    """Twice integrated noise in another basis, before and after a long gap."""
    A, Q = np.diag(np.ones(2), 1), TURN @ np.diag([0.0, 0.0, 1.0]) @ TURN.T
    A = TURN @ A @ np.linalg.inv(TURN)
    C = [[1.0, 0.0, 0.5]]
    model = LinearSDE(A, Q=(Q + Q.T) / 2, R=[[1.0]], C=C, prior=prior)
    t = np.array([0.0, 1.0, 2.0])
    z = np.random.default_rng(0).standard_normal((6, 1))
    return model, np.concatenate([t, t + 2.0 + gap]), z


def precise(sd):
    """After a vague prediction a sensor of this sd, and another one that sees the difference."""
    A = block_diag([[0.0, 1.0], [0.0, 0.0]], 0.0)
    C, R = [[1.0, 0.0, -1.0], [1.0, 0.3, 0.0]], np.diag([sd**2, 1e-2])
    prior = Prior(np.array([0.3, -0.7, 0.1]), 1e4 * np.eye(3))
    model = LinearSDE(A, Q=np.diag([0.0, 1e3, 1e2]), R=R, C=C, prior=prior)
    t = np.array([0.0, 400.0, 401.0, 401.5])
    z = np.array([[0.1, 0.3], [4e5, -4e5], [4.1e5, np.nan], [4.2e5, -3.7e5]])
    return model, t, z


def correlated(coupling):
    """Sensors of which two have noise that nearly cancels, of large states that come of a third."""
    A = np.array([[-0.0183, 0.0025, 1253.0], [-0.0023, -0.0169, 23344.0], [0.0, 0.0, -0.0099]])
    Q = np.diag([7e6, 1.6e9, 1.1e-5])
    A[:2, 2] *= coupling
    Q[:2, :2] *= coupling**2
    noise = np.array([[1e-6, -9.99e-7, 0.0], [-9.99e-7, 1e-6, 0.0], [0.0, 0.0, 1e-4]])
    C = [[-1.0, -1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 0.5, 0.0]]
    model = LinearSDE(A, Q=Q, R=noise, C=C, drift=[-0.144, -0.0399, 0.0878])
    return model, np.zeros(1), np.array([[-0.0075, 0.864, 1.516]])


def small_and_flat(scale):
    """A sensor without noise, a law of sd 1e-7 scale, and a flat direction, in fast oscillation."""
    A = [[63.12770059112959, 74.15509604927561], [-291.02731414348705, -82.32770059112958]]
    sd = scale * np.array([2.577e-7, 1.227e-7])
    flat = np.array([[-0.429950452733878], [0.9028524841821801]])
    prior = Prior([-5.15e-6, -2.45e-6], np.outer(sd, sd), None, flat)
    Q = np.outer([-1.2356e-8, 9.1699e-8], [-1.2356e-8, 9.1699e-8])
    C, delay = [[6250.0, 12500.0]], 0.00390625
    model = LinearSDE(A, Q=Q, R=[[0.0]], C=C, delay=delay, prior=prior)
    return model, np.zeros(1), np.array([[191.0120340759853]])


def decayed(gap):
    """A constant beside two states that decay, first seen when they are e^-gap of themselves."""
    A = [[-1.0, 1.0, 0.5], [0.0, -1.0, 0.0], [0.0, 0.0, 0.0]]
    C = [[0.0, -1.0, -1.0], [-1.0, 1.0, 0.0]]
    model = LinearSDE(A, Q=np.diag([0.0, 2.0, 0.0]), R=np.diag([1.0, 0.01]), C=C, prior="diffuse")
    z = np.array([[np.nan, np.nan], [np.nan, -141.0], [-281.0, -140.1], [np.nan, -140.6]])
    return model, np.array([0.0, gap, 2 * gap, 2 * gap + 0.1]), z


def mixed_units(start):
    """States in units of 1e-6, 1 and 1: stamps near 1.7e9 hold 2e-7 of a time."""
    A = [[0.4, 2.4e-7, -3.3e-8], [7e4, 0.038, -0.094], [-6.3e5, 13.45, -0.237]]
    root = np.array([[4e-4], [30.0], [210.0]])
    model = LinearSDE(A, Q=root @ root.T, R=[[1e-4]], C=[[0.5, 0.0, -1.0]], prior="diffuse")
    return model, start + np.array([0.0, 11.0]), np.array([[-0.714], [-91132.0]])


def rotated(gap):
    """Four states in a basis of which only their decay tells two apart."""
    S = np.eye(4) + 0.4 * np.random.default_rng(3).standard_normal((4, 4))
    A = block_diag(np.diag([1.0], 1), -0.5, -1.5)
    A, Q = S @ A @ np.linalg.inv(S), S @ np.diag([0.0, 1.0, 1.0, 0.0]) @ S.T
    model = LinearSDE(A, Q=(Q + Q.T) / 2, R=[[1e-6]], C=[[0.0, 0.0, 0.5, 1.0]], prior="diffuse")
    t = np.array([0.0, 0.0, 12.0, 12.0 + gap, 12.4 + gap, 12.4 + gap])
    z = np.array([[0.842], [0.8425], [-89.5], [1.88e6], [1.8877e6], [1.8877e6]])
    return model, t, z


def stiff(gap):
    """Two states that decay, one of them at once, and a constant, seen by two sensors."""
    C, noise = [[0.5, 0.5, 1.0], [1.0, 1.0, 1.0]], [[0.01, -0.000999], [-0.000999, 1e-4]]
    A, Q = np.diag([-1000.0, -1.0, 0.0]), np.diag([50.0, 1.0, 0.0])
    model = LinearSDE(A, Q=Q, R=noise, C=C, prior="diffuse")
    z = np.array([[0.438, 0.0897], [0.993, 0.989], [1.44, 1.62]])
    return model, np.array([0.0, gap, gap + 14.0]), z


def streamed(model, t, z):
    """The estimates of a stream as those of a filter."""
    stream = KalmanStream(model)
    found = [stream.update(t[k], z[k]) for k in range(len(t))]
    mean, cov = (np.concatenate([getattr(x, name) for x in found]) for name in ("mean", "cov"))
    return replace(found[-1], t=t, mean=mean, cov=cov)


def looked_at(monkeypatch):
    """Take every answer again."""
    for name in ("UNSURE", "HIDES", "MAGNIFIED"):
        monkeypatch.setattr(doubts, name, -1.0)


@pytest.mark.parametrize("prior", ["diffuse", "known"])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", PRESETS)
def test_ordinary_models_do_not_move(monkeypatch, name, grid, prior):
    """No warning (an error here), although all is looked at."""
    looked_at(monkeypatch)
    model, t = PRESETS[name]("diffuse"), GRIDS[grid]
    if prior == "known":
        model = replace(model, prior=Prior(np.zeros(model.dim), 10.0 * np.eye(model.dim)))
    z = 5.0 + np.random.default_rng(1).standard_normal((3, len(t), model.obs_dim))
    z[1, 4:7] = np.nan
    kalman_filter(model, t, z, query_times=np.sort(np.append(t, t[:5] + 0.3)))
    rts_smoother(model, t, z, weight="huber")
    loglik(model, t, z, gradient=True)
    forecast(model, t, z, horizon_times=[t[-1] + 3.0])
    streamed(model, t, z[1])


def test_ordinary_steps_do_not_move(monkeypatch):
    """An ARMA model without measurement noise; a level and a slope."""
    looked_at(monkeypatch)
    z = np.random.default_rng(2).standard_normal(60)
    arma = DiscreteModel(
        [[0.6, 1.0], [0.0, 0.0]], H=[[1.0, 0.0]], Q=np.outer([1.0, 0.4], [1.0, 0.4]), R=[[0.0]]
    )
    trend = DiscreteModel(
        [[1.0, 1.0], [0.0, 1.0]],
        H=[[1.0, 0.0]],
        Q=np.diag([0.1, 0.01]),
        R=[[1.0]],
        prior="diffuse",
    )
    for model in (arma, trend):
        kalman_filter(model, z)
        rts_smoother(model, z)
        loglik(model, None, z, gradient=True)


@pytest.mark.parametrize("prior", ["diffuse", Prior(np.zeros(3), np.eye(3))], ids=["flat", "known"])
@pytest.mark.parametrize(("gap", "lost"), [(400.0, False), (8000.0, True), (12000.0, True)])
def test_a_gap_that_leaves_a_gradient_few_digits_is_said(gap, lost, prior):
    """A gap of 8000 costs three more digits than one of 400, for the same numbers elsewhere."""
    model, t, z = integrals(gap, prior)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value, _ = loglik(model, t, z, gradient=True)
    assert {w.category for w in caught} == ({LostDigits} if lost else set())
    if not lost:
        assert value == pytest.approx(ExactGaussian(model, t, z).loglik(), abs=1e-7)


@pytest.mark.parametrize(("noise", "said"), [(0.0, {LostDigits}), (1.0, set()), (1e6, set())])
def test_a_slope_that_is_not_finite_is_said(noise, said):
    """Exact measurements of what no noise drives, two at one time: rounding makes a likelihood."""
    model = LinearSDE([[-2.0]], Q=[[0.0]], R=[[noise]], C=[[-1e6]], prior="diffuse")
    t = [-3.0, -2.999869754774623, -2.822501597377478, -2.822501597377478, 6.22225671710196]
    z = [-390279.18021080107, np.nan, -273654.27085796784, -273654.27085796784, -3.81e-3]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value, slopes = loglik(model, t, z, gradient=True)
    finite = np.isfinite(value) and all(np.isfinite(slope).all() for slope in slopes.values())
    assert finite == (not said)
    assert {w.category for w in caught} == said


@pytest.mark.parametrize("run", [kalman_filter, rts_smoother, streamed])
@pytest.mark.parametrize("sd", [1e-1, 1e-4, 1e-6, 1e-7])
def test_right_or_said(run, sd):
    """An ordinary sensor is not said."""
    assert_right_or_said(run, precise(sd), quiet=sd == 1e-1)


@pytest.mark.parametrize("run", [kalman_filter, streamed])
@pytest.mark.parametrize("coupling", [1e-4, 0.1, 1.0, 3.0])
def test_right_or_said_of_correlated_noise(run, coupling):
    assert_right_or_said(run, correlated(coupling), quiet=coupling == 1e-4)


@pytest.mark.parametrize("run", [kalman_filter, streamed])
@pytest.mark.parametrize("scale", [1.0, 1e2, 1e6])
def test_right_or_said_of_a_flat_start_without_noise(run, scale):
    assert_right_or_said(run, small_and_flat(scale), quiet=scale == 1e6)


@pytest.mark.parametrize("run", [kalman_filter, rts_smoother, streamed])
@pytest.mark.parametrize(
    ("case", "quiet"),
    [
        (decayed(3.0), True),
        (decayed(20.0), True),
        (decayed(30.0), False),
        (mixed_units(0.0), True),
        (mixed_units(1e6), True),
        (mixed_units(1.7e9), False),
        (stiff(5.0), True),
        (stiff(20.0), True),
        (stiff(50.0), False),
        (rotated(10.0), True),
        (rotated(650.0), False),
    ],
    ids=lambda x: f"{len(x[1])} times to {x[1][-1]:g}" if isinstance(x, tuple) else "",
)
def test_what_only_rounding_tells_from_open_directions_is_said(run, case, quiet):
    assert_right_or_said(run, case, quiet)


def assert_right_or_said(run, case, quiet=False):
    """By the exact law in ball arithmetic: off by 1e-6 of a standard deviation, or a warning."""
    model, t, z = case
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = run(model, t, z)
    exact = ExactGaussian(model, t, z)
    off = max(
        law_apart(
            (found.mean[k], found.cov[k]),
            exact.law(at, len(t) if run is rts_smoother else k + 1),
            exact.stretch(),
        )
        for k, at in enumerate(t)
    )
    assert off <= 1e-6 or any(issubclass(w.category, BarelyDetermined) for w in caught)
    assert not (quiet and caught)


def test_a_stream_looks_at_data_far_beyond_their_noise():
    """A known state that grows to 1e12 standard deviations of its sensors, as one call says."""
    model = LinearSDE(
        [[0.3]], Q=[[1e-8]], R=np.diag([1e-8, 1e-2]), C=[[1.0], [0.5]], prior=Prior([1.0], [[1.0]])
    )
    t = np.array([0.0, 1.0, 100.0, 101.0])
    z = np.exp(0.3 * t)[:, None] * [1.0, 0.5]
    for run in (kalman_filter, streamed):
        for rows, said in ((4, [LostDigits]), (2, [])):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                run(model, t[:rows], z[:rows])
            assert [w.category for w in caught] == said


def test_a_stream_looks_where_it_may_go_wrong():
    """One warning at most, and none where the precise sensor is silent."""
    model, t, z = precise(1e-6)
    for seen, times in ((True, 1), (False, 0)):
        data = z if seen else np.where(np.arange(2) == 0, np.nan, z)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            streamed(model, t, data)
        assert [w.category for w in caught] == [LostDigits] * times


def test_a_flat_start_that_stays_open_is_accompanied_for_a_while(monkeypatch):
    """Two levels of which only the sum is seen."""
    monkeypatch.setattr(module, "ACCOMPANIED", 5)
    model = LinearSDE(np.zeros((2, 2)), Q=np.eye(2), R=[[1.0]], C=[[1.0, 1.0]], prior="diffuse")
    stream = KalmanStream(model)
    for k in range(5):
        assert stream._beside is not None
        stream.update(float(k), 1.0 + k)
    assert stream._beside is None


def test_slopes_lose_as_many_digits_as_the_variance_of_a_prediction():
    """A state seen by a sum, a repeated stamp and a short step: 2e-10 is left of terms u x = 13."""
    A, Q = [[-0.7, 0.4], [0.02, -0.01]], [[2000.0, 300.0], [300.0, 650.0]]
    t = np.array([0.0, 0.25, 2.25, 2.25, 2.2501, 4.25])
    z = 1e5 * np.array([34.0, 28.0, 15.0, 15.00005, 16.1, 0.0])[:, None]
    model = LinearSDE(A, Q=Q, R=[[100.0]], C=[[1e5, 5e4]], prior="diffuse")
    with pytest.warns(LostDigits):
        loglik(model, t, z, gradient=True)
    walk = brownian(2000.0, 1e-8, prior="diffuse")
    for calm, shown in ((replace(model, R=[[1e6]]), z), (walk, z / 1e5)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loglik(calm, t, shown, gradient=True)
            loglik(model, t, z)


@pytest.mark.parametrize("shown", [[1.0, 0.0], [0.0, 1.0]])
@pytest.mark.parametrize("gap", [19.5, 20.0, 20.2])
def test_a_direction_that_a_larger_one_covers_is_no_alarm(gap, shown):
    """A level beside what has grown by e^gap: the sum tells it to 1e-8 of that, one alone tells."""
    C = np.array([[1.0, 1.0], shown])
    model = LinearSDE(np.diag([1.0, 0.0]), Q=np.diag([0.1, 0.0]), C=C, R=np.eye(2), prior="diffuse")
    t = gap + np.array([-gap, 0.0, 0.5, 1.0, 1.5])
    z = np.random.default_rng(0).standard_normal((5, 2))
    z[0] = np.nan
    exact = ExactGaussian(model, t, z)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for run in (kalman_filter, streamed):
            run(model, t, z)
        found = rts_smoother(model, t, z)
        assert loglik(model, t, z, gradient=True)[0] == pytest.approx(exact.loglik(), abs=1e-8)
    for k in range(5):
        assert law_apart((found.mean[k], found.cov[k]), exact.law(t[k]), 1.0) <= 1e-6
