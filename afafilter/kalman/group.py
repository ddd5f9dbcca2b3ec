"""Paths that share their gaps, as the recursions work on them."""

from __future__ import annotations

from dataclasses import dataclass

from afafilter._base.checks import Array, ObsMask
from afafilter.kalman.timeline import Timeline


@dataclass
class Group:
    """Paths with the same gaps, and the rows of a `Run` that they fill.

    z, mean, innovation, loglik have a leading axis for the paths; seen, scale, cov and
    innovation_cov have none, or (side by side) one as well.
    """

    line: Timeline
    z: Array
    seen: ObsMask
    scale: Array
    mean: Array
    cov: Array
    innovation: Array
    innovation_cov: Array
    loglik: Array
    smooth: bool

    def path(self, l: int) -> Group:
        """Path l of several side by side, as a group of its own."""
        one = slice(l, l + 1)
        return Group(
            self.line,
            self.z[one],
            self.seen[l],
            self.scale[l],
            self.mean[one],
            self.cov[l],
            self.innovation[one],
            self.innovation_cov[l],
            self.loglik[one],
            self.smooth,
        )
