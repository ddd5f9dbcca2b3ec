"""Whether an answer hangs on the last digits of the model's numbers: it is taken again with others.

Roundings are magnified where observations tell the states barely apart, where the data are far
larger than the noise, and where modes lie close together. There the queries that are worst are
answered again by models that differ in the last digit of every number.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, ObsMask
from afafilter._base.doubts import DOUBTFUL, LostDigits, warn_of_move
from afafilter._base.remembered import remembered
from afafilter.adaptive.dense import Plan, make_plan
from afafilter.adaptive.options import Options, Spans
from afafilter.adaptive.run import Outcome, run_dense
from afafilter.kalman.run import doubts_of_flat_start
from afafilter.kalman.timeline import timeline
from afafilter.models.nudged import EPS, SEEDS, VISIBLE, Nudged, moves, nudged
from afafilter.models.sde import LinearSDE
from afafilter.weights import Dim, Floats, Weight

SURE = 1e-9
"""Roundings that are magnified to less, in standard deviations, are not looked for."""
ROUNDED = 1.0 / 64
"""Part of what tells a direction from others that may be rounding."""
PARTS = 16
"""Queries, and paths, that are answered again: the worst ones."""


def warn_of_lost_digits(
    plan: Plan, outcome: Outcome, z: Array, options: Options, gamma: Array | None
) -> None:
    """Warns where the outcome of these paths z (P, T, p) is more rounding than it may be.

    Warns
    -----
    LostDigits
        With the largest move that was seen, in standard deviations; with how much rounding leaves
        of what determines states by the exact correlation.
    """
    if options.exact and options.window is None:
        _warn_of_flat_start(plan, z)
    magnified = outcome.magnified
    if not plan.coords.zeroed and magnified.max(initial=0.0) * EPS < SURE:
        return
    each = magnified if len(magnified) == len(z) else np.abs(np.nan_to_num(z)).max(axis=2)
    paths = _worst(each.max(axis=1))
    queries = _worst(magnified.max(axis=0))
    some = plan.spans.at(queries)
    z = z[paths]
    magnified = magnified[paths if len(magnified) > 1 else slice(None)][:, queries]
    mean = outcome.mean[paths][:, queries]
    cov = outcome.cov[paths if len(outcome.cov) > 1 else slice(None)][:, queries]
    moved = np.where(np.isinf(magnified), np.inf, np.zeros(mean.shape[:2]))
    for seed in SEEDS:
        other, again = _again(plan, some, gamma, seed)
        for p in range(len(z)):  # each beside its own misfit
            answer, misfit = _answer(again, other.row_unit * z[p : p + 1], options)
            law = other.told(answer.mean[0], answer.cov[0])
            moved[p] = np.maximum(moved[p], moves(mean[p], cov[min(p, len(cov) - 1)], law, misfit))
    if options.exact:
        moved = np.where(
            _rests_on_rounding(plan, some, gamma, z, magnified, options), np.inf, moved
        )
    if (moved > VISIBLE).any():
        at = some.times[moved.max(axis=0).argmax()]
        warn_of_move(moved.max(), f" (at {at:g} after the first observation)", "a window", 3)


def _rests_on_rounding(
    plan: Plan, some: Spans, gamma: Array | None, z: Array, magnified: Array, options: Options
) -> ObsMask:
    """Whether (P, n) what magnifies roundings most is itself rounding, and so may be far larger."""
    found: ObsMask = np.zeros((len(z), magnified.shape[1]), dtype=bool)
    if not magnified.max(initial=0.0) * EPS > ROUNDED:
        return found
    _, again = _again(plan, some, gamma, SEEDS[0], units=False)
    for p in range(len(z)):
        here = magnified[min(p, len(magnified) - 1)]
        there = _answer(again, z[p : p + 1], options)[0].magnified[0]
        with np.errstate(invalid="ignore"):  # infinite in both rests on rounding too
            agree = np.abs(there - here) <= ROUNDED * here
        found[p] = (here * EPS > ROUNDED) & ~agree
    return found


def _warn_of_flat_start(plan: Plan, z: Array) -> None:
    """The exact correlation is the filter from a flat start: its doubts are those of that."""
    model = remembered(
        plan.model, "flat start", lambda: replace(plan.model, prior="diffuse", delay=0.0)
    )
    R = None if plan.uniform_noise else plan.R
    barely, hidden, *_ = doubts_of_flat_start(timeline(model, plan.spans.stamps, R, None), z)
    if max(barely, hidden) > DOUBTFUL:
        size = f"relative error about {barely:.0e}"
        if hidden > DOUBTFUL:
            size = f"an error of about {hidden:.0e} standard deviations"
        warnings.warn(
            f"rounding shows in what determines some states ({size}); give observations that tell "
            "the states apart, or a window",
            LostDigits,
            stacklevel=3,
        )


def _worst(magnified: Array) -> Array:
    """Indices, ascending, of the largest."""
    return np.sort(np.argsort(-magnified, kind="stable")[:PARTS])


def _again(
    plan: Plan, some: Spans, gamma: Array | None, seed: int, *, units: bool = True
) -> tuple[Nudged[LinearSDE], Plan]:
    """A model that differs by roundings, and the plan for some queries with it."""
    other = nudged(replace(plan.model, prior="diffuse"), plan.R, seed, units=units)
    gamma = None if gamma is None else gamma * other.row_unit**2
    return other, make_plan(other.model, some, other.R, gamma, plan.uniform_noise, loud=True)


class _Misfit:
    """A weight that keeps how far the data are from each query's anchor, in standard deviations.

    As they count: by the square root of their weight; in the round where that is least.
    """

    def __init__(self, weight: Weight | None) -> None:
        self.weight, self.rounds = weight, list[Array]()

    def log(self, d2: ArrayLike, dim: Dim) -> Floats:
        far = np.asarray(d2) / np.maximum(dim, 1)
        log = np.zeros_like(far) if self.weight is None else self.weight.log(d2, dim)
        square = (far * np.exp(log)).sum(axis=-2) / np.maximum((far > 0).sum(axis=-2), 1)
        self.rounds.append(np.sqrt(square).reshape(-1))
        return log

    def of(self, n: int) -> Array:
        """Of n queries (n,), at least 1; the largest for all where they are not solved together."""
        if len({len(found) for found in self.rounds}) != 1 or len(self.rounds[0]) < n:
            return np.full(n, max((found.max() for found in self.rounds), default=1.0)).clip(1.0)
        return np.asarray(np.min(self.rounds, axis=0)[:n].clip(1.0))


def _answer(plan: Plan, z: Array, options: Options) -> tuple[Outcome, Array]:
    """The estimates, and by how many standard deviations (n,) the data are off them."""
    misfit, n = _Misfit(options.weight), len(plan.spans.times)
    anchor = options.anchor if options.weight is not None else "estimate"
    watched = replace(options, weight=cast("Weight", misfit), anchor=anchor, return_weights=False)
    try:
        return run_dense(plan, z, watched), misfit.of(n)
    except ValueError:  # distances beyond the floating-point range
        return run_dense(plan, z, replace(options, return_weights=False)), np.ones(n)
