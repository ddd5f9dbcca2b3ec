"""The compiled recursions against the textbook's, one instance of their templates after another.

Oracle: covariance form of filter and RTS smoother (Särkkä & Svensson, Bayesian Filtering and
Smoothing, algorithms 6.1 and 12.2) with rows of what is missing left out. Only NumPy and the core
are needed, so that these tests also run under sanitizers.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
import pytest

from afafilter._core import core

SIZES = list(product(range(1, 10), range(1, 5)))
LANES = core.lanes()
LOG_2PI = np.log(2 * np.pi)


class Case(NamedTuple):
    """A chain as the core takes it, data of n paths with gaps, and the law before node 0."""

    chain: tuple
    z: np.ndarray
    seen: np.ndarray
    scale: np.ndarray
    L: np.ndarray
    m: np.ndarray


def by_columns(x):
    return np.ascontiguousarray(np.swapaxes(x, -1, -2))


def make_case(d, p, *, N=40, n=1, steps=None, gaps=0.2, own=False, correlated=True, seed=0):
    """Random steps, all different or `steps` of them; some nodes show nothing."""
    rng = np.random.default_rng((seed, d, p, N, n))
    U = N if steps is None else steps
    F = 0.5 * np.eye(d) + rng.normal(size=(U, d, d)) * 0.4 / np.sqrt(d)
    root = np.tril(rng.normal(size=(U, d, d)))
    if d > 1:
        root[::2, :, -1] = 0.0  # singular noise of the state
    R = rng.normal(size=(2, p, p))
    R = R @ np.swapaxes(R, -1, -2) + 0.1 * np.eye(p)
    if not correlated:
        R = R * np.eye(p)
    obs = np.full(N, -1)
    if steps is None:
        shows = np.sort(rng.choice(N, N - N // 8, replace=False))
        step, cfg = np.arange(N), rng.integers(0, 2, len(shows))
    else:
        shows = np.arange(N)
        step, cfg = np.sort(rng.integers(0, U, N)), np.zeros(N, np.int64)
    obs[shows] = np.arange(len(shows))
    T = len(shows)
    chain = (
        step, by_columns(F), rng.normal(size=(U, d)), by_columns(root), obs, cfg,
        rng.normal(size=(2, p, d)), rng.normal(size=(2, p)), R,
    )  # fmt: skip
    seen = rng.random((n if own else 1, T, p)) >= gaps
    scale = np.ones((len(seen), T))
    if steps is None:
        scale[:, ::5] = 2.5
    z = rng.normal(size=(n, T, p))
    z[~np.broadcast_to(seen, z.shape)] = np.nan
    L = np.triu(rng.normal(size=(d, d))) + 2 * np.eye(d)
    return Case(chain, z, seen, scale, L, rng.normal(size=(n, d)))


def textbook(case, path, first=0):
    """Filtered and smoothed laws, innovations, their covariances and log-likelihoods."""
    step, F, b, root, obs, cfg, H, off, R = case.chain
    which = path if len(case.seen) > 1 else 0
    seen, scale, z = case.seen[which], case.scale[which], case.z[path]
    m, P = case.m[path], case.L.T @ case.L
    N, (T, p), d = len(step), z.shape, len(m)
    out = {
        "mean": np.empty((N, d)),
        "cov": np.empty((N, d, d)),
        "innovation": np.full((T, p), np.nan),
        "S": np.zeros((T, p, p)),
        "loglik": np.zeros(T),
    }
    ahead = {}
    for k in range(first, N):
        if k > 0:
            A = F[step[k]].T
            G = P @ A.T
            m, P = A @ m + b[step[k]], A @ G + root[step[k]].T @ root[step[k]]
            ahead[k] = m, P, np.linalg.solve(P, G.T).T
        o = obs[k]
        if o >= 0:
            c, rows = cfg[o], seen[o]
            out["S"][o] = H[c] @ P @ H[c].T + scale[o] * R[c]
            h, S = H[c][rows], out["S"][o][np.ix_(rows, rows)]
            v = (z[o] - off[c] - H[c] @ m)[rows]
            out["innovation"][o, rows] = v
            gain = np.linalg.solve(S, h @ P).T
            m, P = m + gain @ v, P - gain @ S @ gain.T
            logdet = np.linalg.slogdet(S)[1] if len(v) else 0.0
            out["loglik"][o] = -0.5 * (len(v) * LOG_2PI + logdet + v @ np.linalg.solve(S, v))
        out["mean"][k], out["cov"][k] = m, P
    smoothed_mean, smoothed_cov = out["mean"].copy(), out["cov"].copy()
    for k in range(N - 2, first - 1, -1):
        before, spread, G = ahead[k + 1]
        smoothed_mean[k] += G @ (smoothed_mean[k + 1] - before)
        smoothed_cov[k] += G @ (smoothed_cov[k + 1] - spread) @ G.T
    return out | {"smoothed_mean": smoothed_mean, "smoothed_cov": smoothed_cov}


def room(case):
    """Output of filter_covariances: cov, S and gains; NaN, so that nothing is taken for granted."""
    d, p, N, T = len(case.L), case.z.shape[2], len(case.chain[0]), case.z.shape[1]
    shapes = (p, d), (p, p), (), (d, d), (d, d), (p, d), (d, d)
    gains = (np.zeros(N, np.int64), *(np.full((N, *shape), np.nan) for shape in shapes))
    return np.full((N, d, d), np.nan), np.full((T, p, p), np.nan), gains


def run(case, smooth=True):
    """Everything that the recursions for one pattern of gaps say."""
    n, N, d = len(case.z), len(case.chain[0]), len(case.L)
    seen, scale = case.seen[0], case.scale[0]
    cov, S, gains = room(case)
    L, Z, xi = case.L.copy(), np.eye(d), np.zeros((n, d))
    assert core.filter_covariances(case.chain, 0, N, L, seen, scale, smooth, cov, S, gains) == -1
    mean, innovation = np.empty((n, N, d)), np.empty_like(case.z)
    loglik = np.empty(case.z.shape[:2])
    core.filter_means(case.chain, 0, case.m, gains, case.z, seen, mean, innovation, loglik)
    out = {
        "mean": mean.copy(),
        "cov": cov.copy(),
        "innovation": innovation,
        "S": S,
        "loglik": loglik,
        "L": L,
        "gains": gains,
    }
    if smooth:
        core.smooth_covariances(0, gains, cov, Z)
        core.smooth_means(case.chain, 0, gains, innovation, seen, mean, xi)
        out |= {"smoothed_mean": mean, "smoothed_cov": cov, "Z": Z, "xi": xi}
    return out


def close(got, wanted, tol=2e-10):
    size = np.nanmax(np.abs(wanted), initial=1.0)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tol * size)


PER_PATH = "mean", "innovation", "loglik", "smoothed_mean"
SHARED = "cov", "S", "smoothed_cov"


@pytest.mark.parametrize(("d", "p"), SIZES)
@pytest.mark.parametrize("n", [1, 2 * LANES + 1])
def test_one_pattern_of_gaps_against_the_textbook(d, p, n):
    case = make_case(d, p, n=n)
    got = run(case)
    for path in range(n):
        wanted = textbook(case, path)
        for name in PER_PATH:
            close(got[name][path], wanted[name])
    for name in SHARED:
        close(got[name], wanted[name])
    L0 = got["gains"][4][0].T  # laws at node 0 again, from what is said about xi there
    close(L0 @ got["Z"].T @ got["Z"] @ L0.T, wanted["smoothed_cov"][0])
    close(got["mean"][:, 0] + got["xi"] @ L0.T, got["smoothed_mean"][:, 0])
    close(got["L"].T @ got["L"], wanted["cov"][-1])


@pytest.mark.parametrize(("d", "p"), SIZES)
def test_the_filter_alone_says_the_same_without_what_the_smoother_wants(d, p):
    case = make_case(d, p, correlated=False)
    wanted, got = textbook(case, 0), run(case, smooth=False)
    for name in ("mean", "innovation", "loglik"):
        close(got[name][0], wanted[name])
    close(got["cov"], wanted["cov"])
    assert np.isnan(got["gains"][5]).all()  # T is not touched


@pytest.mark.parametrize(("d", "p"), [(1, 1), (2, 1), (2, 2), (3, 1), (4, 2), (5, 1), (8, 3)])
def test_constant_stretches_settle_and_stay_exact(d, p):
    case = make_case(d, p, N=600, steps=2, gaps=0.0)
    got, wanted = run(case), textbook(case, 0)
    assert len(np.unique(got["gains"][0])) < 500  # nodes share their gains
    for name in PER_PATH:
        close(got[name][0], wanted[name])
    for name in SHARED:
        close(got[name], wanted[name])


@pytest.mark.parametrize(("d", "p"), [(1, 2), (3, 1), (4, 2), (6, 2)])
def test_a_chain_filtered_in_pieces_is_the_whole(d, p):
    case = make_case(d, p)
    whole = run(case)
    cov, S, gains = room(case)
    L = case.L.copy()
    for first, stop in ((0, 1), (1, 17), (17, 40)):
        core.filter_covariances(
            case.chain, first, stop, L, case.seen[0], case.scale[0], True, cov, S, gains
        )
    close(cov, whole["cov"], 1e-13)
    Z = np.eye(d)
    for last, end in ((25, 40), (8, 26), (0, 9)):  # and back
        part = (gains[0][last:end], *gains[1:])
        core.smooth_covariances(0, part, cov[last:end], Z)
    close(cov, whole["smoothed_cov"], 1e-13)
    close(Z.T @ Z, whole["Z"].T @ whole["Z"], 1e-12)


def whole_chain(first, N):
    """Tracks of paths that go along all nodes, from node `first` on."""
    n = len(first)
    zeros, last = np.zeros(n, np.int64), np.maximum(first - 1, 0)
    return np.arange(n), zeros, first, last, np.full(n, N)


def run_lanes(case, first, smooth):
    n, N, d = len(case.z), len(case.chain[0]), len(case.L)
    T, p = case.z.shape[1:]
    mean, cov = np.full((n, N, d), np.nan), np.full((n, N, d, d), np.nan)
    innovation, S, loglik = (np.full((n, T, *s), np.nan) for s in ((p,), (p, p), ()))
    Z, xi = np.empty((n, 2, d, d)), np.empty((n, 2, d))
    shapes = (d,), (p,), (d, d), (d, d), (d, d), (p, d)
    kept = tuple(np.full((N if smooth else 1, *s, LANES), np.nan) for s in shapes)
    for begin in range(0, n, LANES):
        rows = slice(begin, begin + LANES)
        L0 = np.tile(case.L, (len(mean[rows]), 1, 1))
        tracks = whole_chain(first[rows], N)
        given = case.seen[rows], case.scale[rows], smooth, case.z[rows]
        filled = tuple(part[rows] for part in (mean, cov, innovation, S, loglik))
        at = case.chain, tracks, N, L0, case.m[rows]
        assert core.filter_lanes(*at, given, filled, kept, Z[rows], xi[rows]) == -1
        if smooth:
            core.smooth_lanes(kept, tracks, N, mean[rows], cov[rows], Z[rows], xi[rows])
    return {
        "mean": mean,
        "cov": cov,
        "innovation": innovation,
        "S": S,
        "loglik": loglik,
        "Z": Z[:, 0],
        "xi": xi[:, 0],
    }


@pytest.mark.parametrize(("d", "p"), SIZES)
@pytest.mark.parametrize("smooth", [True, False])
def test_paths_with_gaps_of_their_own_against_the_textbook(d, p, smooth):
    n = LANES + 2 if d % 2 else LANES - 1
    case = make_case(d, p, N=25, n=n, own=True, correlated=bool(p % 2))
    first = np.arange(n) % 4
    got = run_lanes(case, first, smooth)
    obs = case.chain[4]
    for path in range(n):
        wanted = textbook(case, path, first[path])
        nodes = slice(first[path], None)
        shown = obs[nodes][obs[nodes] >= 0]
        for name in ("innovation", "S", "loglik"):
            close(got[name][path, shown], wanted[name][shown])
        prefix = "smoothed_" if smooth else ""
        for name in ("mean", "cov"):
            close(got[name][path, nodes], wanted[prefix + name][nodes])


def test_nothing_that_is_only_read_changes():
    case = make_case(3, 2, n=3)
    before = [np.copy(x) for x in (*case.chain, *case[1:])]
    run(case)
    run_lanes(make_case(3, 2, n=3, own=True), np.zeros(3, np.int64), True)
    for x, y in zip(before, (*case.chain, *case[1:]), strict=True):
        np.testing.assert_array_equal(x, y)


def frozen(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def test_what_is_only_read_may_be_read_only():
    case = make_case(2, 1)
    still = case._replace(
        chain=tuple(frozen(x) for x in case.chain),
        z=frozen(case.z),
        seen=frozen(case.seen),
        scale=frozen(case.scale),
        m=frozen(case.m),
    )
    np.testing.assert_array_equal(run(case)["smoothed_mean"], run(still)["smoothed_mean"])


BAD = {
    "dtype": ("seen", lambda x: x.astype(float), TypeError, "seen has items .* wanted bool"),
    "ints": ("step", lambda x: x.astype(np.int32), TypeError, "step has items .* wanted int64"),
    "singles": ("scale", lambda x: x.astype(np.float32), TypeError, "scale .*4 bytes.*float64"),
    "axes": ("scale", lambda x: x[:, None], ValueError, "scale has 2 axes, wanted 1"),
    "length": ("seen", lambda x: x[:-1].copy(), ValueError, r"seen.*34.*35|35.*34"),
    "order": ("L", np.asfortranarray, ValueError, "L is not contiguous"),
    "stride": ("cov", lambda x: np.repeat(x, 2, 0)[::2], ValueError, "cov is not contiguous"),
    "read only": ("cov", frozen, TypeError, "cov is .*, wanted a writable float64 array"),
    "none": ("S", lambda x: None, TypeError, "S is .*NoneType"),
    "width": ("F", lambda x: x[:, :, :1].copy(), ValueError, r"F.*1.*2|F.*2.*1"),
}


@pytest.mark.parametrize("kind", BAD)
def test_the_border_refuses_by_name(kind):
    name, spoil, error, message = BAD[kind]
    case = make_case(2, 1)
    cov, S, gains = room(case)
    given = {"L": case.L, "seen": case.seen[0], "scale": case.scale[0], "cov": cov, "S": S}
    names = ["step", "F", "b", "root", "obs", "cfg", "H", "off", "R"]
    chain = dict(zip(names, case.chain, strict=True))
    where = chain if name in chain else given
    where[name] = spoil(where[name])
    with pytest.raises(error, match=f"filter_covariances: .*{message}|{message}"):
        core.filter_covariances(
            tuple(chain.values()), 0, 40, given["L"], given["seen"], given["scale"], True,
            given["cov"], given["S"], gains,
        )  # fmt: skip


@pytest.mark.parametrize("d", [1, 2, 5])
def test_an_innovation_that_is_known_exactly_is_reported_with_its_node(d):
    """Two sensors without noise that show the same: the second one's value is known."""
    case = make_case(d, 2, gaps=0.0, steps=1)
    chain = list(case.chain)
    chain[5] = (np.arange(40) == 7).astype(np.int64)
    chain[6][1, 1] = chain[6][1, 0]
    chain[8][1] = 0.0
    cov, S, gains = room(case)
    bad = core.filter_covariances(
        tuple(chain), 0, 40, case.L.copy(), case.seen[0], case.scale[0], True, cov, S, gains
    )
    assert bad == 7
    kept = tuple(np.empty((40, *s, LANES)) for s in ((d,), (2,), (d, d), (d, d), (d, d), (2, d)))
    at = tuple(chain), whole_chain(np.zeros(1, np.int64), 40), 40, case.L[None], case.m
    given = case.seen, case.scale, True, case.z
    into = np.empty((1, 40, d)), cov[None], np.empty((1, 40, 2)), S[None], np.empty((1, 40))
    ends = np.empty((1, 2, d, d)), np.empty((1, 2, d))
    bad = core.filter_lanes(*at, given, into, kept, *ends)
    assert bad == 7


