"""The laws on a small set of cases; `make fuzz` runs many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.cases import Seeded, draw_case
from tests.fuzz.laws import check_case, describe


class Shrinking:
    """Chance by Hypothesis."""

    def __init__(self, data):
        self._data = data

    def integer(self, low, high):
        return self._data.draw(st.integers(low, high))

    def choice(self, values):
        return values[self.integer(0, len(values) - 1)]

    def rng(self):
        return np.random.default_rng(self.integer(0, 2**16))


def complaints(verdicts):
    return [v for v in verdicts if v.outcome in ("wrong", "refused")]


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.data())
def test_the_laws_hold(data):
    assert not complaints(check_case(Shrinking(data)))


@pytest.mark.parametrize("case", range(12))
def test_seeded_cases(case):
    found = complaints(check_case(Seeded(0, case)))
    assert not found, describe(draw_case(Seeded(0, case)))
