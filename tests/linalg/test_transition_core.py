"""core/transition.h: transitions side by side and their adjoint, against 50-digit arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from afafilter.linalg.discretiser import Discretiser
from afafilter.linalg.transitions import by_columns, lower_roots, transition_adjoint, transitions
from afafilter.models.sde import LinearSDE
from tests.conftest import MODELS
from tests.oracles import mp_transition

STEPS = np.array([0.0, 1e-7, 0.3, 1e-3, 2.0, 0.3, 9.0, 0.05, 0.7])
"""Lanes of one register with different numbers of doublings, and a rest."""


def test_transitions(model: LinearSDE) -> None:
    drift = np.random.default_rng(1).standard_normal(model.dim)
    found = transitions(np.array(model.A), np.array(model.Q), drift, STEPS)
    reach = np.abs(model.A).sum(axis=0).max()
    for k, dt in enumerate(STEPS):
        exact = mp_transition(model.A, model.Q, drift, dt)
        for part, wanted, scale in zip(found, exact, (1.0, 0.0, 0.0)):
            size = max(scale, np.abs(wanted).max())
            np.testing.assert_allclose(
                part[k], wanted, rtol=0, atol=4e-15 * (2 + reach * dt) * size + 1e-300
            )


def test_lanes_do_not_know_their_neighbours(model: LinearSDE) -> None:
    together = transitions(np.array(model.A), np.array(model.Q), np.array(model.drift), STEPS)
    for k in range(len(STEPS)):
        alone = transitions(
            np.array(model.A), np.array(model.Q), np.array(model.drift), STEPS[k : k + 1]
        )
        for part, single in zip(together, alone):
            np.testing.assert_array_equal(part[k], single[0])


@pytest.mark.parametrize("name", ["constant_velocity", "stiff", "oscillator", "general"])
def test_adjoint(name: str) -> None:
    """<G, d(Phi, psi, V)> against differences of the 50-digit discretisation."""
    model = MODELS[name]
    d, rng = model.dim, np.random.default_rng(3)
    A, Q, u = np.array(model.A), np.array(model.Q), rng.standard_normal(d)
    weights = [rng.standard_normal((len(STEPS), *shape)) for shape in ((d, d), (d,), (d, d))]
    gA, gQ, gu = transition_adjoint((A, Q, u), STEPS, *weights)
    EA, EQ, Eu = (rng.standard_normal(x.shape) * (np.abs(x) + 0.1) for x in (A, Q, u))
    EQ, h, total, size = EQ + EQ.T, 1e-7, 0.0, 0.0
    for k, dt in enumerate(STEPS):
        plus = mp_transition(A + h * EA, Q + h * EQ, u + h * Eu, dt)
        minus = mp_transition(A - h * EA, Q - h * EQ, u - h * Eu, dt)
        for g, p, m in zip(weights, plus, minus):
            slope = float((g[k] * (p - m)).sum()) / (2 * h)
            total, size = total + slope, size + abs(slope)
    found = (gA * EA).sum() + (gQ * EQ).sum() + (gu * Eu).sum()
    assert found == pytest.approx(total, abs=1e-6 * size)


DECAYING = {
    "alone": np.array([[-1.0]]),
    "several": np.diag([-1.0, -0.2, -1e-9]),
    "one drives the other": np.array([[-1.0, 0.3], [0.0, -0.7]]),
    "critical": np.array([[0.0, 1.0], [-1.0, -2.0]]),
    "spiral": np.array([[-1.0, 0.4], [-0.4, -1.0]]),
}


@pytest.mark.parametrize("A", DECAYING.values(), ids=DECAYING.keys())
def test_what_has_decayed_and_what_is_slow_keep_their_digits(A: np.ndarray) -> None:
    """Every entry of Phi and the slope of every entry in units of its own, down to e^-600."""
    d, steps = len(A), np.array([7.0, 40.0, 58.0, 87.0, 300.0, 600.0])
    zero = np.zeros((d, d))
    Phi = transitions(A, zero, np.zeros(d), steps)[0]
    for tau, found in zip(steps, Phi, strict=True):
        wanted = mp_transition(A, zero, np.zeros(d), tau)[0]
        reach = 1 + tau * np.abs(A).sum(axis=1, keepdims=True)
        rounding = 1e-15 * (reach**2 if A is DECAYING["critical"] else reach)
        assert (np.abs(found - wanted) <= rounding * np.abs(wanted)).all(), tau
        weights = np.divide(1.0, wanted, where=wanted != 0, out=np.zeros((d, d), wanted.dtype))
        none = np.zeros((1, d)), np.zeros((1, d, d))
        given = weights[None].astype(float)
        slope = transition_adjoint((A, zero, np.zeros(d)), np.array([tau]), given, *none)[0]
        for i, j in zip(*np.nonzero(A), strict=True):
            h = 2.0 ** np.floor(np.log2(1e-8 / tau))
            E = np.zeros((d, d))
            E[i, j] = h
            plus, minus = (mp_transition(A + s * E, zero, np.zeros(d), tau)[0] for s in (1, -1))
            change = (A + E)[i, j] - (A - E)[i, j]
            want = float((weights * (plus - minus)).sum() / change)
            assert slope[i, j] == pytest.approx(want, rel=1e-8), (tau, i, j)


def test_lower_roots_of_singular_matrices() -> None:
    rng = np.random.default_rng(0)
    B = np.tril(rng.standard_normal((7, 3, 3)))
    B[1, :, 1] = B[2, :, 0] = B[3, :, 2] = B[4] = 0.0
    V = B @ B.swapaxes(1, 2)
    root = lower_roots(V).swapaxes(1, 2)
    np.testing.assert_array_equal(root, np.tril(root))
    np.testing.assert_allclose(root @ root.swapaxes(1, 2), V, atol=1e-14)


@pytest.mark.parametrize("name", ["constant_velocity", "stiff", "general"])
def test_from_base_agrees_with_each_by_itself(name: str) -> None:
    """Many close steps go by base points; alone each is discretised by itself."""
    model = MODELS[name]
    taus = np.random.default_rng(2).uniform(0.0, 0.05, 4001)
    discretiser = Discretiser(model.A, model.Q, model.drift)
    many = discretiser(taus)
    columns = discretiser.roots(taus)
    some = slice(None, None, 500)
    alone = [discretiser._exact(taus[some])[i] for i in range(3)]
    for part, wanted in zip(many, alone):
        np.testing.assert_allclose(part[some], wanted, rtol=1e-12, atol=1e-14)
    for part, wanted in zip(columns, by_columns(*many)):
        np.testing.assert_allclose(part, wanted, rtol=1e-9, atol=1e-13)
