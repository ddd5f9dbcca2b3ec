"""KalmanStream against kalman_filter on the same data."""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from afafilter import (
    IMQ,
    KalmanStream,
    LinearSDE,
    Prior,
    StudentT,
    brownian,
    forecast,
    kalman_filter,
    rts_smoother,
)
from tests.conftest import draw_data, irregular_times


def run(stream, t, z, **options):
    return [stream.update(t[k], z[k], **options) for k in range(len(t))]


def assert_same(found, wanted, atol=1e-12):
    seen = ~np.isnan(wanted.innovation)
    pair = seen[:, :, None] & seen[:, None, :]
    for name in ("mean", "cov", "innovation", "innovation_cov", "loglik_steps"):
        a = np.concatenate([getattr(one, name) for one in found])
        b = getattr(wanted, name)
        if name == "innovation_cov":
            a, b = a[pair], b[pair]
        size = np.abs(b[np.isfinite(b)]).max(initial=1.0)
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=atol * size, err_msg=name)


@pytest.mark.parametrize("flat", [False, True])
def test_equals_the_kalman_filter(model, t, z_missing, flat):
    own = replace(model, prior="diffuse") if flat else model
    stream, wanted = KalmanStream(own), kalman_filter(own, t, z_missing)
    assert_same(run(stream, t, z_missing), wanted, 1e-10 if flat else 1e-12)
    assert stream.loglik == pytest.approx(wanted.loglik, rel=1e-11)
    assert stream.t == t[-1]


@pytest.mark.parametrize(
    ("weight", "options"),
    [
        (IMQ(2.0), {}),
        (IMQ(2.0), {"metric": "innovation"}),
        (StudentT(4.0), {"anchor": "estimate"}),
    ],
)
def test_robust_weights_are_the_filters(model, t, z_missing, weight, options):
    z = z_missing.copy()
    z[6] += 20.0
    wanted = kalman_filter(model, t, z, weight=weight, **options)
    found = run(KalmanStream(model, weight=weight, **options), t, z)
    w = np.concatenate([one.info["robust_weights"] for one in found])
    np.testing.assert_allclose(w, wanted.info["robust_weights"], rtol=1e-8)
    assert_same(found, wanted, 1e-9)


def test_delay_prior_time_and_error_bars():
    t = irregular_times(12) + 3.0
    model = LinearSDE(
        [[-0.5, 1.0], [-1.0, -0.2]],
        Q=np.eye(2),
        R=[[0.5]],
        C=[[1.0, 0.0]],
        delay=0.3,
        prior=Prior([1.0, -1.0], np.eye(2), t0=1.0),
    )
    z = draw_data(model, t)
    bars = np.linspace(0.1, 2.0, 12)[:, None, None]
    stream = KalmanStream(model)
    found = [stream.update(t[k], z[k], obs_cov=bars[k]) for k in range(12)]
    assert_same(found, kalman_filter(model, t, z, obs_cov=bars))


