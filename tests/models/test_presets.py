"""Presets against textbook kernels and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from afafilter.models import presets
from tests.oracles import joint_gaussian

TIMES = np.array([0.0, 0.3, 0.35, 1.7, 4.0])
LAGS = np.abs(TIMES[:, None] - TIMES)


def observed_covariance(model) -> np.ndarray:
    """Stationary covariance of the noise-free observations at TIMES, by the dense oracle."""
    joint = joint_gaussian(model, TIMES)
    return (joint.H @ joint.cov @ joint.H.T).astype(float)


KERNELS = {
    0.5: lambda s: np.exp(-s),
    1.5: lambda s: (1 + s) * np.exp(-s),
    2.5: lambda s: (1 + s + s**2 / 3) * np.exp(-s),
}


@pytest.mark.parametrize("nu", KERNELS)
def test_matern_has_the_matern_covariance(nu):
    model = presets.matern(nu, 1.4, 2.3, obs_var=0.1)
    expected = 2.3 * KERNELS[nu](np.sqrt(2 * nu) * LAGS / 1.4)
    np.testing.assert_allclose(observed_covariance(model), expected, atol=1e-12)
    # observed component of the library's own stationary law
    assert model.stationary_covariance()[0, 0] == pytest.approx(2.3, rel=1e-12)


def test_ornstein_uhlenbeck_covariance():
    model = presets.ornstein_uhlenbeck(0.8, process_var=0.5)
    expected = 0.5 / 1.6 * np.exp(-0.8 * LAGS)
    np.testing.assert_allclose(observed_covariance(model), expected, atol=1e-13)


def test_damped_oscillator_covariance():
    """Textbook autocovariance of the noise-driven harmonic oscillator."""
    mu, w, q = 0.3, 2.0, 0.7
    model = presets.damped_oscillator(mu, w, process_var=q, obs_var=0.2)
    variance = q / (4 * mu * (mu**2 + w**2))
    expected = variance * np.exp(-mu * LAGS) * (np.cos(w * LAGS) + mu / w * np.sin(w * LAGS))
    np.testing.assert_allclose(observed_covariance(model), expected, atol=1e-13)
    np.testing.assert_allclose(
        model.stationary_covariance(), np.diag([variance, q / (4 * mu)]), atol=1e-13
    )
    np.testing.assert_allclose(sorted(np.linalg.eigvals(model.A).imag), [-w, w])
    assert presets.damped_oscillator(0.0).prior == "diffuse"


def test_spiral_covariance():
    model = presets.spiral()
    np.testing.assert_allclose(sorted(np.linalg.eigvals(model.A).imag), [-1.0, 1.0])
    np.testing.assert_allclose(np.linalg.eigvals(model.A).real, -0.1)
    covariance = observed_covariance(model)[::2, ::2]
    np.testing.assert_allclose(
        covariance, 0.3 / 0.2 * np.exp(-0.1 * LAGS) * np.cos(LAGS), atol=1e-12
    )


def test_brownian_variance_grows_with_time():
    model = presets.brownian(0.4, 1.0, dim=3)
    Phi, _, V = model.transition(2.5)
    np.testing.assert_allclose(Phi, np.eye(3))
    np.testing.assert_allclose(V, np.eye(3))
    assert model.prior == "diffuse"


def test_constant_velocity_increments():
    model = presets.constant_velocity(0.6, 0.1, dim=2)
    Phi, _, V = model.transition(0.5)
    np.testing.assert_allclose(Phi @ [1.0, 2.0, 3.0, -4.0], [2.5, 0.0, 3.0, -4.0])
    block = 0.6 * np.array([[0.5**3 / 3, 0.5**2 / 2], [0.5**2 / 2, 0.5]])
    np.testing.assert_allclose(V, np.kron(block, np.eye(2)), rtol=1e-13)
    np.testing.assert_array_equal(model.C @ [1.0, 2.0, 3.0, 4.0], [1.0, 2.0])


def test_seasonal_repeats_after_one_period():
    model = presets.seasonal(1.0, harmonics=3)
    Phi, _, V = model.transition([1.0, 0.25])
    np.testing.assert_allclose(Phi[0], np.eye(6), atol=1e-13)
    assert (V == 0).all()
    start = np.array([1.0, 0.0, 0.0, 1.0, 0.5, 0.0])
    phase = 2 * np.pi * np.array([1, 2, 3]) * 0.25
    expected = np.cos(phase[0]) - np.sin(phase[1]) + 0.5 * np.cos(phase[2])
    assert (model.C @ Phi[1] @ start)[0] == pytest.approx(expected)
    assert model.prior == "diffuse"
    assert presets.seasonal(1.0, process_var=0.1, decay=0.2).prior == "stationary"


def test_summands_without_noise_add_up():
    model = (
        presets.constant_velocity(0.01, 0.0) + presets.seasonal(1.0) + presets.brownian(0.0, 2.0)
    )
    np.testing.assert_array_equal(model.R, [[2.0]])
    assert model.dim == 5


@pytest.mark.parametrize(("dim", "obs_dim"), [(1, None), (4, None), (5, 2), (2, 3)])
def test_random_stable_is_stable_and_reproducible(dim, obs_dim):
    model = presets.random_stable(dim, obs_dim, rng=np.random.default_rng(1), slowest=0.2)
    again = presets.random_stable(dim, obs_dim, rng=np.random.default_rng(1), slowest=0.2)
    np.testing.assert_array_equal(model.A, again.A)
    assert np.linalg.eigvals(model.A).real.max() == pytest.approx(-0.2)
    assert np.linalg.eigvalsh(model.R)[0] >= 0.5
    assert model.C.shape == (obs_dim or dim, dim)
    assert model.prior == "stationary"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: presets.brownian(-1.0), "process_var must be >= 0, got -1"),
        (lambda: presets.brownian(obs_var=-1.0), "obs_var must be >= 0"),
        (lambda: presets.brownian(dim=0), "dim must be >= 1"),
        (lambda: presets.brownian(np.eye(2)), "process_var must be one number"),
        (lambda: presets.ornstein_uhlenbeck(0.0), "rate must be > 0"),
        (lambda: presets.ornstein_uhlenbeck(-1.0), "rate must be > 0, got -1"),
        (lambda: presets.matern(1.0), "nu must be 0.5, 1.5 or 2.5, got 1"),
        (lambda: presets.matern(length=0.0), "length must be > 0"),
        (lambda: presets.matern(variance=-2.0), "variance must be > 0"),
        (lambda: presets.constant_velocity(np.nan), "process_var must be finite"),
        (lambda: presets.damped_oscillator(-0.1), "decay must be >= 0"),
        (lambda: presets.damped_oscillator(frequency=0.0), "frequency must be > 0"),
        (lambda: presets.seasonal(0.0), "period must be > 0"),
        (lambda: presets.seasonal(1.0, 0), "harmonics must be >= 1"),
        (lambda: presets.spiral(-0.1), "decay must be >= 0"),
        (lambda: presets.spiral(frequency=[1.0, 2.0]), "frequency must be one number"),
        (lambda: presets.random_stable(2, rng=np.random.default_rng(0), slowest=0), "slowest"),
    ],
)
def test_bad_parameters_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bad_types_are_refused_by_name():
    with pytest.raises(TypeError, match=r"rng must be a numpy Generator .* or a seed"):
        presets.random_stable(2, rng="one")
    with pytest.raises(ValueError, match="rng must be a seed >= 0"):
        presets.random_stable(2, rng=-1)
    with pytest.raises(TypeError, match="dim must be a whole number"):
        presets.brownian(dim=2.0)
    with pytest.raises(TypeError, match="rate must be real"):
        presets.ornstein_uhlenbeck(1j)


def test_every_preset_takes_a_prior():
    makers = [
        presets.brownian,
        presets.ornstein_uhlenbeck,
        presets.matern,
        presets.constant_velocity,
        presets.damped_oscillator,
        presets.spiral,
        lambda prior: presets.seasonal(1.0, prior=prior),
        lambda prior: presets.random_stable(2, rng=np.random.default_rng(0), prior=prior),
    ]
    for make in makers:
        assert make(prior="diffuse").prior == "diffuse"


def test_elliptic_spiral_is_the_system_of_the_paper():
    S = np.array([[1 + 1j, 1 - 1j], [1, 1]])
    model = presets.elliptic_spiral(process_var=0.3, obs_var=0.5)
    A = S @ np.diag([-0.1 + 1j, -0.1 - 1j]) @ np.linalg.inv(S)
    np.testing.assert_allclose(model.A, A.real, atol=1e-15)
    np.testing.assert_allclose(model.A, [[0.9, -2.0], [1.0, -1.1]], atol=1e-15)
    np.testing.assert_allclose(model.Q, 0.3 * (S @ S.conj().T).real, rtol=1e-15)
    np.testing.assert_allclose(model.R, 0.5 * (S @ S.conj().T).real, rtol=1e-15)
    assert np.linalg.cond(S) == pytest.approx(2.618, abs=1e-3)
    plain = presets.elliptic_spiral(0.2, 3.0, process_var=0.3, obs_var=0.5, noise="data")
    np.testing.assert_allclose(np.linalg.eigvals(plain.A).real, -0.2)
    np.testing.assert_allclose(sorted(np.linalg.eigvals(plain.A).imag), [-3.0, 3.0])
    np.testing.assert_array_equal(plain.Q, 0.3 * np.eye(2))
    np.testing.assert_array_equal(plain.R, 0.5 * np.eye(2))
    with pytest.raises(ValueError, match="noise must be one of 'eigenbasis', 'data'"):
        presets.elliptic_spiral(noise="state")


def test_elliptic_spiral_whitened_is_the_circular_one():
    model = presets.elliptic_spiral(0.1, 1.0, process_var=0.3, obs_var=0.5)
    L = np.linalg.cholesky(model.R / 0.5)
    inner = np.linalg.solve(L, model.A @ L)
    circular = presets.spiral(0.1, 1.0, process_var=0.3, obs_var=0.5)
    np.testing.assert_allclose(inner, circular.A, atol=1e-14)
    np.testing.assert_allclose(np.linalg.solve(L, np.linalg.solve(L, model.Q).T), circular.Q)


def test_listed_presets_are_known_everywhere():
    import afafilter
    from afafilter.io.model_toml import PRESETS

    drawn = "afafilter.models.random_systems"
    listed = {
        name
        for name in vars(presets)
        if getattr(vars(presets)[name], "__module__", "") in (presets.__name__, drawn)
        and not name.startswith("_")
    }
    assert listed == set(presets.__all__) == set(PRESETS)
    assert all(getattr(afafilter, name) is getattr(presets, name) for name in listed)
