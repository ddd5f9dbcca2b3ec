"""Kalman filter, Rauch-Tung-Striebel smoother and forecasts for irregular, gappy, batched data.

    x_k = F_k x_{k-1} + b_k + w_k,   w_k ~ N(0, V_k)        one node of the timeline to the next
    z_k = H_k x_k + d_k + v_k,       v_k ~ N(0, R_k)

All recursions run on square roots of covariances (see core/kalman.h), a flat start is
exact (core/flat.h), and everything that paths share is computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import (
    Array,
    observation_covariances,
    positive_int,
)
from afafilter._base.containers import takes_tables
from afafilter._base.doubts import Doubts
from afafilter._base.steps import asked_times
from afafilter._base.unknown import barely_known, chosen, hidden, image, mark
from afafilter.kalman import queries as ask
from afafilter.kalman.draws import draw_paths
from afafilter.kalman.inputs import (
    Inputs,
    Model,
    Reweighting,
    checked_inputs,
    read_data,
    rows_of,
    shortened,
)
from afafilter.kalman.last_digits import Found, warn_of_lost_digits
from afafilter.kalman.robust import find_weights
from afafilter.kalman.run import run
from afafilter.kalman.timeline import timeline
from afafilter.models.forcing import honours_forcing, shown_offset
from afafilter.models.sde import LinearSDE
from afafilter.results import Estimate, Source
from afafilter.weights import Weight


@takes_tables
@honours_forcing
def kalman_filter(
    model: Model,
    t: ArrayLike,
    z: ArrayLike | None = None,
    *,
    obs_cov: ArrayLike | None = None,
    query_times: ArrayLike | None = None,
    weight: Weight | str | None = None,
    anchor: str = "prediction",
    metric: str = "R",
    iterations: int = 50,
) -> Estimate:
    """State estimates from the observations up to each time.

    Parameters
    ----------
    model : LinearSDE or DiscreteModel
    t : array_like, shape (T,)
        Times, non-decreasing; equal stamps are processed in order. A `DiscreteModel` may leave
        it out, `kalman_filter(model, z)`, or give it as labels.
    z : array_like, shape (..., T, p), optional
        Observations, NaN = missing component, booleans 0 and 1; leading axes are paths.
    obs_cov : array_like, shape (T, p, p), optional
        Noise covariance of each observation instead of the model's R.
    query_times : array_like, shape (Tq,), optional
        Sorted times of the estimates instead of t, before, between or after the
        observations. An estimate uses all observations stamped up to its time. Before the first one
        it is the prior's law there (a `Prior` without t0 holds at the first observation and is
        carried backwards from it). Not for a `DiscreteModel`.
    weight : Weight or str, optional
        Robust weight w(d2, dim); observation k counts with covariance R_k / w_k.
    anchor : str
        What decides the weight. "prediction": the innovation z - H m_pred, one pass (WoLF,
        arXiv:2405.05646). "estimate": the residual z - H m of the filtered estimate itself,
        reweighted to convergence at each step with earlier weights kept (IRKF). "variational": the
        same with E d2, d2 + tr(M^-1 H P H^T): the variational filter, where w is `StudentT`.
    metric : str
        d2 = r^T M^-1 r with M the noise covariance ("R"), identity ("raw") or, for anchor
        "prediction" only, the covariance of the innovation ("innovation").
    iterations : int
        Most reweightings per step for the anchors "estimate" and "variational".

    Returns
    -------
    Estimate
        mean (..., Tq, d), cov (..., Tq, d, d), loglik (...,), loglik_steps (..., T), innovation
        (..., T, p) and innovation_cov (..., T, p, p). Components that a flat prior leaves open have
        mean NaN and variance inf. Under a weight, `info["robust_weights"]` (..., T) holds w and
        loglik is that of the reweighted Gaussian model; an observation of weight 0 counts as
        missing.

    Raises
    ------
    ValueError, TypeError
        Bad times, shapes or options; a singular R where it leaves an observation without noise.

    Notes
    -----
    Exact diffuse likelihood in the convention of Durbin & Koopman (2012), sec. 7.2, as statsmodels:
    every observed component counts one log 2 pi, those that determine flat directions too.

    A flat start leaves the first observations unjudged under anchor "prediction": they have nothing
    to disagree with, get weight 1, and an outlier among them locks the filter.

    Variational: z | u ~ N(H x, R/u), u ~ Gamma(nu/2, nu/2), E u = (nu + p) / (nu + E d2)
    (Agamennoni, Nieto & Nebot, IEEE Trans. Signal Process. 60 (2012) 5024).

    Time O(G T (d^3 + p d^2) + n T d (d + p)) for n paths with G patterns of missing components
    (G = n under a weight), less where steps are regular and the covariance settles; memory
    O(G T d^2 + n T d).

    Threads share the paths, and one path of 16 000 times or more that does not settle: pieces of it
    begin with a warm-up of 512 to 2048 nodes, and where they meet and differ by more than 1e-13
    standard deviations they are left for longer ones that are corrected where they meet. Results do
    not depend on the number of threads; AFAFILTER_NUM_THREADS limits it.

    Examples
    --------
    >>> from afafilter import kalman_filter, simulate, spiral
    >>> data = simulate(spiral(), [0.1 * k for k in range(50)], rng=0)
    >>> found = kalman_filter(spiral(), data.t, data.z)
    >>> found.mean.shape, found.loglik.shape
    ((1, 50, 2), (1,))
    """
    robust = Reweighting(weight, anchor, metric, iterations)
    return _estimate("Kalman", False, model, t, z, obs_cov, query_times, robust)


@takes_tables
@honours_forcing
def rts_smoother(
    model: Model,
    t: ArrayLike,
    z: ArrayLike | None = None,
    *,
    obs_cov: ArrayLike | None = None,
    query_times: ArrayLike | None = None,
    weight: Weight | str | None = None,
    anchor: str = "prediction",
    metric: str = "R",
    iterations: int = 50,
) -> Estimate:
    """State estimates from all observations, before and after each time.

    Parameters and result as for `kalman_filter`; innovations and likelihood are the filter's. With
    anchor "estimate" or "variational" the weights come from the smoothed estimate and are iterated
    to convergence, smoother after smoother, from the plain one; with "prediction" they are the
    filter's.

    Raises
    ------
    ValueError, TypeError
        As for `kalman_filter`.

    Notes
    -----
    Rauch, Tung & Striebel (1965), with the conditional law of each state given its successor kept
    as a root (Park & Kailath 1995), so that every covariance is a sum of positive semidefinite
    terms and singular predicted covariances need no inverse. About twice the filter's cost.

    Examples
    --------
    >>> from afafilter import rts_smoother, simulate, spiral
    >>> data = simulate(spiral(), [0.1 * k for k in range(50)], rng=0)
    >>> rts_smoother(spiral(), data.t, data.z, query_times=[0.5, 1.5]).mean.shape
    (1, 2, 2)
    """
    robust = Reweighting(weight, anchor, metric, iterations)
    return _estimate("RTS", True, model, t, z, obs_cov, query_times, robust)


@takes_tables
def forecast(
    model: Model,
    t: ArrayLike,
    z: ArrayLike | None = None,
    *,
    horizon_times: ArrayLike | None = None,
    steps: int | None = None,
    obs_cov: ArrayLike | None = None,
    **robust: Any,
) -> Estimate:
    """States after the end of the data.

    Parameters
    ----------
    model, t, z, obs_cov
        As for `kalman_filter`.
    horizon_times : array_like, shape (H,), optional
        Times of the forecasts, from t[-1] on (LinearSDE).
    steps : int, optional
        Number of steps ahead (DiscreteModel: its matrices must reach that far).
    robust
        Weight, anchor, metric, iterations as for `kalman_filter`.

    Returns
    -------
    Estimate
        mean (..., H, d) and cov (..., H, d, d); `info["observation_mean"]` (..., H, p) and
        `info["observation_cov"]` (..., H, p, p) forecast an observation that shows these states.

    Raises
    ------
    ValueError, TypeError
        If not exactly the argument that suits the model is given, or times lie before the end.

    Examples
    --------
    >>> from afafilter import forecast, simulate, spiral
    >>> data = simulate(spiral(), [0.1 * k for k in range(50)], rng=0)
    >>> forecast(spiral(), data.t, data.z, horizon_times=[5.0, 6.0]).mean.shape
    (1, 2, 2)
    """
    continuous = isinstance(model, LinearSDE)
    if continuous and (horizon_times is None or steps is not None):
        raise ValueError("a LinearSDE needs horizon_times (and no steps) to forecast")
    if not continuous and (steps is None or horizon_times is not None):
        raise ValueError("a DiscreteModel needs steps (and no horizon_times) to forecast")
    count = 0 if continuous else positive_int(steps, "steps")
    grid, data = read_data(model, t, z, spare=count)
    T = len(grid)
    if obs_cov is not None:
        obs_cov = observation_covariances(obs_cov, T, model.obs_dim, model.R, data)
    whole: Model
    if isinstance(model, LinearSDE):
        ahead, end = asked_times(horizon_times, grid, "horizon_times"), grid[-1]
        if ahead[0] < end:
            raise ValueError(
                f"horizon_times must not lie before the last time {end:g}, got {ahead[0]:g}"
            )
        count, robust = len(ahead), {"query_times": ahead, **robust}
        smoother = partial(rts_smoother, model, grid, data, obs_cov=obs_cov, **robust)
        H, d, R = model.C, shown_offset(model, ahead), model.R
        whole, grid = model, np.concatenate([grid, ahead + model.delay])
    else:
        H, d, R = (rows_of(model, name, T + count)[T:] for name in ("H", "d", "R"))
        whole, grid = shortened(model, T + count), np.arange(float(T + count))
    # Observations ahead have the covariance of the innovations of missing ones, which is made of
    # roots: H P H^T of P alone loses what cancels there.
    gap = np.full((*data.shape[:-2], count, data.shape[-1]), np.nan)
    data = np.concatenate([data, gap], axis=-2)
    if obs_cov is not None:
        obs_cov = np.concatenate([obs_cov, np.broadcast_to(R, (count, *R.shape[-2:]))])
    found = kalman_filter(whole, grid, data, obs_cov=obs_cov, **robust)
    assert found.innovation_cov is not None
    info = {**found.info, "observation_cov": found.innovation_cov[..., T:, :, :]}
    if "robust_weights" in info:
        info["robust_weights"] = info["robust_weights"][..., :T]
    if not continuous:
        smoother = partial(rts_smoother, whole, grid, data, obs_cov=obs_cov, **robust)
        mean, cov = found.mean[..., T:, :], found.cov[..., T:, :, :]
        laws = chosen(found.open_laws, np.arange(T, T + count))
        found = replace(found, t=grid[T:], mean=mean, cov=cov, open_laws=laws)
    observed, spread = image(H, found.mean, found.open_laws) + d, info["observation_cov"]
    unknown = np.isnan(observed) | np.isinf(np.diagonal(spread, axis1=-2, axis2=-1))
    if unknown.any():  # where rounding decides, either may say so
        observed, spread = mark(observed, spread, unknown)
    if not unknown.all():
        Doubts(known=hidden(found.open_laws, H)).warn(4)
    info["observation_mean"], info["observation_cov"] = observed, spread
    parts = model.parts if isinstance(model, LinearSDE) else ()
    source = Source(H, d, R, parts, partial(_paths_ahead, smoother, found.mean.shape[-2]))
    law = found.t, found.mean, found.cov
    return Estimate(*law, label="Forecast", info=info, open_laws=found.open_laws, source=source)


def _paths_ahead(
    smoother: Callable[[], Estimate], ahead: int, n: int, rng: np.random.Generator
) -> Array:
    """Joint draws of the last `ahead` states of what the smoother finds."""
    return smoother().sample_paths(n, rng)[..., -ahead:, :]


def _source(
    model: Model, R: Array | None, T: int, on_grid: bool, draw: Callable[..., Array] | None
) -> Source:
    """How the states at the times of the estimates are observed."""
    if isinstance(model, LinearSDE):
        noise = model.R if R is None or not on_grid else R
        return Source(model.C, model.offset, noise, model.parts, draw)
    H, offset, own = (rows_of(model, name, T) for name in ("H", "d", "R"))
    return Source(H, offset, own if R is None else R, (), draw)


def _off_nodes(model: Model, given: Inputs) -> bool:
    """Whether estimates are wanted elsewhere than where observations show the state."""
    return given.asked is not given.grid or getattr(model, "delay", 0.0) > 0


def _solve(model: Model, given: Inputs, smooth: bool, robust: Reweighting) -> Found:
    """The recursions for the data and, with their help, the law at the times asked for."""
    grid, asked, z = given.grid, given.asked, given.paths
    moved = smooth and _off_nodes(model, given)
    line = timeline(model, grid, given.R, asked if moved else None)
    info: dict[str, Any] = {}
    scale = None
    if robust.weight is not None:
        w, info = find_weights(line, z, robust, smooth)
        info = {**info, "robust_weights": w, "weight": type(robust.weight).__name__}
        with np.errstate(divide="ignore"):
            scale = 1.0 / w
    found = run(line, z, smooth, scale, given.complete)
    if moved:
        answer = ask.smoothed(model, line, found, asked)
    else:
        answer = ask.filtered(model, line, found, grid, asked)
    if answer.open_laws:
        H = model.C if isinstance(model, LinearSDE) else rows_of(model, "H", len(grid))
        if known := barely_known(answer.open_laws, H):
            found.doubts = found.doubts._replace(known=known)
    return Found(line, scale, found, *answer, info)


def _estimate(
    label: str,
    smooth: bool,
    model: Model,
    t: ArrayLike,
    z: ArrayLike | None,
    obs_cov: ArrayLike | None,
    query_times: ArrayLike | None,
    robust: Reweighting,
) -> Estimate:
    given = checked_inputs(model, t, z, obs_cov, query_times)
    grid, asked, lead = given.grid, given.asked, given.z.shape[:-2]
    robust = robust.checked()
    line, scale, found, mean, cov, open_laws, info = whole = _solve(model, given, smooth, robust)
    n = len(mean)
    if found.doubts.unsure():
        warn_of_lost_digits(model, given, whole, partial(_solve, smooth=smooth, robust=robust))

    def by_path(value: Array) -> Array:
        """(n, ...), or (G, ...) of groups, as (..., ...): a view where all paths share one."""
        if not lead:
            return cast("Array", value[0])
        if len(value) != n:
            shape = n, *value.shape[1:]
            value = np.broadcast_to(value, shape) if len(value) == 1 else value[found.group]
        return value if len(lead) == 1 else value.reshape(lead + value.shape[1:])

    if scale is not None:
        info["robust_weights"] = by_path(info["robust_weights"])
    steps, mean, draw = by_path(found.loglik), by_path(mean), None
    if smooth:
        where = asked if _off_nodes(model, given) else None
        draw = partial(draw_paths, model, line, given.paths, scale, where, mean)
    return Estimate(
        asked,
        mean,
        by_path(cov),
        loglik=np.add.reduce(steps, axis=-1),
        loglik_steps=steps,
        innovation=by_path(found.innovation),
        innovation_cov=by_path(found.innovation_cov),
        label=label,
        info=info,
        open_laws=open_laws,
        source=_source(model, given.R, len(grid), asked is grid, draw),
    )
