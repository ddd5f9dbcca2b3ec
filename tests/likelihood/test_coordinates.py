"""Gradients over long gaps in another basis than that of the powers of t, against exact slopes.

The exact slope is a central difference of the joint Gaussian's density in 800-bit balls.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from flint import arb
from scipy.linalg import block_diag

from afafilter import LinearSDE, Prior
from afafilter.likelihood.chain import PriorArrays, System
from afafilter.likelihood.coordinates import in_schur_coordinates
from afafilter.likelihood.data import prepare
from afafilter.likelihood.loglik import evaluate
from afafilter.likelihood.rounding import powers_cancel
from tests.exact_oracle import ExactGaussian, exact_balls
from tests.likelihood.test_loglik import fading

STEP = arb(2) ** -150
BASIS = np.array([[1.0, 0.3, -0.2], [0.4, 1.0, 0.5], [-0.6, 0.2, 1.0]])
NEARLY = np.array([[1.0, 1.0, 0.0], [1.0, 1.001, 0.5], [0.0, 0.7, 1.0]])
INTEGRALS = np.diag([1.0, 1.0], 1)
RESONATOR = np.kron(np.eye(2), [[-0.01, 1.0], [-1.0, -0.01]]) + np.kron(
    [[0.0, 1.0], [0.0, 0.0]], np.eye(2)
)
SLOPES = {"A": "A", "Q": "Q", "R": "R", "H": "C", "u": "drift", "offset": "offset"}
KNOWN = "known"


def turned(A: Any, Q: Any, C: Any, S: Any, prior: Any) -> LinearSDE:
    """A model and its noise in the basis S."""
    Q = S @ Q @ S.T
    d = len(A)
    prior = Prior(np.full(d, 0.2), np.eye(d) + 0.3) if prior is KNOWN else prior
    return LinearSDE(
        S @ A @ np.linalg.inv(S), Q=(Q + Q.T) / 2, R=[[1.0]], C=C, drift=np.ones(d), prior=prior
    )


def draw(gap: float) -> tuple[Any, Any]:
    t, z = np.array([0.0, 1.0, 2.0, 3.0]), np.random.default_rng(0).standard_normal((8, 1))
    return np.concatenate([t, t + 3.0 + gap]), z


def assert_exact_slopes(
    model: LinearSDE, t: Any, z: Any, tol: float, names: Iterable[str] = SLOPES
) -> None:
    """Every array's slope in a random direction, to `tol` of its size, or of 1."""
    value, slopes = evaluate(System.of(model), prepare(t, z, model.obs_dim, None))
    assert value == pytest.approx(ExactGaussian(model, t, z, bits=800).loglik(), rel=1e-9, abs=1e-6)
    for k, put in enumerate(names):
        field = SLOPES[put]
        E = np.sign(np.random.default_rng(k).normal(size=np.shape(getattr(model, field))))
        E = np.sign(E + E.T) if put in ("Q", "R") else E

        def exact(sign: int, put: str = put, E: Any = E) -> Any:
            def change(name: str, values: Any) -> Any:
                balls = exact_balls(name, values)
                return balls + exact_balls("", E) * STEP * sign if name == put else balls

            return ExactGaussian(model, t, z, change=change, bits=800).loglik_ball()

        want = float(((exact(1) - exact(-1)) / (2 * STEP)).mid())
        slope = getattr(slopes, field)
        size = np.linalg.norm(slope) * np.linalg.norm(E)
        assert (slope * E).sum() == pytest.approx(want, abs=tol * max(size, 1.0)), field


@pytest.mark.parametrize("prior", ["diffuse", KNOWN])
@pytest.mark.parametrize("gap", [50.0, 400.0, 1000.0])
@pytest.mark.parametrize("S", [BASIS, BASIS.T, NEARLY], ids=["basis", "transposed", "nearly"])
def test_three_integrals(S, gap, prior):
    """By doublings in the model's own basis the slope by A is off by half at a gap of 400."""
    model = turned(INTEGRALS, np.diag([0.0, 0.0, 1.0]), [[1.0, 0.0, 0.5]], S, prior)
    assert powers_cancel(model.A, gap)
    assert_exact_slopes(model, *draw(gap), tol=1e-5)


@pytest.mark.parametrize("prior", ["diffuse", KNOWN])
@pytest.mark.parametrize(
    ("A", "noise"),
    [
        (INTEGRALS - 0.003 * np.eye(3), np.diag([0.0, 0.0, 1.0])),
        (INTEGRALS, np.diag([0.0, 0.1, 1.0])),
        (INTEGRALS, np.eye(3)),
        (INTEGRALS, np.diag([0.0, 0.0, 0.0])),
        (np.diag([1.0, 0.0], 1) - np.diag([0, 0, 0.05]), np.diag([0.0, 1.0, 1.0])),
    ],
    ids=["defective", "two noises", "full", "none", "decay beside"],
)
def test_other_dynamics(A, noise, prior):
    model = turned(A, noise, [[1.0, 0.3, 0.5]], BASIS, prior)
    assert_exact_slopes(model, *draw(300.0), tol=1e-5)


