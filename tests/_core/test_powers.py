"""Logarithms and powers of lanes against long doubles, on any processor and with its tables."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from afafilter._core import powers
from afafilter._core.lanes import HAS_AVX512, load_several, overload, store

BY_TABLE = pytest.param("by_table", marks=pytest.mark.skipif(not HAS_AVX512, reason="no AVX-512"))
KINDS = {np.float64: np.longdouble, np.float32: np.float64}


def over_array(function: Any) -> Any:
    """A compiled function of an array, by several vectors at a time."""

    def of_lanes(x: Any) -> Any:
        raise NotImplementedError

    overload(of_lanes)(function)

    @numba.njit(fastmath={"contract"})
    def run(x: Any) -> Any:
        out = np.empty_like(x)
        for i in range(0, len(x), 256 // x.itemsize):
            store(out, i, of_lanes(load_several(x, i)))
        return out

    return run


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("way", [BY_TABLE, "by_series"])
def test_logarithm(way: str, dtype: Any) -> None:
    info = np.finfo(dtype)
    rng = np.random.default_rng(0)
    mantissas = np.concatenate([1 + np.arange(32) / 32, 1 - info.eps * np.arange(1, 9)])
    scales = 2.0 ** np.array([info.minexp, -30, -1, 0, 1, 30, info.maxexp - 2])
    spread = 2.0 ** rng.uniform(info.minexp, info.maxexp, 4096 - 40 * len(scales))
    x = np.append(mantissas * scales[:, None], spread).astype(dtype)
    exact = np.log2(x.astype(KINDS[dtype]))
    found = over_array(getattr(powers, f"log2_{way}"))(x)
    assert np.max(np.abs(found - exact) / np.maximum(1.0, np.abs(exact))) < 1.5 * info.eps


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("way", [BY_TABLE, "by_series"])
def test_power(way: str, dtype: Any) -> None:
    info = np.finfo(dtype)
    rng = np.random.default_rng(0)
    near = np.arange(-128, 128) / 32
    y = np.concatenate([near, rng.uniform(info.minexp, info.maxexp - 1, 2048 - len(near))])
    y = y.astype(dtype)
    exact = np.exp2(y.astype(KINDS[dtype]))
    found = over_array(getattr(powers, f"exp2_{way}"))(y)
    assert np.max(np.abs(found / exact - 1)) < 1.5 * info.eps
