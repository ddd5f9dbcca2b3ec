"""One AFA run with full matrices: tiles of queries, chunks of paths, reweighting to convergence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TypeVar

import numpy as np

from afafilter._base.checks import Array, ObsMask, all_finite
from afafilter._base.patterns import members
from afafilter._base.unknown import OpenLaw
from afafilter.adaptive.dense import (
    TILE_NUMBERS,
    Pattern,
    Plan,
    Tile,
    log_scales,
    make_pattern,
    plain_scales,
    spread_of,
    tiles,
    to_tile,
    uses,
)
from afafilter.adaptive.forms import is_invertible
from afafilter.adaptive.geometry import Index
from afafilter.adaptive.options import Options
from afafilter.adaptive.recursions import Chain, QuerySteps
from afafilter.adaptive.solutions import (
    Solution,
    finish,
    make_chain,
    make_query_steps,
    solve_exact,
    solve_independent,
    solve_plain,
)
from afafilter.models.sde import LinearSDE

Result = TypeVar("Result")


@dataclass
class Outcome:
    """mean (P, Tq, d), cov (P or 1, Tq, d, d), weights (P or 1, Tq, T), largest move per round.

    magnified (P or 1, Tq) : by how much roundings of the data and the model may be; open_laws of
    what is undetermined.
    """

    mean: Array
    cov: Array
    weights: Array | None
    change: list[float] = field(default_factory=list)
    magnified: Array = field(default_factory=lambda: np.zeros((1, 1)))
    open_laws: list[OpenLaw] = field(default_factory=list)


def run_dense(plan: Plan, z: Array, options: Options) -> Outcome:
    """AFA of all paths z (P, T, p), paths with the same missing pattern together."""
    seen, n_queries, d = np.ascontiguousarray(~np.isnan(z)), len(plan.spans.times), plan.model.dim
    groups = members(seen)
    lead = len(z) if options.weight is not None or len(groups) > 1 else 1
    outcome = Outcome(
        np.full((len(z), n_queries, d), np.nan),
        np.zeros((lead, n_queries, d, d)),
        np.zeros((lead, n_queries, len(plan.spans.stamps))) if options.return_weights else None,
        magnified=np.zeros((lead, n_queries)),
    )
    np.einsum("...aa->...a", outcome.cov)[...] = np.inf
    for mine in groups:
        shared = seen[mine[0]]
        _run_pattern(_narrow(plan, shared), z, mine, shared, options, outcome)
    return outcome


def _narrow(plan: Plan, seen: ObsMask) -> Plan:
    """The plan with only the seen observations in the window, nearest to the query on each side.

    A prediction takes those before the query's own, as if that were not there yet.
    """
    spans, width = plan.spans, plan.spans.window
    if width is None:
        return plan
    edges = np.append(np.flatnonzero(seen.any(axis=-1)), len(seen))
    at, before = (np.searchsorted(edges[:-1], end) for end in (spans.split, spans.before))
    first = np.minimum(edges[np.maximum(at - width, 0)], spans.split)
    last = np.clip(edges[np.minimum(at + width, len(edges) - 1)], spans.split, plan.last)
    begin = np.minimum(edges[np.maximum(before - width, 0)], spans.before)
    return plan._replace(first=first, last=last, earlier=(begin, spans.before))


def _run_pattern(
    plan: Plan, z: Array, mine: Index, seen: ObsMask, options: Options, outcome: Outcome
) -> None:
    """The estimates of the paths `mine`, which see the same components (T, p), into the outcome."""
    reweighted = options.weight is not None
    predicts = options.anchor == "prediction"
    pattern = make_pattern(plan, z[mine], seen, chain=options.exact, predicts=predicts)
    if pattern is None:
        return
    own = own_observation(plan.model, z[mine], plan.spans.own)
    chain = None
    if options.exact:
        steps = [make_query_steps(pattern, ends) for ends in (pattern.used, pattern.earlier)]
        chain = make_chain(pattern), steps
    for queries, tile in _tiles(pattern, options):
        for paths in _chunks(len(mine), queries.stop - queries.start, pattern, reweighted):
            start = to_tile(pattern, queries, own[paths, queries])
            solution, change = _iterate(pattern, chain, queries, tile, paths, start, options)
            at = mine[paths], queries
            of_weights = (mine[paths] if reweighted else mine) if len(outcome.cov) > 1 else [0]
            mean, cov, open_laws = finish(pattern, queries, solution, mine[paths])
            outcome.mean[at], outcome.cov[of_weights, queries] = mean, cov
            outcome.open_laws += open_laws
            magnified = solution.magnified * spread_of(pattern, paths)
            outcome.magnified[of_weights, queries] = magnified
            if outcome.weights is not None and solution.shares is not None:
                outcome.weights[of_weights, queries] = solution.shares
            moves = zip_longest(outcome.change, change, fillvalue=0.0)
            outcome.change = [max(pair) for pair in moves]
    if outcome.weights is not None and options.exact:
        of_pattern = mine if len(outcome.weights) > 1 else [0]
        weights = outcome.weights[of_pattern] if reweighted else 1.0
        outcome.weights[of_pattern] = np.where(uses(pattern), weights, 0.0)


def _tiles(pattern: Pattern, options: Options) -> Iterator[tuple[slice, Tile | None]]:
    """Queries that are solved together, and their pairs where weights have to be formed."""
    unit = options.weight is None and options.inverse_temperature == 1.0
    if unit and (options.exact or (not options.return_weights and options.rests)):
        yield slice(0, len(pattern.plan.spans.times)), None
        return
    for tile in tiles(pattern, determinants=options.inverse_temperature != 1.0):
        yield tile.queries, tile


def _chunks(n_paths: int, n_queries: int, pattern: Pattern, reweighted: bool) -> list[slice]:
    d = pattern.plan.model.dim
    per_path = 4 * n_queries * (len(pattern.js) + d) if reweighted else n_queries * d * d
    size = max(int(8 * TILE_NUMBERS // max(per_path, 1)), 1)
    return [slice(k, min(k + size, n_paths)) for k in range(0, n_paths, size)]


def own_observation(model: LinearSDE, z: Array, own: Index) -> Array:
    """Each query's own observation as a state (P, Tq, d), NaN where there is none to invert."""
    out = np.full((len(z), len(own), model.dim), np.nan)
    if not is_invertible(model):
        return out
    has = own >= 0
    state = np.linalg.solve(model.C, (z[:, own[has]] - model.offset)[..., None])[..., 0]
    if model.delay > 0:
        Phi, psi, _ = model.transition(model.delay)
        state = state @ Phi.T + psi
    out[:, has] = state
    out[np.isnan(out).any(axis=-1)] = np.nan
    return out


