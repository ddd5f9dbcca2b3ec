"""Sizes by which rank decisions are made: right in any units, and against exact transitions."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy.linalg import block_diag

from afafilter.linalg.discretiser import transition
from afafilter.linalg.subspaces import ROUNDING, carry, component_sizes, unobservable

TURN = np.array([[0.0, -np.pi], [np.pi, 0.0]])


def exponential(A, tau):
    """e^{A tau}."""
    return transition(A, np.zeros_like(A), np.zeros(len(A)), tau)[0]


def moved(A, tau, directions, stamp=0.0):
    """Directions (q, d) after tau, and whether their entries (q, d) count as zero."""
    directions = np.asarray(directions, dtype=float)[None]
    found, rounding = carry(
        exponential(A, tau)[None],
        [tau],
        [stamp],
        component_sizes(A),
        directions,
        ROUNDING * np.abs(directions),
    )
    return found[0], np.abs(found[0]) <= rounding[0]


def test_blocks_are_what_drives_each_other():
    A = block_diag(TURN, [[0.0, 1.0], [0.0, 0.0]])
    A[2, 0] = 3.0
    sizes = component_sizes(A)
    assert sizes.block[0] == sizes.block[1]
    assert len(set(sizes.block)) == 3
    np.testing.assert_allclose(sizes.rate, [np.pi, np.pi, 0.0, 0.0])
    loop = np.zeros((4, 4))
    loop[[1, 2, 3, 0], [0, 1, 2, 3]] = 1.0
    assert len(set(component_sizes(loop).block)) == 1
    loop[0, 3] = 0.0
    assert len(set(component_sizes(loop).block)) == 4
    assert not component_sizes(loop + loop.T, given=True).rate.any()


@pytest.mark.parametrize("units", [(1.0, 1.0), (1e-9, 1e6), (2.0**14, 2.0**-15)])
@pytest.mark.parametrize("turns", [1, 2, 7, 1000])
def test_the_sine_of_a_half_turn_is_zero(turns, units):
    S, back = np.diag(units), np.diag(1 / np.asarray(units))
    A = S @ TURN @ back
    found, zero = moved(A, float(turns), np.diag(units))
    np.testing.assert_array_equal(zero, ~np.eye(2, dtype=bool))
    _, zero = moved(A, turns + 1e-9, np.diag(units))
    assert not zero.any()
    np.testing.assert_allclose(np.diag(found), np.array(units) * (-1) ** turns, rtol=1e-9)


def test_a_small_entry_outside_a_loop_is_not_zero():
    """A velocity in light years per nanosecond moves a position in them, however little."""
    A = np.array([[0.0, 1e-30], [0.0, 0.0]])
    found, zero = moved(A, 1.0, np.eye(2))
    assert found[1, 0] == 1e-30
    np.testing.assert_array_equal(zero, [[False, True], [False, False]])


def test_stamps_round_too():
    """A time stamp of 1.7e9 s is right to 2e-7 s: a leak of less is none."""
    A, gap = 10 * TURN, 0.1 + 1e-7
    _, zero = moved(A, gap, np.eye(2), stamp=1.7e9)
    np.testing.assert_array_equal(zero, ~np.eye(2, dtype=bool))
    _, zero = moved(A, gap, np.eye(2))
    assert not zero.any()
    line = np.array([[0.0, 1.0], [0.0, 0.0]])
    _, zero = moved(line, 1e-6, np.eye(2), stamp=1.7e9)
    assert not zero[1, 0]  # a lag that stamps resolve is a lag


def test_bounds_hold_against_exact_transitions():
    """True zeros of random systems are found, and bounds are above true errors."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        A = rng.standard_normal((3, 3)) - 1.5 * np.eye(3)
        tau = float(rng.choice([0.1, 1.0, 5.0]))
        n = rng.standard_normal((1, 3))
        found, rounding = carry(
            exponential(A, tau)[None], [tau], [0.0], component_sizes(A), n[None], 0 * n[None]
        )
        with mpmath.workdps(40):
            exact = mpmath.expm(mpmath.matrix(A.tolist()) * tau) * mpmath.matrix(n[0].tolist())
            error = [abs(float(exact[i] - mpmath.mpf(found[0, 0, i]))) for i in range(3)]
        assert (np.array(error) <= rounding[0, 0]).all()
        assert (rounding[0, 0] < 1e-11 * np.abs(n).max()).all()


def test_what_observations_leave_open():
    """Query by query: none yet, one, both; a state that only decays; one that is never seen."""
    A = block_diag([[0.0, 1.0], [0.0, 0.0]], [[-2.0]])
    sizes = component_sizes(A)
    stamps, seen = np.array([0.0, 1.0, 1.0, 3.0]), np.array([[True], [False], [True], [True]])
    C = np.array([[1.0, 0.0, 0.0]])
    times = np.array([-1.0, 0.0, 0.5, 1.0, 1.0, 4.0])
    found = unobservable(A, sizes, C, stamps, seen, times, np.array([0, 1, 1, 2, 3, 4]))
    some = [True, True, True], [False, True, True], [True, True, True], [True, True, True]
    np.testing.assert_array_equal(
        found.components, [*some, [False, False, True], [False, False, True]]
    )
    whole = unobservable(A, sizes, C, stamps, seen, times, np.full(6, 4))
    np.testing.assert_array_equal(whole.components, np.tile([False, False, True], (6, 1)))
    late = unobservable(
        A, sizes, np.ones((1, 3)), stamps, seen[:, :0] @ np.ones((0, 1), bool), times, np.full(6, 4)
    )
    assert late.components.all()


def test_a_mode_that_explodes_backwards_is_known_of_late():
    A = -np.diag([500.0, 1.0])
    found = unobservable(
        A,
        component_sizes(A),
        np.eye(2),
        np.array([0.0, 1.0]),
        np.ones((2, 2), bool),
        np.array([-5.0, 0.0, 1.0]),
        np.full(3, 2),
    )
    assert not found.components.any()


def test_dynamics_at_odd_addresses_and_by_columns_are_read() -> None:
    """Arrays that a worker unpacks lie anywhere; statsmodels stores by columns."""
    A = np.array([[-1.0, 0.2], [0.1, -3.0]])
    odd = np.frombuffer(b"x" + A.tobytes(), dtype=float, offset=1).reshape(2, 2)
    assert not odd.flags.aligned
    for given in (False, True):
        wanted = component_sizes(A, given=given)
        for other in (odd, np.asfortranarray(A), np.asfortranarray(A)[None]):
            found = component_sizes(other, given=given)
            assert all(np.array_equal(x, y) for x, y in zip(found, wanted, strict=True))
