"""Dense AFA leaves open what the flat Kalman filter and smoother leave open."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from afafilter import LinearSDE, adaptive_filter, adaptive_smoother, kalman_filter, rts_smoother
from tests.flat_cases import SMALL, cases

PAIRS = ((adaptive_filter, kalman_filter), (adaptive_smoother, rts_smoother))


def assert_same_open(model, t, z):
    for estimator, peer in PAIRS:
        want = peer(model, t, z)
        found = estimator(model, t, z, correlation="exact", method="dense")
        np.testing.assert_array_equal(np.isnan(found.mean), np.isnan(want.mean))
        known = np.isfinite(want.std)
        off = np.abs(found.mean - want.mean)[known]
        assert (off <= 1e-5 * want.std[known] + 1e-8 * np.abs(want.mean[known])).all()


@settings(SMALL, max_examples=25)
@given(cases())
def test_on_all_models(case):
    assert_same_open(*case)


@pytest.mark.parametrize("late", [12.0, 30.0])
def test_states_that_differ_by_what_has_decayed(late):
    model = LinearSDE(
        np.diag([-0.5, -1.0, 0.0]), Q=np.diag([0.0, 1.0, 0.0]), R=[[1e-4]], C=[[1.0, 1.0, 1.0]],
        prior="diffuse",
    )  # fmt: skip
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
        -np.diag(rates), Q=np.eye(3), R=np.eye(2), C=[[0.0, 1.0, 1.0], [0.0, 1.0, 2.0]],
        prior="diffuse",
    )  # fmt: skip
    t, z = np.array([0.0, 0.05, 0.12]), np.random.default_rng(0).standard_normal((3, 2))
    for estimator, _ in PAIRS:
        found = estimator(model, t, z, correlation=correlation, method="dense")
        np.testing.assert_array_equal(np.isnan(found.mean), [[True, False, False]] * 3)
        assert (np.abs(found.mean[:, 1:]) < 20).all()
