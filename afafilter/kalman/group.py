"""Paths that share their gaps, as the recursions work on them."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
        one = {
            name: getattr(self, name)[l : l + 1] for name in ("z", "mean", "innovation", "loglik")
        }
        own = {name: getattr(self, name)[l] for name in ("seen", "scale", "cov", "innovation_cov")}
        return replace(self, **one, **own)
