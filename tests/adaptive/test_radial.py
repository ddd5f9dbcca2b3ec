"""Radial-tangential SDE: simulation against closed forms, the filter against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import expm

from afafilter import (
    Huber,
    LinearSDE,
    Power,
    RadialTangentialSDE,
    StudentT,
    hypersphere_direction,
    hypersphere_step,
    linear_time_filter,
    radial_adaptive_filter,
    radial_range,
    simulate,
    simulate_radial,
)


def drift(model):
    A = -model.decay * np.eye(model.dim)
    for k, w in enumerate(model.frequency):
        A[2 * k, 2 * k + 1], A[2 * k + 1, 2 * k] = -w, w
    return A


def flows(model, queries, t):
    return expm((queries[:, None] - t)[..., None, None] * drift(model))


def example(dim=4, **changes):
    values = {
        "decay": 0.2,
        "frequency": 0.8,
        "radial_var": 0.3,
        "tangential_var": 0.05,
        "obs_radial_var": 0.5,
        "obs_tangential_var": 0.1,
        "dim": dim,
    }
    return RadialTangentialSDE(**(values | changes))


# --- simulator ------------------------------------------------------------------------------


def test_equal_variances_are_the_isotropic_model_in_law():
    model = example(
        3, radial_var=0.4, tangential_var=0.4, obs_radial_var=0.2, obs_tangential_var=0.2
    )
    linear = LinearSDE.isotropic(0.2, 0.8, process_var=0.4, obs_var=0.2, dim=3)
    n = 40_000
    t = np.array([0.0, 0.5, 3.0])
    x0 = np.array([1.0, -2.0, 0.5])
    found = simulate_radial(model, t, n, rng=np.random.default_rng(1), x0=x0)
    assert found.x.shape == found.z.shape == (n, 3, 3)
    for k in (1, 2):
        Phi, _, V = linear.transition(t[k])
        error = found.x[:, k].mean(0) - Phi @ x0
        assert (np.abs(error) < 4.5 * np.sqrt(np.diag(V) / n)).all()
        np.testing.assert_allclose(np.cov(found.x[:, k].T), V, atol=4.5 * V[0, 0] * np.sqrt(2 / n))
    lagged = (found.x[:, 2] - found.x[:, 2].mean(0)).T @ (found.x[:, 1] - found.x[:, 1].mean(0)) / n
    Phi, _, _ = linear.transition(2.5)
    V1 = linear.transition(0.5)[2]
    np.testing.assert_allclose(lagged, Phi @ V1, atol=0.02)
    np.testing.assert_allclose(np.cov((found.z - found.x)[:, 2].T), 0.2 * np.eye(3), atol=0.006)


@pytest.mark.parametrize("dim", [2, 3, 16])
def test_closed_form_covariance_inside_its_range(dim):
    """Within Monte Carlo error plus 3 times the expansion parameter."""
    model = example(dim, radial_var=0.3, tangential_var=0.15)
    n, tau = 8_000, 1.5
    start = np.zeros(dim)
    start[0], start[1] = 60.0, -80.0
    rng = np.random.default_rng(dim)
    end = simulate_radial(model, [0.0, tau], n, rng=rng, x0=start, substep=0.1).x[:, 1]
    V = model.propagated_covariance(start, tau)
    assert V.shape == (dim, dim)
    # the textbook linearisation: V = int Phi G G^T Phi^T with G at the mean's direction
    s = np.linspace(0, tau, 401)
    total = np.zeros((401, dim, dim))
    for k, x in enumerate(s):
        u = expm(drift(model) * (tau - x)) @ start
        u /= np.linalg.norm(u)
        Phi = expm(drift(model) * x)
        Q = 0.15 * np.eye(dim) + 0.15 * np.outer(u, u)
        total[k] = Phi @ Q @ Phi.T
    np.testing.assert_allclose(V, np.trapezoid(total, s, axis=0), rtol=1e-5, atol=1e-6)
    found = np.cov(end.T)
    spread = (dim - 1) * 0.15 * tau / (100 * np.exp(-0.2 * tau)) ** 2
    assert spread < 1e-3
    u = expm(drift(model) * tau) @ start
    u /= np.linalg.norm(u)
    bound = 4.5 * np.sqrt(2 / n) + 3 * spread
    assert u @ found @ u == pytest.approx(u @ V @ u, rel=bound)
    across = np.linalg.qr(np.column_stack([u, np.eye(dim)[:, : dim - 1]]))[0][:, 1:]
    np.testing.assert_allclose(
        np.diag(across.T @ found @ across), (V.trace() - u @ V @ u) / (dim - 1), rtol=bound
    )
    assert np.abs(across.T @ found @ u).max() < 4.5 * np.sqrt(0.3 * 0.15 / n) * tau


def test_strong_order_of_the_substeps_is_one_half():
    """Coupled paths: coarse steps use the sum of the fine steps' (rotated) noise integrals."""
    model = example(2, decay=0.1, radial_var=0.02, tangential_var=0.6)
    n, T, finest = 3000, 1.0, 512
    rng = np.random.default_rng(0)
    h = T / finest
    pieces = rng.standard_normal((finest, n, 2)) * np.sqrt(model.spread(h))
    x0 = np.tile([2.0, 0.0], (n, 1))
    ends = {}
    for steps in (512, 64, 32, 16, 8, 4):
        group = finest // steps
        x = x0
        for k in range(steps):
            integral = np.zeros((n, 2))
            for piece in pieces[k * group : (k + 1) * group]:
                integral = model.flow(integral, h) + piece
            dt = T / steps
            x = model.advance(x, dt, integral / np.sqrt(model.spread(dt)))
        ends[steps] = x
    coarse = np.array([64, 32, 16, 8, 4])
    errors = [np.sqrt(((ends[s] - ends[512]) ** 2).sum(1).mean()) for s in coarse]
    order = np.polyfit(np.log(1 / coarse), np.log(errors), 1)[0]
    assert 0.4 < order < 0.65


