"""Kernels of attention that the package reaches through others, as functions of arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from afafilter._core import core
from afafilter.attention.recursions import Dynamics


class Rows(NamedTuple):
    """What `attend` reads and where its sums go: B queries, N keys.

    q (B, d), k (N, d), v (N, m) in the co-rotating frame; known (N, h) ones and zeros; row i sees
    keys low[i], ..., high[i] - 1; lead (B,) is what decays of exact acausal pairs leave out of the
    distance; num (B, m), den (B, max(h, 1)) are added to.
    """

    q: Any
    k: Any
    v: Any
    known: Any
    t_query: Any
    t: Any
    low: Any
    high: Any
    lead: Any
    num: Any
    den: Any


def attend(rows: Rows, dynamics: Dynamics, log_tolerance: float = -np.inf) -> None:
    """Running sums of values and of weights over all keys that the rows see, nearest first."""
    assert getattr(core, f"attend_{rows.v.dtype}")(rows, dynamics, log_tolerance) == 0


def finish(out: Any, *sums: Any) -> None:
    """out (B, m) = e^lift num / den, turned by omega t group by group; precision = e^scale den."""
    assert getattr(core, f"finish_{out.dtype}")(out, *sums) == 0
