"""Compiled tiles of attention against the products written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from afafilter._base.checks import read_only
from afafilter._core import register_tiles as registers
from afafilter._core.attention_kernels import add_tile, summed_columns

TOLERANCE = {np.float64: 1e-13, np.float32: 2e-5}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("rows", [1, 5, 6, 11, 13])
@pytest.mark.parametrize("begin", [0, 2])
@pytest.mark.parametrize("panel", ["wide", "narrow"])
@pytest.mark.parametrize("add", [False, True])
def test_product_of_rows_and_a_panel(
    dtype: Any, rows: int, begin: int, panel: str, add: bool
) -> None:
    rng = np.random.default_rng(rows)
    itemsize = np.dtype(dtype).itemsize
    width = int((registers.wide if panel == "wide" else registers.lanes)(itemsize))
    A = rng.standard_normal((rows, 11)).astype(dtype)
    B = rng.standard_normal((9, width)).astype(dtype)
    C = rng.standard_normal((rows, 2 * width + 3)).astype(dtype)
    wanted = C.copy()
    inside = wanted[:, width : 2 * width]
    inside[...] = A[:, begin : begin + 9] @ B + (inside if add else 0)
    registers.product(A, begin, B, C, width, add)
    np.testing.assert_allclose(C, wanted, rtol=0, atol=10 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("n", "d"), [(1, 3), (40, 8), (75, 37)])
def test_panels(dtype: Any, n: int, d: int) -> None:
    rng = np.random.default_rng(n)
    M, outer, scale = (rng.standard_normal(s).astype(dtype) for s in ((n, d), (n, 2), (n,)))
    width = int(registers.wide(np.dtype(dtype).itemsize))
    turned = np.full((-(-n // width), 2 + d, width), np.nan, dtype)
    registers.turned_panels(outer, M, scale, turned)
    whole = np.zeros((turned.shape[0] * width, 2 + d), dtype)
    whole[:n] = np.column_stack([outer, M * scale[:, None]])
    np.testing.assert_array_equal(turned, whole.reshape(-1, width, 2 + d).swapaxes(1, 2))
    columns = np.full((-(-(d - 1) // width), n + 1, width), np.nan, dtype)
    registers.column_panels(M, scale, 1, columns)
    whole = np.zeros((n, len(columns) * width), dtype)
    whole[:, : d - 1] = M[:, 1:] * scale[:, None]
    np.testing.assert_array_equal(columns[:, :n], whole.reshape(n, -1, width).swapaxes(0, 1))
    assert np.isnan(columns[:, n]).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("exponent", [1.0, 2.5])
@pytest.mark.parametrize(("m", "massive"), [(1, True), (2, False), (64, True), (70, True)])
@pytest.mark.parametrize("limited", [False, True])
def test_tile_of_many_strips(
    dtype: Any, exponent: float, m: int, massive: bool, limited: bool
) -> None:
    rng = np.random.default_rng(m)
    B, T, d = 101, 1200, 19

    def positive(*shape: int) -> Any:
        return (0.1 + rng.random(shape)).astype(dtype)

    queries, outer, points = positive(B, 2 + d), positive(T, 2), positive(T, d)
    scale, lag_queries, lag_keys = positive(T), positive(B, 2), positive(T, 2)
    values = rng.standard_normal((T, m)).astype(dtype)
    fade, mass = positive(T), positive(T)
    low = np.sort(rng.integers(0, T, B)) // 3
    high = np.minimum(low + rng.integers(0, T, B), T)
    limits = np.array([low, high]) if limited else np.empty((2, 0), np.intp)
    sums = rng.standard_normal((B, m + massive))

    X = queries.astype(float) @ np.column_stack([outer, points * scale[:, None]]).T
    W = (lag_queries.astype(float) @ lag_keys.T) ** (exponent - 1) / X**exponent
    if limited:
        index = np.arange(T)
        W[(index < low[:, None]) | (index >= high[:, None])] = 0.0
    wanted = sums.copy()
    wanted[:, :m] += W @ (values * fade[:, None])
    if massive:
        wanted[:, m] += W @ mass

    part = np.empty((B, summed_columns(m, np.dtype(dtype).itemsize)), dtype)
    add_tile(
        queries, outer, points, scale, lag_queries, lag_keys, read_only(values), fade, mass, limits,
        dtype(exponent), dtype(1.0), part, sums,
    )  # fmt: skip
    np.testing.assert_allclose(sums, wanted, rtol=0, atol=TOLERANCE[dtype] * np.abs(wanted).max())
