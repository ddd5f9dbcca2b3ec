"""The core's kernels of AFA against twins written pair by pair with matrix exponentials."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import expm

from afafilter import LinearSDE
from afafilter.adaptive import recursions
from afafilter.adaptive.dense import Pattern, make_pattern, make_plan, tiles
from afafilter.adaptive.options import Options, make_spans
from tests.oracles import step_noise

GRID = np.array([0.0, 0.3, 0.3, 0.9, 1.0, 1.6, 2.1, 2.2, 3.0, 3.5, 3.9])


def random_model(d: int, p: int, seed: int, *, grows: bool = False) -> LinearSDE:
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((d, d)) + (0.8 if grows else -0.8) * np.eye(d)
    noise, error = rng.standard_normal((d, max(d - 1, 1))), rng.standard_normal((p, p))
    C = np.eye(d) + 0.2 * rng.standard_normal((d, d)) if p == d else rng.standard_normal((p, d))
    return LinearSDE(A, Q=noise @ noise.T, R=error @ error.T + 0.3 * np.eye(p), C=C)


def pattern_of(model: LinearSDE, z: np.ndarray, *, causal: bool) -> Pattern:
    options = Options(causal)
    spans = make_spans(GRID, None, 0.0, options)
    R = np.broadcast_to(model.R, (len(GRID), *model.R.shape))
    plan = make_plan(model, spans, R, None, uniform_noise=True)
    found = make_pattern(plan, z[None], ~np.isnan(z), chain=False, predicts=False)
    assert found is not None
    return found


def information(model: LinearSDE, tau: float, y: np.ndarray, seen: np.ndarray):
    """H^T S^-1 H and H^T S^-1 y of one observation at lag tau, and H, S (MATH, any C)."""
    C, R = model.C[seen], model.R[np.ix_(seen, seen)]
    H = C @ expm(-model.A * tau)
    sign = -1.0 if tau >= 0 else 1.0
    S = R + C @ step_noise(sign * model.A, model.Q, abs(tau)) @ C.T
    inverse = np.linalg.inv(S)
    return H.T @ inverse @ H, H.T @ inverse @ y[seen], H, S


def gaps(model: LinearSDE, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((len(GRID), model.obs_dim))
    z[4] = np.nan
    if model.obs_dim > 1:
        z[2, 0] = z[7, 1] = np.nan
    return z


CASES = [(1, 1, False), (2, 1, False), (2, 2, True), (3, 2, False), (4, 2, False), (4, 4, True),
         (5, 3, False), (5, 2, True)]  # fmt: skip


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("d", "p", "grows"), CASES)
def test_equations_hold_the_information_of_each_pair(d: int, p: int, grows: bool, causal: bool):
    model = random_model(d, p, 10 * d + p, grows=grows)
    z = gaps(model, d)
    pattern = pattern_of(model, z, causal=causal)
    assert not pattern.exponent.any()
    r, turn = pattern.inputs.channels.C.shape[1], pattern.plan.coords.W_inv
    (tile,) = tiles(pattern, determinants=False)
    pairs = recursions.one_by_one(tile.pairs[None], len(GRID))[0]
    for i, time in enumerate(GRID):
        for k, j in enumerate(pattern.js):
            G, T = pairs[i, k, : r * d].reshape(r, d), pairs[i, k, r * d :].reshape(r, r)
            if causal and j > i:
                assert not G.any()
                continue
            want, vector, _, _ = information(model, time - GRID[j], z[j], ~np.isnan(z[j]))
            G = G @ turn
            size = np.abs(want).max()
            np.testing.assert_allclose(G.T @ G, want, rtol=1e-9, atol=1e-10 * size)
            got = G.T @ (T @ pattern.y[0, k])
            np.testing.assert_allclose(got, vector, rtol=1e-8, atol=1e-9 * np.sqrt(size))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("d", "p", "grows"), CASES)
def test_triangles_are_the_sums_of_the_equations(d: int, p: int, grows: bool, causal: bool):
    model = random_model(d, p, 7 * d + p, grows=grows)
    pattern = pattern_of(model, np.ones((len(GRID), p)), causal=causal)
    n, r, rng = len(pattern.js), pattern.inputs.channels.C.shape[1], np.random.default_rng(d)
    y = rng.standard_normal((n, r, 3))
    (tile,) = tiles(pattern, determinants=False)
    pairs = recursions.one_by_one(tile.pairs[None], len(GRID))[0]
    G = pairs[..., : r * d].reshape(len(GRID), n, r, d)
    T = pairs[..., r * d :].reshape(len(GRID), n, r, r)
    root = rng.random((2, *tile.used.shape))
    weight = recursions.one_by_one(root, len(GRID)) ** 2
    plain = recursions.plain_triangles(pattern.inputs, y)
    data = np.stack([y, 2.0 * y])
    weighted = recursions.weighted_triangles(tile.pairs, data, root, d, len(GRID))
    for found, w, right in ((plain, np.ones_like(weight[0]), y), (weighted[1], weight[1], 2 * y)):
        R, s = found[..., :d], found[..., d:]
        whole = np.einsum("qn,qnab,qnac->qbc", w, G, G)
        vector = np.einsum("qn,qnab,qnac,ncm->qbm", w, G, T, right)
        size = np.abs(whole).max()
        np.testing.assert_allclose(np.swapaxes(R, 1, 2) @ R, whole, rtol=1e-9, atol=1e-12 * size)
        np.testing.assert_allclose(np.swapaxes(R, 1, 2) @ s, vector, atol=1e-9 * size)
        assert np.array_equal(R, np.triu(R))


def test_distances_shares_and_determinants_pair_by_pair():
    d, p = 3, 2
    model = random_model(d, p, 1)
    pattern = pattern_of(model, gaps(model, 5), causal=False)
    rng = np.random.default_rng(2)
    (tile,) = tiles(pattern, determinants=True)
    n, r = tile.pairs.shape[1], pattern.inputs.channels.C.shape[1]
    pairs = recursions.one_by_one(tile.pairs[None], len(GRID))[0]
    anchor, X = rng.standard_normal((2, len(GRID), d)), rng.standard_normal((1, len(GRID), d, d))
    y, rest = rng.standard_normal((2, n, r)), rng.random((2, n))
    d2 = recursions.pair_distances(tile.pairs, y, rest, recursions.side_by_side(anchor))
    root = rng.random((1, *tile.used.shape))
    share = recursions.one_by_one(recursions.pair_shares(tile.pairs, X, root), len(GRID))
    d2, root = (recursions.one_by_one(part, len(GRID)) for part in (d2, root))
    assert tile.log_det is not None
    logs = recursions.one_by_one(tile.log_det[None], len(GRID))[0]
    for q in range(len(GRID)):
        for k, j in enumerate(pattern.js):
            G, T = pairs[q, k, : r * d].reshape(r, d), pairs[q, k, r * d :].reshape(r, r)
            error = T @ y[1, k] - G @ anchor[1, q]
            np.testing.assert_allclose(d2[1, q, k], error @ error + rest[1, k], rtol=1e-10)
            want = np.sum((G @ X[0, q]) ** 2) * root[0, q, k] ** 2
            np.testing.assert_allclose(share[0, q, k], want, rtol=1e-10)
            seen = ~np.isnan(gaps(model, 5)[j])
            whole = information(model, GRID[q] - GRID[j], np.zeros(p), seen)[0]
            values = np.sort(np.linalg.eigvalsh(whole))[-seen.sum() :]
            np.testing.assert_allclose(logs[q, k], np.log(values).mean(), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("d", [1, 2, 3, 4, 6])
def test_sweeps_side_by_side_are_sweeps_alone(d: int):
    """Each query by weights 1 among others, against one sweep for all of them."""
    from afafilter.adaptive.solutions import make_chain, make_query_steps

    model = random_model(d, 1, 3 + d)
    pattern = pattern_of(model, gaps(model, d), causal=False)
    chain, query_steps = make_chain(pattern), make_query_steps(pattern, pattern.used)
    alone = recursions.sweep_shared(chain, query_steps, np.moveaxis(pattern.y, 0, -1))
    n, bundles = len(pattern.js), -(-len(GRID) // recursions.BUNDLE)
    ones = np.ones((1, bundles, n, recursions.BUNDLE))
    beside = recursions.sweep_each(chain, query_steps, pattern.y, 0, ones)
    for a, b in zip(alone[:3], beside[:3], strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-9 * np.abs(a).max())
    R, other = alone.tri[0], beside.tri[0]
    for k in (slice(None, d), slice(d, None)):
        want = np.swapaxes(R[..., :d], 1, 2) @ R[..., k]
        found = np.swapaxes(other[..., :d], 1, 2) @ other[..., k]
        np.testing.assert_allclose(found, want, rtol=1e-8, atol=1e-9 * np.abs(want).max())


@pytest.mark.parametrize("n", [1, 7, 8, 19])
def test_bundles_come_apart_again(n: int):
    x = np.random.default_rng(n).standard_normal((2, n, 3, 2))
    np.testing.assert_array_equal(recursions.one_by_one(recursions.side_by_side(x), n), x)