def test_range_of_the_closed_form_is_where_theory_says():
    model = example(16, decay=0.0, radial_var=0.05, tangential_var=0.2, frequency=0.3)
    rng = np.random.default_rng(3)
    far = radial_range(model, 40.0, 1.0, n_paths=8000, rng=rng)
    near = radial_range(model, 2.5, 1.0, n_paths=8000, rng=rng)
    assert far.spread == pytest.approx(15 * 0.2 / 1600)
    assert abs(far.radial_ratio - 1) < 4.5 * far.standard_error + 3 * far.spread
    assert abs(far.tangential_ratio - 1) < 0.02
    assert far.outward == pytest.approx(far.outward_expected, abs=4.5 * np.sqrt(0.05 / 8000))
    assert near.spread == pytest.approx(0.48)
    assert near.radial_ratio > 1.2  # outside the range the closed form is wrong, and says so
    assert near.outward > 10 * 4.5 * np.sqrt(0.05 / 8000)


def test_hypersphere_is_spherical_brownian_motion():
    """E x(t) = e^{-(d - 1) s^2 t / (2 r^2)} x0 (Laplace-Beltrami), |x| constant."""
    d, r, s2, T, n = 5, 2.0, 0.3, 1.0, 20_000
    model = RadialTangentialSDE(0.0, 0.0, 0.0, s2, 0.0, 0.1, dim=d, radius=r)
    x0 = np.zeros(d)
    x0[2] = 7.0  # brought to the sphere
    found = simulate_radial(model, [0.0, T], n, rng=np.random.default_rng(5), x0=x0, substep=0.02)
    np.testing.assert_allclose(np.linalg.norm(found.x, axis=-1), r, rtol=1e-12)
    mean = found.x[:, 1].mean(0)
    expected = r * np.exp(-(d - 1) * s2 * T / (2 * r**2)) * np.eye(d)[2]
    np.testing.assert_allclose(mean, expected, atol=4.5 * np.sqrt(s2 * T / n) + 0.002)


def test_observation_noise_follows_the_direction():
    model = example(3, decay=0.0, frequency=0.0, radial_var=0.0, tangential_var=0.0)
    x0 = np.array([3.0, 0.0, 4.0])
    found = simulate_radial(model, [0.0], 40_000, rng=np.random.default_rng(1), x0=x0)
    u = x0 / 5
    R = 0.5 * np.outer(u, u) + 0.1 * (np.eye(3) - np.outer(u, u))
    np.testing.assert_allclose(np.cov((found.z - x0)[:, 0].T), R, atol=0.016)


# --- filter ---------------------------------------------------------------------------------


