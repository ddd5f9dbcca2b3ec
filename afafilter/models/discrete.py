"""Linear Gaussian models in discrete time: the door for users who already have F, Q, H, R."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, choice, covariance, real_array, shaped
from afafilter._base.masks import refuse_differing
from afafilter._base.signatures import assign, rest_by_name
from afafilter.linalg.discretiser import is_stable_in_steps
from afafilter.linalg.subspaces import ComponentSizes, component_sizes
from afafilter.models.priors import InitialLaw, Prior, PriorLike, resolve_prior


@rest_by_name("F", "Q=..., H=..., R=...")
@dataclass(frozen=True, eq=False)
class DiscreteModel:
    """Linear Gaussian state-space model in discrete time.

    ::

        x_k = F_k x_{k-1} + b_k + w_k,  w_k ~ N(0, Q_k)
        z_k = H_k x_k + d_k + v_k,      v_k ~ N(0, R_k)

    Parameters
    ----------
    F, Q : array_like, shape (n, n)
    H, R : array_like, shapes (p, n) and (p, p)
    b, d : array_like, shapes (n,) and (p,), optional
        All but F are given by name, since their order differs from tool to tool.
        An array named in `time_varying` has a leading axis of length T; entry 0 of F, Q and b is
        not used (the prior is the law of x_0).
    prior : Prior or str
        `Prior`, "stationary" or "diffuse"; None = "stationary" if F, Q, b are constant and F
        is stable, else "diffuse".
    time_varying : str or tuple of str
        Names of the arrays with a leading time axis, e.g. ("F", "Q").

    Raises
    ------
    ValueError, TypeError
        As for `LinearSDE`; also when leading axes differ in length.
    """

    F: Array
    _: KW_ONLY
    Q: Array
    H: Array
    R: Array
    b: Array = None  # type: ignore[assignment]
    d: Array = None  # type: ignore[assignment]
    prior: PriorLike = None
    time_varying: str | tuple[str, ...] = ()

    if TYPE_CHECKING:

        def __init__(
            self,
            F: ArrayLike,
            *,
            Q: ArrayLike,
            H: ArrayLike,
            R: ArrayLike,
            b: ArrayLike | None = None,
            d: ArrayLike | None = None,
            prior: PriorLike = None,
            time_varying: str | tuple[str, ...] = (),
        ) -> None: ...

    def __post_init__(self) -> None:
        varying = (self.time_varying,) if isinstance(self.time_varying, str) else self.time_varying
        varying = tuple(
            choice(name, "time_varying", ("F", "Q", "H", "R", "b", "d")) for name in varying
        )
        assign(self, time_varying=varying)
        refuse_differing({name: getattr(self, name) for name in ("F", "Q", "b", "H", "R", "d")})
        F = real_array(self.F, "F")
        n = F.shape[-1] if F.ndim else 0
        H = real_array(self.H, "H")
        p = H.shape[-2] if H.ndim >= 2 else 0
        absent = [name for name in varying if getattr(self, name) is None]
        if absent:
            raise ValueError(f"time_varying names {absent[0]!r}, which is not given")
        given = {name: real_array(getattr(self, name), name) for name in varying}
        lengths = {name: value.shape[0] for name, value in given.items() if value.ndim}
        if 0 in lengths.values():
            raise ValueError(f"time-varying arrays must hold at least one step, got {lengths}")
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
            assign(self, **{name: checked})
        constant = not {"F", "Q", "b"} & set(varying)
        stable = constant and is_stable_in_steps(self.F)
        assign(self, prior=resolve_prior(self.prior, n, stable))
        if isinstance(self.prior, Prior) and self.prior.t0 is not None:
            raise ValueError(
                "the prior of a DiscreteModel is the law of x_0: leave t0 out, "
                f"got t0 = {self.prior.t0:g}"
            )

    def __repr__(self) -> str:
        varying = f", time_varying={self.time_varying}" if self.time_varying else ""
        steps = f", length={self.length}" if self.time_varying else ""
        return (
            f"DiscreteModel(dim={self.dim}, obs_dim={self.obs_dim}{steps}{varying}, "
            f"prior={self.prior!r})"
        )

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

    @cached_property
    def component_sizes(self) -> ComponentSizes:
        """What rank decisions need to know of the dynamics, computed once."""
        return component_sizes(self.F, given=True)

    @cached_property
    def _stationary_law(self) -> InitialLaw:
        return InitialLaw.stationary_steps(self.F, self.Q, self.b)

    def initial_law(self) -> InitialLaw:
        """Law of x_0 before any observation."""
        if self.prior == "diffuse":
            return InitialLaw.flat(self.dim)
        if self.prior == "stationary":
            return self._stationary_law.copied()
        assert isinstance(self.prior, Prior)
        return self.prior.law
