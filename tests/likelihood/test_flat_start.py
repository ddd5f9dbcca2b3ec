"""At a flat start the likelihood that is maximised is the filter's, whatever is determined."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from flint import arb
from hypothesis import given
from scipy.linalg import block_diag

from afafilter import LinearSDE, Prior, brownian, kalman_filter, seasonal
from afafilter.likelihood.chain import System
from afafilter.likelihood.data import prepare
from afafilter.likelihood.loglik import evaluate
from tests.exact_oracle import ExactGaussian, exact_balls
from tests.flat_cases import SMALL, cases, two_sensors


def loglik(model, t, z):
    return evaluate(System.of(model), prepare(t, z, model.obs_dim, None))[0]


def assert_the_filters(model, t, z):
    want = float(kalman_filter(model, t, z).loglik)
    assert loglik(model, t, z) == pytest.approx(want, abs=1e-8, rel=1e-9)


@SMALL
@given(cases())
def test_on_all_models(case):
    assert_the_filters(*case)


@pytest.mark.parametrize(
    ("gap", "sds"), [(1, (1e-5, 1e-2)), (16, (1e-2, 1e-5)), (18, (1e-2, 1e-5)), (16, (1e-3, 1e-2))]
)
def test_a_vague_sensor_beside_a_precise_one(gap, sds):
    t, rng = np.array([0.0, gap, gap + 1]), np.random.default_rng(1)
    path = 5e6 + t + np.array([0.0, 40.0, 43.0])
    assert_the_filters(two_sensors(sds), t, path[:, None] + sds * rng.standard_normal((3, 2)))


def test_the_sine_of_the_shortest_period_is_never_seen():
    model = replace(brownian(0.01, 0.09) + seasonal(12, 6, process_var=0.001), prior="diffuse")
    t, z = np.arange(60.0), np.random.default_rng(0).standard_normal((60, 1))
    assert_the_filters(model, t, z)


@pytest.mark.parametrize("late", [8.0, 30.0, 90.0])
def test_a_direction_seen_after_it_has_decayed(late):
    model = LinearSDE(np.diag([-1.0, -0.2]), Q=np.eye(2), R=[[0.1]], C=[[1, 0.5]], prior="diffuse")
    t = np.array([0.0, late, late + 0.5, late + 2.0])
    assert_the_filters(model, t, np.array([[np.nan], [0.4], [0.7], [-0.2]]))


@pytest.mark.parametrize(("d", "seed", "T"), [(8, 8, 14), (6, 3, 12)])
def test_slopes_where_the_data_hardly_determine_the_start(d, seed, T):
    """Many states, one sensor: the exact derivative is a central difference in 400-bit balls."""
    step, rng = arb(2) ** -100, np.random.default_rng(seed)
    A = rng.normal(size=(d, d)) / np.sqrt(d) - 1.2 * np.eye(d)
    C, L = rng.normal(size=(1, d)), rng.normal(size=(d, d))
    model = LinearSDE(A, Q=L @ L.T / d, C=C, R=[[0.3]], prior="diffuse")
    t, z = np.cumsum(rng.uniform(0.05, 0.3, T)), rng.normal(size=(T, 1))
    slopes = evaluate(System.of(model), prepare(t, z, 1, None))[1]
    for put, field in (("R", "R"), ("A", "A"), ("H", "C")):
        E = np.sign(rng.normal(size=np.shape(getattr(model, field))))

        def exact(sign, put=put, E=E):
            def change(name, values):
                balls = exact_balls(name, values)
                return balls + exact_balls("", E) * step * sign if name == put else balls

            return ExactGaussian(model, t, z, change=change).loglik_ball()

        want = float(((exact(1) - exact(-1)) / (2 * step)).mid())
        slope = getattr(slopes, field)
        size = np.linalg.norm(slope) * np.linalg.norm(E)
        assert (slope * E).sum() == pytest.approx(want, abs=1e-7 * size), field


@pytest.mark.parametrize("noise", [1e-6, 1e-2])
@pytest.mark.parametrize("flat", [None, [[0.0], [1.0]]])
def test_a_vague_prior_at_an_earlier_time_costs_no_digits(noise, flat):
    """Prior of variance 1e10, carried over a gap, and two precise sensors."""
    prior = Prior([1.0, 2.0], 1e10 * np.eye(2), -3.0, flat)
    model = replace(two_sensors([noise**0.5] * 2), prior=prior)
    t = np.array([0.0, 1.0, 1.0, 2.5])
    z = 3e4 + np.random.default_rng(2).normal(size=(4, 2))
    z[1, 0] = np.nan
    assert loglik(model, t, z) == pytest.approx(ExactGaussian(model, t, z).loglik(), rel=1e-8)
    assert_the_filters(model, t, z)


def test_what_is_seen_twice_at_once_determines_nothing_new():
    """Whole turns over long gaps and equal stamps: the sine of a half-turn cycle is never seen."""
    model = LinearSDE(
        block_diag(np.diag([1.0, 1.0], 1), [[0.0, -np.pi], [np.pi, 0.0]]),
        Q=np.diag([0.0, 0.0, 1.0, 0.1, 0.1]),
        R=[[1e-8]],
        C=[[1.0, 0.5, 0.5, 1.0, 0.0]],
        prior="diffuse",
    )
    t = 2460000.5 + np.array([0.0, 30.0, 430.0, 430.0, 430.0, 431.0])
    z = np.array([[1.0], [-2.7e5], [-6e7], [np.nan], [-6e7], [-6.1e7]])
    exact = ExactGaussian(model, t, z)
    assert np.isnan(exact.law(t[-1]).mean).any()
    assert loglik(model, t, z) == pytest.approx(exact.loglik(), rel=1e-6)
    assert_the_filters(model, t, z)
