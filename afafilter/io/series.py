"""Measurements from files: which columns are times, values, paths and errors, and what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array
from afafilter._base.containers import moments
from afafilter._base.shown import ShownByFields
from afafilter._base.stamps import Stamps, unit_in_name
from afafilter.io.columns import Chosen, opened, own_layout, time_names
from afafilter.io.dialect import Dialect
from afafilter.io.source import Table, read_table
from afafilter.io.times import read_times_of, require_sorted
from afafilter.io.values import numbers_of


@dataclass(frozen=True, eq=False, repr=False)
class Series(ShownByFields):
    """Measurements over time.

    Attributes
    ----------
    t : ndarray, shape (T,)
        Times, non-decreasing.
    z : ndarray, shape (T, p), or (n, T, p) when the file holds several paths
        Values, NaN = missing.
    columns : tuple of str
        Names of the p columns of values.
    name, units, source, licence : str
        What it is, the units of the values (`value_units` column by column), where it comes from,
        and on what terms.
    dates : ndarray, shape (T,), optional
        As datetime64 (UTC where they have a zone) when the file gives dates, else None.
    time_unit : str
        Unit of t, a key of `SECONDS`; "" where nobody said it.
    paths : tuple of object
        What tells the n paths apart, in their order; empty for one path.
    obs_cov : ndarray, shape (T, p, p), optional
        Measurement covariances from columns of standard errors, or None.
    inputs : mapping, optional
        Columns of known inputs: name -> (T,) values, or None.
    stamps, path_name
        The times as the file has them, and the column that tells paths apart.
    """

    t: Array
    z: Array
    columns: tuple[str, ...]
    name: str = ""
    units: str = ""
    source: str = ""
    licence: str = ""
    dates: NDArray[Any] | None = None
    time_unit: str = ""
    paths: tuple[Any, ...] = ()
    obs_cov: Array | None = None
    stamps: Stamps | None = None
    path_name: str = ""
    inputs: Mapping[str, Array] | None = None
    value_units: tuple[str, ...] = ()

    def time_of(self, asked: Sequence[str | float]) -> Array:
        """Numbers or dates (ISO 8601, for a series with dates) on the scale of `t`.

        Raises
        ------
        ValueError
            If one is neither a number nor, for a series with dates, a date.
        """
        out = []
        for moment in asked:
            try:
                out.append(float(moment))
                continue
            except ValueError:
                pass
            if self.dates is None or self.stamps is None:
                raise ValueError(f"times must be numbers like those of the data, got {moment!r}")
            try:
                elapsed = float(moments([str(moment)], self.stamps, "times")[0])
            except ValueError:
                raise ValueError(f"times must be numbers or ISO dates, got {moment!r}") from None
            out.append(float(self.t[0]) + elapsed)
        return np.array(out, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Panel:
    """Several paths, each with times of its own.

    Attributes
    ----------
    series, labels, by
        One `Series` per path, what tells them apart, and the column that does.
    """

    series: tuple[Series, ...]
    labels: tuple[Any, ...]
    by: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the values."""
        return self.series[0].columns

    def aligned(self) -> tuple[Array, Array]:
        """All paths on one grid, for `fit`: t (T,) since each path's first time, z (n, T, p).

        Times that a path does not have are missing there. Since each path begins at its own first
        time, start laws and likelihood are those of the paths by themselves.
        """
        starts = [s.t - s.t[0] for s in self.series]
        grid = _merged(starts)
        z = np.full((len(starts), len(grid), len(self.columns)), np.nan)
        for path, t, series in zip(z, starts, self.series):
            path[_places(grid, t)] = series.z
        return grid, z


def _merged(times: Sequence[Array]) -> Array:
    """The union of times, each as often as any one of them repeats it."""
    values, counts = zip(*(np.unique(t, return_counts=True) for t in times))
    stamps, which = np.unique(np.concatenate(values), return_inverse=True)
    most = np.zeros(len(stamps), np.intp)
    np.maximum.at(most, which, np.concatenate(counts))
    return np.repeat(stamps, most)


