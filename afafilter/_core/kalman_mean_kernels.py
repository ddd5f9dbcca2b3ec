"""Compiled recursions for the means of the Kalman filter and the RTS smoother.

filter    m = F m + b,  v = z - H m - off,  e = K v,  m <- m + W e
smooth    xi = T xi+ + V e,  m_s = m + L xi       (see `_kalman_root_kernels`)

Gains and covariances come from `_kalman_kernels`. One path has its components side by side in a
vector; of many paths LANES go side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from afafilter._core.jit import bare, jit
from afafilter._core.kalman_root_kernels import padded, size
from afafilter._core.lanes import LANES, load, load_some, spread, store, store_some


@jit
def filter_means(
    chain: Any, first: Any, m: Any, gains: Any, z: Any, seen: Any, mean: Any, innovation: Any,
    loglik: Any, state: Any, shown: Any,
) -> None:  # fmt: skip
    """Means (n, N, d) of paths that share covariances; m (n, d) is the state at node first - 1.

    state, shown : d and p (see `size`).
    """
    d, p = size(state), size(shown)
    _filter_means(
        chain, first, m, gains, z, seen, mean, innovation, loglik, np.zeros((2, padded(d))),
        np.zeros((2, padded(p))), np.zeros((d, padded(p))), state, shown,
    )  # fmt: skip


@bare
def _filter_means(
    chain: Any, first: Any, m: Any, gains: Any, z: Any, seen: Any, mean: Any, innovation: Any,
    loglik: Any, states: Any, shows: Any, across: Any, state: Any, shown: Any,
) -> None:  # fmt: skip
    """`filter_means` with its work space."""
    paths, n = z.shape[0], chain.step.shape[0]
    d, p = size(state), size(shown)
    x, before = states[0], states[1]
    v, e = shows[0], shows[1]
    faced = -1
    for path in range(paths):
        for i in range(d):
            x[i] = m[path, i]
        for k in range(first, n):
            o = chain.obs[k]
            if k > 0:
                u = chain.step[k]
                before, x = x, before
                for b in range(0, d, LANES):
                    t = load_some(chain.b, (u, b), d - b)
                    for j in range(d):
                        t += before[j] * load_some(chain.F, (u, j, b), d - b)
                    store(x, b, t)
            if o >= 0:
                c, g = chain.cfg[o], gains.slot[k]
                if c != faced:
                    for i in range(d):
                        for a in range(p):
                            across[i, a] = chain.H[c, a, i]
                    faced = c
                for b in range(0, p, LANES):
                    t = load_some(z, (path, o, b), p - b) - load_some(chain.off, (c, b), p - b)
                    for i in range(d):
                        t -= x[i] * load(across, (i, b))
                    store(v, b, t)
                    store_some(innovation, (path, o, b), t, 0, p - b)
                for a in range(p):
                    if not seen[o, a]:
                        v[a] = 0.0
                        innovation[path, o, a] = np.nan
                for b in range(0, p, LANES):
                    t = spread(0.0)
                    for a in range(p):
                        t += v[a] * load_some(gains.K, (g, a, b), p - b)
                    store(e, b, t)
                total = 0.0
                for a in range(p):
                    total += e[a] * e[a]
                loglik[path, o] = gains.half[g] - 0.5 * total
                for b in range(0, d, LANES):
                    t = load(x, b)
                    for a in range(p):
                        t += e[a] * load_some(gains.W, (g, a, b), d - b)
                    store(x, b, t)
            for b in range(0, d, LANES):
                store_some(mean, (path, k, b), load(x, b), 0, d - b)


@jit
def filter_means_beside(
    chain: Any, first: Any, m: Any, gains: Any, z: Any, seen: Any, mean: Any, innovation: Any,
    loglik: Any, state: Any, shown: Any,
) -> None:  # fmt: skip
    """`filter_means` with LANES paths side by side."""
    d, p = size(state), size(shown)
    _filter_means_beside(
        chain, first, m, gains, z, seen, mean, innovation, loglik, np.zeros((2, d, LANES)),
        np.zeros((3, p, LANES)), state, shown,
    )  # fmt: skip


@bare
def _filter_means_beside(
    chain: Any, first: Any, m: Any, gains: Any, z: Any, seen: Any, mean: Any, innovation: Any,
    loglik: Any, states: Any, shows: Any, state: Any, shown: Any,
) -> None:  # fmt: skip
    """`filter_means_beside` with its work space."""
    paths, n = z.shape[0], chain.step.shape[0]
    d, p = size(state), size(shown)
    x, before = states[0], states[1]
    data, v, e = shows[0], shows[1], shows[2]
    for start in range(0, paths, LANES):
        lanes = min(LANES, paths - start)
        for i in range(d):
            for l in range(lanes):
                x[i, l] = m[start + l, i]
        for k in range(first, n):
            o = chain.obs[k]
            if o >= 0:  # gathered early: vectors cannot be read right after single numbers
                for l in range(lanes):
                    for a in range(p):
                        data[a, l] = z[start + l, o, a]
            if k > 0:
                u = chain.step[k]
                before, x = x, before
                for i in range(d):
                    store(x, (i, 0), spread(chain.b[u, i]))
                _add_product(chain.F[u], before, x, state, state)
            if o >= 0:
                c, g = chain.cfg[o], gains.slot[k]
                for a in range(p):
                    t = spread(chain.off[c, a])
                    for i in range(d):
                        t += chain.H[c, a, i] * load(x, (i, 0))
                    if seen[o, a]:
                        t = load(data, (a, 0)) - t
                    store(v, (a, 0), t)
                for l in range(lanes):
                    for a in range(p):
                        innovation[start + l, o, a] = v[a, l] if seen[o, a] else np.nan
                _product(gains.K[g], v, e, shown, shown)
                _add_product(gains.W[g], e, x, state, shown)
                for l in range(lanes):
                    total = 0.0
                    for a in range(p):
                        total += e[a, l] * e[a, l]
                    loglik[start + l, o] = gains.half[g] - 0.5 * total
            for l in range(lanes):
                for i in range(d):
                    mean[start + l, k, i] = x[i, l]


@bare
def _add_product(M: Any, x: Any, out: Any, rows: Any, columns: Any) -> None:
    """out += M @ x, M by columns, for the LANES columns of x."""
    for i in range(size(rows)):
        total = load(out, (i, 0))
        for j in range(size(columns)):
            total += M[j, i] * load(x, (j, 0))
        store(out, (i, 0), total)


@bare
def _product(M: Any, x: Any, out: Any, rows: Any, columns: Any) -> None:
    """out = M @ x, M by columns, for the LANES columns of x."""
    for i in range(size(rows)):
        total = spread(0.0)
        for j in range(size(columns)):
            total += M[j, i] * load(x, (j, 0))
        store(out, (i, 0), total)


@jit
def smooth_means(
    chain: Any, last: Any, gains: Any, innovation: Any, seen: Any, mean: Any, y: Any, state: Any,
    shown: Any,
) -> None:  # fmt: skip
    """Means (n, N, d) of nodes N - 2, ..., last: filtered in, smoothed out.

    y (n, d) gets the mean of xi at node `last`; state, shown as in `filter_means`.
    """
    d, p = size(state), size(shown)
    _smooth_means(
        chain, last, gains, innovation, seen, mean, y, np.zeros((2, padded(d))),
        np.zeros((2, padded(p))), state, shown,
    )  # fmt: skip


@bare
def _smooth_means(
    chain: Any, last: Any, gains: Any, innovation: Any, seen: Any, mean: Any, y: Any, states: Any,
    shows: Any, state: Any, shown: Any,
) -> None:  # fmt: skip
    """`smooth_means` with its work space."""
    paths, n = mean.shape[0], mean.shape[1]
    d, p = size(state), size(shown)
    x, before = states[0], states[1]
    v, e = shows[0], shows[1]
    for path in range(paths):
        for b in range(0, d, LANES):
            store(x, b, spread(0.0))
        for k in range(n - 2, last - 1, -1):
            s, g, o = gains.slot[k + 1], gains.slot[k], chain.obs[k + 1]
            if o >= 0:
                for b in range(0, p, LANES):
                    store(v, b, load_some(innovation, (path, o, b), p - b))
                for a in range(p):
                    if not seen[o, a]:
                        v[a] = 0.0
                for b in range(0, p, LANES):
                    t = spread(0.0)
                    for a in range(p):
                        t += v[a] * load_some(gains.K, (s, a, b), p - b)
                    store(e, b, t)
            before, x = x, before
            for b in range(0, d, LANES):
                t = spread(0.0)
                for j in range(d):
                    t += before[j] * load_some(gains.T, (s, j, b), d - b)
                if o >= 0:
                    for a in range(p):
                        t += e[a] * load_some(gains.V, (s, a, b), d - b)
                store(x, b, t)
            for b in range(0, d, LANES):
                t = load_some(mean, (path, k, b), d - b)
                for j in range(d):
                    t += x[j] * load_some(gains.root, (g, j, b), d - b)
                store_some(mean, (path, k, b), t, 0, d - b)
        for i in range(d):
            y[path, i] = x[i]


@jit
def smooth_means_beside(
    chain: Any, last: Any, gains: Any, innovation: Any, seen: Any, mean: Any, y: Any, state: Any,
    shown: Any,
) -> None:  # fmt: skip
    """`smooth_means` with LANES paths side by side."""
    d, p = size(state), size(shown)
    _smooth_means_beside(
        chain, last, gains, innovation, seen, mean, y, np.zeros((3, d, LANES)),
        np.zeros((2, p, LANES)), state, shown,
    )  # fmt: skip


@bare
def _smooth_means_beside(
    chain: Any, last: Any, gains: Any, innovation: Any, seen: Any, mean: Any, y: Any, states: Any,
    shows: Any, state: Any, shown: Any,
) -> None:  # fmt: skip
    """`smooth_means_beside` with its work space."""
    paths, n = mean.shape[0], mean.shape[1]
    d, p = size(state), size(shown)
    x, before, move = states[0], states[1], states[2]
    v, e = shows[0], shows[1]
    for start in range(0, paths, LANES):
        lanes = min(LANES, paths - start)
        for i in range(d):
            store(x, (i, 0), spread(0.0))
        for k in range(n - 2, last - 1, -1):
            s, g, o = gains.slot[k + 1], gains.slot[k], chain.obs[k + 1]
            if o >= 0:
                for l in range(lanes):
                    for a in range(p):
                        v[a, l] = innovation[start + l, o, a] if seen[o, a] else 0.0
            before, x = x, before
            _product(gains.T[s], before, x, state, state)
            if o >= 0:
                _product(gains.K[s], v, e, shown, shown)
                _add_product(gains.V[s], e, x, state, shown)
            _product(gains.root[g], x, move, state, state)
            for l in range(lanes):
                for i in range(d):
                    mean[start + l, k, i] += move[i, l]
        for i in range(d):
            for l in range(lanes):
                y[start + l, i] = x[i, l]
