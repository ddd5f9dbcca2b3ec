"""The robust weight in the form that attention uses."""

from __future__ import annotations

from typing import NamedTuple

from afafilter.weights import PowerLaw, Weight


class Law(NamedTuple):
    """The robust weight in the form that attention uses.

    kind "plain": w = 1. "power": w = peak (1 + d2/scale)^-exponent. "general": `weight` itself.
    dim : real components of a distance.
    """

    kind: str = "plain"
    scale: float = 1.0
    exponent: float = 1.0
    peak: float = 1.0
    weight: Weight | None = None
    dim: int = 1


def law_of(weight: Weight | None, dim: int) -> Law:
    """Attention's form of a weight for distances of so many real components."""
    if weight is None:
        return Law(dim=dim)
    if isinstance(weight, PowerLaw):
        return Law("power", *weight.power_form(dim), weight, dim)
    return Law("general", weight=weight, dim=dim)
