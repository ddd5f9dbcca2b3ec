"""Filter attention against the N x N formulas written out plainly, mpmath, and its limits."""

import tracemalloc

import mpmath
import numpy as np
import pytest

from afafilter import (
    IMQ,
    Exponential,
    Huber,
    Power,
    Rational,
    StudentT,
    Threshold,
    isotropic_attention,
    tensor_attention,
)
from afafilter.attention import pairs, sums, threads

WEIGHTS = [
    None, Power(3.0), Power(3.0, 1.0), Power(3.0, 0.5), StudentT(4.0), Rational(0.3), IMQ(2.0),
    Exponential(5.0), Huber(1.5), Threshold(3.0),
]  # fmt: skip
DIRECTIONS = [(True, "exact"), (False, "exact"), (False, "symmetric")]


def dense_attention(
    q, k, v, t, *, decay, frequency, process_var, key_var, query_var=0.0, value_decay=None,
    value_frequency=None, weight=None, inverse_temperature=1.0, causal=True, backward="exact",
    t_query=None, n_visible=None, window=None, prior_precision=0.0,
):  # fmt: skip
    """N x N oracle on complex data: every key pulled to the query explicitly.

    decay, process_var, key_var, query_var may have one entry per channel (tensor form). Returns
    output (Nq, n), weights (n, Nq, N), precision (Nq, n).
    """
    n = k.shape[1]
    mu, s2, eta2, gamma2, prior = (
        np.broadcast_to(np.asarray(x, float), n)
        for x in (decay, process_var, key_var, query_var, prior_precision)
    )
    mu_v = mu if value_decay is None else np.broadcast_to(value_decay, v.shape[1])
    omega_v = frequency if value_frequency is None else value_frequency
    tq = t if t_query is None else t_query
    seen = np.arange(1, len(t) + 1) if n_visible is None else n_visible
    tau = tq[:, None] - t
    future = np.arange(len(t)) >= seen[:, None]
    symmetric = backward == "symmetric"
    lag = np.where(future, np.abs(tau), tau)
    time = (lag if symmetric else tau)[..., None]  # signed: pulling backward grows
    forward = ~future[..., None] | symmetric
    E = np.exp(-mu * time)
    safe = np.where(mu == 0, 1.0, mu)
    grown = np.where(
        forward, -np.expm1(-2 * safe * lag[..., None]), np.expm1(2 * safe * lag[..., None])
    )
    V = np.where(mu == 0, s2 * lag[..., None], s2 * grown / (2 * safe))
    P = 1 / (V + eta2 * E**2 + gamma2)
    turn = np.exp(1j * np.asarray(frequency) * tau[..., None])
    log_w = 0.0
    if weight is not None:
        residual = q[:, None, :] - E * turn * k
        log_w = weight.log((P * np.abs(residual) ** 2).sum(-1), 2 * n)
    logits = (inverse_temperature - 1) * np.log(P).mean(-1) + inverse_temperature * log_w
    missing = np.isnan(k).any(1) | np.isnan(v).any(1)
    logits[:, missing] = -np.inf
    if causal:
        logits[future] = -np.inf
    if window is not None:
        index = np.arange(len(t))
        near = (index >= seen[:, None] - window) & (index < seen[:, None] + window)
        logits[~near] = -np.inf
    W = np.exp(logits)[..., None] * P
    precision = W.sum(1) + prior
    with np.errstate(invalid="ignore"):
        A = W / precision[:, None]
    turn_v = np.exp(1j * np.asarray(omega_v) * tau[..., None])
    pulled = np.exp(-mu_v * time) * turn_v * np.nan_to_num(v)
    A_v = A[..., :1] if v.shape[1] != n else A
    return (A_v * pulled).sum(1), np.moveaxis(A, -1, 0), precision


def data(n_times, channels=2, seed=0, span=12.0, missing=True):
    rng = np.random.default_rng(seed)
    t = np.sort(rng.uniform(0, span, n_times))
    t[5:8] = t[5]  # repeated stamps
    q, k, v = rng.standard_normal((3, n_times, channels, 2)) @ [1, 1j]
    if missing:
        k[9, 0] = np.nan
        v[20] = np.nan
        v[-1, 0] = np.nan
    return q, k, v, t


def paired(z):
    return np.stack([z.real, z.imag], axis=-1).reshape(*z.shape[:-1], -1)


@pytest.fixture
def small_tiles(monkeypatch):
    """Blocks and tiles so small that a hundred points cross many of their borders."""
    monkeypatch.setattr(pairs, "TILE", 16 * 12)
    monkeypatch.setattr(pairs, "KEYS", 12)
    monkeypatch.setattr(sums, "BAND", 48)
    monkeypatch.setattr(sums, "LEAST_BAND", 16)