@pytest.mark.parametrize("prior", ["diffuse", KNOWN])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("A", [INTEGRALS, RESONATOR], ids=["integrals", "resonator"])
def test_units_of_the_states_do_not_count(A, seed, prior):
    """Orthonormal in one unit, a basis mixes all digits in another."""
    d, rng = len(A), np.random.default_rng(seed)
    S = np.eye(d) + 0.4 * rng.standard_normal((d, d))
    model = turned(A, np.eye(d), 1.0 + rng.random((1, d)), S, prior)
    s = 2.0 ** rng.integers(-20, 21, d)
    pair, turn = np.outer(s, s), s[:, None] / s
    if prior is KNOWN:
        prior = Prior(s * model.prior.mean, pair * model.prior.cov)
    other = LinearSDE(
        turn * model.A, Q=pair * model.Q, R=model.R, C=model.C / s, drift=s, prior=prior
    )
    t, z = draw(300.0)
    (_, slopes), (value, found) = (
        evaluate(System.of(m), prepare(t, z, 1, None)) for m in (model, other)
    )
    wanted = ExactGaussian(other, t, z, bits=800).loglik()
    assert value == pytest.approx(wanted, rel=1e-9, abs=1e-8)
    own = found.A * turn, found.Q * pair, found.C / s, found.drift * s
    for slope, want in zip(own, (slopes.A, slopes.Q, slopes.C, slopes.drift), strict=True):
        np.testing.assert_allclose(slope, want, rtol=1e-6, atol=1e-6 * np.abs(want).max())


@pytest.mark.parametrize("gap", [350.0, 600.0])
def test_what_is_left_of_an_oscillation_without_noise(gap):
    """e^-51 and e^-87 of the start, seen exactly."""
    assert_exact_slopes(*fading(gap), tol=1e-8, names="A")


@pytest.mark.parametrize("gap", [58.0, 87.0])
@pytest.mark.parametrize(
    ("A", "C"),
    [
        ([[-1.0]], [[1.0]]),
        (np.diag([-1.0, -0.2]), [[1.0, 0.5]]),
        (np.diag([-0.2, -1.0]), [[1.0, 0.5]]),
        (np.array([[-1.0, 0.3], [0.0, -0.7]]), [[1.0, 0.5]]),
        (np.array([[0.0, 1.0], [-1.0, -2.0]]), [[1.0, 0.0]]),
        (np.array([[-1.0, 0.4], [-0.4, -1.0]]), [[1.0, 0.0]]),
        (np.diag([-1.0, -0.2, -1e-6]), [[1.0, 0.5, 0.3]]),
        (block_diag([[-1.0]], np.diag([1.0], 1)), [[1.0, 1.0, 0.0]]),
    ],
    ids=["alone", "two", "swapped", "drives", "critical", "spiral", "three", "velocity"],
)
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_a_flat_start_that_is_seen_late(A, C, gap, noise):
    """Nothing is seen before the state has decayed to e^-58 and e^-87 of what it was."""
    model = LinearSDE(A, Q=np.diag([0.0] * (len(A) - 1) + [noise]), R=[[0.1]], C=C, prior="diffuse")
    t = np.concatenate([[0.0], gap + np.array([0.0, 0.5, 1.7, 2.1])])
    z = np.array([[np.nan], [0.4], [0.7], [-0.2], [0.1]])
    assert_exact_slopes(model, t, z, tol=1e-6, names="A")


@pytest.mark.parametrize("prior", ["stationary", KNOWN])
def test_a_resonator_that_drives_its_like(prior):
    S = np.eye(4) + 0.4 * np.random.default_rng(1).standard_normal((4, 4))
    model = turned(RESONATOR, np.diag([0.0, 0.0, 1.0, 1.0]), [[1.0, 0.0, 0.5, 0.0]], S, prior)
    assert_exact_slopes(model, *draw(60.0), tol=1e-7)


def test_a_prior_long_before_the_first_observation():
    """Its step counts among the intervals, though none of the data's is long."""
    model = turned(INTEGRALS, np.diag([0.0, 0.0, 1.0]), [[1.0, 0.0, 0.5]], BASIS, "diffuse")
    prior = Prior(np.zeros(3), np.eye(3), t0=-400.0)
    t, z = draw(3.0)
    model = LinearSDE(
        model.A, Q=model.Q, R=model.R, C=model.C, drift=np.ones(3), offset=[0.0], prior=prior
    )
    assert_exact_slopes(model, t, z, tol=1e-5)


def test_priors_turn_with_the_state():
    """Partly flat, in a direction of its own: the same value, the same slopes by the prior."""
    model = turned(INTEGRALS, np.diag([0.0, 0.0, 1.0]), [[1.0, 0.0, 0.5]], BASIS, "diffuse")
    t, z = draw(2.0)
    flat = np.linalg.qr(np.array([[1.0, 0.2], [0.5, -1.0], [0.3, 0.4]]))[0]
    prior = PriorArrays(np.array([0.1, 0.2, 0.3]), np.eye(3) + 0.2, flat)
    system, data = System.of(model)._replace(prior=prior), prepare(t, z, 1, None)
    value, slopes = evaluate(system, data)
    moved, back = in_schur_coordinates(system)
    again, turned_slopes = evaluate(moved, data)
    assert again == pytest.approx(value, abs=1e-10)
    own = back(turned_slopes)
    for name in ("A", "Q", "C", "drift"):
        assert getattr(own, name) == pytest.approx(getattr(slopes, name), rel=1e-8, abs=1e-9)
    for name in ("mean", "cov", "flat"):
        want = getattr(slopes.prior, name)
        assert getattr(own.prior, name) == pytest.approx(want, rel=1e-8, abs=1e-9)


def test_what_is_not_seen_stays_unseen():
    """A row across a direction, in exact numbers, sees nothing of it in the other basis either."""
    A = np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.2, -0.2, 0.0]])
    model = LinearSDE(A, Q=np.eye(3), R=[[1.0]], C=[[1.0, 1.0, 0.0]], prior="diffuse")
    moved, _ = in_schur_coordinates(System.of(model))
    assert np.count_nonzero(moved.C) == 1


def test_growth_alone_is_no_reason():
    assert not powers_cancel(np.array([[0.5, -0.5], [-0.5, 0.5]]), 40.0)
    assert not powers_cancel(np.array([[1.0]]), 40.0)
