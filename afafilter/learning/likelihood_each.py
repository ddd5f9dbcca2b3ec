"""Likelihoods of many series with parameters of their own, in one call of the core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from afafilter._base.checks import Array
from afafilter.learning.optimise import Objective
from afafilter.learning.parameters.parametrisation import FamilyParameters
from afafilter.learning.problem import Problem
from afafilter.likelihood.data import SeriesBatch
from afafilter.likelihood.loglik import in_one_call
from afafilter.likelihood.recursions import loglik_sdes


class EachObjective:
    """Values and gradients of many problems of one family, as `optimise_each` asks for them.

    Models that the core's discretisation does not reach, and those that cannot be built, are
    evaluated one by one.

    n_evals : (S,) points asked of each problem.
    """

    def __init__(
        self, par: FamilyParameters, batch: SeriesBatch, problems: Sequence[Problem]
    ) -> None:
        """Problem s is about series s of `batch`; all have the parameters of `par`."""
        self.n_evals = np.zeros(len(problems), np.int64)
        self.par, self.problems = par, problems
        self._batch = batch

    @classmethod
    def of(cls, problem: Problem) -> EachObjective | None:
        """Of one problem, if it is the likelihood of a family on one path alone."""
        par, data = problem.parametrisation, problem.data
        plain = problem.options.method == "ml" and problem.constraints is None
        single = len(data.groups) == data.n_paths == 1 and data.obs_cov is None
        if not (plain and single and isinstance(par, FamilyParameters)):
            return None
        (group,) = data.groups
        batch = SeriesBatch(data, group.z[None, :, :, 0], group.mask[None], group.scale)
        return cls(par, batch, [problem])

    def __call__(self, thetas: Array, which: Any) -> tuple[Array, Array]:
        """Values (M,) and gradients (M, n); -inf and zeros where a model is infeasible."""
        self.n_evals += np.bincount(which, minlength=len(self.n_evals))
        values, grads = np.full(len(thetas), -np.inf), np.zeros(thetas.shape)
        try:
            arrays = self.par.arrays(thetas)
        except (np.linalg.LinAlgError, ValueError, OverflowError):
            together = np.zeros(len(thetas), bool)
        else:
            q = self.par.flat.shape[1]
            together = in_one_call(arrays[0], q, self._batch.grid.longest)
        if together.any():
            some = tuple(np.ascontiguousarray(array[together]) for array in arrays)
            found, slopes = loglik_sdes(some, self.par.flat, self._batch, which[together])
            values[together] = found
            grads[together] = self.par.pullbacks(thetas[together], slopes)
        for k in np.flatnonzero(~together):
            values[k], grads[k] = Objective(self.problems[which[k]].objective)(thetas[k])
        fine = np.isfinite(values + (grads**2).sum(axis=1))
        values[~fine], grads[~fine] = -np.inf, 0.0
        return values, grads