def _places(grid: Array, t: Array) -> NDArray[np.intp]:
    first = np.searchsorted(grid, t)
    repeat = np.arange(len(t)) - np.searchsorted(t, t)
    return np.asarray(first + repeat)


def read_series(
    path: str | Path,
    time: str | Sequence[str] | None = None,
    values: Sequence[str] | str | None = None,
    *,
    by: str | None = None,
    errors: Sequence[str] | str | None = None,
    time_unit: str | None = None,
    sort: bool = False,
    dialect: Dialect | None = None,
) -> Series:
    """Measurements from CSV (.csv, .tsv, .txt, also .gz, .bz2, .xz), JSON lines or Parquet.

    Parameters
    ----------
    path : str or path
        "-" reads CSV from stdin. Separator, decimal comma, lines above the header, a row of units
        below it and empty columns are found; `dialect` says what cannot be.
    time : str or sequence of str, optional
        Name of the time column, or two for date and time of day; None = the index of a frame in
        Parquet, else the first column that is not `by`. Dates (ISO 8601, or whole numbers that
        spell them, such as 20240131) become the time since the first one in `time_unit`; other
        numbers are taken as they are.
    values : sequence of str or str, optional
        Names of the value columns; None = all others. Blank, NA, #N/A, NaN, null: missing.
    by : str, optional
        Column that tells paths apart, each with the same times (others: `read_panel`).
    errors : sequence of str or str, optional
        Columns with the standard error of each value, in their order (`Series.obs_cov`).
    time_unit : "ns", "us", "ms", "s", "min", "h", "D" (default), "W" or "Y" (365.25 days)
        What dates are counted in; of numbers, the unit that they have.
    sort : bool
        Put the rows in the order of their times; False refuses times that decrease.
    dialect : Dialect, optional

    Returns
    -------
    Series
        Files that `afafilter simulate` and `afafilter estimate` wrote need no names: paths, times
        and observations are known.

    Raises
    ------
    ValueError
        No such column, columns of the same name, values that are no numbers (the message gives the
        line), missing, infinite or decreasing times, an empty file, paths with different times.
    OSError
        If the file cannot be read.
    """
    given: dict[str, Any] = {"errors": errors, "time_unit": time_unit, "sort": sort}
    panel = read_panel(path, by, time, values, dialect=dialect, **given)
    first = panel.series[0]
    if not panel.labels:
        return first
    for label, other in zip(panel.labels, panel.series):
        if (
            other.stamps is None
            or first.stamps is None
            or not np.array_equal(other.stamps.values, first.stamps.values)
        ):
            raise ValueError(
                f"{path}: paths must share their times, but {panel.by} = {label} differs from "
                f"{panel.by} = {panel.labels[0]}; io.read_panel reads paths with times of their own"
            )
    if first.obs_cov is not None:
        raise ValueError("errors cannot be combined with paths: they must share their noise")
    return replace(first, z=np.stack([s.z for s in panel.series]), paths=panel.labels)


def read_panel(
    path: str | Path,
    by: str | None = None,
    time: str | Sequence[str] | None = None,
    values: Sequence[str] | str | None = None,
    *,
    errors: Sequence[str] | str | None = None,
    inputs: Sequence[str] | str | None = None,
    time_unit: str | None = None,
    sort: bool = False,
    dialect: Dialect | None = None,
) -> Panel:
    """Paths with times of their own, told apart by the column `by`; arguments of `read_series`.

    Where there is no such column (by None, and none is known), one path without label.

    Raises
    ------
    ValueError, OSError
        As for `read_series`.
    """
    table, chosen = opened(path, time, values, by, errors, dialect, inputs)
    stamps = read_times_of(table, chosen.time, time_unit, dialect or Dialect())
    if sort:
        order = np.argsort(stamps.values, kind="stable")
        table, stamps = table.taken(order), _taken(stamps, order)
    t, z, sd = stamps.numbers, numbers_of(table, chosen.values), numbers_of(table, chosen.errors)
    u = _inputs(table, chosen)
    units = tuple(table.units.get(name, "") for name in chosen.values)
    whole = Series(
        *(t, z, chosen.values, _name(path)),
        dates=stamps.values if stamps.dated else None,
        time_unit=stamps.unit,
        stamps=stamps,
        units=", ".join(dict.fromkeys(filter(None, units))),
        value_units=units,
        path_name=chosen.by or "",
        inputs=dict(zip(chosen.inputs, u.T)) or None,
    )
    if chosen.by is None:
        require_sorted(table, chosen.time, t, ", or name the column that tells paths apart")
        return Panel((_with_errors(table, whole, sd, chosen),), (), "")
    series, labels = [], []
    for rows in _paths(table, chosen.by):
        require_sorted(table, chosen.time, t[rows], "", rows=rows)
        own = _taken(stamps, rows)
        times, dates = own.numbers if own.shifted else t[rows], own.values if own.dated else None
        forced = dict(zip(chosen.inputs, u[rows].T)) or None
        one = replace(whole, t=times, z=z[rows], stamps=own, dates=dates, inputs=forced)
        series.append(_with_errors(table, one, sd[rows], chosen, rows))
        labels.append(_label(table, chosen.by, rows[0]))
    return Panel(tuple(series), tuple(labels), chosen.by)


