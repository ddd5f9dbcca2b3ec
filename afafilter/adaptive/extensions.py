"""Extensions that the paper names: forecasts, banks of heads, the confidence gate.

Source: Racioppo, "Attention as an Adaptive Filter", arXiv:2509.04154, the sections on extensions.
Others live where they belong: drift, observation bias and delay are arguments of `LinearSDE`;
structured noise is in `structured`; the separable kernel, the recursive batch MLE and the
state-space layer in `linear_time`; draws of the latent state are `Estimate.sample`, from the true
covariance with `theory.calibrated(adaptive_filter)(...).sample(n, rng)`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, observations, real_array, scalar
from afafilter.adaptive.estimators import adaptive_filter
from afafilter.models.sde import LinearSDE
from afafilter.results import Estimate


def adaptive_forecast(
    model: LinearSDE, t: ArrayLike, z: ArrayLike, horizon: float, **options: Any
) -> Estimate:
    """AFA prediction of x(t_i + horizon) from the observations up to t_i, for every i.

    Every observation is pulled to t_i + horizon instead of t_i, with the process noise of the
    longer way: the claimed covariance is inflated accordingly.

    Parameters
    ----------
    model, t, z, options
        As in `adaptive_filter` (no query_times: there, times after the data
        already are forecasts from all of it).
    horizon : float
        h >= 0, time.

    Returns
    -------
    Estimate
        t is the time predicted, t_i + h.

    Raises
    ------
    ValueError, TypeError
        horizon negative, query_times given; as `adaptive_filter`.

    Examples
    --------
    >>> from afafilter import adaptive_forecast, simulate, spiral
    >>> data = simulate(spiral(), [0.1 * k for k in range(50)], rng=0)
    >>> adaptive_forecast(spiral(), data.t, data.z, horizon=0.5).mean.shape
    (1, 50, 2)
    """
    ahead = scalar(horizon, "horizon", low=0.0)
    if options.get("query_times") is not None:
        raise ValueError("query_times must be left out: every t + horizon is predicted")
    found = adaptive_filter(replace(model, delay=model.delay + ahead), t, z, **options)
    return replace(found, t=found.t + ahead, label=f"{found.label} forecast")


class HeadBank(NamedTuple):
    """Decays (H,) and frequencies (H, n) of H heads, named like `isotropic_attention`'s arguments.

    `isotropic_attention(q, k, v, t, **bank._asdict(), process_var=..., key_var=...)` runs all heads
    at once on q, k, v of shape (..., H, N, d).
    """

    decay: Array
    frequency: Array

    def models(self, process_var: float, obs_var: float) -> list[LinearSDE]:
        """The isotropic model of every head."""
        return [
            LinearSDE.isotropic(mu, omega, process_var=process_var, obs_var=obs_var)
            for mu, omega in zip(self.decay, self.frequency, strict=True)
        ]


def spectral_bank(frequency: ArrayLike, ratio: float) -> HeadBank:
    """Spectrally coupled heads: each decays in proportion to its fastest rotation.

    ``mu_h = ratio * max_n |omega_hn|``: slow heads remember long, fast heads are local, all
    of the same quality factor.

    Parameters
    ----------
    frequency : array_like, shape (H, n)
        Rotation rates, radian/time.
    ratio : float
        b >= 0.

    Raises
    ------
    ValueError, TypeError
        Wrong shape, negative ratio, not finite.

    Examples
    --------
    >>> from afafilter import spectral_bank
    >>> spectral_bank([[1.0, 0.5], [0.25, 0.125]], ratio=0.1).decay.tolist()
    [0.1, 0.025]
    """
    omega = real_array(frequency, "frequency")
    if omega.ndim != 2 or omega.size == 0:
        raise ValueError(f"frequency must have shape (H, n), got {omega.shape}")
    b = scalar(ratio, "ratio", low=0.0)
    return HeadBank(b * np.abs(omega).max(axis=1), omega)


class Gated(NamedTuple):
    """Output (..., T, d) and gate (..., T) in [0, 1]."""

    output: Array
    gate: Array


def confidence_gate(
    estimate: Estimate, z: ArrayLike, *, prior_precision: float, sharpness: float = 1.0
) -> Gated:
    """Mix estimate and observation by the evidence that the estimate rests on.

    ::

        out_i = g_i zbar_i + (1 - g_i) z_i,   g_i = sigmoid(s (log p_i - log p_prior))

    with p_i = sum_j w_ij P_ij, the scalar total precision: d / trace of the claimed covariance,
    which is exact for isotropic models.

    Parameters
    ----------
    estimate : Estimate
        Of AFA, with C = identity.
    z : array_like, shape (..., T, d)
        The observations on its times.
    prior_precision : float
        p_prior > 0, precision at which the two count alike.
    sharpness : float
        s >= 0.

    Returns
    -------
    Gated
        An undetermined estimate has gate 0, a missing observation gate 1 (in the output; the
        gate returned is that of the formula).

    Raises
    ------
    ValueError
        Wrong shapes, prior_precision <= 0, sharpness < 0.

    Examples
    --------
    >>> from afafilter import adaptive_filter, confidence_gate, simulate, spiral
    >>> data = simulate(spiral(), [0.1 * k for k in range(50)], rng=0)
    >>> found = adaptive_filter(spiral(), data.t, data.z)
    >>> confidence_gate(found, data.z, prior_precision=2.0).gate.shape
    (1, 50)
    """
    from scipy.special import expit

    d = estimate.mean.shape[-1]
    data = observations(z, len(estimate.t), d)
    prior = scalar(prior_precision, "prior_precision", low=0.0, strict=True)
    s = scalar(sharpness, "sharpness", low=0.0)
    variance = np.trace(estimate.cov, axis1=-2, axis2=-1) / d
    known = np.isfinite(variance)
    with np.errstate(divide="ignore"):
        evidence = -np.log(np.where(known, variance, 1.0)) - np.log(prior)
    gate = np.where(known, expit(s * np.minimum(evidence, 1e300)), 0.0)
    g = gate[..., None]
    mixed = g * np.where(known[..., None], estimate.mean, 0.0) + (1 - g) * data
    output = np.where(np.isnan(data), estimate.mean, mixed)
    return Gated(np.asarray(output), np.asarray(gate))
