"""The search for the best parameters from one or several starts."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import NoReturn

import numpy as np

from afafilter._base.checks import Array
from afafilter.learning.likelihood_each import EachObjective
from afafilter.learning.optimise import NEAR, Optimum
from afafilter.learning.problem import FitWarning, Problem
from afafilter.learning.result import FitResult
from afafilter.learning.search_each import Starts, promising, search_each
from afafilter.learning.student_t import StudentBound

Found = tuple[Optimum, tuple[float, ...]]
"""The best optimum, and what each start reached."""


def solve(
    problem: Problem, points: list[Array], starts: int = 1, rng: np.random.Generator | None = None
) -> FitResult:
    """Run the chosen method from the promising ones of `points`, and report the best optimum.

    rng : draws `starts` - 1 further ones around the first.
    """
    points = [np.clip(point, *problem.bounds(point)) for point in points]
    objective = _objective(problem)
    begin = promising(objective, [points])
    if not np.isfinite(begin.values[0]):
        _refuse_start(objective, points[0])
    if rng is not None:
        first, typical = begin.thetas[0], problem.parametrisation.typical
        drawn = first + typical * rng.standard_normal((starts - 1, len(first)))
        drawn, none = np.clip(drawn, *problem.bounds(first)), np.zeros(len(drawn), int)
        more = none, drawn, *objective(drawn, none)
        begin = Starts(*(np.concatenate(pair) for pair in zip(begin, more, strict=True)))
    methods = {"em": _by_em, "student_t": _heavy_tailed}
    best, reached = methods.get(problem.method, _together)(problem, objective, begin)
    result = FitResult.of(problem, best, reached, solve)
    result.verified()
    if result.trouble:
        warnings.warn(result.trouble, FitWarning, stacklevel=3)
    return result


def _objective(problem: Problem) -> EachObjective:
    if problem.method == "student_t":
        return EachObjective([problem], functions=[StudentBound(problem, problem.dof)])
    return EachObjective.of(problem)


def _refuse_start(objective: EachObjective, theta: Array) -> NoReturn:
    try:
        objective.function(0)(theta)
    except np.linalg.LinAlgError as error:
        raise ValueError(f"the likelihood does not exist at the start: {error}") from None
    raise ValueError("the likelihood is not finite at the start; choose another start")


def _together(problem: Problem, objective: EachObjective, begin: Starts) -> Found:
    found = next(search_each(objective, begin, NEAR, every=True))
    assert found is not None
    return found


def _heavy_tailed(problem: Problem, objective: EachObjective, begin: Starts) -> Found:
    """Each start by itself: the bound goes on from the weights of its last evaluation."""
    found = []
    for k in range(len(begin.owner)):
        own = objective if k == 0 else _objective(problem)
        one = next(search_each(own, Starts(*(part[k : k + 1] for part in begin)), NEAR))
        if one is not None:
            bound = own.function(0)
            assert isinstance(bound, StudentBound)
            bound(one[0].theta)
            shape = problem.z.shape[:-1]
            dof, weights = bound.dof(one[0].theta), bound.weights.reshape(shape)
            found.append(replace(one[0], dof=dof, weights=weights))
    return _best_first(found)


def _by_em(problem: Problem, objective: EachObjective, begin: Starts) -> Found:
    from afafilter.learning.em import expectation_maximisation

    found = []
    for k, theta in enumerate(begin.thetas):
        try:
            found.append(expectation_maximisation(problem, theta, problem.bounds(theta)))
        except ValueError:
            if k == 0:
                raise
    return _best_first(found)


def _best_first(found: list[Optimum]) -> Found:
    found.sort(key=lambda one: (np.isfinite(one.value), one.value), reverse=True)
    return found[0], tuple(one.value for one in found)
