"""Models: what is refused and how it is said, priors, sums, the discrete form."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from afafilter import DiscreteModel, LinearSDE, Prior, brownian, fit, kalman_filter, spiral
from tests.conftest import MODELS, draw_data, irregular_times
from tests.oracles import dense_loglik, dense_posterior, joint_gaussian, mp_transition

I2 = np.eye(2)
STABLE = [[-1.0, 0.2], [0.0, -2.0]]


def ou(rate=1.0, prior=None) -> LinearSDE:
    return LinearSDE([[-rate]], Q=[[0.5]], R=[[0.2]], prior=prior)


# ------------------------------------------------------------------------------ what is refused

BAD = {
    "A scalar": ({"A": -1.0}, ValueError, "A must be a square matrix .* got the scalar -1"),
    "A not square": ({"A": np.ones((2, 3))}, ValueError, r"A must be a square .* \(2, 3\)"),
    "A one-dimensional": ({"A": [-1.0, -1.0]}, ValueError, r"A must be a square .* \(2,\)"),
    "A empty": ({"A": np.zeros((0, 0))}, ValueError, "A must be a square"),
    "A ragged": ({"A": [[1.0, 2.0], [3.0]]}, ValueError, "A must be a rectangular array"),
    "A complex": ({"A": np.diag([-1 + 1j, -1 - 1j])}, TypeError, "A must be real"),
    "A text": ({"A": [["a", "b"], ["c", "d"]]}, TypeError, "A must be numbers"),
    "A NaN": ({"A": [[np.nan, 0], [0, -1]]}, ValueError, "A must be finite"),
    "Q scalar": ({"Q": 0.3}, ValueError, r"Q must have shape \(2, 2\), got the scalar 0.3; .*eye"),
    "Q shape": ({"Q": np.eye(3)}, ValueError, r"Q must have shape \(2, 2\), got shape \(3, 3\)"),
    "Q asymmetric": ({"Q": [[1.0, 0.5], [0.0, 1.0]]}, ValueError, "Q must be symmetric"),
    "Q indefinite": ({"Q": np.diag([1.0, -1e-3])}, ValueError, "Q must be positive semidefinite"),
    "Q complex": ({"Q": 1j * I2}, TypeError, "Q must be real"),
    "Q infinite": ({"Q": np.diag([np.inf, 1.0])}, ValueError, "Q must be finite"),
    "R scalar": ({"R": 1.0}, ValueError, "R must be a square matrix .* got the scalar 1"),
    "R asymmetric": ({"R": [[1.0, 0.5], [0.0, 1.0]]}, ValueError, "R must be symmetric"),
    "R indefinite": ({"R": np.diag([1.0, -1.0])}, ValueError, "R must be positive semidefinite"),
    "R without C": ({"R": [[1.0]]}, ValueError, "R must have shape .* when C is left out"),
    "C width": ({"C": np.ones((2, 3))}, ValueError, r"C must have shape .* got shape \(2, 3\)"),
    "C one-dimensional": ({"C": [1.0, 0.0], "R": [[1.0]]}, ValueError, r"C must have .* \(1, 2\)"),
    "C height": ({"C": np.ones((1, 2))}, ValueError, r"R must have shape \(1, 1\), got"),
    "drift scalar": ({"drift": 1.0}, ValueError, r"drift must have shape \(2,\), got the scalar"),
    "drift column": ({"drift": np.ones((2, 1))}, ValueError, r"drift must have shape \(2,\)"),
    "offset length": ({"offset": [1.0, 2.0, 3.0]}, ValueError, r"offset must have shape \(2,\)"),
    "delay negative": ({"delay": -0.1}, ValueError, "delay must be >= 0, got -0.1"),
    "delay vector": ({"delay": [0.1, 0.2]}, ValueError, "delay must be one number"),
    "delay NaN": ({"delay": np.nan}, ValueError, "delay must be finite"),
    "prior word": ({"prior": "flat"}, ValueError, "prior must be one of 'stationary', 'diffuse'"),
    "prior tuple": ({"prior": (0, 1)}, TypeError, "prior must be a Prior, 'stationary' or"),
    "prior size": ({"prior": Prior([0.0], [[1.0]])}, ValueError, r"prior mean .* got \(1,\)"),
    "prior stationary": (
        {"A": np.zeros((2, 2)), "prior": "stationary"},
        ValueError,
        "'stationary' needs stable",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_models_are_refused_by_name(case):
    changes, kind, message = BAD[case]
    good = {"A": STABLE, "Q": I2, "R": I2}
    LinearSDE(**good)
    with pytest.raises(kind, match=message):
        LinearSDE(**(good | changes))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": 0.0, "cov": [[1.0]]}, r"prior mean must have shape \(d,\), got \(\)"),
        ({"mean": [[0.0]], "cov": [[1.0]]}, r"prior mean must have shape \(d,\), got \(1, 1\)"),
        ({"mean": [0.0, 0.0], "cov": 1.0}, r"prior cov must have shape \(2, 2\), got the scalar 1"),
        ({"mean": [0.0, 0.0], "cov": np.eye(3)}, r"prior cov must have shape \(2, 2\)"),
        ({"mean": [0.0, 0.0], "cov": [[1.0, 1.0], [0.0, 1.0]]}, "prior cov must be symmetric"),
        ({"mean": [0.0, 0.0], "cov": -I2}, "prior cov must be positive semidefinite"),
        ({"mean": [np.nan, 0.0], "cov": I2}, "prior mean must be finite"),
        ({"mean": [0.0, 0.0], "cov": I2, "t0": np.inf}, "prior t0 must be finite"),
        (
            {"mean": [0.0, 0.0], "cov": I2, "diffuse": [1.0, 0.0]},
            r"diffuse must have shape \(2, q\)",
        ),
        ({"mean": [0.0, 0.0], "cov": I2, "diffuse": np.ones((2, 2))}, "linearly independent"),
    ],
)
def test_bad_priors_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        Prior(**arguments)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.float32, object])
def test_other_number_types_are_cast(dtype):
    """An int8 A would overflow in A @ A, an unsigned one in -A."""
    one = np.array([[1, 0], [0, 1]]).astype(dtype)
    model = LinearSDE(one, Q=one, R=one, C=one, drift=one[0], offset=one[1])
    for array in (model.A, model.Q, model.R, model.C, model.drift, model.offset):
        assert array.dtype == np.float64
    np.testing.assert_allclose(model.transition(2)[0], np.exp(2.0) * I2, rtol=1e-14)


BOOLEANS = {
    "A": lambda: LinearSDE(np.eye(2) > 0, Q=I2, R=I2),
    "Q": lambda: LinearSDE(I2, Q=[[True, False], [False, True]], R=I2),
    "R": lambda: LinearSDE(I2, Q=I2, R=(np.eye(2) > 0).astype(object)),
    "prior cov": lambda: Prior([0.0], [[True]]),
    "F": lambda: DiscreteModel(np.eye(2) > 0, Q=I2, H=I2, R=I2),
    "process_var": lambda: brownian(process_var=True),
    "t": lambda: kalman_filter(brownian(), [False, True], [1.0, 2.0]),
    "obs_cov": lambda: kalman_filter(brownian(), [0.0], [1.0], obs_cov=[[[True]]]),
}


@pytest.mark.parametrize("name", BOOLEANS)
def test_booleans_are_no_values_of_matrices_variances_and_times(name):
    with pytest.raises(TypeError, match=f"{name} must be numbers, got booleans"):
        BOOLEANS[name]()


def test_booleans_of_data_are_one_and_zero():
    t, z = np.arange(6.0), np.array([1.0, 0, 0, 1, 1, 0])
    wanted = kalman_filter(brownian(), t, z).loglik
    for given in (z > 0, (z > 0).astype(object), pd.Series(z > 0, dtype="boolean")):
        assert kalman_filter(brownian(), t, given).loglik == wanted
    later = np.arange(20.0) >= 12
    data = np.sin(np.arange(20.0)) + 5 * later
    step, number = (
        fit("brownian + noise", np.arange(20.0), data, inputs=u).loglik
        for u in (later, 1.0 * later)
    )
    assert step == number


def test_rounding_asymmetry_is_accepted_and_removed():
    Q = np.array([[1.0, 0.3], [0.3 + 1e-13, 1.0]])
    model = LinearSDE(STABLE, Q=Q, R=I2)
    assert (model.Q == model.Q.T).all()


def test_models_cannot_be_changed_and_do_not_follow_their_input():
    A = np.array(STABLE)
    model = LinearSDE(A, Q=I2, R=I2, prior=Prior(np.zeros(2), I2))
    A[0, 0] = 99.0
    assert model.A[0, 0] == -1.0
    for array in (model.A, model.Q, model.R, model.C, model.drift, model.offset, model.prior.cov):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0
    with pytest.raises(FrozenInstanceError):
        model.delay = 3.0


def test_replace_and_pickle():
    model = ou(2.0)
    louder = replace(model, R=[[9.0]])
    assert (louder.R, louder.A, louder.prior) == (9.0, -2.0, "stationary")
    assert replace(model, prior="diffuse").prior == "diffuse"
    with pytest.raises(ValueError, match="'stationary' needs stable"):
        replace(model, A=[[1.0]])
    with pytest.raises(ValueError, match=r"Q must have shape \(1, 1\)"):
        replace(model, Q=I2)
    again = pickle.loads(pickle.dumps(model))
    assert again.A == model.A
    assert again.prior == model.prior


def test_repr_is_one_short_line(model):
    text = repr(model)
    assert text.startswith(f"LinearSDE(dim={model.dim}, obs_dim={model.obs_dim}, eigenvalues=[")
    assert len(text) < 160
    assert "\n" not in text
    assert "delay=0.5" in repr(replace(model, delay=0.5))


@pytest.mark.parametrize(
    ("dt", "kind", "message"),
    [
        (-0.1, ValueError, "dt must be >= 0, got -0.1"),
        ([0.1, np.nan], ValueError, "dt must be finite"),
        (np.inf, ValueError, "dt must be finite"),
        (1j, TypeError, "dt must be real"),
        ("soon", TypeError, "dt must be numbers"),
    ],
)
def test_bad_intervals(dt, kind, message):
    with pytest.raises(kind, match=message):
        ou().transition(dt)


# ------------------------------------------------------------------------------------- priors


def test_default_prior_is_stationary_exactly_when_stable(model):
    if isinstance(model.prior, str):
        stable = np.linalg.eigvals(model.A).real.max() < -1e-12
        assert model.prior == ("stationary" if stable else "diffuse")


def test_stationary_law_does_not_move():
    model = MODELS["general"]
    mean, cov, flat = model.initial_law(0.0)
    Phi, psi, V = (M.astype(float) for M in mp_transition(model.A, model.Q, model.drift, 0.7))
    np.testing.assert_allclose(Phi @ mean + psi, mean, atol=1e-13)
    np.testing.assert_allclose(Phi @ cov @ Phi.T + V, cov, atol=1e-13)
    assert flat.shape == (4, 0)
    np.testing.assert_array_equal(model.stationary_covariance(), cov)


def test_no_stationary_covariance_without_stability():
    with pytest.raises(ValueError, match="A is not stable"):
        MODELS["brownian"].stationary_covariance()


def test_earlier_prior_is_propagated():
    base = MODELS["proper_prior"]
    model = replace(base, prior=Prior(base.prior.mean, base.prior.cov, t0=-1.5))
    mean, cov, _ = model.initial_law(2.0)
    Phi, psi, V = (M.astype(float) for M in mp_transition(base.A, base.Q, base.drift, 3.5))
    np.testing.assert_allclose(mean, Phi @ base.prior.mean + psi, rtol=1e-12)
    np.testing.assert_allclose(cov, Phi @ base.prior.cov @ Phi.T + V, rtol=1e-12)
    with pytest.raises(ValueError, match=r"t0 = -1.5 and t - delay = -2"):
        model.initial_law(-2.0)


def test_prior_without_t0_holds_at_the_first_observation():
    model = MODELS["proper_prior"]
    for first in (-3.0, 0.0, 1e6):
        np.testing.assert_array_equal(model.initial_law(first).mean, model.prior.mean)


def test_flat_directions_are_orthonormal_and_free_of_the_rest():
    direction = np.array([[3.0], [4.0]])
    prior = Prior([1.0, 2.0], [[2.0, 0.3], [0.3, 1.0]], diffuse=direction)
    mean, cov, flat = prior.law
    np.testing.assert_allclose(np.abs(flat[:, 0]), [0.6, 0.8])
    np.testing.assert_allclose(flat.T @ mean, 0.0, atol=1e-15)
    np.testing.assert_allclose(flat.T @ cov, 0.0, atol=1e-15)
    # across the flat direction the law is the given one
    across = np.array([0.8, -0.6])
    assert across @ mean == pytest.approx(across @ [1.0, 2.0])
    assert across @ cov @ across == pytest.approx(across @ [[2.0, 0.3], [0.3, 1.0]] @ across)


def test_partly_flat_prior_at_an_earlier_time_gives_the_same_posterior():
    """Moving the prior to the first observation must not change what the data say."""
    base = MODELS["trend_and_ou"]
    early = replace(base, prior=Prior(np.zeros(3), base.prior.cov, -2.0, base.prior.diffuse))
    t = irregular_times(8)
    z = draw_data(base, t)
    law = early.initial_law(t[0])
    moved = replace(base, prior=Prior(law.mean, law.cov, None, law.diffuse))
    for a, b in zip(
        dense_posterior(early, t, z, causal=False), dense_posterior(moved, t, z, causal=False)
    ):
        np.testing.assert_allclose(a, b, atol=1e-11)


def test_flat_directions_that_merge_are_refused():
    model = LinearSDE(
        np.diag([-1.0, -900.0]), Q=I2, R=I2, prior=Prior(np.zeros(2), np.zeros((2, 2)), 0.0, I2)
    )
    model.initial_law(0.01)
    with pytest.raises(ValueError, match="flat directions of the prior at t0 = 0 have merged"):
        model.initial_law(5.0)


# --------------------------------------------------------------------------------- isotropic


def test_isotropic_is_a_rotation_with_decay():
    model = LinearSDE.isotropic(0.2, [1.0, 3.0], process_var=0.4, obs_var=0.7)
    Phi, _, V = model.transition(0.6)
    z = np.exp((-0.2 + 1j * np.array([1.0, 3.0])) * 0.6)
    for k in range(2):
        block = Phi[2 * k : 2 * k + 2, 2 * k : 2 * k + 2]
        np.testing.assert_allclose(block, [[z[k].real, -z[k].imag], [z[k].imag, z[k].real]])
    np.testing.assert_allclose(V, 0.4 * (1 - np.exp(-0.24)) / 0.4 * np.eye(4), atol=1e-15)
    np.testing.assert_array_equal(model.R, 0.7 * np.eye(4))


@pytest.mark.parametrize("dim", [1, 2, 3, 5, 6])
def test_isotropic_takes_odd_dimensions(dim):
    model = LinearSDE.isotropic(0.3, 2.0, process_var=1.0, obs_var=1.0, dim=dim)
    assert model.dim == dim
    frequencies = np.sort(np.abs(np.linalg.eigvals(model.A).imag))
    np.testing.assert_allclose(frequencies, [0.0] * (dim % 2) + [2.0] * (dim - dim % 2))
    np.testing.assert_allclose(np.linalg.eigvals(model.A).real, -0.3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decay": -0.1}, "decay must be >= 0"),
        ({"process_var": -1.0}, "process_var must be >= 0"),
        ({"obs_var": -1.0}, "obs_var must be >= 0"),
        ({"frequency": [[1.0]]}, r"frequency must have shape \(n,\)"),
        ({"frequency": [1.0, 2.0], "dim": 3}, "dim must be 4 or 5, got 3"),
        ({"frequency": [1.0, 2.0], "dim": 6}, "dim must be 4 or 5, got 6"),
        ({"dim": 0}, "dim must be >= 1"),
    ],
)
def test_isotropic_refuses(arguments, message):
    good = {"decay": 0.1, "frequency": 1.0, "process_var": 1.0, "obs_var": 1.0}
    with pytest.raises(ValueError, match=message):
        LinearSDE.isotropic(**(good | arguments))


# -------------------------------------------------------------------------------------- sums


def test_sum_is_the_sum_of_independent_processes():
    """Covariance of the summed observations = sum of the two covariances."""
    a, b = MODELS["matern32"], MODELS["ou"]
    t = irregular_times(6)

    def law(model):
        joint = joint_gaussian(model, t)
        return joint.H @ joint.mean + joint.offset, joint.H @ joint.cov @ joint.H.T + joint.R

    for whole, one, other in zip(law(a + b), law(a), law(b)):
        np.testing.assert_allclose(whole.astype(float), (one + other).astype(float), atol=1e-14)


def test_sum_joins_priors():
    stationary, diffuse = ou(), MODELS["brownian"]
    assert (stationary + stationary).prior == "stationary"
    assert (diffuse + diffuse).prior == "diffuse"
    mixed = (diffuse + stationary).prior
    np.testing.assert_allclose(mixed.cov, np.diag([0.0, 0.25]))
    np.testing.assert_array_equal(np.abs(mixed.diffuse), [[1.0], [0.0]])
    known = ou(prior=Prior([2.0], [[0.1]], t0=-1.0))
    assert (known + stationary).prior.t0 == -1.0
    with pytest.raises(ValueError, match="priors at the same t0"):
        known + ou(prior=Prior([2.0], [[0.1]]))


def test_sum_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="observe the same components, got p = 1 and 2"):
        ou() + MODELS["spiral"]
    with pytest.raises(ValueError, match=r"must share delay, got 0\.0 and 1\.0"):
        ou() + replace(ou(), delay=1.0)
    with pytest.raises(TypeError):
        ou() + 1.0


# ----------------------------------------------------------------------------- discrete models


def test_discretized_model_is_the_same_law(model):
    t = irregular_times(7)
    z = draw_data(model, t, missing=0.1)
    discrete = model.discretize(t)
    assert (discrete.length, discrete.dim, discrete.obs_dim) == (7, model.dim, model.obs_dim)
    np.testing.assert_array_equal(discrete.F[0], np.eye(model.dim))
    expected = dense_loglik(model, t, z)
    assert dense_loglik(discrete, t, z) == pytest.approx(expected, rel=1e-10, abs=1e-10)
    for a, b in zip(
        dense_posterior(discrete, t, z, causal=False), dense_posterior(model, t, z, causal=False)
    ):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_discretize_refuses():
    with pytest.raises(ValueError, match="delay"):
        replace(ou(), delay=0.3).discretize([0.0, 1.0])
    with pytest.raises(ValueError, match="t must not decrease"):
        ou().discretize([1.0, 0.0])
    with pytest.raises(ValueError, match="at least one time"):
        ou().discretize([])


def test_discrete_stationary_law():
    F = np.array([[0.5, 0.2], [-0.1, 0.8]])
    model = DiscreteModel(F, Q=I2, H=[[1.0, 0.0]], R=[[1.0]], b=[1.0, -1.0])
    assert model.prior == "stationary"
    mean, cov, _ = model.initial_law()
    np.testing.assert_allclose(F @ mean + [1.0, -1.0], mean, atol=1e-14)
    np.testing.assert_allclose(F @ cov @ F.T + I2, cov, atol=1e-13)
    assert DiscreteModel(I2, Q=I2, H=I2, R=I2).prior == "diffuse"
    assert DiscreteModel(I2, Q=I2, H=I2, R=I2).length is None
    np.testing.assert_array_equal(DiscreteModel(I2, Q=I2, H=I2, R=I2).initial_law().diffuse, I2)


def test_time_axis_is_said_never_guessed():
    """Three steps of a 3-component model: the shapes alone could mean either."""
    F = np.stack([np.eye(3)] * 3)
    model = DiscreteModel(F, Q=np.eye(3), H=np.eye(3), R=np.eye(3), time_varying="F")
    assert model.length == 3
    assert model.prior == "diffuse"
    assert "time_varying=('F',)" in repr(model)
    with pytest.raises(ValueError, match=r"F must have shape \(3, 3\), got shape \(3, 3, 3\)"):
        DiscreteModel(F, Q=np.eye(3), H=np.eye(3), R=np.eye(3))


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"F": 1.0}, ValueError, r"F must be \(n, n\) and H \(p, n\)"),
        ({"F": np.ones((2, 3))}, ValueError, r"F must have shape \(3, 3\), got shape \(2, 3\)"),
        ({"H": [1.0, 0.0]}, ValueError, r"H \(p, n\), got .* \(2,\)"),
        ({"H": np.ones((1, 3))}, ValueError, r"H must have shape \(1, 2\)"),
        ({"Q": 1.0}, ValueError, r"Q must have shape \(2, 2\), got the scalar 1"),
        ({"Q": -I2}, ValueError, "Q must be positive semidefinite"),
        ({"R": [[1.0, 0.2], [0.0, 1.0]]}, ValueError, "R must be symmetric"),
        ({"R": [[1.0]]}, ValueError, r"R must have shape \(2, 2\)"),
        ({"b": [1.0]}, ValueError, r"b must have shape \(2,\)"),
        ({"d": [1.0]}, ValueError, r"d must have shape \(2,\)"),
        ({"F": 1j * I2}, TypeError, "F must be real"),
        ({"time_varying": "G"}, ValueError, "time_varying must be one of 'F'"),
        ({"time_varying": ("b",)}, ValueError, "time_varying names 'b', which is not given"),
        ({"Q": np.ones((0, 2, 2)), "time_varying": "Q"}, ValueError, "at least one step"),
        (
            {"F": np.ones((3, 2, 2)), "Q": np.ones((4, 2, 2)), "time_varying": ("F", "Q")},
            ValueError,
            "share their leading length",
        ),
        ({"prior": "stationary"}, ValueError, "'stationary' needs stable"),
        ({"prior": Prior([0.0], [[1.0]])}, ValueError, r"prior mean .* \(2,\)"),
        ({"prior": Prior([0.0, 0.0], I2, t0=0.0)}, ValueError, "leave t0 out"),
    ],
)
def test_bad_discrete_models(changes, kind, message):
    good = {"F": I2, "Q": I2, "H": I2, "R": I2}
    DiscreteModel(**good)
    with pytest.raises(kind, match=message):
        DiscreteModel(**(good | changes))


def test_matrices_after_the_first_are_named():
    """F, H, Q, R as other tools order them must not be taken for F, Q, H, R."""
    one, two = np.eye(1), np.eye(2)
    with pytest.raises(TypeError, match=r"takes F alone by position, got 4 .*F, Q=\.\.\., H="):
        DiscreteModel(two, two, two, two)
    with pytest.raises(TypeError, match=r"takes A alone by position, got 4 .*A, Q=\.\.\., R="):
        LinearSDE(one, one, one, one)
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'R'"):
        LinearSDE(one, Q=one)
    model = pickle.loads(pickle.dumps(LinearSDE(-two, Q=two, R=two)))
    np.testing.assert_array_equal(model.A, -two)
    np.testing.assert_array_equal(replace(model, R=3 * two).R, 3 * two)


def test_what_a_model_remembers_is_its_own() -> None:
    """Laws and transitions that callers change leave the model as it was; other threads too."""
    discrete = DiscreteModel([[0.9, 0.2], [-0.2, 0.8]], Q=np.eye(2), H=[[1.0, 0.0]], R=[[0.5]])
    laws: list[Any] = [spiral().initial_law, lambda _: discrete.initial_law()]
    for law in laws:
        kept = law(0.0).cov.copy()
        law(0.0).cov[:] = np.nan
        np.testing.assert_array_equal(law(0.0).cov, kept)
    model = spiral()
    sets = [np.array([0.1, 0.4, 0.2]) * k for k in range(1, 100)]
    wanted = [spiral().transition(steps) for steps in sets]
    model.transition(sets[0])[0][:] = np.nan
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(model.transition, sets + sets))
    for got, exact in zip(found, wanted + wanted, strict=True):
        for part, other in zip(got, exact, strict=True):
            np.testing.assert_array_equal(part, other)
