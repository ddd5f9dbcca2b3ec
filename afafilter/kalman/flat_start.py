"""The start of a series, in which flat directions are not yet determined (core/flat.h).

    x_k = m_k + M_k delta + N_k gamma + noise,   T delta = s + N(0, I)

delta are the flat directions that some observation has seen, gamma those that none has. The
kernels keep both beside the ordinary recursion until delta is safely integrated out; directions
that no later observation sees stay open to the end and are carried along for the reports.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from afafilter._base.checks import Array, is_definite
from afafilter._base.doubts import Doubts
from afafilter._base.unknown import Index, OpenLaw
from afafilter.kalman import recursions
from afafilter.kalman.group import Group
from afafilter.kalman.timeline import Timeline, initial_root
from afafilter.models.priors import InitialLaw


@dataclass
class FlatStart:
    """The nodes where delta is not integrated out, and the directions open after them.

    M, rounding (c, q, d) directions as rows, T (c, q, q), s (n, c, q), count (c,) of directions
    seen, after each node (for a smoothed run: by the whole series); later, later_rounding
    (N - c, r, d): what no observation sees, at the nodes from c on.
    """

    M: Array
    rounding: Array
    T: Array
    s: Array
    count: Any
    later: Array
    later_rounding: Array
    smoothed: bool = False

    def open_at(self, node: Index) -> tuple[Array, Array]:
        """Open directions and rounding (k, r, d) at nodes, all before c or none."""
        c = len(self.M)
        if len(node) and node[0] >= c:
            return self.later[node - c], self.later_rounding[node - c]
        unobservable = np.arange(self.M.shape[1]) >= self.count[node][:, None]
        directions = np.where(unobservable[..., None], self.M[node], 0.0)
        return directions, np.where(unobservable[..., None], self.rounding[node], 0.0)

    @property
    def last(self) -> int:
        """The number of nodes at which something is open, counted from the first one."""
        c = len(self.M)
        return c + len(self.later) if self.later.shape[1] else c


class FlatBlock:
    """The start of a group, while flat directions are open; afterwards L, m go on from `done`."""

    def __init__(self, group: Group) -> None:
        (_, N, d), p = group.mean.shape, group.z.shape[2]
        line, q = group.line, group.line.law.diffuse.shape[1]
        self.group, self.gains = group, recursions.empty_gains(N, d, p)
        with_room(line, self._filter)
        kept, r = self.done - self.integrated, q - self.count
        later = np.empty((N - kept, r, d)), np.empty((N - kept, r, d))
        if self.integrated and r:
            M, *doubts = (part[self.count :] for part in (self.M, self.error, self.peak, self.late))
            along = line.chain, line.times, line.sizes, kept
            recursions.carry_open(*along, M, tuple(doubts), self.steps, *later)
        known = self.Ts[:kept], self.ss[:, :kept], self.counts[:kept]
        self.start = FlatStart(self.Ms[:kept], self.rounding[:kept], *known, *later)

    def _filter(self, root: Array, size: int) -> tuple[int, bool]:
        group, line = self.group, self.group.line
        (n, _, d), (T, p), D = group.mean.shape, group.seen.shape, line.law.diffuse
        q = D.shape[1]
        self.L, self.m = root.copy(), line.law.mean + np.zeros((n, d))
        self.M, self.T, self.s = np.array(D.T, order="C"), np.zeros((q, q)), np.zeros((n, q))
        self.Ms, self.rounding = np.empty((size, q, d)), np.empty((size, q, d))
        self.Ts, self.ss = np.empty((size, q, q)), np.empty((n, size, q))
        self.Es, self.counts = np.empty((T, p, q)), np.empty(size, np.int64)
        turned, self.error = np.empty((q, q)), np.empty((q, d, d))
        self.peak, self.late = np.empty((q, d)), np.empty((q, d))
        rotation, outcome, facts = np.empty((d + q) ** 2), np.empty(4, np.int64), np.empty(4)
        along = line.chain, self.gains, line.times, line.sizes
        state = self.L, self.m, self.M, self.T, self.s
        kept = self.Ms, self.rounding, self.Ts, self.ss, self.Es, self.counts, turned
        doubts = self.error, self.peak, self.late
        left = kept, doubts, rotation, outcome, facts
        recursions.filter_flat(*along, state, group.given, group.filled, *left)
        self.done, integrated, singular, self.count = outcome.tolist()
        *measures, self.steps = facts.tolist()
        self.integrated, self.doubts = bool(integrated), Doubts(*measures)
        wide = d + self.count
        self.rotation = rotation[: wide**2].reshape(wide, wide)
        return int(singular), self.integrated

    def report_innovations(self) -> None:
        """Innovations are known given delta = 0; report them with delta as known before each."""
        group, counts = self.group, self.counts[: self.done - self.integrated]
        known, into = (self.Es, self.Ts, self.ss, counts), (group.innovation, group.innovation_cov)
        recursions.report_innovations(group.line.chain.obs, self.done, *known, *into)
        if self.start.later.shape[1]:
            self._report_missing()

    def _report_missing(self) -> None:
        """What is missing later may show what no observation does."""
        group, kept = self.group, len(self.start.M)
        chain, later = group.line.chain, self.start.later
        nodes = self.done + np.flatnonzero(chain.obs[self.done :] >= 0)
        nodes = nodes[~group.seen[chain.obs[nodes]].all(axis=1)]
        missing, at = chain.obs[nodes], nodes - kept
        turned = np.swapaxes(chain.H[chain.cfg[missing]], -1, -2)
        shown = later[at] @ turned, self.start.later_rounding[at] @ np.abs(turned)
        v, S = group.innovation[:, missing], group.innovation_cov[missing]
        law = OpenLaw(np.arange(len(v)), missing, v, S, *shown)
        group.innovation[:, missing], group.innovation_cov[missing] = law.report()

    def smooth(self, Z: Array, y: Array) -> None:
        """Smooth back through the flat start.

        Where delta was integrated out: Z (d, d), by columns, and y (n, d), what the later data say
        about xi'.
        """
        from scipy.linalg.lapack import dtrtrs

        group, last, c = self.group, self.done - 1, self.count
        d = self.M.shape[1]
        J, joint = np.eye(d + c), np.zeros((len(group.mean), d + c))
        inverse = dtrtrs(self.T[:c, :c], np.eye(c), lower=1)[0] if c else np.eye(0)
        delta = self.s[:, :c] @ inverse.T
        if self.integrated:
            J[:d, :d] = Z.T
            J = self.rotation @ J
            joint += y @ self.rotation[:, :d].T
            joint[:, d:] += delta
        else:
            J[d:, d:], joint[:, d:] = inverse, delta
            group.mean[:, last] += delta @ self.M[:c]
            moved = self.M[:c].T @ inverse
            group.cov[last] += moved @ moved.T
        found, back = (group.innovation, group.seen), (np.ascontiguousarray(J), joint)
        along = group.line.chain, last, self.gains, self.Ms, self.Es
        recursions.smooth_flat(*along, *found, *back, group.mean, group.cov)
        self.start.count, self.start.smoothed = np.full_like(self.start.count, c), True


def with_room(line: Timeline, attempt: Callable[[Array, int], tuple[int, bool]]) -> None:
    """Attempt a flat start with more and more room until it is enough.

    attempt(root, nodes), root that of the law before node 0, returns a singular node, or -1, and
    whether the room was enough. Flat plus N(0, D D^T) is flat: without measurement noise that
    keeps covariances definite.
    """
    (_, cov, D), N = line.law, len(line.times)
    size, root, spare = min(N, 8 * D.shape[1] + 24) if D.size else 0, line.root, False
    while True:
        singular, enough = attempt(root, size)
        if singular >= 0:
            if spare or not D.size:
                raise_singular(line.chain, singular)
            spare, root = True, initial_root(cov + D @ D.T)
        elif enough or size == N:
            return
        else:
            size = min(N, 4 * size)


def start_paths(law: InitialLaw, n: int, R: Array) -> recursions.Paths:
    """n paths before any observation.

    Where one of the noise covariances R (k, p, p) leaves an observation without, N(0, D D^T) is
    added along the flat directions D: flat plus that is flat, and innovations stay definite.
    """
    (mean0, cov0, D), (d, q) = law, law.diffuse.shape
    if q and not is_definite(R).all():
        cov0 = cov0 + D @ D.T
    error = np.zeros((q, d, d))
    np.einsum("qii->qi", error)[:] = D.T**2
    T, s, late, steps, doubt = (np.zeros(x) for x in ((q, q), (q,), (q, d), (), (q, 3)))
    directions = D.T, T, s, error, np.abs(D.T), late, steps, doubt, np.eye(q)
    parts = initial_root(cov0), mean0, *directions
    copies = (np.array(np.broadcast_to(x, (n, *x.shape)), order="C") for x in parts)
    return recursions.Paths._make([*copies, np.full(n, 0 if q else -1, np.int64)])


def add_delta(
    M: Array, T: Array, s: Array, count: Any, mean: Array, cov: Array
) -> tuple[Array, Array]:
    """Mean (n, k, d) and cov (k, d, d) of m + M delta + noise, with what T delta = s says of delta.

    M (k, q, d), the first count (k,) of which count, T (k, q, q), s (n, k, q).
    """
    mean, cov = np.array(mean, order="C"), np.array(cov, order="C")
    recursions.add_delta(*(np.ascontiguousarray(part) for part in (M, T, s, count)), mean, cov)
    return mean, cov


def raise_singular(chain: recursions.Chain, node: int) -> None:
    """Say which observation is predicted exactly."""
    raise ValueError(
        f"R is singular and observation {chain.obs[node]} is predicted without error, so that its "
        "likelihood is not defined; give R (or obs_cov) a positive variance there"
    )
