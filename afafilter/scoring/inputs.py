"""What is scored, checked: truths that belong to an estimate, times, levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, fraction, positive_int, real_array
from afafilter._base.labels import refuse_other_times
from afafilter._base.masks import refuse_disorder
from afafilter.results import Estimate, Trajectories

Steps: TypeAlias = slice | ArrayLike | None


def shared_leading(array: Array, lead: tuple[int, ...], tail: tuple[int, ...], name: str) -> Array:
    """(..., *tail) as (n, *tail), or (1, *tail) where all paths share one block of memory."""
    if array.shape[-len(tail) :] != tail:
        raise ValueError(f"estimate {name} must have shape (..., {tail}), got {array.shape}")
    full = np.broadcast_to(array, lead + tail)
    k = len(lead)
    if all(step == 0 or size == 1 for step, size in zip(full.strides[:k], lead)):
        return np.asarray(full[(0,) * k][None])
    return full.reshape(-1, *tail)


def true_states(truth: Trajectories | ArrayLike, estimate: Estimate) -> Array:
    """The states (..., T, d) at the estimate's times, or ValueError."""
    if isinstance(truth, Trajectories):
        if not np.array_equal(truth.t, estimate.t):
            raise ValueError(
                "truth and estimate must be on the same times; estimate at truth.t, or pass "
                "the states at the estimate's times"
            )
        x = real_array(truth.x, "truth", allow_nan=True, copy=False)
    else:
        refuse_disorder(truth, "truth", words=True)
        moments = estimate.t if estimate.index is None else estimate.index.values
        refuse_other_times(truth, moments, truth, "truth")
        x = real_array(truth, "truth")
    if x.shape != estimate.mean.shape:
        raise ValueError(
            f"truth must have the shape of the estimate's mean {estimate.mean.shape}, got {x.shape}"
        )
    return np.asarray(x)


def chosen_steps(steps: Steps, n_times: int) -> Any:
    """Index of the times to score; ValueError if `steps` is none."""
    if steps is None:
        return slice(None)
    if isinstance(steps, slice):
        if not range(n_times)[steps]:
            raise ValueError(f"steps must select at least one time, got none: {steps}")
        return steps
    pick = np.asarray(steps)
    if pick.ndim == 1 and pick.dtype.kind == "b" and len(pick) == n_times:
        return np.flatnonzero(pick)
    if pick.ndim != 1 or pick.dtype.kind not in "iu":
        raise ValueError(
            f"steps must be a slice, indices, or a mask of shape ({n_times},), got {steps!r}"
        )
    if pick.size and (pick.min() < -n_times or pick.max() >= n_times):
        raise ValueError(f"steps must lie in 0..{n_times - 1}, got {pick.min()}..{pick.max()}")
    return pick


def checked_levels(levels: Any) -> list[float]:
    """Levels of intervals in (0, 1), each once."""
    if not isinstance(levels, (Sequence, np.ndarray)) or isinstance(levels, str):
        raise TypeError(f"levels must be a sequence of numbers in (0, 1), got {levels!r}")
    marks = [fraction(level, "levels") for level in levels]
    if len({*marks}) < len(marks):
        raise ValueError(f"levels must differ, got {marks}")
    return marks


def checked_lags(lags: int | None, n_times: int) -> int:
    """How many lags of the innovations are tested; None: ten, or a fifth of the times."""
    if lags is None:
        return min(10, n_times // 5)
    if positive_int(lags, "lags", low=0) >= n_times:
        raise ValueError(f"lags must be below the number of scored times {n_times}, got {lags}")
    return lags
