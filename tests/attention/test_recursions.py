"""Compiled attention against its formulas written out pair by pair, and what it must refuse."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest

from afafilter._core import core
from afafilter.attention import recursions
from afafilter.attention.recursions import Dynamics, Rules, output_rows, pair_up, rotated
from tests.attention import twins
from tests.attention.kernels import Rows, attend, finish

KINDS = [np.float64, np.float32]
TOLERANCE = {np.float64: 1e-11, np.float32: 1e-4}
PAST = Dynamics(0.3, 0.3, 0.5, 0.1, 0.4, 4.0, 1.0, 1.0, True, True)
FUTURE = PAST._replace(causal=False, query_late=False)
SYMMETRIC = PAST._replace(causal=False)


def make_rows(
    kind: Any, B: int, N: int, d: int, m: int, *, groups: int = 0, side: Dynamics = PAST,
    window: int | None = None, span: float = 12.0, size: float = 1.0, seed: int = 0,
) -> Rows:  # fmt: skip
    rng = np.random.default_rng([seed, B, N, d, m])
    t, t_query = np.sort(rng.uniform(0, span, N)), np.sort(rng.uniform(-1, span + 1, B))
    t[: N // 8] = t[0]  # repeated stamps
    seen = np.searchsorted(t, t_query, side="right").astype(np.int64)
    if side.causal:
        low, high = np.zeros_like(seen) if window is None else np.maximum(seen - window, 0), seen
    else:
        low, high = seen, np.full_like(seen, N) if window is None else np.minimum(seen + window, N)
    data = (size * rng.standard_normal((n, w)) for n, w in ((B, d), (N, d), (N, m)))
    q, k, v = (x.astype(kind) for x in data)
    known = (rng.random((N, groups)) < 0.7).astype(kind)
    lead = np.maximum(t[0] - t_query, 0.0)
    num, den = rng.standard_normal((B, m)), rng.random((B, max(groups, 1)))
    return Rows(q, k, v, known, t_query, t, low, high, lead, num, den)


def check_sums(rows: Rows, side: Dynamics, tolerance: float) -> None:
    """Sums are added to what stands there, and agree with the twin."""
    before = rows.num.copy(), rows.den.copy()
    num, den, size = twins.attend(rows, side)
    attend(rows, side)
    scale = np.maximum(size, np.abs(before[0])) + 1e-300
    assert np.abs(rows.num - before[0] - num).max(initial=0, where=scale > 0) <= tolerance * max(
        float(scale.max()), 1e-300
    )
    assert (np.abs(rows.num - before[0] - num) <= tolerance * scale + 1e-13).all()
    np.testing.assert_allclose(rows.den - before[1], den, rtol=tolerance, atol=1e-13)


# Running sums


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [PAST, FUTURE, SYMMETRIC], ids=["past", "future", "symmetric"])
@pytest.mark.parametrize(
    ("B", "N", "d", "m"),
    [
        (1, 1, 1, 1),
        (1, 300, 2, 3),
        (5, 7, 0, 2),
        (6, 16, 3, 8),
        (47, 33, 5, 16),
        (49, 257, 4, 17),
        (100, 64, 19, 33),
        (13, 255, 8, 70),
    ],
)
def test_sums_at_the_edges_of_tiles(kind, side, B, N, d, m):
    check_sums(make_rows(kind, B, N, d, m, side=side), side, TOLERANCE[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("exponent", [0.6, 1.0, 1.125, 2.5])
@pytest.mark.parametrize("beta", [1.0, 0.5, 2.3])
@pytest.mark.parametrize("side", [PAST, FUTURE], ids=["past", "future"])
def test_powers_and_temperatures(kind, exponent, beta, side):
    side = side._replace(exponent=exponent, beta=beta)
    check_sums(make_rows(kind, 30, 70, 4, 5, side=side), side, TOLERANCE[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decay", [0.0, 1e-300, 0.01, 5.0, 80.0])
@pytest.mark.parametrize("value_decay", [0.0, 0.2])
@pytest.mark.parametrize("side", [PAST, SYMMETRIC], ids=["past", "symmetric"])
def test_decays(kind, decay, value_decay, side):
    side = side._replace(decay=decay, value_decay=value_decay)
    check_sums(make_rows(kind, 60, 60, 3, 4, side=side), side, TOLERANCE[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decay", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("value_decay", [0.0, 0.2])
def test_decays_of_pulling_back(kind, decay, value_decay):
    side = FUTURE._replace(decay=decay, value_decay=value_decay)
    check_sums(make_rows(kind, 60, 60, 3, 4, side=side, span=4.0), side, TOLERANCE[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [PAST, FUTURE], ids=["past", "future"])
@pytest.mark.parametrize("window", [1, 3, 40])
def test_windows(kind, side, window):
    check_sums(make_rows(kind, 120, 300, 3, 6, side=side, window=window), side, TOLERANCE[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("side", [PAST, FUTURE], ids=["past", "future"])
def test_groups_of_paths_miss_keys_of_their_own(kind, groups, side):
    check_sums(make_rows(kind, 20, 270, 0, 9, groups=groups, side=side), side, TOLERANCE[kind])


@pytest.mark.parametrize("side", [PAST, FUTURE], ids=["past", "future"])
def test_blocks_of_rows_share_a_reference_and_sums_are_taken_on_the_way(side):
    rows = make_rows(np.float64, 1030, 1100, 1, 2, side=side, window=9, span=3000.0)
    check_sums(rows, side._replace(decay=0.01, value_decay=0.01), 1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [PAST, FUTURE], ids=["past", "future"])
@pytest.mark.parametrize("exponent", [1.0, 2.5])
def test_far_from_the_origin_differences_are_taken(kind, side, exponent):
    side = side._replace(var_late=1e-3, var_early=1e-3, process_var=1e-3, exponent=exponent)
    rows = make_rows(kind, 40, 90, 5, 3, side=side, span=0.5)
    offset = kind(1e4 if kind is np.float64 else 30.0)
    rows = rows._replace(q=rows.q + offset, k=rows.k + offset)
    # rounding of E times points so long, relative to the distances that count
    check_sums(rows, side, 1e-8 if kind is np.float64 else 5e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_negligible_keys_are_left_out_within_the_tolerance(kind):
    side = PAST._replace(decay=0.0, value_decay=0.0, process_var=9.0, beta=6.0, exponent=1.0)
    rows = make_rows(kind, 30, 4000, 2, 3, side=side, span=400.0)
    rows.num[...], rows.den[...] = 0.0, 0.0
    rows = rows._replace(t_query=np.full(30, 400.0), high=np.full(30, 4000), low=np.zeros(30, int))
    full = rows._replace(num=rows.num.copy(), den=rows.den.copy())
    attend(full, side)
    attend(rows, side, float(np.log(1e-6)))
    lost = np.abs(full.den - rows.den) / full.den
    assert 0 < lost.max() <= 1e-6 + TOLERANCE[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("exponent", "beta"), [(1.0, 1.0), (2.5, 1.0), (1.7, 0.6)])
@pytest.mark.parametrize("value_decay", [0.0, 0.7])
@pytest.mark.parametrize("side", [PAST, SYMMETRIC], ids=["past", "symmetric"])
def test_keys_whose_states_have_decayed_to_rounding(kind, exponent, beta, value_decay, side):
    side = side._replace(decay=1.0, value_decay=value_decay, exponent=exponent, beta=beta)
    for window in (None, 1500):
        rows = make_rows(kind, 5, 2000, 3, 4, side=side, window=window, span=900.0)
        rows.num[...], rows.den[...] = 0.0, 0.0
        check_sums(rows, side, TOLERANCE[kind])


@pytest.mark.parametrize(("exponent", "beta"), [(1.0, 1.0), (2.5, 1.0), (1.7, 0.6)])
@pytest.mark.parametrize("side", [PAST, SYMMETRIC], ids=["past", "symmetric"])
def test_keys_whose_squared_decays_are_rounding_count_in_the_first_order(exponent, beta, side):
    side = side._replace(decay=1.0, value_decay=1.2, exponent=exponent, beta=beta)
    rng, N = np.random.default_rng(3), 1300
    t = np.append(np.sort(rng.uniform(-24.0, -22.0, N - 1)), 0.0)  # one key beside the query
    q, k = np.array([[1.0, 2.0]]), np.array([1.0, 2.0]) + 0.1 * rng.standard_normal((N, 2))
    k[:, 1] *= rng.uniform(0.5, 1.5, N)
    sees = np.zeros(1, np.int64), np.full(1, N)
    sums = np.zeros((1, 3)), np.zeros((1, 1))
    v, none, zero = rng.standard_normal((N, 3)), np.empty((N, 0)), np.zeros(1)
    if not side.causal:
        t = -t[::-1]
        k = k[::-1].copy()
    rows = Rows(q, k, v, none, zero, t, *sees, zero, *sums)
    num, den, _ = twins.attend(rows, side)
    attend(rows, side)
    np.testing.assert_allclose(rows.num, num, rtol=1e-14)
    np.testing.assert_allclose(rows.den, den, rtol=3e-14)
    flat = twins.attend(rows._replace(k=np.where(np.abs(t)[:, None] > 1, 0.0, k)), side)[1]
    assert np.abs(flat - den)[0, 0] > 1e-12 * den[0, 0]  # without it that would be seen


def test_a_missing_number_among_decayed_keys_reaches_who_sees_it():
    side = PAST._replace(decay=1.0, value_decay=1.0)
    for part, sums in (("k", "den"), ("v", "num")):
        rows = make_rows(np.float64, 40, 2000, 2, 2, span=900.0)
        getattr(rows, part)[30, 1] = np.nan
        attend(rows, side)
        found = getattr(rows, sums)[:, -1]
        np.testing.assert_array_equal(np.isnan(found), (rows.low <= 30) & (rows.high > 30))


def test_a_query_that_sees_nothing_adds_nothing():
    rows = make_rows(np.float64, 7, 20, 2, 2)
    rows = rows._replace(high=rows.low.copy())
    before = rows.num.copy()
    attend(rows, PAST)
    np.testing.assert_array_equal(rows.num, before)
    empty = make_rows(np.float64, 3, 1, 2, 2)
    empty = empty._replace(k=np.empty((0, 2)), v=np.empty((0, 2)), t=np.empty(0))
    empty = empty._replace(known=np.empty((0, 0)), low=np.zeros(3, int), high=np.zeros(3, int))
    attend(empty, PAST)


def test_a_missing_number_reaches_only_the_rows_that_see_it():
    rows = make_rows(np.float64, 50, 50, 2, 2)
    rows.k[30, 1] = np.nan
    attend(rows, PAST)
    sees = (rows.low <= 30) & (rows.high > 30)
    assert np.isnan(rows.den[sees]).all()
    assert np.isfinite(rows.den[~sees]).all()
    assert np.isfinite(rows.num[~sees]).all()


def test_threads_write_disjoint_rows_and_give_the_same_bits():
    whole = make_rows(np.float64, 96 * 8, 700, 6, 7)
    alone = whole._replace(num=whole.num.copy(), den=whole.den.copy())

    def part(rows: Rows, i: int) -> Rows:
        cut = slice(96 * i, 96 * (i + 1))
        per_query = {"q", "t_query", "low", "high", "lead", "num", "den"}
        return Rows(**{n: x[cut] if n in per_query else x for n, x in rows._asdict().items()})

    for i in range(8):
        attend(part(alone, i), PAST)
    threads = [threading.Thread(target=attend, args=(part(whole, i), PAST)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(whole.num, alone.num)
    np.testing.assert_array_equal(whole.den, alone.den)


# Pairs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [PAST, FUTURE], ids=["past", "future"])
@pytest.mark.parametrize(("B", "K", "d"), [(1, 1, 1), (4, 9, 0), (7, 33, 5), (3, 64, 2)])
@pytest.mark.parametrize("decay", [0.0, 0.3, 30.0])
@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_pairs_one_by_one(kind, side, B, K, d, decay, exponent):
    side = side._replace(decay=decay, exponent=exponent)
    rows = make_rows(kind, B, K, d, 1)
    log_p, d2 = np.full((B, K), np.nan, kind), np.zeros((B, K), kind)
    if exponent == 0.0:
        d2 += 1
    pair_up(log_p, d2, rows.q, rows.k, rows.t_query, rows.t, side)
    q, k = rows.q.astype(float), rows.k.astype(float)
    for i in range(B):
        for j in range(K):
            tau = abs(rows.t_query[i] - rows.t[j])
            S = twins.variance(side, tau)
            wanted = -np.log(S) - (0.0 if side.query_late else 2 * decay * tau)
            distance = twins.squared_distance(side, q[i], k[j], tau) / S
            gate = 1 + distance if exponent == 0.0 else np.log1p(distance / side.scale)
            bound = 40 * np.finfo(kind).eps
            assert abs(log_p[i, j] - wanted) <= bound * (1 + abs(wanted))
            if d:
                assert abs(d2[i, j] - gate) <= bound * (1 + gate)


def test_pairs_whose_variance_underflows_keep_their_logarithms():
    side = PAST._replace(decay=3.0, process_var=0.0, var_late=0.0, var_early=0.4, exponent=1.0)
    q, k = np.array([[1.5]]), np.array([[0.5]])
    log_p, log_ratio = np.empty((1, 1)), np.zeros((1, 1))
    pair_up(log_p, log_ratio, q, k, np.array([500.0]), np.array([0.0]), side)
    S = mpmath.mpf("0.4") * mpmath.exp(-3000)
    d2 = (mpmath.mpf("1.5") - mpmath.exp(-1500) * 0.5) ** 2 / S
    assert log_p[0, 0] == pytest.approx(float(-mpmath.log(S)), rel=1e-14)
    assert log_ratio[0, 0] == pytest.approx(float(mpmath.log(1 + d2 / 4)), rel=1e-14)


# Rotations


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("d", "n"), [(1, 0), (2, 1), (5, 2), (7, 3), (12, 6)])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_rotation(kind, d, n, sign):
    rng = np.random.default_rng(d)
    x = rng.standard_normal((2, 9, d)).astype(kind)
    t, omega = rng.uniform(-1e3, 1e3, 9), rng.uniform(-4, 4, n)
    got = rotated(x, t, omega, sign)
    assert got.dtype == kind
    np.testing.assert_allclose(
        got, twins.rotated(x, t, omega, sign), rtol=0, atol=20 * np.finfo(kind).eps
    )


def test_angles_of_every_quadrant_against_long_arithmetic():
    angle = np.concatenate([np.arange(-64, 64) * np.pi / 8, np.geomspace(1e-12, 9e5, 400)])
    x = np.array([[1.0, 0.0]])
    with mpmath.workdps(60):
        wanted = np.array([[float(mpmath.cos(a)), float(mpmath.sin(a))] for a in angle.tolist()])
    got = np.array([rotated(x, np.ones(1), np.array([a]), 1.0)[0] for a in angle])
    np.testing.assert_allclose(got, wanted, rtol=0, atol=4e-16)


def test_nothing_to_turn_is_not_copied():
    x = np.ones((3, 4))
    assert rotated(x, np.arange(3.0), np.zeros(2), 1.0) is x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", [1, 3])
def test_finish(kind, groups):
    rng = np.random.default_rng(groups)
    B, d = 5, 4
    num, den = rng.standard_normal((B, groups * d)), rng.random((B, groups)) + 0.5
    den[2, 0] = 0.0
    t, omega = rng.uniform(0, 9, B), np.array([1.0, -0.7])
    lift, scale = rng.standard_normal((2, B))
    out, precision = np.empty(num.shape, kind), np.empty(den.shape, kind)
    finish(out, precision, num, den, t, omega, lift, scale)
    mean = num.reshape(B, groups, d) / np.where(den == 0, np.nan, den)[..., None]
    wanted = twins.rotated(mean.swapaxes(0, 1), t, omega, 1.0).swapaxes(0, 1)
    wanted = np.exp(lift)[:, None, None] * wanted
    eps = 50 * np.finfo(kind).eps
    np.testing.assert_allclose(out, wanted.reshape(B, -1), rtol=eps, atol=eps)
    np.testing.assert_allclose(precision, den * np.exp(scale)[:, None], rtol=eps)
    assert np.isnan(out[2, :d]).all()
    assert np.isfinite(np.delete(out, 2, axis=0)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", [0, 2])
@pytest.mark.parametrize("window", [None, 3])
def test_output_rows_are_sums_of_both_directions_normalised(kind, groups, window):
    """Queries are rotated, both directions swept, and the output is turned to the query times."""
    past, back = (
        make_rows(kind, 9, 24, 4, 6, groups=groups, side=side, window=window, size=0.5)
        for side in (PAST, FUTURE)
    )
    omega, omega_out = np.array([1.0, -0.6]), np.array([0.8])
    turned = twins.rotated(past.q, past.t_query, omega, -1.0)
    sums = [
        twins.attend(rows._replace(q=turned), side) for rows, side in ((past, PAST), (back, FUTURE))
    ]
    num, den = (sums[0][k] + sums[1][k] for k in range(2))
    g, peak = max(groups, 1), 0.7
    out, precision = np.empty((9, 6), kind), np.empty((9, g), kind)
    rules = Rules(window or -1, omega, omega_out, PAST, FUTURE, 2, -np.inf, peak)
    seen = np.searchsorted(past.t, past.t_query, side="right")
    output_rows(*past[:6], seen, rules, out, precision)
    with np.errstate(invalid="ignore"):
        mean = (num.reshape(9, g, -1) / den[..., None]).swapaxes(0, 1)
    wanted = twins.rotated(mean, past.t_query, omega_out, 1.0).swapaxes(0, 1)
    wanted *= np.exp(PAST.value_decay * past.lead)[:, None, None]
    tolerance = TOLERANCE[kind]
    np.testing.assert_allclose(out, wanted.reshape(9, 6), rtol=tolerance, atol=tolerance)
    scale = np.exp(PAST.beta * peak - 2 * PAST.beta * PAST.decay * past.lead)
    np.testing.assert_allclose(precision, den * scale[:, None], rtol=tolerance)


# Powers, as weights see them


@pytest.mark.parametrize(("kind", "bound"), [(np.float64, 5e-14), (np.float32, 1e-5)])
@pytest.mark.parametrize("beta", [1.0, 0.4])
@pytest.mark.parametrize("exponent", [0.3, 1.0, 1.5, 2.5, 5.7])
def test_powers_over_many_orders_of_magnitude(kind, bound, beta, exponent):
    """One key a query, at its own time: den = (S^{exponent-1} / X^exponent)^beta."""
    rng = np.random.default_rng(1)
    B = 301
    distance = np.exp(rng.uniform(-9, 4, B)).astype(kind)
    for log_s in (-9.0, 0.0, 9.0):
        S = float(np.exp(log_s))
        side = PAST._replace(
            process_var=0.0, var_late=S, var_early=0.0, exponent=exponent, beta=beta
        )
        t, index = np.arange(float(B)), np.arange(B)
        rows = Rows(
            distance[:, None], np.zeros((B, 1), kind), np.ones((B, 1), kind),
            np.empty((B, 0), kind), t, t, index, index + 1, np.zeros(B), np.zeros((B, 1)),
            np.zeros((B, 1)),
        )  # fmt: skip
        attend(rows, side)
        exact = np.longdouble(S) ** -beta
        exact = exact * (1 + distance.astype(np.longdouble) ** 2 / (4 * S)) ** (-exponent * beta)
        assert float(np.abs(rows.den[:, 0] / exact - 1).max()) < bound


def test_tables_are_what_their_tool_writes():
    root = Path(recursions.__file__).parents[2]
    if not (root / "tools" / "core_tables.py").exists():
        pytest.skip("not in a checkout")
    import importlib.util

    spec = importlib.util.spec_from_file_location("tables", root / "tools" / "core_tables.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert (root / "core" / "tables.h").read_text() == tool.text()


# The border


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": np.zeros((20, 2), np.float32)}, TypeError, "k has items of format 'f'"),
        ({"k": np.zeros((20, 3))}, ValueError, "axis 1 of k has length 3, wanted d = 2 as in q"),
        ({"v": np.zeros((19, 2))}, ValueError, "axis 0 of v has length 19"),
        ({"low": np.zeros(7, np.int32)}, TypeError, "low has items of format 'i'"),
        ({"t": np.zeros(20)[::-1][:19]}, ValueError, "t"),
        ({"q": np.zeros((2, 7)).T}, ValueError, "q is not contiguous"),
        ({"den": np.zeros((6, 1))}, ValueError, "axis 0 of den has length 6"),
    ],
)
def test_wrong_arrays_are_refused(change, error, message):
    rows = make_rows(np.float64, 7, 20, 2, 2)._replace(**change)
    with pytest.raises(error, match=message):
        core.attend_float64(rows, PAST, -np.inf)


def test_every_kernel_exists_for_both_types():
    for name in ("attend", "finish", "output_rows", "pair_up", "rotate"):
        for kind in ("float64", "float32"):
            assert callable(getattr(core, f"{name}_{kind}"))
