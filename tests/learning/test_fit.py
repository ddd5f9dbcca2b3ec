"""Maximum likelihood fits: gradients in the parameters, known optima, recovery, refusals."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm

from afafilter import (
    DiscreteModel,
    FitWarning,
    LinearSDE,
    Prior,
    fit,
    fit_each,
    held_out_score,
    kalman_filter,
    likelihood_ratio,
    loglik,
    simulate,
)
from afafilter import families as f
from afafilter.learning import likelihood_each, problem
from afafilter.learning.family import Family
from afafilter.learning.parameters.matrices import MatrixParameters
from afafilter.learning.parameters.parametrisation import FamilyParameters
from afafilter.likelihood.chain import PriorArrays
from afafilter.likelihood.data import prepare
from afafilter.likelihood.loglik import evaluate
from tests.conftest import MODELS, draw_data, irregular_times
from tests.oracles import dense_loglik

NILE = sm.datasets.nile.load().data["volume"].to_numpy(float)
YEARS = np.arange(1871.0, 1971.0)
SUNSPOTS = sm.datasets.sunspots.load().data["SUNACTIVITY"].to_numpy(float)
LOCAL_LEVEL = f.brownian() + f.noise()

FAMILIES: dict[str, Family] = {
    "local level": LOCAL_LEVEL,
    "ou": f.ornstein_uhlenbeck() + f.constant() + f.noise(),
    "cycle": f.cycle() + f.noise(),
    "undamped cycle": f.cycle(damped=False) + f.noise(),
    "oscillator": f.oscillator() + f.noise(),
    "matern32": f.matern(1.5) + f.noise(),
    "matern52": f.matern(2.5) + f.constant() + f.noise(),
    "velocity": f.constant_velocity() + f.noise(),
    "trend and seasonal": f.local_linear_trend() + f.seasonal(3.0, 2) + f.noise(),
    "two cycles": f.cycle() + f.cycle() + f.noise(),
    "spiral": f.spiral(),
    "tied": (f.ornstein_uhlenbeck() + f.matern(0.5) + f.noise()).tie(
        "ou.process_var", "matern.variance"
    ),
}


def slope(value: Callable[[float], float], step: float) -> float:
    d = [(value(h) - value(-h)) / (2 * h) for h in (step, step / 2)]
    return (4 * d[1] - d[0]) / 3


def check_gradient(par: Any, data: Any, theta: np.ndarray) -> None:
    def value(point: np.ndarray) -> float:
        return evaluate(par.system(point), data, gradient=False)[0]

    grad = par.pullback(theta, evaluate(par.system(theta), data)[1])
    for i in range(len(theta)):
        unit = par.typical[i] * np.eye(len(theta))[i]
        along = slope(lambda h, unit=unit: value(theta + h * unit), 2e-3)
        exact = grad[i] * par.typical[i]
        assert exact == pytest.approx(along, rel=1e-6, abs=1e-6), par.names[i]


@pytest.mark.parametrize("name", FAMILIES)
def test_family_gradient(name: str) -> None:
    family = FAMILIES[name]
    t = irregular_times(25)
    rng = np.random.default_rng(5)
    z = rng.standard_normal((25, family.obs_dim)) + 1.0
    z[rng.random(z.shape) < 0.1] = np.nan
    par = FamilyParameters(family, family.guess(t, z), np.ones(family.obs_dim))
    theta = par.start() + 0.3 * par.typical * rng.standard_normal(len(par.names))
    check_gradient(par, prepare(t, z, family.obs_dim, None), theta)


@pytest.mark.parametrize("name", ["spiral", "general", "oscillator", "unstable", "proper_prior"])
def test_matrix_gradient(name: str) -> None:
    model = MODELS[name]
    t = irregular_times(16)
    z = draw_data(model, t, missing=0.1)
    free = ["A", "Q", "R", "C", "drift", "offset"]
    if isinstance(model.prior, Prior):
        free += ["prior mean", "prior cov"]
    par = MatrixParameters(model, free, (np.arange(1.0, 1 + model.obs_dim), 0.5))
    rng = np.random.default_rng(1)
    theta = par.start() + 0.03 * par.typical * rng.standard_normal(len(par.names))
    check_gradient(par, prepare(t, z, model.obs_dim, None), theta)


def test_natural_parameters_and_their_jacobian() -> None:
    model = MODELS["proper_prior"]
    par = MatrixParameters(
        model, ["A", "Q", "R", "prior cov"], (np.arange(1.0, 1 + model.obs_dim), 0.5), stable=True
    )
    theta = par.start()
    fitted = par.model(theta)
    np.testing.assert_allclose(fitted.A, model.A, atol=1e-12)
    np.testing.assert_allclose(fitted.Q, model.Q, atol=1e-12)
    J = par.jacobian(theta)
    for k in range(len(theta)):
        unit = np.eye(len(theta))[k]
        column = (par.natural(theta + 1e-5 * unit) - par.natural(theta - 1e-5 * unit)) / 2e-5
        np.testing.assert_allclose(J[:, k], column, atol=1e-8)
    rng = np.random.default_rng(0)
    for _ in range(20):  # whatever theta is, A is stable
        A = par.model(theta + rng.standard_normal(len(theta))).A
        assert np.linalg.eigvals(A).real.max() < 0


def test_families_are_the_models_of_the_textbook() -> None:
    """Stationary covariances written into the families solve A P + P A^T + Q = 0."""
    for family in FAMILIES.values():
        values = {n: 0.4 + 0.1 * k for k, n in enumerate(family.parameters)}
        system = family.system(family.complete({**values, **family.start}))
        assert isinstance(system.prior, PriorArrays)
        P, flat = system.prior.cov, system.prior.flat
        keep = np.eye(len(P)) - flat @ flat.T
        residual = keep @ (system.A @ P + P @ system.A.T + system.Q) @ keep
        np.testing.assert_allclose(residual, 0, atol=1e-13 * max(1.0, np.abs(system.Q).max()))


def test_nile_reaches_the_known_optimum() -> None:
    """Durbin & Koopman (2012), sec. 2.10: 15099 and 1469.1; statsmodels' likelihood there."""
    result = fit(LOCAL_LEVEL, YEARS, NILE)
    assert result.converged
    assert result.params["obs_var"] == pytest.approx(15099, rel=1e-4)
    assert result.params["process_var"] == pytest.approx(1469.1, rel=2e-4)
    peer = sm.tsa.UnobservedComponents(NILE, "llevel", use_exact_diffuse=True)
    at_ours = peer.loglike([result.params["obs_var"], result.params["process_var"]])
    assert result.loglik == pytest.approx(at_ours, abs=1e-8)
    assert result.loglik >= peer.fit(disp=0).llf
    assert result.aic == pytest.approx(4 - 2 * result.loglik)


