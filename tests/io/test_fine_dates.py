"""Dates in text are as exact as arrays of datetime64[ns], however they are written."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import afafilter as a
from afafilter._base.dates import parse_dates
from afafilter.io import Dialect, read_series
from afafilter.io.dialect import Found
from afafilter.io.source import _columns_by_pandas

GONE = 250 * np.arange(9000)
"""Nanoseconds since the first."""
START = 1706695200
PATTERN = "%d.%m.%Y %H:%M:%S.%f"


def written(form: str, gone: np.ndarray) -> list[str]:
    if form in ("unix", "unix-ms"):
        digits = {"unix": 9, "unix-ms": 6}[form]
        ticks = [START * 10**9 + int(g) for g in gone]
        return [f"{x // 10**digits}.{x % 10**digits:0{digits}}" for x in ticks]
    dates = np.datetime64(START, "s").astype("M8[ns]") + gone.astype("m8[ns]")
    iso = np.datetime_as_string(dates, unit="ns").tolist()
    if form == "iso":
        return iso
    return [f"{x[8:10]}.{x[5:7]}.{x[:4]} {x[11:]}{form[len(PATTERN) :] and '+0200'}" for x in iso]


@pytest.mark.parametrize("count", [5, 9000], ids=["short", "long"])
@pytest.mark.parametrize("form", ["iso", "unix", "unix-ms", PATTERN, PATTERN + "%z"])
def test_nanoseconds_in_text_are_kept(tmp_path: Path, form: str, count: int) -> None:
    path, gone = tmp_path / "d.csv", GONE[:count]
    rows = [f"{t},{k}.{'0' * 60}\n" for k, t in enumerate(written(form, gone))]
    path.write_text("when,z\n" + "".join(rows))
    dialect = Dialect(time_format=None if form == "iso" else form)
    series = read_series(path, time_unit="ns", dialect=dialect)
    assert np.array_equal(series.t, gone)
    assert series.dates is not None
    assert np.array_equal((series.dates - series.dates[0]).astype("m8[ns]").astype(int), gone)


@pytest.mark.parametrize("quoted", [True, False])
def test_nanoseconds_in_json_lines_are_kept(tmp_path: Path, quoted: bool) -> None:
    path = tmp_path / "d.jsonl"
    cells = [json.dumps(t) if quoted else t for t in written("unix", GONE[:6])]
    path.write_text("".join(f'{{"t": {t}, "z": {k}}}\n' for k, t in enumerate(cells)))
    series = read_series(path, time_unit="ns", dialect=Dialect(time_format="unix"))
    assert np.array_equal(series.t, GONE[:6])


def test_digits_that_printing_a_float_adds_are_no_nanoseconds(tmp_path: Path) -> None:
    path, t = tmp_path / "d.csv", START + 0.1 * np.arange(20)
    path.write_text("t,z\n" + "".join(f"{x:.9f},1.5\n" for x in t))
    series = read_series(path, time_unit="ms", dialect=Dialect(time_format="unix"))
    assert np.array_equal(series.t, 100.0 * np.arange(20))


def test_numbers_that_floats_cannot_tell_apart_warn(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("t,z\n" + "".join(f"{t},1.5\n" for t in written("unix", GONE[:6])))
    with pytest.warns(UserWarning, match=r"become 2\.38419e-07 apart .* --time-format unix reads"):
        read_series(path)
    path.write_text("t,z\n60000.1234567890123,1\n60000.1234567890145,2\n")
    with pytest.warns(UserWarning, match="count from the first one"):
        read_series(path)


def test_nanoseconds_beyond_their_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1678 to 2262"):
        parse_dates(["1500-01-01T00:00:00.123456789"])
    with pytest.raises(ValueError, match="1678 to 2262"):
        parse_dates(["01.01.1500 00:00:00.123456789"], PATTERN)
    wide, _ = parse_dates(["1500-01-01T00:00:00.123456"])
    assert wide[0] == np.datetime64("1500-01-01T00:00:00.123456")


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_query_dates_keep_their_nanoseconds(zone: str | None) -> None:
    here = pd.DatetimeIndex(written("iso", GONE[:6])).tz_localize(zone)
    table, model = pd.Series(np.arange(6.0), index=here), a.brownian(1.0, 0.5)
    wall = here.tz_localize(None).to_numpy()
    for asked in (list(here[2:4]), wall[2:4], [str(x) for x in wall[2:4]], list(wall[2:4])):
        found = a.kalman_filter(model, table, time_unit="ns", query_times=asked)
        assert np.array_equal(found.t, GONE[2:4])
        assert (found.to_pandas().index == here[2:4]).all()


@pytest.mark.parametrize("cell", ["1706695200000000", "1706695200000000.5", "1e300"])
def test_microseconds_read_as_seconds_are_refused(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "d.csv"
    path.write_text(f"t,z\n{cell},1\n{cell},2\n")
    with pytest.raises(ValueError, match="no Unix time in s"):
        read_series(path, dialect=Dialect(time_format="unix"))


@pytest.mark.parametrize(("release", "said"), [("2.2.2", True), ("3.0.6", True), ("3.1.0", False)])
def test_pandas_reads_floats_exactly_whatever_its_release(monkeypatch, release, said) -> None:
    """Its default is exact from 3.1 on, where the option that asks for it is deprecated."""
    asked = {}

    def noted(*arguments, **options):
        asked.update(options)
        return pd.DataFrame({"x": [1.0]})

    monkeypatch.setattr(pd, "read_csv", noted)
    monkeypatch.setattr(pd, "__version__", release)
    found = Found(",", ".", ("x",), (), 1, (0,), frozenset())
    _columns_by_pandas("1.0", found, ["x"], {"x": "f"}, [])
    assert asked.get("float_precision") == ("round_trip" if said else None)
