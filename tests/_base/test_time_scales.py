"""Units of time that are hardly meant: said where every scale lies apart, and only there."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from afafilter import (
    DiscreteModel,
    LinearSDE,
    StudentT,
    adaptive_filter,
    brownian,
    constant_velocity,
    kalman_filter,
    simulate,
)
from afafilter._base.time_scales import APART, apart, warn_if_apart, warn_if_unlike

DAYS = np.arange(0.0, 400.0)


def decaying(*rates: float) -> np.ndarray:
    return -np.diag(rates)


def test_forgotten_before_the_next_observation() -> None:
    """Rates per second with times in days: 86400 times as fast as the sampling."""
    said = apart(decaying(86400.0, 2e5), DAYS)
    assert said is not None
    assert f"slowest time scale is {1 / 86400:.3g}, the usual step of the data 1" in said


def test_nothing_moves_in_the_whole_record() -> None:
    said = apart(decaying(1e-9, 1e-8), DAYS)
    assert said is not None
    assert "fastest time scale is 1e+08, the record 399 long" in said


@pytest.mark.parametrize(
    ("A", "t"),
    [
        (decaying(1e6, 1.0), DAYS),  # one scale fits
        (decaying(1e-9, 1.0), DAYS),
        (np.array([[0.0, 1.0], [0.0, 0.0]]), DAYS),  # no time scale at all
        (decaying(1e9), np.zeros(5)),  # no step
        (decaying(1e9), np.zeros(1)),
        (np.array([[0.0, 0.1], [-0.1, 0.0]]), DAYS),
    ],
)
def test_nothing_is_said(A: np.ndarray, t: np.ndarray) -> None:
    assert apart(A, t) is None


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_borders(factor: float) -> None:
    t = np.array([0.0, 1.0, 2.0, 2.0, 50.0])  # usual step 1, equal stamps not counted, span 50
    assert (apart(decaying(factor * APART), t) is not None) == (factor > 1)
    assert (apart(decaying(factor / APART / 50.0), t) is not None) == (factor < 1)


def test_the_warning_names_unit_and_remedy() -> None:
    model = LinearSDE(decaying(86400.0), Q=np.eye(1), R=np.eye(1))
    with pytest.warns(UserWarning, match=r"\(dates are counted in days\): .* --time-unit says"):
        warn_if_apart(model, DAYS, "D", "--time-unit")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_apart(LinearSDE(decaying(0.1), Q=np.eye(1), R=np.eye(1)), DAYS)
        warn_if_apart(DiscreteModel(np.eye(1), Q=np.eye(1), H=np.eye(1), R=np.eye(1)), DAYS)


@pytest.mark.parametrize(
    "model", [brownian(1.0, 0.2), constant_velocity(1.0, 0.2), brownian(1.0, 0.2, dim=2)]
)
@pytest.mark.parametrize("robust", [None, StudentT(4.0)])
def test_walks_in_another_unit(model: LinearSDE, robust: StudentT | None) -> None:
    """They have no time scale but the size of their steps."""
    z = simulate(model, DAYS, rng=0, x0=np.zeros(model.dim)).z[0]
    z[7] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_unlike(model, kalman_filter(model, DAYS, z, weight=robust), "time_unit")
        warn_if_unlike(model, adaptive_filter(model, DAYS, z, window=9), "time_unit")
    seconds = kalman_filter(model, 86400 * DAYS, z, weight=robust)
    with pytest.warns(UserWarning, match="times less from one observation .* time_unit says"):
        warn_if_unlike(model, seconds, "time_unit")
    far = kalman_filter(model, DAYS / 86400, 1e6 * z)
    with pytest.warns(UserWarning, match="times more from one observation"):
        warn_if_unlike(model, far, "time_unit")


def test_seconds_read_as_minutes() -> None:
    """A factor of 60 shows where noise does not hide the steps, of models with a time scale too."""
    slow = LinearSDE(decaying(1e-4), Q=np.eye(1), R=0.05 * np.eye(1), prior="stationary")
    for model in (brownian(1.0, 0.05), constant_velocity(1.0, 0.2), slow):
        z = simulate(model, DAYS, rng=0, x0=np.zeros(model.dim)).z[0]
        with pytest.warns(UserWarning, match="times less .* the unit of time"):
            warn_if_unlike(model, kalman_filter(model, 60 * DAYS, z), "time_unit")
        warn_if_unlike(model, kalman_filter(model, DAYS, z), "time_unit")
