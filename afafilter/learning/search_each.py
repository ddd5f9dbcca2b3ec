"""The searches of many problems side by side, each from one or several starts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from afafilter._base.checks import Array
from afafilter.learning.curvature import Objectives, curvatures, search_scales
from afafilter.learning.likelihood_each import EachObjective
from afafilter.learning.optimise import Optimum, refine
from afafilter.learning.optimise_each import bfgs


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
    objective: EachObjective, starts: Starts, share: float, *, every: bool = False
) -> Iterator[tuple[Optimum, tuple[float, ...]] | None]:
    """The optimum of each problem and what its starts reached, best first; None: not feasible.

    share : of the tolerance at which the search side by side ends and Newton steps take over.
    every : whether these go up every hill that was found, or the highest alone.
    """
    owner, start, values, grads = starts
    problems = objective.problems
    stopping, roots = problems[0].stopping, problems[0].parametrisation.roots
    typical = np.array([problem.parametrisation.typical for problem in problems])
    limits = [problems[s].bounds(at) for s, at in zip(owner, start, strict=True)]
    lower, upper = np.array(limits).swapaxes(0, 1)

    def of(own: Any) -> Objectives:
        return lambda points, which: objective(points, own[which])

    from_each, sizes = of(owner), typical[owner]
    scale = search_scales(from_each, start, grads, sizes, roots)
    coarse = stopping._replace(tolerance=share * stopping.tolerance)
    top = bfgs(from_each, (start, values, grads), (lower, upper), scale, coarse, owner)
    hills = np.flatnonzero((top.joined == np.arange(len(owner))) & np.isfinite(top.values))
    hills = hills[np.lexsort((-top.values[hills], owner[hills]))]
    if not every:
        hills = hills[np.diff(owner[hills], prepend=-1) > 0]
    curved = curvatures(of(owner[hills]), top.thetas[hills], top.grads[hills], sizes[hills])
    reached = top.values.copy()
    best: list[Optimum | None] = [None] * len(problems)
    for h, k in enumerate(hills.tolist()):
        s = int(owner[k])
        former = best[s]
        found = refine(of(owner[k : k + 1]), top.of(k, curved, h), limits[k], problems[s])
        reached[k] = found.value
        if former is None or found.value > former.value:
            best[s] = found
    ends: list[list[float]] = [[] for _ in problems]
    for s, end in zip(owner.tolist(), reached[top.joined].tolist(), strict=True):
        ends[s].append(end)
    for one, n_evals, some in zip(best, objective.n_evals.tolist(), ends, strict=True):
        finite = sorted(filter(math.isfinite, some), reverse=True)
        yield None if one is None else (replace(one, n_evals=n_evals), tuple(finite))
