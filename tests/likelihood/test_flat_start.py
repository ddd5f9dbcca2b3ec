"""At a flat start the likelihood that is maximised is the filter's, whatever is determined."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from flint import arb
from hypothesis import given

from afafilter import LinearSDE, brownian, kalman_filter, seasonal
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


def test_slopes_by_noise_where_the_data_hardly_determine_the_start():
    """Eight states, one sensor: the exact derivative is a central difference in 400-bit balls."""
    d, step, rng = 8, arb(2) ** -100, np.random.default_rng(8)
    A = rng.normal(size=(d, d)) / np.sqrt(d) - 1.2 * np.eye(d)
    C, L = rng.normal(size=(1, d)), rng.normal(size=(d, d))
    model = LinearSDE(A, Q=L @ L.T / d, C=C, R=[[0.3]], prior="diffuse")
    t, z = np.cumsum(rng.uniform(0.05, 0.3, 14)), rng.normal(size=(14, 1))
    slopes = evaluate(System.of(model), prepare(t, z, 1, None))[1]

    def exact(sign):
        def change(name, values):
            balls = exact_balls(name, values)
            return balls + sign * step if name == "R" else balls

        return ExactGaussian(model, t, z, change=change).loglik_ball()

    want = float(((exact(1) - exact(-1)) / (2 * step)).mid())
    assert slopes.R[0, 0] == pytest.approx(want, rel=1e-6)
