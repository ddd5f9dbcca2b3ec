"""Compiled recurrence of the sum-of-exponentials estimator (its mathematics: exponentials.py)."""

from typing import Any

import numpy as np

from afafilter._core.jit import njit

NEGLIGIBLE_EXPONENT = 300.0  # e^-300 of a state is dropped: its successors would be denormal


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def sweep(
    rates: Any, coefs: Any, num_rate: float, den_rate: float, t: Any, weight: Any, signal: Any,
    t_query: Any, visible: Any, clock: float, num: Any, den: Any, num_out: Any, den_out: Any,
) -> float:  # fmt: skip
    """Advance the states num (D, K), den (K,) over t, answering each query on the way.

    Query q is answered after observations 0..visible[q]-1; the states stay at the last
    observation's time, which is returned.
    """
    n_terms = rates.size
    factor = np.empty_like(coefs)
    ahead = np.empty_like(coefs)
    known = -1.0
    num_factor = 1.0
    den_factor = 1.0
    o = 0
    for q in range(t_query.size):
        while o < visible[q]:
            dt = t[o] - clock
            if dt != known:
                for k in range(n_terms):
                    if rates[k].real * dt < NEGLIGIBLE_EXPONENT:
                        factor[k] = np.exp(-rates[k] * dt)
                    else:
                        factor[k] = 0.0
                num_factor = np.exp(-num_rate * dt)
                den_factor = np.exp(-den_rate * dt)
                known = dt
            w = weight[o]
            for c in range(num.shape[0]):
                entry = w * signal[o, c]
                for k in range(n_terms):
                    num[c, k] = num_factor * factor[k] * num[c, k] + entry
            for k in range(n_terms):
                den[k] = den_factor * factor[k] * den[k] + w
            clock = t[o]
            o += 1
        dt = t_query[q] - clock
        num_ahead = np.exp(-num_rate * dt)
        den_ahead = np.exp(-den_rate * dt)
        for k in range(n_terms):
            ahead[k] = coefs[k] if dt == 0.0 else coefs[k] * np.exp(-rates[k] * dt)
        for c in range(num.shape[0]):
            total = 0.0
            for k in range(n_terms):
                total += (ahead[k] * num[c, k]).real
            num_out[q, c] = num_ahead * total
        total = 0.0
        for k in range(n_terms):
            total += (ahead[k] * den[k]).real
        den_out[q] = den_ahead * total
    return clock
