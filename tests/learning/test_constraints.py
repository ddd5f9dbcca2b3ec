"""Bounds and densities of parameters: the constrained optimum and the mode of the posterior."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from scipy.optimize import minimize

from afafilter import LinearSDE, brownian, families, fit, kalman_filter

RNG = np.random.default_rng(1)
T = np.arange(120.0)
Z = 0.5 * np.cumsum(RNG.normal(size=120)) + RNG.normal(size=120)
LEVEL = "brownian + noise"
LogNormal, Normal = families.LogNormal, families.Normal


def _loglik(q: float, r: float) -> float:
    return float(np.sum(kalman_filter(brownian(process_var=q, obs_var=r), T, Z).loglik))


def test_an_active_bound_is_kept_and_said() -> None:
    found = fit(LEVEL, T, Z, bounds={"obs_var": (2.0, None)})
    assert found.params["obs_var"] == pytest.approx(2.0, rel=1e-12)
    assert found.boundary == ("obs_var",)
    assert np.isnan(found.std_errors["obs_var"])
    assert found.converged
    best = minimize(lambda x: -_loglik(x[0] ** 2, 2.0), [0.5], method="Nelder-Mead").x[0] ** 2
    assert found.params["process_var"] == pytest.approx(best, rel=1e-3)
    assert np.isfinite(found.std_errors["process_var"])
    low, _ = found.profile("obs_var")
    assert low == 2.0


def test_an_idle_bound_changes_nothing() -> None:
    free, held = fit(LEVEL, T, Z), fit(LEVEL, T, Z, bounds={"obs_var": (0.01, 50.0)})
    np.testing.assert_allclose(list(held.params.values()), list(free.params.values()), rtol=1e-6)
    assert held.boundary == ()


@pytest.mark.parametrize("prior", [LogNormal(0.1, 0.3), scipy.stats.lognorm(0.3, scale=0.1)])
def test_a_density_moves_the_fit_to_the_mode(prior) -> None:
    found = fit(LEVEL, T, Z, priors={"process_var": prior})
    exact = scipy.stats.lognorm(0.3, scale=0.1)

    def negative(x):
        q, r = np.exp(x)
        return -_loglik(q, r) - exact.logpdf(q)

    options = {"xatol": 1e-8, "fatol": 1e-10}
    best = np.exp(minimize(negative, [-2.0, 0.0], method="Nelder-Mead", options=options).x)
    np.testing.assert_allclose(list(found.params.values()), best, rtol=1e-4)
    assert found.log_prior == pytest.approx(exact.logpdf(best[0]), rel=1e-4)
    assert found.loglik == pytest.approx(_loglik(*best), rel=1e-6)


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (Normal(0.3, 0.2), scipy.stats.norm(0.3, 0.2)),
        (LogNormal(0.7, 0.4), scipy.stats.lognorm(0.4, scale=0.7)),
    ],
)
def test_densities_are_those_of_scipy(own, other) -> None:
    for x in (0.1, 0.5, 2.0):
        assert own.logpdf(x) == pytest.approx(other.logpdf(x), rel=1e-12)
        slope = (own.logpdf(x + 1e-6) - own.logpdf(x - 1e-6)) / 2e-6
        assert own.slope(x) == pytest.approx(slope, rel=1e-6)


def test_bounds_of_matrix_entries() -> None:
    found = fit(
        brownian(process_var=1.0, obs_var=1.0),
        T,
        Z,
        free=["Q", "R"],
        bounds={"Q[0,0]": (None, 0.02)},
    )
    assert found.params["Q[0,0]"] == pytest.approx(0.02, rel=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bounds": {"obs_vr": (0, 1)}}, "bounds must name process_var, obs_var; got 'obs_vr'"),
        ({"bounds": {"obs_var": (2, 1)}}, "must be low < high"),
        ({"bounds": {"obs_var": 3}}, r"must be a pair \(low, high\)"),
        ({"bounds": {"obs_var": (None, -1.0)}}, "must reach above 0"),
        ({"priors": {"obs_var": 3}}, r"a density with logpdf"),
        ({"priors": {"nobody": Normal(0, 1)}}, "priors must name"),
        ({"priors": {"obs_var": Normal(0, 1)}, "method": "em"}, "priors for 'ml'"),
    ],
)
def test_bad_constraints(options, message) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        fit(LEVEL, T, Z, **options)


def test_bounds_on_mixed_entries_are_refused() -> None:
    z = np.stack([Z, Z[::-1]], axis=1)
    start = LinearSDE(-np.eye(2), Q=np.eye(2), R=np.eye(2), prior="diffuse")
    with pytest.raises(ValueError, match="made of several coordinates"):
        fit(start, T, z, free=["Q"], bounds={"Q[1,1]": (0.0, 1.0)})
