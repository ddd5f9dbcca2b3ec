"""Long work says on a terminal what it is; short work, and work that nobody watches, is silent."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest

from afafilter import LinearSDE, adaptive_filter, simulate
from afafilter._base import progress
from afafilter._base.progress import waiting
from afafilter.adaptive import methods


def test_long_work_is_named_and_the_line_cleared(monkeypatch, capsys) -> None:
    monkeypatch.setenv("AFAFILTER_PROGRESS", "1")
    monkeypatch.setattr(progress, "PATIENCE", 0.02)
    monkeypatch.setattr(progress, "PULSE", 0.02)
    with waiting("outer", "a hint"):
        with waiting("inner"):
            time.sleep(0.2)
        assert capsys.readouterr().err.startswith("a hint\n\router ... 0 s")
    assert capsys.readouterr().err.endswith("\r\033[K")
    with waiting("again"):
        time.sleep(0.1)
    assert "again" in capsys.readouterr().err


def test_short_work_is_silent(monkeypatch, capsys) -> None:
    monkeypatch.setenv("AFAFILTER_PROGRESS", "1")
    with waiting("short"):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("asked", "terminal", "shown"), [("", True, True), ("", False, False), ("0", True, False)]
)
def test_only_where_somebody_looks(monkeypatch, asked, terminal, shown) -> None:
    monkeypatch.setenv("AFAFILTER_PROGRESS", asked)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    assert progress.watched() is shown


def test_the_window_is_offered_before_long_work(monkeypatch, capsys) -> None:
    monkeypatch.setenv("AFAFILTER_PROGRESS", "1")
    monkeypatch.setattr(methods, "MANY_PAIRS", 100)
    model = LinearSDE([[-0.1, 1.0], [0.0, -0.2]], Q=np.diag([0.0, 1.0]), R=np.eye(2))
    t = np.arange(12.0)
    z = simulate(model, t, rng=0).z
    adaptive_filter(model, t, z, method="dense")
    assert "window=100" in capsys.readouterr().err
    adaptive_filter(model, t, z, method="dense", window=3)
    assert capsys.readouterr().err == ""
