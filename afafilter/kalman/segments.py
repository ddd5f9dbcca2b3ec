"""One long series, cut into segments that threads work on side by side.

A filter forgets where it started: after a warm-up on the nodes before it, a segment that began with
any root at all continues as the whole series would. So every segment warms up by itself, and where
two of them meet, what the earlier one found decides whether that was enough. A smoother forgets the
future in the same way. Pieces of one path go side by side in vector registers, means with
covariances (`side_by_side`). Covariances of several paths, and of one whose pieces do not agree,
are cut into longer segments, of which one that began wrong is calculated anew until it meets what
it had. Segments do not depend on the number of threads or on the registers, so results do not
either.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from afafilter._base.checks import Array, ObsMask
from afafilter._base.threads import spread
from afafilter.kalman import recursions
from afafilter.kalman.group import Group
from afafilter.kalman.recursions import LANES

WARM_UPS = (512, 1024, 2048)
"""Nodes of a piece's warm-ups: one where those before it did not do."""
PIECE = 4096
"""Nodes of a piece that goes side by side with others: what lies between filter and smoother stays
in a cache."""
AT_ONCE = 8
"""Pieces come in multiples of it, whatever the registers hold."""
LENGTHS = 4
"""A piece's nodes over its warm-up's, at least."""
SHORTEST = AT_ONCE * LENGTHS * WARM_UPS[0]
"""Nodes of the shortest path that is cut into pieces."""
RESTS = 64
"""Equal nodes on which covariances come to rest."""
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


def filter_covariances(cuts: list[int], group: Group, L: Array, gains: recursions.Gains) -> int:
    """`recursions.filter_covariances` of nodes cuts[0], ..., cuts[-1] - 1."""
    chain, (seen, scale, smooth, _) = group.line.chain, group.given
    P, S = group.cov, group.innovation_cov

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


def side_by_side(
    group: Group, first: int, L: Array, m: Array, alone: bool
) -> tuple[Array, Array] | None:
    """One path cut into pieces, LANES of them side by side, between warm-ups at both ends.

    Fills the group's rows of nodes first, first + 1, ...; L (d, d), by columns, m (1, d) are root
    and mean at node first - 1 (at first = 0: before the first observation). Returns root and mean
    (1, d) of xi at node max(first - 1, 0) (`group.smooth`), or None where nothing is gained: the
    path is short, its covariances settle, or pieces do not agree where they meet.
    """
    chain, N, at = group.line.chain, len(group.line.times), max(first - 1, 0)
    if N - first < SHORTEST or len(chain.R) > 1:
        return None
    if not never_settles(chain, group.seen, group.scale):
        return None
    before = group.mean[0, at].copy(), group.cov[at].copy()
    for warm_up in WARM_UPS:
        if N - first < AT_ONCE * LENGTHS * warm_up:
            break
        if (end := _tracks(group, first, L, m, warm_up, alone)) is not None:
            return end
        group.mean[0, at], group.cov[at] = before
    return None


def never_settles(chain: recursions.Chain, seen: ObsMask | None, scale: Array | None) -> bool:
    """Whether nodes differ from those before them so often that covariances do not come to rest."""
    wanted = len(chain.step) // RESTS
    changes = np.count_nonzero(chain.step[2:] != chain.step[1:-1])
    for rows in (chain.obs < 0, seen, scale):
        if changes <= wanted and rows is not None:
            changes += np.count_nonzero(rows[1:] != rows[:-1])
    return bool(changes > wanted)


