"""State of a stream as plain arrays that need no pickle, and their validation when restored."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import numpy as np

from afafilter._base.checks import Array
from afafilter.models.sde import LinearSDE


def system(model: LinearSDE) -> Array:
    """All numbers of a model in one vector, by which a saved state is matched to its model."""
    parts = (model.A, model.Q, model.R, model.C, model.drift, model.offset)
    return np.append(np.concatenate([x.ravel() for x in parts]), model.delay)


def restored(
    state: Mapping[str, Any],
    wanted: Mapping[str, Array],
    lengths: Mapping[str, Container[int]],
    gaps: Container[str] = (),
) -> dict[str, Array]:
    """The entries of a saved state, checked against those of a stream that has seen nothing.

    Parameters
    ----------
    wanted : mapping
        Entries of a new stream: names, shapes, types. "system" must be equal.
    lengths : mapping
        Allowed lengths of the entries that grow along their first axis.
    gaps : container
        Names of entries that may hold NaN.

    Raises
    ------
    ValueError
        An entry is missing, has a wrong shape or is not finite; the system is another one.
    """
    found: dict[str, Array] = {}
    for name, like in wanted.items():
        if name not in state:
            raise ValueError(f"state has no entry {name!r}")
        value = np.array(state[name], dtype=like.dtype, order="C")
        if value.size == 0 and 0 in like.shape:
            value = value.reshape(like.shape)
        if name in lengths:
            fits = value.ndim == like.ndim and value.shape[1:] == like.shape[1:]
            fits = fits and len(value) in lengths[name]
        else:
            fits = value.shape == like.shape
        if not fits and name != "system":
            raise ValueError(f"state {name!r} must have shape {like.shape}, got {value.shape}")
        if not (np.isfinite(value) | (np.isnan(value) & (name in gaps))).all():
            raise ValueError(f"state {name!r} must be finite")
        found[name] = value
    if not np.array_equal(found["system"], wanted["system"]):
        raise ValueError(
            "state was saved with another model or other options; give those it was saved with"
        )
    return found
