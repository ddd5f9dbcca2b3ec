"""Dates from text: ISO 8601 with or without a time zone, a user's pattern, Unix times."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ISO = re.compile(
    r"(\d{4}-\d\d(?:-\d\d)?)"
    r"(?:(?<=-\d\d-\d\d)([T ]\d\d:?\d\d(?::?\d\d(?:[.,]\d+)?)?)"
    r"(?:\s?(Z|z|UTC|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?))?)?"
)
"""Date, time of day, time zone."""
_NO_NANOSECONDS = "dates with nanoseconds must lie in the years 1678 to 2262"
_FLOAT_WIDTH = len("1706695200.1234567")
LOST = 1e-3
"""Part of a step between times in text that may be lost without a word."""
MANY = 2000
"""Dates from which a fast reader is worth its import."""


def parse_dates(
    cells: Sequence[str], pattern: str | None = None
) -> tuple[NDArray[Any], NDArray[np.int16] | None]:
    """Dates (UTC) and, where cells tell it, their minutes east of UTC; NaT for what is none.

    Cells are ISO 8601 such as 2024-01-31T10:00:00.5+02:00 (a blank may stand for the T, a slash for
    the dash) or text in a `pattern` of `datetime.strptime`.
    """
    if pattern is not None:
        return _by_pattern(cells, pattern)
    text = np.array(cells, dtype=np.str_)
    if text.size:
        with contextlib.suppress(ValueError):  # a day that no calendar has
            if _plain_iso(text):
                return _moments(text), None
            bare, east = _without_zones(text)
            if east is not None and _plain_iso(bare):
                return _moments(bare) - east.astype("timedelta64[m]"), east
    return _one_by_one(cells)


def _plain_iso(text: NDArray[np.str_]) -> bool:
    """Whether numpy reads all cells as they stand: ISO 8601 with dashes and without zones."""
    width = text.dtype.itemsize // 4
    codes = np.ascontiguousarray(text).view(np.uint32).reshape(len(text), width)
    kinds = np.where((codes >= ord("0")) & (codes <= ord("9")), ord("0"), codes)
    day, between, clock = (np.array([*map(ord, x)]) for x in ("0000-00-00", "T \0", "0:.\0"))
    if width not in (7, 10) and width < 16:
        return False
    ok = (kinds[:, :10] == day[:width]).all() and np.isin(kinds[:, 10:11], between).all()
    return bool(ok and np.isin(kinds[:, 11:], clock).all())


def _without_zones(text: NDArray[np.str_]) -> tuple[NDArray[np.str_], NDArray[np.int16] | None]:
    """The cells without their ends, where all end in Z or all in +hh:mm, and minutes east."""
    width = text.dtype.itemsize // 4
    codes = np.ascontiguousarray(text).view(np.uint32).reshape(len(text), width)
    if width > 16 and (codes[:, -1] == ord("Z")).all():
        return text.astype(f"U{width - 1}"), np.zeros(len(text), np.int16)
    if width <= 22:
        return text, None
    sign, digits = codes[:, -6], codes[:, [-5, -4, -2, -1]].astype(np.int64) - ord("0")
    signed = ((sign == ord("+")) | (sign == ord("-"))) & (codes[:, -3] == ord(":"))
    if not signed.all() or ((digits < 0) | (digits > 9)).any():
        return text, None
    minutes = digits @ np.array([600, 60, 10, 1])
    east = np.where(sign == ord("-"), -minutes, minutes).astype(np.int16)
    return text.astype(f"U{width - 6}"), east


def _moments(text: NDArray[np.str_]) -> NDArray[np.datetime64]:
    """ISO 8601 as dates in microseconds or, where more digits are written, in nanoseconds."""
    dates = text.astype("datetime64[us]")
    if text.dtype.itemsize // 4 <= len("2024-01-31T10:00:00.123456"):
        return dates
    fine = text.astype("datetime64[ns]")
    if ((fine.astype("datetime64[us]") != dates) & ~np.isnat(dates)).any():
        raise ValueError(_NO_NANOSECONDS)
    return fine


def _finer(dates: NDArray[Any], extra: NDArray[np.int64]) -> NDArray[np.datetime64]:
    """Dates in microseconds and the nanoseconds beyond them, where there are any."""
    if not extra.any():
        return dates
    known = ~np.isnat(dates)
    ticks = dates.astype(np.int64)
    if (np.abs(ticks[known]) > np.iinfo(np.int64).max // 1000 - 1).any():
        raise ValueError(_NO_NANOSECONDS)
    fine = (np.where(known, ticks, 0) * 1000 + extra).astype("datetime64[ns]")
    return np.where(known, fine, np.datetime64("NaT", "ns"))


def parse_unix(cells: Sequence[str], per_second: int) -> NDArray[np.datetime64] | None:
    """Dates (UTC) of Unix times in text, to the nanosecond; None where floats tell as much.

    Floats of today's Unix seconds end in the seventh decimal: further ones that all are what
    printing a float gives say nothing.
    """
    if max(map(len, cells)) > _FLOAT_WIDTH and all(map(_is_printed_float, cells)):
        return None
    ticks = [round(Decimal(cell) * (10**9 // per_second)) for cell in cells]
    whole, extra = zip(*(divmod(tick, 1000) for tick in ticks))
    return _finer(np.array(whole, np.int64).astype("datetime64[us]"), np.array(extra, np.int64))


def _is_printed_float(cell: str) -> bool:
    return f"{float(cell):.{len(cell.partition('.')[2])}f}" == cell


def lost_step(cells: Sequence[str], values: NDArray[np.float64]) -> int | None:
    """The first of numbers in text whose step to the next the floats `values` miss, or None."""
    if max(map(len, cells)) <= len("1.23456789012345"):
        return None
    exact = [Decimal(cell) for cell in cells]
    steps = np.array([float(b - a) for a, b in pairwise(exact)])
    wrong = np.flatnonzero(np.abs(np.diff(values) - steps) > LOST * np.abs(steps))
    return int(wrong[0]) if wrong.size else None


def _one_by_one(cells: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.int16] | None]:
    found = [_ISO.fullmatch(cell.strip().replace("/", "-")) for cell in cells]
    text = [f"{m[1]}{m[2] or ''}".replace(",", ".") if m else "NaT" for m in found]
    out = _moments(np.array([x if _is_moment(x) else "NaT" for x in text], dtype=np.str_))
    zones = [m[3] if m else None for m in found]
    zoned = np.array([zone is not None for zone in zones], dtype=bool)
    if not zoned.any():
        return out, None
    if not zoned[~np.isnat(out)].all():
        raise ValueError("some dates have a time zone and some have none: write it on all or none")
    east = np.array([_minutes_east(zone) for zone in zones], dtype=np.int16)
    return out - east.astype("timedelta64[m]"), east


def _minutes_east(zone: str | None) -> int:
    """Minutes of "+02:00", "-0330" or "+02"; 0 of UTC and where there is none."""
    if zone is None or zone in ("Z", "z", "UTC"):
        return 0
    minutes = 60 * int(zone[1:3]) + int(zone[3:].lstrip(":") or 0)
    return -minutes if zone[0] == "-" else minutes


def _is_moment(text: str) -> bool:
    with contextlib.suppress(ValueError):
        np.datetime64(text, "ns")
        return True
    return False


def _by_pattern(
    cells: Sequence[str], pattern: str
) -> tuple[NDArray[Any], NDArray[np.int16] | None]:
    try:
        _parsed("", pattern)
    except re.error as error:  # a directive that stands twice
        raise ValueError(f"{pattern!r} is no pattern of dates: {error.msg}") from None
    said = {directive.lstrip("%-#") for directive in re.findall(r"%[-#]?.", pattern)}
    if said & set("dmbBj") and not said & set("yYGcx"):
        raise ValueError(f"{pattern!r} has days or months but no year (%Y), which steps depend on")
    if len(cells) > MANY and "%z" not in pattern and "%Z" not in pattern:
        return _many_by_pattern(cells, pattern), None
    dates, extra, east = _each_by_pattern(cells, pattern)
    return _finer(dates, extra), east


def _each_by_pattern(
    cells: Sequence[str], pattern: str
) -> tuple[NDArray[np.datetime64], NDArray[np.int64], NDArray[np.int16] | None]:
    """Dates in microseconds, nanoseconds beyond them, and minutes east of UTC."""
    out = np.empty(len(cells), dtype="datetime64[us]")
    extra = np.zeros(len(cells), dtype=np.int64)
    east = np.zeros(len(cells), dtype=np.int16)
    zoned = False
    for k, cell in enumerate(cells):
        moment, extra[k] = _parsed(cell.strip(), pattern)
        if moment is None:
            out[k] = np.datetime64("NaT", "us")
            continue
        offset = moment.utcoffset()
        if offset is not None:
            zoned = True
            east[k] = offset // timedelta(minutes=1)
            moment = moment.astimezone(UTC).replace(tzinfo=None)
        out[k] = np.datetime64(moment, "us")
    return out, extra, (east if zoned else None)


def _parsed(cell: str, pattern: str) -> tuple[datetime | None, int]:
    """A date and its nanoseconds beyond %f, which reads six digits: those behind them."""
    with contextlib.suppress(ValueError):
        return datetime.strptime(cell, pattern), 0
    before = pattern.partition("%f")[0][-1:]
    digits = re.findall(rf"(?<={re.escape(before)})\d{{7,9}}(?!\d)", cell)
    if "%f" in pattern and len(digits) == 1:
        with contextlib.suppress(ValueError):
            shorter = cell.replace(before + digits[0], before + digits[0][:6])
            return datetime.strptime(shorter, pattern), int(digits[0][6:].ljust(3, "0"))
    return None, 0


def _many_by_pattern(cells: Sequence[str], pattern: str) -> NDArray[Any]:
    """The same by pandas, twenty times as fast; what it does not read is looked at again."""
    import pandas as pd

    found = pd.to_datetime(pd.Series(cells), format=pattern, errors="coerce").to_numpy()
    dates = found.astype("datetime64[us]")
    left = np.flatnonzero(np.isnat(dates))
    extra = np.where(np.isnat(dates), np.timedelta64(0, "ns"), found - dates)
    extra = extra.astype("timedelta64[ns]").astype(np.int64)
    for low in range(0, len(left), MANY):
        rows = left[low : low + MANY]
        dates[rows], extra[rows], _ = _each_by_pattern([cells[k] for k in rows], pattern)
    return _finer(dates, extra)