def test_predict_is_the_filter_asked_later(model, t, z):
    own = replace(model, prior="diffuse")
    for count in (1, 12):
        stream = KalmanStream(own)
        run(stream, t[:count], z[:count])
        asked = t[count - 1] + 0.05
        found = stream.predict(asked)
        wanted = kalman_filter(own, t[:count], z[:count], query_times=[asked])
        np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(found.cov, wanted.cov, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("count", [0, 1, 6])
def test_saved_and_restored_it_goes_on(model, t, z, count):
    own = replace(model, prior="diffuse")
    whole, first = KalmanStream(own), KalmanStream(own)
    wanted = run(whole, t, z)[count:]
    run(first, t[:count], z[:count])
    file = io.BytesIO()
    np.savez(file, **first.state())
    file.seek(0)
    text = json.dumps({name: value.tolist() for name, value in first.state().items()})
    for kept in (np.load(file, allow_pickle=False), json.loads(text)):
        again = KalmanStream.from_state(own, kept)
        for one, same in zip(run(again, t[count:], z[count:]), wanted, strict=True):
            np.testing.assert_array_equal(one.mean, same.mean)
            np.testing.assert_array_equal(one.cov, same.cov)
        assert again.loglik == whole.loglik


def test_exact_measurements_from_a_flat_start():
    model = LinearSDE([[0.0]], Q=[[1.0]], R=[[0.0]])
    t, z = np.arange(4.0), np.array([[1.0], [3.0], [2.0], [2.5]])
    assert_same(run(KalmanStream(model), t, z), kalman_filter(model, t, z))


def test_what_is_refused_leaves_the_stream_as_it_was():
    model = LinearSDE([[-0.5]], Q=[[1.0]], R=[[1.0]])
    stream = KalmanStream(model)
    with pytest.raises(ValueError, match="no observation yet"):
        stream.predict(1.0)
    stream.update(1.0, 0.5)
    before = stream.state()
    for t, z, said in (
        (0.5, 1.0, "must not lie before"),
        (np.nan, 1.0, "t must be"),
        (2.0, np.inf, "infinite"),
        (2.0, [1.0, 2.0], "shape"),
    ):
        with pytest.raises(ValueError, match=said):
            stream.update(t, z)
    for name, value in stream.state().items():
        np.testing.assert_array_equal(value, before[name])
    with pytest.raises(ValueError, match="another model"):
        KalmanStream.from_state(replace(model, R=[[2.0]]), before)
    with pytest.raises(ValueError, match="no entry 'L'"):
        KalmanStream.from_state(model, {k: v for k, v in before.items() if k != "L"})
    with pytest.raises(TypeError, match="LinearSDE"):
        KalmanStream(model.discretize(np.arange(3.0)))


@pytest.mark.parametrize("first", [0, 1])
def test_exact_measurements_and_missing_ones_in_obs_cov(first):
    """A row of zeros is an exact measurement; NaN stands beside what is missing."""
    model = LinearSDE(
        [[0.0, 1.0], [0.0, 0.0]], Q=np.diag([0.0, 1.0]), R=np.eye(2), C=np.eye(2), prior="diffuse"
    )
    t, z = np.arange(3.0), np.array([[1.0, np.nan], [2.0, 0.5], [2.5, 0.1]])
    R = np.repeat(np.eye(2)[None], 3, axis=0)
    R[0, 1] = R[0, :, 1] = np.nan
    R[1] = np.diag([0.0, 1e-14])
    want, stream = (
        kalman_filter(model, t[first:], z[first:], obs_cov=R[first:]),
        KalmanStream(model),
    )
    for k in range(first, 3):
        found = stream.update(t[k], z[k], obs_cov=R[k])
    np.testing.assert_allclose(found.mean[-1], want.mean[-1], rtol=1e-12)
    np.testing.assert_allclose(found.cov[-1], want.cov[-1], rtol=1e-9, atol=1e-15)
    assert stream.loglik == pytest.approx(float(want.loglik), rel=1e-12)


def test_whole_numbers_that_floats_would_round_are_refused():
    stream = KalmanStream(LinearSDE([[0.0]], Q=[[1.0]], R=[[1.0]]))
    with pytest.raises(ValueError, match=r"t - t_first"):
        stream.update(1_700_000_000_000_000_100, 1.0)


@pytest.mark.parametrize(("t", "times"), [((20240131, 20240201, 20240202), 1), ((1, 2, 3), 0)])
def test_numbers_that_spell_dates_are_said_once(t, times):
    stream = KalmanStream(brownian(1.0, 0.5))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for now in t:
            stream.update(now, 1.0)
    assert ["spell dates" in str(w.message) for w in caught] == [True] * times


@pytest.mark.parametrize("idle", [{"anchor": "estimate"}, {"metric": "raw"}, {"iterations": 5}])
def test_options_of_a_weight_are_refused_without_one(idle: dict[str, Any]) -> None:
    model, t = brownian(1.0, 0.5), [0.0, 1.0]
    for use in (
        partial(kalman_filter, model, t, t),
        partial(rts_smoother, model, t, t),
        partial(forecast, model, t, t, horizon_times=[3.0]),
        partial(KalmanStream, model),
    ):
        with pytest.raises(ValueError, match="without a robust weight"):
            use(**idle)
