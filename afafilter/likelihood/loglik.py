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
from afafilter._base.doubts import Doubts, largest
from afafilter.likelihood.chain import (
    Chain,
    DiscreteSystem,
    PriorArrays,
    System,
    discrete_chain,
    longest_step,
    sde_chain,
)
from afafilter.likelihood.coordinates import in_schur_coordinates
from afafilter.likelihood.data import Data
from afafilter.likelihood.last_digits import is_unsure, warn_of_lost_digits
from afafilter.likelihood.recursions import Moments, as_chain, loglik_group, loglik_sde, no_slopes
from afafilter.likelihood.rounding import SAFE_NORM, core_suffices, powers_cancel
from afafilter.models.priors import InitialLaw


def make_chain(
    system: System | DiscreteSystem, data: Data, law: InitialLaw | None = None
) -> tuple[Chain, Callable[[Chain], Any]]:
    """The chain of either kind of system and the pullback of its gradient.

    law : of the first state under a stationary prior, if already computed.
    """
    if isinstance(system, System):
        return sde_chain(system, data, law)
    return discrete_chain(system, data, law)


def chain_loglik(
    chain: Chain,
    data: Data,
    *,
    gradient: bool = True,
    keep: bool = False,
    doubts: list[Doubts] | None = None,
) -> tuple[float, Chain, list[Moments]]:
    """Log-likelihood, its gradient by every array of the chain, and smoothed moments if asked.

    With an earlier prior the gradient is by `chain.with_prior_step()`; moments are at the data's
    times. The gradient is there with `gradient` or `keep`.

    Every observed component counts log 2 pi; flat directions are integrated out with respect to
    an orthonormal basis at the prior's time; unobservable ones are left out.
    doubts: those of rounding are added to it.

    LinAlgError: If an innovation covariance is not positive definite; the message names the time.
    """
    total, moments = 0.0, []
    skip, chain = int(chain.prior_step is not None), chain.with_prior_step()
    slopes = no_slopes(chain) if gradient or keep else None
    d = len(chain.mean)
    for group in data.groups:
        padded = group.with_prior_step() if skip else group
        T, p, n = padded.z.shape
        kept = Moments.empty(T, d, p, n) if keep else None
        status, (value, *measures) = loglik_group(chain, padded, slopes, kept)
        _refuse_singular(status - skip)
        if doubts is not None:
            doubts.append(Doubts(*measures))
        total += value
        if kept is not None:
            moments.append(Moments(*(part[skip:] for part in kept)))
    return total, chain if slopes is None else as_chain(slopes, chain), moments


def _refuse_singular(status: int) -> None:
    if status >= 0:
        raise np.linalg.LinAlgError(
            f"the innovation covariance at t[{status}] is not positive definite; "
            "R is singular or too small there"
        )


def in_one_call(A: Array, longest: float) -> Any:
    """Whether `loglik_sde` is exact enough: of A (d, d) or of each of A (M, d, d); True: of all."""
    if A.ndim == 2:
        return core_suffices(A, longest)
    if np.abs(A).max(initial=0.0) * A.shape[-1] * longest <= SAFE_NORM:
        return True
    return np.array([core_suffices(each, longest) for each in A])


def evaluate(
    system: System | DiscreteSystem,
    data: Data,
    *,
    gradient: bool = True,
    warn: bool = False,
    law: InitialLaw | None = None,
) -> tuple[float, Any]:
    """Log-likelihood and its gradient (a system of the same type).

    warn: of visible rounding; law: of the first state under a stationary prior, if computed.
    """
    if not warn:
        return _evaluate(system, data, gradient, law)[0]
    answer, doubts, turned = _evaluate(system, data, gradient, law)
    if not doubts.warn(4) and (turned or is_unsure(system, data, doubts, gradient)):
        warn_of_lost_digits(system, answer, lambda s: _evaluate(s, data, gradient)[0])
    return answer


def _evaluate(
    system: System | DiscreteSystem, data: Data, gradient: bool, law: InitialLaw | None = None
) -> tuple[tuple[float, Any], Doubts, bool]:
    """`evaluate`, what rounding may have done, and whether powers of time were turned for it."""
    unforced = isinstance(system, System) and system.forcing is None
    to_own = None
    if gradient and unforced and len(data.groups) == 1 and data.obs_cov is None:
        assert isinstance(system, System)
        prior = system.prior
        if (
            isinstance(prior, PriorArrays)
            and prior.t0 is None
            and in_one_call(system.A, data.longest)
        ):
            status, (value, *measures), slopes = loglik_sde(system, prior, data)
            _refuse_singular(status)
            return (value, slopes), Doubts(*measures), False
    if isinstance(system, System) and powers_cancel(system.A, longest_step(system, data)):
        (system, to_own), law = in_schur_coordinates(system), None
    chain, pullback = make_chain(system, data, law)
    found = [Doubts()]
    value, grad, _ = chain_loglik(chain, data, gradient=gradient, doubts=found)
    doubts, turned = largest(found), to_own is not None
    if not gradient:
        return (value, None), doubts, turned
    slopes = pullback(grad)
    return (value, slopes if to_own is None else to_own(slopes)), doubts, turned
