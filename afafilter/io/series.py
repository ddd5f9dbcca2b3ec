"""Measurements from CSV and Parquet, with errors that name the line."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array, choice, real_array

CSV_SUFFIXES = (".csv", ".tsv", ".txt")
PARQUET_SUFFIXES = (".parquet", ".pq")
MISSING = {"", "na", "nan", "n/a", "null", "none"}
SECONDS = {
    "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "D": 86400.0, "W": 7 * 86400.0,
    "Y": 365.25 * 86400.0,
}  # fmt: skip
"""Seconds per unit of time; "Y" is the Julian year."""


@dataclass(frozen=True, eq=False)
class Series:
    """Measurements over time.

    Attributes
    ----------
    t : (T,) times, non-decreasing.
    z : (T, p) values, or (n, T, p) when the file holds several paths; NaN = missing.
    columns : p names. name : what it is. units : of the values.
    source, licence : where it comes from, and on what terms.
    dates : (T,) datetime64 when the file gives dates, else None.
    time_unit : unit of t when it comes from dates: a key of `SECONDS`.
    paths : what tells the n paths apart, in their order; empty for one path.
    """

    t: Array
    z: Array
    columns: tuple[str, ...]
    name: str = ""
    units: str = ""
    source: str = ""
    licence: str = ""
    dates: NDArray[np.datetime64] | None = None
    time_unit: str = ""
    paths: tuple[Any, ...] = ()

    def time_of(self, moments: Sequence[str | float]) -> Array:
        """Numbers or dates (ISO 8601, for a series with dates) on the scale of `t`.

        Raises
        ------
        ValueError
            If one is neither a number nor, for a series with dates, a date.
        """
        out = []
        for moment in moments:
            try:
                out.append(float(moment))
                continue
            except ValueError:
                pass
            if self.dates is None:
                raise ValueError(f"times must be numbers like those of the data, got {moment!r}")
            try:
                date = np.datetime64(str(moment), "us")
            except ValueError:
                raise ValueError(f"times must be numbers or ISO dates, got {moment!r}") from None
            out.append(float(self.t[0]) + float(_elapsed(date, self.dates[0], self.time_unit)))
        return real_array(out, "times")


def read_series(
    path: str | Path,
    time: str | None = None,
    values: Sequence[str] | str | None = None,
    *,
    by: str | None = None,
    time_unit: str = "D",
) -> Series:
    """Measurements from CSV (.csv, .tsv, .txt) or Parquet (.parquet, .pq).

    Parameters
    ----------
    path : the file. CSV: UTF-8, a header line, fields separated by comma, semicolon or tab (found
        from the header); lines before the header that start with # are skipped.
    time : name of the time column; None = the first column. Numbers are taken as they are. Dates
        (ISO 8601) become the time since the first one in `time_unit`.
    values : names of the value columns; None = all columns but `time` and `by`. Blank, NA, NaN and
        null mean missing.
    by : name of a column that tells paths apart, each with the same times; None = one path.
    time_unit : "ms", "s", "min", "h", "D", "W" or "Y" (365.25 days).

    Returns
    -------
    Series

    Raises
    ------
    ValueError
        No such column, columns of the same name, values that are no numbers (the message gives the
        line), missing, infinite or decreasing times, an empty file, paths with different times.
    OSError
        If the file cannot be read.
    """
    path = Path(path)
    choice(time_unit, "time_unit", tuple(SECONDS))
    table = _read_table(path)
    names = [values] if isinstance(values, str) else values
    time = table.names[0] if time is None else time
    if names is None:
        names = [name for name in table.names if name not in (time, by)]
    if not names:
        raise ValueError(f"{path}: no value column beside the time column {time!r}")
    wanted = [time, *([] if by is None else [by]), *names]
    for name in wanted:
        _require(table, name)
        if wanted.count(name) > 1:
            raise ValueError(f"{path}: column {name!r} is asked for twice")
    t, dates = _times(table, time, time_unit)
    z = np.stack([_numbers(table, name) for name in names], axis=-1)
    labels: tuple[Any, ...] = ()
    if by is None:
        _require_sorted(table, time, t, ", or name the column that tells paths apart")
    else:
        paths = _paths(table, by, t)
        labels = tuple(table.columns[by][rows[0]] for rows in paths)
        t, z = t[paths[0]], z[paths]
        dates = None if dates is None else dates[paths[0]]
        _require_sorted(table, time, t, "", rows=paths[0])
    return Series(
        t, z, tuple(names), name=path.stem, dates=dates,
        time_unit="" if dates is None else time_unit, paths=labels,
    )  # fmt: skip


def read_times(path: str | Path, time: str | None = None, *, time_unit: str = "D") -> Array:
    """The time column (T,) alone, as `read_series` reads it; values are not looked at."""
    choice(time_unit, "time_unit", tuple(SECONDS))
    table = _read_table(Path(path))
    name = table.names[0] if time is None else time
    _require(table, name)
    t, _ = _times(table, name, time_unit)
    _require_sorted(table, name, t)
    return t


@dataclass(frozen=True, eq=False)
class _Table:
    """Raw columns: lists of strings (CSV) or arrays (Parquet); `lines` number the rows."""

    path: Path
    columns: Mapping[str, Any]
    lines: Sequence[int]
    line_word: str

    @property
    def names(self) -> list[str]:
        return list(self.columns)

    def where(self, row: int) -> str:
        return f"{self.path}, {self.line_word} {self.lines[row]}"

    def shown(self, name: str, row: int) -> str:
        return str(self.columns[name][row])


def _read_table(path: Path) -> _Table:
    suffix = path.suffix.lower()
    if suffix in CSV_SUFFIXES:
        table = _read_csv(path)
    elif suffix in PARQUET_SUFFIXES:
        table = _read_parquet(path)
    else:
        known = ", ".join(CSV_SUFFIXES + PARQUET_SUFFIXES)
        raise ValueError(f"{path}: the file name must end in one of {known}")
    if not table.lines:
        raise ValueError(f"{path}: no rows of data")
    return table


def _read_csv(path: Path) -> _Table:
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            skipped, header = 0, file.readline()
            while header.startswith("#"):
                skipped, header = skipped + 1, file.readline()
            if not header.strip():
                raise ValueError(f"{path}: the file is empty")
            delimiter = max(",;\t", key=header.count)
            names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter))]
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"{path}: two columns are called {name!r}")
            if _holds_data(names):
                raise ValueError(
                    f"{path}, line {skipped + 1}: a header with the names of the columns is "
                    f"wanted, got data ({header.strip()[:40]})"
                )
            rows, lines = [], []
            reader = csv.reader(file, delimiter=delimiter)
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                line = skipped + 1 + reader.line_num
                if len(row) != len(names):
                    raise ValueError(
                        f"{path}, line {line}: {len(row)} fields, but the header has {len(names)}"
                    )
                rows.append(row)
                lines.append(line)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text ({error.reason})") from None
        except csv.Error as error:
            raise ValueError(f"{path}: not readable as CSV: {error}") from None
    columns = zip(*rows) if rows else ([] for _ in names)
    return _Table(path, dict(zip(names, columns)), lines, "line")


def _holds_data(names: Sequence[str]) -> bool:
    """Whether a first line is data: a number or a date, and then only numbers and blanks."""
    first = _number(names[0])
    if first is None:
        try:
            date.fromisoformat(names[0][:10])
        except ValueError:
            return False
    elif math.isnan(first):
        return False
    return all(_number(name) is not None for name in names[1:])


def _read_parquet(path: Path) -> _Table:
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except ImportError:
        raise ValueError(
            f"{path}: Parquet needs pyarrow: pip install 'afafilter[parquet]'"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: not readable as Parquet: {error}") from None
    if frame.index.name is not None:
        frame = frame.reset_index()
    columns: dict[str, Any] = {}
    for name in frame.columns:
        column = frame[name]
        if pd.api.types.is_datetime64_any_dtype(column):
            if column.dt.tz is not None:
                column = column.dt.tz_convert(None)
            columns[str(name)] = column.to_numpy().astype("datetime64[us]")
        elif pd.api.types.is_numeric_dtype(column):
            columns[str(name)] = column.to_numpy(dtype=float, na_value=np.nan)
        else:
            columns[str(name)] = ["" if pd.isna(cell) else str(cell) for cell in column]
    return _Table(path, columns, range(1, len(frame) + 1), "row")


def _require(table: _Table, name: str) -> None:
    if name not in table.names:
        raise ValueError(
            f"{table.path}: no column {name!r}; the columns are {', '.join(table.names)}"
        )


def _require_sorted(
    table: _Table, name: str, t: Array, remedy: str = "", *, rows: NDArray[np.intp] | None = None
) -> None:
    """ValueError at the first decrease; `rows` are the rows of the table that t was taken from."""
    back = np.flatnonzero(np.diff(t) < 0)
    if back.size:
        later = int(back[0]) + 1
        before, at = (k if rows is None else int(rows[k]) for k in (later - 1, later))
        raise ValueError(
            f"{table.where(at)}: time {table.shown(name, at)} comes after "
            f"{table.shown(name, before)}; sort the rows by time{remedy}"
        )


def _numbers(table: _Table, name: str) -> Array:
    """A column as floats, blanks as NaN."""
    column = table.columns[name]
    if isinstance(column, np.ndarray) and column.dtype.kind == "M":
        raise ValueError(f"{table.path}: column {name!r} holds dates, not numbers")
    if isinstance(column, np.ndarray):
        out = column.astype(float)
    else:
        out = np.empty(len(column))
        for row, cell in enumerate(column):
            number = _number(cell)
            if number is None:
                raise ValueError(f"{table.where(row)}: {name} must be a number, got {cell!r}")
            out[row] = number
    if np.isinf(out).any():
        row = int(np.argmax(np.isinf(out)))
        raise ValueError(f"{table.where(row)}: {name} must be finite; leave a missing value blank")
    return out


def _number(cell: str) -> float | None:
    """NaN for a blank, None for what is no number."""
    cell = cell.strip()
    if cell.lower() in MISSING:
        return math.nan
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _times(table: _Table, name: str, unit: str) -> tuple[Array, NDArray[np.datetime64] | None]:
    column = table.columns[name]
    stamps: Any
    if isinstance(column, np.ndarray) and column.dtype.kind == "M":
        stamps = column
    elif isinstance(column, np.ndarray) or _number(column[0]) is not None:
        stamps = _numbers(table, name)
    else:
        stamps = _dates(table, name)
    absent = np.isnat(stamps) if stamps.dtype.kind == "M" else np.isnan(stamps)
    if absent.any():
        raise ValueError(f"{table.where(int(np.argmax(absent)))}: {name} (the time) is missing")
    if stamps.dtype.kind != "M":
        return stamps, None
    return _elapsed(stamps, stamps[0], unit), stamps


def _dates(table: _Table, name: str) -> NDArray[np.datetime64]:
    import pandas as pd

    cells = [str(cell).strip() for cell in table.columns[name]]
    parsed = pd.to_datetime(pd.Series(cells), format="ISO8601", errors="coerce", utc=True)
    wrong = [k for k in np.flatnonzero(parsed.isna()) if cells[k].lower() not in MISSING]
    if wrong:
        raise ValueError(
            f"{table.where(int(wrong[0]))}: {name} must be a number or an ISO date "
            f"(2024-01-31), got {cells[wrong[0]]!r}"
        )
    return parsed.dt.tz_localize(None).to_numpy().astype("datetime64[us]")


def _elapsed(stamps: Any, start: Any, unit: str) -> Any:
    return (stamps - start) / np.timedelta64(1, "us") / (1e6 * SECONDS[unit])


def _paths(table: _Table, by: str, t: Array) -> NDArray[np.intp]:
    """Rows (n, T) of each path, in order of appearance; ValueError unless all share their times."""
    labels = np.asarray(table.columns[by])
    _, first, which = np.unique(labels, return_index=True, return_inverse=True)
    paths = [np.flatnonzero(which == k) for k in np.argsort(first)]
    for rows in paths[1:]:
        if len(rows) != len(paths[0]) or (t[rows] != t[paths[0]]).any():
            raise ValueError(
                f"{table.path}: paths must share their times, but {by} = {labels[rows[0]]} differs "
                f"from {by} = {labels[paths[0][0]]}"
            )
    return np.stack(paths)
