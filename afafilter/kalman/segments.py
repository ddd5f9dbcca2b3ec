"""One long series, cut into segments that threads work on side by side.

A filter forgets where it started: after a warm-up on the nodes before it, a segment that began with
any root at all continues as the whole series would. So every segment warms up by itself, and where
two of them meet, what the earlier one found decides whether that was enough: if not, the later one
is calculated anew until it meets what it had. A smoother forgets the future in the same way, and
means do once there are gains. Where a segment of smoothed means began wrong by delta, the mean of
xi, which moves the means linearly, is carried on by itself: xi = T xi+, m + L xi.
Segments do not depend on the number of threads, so results do not either.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from afafilter._base.checks import Array, ObsMask
from afafilter._base.threads import spread
from afafilter.kalman import recursions

WARM_UP = 1024
"""Nodes on which a segment forgets its start."""
SEGMENT = 20_000
"""Nodes of the shortest segment."""
MOST = 32
"""Segments of a series: what as many cores can share; each costs the work of a warm-up."""
AGREEMENT = 1e-13
"""Largest difference of covariances or means that agree, relative to the standard deviations."""
RETRY = 256
"""Nodes calculated anew before the next comparison."""


def segment_bounds(first: int, chain: recursions.Chain, seen: ObsMask, scale: Array) -> list[int]:
    """Where segments of nodes first, first + 1, ... begin, and the end of the last.

    Series of equal steps without gaps settle, and are not cut.
    """
    N, pieces = len(chain.step), 1
    while 2 * pieces <= min(MOST, (N - first) // SEGMENT):
        pieces *= 2
    if pieces > 1:
        alike = max(len(chain.F), len(chain.R)) <= N // 2
        if alike and seen.all() and (scale == scale[0]).all():
            pieces = 1
    return [*(first + (N - first) * i // pieces for i in range(pieces)), N]


def filter_covariances(
    cuts: list[int],
    chain: recursions.Chain,
    L: Array,
    seen: ObsMask,
    scale: Array,
    smooth: bool,
    P: Array,
    S: Array,
    gains: recursions.Gains,
) -> int:
    """`recursions.filter_covariances` of nodes cuts[0], ..., cuts[-1] - 1."""

    def go(begin: int, end: int, L: Array) -> int:
        return int(
            recursions.filter_covariances(chain, begin, end, L, seen, scale, smooth, P, S, gains)
        )

    if len(cuts) == 2:
        return go(cuts[0], cuts[1], L)
    starts = [np.array(L) for _ in cuts[:-1]]
    ends: list[Array] = [L] * len(starts)
    bad = [-1] * len(starts)

    def segment(i: int) -> None:
        if i > 0:
            _warm_filter(cuts[i], chain, starts[i], seen, scale)
        ends[i] = starts[i].copy()
        bad[i] = go(cuts[i], cuts[i + 1], ends[i])

    spread(segment, range(len(starts)), cuts[-1])
    for i in range(len(starts)):
        if i > 0 and not (bad[i] < 0 and _agree(_cov(starts[i]), _cov(ends[i - 1]))):
            bad[i], ends[i] = _again(
                cuts[i], cuts[i + 1], ends[i - 1].copy(), ends[i], bad[i], P, go
            )
        if bad[i] >= 0:
            return bad[i]
    return -1


def _again(
    begin: int,
    end: int,
    L: Array,
    old_end: Array,
    old_bad: int,
    P: Array,
    go: Callable[[int, int, Array], int],
) -> tuple[int, Array]:
    """Filter nodes begin, ..., end - 1 from root L until covariances agree with those in P."""
    for at in range(begin, end, RETRY):
        upto = min(at + RETRY, end)
        before = P[upto - 1].copy()
        bad = go(at, upto, L)
        if bad >= 0:
            return bad, L
        if old_bad < 0 and upto < end and _agree(before, P[upto - 1]):
            return -1, old_end
    return -1, L


def _part(chain: recursions.Chain, nodes: slice) -> tuple[recursions.Chain, slice]:
    """The chain of these nodes, and the observations that they show."""
    obs = chain.obs[nodes]
    shows = obs[obs >= 0]
    rows = slice(shows[0], shows[-1] + 1) if len(shows) else slice(0, 0)
    part = chain._replace(
        step=chain.step[nodes], obs=np.where(obs < 0, -1, obs - rows.start), cfg=chain.cfg[rows]
    )
    return part, rows


def _warm_filter(end: int, chain: recursions.Chain, L: Array, seen: ObsMask, scale: Array) -> None:
    """L (d, d) <- root at node end - 1, from WARM_UP nodes that begin with L."""
    part, rows = _part(chain, slice(end - WARM_UP, end))
    d, p = L.shape[0], seen.shape[1]
    recursions.filter_covariances(
        part,
        0,
        WARM_UP,
        L,
        seen[rows],
        scale[rows],
        False,
        np.empty((WARM_UP, d, d)),
        np.empty((rows.stop - rows.start, p, p)),
        recursions.empty_gains(WARM_UP, d, p),
    )


def smooth_covariances(cuts: list[int], last: int, gains: recursions.Gains, P: Array) -> Array:
    """All nodes from `last` on; returns Z (d, d) at `last`, by columns."""
    d = P.shape[1]
    if len(cuts) == 2:
        whole = np.eye(d)
        recursions.smooth_covariances(last, gains, P, whole)
        return whole

    def go(begin: int, end: int, Z: Array) -> None:
        """Nodes end - 1, ..., begin; Z at node `end` becomes that at `begin`."""
        part = gains._replace(slot=gains.slot[begin : end + 1])
        recursions.smooth_covariances(0, part, P[begin : end + 1], Z)

    ends = [last, *cuts[1:-1], len(P) - 1]
    starts = [np.eye(d) for _ in ends[1:]]
    reached = [np.eye(d) for _ in ends[1:]]

    def segment(i: int) -> None:
        if ends[i + 1] < ends[-1]:
            nodes = slice(ends[i + 1], ends[i + 1] + WARM_UP + 1)
            recursions.smooth_covariances(
                0,
                gains._replace(slot=gains.slot[nodes]),
                np.empty((WARM_UP + 1, d, d)),
                starts[i],
            )
        reached[i] = starts[i].copy()
        go(ends[i], ends[i + 1], reached[i])

    spread(segment, range(len(starts)), len(P))
    for i in range(len(starts) - 2, -1, -1):
        if _agree(_cov(starts[i]), _cov(reached[i + 1])):
            continue
        Z = reached[i + 1].copy()
        for end in range(ends[i + 1], ends[i], -RETRY):
            begin = max(end - RETRY, ends[i])
            before = P[begin].copy()
            go(begin, end, Z)
            if begin > ends[i] and _agree(before, P[begin]):
                break
        else:
            reached[i] = Z
    return reached[0]


def _cov(L: Array) -> Array:
    """L L^T of a root by columns."""
    return np.asarray(L.T @ L)


def _agree(P: Array, wanted: Array) -> bool:
    scale = np.sqrt(np.diagonal(wanted))
    return bool((np.abs(P - wanted) <= AGREEMENT * np.outer(scale, scale)).all())


def filter_means(
    cuts: list[int],
    chain: recursions.Chain,
    m: Array,
    gains: recursions.Gains,
    cov: Array,
    data: recursions.Data,
) -> None:
    """`recursions.filter_means` of one path from node cuts[0] on, m (1, d); cov (N, d, d)."""

    def go(begin: int, end: int, m: Array) -> Array:
        """Nodes begin, ..., end - 1 from m (1, d) at node begin - 1; the mean at the last one."""
        recursions.filter_means(
            chain._replace(step=chain.step[:end], obs=chain.obs[:end]),
            begin,
            m,
            gains._replace(slot=gains.slot[:end]),
            data.z,
            data.seen,
            data.mean[:, :end],
            data.innovation,
            data.loglik,
        )
        return data.mean[:, end - 1]

    starts = [m] + [np.zeros_like(m) for _ in cuts[2:]]

    def segment(i: int) -> None:
        if i > 0:
            starts[i] = _warm_mean(cuts[i], chain, gains, data)
        go(cuts[i], cuts[i + 1], starts[i])

    spread(segment, range(len(starts)), cuts[-1])
    for i in range(1, len(starts)):
        begin, end = cuts[i], cuts[i + 1]
        before = starts[i]
        while begin < end and not _agree_means(data.mean[:, begin - 1], before, cov[begin - 1]):
            upto = min(begin + RETRY, end)
            before = data.mean[:, upto - 1].copy()
            go(begin, upto, data.mean[:, begin - 1].copy())
            begin = upto


def _warm_mean(
    end: int, chain: recursions.Chain, gains: recursions.Gains, data: recursions.Data
) -> Array:
    """The mean (1, d) at node end - 1, from WARM_UP nodes that begin with 0."""
    nodes = slice(end - WARM_UP, end)
    part, rows = _part(chain, nodes)
    z = data.z[:, rows]
    mean = np.empty((1, WARM_UP, data.mean.shape[2]))
    recursions.filter_means(
        part,
        0,
        np.zeros_like(mean[:, 0]),
        gains._replace(slot=gains.slot[nodes]),
        z,
        data.seen[rows],
        mean,
        np.empty_like(z),
        np.empty(z.shape[:2]),
    )
    return mean[:, -1]


def smooth_means(
    cuts: list[int],
    chain: recursions.Chain,
    last: int,
    gains: recursions.Gains,
    data: recursions.Data,
) -> Array:
    """`recursions.smooth_means` of one path; returns the mean of xi (1, d) at node `last`."""
    ends = [last, *cuts[1:-1], len(chain.step) - 1]
    starts = [np.zeros((1, data.mean.shape[2])) for _ in ends[1:]]
    reached = list(starts)
    unseen = np.zeros_like(data.seen)

    def go(begin: int, end: int, y: Array, mean: Array, seen: ObsMask) -> Array:
        """Nodes end - 1, ..., begin; the mean of xi, y (1, d) at node `end`, at node `begin`."""
        nodes = slice(begin, end + 1)
        y = y.copy()
        recursions.smooth_means(
            chain._replace(step=chain.step[nodes], obs=chain.obs[nodes]),
            0,
            gains._replace(slot=gains.slot[nodes]),
            data.innovation,
            seen,
            mean,
            y,
        )
        return y

    def segment(i: int) -> None:
        begin, end = ends[i], ends[i + 1]
        if end < ends[-1]:
            upto = min(end + WARM_UP, ends[-1])
            room = np.zeros((1, upto - end + 1, data.mean.shape[2]))
            starts[i] = go(end, upto, starts[i], room, data.seen)
        reached[i] = go(begin, end, starts[i], data.mean[:, begin : end + 1], data.seen)

    spread(segment, range(len(starts)), len(chain.step))
    for i in range(len(starts) - 2, -1, -1):
        delta = reached[i + 1] - starts[i]
        begin = end = ends[i + 1]
        while begin > ends[i] and not _negligible(delta, starts[i]):
            end, begin = begin, max(begin - RETRY, ends[i])
            delta = go(begin, end, delta, data.mean[:, begin : end + 1], unseen)
        if begin == ends[i]:
            reached[i] = reached[i] + delta
    return reached[0]


def _agree_means(m: Array, wanted: Array, cov: Array) -> bool:
    """Whether means (1, d) agree, far within their standard deviations, as well as they can."""
    sd = np.sqrt(np.diagonal(cov))
    rounding = 4 * np.finfo(float).eps * np.abs(wanted)
    slack = np.clip(rounding, AGREEMENT * sd, 10 * AGREEMENT * sd)
    return bool((np.abs(m - wanted) <= slack).all())


def _negligible(delta: Array, xi: Array) -> bool:
    """Whether a change of xi, of unit covariance, says nothing."""
    return bool((np.abs(delta) <= AGREEMENT * np.maximum(1.0, np.abs(xi))).all())
