"""One AFA run with full matrices: tiles of queries, chunks of paths, reweighting to convergence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from afafilter._base.checks import Array, ObsMask
from afafilter.adaptive.dense import (
    TILE_NUMBERS,
    Group,
    Plan,
    Solution,
    Tile,
    finish,
    log_scales,
    make_groups,
    make_tile,
    solve_independent,
    tiles,
    to_tile,
)
from afafilter.adaptive.exact import Chain, make_chain, solve_exact
from afafilter.adaptive.geometry import Index
from afafilter.models.sde import LinearSDE
from afafilter.weights import Weight

Result = TypeVar("Result")


@dataclass(frozen=True)
class Settings:
    """Knobs of one run; names as in `adaptive_filter`. before : (Tq,) where "prediction" ends."""

    weight: Weight | None
    anchor: str
    iterations: int
    step: float
    momentum: float
    beta: float
    tolerance: float
    exact: bool
    return_weights: bool
    before: Index


@dataclass
class Outcome:
    """mean (P, Tq, d), cov (P or 1, Tq, d, d), weights (P or 1, Tq, T), largest move per round."""

    mean: Array
    cov: Array
    weights: Array | None
    change: list[float] = field(default_factory=list)


def run_dense(
    plan: Plan, z: Array, settings: Settings, window: tuple[Index, int] | None
) -> Outcome:
    """AFA of all paths z (P, T, p), paths with the same missing pattern together.

    window : (split, width): only `width` observations on each side of the first split[i].
    """
    seen = ~np.isnan(z)
    patterns, member = np.unique(seen.reshape(len(z), -1), axis=0, return_inverse=True)
    member = member.reshape(-1)
    outcome: Outcome | None = None
    for k, pattern in enumerate(patterns):
        mine = np.flatnonzero(member == k)
        shared = pattern.reshape(seen.shape[1:])
        used = plan if window is None else _narrow(plan, shared, *window)
        part = _run_pattern(used, z[mine], shared, settings)
        if len(patterns) == 1:
            return part
        if outcome is None:
            outcome = Outcome(
                np.empty((len(z), *part.mean.shape[1:])),
                np.empty((len(z), *part.cov.shape[1:])),
                None if part.weights is None else np.empty((len(z), *part.weights.shape[1:])),
            )
        outcome.mean[mine], outcome.cov[mine] = part.mean, part.cov
        if outcome.weights is not None:
            outcome.weights[mine] = part.weights
        _merge(outcome.change, part.change)
    assert outcome is not None
    return outcome


def _narrow(plan: Plan, seen: ObsMask, split: Index, width: int) -> Plan:
    """The plan with only the `width` seen observations nearest to the query on each side."""
    edges = np.append(np.flatnonzero(seen.any(axis=-1)), len(seen))
    at = np.searchsorted(edges[:-1], split)
    first = edges[np.maximum(at - width, 0)]
    last = edges[np.minimum(at + width, len(edges) - 1)]
    last = np.clip(last, split, plan.last)
    return plan._replace(first=np.minimum(first, split), last=last)


def _merge(total: list[float], part: list[float]) -> None:
    for k, value in enumerate(part):
        if k < len(total):
            total[k] = max(total[k], value)
        else:
            total.append(value)


def _run_pattern(plan: Plan, z: Array, seen: ObsMask, settings: Settings) -> Outcome:
    groups = make_groups(plan, z, seen)
    n_paths, d, n_queries = len(z), plan.model.dim, len(plan.times)
    reweighted = settings.weight is not None
    lead = n_paths if reweighted else 1
    weights = np.zeros((lead, n_queries, len(plan.stamps))) if settings.return_weights else None
    outcome = Outcome(np.empty((n_paths, n_queries, d)), np.empty((lead, n_queries, d, d)), weights)
    own = own_observation(plan.model, z, plan.own)
    chain = make_chain(plan, groups, n_paths) if settings.exact else None
    for tile in _tiles(plan, groups, settings):
        queries = tile.queries
        for paths in _chunks(n_paths, len(tile.kappa), groups, d, reweighted):
            start = to_tile(plan, tile, own[paths, queries])
            solution, change = _iterate(plan, chain, tile, paths, start, settings)
            where = paths if reweighted else slice(None)
            outcome.mean[paths, queries], outcome.cov[where, queries], _ = finish(
                plan, tile, solution
            )
            if weights is not None and solution.shares is not None:
                weights[where, queries] = solution.shares
            _merge(outcome.change, change)
    return outcome


def _tiles(plan: Plan, groups: list[Group], settings: Settings) -> Iterator[Tile]:
    if settings.exact and settings.weight is None:
        n = len(plan.times)
        yield Tile(slice(0, n), [], np.zeros((n, plan.model.dim)))
        return
    for queries in tiles(plan, groups):
        yield make_tile(plan, groups, queries, determinants=settings.beta != 1.0)


def _chunks(
    n_paths: int, n_queries: int, groups: list[Group], d: int, reweighted: bool
) -> list[slice]:
    per_path = 4 * n_queries * (sum(len(g.js) for g in groups) + d)
    if not reweighted:
        per_path = n_queries * d
    size = max(int(4 * TILE_NUMBERS // max(per_path, 1)), 1)
    return [slice(k, min(k + size, n_paths)) for k in range(0, n_paths, size)]


def own_observation(model: LinearSDE, z: Array, own: Index) -> Array:
    """Each query's own observation as a state (P, Tq, d), NaN where there is none to invert."""
    p, d = model.C.shape
    out = np.full((len(z), len(own), d), np.nan)
    if p != d or np.linalg.matrix_rank(model.C) < d:
        return out
    state = np.linalg.solve(model.C, (z - model.offset)[..., None])[..., 0]
    if model.delay > 0:
        Phi, psi, _ = model.transition(model.delay)
        state = state @ Phi.T + psi
    has = own >= 0
    out[:, has] = state[:, own[has]]
    out[np.isnan(out).any(axis=-1)] = np.nan
    return out


