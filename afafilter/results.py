"""What simulators and estimators return: plain frozen records, imported by every module.

Time is the second-last axis of data; paths lead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, ObsMask, positive_int, scalar
from afafilter._base.stamps import Stamps
from afafilter._base.unknown import OpenLaw, through

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


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
    index : the stamps of the data (dates, whole numbers, labels of paths), where they were given
        as more than floats; `to_pandas` and `to_xarray` come back with them. Times t count from
        the first stamp in `index.unit`.
    open_laws : where components are undetermined, what is known of functionals of them (`through`
        asks); empty if nothing is.
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
    index: Stamps | None = None
    open_laws: tuple[OpenLaw, ...] = field(default=(), repr=False)

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

    def through(self, H: ArrayLike) -> tuple[Array, Array]:
        """Mean (..., T, p) and covariance (..., T, p, p) of H x, H (p, d) or (T, p, d).

        A functional can be determined where the components that it takes in are not: two levels of
        which only the sum was seen have mean NaN each, their sum has not. What is undetermined has
        mean NaN, variance inf and covariances 0.

        Raises
        ------
        ValueError
            If H has another number of columns than the state has components.
        """
        matrix = np.asarray(H, dtype=np.float64)
        T, d = self.mean.shape[-2:]
        if (
            matrix.ndim not in (2, 3)
            or matrix.shape[-1] != d
            or matrix.shape[:-2] not in ((), (T,))
        ):
            raise ValueError(f"H must have shape (p, {d}) or ({T}, p, {d}), got {matrix.shape}")
        return through(matrix, self.mean, self.cov, self.open_laws)

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

    def to_pandas(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """Tidy frame: one row per (path, time), columns t, <name>, <name>_sd per component.

        A column `path` (flattened leading axes) is there when there are paths. Where the data came
        with stamps (`index`), rows are indexed by them instead, dates in the data's time zone, and
        by the labels of the paths.

        Raises
        ------
        ValueError
            If `names` does not name every component.
        """
        import pandas as pd

        d = self.mean.shape[-1]
        names = [f"x{i}" for i in range(d)] if names is None else list(names)
        if len(names) != d:
            raise ValueError(f"names must name the {d} components, got {len(names)} names")
        means = self.mean.reshape(-1, len(self.t), d)
        stds = np.broadcast_to(self.std, self.mean.shape).reshape(means.shape)
        columns: dict[str, Any] = {}
        if self.index is None:
            if self.mean.ndim > 2:
                columns["path"] = np.repeat(np.arange(len(means)), len(self.t))
            columns["t"] = np.tile(self.t, len(means))
        for i, name in enumerate(names):
            columns[name] = means[..., i].ravel()
            columns[f"{name}_sd"] = stds[..., i].ravel()
        return pd.DataFrame(columns, index=None if self.index is None else self._rows())

    def _rows(self) -> pd.Index:
        """Index of the tidy frame: stamps, and labels of paths before them."""
        import pandas as pd

        assert self.index is not None
        stamps: Any = pd.Index(self.index.at(self.t), name=self.index.name)
        if self.index.zone is not None:
            stamps = pd.DatetimeIndex(stamps).tz_localize("UTC").tz_convert(self.index.zone)
        if self.mean.ndim == 2:
            return cast("pd.Index", stamps)
        labels = self.index.paths or range(int(np.prod(self.mean.shape[:-2])))
        return pd.MultiIndex.from_product(
            [labels, stamps], names=[self.index.path_name, self.index.name]
        )

    def to_xarray(self, names: Sequence[str] | None = None) -> xr.Dataset:
        """Dataset with variables mean and sd over (path, time, component), stamps as coordinate.

        Dates are those of the data in UTC. Needs xarray.

        Raises
        ------
        ImportError
            Without xarray. ValueError if `names` does not name every component.
        """
        try:
            import xarray as xr
        except ImportError:
            raise ImportError("to_xarray needs xarray: pip install xarray") from None
        d = self.mean.shape[-1]
        names = [f"x{i}" for i in range(d)] if names is None else list(names)
        if len(names) != d:
            raise ValueError(f"names must name the {d} components, got {len(names)} names")
        time = "t" if self.index is None else self.index.name
        dims = (*(f"path{i}" if i else "path" for i in range(self.mean.ndim - 2)), time, "state")
        coords: dict[str, Any] = {"state": names}
        coords[time] = self.t if self.index is None else self.index.at(self.t)
        if self.index is not None and self.index.paths and self.mean.ndim == 3:
            coords["path"] = list(self.index.paths)
        sd = np.broadcast_to(self.std, self.mean.shape)
        attrs = {"label": self.label}
        return xr.Dataset({"mean": (dims, self.mean), "sd": (dims, sd)}, coords, attrs)

    def relabel(self, label: str) -> Estimate:
        """The same estimate under another name."""
        return replace(self, label=label)


def _span(t: Array) -> str:
    return f"{t[0]:g} .. {t[-1]:g}" if len(t) else "empty"
