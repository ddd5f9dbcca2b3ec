"""Regressors in a fit: statsmodels, and the fitted model in every estimator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from afafilter import (
    DiscreteModel,
    Forcing,
    LinearSDE,
    adaptive_filter,
    brownian,
    fit,
    forecast,
    hold_out,
    kalman_filter,
    rts_smoother,
    simulate,
)

RNG = np.random.default_rng(0)
N = 150
T = np.arange(float(N))
X = RNG.normal(size=(N, 2))
Z = 0.5 * np.cumsum(RNG.normal(size=N)) + X @ [2.0, -1.0] + RNG.normal(size=N)
LEVEL = "brownian + noise"


def test_coefficients_are_those_of_statsmodels() -> None:
    found = fit(LEVEL, T, Z, inputs={"temp": X[:, 0], "wind": X[:, 1]})
    wanted = sm.tsa.UnobservedComponents(Z, "llevel", exog=X).fit(disp=0)
    order = ["obs_var", "process_var", "temp", "wind"]
    np.testing.assert_allclose(
        [found.params[k] for k in order], wanted.params, rtol=3e-4
    )  # its search stops early
    # statsmodels leaves out log(2 pi) of the observation that settles the flat start
    assert found.loglik == pytest.approx(wanted.llf - 0.5 * np.log(2 * np.pi), abs=1e-5)
    frame = pd.DataFrame(X, columns=["temp", "wind"])
    assert fit(LEVEL, T, Z, inputs=frame).params == found.params


def test_several_outputs_have_coefficients_of_their_own() -> None:
    z = np.stack([Z, Z[::-1] + 3 * X[:, 0]], axis=1)
    found = fit("brownian(2) + noise(2)", T, z, inputs=X[:, :1])
    assert list(found.params)[-2:] == ["input[0]", "input[1]"]


def test_the_fitted_model_knows_its_inputs() -> None:
    ahead = np.arange(N, N + 5.0)
    later = RNG.normal(size=(5, 2))
    forcing = Forcing(np.r_[T, ahead], np.vstack([X, later]), names=("temp", "wind"))
    found = fit(LEVEL, T, Z, inputs=forcing)
    model = found.model
    assert isinstance(model, LinearSDE)
    assert model.forcing is not None
    D = np.array([[found.params["temp"], found.params["wind"]]])
    np.testing.assert_array_equal(model.forcing.direct, D)
    plain = replace(model, forcing=None)
    rest = Z - X @ D[0]
    for estimator in (kalman_filter, rts_smoother, adaptive_filter):
        got, wanted = estimator(model, T, Z), estimator(plain, T, rest)
        np.testing.assert_allclose(got.mean, wanted.mean, rtol=1e-10)
        shown = got.observed(noise=False).mean
        np.testing.assert_allclose(shown[:, 0], wanted.mean[:, 0] + X @ D[0], rtol=1e-10)
    got, wanted = (forecast(m, T, z, horizon_times=ahead) for m, z in ((model, Z), (plain, rest)))
    shown = wanted.info["observation_mean"] + later @ D.T
    np.testing.assert_allclose(got.info["observation_mean"], shown, rtol=1e-10)
    np.testing.assert_allclose(got.observed().mean, shown, rtol=1e-10)
    table = hold_out({"with": rts_smoother}, model, T, Z, kinds=["random"]).frame
    without = hold_out({"without": rts_smoother}, plain, T, Z, kinds=["random"]).frame
    assert table["rmse"][0] < without["rmse"][0]


def test_simulated_observations_show_the_inputs() -> None:
    model = brownian(process_var=0.0, obs_var=0.0)
    forced = replace(model, forcing=Forcing(T, X, direct=[[1.0, 2.0]]))
    drawn = simulate(forced, T, rng=0, x0=[3.0])
    np.testing.assert_allclose(drawn.z[0, :, 0], 3.0 + X @ [1.0, 2.0], rtol=1e-12)
    noisy = replace(brownian(process_var=0.2, obs_var=1.0), forcing=forced.forcing)
    both = noisy + noisy
    np.testing.assert_allclose(
        kalman_filter(noisy.discretize(T), T, Z).mean, kalman_filter(noisy, T, Z).mean, atol=1e-9
    )
    assert both.forcing is not None
    np.testing.assert_allclose(both.forcing.shown(T, 1)[:, 0], 2 * X @ [1.0, 2.0])


def test_named_arrays_of_a_model_with_inputs_move() -> None:
    start = replace(
        brownian(process_var=0.3, obs_var=1.0), forcing=Forcing(T, X, direct=[[0.0, 0.0]])
    )
    found = fit(start, T, Z, free=["Q", "R", "direct"])
    wanted = fit(LEVEL, T, Z, inputs=X)
    np.testing.assert_allclose(list(found.params.values()), list(wanted.params.values()), rtol=1e-4)
    with pytest.raises(ValueError, match="the model has no forcing"):
        fit(brownian(), T, Z, free=["direct"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": X[:-1]}, r"inputs must have shape \(150, m\)"),
        ({"inputs": np.where(X > 2, np.nan, X)}, "inputs must be finite"),
        ({"inputs": Forcing(T, X, direct=[[1.0, 1.0]])}, "part of the model"),
        ({"inputs": {}}, "at least one column"),
        ({"inputs": {"obs_var": X[:, 0]}}, "names of their own"),
        ({"inputs": X, "method": "em"}, "method 'em' takes no inputs"),
        ({"inputs": Forcing(np.zeros(0), np.zeros((0, 1)), names=("a",))}, r"inputs \(a\) have no"),
    ],
)
def test_bad_inputs(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        fit(LEVEL, T, Z, **options)


def test_two_values_at_one_time() -> None:
    t = np.repeat(T[:75], 2)
    with pytest.raises(ValueError, match="one value at a time, got two at t = 0"):
        fit(LEVEL, t, Z, inputs=X)
    with pytest.raises(ValueError, match="takes what is known as b and d"):
        fit(DiscreteModel([[0.9]], Q=[[1.0]], H=[[1.0]], R=[[1.0]]), T, Z, inputs=X)
