"""The unit of an observed component changes a fit by nothing but the density's."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from afafilter import DiscreteModel, FitWarning, LinearSDE, Prior, fit, fit_each, simulate
from afafilter import families as f

UNITS = (9e-8, 5.0), (1e-6, 1e6), (1e-9, 1e9)
OFF = 1e-6
"""Nats, the tolerance of a search."""

A = np.array([[-0.3, 0.5], [-0.5, -0.3]])
T = np.cumsum(np.random.default_rng(3).choice([0.5, 1.0, 1.5], 60))
TRUTH = LinearSDE(A, Q=np.diag([1.0, 0.5]), R=np.diag([0.4, 0.6]), C=np.eye(2))


Z = np.array(simulate(TRUTH, T, rng=1).z[0])
Z[5, 0] = Z[20:23, 1] = np.nan


def _shown(u: np.ndarray) -> LinearSDE:
    """States in their own units, shown in those of the observations."""
    return LinearSDE(A, Q=np.eye(2), R=np.diag(u**2), C=np.diag(u))


def _followed(u: np.ndarray) -> LinearSDE:
    """States in the units of the observations."""
    return LinearSDE(A * np.outer(u, 1 / u), Q=np.diag(u**2), R=np.diag(u**2), C=np.eye(2))


def _hidden(u: np.ndarray) -> LinearSDE:
    """Two positions with velocities that nothing shows, in the units of the positions."""
    by, zero = np.concatenate([u, u]), np.zeros((2, 2))
    B = np.block([[zero, np.eye(2)], [-0.5 * np.eye(2), -np.eye(2)]])
    C = np.hstack([np.eye(2), zero])
    Q = np.diag([0.0, 0.0, 1.0, 1.0])
    return LinearSDE(B, Q=Q * np.outer(by, by), R=np.diag(u**2), C=C)


def _steps(u: np.ndarray) -> DiscreteModel:
    prior = Prior(np.zeros(2), np.diag(4 * u**2))
    F = np.array([[0.6, 0.3], [-0.3, 0.6]]) * np.outer(u, 1 / u)
    return DiscreteModel(F, Q=np.diag(u**2), H=np.eye(2), R=np.diag(u**2), prior=prior)


def _off(make: Callable[[np.ndarray], Any], units: tuple[float, float], **options: Any) -> float:
    """Log-likelihood in these units, carried back, less that in unit units."""
    u = np.array(units)
    t = None if isinstance(make(u), DiscreteModel) else T
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", FitWarning)
        plain, scaled = (fit(make(v), t, Z * v, **options) for v in (np.ones(2), u))
    assert plain.converged
    assert scaled.trouble == plain.trouble
    return float(scaled.loglik + np.count_nonzero(~np.isnan(Z), axis=0) @ np.log(u) - plain.loglik)


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("make", [_shown, _followed])
@pytest.mark.parametrize("free", [["R"], ["A", "Q", "R"], ["Q", "R", "offset"]])
def test_units_of_matrices(make: Any, units: tuple[float, float], free: list[str]) -> None:
    assert abs(_off(make, units, free=free)) < OFF


@pytest.mark.parametrize("units", UNITS)
def test_units_of_free_dynamics_that_need_not_be_stable(units: tuple[float, float]) -> None:
    free = ["A", "Q", "R", "drift"]
    assert abs(_off(_followed, units, free=free, stable=False)) < OFF


@pytest.mark.parametrize("units", UNITS)
def test_units_of_states_that_none_shows(units: tuple[float, float]) -> None:
    moving = np.array([False, False, True, True])
    free: Any = {"A": np.diag(moving), "Q": moving, "R": None}
    assert abs(_off(_hidden, units, free=free)) < OFF


@pytest.mark.parametrize("units", UNITS)
def test_units_of_discrete_models(units: tuple[float, float]) -> None:
    assert abs(_off(_steps, units, free=["F", "Q", "R"])) < OFF


@pytest.mark.parametrize("units", UNITS)
def test_units_by_em(units: tuple[float, float]) -> None:
    assert abs(_off(_shown, units, method="em", free=["R"], tolerance=1e-3)) < OFF


FAMILY = f.ornstein_uhlenbeck(2, diagonal=True) + f.constant(2) + f.noise(2, diagonal=True)


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("method", ["ml", "student_t"])
def test_units_of_families(units: tuple[float, float], method: str) -> None:
    assert abs(_off(lambda _: FAMILY, units, method=method)) < OFF
    if method == "ml":
        assert abs(_off(lambda _: FAMILY, units, inputs=np.sin(T)[:, None])) < OFF


@pytest.mark.parametrize("units", UNITS)
def test_units_of_series_side_by_side(units: tuple[float, float]) -> None:
    """Two series in other units than two others, in one call."""
    u = np.array(units)
    found = fit_each(FAMILY, T, np.array([Z, Z[::-1], Z * u, Z[::-1] * u]))
    by_unit = np.count_nonzero(~np.isnan(Z), axis=0) @ np.log(u)
    np.testing.assert_allclose(found.loglik[2:] + by_unit, found.loglik[:2], rtol=0, atol=OFF)


@pytest.mark.parametrize("units", UNITS)
def test_a_singular_start_is_made_definite_in_units_of_its_own(units: tuple[float, float]) -> None:
    """R = 0 at the start, of which the components' sizes are all that is known."""

    def make(u: np.ndarray) -> LinearSDE:
        return LinearSDE(A, Q=np.eye(2), R=np.zeros((2, 2)), C=np.diag(u))

    assert abs(_off(make, units, free=["R"])) < OFF


@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1e3, 1e6])
def test_noise_that_starts_in_another_unit(unit: float) -> None:
    """R = I at the start whatever the unit of the second component."""
    u = np.array([1.0, unit])
    model = LinearSDE(A, Q=np.eye(2), R=np.eye(2), C=np.diag(u))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit(model, T, Z * u, free=["R"])
    plain = fit(_shown(np.ones(2)), T, Z, free=["R"])
    jacobian = np.count_nonzero(~np.isnan(Z), axis=0) @ np.log(u)
    assert found.loglik + jacobian == pytest.approx(plain.loglik, abs=OFF)


def test_em_says_where_it_stalls() -> None:
    """Noise of a millionth of the data's: EM hardly moves it, the likelihood still rises."""
    model = LinearSDE(A, Q=np.eye(2), R=np.diag([1.0, 1e-12]), C=np.eye(2))
    with pytest.warns(FitWarning, match="still rises; use method='ml'"):
        fit(model, T, Z, free=["R"], method="em")
