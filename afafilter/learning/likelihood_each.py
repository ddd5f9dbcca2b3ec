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
        self._par, self._batch, self._problems = par, batch, problems

    def __call__(self, thetas: Array, which: Any) -> tuple[Array, Array]:
        """Values (M,) and gradients (M, n); -inf and zeros where a model is infeasible."""
        self.n_evals += np.bincount(which, minlength=len(self.n_evals))
        values, grads = np.full(len(thetas), -np.inf), np.zeros(thetas.shape)
        try:
            arrays = self._par.arrays(thetas)
        except (np.linalg.LinAlgError, ValueError, OverflowError):
            together = np.zeros(len(thetas), bool)
        else:
            q = self._par.flat.shape[1]
            together = in_one_call(arrays[0], q, self._batch.grid.longest)
        if together.any():
            some = tuple(np.ascontiguousarray(array[together]) for array in arrays)
            found, slopes = loglik_sdes(some, self._par.flat, self._batch, which[together])
            values[together] = found
            grads[together] = self._par.pullbacks(thetas[together], slopes)
        for k in np.flatnonzero(~together):
            values[k], grads[k] = Objective(self._problems[which[k]].objective)(thetas[k])
        fine = np.isfinite(values + (grads**2).sum(axis=1))
        values[~fine], grads[~fine] = -np.inf, 0.0
        return values, grads
