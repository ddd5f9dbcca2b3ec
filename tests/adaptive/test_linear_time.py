"""Linear-time AFA against the dense formula, written out here, and against mpmath."""

from __future__ import annotations

import warnings

import mpmath as mp
import numpy as np
import pytest

from afafilter import (
    LinearSDE,
    adaptive_filter,
    adaptive_smoother,
    linear_time_filter,
    ornstein_uhlenbeck,
    separable_weights,
    spiral,
    state_space_layer,
)
from afafilter._base.doubts import LostDigits
from afafilter.adaptive.linear_time.bank import isotropic_parameters
from afafilter.adaptive.linear_time.filter import linear_time_estimate
from afafilter.adaptive.linear_time.sums import plain_weights_exponentials


def dense_afa(model, t, z, queries, visible, *, gamma2=0.0, two_sided=False):
    """Plain AFA by the formula of the paper: N x N weights in log form, exact rotations."""
    mu = -np.trace(model.A) / model.dim
    s2, e2 = model.Q[0, 0], model.R[0, 0]
    rest = np.linalg.solve(model.A, -model.drift) if model.drift.any() else np.zeros(model.dim)
    rates, planes = np.linalg.eigh(-1j * (model.A + mu * np.eye(model.dim)))
    present = ~np.isnan(z).all(-1)
    mean, var = np.full((len(queries), model.dim), np.nan), np.full(len(queries), np.inf)
    for i, (tq, seen) in enumerate(zip(queries, visible, strict=True)):
        use = present & (np.arange(len(t)) < (len(t) if two_sided else seen))
        if not use.any():
            continue
        past = (np.arange(len(t)) < seen)[use]
        tau = tq - t[use] + model.delay
        lag = np.abs(tau)
        V = s2 * lag if mu == 0 else s2 * -np.expm1(-2 * mu * lag) / (2 * mu)
        E2 = np.exp(-2 * mu * lag)
        if s2 == gamma2 == 0:
            causal = 2 * mu * lag - np.log(e2)
        else:
            causal = -np.log(V + e2 * E2 + gamma2)
        log_weight = np.where(past, causal, -2 * mu * lag - np.log(V + e2 + gamma2 * E2))
        turned = (z[use] - model.offset - rest) @ planes.conj() * np.exp(1j * np.outer(tau, rates))
        top = log_weight.max()
        total = np.exp(log_weight - top).sum()
        mean[i] = rest + (np.exp(log_weight - mu * tau - top) @ turned @ planes.T).real / total
        var[i] = np.exp(-top) / total
    return mean, var


def diagonal(variance, d):
    return np.where(np.eye(d, dtype=bool), np.asarray(variance)[..., None, None], 0.0)


def variances(r, mu):
    """sigma^2 and eta^2 with sigma^2/(2 mu) = 1 and the wanted r (gamma = 0)."""
    return 2 * mu, 1.0 + r


@pytest.mark.parametrize("mu", [0.02, 3.0])
@pytest.mark.parametrize("r", [-0.9999, -0.99, -0.5, -0.3, 0.2, 1.0, 4.0, 10.0])
def test_weights_reach_1e9_of_mpmath_and_say_so(r, mu):
    s2, e2 = variances(r, mu)
    found = plain_weights_exponentials(mu, s2, e2)
    assert found.bound <= 2e-10
    assert found.n_terms <= 60
    tau = np.concatenate([[0.0], np.geomspace(1e-8, 1e4, 400)]) / mu
    with mp.workdps(40):
        var = [
            mp.mpf(e2) * mp.exp(-2 * mp.mpf(mu) * x)
            - mp.mpf(s2) * mp.expm1(-2 * mp.mpf(mu) * x) / (2 * mp.mpf(mu))
            for x in map(mp.mpf, tau)
        ]
        exact = np.array([float(1 / v) for v in var])
    assert np.abs(found(tau) / exact - 1).max() <= found.bound + 1e-14


