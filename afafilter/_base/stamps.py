"""Time stamps as users have them, and the numbers that estimators count: there and back, exactly.

Stamps are dates (datetime64, with or without a time zone) or whole numbers too large for a float
(nanoseconds since 1970). Differences are taken in whole numbers first and become floats only then,
so that neighbouring stamps keep their distance; the way back gives the very stamps that came in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import EXACT, Array

SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "D": 86400.0,
    "W": 7 * 86400.0,
    "Y": 365.25 * 86400.0,
}
"""Seconds per unit of time; "Y" is the Julian year."""
_WORDS = "nanoseconds microseconds milliseconds seconds minutes hours days weeks years"
UNIT_WORDS = dict(zip(SECONDS, _WORDS.split(), strict=True))
FARTHEST = 1e12
"""Seconds since 1970 that a Unix time may tell."""
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True, eq=False)
class Stamps:
    """Stamps (T,) of data and how they are counted.

    Attributes
    ----------
    values : ndarray, shape (T,)
        datetime64 (UTC where there is a zone), int64, or float64 as they are.
    unit : str
        unit of the numbers, a key of `SECONDS`; "" = whatever the stamps count themselves.
    zone
        None; minutes east of UTC, (T,) int16; or anything that pandas takes as a time zone.
    name : str
        What the user calls the time.
    paths : tuple of object
        Labels of the paths, for data that hold several.
    path_name : str
        What the user calls the paths.
    """

    values: NDArray[Any]
    unit: str = ""
    zone: Any = None
    name: str = "t"
    paths: tuple[Any, ...] = ()
    path_name: str = "path"
    columns: tuple[str, ...] = field(default=())

    @property
    def dated(self) -> bool:
        """Whether the stamps are dates."""
        return self.values.dtype.kind == "M"

    @property
    def shifted(self) -> bool:
        """Whether times count from the first stamp: of dates and whole numbers beyond 2^53."""
        if self.values.dtype.kind == "i" and self.values.size:
            return max(abs(int(self.values.min())), abs(int(self.values.max()))) > EXACT
        return self.dated

    def __repr__(self) -> str:
        ends = f"{self.values[0]} .. {self.values[-1]}" if len(self.values) else "none"
        unit = f", unit {self.unit!r}" if self.unit else ""
        zone = "" if self.zone is None or isinstance(self.zone, np.ndarray) else f", {self.zone}"
        return f"Stamps({len(self.values)}: {ends}{unit}{zone})"

    @property
    def numbers(self) -> Array:
        """(T,) the times that estimators count: floats, since the first stamp where `shifted`."""
        return self.count(self.values)

    def count(self, values: NDArray[Any]) -> Array:
        """Other stamps of this kind as numbers on the same scale."""
        if self.dated:
            return np.asarray(elapsed(values, self.values[0], self.unit))
        if self.shifted:
            return _gone(np.asarray(values), self.values[0])
        return np.asarray(values, dtype=np.float64)

    def at(self, t: Array) -> NDArray[Any]:
        """The stamps of times t (...,): the given ones where t is one of `numbers`."""
        own = self.numbers
        if len(own) == len(t) and np.array_equal(own, t):
            return self.values
        if not self.shifted:
            whole = self.values.dtype.kind == "i" and bool((t == np.floor(t)).all())
            return t.astype(np.int64) if whole else t
        if self.dated:
            out = _moments(self.values[0], t, SECONDS[self.unit])
        else:
            out = self.values[0] + np.round(t).astype(np.int64)
        k = np.clip(np.searchsorted(own, t), 0, len(own) - 1)
        return np.where(own[k] == t, self.values[k].astype(out.dtype), out)

    def from_wall(self, values: NDArray[Any]) -> NDArray[Any]:
        """Dates on the clocks of the data's time zone in UTC; as they are without a zone."""
        if self.zone is None:
            return values
        if isinstance(self.zone, np.ndarray):
            first = self.zone[0].astype("timedelta64[m]")
            east = self.minutes_east(values - first)
            assert east is not None
            return np.asarray(values - east.astype("timedelta64[m]"))
        import pandas as pd

        here = pd.DatetimeIndex(values).tz_localize(self.zone)
        utc: NDArray[Any] = here.tz_convert("UTC").tz_localize(None).to_numpy()
        return utc

    def minutes_east(self, values: NDArray[Any]) -> NDArray[np.int64] | None:
        """UTC offsets (...,) in minutes of dates `values`; None without a zone."""
        if self.zone is None:
            return None
        if isinstance(self.zone, np.ndarray):
            k = np.clip(np.searchsorted(self.values, values, side="right") - 1, 0, None)
            return np.asarray(self.zone[k], dtype=np.int64)
        import pandas as pd

        here = pd.DatetimeIndex(values, tz="UTC").tz_convert(self.zone)
        wall = here.tz_localize(None).to_numpy()
        east: NDArray[np.int64] = (wall - values) // np.timedelta64(1, "m")
        return east

    def text(self, values: NDArray[Any]) -> NDArray[np.str_]:
        """Dates (T,) as ISO 8601, as short as all of them allow, with the offset of their zone."""
        east = self.minutes_east(values)
        if east is None:
            return iso_text(values)
        wall = iso_text(values + east.astype("timedelta64[m]"), shortest="s")
        suffix = np.array(
            [f"{'-' if m < 0 else '+'}{abs(m) // 60:02}:{abs(m) % 60:02}" for m in np.unique(east)]
        )
        return np.strings.add(wall, suffix[np.searchsorted(np.unique(east), east)])


