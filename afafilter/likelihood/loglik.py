"""Log-likelihood of linear Gaussian models and its exact gradient.

The recursion is the square-root Kalman filter's own: likelihood and filter agree to rounding. The
gradient is the disturbance-smoother score (Koopman & Shephard, 1992; Durbin & Koopman, 2012,
sec. 7.3), extended to transitions, observation matrices and offsets, and carried through the
exact discretisation in reverse mode. It uses no inverse of V, hence is right for Q = 0, singular V
and repeated times. Flat starts are exact (de Jong, 1991).

Cost O(T d^2 (d + n)) per group of n paths with one missing pattern, memory O(T d (d + n)).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from afafilter._base.checks import Array
from afafilter._base.doubts import warn_of_rounding
from afafilter.likelihood.chain import (
    FAINT,
    Chain,
    DiscreteSystem,
    PriorArrays,
    System,
    discrete_chain,
    sde_chain,
    within_reach,
)
from afafilter.likelihood.data import Data
from afafilter.likelihood.recursions import Moments, Score, loglik_group, loglik_sde
from afafilter.models.priors import InitialLaw


def make_chain(
    system: System | DiscreteSystem, data: Data, law: InitialLaw | None = None
) -> tuple[Chain, Callable[[Chain], Any]]:
    """The chain of either kind of system and the pullback of its gradient.

    law : that of a stationary prior, where it is known.
    """
    if isinstance(system, System):
        return sde_chain(system, data, law)
    return discrete_chain(system, data, law)


def chain_loglik(
    chain: Chain, data: Data, *, gradient: bool = True, keep: bool = False, warn: bool = False
) -> tuple[float, Chain, list[Moments]]:
    """Log-likelihood, its gradient by every array of the chain, and smoothed moments if asked.

    Where the chain has a lead, the gradient is by `chain.led()`; moments are those at the data. The
    gradient is there with `gradient` or `keep`.

    Every observed component counts log 2 pi; flat directions are integrated out with respect to
    an orthonormal basis at the prior's own time, those that the data do not see are left out.
    warn: whether to say where rounding shows.

    LinAlgError: If the covariance of an innovation is not positive definite (which step is said).
    """
    total, moments = 0.0, []
    early, chain = int(chain.lead is not None), chain.led()
    score = Score.zeros(chain) if gradient or keep else None
    d = len(chain.mean)
    for group in data.groups:
        shown = group.led() if early else group
        T, p, n = shown.z.shape
        kept = Moments.empty(T, d, p, n) if keep else None
        status, (value, *doubts) = loglik_group(chain, shown, score, kept)
        _refuse_singular(status - early)
        if warn:
            warn_of_rounding(doubts, 4)
        total += value
        if kept is not None:
            moments.append(Moments(*(part[early:] for part in kept)))
    return total, chain if score is None else score.chain(chain), moments


def _refuse_singular(status: int) -> None:
    if status >= 0:
        raise np.linalg.LinAlgError(
            f"the innovation covariance at t[{status}] is not positive definite; "
            "R is singular or too small there"
        )


def in_one_call(A: Array, q: int, longest: float) -> Any:
    """Whether `loglik_sde` keeps its digits: of A (d, d) or (M, d, d), with q flat directions."""
    near = np.abs(A).sum(axis=-2).max(axis=-1) * longest <= FAINT
    if q or near.all():
        return near
    if A.ndim == 2:
        return within_reach(A, longest)
    return np.array([within_reach(each, longest) for each in A])


def evaluate(
    system: System | DiscreteSystem,
    data: Data,
    *,
    gradient: bool = True,
    warn: bool = False,
    law: InitialLaw | None = None,
) -> tuple[float, Any]:
    """Log-likelihood and its gradient (a system of the same type).

    warn: whether to say where rounding shows; law: that of a stationary prior, where it is known.
    """
    plain = isinstance(system, System) and system.forcing is None
    if gradient and plain and len(data.groups) == 1 and data.obs_cov is None:
        assert isinstance(system, System)
        prior = system.prior
        if (
            isinstance(prior, PriorArrays)
            and prior.t0 is None
            and in_one_call(system.A, prior.flat.shape[1], data.longest)
        ):
            status, (value, *doubts), slopes = loglik_sde(system, prior, data)
            _refuse_singular(status)
            if warn:
                warn_of_rounding(doubts)
            return value, slopes
    chain, pullback = make_chain(system, data, law)
    value, grad, _ = chain_loglik(chain, data, gradient=gradient, warn=warn)
    return value, pullback(grad) if gradient else None
