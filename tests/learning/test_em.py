"""Expectation-maximisation: one step against textbook formulas, the same optimum as ML."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from afafilter import DiscreteModel, FitWarning, LinearSDE, Prior, fit, simulate
from afafilter import families as f
from afafilter.learning.em import _expect, expected_loglik
from afafilter.likelihood.chain import DiscreteSystem, System
from afafilter.likelihood.data import prepare
from afafilter.likelihood.loglik import evaluate, make_chain
from tests.conftest import MODELS, draw_data, irregular_times
from tests.learning.test_fit import LOCAL_LEVEL, NILE, YEARS, slope


def test_nile_by_em_reaches_the_optimum_of_ml() -> None:
    """Monotone, and the same model; EM's last steps are slow, hence the tolerance."""
    em = fit(LOCAL_LEVEL, YEARS, NILE, method="em")
    ml = fit(LOCAL_LEVEL, YEARS, NILE)
    assert em.converged
    assert em.loglik == pytest.approx(ml.loglik, abs=1e-4)
    for name in ml.params:
        assert em.params[name] == pytest.approx(ml.params[name], rel=5e-3)
    assert (np.diff(em.history) > -1e-9).all()


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_free_matrices_by_em_reach_the_optimum_of_ml(kind: str) -> None:
    rng = np.random.default_rng(1)
    prior = Prior(np.zeros(2), np.eye(2))
    if kind == "continuous":
        t: Any = np.cumsum(rng.choice([0.5, 1.0, 0.0], 120, p=[0.5, 0.4, 0.1]))
        model: Any = LinearSDE(
            [[-0.5, 0.8], [-0.8, -0.5]], Q=0.5 * np.eye(2), R=0.1 * np.eye(2), prior=prior
        )
        free = ["A", "Q", "R"]
    else:
        t = np.arange(120.0)
        model = DiscreteModel(
            [[0.7, 0.3], [-0.3, 0.7]],
            Q=0.5 * np.eye(2),
            H=np.eye(2),
            R=0.1 * np.eye(2),
            prior=prior,
        )
        free = ["F", "Q", "b"]
    z = simulate(model, t, 2, rng=rng, missing=0.1).z
    ml = fit(model, t, z, free=free)
    em = fit(model, t, z, free=free, method="em", tolerance=1e-5)
    assert em.loglik == pytest.approx(ml.loglik, abs=2e-3)
    assert (np.diff(em.history) > -1e-8).all()
    for name, error in ml.std_errors.items():
        assert em.params[name] == pytest.approx(ml.params[name], abs=0.1 * error)


def test_m_step_of_a_discrete_model_is_shumway_and_stoffers() -> None:
    """At the closed-form maximum the gradient of the expected log-likelihood vanishes."""
    rng = np.random.default_rng(3)
    model = DiscreteModel(
        [[0.8, 0.2], [-0.1, 0.6]],
        Q=np.eye(2),
        H=[[1.0, 0.5]],
        R=[[0.4]],
        prior=Prior([0, 0], np.eye(2)),
    )
    z = simulate(model, np.arange(40.0), rng=rng, missing=0.2).z
    data = prepare(None, z, 1, None)
    system = DiscreteSystem.of(model)
    _, expected = _expect(system, data)
    s = expected.transitions
    n = float(s.n[0])
    xy, yy = s.xy[0, :, :2], s.yy[0, :2, :2]
    F = np.linalg.solve(yy, xy.T).T
    Q = (s.xx[0] - F @ xy.T) / n
    ((_, _, _, o),) = expected.observations
    H = np.linalg.solve(o.yy[:2, :2], o.xy[:, :2].T).T
    R = (o.xx - H @ o.xy[:, :2].T) / o.n
    best = system._replace(F=F, Q=0.5 * (Q + Q.T), H=H, R=R)
    chain, _ = make_chain(best, data)
    peak, grad = expected_loglik(chain, expected)
    for part in (grad.F, grad.V, grad.H, grad.R):
        np.testing.assert_allclose(part, 0, atol=1e-7 * n)
    assert peak > expected_loglik(make_chain(system, data)[0], expected)[0]


@pytest.mark.parametrize("name", ["general", "matern32", "trend_and_ou"])
def test_expected_loglik_gradient_is_the_score_at_the_same_model(name: str) -> None:
    """Fisher's identity: both gradients agree where the expectations were taken."""
    model = MODELS[name]
    t = np.array([0.0, 0.8, 1.5, 1.5, 2.3, 3.9, 4.6, 6.0, 6.7, 7.9])
    z = draw_data(model, t, missing=0.2)
    data = prepare(t, z, model.obs_dim, None)
    system = System.of(model)
    chain, pullback = make_chain(system, data)
    _, expected = _expect(system, data)
    _, grad = expected_loglik(chain, expected)
    ours, score = pullback(grad), evaluate(system, data)[1]
    for field in ("A", "Q", "C", "R", "drift", "offset"):
        have, want = getattr(ours, field), getattr(score, field)
        np.testing.assert_allclose(have, want, rtol=1e-6, atol=1e-6 * np.abs(want).max() + 1e-8)


def test_expected_loglik_gradient_elsewhere() -> None:
    model = MODELS["proper_prior"]
    t = irregular_times(9)
    data = prepare(t, draw_data(model, t, missing=0.2), 3, None)
    _, expected = _expect(System.of(model), data)
    base = System.of(model)
    moved = base._replace(A=0.9 * base.A, Q=1.2 * base.Q, R=1.1 * base.R, C=0.8 * base.C)
    chain, pullback = make_chain(moved, data)
    grad = pullback(expected_loglik(chain, expected)[1])
    rng = np.random.default_rng(0)
    for field in ("A", "Q", "C", "R", "drift", "offset"):
        X = getattr(moved, field)
        E = rng.standard_normal(X.shape) * (np.abs(X).max() or 1.0)
        E = E + E.T if field in ("Q", "R") else E

        def value(h: float, field: str = field, X: Any = X, E: Any = E) -> float:
            there = moved._replace(**{field: X + h * E})
            return expected_loglik(make_chain(there, data)[0], expected)[0]

        exact = float((getattr(grad, field) * E).sum())
        assert exact == pytest.approx(slope(value, 1e-3), rel=1e-6, abs=1e-6)


def test_em_refuses_noise_that_does_not_reach_every_state() -> None:
    model = MODELS["noiseless_rotation"]
    t = irregular_times(20)
    z = draw_data(model, t)
    with pytest.raises(ValueError, match="EM needs process noise"):
        fit(model, t, z, free=["A", "R"], method="em")
    free = fit(model, t, z, free={"A": [[False, True], [True, False]], "R": None})
    assert free.converged  # maximum likelihood can


def test_em_says_when_it_stops_early() -> None:
    with pytest.warns(FitWarning, match="did not converge: stopped after 3 iterations"):
        result = fit(f.cycle() + f.noise(), YEARS, NILE - NILE.mean(), method="em", max_iter=3)
    assert not result.converged
    assert len(result.history) == 3
