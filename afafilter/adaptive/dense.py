"""Full-matrix AFA: any C, any missing pattern, one tile of queries at a time.

Each query solves the least-squares problem  min_x sum_j s_ij |T_ij y_j - G_ij x|^2  over its
whitened pairs (see `geometry`) by orthogonal triangularisation of the stacked rows: the condition
number is not squared, and the rank tells which components the data determine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from afafilter._base.checks import Array, ObsMask
from afafilter._base.remembered import remembered
from afafilter.adaptive.coordinates import (
    SCALED_DECAY,
    Coordinates,
    coordinates,
    free_path,
)
from afafilter.adaptive.determined import left_open
from afafilter.adaptive.geometry import (
    DECAY_FLOOR,
    Channel,
    Index,
    channel,
    join_channels,
    make_steps,
)
from afafilter.adaptive.options import Spans
from afafilter.adaptive.recursions import (
    BUNDLE,
    PairInputs,
    one_by_one,
    pair_distances,
    pair_equations,
    pair_log_dets,
    side_by_side,
)
from afafilter.attention.pairs import TOO_FAR, TOO_FAR_APART
from afafilter.linalg.subspaces import Unobservable
from afafilter.models.sde import LinearSDE
from afafilter.weights import Dim, Weight

TILE_NUMBERS = 2**20
"""Numbers (float64) that the equations of a tile may hold."""


class Plan(NamedTuple):
    """What is the same for every path.

    first, last : (Tq,) query i uses observations first[i] <= j < last[i]; earlier : alike, those
    that an anchor before the query's own observation rests on.
    anchor_cov : (d, d) in xi coordinates or None.
    path : (Tq, d) noise-free path at the queries, seen : (T, p) C times it at the stamps.
    """

    model: LinearSDE
    spans: Spans
    coords: Coordinates
    first: Index
    last: Index
    earlier: tuple[Index, Index]
    R: Array
    anchor_cov: Array | None
    uniform_noise: bool
    path: Array
    seen: Array


class Pattern(NamedTuple):
    """The observations that see something of the state, for paths that miss the same ones.

    js : (n,) their indices; inputs : of the pair recursion, in that numbering, as are used and
    earlier, the first and last that count as in `Plan` (`inputs` covers both); y : (P, n, r)
    whitened observations; redundant : (P, n) squared length of the redundant rows; dim : the
    number of observed components, (n, 1) where it differs; exponent : (Tq, d) units e^{-exponent};
    seen : (n, p) components that they show; open_ : what they leave open, used and earlier, None
    where windows leave each query its own; coords : those of what is open, None: x itself.
    """

    plan: Plan
    js: Index
    inputs: PairInputs
    used: tuple[Index, Index]
    earlier: tuple[Index, Index]
    y: Array
    redundant: Array
    dim: Dim
    exponent: Array
    seen: ObsMask
    open_: tuple[Unobservable | None, ...]
    coords: Coordinates | None


class Tile(NamedTuple):
    """Whole bundles of consecutive queries: their pairs with the observations low <= j < low + n.

    pairs : (bundles, n, r (d + r), 8) equations; used, earlier : (bundles, n, 8) whether a query,
    or an anchor before its own observation, uses an observation; log_det : alike, of each pair's
    information on x, or None.
    """

    queries: slice
    low: int
    pairs: Array
    used: ObsMask
    earlier: ObsMask
    log_det: Array | None
    exponent: Array


def make_plan(
    model: LinearSDE,
    spans: Spans,
    R: Array,
    anchor_cov: Array | None,
    uniform_noise: bool,
    *,
    loud: bool = False,
) -> Plan:
    """Coordinates for these queries and observations; anchor_cov in z units."""
    stamps, times = spans.stamps, spans.times
    span = float(max(times.max(), stamps.max()) - min(times.min(), stamps.min()))
    coords = remembered(
        model, ("coordinates", span, loud), lambda: coordinates(model, span, loud=loud)
    )
    if anchor_cov is not None:
        to_state = coords.W_inv @ np.linalg.inv(model.C)
        anchor_cov = to_state @ anchor_cov @ to_state.T
        coords = coords.unscaled
    none = np.zeros_like(spans.split)
    last = spans.split if spans.causal else np.full_like(none, len(stamps))
    both = np.concatenate([stamps, times])
    path = free_path(coords, both, float(both.min() if coords.sign > 0 else both.max()))
    return Plan(
        model,
        spans,
        coords,
        none,
        last,
        (none, spans.before),
        R,
        anchor_cov,
        uniform_noise,
        path[len(stamps) :],
        path[: len(stamps)] @ (model.C @ coords.W).T,
    )


def make_pattern(
    plan: Plan, z: Array, seen: ObsMask, *, chain: bool, predicts: bool
) -> Pattern | None:
    """Observations z (P, T, p) of paths that see the same components (T, p); None: there are none.

    chain : the first time counts even if nothing is seen there: a flat state begins with it.
    predicts : what is earlier counts too.
    """
    found, width = [], np.ones(len(seen), np.int64)  # 1 also where nothing is seen
    ranks = np.zeros(len(seen), np.int64)
    for pattern in np.unique(seen, axis=0):
        if not pattern.any():
            continue
        js = np.flatnonzero((seen == pattern).all(axis=1))
        R = plan.R[:1] if plan.uniform_noise else plan.R[js]
        R = R[:, pattern][:, :, pattern]
        how = channel(plan.coords, plan.model.C[pattern], R[0] if plan.uniform_noise else R)
        width[js], ranks[js] = pattern.sum(), how.rank
        if how.rank:
            centred = (z[:, js] - plan.seen[js] - plan.model.offset)[..., pattern]
            found.append((js, how, (how.whiten @ centred[..., None])[..., 0]))
    some = ranks > 0
    some[0] |= chain
    js = np.flatnonzero(some)
    if not len(js):
        return None
    stamps, times = plan.spans.stamps[js], plan.spans.times
    n, r, row = len(js), max(int(ranks.max()), 1), np.cumsum(some) - 1
    y, redundant = np.zeros((len(z), n, r)), np.zeros((len(z), n))
    for mine, how, white in found:
        y[:, row[mine], : how.rank] = white[..., : how.rank]
        redundant[:, row[mine]] = np.sum(white[..., how.rank :] ** 2, axis=-1)
    used = np.searchsorted(js, plan.first), np.searchsorted(js, plan.last)
    earlier = np.searchsorted(js, plan.earlier[0]), np.searchsorted(js, plan.earlier[1])
    ends = used
    if predicts:
        ends = np.minimum(used[0], earlier[0]), np.maximum(used[1], earlier[1])
    shown = [(row[mine], how) for mine, how, _ in found]
    if plan.coords.unit_rate.any() and _is_shown_late(plan, shown, stamps, ends):
        plan = plan._replace(coords=plan.coords.unscaled)
    channels = join_channels(plan.coords, shown, n)
    flow, queries = make_steps(plan.coords, stamps, times, *ends, plan.anchor_cov)
    inputs = PairInputs(flow, channels, queries, plan.coords.sign < 0)
    alike = (width[js] == width[js[0]]).all()
    dim: Dim = int(width[js[0]]) if alike else width[js][:, None]
    exponent = queries.longest_lag[:, None] * plan.coords.unit_rate
    coords = None if chain else plan.coords
    open_ = tuple(
        None if low.any() else left_open(plan.model, coords, stamps, seen[js], times, high)
        for low, high in [used, earlier][: 1 + predicts]
    )
    return Pattern(
        plan, js, inputs, used, earlier, y, redundant, dim, exponent, seen[js], open_, coords
    )


def _is_shown_late(
    plan: Plan, shown: list[tuple[Index, Channel]], stamps: Array, ends: tuple[Index, Index]
) -> bool:
    """Whether some query's units follow an observation that does not show what they are of.

    ends : first and last of the observations (n,) that each query uses.
    """
    coords, (first, last), n = plan.coords, ends, len(stamps)
    shows: ObsMask = np.zeros((n, len(coords.rate)), dtype=bool)
    for mine, how in shown:
        shows[mine] = (how.C != 0).any(axis=-2)
    for a, b, _ in coords.groups:
        if coords.unit_rate[a] == 0.0:
            continue
        at = np.flatnonzero(shows[:, a:b].any(axis=1))
        if coords.sign > 0:
            farthest, nearest = first, np.append(at, n)[np.searchsorted(at, first)]
            some = nearest < last
        else:
            farthest, nearest = last - 1, np.append(at, -1)[np.searchsorted(at, last) - 1]
            some = nearest >= first
        lag = np.abs(stamps[nearest[some]] - stamps[farthest[some]])
        if (coords.unit_rate[a] * lag > SCALED_DECAY).any():
            return True
    return False


def spread_of(pattern: Pattern, paths: slice) -> float:
    """How far apart the numbers lie that become equations, in units of the noise."""
    flow, channels, queries, _ = pattern.inputs
    shown = np.abs(channels.C).max(initial=0.0)
    roots = flow.root, queries.root_past, queries.root_next
    noise = max(np.abs(root).max(initial=0.0) for root in roots)
    data = np.abs(pattern.y[paths]).max(initial=1.0)
    return max(float(data), float(shown * noise)) * pattern.plan.coords.condition


def tiles(pattern: Pattern, *, determinants: bool) -> Iterator[Tile]:
    """Consecutive queries whose equations fit the memory bound."""
    inputs = pattern.inputs
    r, d = inputs.channels.C.shape[1:]
    budget = max(TILE_NUMBERS // (BUNDLE * r * (d + r)), 1)
    first, last = inputs.queries.first, inputs.queries.last
    start, n = 0, len(first)
    while start < n:
        stop = min(start + BUNDLE, n)
        while stop < n:
            more = slice(start, min(stop + BUNDLE, n))
            width = last[more].max() - first[more].min()
            if -(-(more.stop - start) // BUNDLE) * width > budget:
                break
            stop = more.stop
        yield _tile(pattern, slice(start, stop), determinants)
        start = stop


def _tile(pattern: Pattern, at: slice, determinants: bool) -> Tile:
    whole, plan = pattern.inputs, pattern.plan
    queries = whole.queries.at(at)
    inputs = whole._replace(queries=queries)
    low = min(int(queries.first.min()), len(pattern.js) - 1)  # windows may hold none
    n = max(int(queries.last.max()) - low, 1)
    pairs = pair_equations(inputs, low, n)
    used, earlier = (_between(ends, at, low, n) for ends in (pattern.used, pattern.earlier))
    exponent = pattern.exponent[at]
    log_det = None
    if determinants:
        unit, rank = np.exp(np.minimum(exponent, DECAY_FLOOR)), whole.channels.rank[low : low + n]
        log_det = np.where(used | earlier, pair_log_dets(pairs, unit, plan.coords.W_inv, rank), 0.0)
    return Tile(at, low, pairs, used, earlier, log_det, exponent)


def _between(ends: tuple[Index, Index], at: slice, low: int, n: int) -> ObsMask:
    """Whether first <= j < last, (bundles, n, 8), for low <= j < low + n."""
    first, last = (side_by_side(end[None, at, None])[0] for end in ends)
    j = np.arange(low, low + n)[:, None]
    return np.asarray((j >= first) & (j < last))


def tile_data(pattern: Pattern, tile: Tile, paths: slice) -> Array:
    n = tile.pairs.shape[1]
    return pattern.y[paths, tile.low : tile.low + n]


def plain_scales(tile: Tile, counts: ObsMask, beta: float) -> Array:
    """Log of the factor of each pair's precision without a weight; -inf where it does not count."""
    scale = np.where(counts, 0.0, -np.inf)[None]
    return scale if tile.log_det is None else scale + (beta - 1.0) * tile.log_det


