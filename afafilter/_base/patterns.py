"""Which paths miss the same observations: the one home of that question."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array, ObsMask, all_finite

Index = NDArray[np.int64]


def group_alike(masks: ObsMask) -> tuple[Index, Index]:
    """Group (n,) of each of n masks (n, ...), equal ones together, and the first of each group.

    Groups are numbered in order of appearance.
    """
    n = len(masks)
    if n == 1 or (masks == masks[0]).all():
        return np.zeros(n, np.int64), np.zeros(1, np.int64)
    packed = np.packbits(masks.reshape(n, -1), axis=1)
    keys = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1])))[:, 0]
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[group.reshape(-1)], first[order]


def members(masks: ObsMask) -> list[Index]:
    """The positions of each group of equal masks (n, ...), groups in order of appearance."""
    group, first = group_alike(masks)
    if len(first) == 1:
        return [np.arange(len(masks))]
    order = np.argsort(group, kind="stable")
    return np.split(order, np.cumsum(np.bincount(group))[:-1])


def whole_rows(z: Array) -> bool:
    """Whether every row of z (..., T, p) is complete or wholly missing."""
    if all_finite(z):
        return True
    missing = np.isnan(z)
    return bool((missing.all(axis=-1) == missing.any(axis=-1)).all())


def require_whole_rows(z: Array, remedy: str) -> None:
    """ValueError where a row of z (..., T, p) is missing in part; remedy : what to do then."""
    if whole_rows(z):
        return
    missing = np.isnan(z)
    *path, k = np.argwhere(missing.any(axis=-1) & ~missing.all(axis=-1))[0]
    where = f"path {int(path[-1])}, row {int(k)}" if path else f"row {int(k)}"
    raise ValueError(f"z has a row that is missing in part ({where}): {remedy}")
