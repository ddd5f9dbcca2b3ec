"""The robust weight in the form that the tiles of attention use."""

from __future__ import annotations

from typing import NamedTuple

from afafilter.weights import Exponential, Huber, PowerLaw, Threshold, Weight


class Law(NamedTuple):
    """The robust weight in the form that the tiles use.

    kind "plain": w = 1. "power": w = peak (1 + d2/scale)^-exponent. "general": `weight` itself;
    there `scale` only says at which d2 the weight bends.
    """

    kind: str = "plain"
    scale: float = 1.0
    exponent: float = 0.0
    peak: float = 1.0
    weight: Weight | None = None
    dim: int = 1


def law_of(weight: Weight | None, dim: int) -> Law:
    """The tiles' form of a weight."""
    if weight is None:
        return Law(dim=dim)
    if isinstance(weight, PowerLaw):
        scale, exponent, peak = weight.power_form(dim)
        return Law("power", scale, exponent, peak, weight, dim)
    scale = 1.0
    if isinstance(weight, Exponential):
        scale = weight.nu
    elif isinstance(weight, Huber | Threshold):
        scale = weight.c**2
    return Law("general", scale, 1.0, 1.0, weight, dim)