def elapsed(stamps: Any, start: Any, unit: str) -> Any:
    """Time from `start` (datetime64) to `stamps` in `unit`: whole numbers first, then a float."""
    both = [np.asarray(x) for x in (stamps, start)]
    common = np.promote_types(*(x.dtype for x in both))
    step, count = np.datetime_data(common)
    ticks = _gone(*(recast(x, common).astype(np.int64) for x in both))
    if step in PER_SECOND:
        return ticks * count / (PER_SECOND[step] * SECONDS[unit])
    return ticks * (count * SECONDS[{"m": "min"}.get(step, step)] / SECONDS[unit])


def recast(dates: NDArray[Any], kind: Any) -> NDArray[Any]:
    """Dates or spans in another unit; ValueError where it does not tell them in 64 bits."""
    try:
        found = dates.astype(kind)
        kept = bool(((found.astype(dates.dtype) == dates) | np.isnat(dates)).all())
    except OverflowError:  # numpy >= 2.5 looks itself
        kept = False
    if not kept:
        unit = np.datetime_data(np.dtype(kind))[0]
        raise ValueError(f"dates and spans as far off as {dates.flat[0]} cannot be told in {unit}")
    return found


def _gone(values: NDArray[Any], first: Any) -> Array:
    """Whole numbers less the first one as floats, exactly; to rounding where int64 overflows."""
    floats = values.astype(np.float64) - np.float64(first)
    with np.errstate(over="ignore"):
        return np.where(np.abs(floats) < 2.0**62, values - first, floats).astype(np.float64)


def _moments(start: Any, t: Array, seconds: float) -> NDArray[Any]:
    """Dates of times t after `start`, to what a float can tell: whole seconds where it may be."""
    gone = np.asarray(t, dtype=np.float64) * seconds
    step, _ = np.datetime_data(np.asarray(start).dtype)
    fine = "ns" if step == "ns" else "us"
    doubt = np.maximum(16 * np.finfo(float).eps * np.abs(gone), 0.5 / PER_SECOND[fine])
    out = np.round(gone * PER_SECOND[fine])
    for coarse in ("ms", "s"):
        whole = np.round(gone * PER_SECOND[coarse]) / PER_SECOND[coarse]
        near = np.abs(whole - gone) <= doubt
        out = np.where(near, np.round(whole * PER_SECOND[fine]), out)
    begin = np.asarray(start).astype(f"datetime64[{fine}]")
    if fine == "ns" and (np.abs(out + float(begin.astype(np.int64))) >= 2.0**63).any():
        return _moments(np.asarray(start).astype("datetime64[us]"), t, seconds)
    return np.asarray(begin + out.astype(np.int64).astype(f"timedelta64[{fine}]"))


def iso_text(values: NDArray[Any], shortest: str = "D") -> NDArray[np.str_]:
    """Dates as ISO 8601 in the coarsest unit (from `shortest` on) that tells all of them."""
    for unit in ("D", "s", "ms", "us"):
        if unit == "D" and shortest != "D":
            continue
        short = values.astype(f"datetime64[{unit}]")
        if (short == values).all():
            return np.datetime_as_string(short, unit=unit)
    return np.datetime_as_string(values.astype("datetime64[ns]"), unit="ns")


