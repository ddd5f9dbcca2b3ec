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


SLOPES = ("F", "b", "V", "H", "shift", "R", "mean", "cov", "flat")
"""The arrays of a chain by which there is a gradient; flat as rows (q, d)."""


def no_slopes(chain: Chain) -> list[Array]:
    """Zeros in the shapes of a chain's `SLOPES`."""
    *arrays, flat = (np.zeros(getattr(chain, name).shape) for name in SLOPES)
    return [*arrays, np.zeros(flat.shape[::-1])]


def as_chain(slopes: list[Array], chain: Chain) -> Chain:
    """The gradient in the form of a `Chain`."""
    *arrays, flat = slopes
    named: dict[str, Any] = dict(zip(SLOPES, [*arrays, flat.T], strict=True))
    return chain._replace(**named)


def loglik_group(
    chain: Chain, group: Group, slopes: list[Array] | None, moments: Moments | None
) -> tuple[int, list[float]]:
    """Log-likelihood of a group of paths; its gradient is added to `slopes`, `moments` are filled.

    Returns the time index of a singular innovation covariance, or -1, and the log-likelihood with
    the three doubts of `_base.doubts`.
    """
    _, p, n = group.z.shape
    d = len(chain.mean)
    value = np.zeros(4)
    into = tuple(no_slopes(chain) if slopes is None else slopes)
    kept = Moments.empty(0, d, p, n) if moments is None else moments
    root = np.zeros((0, d, d)) if chain.root is None else chain.root
    *along, _ = chain._replace(flat=np.ascontiguousarray(chain.flat.T), root=root)
    data = group.z, group.mask, group.scale
    status = core.loglik_group(tuple(along), data, slopes is not None, into, tuple(kept), value)
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
        data = which[rows], batch.z, batch.observed, batch.scale
        fits = core.loglik_sdes(models[rows], along, times, *data, gradient[rows], found[rows])
        assert fits, "models have other sizes than data and flat directions"

    turn = M if M * len(grid.t) < SERIAL_WORK else -(-M // (4 * thread_count()))
    spread(part, [slice(k, k + turn) for k in range(0, M, turn)], M * len(grid.t))
    return found, gradient
