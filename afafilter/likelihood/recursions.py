"""The likelihood's recursions in the native core (core/likelihood.h), for one group of paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from afafilter._base.checks import Array
from afafilter._base.threads import SERIAL_WORK, spread, thread_count
from afafilter._core import core
from afafilter.likelihood.chain import Chain, PriorArrays, System
from afafilter.likelihood.data import Data, Group, SeriesBatch


class Moments(NamedTuple):
    """Smoothed quantities of one group of paths."""

    u: Array  # (T, p, n): smoothed measurement noise is scale R u
    M: Array  # (T, p, p): its posterior covariance is scale R - scale^2 R M R
    x: Array  # (T, d, n)
    cov: Array  # (T, d, d)
    cross: Array  # (T, d, d): Cov(x_t, x_t-1 | z)

    @classmethod
    def empty(cls, T: int, d: int, p: int, n: int) -> Moments:
        """Zeros for T times."""
        shapes = (T, p, n), (T, p, p), (T, d, n), (T, d, d), (T, d, d)
        return cls(*(np.zeros(shape) for shape in shapes))


class Score(NamedTuple):
    """Gradient by the arrays of a chain, accumulated over groups of paths."""

    F: Array
    b: Array
    V: Array
    H: Array
    shift: Array
    R: Array
    mean: Array
    cov: Array
    flat: Array  # (q, d)

    @classmethod
    def zeros(cls, chain: Chain) -> Score:
        """Zeros in the shapes of a chain."""
        arrays: tuple[Array, ...] = (
            chain.F,
            chain.b,
            chain.V,
            chain.H,
            chain.shift,
            chain.R,
            chain.mean,
            chain.cov,
            chain.flat.T,
        )
        return cls(*(np.zeros(a.shape) for a in arrays))

    def chain(self, chain: Chain) -> Chain:
        """The gradient in the form of a `Chain`."""
        F, b, V, H, shift, R, mean, cov, flat = self
        return chain._replace(F=F, b=b, V=V, H=H, shift=shift, R=R, mean=mean, cov=cov, flat=flat.T)


def loglik_group(
    chain: Chain, group: Group, score: Score | None, moments: Moments | None
) -> tuple[int, list[float]]:
    """Log-likelihood of a group of paths; its gradient is added to `score`, `moments` are filled.

    Returns the time index of a singular innovation covariance, or -1, and the log-likelihood with
    the three doubts of `_base.doubts`.
    """
    _, p, n = group.z.shape
    d = len(chain.mean)
    gradient = score is not None
    value = np.zeros(4)
    slopes = Score.zeros(chain) if score is None else score
    kept = Moments.empty(0, d, p, n) if moments is None else moments
    root = np.zeros((0, d, d)) if chain.root is None else chain.root
    *along, _ = chain._replace(flat=np.ascontiguousarray(chain.flat.T), root=root)
    status = core.loglik_group(
        tuple(along),
        (group.z, group.mask, group.scale),
        gradient,
        tuple(slopes),
        tuple(kept),
        value,
    )
    return int(status), value.tolist()


def loglik_sde(system: System, prior: PriorArrays, data: Data) -> tuple[int, list[float], System]:
    """Transitions, `loglik_group` and gradient of an SDE in one call: faster for short series.

    For data of one group with R as noise, and a prior at the first time.
    """
    A, Q, u, C, offset, R = system[:6]
    (group,) = data.groups
    parts = A, Q, prior.cov, C, R, offset, u, prior.mean, prior.flat
    vector, value = np.zeros(sum([part.size for part in parts])), np.zeros(4)
    law = prior.mean, prior.cov, np.ascontiguousarray(prior.flat.T)
    status = core.loglik_sde(
        (A, Q, u, C[None], offset[None], R[None], *law),
        (data.steps, data.index, data.row, data.t),
        (group.z, group.mask, group.scale),
        vector,
        value,
    )
    slopes, end = [], 0
    for part in parts:
        slopes.append(vector[end : end + part.size].reshape(part.shape))
        end += part.size
    gA, gQ, gP, gC, gR, g_offset, gu, gm, gD = slopes
    gD = vector[end - gD.size : end].reshape(gD.shape[::-1]).T
    shared = vector[: end - u.size - prior.mean.size - prior.flat.size]
    first = PriorArrays(gm, gP, gD)
    return status, value.tolist(), System(gA, gQ, gu, gC, g_offset, gR, first, vector=shared)


def loglik_sdes(
    arrays: Sequence[Array], flat: Array, batch: SeriesBatch, which: Array
) -> tuple[Array, Array]:
    """As `loglik_sde` for M models, model m on series which[m]; in threads.

    arrays : A, Q, prior cov, C, R, offset, each with a leading axis M; no drift, prior mean 0.
    flat : (d, q), common to all.

    Returns the log-likelihoods (M,), NaN where an innovation covariance is singular, and the
    gradients by the arrays (M, G), end to end.
    """
    A, Q, cov, C, R, offset = arrays
    M, d = A.shape[:2]
    size = sum([array[0].size for array in arrays])
    gradient, value, mean = (
        np.zeros((M, size + d * (2 + flat.shape[1]))),
        np.zeros(M),
        np.zeros((M, d)),
    )
    along, grid = np.ascontiguousarray(flat.T), batch.grid

    def part(rows: slice) -> None:
        model = (array[rows] for array in (A, Q, mean, C, offset, R, mean, cov))
        core.loglik_sdes(
            (*model, along),
            (grid.steps, grid.index, grid.row, grid.t),
            which[rows],
            batch.z,
            batch.observed,
            batch.scale,
            gradient[rows],
            value[rows],
        )

    turn = M if M * len(grid.t) < SERIAL_WORK else -(-M // (4 * thread_count()))
    spread(part, [slice(k, k + turn) for k in range(0, M, turn)], M * len(grid.t))
    return value, gradient[:, :size]
