"""Variance, increments and periodogram of the data, from which starting values are guessed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from afafilter._base.checks import Array

CELLS = 16
"""Cells of the periodogram's grid per median interval."""
GRID_CELLS = 2
"""The same where all intervals are multiples of the median one."""
OVERSAMPLING = 4
"""Frequencies per cycle over the whole span."""
ALIKE = 0.5
"""Share of the observations in phase at a frequency from which times are near a grid."""
LARGEST_GRID = 1 << 18
"""Most cells of the grid: very unequal intervals give up the highest frequencies."""


@dataclass(frozen=True)
class Scales:
    """Scales of the data, from which starting values are guessed."""

    var: float  # variance of the observations about a straight line
    jump: float  # mean squared successive difference
    noise: float  # part of it (per observation) that reverts at once: white noise
    gap: float  # median positive interval
    span: float  # last time minus first
    mean: Array  # (p,)
    each: Array  # (p, 3) var, jump, noise of each component
    longest: tuple[Array, Array] | None  # times and detrended values of the longest series
    width: float = 0.1  # of a peak of the periodogram, in units of its frequency

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

    def skipping(self, n: int, **changes: float) -> Scales:
        """As if the n largest peaks were not there; other changes do not touch the peaks."""
        found = replace(self, **changes)  # type: ignore[arg-type]
        vars(found)["peaks"] = self.peaks[n:]
        return found

    def in_turn(self, n: int, skipped: int = 0, **changes: float) -> Scales:
        """With n peaks, each of what a line and sines at those before leave over.

        The clearest ones; of the last, `skipped` clearer ones are left out. Times that are not
        regular make side peaks of a strong cycle, larger than a weak one's own.
        """
        found = replace(self, **changes)  # type: ignore[arg-type]
        if self.longest is not None:
            t, rest = self.longest
            chosen: list[float] = []
            columns = [np.ones(len(t)), t - t.mean()]
            for k in range(n):
                peaks = _periodogram_peaks(t, rest, self.gap)
                chosen.append(float(peaks[min(skipped * (k == n - 1), len(peaks) - 1)]))
                columns += [np.cos(chosen[-1] * t), np.sin(chosen[-1] * t)]
                X = np.stack(columns, axis=1)
                rest = self.longest[1] - X @ np.linalg.lstsq(X, self.longest[1], rcond=1e-9)[0]
            vars(found)["peaks"] = np.array(chosen)
        return found

    def of_component(self, c: int) -> Scales:
        """Those of one component of the observations; times and peaks are common to all."""
        if len(self.each) == 1:
            return self
        var, jump, noise = self.each[c].tolist()
        found = replace(self, var=var, jump=jump, noise=noise, mean=self.mean[c : c + 1])
        if "peaks" in vars(self):
            vars(found)["peaks"] = self.peaks
        return found

    def frequency(self, rank: int) -> float:
        """Of the component of this rank among those of its kind, radian/time."""
        peaks = self.peaks
        return (
            float(peaks[min(rank, len(peaks) - 1)]) if len(peaks) else 2 * np.pi / (10 * self.gap)
        )

    def decay(self, rank: int) -> float:
        """Of a component that turns at `frequency`, 1/time."""
        return max(self.width * self.frequency(rank), 1.0 / self.span)

    @property
    def rate(self) -> float:
        """Of a component that does not turn, 1/time."""
        return max(0.1 / self.gap, 1.0 / self.span)


GUESSES: dict[str, Callable[[Scales, int], float]] = {
    "frequency": Scales.frequency,
    "decay": Scales.decay,
    "rate": lambda s, _: s.rate,
    "relaxing_force": lambda s, _: 1.4 * s.var * s.rate,
    "turning_force": lambda s, rank: 1.4 * s.decay(rank) * s.var,
    "spring_force": lambda s, rank: (
        4 * s.decay(rank) * (s.decay(rank) ** 2 + s.frequency(rank) ** 2) * 0.7 * s.var
    ),
    "noise_var": lambda s, _: min(s.noise, 0.7 * s.var),
    "signal_var": lambda s, _: 0.7 * s.var,
    "drift_var": lambda s, _: s.drift / s.gap,
    "level_var": lambda s, _: 0.1 * s.jump / s.gap,
    "slope_var": lambda s, _: 1e-2 * s.jump / s.gap**3,
    "mean": lambda s, _: float(s.mean[0]),
    "length": lambda s, _: min(5 * s.gap, s.span),
}
"""Starting values from the sizes in the data and the rank of the component among its kind."""


