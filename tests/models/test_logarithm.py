"""The continuous model behind a discrete one: there and back, and clear refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from afafilter import DiscreteModel, LinearSDE, adaptive_filter, adaptive_smoother, kalman_filter
from afafilter.models.logarithm import continuous_form
from tests.conftest import MODELS
from tests.oracles import mp_transition

NAMES = ["spiral", "ou", "constant_velocity", "oscillator", "matern32", "general", "unstable"]


def discrete(model: LinearSDE) -> DiscreteModel:
    """The form on unit steps by mpmath."""
    F, b, V = (x.astype(float) for x in mp_transition(model.A, model.Q, model.drift, 1.0))
    return DiscreteModel(
        F, Q=0.5 * (V + V.T), H=model.C, R=model.R, b=b, d=model.offset, prior="diffuse"
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_model_comes_back(name):
    model = replace(MODELS[name], prior="diffuse", drift=np.full(MODELS[name].dim, 0.3))
    found = continuous_form(discrete(model))
    for part in ("A", "Q", "drift", "R", "C"):
        wanted = getattr(model, part)
        scale = max(np.abs(wanted).max(), 1e-3)
        np.testing.assert_allclose(getattr(found, part), wanted, atol=1e-7 * scale)


@pytest.mark.parametrize("name", ["spiral", "ou", "constant_velocity"])
@pytest.mark.parametrize("estimator", [adaptive_filter, adaptive_smoother])
def test_afa_of_the_discrete_model_is_that_of_the_continuous_one(name, estimator):
    model = replace(MODELS[name], prior="diffuse")
    z = np.random.default_rng(0).standard_normal((2, 12, model.obs_dim))
    wanted = estimator(model, np.arange(12.0), z)
    found = estimator(discrete(model), z)
    np.testing.assert_allclose(found.mean, wanted.mean, atol=1e-6)
    np.testing.assert_allclose(found.cov, wanted.cov, rtol=1e-5, atol=1e-8)
    labelled = estimator(discrete(model), np.arange(2000.0, 2012.0), z)
    np.testing.assert_array_equal(labelled.t, np.arange(2000.0, 2012.0))
    np.testing.assert_array_equal(labelled.mean, found.mean)


def test_exact_afa_is_the_kalman_filter_of_the_discrete_model():
    model = discrete(replace(MODELS["spiral"], prior="diffuse"))
    z = np.random.default_rng(1).standard_normal((15, 2))
    exact = adaptive_filter(model, z, correlation="exact")
    np.testing.assert_allclose(exact.mean, kalman_filter(model, z).mean, atol=1e-8)


I2 = np.eye(2)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (DiscreteModel([[-0.5]], Q=[[1.0]], H=[[1.0]], R=[[1.0]]), "negative eigenvalue -0.5"),
        (DiscreteModel([[0.0]], Q=[[1.0]], H=[[1.0]], R=[[1.0]]), "F is singular"),
        (
            DiscreteModel([[1.0, 1.0], [0.0, 1.0]], Q=np.diag([0.0, 1.0]), H=I2, R=I2),
            "noise of no continuous-time model",
        ),
        (
            DiscreteModel(np.ones((3, 1, 1)), Q=[[1.0]], H=[[1.0]], R=[[1.0]], time_varying="F"),
            "time-varying F",
        ),
    ],
)
def test_what_has_no_continuous_form_is_said(model, message):
    with pytest.raises(ValueError, match=message):
        adaptive_filter(model, np.zeros((3, model.obs_dim)))


def test_steps_are_all_that_is_known():
    model = DiscreteModel([[0.9]], Q=[[1.0]], H=[[1.0]], R=[[1.0]])
    with pytest.raises(ValueError, match="query_times need a LinearSDE"):
        adaptive_filter(model, np.zeros(3), query_times=[0.5])
    with pytest.raises(ValueError, match="t must have length 3"):
        adaptive_filter(model, [0.0, 1.0], np.zeros(3))
