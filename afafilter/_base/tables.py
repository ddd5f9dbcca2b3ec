"""Tables of pandas, polars, xarray and pyarrow, read into arrays and the stamps of their rows."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import EXACT, real_array, times
from afafilter._base.masks import refuse_disorder, refuse_same_name, refuse_swapped, unmasked
from afafilter._base.stamps import Stamps, calendar_numbers, elapsed, recast

TABLES = ("pandas", "polars", "xarray", "pyarrow")
TIME_NAMES = ("t", "time", "times", "date", "dates", "datetime", "timestamp")
"""Names by which a column counts as the time where nothing else says which one is."""


def library(value: Any) -> str:
    """The library whose object this is: the first part of its type's module."""
    return type(value).__module__.partition(".")[0]


def stamps_of(t: Any, unit: str, name: str = "t") -> Stamps | None:
    """Stamps of times that are dates or whole numbers beyond 2^53; None for other numbers.

    Warns where whole numbers spell calendar dates, as 20240131 does.
    """
    if isinstance(t, np.ma.MaskedArray):
        t = unmasked(t, name, allow_nan=False)
    if library(t) == "pandas":
        return if_counted(index_stamps(labels_of(t), unit, getattr(t, "name", None) or name))
    zone = zone_of(t)
    raw = np.asarray(t) if library(t) != "polars" else t.to_numpy()
    if raw.ndim != 1 or not raw.size:
        return None
    raw = _whole(raw)
    if raw.dtype.kind == "O":
        return date_objects(raw, unit, name)
    if raw.dtype.kind == "M":
        return Stamps(checked_dates(raw, name), unit, zone, name)
    if raw.dtype.kind in "iu" and EXACT < max(abs(int(raw.min())), abs(int(raw.max()))) < 2**63:
        return Stamps(raw.astype(np.int64), "", name=name)
    warn_of_calendar(raw, name)
    return None


def given_times(t: Any, name: str = "t") -> NDArray[np.float64]:
    """`checks.times` of a call that reads no dates, with a warning where numbers spell them."""
    grid = times(t, name)
    warn_of_calendar(grid, name, stacklevel=4)
    return grid


def warn_of_calendar(values: NDArray[Any], name: str, *, stacklevel: int = 5) -> None:
    """Warn where whole numbers spell calendar dates."""
    if values.dtype.kind in "iuf" and calendar_numbers(values) is not None:
        warnings.warn(
            f"{name} holds whole numbers that spell dates ({values[0]:.0f} ... {values[-1]:.0f}) "
            "and are taken as plain numbers: give dates (numpy.datetime64, pandas.to_datetime) if "
            "dates are meant",
            stacklevel=stacklevel,
        )


def zone_of(column: Any) -> Any:
    """The time zone of a polars or pyarrow column of dates, None without one."""
    kind = getattr(column, "dtype", None) if library(column) == "polars" else None
    kind = getattr(column, "type", None) if library(column) == "pyarrow" else kind
    return getattr(kind, "time_zone", None) or getattr(kind, "tz", None)


