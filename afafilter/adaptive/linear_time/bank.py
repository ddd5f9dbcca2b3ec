"""The machinery of linear-time AFA: the bank of recurrences, the FFT, and the isotropic form.

Signals are (P, T, d): P paths that miss the same rows, components in planes (2k, 2k + 1) that
rotate at frequency[k]; an odd last component does not rotate.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array, all_finite
from afafilter._base.patterns import members, require_whole_rows
from afafilter._base.signatures import told_type
from afafilter._core import core
from afafilter.adaptive.linear_time.sums import ExponentialSum
from afafilter.attention.recursions import rotated
from afafilter.linalg.integrals import exponential_integral
from afafilter.linalg.rotation import invariant_planes, plane_rates, rotate
from afafilter.models.blocks import drift_of_pairs
from afafilter.models.forcing import refuse_forcing
from afafilter.models.sde import LinearSDE

BLOCK = 4096
"""Rows rotated into a common frame at a time; phases are exact to BLOCK intervals' rounding."""

DIAGONAL_FROM = 8
"""Dimension from which of a multiple of the identity the diagonal alone is written (measured)."""

WHOLE = "linear time needs them present or all NaN; use method 'dense' or 'modal'"

Bool = NDArray[np.bool_]


class IsotropicParameters(NamedTuple):
    """A = -decay I + Omega, Q = process_var I, R = obs_var I, C = I.

    frequency : (d // 2,) rates of the planes (columns 2k, 2k + 1 of basis), radian/time.
    basis : (d, d) orthogonal, x = basis y, or None when the planes are the paired components.
    """

    decay: float
    frequency: Array
    process_var: float
    obs_var: float
    basis: Array | None

    @property
    def noise(self) -> tuple[float, float, float]:
        """Decay, process_var, obs_var: what weights depend on."""
        return self.decay, self.process_var, self.obs_var

    def to_planes(self, x: Array) -> Array:
        """y of x = basis y, x (..., d)."""
        return x if self.basis is None else x @ self.basis

    def from_planes(self, y: Array) -> Array:
        """x = basis y, y (..., d)."""
        return y if self.basis is None else y @ self.basis.T

    def drift_path(self, drift: Array, tau: Array) -> Array:
        """psi(tau) (T, d) = int_0^tau e^{A s} drift ds, in the original components."""
        if not drift.any():
            return np.broadcast_to(0.0, (len(tau), len(drift)))
        u, n = self.to_planes(drift), len(self.frequency)
        rate = np.append(-self.decay + 1j * self.frequency, np.full(len(u) - 2 * n, -self.decay))
        inflow = np.append(u[0 : 2 * n : 2] + 1j * u[1 : 2 * n : 2], u[2 * n :])
        moved = inflow * exponential_integral(rate, tau[:, None])
        out = np.empty((len(tau), len(u)))
        out[:, 0 : 2 * n : 2], out[:, 1 : 2 * n : 2] = moved[:, :n].real, moved[:, :n].imag
        out[:, 2 * n :] = moved[:, n:].real
        return self.from_planes(out)


def isotropic_parameters(model: LinearSDE) -> IsotropicParameters | None:
    """The isotropic form of a model, or None if it has none (or is unstable)."""
    d, n = model.dim, model.dim // 2
    A = model.A
    decay = float(-np.trace(A) / d)
    if decay < 0 or model.obs_dim != d or not np.array_equal(model.C, np.eye(d)):
        return None
    scale = 1e-14 * d * float(np.abs(A).max())
    skew = A + decay * np.eye(d)
    if np.abs(skew + skew.T).max() > scale:
        return None
    for cov in (model.Q, model.R):
        if np.abs(cov - cov[0, 0] * np.eye(d)).max() > 1e-14 * d * cov[0, 0]:
            return None
    noise = float(model.Q[0, 0]), float(model.R[0, 0])
    frequency = plane_rates(skew, n)
    if np.abs(skew - drift_of_pairs(0.0, frequency.tolist(), d)).max() <= scale:
        return IsotropicParameters(decay, frequency, *noise, None)
    basis, turning = invariant_planes(0.5 * (skew - skew.T))
    frequency = np.zeros(n)
    frequency[:turning] = plane_rates(basis.T @ skew @ basis, turning)
    return IsotropicParameters(decay, frequency, *noise, basis)


def require_isotropic(model: LinearSDE) -> IsotropicParameters:
    """The isotropic form of a model, or an error that says what it takes."""
    if not isinstance(model, LinearSDE):
        raise TypeError(f"model must be a LinearSDE, got {told_type(model)}")
    refuse_forcing(model, "the linear-time form")
    parameters = isotropic_parameters(model)
    if parameters is None:
        raise ValueError(
            "model must be isotropic for linear time (A = -mu I + skew-symmetric with mu >= 0, Q "
            "and R multiples of the identity, C = identity); use adaptive_filter: method 'dense' "
            "or 'modal'"
        )
    return parameters