def pieces(first: int, N: int, warm_up: int) -> tuple[recursions.Tracks, int]:
    """Tracks of all pieces, and the nodes of each: a warm-up, the piece, and a warm-up back."""
    length, at = max(PIECE, LENGTHS * warm_up), max(first - 1, 0)
    count = AT_ONCE * max(1, (N - first) // (AT_ONCE * length))
    cuts = first + (N - first) * np.arange(count + 1) // count
    nodes = int(np.diff(cuts).max()) + 2 * warm_up
    begin = np.clip(cuts[:-1] - warm_up, at, N - nodes)
    start, wanted = np.zeros(count, np.int64), cuts[:-1] - begin
    start[0], wanted[0] = first - at, 0
    return recursions.Tracks(0 * begin, begin, start, wanted, cuts[1:] - begin), nodes


def _tracks(
    group: Group, first: int, L: Array, m: Array, warm_up: int, alone: bool
) -> tuple[Array, Array] | None:
    """`side_by_side` with so many nodes of warm-up."""
    tracks, nodes = pieces(first, len(group.line.times), warm_up)
    count, (d, p) = len(tracks.row), (len(L), group.z.shape[2])
    starts, means = np.broadcast_to(L, (count, d, d)).copy(), np.zeros((count, d))
    means[0] = m[0]
    laws, smoothed = ((np.empty((count, 2, d, d)), np.empty((count, 2, d))) for _ in range(2))
    lanes = group._replace(
        seen=group.seen[None],
        scale=group.scale[None],
        cov=group.cov[None],
        innovation_cov=group.innovation_cov[None],
    )
    mean, cov = lanes.mean, lanes.cov
    room = threading.local()
    apart: list[int] = []

    def go(begin: int) -> None:
        if apart:
            return
        rows = slice(begin, begin + LANES)
        part = recursions.Tracks(*(column[rows] for column in tracks))
        if not hasattr(room, "kept"):
            room.kept = recursions.lane_memory(nodes if group.smooth else 1, d, p)
        at, (roots, ends) = (starts[rows], means[rows]), (x[rows] for x in laws)
        bad = recursions.filter_lanes(
            group.line.chain, part, nodes, *at, *lanes.given, *lanes.filled, room.kept, roots, ends
        )
        if bad >= 0 or not _meet((roots[1:, 0], ends[1:, 0]), (roots[:-1, 1], ends[:-1, 1])):
            apart.append(begin)
        elif group.smooth:
            back = (x[rows] for x in smoothed)
            recursions.smooth_lanes(room.kept, part, nodes, mean, cov, *back)

    spread(go, range(0, count, LANES), len(group.line.times) if alone else 0)
    roots, ends = laws
    if apart or not _meet((roots[1:, 0], ends[1:, 0]), (roots[:-1, 1], ends[:-1, 1])):
        return None
    roots, ends = smoothed
    if group.smooth:
        later = (tracks.begin + tracks.first)[1:]
        P = _cov(roots[:-1, 1])
        if not _agree(P, group.cov[later]) or not _agree_means(ends[:-1, 1], mean[0, later], P):
            return None
    return roots[0, 0], ends[0, :1]


def _meet(laws: tuple[Array, Array], wanted: tuple[Array, Array]) -> bool:
    """Whether laws, roots (., d, d) by columns and means (., d), agree with those they meet."""
    P = _cov(wanted[0])
    return _agree(_cov(laws[0]), P) and _agree_means(laws[1], wanted[1], P)


def _cov(L: Array) -> Array:
    """L L^T of roots (..., d, d) by columns."""
    return np.asarray(np.swapaxes(L, -1, -2) @ L)


def _agree(P: Array, wanted: Array) -> bool:
    scale = np.sqrt(np.diagonal(wanted, axis1=-2, axis2=-1))
    slack = AGREEMENT * scale[..., :, None] * scale[..., None, :]
    return bool((np.abs(P - wanted) <= slack).all())


def _agree_means(m: Array, wanted: Array, cov: Array) -> bool:
    """Whether means (., d) agree, far within their standard deviations, as well as they can."""
    sd = np.sqrt(np.diagonal(cov, axis1=-2, axis2=-1))
    rounding = 4 * np.finfo(float).eps * np.abs(wanted)
    slack = np.clip(rounding, AGREEMENT * sd, 10 * AGREEMENT * sd)
    return bool((np.abs(m - wanted) <= slack).all())