def _iterate(
    plan: Plan, chain: Chain | None, tile: Tile, paths: slice, own: Array, settings: Settings
) -> tuple[Solution, list[float]]:
    """Anchor, then rounds of a <- (1 + g - s) a - g a_before + s zbar. States are the tile's."""
    weight, beta = settings.weight, settings.beta

    def solve(scales: list[Array]) -> tuple[Solution, Array]:
        if chain is not None:
            weights = None if scales is plain and weight is None else scales
            solution = solve_exact(plan, chain, tile, paths, len(own), weights)
        else:
            solution = solve_independent(
                plan, tile, paths, len(own), scales, shares=settings.return_weights
            )
        unknown = finish(plan, tile, solution)[2].any(axis=-1, keepdims=True)
        return solution, np.where(unknown, np.nan, solution.mean)

    plain = log_scales(tile, paths, None, None, beta)
    if weight is None and settings.step == 1.0 and settings.momentum == 0.0:
        return solve(plain)[0], []
    a = own if settings.anchor == "observation" else np.full_like(own, np.nan)
    if settings.anchor == "prediction":
        before = settings.before[tile.queries, None]
        earlier = [
            np.where(part.group.js[part.columns] < before, scale, -np.inf)
            for part, scale in zip(tile.parts, plain, strict=True)
        ]
        a = solve(earlier)[1]
    missing = np.isnan(a).any(axis=-1, keepdims=True)
    if missing.any():
        a = np.where(missing, solve(plain)[1], a)

    def zbar(anchor: Array) -> tuple[Solution, Array]:
        return solve(log_scales(tile, paths, anchor, weight, beta))

    solution, a, change = move_anchor(a, zbar, settings)
    return solution._replace(mean=np.where(np.isnan(a), solution.mean, a)), change


def move_anchor(
    a: Array, zbar: Callable[[Array], tuple[Result, Array]], settings: Settings
) -> tuple[Result, Array, list[float]]:
    """a <- (1 + g - s) a - g a_before + s zbar(a) until it rests; the last result, a, the moves.

    zbar(a) gives a result and its mean, NaN where the data do not determine it.
    """
    g, s = settings.momentum, settings.step
    previous, change = a, []
    for _ in range(settings.iterations):
        result, target = zbar(a)
        new = np.where(np.isnan(a), target, (1.0 + g - s) * a - g * previous + s * target)
        moved = np.abs(new - a)
        change.append(float(moved.max(initial=0.0, where=~np.isnan(moved))))
        previous, a = a, new
        if change[-1] <= settings.tolerance * np.abs(a).max(initial=0.0, where=~np.isnan(a)):
            break
    return result, a, change


def without_covariance(outcome: Outcome) -> Outcome:
    """No covariance is claimed when beta is not 1: NaN, but inf where nothing is known."""
    unknown = np.isinf(np.diagonal(outcome.cov, axis1=-2, axis2=-1))
    cov = np.full_like(outcome.cov, np.nan)
    np.einsum("...aa->...a", cov)[unknown] = np.inf
    return replace(outcome, cov=cov)
