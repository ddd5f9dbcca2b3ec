"""Arguments of the estimators of this package, for either kind of model."""

from __future__ import annotations

from dataclasses import replace
from operator import is_
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import (
    Array,
    choice,
    given,
    is_complete,
    observation_covariances,
    observations,
    positive_int,
    times,
)
from afafilter._base.signatures import refuse_idle, told_type
from afafilter._base.steps import asked_times, times_or_steps
from afafilter.models.discrete import DiscreteModel
from afafilter.models.sde import LinearSDE
from afafilter.weights import as_weight

Model = LinearSDE | DiscreteModel
ANCHORS = ("prediction", "estimate", "variational")
METRICS = ("R", "raw", "innovation")


class Reweighting(NamedTuple):
    """Robust weight and how it is found, as `kalman_filter` describes them; None: none."""

    weight: Any = None
    anchor: str = "prediction"
    metric: str = "R"
    iterations: int = 50

    def checked(self) -> Reweighting:
        """With a word turned into the weight; ValueError, TypeError for what does not go."""
        if all(map(is_, self, USUAL)):
            return self
        weight = as_weight(self.weight)
        choice(self.anchor, "anchor", ANCHORS)
        choice(self.metric, "metric", METRICS)
        if self.anchor != "prediction" and self.metric == "innovation":
            raise ValueError(
                f"metric 'innovation' goes with anchor 'prediction', not {self.anchor!r}: R or raw"
            )
        positive_int(self.iterations, "iterations")
        if weight is None:
            refuse_idle(None, dict(zip(self._fields, zip(self, USUAL))))
        elif self.anchor == "prediction" and self.iterations != USUAL.iterations:
            raise ValueError(
                f"iterations={self.iterations} would change nothing with anchor='prediction', "
                "which weighs once: leave it out, or take anchor='estimate'"
            )
        return self if weight is self.weight else self._replace(weight=weight)


USUAL = Reweighting()


class Inputs(NamedTuple):
    """Checked arguments.

    grid (T,); z (..., T, p); R (T, p, p) or None: the model's; asked (Tq,): times of the estimates,
    `grid` itself without query_times; complete: whether no value is missing.
    """

    grid: Array
    z: Array
    R: Array | None
    asked: Array
    complete: bool

    @property
    def paths(self) -> Array:
        """The observations as (n, T, p)."""
        return self.z[None] if self.z.ndim == 2 else self.z.reshape(-1, *self.z.shape[-2:])


def checked_inputs(
    model: Model,
    t: ArrayLike,
    z: ArrayLike | None,
    obs_cov: ArrayLike | None,
    query_times: ArrayLike | None,
) -> Inputs:
    grid, data = read_data(model, t, z)
    complete = is_complete(data, "z")
    R = None
    if obs_cov is not None:
        R = observation_covariances(obs_cov, len(grid), model.obs_dim, model.R, data)
    if query_times is not None and not isinstance(model, LinearSDE):
        raise ValueError("query_times need a LinearSDE; a DiscreteModel is known at its steps only")
    return Inputs(grid, data, R, asked_times(query_times, grid), complete)


def read_data(
    model: Model, t: ArrayLike | None, z: ArrayLike | None, spare: int = 0
) -> tuple[Array, Array]:
    """Times and observations, checked but for infinities; `spare` steps are kept free."""
    if isinstance(model, LinearSDE):
        given(z)
        grid = times(given(t, "t"))
        return grid, observations(z, len(grid), model.obs_dim, copy=False, check=False)
    if not isinstance(model, DiscreteModel):
        raise TypeError(f"model must be a LinearSDE or a DiscreteModel, got {told_type(model)}")
    grid = times_or_steps(t, given(z))
    length = model.length
    if length is not None and (length < len(grid) + spare or (not spare and length > len(grid))):
        raise ValueError(
            f"z must have T = {length} times, the length of the model's time-varying arrays, "
            f"got {len(grid)}" + (f" and {spare} steps ahead" if spare else "")
        )
    return grid, observations(z, len(grid), model.obs_dim, copy=False, check=False)


def rows_of(model: DiscreteModel, name: str, total: int) -> Array:
    """A model array with a time axis of length `total`."""
    value: Array = getattr(model, name)
    if name in model.time_varying:
        return value[:total]
    return np.broadcast_to(value, (total, *value.shape))


def shortened(model: DiscreteModel, total: int) -> DiscreteModel:
    """The model for the first `total` times."""
    if model.length in (None, total):
        return model
    return replace(model, **{name: getattr(model, name)[:total] for name in model.time_varying})
