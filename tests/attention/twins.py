"""The kernels of attention as they would be written if speed did not matter: pair by pair."""

from __future__ import annotations

from typing import Any

import numpy as np

from afafilter.attention.recursions import Dynamics
from tests.attention.kernels import Rows


def variance(model: Dynamics, tau: Any) -> Any:
    """S(tau) = V(tau) + var_late + e^{-2 mu tau} var_early, V' = -2 mu V + process_var."""
    mu = model.decay
    V = model.process_var * (tau if mu == 0 else -np.expm1(-2 * mu * tau) / (2 * mu))
    return V + model.var_late + np.exp(-2 * mu * tau) * model.var_early


def squared_distance(model: Dynamics, q: Any, k: Any, tau: float) -> float:
    """|x_late - e^{-mu tau} x_early|^2."""
    late, early = (q, k) if model.query_late else (k, q)
    return float(((late - np.exp(-model.decay * tau) * early) ** 2).sum())


def attend(rows: Rows, model: Dynamics) -> tuple[Any, Any, Any]:
    """num, den and the sum of |weight| |value| that bounds the rounding of num."""
    q, k, v = (np.asarray(x, dtype=float) for x in (rows.q, rows.k, rows.v))
    known = np.asarray(rows.known, dtype=float)
    num, den = np.zeros(rows.num.shape), np.zeros(rows.den.shape)
    size = np.zeros(rows.num.shape)
    for i, now in enumerate(rows.t_query):
        for j in range(rows.low[i], rows.high[i]):
            tau = abs(now - rows.t[j])
            S = variance(model, tau)
            gate = 1.0
            if q.shape[1]:
                d2 = squared_distance(model, q[i], k[j], tau) / S
                gate = (1 + d2 / model.scale) ** -model.exponent
            weight = value = (gate / S) ** model.beta
            if model.query_late:
                value *= np.exp(-model.value_decay * tau)
            else:
                short = tau - rows.lead[i]
                weight *= np.exp(-2 * model.beta * model.decay * short)
                value = weight * np.exp(model.value_decay * short)
            num[i] += value * v[j]
            size[i] += value * np.abs(v[j])
            den[i] += weight * (known[j] if known.shape[1] else 1.0)
    return num, den, size


def rotated(x: Any, t: Any, omega: Any, sign: float) -> Any:
    """Pairs of channels as complex numbers times e^{i sign omega t}."""
    out = np.array(x, dtype=float)
    for k, rate in enumerate(omega):
        z = (out[..., 2 * k] + 1j * out[..., 2 * k + 1]) * np.exp(1j * sign * rate * t)
        out[..., 2 * k], out[..., 2 * k + 1] = z.real, z.imag
    return out
