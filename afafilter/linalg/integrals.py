"""The integral of an exponential: noise, drift and inputs of linear dynamics all come from it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from afafilter._base.checks import Array

_STILL = 1e-290
"""|rate tau| below which the integral is tau to rounding (and its quotient would lose digits)."""

_LARGE = 700.0
"""|rate tau| up to which Python's own numbers, which refuse to overflow, do for single ones."""


def exponential_integral(rate: Any, tau: Any) -> Any:
    """int_0^tau e^{rate s} ds = (e^{rate tau} - 1) / rate, and tau where rate = 0.

    With rate = -2 mu it is (1 - e^{-2 mu tau}) / (2 mu), the variance that isotropic dynamics of
    decay mu gather in a time tau from noise of unit intensity.

    Parameters
    ----------
    rate, tau : array_like
        Real or complex rates (1/time) and times, broadcast against each other.

    Returns
    -------
    ndarray (a float, of two floats)
        Relative error of a few eps; overflows to inf where the integral does.
    """
    if type(rate) is float and type(tau) is float and abs(rate * tau) < _LARGE:
        x = rate * tau
        return tau if abs(x) < _STILL else math.expm1(x) / rate
    x = np.multiply(rate, tau)
    still = np.abs(x) < _STILL
    return np.where(still, tau, np.expm1(x) / np.where(still, 1.0, rate))


def augmented(A: Array) -> tuple[Array, Array, Array]:
    """[[A, I], [0, 0]] without noise and drift: over h it gives [[e^{A h}, Gamma(h)], [0, I]].

    Gamma(h) = int_0^h e^{A s} ds (Van Loan, IEEE Trans. Automat. Contr. 23 (1978) 395-404).
    """
    d = len(A)
    whole = np.zeros((2 * d, 2 * d))
    whole[:d, :d], whole[:d, d:] = A, np.eye(d)
    return whole, np.zeros((2 * d, 2 * d)), np.zeros(2 * d)
