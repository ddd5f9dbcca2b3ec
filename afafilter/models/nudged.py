"""Whether an answer hangs on the last digits of a model's numbers: the same model with others.

An answer that moves with the last digit of every number is uncertain by as much (Higham, "Accuracy
and Stability of Numerical Algorithms", section 26).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from afafilter._base.checks import Array, ObsMask
from afafilter.models.discrete import DiscreteModel
from afafilter.models.priors import Prior
from afafilter.models.sde import LinearSDE

EPS = float(np.finfo(np.float64).eps)
VISIBLE = 5e-7
"""A move by more than this, in standard deviations, and more than a few roundings of the mean."""
GONE = 1e-140
"""Standard deviation below which a state has decayed to nothing."""

SHORT = 1024.0
SEEDS = (1, 2)
"""Of the last digits with which answers are taken again."""

AnyModel = TypeVar("AnyModel", bound=LinearSDE | DiscreteModel)
Other = TypeVar("Other")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Nudged(Generic[AnyModel]):
    """A model like another one, noise R (..., p, p), for data that are row_unit times as large.

    Its states are unit (d,) times as large.
    """

    model: AnyModel
    R: Array
    unit: Array
    row_unit: float

    def told(self, mean: Array, cov: Array) -> tuple[Array, Array]:
        """A law (..., d), (..., d, d) of its states in the units of the model it is like."""
        return mean / self.unit, cov / np.outer(self.unit, self.unit)


def nudged(
    model: AnyModel, R: Array, seed: int, *, units: bool = True, alike: bool = False
) -> Nudged[AnyModel]:
    """The model, without forcing, and noise R with every number moved by up to a rounding.

    units : in other units of the states and the data, so that all that is computed is rounded anew.
    alike : in one unit of all states, which only scales a flat measure, and for the data as they
        are; what observations show by short numbers, as 1 or 0.5, they show exactly.
    """
    rng = np.random.default_rng(seed)
    d, p = model.dim, model.obs_dim
    unit, row_unit = np.ones(d), 1.0
    if units:
        unit, row_unit = rng.uniform(1.0, 2.0, d), float(rng.uniform(1.0, 2.0))
    if alike:
        unit, row_unit = np.full(d, unit[0]), 1.0
    rows = np.full(p, row_unit)

    def moved(M: Array) -> Array:
        return np.asarray(M * (1.0 + EPS * rng.uniform(-1.0, 1.0, M.shape)))

    def law(M: Array, size: Array) -> Array:
        size = size * moved(np.ones(len(size)))
        return np.asarray(M * np.outer(size, size))

    discrete = isinstance(model, DiscreteModel)
    dynamics, shown, drift, offset = "FHbd" if discrete else ("A", "C", "drift", "offset")
    prior = model.prior
    if isinstance(prior, Prior):
        flat = None if prior.diffuse is None else prior.diffuse * unit[:, None]
        prior = Prior(moved(prior.mean * unit), law(prior.cov, unit), prior.t0, flat)
    fields: dict[str, Any] = {
        dynamics: moved(getattr(model, dynamics) * (unit[:, None] / unit)),
        shown: moved(getattr(model, shown) * (row_unit / unit)),
        drift: moved(getattr(model, drift) * unit),
        offset: moved(getattr(model, offset) * row_unit),
    }
    if alike:
        short = np.rint(SHORT * getattr(model, shown)) == SHORT * getattr(model, shown)
        fields[shown] = np.where(short, getattr(model, shown) / unit, fields[shown])
    other = replace(model, **fields, Q=law(model.Q, unit), R=law(model.R, rows), prior=prior)
    return Nudged(other, law(R, rows), unit, row_unit)


def moves(
    mean: Array,
    cov: Array,
    other: tuple[Array, Array],
    misfit: Array | float = 1,
    sizes: Array | None = None,
) -> Array:
    """Largest move (...) of laws (..., d), (..., d, d) to others, in standard deviations.

    inf where one leaves open what the other does not. That of the mean in as many of them as the
    data are off the estimates, misfit (...). sizes (..., d): what a mean is a difference of, by
    default itself.
    """
    here, there = np.isnan(mean), np.isnan(other[0])
    known: ObsMask = ~(here | there)
    variance = np.where(known, np.einsum("...aa->...a", cov), 1.0)
    small = np.where(known, np.abs(mean if sizes is None else sizes), 0.0) * 32 * EPS
    sd = np.sqrt(np.maximum(variance, 0.0)) + small / VISIBLE + GONE
    both = known[..., :, None] & known[..., None, :]
    with np.errstate(invalid="ignore", over="ignore"):  # beyond the floating-point range
        off = np.abs(mean - other[0]) / sd / np.asarray(misfit)[..., None]
        spread = np.abs(cov - other[1]) / sd[..., :, None] / sd[..., None, :]
    off = np.where(known & (mean != other[0]), off, 0.0)
    spread = np.where(both & (cov != other[1]), spread, 0.0)
    moved = np.maximum(off.max(axis=-1), spread.max(axis=(-2, -1)))
    sure = (here == there).all(axis=-1) & ~np.isnan(moved)
    return np.asarray(np.where(sure, moved, np.inf))


def nats(loglik: Array, other: Array, unit: float, misfit: Array | float = 1) -> Array:
    """Move of a log-likelihood, up to log unit for each flat direction; in misfit^2 nats."""
    off = other - loglik
    off = off - np.round(off / np.log(unit)) * np.log(unit)
    return np.asarray(np.abs(off) / (misfit**2 + 32 * EPS / VISIBLE * np.abs(loglik)))


def largest_move(
    others: Iterable[Other],
    answer: Callable[[Other], Answer],
    apart: Callable[[Other, Answer], float],
) -> float:
    """By how much, `apart`, the answers of others move at most; inf where one has none."""
    largest = 0.0
    for other in others:
        try:
            again = answer(other)
        except ValueError:  # no likelihood, no stationary law
            return float("inf")
        largest = max(largest, apart(other, again))
    return largest