def read_stamps(
    path: str | Path,
    time: str | None = None,
    *,
    time_unit: str | None = None,
    dialect: Dialect | None = None,
) -> Stamps:
    """The stamps of the time column alone, as `read_series` reads it; those that paths share."""
    table = read_table(path, dialect or Dialect())
    own = own_layout(table)
    names = time_names(table, time, None, own)
    stamps = read_times_of(table, names, time_unit, dialect or Dialect())
    if own is not None and own.by is not None and names == own.time:
        each = [_taken(stamps, rows) for rows in _paths(table, own.by)]
        if any(not np.array_equal(other.values, each[0].values) for other in each):
            raise ValueError(f"{table.path}: the paths have times of their own, one's are wanted")
        stamps = each[0]
    require_sorted(table, names, stamps.numbers)
    return stamps


def _name(path: str | Path) -> str:
    return "stdin" if str(path) == "-" else Path(path).name.split(".")[0]


def _label(table: Table, by: str, row: int) -> Any:
    value = table.columns[by][row]
    return value.item() if isinstance(value, np.generic) else value


def _taken(stamps: Stamps, rows: NDArray[np.intp]) -> Stamps:
    zone = stamps.zone[rows] if isinstance(stamps.zone, np.ndarray) else stamps.zone
    return replace(stamps, values=stamps.values[rows], zone=zone)


def _paths(table: Table, by: str) -> list[NDArray[np.intp]]:
    """Rows of each path, in order of appearance."""
    labels = np.asarray(table.columns[by])
    _, first, which = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(which, kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(which))[:-1])
    return [groups[k] for k in np.argsort(first)]


def _inputs(table: Table, chosen: Chosen) -> Array:
    """Known inputs (T, m); ValueError where one is missing, since nothing estimates them."""
    u = numbers_of(table, chosen.inputs)
    hole = np.argwhere(~np.isfinite(u))
    if len(hole):
        row, k = hole[0]
        raise ValueError(
            f"{table.where(int(row))}: input {chosen.inputs[k]!r} has no value; a known input "
            "needs one in every row (fill it, or drop the rows)"
        )
    return u


def _with_errors(
    table: Table, series: Series, sd: Array, chosen: Chosen, rows: Any = None
) -> Series:
    if not chosen.errors:
        return series
    wrong = ~np.isnan(series.z) & ~(sd > 0)
    if wrong.any():
        k, i = np.argwhere(wrong)[0]
        raise ValueError(
            f"{table.where(int(k if rows is None else rows[k]))}: standard errors must be positive "
            f"where there is a value, got {sd[k, i]:g} in {chosen.errors[i]!r}"
        )
    variances = np.where(np.isnan(series.z), 1.0, sd) ** 2
    return replace(series, obs_cov=variances[..., None] * np.eye(len(chosen.errors)))


def unit_of(stamps: Stamps | None) -> str:
    """The unit of times: said, or written in brackets behind the column's name."""
    if stamps is None:
        return ""
    return stamps.unit or unit_in_name(stamps.name) or ""
