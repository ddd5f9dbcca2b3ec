"""Dates from text: ISO 8601 with or without a time zone, or a pattern of the user's."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ISO = re.compile(
    r"\d{4}-\d{2}(?:-\d{2}(?:[T ]\d{2}:?\d{2}(?::?\d{2}(?:[.,]\d+)?)?"
    r"(?:\s?(?:Z|z|UTC|[+-]\d{2}(?::?\d{2})?))?)?)?$"
)
_ZONE = re.compile(r"\s?(?:(Z|z|UTC)|([+-])(\d{2}):?(\d{2})?)$")
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
                return text.astype(f"datetime64[{_resolution(text)}]"), None
            bare, east = _without_zones(text)
            if east is not None and _plain_iso(bare):
                local = bare.astype(f"datetime64[{_resolution(bare)}]")
                return local - east.astype("timedelta64[m]"), east
    return _one_by_one(cells)


def _plain_iso(text: NDArray[np.str_]) -> bool:
    """Whether numpy reads all cells as they stand: ISO 8601 with dashes and without zones."""
    width = text.dtype.itemsize // 4
    if width < 7:
        return False
    codes = np.ascontiguousarray(text).view(np.uint32).reshape(len(text), width)
    digit = (codes >= 48) & (codes <= 57)
    if not (digit[:, :4].all() and (codes[:, 4] == 45).all()):
        return False
    if width == 7:
        return bool(digit[:, 5:7].all())
    ok = digit[:, 5:7].all() and digit[:, 8:10].all() and (codes[:, 7] == 45).all()
    if not ok or width == 10:
        return bool(ok)
    if width < 16:
        return False
    ends = (codes[:, 10] == 84) | (codes[:, 10] == 32) | (codes[:, 10] == 0)
    rest = codes[:, 11:]
    allowed = ((rest >= 48) & (rest <= 58)) | (rest == 46) | (rest == 0)
    return bool(ends.all() and allowed.all())


def _without_zones(
    text: NDArray[np.str_],
) -> tuple[NDArray[np.str_], NDArray[np.int16] | None]:
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


def _resolution(text: NDArray[np.str_]) -> str:
    return "ns" if text.dtype.itemsize // 4 > len("2024-01-31T10:00:00.123456") else "us"


def _one_by_one(
    cells: Sequence[str],
) -> tuple[NDArray[Any], NDArray[np.int16] | None]:
    bare: list[str] = []
    east = np.zeros(len(cells), dtype=np.int16)
    zoned = np.zeros(len(cells), dtype=bool)
    for k, cell in enumerate(cells):
        text = cell.strip().replace("/", "-")
        if not _ISO.match(text):
            bare.append("NaT")
            continue
        zone = _ZONE.search(text) if len(text) > 10 else None
        if zone is not None:
            zoned[k] = True
            text = text[: zone.start()]
            if zone[2]:
                minutes = 60 * int(zone[3]) + int(zone[4] or 0)
                east[k] = -minutes if zone[2] == "-" else minutes
        bare.append(text.replace(",", "."))
    longest = max(map(len, bare), default=0)
    unit = "ns" if longest > len("2024-01-31T10:00:00.123456") else "us"
    out = np.array([_moment(text, unit) for text in bare], dtype=f"datetime64[{unit}]")
    if not zoned.any():
        return out, None
    out = np.where(zoned, out - east.astype("timedelta64[m]"), out)
    if not zoned[~np.isnat(out)].all():
        raise ValueError("some dates have a time zone and some have none: write it on all or none")
    return out, east


def _moment(text: str, unit: Any) -> Any:
    try:
        return np.datetime64(text, unit)
    except ValueError:
        return np.datetime64("NaT", unit)


def _by_pattern(
    cells: Sequence[str], pattern: str
) -> tuple[NDArray[Any], NDArray[np.int16] | None]:
    if len(cells) > MANY and "%z" not in pattern and "%Z" not in pattern:
        return _many_by_pattern(cells, pattern), None
    out = np.empty(len(cells), dtype="datetime64[us]")
    east = np.zeros(len(cells), dtype=np.int16)
    zoned = False
    for k, cell in enumerate(cells):
        try:
            moment = datetime.strptime(cell.strip(), pattern)
        except ValueError:
            out[k] = np.datetime64("NaT")
            continue
        offset = moment.utcoffset()
        if offset is not None:
            zoned = True
            east[k] = offset // timedelta(minutes=1)
            moment = moment.astimezone(UTC).replace(tzinfo=None)
        out[k] = np.datetime64(moment, "us")
    return out, (east if zoned else None)


def _many_by_pattern(cells: Sequence[str], pattern: str) -> NDArray[Any]:
    """The same by pandas, twenty times as fast; what it does not read is looked at again."""
    import pandas as pd

    found = pd.to_datetime(pd.Series(cells), format=pattern, errors="coerce")
    out = found.to_numpy().astype("datetime64[us]")
    left = np.flatnonzero(np.isnat(out))
    for low in range(0, len(left), MANY):
        rows = left[low : low + MANY]
        out[rows] = _by_pattern([cells[k] for k in rows], pattern)[0]
    return out
