"""Learning by AFA's own objective."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from afafilter import (
    Estimate,
    Exponential,
    FitWarning,
    LinearSDE,
    Outliers,
    adaptive_filter,
    fit_afa,
    kalman_filter,
    simulate,
)
from afafilter import families as f
from afafilter.learning.fit_afa import prediction_error
from tests.conftest import MODELS

T = np.arange(100) * 0.2


def spiral(process_var: float) -> LinearSDE:
    return LinearSDE.isotropic(0.1, 1.0, process_var=process_var, obs_var=0.5, prior="diffuse")


def draw(process_var: float, seed: int, outliers: Outliers | None = None) -> Any:
    rng = np.random.default_rng(seed)
    return simulate(spiral(process_var), T, 6, rng=rng, x0=[20.0, 0.0], outliers=outliers)


def rmse(estimate: Estimate, x: np.ndarray) -> float:
    return float(np.sqrt(np.nanmean((estimate.mean - x)[:, 5:] ** 2)))


@pytest.mark.parametrize("horizon", [1, 4])
def test_prediction_error_by_hand(horizon: int) -> None:
    """Each prediction by an explicit loop; missing data and undetermined estimates left out."""
    model = replace(MODELS["constant_velocity"], drift=[0.1, 0.0, 0.0, 0.2], offset=[1.0, 2.0])
    t = np.cumsum(np.random.default_rng(0).exponential(0.5, 15))
    rng = np.random.default_rng(1)
    z = simulate(model, t, 2, rng=rng, x0=np.zeros(4), missing=0.2).z
    estimate = adaptive_filter(model, t, z)
    squares, lengths = [], []
    for path in range(2):
        for k in range(15 - horizon):
            Phi, psi, _ = model.transition(t[k + horizon] - t[k])
            ahead = model.C @ (Phi @ estimate.mean[path, k] + psi) + model.offset
            error = z[path, k + horizon] - ahead
            error = error[~np.isnan(error)]
            squares += list(error**2)
            if len(error):
                lengths.append(np.sqrt((error**2).sum()))
    given = {"horizon": horizon}
    assert prediction_error(model, estimate, z, **given) == pytest.approx(np.mean(squares))
    absolute = prediction_error(model, estimate, z, loss="absolute", **given)
    assert absolute == pytest.approx(np.mean(lengths))


def test_without_process_noise_the_truth_is_learned() -> None:
    """Then AFA is the exact estimator, and nothing beats the true rotation and decay."""
    data = draw(0.0, 0)
    result = fit_afa(f.spiral(), T, data.z)
    assert result.converged
    assert result.params["frequency"] == pytest.approx(1.0, abs=0.01)
    assert result.params["decay"] == pytest.approx(0.1, abs=0.01)
    assert result.loss < result.start_loss
    own = prediction_error(result.model, result.estimate(T, data.z), data.z)
    assert result.loss == pytest.approx(own)


def test_with_process_noise_the_kernel_is_sharpened() -> None:
    """Learned AFA beats AFA with the true parameters on new data, and comes close to Kalman."""
    truth = spiral(0.3)
    result = fit_afa(f.spiral(), T, draw(0.3, 0).z)
    fresh = draw(0.3, 99)
    learned = rmse(result.estimate(T, fresh.z), fresh.x)
    true = rmse(adaptive_filter(truth, T, fresh.z), fresh.x)
    kalman = rmse(kalman_filter(truth, T, fresh.z), fresh.x)
    assert kalman < learned < 1.1 * kalman
    assert learned < 0.8 * true
    sharpness = result.params["inverse_temperature"] * result.params["process_var"] / 0.3
    assert sharpness > 2


def test_robust_weights_are_learned_with_the_rest() -> None:
    """nu and beta trade off; with outliers the robust filter predicts better than the plain one."""
    struck = draw(0.3, 1, Outliers(0.1))
    plain = fit_afa(f.spiral(), T, struck.z, loss="absolute", max_iter=15)
    weighted: dict[str, Any] = {"weight": Exponential, "anchor": "estimate", "iterations": 2}
    with pytest.warns(FitWarning):
        robust = fit_afa(f.spiral(), T, struck.z, loss="absolute", max_iter=15, **weighted)
    assert robust.loss < plain.loss
    assert robust.settings["weight"].nu == robust.params["nu"]
    assert robust.settings["anchor"] == "estimate"
    better, worse = (rmse(fit.estimate(T, struck.z), struck.x) for fit in (robust, plain))
    assert better < worse


def test_free_matrices_and_rectangular_observation() -> None:
    """One observed component: no anchor_var, A's free entries move, R stays."""
    truth = MODELS["oscillator"]
    t = np.arange(80) * 0.3
    z = simulate(truth, t, 2, rng=np.random.default_rng(2)).z
    start = replace(truth, A=[[0.0, 1.0], [-3.0, -0.6]])
    result = fit_afa(start, t, z, free={"A": [[False, False], [True, True]]})
    assert set(result.params) == {"A[1,0]", "A[1,1]", "inverse_temperature"}
    assert result.loss < result.start_loss
    np.testing.assert_array_equal(result.model.R, truth.R)
    assert "anchor_cov" not in result.settings


def test_bounds_are_reported() -> None:
    result = fit_afa(f.spiral().fix(decay=0.1, frequency=1.0, process_var=0.01), T, draw(0.3, 0).z)
    assert result.params["inverse_temperature"] <= 8.0
    assert "inverse_temperature" in result.at_bound


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"horizon": 100}, "horizon must be below"),
        ({"loss": "cubic"}, "loss must be one of"),
        ({"settings": ["gamma"]}, "settings must be one of"),
        ({"free": ["rate"]}, "free must name"),
        ({"z": np.full((100, 2), np.nan)}, "no observation can be predicted"),
        ({"model": replace(spiral(0.3), delay=0.5)}, "without delay"),
        ({"weight": Exponential, "nu": -1.0}, "nu must be > 0"),
        ({"nu": 3.0, "iterations": 4}, "nu=3.0 and iterations=4 would change nothing"),
        ({"anchor": "estimate"}, "anchor='estimate' would change nothing"),
    ],
)
def test_refusals(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"model": f.spiral(), "z": draw(0.3, 0).z, **change}
    with pytest.raises(ValueError, match=message):
        fit_afa(given.pop("model"), T, given.pop("z"), **given)


def test_more_refusals() -> None:
    with pytest.raises(TypeError, match="model must be"):
        fit_afa("spiral", T, draw(0.3, 0).z)  # type: ignore[arg-type]
    z = simulate(MODELS["oscillator"], T, rng=np.random.default_rng(0)).z
    with pytest.raises(ValueError, match="invertible C"):
        fit_afa(MODELS["oscillator"], T, z, settings=["anchor_var"])
    with pytest.warns(FitWarning, match="did not converge"):
        fit_afa(f.spiral(), T, draw(0.3, 0).z, max_iter=1)
    estimate = adaptive_filter(spiral(0.3), T, draw(0.3, 0).z)
    with pytest.raises(ValueError, match="leave no time"):
        prediction_error(spiral(0.3), estimate, draw(0.3, 0).z, start=99)
