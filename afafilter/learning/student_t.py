"""Fitting with heavy-tailed measurement noise.

Student-t noise is Gaussian noise of covariance R / w_k with w_k ~ Gamma(dof / 2, dof / 2), one w
for all components of an observation. The evidence is bounded below by treating states and weights
as independent (variational Bayes; Agamennoni, Nieto & Nebot, 2012): given the mean weights the
states follow the ordinary smoother with covariance R / w_k, and the weights

    w_k = (dof + p_k) / (dof + E[e_k^T R^-1 e_k]),   e_k = z_k - C x_k - b.

At the best weights the gradient of the bound is that of the Gaussian likelihood (envelope theorem).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from afafilter._base.checks import Array
from afafilter.learning.parameters.base import ExtendedParameters, Parametrisation
from afafilter.learning.problem import Problem
from afafilter.likelihood.loglik import chain_loglik, evaluate, make_chain

ROUNDS = 500
SETTLED = 1e-9
LOWEST_DOF = 0.5
GAUSSIAN_DOF = 1e6
"""From here on the noise counts as Gaussian: the bound differs by less than its rounding."""


class StudentParameters(ExtendedParameters):
    """The parameters of a model and, last, dof^(-1/2): 0 is Gaussian noise, dof = inf."""

    def __init__(self, inner: Parametrisation, start: float) -> None:
        root = np.array([start**-0.5])
        super().__init__(inner, ["dof"], root, root)
        self.positive[-1] = True

    def alternatives(self) -> list[Array]:
        """None: the bound costs many likelihoods, and the first start has to do."""
        return []

    def bounds(self, theta: Array) -> tuple[Array, Array]:
        lower, upper = super().bounds(theta)
        lower[-1], upper[-1] = 0.0, LOWEST_DOF**-0.5
        return lower, upper

    def natural(self, theta: Array) -> Array:
        return np.append(self.inner.natural(theta[:-1]), _dof(theta[-1]))

    def jacobian(self, theta: Array) -> Array:
        out = super().jacobian(theta)
        out[-1, -1] = -2.0 * abs(theta[-1]) ** -3.0 if theta[-1] else 1.0
        return out

    def vanishing(self, theta: Array) -> list[int]:
        last = [len(theta) - 1] if abs(theta[-1]) < 0.1 else []
        return [*super().vanishing(theta), *last]


def _dof(root: float) -> float:
    return float(root**-2) if abs(root) > GAUSSIAN_DOF**-0.5 else np.inf


class StudentBound:
    """The bound as a function of theta; keeps the weights of its last evaluation."""

    def __init__(self, problem: Problem, dof: float | None) -> None:
        self.problem = problem
        self.fixed = dof
        data = problem.data
        self.weights = np.ones((data.n_paths, len(data.t)))
        self._sizes = np.zeros(self.weights.shape)  # observed components p_k
        for group in data.groups:
            self._sizes[group.paths] = group.mask.sum(axis=1)

    def dof(self, theta: Array) -> float:
        """Degrees of freedom at theta."""
        return _dof(theta[-1]) if self.fixed is None else self.fixed

    def __call__(self, theta: Array) -> tuple[float, Array]:
        """Bound and gradient."""
        from scipy.special import digamma, gammaln

        par, base = self.problem.parametrisation, self.problem.data
        dof = self.dof(theta)
        system = par.system(theta)
        if not np.isfinite(dof):
            self.weights = np.ones_like(self.weights)
            value, grads = evaluate(system, base)
            return value, par.pullback(theta, grads)
        weights = self.weights.copy()
        a, a0 = 0.5 * (dof + self._sizes), 0.5 * dof
        for _ in range(ROUNDS):
            data = base.rescaled(1.0 / weights)
            chain, pullback = make_chain(system, data)
            value, grad, moments = chain_loglik(chain, data, keep=True)
            rate = np.full_like(weights, a0)
            for group, m in zip(data.groups, moments, strict=True):
                rate[group.paths[0]] = 0.5 * (dof + _distances(chain.R, group, m))
            new = a / rate
            change = np.abs(np.log(new / weights)).max()
            if change < SETTLED:
                break
            weights = new
        self.weights = weights
        used, rate = self._sizes > 0, a / weights
        mean_log = digamma(a) - np.log(rate)
        divergence = (
            (a - a0) * digamma(a)
            - gammaln(a)
            + gammaln(a0)
            + a0 * (np.log(rate) - np.log(a0))
            + weights * a0
            - a
        )
        value += float((0.5 * self._sizes * (mean_log - np.log(weights)) - divergence)[used].sum())
        out = par.pullback(theta, pullback(grad))
        if self.fixed is None:
            slope = np.log(a0) + 1 - digamma(a0) + mean_log - weights
            out[-1] = -(dof**1.5) * np.sign(theta[-1]) * float(slope[used].sum())
        return value, out


def _distances(R: Array, group: Any, m: Any) -> Array:
    """E[e^T R^-1 e] per time, for a group of one path."""
    observed = group.mask.astype(float)
    size = observed.sum(axis=1)
    full = np.broadcast_to(R, (len(size), *R.shape[1:]))
    u = m.u[:, :, 0]
    fit = np.einsum("ta,tab,tb->t", u, full, u)
    spread = np.einsum("tab,tab->t", full * observed[:, :, None] * observed[:, None, :], m.M)
    return np.asarray(group.scale * size + group.scale**2 * (fit - spread))
