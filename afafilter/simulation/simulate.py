"""Exact simulation of linear SDEs and discrete linear models, vectorised over paths.

No time-stepping scheme is involved: steps are drawn from the transition law N(Phi x + psi, V) of
`LinearSDE.transition`, so the law at given times does not depend on the times in between. What is
added to the state beside it (known inputs, jumps, innovation outliers) is carried along on its own
and added, since the model is linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from afafilter._base.checks import Array, choice, generator, positive_int, real_array, scalar, times
from afafilter._base.tables import given_times
from afafilter.models.discrete import DiscreteModel
from afafilter.models.forcing import Forcing, forced_states
from afafilter.models.priors import InitialLaw
from afafilter.models.sde import LinearSDE
from afafilter.results import Trajectories
from afafilter.simulation.contamination import (
    ColouredNoise,
    Gaps,
    Jumps,
    LevelShift,
    Outliers,
    contaminate,
    innovation_outliers,
    jump_increments,
    missing_probability,
    propagated,
)
from afafilter.simulation.plan import Plan, Setting, covariance_root, make_plan
from afafilter.simulation.recursions import observe, propagate

if TYPE_CHECKING:
    from afafilter.models.radial import RadialTangentialSDE

_BLOCK = 1 << 16
"""Numbers drawn at a time: half a MiB, so that a draw is still in cache when it is used."""


def simulate(
    model: LinearSDE | DiscreteModel | RadialTangentialSDE,
    t: ArrayLike | None = None,
    n_paths: int = 1,
    *,
    rng: np.random.Generator | int,
    x0: ArrayLike | Literal["stationary"] | None = None,
    outliers: Outliers | None = None,
    missing: ArrayLike | Gaps = 0.0,
    obs_cov: ArrayLike | None = None,
    forcing: Forcing | None = None,
    jumps: Jumps | None = None,
    shifts: Sequence[LevelShift] = (),
    coloured: ColouredNoise | None = None,
    clock_jitter: float = 0.0,
    fine_times: ArrayLike | None = None,
) -> Trajectories:
    """Draw states and observations, exactly in law.

    Parameters
    ----------
    model : LinearSDE or DiscreteModel or RadialTangentialSDE
        `LinearSDE` or `DiscreteModel`; or `RadialTangentialSDE`, which needs t and x0, takes no
        outliers or missing and is sub-stepped (see `simulate_radial`).
    t : array_like, shape (T,), optional
        Non-decreasing times of the observations; equal stamps are legal. For a
        `DiscreteModel` they are labels only; left out: 0, 1, ... as long as its time-varying
        arrays.
    n_paths : int
        Number of independent paths n.
    rng : Generator or int
        Generator, or the seed of one. It only seeds one stream per purpose (start, steps,
        measurement noise, outliers, missing), so that runs from equal generators share their
        standard normals whatever the noise levels, outliers and missing rate are, and the first
        paths do not depend on n.
    x0 : array_like or {"stationary"}, optional
        State at the first time used (t[0], or t[0] - delay). None: drawn from the model's prior,
        propagated to there. "stationary": drawn from the stationary law. (d,) or (n, d): that
        state.
    outliers : Outliers, optional
        Contamination model, or None.
    missing : array_like or Gaps
        Probability that a component is missing: a number, (p,) or (T, p); or `Gaps`, whole
        blocks.
    obs_cov : array_like, shape (T, p, p), optional
        Noise covariance of each observation instead of the model's R.
    forcing : Forcing, optional
        Known input of a `LinearSDE`, in place of the model's own.
    jumps : Jumps, optional
        Jumps of the state of a `LinearSDE`, or None.
    shifts : sequence of LevelShift
        Shifts of what is observed.
    coloured : ColouredNoise, optional
        Noise beside the white one.
    clock_jitter : float
        >= 0, standard deviation of the time at which an observation is really taken
        about its stamp (the same for all paths; a `LinearSDE`).
    fine_times : array_like, shape (M,), optional
        Sorted times at which the states are wanted too, on the same paths.

    Returns
    -------
    Trajectories
        x (n, T, d), z (n, T, p), outliers (n, T) or None, and fine_t (M,), fine_x (n, M, d) where
        asked for. The path axis is there also for n = 1.

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

    Examples
    --------
    >>> from afafilter import simulate, spiral
    >>> data = simulate(spiral(), [0.0, 0.5, 2.0], 3, rng=0)
    >>> data.x.shape, data.z.shape
    ((3, 3, 2), (3, 3, 2))
    """
    rng = generator(rng)
    n = positive_int(n_paths, "n_paths")
    if not isinstance(model, (LinearSDE, DiscreteModel)):
        more = (obs_cov, forcing, jumps, coloured, fine_times, outliers, shifts or None)
        plain = all(x is None for x in more) and not clock_jitter
        plain &= not isinstance(missing, Gaps) and not np.any(missing)
        return _radial(model, t, n, rng, x0, plain=plain)
    _check(model, outliers, forcing, jumps, coloured)
    t = None if t is None else given_times(t)
    if forcing is not None and isinstance(model, LinearSDE):
        model = replace(model, forcing=forcing)
    seeds = rng.integers(0, 2**63, size=(7, 4))
    setting = _setting(model, t, obs_cov, clock_jitter, fine_times, seeds)
    plan = make_plan(model, t, setting)
    p = model.obs_dim
    gaps = missing if isinstance(missing, Gaps) else missing_probability(missing, len(plan.t), p)
    start, steps, noise = map(_stream, seeds[:3])
    states = np.empty((n, plan.n_states, model.dim))
    states[:, 0] = _start(model, plan, n, x0, start)
    z = np.empty((n, len(plan.t), p))
    _fill(states, z, plan, steps, noise)
    struck = _disturb(states, z, plan, _forced(model, plan, x0), model, jumps, outliers, seeds)
    for shift in shifts:
        _shift(z, plan.t, shift)
    if coloured is not None:
        z += coloured.draw(n, plan.times[plan.seen], _stream(seeds[0], 2))
    if isinstance(gaps, Gaps):
        z[gaps.draw(n, len(plan.t), _stream(seeds[6]))] = np.nan
    elif gaps is not None:
        z[_stream(seeds[6]).random(z.shape) < gaps] = np.nan
    x = states if plan.n_states == len(plan.t) else states[:, plan.state_at]
    if setting.extra is None:
        return Trajectories(plan.t, x, z, struck)
    return Trajectories(plan.t, x, z, struck, setting.extra, states[:, plan.further_at])


def _check(model: Any, outliers: Any, forcing: Any, jumps: Any, coloured: Any) -> None:
    """TypeError or ValueError for options of the wrong kind."""
    for name, value, kind in (
        ("outliers", outliers, Outliers),
        ("forcing", forcing, Forcing),
        ("jumps", jumps, Jumps),
        ("coloured", coloured, ColouredNoise),
    ):
        if value is not None and not isinstance(value, kind):
            article = "an" if kind is Outliers else "a"
            raise TypeError(f"{name} must be {article} {kind.__name__} or None, got {value!r}")
    if isinstance(model, DiscreteModel) and (forcing is not None or jumps is not None):
        raise ValueError("forcing and jumps need a LinearSDE; a DiscreteModel has b and Q of steps")
    if coloured is not None and len(coloured.cov) != model.obs_dim:
        raise ValueError(
            f"coloured noise cov must have shape {(model.obs_dim,) * 2}, got {coloured.cov.shape}"
        )


def _setting(
    model: Any, t: Any, obs_cov: Any, clock_jitter: float, fine_times: Any, seeds: NDArray[np.int64]
) -> Setting:
    jitter = scalar(clock_jitter, "clock_jitter", low=0.0)
    if jitter == 0 and fine_times is None:
        return Setting(obs_cov)
    if not isinstance(model, LinearSDE):
        raise ValueError("clock_jitter and fine_times need a LinearSDE")
    grid = times(t)
    late = None
    if jitter > 0:  # none before the first stamp, where the start counts
        late = np.maximum(jitter * _stream(seeds[0], 1).standard_normal(len(grid)), grid[0] - grid)
    extra = None if fine_times is None else times(fine_times, "fine_times")
    if extra is not None and extra[0] < grid[0] - model.delay:
        raise ValueError(
            f"fine_times must not begin before the first state, at {grid[0] - model.delay:g}, "
            f"got {extra[0]:g}"
        )
    return Setting(obs_cov, late, extra)


def _forced(model: Any, plan: Plan, x0: Any) -> Array | None:
    """Response of the states to the known input, x_u (S, d), or None without one."""
    if getattr(model, "forcing", None) is None:
        return None
    if isinstance(x0, str):
        model = replace(model, prior="stationary")
    elif x0 is not None:
        model = replace(model, prior="diffuse")  # x0 counts at the first time
    return forced_states(model, plan.times, plan.t_first)


def _disturb(
    states: Array,
    z: Array,
    plan: Plan,
    known: Array | None,
    model: Any,
    jumps: Jumps | None,
    outliers: Outliers | None,
    seeds: NDArray[np.int64],
) -> Any:
    """Add known inputs, jumps and outliers in place; returns the mask of the struck (n, T)."""
    strikes = [_stream(seed) for seed in seeds[3:6]]
    struck, increments, added = None, [], []
    if jumps is not None:
        increments.append(jump_increments(jumps, model, plan, len(states), _stream(seeds[0], 3)))
    if outliers is not None and outliers.strikes == "innovation":
        own, mask = innovation_outliers(states.shape, plan, outliers, strikes)
        increments.append(own)
        struck = mask[:, plan.seen]
    if known is not None:
        added.append(known[None])
        z += model.forcing.shown(plan.t, model.obs_dim)
    if increments:
        added.append(propagated(np.sum(increments, axis=0), plan))
    if added:
        more = reduce(np.add, added)
        states += more
        table = plan.observation
        z += np.einsum("kij,nkj->nki", table.mean[table.which], more[:, plan.seen])
    if outliers is not None and outliers.strikes == "observation":
        struck = contaminate(z, states, plan, outliers, strikes)
    return struck


def _shift(z: Array, t: Array, shift: LevelShift) -> None:
    if not isinstance(shift, LevelShift):
        raise TypeError(f"shifts must be LevelShift objects, got {shift!r}")
    if shift.size.shape not in ((), z.shape[-1:]):
        raise ValueError(
            f"level shift size must be one number or have shape {z.shape[-1:]}, "
            f"got {shift.size.shape}"
        )
    z[:, t >= shift.t] += shift.size


def _stream(seed: NDArray[np.int64], more: int | None = None) -> np.random.Generator:
    """The stream of a purpose; `more` numbers the purposes that came later."""
    words = seed.tolist() if more is None else [*seed.tolist(), more]
    return np.random.Generator(np.random.SFC64(words))


def sampling_times(
    n: int,
    dt: float,
    *,
    law: Literal["regular", "jitter", "poisson", "gamma"] = "poisson",
    spread: float = 0.5,
    t0: float = 0.0,
    rng: np.random.Generator | int = 0,
) -> Array:
    """Irregular sampling: n sorted times (n,) from t0 on, dt apart on average.

    Parameters
    ----------
    n : int
        Number of times.
    dt : float
        > 0, mean interval.
    law : {"regular", "jitter", "poisson", "gamma"}
        "regular"; "jitter": a grid whose points move by at most spread dt / 2 either way;
        "poisson": independent exponential intervals; "gamma": independent intervals with standard
        deviation spread dt.
    spread : float
        > 0 for "jitter" (at most 1) and "gamma".
    rng : Generator or int
        Generator, or the seed of one.

    Raises
    ------
    ValueError, TypeError
        A number out of range, another law.

    Examples
    --------
    >>> from afafilter import sampling_times
    >>> len(sampling_times(20, 0.5, rng=0))
    20
    """
    n, dt = positive_int(n, "n"), scalar(dt, "dt", low=0.0, strict=True)
    choice(law, "law", ("regular", "jitter", "poisson", "gamma"))
    spread = scalar(spread, "spread", low=0.0, strict=True)
    stream, first = generator(rng), scalar(t0, "t0")
    if law in ("regular", "jitter"):
        if law == "jitter" and spread > 1:
            raise ValueError(f"spread must be at most 1 for 'jitter', got {spread:g}")
        moved = spread * (stream.random(n) - 0.5) if law == "jitter" else 0.0
        return np.asarray(first + dt * (np.arange(n) + moved))
    shape = 1.0 if law == "poisson" else 1.0 / spread**2
    gaps = stream.gamma(shape, dt / shape, size=n)
    gaps[0] = 0.0
    return np.asarray(first + np.cumsum(gaps))


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


def _start(
    model: LinearSDE | DiscreteModel,
    plan: Plan,
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
                f"it. Give d = {d} numbers, or (n_paths, d), or a model with a mean and a cov"
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
    states: Array, z: Array, plan: Plan, steps: np.random.Generator, noise: np.random.Generator
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
