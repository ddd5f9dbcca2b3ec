"""Time columns: numbers, dates in text or whole numbers, date and time of day in two columns."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array, choice
from afafilter._base.dates import lost_step, parse_dates, parse_unix
from afafilter._base.stamps import (
    PER_SECOND,
    SECONDS,
    Stamps,
    calendar_numbers,
    looks_like_unix,
    unit_in_name,
    unix_dates,
)
from afafilter.io.dialect import Dialect, number
from afafilter.io.source import Table
from afafilter.io.values import CLOCK, column_of

UNIX = {"unix": "s", "unix-s": "s", "unix-ms": "ms", "unix-us": "us", "unix-ns": "ns"}


def read_times_of(table: Table, names: Sequence[str], unit: str | None, dialect: Dialect) -> Stamps:
    """The stamps of a table's rows."""
    if unit is not None:
        choice(unit, "time_unit", tuple(SECONDS))
    name = names[0]
    if len(names) == 2:
        return _dated(table, names, _joined(table, names), unit, dialect)
    column = table.columns[name]
    if getattr(getattr(column, "dtype", None), "kind", "") == "M":
        return _of_dates(table, name, column, unit)
    if getattr(getattr(column, "dtype", None), "kind", "") == "b":
        raise ValueError(f"{table.path}: {name} (the time) must be numbers or dates, got booleans")
    if dialect.time_format not in (None, "number", *UNIX):
        return _dated(table, names, [str(cell) for cell in column], unit, dialect)
    if not isinstance(column, np.ndarray) and _is_text(table, column):
        return _dated(table, names, column, unit, dialect)
    values = column_of(table, name)
    if isinstance(column, (list, tuple)) and all(cell.strip().isdigit() for cell in column):
        values = np.asarray(values, dtype=np.int64)
    _refuse_missing(table, name, np.isnan(values.astype(np.float64)))
    cells = [] if isinstance(column, np.ndarray) else _plain(table, column)
    return _of_numbers(table, name, values, cells, unit, dialect.time_format)


def _is_text(table: Table, column: Sequence[str]) -> bool:
    first = next((cell for cell in column if cell.strip().lower() not in table.missing), "")
    return bool(first) and number(first, table.decimal) is None


def _plain(table: Table, column: Sequence[str]) -> list[str]:
    """Numbers in text with a decimal point."""
    return [str(cell).strip().replace(table.decimal, ".") for cell in column]


def _of_numbers(
    table: Table,
    name: str,
    values: NDArray[Any],
    cells: Sequence[str],
    unit: str | None,
    form: str | None,
) -> Stamps:
    if form in UNIX:
        whole = values.dtype.kind in "iu" or not cells
        try:
            rounded = unix_dates(values, UNIX[form])
        except ValueError as error:
            raise ValueError(f"{table.path}: {name}: {error}") from None
        exact = None if whole else parse_unix(cells, PER_SECOND[UNIX[form]])
        return Stamps(rounded if exact is None else exact, unit or "D", name=name)
    dates = None if form == "number" else calendar_numbers(values)
    if dates is not None:
        warnings.warn(
            f"{table.path}: {name} ({values[0]:.0f} ... {values[-1]:.0f}) is read as dates; "
            "--time-format number takes the numbers as they are",
            stacklevel=2,
        )
        return Stamps(dates, unit or "D", name=name)
    since = looks_like_unix(values)
    if unit is not None and form is None and since is not None and unit != since:
        word = "unix" if since == "s" else f"unix-{since}"
        raise ValueError(
            f"{table.path}: {name} looks like a Unix time in {since}, but time_unit is {unit!r}: "
            f"--time-format {word} reads dates, --time-format number takes numbers in {unit!r}"
        )
    written = unit_in_name(name)
    if unit is not None and written is not None and unit != written:
        raise ValueError(
            f"{table.path}: {name!r} says its unit, which time_unit {unit!r} is not; numbers are "
            "taken as they are"
        )
    whole = values.dtype.kind in "iu"
    lost = None if whole or not cells else lost_step(cells, values)
    if lost is not None:
        two, apart = " and ".join(cells[lost : lost + 2]), values[lost + 1] - values[lost]
        word = "unix" if since == "s" else f"unix-{since}"
        remedy = f"--time-format {word} reads them exactly" if since else "count from the first one"
        warnings.warn(
            f"{table.path}: {two} in {name} become {apart:g} apart as floating-point numbers: "
            f"{remedy}",
            stacklevel=2,
        )
    return Stamps(values.astype(np.int64 if whole else np.float64), unit or "", name=name)


