"""Is the unit of time the one that the model counts in? What its rates and the sampling say."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from afafilter._base.checks import Array
from afafilter._base.stamps import UNIT_WORDS
from afafilter._base.steps import usual_step

APART = 1e4
"""Sampling and time scale of a model that differ by more than this factor are hardly meant."""

UNLIKE = 25.0
"""Innovations of a model that suits are not so many times larger or smaller, in variance."""


def apart(A: Array, t: Array) -> str | None:
    """In words, how the time scales of the drift A and the sampling at t differ absurdly; or None.

    The scales are 1 / |eigenvalue| of A. All of them shorter than the usual step by `APART`: the
    model has forgotten everything at the next observation. All longer than the whole record by as
    much: nothing of its motion can be seen. A without eigenvalues other than 0 has no time scale.
    """
    rates = _rates(A)
    step, span = usual_step(t), float(t[-1] - t[0])
    if not step or not rates.size:
        return None
    if rates.min() * step > APART:
        return (
            f"the model's slowest time scale is {1 / rates.min():.3g}, the usual step of the data "
            f"{step:.3g}"
        )
    if rates.max() * span < 1 / APART:
        return (
            f"the model's fastest time scale is {1 / rates.max():.3g}, the record {span:.3g} long"
        )
    return None


def _rates(A: Array) -> Array:
    """|eigenvalues| of A other than 0."""
    rates = np.abs(np.linalg.eigvals(A))
    return np.asarray(rates[rates > 1e-12 * max(float(np.abs(A).max()), 1e-300)])


def warn_if_unlike(model: Any, estimate: Any, remedy: str) -> None:
    """Warn where a model says much larger or smaller steps than those of the data.

    Seconds read as minutes are 60 times as long, and the variance of what happens between two
    observations with them, unless their noise hides it. Innovations, squared and divided by their
    variance, are chi-square with one degree of freedom, whose median is 0.455. Nothing is said
    where `apart` says it.
    """
    A, Q = getattr(model, "A", None), getattr(model, "Q", None)
    if estimate.innovation is None or A is None or not np.any(Q) or apart(A, estimate.t):
        return
    variance = np.diagonal(estimate.innovation_cov, axis1=-2, axis2=-1)
    square = estimate.innovation**2
    variance = np.broadcast_to(variance, square.shape)
    told = np.isfinite(square) & np.isfinite(variance) & (variance > 0)
    ratio = float(np.median(square[told] / variance[told])) / 0.455 if told.any() else 1.0
    if 0 < ratio < 1 / UNLIKE or ratio > UNLIKE:
        factor, word = max(ratio, 1 / ratio) ** 0.5, "less" if ratio < 1 else "more"
        warnings.warn(
            f"the data move {factor:.3g} times {word} from one observation to the next than the "
            f"model says: are its variances right, and the unit of time? {remedy} says another one",
            stacklevel=3,
        )


def warn_if_apart(model: Any, t: Array, unit: str = "", remedy: str = "time_unit") -> None:
    """Warn where `apart` finds something; models without a drift matrix pass."""
    A = getattr(model, "A", None)
    if A is None:
        return
    said = apart(A, t)
    if said is not None:
        word = UNIT_WORDS.get(unit, "")
        counted = f" (dates are counted in {word})" if word else ""
        warnings.warn(
            f"{said}{counted}: is the unit of time right? {remedy} says another one", stacklevel=4
        )
