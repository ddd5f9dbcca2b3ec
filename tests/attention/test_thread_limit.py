"""Threads of attention: none beyond the limit of the environment, the same bits for any number."""

from __future__ import annotations

import numpy as np
import pytest

from afafilter import adaptive_filter, isotropic_attention, spiral
from afafilter.attention import threads


def no_thread(**_: object) -> None:
    raise AssertionError("a thread was started")


@pytest.mark.parametrize("robust", [None, "imq"])
def test_one_thread_is_one_thread(monkeypatch: pytest.MonkeyPatch, robust: str | None) -> None:
    z = np.random.default_rng(0).standard_normal((3000, 2))
    t = np.arange(3000.0)

    def answers() -> list[np.ndarray]:
        attended = isotropic_attention(z, z, z, t, decay=1e-3, process_var=1.0, key_var=1.0)
        filtered = adaptive_filter(spiral(), t / 1e3, z, weight=robust)
        return [attended.output, attended.precision, filtered.mean, filtered.cov]

    many = answers()
    monkeypatch.setenv("AFAFILTER_NUM_THREADS", "1")
    monkeypatch.setattr(threads, "Thread", no_thread)
    for one, more in zip(answers(), many, strict=True):
        assert np.array_equal(one, more)