@pytest.mark.parametrize("side", ["causal", "acausal"])
@pytest.mark.parametrize(("mu", "horizon"), [(0.0, 1e5), (1e-9, 1e5), (1e-4, 3e3), (0.3, 0.01)])
def test_small_decay_needs_a_horizon_and_holds_on_it(mu, horizon, side):
    found = plain_weights_exponentials(mu, 0.5, 0.2, 0.1, horizon=horizon, side=side)
    tau = np.concatenate([[0.0], np.geomspace(1e-6, 1, 500) * horizon])
    fade, stay = (0.2, 0.1) if side == "causal" else (0.1, 0.2)
    V = 0.5 * (tau if mu == 0 else -np.expm1(-2 * mu * tau) / (2 * mu))
    exact = 1 / (V + fade * np.exp(-2 * mu * tau) + stay)
    assert found.bound <= 2e-10
    assert np.abs(found(tau) / exact - 1).max() <= found.bound + 1e-14


@pytest.mark.parametrize(("r", "worst"), [(100.0, 1e-8), (1e3, 2.5e-7), (1e6, 4e-3)])
def test_hard_cases_report_an_honest_bound(r, worst):
    s2, e2 = variances(r, 0.5)
    found = plain_weights_exponentials(0.5, s2, e2)
    tau = np.linspace(0, 60, 7001)
    error = np.abs(found(tau) * (1 + r * np.exp(-tau)) - 1).max()
    assert 2e-10 < found.bound <= worst
    assert error <= found.bound
    near = plain_weights_exponentials(0.5, s2, e2, horizon=4.0)  # a short horizon is easy again
    assert near.bound <= 2e-9


MODELS = {
    "spiral": LinearSDE.isotropic(0.1, 1.0, process_var=0.3, obs_var=0.5),
    "integrative": LinearSDE.isotropic(0.2, [0.5, -2.0], process_var=0.05, obs_var=1.0),
    "no decay": LinearSDE.isotropic(0.0, 1.5, process_var=0.2, obs_var=0.7, dim=3),
    "no process noise": LinearSDE.isotropic(0.3, 0.7, process_var=0.0, obs_var=0.7),
    "no noise, no decay": LinearSDE.isotropic(0.0, 0.7, process_var=0.0, obs_var=0.7),
    "scalar": LinearSDE([[-0.4]], Q=[[0.9]], R=[[0.2]], drift=[0.3], offset=[-0.2]),
}


def _general():
    rng = np.random.default_rng(3)
    U = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    S = np.zeros((5, 5))
    S[0, 1], S[1, 0], S[2, 3], S[3, 2] = -1.0, 1.0, -0.3, 0.3
    return LinearSDE(
        U @ (S - 0.15 * np.eye(5)) @ U.T,
        Q=0.4 * np.eye(5),
        R=0.3 * np.eye(5),
        drift=rng.standard_normal(5),
        offset=rng.standard_normal(5),
        delay=0.4,
    )


MODELS["rotated basis, drift, offset, delay"] = _general()


def data(model, n=70, seed=5):
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.exponential(0.3, n)) + 100.0
    t[20:23] = t[20]
    t[50:] += 9.0
    z = rng.standard_normal((n, model.dim)) + 2.0
    z[[0, 7, 8, 33]] = np.nan
    return t, z


@pytest.mark.parametrize("gamma2", [0.0, 0.15])
@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_equals_dense_formula(name, two_sided, gamma2):
    model = MODELS[name]
    t, z = data(model)
    found = linear_time_filter(model, t, z, two_sided=two_sided, anchor_var=gamma2, method="linear")
    if two_sided and model.delay:
        visible = np.searchsorted(t - model.delay, t, side="right")
    else:
        visible = np.arange(1, len(t) + 1)
    mean, var = dense_afa(model, t, z, t, visible, gamma2=gamma2, two_sided=two_sided)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-9, atol=1e-9 * np.nanmax(np.abs(mean)))
    np.testing.assert_allclose(found.cov, diagonal(var, model.dim), rtol=1e-9)
    assert found.info["error_bound"] <= 1e-9
    assert np.isnan(found.mean[0]).all() == (not two_sided)