def scaled(case, exponent):
    """The same in units of 2^-exponent: every root, mean and datum times 2^exponent."""
    unit = 2.0**exponent
    step, F, b, root, obs, cfg, H, off, R = case.chain
    chain = step, F, b * unit, root * unit, obs, cfg, H, off * unit, R * unit**2
    return case._replace(chain=chain, z=case.z * unit, L=case.L * unit, m=case.m * unit)


@pytest.mark.parametrize("exponent", [-490, -470, 470, 490])
@pytest.mark.parametrize("d", [1, 2, 4, 6])
def test_units_do_not_matter_where_squares_leave_the_range_of_numbers(exponent, d):
    case = make_case(d, 2, n=LANES, own=True)
    one = case._replace(seen=case.seen[:1], scale=case.scale[:1], z=case.z[:1], m=case.m[:1])
    unit = 2.0**exponent
    wanted, got = run(one), run(scaled(one, exponent))
    close(got["smoothed_mean"] / unit, wanted["smoothed_mean"], 1e-12)
    close(got["smoothed_cov"] / unit**2, wanted["smoothed_cov"], 1e-12)
    first = np.zeros(LANES, np.int64)
    wanted, got = run_lanes(case, first, True), run_lanes(scaled(case, exponent), first, True)
    close(got["mean"] / unit, wanted["mean"], 1e-12)
    close(got["cov"] / unit**2, wanted["cov"], 1e-12)


