"""Stochastic systems that are not linear, for tests of estimators: paths by measured sub-steps.

    dx = f(x) dt + sigma dw,      z_k = x(t_k) + v_k,   v_k ~ N(0, obs_var I)

Sub-steps by Heun's scheme: with additive noise of strong order 1, without noise of order 2 (Kloeden
and Platen, Numerical Solution of Stochastic Differential Equations, sec. 10.2 and 15.1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, generator, positive_int, real_array, scalar
from afafilter._base.signatures import assign
from afafilter._base.tables import given_times
from afafilter.results import Trajectories

MAX_SUBSTEPS = 1_000_000
"""Most sub-steps between two times."""

Drift = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class DriftSDE:
    """A diffusion with any drift, additive noise and all components observed.

    Parameters
    ----------
    drift : callable
        f, (..., d) -> (..., d), state/time.
    dim : int
        d.
    process_var : float
        >= 0, diffusion of every component, state^2/time.
    obs_var : float
        >= 0, state^2.
    substep : float
        > 0, longest sub-step, time; `strong_error` measures what it costs.
    """

    drift: Drift
    dim: int
    process_var: float
    obs_var: float
    substep: float

    def __post_init__(self) -> None:
        positive_int(self.dim, "dim")
        for name in ("process_var", "obs_var"):
            assign(self, **{name: scalar(getattr(self, name), name, low=0.0)})
        assign(self, substep=scalar(self.substep, "substep", low=0.0, strict=True))

    def advance(self, x: Array, h: float, dw: Array) -> Array:
        """One sub-step by Heun's scheme: x + (f(x) + f(x + f(x) h + sigma dw)) h / 2 + sigma dw."""
        noise = self.process_var**0.5 * dw
        f = self.drift(x)
        return np.asarray(x + 0.5 * h * (f + self.drift(x + h * f + noise)) + noise)


def spiral_3d(
    decay: float = 0.1,
    frequency: float = 1.0,
    climb: float = 0.2,
    *,
    process_var: float = 0.01,
    obs_var: float = 0.1,
    substep: float = 0.01,
) -> DriftSDE:
    """A rotating, decaying pair that climbs by its radius r in the plane: dx3 = climb r dt.

    Examples
    --------
    >>> from afafilter import spiral_3d
    >>> spiral_3d().dim
    3
    """

    drift = partial(_climbing, decay, frequency, climb)
    return DriftSDE(drift, 3, process_var, obs_var, substep)


def _climbing(decay: float, frequency: float, climb: float, x: Array) -> Array:
    a, b, _ = np.moveaxis(x, -1, 0)
    rise = climb * np.hypot(a, b)
    return np.stack([-decay * a - frequency * b, frequency * a - decay * b, rise], axis=-1)


def lorenz(
    sigma: float = 10.0,
    rho: float = 28.0,
    beta: float = 8.0 / 3.0,
    *,
    process_var: float = 0.1,
    obs_var: float = 1.0,
    substep: float = 0.002,
) -> DriftSDE:
    """Lorenz, Deterministic nonperiodic flow, J. Atmos. Sci. 20 (1963), eqs 25-27, with noise.

    Examples
    --------
    >>> from afafilter import lorenz
    >>> lorenz().dim
    3
    """

    return DriftSDE(partial(_convection, sigma, rho, beta), 3, process_var, obs_var, substep)


def _convection(sigma: float, rho: float, beta: float, x: Array) -> Array:
    a, b, c = np.moveaxis(x, -1, 0)
    return np.stack([sigma * (b - a), a * (rho - c) - b, a * b - beta * c], axis=-1)


def coupled_van_der_pol(
    n: int = 2,
    nonlinearity: float = 1.0,
    coupling: float = 0.2,
    *,
    process_var: float = 0.01,
    obs_var: float = 0.1,
    substep: float = 0.005,
) -> DriftSDE:
    """n oscillators x'' = mu (1 - x^2) x' - x + coupling (mean of x - x): positions, velocities.

    van der Pol, On relaxation-oscillations, Phil. Mag. 2 (1926).

    Examples
    --------
    >>> from afafilter import coupled_van_der_pol
    >>> coupled_van_der_pol().dim
    4
    """
    positive_int(n, "n")

    drift = partial(_van_der_pol, n, nonlinearity, coupling)
    return DriftSDE(drift, 2 * n, process_var, obs_var, substep)


