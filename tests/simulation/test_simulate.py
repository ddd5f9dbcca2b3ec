"""The simulator against the dense joint Gaussian in law, path structure, and bad input.

Statistical bounds are stated in standard errors; seeds are fixed.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from afafilter import (
    DiscreteModel,
    DriftSDE,
    LinearSDE,
    Outliers,
    Prior,
    RadialTangentialSDE,
    simulate,
    simulate_drift,
    simulate_radial,
    spiral,
    theory,
)
from afafilter.simulation.plan import covariance_root
from afafilter.simulation.recursions import observe, propagate
from tests.conftest import MODELS
from tests.oracles import Joint, joint_gaussian

N_PATHS = 20_000
SIGMAS = 5.5
"""Bound for the largest of up to a thousand standardised moments: P(exceed) < 1e-4 per model."""


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def proper(model: LinearSDE, t_first: float = 0.0) -> LinearSDE:
    """The model with a proper prior at `t_first` in place of a flat one."""
    if not model.initial_law(t_first).diffuse.size:
        return model
    root = rng(1).standard_normal((model.dim, model.dim))
    return replace(model, prior=Prior(np.linspace(-1, 1, model.dim), root @ root.T))


def joint_moments(joint: Joint, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of (x at the estimate times, z), flattened."""
    pick = (joint.rows[:, None] * d + np.arange(d)).ravel()
    M = np.vstack([np.eye(len(joint.mean))[pick], joint.H.astype(float)])
    noise = np.zeros((len(M), len(M)))
    noise[len(pick) :, len(pick) :] = joint.R
    mean = M @ joint.mean.astype(float)
    mean[len(pick) :] += joint.offset.astype(float)
    return mean, M @ joint.cov.astype(float) @ M.T + noise


def assert_law(sample: np.ndarray, mean: np.ndarray, cov: np.ndarray) -> None:
    """`sample` (n, m) has this mean and covariance, within SIGMAS standard errors per entry."""
    n = len(sample)
    var = np.diag(cov)
    rounding = 1e-9 * (1 + np.abs(mean))
    assert (np.abs(sample.mean(axis=0) - mean) <= SIGMAS * np.sqrt(var / n) + rounding).all()
    centred = sample - mean
    error = np.sqrt((np.outer(var, var) + cov**2) / n)
    rounding = 1e-8 * (1 + np.sqrt(np.outer(var, var)))
    assert (np.abs(centred.T @ centred / n - cov) <= SIGMAS * error + rounding).all()


