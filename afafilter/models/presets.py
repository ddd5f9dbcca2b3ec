"""Ready-made models. Each is a plain function that returns a `LinearSDE`.

`process_var` is always the diffusion (state^2 / time) of the component that the noise drives, and
`obs_var` the variance of one observation; where a model is a summand of another
(`model_a + model_b`), give the noise to one of them and obs_var = 0 to the rest. Rates are in
1/time, frequencies in radian/time. `prior` is that of `LinearSDE`: None means stationary where the
model is stable, else diffuse.

A new one is a function here whose name stands in `__all__`: the face of the package, model files
and the command know it from there. Formulas that families share are in `afafilter.models.blocks`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import LARGEST_DIM, choice, positive_int, scalar
from afafilter.models import blocks
from afafilter.models.priors import PriorLike
from afafilter.models.random_systems import random_stable
from afafilter.models.sde import LinearSDE

__all__ = [
    "brownian",
    "constant_velocity",
    "damped_oscillator",
    "elliptic_spiral",
    "matern",
    "ornstein_uhlenbeck",
    "random_stable",
    "seasonal",
    "spiral",
]


def brownian(
    process_var: float = 1.0, obs_var: float = 1.0, *, dim: int = 1, prior: PriorLike = None
) -> LinearSDE:
    """Brownian motion plus noise, the local level model: dx = sqrt(process_var) dw.

    Parameters
    ----------
    process_var : float
        >= 0, state^2/time.
    obs_var : float
        >= 0, state^2.
    dim : int
        Number of independent components, each observed.

    Raises
    ------
    ValueError, TypeError
        If a variance is negative or not one finite number, or dim is not a whole number >= 1.

    References
    ----------
    Durbin and Koopman, Time Series Analysis by State Space Methods, 2nd ed., ch. 2.

    Examples
    --------
    >>> from afafilter import brownian
    >>> brownian(process_var=0.5, obs_var=2.0).transition(3.0)[2].item()
    1.5
    """
    d = positive_int(dim, "dim", high=LARGEST_DIM)
    q, r = _variances(process_var, obs_var)
    return _model(blocks.axes([blocks.brownian(q)] * d), r, prior, "brownian")


def ornstein_uhlenbeck(
    rate: float = 1.0, *, process_var: float = 1.0, obs_var: float = 1.0, prior: PriorLike = None
) -> LinearSDE:
    """Ornstein-Uhlenbeck process, observed directly: dx = -rate x dt + sqrt(process_var) dw.

    Stationary autocovariance ``process_var / (2 rate) e^{-rate |tau|}``.

    Parameters
    ----------
    rate : float
        > 0, 1/time.
    process_var : float
        >= 0, state^2/time.
    obs_var : float
        >= 0, state^2.

    Raises
    ------
    ValueError, TypeError
        If rate is not positive, a variance negative, or any not one finite number.

    Examples
    --------
    >>> from afafilter import ornstein_uhlenbeck
    >>> ornstein_uhlenbeck(0.5, process_var=2.0).stationary_covariance().item()
    2.0
    """
    mu = scalar(rate, "rate", low=0.0, strict=True)
    q, r = _variances(process_var, obs_var)
    return _model(blocks.ornstein_uhlenbeck(mu, q), r, prior, "ornstein_uhlenbeck")


def matern(
    nu: float = 1.5,
    length: float = 1.0,
    variance: float = 1.0,
    *,
    obs_var: float = 1.0,
    prior: PriorLike = None,
) -> LinearSDE:
    """Gaussian process with Matern covariance, observed directly.

    With ``s = sqrt(2 nu) |tau| / length`` the stationary autocovariance of what is observed is
    variance e^{-s} times 1 (nu = 1/2), 1 + s (nu = 3/2), 1 + s + s^2/3 (nu = 5/2). The state holds
    the process and its first nu - 1/2 derivatives; A is defective, Q singular.

    Parameters
    ----------
    nu : float
        0.5, 1.5 or 2.5, smoothness.
    length : float
        > 0, length scale, time.
    variance : float
        > 0, state^2.
    obs_var : float
        >= 0, state^2.

    Raises
    ------
    ValueError, TypeError
        If nu is another number, length or variance not positive, or obs_var negative.

    References
    ----------
    Rasmussen and Williams, Gaussian Processes for Machine Learning, eq. 4.17; Hartikainen and
    Sarkka, Kalman filtering and smoothing solutions to temporal Gaussian process regression
    models, MLSP 2010.

    Examples
    --------
    >>> from afafilter import matern
    >>> matern().dim
    2
    """
    nu = scalar(nu, "nu")
    if nu not in blocks.NU:
        raise ValueError(f"nu must be 0.5, 1.5 or 2.5, got {nu:g}")
    scale = scalar(length, "length", low=0.0, strict=True)
    var = scalar(variance, "variance", low=0.0, strict=True)
    return _model(blocks.matern(scale, var, nu=nu), _obs(obs_var), prior, "matern")


def constant_velocity(
    process_var: float = 1.0, obs_var: float = 1.0, *, dim: int = 1, prior: PriorLike = None
) -> LinearSDE:
    """Nearly constant velocity: white acceleration, position observed (local linear trend).

    State: the `dim` positions, then the `dim` velocities. A is nilpotent, Q singular.

    Parameters
    ----------
    process_var : float
        >= 0, diffusion of each velocity, position^2/time^3.
    obs_var : float
        >= 0, position^2.
    dim : int
        Number of independent axes.

    Raises
    ------
    ValueError, TypeError
        If a variance is negative or not one finite number, or dim is not a whole number >= 1.

    References
    ----------
    Bar-Shalom, Li and Kirubarajan, Estimation with Applications to Tracking and Navigation,
    sec. 6.2.2.

    Examples
    --------
    >>> from afafilter import constant_velocity
    >>> constant_velocity(process_var=1.0, obs_var=0.5).transition(2.0)[0].tolist()
    [[1.0, 2.0], [0.0, 1.0]]
    """
    d = positive_int(dim, "dim", high=LARGEST_DIM)
    q, r = _variances(process_var, obs_var)
    return _model(blocks.axes([blocks.trend(0.0, q)] * d), r, prior, "constant_velocity")


def damped_oscillator(
    decay: float = 0.1,
    frequency: float = 1.0,
    *,
    process_var: float = 1.0,
    obs_var: float = 1.0,
    prior: PriorLike = None,
) -> LinearSDE:
    """Damped oscillator under a white random force, position observed.

    ::

        x'' + 2 decay x' + (decay^2 + frequency^2) x = sqrt(process_var) white noise

    State: position, velocity. Eigenvalues -decay +- i frequency: `frequency` is that of the free,
    damped oscillation. Stationary variances (decay > 0): process_var / (4 decay (decay^2 +
    frequency^2)) of the position, process_var / (4 decay) of the velocity.

    Parameters
    ----------
    decay : float
        >= 0, 1/time (0: undamped, diffuse prior).
    frequency : float
        > 0, radian/time.
    process_var : float
        >= 0, position^2/time^3.
    obs_var : float
        >= 0, position^2.

    Raises
    ------
    ValueError, TypeError
        If a rate or variance is out of range or not one finite number.

    Examples
    --------
    >>> from afafilter import damped_oscillator
    >>> damped_oscillator().dim
    2
    """
    mu = scalar(decay, "decay", low=0.0)
    w = scalar(frequency, "frequency", low=0.0, strict=True)
    q, r = _variances(process_var, obs_var)
    return _model(blocks.damped_oscillator(mu, w, q), r, prior, "damped_oscillator")


def seasonal(
    period: float,
    harmonics: int = 1,
    *,
    process_var: float = 0.0,
    obs_var: float = 0.0,
    decay: float = 0.0,
    prior: PriorLike = None,
) -> LinearSDE:
    """Slowly changing periodic component, the sum of `harmonics` rotating pairs.

    Harmonic k is a pair that rotates at 2 pi k / period and decays at `decay`; the first component
    of each pair is observed. With process_var = decay = 0 the pattern never changes.

    Parameters
    ----------
    period : float
        > 0, time.
    harmonics : int
        Number of pairs, >= 1.
    process_var : float
        >= 0, diffusion of each component, state^2/time.
    obs_var : float
        >= 0, state^2; 0 by default because this is usually a summand.
    decay : float
        >= 0, 1/time, at which the pattern is forgotten.

    Raises
    ------
    ValueError, TypeError
        If a number is out of range or harmonics is not a whole number.

    References
    ----------
    Harvey, Forecasting, Structural Time Series Models and the Kalman Filter, sec. 2.3.4;
    Solin and Sarkka, Explicit link between periodic covariance functions and state space models,
    AISTATS 2014.

    Examples
    --------
    >>> from afafilter import seasonal
    >>> seasonal(12).obs_dim
    1
    """
    base = 2 * math.pi / scalar(period, "period", low=0.0, strict=True)
    n = positive_int(harmonics, "harmonics", high=LARGEST_DIM)
    mu = scalar(decay, "decay", low=0.0)
    q, r = _variances(process_var, obs_var)
    frequencies = [base * k for k in range(1, n + 1)]
    return _model(blocks.pairs(mu, frequencies, q, damped=mu > 0), r, prior, "seasonal")


def spiral(
    decay: float = 0.1,
    frequency: float = 1.0,
    *,
    process_var: float = 0.3,
    obs_var: float = 0.5,
    prior: PriorLike = None,
) -> LinearSDE:
    """Circular 2-D spiral: eigenvalues -decay +- i frequency, isotropic noises, both observed.

    The elliptical, non-normal spiral of the paper is `elliptic_spiral`.

    Parameters
    ----------
    decay : float
        >= 0, 1/time.
    frequency : float
        radian/time.
    process_var : float
        >= 0, state^2/time.
    obs_var : float
        >= 0, state^2.

    Raises
    ------
    ValueError, TypeError
        If a rate or variance is out of range or not one finite number.

    Examples
    --------
    >>> from afafilter import spiral
    >>> spiral(decay=0.1, frequency=1.0).A.tolist()
    [[-0.1, -1.0], [1.0, -0.1]]
    """
    omega = scalar(frequency, "frequency")
    return LinearSDE.isotropic(decay, omega, process_var=process_var, obs_var=obs_var, prior=prior)


def elliptic_spiral(
    decay: float = 0.1,
    frequency: float = 1.0,
    *,
    process_var: float = 0.3,
    obs_var: float = 0.5,
    noise: str = "eigenbasis",
    prior: PriorLike = None,
) -> LinearSDE:
    """The paper's 2-D system: an elliptical, non-normal spiral, both components observed.

    A = S diag(-decay + i frequency, -decay - i frequency) S^-1 with S = [[1 + i, 1 - i], [1, 1]],
    whose columns are neither orthogonal nor of one length (cond S = 2.6):
    A = -decay I + frequency [[1, -2], [1, -1]], [[0.9, -2], [1, -1.1]] by default.

    Parameters
    ----------
    decay : float
        >= 0, 1/time.
    frequency : float
        radian/time.
    process_var : float
        >= 0, state^2/time.
    obs_var : float
        >= 0, state^2.
    noise : str
        "eigenbasis", noises that are isotropic in the eigenbasis, Q = process_var S S^H and
        R = obs_var S S^H, S S^H = [[4, 2], [2, 2]]: the model is isotropic after whitening by R,
        that is `spiral` in other coordinates; or "data", Q = process_var I and R = obs_var I.

    Raises
    ------
    ValueError, TypeError
        If a rate or variance is out of range or not one finite number, or noise another word.

    References
    ----------
    Racioppo, Attention as an Adaptive Filter, arXiv:2509.04154v6, fig. 1 and sec. 5.

    Examples
    --------
    >>> from afafilter import elliptic_spiral
    >>> elliptic_spiral().A.round(3).tolist()
    [[0.9, -2.0], [1.0, -1.1]]
    """
    choice(noise, "noise", ("eigenbasis", "data"))
    mu = scalar(decay, "decay", low=0.0)
    omega = scalar(frequency, "frequency")
    q, r = _variances(process_var, obs_var)
    A = -mu * np.eye(2) + omega * np.array([[1.0, -2.0], [1.0, -1.0]])  # S diag(+-i) S^-1
    shape = np.array([[4.0, 2.0], [2.0, 2.0]]) if noise == "eigenbasis" else np.eye(2)  # S S^H
    return LinearSDE(A, Q=q * shape, R=r * shape, prior=prior)


def _model(block: blocks.Block, obs_var: float, prior: PriorLike, name: str) -> LinearSDE:
    """The block with white measurement noise, under the name that it has in sums."""
    noise = obs_var * np.eye(len(block.C))
    parts = ((name, len(block.A)),)
    return LinearSDE(block.A, Q=block.Q, R=noise, C=block.C, prior=prior, parts=parts)


def _variances(process_var: ArrayLike, obs_var: ArrayLike) -> tuple[float, float]:
    return scalar(process_var, "process_var", low=0.0), _obs(obs_var)


def _obs(obs_var: ArrayLike) -> float:
    return scalar(obs_var, "obs_var", low=0.0)
