"""Compiled operations on matrices of a few rows: neither BLAS nor allocation pays there."""

from __future__ import annotations

from typing import Any

import numpy as np

from afafilter._core.jit import bare


@bare
def copy(x: Any, out: Any) -> None:
    """out = x, entry by entry: numba compiles that far sooner than a slice."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = x[i, j]


@bare
def multiply(a: Any, b: Any, out: Any) -> None:
    n, m, c = a.shape[0], a.shape[1], b.shape[1]
    for i in range(n):
        for j in range(c):
            out[i, j] = 0.0
        for k in range(m):
            x = a[i, k]
            if x != 0.0:
                for j in range(c):
                    out[i, j] += x * b[k, j]


@bare
def multiply_t(a: Any, b: Any, out: Any) -> None:
    """out = a b^T."""
    n, m, c = a.shape[0], a.shape[1], b.shape[0]
    for i in range(n):
        for j in range(c):
            x = 0.0
            for k in range(m):
                x += a[i, k] * b[j, k]
            out[i, j] = x


@bare
def t_multiply(a: Any, b: Any, out: Any) -> None:
    """out = a^T b."""
    n, m, c = a.shape[1], a.shape[0], b.shape[1]
    for i in range(n):
        for j in range(c):
            out[i, j] = 0.0
    for k in range(m):
        for i in range(n):
            x = a[k, i]
            if x != 0.0:
                for j in range(c):
                    out[i, j] += x * b[k, j]


@bare
def add_t_product(a: Any, b: Any, scale: float, out: Any) -> None:
    """out += scale a b^T."""
    for i in range(a.shape[0]):
        for j in range(b.shape[0]):
            x = 0.0
            for k in range(a.shape[1]):
                x += a[i, k] * b[j, k]
            out[i, j] += scale * x


@bare
def cholesky(s: Any, least: float, root: Any) -> float:
    """Lower factor of s and its log-determinant; nan where a pivot is not above least s[i, i]."""
    logdet = 0.0
    for i in range(s.shape[0]):
        for j in range(i + 1):
            x = s[i, j]
            for k in range(j):
                x -= root[i, k] * root[j, k]
            if i == j:
                if not x > least * s[i, i]:
                    return np.nan
                root[i, i] = np.sqrt(x)
                logdet += np.log(x)
            else:
                root[i, j] = x / root[j, j]
    return logdet


@bare
def spd_inverse(s: Any, inverse: Any, root: Any) -> Any:
    """Inverse of a positive definite matrix and its log-determinant (nan: not definite)."""
    m = s.shape[0]
    logdet = cholesky(s, 1e-15, root)
    if np.isnan(logdet):
        return logdet
    for j in range(m):
        for i in range(m):
            x = 1.0 if i == j else 0.0
            for k in range(i):
                x -= root[i, k] * inverse[k, j]
            inverse[i, j] = x / root[i, i]
        for i in range(m - 1, -1, -1):
            x = inverse[i, j]
            for k in range(i + 1, m):
                x -= root[k, i] * inverse[k, j]
            inverse[i, j] = x / root[i, i]
    return logdet


@bare
def column_norm(A: Any) -> float:
    norm = 0.0
    for j in range(A.shape[0]):
        x = 0.0
        for i in range(A.shape[0]):
            x += abs(A[i, j])
        norm = max(norm, x)
    return norm
