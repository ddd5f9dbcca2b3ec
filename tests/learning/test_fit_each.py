"""Many series in one call: against statsmodels, and against the fit of each series alone."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from statsmodels.tsa.statespace.structural import UnobservedComponents

from afafilter import FitWarning, LinearSDE, brownian, fit, fit_each, loglik, simulate
from afafilter import families as f
from afafilter.learning.curvature import informations
from afafilter.learning.likelihood_each import EachObjective
from afafilter.learning.optimise_each import Stopping, bfgs
from afafilter.learning.parameters.parametrisation import FamilyParameters
from afafilter.likelihood.data import SeriesBatch

T = np.arange(60.0)
LEVEL = f.brownian() + f.noise()
FAMILIES = {
    "level": LEVEL,
    "no noise": f.brownian(),
    "ou": f.ornstein_uhlenbeck() + f.constant() + f.noise(),
    "cycle": f.cycle() + f.noise(),
    "plane": f.constant_velocity(2) + f.noise(2, diagonal=True),
    "tied": (f.brownian() + f.ornstein_uhlenbeck() + f.noise())
    .tie("brownian.process_var", "ou.process_var")
    .fix({"ou.rate": 0.7}),
}


def levels(S: int, seed: int = 0, p: int = 1) -> np.ndarray:
    """Random walks in noise of different strength, a tenth missing: (S, T, p)."""
    rng = np.random.default_rng(seed)
    ratio = 10.0 ** rng.uniform(-2, 0.5, (S, 1, p))
    steps, noise = rng.standard_normal((2, S, len(T), p))
    z = np.cumsum(np.sqrt(ratio) * steps, axis=1) + noise
    z[rng.random((S, len(T))) < 0.1] = np.nan
    return z


def test_optima_are_those_of_statsmodels() -> None:
    z = levels(12)[..., 0]
    found = fit_each(LEVEL, T, z)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peers = [
            UnobservedComponents(y, "local level", use_exact_diffuse=True).fit(disp=0) for y in z
        ]
    assert found.converged.all()
    np.testing.assert_allclose(found.loglik, [peer.llf for peer in peers], rtol=0, atol=1e-6)
    wanted = np.array([peer.params[::-1] for peer in peers])
    assert found.names == ("process_var", "obs_var")
    np.testing.assert_allclose(found.params, wanted, atol=2e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_each_is_what_fit_says_alone(name: str) -> None:
    family = FAMILIES[name]
    z = levels(4, seed=3, p=family.obs_dim)
    if name == "no noise":
        z = np.cumsum(np.nan_to_num(z), axis=1)
    if name == "cycle":
        truth = {"decay": 0.1, "frequency": 0.9, "process_var": 1.0, "obs_var": 0.5}
        z = simulate(family.model(truth), T, 4, rng=0).z
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        found = fit_each(family, T, z)
        alone = [fit(family, T, y) for y in z]
    assert not found.errors
    np.testing.assert_allclose(found.loglik, [one.loglik for one in alone], rtol=0, atol=2e-6)
    for one, other in zip(found, alone, strict=True):
        assert one.converged == other.converged
        assert one.boundary == other.boundary
        assert one.n_obs == other.n_obs
        errors = np.array(list(other.std_errors.values()))
        got, wanted = np.array(list(one.params.values())), np.array(list(other.params.values()))
        known = np.isfinite(errors)
        np.testing.assert_array_less(np.abs(got - wanted)[known], 0.01 * errors[known] + 1e-12)
        assert (np.isnan(list(one.std_errors.values())) == ~known).all()
        if known.all():  # central differences at the optimum
            par: Any = one.problem.parametrisation
            objective = EachObjective([one.problem])
            (H,) = informations(objective, one.theta[None], par.typical[None])
            J = par.jacobian(one.theta)
            wanted = np.sqrt((J @ np.linalg.inv(H) @ J.T).diagonal())
            np.testing.assert_allclose(list(one.std_errors.values()), wanted, rtol=2e-3)


@pytest.mark.parametrize("name", ["level", "cycle", "plane"])
def test_values_and_gradients_are_those_of_the_likelihood(name: str) -> None:
    """Of several points per series; the likelihood itself is tested against dense Gaussians."""
    family = FAMILIES[name]
    z = levels(3, seed=5, p=family.obs_dim)
    start = dict.fromkeys(family.free, 0.8)
    par = FamilyParameters(family, start, np.ones(family.obs_dim))
    batch = par, SeriesBatch.of(T, z)
    objective = EachObjective([None] * 3, batch)  # type: ignore[list-item]
    which = np.array([2, 0, 1, 2])
    thetas = par.start() + 0.1 * np.random.default_rng(0).standard_normal((4, len(par.names)))
    values, grads = objective(thetas, which)
    for theta, k, value, grad in zip(thetas, which, values, grads, strict=True):
        params = dict(zip(par.names, par.natural(theta).tolist(), strict=True))
        wanted, slopes = loglik(family, T, z[k], params=params, gradient=True)
        assert value == pytest.approx(wanted, rel=1e-13)
        inner = np.diag(par.jacobian(theta)) * [slopes[n] for n in par.names]
        np.testing.assert_allclose(grad, inner, rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(objective.n_evals, [1, 1, 2])


def test_models_beyond_the_compiled_reach_are_evaluated_too() -> None:
    """Decay within a step by e^-40: the exact discretisation takes over."""
    family = f.ornstein_uhlenbeck().fix(rate=40.0) + f.brownian() + f.noise()
    family = family.fix({"ou.process_var": 1.0})
    z = levels(2, seed=1)
    found, alone = fit_each(family, T, z), [fit(family, T, y) for y in z]
    np.testing.assert_allclose(found.loglik, [one.loglik for one in alone], rtol=0, atol=2e-6)


def test_a_series_that_cannot_be_fitted_leaves_the_others_alone() -> None:
    z = levels(5)
    z[1] = np.nan
    z[2, :, 0] = 3.0
    z[4, 3:] = np.nan
    with pytest.warns(FitWarning, match="of 5 series 3 were not fitted"):
        found = fit_each("brownian + noise", T, z, labels="abcde")
    assert set(found.errors) == {1, 2, 4}
    frame = found.to_pandas()
    assert list(frame.index) == list("abcde")
    assert "every value is missing" in frame.loc["b", "message"]
    assert "constant" in frame.loc["c", "message"]
    assert "too few data" in frame.loc["e", "message"]
    np.testing.assert_array_equal(frame["converged"], [True, False, False, True, False])
    assert frame.loc[["b", "c", "e"], ["process_var", "obs_var_std_error"]].isna().all(axis=None)
    alone = fit(LEVEL, T, z[3])
    assert found[3].loglik == pytest.approx(alone.loglik, abs=1e-6)
    assert frame.loc["d", "process_var"] == pytest.approx(alone.params["process_var"], rel=1e-3)
    with pytest.raises(ValueError, match="series 'e' was not fitted: too few"):
        found[-1]
    assert "5 series" in str(found)


def test_numbers_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    z = np.repeat(levels(8), 60, axis=0)  # enough work for threads
    found = {}
    for threads in ("1", "2"):
        monkeypatch.setenv("AFAFILTER_NUM_THREADS", threads)
        found[threads] = fit_each(LEVEL, T, z)
    np.testing.assert_array_equal(found["1"].params, found["2"].params)
    np.testing.assert_array_equal(found["1"].params[:60], np.tile(found["1"].params[0], (60, 1)))


def test_options_of_fit_and_other_models_go_one_by_one() -> None:
    z = levels(2)
    some: dict[str, Any] = {"free": ["obs_var"]}
    found = fit_each(LEVEL.at(process_var=0.3), T, z, **some)
    assert found.names == ("obs_var",)
    model = LinearSDE(np.zeros((1, 1)), Q=[[1.0]], R=[[1.0]], prior="diffuse")
    each = fit_each(model, T, z, free=["Q", "R"])
    for k in range(2):
        alone = fit(LEVEL.at(process_var=0.3), T, z[k], **some)
        assert found[k].params == alone.params
        assert each.loglik[k] == pytest.approx(fit(LEVEL, T, z[k]).loglik, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((T, levels(2)[0]), "one series: use fit"),
        ((T[:-1], levels(2)), "z must have shape"),
        ((None, levels(2)), "t is needed"),
        ((T, np.full((2, len(T)), np.nan)), "no series can be fitted"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[Any, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        fit_each(LEVEL, *arguments)


def test_labels_must_be_as_many_as_series() -> None:
    with pytest.raises(ValueError, match="labels must name 2 series, got 3"):
        fit_each(LEVEL, T, levels(2), labels=[1, 2, 3])


def banana(thetas: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """-(1 - x)^2 - k (y - x^2)^2, k = 1, 10, 100; infeasible beyond x = 1.5."""
    x, y = thetas.T
    k = 10.0**which
    value = -((1 - x) ** 2) - k * (y - x**2) ** 2
    grad = np.stack([2 * (1 - x) + 4 * k * x * (y - x**2), -2 * k * (y - x**2)], axis=1)
    bad = x > 1.5
    return np.where(bad, -np.inf, value), np.where(bad[:, None], 0.0, grad)


def test_searches_side_by_side_reach_their_maxima() -> None:
    start = np.tile([-1.2, 1.0], (3, 1))
    values, grads = banana(start, np.arange(3))
    free = np.full((3, 2), np.inf)
    top = bfgs(banana, (start, values, grads), (-free, free), np.ones((3, 2)), Stopping(200, 1e-12))
    np.testing.assert_allclose(top.thetas, 1.0, atol=1e-4)
    assert top.n_iter[0] < top.n_iter[2] < 60
    for history, value in zip(top.histories, top.values, strict=True):
        assert (np.diff(history) > 0).all()
        assert history[-1] == value


def test_bounds_hold() -> None:
    start = np.tile([-1.2, 1.0], (3, 1))
    values, grads = banana(start, np.arange(3))
    high = np.tile([0.5, np.inf], (3, 1))
    top = bfgs(
        banana,
        (start, values, grads),
        (-np.inf * np.ones((3, 2)), high),
        np.ones((3, 2)),
        Stopping(50, 1e-12),
    )
    np.testing.assert_allclose(top.thetas, np.tile([0.5, 0.25], (3, 1)), atol=1e-4)
    assert (top.thetas[:, 0] <= 0.5).all()


def two_hills(thetas: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log(2 e^{-|x|^2} + e^{-|x - 3|^2}), |x|^2 = x^2 + 25 y^2: tops at 0 and (3, 3)."""
    sharp = np.array([1.0, 25.0])
    off = thetas[:, None] - np.array([[0.0, 0.0], [3.0, 3.0]])
    parts = np.array([2.0, 1.0]) * np.exp(-(sharp * off**2).sum(axis=2))
    total = parts.sum(axis=1)
    return np.log(total), -2 * sharp * (parts[..., None] * off).sum(axis=1) / total[:, None]