class Side(NamedTuple):
    """One side's weights, and the further decays of numerator and denominator.

    Causal: numerator E P, denominator P; acausal: E / bracket, E^2 / bracket (E decays at mu).
    """

    weights: ExponentialSum
    num_rate: float
    den_rate: float


class Bank:
    """The recurrences of one side from the first observation, at `origin`; rows from `begin` on.

    The states are scaled by e^{-growth (t - origin)}, so that kernels which grow with the lag (no
    process noise) never overflow; sums come back with that scale's logarithm.
    """

    def __init__(
        self,
        side: Side,
        frequency: Array,
        paths: int,
        dim: int,
        origin: float,
        begin: float | None = None,
    ) -> None:
        rates = side.weights.rates
        lowest = float(rates.real.min())
        self.growth = max(0.0, -lowest - side.num_rate, -lowest - side.den_rate)
        kind = np.result_type(rates, side.weights.coefficients)
        self.rates = np.ascontiguousarray(rates + self.growth, dtype=kind)
        self.coefs = np.ascontiguousarray(side.weights.coefficients, dtype=kind)
        self.num_rate, self.den_rate = side.num_rate, side.den_rate
        self.frequency = frequency
        self.num = np.zeros((paths, dim, len(rates)), dtype=kind)
        self.den = np.zeros(len(rates), dtype=kind)
        self.origin = origin
        self.clock = self.frame = origin if begin is None else begin

    def run(
        self, t: Array, valid: Bool, y: Array, queries: Array, visible: NDArray[np.int64]
    ) -> tuple[Array, Array, Array]:
        """Numerators (P, M, d), denominators (M,) and the logarithm of their scale (M,)."""
        paths, dim = self.num.shape[:2]
        num = np.empty((paths, len(queries), dim))
        den = np.empty(len(queries))
        o = q = 0
        while q < len(queries):
            q_end = min(q + BLOCK, int(np.searchsorted(visible, o + BLOCK, side="right")))
            o_end = int(visible[q_end - 1]) if q_end > q else o + BLOCK
            rows, asked = slice(o, o_end), slice(q, q_end)
            num[:, asked], den[asked] = self._block(
                t[rows], valid[rows], y[:, rows], queries[asked], visible[asked] - o
            )
            o, q = max(o, o_end), q_end
        return num, den, self.growth * (queries - self.origin)

    def _block(
        self, t: Array, valid: Bool, y: Array, queries: Array, visible: NDArray[np.int64]
    ) -> tuple[Array, Array]:
        paths, dim, n_terms = self.num.shape
        last = float(t[-1]) if len(t) else self.clock
        self._reframe(self.clock)
        signal = rotated(y, t - self.frame, self.frequency, -1.0)
        entry = valid.astype(np.float64)
        if self.growth != 0.0:
            np.exp(-self.growth * (t - self.origin), where=valid, out=entry)
        if len(queries) == 0:  # observations only: one silent query makes the kernel consume them
            asked, seen = np.array([last]), np.array([len(t)])
        else:
            asked, seen = queries, visible
        signal = np.ascontiguousarray(signal.swapaxes(0, 1)).reshape(len(t), paths * dim)
        num, den = np.empty((len(asked), paths * dim)), np.empty(len(asked))
        sweep = core.sweep_complex128 if self.num.dtype.kind == "c" else core.sweep_float64
        law = self.rates, self.coefs, self.num_rate, self.den_rate
        data = np.ascontiguousarray(t), entry, signal, asked, seen
        states = self.num.reshape(paths * dim, n_terms)
        now = sweep(*law, *data, self.clock, states, self.den, num, den)
        if np.isnan(now):
            raise MemoryError(f"no memory for {self.num.size} states of the recurrence")
        self.clock = now
        out = num.reshape(-1, paths, dim).swapaxes(0, 1)[:, : len(queries)]
        return rotated(out, queries - self.frame, self.frequency, 1.0), den[: len(queries)]

    def _reframe(self, frame: float) -> None:
        angle = (frame - self.frame) * self.frequency
        if angle.any():
            turned = rotate(self.num.swapaxes(1, 2), np.cos(angle), np.sin(angle))
            self.num = np.ascontiguousarray(turned.swapaxes(1, 2))
        self.frame = frame