def dense_rt(model, t, z, queries, visible, starts, *, weight, rounds, gamma2, two_sided, step=1.0):
    """The estimator with explicit d x d matrices: every pair's covariance inverted."""
    d, Phi = model.dim, flows(model, queries, t)
    mean, covs = np.full((len(queries), d), np.nan), []
    for i, (tq, seen) in enumerate(zip(queries, visible, strict=True)):
        a = starts[i]
        cov = np.diag(np.full(d, np.inf))
        use = [j for j in range(len(t) if two_sided else seen) if not np.isnan(z[j]).any()]
        if not use:
            covs.append(cov)
            continue
        for _ in range(rounds):
            u = a / np.linalg.norm(a)
            U, W = np.outer(u, u), np.eye(d) - np.outer(u, u)
            top, total = np.zeros(d), np.zeros((d, d))
            for j in use:
                tau = tq - t[j]
                grow = np.exp(-2 * model.decay * tau)  # |e^{A tau}|^2, either sign of tau
                length = abs(1 - grow) / (2 * model.decay)
                S = length * (model.tangential_var * W + model.radial_var * U)
                S += grow * (model.obs_tangential_var * W + model.obs_radial_var * U)
                P = np.linalg.inv(S + gamma2 * np.eye(d))
                zhat = Phi[i, j] @ z[j]
                if weight is not None:
                    P = P * float(weight((zhat - a) @ P @ (zhat - a), d))
                top, total = top + P @ zhat, total + P
            cov = np.linalg.inv(total)
            a = a + step * (cov @ top - a)
        mean[i] = a
        covs.append(cov)
    return mean, np.array(covs)


def record(model, n=32, seed=8):
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.exponential(0.2, n))
    t[20:22] = t[20]
    x0 = np.zeros(model.dim)
    x0[0] = 9.0
    z = simulate_radial(model, t, rng=rng, x0=x0).z
    z[12] += 5.0
    z[[0, 5, 6]] = np.nan
    return t, z


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize(
    ("weight", "rounds", "gamma2", "step"),
    [
        (None, 1, 0.0, 1.0),
        (Power(4.0), 1, 0.2, 1.0),
        (StudentT(4.0), 3, 0.0, 1.0),
        (Huber(2.0), 2, 0.1, 0.5),
    ],
)
@pytest.mark.parametrize("dim", [2, 5])
def test_filter_equals_dense_matrices(dim, weight, rounds, gamma2, step, two_sided, monkeypatch):
    model = example(dim)
    t, z = record(model)
    monkeypatch.setattr("afafilter.adaptive.radial_tiles.ROWS", 16)  # several tiles of each kind
    monkeypatch.setattr("afafilter.adaptive.radial_tiles.KEYS", 7)
    found = radial_adaptive_filter(
        model, t, z, two_sided=two_sided, weight=weight, iterations=rounds, anchor_var=gamma2,
        tolerance=0.0, step=step,
    )  # fmt: skip
    first = radial_adaptive_filter(model, t, z, two_sided=two_sided, anchor="estimate")
    assert np.isfinite(first.mean[1:]).all()
    plain = plain_isotropic(model, t, z, two_sided, gamma2)
    starts = np.where(np.isnan(z), plain, z)
    mean, cov = dense_rt(
        model, t, z, t, np.arange(1, len(t) + 1), starts,
        weight=weight, rounds=rounds, gamma2=gamma2, two_sided=two_sided, step=step,
    )  # fmt: skip
    np.testing.assert_allclose(found.mean, mean, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.cov, cov, rtol=1e-8, atol=1e-10)
    assert found.info["iterations"] == rounds


def plain_isotropic(model, t, z, two_sided, gamma2):
    """Plain isotropic AFA with the averaged noise, written out."""
    n, mu, Phi = model.dim - 1, model.decay, flows(model, t, t)
    s2 = (model.radial_var + n * model.tangential_var) / model.dim
    e2 = (model.obs_radial_var + n * model.obs_tangential_var) / model.dim
    out = np.full(z.shape, np.nan)
    for i in range(len(t)):
        top, total = 0.0, 0.0
        for j in range(len(t) if two_sided else i + 1):
            if np.isnan(z[j]).any():
                continue
            tau = t[i] - t[j]
            grow = np.exp(-2 * mu * tau)
            p = 1 / (s2 * abs(1 - grow) / (2 * mu) + e2 * grow + gamma2)
            top, total = top + p * (Phi[i, j] @ z[j]), total + p
        if total:
            out[i] = top / total
    return out


@pytest.mark.parametrize("two_sided", [False, True])
def test_equal_variances_and_no_weight_give_plain_isotropic_afa(two_sided):
    model = example(
        3, radial_var=0.1, tangential_var=0.1, obs_radial_var=0.3, obs_tangential_var=0.3
    )
    t, z = record(model)
    found = radial_adaptive_filter(model, t, z, two_sided=two_sided)
    np.testing.assert_allclose(found.mean, plain_isotropic(model, t, z, two_sided, 0.0), rtol=1e-9)


