"""What simulators and estimators return: plain frozen records, imported by every module.

Time is the second-last axis of data; paths lead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, ObsMask, fraction, generator, positive_int, real_array
from afafilter._base.frames import tidy
from afafilter._base.normal import half_width
from afafilter._base.shown import ShownAsText, component_names, load, optional
from afafilter._base.signatures import assign
from afafilter._base.source import Source as Source
from afafilter._base.stamps import Stamps
from afafilter._base.unknown import OpenLaw, through

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


@dataclass(frozen=True, eq=False)
class Trajectories(ShownAsText):
    """States and observations on one time grid.

    Attributes
    ----------
    t, x, z : ndarray, shapes (T,), (..., T, d) and (..., T, p)
        Times, true states, and observations (NaN = missing component).
    outliers : ndarray of bool, shape (..., T), or None
        True where the contamination model struck.
    fine_t, fine_x : ndarray, shapes (M,) and (..., M, d), or None
        Further times on the same paths, and the states there.
    """

    t: Array
    x: Array
    z: Array
    outliers: ObsMask | None = None
    fine_t: Array | None = None
    fine_x: Array | None = None

    def __repr__(self) -> str:
        return f"Trajectories(x {self.x.shape}, z {self.z.shape}, t {_span(self.t)})"

    def to_pandas(self, *, fine: bool = False) -> pd.DataFrame:
        """Tidy frame: one row per (path, time), columns t, x0.., z0.., outlier.

        A column `path` (flattened leading axes) is there when there are several axes. `fine`: the
        states at `fine_t` instead, columns t, x0...

        Raises
        ------
        ValueError
            If `fine` is asked for and there is no finer grid.

        Examples
        --------
        >>> from afafilter import simulate, spiral
        >>> data = simulate(spiral(), [0.0, 1.0], 3, rng=0, fine_times=[0.0, 0.5, 1.0])
        >>> data.to_pandas().shape, data.to_pandas(fine=True).shape
        ((6, 6), (9, 4))
        """
        t, x = (self.fine_t, self.fine_x) if fine else (self.t, self.x)
        if t is None or x is None:
            raise ValueError(
                "fine=True needs paths on a finer grid, got none; simulate(..., fine_times=...)"
            )
        columns: dict[str, Any] = {f"x{i}": x[..., i] for i in range(x.shape[-1])}
        if not fine:
            columns |= {f"z{i}": self.z[..., i] for i in range(self.z.shape[-1])}
            columns |= {} if self.outliers is None else {"outlier": self.outliers}
        return tidy(t, columns)

    def to_parquet(self, path: str | Path, *, fine: bool = False) -> Path:
        """Write `to_pandas(fine=fine)` as a Parquet file. Needs pyarrow. Returns the path.

        Raises
        ------
        ImportError, OSError, ValueError
            Without pyarrow; if the file cannot be written; as `to_pandas`.
        """
        optional("pyarrow", "to_parquet")
        self.to_pandas(fine=fine).to_parquet(path, index=False)
        return Path(path)

    def to_xarray(self) -> xr.Dataset:
        """Dataset with x over (path, t, state), z over (path, t, component). Needs xarray.

        Paths on a finer grid are fine_x over (path, fine_t, state).

        Raises
        ------
        ImportError
            Without xarray.
        """
        xarray = optional("xarray", "to_xarray")
        lead = [f"path{i}" if i else "path" for i in range(self.x.ndim - 2)]
        x, z = ([*lead, "t", "state"], self.x), ([*lead, "t", "component"], self.z)
        data: dict[str, Any] = {"x": x, "z": z}
        if self.outliers is not None:
            data["outlier"] = ([*lead, "t"], self.outliers)
        coords = {"t": self.t}
        if self.fine_t is not None:
            coords["fine_t"] = self.fine_t
            data["fine_x"] = ([*lead, "fine_t", "state"], self.fine_x)
        return cast("xr.Dataset", xarray.Dataset(data, coords))

    def plot(self, **options: Any) -> Any:
        """Draw states and observations against time; see `plotting.trajectories`. Returns axes."""
        return load("plotting").trajectories(self, **options)


@dataclass(frozen=True, eq=False)
class Estimate(ShownAsText):
    """State estimates with their covariances: the one result type of all estimators.

    Attributes
    ----------
    t : ndarray, shape (T,)
        Times of the estimates (the query times where those were asked for).
    mean : ndarray, shape (..., T, d)
        Estimated states; NaN where the data do not determine a component.
    cov : ndarray, shape (..., T, d, d)
        *Claimed* error covariance (a read-only view where paths share it); an undetermined
        component has variance inf, covariances 0. None: a point estimate; NaN throughout.
    loglik, loglik_steps : ndarray, shapes (...,) and (..., T), or None
        Log-likelihood, 2 pi for every observed component, and its terms.
    innovation, innovation_cov : ndarray, shapes (..., T, p) and (..., T, p, p), or None
        Observation minus prediction (NaN where missing) and its covariance.
    weights : ndarray, shape (..., Tq, T), or None
        Weights of the observations in a reweighting or attention estimator; rows are queries.
    label, names : str, tuple of str
        What tables and figures call the estimate and its components; () = x0, x1, ...
    info : mapping
        Further facts about the run (method chosen, iterations, error bounds...).
    index : Stamps or None
        Stamps of the data (dates, whole numbers, labels of paths) that are more than floats, for
        `to_pandas` and `to_xarray`. Times t count from the first in `index.unit`.
    open_laws, source
        What `through`, `observed`, `components` and `sample_paths` need to know.
    """

    t: Array
    mean: Array
    cov: Array = None  # type: ignore[assignment]
    loglik: Array | None = None
    loglik_steps: Array | None = None
    innovation: Array | None = None
    innovation_cov: Array | None = None
    weights: Array | None = None
    label: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)
    index: Stamps | None = None
    open_laws: tuple[OpenLaw, ...] = field(default=(), repr=False)
    source: Source | None = field(default=None, repr=False)
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given: Array | None = self.cov
        if given is None:
            assign(self, cov=np.broadcast_to(np.nan, (*self.mean.shape, self.mean.shape[-1])))

    @property
    def is_point(self) -> bool:
        """Whether no covariance is claimed anywhere."""
        return bool(np.isnan(self.cov[..., 0, 0]).all())

    def __repr__(self) -> str:
        alone = self.loglik is not None and not np.ndim(self.loglik)
        loglik = f", loglik {self.loglik:.6g}" if alone else ""
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
        matrix = real_array(H, "H")
        T, d = self.mean.shape[-2:]
        if matrix.ndim < 2 or matrix.shape[-1] != d or matrix.shape[:-2] not in ((), (T,)):
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
        half = half_width(fraction(level, "level")) * self.std
        unknown = np.isinf(half)
        centre = np.where(unknown, 0.0, self.mean)
        return centre - half, centre + half

    def observed(self, *, noise: bool = True) -> Estimate:
        """What a measurement at these times would show: mean H x + offset (..., T, p), its band.

        noise : whether the band is that of a measurement, with its noise, or of the signal alone.

        Raises
        ------
        ValueError
            If the estimate does not know how its states are observed.
        """
        source = self._known_source("observed")
        mean, cov = self.through(source.H)
        if noise:
            cov = cov + source.R
        what = "a measurement" if noise else "signal"
        label = f"{self.label}, {what}" if self.label else what
        return self._seen(mean + source.offset, cov, label)

    def components(self) -> dict[str, Estimate]:
        """What each summand of the model adds to the observations: name -> Estimate (..., T, p).

        Summands of one name are numbered: "seasonal", "seasonal2". The offset belongs to none.

        Raises
        ------
        ValueError
            If the estimate does not know how its states are observed.
        """
        source = self._known_source("components")
        d = self.mean.shape[-1]
        out: dict[str, Estimate] = {}
        seen: dict[str, int] = {}
        first = 0
        for name, states in source.parts or (("model", d),):
            seen[name] = rank = seen.get(name, 0) + 1
            own = np.zeros(d)
            own[first : first + states] = 1.0
            first += states
            mean, cov = self.through(source.H * own)
            label = name if rank == 1 else f"{name}{rank}"
            out[label] = self._seen(mean, cov, label)
        return out

    def _seen(self, mean: Array, cov: Array, label: str) -> Estimate:
        """An estimate of the p observed components, called as the data call them, or z0, z1, ..."""
        names = () if self.index is None else self.index.columns
        if len(names) != mean.shape[-1]:
            names = tuple(component_names(mean.shape[-1], letter="z"))
        return Estimate(self.t, mean, cov, label=label, index=self.index, names=names)

    def _known_source(self, what: str) -> Source:
        if self.source is None:
            raise ValueError(
                f"{what} needs an estimate that knows how its states are observed; this one, "
                f"{self.label or 'unnamed'!r}, does not: use kalman_filter, rts_smoother, forecast "
                "or the adaptive estimators"
            )
        return self.source

    def sample_paths(self, n: int, rng: np.random.Generator | int) -> Array:
        """Draw n paths of the states given all data, jointly: (n, ..., T, d).

        By the simulation smoother: a path and data of the model are drawn, and the path is moved
        by the difference of the smoothed means given the real and the drawn data (Durbin and
        Koopman, A simple and efficient simulation smoother, Biometrika 89, 2002). Undetermined
        components are NaN.

        Raises
        ------
        ValueError
            If estimates at different times have no joint law: those of filters rest on different
            data each. Use `rts_smoother`.
        """
        n, rng = positive_int(n, "n"), generator(rng)
        if self.source is None or self.source.draw is None:
            raise ValueError(
                f"sample_paths needs the estimate of a smoother or a forecast, got "
                f"{self.label or 'unnamed'!r}, whose estimates at different times have no joint "
                "law; use rts_smoother, or sample for each time by itself"
            )
        drawn = self.source.draw(n, rng)
        return np.where(np.isfinite(self.std), drawn, np.nan)

    def sample(self, n: int, rng: np.random.Generator | int) -> Array:
        """Draw n states, shape (n, ..., T, d): joint paths where the estimates have a joint law.

        That is for smoothers and forecasts (`sample_paths`). For filters, each time is drawn from
        its own N(mean, cov), independently. Undetermined components are NaN.
        """
        n, rng = positive_int(n, "n"), generator(rng)
        if self.source is not None and self.source.draw is not None:
            return self.sample_paths(n, rng)
        if self.is_point:
            raise ValueError("sample needs covariances; this is a point estimate")
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
        d = self.mean.shape[-1]
        names = component_names(d, names or self.names)
        std = np.broadcast_to(self.std, self.mean.shape)
        columns: dict[str, Any] = {}
        for i, name in enumerate(names):
            columns |= {name: self.mean[..., i], f"{name}_sd": std[..., i]}
        return tidy(self.t, columns, None if self.index is None else self._rows())

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
        xarray = optional("xarray", "to_xarray")
        names = component_names(self.mean.shape[-1], names or self.names)
        time = "t" if self.index is None else self.index.name
        dims = (*(f"path{i}" if i else "path" for i in range(self.mean.ndim - 2)), time, "state")
        coords: dict[str, Any] = {"state": names}
        coords[time] = self.t if self.index is None else self.index.at(self.t)
        if self.index is not None and self.index.paths and self.mean.ndim == 3:
            coords["path"] = list(self.index.paths)
        sd = np.broadcast_to(self.std, self.mean.shape)
        attrs = {"label": self.label}
        data = {"mean": (dims, self.mean), "sd": (dims, sd)}
        return cast("xr.Dataset", xarray.Dataset(data, coords, attrs))

    def plot(self, **options: Any) -> Any:
        """Draw the estimate against time or dates; see `plotting.estimate`. Returns the axes."""
        return load("plotting").estimate(self, **options)

    def relabel(self, label: str) -> Estimate:
        """The same estimate under another name."""
        return replace(self, label=label)


def _span(t: Array) -> str:
    return f"{t[0]:g} .. {t[-1]:g}" if len(t) else "empty"