def test_observed_information_against_the_dense_likelihood() -> None:
    result = fit(LOCAL_LEVEL, YEARS[:40], NILE[:40])

    def value(q: float, r: float) -> float:
        model = LinearSDE([[0.0]], Q=[[q]], R=[[r]])
        return dense_loglik(model, YEARS[:40], NILE[:40, None])

    x = np.array([result.params["process_var"], result.params["obs_var"]])
    h = 0.02 * x
    H = np.empty((2, 2))
    for i in range(2):
        for j in range(2):
            e, g = h * np.eye(2)[i], h * np.eye(2)[j]
            H[i, j] = (
                value(*(x + e + g))
                - value(*(x + e - g))
                - value(*(x - e + g))
                + value(*(x - e - g))
            ) / (4 * h[i] * h[j])
    np.testing.assert_allclose(result.cov, np.linalg.inv(-H), rtol=5e-3)


def test_sunspots_as_a_damped_cycle() -> None:
    """At the optimum no direction improves; the period is the known eleven to twelve years."""
    family = f.cycle() + f.constant() + f.noise()
    result = fit(family, np.arange(309.0), SUNSPOTS)
    assert result.converged
    assert 10.5 < 2 * np.pi / result.params["frequency"] < 12.5
    assert result.boundary == ("obs_var",)
    assert np.isnan(result.std_errors["obs_var"])
    peer = sm.tsa.UnobservedComponents(
        SUNSPOTS - result.params["offset"],
        cycle=True,
        stochastic_cycle=True,
        damped_cycle=True,
        irregular=True,
    )
    peer.ssm.loglikelihood_burn = 0
    rho = np.exp(-result.params["decay"])
    shock = result.params["process_var"] * (1 - rho**2) / (2 * result.params["decay"])
    peer.ssm.initialize_stationary()
    theirs = peer.loglike([0.0, shock, result.params["frequency"], rho])
    assert result.loglik == pytest.approx(theirs, abs=1e-6)


