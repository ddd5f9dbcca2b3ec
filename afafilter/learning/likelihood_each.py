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
        try:
            arrays, pullback = self.par.at(thetas)
        except (np.linalg.LinAlgError, ValueError, OverflowError):
            together = np.zeros(len(thetas), bool)
        else:
            together = in_one_call(arrays[0], self.par.flat.shape[1], self._batch.grid.longest)
        if together.all():
            values, slopes = loglik_sdes(arrays, self.par.flat, self._batch, which)
            grads = pullback(slopes) * self.par.slope(thetas)
        else:
            values, grads = np.empty(len(thetas)), np.empty(thetas.shape)
            if together.any():
                values[together], grads[together] = self(thetas[together], which[together])
                self.n_evals -= np.bincount(which[together], minlength=len(self.n_evals))
            for k in np.flatnonzero(~together):
                values[k], grads[k] = Objective(self.problems[which[k]].objective)(thetas[k])
        fine = np.isfinite(values + (grads * grads).sum(axis=1))
        if not fine.all():
            values[~fine], grads[~fine] = -np.inf, 0.0
        return values, grads
