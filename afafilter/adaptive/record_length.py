"""How long a record may be before plain AFA forgets what it is estimating.

With decay mu > 0 an observation of lag tau >> 1/mu, pulled forward, is zero and claims

    P_inf = 1 / (sigma^2 / (2 mu) + gamma^2)

however old it is. About M = 1 / (mu dt) observations know more than that, with precisions P_j =
1 / (V(tau_j) + eta^2 e^{-2 mu tau_j} + gamma^2); the others are as many as the record is long, and
in the end they outvote those: the estimate tends to the stationary mean. Beyond the paper. Symbols:
mu decay, sigma^2 process_var, eta^2 obs_var, gamma^2 anchor_var, beta inverse_temperature.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, real_array, scalar
from afafilter._base.remembered import remembered
from afafilter.adaptive.forms import Isotropic, isotropic_form
from afafilter.linalg.integrals import exponential_integral
from afafilter.models.sde import LinearSDE

MOST_LAGS = 10_000_000
"""Lags that are summed one by one."""
FORGOTTEN = 20.0
"""Lags beyond this many memories 1/mu know nothing (e^{-2 mu tau} < 1e-17)."""
TOO_LONG = 2.0
"""Error of a record over that of its best window, from which a warning is given."""


class LongRecordWarning(UserWarning):
    """A record so long that plain AFA estimates the stationary mean instead of the state."""


class _Kernel(NamedTuple):
    """What the weights and errors of plain isotropic AFA on equal steps depend on."""

    mu: float
    sigma2: float
    eta2: float
    gamma2: float
    dt: float
    beta: float

    def memory(self) -> float:
        """Number of observations that know anything."""
        if self.mu > 0:
            return 1.0 / (self.mu * self.dt)
        if self.sigma2 == 0:
            return np.inf
        return (self.eta2 + self.gamma2) / (self.sigma2 * self.dt)


def warn_if_long(
    model: LinearSDE, form: Isotropic, t: Array, n_seen: int, inverse_temperature: float
) -> None:
    """Warn where n_seen observations at times t are beyond the critical length, and worse for it.

    The length is counted at the mean step of the record; worse: the closed-form error of plain
    weights at its end is at least `TOO_LONG` times that of the best window. Robust weights do not
    mend it: of old observations nothing is left that could lie far off.
    """
    span = float(t[-1] - t[0]) if len(t) > 1 else 0.0
    if span == 0 or n_seen < 2:
        return
    noise = form.parameters.noise
    kernel = _Kernel(*noise, form.anchor_var, span / (n_seen - 1), inverse_temperature)
    if n_seen <= kernel.memory():
        return
    found = remembered(model, ("too long", n_seen, kernel), lambda: _too_long(kernel, n_seen))
    if found is not None:
        warnings.warn(LongRecordWarning(found), stacklevel=_outside())


def _too_long(kernel: _Kernel, n: int) -> str | None:
    critical = _critical(kernel)
    if n <= critical:
        return None
    last = min(n, MOST_LAGS)
    lengths: Array = np.unique(np.append(np.geomspace(1, last, 40).round(), last))
    error = _error(kernel, lengths)
    best = int(np.argmin(error))
    if error[-1] < TOO_LONG * error[best]:
        return None
    return (
        f"{n} observations are more than plain AFA can use (critical length {critical:.0f}): old "
        "ones, of which nothing is left, outvote the recent ones, and the error at the end is "
        f"{error[-1] / error[best]:.1f} times that of window={lengths[best]:.0f}. Give a window, "
        "raise inverse_temperature (theory.length_error tells how far), or take the Kalman filter"
    )


def _outside() -> int:
    """Level of the first caller outside this package."""
    import sys

    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("afafilter."):
        level, frame = level + 1, frame.f_back
    return level


def critical_length(
    model: LinearSDE, dt: float, inverse_temperature: float = 1.0, *, anchor_var: float = 0.0
) -> float:
    """Number of observations from which those that know nothing outweigh all others.

    Older observations than the memory M = 1 / (mu dt) weigh P_inf^beta each, the others P_j^beta::

        N* = M + sum_{j < M} (P_j / P_inf)^beta,     of the order M (P_0 / P_inf)^beta.

    Without decay (mu = 0) the memory is the lag at which process noise has grown to the measurement
    noise, M = (eta^2 + gamma^2) / (sigma^2 dt); for beta > 1 the weights are summable and no length
    is critical, for beta <= 1 N* is where what is older than M has half of the weight.

    Parameters
    ----------
    model : LinearSDE
        LinearSDE that isotropic AFA accepts.
    dt : float
        > 0, time between observations.
    inverse_temperature : float
        beta > 0 of `adaptive_filter`.
    anchor_var : float
        gamma^2 >= 0.

    Returns
    -------
    float
        Number of observations; inf where no length is critical: beta > 1 without decay, or no
        process noise and no anchor noise (then old observations know everything, or weigh nothing).

    Raises
    ------
    ValueError
        A model that is not isotropic; dt or inverse_temperature not > 0.

    Examples
    --------
    >>> from afafilter import spiral, theory
    >>> theory.critical_length(spiral(), 0.1) > 10
    True
    """
    return _critical(_checked(model, dt, inverse_temperature, anchor_var))


def length_error(
    model: LinearSDE,
    dt: float,
    lengths: ArrayLike,
    inverse_temperature: float = 1.0,
    *,
    anchor_var: float = 0.0,
) -> Array:
    """Root mean squared error per component of plain AFA at the end of records of these lengths.

    ::

        MSE / d = sum_j V(tau_j) (c_j^2 - c_{j-1}^2) + sum_j W_j^2 eta^2 e^{-2 mu tau_j}

    with W_j proportional to P_j^beta and c_j their running sum, the oldest first: the closed form
    for the flat prior (`isotropic_mse`), at the last of N equal steps. What is older than 20 / mu
    is alike and summed at once, so that N may be anything.

    Parameters
    ----------
    model, dt, inverse_temperature, anchor_var
        As for `critical_length`.
    lengths : array_like, shape (k,)
        Numbers of observations, >= 1.

    Returns
    -------
    ndarray, shape (k,)
        RMSE, units of the state (of the whitened state for a model that is isotropic there).

    Raises
    ------
    ValueError
        As for `critical_length`; lengths below 1, or more lags than can be summed one by one.

    Examples
    --------
    >>> from afafilter import spiral, theory
    >>> errors = theory.length_error(spiral(), 0.1, [64, 4096])
    >>> bool(errors[1] > errors[0])
    True
    """
    kernel = _checked(model, dt, inverse_temperature, anchor_var)
    N = real_array(lengths, "lengths")
    if N.ndim != 1 or (N < 1).any():
        raise ValueError("lengths must have shape (k,) and be at least 1")
    return _error(kernel, N)


def _critical(kernel: _Kernel) -> float:
    """`critical_length` of a kernel."""
    mu, sigma2, eta2, gamma2, dt, beta = kernel
    memory = kernel.memory()
    if mu == 0:
        if sigma2 == 0 or beta > 1:
            return np.inf
        if beta == 1:  # int_0^N dj / (1 + j / M): log(1 + N / M) = 2 log 2
            return 3.0 * memory
        a = 1.0 - beta  # (1 + N / M)^a - 1 = 2 (2^a - 1)
        return float(memory * ((2.0 ** (a + 1.0) - 1.0) ** (1.0 / a) - 1.0))
    floor = sigma2 / (2 * mu) + gamma2
    if floor == 0:
        return np.inf
    lags: Array = dt * np.arange(float(min(int(np.ceil(memory)), MOST_LAGS)))
    variance = sigma2 * exponential_integral(-2 * mu, lags) + eta2 * np.exp(-2 * mu * lags) + gamma2
    return float(memory + ((floor / variance) ** beta).mean() * max(memory, 1.0))


def _error(kernel: _Kernel, N: Array) -> Array:
    """`length_error` of a kernel."""
    mu, sigma2, eta2, gamma2, dt, beta = kernel
    near = int(N.max()) if mu == 0 else int(min(np.ceil(FORGOTTEN / (mu * dt)) + 1, N.max()))
    if near > MOST_LAGS:
        raise ValueError(f"lengths and memory need {near} lags, at most {MOST_LAGS} can be summed")
    lags: Array = dt * np.arange(float(near))
    V = sigma2 * exponential_integral(-2 * mu, lags)
    shown = eta2 * np.exp(-2 * mu * lags)
    base = V + shown + gamma2
    if base.min() == 0:
        raise ValueError("obs_var + anchor_var must be > 0: the precision at lag 0 is infinite")
    w = (base.min() / base) ** beta  # the largest is 1
    younger = np.append(0.0, np.cumsum(w))  # weight of the first k lags
    error = np.append(0.0, np.cumsum(w**2 * shown))
    out = np.empty(len(N))
    for i, n in enumerate(N):
        k = min(int(n), near)
        old = (int(n) - k) * w[-1]
        total = younger[k] + old
        # c_j^2 - c_{j-1}^2 from the oldest on, in terms of the weight of what is younger.
        older = total - younger[: k + 1]
        shared = (V[:k] * (older[:-1] ** 2 - older[1:] ** 2)).sum() + V[-1] * old**2
        out[i] = (shared + error[k]) / total**2
    return np.sqrt(out)


def _checked(model: LinearSDE, dt: float, inverse_temperature: float, anchor_var: float) -> _Kernel:
    form = isotropic_form(model, None)
    if form is None:
        raise ValueError(
            "critical lengths need an isotropic model: A = -decay I + rotation, Q and R multiples "
            "of I, as LinearSDE.isotropic makes it"
        )
    step = scalar(dt, "dt", low=0.0, strict=True)
    beta = scalar(inverse_temperature, "inverse_temperature", low=0.0, strict=True)
    gamma2 = scalar(anchor_var, "anchor_var", low=0.0)
    return _Kernel(*form.parameters.noise, gamma2, step, beta)
