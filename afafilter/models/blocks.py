"""Formulas of the ready-made models, once, for presets and for the families that are fitted.

    dx = A x dt + dw,  w of diffusion Q;      z = C x + offset + v,  v ~ N(0, R)

Each function returns the matrices of one model, a `Block`, by plain arithmetic from its
parameters. They may be complex numbers: the tiny imaginary part of one carries the derivative by it
(Squire and Trapp, Using complex variables to estimate derivatives of real functions, SIAM Rev. 40,
1998). Those of blocks that are not affine in them may be arrays (K,): matrices that depend on them
then have a leading axis. Ranges of parameters are checked by those who call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

NU = (0.5, 1.5, 2.5)
"""Smoothness of the Matern covariances that have a state-space form here."""


class Block(NamedTuple):
    """Matrices of one model, its stationary covariance and the directions of a flat start.

    R and offset, None where the model has none, add to those of the other summands.
    """

    A: Any  # (d, d), 1/time
    Q: Any  # (d, d), state^2/time
    C: Any  # (p, d)
    cov: Any  # (d, d), state^2, 0 along flat directions
    flat: Any  # (d, q)
    R: Any = None  # (p, p)
    offset: Any = None  # (p,)


times = np.multiply.outer
"""x M, with the axes of x first."""


def stateless(p: int) -> Block:
    """No state: what remains is measurement noise and offset of p components."""
    none = np.zeros((0, 0))
    return Block(none, none, np.zeros((p, 0)), none, none)


def noise(*obs_var: Any, dim: int = 1) -> Block:
    """R = obs_var I of `dim` components, or diag(obs_var) where there is one for each."""
    if len(obs_var) == 1:
        return stateless(dim)._replace(R=obs_var[0] * np.eye(dim))
    return stateless(dim)._replace(R=np.diag(np.array(obs_var)))


def constant(*level: Any) -> Block:
    """z = level."""
    return stateless(len(level))._replace(offset=np.array(level))


def brownian(q: Any) -> Block:
    """dx = sqrt(q) dw. Durbin and Koopman, Time Series Analysis by State Space Methods, ch. 2."""
    zero, one = np.zeros((1, 1)), np.ones((1, 1))
    return Block(zero, q * one, one, zero, one)


def ornstein_uhlenbeck(rate: Any, q: Any) -> Block:
    """dx = -rate x dt + sqrt(q) dw, autocovariance q / (2 rate) e^{-rate |tau|}."""
    one, none = np.ones((1, 1)), np.zeros((1, 0))
    return Block(times(-rate, one), times(q, one), one, times(q / (2 * rate), one), none)


def trend(level_var: Any, slope_var: Any) -> Block:
    """Level and slope: d(level) = slope dt + sqrt(level_var) dw_1, d(slope) = sqrt(slope_var) dw_2.

    level_var = 0: nearly constant velocity. Bar-Shalom, Li and Kirubarajan, Estimation with
    Applications to Tracking and Navigation, sec. 6.2.2.
    """
    A = np.array([[0.0, 1.0], [0.0, 0.0]])
    Q = np.array([[level_var, 0.0], [0.0, slope_var]])
    return Block(A, Q, np.array([[1.0, 0.0]]), np.zeros((2, 2)), np.eye(2))


def drift_of_pairs(mu: Any, frequencies: Sequence[Any], dim: int | None = None) -> Any:
    """A = -mu I + Omega (dim, dim): pair (2k, 2k + 1) turns by frequencies[k], radian/time."""
    d = 2 * len(frequencies) if dim is None else dim
    A = times(-mu + 0.0 * sum(frequencies), np.eye(d))
    for k, w in enumerate(frequencies):
        A[..., 2 * k, 2 * k + 1], A[..., 2 * k + 1, 2 * k] = -w, w
    return A


def pairs(mu: Any, frequencies: Sequence[Any], q: Any, *, damped: bool = True) -> Block:
    """Rotating pairs with isotropic noise, seen through the sum of their first components.

    damped: a stationary start with covariance q / (2 mu) I; otherwise a flat one. One pair: the
    stochastic cycle of Harvey, Forecasting, Structural Time Series Models and the Kalman Filter,
    sec. 2.3.4; harmonics of one frequency: his trigonometric seasonal.
    """
    A = drift_of_pairs(mu, frequencies)
    d, eye = 2 * len(frequencies), np.eye(2 * len(frequencies))
    C = np.array([[1.0, 0.0] * len(frequencies)])
    if damped:
        return Block(A, times(q, eye), C, times(q / (2 * mu), eye), np.zeros((d, 0)))
    return Block(A, times(q, eye), C, np.zeros((d, d)), eye)


def isotropic(mu: Any, w: Any, q: Any, *, dim: int = 2) -> Block:
    """A = -mu I + rotations by w of all pairs, Q = q I, every component observed; stationary.

    Racioppo, Attention as an Adaptive Filter, arXiv:2509.04154, sec. 4.
    """
    eye = np.eye(dim)
    A = drift_of_pairs(mu, [w] * (dim // 2), dim)
    return Block(A, times(q, eye), eye, times(q / (2 * mu), eye), np.zeros((dim, 0)))


def damped_oscillator(mu: Any, w: Any, q: Any) -> Block:
    """x'' + 2 mu x' + (mu^2 + w^2) x = sqrt(q) white noise; eigenvalues -mu +- i w.

    Stationary variances q / (4 mu (mu^2 + w^2)) of the position, q / (4 mu) of the velocity; at
    mu = 0 there is no stationary law, and the start is flat.
    """
    stiffness = mu**2 + w**2
    first, last = np.diag([1.0, 0.0]), np.diag([0.0, 1.0])
    A = np.eye(2, k=1) - times(stiffness, np.eye(2, k=-1)) - times(2 * mu, last)
    Q, C = times(q, last), np.array([[1.0, 0.0]])
    if np.ndim(mu) == 0 and mu == 0:
        return Block(A, Q, C, np.zeros((2, 2)), np.eye(2))
    speed = q / (4 * mu)
    cov = times(speed / stiffness, first) + times(speed, last)
    return Block(A, Q, C, cov, np.zeros((2, 0)))


def matern(length: Any, var: Any, *, nu: float) -> Block:
    """Matern covariance: the process and its first nu - 1/2 derivatives.

    (d/dt + lam)^{nu + 1/2} x = white noise, lam = sqrt(2 nu) / length. Rasmussen and Williams,
    Gaussian Processes for Machine Learning, eq. 4.17; Hartikainen and Sarkka, Kalman filtering and
    smoothing solutions to temporal Gaussian process regression models, MLSP 2010.
    """
    order = int(nu - 0.5)
    d = order + 1
    lam = math.sqrt(2 * nu) / length
    A = np.eye(d, k=1) + times(0.0 * lam, np.ones((d, d)))
    for k in range(d):
        A[..., -1, k] = -math.comb(d, k) * lam ** (d - k)
    Q, P = (times(0.0 * lam * var, np.ones((d, d))) for _ in range(2))
    ratio = math.factorial(order) ** 2 / math.factorial(2 * order)
    Q[..., -1, -1] = var * ratio * (2 * lam) ** (2 * order + 1)
    P[..., 0, 0] = var
    if d == 2:
        P[..., 1, 1] = lam**2 * var
    elif d == 3:
        P[..., 1, 1], P[..., 2, 2] = lam**2 / 3 * var, lam**4 * var
        P[..., 0, 2] = P[..., 2, 0] = -(lam**2) / 3 * var
    return Block(A, Q, np.eye(1, d), P, np.zeros((d, 0)))


def axes(blocks: Sequence[Block]) -> Block:
    """Models of one kind, one for each axis of space, each seeing its own: the first states of all
    axes come first, then the second ones.
    """
    n = len(blocks)

    def each(name: str) -> Any:
        parts = np.broadcast_arrays(*(getattr(block, name) for block in blocks))
        rows, columns = parts[0].shape[-2:]
        shape = *parts[0].shape[:-2], rows * n, columns * n
        whole = np.zeros(shape, np.result_type(float, *parts))
        for i, part in enumerate(parts):
            whole[..., i::n, i::n] = part
        return whole

    flat = np.kron(blocks[0].flat, np.eye(n))
    return Block(each("A"), each("Q"), each("C"), each("cov"), flat)
