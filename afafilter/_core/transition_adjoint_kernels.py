"""Compiled transitions over many intervals, and their derivative in reverse mode."""

from __future__ import annotations

from typing import Any

import numpy as np

from afafilter._core.jit import bare, jit
from afafilter._core.small_matrix_kernels import (
    add_t_product,
    column_norm,
    copy,
    multiply,
    multiply_t,
    t_multiply,
)

TAYLOR_TERMS = 15
BASE_NORM = 0.25


@jit
def transitions(A: Any, Q: Any, u: Any, steps: Any) -> Any:
    """Phi, psi, V over every interval: the forward half of `transition_adjoint`, compiled.

    Kept beside its derivative, so that the gradient is that of the very numbers used. Error about
    eps ||A|| dt; `afafilter.linalg.discretiser.transition` covers what is stiffer than that allows.
    """
    d, n = len(A), len(steps)
    Phi, psi, V = np.zeros((n, d, d)), np.zeros((n, d)), np.zeros((n, d, d))
    _fill_transitions(A, Q, u, steps, Phi, psi, V, np.empty((7, d, d)), np.empty((2, d)))
    return Phi, psi, V


@bare
def _fill_transitions(
    A: Any, Q: Any, u: Any, steps: Any, Phi: Any, psi: Any, V: Any, square: Any, row: Any
) -> None:
    d, n, norm = len(A), len(steps), column_norm(A)
    T, W, X, Y = square[0], square[1], square[2], square[3]
    G, a, e, s, s_new = square[4], square[5], square[6], row[0], row[1]
    for k in range(n):
        halvings = _halvings(norm * steps[k])
        h = steps[k] / 2.0**halvings
        for i in range(d):
            for j in range(d):
                T[i, j] = h if i == j else 0.0
                G[i, j] = T[i, j]
                W[i, j] = h * Q[i, j]
                Y[i, j] = W[i, j]
        if norm > 0.0:
            for m in range(1, TAYLOR_TERMS):
                c = h / (m + 1)
                multiply(A, T, a)
                multiply(A, W, e)
                for i in range(d):
                    for j in range(d):
                        T[i, j] = c * a[i, j]
                        G[i, j] += T[i, j]
                        W[i, j] = c * (e[i, j] + e[j, i])
                        Y[i, j] += W[i, j]
        multiply(A, G, X)
        for i in range(d):
            s[i] = 0.0
            for j in range(d):
                s[i] += G[i, j] * u[j]
        for _ in range(halvings):
            multiply(X, Y, a)
            multiply_t(a, X, e)
            for i in range(d):
                s_new[i] = 2.0 * s[i]
                for j in range(d):
                    s_new[i] += X[i, j] * s[j]
                    e[i, j] += 2.0 * Y[i, j] + a[i, j]
            for i in range(d):
                for j in range(d):
                    Y[i, j] = e[i, j] + a[j, i]
            multiply(X, X, a)
            for i in range(d):
                for j in range(d):
                    X[i, j] = 2.0 * X[i, j] + a[i, j]
            for i in range(d):
                s[i] = s_new[i]
        for i in range(d):
            psi[k, i] = s[i]
            for j in range(d):
                Phi[k, i, j] = X[i, j]
                V[k, i, j] = 0.5 * (Y[i, j] + Y[j, i])
            Phi[k, i, i] += 1.0


@bare
def _halvings(reach: float) -> int:
    return int(np.ceil(np.log2(reach / BASE_NORM))) if reach > BASE_NORM else 0


@jit
def transition_adjoint(A: Any, Q: Any, u: Any, steps: Any, gF: Any, gb: Any, gV: Any) -> Any:
    """Gradient in (A, Q, u) from gradients in (Phi, psi, V) over every interval.

    Reverse mode through a Taylor step of length dt / 2^k and k doublings of X = Phi - I, psi and
    V: right for every A (defective, singular, unstable), and nothing like e^{-A dt} occurs.
    """
    d = len(A)
    gA, gQ, gu = np.zeros((d, d)), np.zeros((d, d)), np.zeros(d)
    deepest = 0
    for k in range(len(steps)):
        deepest = max(deepest, _halvings(column_norm(A) * steps[k]))
    _pull_back(
        A, Q, u, steps, gF, gb, gV, gA, gQ, gu, np.empty((2, TAYLOR_TERMS, d, d)),
        np.empty((2, deepest + 1, d, d)), np.empty((deepest + 1, d)), np.empty((7, d, d)),
        np.empty((2, d)),
    )  # fmt: skip
    return gA, gQ, gu