def test_searches_on_one_hill_become_one() -> None:
    start = np.array([[-1.0, 0.5], [4.0, 3.5], [0.2, -1.5], [-1.0, 0.5], [2.5, 3.5]])
    owner = np.array([0, 0, 0, 1, 1])
    at, free = (start, *two_hills(start, owner)), np.full((5, 2), np.inf)
    top = bfgs(two_hills, at, (-free, free), np.ones((5, 2)), Stopping(200, 1e-12), owner)
    assert top.joined[0] == top.joined[2]
    assert top.joined.tolist()[3:] == [3, 4]
    assert top.joined[1] == 1
    np.testing.assert_allclose(top.values[top.joined], np.log([2, 1, 2, 2, 1]), atol=1e-6)
    alone = bfgs(two_hills, at, (-free, free), np.ones((5, 2)), Stopping(200, 1e-12))
    assert alone.joined.tolist() == [0, 1, 2, 3, 4]
    assert top.n_iter.sum() < alone.n_iter.sum()


@pytest.mark.parametrize("central", [True, False])
def test_informations_are_minus_the_hessians(central: bool) -> None:
    """At the maximum of the banana [2 + 8 k, -4 k; -4 k, 2 k], also beside what is infeasible."""
    thetas = np.array([[1.0, 1.0], [1.0, 1.0], [1.5, 2.25]])
    typical = np.ones((3, 2))
    grads = None if central else banana(thetas, np.arange(3))[1]
    found = informations(banana, thetas, typical, grads)
    for k, (x, y), H in zip((1.0, 10.0, 100.0), thetas, found, strict=True):
        wanted = [[2 - 4 * k * (y - 3 * x**2), -4 * k * x], [-4 * k * x, 2 * k]]
        if x > 1.4 and not central:
            assert np.isfinite(H).all()  # forward is infeasible: nothing is known along x
            continue
        np.testing.assert_allclose(H, wanted, rtol=1e-3)


