"""One node at a time for many paths, each with its own covariance: what reweighting needs.

Symbols as in `_kalman_root_kernels` and `_kalman_flat_kernels`, with a leading axis for paths;
L (n, d, d) by columns;
open_ says whether a path's delta is not integrated out yet.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from afafilter._core.jit import jit
from afafilter._core.kalman_flat_kernels import (
    RANK_TOL,
    can_collapse,
    integrate_out,
    predict_flat,
    update_flat,
)
from afafilter._core.kalman_root_kernels import (
    column_space,
    face,
    innovation_cov,
    predict_root,
    read_columns,
    shown_space,
    write_columns,
)


@jit
def predict_all(chain: Any, k: Any, L: Any, m: Any, M: Any, T: Any) -> None:
    """Carry every path from node k - 1 to node k."""
    paths, d = m.shape
    space = column_space(2 * d, d)
    x = np.empty(d)
    u = chain.step[k]
    for path in range(paths):
        read_columns(L[path], space.A)
        predict_root(chain.F[u], chain.root[u], space, False, d)
        write_columns(space.A, 0, 0, L[path], d)
        predict_flat(chain.F[u], chain.b[u], m[path : path + 1], M[path], T[path], x)


@jit
def innovations_all(
    chain: Any,
    o: Any,
    z: Any,
    L: Any,
    m: Any,
    M: Any,
    T: Any,
    s: Any,
    largest: Any,
    open_: Any,
    v: Any,
    S: Any,
    known: Any,
) -> None:
    """Innovations v (n, p) of observation o, the covariance S (n, p, p) of its prediction without
    measurement noise, and whether (n, p) the data so far determine the prediction."""
    paths, d = m.shape
    p, q = v.shape[1], M.shape[2]
    c = chain.cfg[o]
    H = chain.H[c]
    A = column_space(d, d).A
    work = shown_space(p, d)
    face(H, work, d, p)
    row = np.empty(q)
    share = np.empty((p, q))
    for path in range(paths):
        read_columns(L[path], A)
        innovation_cov(chain.R[c], 0.0, A, S[path], work, d, p)
        for a in range(p):
            known[path, a] = True
            v[path, a] = z[path, o, a] - chain.off[c, a]
            for i in range(d):
                v[path, a] -= H[a, i] * m[path, i]
        if not open_[path]:
            continue
        for a in range(p):
            for j in range(q):
                row[j] = 0.0
                for i in range(d):
                    row[j] += H[a, i] * M[path, i, j]
            for i in range(q):
                share[a, i] = 0.0
                if abs(row[i]) <= RANK_TOL * max(largest[path, i], abs(row[i])):
                    continue
                if T[path, i, i] == 0.0:
                    known[path, a] = known[path, a] and abs(row[i]) <= RANK_TOL * largest[path, i]
                    continue
                share[a, i] = row[i] / T[path, i, i]
                for j in range(i, q):
                    row[j] -= share[a, i] * T[path, i, j]
                v[path, a] -= share[a, i] * s[path, i]
            for e in range(a + 1):
                for i in range(q):
                    S[path, a, e] += share[a, i] * share[e, i]
                S[path, e, a] = S[path, a, e]


@jit
def update_all(
    chain: Any,
    o: Any,
    z: Any,
    seen: Any,
    scale: Any,
    L: Any,
    m: Any,
    M: Any,
    T: Any,
    s: Any,
    largest: Any,
    open_: Any,
) -> bool:
    """Condition every path on observation o, noise covariance times scale (n,); seen (n, p).

    Returns whether an innovation was known exactly.
    """
    paths, d = m.shape
    p, q = z.shape[2], M.shape[2]
    c = chain.cfg[o]
    S = np.empty((p, p))
    E = np.empty((p, q))
    rows = np.empty((p, q))
    v = np.empty((1, p))
    term, left = np.empty(1), np.empty(1)
    W = np.empty((p, d))
    K = np.empty((p, p))
    work = shown_space(p, d)
    inverse = np.empty((q, q))
    rotation = np.empty((d + q, d + q))
    A = column_space(d, d).A
    for path in range(paths):
        read_columns(L[path], A)
        one = slice(path, path + 1)
        half = update_flat(
            chain.H[c], chain.off[c], chain.R[c], scale[path], seen[path], z[one, o], A, m[one],
            M[path], T[path], s[one], largest[path], S, E, v, term, W, K, W, rows, left, work,
            False,
        )  # fmt: skip
        if np.isnan(half):
            return True
        write_columns(A, 0, 0, L[path], d)
        if open_[path] and can_collapse(T[path], M[path], L[path], inverse):
            integrate_out(L[path], m[one], M[path], s[one], inverse, rotation)
            M[path] = 0.0
            open_[path] = False
    return False
