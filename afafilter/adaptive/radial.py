"""Adaptive filter of the radial-tangential SDE, and its hypersphere limit.

Every precision is diagonal plus rank one, with the direction of the anchor, u_i = a_i / |a_i|, the
same for all observations of a query: with each pulled observation's own direction the estimate is
badly biased. Equations: Racioppo, "Attention as an Adaptive Filter", arXiv:2509.04154, RT-SDE; the
iteration is beyond the paper. Symbols as in `RadialTangentialSDE`'s module, gamma^2 anchor_var.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import (
    Array,
    choice,
    observations,
    positive_int,
    real_array,
    scalar,
    times,
)
from afafilter._base.containers import takes_tables
from afafilter._base.steps import asked_times
from afafilter.adaptive.linear_time.filter import linear_time_estimate
from afafilter.adaptive.options import between
from afafilter.adaptive.radial_tiles import RadialKernel, Task, sweep
from afafilter.models.radial import RadialTangentialSDE, directions, rank_one
from afafilter.results import Estimate
from afafilter.weights import Weight, as_weight

ANCHORS = ("observation", "estimate")


@takes_tables
def radial_adaptive_filter(
    model: RadialTangentialSDE,
    t: ArrayLike,
    z: ArrayLike | None = None,
    *,
    two_sided: bool = False,
    weight: Weight | str | None = None,
    anchor: str = "observation",
    iterations: int = 1,
    step: float = 1.0,
    anchor_var: float = 0.0,
    query_times: ArrayLike | None = None,
    tolerance: float = 1e-10,
) -> Estimate:
    """AFA with radial and tangential precisions: isotropic AFA plus one rank per query.

    With ``u_i = a_i / |a_i|``, zhat_ij = e^{A tau} z_j and r = zhat_ij - a_i, ::

        d2_ij = |r|^2 / St + (1/Sr - 1/St) <u_i, r>^2,   P_ij = (I - u u^T)/St + u u^T/Sr,
        zbar_i = (sum w P)^-1 sum w P zhat,   a_i <- a_i + step (zbar_i - a_i).

    Parameters
    ----------
    model : RadialTangentialSDE
        RadialTangentialSDE. With `radius` only the tangential precision counts, and the update
        is normalised: `hypersphere_step`.
    t : array_like, shape (T,)
        Observation times.
    z : array_like, shape (..., T, d), optional
        Rows wholly NaN are missing.
    two_sided : bool
        Use later observations too.
    weight : Weight or str, optional
        Robust weight w(d2, d) (on a hypersphere of d2's d - 1 components), or None.
    anchor : str
        Start of the anchor: "observation" (the paper; the plain estimate where the row is
        missing or off the grid) or "estimate" (the isotropic plain estimate).
    iterations : int
        Number of reweightings (RT IRLS); they end when no anchor moves by more than
        `tolerance` times its length.
    step : float
        0 < step <= 1.
    anchor_var : float
        gamma^2 >= 0.
    query_times : array_like, shape (M,), optional
        Or None, as in
        `adaptive_filter`.

    Returns
    -------
    Estimate
        mean (..., M, d), claimed covariance (sum w P)^-1 (..., M, d, d); before the first
        observation NaN and inf. info: iterations done.

    Raises
    ------
    ValueError
        An anchor is zero and has no direction; a radial or tangential precision would be infinite
        (obs_*_var + anchor_var = 0); a row is missing in part; bad arguments.

    Notes
    -----
    O(M T d) time per iteration and path, O((M + T) d) memory: tiles of 128 x 512. The tangential
    part of d2 carries a rounding error of about ``1e-16 |z|^2 / St``.

    Examples
    --------
    >>> from afafilter import RadialTangentialSDE, radial_adaptive_filter, simulate
    >>> model = RadialTangentialSDE(0.0, 1.0, radial_var=0.1, tangential_var=0.2,
    ...     obs_radial_var=0.5, obs_tangential_var=0.5)
    >>> data = simulate(model, range(20), rng=0, x0=[9.0, 0.0])
    >>> radial_adaptive_filter(model, data.t, data.z).mean.shape
    (1, 20, 2)
    """
    if not isinstance(model, RadialTangentialSDE):
        raise TypeError(f"model must be a RadialTangentialSDE, got {type(model).__name__}")
    grid = times(t)
    data = observations(z, len(grid), model.dim)
    robust = as_weight(weight)
    choice(anchor, "anchor", ANCHORS)
    iterations = positive_int(iterations, "iterations")
    step = between(step, "step", low_open=True)
    gamma2 = scalar(anchor_var, "anchor_var", low=0.0)
    _require_precisions(model, gamma2)
    queries = asked_times(query_times, grid)
    visible = (
        np.arange(1, len(grid) + 1)
        if query_times is None
        else np.searchsorted(grid, queries, side="right")
    )
    kernel = RadialKernel(model, gamma2, robust)
    own = query_times is None and anchor == "observation"
    starts = _starts(model, grid, data, queries, two_sided, own, gamma2)
    lead = data.shape[:-2]
    paths = data.reshape(-1, len(grid), model.dim)
    mean = np.full((len(paths), len(queries), model.dim), np.nan)
    cov = np.empty((len(paths), len(queries), model.dim, model.dim))
    done = 0
    for p, rows in enumerate(paths):
        valid = ~np.isnan(rows[:, 0])
        seen = np.append(0, np.cumsum(valid))[visible]
        ready = 0 if two_sided and valid.any() else int(np.searchsorted(seen, 1))
        cov[p, :ready] = np.where(np.eye(model.dim, dtype=bool), np.inf, 0.0)
        if ready == len(queries):
            continue
        task = Task(
            grid[valid], rows[valid], queries[ready:], seen[ready:], two_sided, model.frequency
        )
        a, count, across, along, u = _iterate(
            task, kernel, starts[p][ready:], iterations, step, float(tolerance)
        )
        mean[p, ready:], done = a, max(done, count)
        rank_one(across, along, u, out=cov[p, ready:])
    return Estimate(
        queries,
        mean.reshape(*lead, *mean.shape[1:]),
        cov.reshape(*lead, *cov.shape[1:]),
        label="RT-AFA two-sided" if two_sided else "RT-AFA",
        info={"method": "radial", "iterations": done, "anchor": anchor},
    )


def hypersphere_step(x: ArrayLike, estimate: ArrayLike, step: float = 1.0) -> Array:
    """Residual step and normalisation: x + step (estimate - x), brought back to the length of x.

    The Transformer block's residual connection and norm. Shapes (..., d).

    Raises
    ------
    ValueError
        x, or the vector to be normalised, is zero.

    Examples
    --------
    >>> from afafilter import hypersphere_step
    >>> hypersphere_step([1.0, 0.0], [0.0, 1.0], 0.5).round(3).tolist()
    [0.707, 0.707]
    """
    here = real_array(x, "x")
    there = real_array(estimate, "estimate")
    radius = np.linalg.norm(here, axis=-1, keepdims=True)
    directions(here, "x")
    return np.asarray(radius * directions(here + scalar(step, "step") * (there - here), "the step"))


def hypersphere_direction(vectors: ArrayLike, precision: ArrayLike) -> Array:
    """Maximum-likelihood direction: the normalised precision-weighted sum.

    vectors : (..., n, d) noisy points near a sphere; precision : (..., n) >= 0. Returns (..., d).

    Raises
    ------
    ValueError
        The sum is zero; a precision is negative.

    Examples
    --------
    >>> from afafilter import hypersphere_direction
    >>> hypersphere_direction([[2.0, 0.0], [0.0, 1.0]], [1.0, 2.0]).round(3).tolist()
    [0.707, 0.707]
    """
    points = real_array(vectors, "vectors")
    weights = real_array(precision, "precision")
    if (weights < 0).any():
        raise ValueError(f"precision must be >= 0, got {weights.min():g}")
    return directions((weights[..., None] * points).sum(-2), "the weighted sum")


def _iterate(
    task: Task,
    kernel: RadialKernel,
    start: Array,
    iterations: int,
    step: float,
    tolerance: float,
) -> tuple[Array, int, Array, Array, Array]:
    """Anchor, rounds done, tangential and radial variance (M,), direction (M, d)."""
    a, count, moving = start, 0, True
    while moving and count < iterations:
        count += 1
        u = directions(a, "an anchor")
        sums = sweep(task, kernel, task.rotate(a, -1.0), task.rotate(u, -1.0))
        across, along = sums.tangential / sums.den_t[:, None], sums.radial / sums.den_r
        across = task.rotate(across, 1.0)
        if not kernel.fixed_radius:
            estimate = across + (along - (across * u).sum(-1))[:, None] * u
            moved = a + step * (estimate - a)
        else:
            moved = hypersphere_step(a, across, step)
        change = np.abs(moved - a).max(-1) / np.linalg.norm(a, axis=-1)
        a, moving = moved, bool((change > tolerance).any())
    flat = np.zeros(len(a)) if kernel.fixed_radius else 1 / sums.den_r
    return a, count, 1 / sums.den_t, flat, u


def _starts(
    model: RadialTangentialSDE,
    t: Array,
    z: Array,
    queries: Array,
    two_sided: bool,
    own: bool,
    anchor_var: float,
) -> Array:
    """First anchors (P, M, d): own observations, else the isotropic plain estimate."""
    paths = z.reshape(-1, len(t), model.dim)
    plain = linear_time_estimate(
        model.nearest_linear(),
        t,
        paths,
        two_sided=two_sided,
        anchor_var=anchor_var,
        query_times=None if queries is t else queries,
    ).mean
    starts = np.where(np.isnan(paths), plain, paths) if own else plain
    if model.radius is not None:
        starts = model.radius * directions(starts, "an anchor")
    return np.asarray(starts)


def _require_precisions(model: RadialTangentialSDE, anchor_var: float) -> None:
    needed = ("tangential",) if model.radius is not None else ("radial", "tangential")
    for name in needed:
        if getattr(model, f"obs_{name}_var") + anchor_var == 0:
            raise ValueError(
                f"obs_{name}_var + anchor_var must be > 0: the {name} precision at lag 0 would be "
                "infinite"
            )
