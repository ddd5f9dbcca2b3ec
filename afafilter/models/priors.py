"""Law of the state before the first observation: proper, stationary or flat (diffuse)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, choice, covariance, real_array, scalar
from afafilter._base.masks import refuse_differing
from afafilter._base.signatures import assign
from afafilter._base.steps import rounding
from afafilter.linalg import discretiser

PRIOR_WORDS = ("stationary", "diffuse")


class InitialLaw(NamedTuple):
    """Law of a state: N(mean, cov) plus flat (diffuse, improper) directions.

    mean : (d,); cov : (d, d); diffuse : (d, q) orthonormal columns, q = 0 when proper. Along the
    flat directions mean and cov are 0.
    """

    mean: Array
    cov: Array
    diffuse: Array

    def copied(self) -> InitialLaw:
        """The same in arrays of its own."""
        return InitialLaw(*(part.copy() for part in self))

    @classmethod
    def flat(cls, d: int) -> InitialLaw:
        """Nothing is known of any of the d components."""
        return cls(np.zeros(d), np.zeros((d, d)), np.eye(d))

    @classmethod
    def stationary(cls, A: Array, Q: Array, drift: Array) -> InitialLaw:
        """The law that dx = (A x + drift) dt + dw keeps, A stable: A m = -u, A P + P A^T + Q = 0.

        Raises
        ------
        numpy.linalg.LinAlgError
            If A is not stable.
        """
        if not discretiser.is_stable(A):
            raise np.linalg.LinAlgError("a stationary prior needs a stable A")
        mean = np.asarray(np.linalg.solve(A, -drift), dtype=np.float64)
        return cls(mean, discretiser.stationary_covariance(A, Q), np.zeros((len(A), 0)))

    @classmethod
    def stationary_steps(cls, F: Array, Q: Array, b: Array) -> InitialLaw:
        """The law that x_k = F x_{k-1} + b + w keeps: (I - F) m = b, P = F P F^T + Q.

        Raises
        ------
        numpy.linalg.LinAlgError
            If F is not stable.
        """
        if np.abs(np.linalg.eigvals(F)).max() >= 1:
            raise np.linalg.LinAlgError("a stationary prior needs a stable F")
        mean = np.asarray(np.linalg.solve(np.eye(len(F)) - F, b), dtype=np.float64)
        return cls(mean, discretiser.stationary_steps_covariance(F, Q), np.zeros((len(F), 0)))

    def predicted(self, Phi: Array, psi: Array, V: Array) -> InitialLaw:
        """Law of Phi x + psi + w, w ~ N(0, V); flat directions are not orthonormalised."""
        return InitialLaw(Phi @ self.mean + psi, Phi @ self.cov @ Phi.T + V, Phi @ self.diffuse)


def prior_time(t0: float | None, t_first: float) -> float:
    """Time of a prior: t0, or the first time (t - delay) where t0 is None or equals it.

    ValueError: t0 lies after the first time.
    """
    if t0 is None or abs(t0 - t_first) <= rounding(t_first):
        return t_first
    if t0 > t_first:
        raise ValueError(
            "prior t0 must not be after the first state that is observed, "
            f"got t0 = {t0:g} and t - delay = {t_first:g}"
        )
    return t0


@dataclass(frozen=True, eq=False)
class Prior:
    """Gaussian law of the state at time t0, flat along the directions in `diffuse`.

    Parameters
    ----------
    mean : ndarray, shape (d,)
    cov : ndarray, shape (d, d)
        Positive semidefinite (zeros: the state is known).
    t0 : float, optional
        Time at which the law holds. None: the state that the first observation shows, before that
        observation is used (no prediction in between). An earlier t0: propagated from there.
    diffuse : ndarray, shape (d, q), optional
        Directions without any prior knowledge, or None. `cov` counts only in the
        orthogonal complement.

    Raises
    ------
    ValueError, TypeError
        Wrong shape, not finite, asymmetric or indefinite.
    """

    mean: Array
    cov: Array
    t0: float | None = None
    diffuse: Array | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            mean: ArrayLike,
            cov: ArrayLike,
            t0: float | None = None,
            diffuse: ArrayLike | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        refuse_differing({"prior mean": self.mean, "prior cov": self.cov, "diffuse": self.diffuse})
        mean = real_array(self.mean, "prior mean")
        if mean.ndim != 1 or mean.size == 0:
            raise ValueError(f"prior mean must have shape (d,), got {mean.shape}")
        d = len(mean)
        cov = covariance(self.cov, "prior cov", (d, d))
        if self.diffuse is not None:
            basis = real_array(self.diffuse, "prior diffuse")
            if basis.ndim != 2 or basis.shape[0] != d or not 0 < basis.shape[1] <= d:
                raise ValueError(f"prior diffuse must have shape ({d}, q), got {basis.shape}")
            basis, triangle = np.linalg.qr(basis)
            if np.abs(np.diag(triangle)).min() <= 1e-12 * np.abs(triangle).max():
                raise ValueError("prior diffuse must have linearly independent columns")
            proper = np.eye(d) - basis @ basis.T
            mean, cov = proper @ mean, proper @ cov @ proper
            cov = 0.5 * (cov + cov.T)
            assign(self, diffuse=basis)
        t0 = None if self.t0 is None else scalar(self.t0, "prior t0")
        assign(self, mean=mean, cov=cov, t0=t0)

    def __repr__(self) -> str:
        flat = "" if self.diffuse is None else f", {self.diffuse.shape[1]} flat directions"
        when = "at the first observation" if self.t0 is None else f"at t0 = {self.t0:g}"
        return f"Prior({len(self.mean)} components{flat}, {when})"

    @property
    def law(self) -> InitialLaw:
        """The law at t0."""
        flat = np.zeros((len(self.mean), 0)) if self.diffuse is None else self.diffuse
        return InitialLaw(self.mean, self.cov, flat)


PriorLike = Prior | Literal["stationary", "diffuse"] | None


def resolve_prior(prior: PriorLike, d: int, stable: bool) -> PriorLike:
    """The prior of a model with d components: the default filled in, the rest checked."""
    if prior is None:
        return "stationary" if stable else "diffuse"
    if isinstance(prior, str):
        choice(prior, "prior", PRIOR_WORDS)
        if prior == "stationary" and not stable:
            raise ValueError("prior 'stationary' needs stable, constant dynamics; use 'diffuse'")
        return prior
    if not isinstance(prior, Prior):
        raise TypeError(f"prior must be a Prior, 'stationary' or 'diffuse', got {prior!r}")
    if len(prior.mean) != d:
        raise ValueError(f"prior mean must have shape ({d},), got ({len(prior.mean)},)")
    return prior
