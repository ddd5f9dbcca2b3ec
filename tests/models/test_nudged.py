"""A model with other last digits, in other units, gives the same answer, told back."""

from __future__ import annotations

import numpy as np
import pytest

from afafilter import DiscreteModel, LinearSDE, Prior, kalman_filter
from afafilter.models.nudged import EPS, moves, nats, nudged

A = np.array([[-0.3, 1.0], [-0.2, -0.5]])
LAWS = {
    "stationary": "stationary",
    "flat": "diffuse",
    "proper": Prior([1.0, -2.0], [[2.0, 0.3], [0.3, 1.0]]),
    "flat along a line": Prior([1.0, -2.0], [[2.0, 0.3], [0.3, 1.0]], None, [[1.0], [3.0]]),
}
T = np.array([0.0, 1.0, 1.5, 4.0])
Z = np.array([[0.3], [1.2], [np.nan], [-0.4]])


def model(kind, prior):
    R, shown = [[0.1]], [[1.0, 2.0]]
    if kind == "discrete":
        Q = np.broadcast_to(0.3 * np.eye(2), (4, 2, 2))
        F, b = 0.5 * np.eye(2) + A, [0.1, 0.2]
        varying = ("Q",) if prior != "stationary" else ()
        Q = Q if varying else Q[0]
        return DiscreteModel(F, Q=Q, H=shown, R=R, b=b, d=[0.5], prior=prior, time_varying=varying)
    return LinearSDE(
        A, Q=np.diag([0.0, 1.0]), R=R, C=shown, drift=[0.1, 0.2], offset=[0.5], prior=prior
    )


@pytest.mark.parametrize("units", [True, False])
@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_it_is_the_same_model_but_for_roundings(kind, name, units):
    mine = model(kind, LAWS[name])
    R = np.broadcast_to(mine.R, (4, 1, 1))
    other = nudged(mine, R, 1, units=units)
    t = np.arange(4.0) if kind == "discrete" else T
    here = kalman_filter(mine, t, Z, obs_cov=R)
    there = kalman_filter(other.model, t, other.row_unit * Z, obs_cov=other.R)
    told = other.told(there.mean[0], there.cov[0])
    assert moves(here.mean[0], here.cov[0], told).max() < 1e-12
    np.testing.assert_array_equal(np.append(other.unit, other.row_unit) != 1, units)
    if not units:
        for field in ("A", "C") if kind == "continuous" else ("F", "H"):
            before = np.asarray(getattr(mine, field))
            apart = np.abs(getattr(other.model, field) - before)
            assert apart.max() > 0
            assert (apart <= 2 * EPS * np.abs(before)).all()


def test_moves_count_standard_deviations_and_gaps():
    mean, cov = np.array([[1.0, np.nan], [3.0, 4.0]]), np.diag([4.0, 9.0])
    cov = np.stack([np.diag([4.0, np.inf]), cov])
    other = np.array([[2.0, np.nan], [3.0, 7.0]]), cov
    np.testing.assert_allclose(moves(mean, cov, other), [0.5, 1.0])
    np.testing.assert_allclose(moves(mean, cov, other, np.array([1.0, 4.0])), [0.5, 0.25])
    other = mean, cov + np.diag([0.4, 0.9])
    np.testing.assert_allclose(moves(mean, cov, other), [0.1, 0.1])
    other = np.array([[2.0, 5.0], [np.nan, 4.0]]), cov
    np.testing.assert_array_equal(moves(mean, cov, other), [np.inf, np.inf])


def test_differences_of_large_numbers_move_by_their_rounding():
    law = np.array([1e-3]), np.array([[1e-18]])
    other = law[0] + 1e-10, law[1]
    assert moves(*law, other) > 1e-3
    assert moves(*law, other, 1, np.array([1e6])) < 1e-8


def test_log_likelihoods_move_beside_the_unit_of_flat_directions():
    here = np.array([-3.0, -3.0])
    there = here + np.array([2 * np.log(1.5) + 1e-4, -1e-4])
    np.testing.assert_allclose(nats(here, there, 1.5), 1e-4, rtol=1e-6)
    np.testing.assert_allclose(nats(here, there, 1.5, np.array([1.0, 10.0])), [1e-4, 1e-6], 1e-4)


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_alike_data_and_what_short_numbers_show_stay(kind):
    mine = model(kind, "diffuse")
    other = nudged(mine, mine.R, 1, alike=True)
    unit = other.unit[0]
    assert other.row_unit == 1.0
    assert (other.unit == unit).all()
    shown = other.model.C if kind == "continuous" else other.model.H
    np.testing.assert_array_equal(shown, [[1.0 / unit, 2.0 / unit]])
    t = np.arange(4.0) if kind == "discrete" else T
    here, there = kalman_filter(mine, t, Z).loglik, kalman_filter(other.model, t, Z).loglik
    assert there - here == pytest.approx(2 * np.log(unit), abs=1e-12)