def data_scales(t: Array, z: Array, obs_dim: int) -> Scales:
    """Rough sizes in the data: variance, jumps, intervals, level, periodogram peaks."""
    paths = z.reshape(-1, len(t), obs_dim)
    measured: list[list[tuple[float, float, float]]] = [[] for _ in range(obs_dim)]
    longest: tuple[Array, Array] | None = None
    for c, y in ((c, path[:, c]) for path in paths for c in range(obs_dim)):
        observed = ~np.isnan(y)
        ty, yy = t[observed], y[observed]
        count = len(ty)
        if count < 3:
            continue
        centred = ty - ty.sum() / count
        size = float(centred @ centred)
        rest = yy - yy.sum() / count
        if size > 0:
            rest = rest - centred * (float(centred @ rest) / size)
        step = yy[1:] - yy[:-1]
        reversion = -float(step[1:] @ step[:-1]) / max(len(step) - 1, 1)
        jump = float(step @ step) / len(step)
        measured[c].append((float(rest @ rest) / count, jump, reversion))
        if longest is None or len(ty) > len(longest[0]):
            longest = (ty, rest)
    gaps = t[1:] - t[:-1]
    gaps = np.sort(gaps[gaps > 0])
    n = len(gaps)
    gap = 0.5 * float(gaps[(n - 1) // 2] + gaps[n // 2]) if n else 1.0
    span = max(float(t[-1] - t[0]), gap)
    mean = np.array([_nanmean(paths[..., c]) for c in range(obs_dim)])
    every = [one for some in measured for one in some]
    together = _floored(every, float(np.abs(mean).max()))
    each = [
        _floored(some, abs(level)) if some else together
        for some, level in zip(measured, mean.tolist(), strict=True)
    ]
    return Scales(*together, gap, span, mean, np.array(each), longest)


def _floored(some: list[tuple[float, float, float]], level: float) -> tuple[float, float, float]:
    """Means of variances, jumps and reversions of series about a level, none of them 0."""
    var, jump, noise = (sum(x) / len(some) for x in zip(*some, strict=True)) if some else (0.0,) * 3
    size = max(var, level**2 * 1e-12, sys.float_info.min)
    jump = max(jump, 1e-6 * size)
    return max(var, 1e-6 * size), jump, min(max(noise, 0.05 * jump), 0.45 * jump)


def _nanmean(x: Array) -> float:
    observed = x[~np.isnan(x)]
    return float(observed.sum()) / max(observed.size, 1)


def _periodogram_peaks(t: Array, y: Array, gap: float) -> Array:
    """Frequencies of local maxima of the least-squares periodogram, clearest first, and largest."""
    omega, power = _generalised_periodogram(t, y, gap)
    clear, large = _largest_peaks(omega, power / _background(omega, power)), omega[power.argmax()]
    rest = clear[1:]
    return np.concatenate([clear[:1], [large] if large != clear[0] else [], rest[rest != large]])


def _generalised_periodogram(t: Array, y: Array, gap: float) -> tuple[Array, Array]:
    """Frequencies and how much of the sum of squares a sine there explains beside a straight line.

    Generalised Lomb-Scargle (Zechmeister & Kuerster, 2009), with a slope beside the mean. The sums
    over observations come from a transform of a fine grid that these are counted into (error
    (omega cell)^2 / 24, 0.2 % at half the frequency of the median interval, 1.5 % at the highest,
    three times that: what irregular times tell apart).
    """
    steps, cells = (t - t[0]) / gap, CELLS
    if np.abs(steps - np.rint(steps)).max() < 1e-6:  # exact; the beginning of long series will do
        cells, seen = GRID_CELLS, steps < LARGEST_GRID // (2 * GRID_CELLS)
        t, y = t[seen], y[seen]
    span = max(float(t[-1] - t[0]), gap)
    cell = max(gap / cells, span / LARGEST_GRID)
    place = np.rint((t - t[0]) / cell).astype(np.int64)
    size = 1 << int(np.ceil(np.log2(OVERSAMPLING * (place[-1] + 1))))
    centred = t - t.mean()
    slope = centred / max(float(np.sqrt(centred @ centred)), sys.float_info.min)
    columns = np.ones(len(t)), y, slope
    one, value, e1 = (np.fft.rfft(np.bincount(place, x, size)) for x in columns)
    e0 = one * len(t) ** -0.5
    first = max(1, round(size * cell / span))
    highest = size // (2 * cells)  # of equal steps
    alias = np.abs(one[highest : 6 * highest]).max(initial=0.0)  # at what would look alike
    k = np.arange(first, max(first + 3, highest if alias > ALIKE * len(t) else 3 * highest))
    # Sums over cos and sin of omega t: transforms are sum x (cos - i sin).
    double, n = one[2 * k], len(t)
    cc = 0.5 * (n + double.real) - e0[k].real ** 2 - e1[k].real ** 2
    ss = 0.5 * (n - double.real) - e0[k].imag ** 2 - e1[k].imag ** 2
    cs = -0.5 * double.imag + e0[k].real * e0[k].imag + e1[k].real * e1[k].imag
    yc, ys = value[k].real, -value[k].imag
    determinant = cc * ss - cs**2
    clear = determinant > 1e-6 * n**2
    explained = yc**2 * ss - 2 * yc * ys * cs + ys**2 * cc
    power: Array = np.where(clear, explained / np.where(clear, determinant, 1.0), 0.0)
    omega: Array = 2 * np.pi / (size * cell) * k.astype(float)
    return omega, np.maximum(power, 0.0)


def _background(omega: Array, power: Array) -> Array:
    """Median of the power over the two octaves around each frequency, which drifts make large."""
    edges = np.geomspace(omega[0], omega[-1], 4 * max(1, int(np.log2(omega[-1] / omega[0]))) + 1)
    begin, end = np.searchsorted(omega, 0.5 * edges), np.searchsorted(omega, 2 * edges, "right")
    middle = (begin + end) // 2 - begin
    parts = zip(begin.tolist(), end.tolist(), middle.tolist(), strict=True)
    levels = [float(np.partition(power[a:b], m)[m]) for a, b, m in parts]
    level = np.interp(np.log(omega), np.log(edges), levels)
    return np.maximum(level, 1e-9 * max(float(power.max()), sys.float_info.min))


def _largest_peaks(omega: Any, power: Any) -> Array:
    """Local maxima, largest first."""
    inner = (power[1:-1] >= power[:-2]) & (power[1:-1] > power[2:])
    peaks = np.flatnonzero(inner) + 1
    if not len(peaks):
        peaks = np.array([int(np.argmax(power))])
    order = np.argsort(-power[peaks])
    return np.asarray(omega[peaks[order]])
