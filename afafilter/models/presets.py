"""Ready-made models. Each is a plain function that returns a `LinearSDE`.

`process_var` is always the diffusion (state^2 / time) of the component that the noise drives, and
`obs_var` the variance of one observation; where a model is a summand of another
(`model_a + model_b`), give the noise to one of them and obs_var = 0 to the rest. Rates are in
1/time, frequencies in radian/time. `prior` is that of `LinearSDE`: None means stationary where the
model is stable, else diffuse.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import positive_int, scalar
from afafilter.models.priors import PriorLike
from afafilter.models.sde import LinearSDE


def brownian(
    process_var: float = 1.0, obs_var: float = 1.0, *, dim: int = 1, prior: PriorLike = None
) -> LinearSDE:
    """Brownian motion plus noise, the local level model: dx = sqrt(process_var) dw.

    Parameters
    ----------
    process_var : >= 0, state^2/time. obs_var : >= 0, state^2.
    dim : number of independent components, each observed.

    Raises
    ------
    ValueError, TypeError
        If a variance is negative or not one finite number, or dim is not a whole number >= 1.

    References
    ----------
    Durbin and Koopman, Time Series Analysis by State Space Methods, 2nd ed., ch. 2.
    """
    d = positive_int(dim, "dim")
    q, r = _variances(process_var, obs_var)
    return LinearSDE(np.zeros((d, d)), q * np.eye(d), r * np.eye(d), prior=prior)


def ornstein_uhlenbeck(
    rate: float = 1.0, *, process_var: float = 1.0, obs_var: float = 1.0, prior: PriorLike = None
) -> LinearSDE:
    """Ornstein-Uhlenbeck process, observed directly: dx = -rate x dt + sqrt(process_var) dw.

    Stationary autocovariance process_var / (2 rate) e^{-rate |tau|}.

    Parameters
    ----------
    rate : > 0, 1/time. process_var : >= 0, state^2/time. obs_var : >= 0, state^2.

    Raises
    ------
    ValueError, TypeError
        If rate is not positive, a variance negative, or any not one finite number.
    """
    mu = scalar(rate, "rate", low=0.0, strict=True)
    q, r = _variances(process_var, obs_var)
    return LinearSDE([[-mu]], [[q]], [[r]], prior=prior)


def matern(
    nu: float = 1.5,
    length: float = 1.0,
    variance: float = 1.0,
    *,
    obs_var: float = 1.0,
    prior: PriorLike = None,
) -> LinearSDE:
    """Gaussian process with Matern covariance, observed directly.

    With s = sqrt(2 nu) |tau| / length the stationary autocovariance of the observed component is
    variance e^{-s} times 1 (nu = 1/2), 1 + s (nu = 3/2), 1 + s + s^2/3 (nu = 5/2). The state holds
    the process and its first nu - 1/2 derivatives; A is defective, Q singular.

    Parameters
    ----------
    nu : 0.5, 1.5 or 2.5, smoothness.
    length : > 0, length scale, time. variance : > 0, state^2. obs_var : >= 0, state^2.

    Raises
    ------
    ValueError, TypeError
        If nu is another number, length or variance not positive, or obs_var negative.

    References
    ----------
    Rasmussen and Williams, Gaussian Processes for Machine Learning, eq. 4.17; Hartikainen and
    Sarkka, Kalman filtering and smoothing solutions to temporal Gaussian process regression
    models, MLSP 2010.
    """
    nu = scalar(nu, "nu")
    if nu not in (0.5, 1.5, 2.5):
        raise ValueError(f"nu must be 0.5, 1.5 or 2.5, got {nu:g}")
    lam = math.sqrt(2 * nu) / scalar(length, "length", low=0.0, strict=True)
    var = scalar(variance, "variance", low=0.0, strict=True)
    order = int(nu - 0.5)
    d = order + 1
    A = np.eye(d, k=1)
    A[-1] = [-math.comb(d, k) * lam ** (d - k) for k in range(d)]
    Q = np.zeros((d, d))
    ratio = math.factorial(order) ** 2 / math.factorial(2 * order)
    Q[-1, -1] = var * ratio * (2 * lam) ** (2 * order + 1)
    return LinearSDE(A, Q, [[_obs(obs_var)]], C=np.eye(1, d), prior=prior)


def constant_velocity(
    process_var: float = 1.0, obs_var: float = 1.0, *, dim: int = 1, prior: PriorLike = None
) -> LinearSDE:
    """Nearly constant velocity: white acceleration, position observed (local linear trend).

    State: the `dim` positions, then the `dim` velocities. A is nilpotent, Q singular.

    Parameters
    ----------
    process_var : >= 0, diffusion of each velocity, position^2/time^3.
    obs_var : >= 0, position^2.
    dim : number of independent axes.

    Raises
    ------
    ValueError, TypeError
        If a variance is negative or not one finite number, or dim is not a whole number >= 1.

    References
    ----------
    Bar-Shalom, Li and Kirubarajan, Estimation with Applications to Tracking and Navigation,
    sec. 6.2.2.
    """
    eye = np.eye(positive_int(dim, "dim"))
    q, r = _variances(process_var, obs_var)
    A = np.kron(np.eye(2, k=1), eye)
    Q = np.kron(np.diag([0.0, q]), eye)
    return LinearSDE(A, Q, r * eye, C=np.kron([1.0, 0.0], eye), prior=prior)


def damped_oscillator(
    decay: float = 0.1,
    frequency: float = 1.0,
    *,
    process_var: float = 1.0,
    obs_var: float = 1.0,
    prior: PriorLike = None,
) -> LinearSDE:
    """Damped oscillator under a white random force, position observed.

        x'' + 2 decay x' + (decay^2 + frequency^2) x = sqrt(process_var) white noise

    State: position, velocity. Eigenvalues -decay +- i frequency: `frequency` is that of the free,
    damped oscillation. Stationary variances (decay > 0): process_var / (4 decay (decay^2 +
    frequency^2)) of the position, process_var / (4 decay) of the velocity.

    Parameters
    ----------
    decay : >= 0, 1/time (0: undamped, diffuse prior). frequency : > 0, radian/time.
    process_var : >= 0, position^2/time^3. obs_var : >= 0, position^2.

    Raises
    ------
    ValueError, TypeError
        If a rate or variance is out of range or not one finite number.
    """
    mu = scalar(decay, "decay", low=0.0)
    w = scalar(frequency, "frequency", low=0.0, strict=True)
    q, r = _variances(process_var, obs_var)
    A = np.array([[0.0, 1.0], [-(mu**2 + w**2), -2 * mu]])
    return LinearSDE(A, np.diag([0.0, q]), [[r]], C=[[1.0, 0.0]], prior=prior)


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
    period : > 0, time. harmonics : number of pairs, >= 1.
    process_var : >= 0, diffusion of each component, state^2/time.
    obs_var : >= 0, state^2; 0 by default because this is usually a summand.
    decay : >= 0, 1/time, at which the pattern is forgotten.

    Raises
    ------
    ValueError, TypeError
        If a number is out of range or harmonics is not a whole number.

    References
    ----------
    Harvey, Forecasting, Structural Time Series Models and the Kalman Filter, sec. 2.3.4;
    Solin and Sarkka, Explicit link between periodic covariance functions and state space models,
    AISTATS 2014.
    """
    base = 2 * math.pi / scalar(period, "period", low=0.0, strict=True)
    n = positive_int(harmonics, "harmonics")
    rotation = LinearSDE.isotropic(
        decay, base * np.arange(1, n + 1), process_var=process_var, obs_var=0.0
    )
    C = np.tile([[1.0, 0.0]], n)
    return LinearSDE(rotation.A, rotation.Q, [[_obs(obs_var)]], C=C, prior=prior)


