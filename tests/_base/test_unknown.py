"""Reports of laws with open directions, against the limit of ever wider priors."""

from __future__ import annotations

import numpy as np
import pytest

from afafilter import Estimate
from afafilter._base.unknown import OpenLaw, barely_known, chosen, hidden, image, mark, through

EPS = np.finfo(float).eps


def law(directions, mean, cov, at=(0,), paths=(0,)):
    directions = np.asarray(directions, dtype=float)
    return OpenLaw(
        np.array(paths),
        np.array(at),
        np.asarray(mean, dtype=float),
        np.asarray(cov, dtype=float),
        directions,
        8 * EPS * np.abs(directions),
    )


def wide(directions, cov, width):
    """Covariance with gamma ~ N(0, width I) in place of a flat one."""
    N = np.swapaxes(directions, -1, -2)
    return cov + width * N @ np.swapaxes(N, -1, -2)


def test_a_functional_is_known_where_it_does_not_move():
    """The variance of h x has a limit exactly where h N = 0, and it is that one."""
    rng = np.random.default_rng(0)
    directions = np.array([[[1.0, -1.0, 0.0, 2.0], [0.0, 0.0, 0.0, 1.0]]])
    root = rng.standard_normal((4, 4))
    cov = (root @ root.T)[None]
    mean = rng.standard_normal((1, 1, 4))
    H = np.array(
        [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [2, 2, -1, 0.0]]
    )
    opened = law(directions, mean, cov)
    np.testing.assert_array_equal(opened.moved(H), [[False, False, True, False]])
    reported = opened.report()
    np.testing.assert_array_equal(np.isnan(reported[0][0, 0]), [True, True, False, True])
    found, spread = through(H, reported[0], reported[1][None], [opened])
    near = [(H @ wide(directions, cov, w) @ H.T)[0] for w in (1e3, 1e6)]
    for a in range(4):
        if np.isnan(found[0, 0, a]):
            assert spread[0, 0, a, a] == np.inf
            assert near[1][a, a] > 100 * near[0][a, a]
            assert (np.delete(spread[0, 0, a], a) == 0).all()
        else:
            assert found[0, 0, a] == pytest.approx(float(H[a] @ mean[0, 0]))
            assert spread[0, 0, a, a] == pytest.approx(near[0][a, a], rel=1e-9)
    np.testing.assert_array_equal(image(H, reported[0], [opened]), found)


def test_without_laws_a_zero_entry_does_not_touch_the_unknown():
    mean, cov = np.array([[1.0, np.nan]]), np.diag([2.0, np.inf])[None]
    found, spread = through(np.array([[3.0, 0.0], [1.0, 1e-300]]), mean, cov)
    np.testing.assert_array_equal(found, [[3.0, np.nan]])
    np.testing.assert_array_equal(spread, [[[18.0, 0.0], [0.0, np.inf]]])


def test_rounding_of_a_direction_is_not_movement():
    """Each component is judged by its own rounding, whatever the units of the others."""
    directions = np.array([[[1e12, 3e-5, 1e-20]]])
    rounding = np.array([[[1e-4, 4e-5, 1e-36]]])
    opened = OpenLaw(
        np.array([0]), np.array([0]), np.zeros((1, 1, 3)), np.eye(3)[None], directions, rounding
    )
    np.testing.assert_array_equal(opened.moved(), [[True, False, True]])
    H = np.array([[1e-17, -1e-5 / 3e-5 * 1e-10, 0.0], [0.0, 0.0, 1e30]])
    np.testing.assert_array_equal(opened.moved(H), [[True, True]])


@pytest.mark.parametrize("size", [1e3, 1e9])
def test_what_rounding_leaves_of_a_direction_is_counted_by_how_far_the_data_put_it(size):
    """gamma = size / 2 moves the first state, which counts as known, by 1e-9 gamma."""
    n, rounding = np.array([[[1e-9, 2.0]]]), np.array([[[1e-8, 1e-14]]])
    mean, cov = np.array([[[0.0, size], [0.0, -size / 3]]]).swapaxes(0, 1), np.diag([0.04, 1.0])
    opened = OpenLaw(np.arange(2), np.array([0]), mean, cov[None], n, rounding)
    assert opened.hidden() == pytest.approx(1e-9 * size / 2 / 0.2)
    still = opened._replace(directions=np.array([[[0.0, 2.0]]]))
    shows = np.array([[3.0, 0.0], [0.0, 1.0]])  # the second row is open
    assert hidden([still, opened], shows) == pytest.approx(opened.hidden())
    assert still.hidden() == hidden([]) == 0.0
    shows[1] = 1.0, 5e-10  # of what is open the second state alone, and nothing beyond rounding
    assert hidden([opened], shows[:1], single=True) == 0.0
    assert barely_known([opened], shows) == pytest.approx(2 * opened.hidden())


def test_nothing_finite_comes_of_what_is_not_finite():
    opened = law([[[0.0, np.nan]]], np.zeros((1, 1, 2)), np.eye(2)[None])
    np.testing.assert_array_equal(opened.moved(), [[False, True]])
    mean, cov = mark(np.zeros((1, 2)), np.diag([np.nan, 1.0])[None], np.zeros((1, 2), bool))
    np.testing.assert_array_equal(mean, [[np.nan, 0.0]])
    assert cov[0, 0, 0] == np.inf


def test_laws_are_picked_by_time():
    directions = np.arange(6.0).reshape(3, 1, 2)
    opened = law(directions, np.zeros((1, 3, 2)), np.stack([np.eye(2)] * 3), at=(1, 2, 4))
    (kept,) = chosen([opened], np.array([2, 3, 4]))
    np.testing.assert_array_equal(kept.at, [0, 2])
    np.testing.assert_array_equal(kept.directions, directions[1:])
    assert chosen([opened], np.array([0, 3])) == ()


def test_an_estimate_refuses_a_matrix_that_does_not_fit():
    estimate = Estimate(np.arange(2.0), np.zeros((2, 3)), np.stack([np.eye(3)] * 2))
    with pytest.raises(
        ValueError, match=r"H must have shape \(p, 3\) or \(2, p, 3\), got \(1, 2\)"
    ):
        estimate.through([[1.0, 2.0]])
    many = Estimate(np.arange(2.0), np.ones((5, 2, 3)), np.broadcast_to(np.eye(3), (5, 2, 3, 3)))
    mean, cov = many.through(np.arange(6.0).reshape(2, 1, 3))
    np.testing.assert_array_equal(mean[..., 0], np.tile([3.0, 12.0], (5, 1)))
    np.testing.assert_array_equal(cov[4, :, 0, 0], [5.0, 50.0])