def _of_dates(table: Table, name: str, column: Any, unit: str | None) -> Stamps:
    """Dates of Parquet: an array, or a Series with a time zone."""
    zone = None
    if isinstance(column, np.ndarray):
        values = column
    else:
        zone = column.dt.tz
        values = column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    if np.datetime_data(values.dtype)[0] not in ("s", "ms", "us", "ns"):
        values = values.astype("datetime64[us]")
    _refuse_missing(table, name, np.isnat(values))
    return Stamps(values, unit or "D", zone, name)


def _joined(table: Table, names: Sequence[str]) -> list[str]:
    """Date and time of day of two columns in one text."""
    day, clock = (table.columns[name] for name in names)
    for name, column in zip(names, (day, clock)):
        if isinstance(column, np.ndarray) and column.dtype.kind != "M":
            raise ValueError(f"{table.path}: {name} must be text to be joined to a date")
    if isinstance(day, np.ndarray):
        day = np.datetime_as_string(day, unit="D").tolist()
    return [f"{a.strip()} {b.strip()}".strip() for a, b in zip(day, clock)]


def _dated(
    table: Table, names: Sequence[str], cells: Sequence[str], unit: str | None, dialect: Dialect
) -> Stamps:
    pattern = dialect.time_format
    try:
        values, east = parse_dates([cell.strip() for cell in cells], pattern)
    except ValueError as error:
        raise ValueError(f"{table.path}: {names[0]}: {error}") from None
    name = names[0]
    clock = _clock_beside(table, name) if len(names) == 1 else ""
    absent = np.flatnonzero(np.isnat(values)).tolist()
    row = next((k for k in absent if cells[k].strip().lower() not in table.missing), None)
    if row is not None:
        form = f"a date as {pattern}" if pattern else "a number or an ISO date (2024-01-31)"
        hint = _pattern(cells[row])
        if hint and clock:
            whole = f"{cells[row].strip()} {table.shown(clock, row).strip()}"
            hint = (
                f"; --time {name},{clock}{_pattern(whole).lstrip(';').replace(' reads', ' read')}"
            )
        raise ValueError(f"{table.where(row)}: {name} must be {form}, got {cells[row]!r}{hint}")
    _refuse_missing(table, name, np.isnat(values))
    if clock and len(np.unique(values)) < len(values):
        warnings.warn(
            f"{table.path}: rows share their date, but {clock!r} has times of day: --time "
            f"{name},{clock} reads both",
            stacklevel=2,
        )
    return Stamps(values, unit or "D", east, name)


def _clock_beside(table: Table, name: str) -> str:
    """The name of the column behind a date that has times of day; "" where none has."""
    after = table.names[table.names.index(name) + 1 :][:1]
    if after and not isinstance(table.columns[after[0]], np.ndarray):
        known = (cell for cell in table.columns[after[0]] if str(cell).strip())
        if CLOCK.fullmatch(str(next(known, "")).strip()):
            return after[0]
    return ""


def _pattern(cell: str) -> str:
    """The option that reads a date of another habit."""
    if CLOCK.fullmatch(cell.strip()):
        return "; --time DATE,CLOCK reads a date and a time of day from two columns"
    clock = " %H:%M:%S" if re.search(r"\d:\d\d:\d\d", cell) else " %H:%M" if ":" in cell else ""
    if re.match(r"\d{1,2}\.\d{1,2}\.\d{4}", cell.strip()):
        return f'; --time-format "%d.%m.%Y{clock}" reads it'
    if re.match(r"\d{1,2}/\d{1,2}/\d{4}", cell.strip()):
        return (
            f'; --time-format "%d/%m/%Y{clock}" (day first) or "%m/%d/%Y{clock}" (month first) '
            "reads it"
        )
    return ""


def _refuse_missing(table: Table, name: str, absent: NDArray[np.bool_]) -> None:
    if absent.any():
        raise ValueError(f"{table.where(int(np.argmax(absent)))}: {name} (the time) is missing")


def require_sorted(
    table: Table, names: Sequence[str], t: Array, remedy: str = "", *, rows: Any = None
) -> None:
    """ValueError at the first decrease; `rows` are the rows of the table that t was taken from."""
    back = np.flatnonzero(np.diff(t) < 0)
    if back.size:
        later = int(back[0]) + 1
        before, at = (k if rows is None else int(rows[k]) for k in (later - 1, later))
        shown = [" ".join(table.shown(name, k) for name in names) for k in (at, before)]
        raise ValueError(
            f"{table.where(at)}: time {shown[0]} comes after {shown[1]}; sort the rows by "
            f"time (--sort, sort=True does){remedy}"
        )
