"""Filter, smoother and forecasts against the dense joint Gaussian and textbook loops."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from afafilter import (
    IMQ,
    DiscreteModel,
    Huber,
    LinearSDE,
    Prior,
    StudentT,
    Threshold,
    adaptive_smoother,
    forecast,
    kalman_filter,
    rts_smoother,
)
from afafilter._base import threads
from afafilter._base.doubts import LostDigits
from afafilter.kalman import segments
from tests.conftest import MODELS, draw_data, irregular_times
from tests.exact_oracle import ExactGaussian
from tests.oracles import dense_loglik, dense_posterior

BOTH = pytest.mark.parametrize("causal", [True, False], ids=["filter", "smoother"])


def estimator(causal):
    return kalman_filter if causal else rts_smoother


def assert_posterior(estimate, mean, cov, tol=1e-9):
    """Equal to the oracle relative to its largest entry, with the same undetermined components."""
    np.testing.assert_array_equal(np.isnan(estimate.mean), np.isnan(mean))
    np.testing.assert_array_equal(np.isinf(estimate.cov), np.isinf(cov))
    for got, want in ((estimate.mean, mean), (estimate.cov, cov)):
        known = np.isfinite(want)
        scale = max(1.0, np.abs(want[known]).max(initial=0.0))
        assert np.abs(got[known] - want[known]).max(initial=0.0) <= tol * scale


# --------------------------------- against the dense joint Gaussian


@BOTH
def test_equals_dense_gaussian(model, t, z_missing, causal):
    estimate = estimator(causal)(model, t, z_missing)
    assert_posterior(estimate, *dense_posterior(model, t, z_missing, causal=causal))
    assert estimate.loglik == pytest.approx(dense_loglik(model, t, z_missing), abs=1e-9, rel=1e-9)
    assert estimate.loglik_steps.sum() == pytest.approx(float(estimate.loglik), abs=1e-10)


@BOTH
@pytest.mark.parametrize("prior", ["diffuse", "known", "earlier", "partly flat"])
def test_priors_and_noise_per_observation(model, prior, causal):
    rng = np.random.default_rng(3)
    d, p, t = model.dim, model.obs_dim, irregular_times(7, seed=2)
    root = rng.standard_normal((d, d))
    priors = {
        "diffuse": "diffuse",
        "known": Prior(np.ones(d), np.zeros((d, d))),
        "earlier": Prior(np.ones(d), root @ root.T, t0=-0.8),
        "partly flat": Prior(np.ones(d), root @ root.T, t0=-0.8, diffuse=np.eye(d)[:, -1:]),
    }
    model = replace(model, prior=priors[prior])
    z = draw_data(model, t, seed=4, missing=0.3)
    z[2] = np.nan
    E = rng.standard_normal((7, p, p))
    obs_cov = E @ E.swapaxes(1, 2) + 0.1 * np.eye(p)
    estimate = estimator(causal)(model, t, z, obs_cov=obs_cov)
    assert_posterior(estimate, *dense_posterior(model, t, z, causal=causal, obs_cov=obs_cov))
    want = dense_loglik(model, t, z, obs_cov)
    assert estimate.loglik == pytest.approx(want, abs=1e-9, rel=1e-9)


@BOTH
@pytest.mark.parametrize("delay", [0.0, 0.45])
@pytest.mark.parametrize("name", ["general", "matern52", "unstable", "constant_velocity", "ou"])
def test_query_times_and_delay(name, delay, causal):
    t = irregular_times(8, seed=5)
    for prior in (None, "diffuse", "earlier"):
        base = MODELS[name]
        if prior == "earlier":
            prior = Prior(np.ones(base.dim), np.eye(base.dim), t0=-1.0)
        model = replace(base, delay=delay, prior=prior)
        z = draw_data(base, t, seed=6, missing=0.2)
        asked = np.sort(np.r_[-2.0, -0.6, -0.6, t[[0, 3]], np.linspace(0.2, t[-1] + 2.0, 6)])
        for query in (asked, None):
            estimate = estimator(causal)(model, t, z, query_times=query)
            want = dense_posterior(model, t, z, causal=causal, query_times=query)
            assert_posterior(estimate, *want)
            np.testing.assert_array_equal(estimate.t, t if query is None else asked)


@BOTH
def test_discrete_model_with_everything_varying(causal):
    rng = np.random.default_rng(8)
    T, n, p = 9, 3, 2
    root = rng.standard_normal((T, n, 1))  # singular Q
    noise = rng.standard_normal((T, p, p))
    model = DiscreteModel(
        rng.standard_normal((T, n, n)) * 0.7,
        Q=root @ root.swapaxes(1, 2),
        H=rng.standard_normal((T, p, n)),
        R=noise @ noise.swapaxes(1, 2) + 0.1 * np.eye(p),
        b=rng.standard_normal((T, n)),
        d=rng.standard_normal((T, p)),
        prior="diffuse",
        time_varying=("F", "Q", "H", "R", "b", "d"),
    )
    z = rng.standard_normal((T, p))
    z[[1, 4, 4], [0, 0, 1]] = np.nan
    estimate = estimator(causal)(model, z)
    assert_posterior(estimate, *dense_posterior(model, np.arange(T), z, causal=causal))
    assert estimate.loglik == pytest.approx(dense_loglik(model, np.arange(T), z), abs=1e-9)
    labelled = estimator(causal)(model, 10.0 * np.arange(T), z)
    np.testing.assert_array_equal(labelled.mean, estimate.mean)
    assert labelled.t[1] == 10.0


@BOTH
def test_unobservable_flat_direction_stays_open(causal):
    """Only the sum of two random walks is seen: it is determined, its parts never are."""
    model = LinearSDE(np.zeros((2, 2)), Q=np.diag([0.3, 0.7]), R=[[0.5]], C=[[1.0, 1.0]])
    t = irregular_times(6)
    z = draw_data(model, t, seed=1)
    estimate = estimator(causal)(model, t, z)
    assert np.isnan(estimate.mean).all()
    assert np.isinf(estimate.std).all()
    assert np.isfinite(estimate.innovation[1:]).all()
    total = LinearSDE([[0.0]], Q=[[1.0]], R=[[0.5]])
    assert estimate.loglik == pytest.approx(
        float(kalman_filter(total, t, z).loglik) - 0.5 * np.log(2.0), abs=1e-10
    )  # the seen direction has length sqrt(2)


def test_innovations_are_prediction_errors(model, t, z_missing):
    estimate = kalman_filter(model, t, z_missing)
    for k in range(1, len(t)):
        earlier = z_missing.copy()
        earlier[k:] = np.nan
        mean, cov = (part[k] for part in dense_posterior(model, t, earlier, causal=False))
        if not np.isfinite(mean).all():
            continue
        seen = ~np.isnan(z_missing[k])
        want = (z_missing[k] - model.C @ mean - model.offset)[seen]
        np.testing.assert_allclose(estimate.innovation[k, seen], want, atol=1e-9, rtol=1e-9)
        assert np.isnan(estimate.innovation[k, ~seen]).all()
        want_cov = model.C @ cov @ model.C.T + model.R
        np.testing.assert_allclose(estimate.innovation_cov[k], want_cov, atol=1e-9, rtol=1e-9)


# --------------------------------- batches of paths


@BOTH
@pytest.mark.parametrize("prior", [None, "diffuse"])
def test_batch_with_individual_gaps(prior, causal):
    model = replace(MODELS["general"], prior=prior)
    t = irregular_times(6)
    z = draw_data(model, t, n_paths=6, missing=0.2).reshape(2, 3, 6, 3)
    z[1, 2] = z[0, 0] + 0.5  # the same pattern of gaps twice
    estimate = estimator(causal)(model, t, z)
    assert estimate.mean.shape == (2, 3, 6, 4)
    assert estimate.cov.shape == (2, 3, 6, 4, 4)
    assert estimate.loglik.shape == (2, 3)
    for i in np.ndindex(2, 3):
        path = replace(estimate, mean=estimate.mean[i], cov=estimate.cov[i])
        assert_posterior(path, *dense_posterior(model, t, z[i], causal=causal))
        assert estimate.loglik[i] == pytest.approx(dense_loglik(model, t, z[i]), abs=1e-9)


@BOTH
@pytest.mark.parametrize("prior", [None, "diffuse"])
def test_every_path_with_gaps_of_its_own(model, t, prior, causal):
    """More paths than go side by side, so that some lanes of the last block stay empty."""
    model = replace(model, prior=prior or model.prior)
    z = draw_data(model, t, n_paths=11)
    whole = np.zeros((12, model.obs_dim), bool)
    for i in range(11):
        gaps = whole.copy()
        gaps[i] = True  # no two paths with the same gaps
        gaps[(3 * i + 1) % 12, i % model.obs_dim] = True
        z[i, gaps] = np.nan
    estimate = estimator(causal)(model, t, z)
    assert estimate.cov.strides[0] != 0
    for i in range(11):
        path = replace(estimate, mean=estimate.mean[i], cov=estimate.cov[i])
        assert_posterior(path, *dense_posterior(model, t, z[i], causal=causal))
        loglik = dense_loglik(model, t, z[i])
        assert estimate.loglik[i] == pytest.approx(loglik, abs=1e-9, rel=1e-9)


def wide_model(d, p, prior):
    rng = np.random.default_rng(d)
    A = rng.standard_normal((d, d)) / np.sqrt(d) - 1.2 * np.eye(d)
    B, E = rng.standard_normal((d, d)), rng.standard_normal((p, p))
    return LinearSDE(
        A,
        Q=0.3 * B @ B.T,
        R=0.2 * E @ E.T + 0.1 * np.eye(p),
        C=rng.standard_normal((p, d)),
        drift=rng.standard_normal(d),
        offset=rng.standard_normal(p),
        prior=prior,
    )


@BOTH
@pytest.mark.parametrize("flat", [False, True], ids=["proper", "flat"])
@pytest.mark.parametrize("paths", [1, 2])
@pytest.mark.parametrize(("d", "p"), [(3, 9), (8, 4), (9, 10)])
def test_more_components_than_a_vector_register_holds(d, p, paths, flat, causal):
    model = wide_model(d, p, "diffuse" if flat else Prior(np.ones(d), np.eye(d)))
    rng = np.random.default_rng(p)
    t = np.cumsum(rng.exponential(0.3, 8))
    t[4] = t[3]
    z = rng.standard_normal((8, p))
    z[rng.random(z.shape) < 0.3] = np.nan
    z[6] = np.nan
    z = z[None] + np.arange(paths)[:, None, None]
    estimate = estimator(causal)(model, t, z)
    for i in range(paths):
        path = replace(estimate, mean=estimate.mean[i], cov=estimate.cov[i])
        assert_posterior(path, *dense_posterior(model, t, z[i], causal=causal), tol=1e-8)
        assert estimate.loglik[i] == pytest.approx(dense_loglik(model, t, z[i]), abs=1e-7)


@BOTH
@pytest.mark.parametrize("prior", [None, "diffuse"])
def test_many_paths_in_threads(prior, causal):
    """Enough paths for several threads, with a remainder in the last block of lanes."""
    model = replace(MODELS["general"], prior=prior)
    t = irregular_times(10)
    z = draw_data(model, t, n_paths=2101)
    z[:, 4, 1] = np.nan
    estimate = estimator(causal)(model, t, z)
    for i in (0, 7, 1050, 2099, 2100):
        path = replace(estimate, mean=estimate.mean[i], cov=estimate.cov[i])
        assert_posterior(path, *dense_posterior(model, t, z[i], causal=causal))
        assert estimate.loglik[i] == pytest.approx(dense_loglik(model, t, z[i]), abs=1e-9)


@pytest.fixture
def cut(monkeypatch):
    """Segments of 150 nodes or more with a warm-up of so many; every comparison is written down."""

    def use(warm_up):
        monkeypatch.setattr(segments, "SEGMENT", 150)
        monkeypatch.setattr(segments, "WARM_UP", warm_up)
        monkeypatch.setattr(segments, "RETRY", 16)
        verdicts = []
        agree = segments._agree
        monkeypatch.setattr(
            segments, "_agree", lambda *P: verdicts.append(agree(*P)) or verdicts[-1]
        )
        return verdicts

    return use


def whole_and_cut(model, t, z, causal, cut, warm_up):
    whole = estimator(causal)(model, t, z)
    verdicts = cut(warm_up)
    return whole, estimator(causal)(model, t, z), verdicts


def assert_same(got, want, tol):
    for name in ("mean", "cov", "loglik_steps", "innovation", "innovation_cov"):
        a, b = getattr(got, name), getattr(want, name)
        np.testing.assert_array_equal(np.isfinite(a), np.isfinite(b))
        np.testing.assert_allclose(a, b, rtol=tol, atol=tol * np.nanmax(np.abs(b[np.isfinite(b)])))


def irregular_and_gappy(model):
    """650 times, some repeated, a fifth of the components missing, and forty rows."""
    t = np.cumsum(np.random.default_rng(8).exponential(0.4, 650))
    t[300:303] = t[300]
    z = draw_data(model, t)
    z[np.random.default_rng(9).random(z.shape) < 0.2] = np.nan
    z[400:440] = np.nan
    return t, z


@BOTH
@pytest.mark.parametrize("warm_up", [1, 20, 140])
def test_segments_of_a_long_series(model, causal, warm_up, cut):
    """A warm-up that is too short is found out and made up for, on every model."""
    t, z = irregular_and_gappy(model)
    whole, pieces, verdicts = whole_and_cut(model, t, z, causal, cut, warm_up)
    assert verdicts
    assert_same(pieces, whole, 2e-11)


@BOTH
def test_segments_that_forget_agree_at_once(causal, cut):
    model = MODELS["oscillator"]
    t = np.cumsum(np.random.default_rng(8).exponential(0.4, 650))
    _, _, verdicts = whole_and_cut(model, t, draw_data(model, t), causal, cut, 140)
    assert verdicts == [True] * (3 if causal else 6)


@BOTH
def test_segments_of_a_series_that_never_forgets(causal, cut):
    """A constant: all but the first segment are calculated anew."""
    model = LinearSDE([[0.0]], Q=[[0.0]], R=[[1.0]], prior=Prior(mean=[0.0], cov=[[1e6]]))
    t = np.cumsum(np.random.default_rng(8).exponential(0.4, 650))
    z = np.random.default_rng(9).standard_normal((650, 1))
    whole, pieces, verdicts = whole_and_cut(model, t, z, causal, cut, 100)
    assert False in verdicts
    assert_same(pieces, whole, 1e-12)
    assert pieces.cov[-1, 0, 0] == pytest.approx(1 / (650 + 1e-6))


@BOTH
def test_segments_do_not_depend_on_threads(causal, cut, monkeypatch):
    model = MODELS["general"]
    t = np.cumsum(np.random.default_rng(8).exponential(0.4, 650))
    z = draw_data(model, t)
    cut(100)
    monkeypatch.setattr(threads, "SERIAL_WORK", 0)
    monkeypatch.setattr(threads, "thread_count", lambda: 3)
    three = estimator(causal)(model, t, z)
    monkeypatch.setattr(threads, "thread_count", lambda: 1)
    one = estimator(causal)(model, t, z)
    np.testing.assert_array_equal(one.mean, three.mean)
    np.testing.assert_array_equal(one.cov, three.cov)


@BOTH
@pytest.mark.parametrize("warm_up", [10, 100])
def test_segments_report_the_same_singular_observation(causal, warm_up, cut):
    t = np.cumsum(np.random.default_rng(8).exponential(0.4, 650))
    t[500] = t[499]
    cut(warm_up)
    model = LinearSDE([[-1.0]], Q=[[2.0]], R=[[0.0]])
    with pytest.raises(ValueError, match="R is singular and observation 500"):
        estimator(causal)(model, t, np.zeros((650, 1)))


@pytest.fixture
def pieces(monkeypatch):
    """Pieces of 40 nodes or more, side by side, with such warm-ups; what came of each is kept."""

    def use(*warm_ups):
        settings = {"WARM_UPS": warm_ups, "PIECE": 40, "LENGTHS": 1, "SHORTEST": 0}
        for name, value in settings.items():
            monkeypatch.setattr(segments, name, value)
        agreed, tracks = [], segments._tracks

        def noted(*given):
            end = tracks(*given)
            agreed.append(end is not None)
            return end

        monkeypatch.setattr(segments, "_tracks", noted)
        return agreed

    return use


@BOTH
@pytest.mark.parametrize("warm_ups", [(1,), (20,), (2, 38)])
def test_pieces_of_a_long_series(model, causal, warm_ups, pieces):
    """Side by side or one after the other: the same, on every model, whether they agree or not."""
    t, z = irregular_and_gappy(model)
    whole, cut, agreed = whole_and_cut(model, t, z, causal, lambda w: pieces(*w), warm_ups)
    assert agreed == [False] * (len(agreed) - 1) + agreed[-1:]
    assert_same(cut, whole, 2e-11)


@BOTH
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_pieces_that_forget_agree_at_once(causal, flat, missing, pieces):
    """Also where flat directions are determined first, and between the observations."""
    model = MODELS["oscillator"]
    model = replace(model, prior="diffuse") if flat else model
    t = np.cumsum(np.random.default_rng(8).exponential(1.0, 900))
    z = draw_data(model, t)
    z[5:][np.random.default_rng(9).random(z[5:].shape) < missing] = np.nan
    asked = np.random.default_rng(7).uniform(t[0], t[-1] + 2.0, 40)
    estimate = estimator(causal)
    whole = [estimate(model, t, z), estimate(model, t, z, query_times=np.sort(asked))]
    agreed = pieces(110)
    assert_same(estimate(model, t, z), whole[0], 1e-12)
    assert_same(estimate(model, t, z, query_times=np.sort(asked)), whole[1], 1e-12)
    assert agreed == [True, True]


@BOTH
@pytest.mark.parametrize(("warm_ups", "agree"), [((80,), [True]), ((2, 80), [False, True])])
def test_pieces_are_found_apart_by_their_means(causal, warm_ups, agree, pieces):
    """A mean far from 0, where warm-ups begin, is forgotten later than covariances are."""
    model = replace(MODELS["ou"], prior=Prior(mean=[1e3], cov=[[1e-6]]))
    t = np.cumsum(np.random.default_rng(8).exponential(0.4, 650))
    z = 5.0 + draw_data(model, t)
    whole, cut, agreed = whole_and_cut(model, t, z, causal, lambda w: pieces(*w), warm_ups)
    assert agreed == agree
    assert_same(cut, whole, 1e-12)


def test_pieces_of_a_series_that_never_forgets_do_not_agree(pieces):
    model = LinearSDE([[0.0]], Q=[[0.0]], R=[[1.0]], prior=Prior(mean=[0.0], cov=[[1e6]]))
    t = np.cumsum(np.random.default_rng(8).exponential(0.4, 650))
    z = np.random.default_rng(9).standard_normal((650, 1))
    whole, cut, agreed = whole_and_cut(model, t, z, False, lambda w: pieces(*w), (10, 30))
    assert agreed == [False, False]
    assert_same(cut, whole, 1e-15)


@BOTH
def test_pieces_do_not_depend_on_threads(causal, pieces, monkeypatch):
    model = MODELS["oscillator"]
    t = np.cumsum(np.random.default_rng(8).exponential(1.0, 1700))
    z = draw_data(model, t)
    agreed = pieces(110)
    monkeypatch.setattr(threads, "SERIAL_WORK", 0)
    found = []
    for n in (3, 1):
        monkeypatch.setattr(threads, "thread_count", lambda n=n: n)
        found.append(estimator(causal)(model, t, z))
    assert agreed == [True, True]
    np.testing.assert_array_equal(found[0].mean, found[1].mean)
    np.testing.assert_array_equal(found[0].cov, found[1].cov)


@BOTH
def test_pieces_report_the_same_singular_observation(causal, pieces):
    t = np.cumsum(np.random.default_rng(8).exponential(0.4, 650))
    t[500] = t[499]
    agreed = pieces(10)
    model = LinearSDE([[-1.0]], Q=[[2.0]], R=[[0.0]])
    with pytest.raises(ValueError, match="R is singular and observation 500"):
        estimator(causal)(model, t, np.zeros((650, 1)))
    assert agreed == [False]


def test_series_that_settle_are_not_cut_into_pieces(pieces):
    model, agreed = MODELS["oscillator"], pieces(10)
    t = 0.5 * np.arange(900)
    z = draw_data(model, t)
    z[400] = np.nan
    rts_smoother(model, t, z)
    assert not agreed
    z[::30] = np.nan
    rts_smoother(model, t, z)
    assert agreed


def test_regular_series_without_gaps_are_not_cut(cut):
    model, verdicts = MODELS["oscillator"], cut(100)
    t = 0.5 * np.arange(650)
    rts_smoother(model, t, draw_data(model, t))
    assert not verdicts
    rts_smoother(model, t, draw_data(model, t), obs_cov=np.linspace(1, 2, 650)[:, None, None])
    assert verdicts


@BOTH
def test_shared_covariance_is_one_array(causal):
    model, t = MODELS["spiral"], np.arange(5.0)
    estimate = estimator(causal)(model, t, draw_data(model, t, n_paths=7))
    assert estimate.cov.strides[0] == 0
    assert estimate.innovation_cov.strides[0] == 0
    assert not estimate.cov.flags.writeable


def test_all_missing_returns_the_prior():
    t = np.array([0.0, 0.5, 2.0])
    proper, flat = MODELS["ou"], MODELS["brownian"]
    estimate = rts_smoother(proper, t, np.full((3, 1), np.nan))
    np.testing.assert_allclose(estimate.mean, 0.3 / 0.7, rtol=1e-12)
    np.testing.assert_allclose(estimate.cov, 0.9 / 1.4, rtol=1e-12)
    assert estimate.loglik == 0.0
    for f in (kalman_filter, rts_smoother):
        estimate = f(flat, t, np.full((3, 1), np.nan))
        assert np.isnan(estimate.mean).all()
        assert np.isinf(estimate.cov).all()


# --------------------------------- long series: textbook recursions


def textbook(F, b, Q, H, R, m, P, z):
    """Kalman filter and RTS smoother as in any book."""
    T, d = len(z), len(m)
    means, covs = np.empty((T, d)), np.empty((T, d, d))
    for k in range(T):
        if k:
            m, P = F @ m + b, F @ P @ F.T + Q
        seen = ~np.isnan(z[k])
        if seen.any():
            C, S = H[seen], H[seen] @ P @ H[seen].T + R[np.ix_(seen, seen)]
            K = np.linalg.solve(S, C @ P).T
            m, P = m + K @ (z[k, seen] - C @ m), P - K @ S @ K.T
        means[k], covs[k] = m, P
    smooth, spread = means.copy(), covs.copy()
    for k in range(T - 2, -1, -1):
        ahead = F @ covs[k] @ F.T + Q
        G = np.linalg.solve(ahead, F @ covs[k]).T
        smooth[k] = means[k] + G @ (smooth[k + 1] - F @ means[k] - b)
        spread[k] = covs[k] + G @ (spread[k + 1] - ahead) @ G.T
    return means, covs, smooth, spread


@pytest.mark.parametrize("ratio", [1.0, 1e-4, 1e-8])
def test_regular_series_with_a_gap(ratio):
    """Steady stretches are shortened; the answer is that of the full recursion, also when slow."""
    rng = np.random.default_rng(9)
    A = np.array([[-0.05, 1.0], [-1.0, -0.05]])
    model = LinearSDE(A, Q=ratio * np.eye(2), R=[[1.0]], C=[[1.0, 0.0]], drift=[0.1, 0.0])
    t = 0.1 * np.arange(4000)
    z = rng.standard_normal((4000, 1))
    z[1500:1510], z[3000] = np.nan, np.nan
    F, b, V = model.transition(0.1)
    law = model.initial_law(0.0)
    means, covs, smooth, spread = textbook(F, b, V, model.C, model.R, law.mean, law.cov, z)
    forward, both = kalman_filter(model, t, z), rts_smoother(model, t, z)
    scale = covs.max()
    np.testing.assert_allclose(forward.mean, means, atol=1e-10)
    np.testing.assert_allclose(forward.cov, covs, atol=1e-10 * scale)
    np.testing.assert_allclose(both.mean, smooth, atol=1e-10)
    np.testing.assert_allclose(both.cov, spread, atol=1e-10 * scale)


def test_innovations_of_the_true_model_are_white():
    model = MODELS["matern32"]
    t = irregular_times(1500, seed=11)
    estimate = kalman_filter(model, t, draw_data(model, t, seed=12))
    e = (estimate.innovation[:, 0] / np.sqrt(estimate.innovation_cov[:, 0, 0]))[20:]
    n = len(e)
    low, high = stats.chi2(n).ppf([1e-4, 1 - 1e-4])
    assert low < (e**2).sum() < high
    for lag in (1, 2, 5):
        assert abs(np.mean(e[lag:] * e[:-lag])) < 4 / np.sqrt(n)


# --------------------------------- conditioning and singular laws


def assert_semidefinite(cov):
    np.testing.assert_array_equal(cov, cov.swapaxes(-1, -2))
    values = np.linalg.eigvalsh(cov)
    assert (values[..., 0] >= -4e-16 * values.shape[-1] * values[..., -1]).all()


@BOTH
@pytest.mark.parametrize("noise", [1e-12, 1e-6, 1.0])
def test_covariances_stay_semidefinite(noise, causal):
    rng = np.random.default_rng(13)
    A = np.diag([1.0, 1.0], 1)
    prior = Prior(np.zeros(3), 1e10 * np.eye(3))
    model = LinearSDE(A, Q=np.diag([0.0, 0.0, 1e-8]), R=[[noise]], C=[[1.0, 0.0, 0.0]], prior=prior)
    t = np.cumsum(rng.exponential(1e-2, 300))
    said = pytest.warns(LostDigits) if 1e10 / noise > 1e20 else nullcontext()
    with said:
        estimate = estimator(causal)(model, t, rng.standard_normal((300, 1)))
    assert_semidefinite(estimate.cov)
    assert np.isfinite(estimate.mean).all()


@pytest.mark.parametrize(("gap", "lost"), [(50.0, False), (240.0, True)])
def test_growth_that_leaves_no_digits_is_said(gap, lost):
    """Between two observations a state grows by e^(0.4 gap): then the first one is forgotten."""
    model = LinearSDE(
        np.diag([0.4, 0.0]), Q=np.diag([0.3, 1.0]), R=[[0.1]], C=[[1.0, 1.0]], prior="diffuse"
    )
    t, z = np.array([0.0, 1.0, 2.0, 2.0 + gap, 3.0 + gap]), np.ones((5, 1))
    with pytest.warns(LostDigits, match="grows without data") if lost else nullcontext():
        found = kalman_filter(model, t, z)
    if not lost:
        assert found.loglik == pytest.approx(ExactGaussian(model, t, z).loglik(), rel=1e-7)


def test_precise_observation_of_a_vague_state():
    """P0 / R = 1e16: the variance left must still be R, not rounding of P0."""
    prior = Prior(np.zeros(2), 1e8 * np.array([[1.0, 0.9], [0.9, 1.0]]))
    model = LinearSDE(np.zeros((2, 2)), Q=np.zeros((2, 2)), R=1e-8 * np.eye(2), prior=prior)
    estimate = kalman_filter(model, [0.0], np.ones((1, 2)))
    np.testing.assert_allclose(estimate.cov[0], 1e-8 * np.eye(2), rtol=1e-6, atol=1e-16)


def test_noise_free_random_walk():
    """R = 0 with a flat start: the likelihood is that of the increments."""
    t = np.array([0.0, 0.5, 2.0, 2.3])
    z = np.array([1.0, 1.4, 0.2, 0.3])
    model = LinearSDE([[0.0]], Q=[[2.0]], R=[[0.0]])
    estimate = rts_smoother(model, t, z)
    want = stats.norm(scale=np.sqrt(2.0 * np.diff(t))).logpdf(np.diff(z)).sum()
    assert estimate.loglik == pytest.approx(want - 0.5 * np.log(2 * np.pi), abs=1e-12)
    np.testing.assert_allclose(estimate.mean[:, 0], z, atol=1e-12)
    np.testing.assert_allclose(estimate.cov, 0.0, atol=1e-14)


def test_observation_without_any_noise_is_refused():
    model = LinearSDE([[0.0]], Q=[[2.0]], R=[[0.0]])
    with pytest.raises(ValueError, match="R is singular and observation 1"):
        kalman_filter(model, [0.0, 0.0], [1.0, 1.0])


def test_query_long_before_a_stable_model_starts():
    """Backwards a stable model explodes; beyond floating point nothing is known."""
    model = replace(MODELS["stiff"], prior=Prior(np.zeros(3), np.eye(3)))
    t = np.array([0.0, 1.0])
    estimate = kalman_filter(model, t, np.zeros((2, 1)), query_times=[-2.0, 0.0])
    assert np.isnan(estimate.mean[0]).any()
    assert np.isfinite(estimate.mean[1]).all()


# --------------------------------- forecasts


def test_forecast_of_an_sde():
    model = MODELS["general"]
    t = irregular_times(6)
    z = draw_data(model, t, n_paths=2, missing=0.1)
    ahead = t[-1] + np.array([0.0, 0.4, 3.0])
    estimate = forecast(model, t, z, horizon_times=ahead)
    for i in range(2):
        mean, cov = dense_posterior(model, t, z[i], causal=True, query_times=ahead)
        np.testing.assert_allclose(estimate.mean[i], mean, atol=1e-9)
        np.testing.assert_allclose(
            estimate.info["observation_mean"][i], mean @ model.C.T + model.offset, atol=1e-9
        )
        np.testing.assert_allclose(
            estimate.info["observation_cov"][i], model.C @ cov @ model.C.T + model.R, atol=1e-9
        )


def test_forecast_of_a_discrete_model():
    rng = np.random.default_rng(15)
    varying = DiscreteModel(
        [[1.0, 1.0], [0.0, 0.9]],
        Q=0.1 * np.eye(2),
        H=rng.standard_normal((8, 1, 2)),
        R=[[0.3]],
        time_varying="H",
    )
    z = rng.standard_normal((5, 1))
    estimate = forecast(varying, z, steps=3)
    padded = np.concatenate([z, np.full((3, 1), np.nan)])
    mean, cov = dense_posterior(varying, np.arange(8), padded, causal=True)
    assert_posterior(estimate, mean[5:], cov[5:])
    np.testing.assert_allclose(
        estimate.info["observation_mean"], np.einsum("kij,kj->ki", varying.H[5:], mean[5:])
    )
    same = forecast(varying, z, steps=2, obs_cov=np.full((5, 1, 1), 0.3))
    np.testing.assert_allclose(same.mean, estimate.mean[:2], atol=1e-12)


# --------------------------------- robust weights


def contaminated(model, t, n_paths=3):
    rng = np.random.default_rng(16)
    z = draw_data(model, t, n_paths=n_paths, seed=17, missing=0.1)
    struck = rng.random(z.shape[:2]) < 0.2
    struck[:, :4] = False
    return z + 20 * struck[..., None] * rng.standard_normal(z.shape)


@pytest.mark.parametrize("metric", ["R", "raw", "innovation"])
def test_wolf_weights_by_a_plain_loop(metric):
    model, weight = MODELS["proper_prior"], IMQ(2.0)
    t = irregular_times(15)
    z = contaminated(model, t)
    estimate = kalman_filter(model, t, z, weight=weight, metric=metric)
    for i in range(len(z)):
        m, P = model.prior.mean, model.prior.cov
        for k in range(len(t)):
            if k:
                F, b, V = model.transition(t[k] - t[k - 1])
                m, P = F @ m + b, F @ P @ F.T + V
            s = np.flatnonzero(~np.isnan(z[i, k]))
            if len(s):
                C, R = model.C[s], model.R[np.ix_(s, s)]
                v = z[i, k, s] - C @ m
                M = {"R": R, "raw": np.eye(len(s)), "innovation": C @ P @ C.T + R}[metric]
                w = 1 / (1 + v @ np.linalg.solve(M, v) / 4.0)
                assert estimate.info["robust_weights"][i, k] == pytest.approx(w, rel=1e-9)
                S = C @ P @ C.T + R / w
                K = np.linalg.solve(S, C @ P).T
                m, P = m + K @ v, P - K @ S @ K.T
            np.testing.assert_allclose(estimate.mean[i, k], m, atol=1e-9)
            np.testing.assert_allclose(estimate.cov[i, k], P, atol=1e-9)


@BOTH
@pytest.mark.parametrize("anchor", ["estimate", "variational"])
@pytest.mark.parametrize("weight", [StudentT(4.0), Huber(1.5)], ids=["student", "huber"])
@pytest.mark.parametrize("name", ["general", "constant_velocity"])
def test_iterated_weights_are_a_fixed_point(name, weight, anchor, causal):
    """w is the weight of the residual of the dense posterior under R / w, or of its mean d2."""
    model = MODELS[name]
    t = irregular_times(9)
    z = contaminated(model, t, 2)
    estimate = estimator(causal)(model, t, z, weight=weight, anchor=anchor, iterations=500)
    assert estimate.info["converged"]
    for i in range(len(z)):
        w = estimate.info["robust_weights"][i]
        mean, cov = dense_posterior(
            model, t, z[i], causal=causal, obs_cov=model.R / w[:, None, None]
        )
        path = replace(estimate, mean=estimate.mean[i], cov=estimate.cov[i])
        assert_posterior(path, mean, cov)
        for k in range(len(t)):
            s = np.flatnonzero(~np.isnan(z[i, k]) & np.isfinite(model.C @ mean[k]))
            if (causal and k < 4) or not len(s):
                continue
            r = z[i, k, s] - (model.C @ mean[k] + model.offset)[s]
            second = np.outer(r, r)
            if anchor == "variational":
                second += model.C[s] @ cov[k] @ model.C[s].T
            d2 = np.trace(np.linalg.solve(model.R[np.ix_(s, s)], second))
            assert w[k] == pytest.approx(float(weight(d2, len(s))), abs=1e-7)
    assert (estimate.info["robust_weights"] < 0.5).any()


@BOTH
def test_weight_zero_means_missing(causal):
    model = MODELS["proper_prior"]
    t = irregular_times(10)
    z = contaminated(model, t, 1)[0]
    estimate = estimator(causal)(model, t, z, weight=Threshold(4.0))
    w = estimate.info["robust_weights"]
    assert set(np.unique(w)) == {0.0, 1.0}
    z[w == 0] = np.nan
    assert_posterior(estimate, *dense_posterior(model, t, z, causal=causal))


def test_flat_start_cannot_judge_the_first_observation():
    model = MODELS["spiral"]
    model = replace(model, prior="diffuse")
    t = 0.1 * np.arange(30)
    z = draw_data(model, t)
    z[0] += 50.0
    wolf = kalman_filter(model, t, z, weight=IMQ(2.0))
    assert wolf.info["robust_weights"][0] == 1.0
    assert np.median(wolf.info["robust_weights"][1:]) < 0.05  # locked on the outlier
    both = rts_smoother(model, t, z, weight=StudentT(4.0), anchor="estimate")
    assert both.info["robust_weights"][0] < 0.01  # hindsight frees it


# --------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"t": [0.0, 2.0, 1.0]}, ValueError, "t must not decrease"),
        ({"t": [0.0, np.nan, 1.0]}, ValueError, "t must be finite"),
        ({"t": [0.0, 1.0, np.inf]}, ValueError, "t must be finite"),
        ({"t": []}, ValueError, "at least one time"),
        ({"z": np.zeros((2, 3))}, ValueError, "time comes second-last"),
        ({"z": np.zeros(3)}, ValueError, "z must have shape"),
        ({"z": np.zeros((3, 2), complex)}, TypeError, "z must be real"),
        ({"z": None}, TypeError, "z is missing"),
        ({"z": np.full((3, 2), np.inf)}, ValueError, "infinities"),
        ({"obs_cov": np.eye(2)}, ValueError, "obs_cov must have shape"),
        ({"obs_cov": -np.ones((3, 2, 2))}, ValueError, "obs_cov must be positive semidefinite"),
        ({"query_times": [1.0, 0.0]}, ValueError, "query_times must not decrease"),
        ({"weight": 2.0}, TypeError, "weight must be None, a word such as .* or a weight"),
        ({"weight": IMQ(1.0), "anchor": "observation"}, ValueError, "anchor must be one of"),
        ({"weight": IMQ(1.0), "metric": "R2"}, ValueError, "metric must be one of"),
        (
            {"weight": IMQ(1.0), "anchor": "estimate", "metric": "innovation"},
            ValueError,
            "goes with anchor",
        ),
        ({"weight": IMQ(1.0), "iterations": 0}, ValueError, "iterations must be >= 1"),
        ({"model": "ou"}, TypeError, "model must be"),
    ],
)
@pytest.mark.parametrize("f", [kalman_filter, rts_smoother])
def test_bad_input(f, change, error, match):
    arguments = {"model": MODELS["spiral"], "t": [0.0, 1.0, 2.0], "z": np.zeros((3, 2))} | change
    model, t, z = (arguments.pop(name) for name in ("model", "t", "z"))
    with pytest.raises(error, match=match):
        f(model, t, z, **arguments)


def test_bad_input_elsewhere():
    discrete = DiscreteModel(
        np.eye(1), Q=np.ones((3, 1, 1)), H=np.eye(1), R=np.eye(1), time_varying="Q"
    )
    model, t, z = MODELS["ou"], [0.0, 1.0], [0.0, 1.0]
    with pytest.raises(ValueError, match="z must have T = 3 times"):
        kalman_filter(discrete, np.zeros((4, 1)))
    with pytest.raises(ValueError, match="query_times need a LinearSDE"):
        kalman_filter(discrete, np.zeros((3, 1)), query_times=[0.5])
    with pytest.raises(ValueError, match="1 steps ahead"):
        forecast(discrete, np.zeros((3, 1)), steps=1)
    with pytest.raises(ValueError, match="needs steps"):
        forecast(discrete, np.zeros((3, 1)))
    with pytest.raises(ValueError, match="needs horizon_times"):
        forecast(model, t, z, steps=2)
    with pytest.raises(ValueError, match="must not lie before the last time"):
        forecast(model, t, z, horizon_times=[0.5])
    with pytest.raises(ValueError, match="prior t0 must not be after"):
        kalman_filter(replace(model, prior=Prior([0.0], [[1.0]], t0=0.5)), t, z)
    singular = LinearSDE([[-1.0]], Q=[[1.0]], R=[[0.0]])
    with pytest.raises(ValueError, match="R must be positive definite for metric"):
        kalman_filter(singular, t, z, weight=IMQ(1.0))


@pytest.mark.parametrize("A", [-np.diag([500.0, 1.0]), np.array([[-500.0, 1.0], [0.0, -1.0]])])
@pytest.mark.parametrize("prior", ["diffuse", Prior([1.0, 1.0], np.eye(2))])
def test_query_before_a_stiff_model_starts(A, prior):
    """A second before the data the fast state is beyond floats; the slow one, a system of its own
    with noise of its own, is what the filter of that state alone says, as AFA has it."""
    model = LinearSDE(A, Q=np.eye(2), R=np.eye(2), prior=prior)
    slow = LinearSDE([[-1.0]], Q=[[1.0]], R=[[1.0]], prior=Prior([1.0], [[1.0]]))
    t, z = np.array([0.0, 1.0, 2.0]), np.array([[1.0, 2.0], [0.0, 1.0], [3.0, 1.0]])
    asked = np.array([-1.0, -0.1, 0.5])
    for estimator in (kalman_filter, rts_smoother):
        many = estimator(model, t, np.stack([z, np.full((3, 2), np.nan)]), query_times=asked)
        found = estimator(model, t, z, query_times=asked)
        np.testing.assert_array_equal(many.mean[0], found.mean)
        assert np.isnan(found.mean[0, 0])
        np.testing.assert_array_equal(found.cov[0, 0], [np.inf, 0.0])
        if prior != "diffuse" and A[0, 1] == 0:
            alone = estimator(slow, t, z[:, 1:], query_times=asked)
            np.testing.assert_allclose(found.mean[:, 1], alone.mean[:, 0], rtol=1e-12)
            np.testing.assert_allclose(found.cov[:, 1, 1], alone.cov[:, 0, 0], rtol=1e-12)
            np.testing.assert_allclose(found.through([[0.0, 1.0]])[0], alone.mean, rtol=1e-12)
    if prior == "diffuse":
        exact = adaptive_smoother(model, t, z, query_times=asked, correlation="exact")
        np.testing.assert_allclose(found.mean, exact.mean, rtol=1e-9, atol=1e-30)
        np.testing.assert_allclose(found.cov[0], exact.cov[0], rtol=1e-9)


def test_queries_before_the_start_lose_one_state_after_another():
    """x(-g) = e^{ag} x(0) + noise of variance q (e^{2ag} - 1) / 2a, each state by itself, as long
    as floats hold it; farther back nothing is known of it, and at last of none."""
    rates, q = np.array([500.0, 40.0, 1.0]), 2.0
    model = LinearSDE(-np.diag(rates), Q=q * np.eye(3), R=np.eye(3), prior="diffuse")
    t, z = np.array([0.0, 0.5]), np.array([[1.0, 2.0, 3.0], [0.5, 1.0, 2.0]])
    gaps = np.array([1000.0, 400.0, 50.0, 30.0, 2.0, 1.0, 0.9, 0.1, 0.01])
    found = rts_smoother(model, t, z, query_times=np.append(-gaps, 0.0))
    m, P = found.mean[-1], np.diagonal(found.cov[-1])
    with np.errstate(over="ignore"):
        grown = np.exp(2 * rates * gaps[:, None])
        mean, var = np.sqrt(grown) * m, grown * P + q * (grown - 1) / (2 * rates)
    known = np.isfinite(var)
    assert known.sum(axis=1).tolist() == [0, 0, 1, 1, 2, 2, 2, 3, 3]
    np.testing.assert_allclose(found.mean[:-1], np.where(known, mean, np.nan), rtol=1e-9)
    np.testing.assert_allclose(np.einsum("tii->ti", found.cov[:-1]), var, rtol=1e-9)
    for k, gap in enumerate(gaps):
        alone = rts_smoother(model, t, z, query_times=[-gap])
        np.testing.assert_array_equal(alone.mean[0], found.mean[k])
