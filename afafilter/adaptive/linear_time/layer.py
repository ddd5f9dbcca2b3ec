"""Plain AFA as a diagonal state-space layer, the form that sequence models are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from afafilter._base.checks import Array, real_array, scalar
from afafilter.adaptive.linear_time.bank import require_isotropic
from afafilter.adaptive.linear_time.sums import plain_weights_exponentials
from afafilter.models.sde import LinearSDE


@dataclass(frozen=True, eq=False)
class StateSpaceLayer:
    """Plain causal AFA as a bank of diagonal linear state-space systems (S4D form).

    Every observation is an impulse: state <- exp(poles dt) * state + B * input. Channel c is the
    complex number of plane c; the last one an odd component, if any::

        numerator_c(t) = sum_j z_c(t_j) K_c(t - t_j),   K_c(tau) = sum_k C_ck e^{poles_ck tau} B_ck
        denominator(t) = sum_j D(t - t_j),              D(tau) = sum_k C_den_k e^{poles_den_k tau}
        output = numerator / denominator.

    Attributes
    ----------
    poles, B, C : ndarray, shape (channels, K)
        Complex.
    denominator_poles, denominator_C : ndarray, shape (K,)
        Complex.
    basis : ndarray, optional
        As in `IsotropicParameters`.
    bound : float
        Relative error of D against 1/Sig, and of the modulus of K_c against E/Sig.
    """

    poles: NDArray[np.complex128]
    B: NDArray[np.complex128]
    C: NDArray[np.complex128]
    denominator_poles: NDArray[np.complex128]
    denominator_C: NDArray[np.complex128]
    basis: Array | None
    bound: float

    def kernel(self, tau: ArrayLike) -> tuple[NDArray[np.complex128], Array]:
        """Kernels at lags tau (L,): numerator (L, channels) complex, denominator (L,)."""
        lags = real_array(tau, "tau")
        modes = np.exp(lags[..., None, None] * self.poles)
        den = np.exp(lags[..., None] * self.denominator_poles) @ self.denominator_C
        return np.einsum("...ck,ck->...c", modes, self.B * self.C), np.asarray(den.real)

    def discretize(self, dt: float) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
        """Diagonal transition factors over dt: numerator (channels, K), denominator (K,)."""
        step = scalar(dt, "dt", low=0.0)
        return np.exp(step * self.poles), np.exp(step * self.denominator_poles)


def state_space_layer(
    model: LinearSDE,
    *,
    anchor_var: float = 0.0,
    horizon: float = np.inf,
    tolerance: float = 2e-10,
) -> StateSpaceLayer:
    """The diagonal state-space layer whose kernels are AFA's plain numerator and denominator.

    Parameters as in `plain_weights_exponentials`; the model must be isotropic.

    Raises
    ------
    ValueError
        As `plain_weights_exponentials`, and when the model is not isotropic.

    Examples
    --------
    >>> from afafilter import spiral, state_space_layer
    >>> state_space_layer(spiral()).bound < 1e-8
    True
    """
    p = require_isotropic(model)
    gamma2 = scalar(anchor_var, "anchor_var", low=0.0)
    weights = plain_weights_exponentials(*p.noise, gamma2, horizon=horizon, tolerance=tolerance)
    turning = weights.rates.imag != 0
    halved = np.where(turning, 0.5, 1.0) * weights.coefficients.astype(complex)
    C = np.concatenate([halved, halved[turning].conj()])
    rates = np.concatenate([weights.rates, weights.rates[turning].conj()]).astype(complex)
    channel = np.append(p.frequency, np.zeros(model.dim % 2))
    poles = -p.decay + 1j * channel[:, None] - rates
    B, every = np.ones_like(poles), np.tile(C, (len(channel), 1))
    return StateSpaceLayer(poles, B, every, -rates, C, p.basis, weights.bound)