def by_exponentials(
    y: Array,
    valid: Bool,
    t: Array,
    queries: Array,
    visible: NDArray[np.int64],
    sides: tuple[Side, ...],
    frequency: Array,
) -> tuple[Array, Array]:
    """Means (P, M, d) and variances (M,) by recurrences; sides = (causal,) or (causal, acausal)."""
    paths, _, dim = y.shape
    ends = t[valid][[0, -1]] if valid.any() else t[[0, -1]]
    ahead = Bank(sides[0], frequency, paths, dim, ends[0], t[0])
    num, den, scale = ahead.run(t, valid, y, queries, visible)
    if len(sides) == 2:
        back = Bank(sides[1], -frequency, paths, dim, -ends[1], -t[-1])
        num_b, den_b, scale_b = back.run(
            -t[::-1], valid[::-1], y[:, ::-1], -queries[::-1], len(t) - visible[::-1]
        )
        top = np.maximum(scale, scale_b[::-1])
        up, up_b = np.exp(scale - top), np.exp(scale_b[::-1] - top)
        num = num * up[:, None] + num_b[:, ::-1] * up_b[:, None]
        den, scale = den * up + den_b[::-1] * up_b, top
    seen = np.cumsum(np.append(0, valid))
    known = seen[visible] > 0 if len(sides) == 1 else np.full(len(queries), seen[-1] > 0)
    return ratio(num, den, scale, known)


def by_fft(
    y: Array, valid: Bool, step: float, exact: list[Array], decay: float, frequency: Array
) -> tuple[Array, Array, float]:
    """Means (P, T, d), variances (T,) and their relative rounding error on a regular grid.

    exact = the weights at lags (T,), causal and, two-sided, acausal. The error is that of an FFT
    convolution (root mean square eps log2 L |kernel|, times 4) over the smallest denominator.
    """
    from scipy import fft

    n_times = y.shape[1]
    size = fft.next_fast_len(2 * n_times - 1, real=True)
    tau = step * np.arange(n_times)
    E = np.exp(-decay * tau)
    kernels = np.zeros((2, size))
    kernels[:, :n_times] = E * exact[0], exact[0]
    if len(exact) == 2:
        back = E * exact[1]
        kernels[:, size - n_times + 1 :] = back[:0:-1], (E * back)[:0:-1]
    num_spectrum, den_spectrum = fft.rfft(kernels)
    frame = tau - tau[n_times // 2]
    signal = np.ascontiguousarray(rotated(y, frame, frequency, -1.0).swapaxes(-1, -2))
    num = fft.irfft(num_spectrum * fft.rfft(signal, size), size)[..., :n_times]
    out = rotated(num.swapaxes(-1, -2), frame, frequency, 1.0)
    den = fft.irfft(den_spectrum * fft.rfft(valid.astype(float), size), size)[:n_times]
    known = np.cumsum(valid) > 0 if len(exact) == 1 else np.full(n_times, valid.any())
    smallest = den[known].min() if known.any() else 1.0
    bound = 4 * np.finfo(float).eps * np.log2(size) * np.linalg.norm(kernels[1]) / smallest
    return (*ratio(out, den, np.zeros(n_times), known), float(bound))


def ratio(num: Array, den: Array, scale: Array, known: Bool) -> tuple[Array, Array]:
    """Mean, which takes the place of num, and variance from the sums; NaN and inf: nothing known.

    Nothing is where all weights are below the smallest number, or the variance above the largest.
    """
    known = known & (den > 0)
    safe = np.where(known, den, 1.0)
    with np.errstate(over="ignore"):
        variance = np.exp(-np.where(known, scale, 0.0)) / safe
    variance[~known] = np.inf
    num /= safe[:, None]
    num[:, np.isinf(variance)] = np.nan
    return num, variance


def isotropic_covariance(variance: Array, unit: Array) -> Array:
    """Covariances variance unit (..., d, d) for variances (...); inf: nothing is known."""
    whole = all_finite(variance)
    scale = variance if whole else np.where(np.isfinite(variance), variance, 0.0)
    diagonal = unit.diagonal()
    if len(unit) >= DIAGONAL_FROM and not (unit - np.diag(diagonal)).any():
        cov = np.zeros((*variance.shape, *unit.shape))
        np.einsum("...aa->...a", cov)[...] = scale[..., None] * diagonal
    else:
        cov = scale[..., None, None] * unit
    if not whole:
        cov[~np.isfinite(variance)] = np.diag(np.full(len(unit), np.inf))
    return cov


def missing_groups(z: Array) -> list[tuple[NDArray[np.int64], Bool]]:
    """Paths (P, T, d) that miss the same rows: their indices and the rows present (T,).

    ValueError: If a row is missing in part: the isotropic form has no answer for it.
    """
    require_whole_rows(z, WHOLE)
    valid = ~np.isnan(z[..., 0])
    return [(paths, valid[paths[0]]) for paths in members(valid)]
