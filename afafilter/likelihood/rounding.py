"""Whether the core's transitions and their derivative are exact enough (core/transition.h)."""

from __future__ import annotations

import numpy as np

from afafilter._base.checks import Array
from afafilter.linalg.transitions import transitions

LARGEST_NORM = 1e4
"""||A|| dt above which the core's Taylor series with doubling is not used."""
TAYLOR_ERROR = 1e-10
"""Largest error of Phi that its doublings may accumulate."""
SAFE_NORM = 16.0
"""||A|| dt up to which the core's doublings are always exact enough."""


def core_suffices(A: Array, longest: float) -> bool:
    """Whether the core's Taylor series is exact enough over steps up to `longest`."""
    norm = float(np.abs(A).sum(axis=0).max()) * longest
    if not SAFE_NORM < norm <= LARGEST_NORM:
        return norm <= SAFE_NORM
    return _doubling_error(A, longest, norm) <= TAYLOR_ERROR


def powers_cancel(A: Array, longest: float) -> bool:
    """Whether doublings lose digits because of the basis, beyond those that growth costs."""
    norm = float(np.abs(A).sum(axis=0).max()) * longest
    if norm <= SAFE_NORM or len(A) == 1:
        return False
    growth = max(0.0, float(np.linalg.eigvals(A).real.max()))
    return _doubling_error(A, longest, norm, growth) > TAYLOR_ERROR


def _doubling_error(A: Array, longest: float, norm: float, growth: float = 0.0) -> float:
    """The largest rounding of Phi by a doubling, over what a mode of rate `growth` gains in it.

    A doubling leaves in Phi^2 a rounding of |Phi| |Phi|, which is larger where these cancel: of
    powers of t in another basis than their own. Counted by tr |Phi|^2, which no units change.
    """
    halves = np.ldexp(longest, -np.arange(int(np.ceil(np.log2(norm)))))
    with np.errstate(over="ignore", invalid="ignore"):
        Phi = np.abs(transitions(A, np.zeros(A.shape), np.zeros(len(A)), halves)[0])
        Phi *= np.exp(-growth * halves)[:, None, None]
        return float(np.finfo(float).eps * np.einsum("kij,kji->k", Phi, Phi).max())