def _whole(raw: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers beyond 2^53 as int64, whatever exact type holds them; others as they are."""
    if raw.dtype.kind == "O" or raw.dtype == np.longdouble != np.float64:
        try:
            numbers = [int(x) for x in raw.flat]
        except (TypeError, ValueError, OverflowError):
            return raw
        if (
            numbers
            and EXACT < max(map(abs, numbers)) < 2**63
            and all(raw == np.array(numbers, object))
        ):
            return np.array(numbers, np.int64)
    return raw


def if_counted(stamps: Stamps) -> Stamps | None:
    """The stamps, where they are more than the numbers that estimators see."""
    kept = stamps.values.dtype.kind in "Mi" or stamps.columns or stamps.paths
    return stamps if kept else None


# ------------------------------------------------------------------------------------------- pandas


def labels_of(value: Any) -> Any:
    """The times that a pandas object stands for: an index itself, the values of a Series."""
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        if value.shape[1] != 1:
            raise ValueError(f"t must be one column, got a frame of {value.shape[1]}")
        value = value.iloc[:, 0]
    return value if isinstance(value, pd.Index) else pd.Index(value)


def read_table(table: Any, unit: str, obs_dim: int | None) -> tuple[NDArray[np.float64], Stamps]:
    kind = library(table)
    if kind == "pandas":
        return _pandas_table(table, unit)
    if kind == "xarray":
        return _xarray(table, unit, obs_dim)
    if kind == "pyarrow":
        return _pandas_table(table.to_pandas(), unit)
    return _polars(table, unit)


def _pandas_table(table: Any, unit: str) -> tuple[NDArray[np.float64], Stamps]:
    import pandas as pd

    if isinstance(table, pd.Index):
        raise TypeError("z is missing: an index holds times only")
    frame = table.to_frame() if isinstance(table, pd.Series) else table
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"a Series or DataFrame is wanted, got {type(table).__name__}")
    if isinstance(frame.index, pd.MultiIndex):
        return _panel(frame, unit)
    index = frame.index
    refuse_same_name(index.names, frame.columns, "the table")
    kinds = {str(c): kind for c, kind in zip(frame.columns, (d.kind for d in frame.dtypes))}
    column = time_column(kinds)
    if column is not None and frame.shape[1] > 1 and numbers_rows(index, kinds):
        index = pd.Index(frame.iloc[:, column])
        frame = frame.drop(columns=frame.columns[column])
    stamps = index_stamps(index, unit, index.name)
    names = tuple(str(name) for name in frame.columns)
    return values_of(frame), replace(stamps, columns=names)


def time_column(kinds: dict[str, str]) -> int | None:
    """Place of the column that must be the time: the only one of dates, or one so called."""
    dates = [k for k, kind in enumerate(kinds.values()) if kind == "M"]
    if len(dates) == 1:
        return dates[0]
    named = [k for k, name in enumerate(kinds) if name.strip().lower() in TIME_NAMES]
    return named[0] if len(named) == 1 else None


def numbers_rows(index: Any, kinds: dict[str, str]) -> bool:
    """Whether an index only numbers rows, or those that a selection left.

    Whole numbers without a name, where a column (name -> kind) must be the time, or from 0 on.
    """
    if index.nlevels > 1 or index.name is not None or index.dtype.kind not in "iu":
        return False
    own = type(index).__name__ == "RangeIndex" and (index.start, index.step) == (0, 1)
    return own or time_column(kinds) is not None


def _panel(frame: Any, unit: str) -> tuple[NDArray[np.float64], Stamps]:
    """Paths by the first level of the index, their common times by the last."""
    index = frame.index
    if index.nlevels != 2:
        raise ValueError(f"an index of two levels (path, time) is wanted, got {index.nlevels}")
    labels = list(dict.fromkeys(index.get_level_values(0)))
    pieces = [frame.xs(label, level=0) for label in labels]
    for label, piece in zip(labels, pieces):
        if not piece.index.equals(pieces[0].index):
            raise ValueError(
                f"paths must share their times, but {label!r} differs from {labels[0]!r}: estimate "
                "them one by one (frame.groupby(level=0)), or read them by io.read_panel"
            )
    stamps = index_stamps(pieces[0].index, unit, index.names[1])
    values = np.stack([values_of(piece) for piece in pieces])
    columns = tuple(str(name) for name in frame.columns)
    return values, replace(
        stamps, paths=tuple(labels), path_name=index.names[0] or "path", columns=columns
    )


def index_stamps(index: Any, unit: str, name: Any) -> Stamps:
    import pandas as pd

    name = "t" if name is None else str(name)
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if isinstance(index, pd.TimedeltaIndex):
        gone = index.to_numpy()
        return Stamps(elapsed(gone, np.zeros((), gone.dtype), unit), name=name)
    if index.dtype == object:
        found = date_objects(index.to_numpy(), unit, name)
        if found is None:
            raise TypeError(f"{name} (the index) must be dates or numbers, got {index[0]!r}")
        return found
    if isinstance(index.dtype, pd.DatetimeTZDtype):
        return _counted(index.tz_convert("UTC").tz_localize(None).to_numpy(), unit, name, index.tz)
    values = index.to_numpy()
    if values.dtype.kind == "M":
        return _counted(values, unit, name)
    warn_of_calendar(values, name)
    if values.dtype.kind in "iu" and values.size and int(values.max()) < 2**63:
        return Stamps(values.astype(np.int64), name=name)
    if values.dtype.kind != "f":
        raise TypeError(
            f"{name} (the index) must be dates or numbers, got {index.dtype}: set the index by "
            "frame.set_index(pandas.to_datetime(...))"
        )
    return Stamps(values, name=name)


def values_of(table: Any) -> NDArray[np.float64]:
    """The numbers (T, p) or (T,) of a table, missing entries as NaN."""
    kind = library(table)
    if kind == "xarray":
        refuse_disorder(table, "z")
        return real_array(table.to_numpy(), "z", allow_nan=True)
    if kind == "pyarrow" and not hasattr(table, "column_names"):
        return real_array(table.to_pandas(), "z", allow_nan=True)
    if kind == "pandas" and table.ndim == 1:
        name = "z" if table.name is None else f"column {table.name!r}"
        return real_array(_column(table), name, allow_nan=True)
    frame = table.to_frame() if kind == "polars" and hasattr(table, "to_frame") else table
    names = frame.column_names if kind == "pyarrow" else frame.columns
    refuse_swapped(names, "z")
    columns = []
    for k, name in enumerate(names):
        column = _column(frame.iloc[:, k] if kind == "pandas" else frame[name])
        columns.append(real_array(column, f"column {name!r}", allow_nan=True))
    return np.stack(columns, axis=-1) if columns else np.empty((len(frame), 0))


def _column(series: Any) -> Any:
    """A column, missing numbers as NaN."""
    kind = library(series)
    if kind == "polars" and series.null_count() and series.dtype.is_numeric():
        return series.cast(float).to_numpy()
    if kind == "pandas" and series.dtype.kind in "biuf" and not isinstance(series.dtype, np.dtype):
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    return series.to_numpy()


# ----------------------------------------------------------------------------------- polars, xarray


def _counted(raw: NDArray[Any], unit: str, name: str, zone: Any = None) -> Stamps:
    """Stamps of a column of times: dates, or numbers as they are."""
    if raw.dtype.kind == "M":
        return Stamps(checked_dates(raw, name), unit, zone, name)
    return stamps_of(raw, unit, name) or Stamps(real_array(raw, name), name=name)


def _polars(table: Any, unit: str) -> tuple[NDArray[np.float64], Stamps]:
    if not hasattr(table, "columns"):
        raise TypeError("z is missing: a polars Series has no times; give t and z")
    kinds = {name: "M" if table[name].dtype.is_temporal() else "f" for name in table.columns}
    place = time_column(kinds)
    if place is None:
        raise ValueError(
            f"one column must hold the times: dates, or one called {', '.join(TIME_NAMES[:3])}; "
            f"the columns are {', '.join(table.columns)}"
        )
    name = table.columns[place]
    column, rest = table[name], table.drop(name)
    stamps = _counted(column.to_numpy(), unit, name, zone_of(column))
    return values_of(rest), replace(stamps, columns=tuple(rest.columns))


def _xarray(table: Any, unit: str, obs_dim: int | None) -> tuple[NDArray[np.float64], Stamps]:
    names: tuple[str, ...] = ()
    if hasattr(table, "data_vars"):
        names = tuple(str(name) for name in table.data_vars)
        table = table.to_dataarray("variable")
        table = table.transpose(*(d for d in table.dims if d != "variable"), "variable")
    kinds = {str(d): table[d].dtype.kind if d in table.coords else "" for d in table.dims}
    place = time_column(kinds)
    if place is None and len(kinds) == 1:
        place = 0
    if place is None:
        raise ValueError(
            f"one dimension must be the time: dates, or called time; they are {', '.join(kinds)}"
        )
    name = str(table.dims[place])
    others = [d for d in table.dims if d != name]
    if len(others) == 1 and obs_dim == 1 and not names:  # paths of one component
        z = table.transpose(others[0], name).to_numpy()[..., None]
    else:
        z = table.transpose(*others[:-1], name, *others[-1:]).to_numpy()
        z = z[:, None] if z.ndim == 1 else z
    stamps = _counted(table[name].to_numpy(), unit, name)
    columns = names or tuple(f"z{i}" for i in range(z.shape[-1]))
    return real_array(z, "z", allow_nan=True), replace(stamps, columns=columns)


# -------------------------------------------------------------------------------------------- dates


def date_objects(raw: NDArray[Any], unit: str, name: str) -> Stamps | None:
    """Python dates (with a time zone or without) or None for other objects."""
    import datetime

    first: Any = raw.flat[0]
    dates: Any = (datetime.date, np.datetime64)
    if not isinstance(first, dates):
        return None
    zone = getattr(first, "tzinfo", None)
    try:
        if len({getattr(x, "tzinfo", None) is None for x in raw.flat}) > 1:
            raise ValueError
        if zone is not None:
            utc = datetime.UTC
            raw = np.array([x.astimezone(utc).replace(tzinfo=None) for x in raw])
        exact = [x.to_datetime64() if hasattr(x, "to_datetime64") else x for x in raw.flat]
        values = np.array([np.datetime64(x) for x in exact])
    except (ValueError, AttributeError, TypeError):
        raise TypeError(f"{name} must be dates of one kind, got {first!r} among others") from None
    return Stamps(checked_dates(values, name), unit, zone, name)


def checked_dates(values: NDArray[Any], name: str) -> NDArray[np.datetime64]:
    """Dates in a unit of fixed length, none missing, in order."""
    if not values.size:
        raise ValueError(f"{name} must hold at least one time, got none")
    if np.isnat(values).any():
        raise ValueError(
            f"{name} must not hold missing dates (NaT), got one in row "
            f"{int(np.argmax(np.isnat(values)))}"
        )
    step = np.datetime_data(values.dtype)[0]
    if step not in ("s", "ms", "us", "ns"):
        try:
            values = recast(values, f"M8[{'ns' if step in ('ps', 'fs', 'as') else 'us'}]")
        except ValueError:
            raise ValueError(
                f"{name} must be dates of whole nanoseconds or coarser, got {values.dtype}: count "
                f"from the first one, ({name} - {name}[0]) / numpy.timedelta64(1, {step!r})"
            ) from None
    back = np.flatnonzero(values[1:] < values[:-1])
    if back.size:
        k = int(back[0]) + 1
        raise ValueError(
            f"{name} must not decrease, got {values[k]} after {values[k - 1]}; sort the rows by "
            f"time first (pandas: sort_index(), polars: sort({name!r}), xarray: sortby({name!r}))"
        )
    return values
