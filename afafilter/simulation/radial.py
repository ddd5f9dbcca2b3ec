"""Simulator of the radial-tangential SDE, and how far its closed-form covariance holds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, generator, positive_int, real_array, scalar
from afafilter._base.tables import given_times
from afafilter.models.radial import RadialTangentialSDE, directions
from afafilter.results import Trajectories

MAX_SUBSTEPS = 100_000
FINE = 0.02
"""Squared angle, in radian^2, that a default sub-step may diffuse."""


def simulate_radial(
    model: RadialTangentialSDE,
    t: ArrayLike,
    n_paths: int = 1,
    *,
    rng: np.random.Generator | int,
    x0: ArrayLike,
    substep: float | None = None,
) -> Trajectories:
    """Paths of the radial-tangential SDE with observations, by sub-stepping.

    Parameters
    ----------
    model : RadialTangentialSDE
    t : array_like, shape (T,)
        Times.
    n_paths : int
        Number of paths.
    x0 : array_like, shape (d,) or (n_paths, d)
        States at t[0], not zero.
    substep : float, optional
        Longest sub-step, time. Default: the direction diffuses by less than 0.14 radian in
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
        two times, rng neither a Generator nor a seed.

    Notes
    -----
    Strong order 1/2 in the sub-step. O(n_paths T d) times the number of sub-steps.

    Examples
    --------
    >>> from afafilter import RadialTangentialSDE, simulate_radial
    >>> model = RadialTangentialSDE(0.0, 1.0, radial_var=0.1, tangential_var=0.2,
    ...     obs_radial_var=0.5, obs_tangential_var=0.5)
    >>> simulate_radial(model, range(5), 3, rng=0, x0=[9.0, 0.0]).x.shape
    (3, 5, 2)
    """
    rng = generator(rng)
    grid = given_times(t)
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
    spread : float, shape (d - 1)
        ``st^2 (spread of tau) / |m|^2``, which should be << 1.
    radial_ratio, tangential_ratio : float
        Simulated over closed-form variance, along u and across.
    standard_error : float
        Of the radial ratio, relative.
    outward : float
        Mean of ``|x| - |m|``, and outward_expected its first-order value
        ``(d - 1) st^2 (spread of tau) / (2 |m|)``.
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
    rng: np.random.Generator | int,
    substep: float | None = None,
) -> RadialRange:
    """Measure the closed-form covariance against simulation from a radius over tau > 0.

    substep : as in `simulate_radial`; default: its default, but at least 64 sub-steps in tau, as
    within one the noise does not follow the direction.

    Raises
    ------
    ValueError
        radius or tau <= 0, radial_var or tangential_var = 0 (no ratio).

    Examples
    --------
    >>> from afafilter import RadialTangentialSDE, radial_range
    >>> model = RadialTangentialSDE(0.0, 1.0, radial_var=0.1, tangential_var=0.2,
    ...     obs_radial_var=0.5, obs_tangential_var=0.5)
    >>> bool(0.9 < radial_range(model, 40.0, 1.0, n_paths=4000, rng=0).radial_ratio < 1.1)
    True
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
    largest = max(model.radial_var, model.tangential_var)
    exact = model.radial_var == model.tangential_var and model.radius is None
    if exact or largest == 0:
        return np.inf
    room = float((x**2).sum(-1).min())
    if model.decay > 0:
        room = min(room, (model.dim - 1) * largest / (2 * model.decay))
    return FINE * room / ((model.dim - 1) * largest)
