"""Whether an answer hangs on the last digits of its inputs: it is taken again with others.

Beside a stream go streams of models with other last digits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array
from afafilter._base.doubts import warn_of_move
from afafilter._base.unknown import OpenLaw
from afafilter.kalman.group import Run
from afafilter.kalman.inputs import Inputs, Model
from afafilter.kalman.timeline import Index, Timeline
from afafilter.models.nudged import SEEDS, VISIBLE, Nudged, largest_move, moves, nats, nudged
from afafilter.models.sde import LinearSDE
from afafilter.results import Estimate

PATHS = 16
"""Paths that are answered again: those with the largest numbers."""


class Found(NamedTuple):
    """What recursions along a timeline find: scale (n, T) of the noise; mean (n, Tq, d) and cov
    (G, Tq, d, d) at the times asked for; info of a weight."""

    line: Timeline
    scale: Array | None
    run: Run
    mean: Array
    cov: Array
    open_laws: tuple[OpenLaw, ...]
    info: dict[str, Any]


class Answers(NamedTuple):
    """Means (n, k, d) and innovations (n, T, p) of paths, their covariances, one for all or each,
    and loglik (n,)."""

    mean: Array
    cov: Array
    innovation: Array
    innovation_cov: Array
    loglik: Array


def warn_of_lost_digits(
    model: Model, given: Inputs, found: Found, solve: Callable[[Model, Inputs], Found]
) -> None:
    """Warn where rounding may show in what `solve` found for a model and its data.

    Warns
    -----
    BarelyDetermined, LostDigits
        By the doubts of the recursions, or where the answers to nudged inputs differ.
    """
    if found.run.doubts.warn(6):
        return
    z = given.paths
    paths = np.argsort(np.nan_to_num(np.abs(z)).max(axis=(1, 2)), kind="stable")[-PATHS:]
    here, z = _answers(found, paths), z[paths]
    # a sensor without noise leaves a state no variance but rounding
    exact = (np.einsum("caa->ca", found.line.chain.R) == 0).any()
    sizes = _sizes(here.mean) if exact else None
    R = model.R if given.R is None else given.R
    others = [nudged(model, R, seed, alike=True) for seed in SEEDS]

    def answer(other: Nudged[Any]) -> Answers:
        R = None if given.R is None else other.R
        return _answers(solve(other.model, given._replace(z=z, R=R)), np.arange(len(z)))

    moved = largest_move(others, answer, lambda other, there: apart(here, there, other, z, sizes))
    if moved > VISIBLE:
        warn_of_move(moved, "", "a shorter record", 6)


def apart(
    here: Answers, there: Answers, other: Nudged[Any], z: Array, sizes: Array | None
) -> float:
    """By how many standard deviations, or nats, the answers of a nudged model move.

    z (n, T, p): the data; sizes (n, k, d): what means are differences of, by default themselves.
    """
    misfit = _misfit(here.innovation, here.innovation_cov)
    state, seen = (here.mean, here.cov), (here.innovation, here.innovation_cov)
    shown = there.innovation, there.innovation_cov
    size = np.nan_to_num(np.abs(z))
    moved = (
        moves(*state, other.told(there.mean, there.cov), misfit[:, None], sizes),
        moves(*seen, shown, misfit[:, None], size),
        nats(here.loglik, there.loglik, float(other.unit[0]), misfit),
    )
    return max(float(move.max(initial=0.0)) for move in moved)


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
    here = _step_answers(found)
    sizes = np.maximum(np.abs(before), np.nan_to_num(np.abs(here.mean))) if exact else None
    return largest_move(
        beside,
        lambda twin: _step_answers(twin.stream.update(float(found.t[0]), z, obs_cov=R)),
        lambda twin, there: apart(here, there, twin.like, z[None, None], sizes),
    )


def _answers(found: Found, paths: Index) -> Answers:
    """Those about some paths, covariances shared or not."""
    run, which = found.run, found.run.group[paths]
    if len(run.innovation_cov) == 1:
        which = which[:1]
    shown = run.innovation[paths], run.innovation_cov[which]
    return Answers(found.mean[paths], found.cov[which], *shown, run.loglik[paths].sum(axis=1))


def _step_answers(found: Estimate) -> Answers:
    """Those of one step of a stream, as of one path."""
    v, S = found.innovation, found.innovation_cov
    assert v is not None
    assert S is not None
    return Answers(found.mean[None], found.cov[None], v[None], S[None], np.array([found.loglik]))


def _sizes(mean: Array) -> Array:
    """Of means (n, k, d) as they have just been and will be, 0 where undetermined."""
    size = np.abs(np.nan_to_num(mean))
    around = np.pad(size, ((0, 0), (1, 1), (0, 0)))
    return np.asarray(np.maximum(np.maximum(around[:, :-2], around[:, 2:]), size))


def _misfit(v: Array, S: Array) -> Array:
    """By how many standard deviations (n,) innovations are off zero, at least one."""
    variance = np.einsum("...aa->...a", S)
    with np.errstate(invalid="ignore", divide="ignore"):
        square = np.where(np.isfinite(v) & (variance > 0), v * v / variance, 0.0)
    count = np.isfinite(v).sum(axis=(1, 2)).clip(1)
    return np.asarray(np.sqrt(square.sum(axis=(1, 2)) / count).clip(1.0))
