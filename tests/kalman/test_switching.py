"""IMM and particle filter against the exact mixture over all histories, and textbook loops."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from scipy.special import logsumexp

from afafilter import (
    DiscreteModel,
    Prior,
    SwitchingModel,
    constant_velocity,
    contaminated,
    imm_filter,
    kalman_filter,
    mixture_filter,
    particle_filter,
    simulate,
)
from afafilter.kalman.histories import Cloud
from afafilter.kalman.switching import _survivors
from tests.conftest import MODELS, draw_data, irregular_times

RATE, SCALE = 0.15, 30.0
TOLD = {"outlier_rate": RATE, "outlier_scale": SCALE}


def histories(switching, t, z):
    """Exact mean, cov, log-likelihood and mode probabilities at the last time of z (T, p).

    All M^T histories, each by a Kalman filter; the modes differ in R.
    """
    first = switching.models[0]
    logs, means, covs, last = [], [], [], []
    for history in product(range(len(switching.models)), repeat=len(t)):
        noise = np.array([switching.models[m].R for m in history])
        found = kalman_filter(first, t, z, obs_cov=noise)
        prior = switching.initial[history[0]]
        for i, j in pairwise(history):
            prior = prior * switching.switching[i, j]
        logs.append(found.loglik + np.log(prior))
        means.append(found.mean[-1])
        covs.append(found.cov[-1])
        last.append(history[-1])
    total = logsumexp(logs)
    w = np.exp(np.array(logs) - total)
    mean = w @ np.array(means)
    apart = np.array(means) - mean
    cov = np.einsum("h,hij->ij", w, np.array(covs) + apart[:, :, None] * apart[:, None, :])
    share = [w[np.array(last) == m].sum() for m in range(len(switching.models))]
    return mean, cov, total, share


def dirty(name, n=8, seed=3):
    """Times, and two paths with gaps and outliers."""
    t = irregular_times(n)
    z = draw_data(MODELS[name], t, seed=seed, n_paths=2, missing=0.15)
    z[0, n // 2] += 12.0
    return t, z


@pytest.mark.parametrize("name", ["proper_prior", "spiral", "constant_velocity", "ou"])
def test_with_independent_outliers_imm_is_the_mixture_filter(name):
    model, (t, z) = MODELS[name], dirty(name, 12)
    wanted = mixture_filter(model, t, z, **TOLD)
    found = imm_filter(model, t, z, **TOLD)
    start = 4 if name == "constant_velocity" else 0  # the flat start of the mixture is collapsed
    np.testing.assert_array_equal(np.isnan(found.mean), np.isnan(wanted.mean))
    if start == 0:
        np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(found.cov, wanted.cov, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(found.loglik_steps, wanted.loglik_steps, rtol=1e-8, atol=1e-9)
    else:
        np.testing.assert_allclose(found.mean[:, start:], wanted.mean[:, start:], atol=0.5)


@pytest.mark.parametrize("length", [None, 3.0])
@pytest.mark.parametrize("name", ["proper_prior", "spiral", "constant_velocity"])
def test_all_histories_kept_are_the_exact_posterior(name, length):
    model, (t, z) = MODELS[name], dirty(name, 7)
    told = {**TOLD, "outlier_length": length}
    found = particle_filter(model, t, z, n_particles=2**7, **told)
    assert found.loglik_steps.sum(-1) == pytest.approx(found.loglik)
    for i in range(2):
        chain = contaminated(model, RATE, SCALE, outlier_length=length)
        mean, cov, loglik, share = histories(chain, t, z[i])
        np.testing.assert_allclose(found.mean[i, -1], mean, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(found.cov[i, -1], cov, rtol=1e-7, atol=1e-8)
        assert found.loglik[i] == pytest.approx(loglik, rel=1e-9)
        np.testing.assert_allclose(found.info["mode_probability"][i, -1], share, atol=1e-9)


def test_imm_is_exact_through_two_observations_of_a_flat_start():
    model = MODELS["constant_velocity"]
    t = np.array([0.0, 0.7])
    z = draw_data(model, t, seed=5) + np.array([[0.0, 3.0], [8.0, 0.0]])
    found = imm_filter(model, t, z, **TOLD, outlier_length=2.0)
    mean, cov, loglik, _ = histories(contaminated(model, RATE, SCALE, outlier_length=2.0), t, z)
    np.testing.assert_allclose(found.mean[-1], mean, rtol=1e-8)
    np.testing.assert_allclose(found.cov[-1], cov, rtol=1e-8)
    assert found.loglik == pytest.approx(loglik, rel=1e-10)
    assert np.isnan(found.mean[0, 2:]).all()
    assert np.isinf(np.diagonal(found.cov[0])[2:]).all()


def targets():
    """A target that cruises or manoeuvres, with a proper prior."""
    prior = Prior(np.zeros(2), np.diag([4.0, 1.0]))
    calm, wild = (constant_velocity(process_var=q, obs_var=0.5) for q in (0.01, 9.0))
    models = [replace(m, prior=prior) for m in (calm, wild)]
    return SwitchingModel(models, [[0.95, 0.05], [0.2, 0.8]])


def test_imm_by_the_book():
    """One cycle after another as Bar-Shalom, Li & Kirubarajan (2001), table 11.6.6-1, prints it."""
    model, t = targets(), irregular_times(10)
    z = draw_data(model.models[1], t, seed=2)
    found = imm_filter(model, t, z)
    P, mu = model.switching, model.initial
    x = [model.models[0].prior.mean] * 2
    S = [model.models[0].prior.cov] * 2
    for k in range(len(t)):
        if k:
            c = mu @ P
            mix = P * mu[:, None] / c
            x0 = [sum(mix[i, j] * x[i] for i in range(2)) for j in range(2)]
            S0 = [
                sum(mix[i, j] * (S[i] + np.outer(x[i] - x0[j], x[i] - x0[j])) for i in range(2))
                for j in range(2)
            ]
            x, S = [], []
            for j, own in enumerate(model.models):
                F, b, V = own.transition(t[k] - t[k - 1])
                x.append(F @ x0[j] + b)
                S.append(F @ S0[j] @ F.T + V)
        else:
            c = mu
        likelihood = []
        for j, own in enumerate(model.models):
            v = z[k] - own.C @ x[j]
            inner = own.C @ S[j] @ own.C.T + own.R
            K = S[j] @ own.C.T / inner
            x[j], S[j] = x[j] + K @ v, S[j] - K @ inner @ K.T
            likelihood.append(float(np.exp(-0.5 * v @ v / inner[0, 0]) / np.sqrt(inner[0, 0])))
        mu = c * likelihood / (c @ likelihood)
        mean = mu @ np.array(x)
        np.testing.assert_allclose(found.mean[k], mean, atol=1e-9)
        cov = sum(mu[j] * (S[j] + np.outer(x[j] - mean, x[j] - mean)) for j in range(2))
        np.testing.assert_allclose(found.cov[k], cov, atol=1e-9)
        np.testing.assert_allclose(found.info["mode_probability"][k], mu, atol=1e-9)


def test_one_mode_is_the_kalman_filter(model, t, z_missing):
    own = replace(model, prior=Prior(np.zeros(model.dim), np.eye(model.dim)))
    wanted = kalman_filter(own, t, z_missing)
    for found in (
        imm_filter(SwitchingModel([own], [[1.0]]), t, z_missing),
        particle_filter(SwitchingModel([own], [[1.0]]), t, z_missing),
    ):
        np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(found.cov, wanted.cov, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(found.loglik, wanted.loglik, rtol=1e-9, atol=1e-9)


def test_a_discrete_model_switches_as_the_continuous_one():
    model, t = MODELS["proper_prior"], 0.5 * np.arange(9)
    z = draw_data(model, t, seed=8)
    F, b, V = model.transition(0.5)
    discrete = DiscreteModel(F, Q=V, H=model.C, R=model.R, b=b, prior=model.prior)
    one, other = (imm_filter(m, t, z, **TOLD, outlier_length=2.0) for m in (model, discrete))
    np.testing.assert_allclose(one.mean, other.mean, atol=1e-10)


def test_survivors_keep_the_large_weights_and_the_mean_of_all():
    rng = np.random.default_rng(4)
    w = rng.gamma(0.3, size=(1, 24))
    w /= w.sum()
    repeat = 4000
    cloud = Cloud(
        np.log(np.tile(w, (repeat, 1))),
        np.tile(np.arange(24.0)[:, None], (repeat, 1, 1)),
        np.ones((repeat, 24, 1, 1)),
        np.zeros((repeat, 24), np.intp),
    )
    kept = _survivors(cloud, 10, (np.arange(repeat) + 0.5) / repeat)
    assert kept.logw.shape == (repeat, 10)
    mean = np.zeros(24)
    np.add.at(mean, kept.mean[..., 0].astype(int), np.exp(kept.logw) / repeat)
    np.testing.assert_allclose(mean, w[0], atol=2e-3 * w.max())
    assert all(w.argmax() in row for row in kept.mean[:5, :, 0])
    assert (np.diff(np.sort(kept.mean[..., 0], axis=1), axis=1) > 0).all()  # nobody twice


def test_few_particles_estimate_the_likelihood_without_bias():
    model, (t, z) = MODELS["proper_prior"], dirty("proper_prior", 9)
    exact = histories(contaminated(model, RATE, SCALE), t, z[0])[2]
    copies = np.repeat(z[:1], 400, axis=0)
    found = particle_filter(model, t, copies, n_particles=3, rng=1, **TOLD)
    ratio = np.exp(found.loglik - exact)
    assert ratio.std() > 0
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / np.sqrt(400)


def test_runs_of_outliers_are_what_imm_adds():
    model = replace(MODELS["spiral"], prior=Prior(np.zeros(2), np.eye(2)))
    t, truth = 0.1 * np.arange(80), contaminated(model, 0.2, 100.0, outlier_length=8.0)
    rng, n = np.random.default_rng(0), 60
    mode = np.zeros((n, 80), int)
    mode[:, 0] = rng.random(n) < truth.initial[1]
    for k in range(1, 80):
        mode[:, k] = rng.random(n) < truth.switching[mode[:, k - 1], 1]
    assert mode.mean() == pytest.approx(0.2, abs=0.05)
    data = simulate(model, t, n_paths=n, rng=1)
    noise = np.sqrt(0.5) * np.where(mode == 1, 10.0, 1.0)[..., None]
    z = data.x + noise * rng.standard_normal(data.x.shape)
    told = {"outlier_rate": 0.2, "outlier_scale": 100.0}
    errors = [
        np.mean((f.mean - data.x) ** 2)
        for f in (
            imm_filter(model, t, z, **told, outlier_length=8.0),
            mixture_filter(model, t, z, **told),
            kalman_filter(model, t, z),
        )
    ]
    assert errors[0] < 0.97 * errors[1] < 0.7 * errors[2]


def test_contaminated_chain():
    model = MODELS["ou"]
    chain = contaminated(model, 0.2, 9.0, outlier_length=5.0)
    np.testing.assert_allclose(chain.initial @ chain.switching, [0.8, 0.2])
    assert 1 / chain.switching[1, 0] == pytest.approx(5.0)
    np.testing.assert_allclose(chain.models[1].R, 9.0 * model.R)
    assert repr(chain) == "SwitchingModel(2 modes, dim=1, obs_dim=1)"
    periodic = SwitchingModel([model, model], [[0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(periodic.initial, [0.5, 0.5])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: SwitchingModel([], [[1.0]]), ValueError, "at least one model"),
        (lambda m: SwitchingModel([m, m], [[0.5, 0.6], [0, 1]]), ValueError, "sum to one"),
        (lambda m: SwitchingModel([m, MODELS["spiral"]], np.eye(2)), ValueError, "same sizes"),
        (
            lambda m: SwitchingModel([m, m.discretize([0.0, 1.0])], np.eye(2)),
            TypeError,
            "all be LinearSDE",
        ),
        (lambda m: SwitchingModel([replace(m, delay=1.0)], [[1.0]]), ValueError, "delay=0"),
        (lambda m: contaminated(m, 1.0, 4.0), ValueError, "below 1"),
        (lambda m: contaminated(m, 0.9, 4.0, outlier_length=2.0), ValueError, "at least"),
        (lambda m: imm_filter(m, [0.0], [[1.0]]), ValueError, "must be given unless"),
        (
            lambda m: imm_filter(contaminated(m, 0.1, 4.0), [0.0], [[1.0]], **TOLD),
            ValueError,
            "has its own",
        ),
        (
            lambda m: particle_filter(m, [0.0], [[1.0]], n_particles=0, **TOLD),
            ValueError,
            "n_particles",
        ),
        (
            lambda m: imm_filter(
                SwitchingModel(
                    [replace(m, prior="diffuse"), replace(m, A=[[-2.0]])],
                    np.eye(2),
                ),
                [0.0, 1.0],
                [[1.0], [1.0]],
            ),
            ValueError,
            "R only",
        ),
        (
            lambda m: imm_filter(
                replace(m, R=[[0.0]], prior=Prior([0.0], [[0.0]])), [0.0], [[1.0]], **TOLD
            ),
            ValueError,
            "known exactly",
        ),
    ],
)
def test_refusals(call, error, words):
    with pytest.raises(error, match=words):
        call(MODELS["ou"])


def test_queries_of_one_mode_are_the_kalman_filters():
    model = constant_velocity(process_var=0.3, obs_var=0.5, prior=Prior([0.0, 1.0], np.eye(2)))
    t = np.array([0.0, 0.7, 0.7, 2.0])
    z = np.array([[0.1], [0.9], [np.nan], [2.2]])
    asked = [-1.0, 0.0, 0.2, 0.7, 1.5, 2.0, 4.0]
    wanted = kalman_filter(model, t, z, query_times=asked)
    for found in (
        imm_filter(SwitchingModel([model], [[1.0]]), t, z, query_times=asked),
        particle_filter(SwitchingModel([model], [[1.0]]), t, z, query_times=asked),
    ):
        np.testing.assert_array_equal(found.t, asked)
        np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(found.cov, wanted.cov, rtol=1e-10, atol=1e-12)
        assert found.loglik == pytest.approx(float(wanted.loglik), rel=1e-10)


@pytest.mark.parametrize("estimator", [imm_filter, particle_filter])
def test_queries_under_outliers_are_the_mixture_filters(estimator):
    """Modes that differ in R move alike: a query is the last estimate, predicted."""
    model = constant_velocity(process_var=0.3, obs_var=0.5)  # flat prior
    t, z = np.arange(8.0), np.sin(np.arange(8.0))[:, None]
    z[4] = 30.0
    asked = [1.0, 1.5, 4.0, 4.25, 9.0]
    found = estimator(model, t, z, query_times=asked, **TOLD)
    at = estimator(model, t, z, **TOLD)
    for q, k in ((1, 1), (3, 4), (4, 7)):
        Phi, _, V = model.transition(asked[q] - t[k])
        np.testing.assert_allclose(found.mean[q], Phi @ at.mean[k], rtol=1e-10)
        np.testing.assert_allclose(found.cov[q], Phi @ at.cov[k] @ Phi.T + V, rtol=1e-9)
    np.testing.assert_allclose(found.mean[[0, 2]], at.mean[[1, 4]], rtol=1e-12)
    with pytest.raises(ValueError, match="a state that is determined, as it is from 1 on"):
        estimator(model, t, z, query_times=[0.5], **TOLD)


def test_a_query_between_observations_is_the_exact_mixture():
    """Modes of different dynamics, all histories and the next mode by hand."""
    prior = Prior([0.0, 1.0], np.eye(2))
    calm, wild = (constant_velocity(process_var=q, obs_var=0.5, prior=prior) for q in (0.05, 9.0))
    modes, P, pi = (calm, wild), np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0.7, 0.3])
    t, z, late = np.array([0.0, 1.0]), np.array([[0.2], [2.5]]), 1.8
    logs, means, covs = [], [], []
    for i, j, k in product(range(2), repeat=3):
        path = np.array([pi[i], P[i, j], P[j, k]])
        m, C, total = prior.mean, prior.cov, 0.0
        for step, mode in enumerate((i, j)):
            if step:
                Phi, _, V = modes[mode].transition(1.0)
                m, C = Phi @ m, Phi @ C @ Phi.T + V
            S, v = C[0, 0] + 0.5, z[step, 0] - m[0]
            total += -0.5 * (np.log(2 * np.pi * S) + v * v / S)
            K = C[:, 0] / S
            m, C = m + K * v, C - np.outer(K, C[0])
        Phi, _, V = modes[k].transition(late - 1.0)
        logs.append(np.log(path).sum() + total)
        means.append(Phi @ m)
        covs.append(Phi @ C @ Phi.T + V)
    w = np.exp(np.array(logs) - logsumexp(logs))
    mean = w @ np.array(means)
    apart = np.array(means) - mean
    cov = np.einsum("h,hij->ij", w, np.array(covs) + apart[:, :, None] * apart[:, None, :])
    switching = SwitchingModel(modes, P, pi)
    found = particle_filter(switching, t, z, query_times=[late])
    np.testing.assert_allclose(found.mean[0], mean, rtol=1e-10)
    np.testing.assert_allclose(found.cov[0], cov, rtol=1e-10)
    # Exact here too: an IMM has mixed nothing that counts by the second observation.
    near = imm_filter(switching, t, z, query_times=[late])
    np.testing.assert_allclose(near.mean[0], mean, rtol=1e-10)
    discrete = SwitchingModel([m.discretize(t) for m in modes], P)
    with pytest.raises(ValueError, match="query_times need a LinearSDE"):
        imm_filter(discrete, z, query_times=[0.5])
    alone = imm_filter(discrete, z)
    np.testing.assert_array_equal(alone.mean, imm_filter(discrete, [0.0, 1.0], z).mean)
