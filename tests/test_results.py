"""What an estimate can be asked for: joint paths, what is observed, components, tables, texts."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from afafilter import (
    DiscreteModel,
    Forcing,
    LinearSDE,
    Prior,
    StudentT,
    adaptive_filter,
    brownian,
    diagnose,
    forecast,
    hold_out,
    kalman_filter,
    rts_smoother,
    seasonal,
    simulate,
    spiral,
)
from tests.conftest import MODELS
from tests.oracles import joint_gaussian

TIMES = np.array([0.0, 0.4, 1.0, 1.0, 2.5])
N = 20_000


def joint_posterior(model, t, z, query=None):
    """Mean and covariance of all states at once, from the dense joint Gaussian (proper priors)."""
    joint = joint_gaussian(model, t, query)
    mean, cov, H, R = (
        np.asarray(a, dtype=float) for a in (joint.mean, joint.cov, joint.H, joint.R)
    )
    seen = ~np.isnan(z.ravel())
    H, y = H[seen], z.ravel()[seen] - joint.offset.astype(float)[seen]
    S = H @ cov @ H.T + R[np.ix_(seen, seen)]
    gain = np.linalg.solve(S, H @ cov).T
    d = model.dim
    keep = np.concatenate([np.arange(d) + d * row for row in joint.rows])
    mean, cov = mean + gain @ (y - H @ mean), cov - gain @ S @ gain.T
    return mean[keep], cov[np.ix_(keep, keep)]


def assert_joint_law(draws, mean, cov):
    """Means and all covariances between times within 5 standard errors."""
    flat = draws.reshape(len(draws), -1)
    sd = np.sqrt(np.diag(cov)) + 1e-9
    assert np.abs((flat.mean(0) - mean) / sd).max() < 5 / np.sqrt(len(flat))
    off = (np.cov(flat.T) - cov) / np.outer(sd, sd)
    assert np.abs(off).max() < 5 * np.sqrt(2 / len(flat))


@pytest.mark.parametrize("name", ["spiral", "ou", "general"])
@pytest.mark.parametrize("query", [None, np.array([0.2, 1.0, 2.0, 4.0])])
def test_paths_have_the_joint_law_of_the_states(name, query):
    prior = Prior(np.ones(MODELS[name].dim), np.eye(MODELS[name].dim))
    model = replace(MODELS[name], prior=prior)
    z = np.random.default_rng(0).standard_normal((5, model.obs_dim))
    z[2, 0] = np.nan
    found = rts_smoother(model, TIMES, z, query_times=query)
    draws = found.sample_paths(N, 1)
    assert draws.shape == (N, *found.mean.shape)
    assert_joint_law(draws, *joint_posterior(model, TIMES, z, query))
    np.testing.assert_array_equal(found.sample(7, 3), found.sample_paths(7, 3))


def test_a_flat_start_needs_no_prior_to_be_drawn():
    """As the limit of wide priors, by the dense Gaussian with variance 1e6."""
    model = brownian(0.5, 0.8)
    z = np.array([[1.0], [np.nan], [2.0], [2.5], [0.0]])
    wide = replace(model, prior=Prior([0.0], [[1e6]]))
    mean, cov = joint_posterior(wide, TIMES, z)
    assert_joint_law(rts_smoother(model, TIMES, z).sample_paths(N, 2), mean, cov)


def test_paths_of_several_series_inputs_and_discrete_models():
    prior = Prior([0.0, 1.0], np.eye(2))
    model = spiral(prior=prior)
    z = np.random.default_rng(3).standard_normal((2, 3, 5, 2))
    draws = rts_smoother(model, TIMES, z).sample_paths(4000, 0)
    assert draws.shape == (4000, 2, 3, 5, 2)
    assert_joint_law(draws[:, 1, 2], *joint_posterior(model, TIMES, z[1, 2]))
    forced = replace(model, forcing=Forcing([0.7], [[3.0, 0.0]]))
    discrete = forced.discretize(TIMES)
    assert isinstance(discrete, DiscreteModel)
    wanted = joint_posterior(discrete, TIMES, z[0, 0])
    assert_joint_law(rts_smoother(forced, TIMES, z[0, 0]).sample_paths(N, 5), *wanted)
    assert_joint_law(rts_smoother(discrete, z[0, 0]).sample_paths(N, 6), *wanted)


def test_forecast_paths_hang_together():
    model = replace(MODELS["ou"], prior=Prior([0.0], [[1.0]]))
    z = np.array([[1.0], [0.5], [2.0], [2.5], [0.0]])
    ahead = np.array([3.0, 4.0])
    draws = forecast(model, TIMES, z, horizon_times=ahead).sample_paths(N, 0)
    assert_joint_law(draws, *joint_posterior(model, TIMES, z, ahead))
    steps = DiscreteModel([[0.9]], Q=[[0.3]], H=[[1.0]], R=[[0.4]], prior=Prior([0.0], [[1.0]]))
    grown = np.append(z, [[np.nan], [np.nan]], axis=0)
    draws = forecast(steps, z, steps=2).sample_paths(N, 1)
    mean, cov = joint_posterior(steps, np.arange(7.0), grown)
    assert_joint_law(draws, mean[-2:], cov[-2:, -2:])


def test_robust_paths_are_those_of_the_reweighted_model():
    model = brownian(0.5, 0.8, prior=Prior([0.0], [[4.0]]))
    z = np.array([[1.0], [0.5], [30.0], [2.5], [0.0]])
    found = rts_smoother(model, TIMES, z, weight=StudentT(4.0), anchor="estimate")
    w = found.info["robust_weights"]
    draws = found.sample_paths(N, 0)
    same = rts_smoother(model, TIMES, z, obs_cov=0.8 / w[:, None, None])
    np.testing.assert_allclose(found.mean, same.mean, atol=1e-9)
    wanted = same.sample_paths(N, 0)
    np.testing.assert_allclose(draws.mean(0), wanted.mean(0), atol=5 * same.std.max() / N**0.5)
    np.testing.assert_allclose(draws.std(0), wanted.std(0), rtol=0.05)


def test_filters_have_no_joint_law():
    found = kalman_filter(spiral(), TIMES, np.zeros((5, 2)))
    with pytest.raises(ValueError, match="no joint law; use rts_smoother"):
        found.sample_paths(2, 0)
    marginal = found.sample(N, 0)
    np.testing.assert_allclose(marginal.std(0), found.std, rtol=0.05)


def test_undetermined_components_stay_unknown():
    model = LinearSDE(np.zeros((2, 2)), Q=np.eye(2), R=[[1.0]], C=[[1.0, 0.0]])
    draws = rts_smoother(model, TIMES, np.zeros(5)).sample_paths(3, 0)
    assert np.isnan(draws[..., 1]).all()
    assert np.isfinite(draws[..., 0]).all()


def test_what_a_measurement_would_show():
    model = replace(brownian(0.3, 0.5) + seasonal(2.0, process_var=0.1), offset=[7.0])
    t = np.arange(12.0) / 3
    z = np.random.default_rng(0).standard_normal((12, 1)) + 7
    found = rts_smoother(model, t, z)
    H = model.C[0]
    signal = found.observed(noise=False)
    np.testing.assert_allclose(signal.mean[:, 0], found.mean @ H + 7.0)
    np.testing.assert_allclose(signal.std[:, 0] ** 2, np.einsum("i,kij,j->k", H, found.cov, H))
    shown = found.observed()
    np.testing.assert_allclose(shown.std**2, signal.std**2 + 0.5)
    assert shown.label == "RTS, a measurement"
    parts = found.components()
    assert list(parts) == ["brownian", "seasonal"]
    total = sum(part.mean for part in parts.values())
    np.testing.assert_allclose(total + 7.0, signal.mean, atol=1e-12)
    np.testing.assert_allclose(parts["seasonal"].mean[:, 0], found.mean[:, 1])
    np.testing.assert_allclose(parts["brownian"].std[:, 0], found.std[:, 0])
    two = rts_smoother(model + seasonal(3.0), t, z).components()
    assert list(two) == ["brownian", "seasonal", "seasonal2"]
    assert adaptive_filter(spiral(), t, np.zeros((12, 2))).observed().std.min() > 0
    with pytest.raises(ValueError, match="knows how its states are observed"):
        replace(found, source=None).observed()


def test_own_noise_of_each_observation_is_in_the_band():
    covs = np.arange(1.0, 6.0)[:, None, None]
    found = rts_smoother(brownian(), TIMES, np.zeros(5), obs_cov=covs)
    np.testing.assert_allclose(found.observed().std ** 2 - found.std**2, covs[:, 0])


def test_paths_with_a_measurement_forecast_an_observation():
    found = forecast(brownian(0.3, 0.5), TIMES, np.zeros(5), horizon_times=[3.0, 5.0])
    shown = found.observed()
    np.testing.assert_allclose(shown.mean, found.info["observation_mean"])
    np.testing.assert_allclose(shown.cov, found.info["observation_cov"])


def test_estimates_pickle_with_what_they_can_draw():
    found = rts_smoother(spiral(), TIMES, np.zeros((5, 2)))
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.sample_paths(2, 0), found.sample_paths(2, 0))


def test_trajectories_as_tables(tmp_path):
    import pandas as pd

    data = simulate(spiral(), [0.0, 1.0, 2.0], 2, rng=0, missing=0.3)
    frame = data.to_pandas()
    assert list(frame.columns) == ["path", "t", "x0", "x1", "z0", "z1"]
    np.testing.assert_array_equal(frame[["x0", "x1"]].to_numpy().reshape(2, 3, 2), data.x)
    np.testing.assert_array_equal(frame[["z0", "z1"]].to_numpy().reshape(2, 3, 2), data.z)
    pytest.importorskip("pyarrow")
    again = pd.read_parquet(data.to_parquet(tmp_path / "data.parquet"))
    pd.testing.assert_frame_equal(again, frame)
    pytest.importorskip("xarray")
    dataset = data.to_xarray()
    np.testing.assert_array_equal(dataset["z"].sel(path=1), data.z[1])


def test_paths_on_a_finer_grid_as_tables(tmp_path):
    import pandas as pd

    fine = np.linspace(0.0, 2.0, 9)
    data = simulate(spiral(), [0.0, 1.0, 2.0], 2, rng=0, fine_times=fine)
    frame = data.to_pandas(fine=True)
    assert list(frame.columns) == ["path", "t", "x0", "x1"]
    np.testing.assert_array_equal(frame[["x0", "x1"]].to_numpy().reshape(2, 9, 2), data.fine_x)
    np.testing.assert_array_equal(frame.query("path == 1")["t"], fine)
    same = frame.merge(data.to_pandas(), on=["path", "t"], suffixes=("", "_coarse"))
    assert len(same) == 6  # the same paths
    np.testing.assert_allclose(same["x1"], same["x1_coarse"], rtol=1e-12)
    with pytest.raises(ValueError, match="fine=True needs paths on a finer grid"):
        simulate(spiral(), [0.0, 1.0], rng=0).to_pandas(fine=True)
    pytest.importorskip("pyarrow")
    again = pd.read_parquet(data.to_parquet(tmp_path / "fine.parquet", fine=True))
    pd.testing.assert_frame_equal(again, frame)
    pytest.importorskip("xarray")
    np.testing.assert_array_equal(data.to_xarray()["fine_x"].sel(path=1), data.fine_x[1])


def test_long_results_print_in_at_most_15_lines():
    from afafilter import Study, compare, datasets, families, fit, score, theory
    from afafilter.studies.scenario import Scenario

    t = np.arange(20.0)
    data = simulate(spiral(), t, 3, rng=0)
    comparison = compare({f"filter {k}": kalman_filter for k in range(20)}, spiral(), t, 4, rng=0)
    z = simulate(brownian(), t, rng=0, x0=[0.0]).z[0]
    study = Study(
        models={"spiral": spiral()},
        estimators={"kalman": kalman_filter},
        scenarios={"plain": Scenario(t=t, n_paths=2)},
        seeds=2,
    )
    results = [
        comparison,
        score(kalman_filter(spiral(), t, data.z), data),
        datasets.load_nile(),
        study,
        fit(families.brownian() + families.noise(), t, z),
        theory.error_covariance(spiral(), t),
        data,
        kalman_filter(spiral(), t, data.z),
        diagnose(brownian(), t, z),
        hold_out({"kalman": kalman_filter}, {f"m{k}": brownian() for k in range(9)}, t, z),
    ]
    for result in results:
        text = repr(result)
        assert 1 <= len(text.splitlines()) <= 15
        assert len(text) < 2000
        assert "<" in result._repr_html_()
    assert "rmse" in repr(results[1])
    assert "lines more" in repr(comparison)
    assert "obs_var" in repr(results[4])


def test_what_is_observed_is_called_as_the_data_call_it():
    import pandas as pd

    model = brownian(process_var=1.0, obs_var=1.0)
    frame = pd.DataFrame({"level": [1.0, 2.0, 1.5]}, index=pd.date_range("2024", periods=3))
    seen = rts_smoother(model, frame).observed()
    assert list(seen.to_pandas().columns) == ["level", "level_sd"]
    assert list(rts_smoother(model, np.arange(3.0), frame).observed().to_pandas()) == [
        "t",
        "z0",
        "z0_sd",
    ]
    (part,) = rts_smoother(model, frame).components().values()
    assert list(part.to_pandas(["m"]).columns) == ["m", "m_sd"]
    with pytest.raises(ValueError, match="names must be 1 names"):
        seen.to_pandas(["a", "b"])