def _iterate(
    pattern: Pattern,
    chain: tuple[Chain, list[QuerySteps]] | None,
    queries: slice,
    tile: Tile | None,
    paths: slice,
    own: Array,
    options: Options,
) -> tuple[Solution, list[float]]:
    """The solution of a tile of queries, in its coordinates, and the largest move of each round."""
    weight, beta = options.weight, options.inverse_temperature

    def solve(scale: Array | None, *, early: bool = False) -> tuple[Solution, Array]:
        """scale : logarithms of the factors of pairs, None: all 1."""
        shares = options.return_weights
        if chain is not None:
            given = None
            if tile is not None and scale is not None:
                copies = (paths.stop - paths.start) // len(scale)
                given = tile, np.tile(np.exp(scale), (copies, 1, 1, 1))
            along, steps = chain[0], chain[1][early]
            solution = solve_exact(
                pattern, along, steps, queries, paths, given, shares=shares, early=early
            )
        elif tile is None or scale is None:
            solution = solve_plain(pattern, paths)
        else:
            solution = solve_independent(pattern, tile, paths, scale, shares=shares, early=early)
        unknown = solution.unknown.any(axis=-1, keepdims=True)
        return solution, np.where(unknown, np.nan, solution.mean)

    def plain(early: bool) -> tuple[Solution, Array]:
        if tile is None or (chain is not None and chain[1][early].at(queries).share()):
            return solve(None, early=early)
        counts = tile.earlier if early else tile.used
        return solve(plain_scales(tile, counts, beta), early=early)

    def weighted(anchor: Array) -> tuple[Solution, Array]:
        if tile is None:
            return solve(None)
        return solve(log_scales(pattern, tile, paths, anchor, weight, beta))

    solution, a, change = anchored(own, options, plain, weighted)
    return solution._replace(mean=np.where(np.isnan(a), solution.mean, a)), change


def anchored(
    own: Array,
    options: Options,
    plain: Callable[[bool], tuple[Result, Array]],
    weighted: Callable[[Array], tuple[Result, Array]],
) -> tuple[Result, Array, list[float]]:
    """Anchor, then rounds of reweighting: the last result, the last anchor, the largest moves.

    The anchor a <- (1 + g - s) a - g a_before + s zbar(a) until it rests. plain : a result and its
    mean zbar (NaN: not determined) with all weights 1, from all observations of a query, or (early)
    from those before its own; weighted : the same, reweighted around an anchor. own (P, Tq, d) :
    each query's own observation, NaN where there is none.
    """
    if options.weight is None and options.rests:
        return *plain(False), []
    a = own
    if options.anchor != "observation":
        a = plain(options.anchor == "prediction")[1]
    if options.anchor != "estimate" and not all_finite(a):
        a = np.where(np.isnan(a).any(axis=-1, keepdims=True), plain(False)[1], a)
    g, s = options.momentum, options.step
    previous, change = a, []
    with np.errstate(invalid="ignore"):  # beyond the floating-point range
        for _ in range(options.iterations):
            result, target = weighted(a)
            new = target
            if not options.rests:
                new = (1.0 + g - s) * a - g * previous + s * target
                new = np.where(np.isnan(a), target, new)
            move = np.abs(new - a)
            change.append(float(_largest(move)))
            rests = _rests(move, change[-1], np.abs(new), options.tolerance)
            if rests and not (all_finite(a) and all_finite(new)):  # open now: has plain weights
                rests = bool((np.isnan(a).any(axis=-1) == np.isnan(new).any(axis=-1)).all())
            previous, a = a, new
            if rests:
                break
    return result, a, change


LARGEST = float(np.finfo(np.float64).max)


def _largest(x: Array, axis: int | None = None) -> Array:
    """The largest x >= 0 along an axis, or of all, NaN apart."""
    most: Array = np.fmax.reduce(x, axis=axis, initial=0.0)
    return most


def _rests(move: Array, largest: float, size: Array, tolerance: float) -> bool:
    """Whether no anchor moved by more than tolerance times its size |a|, or that of most of them.

    One that knows a state to 1e100 only does not end the rounds of the others.
    """
    if not largest <= tolerance * min(float(_largest(size)), LARGEST):
        return False
    size = np.minimum(_largest(size, -1), LARGEST)
    usual = np.sort(size, axis=None)[size.size // 2] if size.size else 0.0
    return bool((_largest(move, -1) <= tolerance * np.maximum(size, usual)).all())
