"""Stamps there and back against pandas and whole-number arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from afafilter._base.dates import MANY, parse_dates
from afafilter._base.stamps import (
    SECONDS,
    Stamps,
    calendar_numbers,
    elapsed,
    iso_text,
    looks_like_unix,
    unit_in_name,
    unix_dates,
)

START = np.datetime64("2024-03-30T23:59:59.999999750", "ns")


@pytest.mark.parametrize("unit", SECONDS)
def test_elapsed_time_is_the_rounded_exact_quotient(unit):
    ticks = np.cumsum(np.random.default_rng(1).integers(1, 10**14, 50))
    dates = START + ticks.astype("timedelta64[ns]")
    wanted = [float(Fraction(int(k), 10**9) / Fraction(SECONDS[unit])) for k in ticks]
    np.testing.assert_allclose(elapsed(dates, START, unit), wanted, rtol=4e-16)


@pytest.mark.parametrize("step", [1, 100, 250])
def test_nanoseconds_keep_their_differences(step):
    dates = START + (step * np.arange(5)).astype("timedelta64[ns]")
    np.testing.assert_array_equal(Stamps(dates, "ns").numbers, step * np.arange(5.0))
    whole = dates.astype(np.int64)
    np.testing.assert_array_equal(Stamps(whole).numbers, step * np.arange(5.0))
    np.testing.assert_array_equal(Stamps(whole).at(step * np.arange(4.0)), whole[:4])


def test_small_whole_numbers_stay_what_they_are():
    years = Stamps(np.arange(1871, 1971))
    np.testing.assert_array_equal(years.numbers, np.arange(1871.0, 1971.0))
    assert years.at(np.array([1975.0])).dtype.kind == "i"
    assert years.at(np.array([1975.5])).dtype.kind == "f"


@pytest.mark.parametrize("unit", ["s", "D", "Y"])
def test_dates_come_back_exactly_and_new_ones_without_the_dust_of_floats(unit):
    dates = np.arange("1958-03-29", "2001-12-30", 7, dtype="datetime64[D]").astype("datetime64[us]")
    stamps = Stamps(dates, unit)
    np.testing.assert_array_equal(stamps.at(stamps.numbers), dates)
    np.testing.assert_array_equal(stamps.at(stamps.numbers[3:9]), dates[3:9])
    week = 7 * 86400 / SECONDS[unit]
    ahead = stamps.at(stamps.numbers[-1] + week * np.arange(1, 20))
    np.testing.assert_array_equal(ahead, dates[-1] + 7 * np.arange(1, 20) * np.timedelta64(1, "D"))


CELLS = [
    "2024-01-31",
    "2024-01",
    "2024/01/31 10:20",
    "2024-01-31T10:20:30.123456789",
    "1500-02-28T00:00:01",
    "2024-02-29 23:59:59.5",
]


ZONED = [(c, z) for c in CELLS for z in ("", "Z", "+02:00", "-0330") if not z or ":" in c]


@pytest.mark.parametrize(("cell", "zone"), ZONED)
def test_iso_dates_as_pandas_reads_them(cell, zone):
    found, east = parse_dates([cell + zone] * 2)
    wanted = pd.Timestamp(cell.replace("/", "-") + zone)
    if zone:
        assert east[0] == {"Z": 0, "+02:00": 120, "-0330": -210}[zone]
        wanted = wanted.tz_convert("UTC").tz_localize(None)
    assert (east is None) == (zone == "")
    assert found[0] == wanted.to_datetime64()


@pytest.mark.parametrize(
    "cell", ["", "soon", "31.01.2024", "2024-13-01", "2024-02-30", "2024-1-1", "20240131", "12:00"]
)
def test_what_is_no_iso_date_is_not_guessed(cell):
    found, _ = parse_dates(["2024-01-01", cell])
    assert list(np.isnat(found)) == [False, True]


def test_dates_with_and_without_zone_do_not_mix():
    with pytest.raises(ValueError, match="write it on all or none"):
        parse_dates(["2024-01-01T00:00Z", "2024-01-01T00:00"])


def test_dates_by_a_pattern():
    found, east = parse_dates(["31.01.2024 10:20", "x"], "%d.%m.%Y %H:%M")
    assert found[0] == np.datetime64("2024-01-31T10:20")
    assert np.isnat(found[1])
    assert east is None
    found, east = parse_dates(["31.01.2024 +0100"], "%d.%m.%Y %z")
    assert (found[0], east[0]) == (np.datetime64("2024-01-30T23:00"), 60)


@pytest.mark.parametrize("ends", [("Z",), ("+02:00", "-03:30"), ("",), ("Z", "+00:00")])
def test_many_dates_are_read_as_one_by_one(ends):
    """The readings of many cells at once, against pandas cell by cell."""
    cells = [
        f"2024-02-{1 + k % 29:02}T{k % 24:02}:00:0{k % 7}{ends[k % len(ends)]}" for k in range(60)
    ]
    found, _ = parse_dates(cells)
    wanted = [
        pd.Timestamp(cell).tz_localize(None if ends == ("",) else "UTC")
        if pd.Timestamp(cell).tz is None
        else pd.Timestamp(cell).tz_convert("UTC")
        for cell in cells
    ]
    wanted = [stamp.tz_localize(None).to_datetime64() for stamp in wanted]
    np.testing.assert_array_equal(found, np.array(wanted, dtype=found.dtype))


def test_many_dates_by_a_pattern_keep_old_and_wrong_ones():
    cells = [f"{1 + k % 28:02}.03.{1500 + k % 600}" for k in range(MANY + 50)] + ["31.02.2024"]
    found, east = parse_dates(cells, "%d.%m.%Y")
    assert east is None
    assert np.flatnonzero(np.isnat(found)).tolist() == [MANY + 50]
    for k in (0, 7, MANY + 3):
        day, month, year = cells[k].split(".")
        assert found[k] == np.datetime64(f"{year}-{month}-{day}")


def test_text_keeps_the_zone_through_a_change_of_clocks():
    text = ["2024-03-31T01:30:00+01:00", "2024-03-31T03:30:00+02:00"]
    values, east = parse_dates(text)
    stamps = Stamps(values, "h", east)
    np.testing.assert_array_equal(stamps.numbers, [0, 1])
    assert list(stamps.text(values)) == text
    berlin = Stamps(values, "h", "Europe/Berlin")
    assert list(berlin.text(values)) == text
    wall = np.array(["2024-03-31T01:30", "2024-03-31T03:30"], "datetime64[us]")
    np.testing.assert_array_equal(berlin.from_wall(wall), values)
    np.testing.assert_array_equal(stamps.from_wall(wall), values)


def test_text_is_as_short_as_the_dates_allow():
    day = np.array(["2024-01-31", "2024-02-01"], "datetime64[us]")
    assert list(iso_text(day)) == ["2024-01-31", "2024-02-01"]
    assert iso_text(day + np.timedelta64(1, "s"))[0] == "2024-01-31T00:00:01"
    fine = day.astype("datetime64[ns]") + np.timedelta64(250, "ns")
    assert iso_text(fine)[0] == "2024-01-31T00:00:00.000000250"


def test_whole_numbers_that_spell_dates():
    days = calendar_numbers(np.array([20240131, 20240201, 20240229]))
    np.testing.assert_array_equal(days, np.array(["2024-01-31", "2024-02-01", "2024-02-29"], "M8"))
    months = calendar_numbers(np.array([202312.0, 202401.0]))
    np.testing.assert_array_equal(months, np.array(["2023-12-01", "2024-01-01"], "M8"))
    for spelled, meant in (
        ([2024013123, 2024020100], ["2024-01-31T23", "2024-02-01T00"]),
        ([202401312359, 202402010000], ["2024-01-31T23:59", "2024-02-01T00:00"]),
        ([20240131235959.0, 20240201000000.0], ["2024-01-31T23:59:59", "2024-02-01T00:00:00"]),
        ([2024366, 2025001], ["2024-12-31", "2025-01-01"]),
        ([240130, 240131, 240201], ["2024-01-30", "2024-01-31", "2024-02-01"]),
        ([91230.0, 91231.0, 100101.0], ["2009-12-30", "2009-12-31", "2010-01-01"]),
        ([690131, 690201, 991231], ["1969-01-31", "1969-02-01", "1999-12-31"]),
    ):
        np.testing.assert_array_equal(calendar_numbers(np.array(spelled)), np.array(meant, "M8"))
    other: list[float]
    for other in (
        [20240131],
        [20240131, 20240230],
        [202401, 202413],
        [1.5, 2.5],
        [1900, 1901],
        [2024013124, 2024020100],
        [2023366, 2024001],
        [2024001, 2024002],
        [2460001, 2461001],  # Julian dates
        [240101, 240201, 240301],  # equal steps
        [240131, 240230, 240301],
        [50101, 50113, 50141],  # modified Julian dates
        [1701010100, 1701010101],  # Unix times
        [-202401, -202312],
        [0, 202401],
    ):
        assert calendar_numbers(np.array(other)) is None


def test_unix_times():
    assert looks_like_unix(np.array([1.7e9, 1.70001e9])) == "s"
    assert looks_like_unix(np.array([1.7e18, 1.70001e18])) == "ns"
    assert looks_like_unix(np.array([0.0, 1.7e9])) is None
    assert unix_dates(np.array([1_700_000_000]), "s")[0] == np.datetime64("2023-11-14T22:13:20")
    ns = np.array([1_700_000_000_000_000_001])
    assert unix_dates(ns, "ns").astype(np.int64)[0] == ns[0]
    assert unix_dates(np.array([1.5]), "s")[0] == np.datetime64("1970-01-01T00:00:01.5")


@pytest.mark.parametrize(
    ("name", "unit"),
    [("t [s]", "s"), ("time (days)", "D"), ("t(ms)", "ms"), ("t", None), ("x [V]", None),
     ("elapsed (hours)", "h"), ("Time (min)", "min")],
)  # fmt: skip
def test_units_in_names(name, unit):
    assert unit_in_name(name) == unit