PARAMETERS = {
    "frequency": np.array([1.0, -0.4]),
    "process_var": 0.3,
    "key_var": 0.5,
    "query_var": 0.1,
}


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("decay", [0.0, 0.3, 20.0])
@pytest.mark.parametrize("weight", WEIGHTS, ids=str)
@pytest.mark.parametrize("beta", [1.0, 2.3])
@pytest.mark.parametrize(("causal", "backward"), DIRECTIONS)
def test_equals_the_dense_formula(decay, weight, beta, causal, backward):
    q, k, v, t = data(110)
    t = t / (1 if decay < 1 else 40)  # the oracle forms e^{2 mu T} and must not overflow
    options = {
        **PARAMETERS,
        "decay": decay,
        "weight": weight,
        "inverse_temperature": beta,
        "causal": causal,
        "backward": backward,
    }
    got = isotropic_attention(q, k, v, t, **options, return_weights=True)
    output, A, precision = dense_attention(q, k, v, t, **options)
    np.testing.assert_allclose(got.output, output, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(got.weights, np.nan_to_num(A[0]), rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(got.precision, precision[:, 0], rtol=1e-10, atol=1e-300)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("weight", [None, Power(4.0, 1.0), Power(4.0), Huber(1.0)], ids=str)
@pytest.mark.parametrize(("causal", "backward"), DIRECTIONS)
def test_blocks_that_share_far_keys(decay, weight, causal, backward):
    q, k, v, t = data(400)
    options = {
        **PARAMETERS,
        "decay": decay,
        "weight": weight,
        "causal": causal,
        "backward": backward,
    }
    rows = np.unique(np.linspace(0, 399, 60).astype(int))
    output, _, precision = dense_attention(
        q[rows], k, v, t, t_query=t[rows], n_visible=rows + 1, **options
    )
    got = isotropic_attention(q, k, v, t, **options)
    np.testing.assert_allclose(got.output[rows], output, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(got.precision[rows], precision[:, 0], rtol=1e-10)


@pytest.mark.parametrize("weight", [None, Power(4.0), Exponential(6.0)], ids=str)
@pytest.mark.parametrize(("causal", "backward"), DIRECTIONS)
def test_full_size_tiles_and_threads(weight, causal, backward):
    q, k, v, t = data(1600, span=30.0)
    options = {
        **PARAMETERS,
        "decay": 0.2,
        "weight": weight,
        "causal": causal,
        "backward": backward,
        "value_decay": 0.1,
        "value_frequency": np.array([0.3, 2.0]),
    }
    rows = np.array([0, 255, 256, 700, 1111, 1599])
    output, _, precision = dense_attention(
        q[rows], k, v, t, t_query=t[rows], n_visible=rows + 1, **options
    )
    got = isotropic_attention(q, k, v, t, **options, threads=2)
    np.testing.assert_allclose(got.output[rows], output, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(got.precision[rows], precision[:, 0], rtol=1e-10)
    alone = isotropic_attention(q, k, v, t, **options, threads=1)
    np.testing.assert_allclose(got.output, alone.output, rtol=1e-12, atol=1e-13)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("weight", [None, Power(3.0), Huber(1.0)], ids=str)
@pytest.mark.parametrize(("causal", "backward"), DIRECTIONS)
def test_queries_off_the_grid(weight, causal, backward):
    q, k, v, t = data(90)
    t_query = np.sort(np.concatenate([[-2.0, -0.5, 14.0, 30.0], t[10:14], t[:60:7] + 0.01]))
    queries = q[: len(t_query)]
    options = {
        **PARAMETERS,
        "decay": 0.4,
        "weight": weight,
        "causal": causal,
        "backward": backward,
        "t_query": t_query,
    }
    seen = np.searchsorted(t, t_query, side="right")
    output, A, precision = dense_attention(queries, k, v, t, **options, n_visible=seen)
    got = isotropic_attention(queries, k, v, t, **options, return_weights=True)
    np.testing.assert_allclose(got.output, output, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(got.precision, precision[:, 0], rtol=1e-10)
    np.testing.assert_allclose(got.weights, np.nan_to_num(A[0]), rtol=1e-9, atol=1e-13)
    assert np.isnan(got.output[0]).all() == causal
    assert (got.precision[0] == 0) == causal


def test_strictly_earlier_keys_only():
    q, k, v, t = data(40)
    seen = np.arange(40)
    options = {**PARAMETERS, "decay": 0.1, "weight": Power(2.0), "n_visible": seen}
    got = isotropic_attention(q, k, v, t, **options)
    output, _, _ = dense_attention(q, k, v, t, **options)
    assert np.isnan(got.output[0]).all()
    np.testing.assert_allclose(got.output, output, rtol=1e-10)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("weight", [None, Power(3.0, 1.0), Exponential(4.0)], ids=str)
@pytest.mark.parametrize("window", [1, 7, 30, 1000])
@pytest.mark.parametrize(("causal", "backward"), DIRECTIONS)
def test_window_by_lag(weight, window, causal, backward):
    q, k, v, t = data(100, missing=False)
    options = {
        **PARAMETERS,
        "decay": 0.4,
        "weight": weight,
        "causal": causal,
        "backward": backward,
        "window": window,
    }
    got = isotropic_attention(q, k, v, t, **options)
    output, _, precision = dense_attention(q, k, v, t, **options)
    np.testing.assert_allclose(got.output, output, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(got.precision, precision[:, 0], rtol=1e-10)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("weight", [None, Power(3.0, 1.0), Exponential(4.0)], ids=str)
@pytest.mark.parametrize("tolerance", [1e-2, 1e-5])
@pytest.mark.parametrize(
    ("options", "keys_per_row"),
    [
        ({"decay": 0.0, "inverse_temperature": 6.0, "process_var": 5.0}, 0.6),
        ({"decay": 3.0, "causal": False, "value_decay": 0.5}, 0.8),
    ],
)
def test_window_by_negligible_weight_keeps_its_bound(weight, tolerance, options, keys_per_row):
    q, k, v, t = data(400, span=80.0, missing=False)
    options = {**PARAMETERS, "weight": weight, **options}
    exact = isotropic_attention(q, k, v, t, **options)
    short = isotropic_attention(
        q, k, v, t, **options, window_tolerance=tolerance, return_weights=True
    )
    error = np.linalg.norm(short.output - exact.output, axis=-1)
    size = np.linalg.norm(exact.output, axis=-1) + np.linalg.norm(v, axis=-1).max()
    assert (error <= tolerance * size).all()
    visible = 400 * 401 / 2 if options.get("causal", True) else 400 * 400
    assert np.count_nonzero(short.weights) < keys_per_row * visible


@pytest.mark.parametrize("weight", [None, Power(3.0), Huber(2.0)], ids=str)
def test_paired_real_channels_are_complex_channels(weight):
    q, k, v, t = data(60)
    options = {**PARAMETERS, "decay": 0.2, "weight": weight, "causal": False}
    wanted = isotropic_attention(q, k, v, t, **options, return_weights=True)
    got = isotropic_attention(paired(q), paired(k), paired(v), t, **options, return_weights=True)
    assert np.iscomplexobj(wanted.output)
    np.testing.assert_array_equal(got.output, paired(wanted.output))
    np.testing.assert_array_equal(got.weights, wanted.weights)


@pytest.mark.parametrize("d", [1, 3, 5])
def test_odd_last_channel_does_not_rotate(d):
    rng = np.random.default_rng(1)
    t = np.cumsum(rng.exponential(0.2, 50))
    q, k, v = rng.standard_normal((3, 50, d))
    omega = np.arange(1.0, d // 2 + 1)
    options = {"decay": 0.2, "process_var": 0.3, "key_var": 0.5}
    # A weight that takes the dimension must see d, not the padded d + 1.
    weight = Power(3.0, (3.0 + d) / d)
    pad = [np.concatenate([x, np.zeros((50, 1))], axis=1) for x in (q, k, v)]
    z = [x[:, 0::2] + 1j * x[:, 1::2] for x in pad]
    output, _, _ = dense_attention(*z, t, frequency=np.append(omega, 0), weight=weight, **options)
    got = isotropic_attention(q, k, v, t, frequency=omega, weight=Power(3.0), **options)
    np.testing.assert_allclose(got.output, paired(output)[:, :d], rtol=1e-10, atol=1e-13)


def test_heads_and_batches_broadcast():
    rng = np.random.default_rng(2)
    t = np.sort(rng.uniform(0, 5, 30))
    q = rng.standard_normal((4, 1, 30, 2))
    k = rng.standard_normal((3, 30, 2))
    v = rng.standard_normal((4, 3, 30, 4))
    decay, beta = np.array([0.1, 0.5, 0.0]), np.array([1.0, 2.0, 0.7])
    frequency = rng.standard_normal((3, 1))
    value_frequency = rng.standard_normal((3, 2))
    got = isotropic_attention(
        q, k, v, t, decay=decay, frequency=frequency, process_var=np.array([[1.0], [2], [3], [4]]),
        key_var=0.4, value_frequency=value_frequency, weight=Power(2.0), inverse_temperature=beta,
        return_weights=True,
    )  # fmt: skip
    assert got.output.shape == (4, 3, 30, 4)
    assert got.weights.shape == (4, 3, 30, 30)
    assert got.precision.shape == (4, 3, 30)
    for b, h in np.ndindex(4, 3):
        output, A, _ = dense_attention(
            q[b, 0] @ [[1], [1j]], k[h] @ [[1], [1j]], v[b, h] @ np.kron(np.eye(2), [[1], [1j]]), t,
            decay=decay[h], frequency=frequency[h], process_var=b + 1.0, key_var=0.4,
            value_decay=decay[h], value_frequency=value_frequency[h], weight=Power(2.0),
            inverse_temperature=beta[h],
        )  # fmt: skip
        np.testing.assert_allclose(got.output[b, h], paired(output), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(got.weights[b, h], A[0], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("causal", "backward"), DIRECTIONS)
@pytest.mark.parametrize("missing", [False, True])
def test_paths_of_equal_weights_agree_with_single_paths(causal, backward, missing):
    rng = np.random.default_rng(3)
    t = np.sort(rng.uniform(0, 8, 40))
    z = rng.standard_normal((2, 150, 40, 3))
    if missing:
        z[rng.random(z.shape) < 0.1] = np.nan
    options = {
        "decay": 0.3,
        "frequency": 1.0,
        "process_var": 0.2,
        "key_var": 0.4,
        "causal": causal,
        "backward": backward,
    }
    got = isotropic_attention(None, None, z, t, **options)
    for i, j in [(0, 0), (0, 149), (1, 7)]:
        wanted = isotropic_attention(z[i, j], z[i, j], z[i, j], t, **options)
        np.testing.assert_allclose(got.output[i, j], wanted.output, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(got.precision[i, j], wanted.precision, rtol=1e-11)


def exact_attention(q, k, v, t, mu, s2, eta2, gamma2, weight, causal):
    """One real channel, plainly, with fifty digits and an unbounded exponent."""
    with mpmath.workdps(50):
        out = []
        for i, now in enumerate(t):
            num = den = mpmath.mpf(0)
            for j in range(i + 1 if causal else len(t)):
                tau = mpmath.mpf(now) - mpmath.mpf(t[j])
                E = mpmath.exp(-mu * tau)
                size = abs(tau)
                grown = (1 - E**2) / (2 * mpmath.mpf(mu)) if mu else size
                V = s2 * abs(grown)
                P = 1 / (V + eta2 * E**2 + gamma2)
                d2 = P * (mpmath.mpf(q[i]) - E * mpmath.mpf(k[j])) ** 2
                w = weight(d2) * P
                num += w * E * mpmath.mpf(v[j])
                den += w
            out.append((num / den, den))
        return out


MP_WEIGHTS = [
    (None, lambda d2: 1),
    (Power(3.0, 1.0), lambda d2: 1 / (1 + d2 / 3)),
    (Power(3.0, 2.5), lambda d2: (1 + d2 / 3) ** mpmath.mpf(-2.5)),
    (Exponential(2.0), lambda d2: mpmath.exp(-d2 / 2)),
]


@pytest.mark.parametrize(("weight", "formula"), MP_WEIGHTS, ids=lambda x: str(x)[:20])
@pytest.mark.parametrize("noise", [(0.3, 0.5, 0.0), (0.3, 0.5, 0.2), (0.0, 0.5, 0.1)])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("span", [3.0, 700.0, 1e4])
def test_long_records_do_not_overflow(weight, formula, noise, causal, span):
    rng = np.random.default_rng(4)
    t = np.sort(rng.uniform(0, span, 14))
    t[6:9] = t[6] + np.array([0, 0.1, 0.3])
    q, k, v = rng.standard_normal((3, 14))
    wanted = exact_attention(q, k, v, t, 1.0, *noise, formula, causal)
    got = isotropic_attention(
        q[:, None], k[:, None], v[:, None], t, decay=1.0, process_var=noise[0], key_var=noise[1],
        query_var=noise[2], weight=weight, causal=causal,
    )  # fmt: skip
    mean = np.array([float(m) for m, _ in wanted])
    np.testing.assert_allclose(got.output[:, 0], mean, rtol=1e-9, atol=1e-13)
    precision = np.array([float(p) for _, p in wanted])
    np.testing.assert_allclose(got.precision, precision, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize(("weight", "formula"), MP_WEIGHTS[:3], ids=lambda x: str(x)[:20])
@pytest.mark.parametrize("causal", [True, False])
def test_without_process_noise_precisions_beyond_the_float_range(weight, formula, causal):
    t = np.array([0.0, 10.0, 500.0, 900.0, 900.5, 1300.0])
    q, k, v = np.random.default_rng(5).standard_normal((3, 6))
    wanted = exact_attention(q, k, v, t, 1.0, 0.0, 0.5, 0.0, formula, causal)
    got = isotropic_attention(
        q[:, None], k[:, None], v[:, None], t, decay=1.0, process_var=0.0, key_var=0.5,
        weight=weight, causal=causal,
    )  # fmt: skip
    mean = np.array([float(m) for m, _ in wanted])
    np.testing.assert_allclose(got.output[:, 0], mean, rtol=1e-9, atol=1e-300)


def test_queries_long_before_the_first_key():
    t, t_query = np.array([600.0, 601.0, 640.0]), np.array([0.0, 300.0, 599.0, 620.0])
    v = np.array([[1.0], [-2.0], [0.5]])
    got = isotropic_attention(
        None, None, v, t, decay=1.0, process_var=0.3, key_var=0.5, causal=False, t_query=t_query
    )
    with mpmath.workdps(50):
        for i in range(3):
            num = den = mpmath.mpf(0)
            for j in range(3):
                lag = mpmath.mpf(t[j] - t_query[i])
                V = mpmath.mpf("0.3") * mpmath.expm1(2 * lag) / 2 + mpmath.mpf("0.5") * mpmath.exp(
                    2 * lag
                )
                num += mpmath.exp(lag) * mpmath.mpf(v[j, 0]) / V
                den += 1 / V
            assert got.output[i, 0] == pytest.approx(float(num / den), rel=1e-10)
            assert got.precision[i] == pytest.approx(float(den), rel=1e-10, abs=1e-300)


def test_tiny_noise_far_from_the_origin_takes_differences():
    rng = np.random.default_rng(6)
    t = np.cumsum(rng.exponential(0.1, 40))
    path = 1e3 + np.cumsum(rng.standard_normal(40)) * 1e-4
    noise = (1e-7, 1e-8, 0.0)
    for mu in (0.0, 1e-6, 0.5):
        q = k = v = path * np.exp(-mu * t)
        formula = MP_WEIGHTS[1][1]
        wanted = exact_attention(q, k, v, t, mu, *noise, formula, True)
        got = isotropic_attention(
            q[:, None],
            k[:, None],
            v[:, None],
            t,
            decay=mu,
            process_var=noise[0],
            key_var=noise[1],
            weight=Power(3.0, 1.0),
        )
        np.testing.assert_allclose(
            got.precision, [float(p) for _, p in wanted], rtol=1e-8, err_msg=f"mu = {mu}"
        )


@pytest.mark.parametrize("weight", [None, Power(4.0, 1.0), Power(4.0), Exponential(8.0)], ids=str)
@pytest.mark.parametrize(("causal", "backward"), DIRECTIONS)
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_single_precision(weight, causal, backward, offset):
    q, k, v, t = data(700, channels=4, span=50.0, missing=False)
    q, k, v = (x.astype(np.complex64) + np.float32(offset) for x in (q, k, v))
    options = {
        "decay": 0.2,
        "frequency": np.array([0.1, 0.0, 1.0, 3.0]),
        "process_var": 0.3,
        "key_var": 0.5,
        "weight": weight,
        "causal": causal,
        "backward": backward,
    }
    single = isotropic_attention(q, k, v, t, **options)
    double = isotropic_attention(*(x.astype(complex) for x in (q, k, v)), t, **options)
    assert single.output.dtype == np.complex64
    assert single.precision.dtype == np.float32
    scale = np.abs(v).max()
    assert np.abs(single.output - double.output).max() <= 1e-4 * scale
    np.testing.assert_allclose(single.precision, double.precision, rtol=3e-4)


def test_memory_does_not_grow_with_the_square():
    rng = np.random.default_rng(7)
    n, d = 4096, 16
    t = np.cumsum(rng.exponential(0.1, n))
    q, k, v = rng.standard_normal((3, n, d))
    options = {"decay": 0.1, "frequency": 1.0, "process_var": 0.3, "key_var": 0.5, "threads": 2}
    for weight in (None, Power(4.0, 1.0), Power(4.0), Exponential(9.0)):
        isotropic_attention(*(x[:9] for x in (q, k, v, t)), **options, weight=weight)  # compiles
        tracemalloc.start()
        result = isotropic_attention(q, k, v, t, **options, weight=weight)
        peak = tracemalloc.get_traced_memory()[1] - result.output.nbytes - result.precision.nbytes
        tracemalloc.stop()
        assert peak < 16 * 2**20, weight  # one N x N array is 128 MiB


def test_unknown_queries_have_no_answer_and_harm_nobody():
    q, k, v, t = data(60)
    options = {**PARAMETERS, "decay": 0.2, "weight": Power(3.0)}
    wanted = isotropic_attention(q, k, v, t, **options)
    q[17, 1] = np.nan
    got = isotropic_attention(q, k, v, t, **options, return_weights=True)
    assert np.isnan(got.output[17]).all()
    assert got.precision[17] == 0
    assert (got.weights[17] == 0).all()
    others = np.arange(60) != 17
    np.testing.assert_allclose(got.output[others], wanted.output[others], rtol=1e-12)


def test_no_key_at_all():
    _, _, v, t = data(40)
    v[:] = np.nan
    got = isotropic_attention(v, v, v, t, decay=0.1, process_var=1.0, key_var=1.0, causal=False)
    assert np.isnan(got.output).all()
    assert (got.precision == 0).all()


def test_projections_and_residual_step():
    rng = np.random.default_rng(8)
    t = np.cumsum(rng.exponential(0.2, 25))
    x = rng.standard_normal((25, 5))
    W_q, W_k, W_v = rng.standard_normal((3, 3, 5, 4))
    W_o = rng.standard_normal((3, 4, 5))
    options = {"decay": 0.2, "frequency": 1.0, "process_var": 0.3, "key_var": 0.5}
    got = isotropic_attention(
        x, x, x, t, **options, weight=Power(3.0), projections=(W_q, W_k, W_v, W_o)
    )
    assert got.output.shape == (3, 25, 5)
    for h in range(3):
        z = [(x @ W[h])[:, 0::2] + 1j * (x @ W[h])[:, 1::2] for W in (W_q, W_k, W_v)]
        output, _, _ = dense_attention(
            *z, t, **{**options, "frequency": np.ones(2)}, weight=Power(3.0)
        )
        np.testing.assert_allclose(got.output[h], paired(output) @ W_o[h], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("attention", [isotropic_attention, tensor_attention])
def test_innovation_step_moves_from_the_values(attention):
    q, k, v, t = data(30, missing=False)
    v[4] = np.nan
    options = {**PARAMETERS, "decay": 0.2, "weight": Power(3.0)}
    output = attention(q, k, v, t, **options).output
    stepped = attention(q, k, v, t, **options, residual_step=0.3).output
    known = np.arange(30) != 4
    np.testing.assert_allclose(stepped[known], (v + 0.3 * (output - v))[known], rtol=1e-13)
    np.testing.assert_array_equal(stepped[4], output[4])


# Limits


def unit_vectors(rng, n_times, channels):
    z = rng.standard_normal((n_times, channels, 2)) @ [1, 1j]
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def softmax_attention(q, k, v, t, frequency, sharpness, bias=0.0):
    """Causal rotary dot-product attention with rotated values."""
    back = np.exp(-1j * np.outer(t, frequency))
    scores = sharpness * np.real((q * back).conj() @ (k * back).T) + bias
    scores[np.triu_indices(len(t), 1)] = -np.inf
    A = np.exp(scores - scores.max(1, keepdims=True))
    A /= A.sum(1, keepdims=True)
    return back.conj() * (A @ (v * back)), A


@pytest.mark.parametrize("frequency", [np.array([0.7, -2.0, 0.1]), np.zeros(3)])
def test_rotary_attention_is_reached_at_first_order(frequency):
    rng = np.random.default_rng(9)
    t = np.cumsum(rng.exponential(0.3, 50))
    q, k = unit_vectors(rng, 50, 3), unit_vectors(rng, 50, 3)
    v = rng.standard_normal((50, 3)) + 0j
    sharpness, kappa = 4.0, 1.5
    wanted, _ = softmax_attention(q, k, v, t, frequency, sharpness)
    still = {"decay": 0.0, "frequency": frequency, "process_var": 0.0, "key_var": 0.0}
    scales = np.array([1e2, 1e3, 1e4])  # nu gamma^2
    errors = []
    for scale in scales:
        got = isotropic_attention(
            q,
            k,
            v,
            t,
            **still,
            query_var=scale / 5.0,
            weight=Power(5.0, kappa),
            inverse_temperature=sharpness * scale / (2 * kappa),
        )
        errors.append(np.abs(got.output - wanted).max())
    rate = np.polyfit(np.log(scales), np.log(errors), 1)[0]
    assert rate == pytest.approx(-1.0, abs=0.03)
    exact = isotropic_attention(
        q,
        k,
        v,
        t,
        **still,
        query_var=0.5,
        weight=Exponential(3.0),
        inverse_temperature=sharpness * 1.5 / 2,
    )
    np.testing.assert_allclose(exact.output, wanted, atol=1e-13)


def test_alibi_is_reached_at_first_order():
    rng = np.random.default_rng(10)
    t = np.arange(60.0)
    q, k = unit_vectors(rng, 60, 2), unit_vectors(rng, 60, 2)
    v = rng.standard_normal((60, 2)) + 0j
    slope, sharpness, noise = 0.2, 1.5, 1.0  # eta^2 + gamma^2 = 1
    lag = t[:, None] - t
    _, wanted = softmax_attention(q, k, v, t, np.zeros(2), sharpness, -slope * lag)
    steps, errors = np.array([1e-3, 1e-4, 1e-5]), []
    for step in steps:  # sigma^2, at a fixed product beta sigma^2 = slope (eta^2 + gamma^2)
        beta = slope * noise / step
        # d2 = |q - k|^2 / S: the exponential weight scores 2 beta / nu <q, k>.
        got = isotropic_attention(
            q, k, v, t, decay=0.0, process_var=step, key_var=0.4 * noise, query_var=0.6 * noise,
            weight=Exponential(2 * beta / sharpness), inverse_temperature=beta, return_weights=True,
        )  # fmt: skip
        errors.append(np.abs(got.weights - wanted).max())
    assert np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(1.0, abs=0.05)


def test_large_process_noise_leaves_the_raw_observation():
    rng = np.random.default_rng(11)
    t = np.cumsum(rng.uniform(0.1, 0.3, 40))
    z = rng.standard_normal((40, 2))
    sizes = np.array([1e3, 1e5, 1e7])
    errors = [
        np.abs(
            isotropic_attention(
                z, z, z, t, decay=0.2, frequency=1.0, process_var=s, key_var=0.5, causal=False
            ).output
            - z
        ).max()
        for s in sizes
    ]
    assert np.polyfit(np.log(sizes), np.log(errors), 1)[0] == pytest.approx(-1.0, abs=0.02)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_without_process_noise_it_is_the_kalman_filter(decay):
    rng = np.random.default_rng(12)
    t = np.cumsum(rng.exponential(0.3, 50))
    z = rng.standard_normal((50, 2)) @ [1, 1j]
    got = isotropic_attention(
        None, None, z[:, None], t, decay=decay, frequency=0.8, process_var=0.0, key_var=0.5
    )
    mean, precision = z[0], 2.0
    for i in range(1, 50):  # textbook information filter with a flat prior
        step = t[i] - t[i - 1]
        mean = mean * np.exp((-decay + 0.8j) * step)
        precision *= np.exp(2 * decay * step)
        precision += 2.0
        mean += (z[i] - mean) * 2.0 / precision
        assert got.output[i, 0] == pytest.approx(mean, rel=1e-10)
        assert got.precision[i] == pytest.approx(precision, rel=1e-10)


def test_unitary_dynamics_average_in_the_rotating_frame():
    rng = np.random.default_rng(13)
    t = np.cumsum(rng.exponential(0.3, 50))
    z = rng.standard_normal((50, 3, 2)) @ [1, 1j]
    omega = np.array([1.0, -2.0, 0.3])
    got = isotropic_attention(
        None, None, z, t, decay=0.0, frequency=omega, process_var=0.0, key_var=0.5, causal=False
    )
    turn = np.exp(1j * np.outer(t, omega))
    np.testing.assert_allclose(got.output, turn * (z / turn).mean(0), rtol=1e-11)
    size = np.linalg.norm(got.output, axis=1)
    np.testing.assert_allclose(size, size[0], rtol=1e-11)


def test_the_published_code_is_reproduced():
    q, k, v, t = data(30, channels=3, missing=False)
    mu, s2, eta2, gamma2, nu, tau = 0.3, 0.2, 0.5, 0.1, 4.0, 1.3
    lag = np.abs(t[:, None] - t)
    E = np.exp(-mu * lag)
    V = s2 * (1 - E**2) / (2 * mu) + eta2 * E**2 + gamma2
    back = np.exp(-1j * np.outer(t, [1.0, 0.5, 0.0]))
    R2 = np.sum(np.abs((q * back)[:, None] - E[..., None] * (k * back)) ** 2, axis=-1)
    logits = tau**2 * (-np.log(V) - np.log(1 + R2 / (nu * 3 * V)))
    A = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wanted = back.conj() * ((A * E) @ (v * back))
    got = isotropic_attention(
        q, k, v, t, decay=mu, frequency=np.array([1.0, 0.5, 0.0]), process_var=s2, key_var=eta2,
        query_var=gamma2, weight=Power(nu * 3, 1.0), inverse_temperature=tau**2, causal=False,
        backward="symmetric",
    )  # fmt: skip
    np.testing.assert_allclose(got.output, wanted, rtol=1e-11, atol=1e-13)


# Tensor form

MODES = {
    "decay": np.array([0.1, 0.0, 1.2]),
    "frequency": np.array([1.0, -0.4, 0.0]),
    "process_var": np.array([0.3, 0.0, 2.0]),
    "key_var": np.array([0.5, 0.2, 1.0]),
    "query_var": np.array([0.1, 0.3, 0.0]),
}


@pytest.mark.parametrize("weight", [None, Power(3.0), Exponential(5.0), Huber(1.5)], ids=str)
@pytest.mark.parametrize("beta", [1.0, 1.6])
@pytest.mark.parametrize("prior", [0.0, np.array([0.0, 2.0, 0.5])])
@pytest.mark.parametrize(("causal", "backward"), DIRECTIONS)
def test_tensor_equals_the_dense_formula(weight, beta, prior, causal, backward):
    q, k, v, t = data(150, channels=3, span=6.0)
    options = {
        **MODES,
        "weight": weight,
        "inverse_temperature": beta,
        "prior_precision": prior,
        "causal": causal,
        "backward": backward,
    }
    got = tensor_attention(q, k, v, t, **options, return_weights=True)
    output, A, precision = dense_attention(q, k, v, t, **options)
    np.testing.assert_allclose(got.output, output, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(got.weights, A, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(got.precision, precision, rtol=1e-9)


def test_tensor_of_equal_modes_is_isotropic():
    q, k, v, t = data(80, channels=2)
    options = {**PARAMETERS, "decay": 0.3, "weight": Power(2.0), "window": 20}
    for inputs in ((q, k, v), tuple(paired(x)[:, :3] for x in (q, k, v))):
        frequency = PARAMETERS["frequency"][: inputs[0].shape[1] // (1 if q is inputs[0] else 2)]
        at = {**options, "frequency": frequency, "causal": False}
        iso = isotropic_attention(*inputs, t, **at)
        tensor = tensor_attention(*inputs, t, **at)
        np.testing.assert_allclose(tensor.output, iso.output, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(tensor.precision[:, 0], iso.precision, rtol=1e-10)


def test_tensor_heads_long_records_and_single_precision():
    rng = np.random.default_rng(14)
    t = np.sort(rng.uniform(0, 1e4, 40))
    z = rng.standard_normal((2, 40, 4))
    decay = np.array([[1.0, 0.1], [0.0, 2.0]])
    for causal in (True, False):
        options = {"process_var": 0.3, "key_var": 0.5, "weight": Power(3.0), "causal": causal}
        got = tensor_attention(z, z, z, t, decay=decay, **options)
        assert np.isfinite(got.output).all()
        assert got.precision.shape == (2, 40, 2)
        low = z.astype(np.float32)
        single = tensor_attention(low, low, low, t, decay=decay, **options)
        assert single.output.dtype == np.float32
        np.testing.assert_allclose(single.output, got.output, atol=1e-3)
    one = tensor_attention(z[1], z[1], z[1], t, decay=decay[1], **options)
    np.testing.assert_allclose(one.output, got.output[1], rtol=1e-12)


# Arguments

GOOD = {"decay": 0.1, "process_var": 1.0, "key_var": 1.0}
X = np.zeros((5, 2))
T = np.arange(5.0)


@pytest.mark.parametrize("attention", [isotropic_attention, tensor_attention])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t": T[::-1]}, "must not decrease"),
        ({"t": T[:4]}, "one row per time"),
        ({"t": ["a"] * 5}, "must be numbers"),
        ({"q": np.zeros(5)}, "q must have shape"),
        ({"k": np.full((5, 2), np.inf)}, "k must not contain infinities"),
        ({"v": np.array([["a", "b"]] * 5)}, "v must be numbers"),
        ({"q": np.zeros((5, 4)), "weight": Power(2.0)}, "same number of channels"),
        ({"q": np.zeros((2, 5, 2)), "k": np.zeros((3, 5, 2))}, "leading axes"),
        ({"decay": -0.1}, "decay must be >= 0"),
        ({"decay": np.nan}, "decay must be finite"),
        ({"inverse_temperature": np.ones(3), "v": np.zeros((2, 5, 2))}, "must broadcast"),
        ({"key_var": 0.0}, "key_var \\+ query_var must be > 0"),
        ({"frequency": np.ones(3)}, "frequency must|value_frequency must"),
        ({"inverse_temperature": 0.0}, "inverse_temperature must be > 0"),
        ({"weight": 2.0}, "a word such as .* or a weight"),
        ({"backward": "both"}, "'exact', 'symmetric'"),
        ({"q": None, "weight": Power(2.0)}, "q and k must be given"),
        ({"window": 0}, "window must be >= 1"),
        ({"window": 1.5}, "whole number"),
        ({"threads": 0}, "threads must be >= 1"),
        ({"n_visible": np.arange(5.0)}, "whole numbers"),
        ({"n_visible": np.arange(4)}, "n_visible must have shape"),
        ({"n_visible": np.array([1, 2, 3, 4, 6])}, "lie in 0..5"),
        ({"n_visible": np.array([3, 3, 3, 4, 5])}, "later than its query"),
        ({"n_visible": np.array([0, 0, 1, 2, 3]), "causal": False}, "n_visible leaves"),
        ({"t_query": T[:3]}, "q must have shape"),
        ({"projections": (np.eye(2),)}, "projections must be"),
        ({"projections": (np.eye(3), None, None, None)}, "W_q must have shape"),
        ({"projections": (None, None, np.full((2, 2), np.nan), None)}, "finite"),
        ({"t_query": T, "residual_step": 0.5}, "residual_step moves from the values v"),
        ({"residual_step": "half"}, "residual_step"),
    ],
)
def test_bad_arguments(attention, change, message):
    arguments = {"q": X, "k": X, "v": X, "t": T, **GOOD, **change}
    q, k, v, t = (arguments.pop(name) for name in ("q", "k", "v", "t"))
    with pytest.raises((ValueError, TypeError), match=message):
        attention(q, k, v, t, **arguments)


def test_bad_window_tolerance_and_modes():
    with pytest.raises(ValueError, match="window_tolerance"):
        isotropic_attention(X, X, X, T, **GOOD, window_tolerance=-1.0)
    with pytest.raises(ValueError, match="decay must be a scalar or have shape"):
        tensor_attention(X, X, X, T, **{**GOOD, "decay": np.ones(2)})
    with pytest.raises(ValueError, match="same channels"):
        tensor_attention(X, X, np.zeros((5, 4)), T, **GOOD)
    with pytest.raises(ValueError, match="no pair to rotate"):
        isotropic_attention(X[:, :1], X[:, :1], X[:, :1], T, **GOOD, frequency=1.0)


def test_an_error_in_a_thread_reaches_the_caller(monkeypatch):
    class Broken(Exponential):
        def log(self, d2, dim):
            raise RuntimeError("broken weight")

    monkeypatch.setattr(threads, "SERIAL_WORK", 0)
    x = np.zeros((600, 2))
    with pytest.raises(RuntimeError, match="broken weight"):
        isotropic_attention(x, x, x, np.arange(600.0), **GOOD, weight=Broken(1.0), threads=2)


@pytest.mark.parametrize("options", [{}, {"causal": False}, {"weight": Power(3.0)}, {"window": 2}])
def test_no_paths_at_all(options):
    z = np.zeros((0, 4, 2))
    for function, one in ((isotropic_attention, 0.2), (tensor_attention, [0.2])):
        found = function(z, z, z, range(4), decay=one, process_var=one, key_var=one, **options)
        assert found.output.shape == (0, 4, 2)
