"""Models as data: linear Ito SDEs, their discrete-time form, and priors.

    dx(t) = (A x(t) + u) dt + B dw(t),   Q = B B^T          state^2 / time
    z_k   = C x(t_k - delay) + b + v_k,  v_k ~ N(0, R)

Everything is validated once, here; estimators trust what they get.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import block_diag, solve_discrete_lyapunov

from afafilter import linalg
from afafilter._validate import (
    Array,
    choice,
    covariance,
    frozen,
    positive_int,
    real_array,
    scalar,
    shaped,
    square,
    times,
)

PRIOR_WORDS = ("stationary", "diffuse")


class InitialLaw(NamedTuple):
    """Law of a state: N(mean, cov) plus flat (improper) directions.

    mean : (d,); cov : (d, d); diffuse : (d, q) orthonormal columns, q = 0 when proper. Along the
    flat directions mean and cov are 0.
    """

    mean: Array
    cov: Array
    diffuse: Array


@dataclass(frozen=True, eq=False)
class Prior:
    """Gaussian law of the state at time t0, flat along the directions in `diffuse`.

    Parameters
    ----------
    mean : (d,)
    cov : (d, d), positive semidefinite (zeros: the state is known).
    t0 : time at which the law holds. None: the first observation, before it is used (no
        prediction in between). An earlier t0: the law is propagated from there.
    diffuse : (d, q) directions without any prior knowledge, or None. `cov` counts only in the
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

    def __post_init__(self) -> None:
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
            object.__setattr__(self, "diffuse", frozen(basis))
        object.__setattr__(self, "mean", frozen(mean))
        object.__setattr__(self, "cov", frozen(cov))
        if self.t0 is not None:
            object.__setattr__(self, "t0", scalar(self.t0, "prior t0"))

    @property
    def law(self) -> InitialLaw:
        """The law at t0."""
        flat = np.zeros((len(self.mean), 0)) if self.diffuse is None else self.diffuse
        return InitialLaw(self.mean, self.cov, flat)


PriorLike = Prior | Literal["stationary", "diffuse"] | None


