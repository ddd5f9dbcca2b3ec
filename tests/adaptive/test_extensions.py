"""Structured noise, forecasts, banks, gate: each against mpmath or the dense formula."""

from __future__ import annotations

from dataclasses import replace

import mpmath as mp
import numpy as np
import pytest
from scipy.linalg import expm

from afafilter import (
    Estimate,
    LinearSDE,
    Prior,
    StructuredNoise,
    adaptive_filter,
    adaptive_forecast,
    confidence_gate,
    isotropic_attention,
    kalman_filter,
    simulate,
    spectral_bank,
    structured_adaptive_filter,
)
from afafilter.models.structured_noise import structured_covariance, structured_model
from afafilter.theory import calibrated

SEASON = StructuredNoise([1.0, 0.5 - 0.6j], [0.0, 1.7j], origin=0.4)
BURST = StructuredNoise([0.2, 1.5, 0.3 + 0.2j], [0.05, -2.0, -0.3 + 3j], origin=0.0)

MATRICES = {
    "scalar": (np.array([[-0.4]]), np.array([[0.7]])),
    "oscillator, singular Q": (np.array([[0.0, 1.0], [-4.0, -0.3]]), np.diag([0.0, 0.5])),
    "defective": (np.array([[-1.0, 1.0], [0.0, -1.0]]), np.diag([0.0, 1.0])),
    "unstable": (np.array([[0.3, 2.0], [-2.0, 0.3]]), np.eye(2)),
    "stiff": (np.array([[-1e3, 1.0], [0.0, -0.05]]), np.array([[500.0, 1.0], [1.0, 0.2]])),
    "integrated": (np.diag([1.0, 1.0], 1), np.diag([0.0, 0.0, 0.4])),
}


def model_of(name, **options):
    A, Q = MATRICES[name]
    return LinearSDE(A, Q=Q, R=0.3 * np.eye(len(A)), prior="diffuse", **options)


def exact(A, Q, noise, t0, t1):
    """V(t0, t1) in 50 digits: the linear system of vec V and the exponentials, one mpmath expm."""
    d = len(A)
    with mp.workdps(50):
        n = d * d
        J = len(noise.rates)
        big = mp.zeros(n + J, n + J)
        lyapunov = np.kron(A, np.eye(d)) + np.kron(np.eye(d), A)
        for i in range(n):
            for k in range(n):
                big[i, k] = mp.mpf(float(lyapunov[i, k]))
            for j in range(J):
                big[i, n + j] = mp.mpf(float(Q.ravel()[i]))
        for j in range(J):
            big[n + j, n + j] = mp.mpc(complex(noise.rates[j]))
        start = mp.zeros(n + J, 1)
        for j in range(J):
            g, c = mp.mpc(complex(noise.rates[j])), mp.mpc(complex(noise.amplitudes[j]))
            start[n + j] = c * mp.exp(g * (mp.mpf(t0) - mp.mpf(noise.origin)))
        tau = mp.mpf(t1) - mp.mpf(t0)
        steps = 1
        while mp.mnorm(big, 1) * tau / steps > 50:
            steps *= 2
        E = mp.expm(big * tau / steps)
        while steps > 1:
            E, steps = E * E, steps // 2
        end = E * start
        return np.array([float(mp.re(end[i])) for i in range(n)]).reshape(d, d)


@pytest.mark.parametrize("noise", [SEASON, BURST], ids=["season", "burst"])
@pytest.mark.parametrize("name", MATRICES)
def test_covariance_reaches_1e10_of_mpmath(name, noise):
    model = model_of(name)
    for t0, tau in [(0.1, 1e-6), (0.0, 0.37), (1.3, 9.0)]:
        V = structured_covariance(model, noise, t0, t0 + tau)
        want = exact(model.A, model.Q, noise, t0, t0 + tau)
        assert np.abs(V - want).max() <= 1e-10 * np.abs(want).max()
        assert np.linalg.eigvalsh(V)[0] >= -1e-14 * np.abs(V).max()


@pytest.mark.parametrize("name", MATRICES)
def test_covariances_compose(name):
    model = model_of(name)
    t0, t1, t2 = 0.3, 1.1, 6.0
    Phi, _, _ = model.transition(t2 - t1)
    parts = Phi @ structured_covariance(model, BURST, t0, t1) @ Phi.T + structured_covariance(
        model, BURST, t1, t2
    )
    whole = structured_covariance(model, BURST, t0, t2)
    assert np.abs(parts - whole).max() <= 1e-11 * np.abs(whole).max()