def test_constraints_fixed_and_tied_parameters() -> None:
    t = np.arange(60.0)
    truth = (f.ornstein_uhlenbeck() + f.noise()).model(rate=0.3, process_var=0.5, obs_var=0.2)
    z = simulate(truth, t, rng=np.random.default_rng(0)).z[0]
    family = f.ornstein_uhlenbeck() + f.noise()
    free = fit(family, t, z)
    fixed = fit(family.fix(rate=0.3), t, z)
    named = fit(family.at(rate=0.3), t, z, free=["process_var", "obs_var"])
    assert set(fixed.params) == {"process_var", "obs_var"}
    assert fixed.loglik == pytest.approx(named.loglik, abs=1e-6)
    assert fixed.loglik <= free.loglik + 1e-9
    tied = fit(family.tie("process_var", "obs_var"), t, z)
    assert tied.model.Q[0, 0] == tied.model.R[0, 0] == tied.params["process_var"]
    test = likelihood_ratio(fixed, free)
    assert test.df == 1
    assert test.statistic == pytest.approx(2 * (free.loglik - fixed.loglik))
    assert 0 < test.p_value < 1


@pytest.mark.parametrize("seed", range(3))
def test_free_matrices_recover_the_truth(seed: int) -> None:
    """A, Q, R and drift of an irregular, gappy, multi-path record: every z score plausible."""
    truth = LinearSDE(
        [[-0.5, 1.0], [-1.0, -0.5]],
        Q=[[0.3, 0.1], [0.1, 0.4]],
        R=[[0.2, 0.0], [0.0, 0.3]],
        drift=[0.3, 0.1],
    )
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.exponential(0.5, 150))
    t[10] = t[9]
    z = simulate(truth, t, 3, rng=rng, missing=0.1).z
    start = LinearSDE(-np.eye(2), Q=np.eye(2), R=np.eye(2))
    result = fit(start, t, z)
    assert result.converged
    assert not result.unidentified
    true = [*truth.A.ravel(), 0.3, 0.1, 0.4, 0.2, 0.0, 0.3, 0.3, 0.1]
    scores = (np.array(list(result.params.values())) - true) / np.sqrt(np.diag(result.cov))
    assert np.abs(scores).max() < 4
    assert 0.2 < np.mean(scores**2) < 3


def test_masks_and_discrete_models() -> None:
    """An AR(2) with noise in companion form: only its own coefficients move."""
    rng = np.random.default_rng(3)
    truth = DiscreteModel(
        [[1.2, -0.5], [1.0, 0.0]], Q=np.diag([1.0, 0.0]), H=[[1.0, 0.0]], R=[[0.3]]
    )
    z = simulate(truth, np.arange(400.0), rng=rng).z[0]
    start = DiscreteModel(
        [[0.5, -0.1], [1.0, 0.0]], Q=np.diag([0.5, 0.0]), H=[[1.0, 0.0]], R=[[1.0]]
    )
    free = {"F": [[True, True], [False, False]], "Q": [True, False], "R": None}
    result = fit(start, None, z, free=free)
    assert list(result.params) == ["F[0,0]", "F[0,1]", "Q[0,0]", "R[0,0]"]
    assert result.converged
    assert result.model.F[1].tolist() == [1.0, 0.0]
    peer = sm.tsa.SARIMAX(z[:, 0], order=(2, 0, 0), measurement_error=True)
    theirs = peer.fit(disp=0, start_params=[1.2, -0.5, 0.3, 1.0])
    assert result.loglik == pytest.approx(theirs.llf, abs=1e-3)
    assert result.loglik >= theirs.llf - 1e-6
    ours = [result.params[k] for k in ("F[0,0]", "F[0,1]", "R[0,0]", "Q[0,0]")]
    np.testing.assert_allclose(ours, theirs.params, atol=0.02)


