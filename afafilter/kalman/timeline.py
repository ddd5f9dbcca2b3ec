"""Observations, prior and query times on one line: the nodes that the recursions walk along."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array, frozen
from afafilter._base.remembered import remembered
from afafilter._base.steps import distinct_steps
from afafilter.kalman.recursions import Chain
from afafilter.linalg.subspaces import ComponentSizes
from afafilter.linalg.transitions import by_columns, lower_roots
from afafilter.models.discrete import DiscreteModel
from afafilter.models.priors import InitialLaw, Prior, prior_time
from afafilter.models.sde import LinearSDE

Index = NDArray[np.int64]
_NO_TIMES, _NO_NODES = np.zeros(0), np.zeros(0, np.int64)
_SHORT = 512  # times of series whose nodes are remembered


class Timeline(NamedTuple):
    """Nodes in processing order.

    times (N,); chain: steps and observation rows for the kernels; law of the state at node 0 before
    any observation and, by columns, the lower root of its covariance; seen_at (T,) node that shows
    observation k; asked (Nq,) node of each query, -1 where the query lies before node 0; sizes: how
    exact the steps are (what flat starts need).
    """

    times: Array
    chain: Chain
    law: InitialLaw
    root: Array
    seen_at: Index
    asked: Index
    sizes: ComponentSizes


def timeline(
    model: LinearSDE | DiscreteModel, t: Array, obs_cov: Array | None, queries: Array | None
) -> Timeline:
    """Nodes of either kind of model; queries: further times of a LinearSDE, or None."""
    if not isinstance(model, LinearSDE):
        return discrete_timeline(model, t, obs_cov)
    if obs_cov is not None or queries is not None or len(t) > _SHORT:
        return sde_timeline(model, t, obs_cov, queries)
    key = "timeline", t.tobytes()
    return remembered(model, key, lambda: sde_timeline(model, frozen(t.copy()), None, None))


def sde_timeline(
    model: LinearSDE, t: Array, obs_cov: Array | None, queries: Array | None
) -> Timeline:
    """Nodes of a continuous-time model: prior, observations at t - delay, and the queries."""
    shown = t - model.delay if model.delay else t
    asked = _NO_TIMES if queries is None else queries
    anchor = shown[0]
    if isinstance(model.prior, Prior):
        anchor = prior_time(model.prior.t0, anchor)
        law = model.prior.law
    else:
        if model.prior == "stationary" and len(asked):
            anchor = min(anchor, asked[0])
        law = model.initial_law(anchor)
    others = asked
    if len(asked):
        others = np.setdiff1d(asked[asked >= anchor], shown)
    if anchor < shown[0] and anchor not in others:
        others = np.concatenate([[anchor], others])
    n = len(t)
    times, obs = shown, np.arange(n)
    seen_at, where = obs, _NO_NODES
    if len(others):
        times = np.concatenate([shown, others])
        order = np.argsort(times, kind="stable")
        times = times[order]
        obs = np.concatenate([obs, np.full(len(others), -1)])[order]
        seen_at = np.flatnonzero(obs >= 0)
    if len(asked):
        where = np.searchsorted(times, asked)
        where[asked < times[0]] = -1
    steps, index = distinct_steps(times[1:] - times[:-1], times[1:])
    moves = model.discretiser.roots(steps)
    step = np.zeros(len(times), np.int64)
    step[1:] = index
    count = 1 if obs_cov is None else n
    chain = Chain(
        step,
        *moves,
        obs,
        np.zeros(n, np.int64) if obs_cov is None else np.arange(n),
        _stack(model.C, count, 2),
        _stack(model.offset, count, 1),
        _stack(model.R if obs_cov is None else obs_cov, count, 2),
    )
    root = frozen(initial_root(law.cov))
    return Timeline(times, chain, law, root, seen_at, where, model.component_sizes)


def discrete_timeline(model: DiscreteModel, t: Array, obs_cov: Array | None) -> Timeline:
    """Nodes of a discrete-time model: one per observation."""
    n = len(t)
    moving = bool({"F", "Q", "b"} & set(model.time_varying))
    showing = obs_cov is not None or bool({"H", "R", "d"} & set(model.time_varying))
    count = n if moving else 1
    moves = by_columns(
        _stack(model.F, count, 2), _stack(model.b, count, 1), _stack(model.Q, count, 2)
    )
    every, first = np.arange(n), np.zeros(n, np.int64)
    chain = Chain(
        every if moving else first,
        *moves,
        every,
        every if showing else first,
        _stack(model.H, n if showing else 1, 2),
        _stack(model.d, n if showing else 1, 1),
        _stack(model.R if obs_cov is None else obs_cov, n if showing else 1, 2),
    )
    law = model.initial_law()
    root = frozen(initial_root(law.cov))
    return Timeline(t, chain, law, root, every, _NO_NODES, model.component_sizes)


def initial_root(P: Array) -> Array:
    """Columns of the lower root of a semidefinite matrix."""
    root: Array = lower_roots(P[None])[0]
    return root


def _stack(value: Array, length: int, core: int) -> Array:
    """Contiguous and of full length."""
    if value.ndim == core:
        value = value[None] if length == 1 else np.broadcast_to(value, (length, *value.shape))
    return np.ascontiguousarray(value)
