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
from itertools import pairwise

import numpy as np

from afafilter._base.checks import Array, ObsMask
from afafilter._base.threads import spread
from afafilter.kalman import recursions
from afafilter.kalman.group import Group
from afafilter.kalman.recursions import LANES

WARM_UPS = (512, 1024, 2048)
"""Nodes of a piece's warm-ups: one where those before it did not do."""
PIECE = 8192
"""Most nodes of the pieces that go side by side, where MOST of them are not enough: what lies
between filter and smoother stays in a cache."""
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
    out = seen, scale, smooth, group.cov, group.innovation_cov, gains

    def go(begin: int, end: int, L: Array) -> int:
        return int(recursions.filter_covariances(chain, begin, end, L, *out))

    parts, starts = list(pairwise(cuts)), [np.array(L) for _ in cuts[:-1]]

    def warm(i: int) -> None:  # on nodes that the segment before fills afterwards
        go(cuts[i] - WARM_UP, cuts[i], starts[i])

    spread(warm, range(1, len(parts)), cuts[-1])
    return _joined(parts, starts, go, group.cov)[1]


def smooth_covariances(cuts: list[int], last: int, gains: recursions.Gains, P: Array) -> Array:
    """All nodes from `last` on; returns Z (d, d) at `last`, by columns."""
    d = P.shape[1]

    def back(nodes: slice, P: Array, Z: Array) -> int:
        """Z at the last of these nodes becomes that at the first."""
        recursions.smooth_covariances(0, gains._replace(slot=gains.slot[nodes]), P, Z)
        return -1

    parts = [(b, a) for a, b in pairwise([last, *cuts[1:-1], len(P) - 1])][::-1]
    starts = [np.eye(d) for _ in parts]

    def warm(i: int) -> None:
        nodes = slice(parts[i][0], parts[i][0] + WARM_UP + 1)
        back(nodes, np.empty((WARM_UP + 1, d, d)), starts[i])

    def go(begin: int, end: int, Z: Array) -> int:
        nodes = slice(end, begin + 1)
        return back(nodes, P[nodes], Z)

    spread(warm, range(1, len(parts)), len(P))
    return _joined(parts, starts, go, P)[0]


def _joined(
    parts: list[tuple[int, int]],
    starts: list[Array],
    go: Callable[[int, int, Array], int],
    P: Array,
) -> tuple[Array, int]:
    """Go along segments side by side; the root at the end, and -1 or a singular node.

    go(begin, end, root) fills P and returns such a node: forward, nodes begin, ..., end - 1, or,
    where begin > end, backward to node `end`. parts: begin and end of each segment, in the order of
    the way; starts: roots with which they begin. One whose root the segment before does not reach
    is gone along anew until its covariances agree with those it had.
    """
    reached, bad = [start.copy() for start in starts], [-1] * len(parts)

    def segment(i: int) -> None:
        bad[i] = go(*parts[i], reached[i])

    spread(segment, range(len(parts)), len(P))
    for i in range(1, len(parts)):
        if bad[i - 1] >= 0:
            return reached[i - 1], bad[i - 1]
        if bad[i] < 0 and _agree(_cov(starts[i]), _cov(reached[i - 1])):
            continue
        root, (begin, end) = reached[i - 1].copy(), parts[i]
        step = RETRY if begin < end else -RETRY
        for at in range(begin, end, step):
            upto = min(at + step, end) if step > 0 else max(at + step, end)
            last = upto - (step > 0)
            before = P[last].copy()
            singular = go(at, upto, root)
            if singular >= 0:
                return root, singular
            if bad[i] < 0 and upto != end and _agree(before, P[last]):
                break
        else:
            reached[i], bad[i] = root, -1
    return reached[-1], bad[-1]


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
    length, at = max(min((N - first) // MOST, PIECE), LENGTHS * warm_up), max(first - 1, 0)
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
    lanes = group.alone()
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
            group.line.chain, part, nodes, *at, lanes.given, lanes.filled, room.kept, roots, ends
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
