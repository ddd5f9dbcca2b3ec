"""What recursions fill, for all paths and for those that share their gaps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from afafilter._base.checks import Array, ObsMask
from afafilter._base.doubts import Doubts
from afafilter.kalman.timeline import Index, Timeline

NONE = Doubts()


@dataclass
class Run:
    """Laws at the nodes. In flat starts mean and cov are given delta = 0 until reported.

    mean (n, N, d); cov (G, N, d, d); innovation (n, T, p); innovation_cov (G, T, p, p);
    loglik (n, T); group (n,) row of cov that a path uses; flat: per group its `FlatStart`, None if
    proper; doubts: what rounding may have done to all this.
    """

    mean: Array
    cov: Array
    innovation: Array
    innovation_cov: Array
    loglik: Array
    group: Index
    flat: list[Any] = field(default_factory=list)
    doubts: Doubts = NONE

    @classmethod
    def empty(cls, line: Timeline, z: Array, group: Index, count: int) -> Run:
        """Room for paths z (n, T, p) in so many groups."""
        (n, T, p), N, d = z.shape, len(line.times), len(line.root)
        laws, shown = (np.empty((n, N, d)), np.empty((count, N, d, d))), np.empty((n, T, p))
        seen = np.empty((count, T, p, p)), np.empty((n, T))
        return cls(*laws, shown, *seen, group, [None] * count)


class Group(NamedTuple):
    """Paths with the same gaps, and the rows of a `Run` that they fill.

    z, mean, innovation, loglik have a leading axis for the paths; seen, scale, cov and
    innovation_cov have none, or (side by side) one as well.
    """

    line: Timeline
    seen: ObsMask
    scale: Array
    smooth: bool
    z: Array
    mean: Array
    cov: Array
    innovation: Array
    innovation_cov: Array
    loglik: Array

    @classmethod
    def of(
        cls, out: Run, line: Timeline, data: tuple[ObsMask, Array, bool, Array], paths: Any, g: Any
    ) -> Group:
        """The paths of a run that group g, or several, each of one path, holds.

        data: seen, scale, smooth and z of these.
        """
        filled = out.mean[paths], out.cov[g], out.innovation[paths], out.innovation_cov[g]
        return cls(line, *data, *filled, out.loglik[paths])

    @property
    def given(self) -> tuple[ObsMask, Array, bool, Array]:
        """What kernels take: seen, scale, smooth, z."""
        return self[1:5]

    @property
    def filled(self) -> tuple[Array, ...]:
        """What they fill: mean, cov, innovation, innovation_cov, loglik."""
        return self[5:]

    def path(self, l: int) -> Group:
        """Path l of several side by side, as a group of its own."""
        line, seen, scale, smooth, z, mean, cov, innovation, S, loglik = self
        one = slice(l, l + 1)
        filled = mean[one], cov[l], innovation[one], S[l], loglik[one]
        return Group(line, seen[l], scale[l], smooth, z[one], *filled)

    def alone(self) -> Group:
        """A group of one path as several side by side."""
        line, seen, scale, smooth, z, mean, cov, innovation, S, loglik = self
        filled = mean, cov[None], innovation, S[None], loglik
        return Group(line, seen[None], scale[None], smooth, z, *filled)
