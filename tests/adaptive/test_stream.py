"""AdaptiveFilterStream against the dense sums and against adaptive_filter at the newest time."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest

from afafilter import IMQ, AdaptiveFilterStream, LinearSDE, StudentT, adaptive_filter
from tests.adaptive.test_linear_time import MODELS, data, dense_afa, diagonal
from tests.conftest import draw_data, irregular_times

TURN = LinearSDE.isotropic(0.1, 2.0, process_var=0.3, obs_var=0.5)
UNEQUAL = LinearSDE(
    [[-0.3, 1.0], [-1.0, -0.1]],
    Q=[[0.4, 0.1], [0.1, 0.2]],
    R=[[0.5, 0.1], [0.1, 0.3]],
    drift=[0.2, -0.1],
    offset=[1.0, 2.0],
    delay=0.05,
)
WIDE = LinearSDE([[0.0, 1.0], [0.0, 0.0]], Q=np.diag([0.0, 0.5]), R=[[0.2]], C=[[1.0, 0.0]])
WINDOW = 6


def series(model, n=30):
    t = irregular_times(n) + 100.0
    t[8] = t[7]
    z = draw_data(model, t)
    z[11] += 15.0
    return t, z


def last(model, t, z, **options):
    """adaptive_filter at the newest of the times, query_times apart."""
    found = adaptive_filter(model, t, z, window=WINDOW, **options)
    return found.mean[-1], found.cov[-1]


def parts(found):
    """Mean (d,) and covariance (d, d) of an estimate of one time."""
    return found.mean[0], found.cov[0]


def near(found, wanted):
    for a, b in zip(parts(found), wanted, strict=True):
        size = np.abs(b[np.isfinite(b)]).max(initial=1.0)
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * size)


@pytest.mark.parametrize(
    "options",
    [
        {"weight": StudentT(4.0)},
        {"weight": IMQ(2.0), "anchor": "estimate", "iterations": 5},
        {"weight": StudentT(4.0), "anchor": "prediction"},
        {"weight": StudentT(4.0), "correlation": "exact", "anchor": "prediction"},
        {"weight": None},
    ],
    ids=["paper", "estimate", "prediction", "exact", "plain"],
)
@pytest.mark.parametrize("model", [TURN, UNEQUAL, WIDE], ids=["turn", "unequal", "wide"])
def test_a_window_gives_the_numbers_of_adaptive_filter(model, options):
    t, z = series(model)
    z[13] = z[14] = z[29] = np.nan
    stream = AdaptiveFilterStream(model, window=WINDOW, **options)
    for k in range(len(t)):
        found = stream.update(t[k], z[k])
        if k in (0, 1, 3, 6, 7, 8, 12, 13, 14, 15, 28, 29):
            near(found, last(model, t[: k + 1], z[: k + 1], **options))
    ahead = t[-1] + 0.7
    near(stream.predict(ahead), last(model, t, z, query_times=[ahead], **options))
    assert stream.t == t[-1]


def test_components_that_are_missing():
    t, z = series(UNEQUAL)
    z[5, 0] = z[12, 1] = z[20, 0] = np.nan
    stream = AdaptiveFilterStream(UNEQUAL, weight=StudentT(4.0), window=WINDOW, anchor_var=0.2)
    for k in range(len(t)):
        found = stream.update(t[k], z[k])
        wanted = last(
            UNEQUAL, t[: k + 1], z[: k + 1], weight=StudentT(4.0), anchor_cov=0.2 * np.eye(2)
        )
        if k in (4, 5, 6, 12, 17, 18, 20, 29):
            near(found, wanted)
    # A window as long as the series is no window.
    long = AdaptiveFilterStream(UNEQUAL, weight=StudentT(4.0), window=1000)
    for k in range(len(t)):
        found = long.update(t[k], z[k])
    whole = adaptive_filter(UNEQUAL, t, z, weight=StudentT(4.0))
    near(found, (whole.mean[-1], whole.cov[-1]))


@pytest.mark.parametrize("name", MODELS)
def test_plain_weights_are_the_dense_sums(name):
    model = MODELS[name]
    t, z = data(model)
    stream = AdaptiveFilterStream(model, anchor_var=0.1)
    mean, var = dense_afa(model, t, z, t, np.arange(1, len(t) + 1), gamma2=0.1)
    assert np.isnan(stream.predict(0.0).mean).all()
    for k in range(len(t)):
        x, cov = parts(stream.update(t[k], z[k]))
        np.testing.assert_allclose(x, mean[k], rtol=1e-9, atol=1e-8)
        np.testing.assert_allclose(cov, diagonal(var[k], model.dim), rtol=1e-9)
    ahead = t[-1] + np.array([0.5, 4.0])
    mean, var = dense_afa(model, t, z, ahead, [len(t)] * 2, gamma2=0.1)
    for k in (1, 0):
        x, cov = parts(stream.predict(ahead[k]))
        np.testing.assert_allclose(x, mean[k], rtol=1e-9, atol=1e-8)
        np.testing.assert_allclose(cov[0, 0], var[k], rtol=1e-9)


def test_its_phase_is_kept_over_a_long_life():
    """Frames are renewed: after 1e5 radians a pure rotation still comes back exactly."""
    model = LinearSDE.isotropic(0.05, 7.0, process_var=1e-3, obs_var=1e-3)
    stream = AdaptiveFilterStream(model)
    for k in range(3000):
        t = 5.0 * k
        amplitude = np.exp(-0.05 * t)
        x, _ = parts(stream.update(t, amplitude * np.array([np.cos(7.0 * t), np.sin(7.0 * t)])))
    np.testing.assert_allclose(x, amplitude * np.array([np.cos(7 * t), np.sin(7 * t)]), atol=1e-300)
    stream = AdaptiveFilterStream(LinearSDE.isotropic(0.0, 7.0, process_var=0.0, obs_var=1.0))
    for k in range(3000):
        x, _ = parts(stream.update(5.0 * k, [np.cos(35.0 * k), np.sin(35.0 * k)]))
    np.testing.assert_allclose(x, [np.cos(35.0 * k), np.sin(35.0 * k)], atol=1e-10)


@pytest.mark.parametrize("count", [0, 1, 9, 15])
@pytest.mark.parametrize(
    ("model", "options"),
    [
        (TURN, {}),
        (MODELS["no decay"], {"horizon": 100.0}),
        (UNEQUAL, {"weight": StudentT(4.0), "window": WINDOW, "anchor": "prediction"}),
    ],
    ids=["plain", "no decay", "robust"],
)
def test_saved_and_restored_it_goes_on(model, options, count):
    t, z = series(model, 20)
    if "window" in options:
        z[5, 0] = z[8, 1] = np.nan
    whole = AdaptiveFilterStream(model, **options)
    wanted = [whole.update(t[k], z[k]) for k in range(20)][count:]
    first = AdaptiveFilterStream(model, **options)
    for k in range(count):
        first.update(t[k], z[k])
    file = io.BytesIO()
    np.savez(file, **first.state())
    file.seek(0)
    text = json.dumps({name: value.tolist() for name, value in first.state().items()})
    for kept in (np.load(file, allow_pickle=False), json.loads(text)):
        again = AdaptiveFilterStream.from_state(model, kept, **options)
        for k, (mean, cov) in zip(range(count, 20), map(parts, wanted), strict=True):
            x, P = parts(again.update(t[k], z[k]))
            np.testing.assert_array_equal(x, mean)
            np.testing.assert_array_equal(P, cov)


def test_what_is_refused_leaves_the_stream_as_it_was():
    plain = AdaptiveFilterStream(TURN)
    robust = AdaptiveFilterStream(TURN, weight="student_t", window=3)
    for stream in (plain, robust):
        stream.update(1.0, [0.5, 1.0])
        before = stream.state()
        for t, z, said in (
            (0.5, [0.0, 0.0], "must not lie before"),
            (np.nan, [0.0, 0.0], "t must be"),
            (2.0, [0.0, 0.0, 0.0], "shape"),
            (2.0, [np.inf, 0.0], "infinit"),
        ):
            with pytest.raises(ValueError, match=said):
                stream.update(t, z)
        for name, value in stream.state().items():
            np.testing.assert_array_equal(value, before[name])
    with pytest.raises(ValueError, match="missing in part"):
        plain.update(2.0, [0.0, np.nan])
    drifting = AdaptiveFilterStream(MODELS["no decay"], horizon=10.0)
    drifting.update(0.0, np.zeros(3))
    with pytest.raises(ValueError, match="horizon"):
        drifting.predict(11.0)
    with pytest.raises(ValueError, match="error bound"):
        AdaptiveFilterStream(
            LinearSDE.isotropic(0.1, 1.0, process_var=2e-11, obs_var=1.0), horizon=400.0
        )
    with pytest.raises(ValueError, match="window=100"):
        AdaptiveFilterStream(TURN, weight=StudentT(4.0))
    with pytest.raises(ValueError, match="horizon has no use"):
        AdaptiveFilterStream(TURN, window=4, horizon=10.0)
    with pytest.raises(ValueError, match="another model or other options"):
        AdaptiveFilterStream.from_state(TURN, before, weight=StudentT(4.0), window=4)
    with pytest.raises(ValueError, match="another model"):
        AdaptiveFilterStream.from_state(
            replace(TURN, R=2 * np.eye(2)), before, weight=StudentT(4.0), window=3
        )
    with pytest.raises(ValueError, match="'t' and 'z' must have one length"):
        AdaptiveFilterStream.from_state(
            TURN, {**before, "z": np.zeros((2, 2))}, weight=StudentT(4.0), window=3
        )