def test_query_times_and_paths():
    model = example(3)
    t, z = record(model)
    queries = np.array([t[0] - 1, t[0], t[1], 3.33, t[20], t[-1] + 2])
    plain = radial_adaptive_filter(
        model, t, np.stack([z, z]), weight=Power(4.0), query_times=queries, anchor="estimate"
    )
    assert plain.mean.shape == (2, 6, 3)
    visible = np.searchsorted(t, queries, side="right")
    padded_t = np.concatenate([t, queries])
    order = np.argsort(padded_t, kind="stable")
    padded = np.concatenate([z, np.full((6, 3), np.nan)])[order]
    starts = plain_isotropic(model, padded_t[order], padded, False, 0.0)
    place = [int(np.flatnonzero(order == len(t) + k)[0]) for k in range(6)]
    mean, cov = dense_rt(
        model, t, z, queries, visible, starts[place],
        weight=Power(4.0), rounds=1, gamma2=0.0, two_sided=False,
    )  # fmt: skip
    for path in range(2):
        np.testing.assert_allclose(plain.mean[path], mean, rtol=1e-8)
        np.testing.assert_allclose(plain.cov[path], cov, rtol=1e-8, atol=1e-10)


def test_no_overflow_over_ten_thousand_decay_times():
    model = example(2)
    t = np.linspace(0, 5e4, 40)
    z = np.random.default_rng(0).standard_normal((40, 2)) + 3
    for two_sided in (False, True):
        found = radial_adaptive_filter(
            model, t, z, two_sided=two_sided, weight=Power(4.0), anchor="observation"
        )
        assert np.isfinite(found.mean).all()
        assert np.isfinite(found.cov).all()


def test_it_pays_where_noise_is_anisotropic():
    """Steady radius measured badly, wandering direction measured well: on common data."""
    model = RadialTangentialSDE(0.0, 1.0, 0.0, 0.4, 4.0, 0.04, dim=2)
    t = 0.1 * np.arange(80)
    truth = simulate_radial(model, t, 40, rng=np.random.default_rng(2), x0=[20.0, 0.0])
    radial = radial_adaptive_filter(model, t, truth.z, anchor="estimate", iterations=5)
    error = ((radial.mean - truth.x) ** 2).sum(-1)[:, 10:].mean(1)
    isotropic = linear_time_filter(model.nearest_linear(), t, truth.z)
    plain = ((isotropic.mean - truth.x) ** 2).sum(-1)[:, 10:].mean(1)
    gain = plain - error
    assert gain.mean() > 5 * gain.std() / np.sqrt(40)
    assert error.mean() < 0.7 * plain.mean()


# --- hypersphere ----------------------------------------------------------------------------


def test_maximum_likelihood_direction():
    """It minimises sum p |v - r u|^2 over the sphere: no other direction does better."""
    rng = np.random.default_rng(0)
    v, p = rng.standard_normal((9, 4)) + 1.5, rng.uniform(0.1, 2.0, 9)
    u = hypersphere_direction(v, p)
    assert np.linalg.norm(u) == pytest.approx(1)

    def loss(direction):
        return (p * ((v - 2.0 * direction) ** 2).sum(1)).sum()

    others = rng.standard_normal((200, 4)) * 0.1 + u
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    assert all(loss(u) < loss(other) for other in others)


def test_step_is_residual_and_normalisation():
    x, goal = np.array([[3.0, 4.0]]), np.array([[4.0, -3.0]])
    half = hypersphere_step(x, goal, 0.5)
    np.testing.assert_allclose(half, 5 * np.array([[7.0, 1.0]]) / np.sqrt(50))
    np.testing.assert_allclose(hypersphere_step(x, goal, 0.0), x)


def test_hypersphere_filter_is_the_normalised_weighted_sum():
    model = RadialTangentialSDE(0.0, [0.7], 0.0, 0.1, 0.0, 0.2, dim=3, radius=2.0)
    rng = np.random.default_rng(4)
    t = np.sort(rng.uniform(0, 5, 30))
    z = simulate_radial(model, t, rng=rng, x0=[2.0, 0.0, 0.0]).z
    found = radial_adaptive_filter(model, t, z)
    for i in range(30):
        lag = t[i] - t[: i + 1]
        c = (z[: i + 1, 0] + 1j * z[: i + 1, 1]) * np.exp(0.7j * lag)
        zhat = np.column_stack([c.real, c.imag, z[: i + 1, 2]])
        u = hypersphere_direction(zhat, 1 / (0.1 * lag + 0.2))
        np.testing.assert_allclose(found.mean[i], 2 * u, rtol=1e-9, atol=1e-12)
    anchor = z[-1] / np.linalg.norm(z[-1])
    claimed = 1 / (1 / (0.1 * (t[-1] - t) + 0.2)).sum() * (np.eye(3) - np.outer(anchor, anchor))
    np.testing.assert_allclose(found.cov[-1], claimed, rtol=1e-9, atol=1e-12)
    robust = radial_adaptive_filter(model, t, z, weight=Power(4.0), iterations=4, two_sided=True)
    np.testing.assert_allclose(np.linalg.norm(robust.mean, axis=-1), 2.0, rtol=1e-12)


