"""The shipped series against statsmodels' copies, their models against likelihood and textbook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
import statsmodels.datasets as reference

from afafilter import LinearSDE, Prior, datasets, kalman_filter, rts_smoother
from afafilter.io import Series


def test_nile_equals_statsmodels() -> None:
    theirs = reference.nile.load_pandas().data
    ours = datasets.load_nile()
    np.testing.assert_array_equal(ours.t, theirs["year"])
    np.testing.assert_array_equal(ours.z[:, 0], theirs["volume"])


def test_sunspots_equal_statsmodels() -> None:
    theirs = reference.sunspots.load_pandas().data
    ours = datasets.load_sunspots()
    np.testing.assert_array_equal(ours.t, theirs["YEAR"])
    np.testing.assert_array_equal(ours.z[:, 0], theirs["SUNACTIVITY"])


def test_co2_equals_statsmodels_with_its_gaps() -> None:
    theirs = reference.co2.load_pandas().data
    ours = datasets.load_co2()
    np.testing.assert_array_equal(ours.z[:, 0], theirs["co2"])
    assert np.isnan(ours.z).sum() == 59
    assert ours.dates is not None
    np.testing.assert_array_equal(ours.dates, theirs.index.to_numpy().astype("datetime64[us]"))
    np.testing.assert_allclose(np.diff(ours.t), 7 / 365.25, rtol=1e-9)
    assert ours.t[0] == pytest.approx(1958 + 87 / 365.25)
    assert ours.time_of(["1958-04-05"])[0] == pytest.approx(ours.t[1], abs=1e-12)


@pytest.mark.parametrize("load", [datasets.load_nile, datasets.load_sunspots, datasets.load_co2])
def test_source_and_licence_are_named(load: Callable[[], Series]) -> None:
    series = load()
    assert series.source
    assert series.licence == "public domain"
    assert series.name
    assert series.units


def test_nile_gives_the_published_likelihood_and_statsmodels_level() -> None:
    series, model = datasets.load_nile(), datasets.nile_model()
    loglik = kalman_filter(model, series.t, series.z).loglik
    assert loglik == pytest.approx(-633.4646, abs=1e-4)
    theirs = sm.tsa.UnobservedComponents(series.z[:, 0], "llevel", use_exact_diffuse=True)
    result = theirs.smooth([15099.0, 1469.1])
    ours = rts_smoother(model, series.t, series.z)
    np.testing.assert_allclose(ours.mean[:, 0], result.smoothed_state[0], rtol=1e-9)
    np.testing.assert_allclose(ours.cov[:, 0, 0], result.smoothed_state_cov[0, 0], rtol=1e-9)


def _sunspots(decay: float, frequency: float, q: float, r: float, mean: float) -> LinearSDE:
    stiffness = decay**2 + frequency**2
    A = [[0.0, 1.0], [-stiffness, -2 * decay]]
    return LinearSDE(A, Q=np.diag([0.0, q]), R=[[r]], C=[[1.0, 0.0]], drift=[0.0, stiffness * mean])


def _co2(q: float, r: float, seasonal: float, rate: float, short: float) -> LinearSDE:
    A = np.zeros((7, 7))
    A[0, 1] = 1.0
    for k in (1, 2):
        A[2 * k, 2 * k + 1], A[2 * k + 1, 2 * k] = -2 * np.pi * k, 2 * np.pi * k
    A[6, 6] = -rate
    Q = np.diag([0.0, q, *[seasonal] * 4, short])
    start = Prior(np.zeros(7), np.diag([0.0] * 6 + [short / (2 * rate)]), None, np.eye(7)[:, :6])
    return LinearSDE(A, Q=Q, R=[[r]], C=[[1.0, 0, 1, 0, 1, 0, 1]], prior=start)


@pytest.mark.parametrize(
    ("load", "model", "build", "read"),
    [
        (
            datasets.load_sunspots, datasets.sunspots_model, _sunspots,
            lambda m: (
                -m.A[1, 1] / 2, np.sqrt(-m.A[1, 0] - m.A[1, 1] ** 2 / 4), m.Q[1, 1], m.R[0, 0],
                -m.drift[1] / m.A[1, 0],
            ),
        ),
        (
            datasets.load_co2, datasets.co2_model, _co2,
            lambda m: (m.Q[1, 1], m.R[0, 0], m.Q[2, 2], -m.A[6, 6], m.Q[6, 6]),
        ),
    ],
    ids=["sunspots", "co2"],
)  # fmt: skip
def test_shipped_parameters_maximise_the_likelihood(
    load: Any, model: Any, build: Any, read: Any
) -> None:
    """Moving any parameter by 3 % either way lowers the likelihood: the optimum is in between."""
    series, best = load(), np.array(read(model()))
    shipped = float(kalman_filter(model(), series.t, series.z).loglik)
    rebuilt = build(*best)
    np.testing.assert_allclose(rebuilt.A, model().A, atol=1e-12)
    np.testing.assert_allclose(rebuilt.C, model().C)

    def loglik(parameters: np.ndarray) -> float:
        return float(kalman_filter(build(*parameters), series.t, series.z).loglik)

    assert loglik(best) == pytest.approx(shipped, abs=1e-6)
    for k in range(len(best)):
        for factor in (0.97, 1.03):
            moved = best.copy()
            moved[k] *= factor
            assert loglik(moved) < shipped
