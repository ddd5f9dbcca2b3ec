"""Portions of a study's cells: nothing lost, nothing twice, no larger than their turn."""

from __future__ import annotations

import pytest

from afafilter.studies.running import MOST, TURN, Pace


@pytest.mark.parametrize(
    ("seconds", "low", "high"),
    [(10.0, 1, 1), (0.6 * TURN, 1, 1), (TURN / 20, 10, 21), (0.0, MOST, MOST)],
)
def test_portions_follow_the_time_of_a_cell(seconds: float, low: int, high: int) -> None:
    pace, sizes, seen = Pace(), [], []
    for portion in pace.portions(iter(range(2000))):
        sizes.append(len(portion))
        seen += portion
        pace.seen(seconds)
    assert seen == list(range(2000))
    assert sizes[0] == 1
    assert low <= max(sizes) <= high


def test_slow_cells_make_portions_small_again() -> None:
    pace = Pace()
    portions = pace.portions(iter(range(10_000)))
    for _ in range(30):
        size = len(next(portions))
        pace.seen(0.001)
    for _ in range(30):
        small = len(next(portions))
        pace.seen(2.0)
    assert size > 20
    assert small == 1