def _van_der_pol(n: int, nonlinearity: float, coupling: float, x: Array) -> Array:
    a, v = x[..., :n], x[..., n:]
    pull = coupling * (a.mean(axis=-1, keepdims=True) - a)
    return np.concatenate([v, nonlinearity * (1 - a**2) * v - a + pull], axis=-1)


def simulate_drift(
    model: DriftSDE,
    t: ArrayLike,
    n_paths: int = 1,
    *,
    x0: ArrayLike,
    rng: np.random.Generator | int,
) -> Trajectories:
    """Paths and observations at the times t, by sub-steps of at most `model.substep`.

    Parameters
    ----------
    model : DriftSDE
        `lorenz()`, `coupled_van_der_pol()`, `spiral_3d()` or another `DriftSDE`.
    t : array_like, shape (T,)
        Times.
    n_paths : int
        n.
    x0 : array_like, shape (d,) or (n, d)
        State at t[0].
    rng : Generator or int
        Generator or seed.

    Returns
    -------
    Trajectories
        x and z (n, T, d).

    Raises
    ------
    ValueError, TypeError
        Wrong shapes; more than a million sub-steps between two times; a path that leaves the range
        of numbers.

    Examples
    --------
    >>> from afafilter import lorenz, simulate_drift
    >>> simulate_drift(lorenz(), [0.0, 0.1, 0.2], 2, rng=0, x0=[1.0, 1.0, 20.0]).x.shape
    (2, 3, 3)
    """
    grid, n, stream = given_times(t), positive_int(n_paths, "n_paths"), generator(rng)
    start = real_array(x0, "x0")
    if start.shape not in ((model.dim,), (n, model.dim)):
        raise ValueError(
            f"x0 must have shape ({model.dim},) or ({n}, {model.dim}), got {start.shape}"
        )
    x = np.empty((n, len(grid), model.dim))
    state: Array = np.array(np.broadcast_to(start, (n, model.dim)))
    x[:, 0] = state
    for k, dt in enumerate(np.diff(grid), start=1):
        pieces = int(np.ceil(dt / model.substep))
        if pieces > MAX_SUBSTEPS:
            raise ValueError(f"substep must be longer: {pieces} of them before t[{k}]")
        for _ in range(pieces):
            h = dt / pieces
            state = model.advance(state, h, h**0.5 * stream.standard_normal(state.shape))
        x[:, k] = state
    if not np.isfinite(x).all():
        raise ValueError("a path left the range of numbers; give a shorter substep")
    z = x + model.obs_var**0.5 * stream.standard_normal(x.shape)
    return Trajectories(grid, x, z)


def strong_error(
    model: DriftSDE,
    x0: ArrayLike,
    span: float,
    halvings: int,
    *,
    n_paths: int = 200,
    rng: np.random.Generator | int = 0,
) -> tuple[Array, Array]:
    """How sub-steps change a path: lengths h (halvings,), and rms distances at the end.

    The same Brownian path is followed with steps span / 2, span / 4, ... and each end is compared
    with that of the finest, eight times finer than the last of them.

    Examples
    --------
    >>> from afafilter import lorenz, strong_error
    >>> steps, errors = strong_error(lorenz(), [1.0, 1.0, 20.0], 0.2, 3, n_paths=20)
    >>> bool(errors[0] > errors[-1])
    True
    """
    stream, finest = generator(rng), 2 ** (positive_int(halvings, "halvings") + 3)
    h = scalar(span, "span", low=0.0, strict=True) / finest
    dw = h**0.5 * stream.standard_normal((finest, n_paths, model.dim))

    def end(pieces: int) -> Array:
        state = np.array(np.broadcast_to(real_array(x0, "x0"), (n_paths, model.dim)))
        for part in dw.reshape(pieces, finest // pieces, n_paths, model.dim).sum(axis=1):
            state = model.advance(state, span / pieces, part)
        return state

    counts = 2 ** np.arange(1, halvings + 1)
    exact = end(finest)
    errors = [np.sqrt(((end(int(c)) - exact) ** 2).sum(-1).mean()) for c in counts]
    return span / counts, np.array(errors)
