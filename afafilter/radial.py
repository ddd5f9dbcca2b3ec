"""Radial-tangential SDE: noise that knows the direction of the state. Model and simulator.

    dx  = (-mu I + Omega) x dt + [sr x^ x^T + st (I - x^ x^T)] dw,       x^ = x / |x|
    z_k = x(t_k) + [er x^ x^T + et (I - x^ x^T)] v_k

(Racioppo, "Attention as an Adaptive Filter", arXiv:2509.04154, RT-SDE.) Along the co-rotating mean
m, u = m / |m|, as long as (d - 1) st^2 tau << |m|^2,

    V(tau) = (1 - e^{-2 mu tau}) / (2 mu) [ st^2 (I - u u^T) + sr^2 u u^T ].

With `radius` set the state lives on a hypersphere: sr = 0, mu = 0 and the drift
-(d - 1) st^2 x / (2 |x|^2) keep |x| fixed. The estimator is in radial_filter.py.

Symbols: mu decay, sr^2, st^2 radial_var, tangential_var, er^2, et^2 obs_radial_var,
obs_tangential_var.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from afafilter._linear_time import turn
from afafilter._validate import Array, frozen, positive_int, real_array, scalar, times
from afafilter.models import LinearSDE
from afafilter.results import Trajectories

MAX_SUBSTEPS = 100_000
FINE = 0.02
"""Squared angle, in radian^2, that a default sub-step may diffuse."""


@dataclass(frozen=True, eq=False)
class RadialTangentialSDE:
    """A rotating, decaying state whose noise differs along and across its own direction.

    Parameters
    ----------
    decay : mu >= 0, 1/time.
    frequency : () or (dim // 2,) rotation rates, radian/time, of the pairs (2k, 2k + 1).
    radial_var, tangential_var : sr^2, st^2 >= 0, state^2/time.
    obs_radial_var, obs_tangential_var : er^2, et^2 >= 0, state^2.
    dim : number of components, >= 2.
    radius : |x| of a state that lives on a hypersphere (needs decay = 0 and radial_var = 0), or
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
            object.__setattr__(self, name, scalar(getattr(self, name), name, low=0.0))
        d = positive_int(self.dim, "dim", low=2)
        omega = real_array(self.frequency, "frequency")
        if omega.ndim == 0:
            omega = np.full(d // 2, omega)
        if omega.shape != (d // 2,):
            raise ValueError(
                f"frequency must be one number or have shape ({d // 2},), got {omega.shape}"
            )
        object.__setattr__(self, "frequency", frozen(omega))
        if self.radius is not None:
            object.__setattr__(self, "radius", scalar(self.radius, "radius", low=0.0, strict=True))
            if self.decay or self.radial_var:
                raise ValueError(
                    "a state of fixed radius needs decay = 0 and radial_var = 0, got "
                    f"{self.decay:g} and {self.radial_var:g}"
                )

    def flow(self, x: Array, tau: ArrayLike) -> Array:
        """The mean e^{A tau} x, shapes (..., d) and (...)."""
        lags = np.asarray(tau, dtype=np.float64)[..., None]
        angle = lags * self.frequency
        return np.asarray(np.exp(-self.decay * lags) * turn(x, np.cos(angle), np.sin(angle)))

    def spread(self, tau: ArrayLike) -> Array:
        """(1 - e^{-2 mu tau}) / (2 mu), time; tau at mu = 0."""
        lags = np.asarray(tau, dtype=np.float64)
        if self.decay == 0:
            return lags
        return np.asarray(-np.expm1(-2 * self.decay * lags) / (2 * self.decay))

    def propagated_covariance(self, start: ArrayLike, tau: ArrayLike) -> Array:
        """Covariance (..., d, d) at lag tau (...) >= 0 of a state known to be `start` (d,).

        The small-noise closed form, valid while (d - 1) st^2 tau << |m|^2; `radial_range` measures
        how well.

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
        u = turn(directions(x, "start"), np.cos(angle), np.sin(angle))
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


def simulate_radial(
    model: RadialTangentialSDE,
    t: ArrayLike,
    n_paths: int = 1,
    *,
    rng: np.random.Generator,
    x0: ArrayLike,
    substep: float | None = None,
) -> Trajectories:
    """Paths of the radial-tangential SDE with observations, by sub-stepping.

    Parameters
    ----------
    model : RadialTangentialSDE.
    t : (T,) times. n_paths : number of paths.
    x0 : (d,) or (n_paths, d) states at t[0], not zero.
    substep : longest sub-step, time. Default: the direction diffuses by less than 0.14 radian in
        one, at the smaller of the start's and the stationary radius. Not needed when the radial
        and tangential variances agree: then every step is exact in law.

    Returns
    -------
    Trajectories
        x and z of shape (n_paths, T, d), or (T, d) for n_paths = 1 and x0 of shape (d,).

    Raises
    ------
    ValueError, TypeError
        x0 zero or of wrong shape, substep <= 0 or so short that more than 1e5 are needed between
        two times, rng not a Generator.

    Notes
    -----
    Strong order 1/2 in the sub-step. O(n_paths T d) times the number of sub-steps.
    """
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, got {type(rng).__name__}")
    grid = times(t)
    n_paths = positive_int(n_paths, "n_paths")
    d = model.dim
    start = real_array(x0, "x0")
    if start.shape not in ((d,), (n_paths, d)):
        raise ValueError(f"x0 must have shape ({d},) or ({n_paths}, {d}), got {start.shape}")
    directions(start, "x0")
    lead = (n_paths,) if n_paths > 1 or start.ndim == 2 else ()
    state: Array = np.array(np.broadcast_to(start, (*lead, d)))
    if model.radius is not None:
        state *= model.radius / np.linalg.norm(state, axis=-1, keepdims=True)
    if substep is None:
        longest = _default_substep(model, state)
    else:
        longest = scalar(substep, "substep", low=0.0, strict=True)
    x = np.empty((*lead, len(grid), d))
    x[..., 0, :] = state
    for k, dt in enumerate(np.diff(grid), start=1):
        pieces = int(np.ceil(dt / longest)) if np.isfinite(longest) else min(1, int(dt > 0))
        if pieces > MAX_SUBSTEPS:
            raise ValueError(
                f"substep must be longer: {pieces} sub-steps of {longest:g} between "
                f"t[{k - 1}] and t[{k}]"
            )
        for _ in range(pieces):
            state = model.advance(state, dt / pieces, rng.standard_normal(state.shape))
        x[..., k, :] = state
    noise = np.asarray(rng.standard_normal(x.shape))
    return Trajectories(grid, x, model.observe(x, noise))


class RadialRange(NamedTuple):
    """How far the closed form V(tau) holds, measured by simulation.

    Attributes
    ----------
    spread : (d - 1) st^2 (spread of tau) / |m|^2, which should be << 1.
    radial_ratio, tangential_ratio : simulated over closed-form variance, along u and across.
    standard_error : of the radial ratio, relative.
    outward : mean of |x| - |m|, and outward_expected its first-order value
        (d - 1) st^2 (spread of tau) / (2 |m|).
    """

    spread: float
    radial_ratio: float
    tangential_ratio: float
    standard_error: float
    outward: float
    outward_expected: float


def radial_range(
    model: RadialTangentialSDE,
    radius: float,
    tau: float,
    *,
    n_paths: int = 20_000,
    rng: np.random.Generator,
    substep: float | None = None,
) -> RadialRange:
    """Measure the closed-form covariance against simulation from |x(0)| = radius over tau > 0.

    substep : as in `simulate_radial`; default: its default, but at least 64 sub-steps in tau, as
    within one the noise does not follow the direction.

    Raises
    ------
    ValueError
        radius or tau <= 0, radial_var or tangential_var = 0 (no ratio).
    """
    radius = scalar(radius, "radius", low=0.0, strict=True)
    tau = scalar(tau, "tau", low=0.0, strict=True)
    if not (model.radial_var > 0 and model.tangential_var > 0):
        raise ValueError("radial_var and tangential_var must be > 0 to measure ratios")
    start = np.zeros(model.dim)
    start[0] = radius
    if substep is None:
        substep = min(_default_substep(model, start), tau / 64)
    end = simulate_radial(
        model, [0.0, tau], n_paths, rng=rng, x0=np.tile(start, (n_paths, 1)), substep=substep
    ).x[:, -1]
    mean = model.flow(start, tau)
    far = float(np.linalg.norm(mean))
    u = mean / far
    along = end @ u
    n = model.dim - 1
    time = float(model.spread(tau))
    across = (((end - along[:, None] * u) ** 2).sum(-1) / n).mean()
    return RadialRange(
        n * model.tangential_var * time / far**2,
        float(along.var() / (model.radial_var * time)),
        float(across / (model.tangential_var * time)),
        float(np.sqrt(2 / n_paths)),
        float((np.linalg.norm(end, axis=1) - far).mean()),
        n * model.tangential_var * time / (2 * far),
    )


def _default_substep(model: RadialTangentialSDE, x: Array) -> float:
    if model.radial_var == model.tangential_var and model.radius is None:
        return np.inf
    largest = max(model.radial_var, model.tangential_var)
    if largest == 0:
        return np.inf
    room = float((x**2).sum(-1).min())
    if model.decay > 0:
        room = min(room, (model.dim - 1) * largest / (2 * model.decay))
    return FINE * room / ((model.dim - 1) * largest)


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