def test_scale_and_time_unit_change_nothing() -> None:
    """Ten times the values and a thousandth of the time unit: the same fit, rescaled."""
    a = fit(LOCAL_LEVEL, YEARS, NILE)
    b = fit(LOCAL_LEVEL, YEARS * 1000, NILE * 10)
    assert b.params["obs_var"] == pytest.approx(100 * a.params["obs_var"], rel=1e-4)
    assert b.params["process_var"] == pytest.approx(0.1 * a.params["process_var"], rel=1e-3)
    # 100 densities of ten times the value, one of them integrated over the flat start
    assert b.loglik == pytest.approx(a.loglik - 99 * np.log(10), abs=1e-5)


def test_obs_cov_and_multi_start() -> None:
    rng = np.random.default_rng(8)
    t = np.arange(80.0)
    noise = rng.uniform(0.1, 2.0, 80)
    x = np.cumsum(rng.standard_normal(80))
    z = x + np.sqrt(noise) * rng.standard_normal(80)
    covs = noise[:, None, None]
    family = f.brownian()
    result = fit(family, t, z, obs_cov=covs, starts=3, rng=np.random.default_rng(0))
    assert list(result.params) == ["process_var"]
    assert len(result.starts) == 3
    assert result.starts[0] == max(result.starts)
    peak = result.loglik
    for q in np.array([0.97, 1.03]) * result.params["process_var"]:
        assert dense_loglik(LinearSDE([[0.0]], Q=[[q]], R=[[1.0]]), t, z[:, None], covs) < peak


def test_unidentified_directions_are_named() -> None:
    """With C free, the scale of the state is arbitrary: C, Q and R cannot all be found."""
    t = np.arange(120.0)
    z = simulate(MODELS["ou"], t, rng=np.random.default_rng(1)).z[0]
    start = LinearSDE([[-0.5]], Q=[[1.0]], R=[[0.5]])
    with pytest.warns(FitWarning, match="do not determine"):
        result = fit(start, t, z - z.mean(), free=["A", "Q", "R", "C"])
    assert len(result.unidentified) == 1
    assert "C[0,0]" in result.unidentified[0]
    assert "Q[0,0]" in result.unidentified[0]
    assert np.isnan(result.std_errors["C[0,0]"])
    assert np.isfinite(result.std_errors["A[0,0]"])


def test_non_convergence_is_said() -> None:
    with pytest.warns(FitWarning, match="did not converge"):
        result = fit(f.cycle() + f.noise(), np.arange(309.0), SUNSPOTS - 50, max_iter=2)
    assert not result.converged
    assert "NOT CONVERGED" in result.summary()


def test_profile_intervals() -> None:
    """At both ends the best log-likelihood with the parameter held there has dropped by 1.92."""
    result = fit(LOCAL_LEVEL, YEARS, NILE)
    for name in result.params:
        ends = result.profile(name)
        assert ends[0] < result.params[name] < ends[1]
        for end in ends:
            held = fit(LOCAL_LEVEL.fix({name: end}), YEARS, NILE)
            assert result.loglik - held.loglik == pytest.approx(1.9207, abs=2e-3)


def test_profile_reaches_zero_where_zero_is_plausible() -> None:
    rng = np.random.default_rng(2)
    z = 0.05 * np.cumsum(rng.standard_normal(60)) + rng.standard_normal(60)
    result = fit(LOCAL_LEVEL, np.arange(60.0), z)
    low, high = result.profile("process_var")
    assert low == pytest.approx(0.0, abs=1e-6)
    assert high > result.params["process_var"]