def spiral(
    decay: float = 0.1,
    frequency: float = 1.0,
    *,
    process_var: float = 0.3,
    obs_var: float = 0.5,
    prior: PriorLike = None,
) -> LinearSDE:
    """The paper's 2-D system: eigenvalues -decay +- i frequency, isotropic noises, both observed.

    Parameters
    ----------
    decay : >= 0, 1/time. frequency : radian/time.
    process_var : >= 0, state^2/time. obs_var : >= 0, state^2.

    Raises
    ------
    ValueError, TypeError
        If a rate or variance is out of range or not one finite number.

    References
    ----------
    Racioppo, Attention as an Adaptive Filter, arXiv:2509.04154, fig. 1.
    """
    omega = scalar(frequency, "frequency")
    return LinearSDE.isotropic(decay, omega, process_var=process_var, obs_var=obs_var, prior=prior)


def random_stable(
    dim: int,
    obs_dim: int | None = None,
    *,
    rng: np.random.Generator,
    slowest: float = 0.3,
    process_var: float = 1.0,
    obs_var: float = 1.0,
    prior: PriorLike = None,
) -> LinearSDE:
    """A random stable model with full A, Q, R and C, for tests and studies.

    A is a Gaussian matrix with eigenvalues in a disc of radius about 1, shifted so that the slowest
    mode decays at `slowest`. Q and R are Wishart-like with mean variances process_var and obs_var.

    Parameters
    ----------
    dim : d >= 1. obs_dim : p >= 1; None: d observations through C = identity.
    rng : source of randomness.
    slowest : > 0, 1/time. process_var : >= 0, state^2/time. obs_var : >= 0.

    Raises
    ------
    ValueError, TypeError
        If a number is out of range, or rng is not a Generator.
    """
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, got {rng!r}")
    d = positive_int(dim, "dim")
    p = d if obs_dim is None else positive_int(obs_dim, "obs_dim")
    rate = scalar(slowest, "slowest", low=0.0, strict=True)
    q, r = _variances(process_var, obs_var)
    A = rng.standard_normal((d, d)) / math.sqrt(d)
    A -= (np.linalg.eigvals(A).real.max() + rate) * np.eye(d)
    B = rng.standard_normal((d, d))
    E = rng.standard_normal((p, p))
    C = None if obs_dim is None else rng.standard_normal((p, d))
    return LinearSDE(
        A, q * B @ B.T / d, 0.5 * r * (E @ E.T / p + np.eye(p)), C=C, prior=prior
    )  # fmt: skip


def _variances(process_var: ArrayLike, obs_var: ArrayLike) -> tuple[float, float]:
    return scalar(process_var, "process_var", low=0.0), _obs(obs_var)


def _obs(obs_var: ArrayLike) -> float:
    return scalar(obs_var, "obs_var", low=0.0)
