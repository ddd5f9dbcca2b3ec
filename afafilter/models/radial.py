"""Radial-tangential SDE: noise that knows the direction of the state. The model.

    dx  = (-mu I + Omega) x dt + [sr x^ x^T + st (I - x^ x^T)] dw,       x^ = x / |x|
    z_k = x(t_k) + [er x^ x^T + et (I - x^ x^T)] v_k

(Racioppo, "Attention as an Adaptive Filter", arXiv:2509.04154, RT-SDE.) Along the co-rotating mean
m, u = m / |m|, as long as (d - 1) st^2 tau << |m|^2,

    V(tau) = (1 - e^{-2 mu tau}) / (2 mu) [ st^2 (I - u u^T) + sr^2 u u^T ].

With `radius` set the state lives on a hypersphere: sr = 0, mu = 0 and the drift
-(d - 1) st^2 x / (2 |x|^2) keep |x| fixed.

Symbols: mu decay, sr^2, st^2 radial_var, tangential_var, er^2, et^2 obs_radial_var,
obs_tangential_var.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, positive_int, real_array, scalar
from afafilter._base.signatures import assign
from afafilter.linalg.integrals import exponential_integral
from afafilter.linalg.rotation import rotate
from afafilter.models.sde import LinearSDE


@dataclass(frozen=True, eq=False)
class RadialTangentialSDE:
    """A rotating, decaying state whose noise differs along and across its own direction.

    Parameters
    ----------
    decay : float
        mu >= 0, 1/time.
    frequency : ndarray, shape () or (dim // 2,)
        Rotation rates, radian/time, of the pairs (2k, 2k + 1).
    radial_var, tangential_var : float
        sr^2, st^2 >= 0, state^2/time.
    obs_radial_var, obs_tangential_var : float
        er^2, et^2 >= 0, state^2.
    dim : int
        Number of components, >= 2.
    radius : float, optional
        Length of a state that lives on a hypersphere (needs decay = 0 and radial_var = 0), or
        None.

    Raises
    ------
    ValueError, TypeError
        Negative or not finite arguments, dim < 2, wrong number of frequencies, a radius with decay
        or radial noise.
    """

    decay: float
    frequency: Array
    radial_var: float
    tangential_var: float
    obs_radial_var: float
    obs_tangential_var: float
    dim: int = 2
    radius: float | None = None

    def __post_init__(self) -> None:
        names = ("decay", "radial_var", "tangential_var", "obs_radial_var", "obs_tangential_var")
        for name in names:
            assign(self, **{name: scalar(getattr(self, name), name, low=0.0)})
        d = positive_int(self.dim, "dim", low=2)
        omega = real_array(self.frequency, "frequency")
        if omega.ndim == 0:
            omega = np.full(d // 2, omega)
        if omega.shape != (d // 2,):
            raise ValueError(
                f"frequency must be one number or have shape ({d // 2},), got {omega.shape}"
            )
        assign(self, frequency=omega)
        if self.radius is not None:
            assign(self, radius=scalar(self.radius, "radius", low=0.0, strict=True))
            if self.decay or self.radial_var:
                raise ValueError(
                    "a state of fixed radius needs decay = 0 and radial_var = 0, got "
                    f"{self.decay:g} and {self.radial_var:g}"
                )

    def flow(self, x: Array, tau: ArrayLike) -> Array:
        """The mean e^{A tau} x, shapes (..., d) and (...)."""
        lags = np.asarray(tau, dtype=np.float64)[..., None]
        angle = lags * self.frequency
        return np.asarray(np.exp(-self.decay * lags) * rotate(x, np.cos(angle), np.sin(angle)))

    def spread(self, tau: ArrayLike) -> Array:
        """(1 - e^{-2 mu tau}) / (2 mu), time; tau at mu = 0."""
        return np.asarray(exponential_integral(-2 * self.decay, tau))

    def propagated_covariance(self, start: ArrayLike, tau: ArrayLike) -> Array:
        """Covariance (..., d, d) at lag tau (...) >= 0 of a state known to be `start` (d,).

        The small-noise closed form, valid while (d - 1) st^2 tau is far below the squared length
        of the start; `radial_range` measures how well.

        Raises
        ------
        ValueError
            start is zero or of wrong shape, tau < 0.
        """
        x = real_array(start, "start")
        if x.shape != (self.dim,):
            raise ValueError(f"start must have shape ({self.dim},), got {x.shape}")
        lags = real_array(tau, "tau")
        if (lags < 0).any():
            raise ValueError(f"tau must be >= 0, got {lags.min():g}")
        angle = lags[..., None] * self.frequency
        u = rotate(directions(x, "start"), np.cos(angle), np.sin(angle))
        across = self.spread(lags) * self.tangential_var
        along = self.spread(lags) * self.radial_var
        return rank_one(across, along, u)

    def nearest_linear(self) -> LinearSDE:
        """The isotropic model with the same total noise: traces of Q and R agree."""
        n = self.dim - 1
        return LinearSDE.isotropic(
            self.decay,
            self.frequency,
            process_var=(self.radial_var + n * self.tangential_var) / self.dim,
            obs_var=(self.obs_radial_var + n * self.obs_tangential_var) / self.dim,
            dim=self.dim,
            prior="diffuse",
        )

    def advance(self, x: Array, dt: float, noise: Array) -> Array:
        """One sub-step: the exact mean flow, then the noise of its length in its direction.

        noise is standard normal, (..., d) like x. Exact in law when the two variances agree;
        otherwise strong order 1/2 (Euler-Maruyama around the flow).

        Raises
        ------
        ValueError
            A state is zero: it has no direction.
        """
        moved = self.flow(x, dt)
        u = directions(moved, "the state")
        scale = np.sqrt(self.spread(dt))
        moved = moved + scale * self._shape(
            noise, u, self.radial_var**0.5, self.tangential_var**0.5
        )
        if self.radius is not None:
            return np.asarray(self.radius * directions(moved, "the state"))
        return moved

    def observe(self, x: Array, noise: Array) -> Array:
        """z = x + observation noise, from standard normal noise of x's shape (..., d)."""
        u = directions(x, "the state")
        return x + self._shape(noise, u, self.obs_radial_var**0.5, self.obs_tangential_var**0.5)

    @staticmethod
    def _shape(noise: Array, u: Array, along: float, across: float) -> Array:
        radial = (noise * u).sum(-1, keepdims=True) * u
        return np.asarray(across * noise + (along - across) * radial)


def directions(x: Array, name: str) -> Array:
    """x / |x| (..., d); ValueError where x is zero."""
    norms = np.linalg.norm(x, axis=-1, keepdims=True)
    if (norms == 0).any():
        raise ValueError(f"{name} is the zero vector, which has no direction")
    return np.asarray(x / norms)


def rank_one(across: Array, along: Array, u: Array, out: Array | None = None) -> Array:
    """across (I - u u^T) + along u u^T for across, along (...) and u (..., d)."""
    out = np.multiply(((along - across)[..., None] * u)[..., :, None], u[..., None, :], out=out)
    diagonal = np.arange(u.shape[-1])
    out[..., diagonal, diagonal] += across[..., None]
    return out