@bare
def _pull_back(
    A: Any, Q: Any, u: Any, steps: Any, gF: Any, gb: Any, gV: Any, gA: Any, gQ: Any, gu: Any,
    taylor: Any, doubled: Any, S: Any, square: Any, row: Any,
) -> None:  # fmt: skip
    d, norm = len(A), column_norm(A)
    T, W, X, Y = taylor[0], taylor[1], doubled[0], doubled[1]
    G, GX, GW, GG = square[0], square[1], square[2], square[3]
    a, e, w, s_bar, s_new = square[4], square[5], square[6], row[0], row[1]
    for k in range(len(steps)):
        if steps[k] == 0.0:
            continue
        halvings = _halvings(norm * steps[k])
        h = steps[k] / 2.0**halvings
        # G = int_0^h e^{As} ds, X = A G, V by Taylor
        for i in range(d):
            for j in range(d):
                T[0, i, j] = h if i == j else 0.0
                W[0, i, j] = h * Q[i, j]
        copy(T[0], G)
        copy(W[0], Y[0])
        for m in range(1, TAYLOR_TERMS):
            c = h / (m + 1)
            multiply(A, T[m - 1], T[m])
            multiply(A, W[m - 1], a)
            for i in range(d):
                for j in range(d):
                    T[m, i, j] *= c
                    W[m, i, j] = c * (a[i, j] + a[j, i])
                    G[i, j] += T[m, i, j]
                    Y[0, i, j] += W[m, i, j]
        multiply(A, G, X[0])
        for i in range(d):
            S[0, i] = 0.0
            for j in range(d):
                S[0, i] += G[i, j] * u[j]
        for m in range(halvings):
            multiply(X[m], X[m], X[m + 1])
            multiply(X[m], Y[m], a)
            multiply_t(a, X[m], e)
            for i in range(d):
                S[m + 1, i] = 2.0 * S[m, i]
                for j in range(d):
                    X[m + 1, i, j] += 2.0 * X[m, i, j]
                    Y[m + 1, i, j] = 2.0 * Y[m, i, j] + a[i, j] + a[j, i] + e[i, j]
                    S[m + 1, i] += X[m, i, j] * S[m, j]
        copy(gF[k], GX)
        for i in range(d):
            s_bar[i] = gb[k, i]
            for j in range(d):
                GW[i, j] = 0.5 * (gV[k, i, j] + gV[k, j, i])
        for m in range(halvings - 1, -1, -1):
            multiply(GW, Y[m], w)  # GW Phi V = GW V + GW X V
            multiply(X[m], Y[m], a)
            multiply(GW, a, e)
            for i in range(d):
                for j in range(d):
                    w[i, j] = 2.0 * (w[i, j] + e[i, j]) + s_bar[i] * S[m, j] + 2.0 * GX[i, j]
            t_multiply(X[m], GX, a)
            multiply_t(GX, X[m], e)
            for i in range(d):
                for j in range(d):
                    GX[i, j] = w[i, j] + a[i, j] + e[i, j]
            t_multiply(X[m], GW, a)
            multiply(GW, X[m], e)
            multiply(a, X[m], w)
            for i in range(d):
                s_new[i] = 2.0 * s_bar[i]
                for j in range(d):
                    GW[i, j] = 2.0 * GW[i, j] + a[i, j] + e[i, j] + w[i, j]
                    s_new[i] += X[m, j, i] * s_bar[j]
            for i in range(d):
                s_bar[i] = s_new[i]
        add_t_product(GX, G, 1.0, gA)
        t_multiply(A, GX, GG)
        for i in range(d):
            for j in range(d):
                GG[i, j] += s_bar[i] * u[j]
                gu[i] += G[j, i] * s_bar[j]
        copy(GG, e)
        copy(GW, w)
        for m in range(TAYLOR_TERMS - 1, 0, -1):
            c = h / (m + 1)
            add_t_product(e, T[m - 1], c, gA)
            multiply(w, W[m - 1], a)
            for i in range(d):
                for j in range(d):
                    gA[i, j] += 2.0 * c * a[i, j]
            t_multiply(A, e, a)
            for i in range(d):
                for j in range(d):
                    e[i, j] = GG[i, j] + c * a[i, j]
            t_multiply(A, w, a)
            for i in range(d):
                for j in range(d):
                    w[i, j] = GW[i, j] + c * (a[i, j] + a[j, i])
        for i in range(d):
            for j in range(d):
                gQ[i, j] += h * w[i, j]