def flat(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.concatenate([x.reshape(len(x), -1), z.reshape(len(z), -1)], axis=1)


def test_moments_and_autocovariances(model: LinearSDE) -> None:
    t = np.array([0.3, 0.3, 0.8, 2.0, 2.0, 4.5])
    model = proper(model)
    data = simulate(model, t, N_PATHS, rng=rng(3))
    assert data.x.shape == (N_PATHS, len(t), model.dim)
    assert data.z.shape == (N_PATHS, len(t), model.obs_dim)
    assert data.outliers is None
    assert_law(flat(data.x, data.z), *joint_moments(joint_gaussian(model, t), model.dim))


@pytest.mark.parametrize("name", ["spiral", "general", "trend_and_ou"])
def test_delay(name: str) -> None:
    model = replace(proper(MODELS[name]), delay=0.7)
    t = np.array([0.0, 0.7, 0.7, 1.2, 3.0])
    data = simulate(model, t, N_PATHS, rng=rng(4))
    assert_law(flat(data.x, data.z), *joint_moments(joint_gaussian(model, t), model.dim))


def test_prior_at_an_earlier_time_is_propagated() -> None:
    model = replace(MODELS["unstable"], prior=Prior([1.0, -2.0], 0.5 * np.eye(2), -1.5))
    t = np.array([0.0, 1.0])
    data = simulate(model, t, N_PATHS, rng=rng(5))
    assert_law(flat(data.x, data.z), *joint_moments(joint_gaussian(model, t), 2))


@pytest.mark.parametrize("varying", [(), ("F",), ("F", "Q", "H", "R", "b", "d")])
def test_discrete_model(varying: tuple[str, ...]) -> None:
    T, r = 5, rng(6)
    roots = {"Q": r.standard_normal((T, 2, 1)), "R": r.standard_normal((T, 3, 3))}
    arrays: dict[str, Any] = {
        "F": r.standard_normal((T, 2, 2)),
        "Q": roots["Q"] @ np.swapaxes(roots["Q"], 1, 2),
        "H": r.standard_normal((T, 3, 2)),
        "R": roots["R"] @ np.swapaxes(roots["R"], 1, 2),
        "b": r.standard_normal((T, 2)),
        "d": r.standard_normal((T, 3)),
    }
    arrays = {key: a if key in varying else a[0] for key, a in arrays.items()}
    model = DiscreteModel(**arrays, prior=Prior([1.0, 2.0], np.eye(2)), time_varying=varying)
    t = None if varying else np.arange(T)
    data = simulate(model, t, N_PATHS, rng=rng(7))
    np.testing.assert_array_equal(data.t, np.arange(T))
    joint = joint_gaussian(model, np.arange(T))
    assert_law(flat(data.x, data.z), *joint_moments(joint, 2))


@pytest.mark.parametrize(("d", "p"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 2), (5, 4)])
def test_kernels_follow_the_recursions(d: int, p: int) -> None:
    """Each dimension they are compiled for, and the rest, against matrix products."""
    n, T, K, r = 3, 20, 4, rng(12)
    Phi, C = r.standard_normal((K, d, d)) / d, r.standard_normal((K, p, d))
    psi, offset = r.standard_normal((K, d)), r.standard_normal((K, p))
    step_root, noise_root = np.tril(r.standard_normal((K, d, d))), np.tril(r.random((K, p, p)))
    step_at, noise_at, seen = r.integers(0, K, T), r.integers(0, K, T), r.permutation(T)
    x, z = r.standard_normal((n, T, d)), r.standard_normal((n, T, p))
    states, observed = x.copy(), z.copy()
    propagate(states, Phi, psi, step_root, step_at)
    observe(observed, states, seen, C, offset, noise_root, noise_at)
    for path, draws, shown, noise in zip(states, x, observed, z, strict=True):
        np.testing.assert_array_equal(path[0], draws[0])
        for k, at in enumerate(step_at[1:], start=1):
            expected = Phi[at] @ path[k - 1] + psi[at] + step_root[at] @ draws[k]
            np.testing.assert_allclose(path[k], expected, rtol=1e-12, atol=1e-13)
        for k, at in enumerate(noise_at):
            expected = C[at] @ path[seen[k]] + offset[at] + noise_root[at] @ noise[k]
            np.testing.assert_allclose(shown[k], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_law_does_not_depend_on_substeps(name: str) -> None:
    """The law at the end, from a fixed start, with 1 and with 50 steps (Kolmogorov-Smirnov)."""
    model = MODELS[name]
    x0 = np.linspace(1.0, 2.0, model.dim)
    one = simulate(model, [0.0, 3.0], 4000, rng=rng(8), x0=x0).x[:, -1]
    many = simulate(model, np.linspace(0.0, 3.0, 51), 4000, rng=rng(9), x0=x0).x[:, -1]
    for a, b in zip(one.T, many.T, strict=True):
        if np.ptp(a) < 1e-9:
            np.testing.assert_allclose(b, a[0], rtol=1e-9)
        else:
            assert stats.ks_2samp(a, b).pvalue > 1e-4


def test_repeated_times_repeat_the_state_but_not_the_noise() -> None:
    data = simulate(MODELS["spiral"], [0.0, 1.0, 1.0, 1.0], 5, rng=rng())
    np.testing.assert_array_equal(data.x[:, 2], data.x[:, 1])
    np.testing.assert_array_equal(data.x[:, 3], data.x[:, 1])
    assert (data.z[:, 1] != data.z[:, 2]).all()


def test_starts() -> None:
    model = MODELS["unstable"]
    t = [0.0, 1.0]
    point = simulate(model, t, 3, rng=rng(), x0=[1.0, 2.0])
    np.testing.assert_array_equal(point.x[:, 0], np.tile([1.0, 2.0], (3, 1)))
    each = np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(simulate(model, t, 3, rng=rng(), x0=each).x[:, 0], each)
    spiral = replace(MODELS["spiral"], prior="diffuse")
    start = simulate(spiral, [5.0], N_PATHS, rng=rng(1), x0="stationary").x[:, 0]
    assert_law(start, np.zeros(2), 0.3 / 0.2 * np.eye(2))


def test_one_path_keeps_its_axis_and_one_time_is_enough() -> None:
    data = simulate(MODELS["ou"], [2.0], rng=rng())
    assert data.x.shape == (1, 1, 1)
    assert data.z.shape == (1, 1, 1)


def test_same_generator_same_numbers() -> None:
    def draw() -> Any:
        return simulate(
            MODELS["general"], [0.0, 1.0, 1.5], 4, rng=rng(42), missing=0.3, outliers=Outliers(0.4)
        )

    a, b = draw(), draw()
    np.testing.assert_array_equal(a.x, b.x)
    np.testing.assert_array_equal(a.z, b.z)
    np.testing.assert_array_equal(a.outliers, b.outliers)
    generator = rng(42)
    first = simulate(MODELS["ou"], [0.0, 1.0], rng=generator)
    second = simulate(MODELS["ou"], [0.0, 1.0], rng=generator)
    assert (first.z != second.z).all()


def test_common_random_numbers() -> None:
    """Scaling the noise scales the same normals; outliers and gaps strike the same data."""
    t = np.arange(40) * 0.1
    start = np.zeros(2)

    def draw(process: float, noise: float, n: int = 6, **options: Any) -> Any:
        model = LinearSDE.isotropic(0.1, 1.0, process_var=process, obs_var=noise)
        return simulate(model, t, n, rng=rng(11), x0=start, **options)

    base = draw(0.3, 0.5)
    np.testing.assert_allclose(draw(1.2, 0.5).x, 2 * base.x, rtol=1e-12)
    loud = draw(0.3, 8.0)
    np.testing.assert_array_equal(loud.x, base.x)
    np.testing.assert_allclose(loud.z - loud.x, 4 * (base.z - base.x), rtol=1e-9)
    quiet = draw(0.0, 0.5)
    np.testing.assert_allclose(quiet.z - quiet.x, base.z - base.x, rtol=1e-9)
    struck = draw(0.3, 0.5, outliers=Outliers(0.2), missing=0.25)
    same = ~np.isnan(struck.z) & ~struck.outliers[..., None]
    np.testing.assert_array_equal(struck.z[same], base.z[same])
    many = draw(0.3, 0.5, n=500)
    np.testing.assert_array_equal(many.x[:6], base.x)
    np.testing.assert_array_equal(many.z[:6], base.z)


def test_missing_rates() -> None:
    model, t = MODELS["spiral"], np.arange(50.0)
    lost = np.isnan(simulate(model, t, 400, rng=rng(1), missing=0.3).z)
    assert abs(lost.mean() - 0.3) < 5 * np.sqrt(0.21 / lost.size)
    both = (lost[..., 0] & lost[..., 1]).mean()
    assert abs(both - 0.09) < 5 * np.sqrt(0.09 * 0.91 / lost[..., 0].size)
    per_component = np.isnan(simulate(model, t, 400, rng=rng(1), missing=[0.0, 1.0]).z)
    assert not per_component[..., 0].any()
    assert per_component[..., 1].all()
    table = np.zeros((50, 2))
    table[7, 0] = 1.0
    at = np.isnan(simulate(model, t, 3, rng=rng(1), missing=table).z)
    assert at[:, 7, 0].all()
    assert at.sum() == 3


def outlier_draws(outliers: Outliers, model: LinearSDE, n: int = 4000) -> tuple[Any, np.ndarray]:
    """Trajectories and what contamination added to each observation."""
    t = np.arange(10.0)
    x0 = np.full(model.dim, 3.0)
    struck = simulate(model, t, n, rng=rng(2), x0=x0, outliers=outliers)
    clean = simulate(model, t, n, rng=rng(2), x0=x0)
    np.testing.assert_array_equal(struck.x, clean.x)
    return struck, struck.z - clean.z


def test_gaussian_outliers() -> None:
    model = MODELS["constant_velocity"]
    data, added = outlier_draws(Outliers(0.1, 10.0), model)
    n = data.outliers.size
    assert abs(data.outliers.mean() - 0.1) < 5 * np.sqrt(0.09 / n)
    assert not added[~data.outliers].any()
    assert_law(added[data.outliers], np.zeros(2), 100 * model.R)


def test_student_t_outliers() -> None:
    model = MODELS["spiral"]
    data, added = outlier_draws(Outliers(0.2, 3.0, law="student_t", df=2.5), model)
    whitened = added[data.outliers] / (3.0 * np.sqrt(0.5))
    for component in whitened.T:
        assert stats.kstest(component, stats.t(2.5).cdf).pvalue > 1e-3
    radius = (whitened**2).sum(axis=1) / 2
    assert stats.kstest(radius, stats.f(2, 2.5).cdf).pvalue > 1e-3


def test_mean_doubling_outliers() -> None:
    model = replace(MODELS["general"], delay=0.0)
    data, added = outlier_draws(Outliers(0.3, law="mean_doubling"), model, 50)
    mean = data.x @ model.C.T + model.offset
    np.testing.assert_allclose(added[data.outliers], mean[data.outliers], rtol=1e-9)


def test_root_of_singular_and_badly_scaled_covariances() -> None:
    h = 1e-8
    V = np.array([[h**3 / 3, h**2 / 2], [h**2 / 2, h]])
    root = covariance_root(V)
    np.testing.assert_allclose(root @ root.T, V, rtol=1e-12)
    assert root[0, 1] == 0
    b = np.array([[1.0], [2.0], [0.0]])
    root = covariance_root(b @ b.T)
    np.testing.assert_allclose(root @ root.T, b @ b.T, atol=1e-15)
    np.testing.assert_array_equal(covariance_root(np.zeros((4, 2, 2))), 0)


SPIRAL, BROWNIAN = MODELS["spiral"], MODELS["brownian"]
NOISELESS = LinearSDE([[-1.0]], Q=[[1.0]], R=[[0.0]])
VARYING = DiscreteModel(
    np.ones((3, 1, 1)),
    Q=[[1.0]],
    H=[[1.0]],
    R=[[1.0]],
    prior=Prior([0.0], [[1.0]]),
    time_varying="F",
)
CONSTANT = DiscreteModel([[0.5]], Q=[[1.0]], H=[[1.0]], R=[[1.0]])


@pytest.mark.parametrize(
    ("error", "message", "model", "t", "options"),
    [
        (ValueError, "must not decrease", SPIRAL, [1.0, 0.0], {}),
        (ValueError, "t must be finite", SPIRAL, [0.0, np.nan], {}),
        (ValueError, "t must be finite", SPIRAL, [0.0, np.inf], {}),
        (ValueError, "at least one time", SPIRAL, [], {}),
        (ValueError, "one-dimensional", SPIRAL, [[0.0, 1.0]], {}),
        (TypeError, "t must be real", SPIRAL, [1j], {}),
        (TypeError, "t must be given", SPIRAL, None, {}),
        (TypeError, "model must be", "spiral", [0.0], {}),
        (TypeError, "default_rng", SPIRAL, [0.0], {"rng": "3"}),
        (TypeError, "n_paths", SPIRAL, [0.0], {"n_paths": 2.5}),
        (ValueError, "n_paths", SPIRAL, [0.0], {"n_paths": 0}),
        (ValueError, "prior is diffuse", BROWNIAN, [0.0], {}),
        (ValueError, "stable", BROWNIAN, [0.0], {"x0": "stationary"}),
        (ValueError, "x0 must be one of", SPIRAL, [0.0], {"x0": "zero"}),
        (ValueError, r"x0 must have shape \(d,\) = \(2,\)", SPIRAL, [0.0], {"x0": 3.0}),
        (ValueError, "x0 must have", SPIRAL, [0.0], {"n_paths": 3, "x0": np.ones((2, 2))}),
        (ValueError, "missing must be probabilities", SPIRAL, [0.0], {"missing": -0.1}),
        (ValueError, "missing must be probabilities", SPIRAL, [0.0], {"missing": 1.1}),
        (ValueError, "missing must be a number", SPIRAL, [0.0], {"missing": [0.1] * 3}),
        (TypeError, "must be an Outliers", SPIRAL, [0.0], {"outliers": 0.1}),
        (ValueError, "R must not be zero", NOISELESS, [0.0], {"outliers": Outliers(0.1)}),
        (ValueError, "length 3", VARYING, [0.0, 1.0], {}),
        (ValueError, "model is constant", CONSTANT, None, {}),
    ],
)
def test_bad_input(error: Any, message: str, model: Any, t: Any, options: Any) -> None:
    with pytest.raises(error, match=message):
        simulate(model, t, **{"rng": rng(), **options})


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("rate must be >= 0", {"rate": -0.1}),
        ("at most 1", {"rate": 1.5}),
        ("scale must be > 0", {"rate": 0.1, "scale": -1.0}),
        ("df must be > 0", {"rate": 0.1, "law": "student_t", "df": 0.0}),
        ("df has no meaning", {"rate": 0.1, "df": 3.0}),
        ("scale has no meaning", {"rate": 0.1, "scale": 2.0, "law": "mean_doubling"}),
        ("law must be one of", {"rate": 0.1, "law": "cauchy"}),
    ],
)
def test_bad_outliers(message: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=message):
        Outliers(**options)


