"""Rough sizes in data, from which starting values are guessed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from afafilter._base.checks import Array


@dataclass(frozen=True)
class Scales:
    """What starting values are guessed from."""

    var: float  # variance of the observations about a straight line
    jump: float  # mean squared successive difference
    noise: float  # part of it (per observation) that reverts at once: white noise
    gap: float  # median positive interval
    span: float  # last time minus first
    mean: Array  # (p,)
    longest: tuple[Array, Array] | None  # times and detrended values of the longest series

    @property
    def drift(self) -> float:
        """Part of the mean squared difference that stays: random walk, per step."""
        return max(self.jump - 2 * self.noise, 0.02 * self.jump)

    @cached_property
    def peaks(self) -> Array:
        """Frequencies of the periodogram's local maxima, radian/time, the largest first."""
        if self.longest is None:
            return np.zeros(0)
        return _periodogram_peaks(*self.longest, self.gap)


def data_scales(t: Array, z: Array, obs_dim: int) -> Scales:
    """Rough sizes in the data: variance, jumps, intervals, level, periodogram peaks."""
    paths = z.reshape(-1, len(t), obs_dim)
    series = [path[:, c] for path in paths for c in range(obs_dim)]
    variances, jumps, reversions = [], [], []
    longest: tuple[Array, Array] | None = None
    for y in series:
        seen = ~np.isnan(y)
        ty, yy = t[seen], y[seen]
        count = len(ty)
        if count < 3:
            continue
        centred = ty - ty.sum() / count
        size = float(centred @ centred)
        rest = yy - yy.sum() / count
        if size > 0:
            rest = rest - centred * (float(centred @ rest) / size)
        variances.append(float(rest @ rest) / count)
        step = yy[1:] - yy[:-1]
        jumps.append(float(step @ step) / len(step))
        reversions.append(-float(step[1:] @ step[:-1]) / max(len(step) - 1, 1))
        if longest is None or len(ty) > len(longest[0]):
            longest = (ty, rest)
    gaps = t[1:] - t[:-1]
    gaps = np.sort(gaps[gaps > 0])
    n = len(gaps)
    gap = 0.5 * float(gaps[(n - 1) // 2] + gaps[n // 2]) if n else 1.0
    span = max(float(t[-1] - t[0]), gap)
    mean = np.array([_nanmean(paths[..., c]) for c in range(obs_dim)])
    var, jump, noise = (sum(x) / max(len(x), 1) for x in (variances, jumps, reversions))
    size = max(var, float((mean**2).max()) * 1e-12, sys.float_info.min)
    jump = max(jump, 1e-6 * size)
    noise = min(max(noise, 0.05 * jump), 0.45 * jump)
    return Scales(max(var, 1e-6 * size), jump, noise, gap, span, mean, longest)


def _nanmean(x: Array) -> float:
    seen = x[~np.isnan(x)]
    return float(seen.sum()) / max(seen.size, 1)


def _periodogram_peaks(t: Array, y: Array, gap: float) -> Array:
    """Frequencies of the largest local maxima of the least-squares periodogram."""
    t, y = t[:2000], y[:2000]
    span = max(float(t[-1] - t[0]), gap)
    steps = np.diff(t)
    if len(t) > 8 and np.ptp(steps) < 1e-6 * gap:
        size = 2 * len(t)
        power = np.abs(np.fft.rfft(y, size))
        omega = 2 * np.pi * np.arange(len(power)) / (size * gap)
        return _largest_peaks(omega[2:], power[2:])
    count = int(min(600, max(8, 2 * span / gap)))
    omega = np.linspace(1.0, max(2.0, 0.5 * span / gap), count) * 2 * np.pi / span
    # e^{-i omega t} on the equally spaced frequencies by repeated multiplication
    turn = np.exp(-1j * (omega[1] - omega[0]) * (t - t[0]))
    wave = np.exp(-1j * omega[0] * (t - t[0])) * y
    power = np.empty(count)
    for k in range(count):
        power[k] = abs(wave.sum())
        wave *= turn
    return _largest_peaks(omega, power)


def _largest_peaks(omega: Any, power: Any) -> Array:
    """Local maxima, largest first; slow ones count less, since drifts make them large."""
    inner = (power[1:-1] >= power[:-2]) & (power[1:-1] > power[2:])
    peaks = np.flatnonzero(inner) + 1
    if not len(peaks):
        peaks = np.array([int(np.argmax(power))])
    order = np.argsort(-power[peaks] * np.sqrt(omega[peaks]))
    return np.asarray(omega[peaks[order]])