def log_scales(
    pattern: Pattern, tile: Tile, paths: slice, anchor: Array, weight: Weight | None, beta: float
) -> Array:
    """Log of the scalar factor of each pair's precision (P or 1, bundles, n, 8), -inf: not used.

    A query whose anchor (nq, d) is not determined (NaN) keeps the plain weights.
    """
    scale = plain_scales(tile, tile.used, beta)
    if weight is None:
        return scale
    rows = slice(tile.low, tile.low + tile.pairs.shape[1])
    known: ObsMask = np.asarray(~np.isnan(anchor).any(axis=-1, keepdims=True))
    lanes = side_by_side(np.asarray(np.where(known, anchor, 0.0)))
    d2 = pair_distances(
        tile.pairs, tile_data(pattern, tile, paths), pattern.redundant[paths, rows], lanes
    )
    lanes_known: ObsMask = side_by_side(known.astype(np.float64)) > 0
    d2 = np.where(lanes_known, d2, 0.0)
    if (tile.exponent > DECAY_FLOOR).any() or not (d2 < TOO_FAR).all():
        raise ValueError(TOO_FAR_APART)
    dim = pattern.dim if isinstance(pattern.dim, int) else pattern.dim[rows]
    return np.asarray(scale + beta * np.where(lanes_known, weight.log(d2, dim), 0.0))


