"""The searches of many problems side by side, each from one or several starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from afafilter._base.checks import Array
from afafilter.learning.curvature import (
    Objectives,
    curvatures,
    search_scales,
)
from afafilter.learning.likelihood_each import EachObjective
from afafilter.learning.optimise import Objective, Optimum, refine
from afafilter.learning.optimise_each import Stopping, bfgs


class Starts(NamedTuple):
    """Starting points: the problem of each (M,), in order; theta (M, n), value, gradient (M, n)."""

    owner: Any
    thetas: Array
    values: Array
    grads: Array


def promising(objective: Objectives, points: Sequence[Sequence[Array]]) -> Starts:
    """Of several starting points of each problem, those to search from, the best one first.

    The best, and the first three (largest peaks of the periodogram): with variances and widths that
    are only guessed their likelihood may be understated.
    """
    which = np.repeat(np.arange(len(points)), [len(some) for some in points])
    thetas = np.array([theta for some in points for theta in some])
    values, grads = objective(thetas, which)
    kept: list[int] = []
    for s in range(len(points)):
        rows = np.flatnonzero(which == s).tolist()
        kept += dict.fromkeys([max(rows, key=values.__getitem__), *rows[:3]])
    return Starts(which[kept], thetas[kept], values[kept], grads[kept])


def search_each(
    objective: EachObjective,
    starts: Starts,
    stopping: tuple[Stopping, Stopping],
    *,
    every: bool = False,
) -> Iterator[tuple[Optimum, tuple[float, ...]] | None]:
    """The optimum of each problem and what its starts reached, best first; None: not feasible.

    stopping : of the search side by side, and of the Newton steps that end it.
    every : whether these go up every hill that was found, or the highest alone.
    """
    owner, start, values, grads = starts
    typical = np.array([problem.parametrisation.typical for problem in objective.problems])
    bounds = [objective.problems[s].bounds(at) for s, at in zip(owner, start, strict=True)]

    def from_each(points: Array, which: Any) -> tuple[Array, Array]:
        return objective(points, owner[which])

    scale = search_scales(from_each, start, grads, typical[owner], objective.par.roots)
    limits = np.array([low for low, _ in bounds]), np.array([high for _, high in bounds])
    top = bfgs(from_each, (start, values, grads), limits, scale, stopping[0], owner)
    hills = np.flatnonzero((top.joined == np.arange(len(owner))) & np.isfinite(top.values))
    hills = hills[np.lexsort((-top.values[hills], owner[hills]))]
    if not every:
        hills = hills[np.diff(owner[hills], prepend=-1) > 0]

    def from_hill(points: Array, which: Any) -> tuple[Array, Array]:
        return objective(points, owner[hills[which]])

    sizes = typical[owner[hills]]
    curved = curvatures(from_hill, top.thetas[hills], top.grads[hills], sizes)
    reached = top.values.copy()
    best: list[Optimum | None] = [None] * len(typical)
    for h, k in enumerate(hills.tolist()):
        s = int(owner[k])
        here = top.of(k, curved, h)

        def alone(theta: Array, s: int = s) -> tuple[float, Array]:
            value, grad = objective(theta[None], np.array([s]))
            return float(value[0]), grad[0]

        par, former = objective.problems[s].parametrisation, best[s]
        found = refine(Objective(alone, here.at), here, bounds[k], par, stopping[1])
        reached[k] = found.value
        if former is None or found.value > former.value:
            best[s] = found
    ends = np.split(reached[top.joined], np.flatnonzero(np.diff(owner)) + 1)
    for one, n_evals, some in zip(best, objective.n_evals.tolist(), ends, strict=True):
        if one is None:
            yield None
            continue
        one.n_evals = n_evals
        yield one, tuple(np.sort(some[np.isfinite(some)])[::-1].tolist())