def test_bootstrap_spread_agrees_with_the_information() -> None:
    rng = np.random.default_rng(4)
    t = np.cumsum(rng.exponential(1.0, 150))
    family = f.ornstein_uhlenbeck() + f.noise()
    truth = family.model(rate=0.4, process_var=1.0, obs_var=0.3)
    z = simulate(truth, t, 2, rng=rng, missing=0.1).z
    result = fit(family, t, z)
    draws = result.bootstrap(40, np.random.default_rng(1))
    assert draws.shape == (40, 3)
    spread = np.nanstd(draws, axis=0)
    errors = np.array(list(result.std_errors.values()))
    assert (spread / errors > 0.6).all()
    assert (spread / errors < 1.6).all()
    again = result.bootstrap(3, np.random.default_rng(1))
    np.testing.assert_array_equal(again, draws[:3])


def test_coverage_of_wald_intervals() -> None:
    """200 data sets, three parameters: nominal 95 % intervals, estimates without bias."""
    family = f.ornstein_uhlenbeck() + f.noise()
    values = {"rate": 0.5, "process_var": 1.0, "obs_var": 0.3}
    truth = family.model(values)
    t = np.cumsum(np.random.default_rng(0).exponential(0.7, 200))
    sets = simulate(truth, t, 200, rng=np.random.default_rng(1)).z
    hits = np.zeros(3)
    estimates = []
    for z in sets:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FitWarning)
            result = fit(family, t, z)
        ends = result.interval()
        hits += [ends[n][0] <= values[n] <= ends[n][1] for n in values]
        estimates.append([np.log(result.params[n]) for n in values])
    assert (hits / 200 >= 0.90).all()
    assert (hits / 200 <= 0.99).all()
    bias = np.mean(estimates, axis=0) - np.log(list(values.values()))
    error = np.std(estimates, axis=0) / np.sqrt(200)
    assert (np.abs(bias) < 3 * error).all()


def test_student_t_noise_resists_outliers() -> None:
    rng = np.random.default_rng(6)
    truth = LOCAL_LEVEL.model(process_var=0.5, obs_var=1.0)
    t = np.arange(200.0)
    z = simulate(truth, t, rng=rng, x0=[0.0]).z[0]
    struck = rng.choice(200, 20, replace=False)
    z[struck] += 15 * rng.standard_normal((20, 1))
    robust = fit(LOCAL_LEVEL, t, z, method="student_t")
    plain = fit(LOCAL_LEVEL, t, z)
    assert robust.converged
    assert 0.3 < robust.params["process_var"] < 0.9
    assert 0.3 < robust.params["obs_var"] < 1.5 < plain.params["obs_var"]
    assert robust.dof == robust.params["dof"] < 5
    assert robust.weights is not None
    assert robust.weights.shape == (200,)
    assert np.median(robust.weights[struck]) < 0.3 < np.median(np.delete(robust.weights, struck))


def test_student_t_bound_gradient_and_gaussian_limit() -> None:
    from afafilter.learning.student_t import StudentBound

    result = fit(LOCAL_LEVEL, YEARS, NILE, method="student_t", dof=5.0)
    assert result.loglik < fit(LOCAL_LEVEL, YEARS, NILE).loglik
    open_ = fit(LOCAL_LEVEL, YEARS, NILE, method="student_t")  # the Nile has no heavy tails
    assert open_.dof == np.inf
    assert open_.loglik == pytest.approx(-633.46456, abs=1e-4)
    outlying = NILE.copy()
    outlying[[20, 50]] += 3000
    heavy = fit(LOCAL_LEVEL, YEARS, outlying, method="student_t")
    theta = heavy.theta * 1.2
    _, grad = StudentBound(heavy.problem, None)(theta)
    for i, unit in enumerate(np.eye(3) * heavy.problem.parametrisation.typical):

        def value(h: float, unit: np.ndarray = unit) -> float:
            return StudentBound(heavy.problem, None)(theta + h * unit)[0]

        exact = grad[i] * heavy.problem.parametrisation.typical[i]
        assert exact == pytest.approx(slope(value, 1e-3), rel=1e-5, abs=1e-5)


