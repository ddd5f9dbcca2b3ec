"""What a key weighs: the robust weight in attention's form, and the prior weight of its lag."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter.linalg.integrals import exponential_integral
from afafilter.models.structured_noise import StructuredNoise
from afafilter.weights import PowerLaw, Weight

F64 = NDArray[np.float64]
LogPrior = Callable[[F64, bool], F64]

PRIORS = ("dle", "flat", "linear", "structured")


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


def log_prior(
    kind: str,
    structure: StructuredNoise | None,
    decay: float,
    process_var: float,
    key_var: float,
    query_var: float,
) -> LogPrior:
    """log P of lags tau >= 0; its second argument says whether keys are pulled back exactly.

    "dle": the model's, -log(V(tau) + eta^2 E^2 + gamma^2), the solution of the differential
    Lyapunov equation. "flat": 0. "linear": its tangent for small mu and process_var,
    -log(eta^2 + gamma^2) - sigma^2 tau / (eta^2 + gamma^2) (ALiBi). "structured": as "dle", with
    process noise whose strength is a function of the lag, q(s) = Re sum_j c_j e^{g_j s}:

        V(tau) = sigma^2 int_0^tau e^{-2 mu (tau - s)} q(s) ds
               = sigma^2 Re sum_j c_j e^{-2 mu tau} (e^{(g_j + 2 mu) tau} - 1) / (g_j + 2 mu).
    """
    if kind == "flat":
        return lambda tau, exact: np.zeros_like(tau)
    total = key_var + query_var
    if kind == "linear":
        return lambda tau, exact: -np.log(total) - process_var / total * tau

    def lyapunov(tau: F64, exact: bool) -> F64:
        x = 2.0 * decay * tau
        if structure is None:
            spread = exponential_integral(-2.0 * decay, tau)
        else:
            spread = _structured(structure, decay, tau)
        grown: F64 = process_var * spread
        late, early = (key_var, query_var) if exact else (query_var, key_var)
        log_s: F64 = np.log(grown + late + early * np.exp(-x))
        return -log_s - x if exact else -log_s

    return lyapunov


def _structured(structure: StructuredNoise, decay: float, tau: F64) -> F64:
    """int_0^tau e^{-2 mu (tau - s)} q(s) ds, elementwise."""
    total = np.zeros(tau.shape)
    for c, g in zip(structure.amplitudes, structure.rates, strict=True):
        rate = g + 2.0 * decay
        # the larger exponential stands outside, so that neither overflows
        if rate.real > 0:
            grown = np.exp(g * tau) * exponential_integral(-rate, tau)
        else:
            grown = np.exp(-2.0 * decay * tau) * exponential_integral(rate, tau)
        total += (c * grown).real
    return total
