"""Eight threads that call at once, sharing models: the same bits as one after another."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from afafilter import (
    KalmanStream,
    LinearSDE,
    adaptive_filter,
    adaptive_smoother,
    forecast,
    kalman_filter,
    linear_time_filter,
    loglik,
    mixture_filter,
    rts_smoother,
    simulate,
)
from tests.conftest import MODELS, draw_data, irregular_times

T = irregular_times(40)


def streamed(model, t, z):
    stream = KalmanStream(model)
    for k in range(len(t)):
        last = stream.update(t[k], z[k])
    return last


def regular(function, **options):
    return lambda model, t, z: function(model, np.arange(len(t)) * 0.5, z, **options)


CALLS = {
    "filter": kalman_filter,
    "smoother": rts_smoother,
    "regular filter": regular(kalman_filter),
    "robust": lambda m, t, z: kalman_filter(m, t, z, weight="student_t"),
    "queries": lambda m, t, z: rts_smoother(m, t, z, query_times=t[:-1] + 0.5 * np.diff(t)),
    "forecast": lambda m, t, z: forecast(m, t, z, horizon_times=t[-1] + np.arange(1.0, 4.0)),
    "stream": streamed,
    "mixture": lambda m, t, z: mixture_filter(m, t, z, outlier_rate=0.1, outlier_scale=25.0),
    "afa": adaptive_filter,
    "afa, two-sided": adaptive_smoother,
    "afa, robust": lambda m, t, z: adaptive_filter(m, t, z, weight="student_t"),
    "afa, dense": lambda m, t, z: adaptive_filter(m, t, z, method="dense"),
    "afa, exact": lambda m, t, z: adaptive_smoother(m, t, z, correlation="exact"),
    "linear time": linear_time_filter,
    "loglik": lambda m, t, z: loglik(m, t, z, gradient=True),
    "simulate": lambda m, t, z: simulate(m, t, 3, rng=5, x0=np.zeros(m.dim)),
}


def parts(result):
    """All numbers of a result as bytes."""
    if isinstance(result, tuple):
        return [
            np.asarray(result[0]).tobytes(),
            *(np.asarray(x).tobytes() for x in result[1].values()),
        ]
    names = ("mean", "cov", "loglik", "innovation", "x", "z")
    return [np.asarray(getattr(result, name)).tobytes() for name in names if hasattr(result, name)]


def fresh():
    """A model of which nothing is remembered yet."""
    m = MODELS["spiral"]
    return LinearSDE(m.A, Q=m.Q, R=m.R, C=m.C, prior=m.prior)


@pytest.mark.parametrize("call", CALLS)
def test_threads_at_once_give_the_same_bits(call):
    data = draw_data(MODELS["spiral"], T, seed=1)
    wanted = parts(CALLS[call](fresh(), T, data))
    for _ in range(3):
        model, barrier = fresh(), threading.Barrier(8)

        def run(_, model=model, barrier=barrier):
            barrier.wait()
            return parts(CALLS[call](model, T, data))

        with ThreadPoolExecutor(8) as pool:
            assert all(found == wanted for found in pool.map(run, range(8)))


def test_different_calls_at_once():
    data, model = draw_data(MODELS["spiral"], T, seed=1), fresh()
    wanted = [parts(call(fresh(), T, data)) for call in CALLS.values()]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda call: parts(call(model, T, data)), CALLS.values()))
    assert found == wanted
