"""Process noise whose strength follows a known course in time: Q(t) = q(t) Q.

    q(t) = Re sum_j c_j e^{g_j (t - origin)} >= 0      (seasons, bursts, growth, decay)

Propagated covariances are closed in form by exponential convolution,

    V(t0, t1) = int_{t0}^{t1} e^{A (t1 - s)} Q e^{A^T (t1 - s)} q(s) ds
              = Re sum_j c_j e^{g_j (t0 - origin)} X_j(t1 - t0),
    X_j(2h) = e^{Ah} X_j(h) e^{A^T h} + e^{g_j h} X_j(h),

and obey V(t0, t2) = e^{A (t2 - t1)} V(t0, t1) e^{A^T (t2 - t1)} + V(t1, t2). (Racioppo, "Attention
as an Adaptive Filter", arXiv:2509.04154, time-varying noise; the doubling, which works for every A
and never forms e^{-A tau}, is beyond the paper.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from afafilter._base.checks import Array, real_array, scalar, times
from afafilter._base.signatures import assign
from afafilter.linalg import discretiser
from afafilter.models.discrete import DiscreteModel
from afafilter.models.priors import Prior
from afafilter.models.sde import LinearSDE

Complex = NDArray[np.complex128]

_NODES = 12
_SHORT = 0.5  # rate times step at which 12 Gauss-Legendre nodes are exact to rounding


@dataclass(frozen=True, eq=False)
class StructuredNoise:
    """q(t) = Re sum_j amplitudes_j e^{rates_j (t - origin)}.

    Parameters
    ----------
    amplitudes : complex array_like, shape (J,)
        Complex, no unit.
    rates : complex array_like, shape (J,)
        Complex, 1/time (imaginary part: radian/time).
    origin : float
        Time at which the exponentials are 1.

    Raises
    ------
    ValueError, TypeError
        Different lengths, not finite, not numbers.
    """

    amplitudes: Complex
    rates: Complex
    origin: float = 0.0

    def __post_init__(self) -> None:
        for name in ("amplitudes", "rates"):
            try:
                value = np.atleast_1d(np.array(getattr(self, name), dtype=np.complex128))
            except (TypeError, ValueError):
                raise TypeError(f"{name} must be complex numbers") from None
            if value.ndim != 1 or value.size == 0 or not np.isfinite(value).all():
                raise ValueError(f"{name} must be finite and of shape (J,), got {value.shape}")
            assign(self, **{name: value})
        if self.amplitudes.shape != self.rates.shape:
            raise ValueError(
                f"amplitudes and rates must have one shape, got {self.amplitudes.shape} and "
                f"{self.rates.shape}"
            )
        assign(self, origin=scalar(self.origin, "origin"))

    def __call__(self, t: ArrayLike) -> Array:
        """q at times t (...)."""
        lags = real_array(t, "t") - self.origin
        return np.asarray((np.exp(lags[..., None] * self.rates) @ self.amplitudes).real)

    def require_nonnegative(self, start: float, stop: float) -> None:
        """Raise ValueError if q is negative somewhere in [start, stop], naming where."""
        from scipy.optimize import minimize_scalar

        turns = float(np.abs(self.rates).max()) * (stop - start) / (2 * np.pi)
        t = np.linspace(start, stop, int(min(max(64 * turns, 257), 200_000)))
        with np.errstate(over="ignore", invalid="ignore"):
            q = self(t)
        if not np.isfinite(q).all():
            raise ValueError(f"q overflows in [{start:g}, {stop:g}]; give an origin near the data")
        size = np.abs(self.amplitudes) * np.exp(self.rates.real * (t - self.origin)[:, None])
        relative = q / np.maximum(size.sum(1), 1e-300)
        lower = relative[1:-1] <= np.minimum(relative[:-2], relative[2:])
        dips = np.flatnonzero(lower) + 1
        where = np.append(dips, [0, len(t) - 1])
        for k in where[np.argsort(relative[where])][:50]:
            low, high = t[max(k - 1, 0)], t[min(k + 1, len(t) - 1)]
            at = float(t[k])
            if high > low:
                found = minimize_scalar(
                    lambda s: float(self(s)), bounds=(low, high), method="bounded"
                )
                at = at if self(at) < found.fun else float(found.x)
            if float(self(at)) < -1e-12 * size.sum(1)[k]:
                raise ValueError(
                    f"q must be >= 0 from {start:g} to {stop:g}, "
                    f"got q({at:g}) = {float(self(at)):g}"
                )


def structured_covariance(
    model: LinearSDE, noise: StructuredNoise, t0: ArrayLike, t1: ArrayLike
) -> Array:
    """V(t0, t1) (..., d, d): covariance at t1 of a state known at t0 <= t1.

    Parameters
    ----------
    model : LinearSDE
        Its A and Q are used; any A, also defective or stiff.
    noise : StructuredNoise
        The course of Q.
    t0, t1 : array_like, shape (...)
        Times, broadcast together.

    Raises
    ------
    ValueError
        t1 < t0, or q negative between the first t0 and the last t1.

    Notes
    -----
    O(log2(rate tau) J d^3) for every distinct interval. Relative error about 1e-14 normwise.
    """
    start, stop = np.broadcast_arrays(real_array(t0, "t0"), real_array(t1, "t1"))
    if (stop < start).any():
        raise ValueError("t1 must not be before t0")
    if start.size == 0:
        return np.zeros((*start.shape, model.dim, model.dim))
    noise.require_nonnegative(float(start.min()), float(stop.max()))
    lengths, place = np.unique(stop - start, return_inverse=True)
    X = np.stack([_integrals(model.A, model.Q, noise.rates, float(tau)) for tau in lengths])
    phase = noise.amplitudes * np.exp((start - noise.origin)[..., None] * noise.rates)
    V = np.einsum("...j,...jkl->...kl", phase, X[place.reshape(start.shape)]).real
    return np.asarray(0.5 * (V + np.swapaxes(V, -1, -2)))


def structured_model(model: LinearSDE, noise: StructuredNoise, t: ArrayLike) -> DiscreteModel:
    """The exact discrete model on the grid t (T,) for simulation, Kalman filter and smoother.

    ValueError: As `structured_covariance`; a stationary prior, or one at an earlier time than t[0]
    (with changing noise neither is known): give a `Prior` at t[0] or "diffuse".
    """
    grid = times(t)
    settled = isinstance(model.prior, Prior) and model.prior.t0 in (None, grid[0])
    if model.prior != "diffuse" and not settled:
        raise ValueError(
            "prior must be 'diffuse' or a Prior at the first time: with structured noise there is "
            "no stationary law"
        )
    V = structured_covariance(model, noise, np.append(grid[0], grid[:-1]), grid)
    return replace(model.discretize(grid), Q=V)


def _integrals(A: Array, Q: Array, rates: Complex, tau: float) -> Complex:
    """X_j(tau) (J, d, d) = int_0^tau e^{A (tau - s)} Q e^{A^T (tau - s)} e^{g_j s} ds."""
    d = len(A)
    if tau == 0:
        return np.zeros((len(rates), d, d), dtype=complex)
    fastest = max(float(np.linalg.norm(A, 1)), float(np.abs(rates).max()))
    doublings = int(max(0, np.ceil(np.log2(max(fastest * tau / _SHORT, 1.0)))))
    h = tau / 2.0**doublings
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    s = np.asarray(0.5 * h * (nodes + 1), dtype=np.float64)
    still = np.zeros((d, d)), np.zeros(d)
    Phi = discretiser.transition(A, *still, np.asarray(h - s))[0]
    spread = Phi @ Q @ np.swapaxes(Phi, -1, -2)
    X = np.einsum("i,ij,ikl->jkl", 0.5 * h * weights, np.exp(np.outer(s, rates)), spread)
    steps = np.asarray(h * 2.0 ** np.arange(doublings), dtype=np.float64)
    for step, F in zip(steps, discretiser.transition(A, *still, steps)[0], strict=True):
        X = F @ X @ F.T + np.exp(rates * step)[:, None, None] * X
    return np.asarray(X)