def spread_out(pattern: Pattern, tile: Tile, values: Array) -> Array:
    """Numbers (L, bundles, n, 8) of pairs as (L, nq, T), zero where there is no pair."""
    lead, n = len(values), tile.pairs.shape[1]
    out = np.zeros((lead, len(tile.exponent), len(pattern.plan.spans.stamps)))
    out[..., pattern.js[tile.low : tile.low + n]] = one_by_one(values, len(tile.exponent))
    return out


def uses(pattern: Pattern) -> ObsMask:
    """(Tq, T) whether a query uses an observation, one that sees something of the state."""
    first, last = (end[:, None] for end in pattern.used)
    j = np.arange(len(pattern.js))
    spans = pattern.plan.spans
    out: ObsMask = np.zeros((len(spans.times), len(spans.stamps)), dtype=bool)
    out[:, pattern.js] = (j >= first) & (j < last) & (pattern.inputs.channels.rank > 0)
    return out


def to_tile(pattern: Pattern, queries: slice, x: Array) -> Array:
    """States (P, nq, d) in the coordinates and units of the queries; all NaN where one is."""
    plan = pattern.plan
    inner = (x - plan.path[queries] @ plan.coords.W.T) @ plan.coords.W_inv.T
    return np.asarray(inner * np.exp(np.minimum(pattern.exponent[queries], DECAY_FLOOR)))
