"""Exact simulation of linear SDEs and discrete linear models, vectorised over paths.

No time-stepping scheme is involved: steps are drawn from the transition law N(Phi x + psi, V) of
`LinearSDE.transition`, so the law at given times does not depend on the times in between.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from afafilter._base.checks import (
    Array,
    ObsMask,
    choice,
    generator,
    positive_int,
    real_array,
    scalar,
    times,
)
from afafilter.models.discrete import DiscreteModel
from afafilter.models.priors import InitialLaw
from afafilter.models.sde import LinearSDE
from afafilter.results import Trajectories
from afafilter.simulation.recursions import observe, propagate

if TYPE_CHECKING:
    from afafilter.models.radial import RadialTangentialSDE

OUTLIER_LAWS = ("gaussian", "student_t", "mean_doubling")
DEFAULT_SCALE = 10.0
DEFAULT_DF = 3.0

_BLOCK = 1 << 16
"""Numbers drawn at a time: half a MiB, so that a draw is still in cache when it is used."""


@dataclass(frozen=True)
class Outliers:
    """Contamination of observations: each observation is struck independently.

    Parameters
    ----------
    rate : probability in [0, 1] that an observation (all its components at once) is struck.
    scale : > 0, size of the additional noise in units of the measurement noise. None: 10 for the
        laws that have a scale.
    law : what a struck observation gets

        - "gaussian": additional noise N(0, scale^2 R);
        - "student_t": additional noise scale * R^{1/2} t, t multivariate Student-t with `df`
          degrees of freedom;
        - "mean_doubling": its mean C x + b is doubled (no scale; Duran-Martin et al. 2024,
          "Outlier-robust Kalman filtering through generalised Bayes", sec. 4).
    df : > 0, only for "student_t". None: 3.

    Raises
    ------
    ValueError, TypeError
        If a number is outside its range, or given for a law that has no such parameter.
    """

    rate: float
    scale: float | None = None
    law: Literal["gaussian", "student_t", "mean_doubling"] = "gaussian"
    df: float | None = None

    def __post_init__(self) -> None:
        rate = scalar(self.rate, "outliers rate", low=0.0)
        if rate > 1:
            raise ValueError(f"outliers rate must be a probability, at most 1, got {rate:g}")
        object.__setattr__(self, "rate", rate)
        choice(self.law, "outliers law", OUTLIER_LAWS)
        for name, wanted, default in (
            ("scale", self.law != "mean_doubling", DEFAULT_SCALE),
            ("df", self.law == "student_t", DEFAULT_DF),
        ):
            value = getattr(self, name)
            if not wanted:
                if value is not None:
                    raise ValueError(f"outliers {name} has no meaning for law {self.law!r}")
                continue
            number = default if value is None else value
            object.__setattr__(self, name, scalar(number, f"outliers {name}", low=0.0, strict=True))


def simulate(
    model: LinearSDE | DiscreteModel | RadialTangentialSDE,
    t: ArrayLike | None = None,
    n_paths: int = 1,
    *,
    rng: np.random.Generator | int,
    x0: ArrayLike | Literal["stationary"] | None = None,
    outliers: Outliers | None = None,
    missing: ArrayLike = 0.0,
) -> Trajectories:
    """Draw states and observations, exactly in law.

    Parameters
    ----------
    model : `LinearSDE` or `DiscreteModel`; or `RadialTangentialSDE`, which needs t and x0, takes no
        outliers or missing and is sub-stepped (see `simulate_radial`).
    t : (T,) non-decreasing times of the observations; equal stamps are legal. For a
        `DiscreteModel` they are labels only; left out: 0, 1, ... as long as its time-varying
        arrays.
    n_paths : number of independent paths n.
    rng : generator, or the seed of one. It only seeds one stream per purpose (start, steps,
        measurement noise, outliers, missing), so that runs from equal generators share their
        standard normals whatever the noise levels, outliers and missing rate are, and the first
        paths do not depend on n.
    x0 : state at the first time used (t[0], or t[0] - delay). None: drawn from the model's prior,
        propagated to there. "stationary": drawn from the stationary law. (d,) or (n, d): that
        state.
    outliers : contamination model, or None.
    missing : probability that a component is missing: a number, (p,) or (T, p).

    Returns
    -------
    Trajectories
        x (n, T, d), z (n, T, p), outliers (n, T) or None. The path axis is there also for n = 1.

    Raises
    ------
    ValueError, TypeError
        Bad times, a diffuse prior without x0, wrong shapes, probabilities outside [0, 1],
        outliers that scale with a zero R, rng that is neither a Generator nor a seed.

    Notes
    -----
    Time O(n T (d^2 + d p + p^2)) after one transition per distinct interval, memory that of the
    result. Law: x(s + tau) | x(s) ~ N(Phi x + psi, V), arXiv:2509.04154 sec. 3; singular V and R
    are fine.
    """
    rng = generator(rng)
    n = positive_int(n_paths, "n_paths")
    if not isinstance(model, (LinearSDE, DiscreteModel)):
        return _radial(model, t, n, rng, x0, plain=outliers is None and not np.any(missing))
    plan = _plan(model, t)
    p = model.obs_dim
    gaps = _missing_probability(missing, len(plan.t), p)
    if outliers is not None and not isinstance(outliers, Outliers):
        raise TypeError(f"outliers must be an Outliers or None, got {outliers!r}")
    seeds = rng.integers(0, 2**63, size=(7, 4))
    start, steps, noise = map(_stream, seeds[:3])

    states = np.empty((n, plan.n_states, model.dim))
    states[:, 0] = _start(model, plan, n, x0, start)
    z = np.empty((n, len(plan.t), p))
    _fill(states, z, plan, steps, noise)
    struck = None
    if outliers is not None:
        struck = _contaminate(z, states, plan, outliers, [_stream(seed) for seed in seeds[3:6]])
    if gaps is not None:
        z[_stream(seeds[6]).random(z.shape) < gaps] = np.nan
    x = states if plan.n_states == len(plan.t) else states[:, plan.shown_at]
    return Trajectories(plan.t, x, z, struck)


def _stream(seed: NDArray[np.int64]) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(seed.tolist()))


def _radial(
    model: RadialTangentialSDE, t: Any, n: int, rng: np.random.Generator, x0: Any, *, plain: bool
) -> Trajectories:
    from afafilter.models.radial import RadialTangentialSDE
    from afafilter.simulation.radial import simulate_radial

    if not isinstance(model, RadialTangentialSDE):
        raise TypeError(
            f"model must be a LinearSDE, a DiscreteModel or a RadialTangentialSDE, got {model!r}"
        )
    if t is None or x0 is None or isinstance(x0, str) or not plain:
        raise ValueError(
            "a RadialTangentialSDE needs t and a start x0, and takes no outliers or missing"
        )
    start = real_array(x0, "x0")
    return simulate_radial(
        model, t, n, rng=rng, x0=np.tile(start, (n, 1)) if start.ndim == 1 else start
    )


class _Tables(NamedTuple):
    """Constant (one entry) or time-varying tables, and which entry holds at each time."""

    mean: Array  # (K, rows, cols) matrix that multiplies the previous or shown state
    shift: Array  # (K, rows)
    root: Array  # (K, rows, rows) lower triangular, root root^T = covariance
    which: NDArray[np.intp]  # (T,)


class _Plan(NamedTuple):
    """Everything known before any number is drawn.

    States live on a grid of their own: with a delay it holds t - delay beside t.
    """

    t: Array
    step: _Tables
    observation: _Tables
    seen: NDArray[np.intp]  # (T,) index of the state that each observation shows
    shown_at: NDArray[np.intp]  # (T,) index of the state at t
    t_first: float

    @property
    def n_states(self) -> int:
        return len(self.step.which)


def _plan(model: LinearSDE | DiscreteModel, t: ArrayLike | None) -> _Plan:
    if isinstance(model, LinearSDE):
        if t is None:
            raise TypeError("t must be given for a LinearSDE")
        grid = times(t)
        seen = shown_at = np.arange(len(grid))
        states = grid
        if model.delay > 0:
            states, index = np.unique(
                np.concatenate([grid - model.delay, grid]), return_inverse=True
            )
            seen, shown_at = index[: len(grid)], index[len(grid) :]
        steps, which = np.unique(np.diff(states, prepend=states[0]), return_inverse=True)
        Phi, psi, V = model.transition(steps)
        return _Plan(
            grid,
            _Tables(Phi, psi, covariance_root(V), which),
            _Tables(
                model.C[None],
                model.offset[None],
                covariance_root(model.R)[None],
                np.zeros(len(grid), dtype=np.intp),
            ),
            seen,
            shown_at,
            float(states[0]),
        )
    if t is None:
        if model.length is None:
            raise ValueError("t must be given (labels, one per step) when the model is constant")
        grid = np.arange(float(model.length))
    else:
        grid = times(t)
    if model.length not in (None, len(grid)):
        raise ValueError(f"t must have length {model.length} like the model, got {len(grid)}")
    every = np.arange(len(grid))

    def tables(mean: str, shift: str, cov: str) -> _Tables:
        varying = bool({mean, shift, cov} & set(model.time_varying))

        def table(name: str) -> Array:
            value: Array = getattr(model, name)
            if name in model.time_varying:
                return value
            return np.broadcast_to(value, (len(grid) if varying else 1, *value.shape))

        which = every if varying else np.zeros_like(every)
        return _Tables(table(mean), table(shift), covariance_root(table(cov)), which)

    return _Plan(grid, tables("F", "b", "Q"), tables("H", "d", "R"), every, every, float(grid[0]))


def covariance_root(cov: Array) -> Array:
    """Lower triangular L (..., m, m) with L L^T = cov (..., m, m), symmetric, maybe singular.

    L = D tril(C^{1/2}) with D the standard deviations and C^{1/2} the symmetric root of the
    correlation matrix, made triangular by QR: unlike Cholesky it exists for singular matrices, and
    unlike a root of cov itself it keeps small variances beside large ones.
    """
    sd = np.sqrt(np.diagonal(cov, axis1=-2, axis2=-1))
    safe = np.where(sd > 0, sd, 1.0)
    values, vectors = np.linalg.eigh(cov / (safe[..., :, None] * safe[..., None, :]))
    half = np.sqrt(np.clip(values, 0.0, None))[..., :, None] * np.swapaxes(vectors, -1, -2)
    upper = np.linalg.qr(half, mode="r")
    signs = np.where(np.diagonal(upper, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
    return np.asarray(sd[..., :, None] * np.swapaxes(upper * signs[..., :, None], -1, -2))


def _start(
    model: LinearSDE | DiscreteModel,
    plan: _Plan,
    n: int,
    x0: ArrayLike | str | None,
    stream: np.random.Generator,
) -> Array:
    d = model.dim
    if x0 is None or isinstance(x0, str):
        if isinstance(x0, str):
            choice(x0, "x0", ("stationary",))
            model = replace(model, prior="stationary")
        law: InitialLaw = (
            model.initial_law(plan.t_first) if isinstance(model, LinearSDE) else model.initial_law()
        )
        if law.diffuse.size:
            raise ValueError(
                "x0 must be given, since the model's prior is diffuse: nothing can be drawn from "
                f"it. Give x0 of shape ({d},) or (n_paths, {d}), or a model with "
                "prior=Prior(mean, cov)"
            )
        draws = stream.standard_normal((n, d))
        return np.asarray(law.mean + draws @ covariance_root(law.cov).T)
    given = real_array(x0, "x0")
    if given.shape not in ((d,), (n, d)):
        raise ValueError(
            f"x0 must have shape (d,) = ({d},) or (n_paths, d) = ({n}, {d}), got {given.shape}"
        )
    return np.broadcast_to(given, (n, d))


def _fill(
    states: Array, z: Array, plan: _Plan, steps: np.random.Generator, noise: np.random.Generator
) -> None:
    """Propagate states[:, 0] and observe, block of paths by block of paths."""
    Phi, psi, step_root = (np.ascontiguousarray(table) for table in plan.step[:3])
    C, offset, noise_root = (np.ascontiguousarray(table) for table in plan.observation[:3])
    n = len(states)
    block = max(1, _BLOCK // max(states[0].size, z[0].size))
    for low in range(0, n, block):
        x, y = states[low : low + block], z[low : low + block]
        first = x[:, 0].copy()
        steps.standard_normal(out=x)
        x[:, 0] = first
        propagate(x, Phi, psi, step_root, plan.step.which)
        noise.standard_normal(out=y)
        observe(y, x, plan.seen, C, offset, noise_root, plan.observation.which)


def _contaminate(
    z: Array, states: Array, plan: _Plan, outliers: Outliers, streams: list[np.random.Generator]
) -> ObsMask:
    """Strike observations in place; returns the mask (n, T)."""
    n, T, p = z.shape
    struck = streams[0].random((n, T)) < outliers.rate
    path, k = np.nonzero(struck)
    table = plan.observation
    at = table.which[k]
    if outliers.law == "mean_doubling":
        shown = states[path, plan.seen[k]]
        z[path, k] += np.einsum("kij,kj->ki", table.mean[at], shown) + table.shift[at]
        return struck
    if not table.root.any():
        raise ValueError("R must not be zero: the size of outliers is given in units of R")
    assert outliers.scale is not None
    draws = streams[1].standard_normal((n, T, p))[struck]
    if outliers.df is not None:
        chi2 = streams[2].chisquare(outliers.df, size=(n, T))[struck]
        draws /= np.sqrt(chi2 / outliers.df)[:, None]
    z[path, k] += outliers.scale * np.einsum("kij,kj->ki", table.root[at], draws)
    return struck


def _missing_probability(missing: Any, n_times: int, p: int) -> Array | None:
    probability = real_array(missing, "missing")
    if probability.shape not in ((), (p,), (n_times, p)):
        raise ValueError(
            f"missing must be a number or have shape (p,) = ({p},) or (T, p) = ({n_times}, {p}), "
            f"got {probability.shape}"
        )
    if (probability < 0).any() or (probability > 1).any():
        raise ValueError(
            f"missing must be probabilities in [0, 1], got {probability.min():g}"
            f"..{probability.max():g}"
        )
    return probability if probability.any() else None