def test_integer_input_is_cast() -> None:
    data = simulate(
        SPIRAL, np.arange(4, dtype=np.int8), rng=rng(), x0=np.array([120, 120], np.int8)
    )
    assert data.x.dtype == np.float64
    assert data.x[0, 0, 0] == 120


@pytest.mark.parametrize("first", [20240130, 202401])
def test_whole_numbers_that_spell_dates_are_warned_of(first) -> None:
    t, start = [first, first + 1], {"x0": [1.0, 0.0], "rng": 0}
    radial = RadialTangentialSDE(0.1, 1.0, 0.1, 0.2, 0.1, 0.1, 2)
    still = DriftSDE(lambda x: -x, 2, 0.0, 0.0, 0.5)
    law = {"decay": 0.1, "process_var": 1.0, "obs_var": 1.0}
    calls = {
        "simulate": lambda t: simulate(spiral(), t, **start),
        "of a radial model": lambda t: simulate(radial, t, **start),
        "simulate_radial": lambda t: simulate_radial(radial, t, **start | {"x0": [[1.0, 0.0]]}),
        "simulate_drift": lambda t: simulate_drift(still, t, **start),
        "isotropic_mse": lambda t: theory.isotropic_mse(np.eye(2), t, **law),
    }
    for name, call in calls.items():
        with pytest.warns(UserWarning, match=f"spell dates .{t[0]} ... {t[1]}") as told:
            call(t)
        assert (len(told), told[0].filename) == (1, __file__) or name == "of a radial model", name
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            call([0, 1])
            call(np.array(t) - first + 0.5)
