"""Observations, prepared once for many evaluations of the likelihood."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, ObsMask, observation_covariances, observations, times
from afafilter._base.patterns import members
from afafilter._base.steps import distinct_steps, times_or_steps


@dataclass(frozen=True)
class Group:
    """Paths that share one missing pattern and one noise scale."""

    z: Array  # (T, p, n), 0 where missing
    mask: ObsMask  # (T, p)
    scale: Array  # (T,)
    paths: Any  # (n,) positions among the flattened paths

    def with_prior_step(self) -> Group:
        """With an earlier time, that of the prior, at which nothing is observed."""
        _, p, n = self.z.shape
        z = np.concatenate([np.zeros((1, p, n)), self.z])
        mask = np.concatenate([np.zeros((1, p), bool), self.mask])
        return Group(z, mask, np.concatenate([np.ones(1), self.scale]), self.paths)


@dataclass(frozen=True)
class Data:
    """Observations, prepared once for many evaluations."""

    t: Array
    steps: Array
    index: Any
    groups: tuple[Group, ...]
    n_obs: int
    n_paths: int
    obs_cov: Array | None
    longest: float
    row: Any  # (T,) zeros: all observations share one matrix

    def rescaled(self, scale: Array) -> Data:
        """The same data with measurement noise scale (n_paths, T) times R."""
        groups = []
        for group in self.groups:
            for column, path in enumerate(group.paths):
                z = np.ascontiguousarray(group.z[:, :, column : column + 1])
                groups.append(Group(z, group.mask, np.array(scale[path]), np.array([path])))
        return replace(self, groups=tuple(groups))


@dataclass(frozen=True)
class SeriesBatch:
    """K series, of n paths each, on one time grid, each with a model of its own."""

    grid: Data  # without observations
    z: Array  # (K, T, p, n), 0 where missing
    observed: ObsMask  # (K, T, p)
    scale: Array  # (T,) ones

    @classmethod
    def of(cls, t: ArrayLike, z: Array) -> SeriesBatch:
        """Of times and observations (K, T, p), NaN = missing."""
        grid = times(t)
        observed = ~np.isnan(z)
        steps, index = steps_of(grid)
        row = np.zeros(len(grid), np.int64)
        empty = Data(grid, steps, index, (), 0, 1, None, float(steps.max()), row)
        return cls(empty, np.where(observed, z, 0.0)[..., None], observed, np.ones(len(grid)))

    @classmethod
    def of_group(cls, data: Data) -> SeriesBatch:
        """The paths of data that have one pattern of gaps, as one series."""
        (group,) = data.groups
        return cls(data, group.z[None], group.mask[None], group.scale)

    def subset(self, which: Any) -> SeriesBatch:
        """The series `which` alone."""
        return replace(self, z=self.z[which], observed=self.observed[which])

    def data(self, k: int) -> Data:
        """Series k alone, as of `prepare`."""
        observed = self.observed[k]
        group = Group(self.z[k], observed, self.scale, np.zeros(1, np.int64))
        n_obs = int(np.count_nonzero(observed))
        return replace(self.grid, groups=(group,) if n_obs else (), n_obs=n_obs)


def prepare(t: ArrayLike | None, z: ArrayLike, obs_dim: int, obs_cov: ArrayLike | None) -> Data:
    """Validate data and group paths by missing pattern.

    t None: time steps 0, 1, 2... (discrete models).
    """
    grid = times_or_steps(t, z)
    values = observations(z, len(grid), obs_dim)
    covs = None
    if obs_cov is not None:
        covs = writable(
            observation_covariances(obs_cov, len(grid), obs_dim, np.eye(obs_dim), values)
        )
    flat = values.reshape(-1, len(grid), obs_dim)
    present = ~np.isnan(flat)
    groups = []
    for paths in members(present):
        z, mask = np.where(present[paths], flat[paths], 0.0), present[paths[0]].copy()
        if mask.any():
            z = np.ascontiguousarray(z.transpose(1, 2, 0))
            groups.append(Group(z, mask, np.ones(len(grid)), paths))
    steps, index = steps_of(grid)
    longest, row = float(steps.max()), np.zeros(len(grid), np.int64)
    observed = int(np.count_nonzero(present))
    return Data(grid, steps, index, tuple(groups), observed, len(flat), covs, longest, row)


def steps_of(t: Array) -> tuple[Array, Any]:
    """Distinct intervals of a grid (K,), and the index (T,) of the one that ends at each time."""
    if len(t) == 1:
        return np.zeros(1), np.zeros(1, np.int64)
    steps, index = distinct_steps(t[1:] - t[:-1], t[1:])
    return steps, np.concatenate([index[:1], index])


def writable(array: Any) -> Array:
    """A writable C-ordered float64 copy, as kernels take it."""
    return np.array(array, dtype=np.float64, order="C")