@pytest.mark.parametrize("d", [1, 2, 6])
@pytest.mark.parametrize("gaps", [0.0, 0.3])
def test_a_state_without_noise_decays_to_nothing(d, gaps):
    """P_k = F^k (P_0^-1 + sum of (H F^i)^T R^-1 H F^i)^-1 F^k^T, down to subnormals and 0."""
    case = make_case(d, 1, N=3000, steps=1, gaps=gaps, n=LANES, own=True)
    rng = np.random.default_rng(d)
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    chain = list(case.chain)
    chain[1], chain[2], chain[3] = (
        by_columns(0.6 * turn[None]),
        np.zeros((1, d)),
        np.zeros((1, d, d)),
    )
    z = np.where(np.isnan(case.z), np.nan, case.z + 1.0)
    case = case._replace(chain=tuple(chain), z=z)
    lanes = run_lanes(case, np.zeros(LANES, np.int64), True)
    one = case._replace(seen=case.seen[:1], scale=case.scale[:1], z=case.z[:1], m=case.m[:1])
    got = run(one)
    H, R = chain[6][0], chain[8][0]
    information, back = np.linalg.inv(case.L.T @ case.L), np.eye(d)
    for k in range(3000):
        if case.seen[0, k, 0]:
            information += back.T @ H.T @ np.linalg.solve(R, H @ back)
        if k in (10, 100, 500, 600):
            P = np.linalg.inv(information)
            unit = 0.6 ** (2 * k)
            close(got["cov"][k] / unit, (back / 0.6**k) @ P @ (back / 0.6**k).T, 1e-9)
        back = 0.6 * turn @ back
    start = np.linalg.inv(information)
    close(got["smoothed_cov"][0], start, 1e-9)
    close(lanes["cov"][0, 0], start, 1e-9)
    for law in (got, lanes):
        assert np.isfinite(law["mean"]).all()
        assert np.isfinite(law["cov"]).all()
        assert np.isfinite(law["loglik"]).all()
    assert (got["cov"][-1] == 0).all()
    close(lanes["loglik"][0], got["loglik"][0], 1e-12)
