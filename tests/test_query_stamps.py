"""Every estimator sees an observation whose stamp is the query's up to rounding.

The oracle is the same series with stamps that are exact: query times then equal stamps to the bit.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from afafilter import (
    AdaptiveFilterStream,
    Forcing,
    KalmanStream,
    Prior,
    RadialTangentialSDE,
    adaptive_filter,
    brownian,
    forecast,
    isotropic_attention,
    kalman_filter,
    linear_time_filter,
    mixture_filter,
    radial_adaptive_filter,
)
from afafilter.weights import StudentT

GRID = 0.1 * np.arange(1, 6)
SUMMED = np.cumsum(np.full(5, 0.1))  # 0.1 + 0.2 is 0.30000000000000004
GRID[2] = 0.3
OUTLIERS = {"outlier_rate": 0.1, "outlier_scale": 9.0}
MODEL = brownian(process_var=1.0, obs_var=0.01)
Z = np.array([[0.1], [-0.2], [1.0], [0.4], [0.3]])
PLANE = RadialTangentialSDE(0.3, 1.0, 1.0, 0.5, 0.2, 0.2)
IN_PLANE = np.random.default_rng(0).standard_normal((5, 2)) + 3.0


def test_the_stamps_differ_by_rounding_alone():
    assert SUMMED[2] > GRID[2]
    np.testing.assert_allclose(SUMMED, GRID, rtol=4e-16)


@pytest.mark.parametrize("shift", [0.0, 1e6, -1e6])
@pytest.mark.parametrize(
    "estimate",
    [
        lambda t, q: kalman_filter(MODEL, t, Z, query_times=q),
        lambda t, q: kalman_filter(MODEL, t, Z, query_times=q, weight=StudentT(4.0)),
        lambda t, q: mixture_filter(
            MODEL, t, Z, query_times=q, outlier_rate=0.1, outlier_scale=9.0
        ),
        lambda t, q: adaptive_filter(MODEL, t, Z, query_times=q),
        lambda t, q: adaptive_filter(MODEL, t, Z, query_times=q, method="dense"),
        lambda t, q: adaptive_filter(MODEL, t, Z, query_times=q, correlation="exact"),
        lambda t, q: adaptive_filter(MODEL, t, Z, query_times=q, weight=StudentT(4.0), window=2),
        lambda t, q: linear_time_filter(MODEL, t, Z, query_times=q),
        lambda t, q: radial_adaptive_filter(PLANE, t, IN_PLANE, query_times=q),
    ],
)
def test_a_query_at_a_stamp_sees_its_observation(estimate, shift):
    exact = shift + GRID
    rounded = np.nextafter(exact, np.inf)
    want = estimate(exact, exact[2:4])
    found = estimate(rounded, exact[2:4])
    np.testing.assert_allclose(found.mean, want.mean, rtol=1e-6)
    np.testing.assert_allclose(found.cov, want.cov, rtol=1e-6)


def test_the_case_of_a_running_sum():
    for estimator in (kalman_filter, adaptive_filter):
        on_grid = estimator(MODEL, SUMMED, Z).mean[2]
        asked = estimator(MODEL, SUMMED, Z, query_times=[0.3]).mean[0]
        np.testing.assert_allclose(asked, on_grid, rtol=1e-12)


def test_a_stamp_that_is_resolved_is_another():
    later = np.nextafter(SUMMED[2] * (1 + 4e-16), np.inf)
    t = np.array([*SUMMED[:2], later, *SUMMED[3:]])
    asked = kalman_filter(MODEL, t, Z, query_times=[0.3]).mean[0]
    np.testing.assert_allclose(asked, kalman_filter(MODEL, t, Z).mean[1], rtol=1e-12)


def test_attention_and_forecasts():
    noise = {"decay": 0.5, "process_var": 1.0, "key_var": 0.1}
    want = isotropic_attention(Z[2:4], Z, Z, GRID, t_query=GRID[2:4], **noise)
    found = isotropic_attention(Z[2:4], Z, Z, SUMMED, t_query=GRID[2:4], **noise)
    np.testing.assert_allclose(found.output, want.output, rtol=1e-9)
    ahead = forecast(MODEL, SUMMED[:3], Z[:3], horizon_times=[0.3])
    np.testing.assert_allclose(ahead.mean[0], kalman_filter(MODEL, SUMMED[:3], Z[:3]).mean[-1])


@pytest.mark.parametrize("kind", [KalmanStream, AdaptiveFilterStream])
def test_streams_predict_at_the_last_stamp(kind):
    stream = kind(MODEL)
    for t, z in zip(SUMMED[:3], Z, strict=False):
        last = stream.update(t, z)
    same = stream.predict(0.3)

    np.testing.assert_array_equal(same.mean, last.mean)
    with pytest.raises(ValueError, match=r"last time 0\.3, got 0\.2"):
        stream.predict(0.2)


def test_priors_and_inputs_begin_at_the_stamp():
    held = replace(MODEL, prior=Prior([0.5], [[1.0]], t0=SUMMED[2]))
    want = kalman_filter(replace(held, prior=Prior([0.5], [[1.0]])), GRID[2:], Z[2:])
    found = kalman_filter(held, GRID[2:], Z[2:])
    np.testing.assert_allclose(found.mean, want.mean, rtol=1e-12)
    means = []
    for begin in (GRID[2], SUMMED[2]):
        driven = replace(MODEL, forcing=Forcing([begin], [[1.0]], direct=[[1.0]]))
        means.append(kalman_filter(driven, GRID, Z).mean)
    np.testing.assert_allclose(*means, rtol=1e-9)
