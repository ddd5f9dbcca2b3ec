"""The public log-likelihood and its gradient: the filter's value, slopes by finite differences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from afafilter import DiscreteModel, LinearSDE, Prior, families, kalman_filter, learning, loglik
from tests.conftest import draw_data, irregular_times


def slope(f: Any, h: float) -> float:
    return float((8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h))


@pytest.mark.parametrize("name", ["A", "Q", "R", "C", "drift", "offset"])
def test_gradient_by_each_array_of_a_model(name: str) -> None:
    model = LinearSDE(
        [[-0.3, 1.0], [-1.0, -0.2]],
        Q=[[0.5, 0.1], [0.1, 0.4]],
        R=[[0.3]],
        C=[[1.0, 0.4]],
        drift=[0.1, -0.2],
        offset=[0.3],
        prior=Prior([0.2, 0.1], [[1.0, 0.2], [0.2, 0.8]]),
    )
    t = irregular_times(12)
    z = draw_data(model, t, missing=0.2)
    value, grad = loglik(model, t, z, gradient=True)
    assert value == pytest.approx(float(kalman_filter(model, t, z).loglik), rel=1e-12)
    X = np.array(getattr(model, name))
    E = np.random.default_rng(1).standard_normal(X.shape)
    E = E + E.T if name in ("Q", "R") else E

    def moved(h: float) -> float:
        return float(kalman_filter(replace(model, **{name: X + h * E}), t, z).loglik)

    assert (grad[name] * E).sum() == pytest.approx(slope(moved, 1e-3), rel=1e-7)


def test_gradient_by_the_prior() -> None:
    model = LinearSDE([[-0.1]], Q=[[0.4]], R=[[0.2]], prior=Prior([1.0], [[0.7]]))
    t, z = np.array([0.0, 1.0, 2.5]), np.array([0.4, 0.1, -0.3])
    grad = loglik(model, t, z, gradient=True)[1]

    def moved(m: float, P: float) -> float:
        changed = replace(model, prior=Prior([1.0 + m], [[0.7 + P]]))
        return float(kalman_filter(changed, t, z).loglik)

    assert grad["prior mean"][0] == pytest.approx(slope(lambda h: moved(h, 0), 1e-3), rel=1e-8)
    assert grad["prior cov"][0, 0] == pytest.approx(slope(lambda h: moved(0, h), 1e-3), rel=1e-7)


def test_gradient_by_the_parameters_of_a_family() -> None:
    family = families.brownian() + families.cycle() + families.noise()
    values = dict(zip(family.parameters, (0.2, 0.1, 0.9, 0.3, 0.5), strict=True))
    t = np.unique(irregular_times(25))
    z = np.random.default_rng(0).standard_normal(len(t))
    value, grad = loglik(family, t, z, params=values, gradient=True)
    assert value == pytest.approx(float(kalman_filter(family.model(values), t, z).loglik))
    assert list(grad) == list(family.parameters)
    for name in values:

        def moved(h: float, name: str = name) -> float:
            return float(loglik(family, t, z, params={**values, name: values[name] + h}))

        assert grad[name] == pytest.approx(slope(moved, 1e-3), rel=1e-6, abs=1e-9)
    zero = {**values, "obs_var": 0.0}
    by_zero = loglik(family, t, z, params=zero, gradient=True)[1]["obs_var"]
    right = [loglik(family, t, z, params={**zero, "obs_var": h}) for h in (0.0, 1e-6)]
    assert by_zero == pytest.approx((right[1] - right[0]) / 1e-6, rel=1e-3)


def test_discrete_models_paths_and_obs_cov() -> None:
    model = DiscreteModel([[0.8]], Q=[[0.4]], H=[[1.0]], R=[[0.3]], prior="stationary")
    z = np.random.default_rng(2).standard_normal((3, 9, 1))
    z[1, 4] = np.nan
    value, grad = loglik(model, None, z, gradient=True)
    assert value == pytest.approx(sum(loglik(model, None, path) for path in z), rel=1e-12)
    assert sorted(grad) == ["F", "H", "Q", "R", "b", "d"]
    covs = np.full((9, 1, 1), 0.3)
    again, without = loglik(model, None, z, obs_cov=covs, gradient=True)
    assert again == pytest.approx(value, rel=1e-13)
    assert "R" not in without


def test_tables_and_the_name_in_learning() -> None:
    model = LinearSDE([[0.0]], Q=[[0.2]], R=[[0.5]], prior="diffuse")
    days = pd.date_range("2024-01-01", periods=6)
    series = pd.Series([1.0, 0.5, np.nan, 2.0, 1.1, 0.2], days)
    assert loglik(model, series) == loglik(model, np.arange(6.0), series.to_numpy())
    assert learning.loglik is loglik
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = learning.nope  # type: ignore[attr-defined]


def test_a_family_in_words() -> None:
    values, t, z = {"process_var": 0.3, "obs_var": 0.4}, np.arange(4.0), np.array([1.0, 0, 2, 1])
    family = families.brownian() + families.noise()
    assert loglik("brownian + noise", t, z, params=values) == loglik(family, t, z, params=values)


def test_refusals() -> None:
    model = LinearSDE([[0.0]], Q=[[0.2]], R=[[0.0]], prior="diffuse")
    with pytest.raises(ValueError, match="does not exist"):
        loglik(model, [0.0, 0.0, 1.0], [1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match="params are the values of a Family"):
        loglik(model, [0.0, 1.0], [1.0, 2.0], params={"q": 1.0})
    with pytest.raises(TypeError, match="model must be"):
        loglik(3, [0.0], [1.0])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="t is needed"):
        loglik(model, None, [1.0])
    family = families.brownian() + families.noise()
    with pytest.raises(ValueError, match="params must hold a value for obs_var"):
        loglik(family, [0.0, 1.0], [1.0, 2.0], params={"process_var": 1.0})
