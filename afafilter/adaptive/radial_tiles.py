"""Tiles of the radial-tangential adaptive filter: O((M + T) d) memory, no M x T array.

For tau = t_i - t_j, E = e^{-mu |tau|}, F = (1 - E^2)/(2 mu) and each of the two directions,

    causal:   S = s^2 F + e^2 E^2 + gamma^2,     R = a_i - E k_j,   weights w/S     on E k_j
    acausal:  S = s^2 F + e^2 + gamma^2 E^2,     R = E a_i - k_j,   weights w E^2/S on k_j / E

in the co-rotating frame, so that nothing grows. With u = a/|a| and g = <u, k> the squared residual
is E^2 (|k|^2 - g^2) across u (acausal |k|^2 - g^2), the residual along it |a| - E g (acausal
E |a| - g): one inner product serves all. Away from the diagonal E and S are made of factors
measured from a time between queries and keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array
from afafilter.linalg.integrals import exponential_integral
from afafilter.linalg.rotation import rotate
from afafilter.models.radial import RadialTangentialSDE
from afafilter.weights import Weight

ROWS, KEYS = 128, 512


class RadialKernel(NamedTuple):
    """Whose noises make the precisions, gamma^2, and the robust weight."""

    model: RadialTangentialSDE
    anchor_var: float
    weight: Weight | None

    @property
    def fixed_radius(self) -> bool:
        """Whether the state lives on a hypersphere, where only tangential precisions count."""
        return self.model.radius is not None


@dataclass(frozen=True, eq=False)
class Task:
    """One path: observations present (T, d), queries, and how many observations each one sees."""

    t: Array
    z: Array
    queries: Array
    seen: NDArray[np.int64]
    two_sided: bool
    frequency: Array

    @cached_property
    def keys(self) -> Array:
        """The observations in the co-rotating frame."""
        angle = (self.t - self.t[0])[:, None] * self.frequency
        return rotate(self.z, np.cos(angle), -np.sin(angle))

    @cached_property
    def norms(self) -> Array:
        """Their squared lengths."""
        return np.asarray((self.z**2).sum(-1))

    def rotate(self, x: Array, sign: float) -> Array:
        """x (M, d) at the queries, out of (+1) or into (-1) the co-rotating frame."""
        angle = (self.queries - self.t[0])[:, None] * self.frequency
        return rotate(x, np.cos(angle), sign * np.sin(angle))


class Sums(NamedTuple):
    """tangential (M, d), radial (M,) numerators; their denominators (M,)."""

    tangential: Array
    den_t: Array
    radial: Array
    den_r: Array


def sweep(task: Task, kernel: RadialKernel, a: Array, u: Array) -> Sums:
    """All sums for the anchors a (M, d) of direction u, both in the co-rotating frame."""
    n = len(task.queries)
    sums = Sums(np.zeros(a.shape), np.zeros(n), np.zeros(n), np.zeros(n))
    lengths = np.linalg.norm(a, axis=-1)
    for rows, cols, causal in _tiles(task):
        E, S_t, S_r = _factors(kernel, task.queries[rows], task.t[cols], causal)
        g = u[rows] @ task.keys[cols].T
        w: Array | float = 1.0
        if kernel.weight is not None:
            w = _robust(kernel, E, S_t, S_r, g, lengths[rows], task.norms[cols], causal)
        weight_t = np.divide(w, S_t, out=S_t)
        weight_r = np.zeros_like(g) if kernel.fixed_radius else np.divide(w, S_r, out=S_r)
        seen = task.seen[rows]
        if seen[0] < cols.stop if causal else seen[-1] > cols.start:
            inside = (np.arange(cols.start, cols.stop) < seen[:, None]) == causal
            weight_t *= inside
            weight_r *= inside
        value = weight_t * E
        sums.tangential[rows] += value @ task.keys[cols]
        g *= E
        sums.radial[rows] += np.einsum("ij,ij->i", weight_r, g)
        if not causal:
            weight_t = np.multiply(value, E, out=value)
            weight_r *= E
            weight_r *= E
        sums.den_t[rows] += weight_t.sum(1)
        sums.den_r[rows] += weight_r.sum(1)
    if kernel.fixed_radius:
        sums.den_r[:] = 1.0
    return sums


def _tiles(task: Task) -> Iterator[tuple[slice, slice, bool]]:
    n = len(task.t)
    for first in range(0, len(task.queries), ROWS):
        last = min(first + ROWS, len(task.queries))
        rows = slice(first, last)
        for start in range(0, int(task.seen[last - 1]), KEYS):
            yield rows, slice(start, min(start + KEYS, int(task.seen[last - 1]))), True
        if task.two_sided:
            for start in range(int(task.seen[first]), n, KEYS):
                yield rows, slice(start, min(start + KEYS, n)), False


def _factors(kernel: RadialKernel, q: Array, k: Array, causal: bool) -> tuple[Array, Array, Array]:
    """E, S_t and S_r of one tile, (rows, keys)."""
    model = kernel.model
    mu, obs = model.decay, (model.obs_tangential_var, model.obs_radial_var)
    late, early = (q, k) if causal else (k, q)
    between = late[0]
    anchor = kernel.anchor_var, kernel.anchor_var
    fading, staying = (obs, anchor) if causal else (anchor, obs)
    process = model.tangential_var, model.radial_var
    if early[-1] > between:
        lag = np.abs(q[:, None] - k)
        E = np.exp(-mu * lag)
        F, E2 = exponential_integral(-2 * mu, lag), E * E
        S = [p * F + f * E2 + s for p, f, s in zip(process, fading, staying, strict=True)]
        return E, S[0], S[1]
    b, c = late - between, between - early
    e_late, e_early = np.exp(-mu * b), np.exp(-mu * c)
    F_late, F_early = exponential_integral(-2 * mu, b), exponential_integral(-2 * mu, c)
    S = []
    for p, f, s in zip(process, fading, staying, strict=True):
        left = np.stack([p * F_late + s, e_late**2], axis=1)
        right = np.stack([np.ones_like(c), p * F_early + f * e_early**2])
        S.append(left @ right if causal else right.T @ left.T)
    E = np.multiply.outer(e_late, e_early)
    return E if causal else E.T, S[0], S[1]


def _robust(
    kernel: RadialKernel,
    E: Array,
    S_t: Array,
    S_r: Array,
    g: Array,
    length: Array,
    norms: Array,
    causal: bool,
) -> Array:
    assert kernel.weight is not None
    d2 = g * g
    np.subtract(norms, d2, out=d2)
    np.maximum(d2, 0.0, out=d2)
    if causal:
        d2 *= E
        d2 *= E
    d2 /= S_t
    if kernel.fixed_radius:
        return np.asarray(kernel.weight(d2, kernel.model.dim - 1))
    along = E * (g if causal else length[:, None])
    np.subtract(length[:, None] if causal else g, along, out=along)
    along *= along
    along /= S_r
    d2 += along
    return np.asarray(kernel.weight(d2, kernel.model.dim))