def test_constant_course_is_the_plain_model_and_shapes_broadcast():
    model = model_of("oscillator, singular Q")
    t = np.array([0.0, 0.5, 4.0])
    V = structured_covariance(model, StructuredNoise([2.0], [0.0]), 0.0, t[:, None] + [0.0, 1.0])
    assert V.shape == (3, 2, 2, 2)
    plain = replace(model, Q=2 * model.Q).transition(t[:, None] + [0.0, 1.0])[2]
    np.testing.assert_allclose(V, plain, rtol=1e-11, atol=1e-14)


def test_no_overflow_over_ten_thousand_decay_times():
    model = model_of("scalar")
    V = structured_covariance(model, SEASON, 0.0, 2.5e4)[0, 0]
    # steady response to q: Q Re sum c e^{g (t - origin)} / (2 mu + g)
    g, c = SEASON.rates, SEASON.amplitudes
    steady = 0.7 * (c * np.exp(g * (2.5e4 - 0.4)) / (0.8 + g)).sum().real
    assert pytest.approx(steady, rel=1e-9) == V


def test_structured_model_drives_simulator_and_kalman_filter():
    """Moments of simulated paths equal the covariance law; the filter is calibrated on them."""
    model = replace(model_of("scalar"), prior=Prior([1.0], [[0.0]]))
    t = np.array([0.0, 0.4, 1.1, 1.2, 3.0])
    discrete = structured_model(model, SEASON, t)
    paths = simulate(discrete, t, 30_000, rng=np.random.default_rng(0))
    var = structured_covariance(model, SEASON, 0.0, t[1:])[:, 0, 0]
    np.testing.assert_allclose(paths.x[:, 1:, 0].var(0), var, rtol=4.5 * np.sqrt(2 / 30_000))
    found = kalman_filter(discrete, paths.z)
    squared = (found.mean - paths.x)[:, 1:, 0] ** 2 / found.cov[..., 1:, 0, 0]
    np.testing.assert_allclose(squared.mean(0), 1.0, rtol=4.5 * np.sqrt(2 / 30_000))


def dense_structured(model, noise, t, z):
    d = model.dim
    C = np.linalg.inv(model.C)
    mean, cov = np.full((len(t), d), np.nan), np.zeros((len(t), d, d))
    for i in range(len(t)):
        top, total = np.zeros(d), np.zeros((d, d))
        for j in range(i + 1):
            if np.isnan(z[j]).any():
                continue
            tau = t[i] - t[j]
            Phi = expm(model.A * tau)
            V = exact(model.A, model.Q, noise, t[j], t[i]) if tau else 0.0
            P = np.linalg.inv(V + Phi @ C @ model.R @ C.T @ Phi.T)
            psi = np.linalg.solve(model.A, (Phi - np.eye(d)) @ model.drift)
            top, total = top + P @ (Phi @ C @ (z[j] - model.offset) + psi), total + P
        mean[i], cov[i] = np.linalg.solve(total, top), np.linalg.inv(total)
    return mean, cov


