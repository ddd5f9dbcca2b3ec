"""Whether a log-likelihood or its gradient hangs on the last digits of the model's numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from afafilter._base.doubts import MAGNIFIED, Doubts, warn_of_move
from afafilter.likelihood.chain import DiscreteSystem, PriorArrays, System, arrays_of
from afafilter.likelihood.data import Data
from afafilter.models.discrete import DiscreteModel
from afafilter.models.nudged import EPS, SEEDS, VISIBLE, largest_move, nats, nudged
from afafilter.models.priors import Prior
from afafilter.models.sde import LinearSDE

AnySystem = System | DiscreteSystem
Answer = tuple[float, Any]
STEEP = VISIBLE / EPS
"""Variance of a prediction over that of its observation from which slopes may move visibly: they
lose as many digits as the variance, not its root."""


def is_unsure(system: AnySystem, data: Data, doubts: Doubts, gradient: bool) -> bool:
    """Whether roundings are magnified: by the recursions, or in exact or large observations."""
    unsure = doubts.unsure() or (gradient and doubts.lost > STEEP)
    if unsure or not data.groups:
        return unsure
    R = system.R if data.obs_cov is None else data.obs_cov
    noise = np.diagonal(R, axis1=-2, axis2=-1)
    least, size = noise.min(), max(np.abs(group.z).max() for group in data.groups)
    if least > 0 and size**2 <= MAGNIFIED * least:
        return False
    least = noise.reshape(-1, noise.shape[-1]).min(axis=0)
    sizes = np.max([np.abs(group.z).max(axis=(0, 2)) for group in data.groups], axis=0)
    return bool((least == 0).any() or (sizes**2 > MAGNIFIED * least).any())


def warn_of_lost_digits(
    system: AnySystem, answer: Answer, evaluate: Callable[[AnySystem], Answer]
) -> None:
    """Warn where what `evaluate` answers, value and gradient or None, moves with the system.

    Warns
    -----
    LostDigits
        Nats for the value; for the gradient, relative changes of the arrays.
    """

    def move(other: tuple[AnySystem, float], again: Answer) -> float:
        moved = float(nats(np.array(answer[0]), np.array(again[0]), other[1]))
        if again[1] is None:
            return moved
        return max(moved, _slopes_apart((system, answer[1]), (other[0], again[1])))

    others = [_nudged(system, seed) for seed in SEEDS]
    moved = largest_move(others, lambda other: evaluate(other[0]), move)
    if moved > VISIBLE:
        warn_of_move(moved, "", "a shorter record", 6)


def _nudged(system: AnySystem, seed: int) -> tuple[AnySystem, float]:
    """The system in another unit of its states, nudged, and that unit."""
    parts: dict[str, Any] = {name: getattr(system, name) for name in arrays_of(system)}
    prior: Any = system.prior
    if isinstance(prior, PriorArrays):
        mean, cov, flat, t0 = prior
        prior = Prior(mean, cov, t0, flat if flat.shape[1] else None)
    if isinstance(system, DiscreteSystem):
        varying = system.time_varying
        steps = nudged(
            DiscreteModel(**parts, prior=prior, time_varying=varying), system.R, seed, alike=True
        )
        return DiscreteSystem.of(steps.model), float(steps.unit[0])
    other = nudged(LinearSDE(**parts, prior=prior, delay=system.delay), system.R, seed, alike=True)
    unit = float(other.unit[0])
    gain = None if system.gain is None else system.gain * unit
    moved = System.of(other.model)
    return moved._replace(gain=gain, direct=system.direct, forcing=system.forcing), unit


def _slopes_apart(here: tuple[AnySystem, Any], there: tuple[AnySystem, Any]) -> float:
    """The largest difference of slopes by entries in units of their arrays, beside the largest.

    inf where a slope is not finite.
    """
    moved = []
    with np.errstate(invalid="ignore"):
        for name in arrays_of(here[0]):
            a, b = (
                getattr(grad, name) * np.abs(getattr(system, name)).max(initial=0.0)
                for system, grad in (here, there)
            )
            moved.append((np.abs(a - b) / (1.0 + np.abs(a).max())).max())
    return float(np.nan_to_num(moved, nan=np.inf).max())
