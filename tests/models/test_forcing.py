"""Known inputs: against the discrete model whose drift changes from step to step, and mpmath."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from afafilter import (
    Forcing,
    LinearSDE,
    Prior,
    StudentT,
    adaptive_filter,
    adaptive_smoother,
    brownian,
    constant_velocity,
    forecast,
    kalman_filter,
    ornstein_uhlenbeck,
    rts_smoother,
    simulate,
    spiral,
)
from afafilter.models.forcing import response
from tests.conftest import MODELS
from tests.oracles import dense_loglik, dense_posterior, mp_transition

TIMES = np.array([0.0, 0.4, 0.5, 1.7, 2.0, 2.0, 3.5])
INPUT = Forcing([0.5, 1.0, 2.5], [[2.0], [-1.0], [0.5]], [[0.3], [1.0]])


def by_steps(model: LinearSDE, forcing: Forcing, times: np.ndarray) -> np.ndarray:
    """x_u at the times by mpmath's psi between all changes, from x_u = 0 at the first time."""
    nodes = np.union1d(times, forcing.t[(forcing.t > times[0]) & (forcing.t < times[-1])])
    rates = np.vstack([np.zeros(model.dim), forcing.rates(model.dim)])
    x, out = np.zeros(model.dim, dtype=np.longdouble), [np.zeros(model.dim)]
    for a, b in pairwise(nodes):
        u = rates[np.searchsorted(forcing.t, a, side="right")]
        Phi, psi, _ = mp_transition(model.A, model.Q, u, b - a)
        x = Phi @ x + psi
        out.append(x.astype(float))
    return np.array(out)[np.searchsorted(nodes, times)]


@pytest.mark.parametrize("name", ["spiral", "constant_velocity", "unstable", "general"])
def test_response_is_the_integral(name):
    model = MODELS[name]
    forcing = Forcing(INPUT.t, INPUT.u, np.arange(1.0, model.dim + 1)[:, None])
    found = response(model.A, forcing, TIMES, 0.0)
    wanted = by_steps(model, forcing, TIMES)
    np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-12 * np.abs(wanted).max())


def test_response_runs_backwards_too():
    model = MODELS["spiral"]
    ahead = response(model.A, INPUT, TIMES, 0.0)
    back = response(model.A, INPUT, TIMES, 3.5)
    lags = TIMES - 3.5
    free = np.stack(
        [
            np.linalg.inv(mp_transition(model.A, model.Q, [0, 0], -lag)[0].astype(float))
            @ ahead[-1]
            for lag in lags
        ]
    )
    np.testing.assert_allclose(ahead - free, back, atol=1e-12)


PROPER = Prior([1.0, -1.0], [[2.0, 0.3], [0.3, 1.0]])


@pytest.mark.parametrize("prior", [PROPER, "diffuse"])
@pytest.mark.parametrize("causal", [True, False])
def test_estimates_and_likelihood_are_those_of_the_dense_gaussian(prior, causal):
    """The discrete form has the input in its b_k; the oracle knows nothing of superposition."""
    model = replace(MODELS["spiral"], forcing=INPUT, prior=prior)
    z = np.random.default_rng(0).standard_normal((len(TIMES), 2))
    z[3, 1] = np.nan
    discrete = model.discretize(TIMES)
    free = replace(model, forcing=None).discretize(TIMES)
    added = by_steps(model, INPUT, TIMES)
    steps = added[1:] - np.einsum("kij,kj->ki", free.F[1:], added[:-1])
    np.testing.assert_allclose(discrete.b[1:] - free.b[1:], steps, atol=1e-12)
    estimator = kalman_filter if causal else rts_smoother
    found = estimator(model, TIMES, z)
    mean, cov = dense_posterior(discrete, TIMES, z, causal=causal)
    known = np.isfinite(mean.astype(float))
    np.testing.assert_allclose(found.mean[known], mean[known].astype(float), atol=1e-9)
    np.testing.assert_allclose(found.cov[known.all(1)], cov[known.all(1)].astype(float), atol=1e-9)
    assert found.loglik == pytest.approx(dense_loglik(discrete, TIMES, z), abs=1e-8)


def test_a_constant_input_is_drift():
    model = replace(constant_velocity(0.3, 0.5), drift=[0.0, 0.7])
    forced = replace(model, drift=None, forcing=Forcing([-5.0], [0.7], [[0.0], [1.0]]))
    z = np.random.default_rng(1).standard_normal((3, len(TIMES), 1))
    query = np.array([1.0, 2.2, 9.0])
    for estimator in (kalman_filter, rts_smoother, adaptive_filter, adaptive_smoother):
        weight = StudentT(4.0)
        for options in ({}, {"weight": weight}, {"query_times": query}):
            one, other = (estimator(m, TIMES, z, **options) for m in (model, forced))
            np.testing.assert_allclose(one.mean, other.mean, atol=1e-8)
            np.testing.assert_allclose(one.cov, other.cov, atol=1e-8)
    one, other = (forecast(m, TIMES, z, horizon_times=[4.0, 8.0]) for m in (model, forced))
    for key in ("observation_mean", "observation_cov"):
        np.testing.assert_allclose(one.info[key], other.info[key], atol=1e-8)


