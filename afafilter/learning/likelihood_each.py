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
        """Of one problem, if it is the likelihood of a family on paths with the same gaps."""
        par, data = problem.parametrisation, problem.data
        plain = problem.options.method == "ml" and problem.constraints is None
        alike = len(data.groups) == 1 and data.obs_cov is None
        if not (plain and alike and isinstance(par, FamilyParameters)):
            return None
        return cls(par, SeriesBatch.of_group(data), [problem])

    def __call__(self, thetas: Array, which: Any) -> tuple[Array, Array]:
        """Values (M,) and gradients (M, n); -inf and zeros where a model is infeasible."""
        self.n_evals += np.bincount(which, minlength=len(self.n_evals))
        try:
            models, pullback = self.par.at(thetas)
        except (np.linalg.LinAlgError, ValueError, OverflowError):
            together = np.zeros(len(thetas), bool)
        else:
            flat, longest = self.par.flat, self._batch.grid.longest
            d = len(flat)
            together = in_one_call(models[:, : d * d].reshape(-1, d, d), longest)
        if together.all():
            found, slopes = loglik_sdes(models, flat, self._batch, which)
            values, grads = found[:, 0], pullback(slopes) * self.par.slope(thetas)
            values[found[:, 4] >= 0] = -np.inf
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