# --- bad input ------------------------------------------------------------------------------


def start(x0, **options):
    return simulate_radial(example(), [0.0, 1.0], rng=np.random.default_rng(0), x0=x0, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: example(1), "dim must be >= 2"),
        (lambda: example(radial_var=-1.0), "radial_var must be >= 0"),
        (lambda: example(frequency=[1.0, 2.0, 3.0]), r"shape \(2,\)"),
        (lambda: example(radius=1.0), "decay = 0 and radial_var = 0"),
        (lambda: example(radius=0.0, decay=0.0, radial_var=0.0), "radius must be > 0"),
        (lambda: example().propagated_covariance(np.zeros(4), 1.0), "no direction"),
        (lambda: example().propagated_covariance(np.ones(3), 1.0), "shape"),
        (lambda: example().propagated_covariance(np.ones(4), -1.0), "tau must be >= 0"),
        (lambda: start(np.zeros(4)), "no direction"),
        (lambda: start(np.ones(3)), "x0 must have shape"),
        (lambda: start(np.ones(4), substep=1e-9), "substep must be longer"),
        (lambda: hypersphere_step(np.zeros(2), np.ones(2)), "no direction"),
        (lambda: hypersphere_direction(np.array([[1.0], [-1.0]]), np.ones(2)), "no direction"),
        (lambda: hypersphere_direction(np.ones((2, 2)), -np.ones(2)), "precision"),
        (lambda: radial_range(example(radial_var=0.0), 1, 1, rng=None), "radial_var"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bad_filter_input():
    model = example(2)
    t, z = record(model)
    zero = z.copy()
    zero[9] = 0.0
    with pytest.raises(ValueError, match="no direction"):
        radial_adaptive_filter(model, t, zero)
    with pytest.raises(ValueError, match="radial precision"):
        radial_adaptive_filter(example(2, obs_radial_var=0.0), t, z)
    with pytest.raises(ValueError, match="tangential precision"):
        radial_adaptive_filter(example(2, obs_tangential_var=0.0), t, z)
    with pytest.raises(ValueError, match="missing in part"):
        radial_adaptive_filter(model, t, np.where(np.arange(2) == 1, np.nan, z))
    with pytest.raises(ValueError, match="anchor must be one of"):
        radial_adaptive_filter(model, t, z, anchor="prediction")
    with pytest.raises(ValueError, match="step must be <= 1"):
        radial_adaptive_filter(model, t, z, step=2.0)
    with pytest.raises(TypeError, match="RadialTangentialSDE"):
        radial_adaptive_filter(model.nearest_linear(), t, z)
    with pytest.raises(TypeError, match="weight"):
        radial_adaptive_filter(model, t, z, weight=2.0)
    with pytest.raises(TypeError, match="rng"):
        simulate_radial(model, t, rng="3", x0=[1.0, 1.0])
    missing = radial_adaptive_filter(model, t, np.full_like(z, np.nan))
    assert np.isnan(missing.mean).all()
    assert np.isinf(np.diagonal(missing.cov, axis1=1, axis2=2)).all()


def test_simulate_takes_the_model_and_refuses_what_it_cannot_do():
    model = RadialTangentialSDE(0.1, 1.0, 0.1, 0.3, 0.2, 0.1)
    t, start = [0.0, 0.5, 1.0], [20.0, 0.0]
    found = simulate(model, t, rng=np.random.default_rng(1), x0=start)
    assert found.x.shape == found.z.shape == (1, 3, 2)
    assert simulate(model, t, 4, rng=np.random.default_rng(1), x0=start).z.shape == (4, 3, 2)
    assert (found.x[:, 0] == start).all()
    for refused in ({"missing": 0.1, "x0": start}, {}, {"x0": "stationary"}):
        with pytest.raises(ValueError, match="RadialTangentialSDE needs t and a start x0"):
            simulate(model, t, rng=np.random.default_rng(1), **refused)
    with pytest.raises(TypeError, match="RadialTangentialSDE"):
        simulate("model", t, rng=np.random.default_rng(1))