@pytest.mark.parametrize("two_sided", [False, True])
def test_query_times_before_between_and_after(two_sided):
    model = MODELS["spiral"]
    t, z = data(model)
    queries = np.sort(np.concatenate([np.linspace(t[0] - 2, t[-1] + 3, 40), t[20:22]]))
    found = linear_time_filter(model, t, z, two_sided=two_sided, query_times=queries)
    visible = np.searchsorted(t, queries, side="right")
    mean, var = dense_afa(model, t, z, queries, visible, two_sided=two_sided)
    np.testing.assert_array_equal(found.t, queries)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.cov[:, 0, 0], var, rtol=1e-9)


@pytest.mark.parametrize("two_sided", [False, True])
def test_a_long_record_against_the_dense_formula_on_a_subset(two_sided):
    """Several blocks, 1e4 radians, r = -0.9999: still 1e-9."""
    model = LinearSDE.isotropic(0.002, 5.0, process_var=4e-3, obs_var=1e-4)
    rng = np.random.default_rng(4)
    t = np.cumsum(rng.exponential(0.1, 20_000))
    z = rng.standard_normal((20_000, 2))
    found = linear_time_estimate(model, t, z, two_sided=two_sided)
    assert found.method == "linear"
    some = np.sort(rng.choice(20_000, 30, replace=False))
    mean, var = dense_afa(model, t, z, t[some], some + 1, two_sided=two_sided)
    np.testing.assert_allclose(found.mean[some], mean, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.variance[some], var, rtol=1e-9)


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("dim", [2, 5])
def test_fft_equals_dense_formula(two_sided, dim):
    model = LinearSDE.isotropic(0.1, 0.9, process_var=0.3, obs_var=0.5, dim=dim)
    rng = np.random.default_rng(1)
    t = 3.0 + 0.2 * np.arange(90)
    z = rng.standard_normal((90, dim))
    z[:3] = z[40] = np.nan
    found = linear_time_filter(model, t, z, two_sided=two_sided, anchor_var=0.1, method="fft")
    mean, var = dense_afa(model, t, z, t, np.arange(1, 91), gamma2=0.1, two_sided=two_sided)
    np.testing.assert_allclose(found.mean, mean, rtol=0, atol=1e-11)
    np.testing.assert_allclose(found.cov[:, 0, 0], var, rtol=1e-11)
    assert found.info["error_bound"] < 1e-11


def test_auto_takes_the_fft_where_exponentials_miss_the_tolerance():
    model = LinearSDE.isotropic(0.5, 1.0, process_var=1.0, obs_var=1001.0)
    t = 0.05 * np.arange(1200)
    z = np.random.default_rng(0).standard_normal((1200, 2))
    linear = linear_time_estimate(model, t, z, method="linear")
    assert linear.error_bound > 1e-9
    found = linear_time_estimate(model, t, z)
    assert found.method == "fft"
    assert found.error_bound <= 1e-9
    np.testing.assert_allclose(linear.mean, found.mean, atol=linear.error_bound)
    assert linear_time_estimate(model, t + 1e-4 * z[:, 0].clip(0, 1).cumsum(), z).method == "linear"


@pytest.mark.parametrize("name", ["no process noise", "spiral"])
def test_long_records_do_not_overflow(name):
    """|Re lambda| T = 1e4: early observations dominate or vanish, nothing overflows."""
    model = MODELS[name]
    t = np.linspace(0, 1e4 / -model.A[0, 0], 60)
    z = np.random.default_rng(2).standard_normal((60, 2))
    for two_sided in (False, True):
        found = linear_time_filter(model, t, z, two_sided=two_sided)
        mean, var = dense_afa(model, t, z, t, np.arange(1, 61), two_sided=two_sided)
        np.testing.assert_allclose(found.mean, mean, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found.cov[:, 0, 0], var, rtol=1e-8)


