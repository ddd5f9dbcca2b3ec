"""Answers that are taken again with other last digits: wrong ones are said, ordinary ones not."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import block_diag

from afafilter import (
    DiscreteModel,
    LinearSDE,
    Prior,
    brownian,
    constant_velocity,
    damped_oscillator,
    forecast,
    kalman_filter,
    loglik,
    matern,
    ornstein_uhlenbeck,
    rts_smoother,
    seasonal,
    spiral,
)
from afafilter._base import doubts
from afafilter._base.doubts import LostDigits
from tests.exact_oracle import ExactGaussian
from tests.fuzz.truth import law_apart

TURN = np.array([[1.0, 0.3, -0.2], [0.4, 1.0, 0.5], [-0.6, 0.2, 1.0]])
GRIDS = {
    "days": np.arange(40.0),
    "irregular": np.sort(np.random.default_rng(0).uniform(0.0, 200.0, 40)),
    "repeated": np.repeat(np.arange(20.0), 2),
    "unix": 1.7e9 + 10.0 * np.arange(40),
}
PRESETS = {
    "walk": lambda prior: brownian(0.01, 0.09, prior=prior),
    "ou": lambda prior: ornstein_uhlenbeck(prior=prior),
    "matern": lambda prior: matern(prior=prior),
    "velocity": lambda prior: constant_velocity(process_var=1.0, obs_var=0.1, prior=prior),
    "oscillator": lambda prior: damped_oscillator(prior=prior),
    "spiral": lambda prior: spiral(prior=prior),
    "season": lambda prior: brownian(0.01, 0.09, prior=prior) + seasonal(7.0, 2, process_var=0.01),
}


def integrals(gap, prior):
    """Twice integrated noise in another basis, before and after a long gap."""
    A, Q = np.diag(np.ones(2), 1), TURN @ np.diag([0.0, 0.0, 1.0]) @ TURN.T
    A = TURN @ A @ np.linalg.inv(TURN)
    C = [[1.0, 0.0, 0.5]]
    model = LinearSDE(A, Q=(Q + Q.T) / 2, R=[[1.0]], C=C, prior=prior)
    t = np.array([0.0, 1.0, 2.0])
    z = np.random.default_rng(0).standard_normal((6, 1))
    return model, np.concatenate([t, t + 2.0 + gap]), z


def precise(sd):
    """After a vague prediction a sensor of this sd, and another one that sees the difference."""
    A = block_diag([[0.0, 1.0], [0.0, 0.0]], 0.0)
    C, R = [[1.0, 0.0, -1.0], [1.0, 0.3, 0.0]], np.diag([sd**2, 1e-2])
    prior = Prior(np.array([0.3, -0.7, 0.1]), 1e4 * np.eye(3))
    model = LinearSDE(A, Q=np.diag([0.0, 1e3, 1e2]), R=R, C=C, prior=prior)
    t = np.array([0.0, 400.0, 401.0, 401.5])
    z = np.array([[0.1, 0.3], [4e5, -4e5], [4.1e5, np.nan], [4.2e5, -3.7e5]])
    return model, t, z


def looked_at(monkeypatch):
    """Take every answer again."""
    for name in ("UNSURE", "HIDES", "MAGNIFIED"):
        monkeypatch.setattr(doubts, name, -1.0)


@pytest.mark.parametrize("prior", ["diffuse", "known"])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", PRESETS)
def test_ordinary_models_do_not_move(monkeypatch, name, grid, prior):
    """No warning (an error here), although all is looked at."""
    looked_at(monkeypatch)
    model, t = PRESETS[name]("diffuse"), GRIDS[grid]
    if prior == "known":
        model = replace(model, prior=Prior(np.zeros(model.dim), 10.0 * np.eye(model.dim)))
    z = 5.0 + np.random.default_rng(1).standard_normal((3, len(t), model.obs_dim))
    z[1, 4:7] = np.nan
    kalman_filter(model, t, z, query_times=np.sort(np.append(t, t[:5] + 0.3)))
    rts_smoother(model, t, z, weight="huber")
    loglik(model, t, z, gradient=True)
    forecast(model, t, z, horizon_times=[t[-1] + 3.0])


def test_ordinary_steps_do_not_move(monkeypatch):
    """An ARMA model without measurement noise; a level and a slope."""
    looked_at(monkeypatch)
    z = np.random.default_rng(2).standard_normal(60)
    arma = DiscreteModel(
        [[0.6, 1.0], [0.0, 0.0]], H=[[1.0, 0.0]], Q=np.outer([1.0, 0.4], [1.0, 0.4]), R=[[0.0]]
    )
    trend = DiscreteModel(
        [[1.0, 1.0], [0.0, 1.0]],
        H=[[1.0, 0.0]],
        Q=np.diag([0.1, 0.01]),
        R=[[1.0]],
        prior="diffuse",
    )
    for model in (arma, trend):
        kalman_filter(model, z)
        rts_smoother(model, z)
        loglik(model, None, z, gradient=True)


@pytest.mark.parametrize("prior", ["diffuse", Prior(np.zeros(3), np.eye(3))], ids=["flat", "known"])
@pytest.mark.parametrize(("gap", "lost"), [(400.0, False), (8000.0, True), (12000.0, True)])
def test_a_gap_that_leaves_a_gradient_few_digits_is_said(gap, lost, prior):
    """A gap of 8000 costs three more digits than one of 400, for the same numbers elsewhere."""
    model, t, z = integrals(gap, prior)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value, _ = loglik(model, t, z, gradient=True)
    assert {w.category for w in caught} == ({LostDigits} if lost else set())
    if not lost:
        assert value == pytest.approx(ExactGaussian(model, t, z).loglik(), abs=1e-7)


@pytest.mark.parametrize("run", [kalman_filter, rts_smoother])
@pytest.mark.parametrize("sd", [1e-1, 1e-4, 1e-6, 1e-7])
def test_right_or_said(run, sd):
    """By the exact law in ball arithmetic: off by 1e-6 of a standard deviation, or a warning."""
    model, t, z = precise(sd)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = run(model, t, z)
    exact = ExactGaussian(model, t, z)
    off = max(
        law_apart(
            (found.mean[k], found.cov[k]),
            exact.law(at, k + 1 if run is kalman_filter else None),
            exact.stretch(),
        )
        for k, at in enumerate(t)
    )
    assert off <= 1e-6 or any(w.category is LostDigits for w in caught)
    if sd == 1e-1:
        assert not caught