def test_held_out_score_is_the_conditional_density() -> None:
    model = LinearSDE([[0.0]], Q=[[1469.1]], R=[[15099.0]])
    whole = dense_loglik(model, YEARS[:40], NILE[:40, None])
    head = dense_loglik(model, YEARS[:30], NILE[:30, None])
    assert held_out_score(model, YEARS[:40], NILE[:40], 30) == pytest.approx((whole - head) / 10)
    with pytest.raises(ValueError, match="start must be below"):
        held_out_score(model, YEARS, NILE, 100)
    with pytest.raises(ValueError, match="no observation"):
        held_out_score(model, YEARS[:3], np.array([1.0, 2.0, np.nan]), 2)


def test_tables() -> None:
    result = fit(LOCAL_LEVEL, YEARS, NILE)
    frame = result.to_pandas()
    assert list(frame.columns) == ["value", "std_error", "lower", "upper"]
    low, high = result.interval()["obs_var"]
    assert frame.loc["obs_var", ["lower", "upper"]].tolist() == [low, high]
    assert low < result.params["obs_var"] < high
    text = result.summary()
    assert "obs_var" in text
    assert "converged" in text
    assert r"obs\_var &" in result.to_latex()
    assert r"90 \% lower & 90 \% upper" in result.to_latex(0.9)  # what the ends are, said
    assert result.to_latex().count(r"\\") == 3


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"z": np.full(20, np.nan)}, ValueError, "every value is missing"),
        ({"z": np.ones(20)}, ValueError, "constant"),
        ({"t": np.arange(3.0), "z": [1.0, 2.0, 1.5]}, ValueError, "too few data"),
        ({"t": None}, TypeError, "t is needed"),
        ({"model": "llevel"}, ValueError, "unknown family 'llevel'"),
        ({"model": 3.0}, TypeError, "model must be"),
        ({"method": "mcmc"}, ValueError, "method must be one of"),
        ({"free": ["rate"]}, ValueError, "free must name"),
        ({"free": {"obs_var": None}}, ValueError, "names, not masks"),
        ({"starts": 2}, TypeError, "rng must be"),
        ({"max_iter": 0}, ValueError, "max_iter"),
        ({"tolerance": 0.0}, ValueError, "tolerance"),
        ({"dof": 3.0}, ValueError, "dof is for"),
        ({"model": LOCAL_LEVEL.fix(process_var=1.0, obs_var=1.0)}, ValueError, "nothing to fit"),
        ({"z": np.ones((20, 3))}, ValueError, "z must have shape"),
    ],
)
def test_refusals(change: dict[str, Any], error: type[Exception], message: str) -> None:
    rng = np.random.default_rng(0)
    given: dict[str, Any] = {
        "model": LOCAL_LEVEL,
        "t": np.arange(20.0),
        "z": rng.standard_normal(20),
        **change,
    }
    with pytest.raises(error, match=message):
        fit(given.pop("model"), given.pop("t"), given.pop("z"), **given)


