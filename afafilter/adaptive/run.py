"""One AFA run with full matrices: tiles of queries, chunks of paths, reweighting to convergence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from afafilter._base.checks import Array, ObsMask
from afafilter.adaptive.dense import (
    TILE_NUMBERS,
    Pattern,
    Plan,
    Solution,
    Tile,
    finish,
    log_scales,
    make_pattern,
    solve_independent,
    solve_plain,
    tiles,
    to_tile,
)
from afafilter.adaptive.exact import make_chain, solve_exact
from afafilter.adaptive.geometry import Index
from afafilter.adaptive.recursions import Chain, Stops, side_by_side
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

    @property
    def rests(self) -> bool:
        """Whether the first estimate is the last: the anchor moves all the way in one step."""
        return self.step == 1.0 and self.momentum == 0.0


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
    n_paths, d, n_queries = len(z), plan.model.dim, len(plan.times)
    reweighted = settings.weight is not None
    lead = n_paths if reweighted else 1
    weights = np.zeros((lead, n_queries, len(plan.stamps))) if settings.return_weights else None
    outcome = Outcome(
        np.full((n_paths, n_queries, d), np.nan), np.zeros((lead, n_queries, d, d)), weights
    )
    np.einsum("...aa->...a", outcome.cov)[...] = np.inf
    pattern = make_pattern(plan, z, seen, chain=settings.exact)
    if pattern is None:
        return outcome
    own = own_observation(plan.model, z, plan.own)
    chain = make_chain(pattern) if settings.exact else None
    for queries, tile in _tiles(pattern, settings):
        for paths in _chunks(n_paths, queries.stop - queries.start, pattern, reweighted):
            start = to_tile(pattern, queries, own[paths, queries])
            solution, change = _iterate(pattern, chain, queries, tile, paths, start, settings)
            where = paths if reweighted else slice(None)
            outcome.mean[paths, queries], outcome.cov[where, queries], _ = finish(
                pattern, queries, solution
            )
            if weights is not None and solution.shares is not None:
                weights[where, queries] = solution.shares
            _merge(outcome.change, change)
    return outcome


def _tiles(pattern: Pattern, settings: Settings) -> Iterator[tuple[slice, Tile | None]]:
    """Queries that are solved together, and their pairs where weights have to be formed."""
    unit = settings.weight is None and settings.beta == 1.0
    if unit and (settings.exact or (not settings.return_weights and settings.rests)):
        yield slice(0, len(pattern.plan.times)), None
        return
    for tile in tiles(pattern, determinants=settings.beta != 1.0):
        yield tile.queries, tile


def _chunks(n_paths: int, n_queries: int, pattern: Pattern, reweighted: bool) -> list[slice]:
    d = pattern.plan.model.dim
    per_path = 4 * n_queries * (len(pattern.js) + d) if reweighted else n_queries * d * d
    size = max(int(8 * TILE_NUMBERS // max(per_path, 1)), 1)
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
    pattern: Pattern, chain: tuple[Chain, Stops] | None, queries: slice, tile: Tile | None,
    paths: slice, own: Array, settings: Settings,
) -> tuple[Solution, list[float]]:  # fmt: skip
    """Anchor, then rounds of a <- (1 + g - s) a - g a_before + s zbar. States are the tile's."""
    weight, beta = settings.weight, settings.beta

    def solve(scale: Array | None) -> tuple[Solution, Array]:
        if chain is not None:
            given = None if tile is None or scale is None else (tile, scale)
            solution = solve_exact(pattern, chain, queries, paths, given)
        elif tile is None or scale is None:
            solution = solve_plain(pattern, paths)
        else:
            solution = solve_independent(
                pattern, tile, paths, scale, shares=settings.return_weights
            )
        unknown = finish(pattern, queries, solution)[2].any(axis=-1, keepdims=True)
        return solution, np.where(unknown, np.nan, solution.mean)

    plain = None if tile is None else log_scales(pattern, tile, paths, None, None, beta)
    if weight is None and settings.rests:
        return solve(plain)[0], []
    a = own if settings.anchor == "observation" else np.full_like(own, np.nan)
    if settings.anchor == "prediction" and tile is not None and plain is not None:
        before = np.searchsorted(pattern.js, settings.before[queries])
        j = np.arange(tile.low, tile.low + tile.pairs.shape[1])[:, None]
        earlier = j < side_by_side(before[None, :, None])[0]
        a = solve(np.where(earlier, plain, -np.inf))[1]
    missing = np.isnan(a).any(axis=-1, keepdims=True)
    if missing.any():
        a = np.where(missing, solve(plain)[1], a)

    def zbar(anchor: Array) -> tuple[Solution, Array]:
        if tile is None:
            return solve(None)
        return solve(log_scales(pattern, tile, paths, anchor, weight, beta))

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