_FIELDS = ((1, 12), (1, 31), (0, 23), (0, 59), (0, 59))
"""What months, days, hours, minutes and seconds may be."""


def calendar_numbers(values: NDArray[Any]) -> NDArray[Any] | None:
    """Dates that whole numbers, all of one kind, spell as 20240131 does, or None.

    202401; 20240131; with hours, minutes and seconds 2024013123, 202401312359, 20240131235959;
    days of years, 2024366 and 2025001, if there is more than one year; and 240131, where steps
    differ (equal ones are those of plain numbers).
    """
    if len(values) < 2 or not np.isfinite(values).all() or (values != np.floor(values)).any():
        return None
    dates = _spelled(values)
    short = dates is None and values.min() >= 10101 and values.max() <= 991231
    if short and len(np.unique(np.diff(values))) > 1:
        dates = _spelled(values + np.where(values < 690000, 20000000, 19000000))
    return dates


def _spelled(values: NDArray[Any]) -> NDArray[Any] | None:
    """The same of years in four digits."""
    low, high = int(values.min()), int(values.max())
    digits = len(str(low))
    first, last = {6: (1500, 2199), 8: (1500, 2999)}.get(digits, (1900, 2099))  # not Unix times
    unit = 10 ** max(digits - 4, 0)
    if digits not in (6, 7, 8, 10, 12, 14) or not first <= low // unit <= high // unit <= last:
        return None
    year, rest = np.divmod(values.astype(np.int64), unit)
    if digits == 7:
        dates = (year - 1970).astype("datetime64[Y]").astype("datetime64[D]") + (rest - 1)
        real = dates.astype("datetime64[Y]").astype(np.int64) + 1970 == year
        return dates.astype("datetime64[us]") if real.all() and low // unit < high // unit else None
    fields = [rest // 10**place % 100 for place in range(digits - 6, -1, -2)]
    if any(((x < a) | (x > b)).any() for x, (a, b) in zip(fields, _FIELDS)):
        return None
    month = (12 * (year - 1970) + fields[0] - 1).astype("datetime64[M]")
    dates = month.astype("datetime64[us]")
    for number, part, begin in zip(fields[1:], "Dhms", (1, 0, 0, 0)):
        dates = dates + (number - begin).astype(f"timedelta64[{part}]")
    return dates if (dates.astype("datetime64[M]") == month).all() else None


def looks_like_unix(values: NDArray[Any]) -> str | None:
    """ "s", "ms", "us" or "ns" where numbers look like a Unix time of 1990 to 2100, else None."""
    if not len(values) or not np.isfinite(values).all():
        return None
    low, high = float(np.min(values)), float(np.max(values))
    for unit, per in PER_SECOND.items():
        if 631152000 * per <= low and high <= 4102444800 * per:
            return unit
    return None


def unix_dates(values: NDArray[Any], unit: str) -> NDArray[Any]:
    """Dates (UTC) of Unix times: whole numbers exactly, others to the microsecond."""
    if values.size and float(np.abs(values).max()) > FARTHEST * PER_SECOND[unit]:
        raise ValueError(
            f"{values[0]:.16g} is no Unix time in {unit}: it lies beyond the year 30000"
        )
    if values.dtype.kind in "iu":
        fine = "us" if unit == "s" else unit
        return (values.astype(np.int64) * (PER_SECOND[fine] // PER_SECOND[unit])).astype(
            f"datetime64[{fine}]"
        )
    ticks = np.round(values * (10**6 / PER_SECOND[unit]))
    return ticks.astype(np.int64).astype("datetime64[us]")


_UNIT_WORDS = """
    sec:s second:s min:min minute:min hr:h hour:h h:h d:D day:D week:W w:W yr:Y year:Y
    msec:ms millisecond:ms
"""


def unit_in_name(name: str) -> str | None:
    """The unit that a column's name tells in brackets: "t [s]", "time (days)"."""
    found = re.search(r"[\[(]\s*([A-Za-zµ]+)\s*[\])]\s*$", name)
    if found is None:
        return None
    word = found[1]
    if word in SECONDS:
        return word
    plain = word.lower().rstrip("s")
    if plain == "m":
        return "ms" if word == "ms" else None
    return dict(pair.split(":") for pair in _UNIT_WORDS.split()).get(plain)
