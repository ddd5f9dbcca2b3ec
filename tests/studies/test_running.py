"""Portions of a study's cells: nothing lost, nothing twice, no larger than their turn."""

from __future__ import annotations

import pytest

from afafilter.studies.running import MOST, SHARES, TURN, Pace


@pytest.mark.parametrize(
    ("seconds", "low", "high"),
    [(10.0, 1, 4), (0.6 * TURN, 1, 4), (TURN / 20, 10, 21), (0.0, MOST, MOST)],
)
def test_portions_follow_the_time_of_a_cell(seconds: float, low: int, high: int) -> None:
    pace, sizes, seen = Pace(2), [], []
    for portion in pace.portions(iter(range(5000)), 5000):
        sizes.append(len(portion))
        seen += portion
        pace.seen(seconds)
    assert seen == list(range(5000))
    assert sizes[0] <= 4
    assert low <= max(sizes) <= high
    assert sizes[-1] == 1


def test_slow_cells_make_portions_small_again() -> None:
    pace = Pace(1)
    portions = pace.portions(iter(range(10_000)), 10_000)
    for _ in range(20):
        size = len(next(portions))
        pace.seen(0.001)
    for _ in range(30):
        small = len(next(portions))
        pace.seen(2.0)
    assert size > 20
    assert small == 1


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_workers_end_together(workers: int) -> None:
    """Quick cells, each portion to whoever is free first: nobody waits longer than a small part."""
    pace, busy = Pace(workers), [0.0] * workers
    for portion in pace.portions(iter(range(300)), 300):
        free = busy.index(min(busy))
        busy[free] += 0.01 * len(portion)
        pace.seen(0.01)
    assert sum(busy) == pytest.approx(3.0)
    assert max(busy) - min(busy) <= 0.01 * (1 + 300 / (SHARES * workers) / 4)


def test_more_cells_than_were_counted_are_not_lost() -> None:
    assert sum(map(len, Pace(3).portions(iter(range(40)), 10))) == 40