def test_a_stationary_prior_holds_before_the_input_begins():
    model = ornstein_uhlenbeck(0.5, process_var=0.2, obs_var=0.1)
    forced = replace(model, forcing=Forcing([1.0], [3.0]))
    t = np.linspace(0.0, 20.0, 21)
    data = simulate(forced, t, 4000, rng=2)
    mean = np.where(t > 1, 3.0 / 0.5 * (1 - np.exp(-0.5 * (t - 1.0))), 0.0)
    band = 4.5 * np.sqrt(0.2 / 4000)
    np.testing.assert_allclose(data.x.mean(0)[:, 0], mean, atol=band)
    error = kalman_filter(forced, t, data.z).mean - data.x
    assert np.abs(error.mean(0)).max() < band
    later = kalman_filter(forced, t[5:], data.z[:, 5:]).mean - data.x[:, 5:]
    assert np.abs(later.mean(0)).max() < band


def test_simulated_paths_differ_from_free_ones_by_the_response():
    model = spiral(prior=PROPER)
    free = simulate(model, TIMES, 3, rng=0)
    forced = simulate(model, TIMES, 3, rng=0, forcing=INPUT)
    x = by_steps(model, INPUT, TIMES)
    np.testing.assert_allclose(forced.x - free.x, np.broadcast_to(x, free.x.shape), atol=1e-12)
    np.testing.assert_allclose(forced.z - free.z, np.broadcast_to(x, free.z.shape), atol=1e-12)
    started = simulate(spiral(), TIMES, 3, rng=0, forcing=INPUT, x0=[5.0, 0.0])
    again = simulate(spiral(), TIMES, 3, rng=0, x0=[5.0, 0.0])
    np.testing.assert_allclose(started.x - again.x, np.broadcast_to(x, free.x.shape), atol=1e-12)


def test_inputs_of_sums_are_joined():
    a = replace(brownian(1.0, 0.5), forcing=Forcing([0.0, 2.0], [1.0, 2.0]))
    b = replace(constant_velocity(0.1, 0.0), forcing=Forcing([1.0], [3.0], [[0.0], [1.0]]))
    total = a + b
    np.testing.assert_array_equal(total.forcing.t, [0.0, 1.0, 2.0])
    np.testing.assert_array_equal(total.forcing.rates(3), [[1, 0, 0], [1, 0, 3], [2, 0, 3]])
    np.testing.assert_array_equal((brownian() + b).forcing.rates(3), [[0, 0, 3]])
    assert (brownian() + brownian()).forcing is None


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Forcing([0.0, 0.0], [1.0, 2.0]), ValueError, "forcing t must increase"),
        (lambda: Forcing([0.0], [1.0, 2.0]), ValueError, r"forcing u must have shape \(1, m\)"),
        (lambda: Forcing([0.0], [1.0], [1.0]), ValueError, "forcing matrix must have shape"),
        (lambda: replace(spiral(), forcing=Forcing([0.0], [1.0])), ValueError, "each of the 2"),
        (lambda: replace(spiral(), forcing=1.0), TypeError, "forcing must be a Forcing or None"),
        (
            lambda: simulate(spiral().discretize([0.0, 1.0]), rng=0, forcing=INPUT),
            ValueError,
            "forcing and jumps need a LinearSDE",
        ),
    ],
)
def test_bad_inputs_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_what_would_ignore_an_input_refuses_it():
    from afafilter import linear_time_filter, pull_forward, theory

    model = replace(spiral(), forcing=Forcing([0.0], [[1.0, 0.0]]))
    z = np.random.default_rng(0).standard_normal((len(TIMES), 2))
    for call in (
        lambda: linear_time_filter(model, TIMES, z),
        lambda: pull_forward(model, TIMES, z, 1.0),
        lambda: theory.error_covariance(model, TIMES),
    ):
        with pytest.raises(ValueError, match="takes no model with forcing; set forcing=None"):
            call()


def test_the_peer_honours_inputs_too():
    pytest.importorskip("filterpy")
    from afafilter import filterpy_filter

    model = replace(MODELS["spiral"], forcing=INPUT, prior=PROPER)
    z = np.random.default_rng(0).standard_normal((len(TIMES), 2))
    np.testing.assert_allclose(
        filterpy_filter(model, TIMES, z).mean, kalman_filter(model, TIMES, z).mean, atol=1e-9
    )
