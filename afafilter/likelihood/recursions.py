"""The likelihood's recursions in the native core (core/likelihood.h), for one group of paths."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from afafilter._base.checks import Array
from afafilter._core import core
from afafilter.likelihood.chain import Chain
from afafilter.likelihood.data import Group


class Moments(NamedTuple):
    """Smoothed quantities of one group of paths."""

    u: Array  # (T, p, n): smoothed measurement noise is scale R u
    M: Array  # (T, p, p): its posterior covariance is scale R - scale^2 R M R
    x: Array  # (T, d, n)
    cov: Array  # (T, d, d)
    cross: Array  # (T, d, d): Cov(x_t, x_t-1 | z)

    @classmethod
    def empty(cls, T: int, d: int, p: int, n: int) -> Moments:
        """Room for T times."""
        shapes = (T, p, n), (T, p, p), (T, d, n), (T, d, d), (T, d, d)
        return cls(*(np.zeros(shape) for shape in shapes))


class Score(NamedTuple):
    """Gradient by the arrays of a chain, added up over groups, and what one group adds to it.

    costate, origin (d, n): of the first states of the group in hand. The gradient by the flat
    basis D lacks costate delta^T, where origin = D delta.
    """

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
        """Nothing added up yet."""
        arrays = (chain.F, chain.b, chain.V, chain.H, chain.shift, chain.R, chain.mean, chain.cov)
        return cls(*(np.zeros(a.shape) for a in arrays), np.zeros(chain.flat.shape[::-1]))

    def chain(self, chain: Chain) -> Chain:
        """As the gradient by a chain."""
        F, b, V, H, shift, R, mean, cov, flat = self
        return chain._replace(F=F, b=b, V=V, H=H, shift=shift, R=R, mean=mean, cov=cov, flat=flat.T)


def loglik_group(
    chain: Chain, group: Group, score: Score | None, moments: Moments | None
) -> tuple[int, float]:
    """Log-likelihood of a group of paths; its gradient is added to `score`, `moments` are filled.

    Returns the time index whose innovation is known exactly, or -1, and the log-likelihood.
    """
    _, p, n = group.z.shape
    d, q = chain.flat.shape
    gradient = score is not None
    value, costate, origin = np.zeros(1), np.zeros((d, n)), np.zeros((d, n))
    slopes = Score.zeros(chain) if score is None else score
    kept = Moments.empty(0, d, p, n) if moments is None else moments
    along: Any = chain._replace(flat=np.ascontiguousarray(chain.flat.T))
    status = core.loglik_group(
        tuple(along), (group.z, group.mask, group.scale), gradient, (*slopes, costate, origin),
        tuple(kept), value,
    )  # fmt: skip
    if score is not None and q and status < 0:
        delta = np.linalg.lstsq(chain.flat, origin, rcond=None)[0]
        score.flat[...] += delta @ costate.T
    return int(status), float(value[0])