def test_structured_filter_equals_dense_formula():
    C = np.array([[1.0, 0.3], [-0.2, 2.0]])
    model = model_of("oscillator, singular Q", C=C, drift=[0.2, -0.1], offset=[1.0, 2.0])
    rng = np.random.default_rng(1)
    t = np.cumsum(rng.exponential(0.4, 6))
    t[4] = t[3]
    z = rng.standard_normal((2, 6, 2))
    z[:, 2] = np.nan
    found = structured_adaptive_filter(model, BURST, t, z)
    for path in range(2):
        mean, cov = dense_structured(model, BURST, t, z[path])
        np.testing.assert_allclose(found.mean[path], mean, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(found.cov[path], cov, rtol=1e-9)
    z[1, 0] = np.nan  # now the paths have weights of their own
    found = structured_adaptive_filter(model, BURST, t, z)
    assert np.isnan(found.mean[1, 0]).all()
    assert np.isinf(np.diag(found.cov[1, 0])).all()
    mean, _ = dense_structured(model, BURST, t[1:], z[1, 1:])
    np.testing.assert_allclose(found.mean[1, 1:], mean, rtol=1e-9, atol=1e-10)


def test_structured_filter_of_constant_course_is_adaptive_filter():
    model = LinearSDE.isotropic(0.1, 1.0, process_var=0.3, obs_var=0.5, prior="diffuse")
    t = np.cumsum(np.random.default_rng(2).exponential(0.3, 40))
    z = np.random.default_rng(3).standard_normal((40, 2))
    plain = adaptive_filter(model, t, z)
    found = structured_adaptive_filter(model, StructuredNoise([1.0], [0.0]), t, z)
    np.testing.assert_allclose(found.mean, plain.mean, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(found.cov, plain.cov, rtol=1e-8, atol=1e-12)


@pytest.mark.filterwarnings("ignore::afafilter._base.doubts.LostDigits")  # noise that rounds to 0
@pytest.mark.parametrize("end", [2.0, 5.0, 30.0, 80.0, 700.0])
@pytest.mark.parametrize("silent", [[0], [1], [0, 1]])
def test_structured_filter_of_modes_that_decay_apart(silent, end):
    """One fades without noise: its variance, e^{-10 end}, stands beside that of the other."""
    S, noise = np.array([[1.0, 0.3], [-0.4, 1.0]]), np.array([1.0, 1.0])
    noise[silent] = 0.0
    A = S @ np.diag([-5.0, -0.01]) @ np.linalg.inv(S)
    model = LinearSDE(A, Q=S @ np.diag(noise) @ S.T, R=np.diag([1.0, 4.0]), drift=[0.3, -0.1])
    t, z = np.array([0.0, 0.1, 0.5, end]), np.random.default_rng(0).standard_normal((4, 2))
    plain = adaptive_filter(model, t, z, method="dense")
    found = structured_adaptive_filter(model, StructuredNoise([1.0], [0.0]), t, z)
    np.testing.assert_allclose(found.mean, plain.mean, rtol=1e-9)
    np.testing.assert_allclose(found.cov, plain.cov, rtol=1e-9, atol=1e-12)


def test_negative_courses_are_refused_and_touching_zero_is_legal():
    model = model_of("scalar")
    structured_covariance(model, StructuredNoise([1.0, 1.0], [0.0, 2j]), 0.0, 50.0)
    with pytest.raises(ValueError, match="q must be >= 0"):
        structured_covariance(model, StructuredNoise([1.0, 1.0001], [0.0, 2j]), 0.0, 50.0)
    with pytest.raises(ValueError, match="q must be >= 0"):
        structured_covariance(model, StructuredNoise([1.0, -1.0], [-1.0, 0.0]), 0.0, 0.1)


# --- forecasts ------------------------------------------------------------------------------


def test_forecast_pulls_every_observation_to_the_horizon():
    model = LinearSDE(
        [[-0.3, 1.0], [-1.0, -0.1]],
        Q=[[0.4, 0.1], [0.1, 0.2]],
        R=[[0.5, 0.1], [0.1, 0.3]],
        drift=[0.2, 0.1],
    )
    rng = np.random.default_rng(4)
    t = np.cumsum(rng.exponential(0.5, 12))
    z = rng.standard_normal((12, 2))
    h = 0.8
    found = adaptive_forecast(model, t, z, h)
    np.testing.assert_allclose(found.t, t + h)
    for i in (0, 3, 11):
        top, total = np.zeros(2), np.zeros((2, 2))
        for j in range(i + 1):
            Phi, psi, V = model.transition(t[i] + h - t[j])
            P = np.linalg.inv(V + Phi @ model.R @ Phi.T)
            top, total = top + P @ (Phi @ z[j] + psi), total + P
        np.testing.assert_allclose(found.mean[i], np.linalg.solve(total, top), rtol=1e-8)
        np.testing.assert_allclose(found.cov[i], np.linalg.inv(total), rtol=1e-8)
    now = adaptive_filter(model, t, z)
    assert (np.trace(found.cov, axis1=1, axis2=2) > np.trace(now.cov, axis1=1, axis2=2)).all()
    np.testing.assert_allclose(adaptive_forecast(model, t, z, 0.0).mean, now.mean)
    last = adaptive_filter(model, t, z, query_times=[t[-1] + h])
    np.testing.assert_allclose(found.mean[-1], last.mean[0], rtol=1e-8)
    with pytest.raises(ValueError, match="horizon must be >= 0"):
        adaptive_forecast(model, t, z, -1.0)
    with pytest.raises(ValueError, match="query_times"):
        adaptive_forecast(model, t, z, 1.0, query_times=t)


# --- bank and gate --------------------------------------------------------------------------


def test_bank_couples_decay_to_the_fastest_rotation():
    bank = spectral_bank([[0.1, 0.2], [1.0, -3.0], [0.0, 0.0]], 0.25)
    np.testing.assert_allclose(bank.decay, [0.05, 0.75, 0.0])
    rng = np.random.default_rng(5)
    t = np.cumsum(rng.exponential(0.3, 30))
    q = rng.standard_normal((3, 30, 4))
    together = isotropic_attention(
        q, q, q, t, process_var=0.2, key_var=0.4, **bank._asdict()
    ).output
    for head, model in enumerate(bank.models(0.2, 0.4)):
        assert np.trace(model.A) == pytest.approx(-4 * bank.decay[head])
        alone = adaptive_filter(model, t, q[head], method="dense")
        np.testing.assert_allclose(together[head], alone.mean, rtol=1e-8, atol=1e-9)
    with pytest.raises(ValueError, match="shape"):
        spectral_bank([1.0, 2.0], 0.1)
    with pytest.raises(ValueError, match="ratio"):
        spectral_bank([[1.0]], -0.1)


def test_gate_mixes_by_evidence():
    t = np.arange(4.0)
    var = np.array([np.inf, 1.0, 0.25, 0.01])
    cov = np.where(np.eye(2, dtype=bool), var[:, None, None], 0.0)
    mean = np.array([[np.nan, np.nan], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    z = np.array([[5.0, 6.0], [3.0, 0.0], [3.0, np.nan], [3.0, 0.0]])
    out, gate = confidence_gate(Estimate(t, mean, cov), z, prior_precision=1.0, sharpness=2.0)
    np.testing.assert_allclose(gate, [0.0, 0.5, 16 / 17, 1e4 / (1e4 + 1)])
    g = 1e4 / (1e4 + 1)
    np.testing.assert_allclose(
        out, [[5, 6], [2, 1], [16 / 17 + 3 / 17, 2], [g + 3 * (1 - g), 2 * g]], rtol=1e-12
    )
    flat = confidence_gate(
        Estimate(
            t,
            mean,
            0 * cov[1] + np.zeros((4, 2, 2)),
        ),
        z,
        prior_precision=1.0,
        sharpness=0.0,
    )
    np.testing.assert_allclose(flat.gate, 0.5)
    with pytest.raises(ValueError, match="prior_precision"):
        confidence_gate(Estimate(t, mean, cov), z, prior_precision=0.0)
    with pytest.raises(ValueError, match="z must have shape"):
        confidence_gate(Estimate(t, mean, cov), z[:3], prior_precision=1.0)


def test_draws_of_the_latent_state_from_claimed_and_true_covariance():
    model = LinearSDE.isotropic(0.1, 1.0, process_var=0.3, obs_var=0.5, prior="diffuse")
    t = 0.1 * np.arange(30)
    truth = simulate(
        replace(model, prior=Prior([5.0, 0.0], np.zeros((2, 2)))),
        t,
        2000,
        rng=np.random.default_rng(6),
    )
    claimed = adaptive_filter(model, t, truth.z)
    true = calibrated(adaptive_filter)(model, t, truth.z)
    error = ((claimed.mean - truth.x)[:, -1] ** 2).mean()
    for estimate, honest in ((claimed, False), (true, True)):
        one = replace(estimate, mean=estimate.mean[0, -1:], cov=estimate.cov[0, -1:], t=t[-1:])
        draws = one.sample(20_000, np.random.default_rng(7))
        np.testing.assert_allclose(draws.mean(0)[0], one.mean[0], atol=0.05)
        ratio = draws.var(0).mean() / error
        assert (abs(ratio - 1) < 0.12) == honest  # the claim is overconfident, by a lot


# --- bad input ------------------------------------------------------------------------------


def test_bad_structured_input():
    model = model_of("scalar")
    with pytest.raises(ValueError, match="one shape"):
        StructuredNoise([1.0], [0.0, 1.0])
    with pytest.raises(ValueError, match="finite"):
        StructuredNoise([np.inf], [0.0])
    with pytest.raises(TypeError, match="complex numbers"):
        StructuredNoise(["a"], [0.0])
    with pytest.raises(ValueError, match="t1 must not be before t0"):
        structured_covariance(model, SEASON, 1.0, 0.0)
    with pytest.raises(ValueError, match="overflows"):
        structured_covariance(model, StructuredNoise([1.0], [1.0]), 0.0, 1e4)
    with pytest.raises(ValueError, match="stationary"):
        structured_model(replace(model, prior="stationary"), SEASON, [0.0, 1.0])
    t, z = np.arange(3.0), np.zeros((3, 2))
    partly = z.copy()
    partly[1, 0] = np.nan
    good = model_of("unstable")
    with pytest.raises(ValueError, match="in part"):
        structured_adaptive_filter(good, SEASON, t, partly)
    with pytest.raises(ValueError, match="delay"):
        structured_adaptive_filter(replace(good, delay=1.0), SEASON, t, z)
    with pytest.raises(ValueError, match="C must be invertible"):
        structured_adaptive_filter(replace(good, C=np.ones((2, 2))), SEASON, t, z)
    with pytest.raises(ValueError, match="R must be positive definite"):
        structured_adaptive_filter(replace(good, R=np.zeros((2, 2))), SEASON, t, z)
