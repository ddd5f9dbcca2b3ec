"""Streams beside a stream, of models with other last digits: whether its steps hang on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array
from afafilter.kalman.last_digits import Answers, apart
from afafilter.models.nudged import SEEDS, Nudged, largest_move, nudged
from afafilter.models.sde import LinearSDE
from afafilter.results import Estimate


class Stream(Protocol):
    """What takes one observation after another."""

    def update(self, t: float, z: ArrayLike, *, obs_cov: ArrayLike | None = None) -> Estimate: ...


class Twin(NamedTuple):
    """A stream of a nudged model."""

    like: Nudged[Any]
    stream: Stream


def twins(model: LinearSDE, begin: Callable[[LinearSDE, float], Stream]) -> list[Twin]:
    """Streams that `begin` makes of models like this one and the unit of their states."""
    like = [nudged(model, model.R, seed, alike=True) for seed in SEEDS]
    return [Twin(other, begin(other.model, float(other.unit[0]))) for other in like]


def step_moves(
    found: Estimate, before: Array, beside: Sequence[Twin], z: Array, R: Array | None, exact: bool
) -> float:
    """Feed z (p,) with noise R to twins; by how much what they find moves, see `apart`.

    before (1, d): the mean before it; exact: whether some sensor has no noise.
    """
    here = _answers(found)
    sizes = np.maximum(np.abs(before), np.nan_to_num(np.abs(here.mean))) if exact else None
    return largest_move(
        beside,
        lambda twin: _answers(twin.stream.update(float(found.t[0]), z, obs_cov=R)),
        lambda twin, there: apart(here, there, twin.like, z[None, None], sizes),
    )


def _answers(found: Estimate) -> Answers:
    """Those of one step, as of one path."""
    v, S = found.innovation, found.innovation_cov
    assert v is not None
    assert S is not None
    return Answers(found.mean[None], found.cov[None], v[None], S[None], np.array([found.loglik]))