@dataclass(frozen=True, eq=False)
class LinearSDE:
    """Linear Ito SDE observed at discrete times through a linear map with Gaussian noise.

    Parameters
    ----------
    A : (d, d) drift matrix, 1/time.
    Q : (d, d) diffusion B B^T, state^2/time, symmetric positive semidefinite.
    R : (p, p) measurement noise covariance, symmetric positive semidefinite (estimators that
        need it definite say so).
    C : (p, d) observation matrix; None = identity.
    drift : (d,) constant input u, state/time; None = 0.
    offset : (p,) observation bias b; None = 0.
    delay : >= 0; the observation stamped t shows the state at t - delay.
    prior : `Prior`, "stationary" or "diffuse"; None = "stationary" if A is stable, else "diffuse".

    Raises
    ------
    ValueError, TypeError
        Wrong shapes (scalars are refused where a matrix is meant), not finite, complex,
        asymmetric or indefinite covariances; the message names argument, given and wanted.

    Notes
    -----
    MATH: the model of Racioppo, "Attention as an Adaptive Filter", arXiv:2509.04154, sec. 3, with
    any C, drift, offset and delay.
    """

    A: Array
    Q: Array
    R: Array
    C: Array = None  # type: ignore[assignment]
    drift: Array = None  # type: ignore[assignment]
    offset: Array = None  # type: ignore[assignment]
    delay: float = 0.0
    prior: PriorLike = None

    # After construction C, drift and offset are always arrays and prior is never None.

    def __post_init__(self) -> None:
        A = square(self.A, "A")
        d = len(A)
        Q = covariance(self.Q, "Q", (d, d))
        R = square(self.R, "R")
        p = len(R)
        R = covariance(R, "R", (p, p))
        if self.C is None:
            if p != d:
                raise ValueError(
                    f"R must have shape {(d, d)} when C is left out (C = identity), got {(p, p)}; "
                    f"give C of shape {(p, d)} for a {p}-component observation"
                )
            C = np.eye(d)
        else:
            C = shaped(self.C, "C", (p, d))
        drift = np.zeros(d) if self.drift is None else shaped(self.drift, "drift", (d,))
        offset = np.zeros(p) if self.offset is None else shaped(self.offset, "offset", (p,))
        values: dict[str, Any] = {
            "A": A, "Q": Q, "R": R, "C": C, "drift": drift, "offset": offset,
        }  # fmt: skip
        for name, value in values.items():
            object.__setattr__(self, name, frozen(value))
        object.__setattr__(self, "delay", scalar(self.delay, "delay", low=0.0))
        object.__setattr__(self, "prior", _resolve_prior(self.prior, d, linalg.is_stable(A)))

    @property
    def dim(self) -> int:
        """Number of state components d."""
        return len(self.A)

    @property
    def obs_dim(self) -> int:
        """Number of observed components p."""
        return len(self.R)

    @cached_property
    def modes(self) -> linalg.Modes:
        """Eigenvalues, eigenvectors S, S^-1, their condition, and S^-1 Q S^-H."""
        return linalg.modes(self.A, self.Q)

    def transition(self, dt: ArrayLike) -> tuple[Array, Array, Array]:
        """Exact discretisation over intervals dt.

        Parameters
        ----------
        dt : (...) intervals >= 0.

        Returns
        -------
        Phi : (..., d, d), psi : (..., d), V : (..., d, d)
            x(t + dt) = Phi x(t) + psi + w, w ~ N(0, V).

        Raises
        ------
        ValueError, TypeError
            If dt is negative, not finite or not real.
        """
        steps = real_array(dt, "dt")
        if (steps < 0).any():
            raise ValueError(f"dt must be >= 0, got {steps.min():g}")
        return linalg.transition(self.A, self.Q, self.drift, steps)

    def stationary_covariance(self) -> Array:
        """P (d, d) with A P + P A^T + Q = 0.

        Raises
        ------
        ValueError
            If A is not stable.
        """
        if not linalg.is_stable(self.A):
            raise ValueError("A is not stable: the model has no stationary covariance")
        return linalg.stationary_covariance(self.A, self.Q)

    def initial_law(self, t_first: float) -> InitialLaw:
        """Law of the state at time `t_first`, the first one used, before any observation.

        Raises
        ------
        ValueError
            If the prior holds at a time after `t_first`.
        """
        d = self.dim
        if self.prior == "diffuse":
            return InitialLaw(np.zeros(d), np.zeros((d, d)), np.eye(d))
        if self.prior == "stationary":
            mean = np.linalg.solve(self.A, -self.drift)
            return InitialLaw(mean, self.stationary_covariance(), np.zeros((d, 0)))
        assert isinstance(self.prior, Prior)
        if self.prior.t0 is None or self.prior.t0 == t_first:
            return self.prior.law
        if self.prior.t0 > t_first:
            raise ValueError(
                f"prior t0 must not be after the first time, got t0 = {self.prior.t0:g} "
                f"and first time {t_first:g}"
            )
        Phi, psi, V = self.transition(t_first - self.prior.t0)
        mean, cov, flat = self.prior.law
        flat = np.linalg.qr(Phi @ flat)[0]
        moved = Prior(Phi @ mean + psi, Phi @ cov @ Phi.T + V, None, flat if flat.size else None)
        return moved.law

    def discretize(self, t: ArrayLike) -> DiscreteModel:
        """The equivalent discrete-time model on the grid t (T,), prior included.

        Entry k of F, Q and b leads from t[k-1] to t[k]; entry 0 is the identity step.
        """
        grid = times(t)
        F, b, V = self.transition(np.diff(grid, prepend=grid[0]))
        law = self.initial_law(grid[0] - self.delay)
        if self.delay > 0:
            raise ValueError("a model with delay has no plain discrete form; set delay = 0")
        flat = law.diffuse if law.diffuse.size else None
        return DiscreteModel(
            F, V, self.C, self.R, b=b, d=self.offset, prior=Prior(law.mean, law.cov, None, flat),
            time_varying=("F", "Q", "b"),
        )  # fmt: skip

    @classmethod
    def isotropic(
        cls,
        decay: float,
        frequency: ArrayLike = 0.0,
        *,
        process_var: float,
        obs_var: float,
        dim: int | None = None,
        prior: PriorLike = None,
    ) -> LinearSDE:
        """The paper's isotropic case: A = -decay I + Omega, Q = process_var I, R = obs_var I.

        Parameters
        ----------
        decay : mu >= 0, 1/time.
        frequency : () or (n,) rotation rates omega, radian/time, one per pair of components.
        process_var : sigma^2 >= 0. obs_var : eta^2 >= 0.
        dim : number of components, 2n or 2n + 1 (the odd one does not rotate). Default 2n.
        prior : as in `LinearSDE`.
        """
        mu = scalar(decay, "decay", low=0.0)
        omega = np.atleast_1d(real_array(frequency, "frequency"))
        if omega.ndim != 1:
            raise ValueError(f"frequency must have shape (n,), got {omega.shape}")
        if dim is None:
            d = 2 * len(omega)
        else:
            d = positive_int(dim, "dim")
            if len(omega) == 1 and d != 3:
                omega = np.full(d // 2, omega[0])
        if d // 2 != len(omega):
            raise ValueError(f"dim must be {2 * len(omega)} or {2 * len(omega) + 1}, got {dim}")
        A = -mu * np.eye(d)
        for k, w in enumerate(omega):
            A[2 * k, 2 * k + 1], A[2 * k + 1, 2 * k] = -w, w
        sigma2 = scalar(process_var, "process_var", low=0.0)
        eta2 = scalar(obs_var, "obs_var", low=0.0)
        return cls(A, sigma2 * np.eye(d), eta2 * np.eye(d), prior=prior)

    def __add__(self, other: LinearSDE) -> LinearSDE:
        """Independent states side by side, observed through the sum: z = z_a + z_b.

        Offsets and measurement noises add; priors are joined.

        Raises
        ------
        ValueError
            If the two observe a different number of components, have different delays, or
            priors at different times.
        """
        if not isinstance(other, LinearSDE):
            return NotImplemented
        if self.obs_dim != other.obs_dim:
            raise ValueError(
                "models can be added when they observe the same components, "
                f"got p = {self.obs_dim} and {other.obs_dim}"
            )
        if self.delay != other.delay:
            raise ValueError(f"models to add must share delay, got {self.delay} and {other.delay}")
        return LinearSDE(
            block_diag(self.A, other.A),
            block_diag(self.Q, other.Q),
            self.R + other.R,
            C=np.hstack([self.C, other.C]),
            drift=np.concatenate([self.drift, other.drift]),
            offset=self.offset + other.offset,
            delay=self.delay,
            prior=_join_priors(self, other),
        )


@dataclass(frozen=True, eq=False)
class DiscreteModel:
    """Linear Gaussian state-space model in discrete time.

        x_k = F_k x_{k-1} + b_k + w_k,  w_k ~ N(0, Q_k)
        z_k = H_k x_k + d_k + v_k,      v_k ~ N(0, R_k)

    Parameters
    ----------
    F : (n, n); Q : (n, n); H : (p, n); R : (p, p); b : (n,) or None; d : (p,) or None.
        An array named in `time_varying` has a leading axis of length T; entry 0 of F, Q and b is
        not used (the prior is the law of x_0).
    prior : `Prior`, "stationary" or "diffuse"; None = "stationary" if F, Q, b are constant and F
        is stable, else "diffuse".
    time_varying : names of the arrays with a leading time axis, e.g. ("F", "Q").

    Raises
    ------
    ValueError, TypeError
        As for `LinearSDE`; also when leading axes differ in length.
    """

    F: Array
    Q: Array
    H: Array
    R: Array
    b: Array = None  # type: ignore[assignment]
    d: Array = None  # type: ignore[assignment]
    prior: PriorLike = None
    time_varying: str | tuple[str, ...] = ()

    def __post_init__(self) -> None:
        varying = (self.time_varying,) if isinstance(self.time_varying, str) else self.time_varying
        varying = tuple(
            choice(name, "time_varying", ("F", "Q", "H", "R", "b", "d")) for name in varying
        )
        object.__setattr__(self, "time_varying", varying)
        F = real_array(self.F, "F")
        n = F.shape[-1] if F.ndim else 0
        H = real_array(self.H, "H")
        p = H.shape[-2] if H.ndim >= 2 else 0
        given = {
            name: real_array(getattr(self, name), name)
            for name in varying
            if getattr(self, name) is not None
        }
        lengths = {name: value.shape[0] for name, value in given.items() if value.ndim}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"time-varying arrays must share their leading length, got {lengths}")
        lead = {name: (length,) for name, length in lengths.items()}
        wanted = {"F": (n, n), "Q": (n, n), "H": (p, n), "R": (p, p), "b": (n,), "d": (p,)}
        if n == 0 or p == 0:
            raise ValueError(f"F must be (n, n) and H (p, n), got {F.shape} and {H.shape}")
        for name, shape in wanted.items():
            value = getattr(self, name)
            full = lead.get(name, ()) + shape
            if value is None:
                checked = np.zeros(shape)
            elif name in ("Q", "R"):
                checked = covariance(value, name, full)
            else:
                checked = shaped(value, name, full)
            object.__setattr__(self, name, frozen(checked))
        constant = not {"F", "Q", "b"} & set(varying)
        stable = constant and bool(np.abs(np.linalg.eigvals(self.F)).max() < 1)
        object.__setattr__(self, "prior", _resolve_prior(self.prior, n, stable))

    @property
    def dim(self) -> int:
        """Number of state components n."""
        return int(self.F.shape[-1])

    @property
    def obs_dim(self) -> int:
        """Number of observed components p."""
        return int(self.H.shape[-2])

    @property
    def length(self) -> int | None:
        """Number of time steps T when an array varies with time, else None (any length)."""
        return len(getattr(self, self.time_varying[0])) if self.time_varying else None

    def initial_law(self) -> InitialLaw:
        """Law of x_0 before any observation."""
        n = self.dim
        if self.prior == "diffuse":
            return InitialLaw(np.zeros(n), np.zeros((n, n)), np.eye(n))
        if self.prior == "stationary":
            mean = np.linalg.solve(np.eye(n) - self.F, self.b)
            P = solve_discrete_lyapunov(self.F, self.Q)
            return InitialLaw(mean, 0.5 * (P + P.T), np.zeros((n, 0)))
        assert isinstance(self.prior, Prior)
        return self.prior.law


def _resolve_prior(prior: PriorLike, d: int, stable: bool) -> PriorLike:
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


def _join_priors(a: LinearSDE, b: LinearSDE) -> PriorLike:
    if isinstance(a.prior, str) and a.prior == b.prior:
        return a.prior
    stamps = {m.prior.t0 for m in (a, b) if isinstance(m.prior, Prior)}
    if len(stamps) > 1:
        raise ValueError(f"models to add must have priors at the same t0, got {stamps}")
    t0 = stamps.pop() if stamps else None
    laws = [m.prior.law if isinstance(m.prior, Prior) else m.initial_law(0.0) for m in (a, b)]
    flat = block_diag(*(law.diffuse for law in laws))
    return Prior(
        np.concatenate([law.mean for law in laws]),
        block_diag(*(law.cov for law in laws)),
        t0,
        flat if flat.size else None,
    )