def test_paths_with_their_own_missing_rows():
    model = MODELS["spiral"]
    rng = np.random.default_rng(9)
    t = np.cumsum(rng.exponential(0.3, 30))
    z = rng.standard_normal((2, 3, 30, 2))
    z[0, 1, :4] = z[1, 2, 10] = np.nan
    found = linear_time_filter(model, t, z)
    assert found.mean.shape == (2, 3, 30, 2)
    assert found.cov.shape == (2, 3, 30, 2, 2)
    for index in np.ndindex(2, 3):
        mean, var = dense_afa(model, t, z[index], t, np.arange(1, 31))
        np.testing.assert_allclose(found.mean[index], mean, atol=1e-9)
        np.testing.assert_allclose(found.cov[index][:, 0, 0], var, rtol=1e-9)


@pytest.mark.parametrize("name", ["spiral", "integrative", "rotated basis, drift, offset, delay"])
def test_blocks_hand_over_without_a_seam(name, monkeypatch):
    model = MODELS[name]
    t, z = data(model)
    queries = np.sort(np.concatenate([t, np.linspace(t[30], t[-1] + 1, 11)]))
    for options in ({}, {"query_times": queries}, {"query_times": queries[-2:], "two_sided": True}):
        whole = linear_time_filter(model, t, z, **options)
        monkeypatch.setattr("afafilter.adaptive.linear_time.bank.BLOCK", 4)
        pieces = linear_time_filter(model, t, z, **options)
        monkeypatch.undo()
        np.testing.assert_allclose(pieces.mean, whole.mean, rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(pieces.cov, whole.cov, rtol=1e-11)


def test_separable_form_is_the_papers_and_its_recursion_is_close():
    mu, s2, e2, gamma2 = 0.1, 0.3, 0.5, 0.2
    steady = s2 / (2 * mu) + gamma2
    a = (e2 - s2 / (2 * mu)) / steady
    tau = np.linspace(0, 50, 4001)
    x = 2 * mu * tau
    found = separable_weights(mu, s2, e2, gamma2)
    np.testing.assert_allclose(
        found(tau), (1 - a / (1 + a) * np.exp(-x / (1 + a))) / steady, rtol=1e-13
    )
    error = np.abs((1 - a / (1 + a) * np.exp(-x / (1 + a))) * (1 + a * np.exp(-x)) - 1).max()
    assert error <= found.bound <= 1.01 * error
    assert found.n_terms == 2
    model = LinearSDE.isotropic(mu, 1.0, process_var=s2, obs_var=e2)
    t = 0.1 * np.arange(200)
    z = np.random.default_rng(0).standard_normal((200, 2))
    recursive = linear_time_estimate(model, t, z, anchor_var=gamma2, weights=found)
    exact = dense_afa(model, t, z, t, np.arange(1, 201), gamma2=gamma2)
    assert recursive.error_bound == 2 * found.bound
    assert np.abs(recursive.variance / exact[1] - 1).max() <= found.bound / (1 - found.bound)
    assert np.abs(recursive.mean - exact[0]).max() > 1e-6  # it is an approximation


@pytest.mark.parametrize("a", [0.01, 0.1, -0.1])
def test_separable_error_is_second_order_in_a(a):
    """1/(1 + a y) and the two-term form differ first at a^2, where y = e^-x."""
    halved = separable_weights(0.5, 1.0, 1 + a / 2).bound
    assert separable_weights(0.5, 1.0, 1 + a).bound / halved == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("name", ["spiral", "integrative", "rotated basis, drift, offset, delay"])
def test_state_space_layer_has_afas_kernels(name):
    model = MODELS[name]
    layer = state_space_layer(model, anchor_var=0.1)
    mu, s2, e2 = -np.trace(model.A) / model.dim, model.Q[0, 0], model.R[0, 0]
    tau = np.linspace(0, 30, 61)
    E = np.exp(-mu * tau)
    Sig = s2 * (1 - E**2) / (2 * mu) + e2 * E**2 + 0.1
    num, den = layer.kernel(tau)
    np.testing.assert_allclose(den, 1 / Sig, rtol=1e-9)
    p = isotropic_parameters(model)
    for c, w in enumerate(p.frequency):
        np.testing.assert_allclose(num[:, c], E * np.exp(1j * w * tau) / Sig, rtol=1e-9)
    assert (layer.poles.real <= 0).all()
    assert (
        layer.poles.shape
        == layer.B.shape
        == layer.C.shape
        == (-(-model.dim // 2), layer.poles.shape[1])
    )


def test_state_space_layer_as_a_recurrence_is_afa():
    model = MODELS["spiral"]
    t, z = data(model)
    z = np.where(np.isnan(z), 0.5, z)
    layer = state_space_layer(model)
    state, weight = np.zeros_like(layer.poles), np.zeros_like(layer.denominator_poles)
    out = []
    for k, step in enumerate(np.diff(t, prepend=t[0])):
        turn, fade = layer.discretize(step)
        state = turn * state + layer.B * (z[k, 0] + 1j * z[k, 1])
        weight = fade * weight + 1.0
        out.append((layer.C * state).sum() / (layer.denominator_C @ weight).real)
    mean, _ = dense_afa(model, t, z, t, np.arange(1, len(t) + 1))
    np.testing.assert_allclose(out, mean[:, 0] + 1j * mean[:, 1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plain_weights_exponentials(-1, 1, 1), "decay must be >= 0"),
        (lambda: plain_weights_exponentials(1, 1, 0), r"obs_var \+ anchor_var must be > 0"),
        (lambda: plain_weights_exponentials(0, 1, 1), "horizon must be finite"),
        (lambda: plain_weights_exponentials(1, 1, 1, horizon=np.nan), "horizon"),
        (lambda: plain_weights_exponentials(1, 1, 1, side="left"), "side must be one of"),
        (lambda: separable_weights(0, 1, 1), "decay must be > 0"),
        (lambda: separable_weights(1, 0, 1), "separable"),
    ],
)
def test_bad_weights(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bad_input():
    model = MODELS["spiral"]
    t, z = data(model)
    with pytest.raises(ValueError, match="missing in part"):
        linear_time_filter(model, t, np.where(np.arange(2) == 1, np.nan, z))
    with pytest.raises(ValueError, match="isotropic"):
        linear_time_filter(LinearSDE(np.diag([-1.0, -2.0]), Q=np.eye(2), R=np.eye(2)), t, z)
    with pytest.raises(TypeError, match="LinearSDE"):
        linear_time_filter(None, t, z)
    with pytest.raises(ValueError, match="equally spaced"):
        linear_time_filter(model, t, z, method="fft")
    with pytest.raises(ValueError, match="overflow"):
        linear_time_filter(MODELS["no process noise"], 50.0 * np.arange(len(t)), z, method="fft")
    with pytest.raises(ValueError, match="method must be one of"):
        linear_time_filter(model, t, z, method="quick")
    with pytest.raises(TypeError, match=r"linear_time_filter.*window"):
        linear_time_filter(model, t, z, window=3)
    short = plain_weights_exponentials(0.1, 0.3, 0.5, horizon=1.0)
    with pytest.raises(ValueError, match="hold up to lag"):
        linear_time_filter(model, t, z, weights=short)
    with pytest.raises(ValueError, match="two_sided"):
        linear_time_filter(model, t, z, weights=separable_weights(0.1, 0.3, 0.5), two_sided=True)


def test_queries_far_beyond_the_data_agree_with_the_tiles():
    model = spiral(decay=0.1, process_var=0.3, obs_var=0.5)
    rng = np.random.default_rng(3)
    t, z = np.cumsum(rng.exponential(0.1, 4200)), rng.standard_normal((4200, 2))
    for queries in ([-600.0, 3.0], [200.0, 460.0, 900.0, 1e6], [-60.0, -5.0, 2000.0]):
        got = linear_time_estimate(model, t, z, two_sided=True, query_times=queries)
        tiles = adaptive_smoother(model, t, z, query_times=queries, method="isotropic")
        np.testing.assert_allclose(got.mean, tiles.mean, rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(got.variance, tiles.cov[:, 0, 0], rtol=1e-7)


def test_queries_so_early_that_no_weight_is_left_are_unknown_without_a_warning():
    model = spiral(decay=0.1, process_var=0.3, obs_var=0.5)
    t, z = np.arange(50.0), np.ones((50, 2))
    with np.errstate(all="raise", under="ignore"):
        got = linear_time_estimate(model, t, z, two_sided=True, query_times=[-1e5, 3.0])
    assert np.isnan(got.mean[0]).all()
    assert got.variance[0] == np.inf
    assert np.isfinite(got.mean[1]).all()


def test_weights_that_no_sum_of_exponentials_reaches():
    model = spiral(decay=0.1, process_var=2e-11, obs_var=1.0)
    rng = np.random.default_rng(0)
    t, z = np.cumsum(rng.exponential(0.1, 4100)), rng.standard_normal((4100, 2))
    with pytest.raises(ValueError, match=r"error bound .*method='isotropic'"):
        linear_time_estimate(model, t, z)
    fallen_back = adaptive_filter(model, t, z)
    assert fallen_back.info["method"] == "isotropic"
    assert (fallen_back.cov[:, 0, 0] > 0).all()


@pytest.mark.parametrize("late", [400.0, 900.0])
@pytest.mark.parametrize("method", ["linear", "isotropic"])
def test_rows_without_data_long_before_the_first_observation(method, late):
    """Without process noise weights grow with the lag: they are counted from the first one."""
    model, t = spiral(decay=1.0, process_var=0.0, obs_var=0.5), np.array([0.0, late, late + 1.0])
    z = np.array([[np.nan, np.nan], [0.7, -0.2], [0.3, 0.1]])
    found = adaptive_filter(model, t, z, method=method)
    wanted = adaptive_filter(model, t[1:], z[1:], method="dense")
    np.testing.assert_allclose(found.mean[1:], wanted.mean, rtol=1e-9)
    np.testing.assert_allclose(found.cov[1:], wanted.cov, rtol=1e-9, atol=1e-15)
    both = adaptive_smoother(model, t, z, method=method)
    wanted = adaptive_smoother(model, t[1:], z[1:], method="dense")
    np.testing.assert_allclose(both.mean[1:], wanted.mean, rtol=1e-9)
    assert np.isnan(both.mean[0]).all()  # a variance of e^800, above the largest number
    assert np.isinf(both.cov[0, 0, 0])


@pytest.mark.parametrize("late", [100.0, 300.0])
def test_what_lies_many_decays_before_the_data(late):
    """x(0) = e^{mu late} z, from noise of the variance R + sigma^2 / (2 mu)."""
    model, t = ornstein_uhlenbeck(rate=0.7, process_var=1.0, obs_var=1e-6), np.array([0.0, late])
    found = adaptive_smoother(model, t, np.array([[np.nan], [0.7]]), method="linear")
    growth = np.exp(0.7 * late)
    np.testing.assert_allclose(found.mean[0, 0], 0.7 * growth, rtol=1e-9)
    np.testing.assert_allclose(found.cov[0, 0, 0], growth**2 * (1e-6 + 1 / 1.4), rtol=1e-9)


@pytest.mark.parametrize("process_var", [1e-6, 3e-7])
def test_a_rough_sum_of_exponentials_is_said(process_var):
    model = ornstein_uhlenbeck(rate=0.7, process_var=process_var, obs_var=4.0)
    t, z = np.array([0.0, 400.0, 401.0]), np.array([[3.0], [-0.7], [1.3]])
    with pytest.warns(LostDigits, match="use method='isotropic'"):
        adaptive_filter(model, t, z, method="linear")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adaptive_filter(model, t, z, method="isotropic")
        loud = ornstein_uhlenbeck(rate=0.7, process_var=1.0, obs_var=4.0)
        adaptive_filter(loud, t, z, method="linear")