def test_a_cycle_is_searched_from_every_peak_that_fit_tries() -> None:
    """Irregular times, a walk as large as the cycle: the first peak is often the walk's."""
    family, rng = f.brownian() + f.cycle() + f.noise(), np.random.default_rng(0)
    t = np.sort(rng.uniform(0, 120, 60))
    steps, noise = rng.standard_normal((2, 3, 60))
    walk = np.cumsum(np.sqrt(np.diff(t, prepend=t[0])) * steps, axis=1)
    z = 2 * np.sin(rng.uniform(0.2, 1.5, (3, 1)) * t) + walk + 0.5 * noise
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        found, alone = fit_each(family, t, z), [fit(family, t, y) for y in z]
    np.testing.assert_allclose(found.loglik, [one.loglik for one in alone], rtol=0, atol=1e-3)
    assert [len(one.starts) for one in found] == [3, 3, 3]
    assert all(one.starts[0] >= one.starts[1] - 1e-6 for one in found)


@pytest.mark.parametrize("which", [179, 651, 3])
def test_a_variance_of_zero_may_be_a_lesser_optimum(which):
    """Likelihoods of a level with two maxima, one where it does not move: against a grid."""
    rng = np.random.default_rng(6)
    ratio = 10.0 ** rng.uniform(-2.0, 0.5, (1000, 1))
    steps, noise = rng.standard_normal((2, 1000, 100))
    z = np.cumsum(np.sqrt(ratio) * steps, axis=1) + noise
    z[rng.random(z.shape) < 0.05] = np.nan
    t, z = np.arange(100.0), z[which]
    grid = [
        loglik(brownian(process_var=q * r, obs_var=r), t, z[:, None])
        for q in [0.0, *np.logspace(-3, 1, 25)]
        for r in np.linspace(0.5, 2.0, 16)
    ]
    family = f.brownian() + f.noise()
    assert fit(family, t, z[:, None]).loglik >= max(grid)
    assert fit_each(family, t, z[None]).loglik[0] >= max(grid)
