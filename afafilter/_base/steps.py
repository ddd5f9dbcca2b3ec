"""Which time steps are equal: the one home of that question.

Time stamps carry their own rounding, eps |t|. Steps between them are equal where they differ by no
more than that rounding, pairwise and never transitively, and never a step that the stamps resolve.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, times

Times = TypeVar("Times", Array, float)
_EPS = float(np.finfo(np.float64).eps)
UNSHOWN = 3e-6
"""Share of a step by which it may change without showing in any answer."""
_SAMPLE = 512  # steps by which a set is judged


def rounding(stamps: Times) -> Times:
    """By how much equal stamps, or two steps that end at them, may differ by rounding alone."""
    return 2 * _EPS * abs(stamps)


def on_stamps(asked: Array, stamps: Array) -> Array:
    """The sorted times asked for, those that equal a stamp up to rounding moved onto it.

    What belongs to the past of a time then follows from exact comparisons: an observation stamped
    0.1 + 0.2 is seen at 0.3.
    """
    if asked is stamps or len(stamps) == 0:
        return asked
    after = np.minimum(np.searchsorted(stamps, asked), len(stamps) - 1)
    before = np.maximum(after - 1, 0)
    nearer = np.where(asked - stamps[before] < stamps[after] - asked, before, after)
    nearest = stamps[nearer]
    return np.where(np.abs(asked - nearest) <= rounding(nearest), nearest, asked)


def asked_times(value: ArrayLike | None, stamps: Array, name: str = "query_times") -> Array:
    """Checked times at which answers are asked for, on the stamps they equal; None: the stamps."""
    return stamps if value is None else on_stamps(times(value, name), stamps)


def times_or_steps(t: ArrayLike | None, z: ArrayLike) -> Array:
    """Checked times; None: the steps 0, 1, 2... of z (..., T, p) or (T,)."""
    if t is not None:
        return times(t)
    steps = (*np.shape(z)[-2:], 0)[0]
    if not steps:
        raise ValueError(f"z must have shape (..., T, p) or (T,) with T >= 1, got {np.shape(z)}")
    return np.arange(float(steps))


def not_before(t: float, last: float) -> float:
    """t, or `last` where rounding alone makes it earlier; ValueError where it lies before that."""
    if t >= last:
        return t
    if last - t > rounding(last):
        raise ValueError(f"t must not lie before the last time {last:g}, got {t:g}")
    return last


def filled_in(stamps: Array, points: int) -> Array:
    """Distinct stamps and, in gaps wider than 1/points of the whole, times between them."""
    fine = np.linspace(stamps[0], stamps[-1], points)
    after = np.clip(np.searchsorted(stamps, fine, side="right"), 1, max(len(stamps) - 1, 1))
    if stamps[0] == stamps[-1]:
        return stamps[:1]
    wide = stamps[after] - stamps[after - 1] > (stamps[-1] - stamps[0]) / points
    return np.union1d(stamps, fine[wide])


def usual_step(stamps: Array) -> float:
    """The median step between distinct stamps; 0 where all are one."""
    gaps = np.diff(np.unique(stamps))
    return float(np.median(gaps)) if gaps.size else 0.0


def regular_step(stamps: Array) -> float | None:
    """The spacing of an equally spaced grid (to the rounding of the stamps), else None."""
    if len(stamps) < 2 or stamps[-1] == stamps[0]:
        return None
    step = float(stamps[-1] - stamps[0]) / (len(stamps) - 1)
    off = np.abs(stamps - (stamps[0] + step * np.arange(len(stamps)))).max()
    return step if off <= 4 * rounding(stamps).max() else None


def mostly_distinct(x: Array, slack: Array | float = 0.0) -> bool:
    """Whether so many of x (n,) differ, by more than slack, that searching equal ones is no use.

    Judged from _SAMPLE of them; a set too small for that is worth searching.
    """
    if len(x) < 4 * _SAMPLE:
        return False
    some = slice(None, None, len(x) // _SAMPLE)
    apart = np.diff(np.sort(x[some])) > np.max(slack)
    return bool(np.count_nonzero(apart) > 0.75 * len(apart))


def distinct_steps(gaps: Array, stamps: Array) -> tuple[Array, Any]:
    """Distinct steps (k,) and which one each gap (n,) >= 0 is, up to the rounding of its stamp.

    Nor by more than UNSHOWN: where the rounding of stamps is a larger share of the gaps, these are
    what the stamps' differences say.

    The stamp farthest from 0 is the first or the last. All gaps of a step lie within one rounding
    of each other, and the step is their mean: the elapsed time is kept. A gap of zero only equals
    zero. Where most of many gaps differ each is a step of its own, in order, so that what is made
    of them is read in order too.
    """
    if len(gaps) == 0:
        return np.zeros(1), np.zeros(0, np.int64)
    widest = min(rounding(max(abs(stamps[0]), abs(stamps[-1]))), UNSHOWN * gaps[gaps.argmax()])
    least, largest = gaps[gaps.argmin()], gaps[gaps.argmax()]
    if least > widest and largest - least <= widest:
        return np.array([np.add.reduce(gaps) / len(gaps)]), np.zeros(len(gaps), np.int64)
    if mostly_distinct(gaps, widest):
        return gaps, np.arange(len(gaps))
    order = np.argsort(gaps, kind="stable")
    slack = np.minimum(rounding(stamps[order]), UNSHOWN * gaps[order])
    label = np.cumsum(_starts(gaps[order], slack))
    index = np.empty(len(gaps), np.int64)
    index[order] = label - 1
    return np.bincount(index, gaps) / np.bincount(index), index


def _starts(gaps: Array, slack: Array) -> Any:
    """Where a new step begins among ascending gaps: too far from the first one of the step."""
    apart = np.diff(gaps, prepend=-np.inf)
    before = np.concatenate([[0.0], slack[:-1]])
    fresh = (apart > np.maximum(slack, before)) | ((gaps > 0) & (gaps == apart))
    begin = np.flatnonzero(fresh)
    end = np.append(begin[1:], len(gaps))
    wide = gaps[end - 1] - gaps[begin] > np.maximum.reduceat(slack, begin)
    for start, stop in zip(begin[wide], end[wide], strict=True):
        width = gaps[stop - 1] - gaps[start]
        while width > slack[start:stop].max():
            # Neighbours chain together: cut where they leave the rounding of the chain's first.
            start += max(
                1, int(np.searchsorted(gaps[start:stop], gaps[start] + slack[start], "right"))
            )
            fresh[start] = True
            width = gaps[stop - 1] - gaps[start]
    return fresh