def test_refusals_of_matrices_and_families() -> None:
    rng = np.random.default_rng(0)
    t, z = np.arange(30.0), rng.standard_normal((30, 2))
    model = MODELS["spiral"]
    with pytest.raises(ValueError, match="free must name"):
        fit(model, t, z, free=["F"])
    with pytest.raises(ValueError, match="mask of shape"):
        fit(model, t, z, free={"A": [True]})
    with pytest.raises(ValueError, match="R cannot be free"):
        fit(model, t, z, free=["R"], obs_cov=np.tile(np.eye(2), (30, 1, 1)))
    with pytest.raises(ValueError, match="only when the model has a Prior"):
        fit(model, t, z, free=["prior mean"])
    with pytest.raises(ValueError, match="needs a stable A"):
        fit(MODELS["unstable"], t, z, free=["A"], stable=True)
    with pytest.raises(ValueError, match="does not exist at the start"):
        fit(LinearSDE([[0.0]], Q=[[1.0]], R=[[0.0]]), t // 2, z[:, 0], free=["Q"])
    with pytest.raises(ValueError, match="unknown parameter"):
        LOCAL_LEVEL.fix(rate=1.0)
    with pytest.raises(ValueError, match="obs_var must be >= 0"):
        LOCAL_LEVEL.fix(obs_var=-1.0)
    with pytest.raises(ValueError, match="rate must be > 0"):
        f.ornstein_uhlenbeck().at(rate=0.0)
    with pytest.raises(ValueError, match="cannot lead"):
        LOCAL_LEVEL.tie("obs_var", "obs_var")
    with pytest.raises(ValueError, match="same number of values"):
        f.spiral() + f.noise()
    with pytest.raises(ValueError, match="must hold a value for process_var"):
        LOCAL_LEVEL.model(obs_var=1.0)
    with pytest.raises(ValueError, match=r"nu must be 0\.5"):
        f.matern(1.0)
    result = fit(LOCAL_LEVEL, YEARS, NILE)
    with pytest.raises(ValueError, match="unknown parameter"):
        result.profile("rate")
    with pytest.raises(ValueError, match="level must lie"):
        result.interval(1.0)


def test_families_without_state_make_no_model() -> None:
    with pytest.raises(ValueError, match="no state that moves: add a component"):
        (f.constant() + f.noise()).model(offset=1.0, obs_var=2.0)
    with pytest.raises(ValueError, match="no state that moves: add a component"):
        fit(f.noise() + f.constant(), np.arange(9.0), np.sin(np.arange(9.0)))


def test_stamps_that_resolve_their_steps_keep_the_elapsed_time() -> None:
    """Poisson events at 1 kHz, stamps in MJD: steps of few units in the last place stay apart."""
    rng = np.random.default_rng(0)
    seconds = np.cumsum(rng.exponential(1e-3, 5000))
    t = 6e4 + seconds / 86400
    z = np.cumsum(rng.standard_normal(5000) * np.sqrt(np.diff(t, prepend=t[0]) * 86400))
    z = z + np.sqrt(0.1) * rng.standard_normal(5000)
    found = fit(LOCAL_LEVEL, t, z)
    exact = fit(LOCAL_LEVEL, t - t[0], z)
    assert found.loglik == pytest.approx(exact.loglik, abs=0.01)
    assert found.params["obs_var"] == pytest.approx(0.1, abs=0.01)
    assert found.loglik == pytest.approx(float(kalman_filter(found.model, t, z).loglik), rel=1e-9)


@pytest.mark.parametrize("bounds", [None, {"obs_var": (0.0, 9.0)}], ids=["batched", "alone"])
def test_a_likelihood_that_is_not_the_filters_is_an_error(
    bounds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name = (problem, "evaluate") if bounds else (likelihood_each, "loglik_sdes")
    right = getattr(module, name)

    def shifted(*args: Any, **options: Any) -> Any:
        value, grad = right(*args, **options)
        return value + (1.0 if bounds else np.eye(1, 5)), grad

    monkeypatch.setattr(module, name, shifted)
    t, z = np.arange(30.0), np.cumsum(np.random.default_rng(0).standard_normal(30))
    with pytest.raises(ArithmeticError, match="the Kalman filter's at the same parameters"):
        fit(LOCAL_LEVEL, t, z, bounds=bounds)


def test_outliers_are_told_and_plain_data_are_not_accused():
    rng = np.random.default_rng(3)
    t = np.arange(300.0)
    clean = np.cumsum(0.2 * rng.standard_normal(300)) + rng.standard_normal(300)
    assert fit("brownian + noise", t, clean).outliers == 0
    struck = clean.copy()
    struck[20::40] += 30.0
    found = fit("brownian + noise", t, struck)
    assert found.outliers >= 7
    assert f"{found.outliers} observations lie far outside" in str(found)
    assert "--method student_t" in str(found)
    robust = fit("brownian + noise", t, struck, method="student_t")
    assert robust.outliers == 0
    assert robust.params["obs_var"] < 0.1 * found.params["obs_var"]


@pytest.mark.parametrize("seed", [4, 20, 49])
def test_standard_errors_of_a_variance_close_to_zero(seed):
    """Against differences of the likelihood in the variances, extrapolated to steps of 0.

    The variance is a hundredth of its standard error: what the search leaves of the slope counts
    more there, in the root of the variance, than the curvature that the error is made of.
    """
    rng = np.random.default_rng(seed)
    t = np.arange(150.0)
    walk = np.cumsum(rng.normal(size=150))
    z = walk * 10 ** rng.uniform(-2.5, -1) + rng.normal(size=150)
    found = fit("brownian + noise", t, z)
    assert not found.boundary
    names, best = list(found.params), np.array(list(found.params.values()))
    assert best[0] < 0.05 * found.std_errors["process_var"]

    def value(x):
        return loglik(LOCAL_LEVEL, t, z, params=dict(zip(names, x, strict=True)))

    def curvature(h):
        ends = [
            [
                value(best + i * h * np.array([best[0], 0]) + j * h * np.array([0, best[1]]))
                for j in (-1, 0, 1)
            ]
            for i in (-1, 0, 1)
        ]
        a = np.array(ends)
        both = (a[2, 2] - a[2, 0] - a[0, 2] + a[0, 0]) / 4
        own = np.array([a[2, 1] - 2 * a[1, 1] + a[0, 1], a[1, 2] - 2 * a[1, 1] + a[1, 0]])
        H = np.array([[own[0], both], [both, own[1]]])
        return -H / np.outer(best, best) / h**2

    H = (4 * curvature(0.05) - curvature(0.1)) / 3
    wanted = np.sqrt(np.diag(np.linalg.inv(H)))
    np.testing.assert_allclose(list(found.std_errors.values()), wanted, rtol=4e-3)


WAVE = np.sin(np.arange(80.0)) + np.random.default_rng(3).normal(size=80)
ZERO_MEAN = ["ornstein_uhlenbeck", "matern", "cycle", "oscillator"]


@pytest.mark.parametrize("word", ZERO_MEAN)
def test_a_constant_that_is_missing_is_told_of(word: str, recwarn) -> None:
    t, off = np.arange(80.0), 1e6 + WAVE
    lost = fit(f"{word} + noise", t, off, max_iter=15)
    assert not lost.converged
    assert f"lies {off.mean() / off.std():.2g} times the spread of z from the model's, 0: add" in (
        str(recwarn.pop(FitWarning).message)
    )
    both = fit_each(f"{word} + noise", t, np.stack([off, WAVE]), max_iter=250)
    assert "1 lack a constant" in str(recwarn.pop(FitWarning).message)
    assert ["add a constant" in text for text in both.to_pandas()["message"]] == [True, False]


@pytest.mark.filterwarnings("ignore::afafilter.FitWarning")
@pytest.mark.parametrize("word", ZERO_MEAN)
def test_no_constant_is_missed_where_there_is_one(word: str) -> None:
    t, off = np.arange(80.0), 1e6 + WAVE
    assert not fit(f"{word} + noise + constant", t, off, max_iter=15).off_level
    assert not fit(f"brownian + {word} + noise", t, off, max_iter=3).off_level
    paths = np.stack([WAVE + 50, WAVE - 50])  # zero mean, each path far from it
    assert not fit(f"{word} + noise", t, paths[..., None], max_iter=3).off_level


def test_a_model_far_off_its_level_is_told_of() -> None:
    t, z = np.arange(80.0), np.stack([WAVE, 70.0 + WAVE], axis=-1)
    z[3] = z[7:, 0] = np.nan
    model = LinearSDE(A=-np.eye(2), Q=np.eye(2), R=np.eye(2), prior="stationary")
    with pytest.warns(FitWarning, match=r"add a constant .*, a model's offset"):
        found = fit(model, t, z, free=["Q"], max_iter=5)
    seen = z[~np.isnan(z[:, 1]), 1]
    assert f"mean of z, {seen.mean():.6g}, lies {seen.mean() / seen.std():.2g} times" in (
        found.off_level
    )
    assert not fit(model, t, z, free=["Q", "offset"], max_iter=50).off_level
