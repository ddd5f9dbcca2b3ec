"""How many cells of a study a worker gets at a time.

Handing a task to a worker costs milliseconds, on a cluster more than on one machine; a cell may
take as little. Cells therefore go in portions that keep a worker busy for about `TURN`, as far as
the cells finished so far tell; one at a time where a cell takes longer. No number depends on it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from afafilter.studies.cells import run_cell

TURN = 0.25
"""Seconds that a portion should take: what is lost when a run is killed."""
MOST = 64


class Pace:
    """Portions of what is left, larger once cells are known to be quick."""

    def __init__(self) -> None:
        self._seconds = TURN

    def seen(self, seconds: float) -> None:
        """A cell took so long."""
        self._seconds += 0.2 * (seconds - self._seconds)

    def portions(self, left: Iterator[Any]) -> Iterator[list[Any]]:
        """What is left, cut when it is asked for."""
        while True:
            some = list(islice(left, max(1, min(MOST, int(TURN / max(self._seconds, 1e-9))))))
            if not some:
                return
            yield some


def compute(portion: Sequence[tuple[Any, Any, int]]) -> list[tuple[Any, Any, float]]:
    """The cells of a portion, each with its outcome and the seconds that it took."""
    done = []
    for cell, job, n_paths in portion:
        began = time.perf_counter()
        outcome = run_cell(job, n_paths, cell.seed)
        done.append((cell, outcome, time.perf_counter() - began))
    return done
