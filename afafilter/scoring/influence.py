"""How far bad observations move an estimate: influence and breakdown curves of any estimator.

The empirical influence function puts one observation anywhere and watches the estimate (Hampel,
JASA 69 (1974) 383); a bounded one is what robust means. The breakdown curve strikes a growing share
of the observations (Donoho & Huber, The notion of breakdown point, 1983).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, generator, given, real_array, scalar, shaped, times
from afafilter._base.containers import chosen_unit, take
from afafilter._base.frames import data_frame
from afafilter.results import Estimate, Trajectories
from afafilter.scoring.inputs import Steps, chosen_steps
from afafilter.scoring.tally import Ratio

if TYPE_CHECKING:
    import pandas as pd


def influence_curve(
    estimator: Callable[..., Estimate],
    model: Any,
    t: ArrayLike,
    z: ArrayLike,
    *,
    step: int,
    sizes: ArrayLike,
    direction: ArrayLike | None = None,
    lag: int = 0,
) -> pd.DataFrame:
    """What one observation, moved ever further, does to the estimate.

    Parameters
    ----------
    estimator : callable
        f(model, t, z) -> Estimate.
    model : any
        What the estimator takes.
    t : array_like
        (T,) times.
    z : array_like
        (..., T, p) observations; leading axes are paths, over which results are averaged.
    step : int
        Which observation is moved.
    sizes : array_like
        (K,) by how much, units of the observations.
    direction : array_like, optional
        (p,) in which direction, of any length (made 1). None: the first component.
    lag : int
        How many steps later the estimate is looked at.

    Returns
    -------
    DataFrame
        One row per size: size, shift (root mean square over paths of the change, state units) and
        divergence, the Kullback-Leibler divergence of the law N(m', P') from N(m, P) without the
        change, averaged over paths (the posterior influence function of Duran-Martin et al.,
        arXiv:2405.05646, sec. 3). NaN where a state is not determined; divergence is NaN without
        covariances.

    Raises
    ------
    ValueError, TypeError
        Shapes that do not match, a step outside of the data, a direction of length 0.

    Examples
    --------
    >>> from afafilter import influence_curve, kalman_filter, simulate, spiral
    >>> data = simulate(spiral(), range(50), 4, rng=0)
    >>> curve = influence_curve(kalman_filter, spiral(), data.t, data.z, step=40, sizes=[1.0, 10.0])
    >>> round(float(curve["shift"].iloc[1] / curve["shift"].iloc[0]), 6)
    10.0
    """
    t, z, _ = take(t, z, chosen_unit(model, None), obs_dim=getattr(model, "obs_dim", None))
    grid, moves = times(t), real_array(sizes, "sizes")
    data = real_array(given(z), "z", booleans=True)
    data = data[:, None] if data.ndim == 1 else data
    T, p = _shape(data, grid)
    if moves.ndim != 1:
        raise ValueError(f"sizes must have shape (K,), got {moves.shape}")
    if not (-T <= step < T and 0 <= step % T + lag < T):
        raise ValueError(
            f"step and step + lag must lie within the {T} times, got {step}, lag {lag}"
        )
    step %= T
    along = np.eye(p)[0] if direction is None else shaped(direction, "direction", (p,))
    length = float(np.linalg.norm(along))
    if length == 0:
        raise ValueError("direction must not be zero")
    paths = data.reshape(-1, T, p)
    moved = np.tile(paths, (len(moves), 1, 1, 1))
    moved[:, :, step] += moves[:, None, None] * along / length
    at = step + lag
    base = estimator(model, grid, paths)
    found = estimator(model, grid, moved.reshape(-1, T, p))
    m, P = base.mean[:, at], np.broadcast_to(base.cov, (*base.mean.shape, base.mean.shape[-1]))
    d = m.shape[-1]
    others = found.mean[:, at].reshape(len(moves), -1, d)
    covs = np.broadcast_to(found.cov, (*found.mean.shape, d))[:, at].reshape(*others.shape, d)
    shift = np.sqrt(((others - m) ** 2).sum(axis=-1).mean(axis=-1))
    divergence = gaussian_divergence(others, covs, m, P[:, at]).mean(axis=-1)
    return data_frame({"size": moves, "shift": shift, "divergence": divergence})


def breakdown_curve(
    estimator: Callable[..., Estimate],
    model: Any,
    truth: Trajectories,
    *,
    rates: ArrayLike,
    size: float,
    direction: ArrayLike | None = None,
    steps: Steps = None,
    rng: np.random.Generator | int = 0,
) -> pd.DataFrame:
    """Error against the share of observations that are grossly wrong, all in one direction.

    Parameters
    ----------
    estimator : callable
        f(model, t, z) -> Estimate.
    model : any
        What the estimator takes.
    truth : Trajectories
        Paths with clean observations.
    rates : array_like
        (K,) shares in [0, 1]; what is struck at a rate is struck at every higher one.
    size : float
        What is added, units of the observations.
    direction : array_like, optional
        (p,) in which direction. None: the first component.
    steps : slice or array_like, optional
        Which times are scored, as in `score`.
    rng : numpy.random.Generator or int
        Generator of what is struck, or its seed.

    Returns
    -------
    DataFrame
        One row per rate: rate, rmse per component, low and high (95 % Student interval over paths).

    Raises
    ------
    ValueError, TypeError
        A rate outside [0, 1], wrong shapes.

    Examples
    --------
    >>> from afafilter import breakdown_curve, kalman_filter, simulate, spiral
    >>> data = simulate(spiral(), range(50), 4, rng=0)
    >>> curve = breakdown_curve(kalman_filter, spiral(), data, rates=[0.0, 0.2], size=10.0, rng=1)
    >>> bool(curve["rmse"].is_monotonic_increasing)
    True
    """
    shares = real_array(rates, "rates")
    if shares.ndim != 1 or (shares < 0).any() or (shares > 1).any():
        raise ValueError(f"rates must have shape (K,) and lie in [0, 1], got {shares.tolist()}")
    grid, clean = truth.t, truth.z.reshape(-1, *truth.z.shape[-2:])
    T, p = _shape(clean, grid)
    along = np.eye(p)[0] if direction is None else shaped(direction, "direction", (p,))
    uniform = generator(rng).random(clean.shape[:2])
    x = real_array(truth.x, "truth", allow_nan=True).reshape(len(clean), T, -1)
    pick = chosen_steps(steps, T)
    rows = []
    for rate in shares:
        struck = (uniform < rate)[..., None]
        error = estimator(model, grid, clean + scalar(size, "size") * struck * along).mean - x
        square = error[:, pick] ** 2
        known = np.isfinite(square)
        sums = np.where(known, square, 0.0).sum(axis=(1, 2))
        ratio = Ratio(sums, known.sum(axis=(1, 2)).astype(np.float64), root=True)
        rows.append({"rate": float(rate), **ratio.row("rmse")})
    return data_frame(rows)


def gaussian_divergence(m1: Array, P1: Array, m0: Array, P0: Array) -> Array:
    """KL(N(m1, P1) || N(m0, P0)) = [tr P0^-1 P1 + e^T P0^-1 e - d + ln det P0 / det P1] / 2.

    Means (..., d), covariances (..., d, d), broadcast; NaN where one is not finite or singular.
    """
    size = np.abs(m1).sum(-1) + np.abs(m0).sum(-1)
    size = size + np.abs(P1).sum((-1, -2)) + np.abs(P0).sum((-1, -2))
    finite = np.asarray(np.isfinite(size))
    d = m0.shape[-1]
    safe = finite[..., None, None]
    P1, P0 = np.where(safe, P1, np.eye(d)), np.where(safe, P0, np.eye(d))
    (s1, log1), (s0, log0) = np.linalg.slogdet(P1), np.linalg.slogdet(P0)
    usable = finite & (s1 > 0) & (s0 > 0)
    P0 = np.where(usable[..., None, None], P0, np.eye(d))
    e = np.where(usable[..., None], m1 - m0, 0.0)
    inner = np.trace(np.linalg.solve(P0, P1), axis1=-2, axis2=-1)
    inner = inner + (e * np.linalg.solve(P0, e[..., None])[..., 0]).sum(-1)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(usable, 0.5 * (inner - d + log0 - log1), np.nan))


def _shape(z: Array, grid: Array) -> tuple[int, int]:
    if z.ndim < 2 or z.shape[-2] != len(grid):
        raise ValueError(f"z must have shape (..., {len(grid)}, p), got {z.shape}")
    return z.shape[-2], z.shape[-1]
