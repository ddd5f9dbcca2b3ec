"""Models as data: linear Ito SDEs.

    dx(t) = (A x(t) + u) dt + B dw(t),   Q = B B^T          state^2 / time
    z_k   = C x(t_k - delay) + b + v_k,  v_k ~ N(0, R)

Everything is validated once, here; estimators trust what they get.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import (
    Array,
    choice,
    covariance,
    positive_int,
    real_array,
    scalar,
    shaped,
    square,
    times,
)
from afafilter._base.masks import refuse_differing
from afafilter._base.signatures import assign, rest_by_name
from afafilter._base.stamps import SECONDS
from afafilter.linalg import discretiser
from afafilter.linalg.block_diagonal import block_diagonal
from afafilter.linalg.modes import Modes, modes
from afafilter.linalg.subspaces import ComponentSizes, component_sizes
from afafilter.models.blocks import drift_of_pairs
from afafilter.models.discrete import DiscreteModel
from afafilter.models.forcing import Forcing, forced_states, joined_input, shown_offset
from afafilter.models.priors import InitialLaw, Prior, PriorLike, prior_time, resolve_prior

LATER = {"later": True}
"""Metadata of a field that came after the first release: cells stored before know nothing of it."""


@rest_by_name("A", "Q=..., R=..., C=...")
@dataclass(frozen=True, eq=False)
class LinearSDE:
    """Linear Ito SDE observed at discrete times through a linear map with Gaussian noise.

    Parameters
    ----------
    A : array_like, shape (d, d)
        Drift matrix, 1/time. All others are given by name: their order differs from tool to tool.
    Q : array_like, shape (d, d)
        Diffusion B B^T, state^2/time, symmetric positive semidefinite.
    R : array_like, shape (p, p)
        Measurement noise, symmetric positive semidefinite (some estimators need it definite).
    C : array_like, shape (p, d), observation matrix; None = identity
    drift, offset : array_like, shapes (d,) and (p,), optional
        Constant input u, state/time, and observation bias b; None = 0.
    delay : float
        At least 0; the observation stamped t shows the state at t - delay.
    prior : Prior, "stationary" or "diffuse"; None = "stationary" if A is stable, else "diffuse"
    time_unit : str
        Unit of time ("s", "D", "Y", ...): dates are counted in it, others refused; "" = not said.
    forcing : Forcing, optional
        A known input that acts beside the drift.
    parts : sequence of (str, int)
        Name and number of states of every summand, in their order, where the model is a sum.

    Raises
    ------
    ValueError, TypeError
        Wrong shapes (scalars are refused where a matrix is meant), not finite, complex,
        asymmetric or indefinite covariances; the message names argument, given and wanted.

    Notes
    -----
    The model of Racioppo, "Attention as an Adaptive Filter", arXiv:2509.04154, sec. 3, with
    any C, drift, offset and delay.
    """

    A: Array
    _: KW_ONLY
    Q: Array
    R: Array
    C: Array = None  # type: ignore[assignment]
    drift: Array = None  # type: ignore[assignment]
    offset: Array = None  # type: ignore[assignment]
    delay: float = 0.0
    prior: PriorLike = None
    time_unit: str = field(default="", metadata=LATER)
    forcing: Forcing | None = field(default=None, metadata=LATER)
    parts: tuple[tuple[str, int], ...] = field(default=(), metadata=LATER)

    # After construction C, drift and offset are always arrays and prior is never None.

    if TYPE_CHECKING:

        def __init__(
            self,
            A: ArrayLike,
            *,
            Q: ArrayLike,
            R: ArrayLike,
            C: ArrayLike | None = None,
            drift: ArrayLike | None = None,
            offset: ArrayLike | None = None,
            delay: float = 0.0,
            prior: PriorLike = None,
            time_unit: str = "",
            forcing: Forcing | None = None,
            parts: Sequence[tuple[str, int]] = (),
        ) -> None: ...

    def __post_init__(self) -> None:
        choice(self.time_unit, "time_unit", ("", *SECONDS))
        refuse_differing(
            {name: getattr(self, name) for name in ("A", "Q", "drift", "C", "R", "offset")}
        )
        A = square(self.A, "A")
        d = len(A)
        Q = covariance(self.Q, "Q", (d, d))
        given: ArrayLike | None = self.C
        shape = np.shape(given) if given is not None else ()
        p = shape[0] if len(shape) == 2 and shape[1] == d else len(square(self.R, "R", "p"))
        R = covariance(self.R, "R", (p, p))
        if given is None:
            if p != d:
                raise ValueError(
                    f"R must have shape {(d, d)} when C is left out (C = identity), got {(p, p)}; "
                    f"give C of shape {(p, d)} for a {p}-component observation"
                )
            C = np.eye(d)
        else:
            C = shaped(given, "C", (p, d))
        drift = np.zeros(d) if self.drift is None else shaped(self.drift, "drift", (d,))
        offset = np.zeros(p) if self.offset is None else shaped(self.offset, "offset", (p,))
        delay = scalar(self.delay, "delay", low=0.0)
        if self.forcing is not None:
            if not isinstance(self.forcing, Forcing):
                raise TypeError(f"forcing must be a Forcing or None, got {self.forcing!r}")
            self.forcing.check(d, p)
        parts = tuple((str(name), int(states)) for name, states in self.parts)
        if parts and sum(states for _, states in parts) != d:
            raise ValueError(f"parts must have {d} states in all, got {parts}")
        prior = resolve_prior(self.prior, d, discretiser.is_stable(A))
        assign(self, A=A, Q=Q, R=R, C=C, drift=drift, offset=offset)
        assign(self, delay=delay, parts=parts, prior=prior)

    def __repr__(self) -> str:
        rates = np.round(np.linalg.eigvals(self.A), 12) + 0.0  # + 0.0: no minus zero
        shown = ", ".join(f"{rate if rate.imag else rate.real:.3g}" for rate in rates[:4])
        shown += ", ..." if self.dim > 4 else ""
        late = f", delay={self.delay:g}" if self.delay else ""
        return (
            f"LinearSDE(dim={self.dim}, obs_dim={self.obs_dim}, eigenvalues=[{shown}]{late}, "
            f"prior={self.prior!r})"
        )

    @property
    def dim(self) -> int:
        """Number of state components d."""
        return len(self.A)

    @property
    def obs_dim(self) -> int:
        """Number of observed components p."""
        return len(self.R)

    @cached_property
    def modes(self) -> Modes:
        """Eigenvalues, eigenvectors S, S^-1, their condition, and S^-1 Q S^-H."""
        return modes(self.A, self.Q)

    def transition(self, dt: ArrayLike) -> tuple[Array, Array, Array]:
        """Exact discretisation over intervals dt.

        Parameters
        ----------
        dt : array_like of intervals >= 0, shape (...)

        Returns
        -------
        Phi, psi, V : ndarray, shapes (..., d, d), (..., d) and (..., d, d)
            x(t + dt) = Phi x(t) + psi + w, w ~ N(0, V).

        Raises
        ------
        ValueError, TypeError
            If dt is negative, not finite or not real, or so long that an unstable model leaves the
            floating-point range.

        Notes
        -----
        Normwise relative error below 1e-10 (typically 1e-14) also for stiff, defective and
        unstable A and singular Q. See `afafilter.linalg.discretiser`.
        """
        steps = real_array(dt, "dt")
        if (steps < 0).any():
            raise ValueError(f"dt must be >= 0, got {steps.min():g}")
        return self.discretiser(steps)

    @cached_property
    def discretiser(self) -> discretiser.Discretiser:
        """What `transition` needs besides the intervals, computed once."""
        return discretiser.Discretiser(self.A, self.Q, self.drift)

    @cached_property
    def component_sizes(self) -> ComponentSizes:
        """What rank decisions need to know of the dynamics, computed once."""
        return component_sizes(self.A)

    def stationary_covariance(self) -> Array:
        """Covariance P (d, d) of the stationary law, A P + P A^T + Q = 0; state^2.

        Raises
        ------
        ValueError
            If A is not stable.
        """
        if not discretiser.is_stable(self.A):
            raise ValueError("A is not stable: the model has no stationary covariance")
        return discretiser.stationary_covariance(self.A, self.Q)

    @cached_property
    def _stationary_law(self) -> InitialLaw:
        return InitialLaw.stationary(self.A, self.Q, self.drift)

    def initial_law(self, t_first: float) -> InitialLaw:
        """Law of the state at time `t_first`, the first one used, before any observation.

        With a delay, `t_first` is the time of the state that the first observation shows.

        Raises
        ------
        ValueError
            If the prior holds at a time after `t_first`, or so long before that its flat
            directions can no longer be told apart.
        """
        if self.prior == "diffuse":
            return InitialLaw.flat(self.dim)
        if self.prior == "stationary":
            return self._stationary_law.copied()
        assert isinstance(self.prior, Prior)
        start = prior_time(self.prior.t0, t_first)
        if start == t_first:
            return self.prior.law
        mean, cov, flat = self.prior.law.predicted(*self.transition(t_first - start))
        sizes = np.linalg.norm(flat, axis=0)
        if flat.size and (sizes.min() == 0 or np.linalg.cond(flat / sizes) > 1e12):
            raise ValueError(
                f"the flat directions of the prior at t0 = {start:g} have merged by the "
                f"first time, {t_first:g}; give a later t0 or prior='diffuse'"
            )
        basis = flat / sizes if flat.size else None
        return Prior(mean, cov, None, basis).law

    def discretize(self, t: ArrayLike) -> DiscreteModel:
        """The equivalent discrete-time model on the grid t (T,), prior included.

        Entry k of F, Q and b leads from t[k-1] to t[k]; entry 0 is the identity step.

        Raises
        ------
        ValueError, TypeError
            Bad times, a prior after t[0], or a model with a delay (which has no such form).
        """
        grid = times(t)
        if self.delay > 0:
            raise ValueError("a model with delay has no plain discrete form; set delay = 0")
        F, b, V = self.transition(np.diff(grid, prepend=grid[0]))
        law = self.initial_law(float(grid[0]))
        if self.forcing is not None:
            known = forced_states(self, grid, float(grid[0]))
            law = law._replace(mean=law.mean + known[0])
            b = b + known - np.einsum("kij,kj->ki", F, np.roll(known, 1, axis=0))
            b[0] = 0.0
        flat = law.diffuse if law.diffuse.size else None
        prior = Prior(law.mean, law.cov, None, flat)
        offset = shown_offset(self, grid)
        steps = ("F", "Q", "b") if offset.ndim == 1 else ("F", "Q", "b", "d")
        return DiscreteModel(
            F, Q=V, H=self.C, R=self.R, b=b, d=offset, prior=prior, time_varying=steps
        )

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
        decay : float
            mu >= 0, 1/time.
        frequency : float or array_like, shape (n,)
            Rotation rates omega, radian/time, of all pairs or each pair of components (2k, 2k+1).
        process_var, obs_var : float
            sigma^2 >= 0, state^2/time, and eta^2 >= 0, state^2.
        dim : int, optional
            2n (default) or 2n + 1 components (the odd one does not rotate).
        prior : as in `LinearSDE`

        Raises
        ------
        ValueError, TypeError
            A negative rate or variance, or a dim that does not fit the frequencies.
        """
        mu = scalar(decay, "decay", low=0.0)
        omega = real_array(frequency, "frequency")
        if omega.ndim > 1:
            raise ValueError(f"frequency must have shape (n,), got {omega.shape}")
        d = 2 * omega.size if dim is None else positive_int(dim, "dim")
        if omega.ndim == 0:
            omega = np.full(d // 2, omega)
        if d // 2 != len(omega):
            raise ValueError(f"dim must be {2 * len(omega)} or {2 * len(omega) + 1}, got {dim}")
        A = drift_of_pairs(mu, omega.tolist(), d)
        sigma2 = scalar(process_var, "process_var", low=0.0)
        eta2 = scalar(obs_var, "obs_var", low=0.0)
        return cls(A, Q=sigma2 * np.eye(d), R=eta2 * np.eye(d), prior=prior)

    def __add__(self, other: LinearSDE) -> LinearSDE:
        """Independent states side by side, observed through the sum: z = z_a + z_b.

        Offsets and measurement noises add; priors are joined.

        Raises
        ------
        ValueError
            If the two observe a different number of components, have different delays or units
            of time, or priors at different times.
        """
        if not isinstance(other, LinearSDE):
            return NotImplemented
        if self.obs_dim != other.obs_dim:
            raise ValueError(
                "models can be added when they observe the same components, "
                f"got p = {self.obs_dim} and {other.obs_dim}"
            )
        if self.time_unit and other.time_unit and self.time_unit != other.time_unit:
            raise ValueError(
                "models to add must count time in the same unit, "
                f"got {self.time_unit!r} and {other.time_unit!r}"
            )
        if self.delay != other.delay:
            raise ValueError(f"models to add must share delay, got {self.delay} and {other.delay}")
        return LinearSDE(
            block_diagonal(self.A, other.A),
            Q=block_diagonal(self.Q, other.Q),
            R=self.R + other.R,
            C=np.hstack([self.C, other.C]),
            drift=np.concatenate([self.drift, other.drift]),
            offset=self.offset + other.offset,
            delay=self.delay,
            prior=_join_priors(self, other),
            forcing=joined_input(self, other),
            parts=(*named_parts(self), *named_parts(other)),
            time_unit=self.time_unit or other.time_unit,
        )


def named_parts(model: LinearSDE) -> tuple[tuple[str, int], ...]:
    """The summands of a model: (name, number of states)."""
    return model.parts or (("model", model.dim),)


def _join_priors(a: LinearSDE, b: LinearSDE) -> PriorLike:
    if isinstance(a.prior, str) and a.prior == b.prior:
        return a.prior
    stamps = {m.prior.t0 for m in (a, b) if isinstance(m.prior, Prior)}
    if len(stamps) > 1:
        raise ValueError(f"models to add must have priors at the same t0, got {stamps}")
    t0 = stamps.pop() if stamps else None
    laws = [m.prior.law if isinstance(m.prior, Prior) else m.initial_law(0.0) for m in (a, b)]
    flat = block_diagonal(*(law.diffuse for law in laws))
    return Prior(
        np.concatenate([law.mean for law in laws]),
        block_diagonal(*(law.cov for law in laws)),
        t0,
        flat if flat.size else None,
    )
