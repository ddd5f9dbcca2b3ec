"""What simulators and estimators return: plain frozen records, imported by every module.

Time is the second-last axis of data; paths lead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from afafilter._base.checks import Array, ObsMask, positive_int, scalar

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Trajectories:
    """States and observations on one time grid.

    Attributes
    ----------
    t : (T,) times.
    x : (..., T, d) true states.
    z : (..., T, p) observations, NaN = missing component.
    outliers : (..., T) bool or None. True where the contamination model struck.
    """

    t: Array
    x: Array
    z: Array
    outliers: ObsMask | None = None

    def __repr__(self) -> str:
        return f"Trajectories(x {self.x.shape}, z {self.z.shape}, t {_span(self.t)})"


@dataclass(frozen=True, eq=False)
class Estimate:
    """State estimates with their covariances: the one result type of all estimators.

    Attributes
    ----------
    t : (T,) times of the estimates (the query times where those were asked for).
    mean : (..., T, d) estimated states; NaN where the data do not determine a component.
    cov : (..., T, d, d) *claimed* error covariance (possibly a read-only broadcast view when
        paths share it); the variance of an undetermined component is inf, its covariances 0.
    loglik : (...,) log-likelihood with 2 pi for every observed component, or None.
    loglik_steps : (..., T) its terms, or None.
    innovation : (..., T, p) observation minus prediction, NaN where missing, or None.
    innovation_cov : (..., T, p, p) covariance of the innovation, or None.
    weights : (..., Tq, T) weights that a reweighting or attention estimator put on the
        observations (rows are queries), or None.
    label : str, name for tables and figures.
    info : further facts about the run (method chosen, iterations, error bounds...).
    """

    t: Array
    mean: Array
    cov: Array
    loglik: Array | None = None
    loglik_steps: Array | None = None
    innovation: Array | None = None
    innovation_cov: Array | None = None
    weights: Array | None = None
    label: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        loglik = (
            "" if self.loglik is None or np.ndim(self.loglik) else f", loglik {self.loglik:.6g}"
        )
        name = f"{self.label!r}, " if self.label else ""
        return f"Estimate({name}mean {self.mean.shape}, t {_span(self.t)}{loglik})"

    @property
    def std(self) -> Array:
        """Standard deviations (..., T, d)."""
        return np.sqrt(np.diagonal(self.cov, axis1=-2, axis2=-1))

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Central Gaussian interval per component: (lower, upper), each (..., T, d).

        Undetermined components get (-inf, inf).

        Raises
        ------
        ValueError
            If `level` is not in (0, 1).
        """
        from scipy.special import ndtri

        level = scalar(level, "level")
        if not 0 < level < 1:
            raise ValueError(f"level must lie in (0, 1), got {level:g}")
        half = ndtri(0.5 + 0.5 * level) * self.std
        unknown = np.isinf(half)
        centre = np.where(unknown, 0.0, self.mean)
        return centre - half, centre + half

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n states per time from N(mean, cov), shape (n, ..., T, d).

        Draws at different times are independent: they are draws from the marginals, not paths.
        Undetermined components are NaN.
        """
        n = positive_int(n, "n")
        known = np.isfinite(np.diagonal(self.cov, axis1=-2, axis2=-1))
        pair = known[..., :, None] & known[..., None, :]
        values, vectors = np.linalg.eigh(np.where(pair, self.cov, 0.0))
        root = vectors * np.sqrt(np.clip(values, 0.0, None))[..., None, :]
        noise = rng.standard_normal((n, *self.mean.shape))
        return np.asarray(self.mean + np.einsum("...ij,...j->...i", root, noise))

    def to_pandas(self, names: list[str] | None = None) -> pd.DataFrame:
        """Tidy frame: one row per (path, time), columns t, <name>, <name>_sd per component.

        The columns `path` (flattened leading axes) is present only when there are paths.
        """
        import pandas as pd

        d = self.mean.shape[-1]
        names = [f"x{i}" for i in range(d)] if names is None else list(names)
        if len(names) != d:
            raise ValueError(f"names must name the {d} components, got {len(names)} names")
        means = self.mean.reshape(-1, len(self.t), d)
        stds = np.broadcast_to(self.std, self.mean.shape).reshape(means.shape)
        columns: dict[str, Any] = {}
        if self.mean.ndim > 2:
            columns["path"] = np.repeat(np.arange(len(means)), len(self.t))
        columns["t"] = np.tile(self.t, len(means))
        for i, name in enumerate(names):
            columns[name] = means[..., i].ravel()
            columns[f"{name}_sd"] = stds[..., i].ravel()
        return pd.DataFrame(columns)

    def relabel(self, label: str) -> Estimate:
        """The same estimate under another name."""
        return replace(self, label=label)


def _span(t: Array) -> str:
    return f"{t[0]:g} .. {t[-1]:g}" if len(t) else "empty"
