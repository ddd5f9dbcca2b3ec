"""What searches maximise: of many problems side by side, in one call of the core if possible."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from afafilter._base.checks import Array
from afafilter.learning.parameters.parametrisation import FamilyParameters
from afafilter.learning.problem import Problem
from afafilter.likelihood.data import SeriesBatch
from afafilter.likelihood.loglik import in_one_call
from afafilter.likelihood.recursions import loglik_sdes

INFEASIBLE = np.linalg.LinAlgError, ValueError, OverflowError


class EachObjective:
    """Values and gradients of many problems, as `optimise_each` asks for them.

    Models of a family that the core's discretisation does not reach, and those that cannot be
    built, are evaluated one by one, like problems without a `batch`.

    n_evals : (S,) points asked of each problem.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        batch: tuple[FamilyParameters, SeriesBatch] | None = None,
        functions: Sequence[Callable[[Array], tuple[float, Array]]] | None = None,
    ) -> None:
        """Problem s is about series s of the batch; all have its parameters.

        functions : what to maximise of each problem; None: its objective.
        """
        self.problems, self._batch = problems, batch
        self._functions = functions
        self.n_evals = np.zeros(len(problems), np.int64)
        self._safe = False  # whether all models are within the core's reach
        if batch is not None and batch[0].fixed_A is not None:
            self._safe = bool(in_one_call(batch[0].fixed_A, batch[1].grid.longest))

    @classmethod
    def of(cls, problem: Problem) -> EachObjective:
        """Of one problem: in one call if it is the likelihood of a family and gaps are alike."""
        par, data = problem.parametrisation, problem.data
        plain = problem.method == "ml" and problem.constraints is None
        alike = len(data.groups) == 1 and data.obs_cov is None
        if plain and alike and isinstance(par, FamilyParameters):
            return cls([problem], (par, SeriesBatch.of_group(data)))
        return cls([problem])

    def __call__(self, thetas: Array, which: Any) -> tuple[Array, Array]:
        """Values (M,) and gradients (M, n); -inf and zeros where a model is infeasible."""
        self.n_evals += np.bincount(which, minlength=len(self.n_evals))
        values, grads = self._evaluate(thetas, which)
        if not math.isfinite(float(np.add.reduce(values)) + float(np.vdot(grads, grads))):
            fine = np.isfinite(values + np.add.reduce(grads * grads, axis=1))
            values[~fine], grads[~fine] = -np.inf, 0.0
        return values, grads

    def _evaluate(self, thetas: Array, which: Any) -> tuple[Array, Array]:
        together: Any = False
        if self._batch is not None:
            par, batch = self._batch
            d = len(par.flat)
            try:
                models, pullback = par.at(thetas)
                A = models[:, : d * d].reshape(-1, d, d)
                together = self._safe or in_one_call(A, batch.grid.longest)
            except INFEASIBLE:
                together = False
            if together is True or np.all(together):
                found, slopes = loglik_sdes(models, par.flat, batch, which)
                grads = pullback(slopes) * par.slope(thetas)
                values = found[:, 0]
                if np.count_nonzero(bad := found[:, 4] >= 0):
                    values[bad] = -np.inf
                return values, grads
        values, grads = np.full(len(thetas), -np.inf), np.zeros(thetas.shape)
        if np.any(together):
            values[together], grads[together] = self._evaluate(thetas[together], which[together])
        for k in np.flatnonzero(~np.broadcast_to(together, len(thetas))):
            try:
                values[k], grads[k] = self.function(which[k])(thetas[k])
            except INFEASIBLE:
                continue
        return values, grads

    def function(self, s: int) -> Callable[[Array], tuple[float, Array]]:
        """What is maximised of problem s: value and gradient of one theta."""
        return self._functions[s] if self._functions else self.problems[s].objective
