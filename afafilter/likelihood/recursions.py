"""The likelihood's recursions in the native core (core/likelihood.h), for one group of paths."""

from __future__ import annotations

from typing import Any, NamedTuple

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
    model, which = system.vector()[None], np.zeros(1, np.int64)
    found, slopes = loglik_sdes(model, prior.flat, SeriesBatch.of_group(data), which)
    value, status = found[0, :4].tolist(), int(found[0, 4])
    return status, value, System.of_vector(slopes[0], *system.C.shape[::-1])


def loglik_sdes(models: Array, flat: Array, batch: SeriesBatch, which: Any) -> tuple[Array, Array]:
    """As `loglik_sde` for M models, model m on series which[m]; in threads.

    models : (M, W), each the arrays of a `System`, end to end (`System.vector`).
    flat : (d, q), common to all.

    Returns (M, 5) the log-likelihood, the three doubts and the time index of a singular innovation
    covariance, or -1, and the gradients by the arrays (M, W + q d), end to end, flat last.
    """
    M, along, grid = len(models), np.ascontiguousarray(flat.T), batch.grid
    gradient, found = np.zeros((M, models.shape[1] + flat.size)), np.zeros((M, 5))
    times = grid.steps, grid.index, grid.row, grid.t

    def part(rows: slice) -> None:
        fits = core.loglik_sdes(
            models[rows],
            along,
            times,
            which[rows],
            batch.z,
            batch.observed,
            batch.scale,
            gradient[rows],
            found[rows],
        )
        assert fits, "models have other sizes than data and flat directions"

    turn = M if M * len(grid.t) < SERIAL_WORK else -(-M // (4 * thread_count()))
    spread(part, [slice(k, k + turn) for k in range(0, M, turn)], M * len(grid.t))
    return found, gradient
