"""radial_kalman_filter against the Kalman filter where noise has no direction, and in its range."""

from __future__ import annotations

import numpy as np
import pytest

from afafilter import (
    LinearSDE,
    RadialTangentialSDE,
    adaptive_filter,
    kalman_filter,
    radial_kalman_filter,
    simulate,
)


def crossed(ratio):
    """Process noise st/sr = ratio, measurement noise the other way round, total strength fixed."""
    sr, er = 0.6 / (1 + ratio**2), 1.0 / (1 + ratio**-2)
    return RadialTangentialSDE(0.05, 1.0, sr, sr * ratio**2, er, er / ratio**2)


def ring(rng, n):
    angle = rng.uniform(0, 2 * np.pi, n)
    return 20.0 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


@pytest.mark.parametrize("dim", [2, 3, 5])
def test_without_direction_it_is_the_kalman_filter(dim):
    rng = np.random.default_rng(dim)
    model = RadialTangentialSDE(0.1, 0.8, 0.3, 0.3, 0.5, 0.5, dim=dim)
    t = np.cumsum(np.r_[0.0, rng.exponential(0.3, 19)])
    t[7] = t[6]
    z = 10 + rng.standard_normal((3, 20, dim))
    z[0, 4], z[1, 9, 1], z[2, 0] = np.nan, np.nan, np.nan
    linear = LinearSDE.isotropic(0.1, 0.8, process_var=0.3, obs_var=0.5, dim=dim, prior="diffuse")
    found, wanted = radial_kalman_filter(model, t, z), kalman_filter(linear, t, z)
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-11)
    np.testing.assert_allclose(found.cov, wanted.cov, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.innovation, wanted.innovation, rtol=1e-8, atol=1e-10)
    steps, same = found.loglik_steps.copy(), wanted.loglik_steps.copy()
    steps[2, 1] = same[2, 1] = 0.0  # flat at its first observation, not at t[0]
    np.testing.assert_allclose(steps, same, rtol=1e-9, atol=1e-10)


def test_one_step_is_that_of_the_definition():
    model = crossed(3.0)
    z = np.array([[10.0, 2.0], [9.0, 5.0]])
    found = radial_kalman_filter(model, [0.0, 0.5], z)

    def noise(across, along, u):
        return across * np.eye(2) + (along - across) * np.outer(u, u)

    u = z[0] / np.hypot(*z[0])
    P = noise(model.obs_tangential_var, model.obs_radial_var, u)
    np.testing.assert_allclose(found.cov[0], P, rtol=1e-12)
    c, s = np.cos(0.5), np.sin(0.5)
    F = np.exp(-0.025) * np.array([[c, -s], [s, c]])
    m = F @ z[0]
    u = m / np.hypot(*m)
    time = (1 - np.exp(-0.05)) / 0.1
    P = F @ P @ F.T + time * noise(model.tangential_var, model.radial_var, u)
    S = P + noise(model.obs_tangential_var, model.obs_radial_var, u)
    K = P @ np.linalg.inv(S)
    np.testing.assert_allclose(found.mean[1], m + K @ (z[1] - m), rtol=1e-12)
    np.testing.assert_allclose(found.cov[1], P - K @ P, rtol=1e-10)
    np.testing.assert_allclose(found.innovation_cov[1], S, rtol=1e-12)


@pytest.mark.parametrize("ratio", [0.125, 0.25, 4.0, 8.0])
def test_it_beats_adaptive_filter_where_noise_is_crossed(ratio):
    rng = np.random.default_rng(2)
    model = crossed(ratio)
    data = simulate(model, 0.1 * np.arange(80), 100, rng=rng, x0=ring(rng, 100))
    found = radial_kalman_filter(model, data.t, data.z)
    afa = adaptive_filter(model, data.t, data.z, anchor="estimate", iterations=3)

    def rmse(mean):
        return np.sqrt(((mean - data.x)[:, 20:] ** 2).sum(-1).mean())

    assert rmse(found.mean) < 0.65 * rmse(afa.mean)
    wanted = 0.205 if ratio in (0.125, 8.0) else 0.297
    assert rmse(found.mean) == pytest.approx(wanted, rel=0.08)
    error = (found.mean - data.x)[:, 20:]
    nees = np.einsum("nti,ntij,ntj->nt", error, np.linalg.inv(found.cov[:, 20:]), error)
    assert nees.mean() == pytest.approx(2.0, rel=0.15)


def test_on_a_sphere_estimates_stay_there():
    rng = np.random.default_rng(1)
    model = RadialTangentialSDE(0.0, 0.5, 0.0, 0.05, 0.0, 0.2, dim=3, radius=4.0)
    x0 = np.tile([4.0, 0.0, 0.0], (60, 1))
    data = simulate(model, 0.1 * np.arange(60), 60, rng=rng, x0=x0)
    found = radial_kalman_filter(model, data.t, data.z)
    np.testing.assert_allclose(np.linalg.norm(found.mean, axis=-1), 4.0, rtol=1e-12)
    error, raw = (found.mean - data.x)[:, 10:], (data.z - data.x)[:, 10:]
    assert (error**2).sum(-1).mean() < 0.4 * (raw**2).sum(-1).mean()
    claimed = np.trace(found.cov[:, 10:], axis1=-2, axis2=-1).mean()
    assert (error**2).sum(-1).mean() == pytest.approx(claimed, rel=0.15)
    radial = np.einsum("nti,ntij,ntj->nt", found.mean, found.cov, found.mean)
    np.testing.assert_allclose(radial, 0.0, atol=1e-12)


def test_before_the_first_observation_nothing_is_known():
    z = np.full((2, 4, 2), np.nan)
    z[0, 2:] = [[5.0, 1.0], [5.0, 2.0]]
    found = radial_kalman_filter(crossed(2.0), np.arange(4.0), z)
    assert np.isnan(found.mean[0, :2]).all()
    assert np.isnan(found.mean[1]).all()
    assert np.isinf(found.std[1]).all()
    np.testing.assert_array_equal(found.mean[0, 2], [5.0, 1.0])


@pytest.mark.parametrize(
    ("model", "z", "error", "said"),
    [
        (LinearSDE([[-1.0]], Q=[[1.0]], R=[[1.0]]), [[1.0, 2.0]], TypeError, "RadialTangentialSDE"),
        (crossed(2.0), [[1.0, np.nan]], ValueError, "missing in part"),
        (crossed(2.0), [[0.0, 0.0]], ValueError, "no direction"),
        (RadialTangentialSDE(0.1, 1.0, 1.0, 1.0, 0.0, 1.0), [[1.0, 0.0]], ValueError, "be > 0"),
    ],
)
def test_bad_input(model, z, error, said):
    with pytest.raises(error, match=said):
        radial_kalman_filter(model, [0.0], z)
