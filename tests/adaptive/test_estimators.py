"""AFA against the paper's formula, dense joint Gaussians, and its own invariances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import block_diag, expm
from scipy.stats import ortho_group

from afafilter import (
    Exponential,
    Huber,
    LinearSDE,
    Power,
    Prior,
    StudentT,
    Threshold,
    adaptive_filter,
    adaptive_smoother,
)
from tests.conftest import MODELS, draw_data, irregular_times
from tests.oracles import dense_posterior, mp_transition, step_noise

BOTH = pytest.mark.parametrize("estimator", [adaptive_filter, adaptive_smoother])


def assert_same(found, wanted, rtol=1e-9):
    """Equal to rtol of the largest entry, with NaN and inf in the same places."""
    found, wanted = np.broadcast_arrays(found, wanted)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    np.testing.assert_array_equal(np.isinf(found), np.isinf(wanted))
    finite = np.isfinite(wanted)
    scale = max(1.0, np.abs(wanted[finite]).max(initial=0.0))
    np.testing.assert_allclose(found[finite], wanted[finite], rtol=0, atol=rtol * scale)


def paper_estimate(
    model, t, z, i, *, causal, anchor=None, weight=None, beta=1.0, gamma=None, times=None
):
    """zbar_i, its claimed covariance and A_ij, written down from the paper's sums (C invertible).

    Everything in observation space: zhat_ij, Vz_ij, a loop over j.
    """
    A, Q, R, C, u, b = model.A, model.Q, model.R, model.C, model.drift, model.offset
    p, C_inv = len(C), np.linalg.inv(C)
    query = t[i] if times is None else times[i]
    gamma = np.zeros((p, p)) if gamma is None else gamma
    total, vector, terms = np.zeros((p, p)), np.zeros(p), {}
    for j in range(len(t)):
        later = j > i if times is None else t[j] > query
        if np.isnan(z[j]).any() or (causal and later):
            continue
        tau = query - (t[j] - model.delay)
        Phi = expm(A * tau)
        psi = mp_transition(A, Q, u, tau)[1].astype(float)
        V = step_noise(A if tau >= 0 else -A, Q, abs(tau))
        M = C @ Phi @ C_inv
        zhat = C @ (Phi @ C_inv @ (z[j] - b) + psi) + b
        P = np.linalg.inv(C @ V @ C.T + M @ R @ M.T + gamma)
        w = 1.0
        if weight is not None:
            r = zhat - (C @ anchor + b)
            w = float(weight(r @ P @ r, p))
        matrix = np.linalg.det(P) ** ((beta - 1) / p) * w**beta * P
        terms[j] = matrix
        total += matrix
        vector += matrix @ zhat
    cov = np.linalg.inv(total)
    shares = np.zeros(len(t))
    for j, matrix in terms.items():
        shares[j] = np.trace(cov @ matrix) / p
    return C_inv @ (cov @ vector - b), C_inv @ cov @ C_inv.T, shares


SQUARE = LinearSDE(
    [[-0.3, -1.0], [0.6, -0.5]],
    Q=[[0.3, 0.1], [0.1, 0.2]],
    R=[[0.5, 0.2], [0.2, 0.4]],
    C=[[1.0, 0.4], [-0.2, 0.8]],
    drift=[0.3, -0.1],
    offset=[0.2, 0.5],
    delay=0.15,
)
SHORT = np.array([0.0, 0.2, 0.2, 0.7, 1.5, 1.8])


@BOTH
@pytest.mark.parametrize("beta", [1.0, 2.5])
@pytest.mark.parametrize("gamma", [None, np.array([[0.3, 0.1], [0.1, 0.2]])])
def test_plain_is_the_papers_formula(estimator, beta, gamma):
    z = draw_data(SQUARE, SHORT, 3)
    z[2] = np.nan
    found = estimator(
        SQUARE, SHORT, z, inverse_temperature=beta, anchor_cov=gamma, return_weights=True
    )
    for i in range(len(SHORT)):
        mean, cov, shares = paper_estimate(
            SQUARE, SHORT, z, i, causal=estimator is adaptive_filter, beta=beta, gamma=gamma
        )
        assert_same(found.mean[i], mean)
        assert_same(found.weights[i], shares)
        if beta == 1.0:
            assert_same(found.cov[i], cov)
        else:
            assert np.isnan(found.cov[i]).all()


@BOTH
@pytest.mark.parametrize(
    "weight", [StudentT(4.0), Power(3.0), Exponential(5.0), Huber(1.2), Threshold(6.0)]
)
@pytest.mark.parametrize("anchor", ["observation", "estimate", "prediction"])
def test_robust_is_the_papers_formula(estimator, weight, anchor):
    causal = estimator is adaptive_filter
    model = replace(SQUARE, delay=0.0)
    z = draw_data(model, SHORT, 5)
    z[3] += 6.0
    z[1, 1] = np.nan
    seen = np.delete(np.arange(6), 1)
    gamma = 0.2 * np.eye(2)
    found = estimator(
        model,
        SHORT[seen],
        z[seen],
        weight=weight,
        anchor=anchor,
        anchor_cov=gamma,
        inverse_temperature=1.5,
    )
    for row, i in enumerate(seen):
        a = np.linalg.solve(model.C, z[i] - model.offset)
        if anchor == "estimate" or (anchor == "prediction" and i == 0):
            a = paper_estimate(model, SHORT, z, i, causal=causal, gamma=gamma, beta=1.5)[0]
        elif anchor == "prediction":
            hidden = z.copy()
            hidden[i:] = np.nan
            a = paper_estimate(model, SHORT, hidden, i, causal=True, gamma=gamma, beta=1.5)[0]
        mean, _, _ = paper_estimate(
            model, SHORT, z, i, causal=causal, anchor=a, weight=weight, gamma=gamma, beta=1.5
        )
        assert_same(found.mean[row], mean)


def test_missing_or_off_grid_observation_anchor_is_the_plain_estimate():
    z = draw_data(SQUARE, SHORT, 5)
    z[3, 0] = np.nan
    shared = {"weight": StudentT(3.0)}
    own = adaptive_filter(SQUARE, SHORT, z, **shared)
    other = adaptive_filter(SQUARE, SHORT, z, anchor="estimate", **shared)
    assert_same(own.mean[3], other.mean[3])
    assert np.abs(own.mean[4] - other.mean[4]).max() > 1e-3
    when = {"query_times": [0.1, 1.6]}
    off = adaptive_filter(SQUARE, SHORT, z, **shared, **when)
    assert_same(
        off.mean, adaptive_filter(SQUARE, SHORT, z, anchor="estimate", **shared, **when).mean
    )
    wide = MODELS["oscillator"]
    y = draw_data(wide, SHORT)
    assert_same(
        adaptive_filter(wide, SHORT, y, **shared).mean,
        adaptive_filter(wide, SHORT, y, anchor="estimate", **shared).mean,
    )


@BOTH
@pytest.mark.parametrize("missing", [0.0, 0.25])
def test_without_process_noise_it_is_the_flat_prior_kalman_filter(model, t, estimator, missing):
    unit_rate = replace(model, Q=np.zeros_like(model.Q), prior="diffuse")
    z = draw_data(model, t, missing=missing)
    z[0] = draw_data(model, t)[0]  # the oracle's flat start is the first stamp, seen or not
    found = estimator(unit_rate, t, z, method="dense")
    mean, cov = dense_posterior(unit_rate, t, z, causal=estimator is adaptive_filter)
    assert_same(found.mean, mean)
    assert_same(found.cov, cov)
    assert_same(estimator(unit_rate, t, z).mean, mean)


@BOTH
def test_without_process_noise_off_the_grid(estimator):
    model = replace(SQUARE, Q=np.zeros((2, 2)), prior="diffuse")
    t = irregular_times(8)
    z = draw_data(model, t)
    queries = np.array([-0.4, 0.0, 0.31, t[3], t[-1], t[-1] + 0.7])
    noise = np.stack([(0.5 + k) * model.R for k in range(len(t))])
    found = estimator(model, t, z, query_times=queries, obs_cov=noise)
    mean, cov = dense_posterior(
        model, t, z, causal=estimator is adaptive_filter, query_times=queries, obs_cov=noise
    )
    assert_same(found.mean, mean)
    assert_same(found.cov, cov)
    np.testing.assert_array_equal(found.t, queries)


def isotropic_models():
    rng = np.random.default_rng(1)
    S = rng.standard_normal((4, 4))
    turned = LinearSDE(
        -0.2 * np.eye(4) + S - S.T,
        Q=0.3 * np.eye(4),
        R=0.5 * np.eye(4),
        C=1.7 * ortho_group.rvs(4, random_state=5),
        drift=rng.standard_normal(4),
        offset=rng.standard_normal(4),
        delay=0.3,
    )
    odd = LinearSDE(-0.2 * np.eye(3) + (S - S.T)[:3, :3], Q=0.3 * np.eye(3), R=0.5 * np.eye(3))
    names = ("spiral", "isotropic_undamped", "ou", "brownian")
    return {**{name: MODELS[name] for name in names}, "turned": turned, "odd": odd}


ISOTROPIC = isotropic_models()
OPTIONS = {
    "plain": {},
    "student": {"weight": StudentT(4.0)},
    "iterated": {
        "weight": Power(3.0),
        "anchor": "estimate",
        "iterations": 7,
        "step": 0.7,
        "momentum": 0.1,
    },
    "prediction": {"weight": Exponential(9.0), "anchor": "prediction"},
    "tempered": {"inverse_temperature": 3.0},
    "window": {"window": 3, "weight": Huber(1.0)},
    "queries": {"query_times": np.linspace(-1.0, 8.0, 9), "weight": StudentT(3.0)},
}


@BOTH
@pytest.mark.parametrize("name", ISOTROPIC)
@pytest.mark.parametrize("options", OPTIONS)
def test_methods_agree(estimator, name, options):
    model, t = ISOTROPIC[name], irregular_times()
    z = draw_data(model, t, n_paths=2)
    z[:, 5] = np.nan
    z[1, 7] = np.nan
    given = {**OPTIONS[options], "return_weights": True}
    if options == "plain":
        given["anchor_cov"] = 0.4 * model.C @ model.C.T
    dense = estimator(model, t, z, method="dense", **given)
    other = estimator(model, t, z, method="isotropic", **given)
    assert_same(other.mean, dense.mean)
    assert_same(other.cov, dense.cov)
    assert_same(np.nan_to_num(other.weights), np.nan_to_num(dense.weights))
    assert estimator(model, t, z, **given).info["method"] == "isotropic"


def modal_models():
    rng = np.random.default_rng(0)
    S, C = rng.standard_normal((4, 4)), rng.standard_normal((4, 4))
    noise = S @ np.diag([0.5, 0.5, 0.4, 0.6]) @ S.T
    blocks = block_diag([[-0.1, -1.0], [1.0, -0.1]], [[-0.5]], [[-0.8]])
    mixed = LinearSDE(
        S @ blocks @ np.linalg.inv(S),
        Q=S @ np.diag([0.3, 0.3, 0.2, 0.7]) @ S.T,
        R=C @ noise @ C.T,
        C=C,
        drift=[0.1, 0.2, -0.3, 0.4],
        offset=[0.1, 0.0, 0.2, 0.3],
        delay=0.2,
    )
    axes = LinearSDE(
        S @ np.diag([-0.1, -0.5, -0.8, -2.0]) @ np.linalg.inv(S),
        Q=S @ np.diag([0.3, 0.1, 0.2, 0.7]) @ S.T,
        R=noise,
    )
    repeated = LinearSDE(
        np.diag([-0.1, -0.1, -2.0]), Q=np.diag([0.3, 0.3, 0.0]), R=np.diag([0.5, 0.5, 0.1])
    )
    planes = LinearSDE(
        block_diag([[-0.1, -1.0], [1.0, -0.1]], [[-0.5, -2.0], [2.0, -0.5]]),
        Q=np.diag([0.3, 0.3, 0.2, 0.2]),
        R=np.diag([0.5, 0.5, 0.7, 0.7]),
    )
    return {"mixed": mixed, "axes": axes, "repeated": repeated, "planes": planes}


MODAL = modal_models()


@BOTH
@pytest.mark.parametrize("name", MODAL)
@pytest.mark.parametrize("options", OPTIONS)
def test_modal_method_agrees(estimator, name, options):
    model, t = MODAL[name], irregular_times()
    z = draw_data(model, t, n_paths=2)
    z[:, 5] = np.nan
    z[1, 7] = np.nan
    given = {**OPTIONS[options], "return_weights": True}
    if options == "plain":
        given["anchor_cov"] = 0.3 * model.R
    dense = estimator(model, t, z, method="dense", **given)
    if (name, options) == ("mixed", "tempered"):
        with pytest.raises(ValueError, match="only planes or only real modes"):
            estimator(model, t, z, method="modal", **given)
        assert_same(estimator(model, t, z, **given).mean, dense.mean)
        return
    found = estimator(model, t, z, method="modal", **given)
    assert_same(found.mean, dense.mean)
    assert_same(found.cov, dense.cov)
    assert_same(np.nan_to_num(found.weights), np.nan_to_num(dense.weights))
    assert estimator(model, t, z, **given).info["method"] == "modal"


def test_modal_method_refuses_other_models():
    for name in ("general", "unstable", "constant_velocity", "oscillator"):
        model = MODELS[name]
        with pytest.raises(ValueError, match="'modal' needs"):
            adaptive_filter(model, SHORT, np.zeros((6, model.obs_dim)), method="modal")


@BOTH
@pytest.mark.parametrize("method", ["linear", "fft"])
def test_linear_time_methods_agree(estimator, method):
    model = replace(MODELS["spiral"], drift=[0.2, -0.1], offset=[0.3, 0.0])
    t = 0.1 * np.arange(200)
    z = draw_data(model, t, n_paths=2)
    z[:, 20:25] = np.nan
    exact = estimator(model, t, z, method="isotropic")
    found = estimator(model, t, z, method=method)
    assert found.info["method"] == method
    assert found.info["error_bound"] < 1e-8
    assert_same(found.mean, exact.mean, 1e-8)
    assert_same(found.cov, exact.cov, 1e-8)


def test_long_plain_isotropic_data_take_linear_time():
    model, t = MODELS["spiral"], 0.1 * np.arange(5000)
    z = draw_data(model, t[:50])
    z = np.tile(z, (100, 1))
    found = adaptive_filter(model, t, z)
    assert found.info["method"] in ("linear", "fft")
    assert found.info["error_bound"] <= 1e-9
    exact = adaptive_filter(model, t, z, method="dense", query_times=t[[4000, 4999]])
    assert_same(found.mean[[4000, 4999]], exact.mean, 1e-8)


@BOTH
def test_missing_component_is_a_removed_row(model, t, estimator):
    p = model.obs_dim
    if p == 1:
        pytest.skip("one component")
    z = draw_data(model, t)
    z[:, 0] = np.nan
    rest = replace(model, C=model.C[1:], R=model.R[1:, 1:], offset=model.offset[1:])
    found = estimator(model, t, z, weight=StudentT(3.0), anchor="estimate")
    wanted = estimator(rest, t, z[:, 1:], weight=StudentT(3.0), anchor="estimate")
    assert_same(found.mean, wanted.mean)
    assert_same(found.cov, wanted.cov)


@BOTH
def test_missing_rows_are_absent(model, t, z, estimator):
    holes = z.copy()
    holes[[1, 7]] = np.nan
    keep = np.delete(np.arange(len(t)), [1, 7])
    options = {"weight": Power(4.0), "anchor": "estimate", "iterations": 3}
    whole = estimator(model, t, holes, **options)
    short = estimator(model, t[keep], z[keep], **options)
    assert_same(whole.mean[keep] / short.std, short.mean / short.std)
    assert_same(whole.cov[keep], short.cov)


@BOTH
def test_nothing_observed(model, t, estimator):
    found = estimator(model, t, np.full((2, len(t), model.obs_dim), np.nan), weight=Huber(1.0))
    assert np.isnan(found.mean).all()
    assert_same(found.cov, np.broadcast_to(np.diag(np.full(model.dim, np.inf)), found.cov.shape))


@BOTH
@pytest.mark.parametrize("correlation", ["independent", "exact"])
def test_shift_of_time_and_order_of_components(model, t, z_missing, estimator, correlation):
    d, p = model.dim, model.obs_dim
    options = {"weight": StudentT(5.0), "anchor": "estimate", "correlation": correlation}
    base = estimator(model, t, z_missing, **options)
    moved = estimator(model, t + 512.0, z_missing, **options)
    assert_same(moved.mean, base.mean, 1e-8)
    order, rows = np.arange(d)[::-1], np.arange(p)[::-1]
    turned = LinearSDE(
        model.A[np.ix_(order, order)],
        Q=model.Q[np.ix_(order, order)],
        R=model.R[np.ix_(rows, rows)],
        C=model.C[np.ix_(rows, order)],
        drift=model.drift[order],
        offset=model.offset[rows],
        prior="diffuse",
    )
    found = estimator(turned, t, z_missing[:, rows], **options)
    assert_same(found.mean, base.mean[:, order], 1e-8)
    assert_same(found.cov, base.cov[:, order][:, :, order], 1e-8)


@BOTH
@pytest.mark.parametrize("name", ["spiral", "constant_velocity", "general"])
def test_paths_are_separate(name, t, estimator):
    model = MODELS[name]
    z = draw_data(model, t, n_paths=3, missing=0.15)
    for options in ({}, {"weight": Power(3.0), "anchor": "estimate", "iterations": 4}):
        together = estimator(model, t, z, **options)
        for k in range(3):
            alone = estimator(model, t, z[k], **options)
            assert_same(together.mean[k], alone.mean, 1e-11)
            assert_same(together.cov[k], alone.cov, 1e-11)


def test_shared_weights_are_stored_once():
    t, model = irregular_times(), MODELS["general"]
    found = adaptive_filter(model, t, draw_data(model, t, n_paths=6).reshape(2, 3, len(t), 3))
    assert found.mean.shape == (2, 3, len(t), 4)
    assert found.cov.shape == (2, 3, len(t), 4, 4)
    assert found.cov.strides[:2] == (0, 0)


@BOTH
def test_weights_sum_to_one(model, t, z, estimator):
    found = estimator(model, t, z, weight=StudentT(3.0), return_weights=True)
    known = np.isfinite(found.mean).all(axis=-1)
    np.testing.assert_allclose(found.weights.sum(axis=-1)[known], 1.0, rtol=1e-12)
    if estimator is adaptive_filter:
        assert (np.triu(found.weights, 1) == 0).all()


def fast_models():
    rng = np.random.default_rng(1)
    S, C = rng.standard_normal((3, 3)), rng.standard_normal((2, 3))
    rates = np.diag([-10.0, -0.1, -1.0])
    return {
        "isotropic": LinearSDE.isotropic(10.0, 1.0, process_var=0.3, obs_var=0.5),
        "noise_free": LinearSDE.isotropic(10.0, 1.0, process_var=0.0, obs_var=0.5),
        "general": LinearSDE(
            [[-10, -1.0], [2, -8]], Q=[[0.3, 0.1], [0.1, 0.2]], R=np.diag([0.5, 0.2])
        ),
        "wide": LinearSDE(S @ rates @ np.linalg.inv(S), Q=np.eye(3), R=np.eye(2), C=C),
        "wide_noise_free": LinearSDE(rates, Q=np.zeros((3, 3)), R=np.eye(2), C=C),
        "defective": LinearSDE(
            [[0, 1.0], [-100, -20]], Q=np.diag([0, 0.5]), R=[[0.2]], C=[[1.0, 0]]
        ),
    }


@BOTH
@pytest.mark.parametrize("name", fast_models())
@pytest.mark.parametrize("correlation", ["independent", "exact"])
def test_nothing_overflows_over_long_times(estimator, name, correlation):
    model = fast_models()[name]
    t = np.sort(np.random.default_rng(0).uniform(0.0, 1000.0, 16))
    z = np.random.default_rng(2).standard_normal((16, model.obs_dim))
    options = {"correlation": correlation}
    if correlation == "independent":
        options["method"] = "dense"
    robust = {"weight": StudentT(3.0), "anchor": "estimate", "iterations": 3}
    if not model.Q.any():  # distances of e^10000: refused, not guessed
        with pytest.raises(ValueError, match="floating-point range"):
            estimator(model, t, z, **options, **robust)
    for extra in ({}, robust)[: 1 + bool(model.Q.any())]:
        found = estimator(model, t, z, **options, **extra)
        assert np.isfinite(found.mean[3:]).all()
        assert np.isfinite(found.cov[3:]).all()
    if name == "isotropic":  # decayed observations carry V = sigma^2 / (2 mu) and value 0
        own, far = 1 / model.R[0, 0], 2 * 10.0 / 0.3
        plain = adaptive_filter(model, t, z, **options)
        if correlation == "independent":
            share = own / (own + 15 * far)
            np.testing.assert_allclose(plain.mean[-1], share * z[-1], rtol=1e-9)
        else:
            np.testing.assert_allclose(plain.mean[-1], own / (own + far) * z[-1], rtol=1e-9)


def test_fast_modes_match_the_dense_posterior_when_noise_free():
    rng = np.random.default_rng(4)
    model = LinearSDE(
        block_diag([[-20.0]], [[-0.1]], [[-1.0]]),
        Q=np.zeros((3, 3)),
        R=np.eye(2),
        C=rng.standard_normal((2, 3)),
        prior="diffuse",
    )
    t = np.arange(10) * 2.0
    z = rng.standard_normal((10, 2))
    for estimator, causal in ((adaptive_filter, True), (adaptive_smoother, False)):
        mean, cov = dense_posterior(model, t, z, causal=causal)
        found = estimator(model, t, z)
        assert_same(found.mean, mean)
        assert_same(found.cov, cov)


def test_large_process_noise_leaves_the_raw_observation():
    t = np.cumsum(np.random.default_rng(0).uniform(0.5, 1.5, 8))
    for scale in (1e6, 1e9):
        model = replace(SQUARE, Q=scale * np.eye(2), delay=0.0)
        z = draw_data(SQUARE, t)
        raw = np.linalg.solve(model.C, (z - model.offset)[..., None])[..., 0]
        gap = np.abs(adaptive_filter(model, t, z).mean - raw).max()
        assert 0 < gap < 50 / scale * np.abs(raw).max() * 10


def test_unobservable_components_stay_undetermined():
    model = LinearSDE(-np.eye(3), Q=np.eye(3), R=[[0.5]], C=[[1.0, 0.0, 0.0]])
    t = irregular_times()
    z = draw_data(model, t)
    for correlation in ("independent", "exact"):
        found = adaptive_filter(model, t, z, correlation=correlation)
        assert np.isfinite(found.mean[:, 0]).all()
        assert np.isnan(found.mean[:, 1:]).all()
        assert np.isinf(found.cov[:, 1, 1]).all()
        assert (found.cov[:, 0, 1:] == 0).all()


def test_redundant_rows_count_in_the_distance():
    """Two sensors of one component: the residual between them is part of d2."""
    model = LinearSDE([[-0.5]], Q=[[0.3]], R=np.diag([0.5, 0.2]), C=[[1.0], [1.0]])
    t, z = np.array([0.0, 1.0]), np.array([[0.3, 2.0], [0.1, 0.4]])
    found = adaptive_filter(
        model,
        t,
        z,
        weight=StudentT(3.0),
        anchor="estimate",
        correlation="exact",
        return_weights=True,
    )
    anchor = adaptive_filter(model, t, z, correlation="exact").mean[1, 0]
    V = 0.3 * (np.exp(1.0) - 1.0)  # int e^{0.5 s} 0.3 e^{0.5 s} ds over [0, 1]
    S = model.R + V * np.ones((2, 2))
    r = z[0] - np.exp(0.5) * anchor
    wanted = (3.0 + 2.0) / (3.0 + r @ np.linalg.solve(S, r))
    np.testing.assert_allclose(found.weights[1, 0], wanted, rtol=1e-10)


def test_step_and_momentum_reach_the_same_fixed_point():
    model, t = MODELS["spiral"], irregular_times(20)
    z = draw_data(model, t)
    z[7] += 15.0
    shared = {"weight": StudentT(4.0), "anchor": "estimate", "iterations": 400}
    full = adaptive_filter(model, t, z, **shared)
    slow = adaptive_filter(model, t, z, step=0.5, momentum=(np.sqrt(0.5) - 1) ** 2, **shared)
    assert_same(slow.mean, full.mean, 1e-8)
    assert full.info["iterations"] < slow.info["iterations"] < 400
    assert full.info["change"][-1] < 1e-9
    one = adaptive_filter(model, t, z, weight=StudentT(4.0), anchor="estimate", step=0.3)
    plain = adaptive_filter(model, t, z)
    whole = adaptive_filter(model, t, z, weight=StudentT(4.0), anchor="estimate")
    assert_same(one.mean, 0.7 * plain.mean + 0.3 * whole.mean)


def test_irls_descends_its_loss():
    model, t = MODELS["constant_velocity"], irregular_times(8)
    pairs = {}
    z = draw_data(model, t)
    z[[4, 6]] += 20.0
    weight = StudentT(3.0)

    def loss(mean):
        total = 0.0
        for j in range(len(t)):
            if j not in pairs:
                tau = t[-1] - t[j]
                V = step_noise(-model.A, model.Q, tau)
                pairs[j] = model.C @ expm(-model.A * tau), model.R + model.C @ V @ model.C.T
            H, S = pairs[j]
            r = z[j] - H @ mean
            total += float(weight.rho(r @ np.linalg.solve(S, r), 2))
        return total

    values = [
        loss(adaptive_filter(model, t, z, weight=weight, anchor="estimate", iterations=k).mean[-1])
        for k in (1, 2, 4, 30)
    ]
    assert (np.diff(values) < 1e-12).all()
    best = adaptive_filter(model, t, z, weight=weight, anchor="estimate", iterations=200).mean[-1]
    for direction in np.eye(4):
        assert loss(best + 1e-3 * direction) > loss(best)
        assert loss(best - 1e-3 * direction) > loss(best)


def test_prior_of_the_model_is_not_used():
    model, t = MODELS["proper_prior"], irregular_times()
    z = draw_data(model, t)
    other = replace(model, prior=Prior(np.ones(3), 1e-6 * np.eye(3)))
    assert_same(adaptive_filter(other, t, z).mean, adaptive_filter(model, t, z).mean, 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"anchor": "middle"}, "anchor must be one of"),
        ({"method": "magic"}, "method must be one of"),
        ({"correlation": "some"}, "correlation must be one of"),
        ({"iterations": 0}, "iterations must be >= 1"),
        ({"step": 0.0}, "step must be > 0"),
        ({"step": 1.5}, "step must be <= 1"),
        ({"momentum": 1.0}, "momentum must be < 1"),
        ({"inverse_temperature": 0.0}, "inverse_temperature must be > 0"),
        ({"inverse_temperature": 2.0, "correlation": "exact"}, "inverse_temperature must be 1"),
        ({"anchor_cov": np.eye(2), "correlation": "exact"}, "anchor_cov enters"),
        ({"anchor_cov": np.eye(3)}, "anchor_cov must have shape"),
        ({"anchor_cov": -np.eye(2)}, "anchor_cov must be positive semidefinite"),
        ({"query_times": [1.0, 0.0]}, "query_times must not decrease"),
        ({"obs_cov": np.eye(2)}, "obs_cov must have shape"),
        ({"window": 0}, "window must be >= 1"),
        ({"tolerance": -1.0}, "tolerance must be >= 0"),
        ({"method": "isotropic"}, "isotropic"),
        ({"method": "linear"}, "needs an isotropic model"),
        ({"method": "isotropic", "correlation": "exact"}, "correlation='exact'"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        adaptive_filter(SQUARE, SHORT, np.zeros((6, 2)), **options)


def test_bad_models_and_data():
    z = np.zeros((6, 2))
    with pytest.raises(TypeError, match="model must be a LinearSDE"):
        adaptive_filter("model", SHORT, z)
    with pytest.raises(ValueError, match="R must be positive definite"):
        adaptive_filter(replace(SQUARE, R=np.diag([1.0, 0.0])), SHORT, z)
    with pytest.raises(ValueError, match="z must have shape"):
        adaptive_filter(SQUARE, SHORT, z.T)
    with pytest.raises(TypeError, match="weight"):
        adaptive_filter(SQUARE, SHORT, z, weight=1.0)
    wide = MODELS["constant_velocity"]
    with pytest.raises(ValueError, match="anchor_cov needs an invertible C"):
        adaptive_filter(wide, SHORT, z, anchor_cov=np.eye(2))
    holes = z.copy()
    holes[2, 0] = np.nan
    spiral = MODELS["spiral"]
    with pytest.raises(ValueError, match="complete or wholly missing"):
        adaptive_filter(spiral, SHORT, holes, method="isotropic")
    with pytest.raises(ValueError, match="plain weights"):
        adaptive_filter(spiral, SHORT, z, method="linear", weight=Huber(1.0))
