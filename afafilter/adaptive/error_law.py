"""Exact error law of a linear estimator, from its weights and a model. Below every estimator.

An estimate  xhat_i = c_i + sum_j W_ij z_j  of the state x_i of the model has the error

    xhat_i - x_i = g_i + G_i0 x_0 + sum_{l >= 1} G_il w_l + sum_j W_ij v_j
    G_il = W_il C - [l = i] I + G_i,l+1 Phi_l+1        (backward in l, over the merged time line)

so that its covariance is a sum of positive semidefinite terms: nothing cancels. Beyond the paper,
which has no error law; for the isotropic causal case `theory.isotropic_mse` is its
closed form.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from afafilter._base.checks import Array
from afafilter.models.sde import LinearSDE


class ErrorLaw(NamedTuple):
    """Bias (T, d) and covariance (T, d, d) of estimate minus state.

    A component whose error has no finite variance (the estimator is not unbiased along a flat
    direction of the prior) has bias NaN and variance inf.
    """

    bias: Array
    cov: Array


FLAT_TOLERANCE = 1e-7
"""A gain along a flat direction below this, relative to the largest term of its sum, is zero."""


def error_law(
    truth: LinearSDE,
    t: Array,
    query_times: Array,
    W: Array,
    c: Array,
    R: Array,
) -> ErrorLaw:
    """Error law of the estimates c (T, d) + W (T, N, d, p) z under the model `truth`.

    Parameters
    ----------
    t : ndarray, shape (N,)
        Observation stamps
    query_times : ndarray, shape (T,)
        Times of the estimated states.
    R : ndarray, shape (N, p, p)
        Measurement noise covariances.

    Notes
    -----
    Time O((N + T) T d^3), memory O(T d^2) beyond W.
    """
    d = truth.dim
    n_queries = len(query_times)
    stamps = np.concatenate([t - truth.delay, query_times])
    order = np.argsort(stamps, kind="stable")
    line = stamps[order]
    F, psi, V = truth.transition(np.diff(line))
    mean0, P0, flat = truth.initial_law(line[0])

    G = np.zeros((n_queries, d, d))
    size = np.zeros((n_queries, d, d))
    cov = np.einsum("ijab,jbc,ijdc->iad", W, R, W, optimize=True)
    bias = c + np.einsum("ijab,b->ia", W, truth.offset)
    for k in range(len(line) - 1, -1, -1):
        source = order[k]
        if source < len(t):
            term = W[:, source] @ truth.C
            G += term
            size += np.abs(term)
        else:
            query = source - len(t)
            G[query] -= np.eye(d)
            size[query] += np.eye(d)
        if k > 0:
            bias += G @ psi[k - 1]
            cov += G @ V[k - 1] @ np.swapaxes(G, -1, -2)
            G = G @ F[k - 1]
            size = size @ np.abs(F[k - 1])
    bias += G @ mean0
    cov += G @ P0 @ np.swapaxes(G, -1, -2)
    leak = np.abs(G @ flat).max(axis=-1, initial=0.0)
    bound = FLAT_TOLERANCE * (size @ np.abs(flat)).max(axis=(-2, -1), initial=0.0)[:, None]
    cov = 0.5 * (cov + np.swapaxes(cov, -1, -2))
    unbounded = ~(leak <= bound)
    bias[unbounded] = np.nan
    cov[unbounded] = 0.0
    np.swapaxes(cov, -1, -2)[unbounded] = 0.0
    np.einsum("iaa->ia", cov)[unbounded] = np.inf
    return ErrorLaw(bias, cov)
