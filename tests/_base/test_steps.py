"""Equal steps: within the rounding of the stamps, pairwise, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from afafilter._base.steps import (
    distinct_steps,
    mostly_distinct,
    not_before,
    on_stamps,
    regular_step,
    rounding,
)

EPS = float(np.finfo(float).eps)


def check(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What every result must be: near its gap, zero only for zero, elapsed time kept."""
    gaps = np.diff(t)
    steps, index = distinct_steps(gaps, t[1:])
    assert (np.abs(steps[index] - gaps) <= rounding(t[1:]).max()).all()
    assert ((steps[index] == 0) == (gaps == 0)).all()
    assert steps[index].sum() == pytest.approx(gaps.sum(), rel=1e-14)
    for k in range(len(steps)):
        own = gaps[index == k]
        assert own.max() - own.min() <= rounding(t[1:]).max()
    return steps, index


@pytest.mark.parametrize("start", [0.0, 5.0, 2.4e6, 1.7e9])
@pytest.mark.parametrize("step", [0.1, 1 / 3, 1.0, 60.0])
def test_a_regular_grid_has_one_step(start: float, step: float) -> None:
    steps, _ = check(start + step * np.arange(500))
    assert len(steps) == 1


def test_a_grid_with_gaps_and_repeats() -> None:
    t = 0.1 * np.repeat(np.delete(np.arange(400), [7, 8, 200]), 2)
    steps, _ = check(t)
    np.testing.assert_allclose(np.sort(steps), [0.0, 0.1, 0.2, 0.3], atol=1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_chains_of_near_steps_are_cut(seed: int) -> None:
    """Steps 0, 1, 2, ... units in the last place apart: neighbours are equal, ends are not."""
    rng = np.random.default_rng(seed)
    unit = np.spacing(6e4)
    t = 6e4 + unit * np.cumsum(rng.integers(0, 40, 300))
    steps, _ = check(t)
    assert len(steps) > 8


def test_a_resolved_difference_is_kept() -> None:
    t = np.cumsum(np.tile([1.0, 1.0 + 1e-9], 50))
    steps, index = check(t)
    assert len(steps) == 2
    assert (index[::2] == index[0]).all()


def test_many_different_steps_stay_in_order() -> None:
    gaps = np.random.default_rng(0).exponential(1.0, 5000)
    assert mostly_distinct(gaps)
    steps, index = distinct_steps(gaps, np.cumsum(gaps))
    np.testing.assert_array_equal(steps, gaps)
    np.testing.assert_array_equal(index, np.arange(5000))


def test_no_step_at_all() -> None:
    steps, index = distinct_steps(np.zeros(0), np.zeros(0))
    assert len(steps) == 1
    assert len(index) == 0


@pytest.mark.parametrize("start", [0.0, -3.0, 1.7e9])
@pytest.mark.parametrize("step", [0.1, 1 / 3, 60.0])
def test_the_spacing_of_a_regular_grid(start: float, step: float) -> None:
    assert regular_step(start + step * np.arange(300)) == pytest.approx(step, rel=1e-7)


def test_no_spacing_where_stamps_resolve_a_difference() -> None:
    t = 0.1 * np.arange(100)
    t[40] += 1e-12  # the stamps' rounding is 2e-15
    assert regular_step(t) is None
    for none in (np.zeros(1), np.full(3, 2.0), np.array([0.0, 1.0, 3.0])):
        assert regular_step(none) is None


# ---------------------------------------------------------------- equal stamps


@pytest.mark.parametrize("start", [0.0, -7.0, 1.7e9])
def test_times_asked_for_move_onto_the_stamps_they_equal(start: float) -> None:
    stamps = start + 0.1 * np.arange(1, 50)
    for by, equal in ((np.nextafter(stamps, np.inf), True), (stamps * (1 + 3 * EPS), False)):
        want = stamps if equal else by
        np.testing.assert_array_equal(on_stamps(np.sort(by), stamps), np.sort(want))
    np.testing.assert_array_equal(on_stamps(stamps + 0.05, stamps), stamps + 0.05)
    assert on_stamps(stamps, stamps) is stamps


def test_a_time_that_is_a_stamp_stays_there_beside_a_nearby_one() -> None:
    stamps = np.array([0.3, np.nextafter(0.3, 1.0)])
    np.testing.assert_array_equal(on_stamps(stamps.copy(), stamps), stamps)
    assert on_stamps(np.array([0.1]), np.zeros(0)) == [0.1]


def test_not_before() -> None:
    assert not_before(0.3, 0.1 + 0.2) == 0.1 + 0.2
    assert not_before(0.5, 0.3) == 0.5
    with pytest.raises(ValueError, match=r"last time 0\.5, got 0\.3"):
        not_before(0.3, 0.5)
