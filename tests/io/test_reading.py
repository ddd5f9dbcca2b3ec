"""Tables as instruments and spreadsheets write them, against the numbers that they mean."""

from __future__ import annotations

import gzip
import lzma
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from afafilter import brownian, io, kalman_filter
from afafilter.io import Dialect, read_panel, read_series, write_table

GOOD: dict[str, tuple[str, dict[str, Any], list[float], list[float]]] = {
    "decimal comma": ("t;x\n0,5;1,25\n1,0;2\n", {}, [0.5, 1], [1.25, 2]),
    "decimal comma in tabs": ("t\tx\n0,5\t1,25\n1\t2\n", {}, [0.5, 1], [1.25, 2]),
    "points between semicolons": ("t;x\n0.5;1.25\n1;2\n", {}, [0.5, 1], [1.25, 2]),
    "quoted": ('"t";"x; y"\n"0";"1,5"\n', {}, [0], [1.5]),
    "preamble and units": (
        "Logger 5\nSerial,123\n\ntime,T\ns,degC\n0,1\n1,#N/A\n2,3\n", {"values": "T"},
        [0, 1, 2], [1, np.nan, 3],
    ),
    "preamble filled up with separators": (
        "Station North;;;\nSerial;0815;;\nexported 3.2.2025\n\nt;x;;note\ns;degC;;\n"
        "0;1,5;;\n1;n.a.;;\n", {"values": "x"}, [0, 1], [1.5, np.nan],
    ),
    "rows out of order": ("t,x\n2,3\n0,1\n2,4\n1,2\n", {"sort": True}, [0, 1, 2, 2],
                          [1, 2, 3, 4]),
    "dates out of order": ("t,x\n2024-01-03,2\n2024-01-01,1\n", {"sort": True}, [0, 2], [1, 2]),
    "empty column": ("t,x,\n0,1,\n1,2,\n", {}, [0, 1], [1, 2]),
    "separator at the end": ("t,x\n0,1,\n1,2,\n", {}, [0, 1], [1, 2]),
    "no header": ("0,1.5\n1,2.5\n", {"dialect": Dialect(header=0)}, [0, 1], [1.5, 2.5]),
    "columns called 0 and 1": ("0,1\n0,1.5\n1,2.5\n", {"dialect": Dialect(header=1)}, [0, 1],
                               [1.5, 2.5]),
    "header on line 3": ("a,b\n1,2\nt,x\n0,5\n", {"dialect": Dialect(header=3)}, [0], [5]),
    "lines of an old Macintosh": ("t,x\r0,1\r1,2\r", {}, [0, 1], [1, 2]),
    "blanks": ("t x\n0 1\n1 2\n", {"dialect": Dialect(sep=" ")}, [0, 1], [1, 2]),
    "pipes": ("t|x\n0|1\n1|2\n", {}, [0, 1], [1, 2]),
    "own word for missing": ("t,x\n0,1\n1,-9999\n", {"dialect": Dialect(missing=("-9999",))},
                             [0, 1], [1, np.nan]),
    "index of pandas": (",x\n2024-01-01,1\n2024-01-03,2\n", {}, [0, 2], [1, 2]),
    "date and clock": (
        "day,clock,x\n2024-01-31,10:00,1\n2024-01-31,22:00,2\n", {"time": ["day", "clock"]},
        [0, 0.5], [1, 2],
    ),
    "German dates": (
        "Datum;x\n31.01.2024;1\n02.02.2024;2\n", {"dialect": Dialect(time_format="%d.%m.%Y")},
        [0, 2], [1, 2],
    ),
    "Unix time": (
        "t,x\n1700000000,1\n1700043200,2\n", {"dialect": Dialect(time_format="unix")},
        [0, 0.5], [1, 2],
    ),
    "numbers that are no dates": (
        "t,x\n20240131,1\n20240201,2\n", {"dialect": Dialect(time_format="number")},
        [20240131, 20240201], [1, 2],
    ),
    "nanoseconds": ("t,x\n1700000000000000000,1\n1700000000000000250,2\n", {}, [0, 250], [1, 2]),
    "fine dates": (
        "t,x\n2024-01-01T00:00:00.000000250,1\n2024-01-01T00:00:00.000000500,2\n",
        {"time_unit": "ns"}, [0, 250], [1, 2],
    ),
}  # fmt: skip


def put(tmp_path: Path, text: str | bytes, name: str = "d.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("case", GOOD)
@pytest.mark.parametrize("pack", [None, gzip, lzma], ids=["", "gz", "xz"])
def test_what_instruments_write(tmp_path: Path, case: str, pack: Any) -> None:
    text, options, t, x = GOOD[case]
    raw = text.encode() if pack is None else pack.compress(text.encode())
    suffix = {None: "", gzip: ".gz", lzma: ".xz"}[pack]
    series = read_series(put(tmp_path, raw, f"d.csv{suffix}"), **options)
    np.testing.assert_allclose(series.t, t, rtol=1e-14)
    np.testing.assert_array_equal(series.z[:, 0], x)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "cp1252"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    path = put(tmp_path, "t\t°C\n0\t1\n".encode(encoding))
    dialect = Dialect(encoding=encoding) if encoding == "cp1252" else None
    assert read_series(path, dialect=dialect).columns == ("°C",)


@pytest.mark.parametrize(
    ("raw", "options", "message"),
    [
        (b"t,x\n0,\x001\n", {}, "holds NUL bytes"),
        ("t,x\n0,1\n".encode("utf-16-le"), {}, "utf-16-le reads that"),
        ("t,°C\n0,1\n".encode("cp1252"), {}, "not utf-8 text.*--encoding cp1252"),
        (b"0,1\n0,1.5\n", {}, "--header 0 .*--header 1 takes"),
        (b"t;x\n31.01.2024 10:00;1\n", {}, r'--time-format "%d.%m.%Y %H:%M" reads it'),
        (b"t,x\n01/31/2024,1\n", {}, "month first"),
        (b't,x\n0,"1,5"\n', {}, "--decimal , reads decimal commas"),
        (b"t,x\n1700000000,1\n1700000060,2\n", {"time_unit": "D"}, "--time-format unix"),
        (b"t [s],x\n0,1\n1,2\n", {"time_unit": "D"}, "says its unit"),
        (b"t,x,s\n0,1,.5\n1,2,0\n", {"values": "x", "errors": "s"}, "line 3: standard errors"),
        (b"t,x,s\n0,1,.5\n", {"values": "x", "errors": ["s", "t"]}, "one column per value"),
        (b"t,x\n0,1\n", {"errors": "x"}, "need values"),
        (b"t,x\n0,1\n", {"dialect": Dialect(header=9)}, "header is line 9, but there are 2"),
        (b"t,x\n0,1\n", {"dialect": Dialect(encoding="klingon")}, "encoding must be"),
        (b"t,x\n2024-01-01T00:00Z,1\n2024-01-02T00:00,1\n", {}, "all or none"),
        (b"\x1f\x8bgarbage", {}, "damaged gzip file"),
        (b"PK\3\4\xff\xff", {}, "is a zip archive or an Excel workbook"),
        (b"PAR1\0\0", {}, "name must end in .parquet"),
        (b"t,x\n1,1\n0,1\n", {}, "--sort, sort=True does"),
        (b"t;x\n0;1.234,5\n", {}, "separator of thousands is not read"),
        (b"t,x\n10:00,1\n", {}, "--time DATE,CLOCK reads a date"),
        (b"t\n1\n2\n", {}, "no value column beside the time column 't': --time"),
        (b"t,x\n0,ok\n", {}, "--values names the columns to read"),
        (b"d;c;x\n31.01.2024;10:00;1\n", {}, '--time d,c --time-format "%d.%m.%Y %H:%M" read it'),
    ],
)
def test_what_cannot_be_told_names_the_option(
    tmp_path: Path, raw: bytes, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_series(put(tmp_path, raw), **options)
    assert "\n" not in str(caught.value)


def test_a_frames_numbering_is_no_time_where_a_column_is(tmp_path: Path) -> None:
    """Rows that a selection left, in Parquet and as they go into an estimator."""
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"time": 1.5 * np.arange(6), "z": np.arange(6.0) ** 2})
    some = frame[frame["z"] > 3]
    some.to_parquet(tmp_path / "d.parquet")
    series = read_series(tmp_path / "d.parquet")
    assert series.t.tolist() == [3.0, 4.5, 6.0, 7.5]
    assert series.columns == ("z",)
    model = brownian(process_var=1.0, obs_var=1.0)
    want = kalman_filter(model, series.t, series.z)
    for given in (some, some.set_index("time"), frame.set_index("time")["z"][2:]):
        assert kalman_filter(model, given).loglik == want.loglik


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_a_number_that_means_missing_is_known_however_it_is_written(
    tmp_path: Path, suffix: str
) -> None:
    if suffix == "csv":
        path = put(tmp_path, "# made by hand\nt,x\n0,1\n1,-999.0\n2,-9.99e2\n3,4\n# end\n")
    else:
        table = {"t": np.arange(4.0), "x": np.array([1.0, -999.0, -999.0, 4.0])}
        path = write_table(table, tmp_path / f"d.{suffix}")
    series = read_series(path, dialect=Dialect(missing=("-999",)))
    assert np.isnan(series.z[:, 0]).tolist() == [False, True, True, False]


def test_a_time_of_day_that_is_left_out_is_told(tmp_path: Path) -> None:
    path = put(tmp_path, "d,c,x\n2024-01-01,06:00,1\n2024-01-01,07:00,2\n")
    with pytest.warns(UserWarning, match="'c' has times of day: --time d,c reads both"):
        read_series(path, values="x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_series(path, time=["d", "c"], values="x", time_unit="h").t.tolist() == [0, 1]


@pytest.mark.parametrize("options", [{"sep": "ab"}, {"decimal": ";"}, {"header": -1}])
def test_dialects_are_checked(options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Dialect(**options)


@pytest.mark.parametrize("text", ["d,x\n20240131,1\n20240202,2\n", "d,x\n202401,1\n202402,2\n"])
def test_whole_numbers_that_spell_dates_are_read_as_such(tmp_path: Path, text: str) -> None:
    with pytest.warns(UserWarning, match="is read as dates; --time-format number"):
        series = read_series(put(tmp_path, text))
    np.testing.assert_array_equal(series.t, [0, 2] if "31" in text else [0, 31])


def test_errors_become_covariances(tmp_path: Path) -> None:
    path = put(tmp_path, "t,a,b,sa,sb\n0,1,2,.5,2\n1,,3,,1\n")
    series = read_series(path, values=["a", "b"], errors=["sa", "sb"])
    assert series.obs_cov is not None
    np.testing.assert_array_equal(series.obs_cov[0], np.diag([0.25, 4.0]))
    np.testing.assert_array_equal(series.obs_cov[1], np.diag([1.0, 1.0]))


def test_units_of_a_row_below_the_header(tmp_path: Path) -> None:
    series = read_series(put(tmp_path, "t,a,b\ns,V,mA\n0,1,2\n1,3,4\n"))
    assert series.units == "V, mA"
    assert len(series.t) == 2


def test_paths_with_times_of_their_own(tmp_path: Path) -> None:
    path = put(tmp_path, "track,t,x\nb,5,1\na,0,2\nb,6,3\nb,6,4\na,1.5,5\n")
    panel = read_panel(path, "track")
    assert panel.labels == ("b", "a")
    np.testing.assert_array_equal(panel.series[0].t, [5, 6, 6])
    t, z = panel.aligned()
    np.testing.assert_array_equal(t, [0, 1, 1, 1.5])
    np.testing.assert_array_equal(z[..., 0], [[1, 3, 4, np.nan], [2, np.nan, np.nan, 5]])
    with pytest.raises(ValueError, match="read_panel"):
        read_series(path, by="track")
    alone = read_panel(put(tmp_path, "t,x\n0,1\n", "e.csv"))
    assert (alone.labels, len(alone.series)) == ((), 1)


def test_files_of_simulate_need_no_names(tmp_path: Path) -> None:
    series = read_series(put(tmp_path, "path,t,x0,z0,z1,outlier\n0,0,9,1,2,0\n1,0,9,3,4,1\n"))
    np.testing.assert_array_equal(series.z, [[[1, 2]], [[3, 4]]])
    one = read_series(put(tmp_path, "t,x0,z0\n0,9,1\n"))
    np.testing.assert_array_equal(one.z, [[1]])


FRAME = pd.DataFrame({"x": [1.0, 2.0]})
DATES = pd.to_datetime(["2024-01-01", "2024-01-03"])


@pytest.mark.parametrize(
    ("index", "t"),
    [
        (DATES, [0, 2]),
        (DATES.tz_localize("Europe/Berlin"), [0, 2]),
        (pd.Index([1871, 1872]), [1871, 1872]),
        (pd.Index([0.5, 1.5], name="when"), [0.5, 1.5]),
        (pd.MultiIndex.from_tuples([("a", 0.0), ("a", 2.0)]), [0, 2]),
        (pd.MultiIndex.from_tuples([("a", 0.0), ("a", 2.0)], names=["p", "q"]), [0, 2]),
    ],
)
def test_the_index_of_a_parquet_file_is_its_time(tmp_path: Path, index: Any, t: Any) -> None:
    path = tmp_path / "d.parquet"
    FRAME.set_index(index).to_parquet(path)
    series = read_series(path)
    np.testing.assert_array_equal(series.t, t)
    np.testing.assert_array_equal(series.z.reshape(-1), [1, 2])
    assert series.columns == ("x",)
    if getattr(index, "tz", None) is not None:
        assert series.stamps is not None
        assert series.stamps.text(series.stamps.values)[0] == "2024-01-01T00:00:00+01:00"


def test_row_numbers_of_a_parquet_file_are_no_times(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pd.DataFrame({"t": [0.0, 1, 2], "x": [1.0, 2, 3]})[1:].to_parquet(path)
    np.testing.assert_array_equal(read_series(path).t, [1, 2])


@pytest.mark.parametrize("arrow", [True, False])
def test_long_files_are_read_like_short_ones(
    tmp_path: Path, arrow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By pyarrow and by pandas against the numbers; what is wrong is told by its line."""
    import sys

    if not arrow:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        monkeypatch.setitem(sys.modules, "pyarrow.csv", None)
    rng = np.random.default_rng(0)
    n = 30_000
    x = rng.standard_normal(n)
    x[7] = np.nan
    dates = np.datetime64("2024-01-01", "s") + np.arange(n)
    lines = ["when,x,note", *(f"{d},{'' if np.isnan(v) else v},a b" for d, v in zip(dates, x))]
    path = put(tmp_path, "\n".join(lines) + "\n")
    series = read_series(path, values="x", time_unit="s")
    np.testing.assert_array_equal(series.t, np.arange(n))
    np.testing.assert_array_equal(series.z[:, 0], x)
    lines[20_001] = lines[20_001].replace(",", ",x", 1)
    with pytest.raises(ValueError, match="line 20002: x must be a number"):
        read_series(put(tmp_path, "\n".join(lines)), values="x")
    lines[20_001] = "2024-01-02,5"
    with pytest.raises(ValueError, match="line 20002: 2 fields"):
        read_series(put(tmp_path, "\n".join(lines)), values="x")


CELLS = {
    " 1.5 ": 1.5, "-2e3": -2000.0, "": np.nan, "NA": np.nan, " nan ": np.nan, "1.#QNAN": np.nan,
    "-9999": np.nan, "-9999.0": np.nan, "12345678901234567891": 12345678901234567891.0, "+7": 7.0,
}  # fmt: skip


def test_cells_of_many_columns_are_read_as_those_of_one(tmp_path: Path) -> None:
    """Whatever stands beside it, a cell means the same; what is no number is told by its line."""
    rows = [[*CELLS][k:] + [*CELLS][:k] for k in range(len(CELLS))]
    names = [f"c{k}" for k in range(len(CELLS))]
    lines = [",".join(["t", *names]), *(",".join([str(k), *row]) for k, row in enumerate(rows))]
    given = {"dialect": Dialect(missing=("-9999",))}
    path = put(tmp_path, "\n".join(lines))
    np.testing.assert_array_equal(
        read_series(path, **given).z, [[CELLS[cell] for cell in row] for row in rows]
    )
    for wrong in ("1_0", "1,5", "inf", "x"):
        lines[3] = lines[3].rpartition(",")[0] + f',"{wrong}"'
        with pytest.raises(ValueError, match=f"line 4: {names[-1]} must be"):
            read_series(put(tmp_path, "\n".join(lines)), **given)


def test_a_hundred_thousand_columns(tmp_path: Path) -> None:
    import time

    names = ",".join(f"c{i}" for i in range(100_000))
    row = ",".join(["1.5"] * 100_000)
    path = put(tmp_path, f"{names}\n{row}\n{row}\n")
    begin = time.process_time()
    assert read_series(path, values="c7").z.shape == (2, 1)
    assert (read_series(path).z == 1.5).all()
    with pytest.raises(ValueError, match=r"the columns are c0, .*\(100000\)"):
        read_series(path, values="d")
    assert time.process_time() - begin < 9


# ------------------------------------------------------------------------------------------ writing

COLUMNS = {"t": np.array([1e-300, 0.1]), "x": np.array([1 / 3, np.nan]), "n": np.array([1, 2])}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_columns_round_trip(tmp_path: Path, suffix: str) -> None:
    series = read_series(write_table(COLUMNS, tmp_path / f"o{suffix}"))
    np.testing.assert_array_equal(series.t, COLUMNS["t"])
    np.testing.assert_array_equal(series.z[:, 0], COLUMNS["x"])
    np.testing.assert_array_equal(series.z[:, 1], COLUMNS["n"])


def test_long_tables_are_written_exactly(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    t = np.arange(30_000) * np.timedelta64(1, "s") + np.datetime64("2024-01-01", "us")
    x = rng.standard_normal(30_000) * 10.0 ** rng.integers(-200, 200, 30_000)
    path = write_table({"t": t, "x": x}, tmp_path / "o.csv")
    assert path.read_text().splitlines()[1].startswith("2024-01-01T00:00:00,")
    np.testing.assert_array_equal(read_series(path, time_unit="s").z[:, 0], x)


def test_parquet_keeps_how_it_came_about(tmp_path: Path) -> None:
    config = {"config": {"model": {"A": [[1.0]]}}, "versions": {"afafilter": "x"}}
    path = write_table(COLUMNS, tmp_path / "o.parquet", metadata=config)
    assert io.read_metadata(path) == config
    assert io.read_metadata(write_table(COLUMNS, tmp_path / "p.parquet")) is None


def test_failed_writes_name_the_target(tmp_path: Path) -> None:
    from afafilter.io.files import atomic_path, foresee

    with pytest.raises(FileNotFoundError) as caught, atomic_path(tmp_path / "no" / "o.csv") as p:
        p.write_text("x")
    assert caught.value.filename == str(tmp_path / "no" / "o.csv")
    for path, message in (
        (tmp_path, "is a directory"),
        (tmp_path / "no" / "o.csv", "no such directory"),
        (tmp_path / ("x" * 300), "too long"),
        (tmp_path / "a\0b", "NUL bytes"),
    ):
        with pytest.raises((OSError, ValueError), match=message):
            foresee([path])
    foresee([tmp_path / ".." / tmp_path.name / "o.csv"])


def test_a_full_disk_names_the_target(tmp_path: Path) -> None:
    import errno

    from afafilter.io.files import atomic_path

    with pytest.raises(OSError, match="No space") as caught, atomic_path(tmp_path / "o.csv"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "o.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", [slice(None), slice(2, None)])
def test_numbers_of_rows_that_pandas_wrote_are_neither_times_nor_values(
    tmp_path: Path, kept: slice
) -> None:
    """A frame with its times in a column, written with the index that nobody set, or cut."""
    path = tmp_path / "rows.csv"
    frame = pd.DataFrame({"t": [0.0, 1.5, 3.0, 9.0], "z": [1.0, 2.0, 4.0, 8.0]}).iloc[kept]
    frame.to_csv(path)
    series = read_series(path)
    np.testing.assert_array_equal(series.t, frame["t"])
    np.testing.assert_array_equal(series.z[:, 0], frame["z"])
    np.testing.assert_array_equal(read_series(path, time="index", values="z").t, frame.index)


def test_columns_named_like_components_out_of_order_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "swapped.csv"
    path.write_text("t,z1,z0\n0,1,2\n1,3,4\n")
    with pytest.raises(ValueError, match=r"labelled z1, z0.*give it in the order z0, z1"):
        read_series(path)
    np.testing.assert_array_equal(read_series(path, values=["z0", "z1"]).z[0], [2, 1])


def test_a_parquet_index_called_as_a_column_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "twice.parquet"
    pd.DataFrame({"t": [0.0, 1.0], "z": 1.0}, index=pd.Index([4, 5], name="t")).to_parquet(path)
    with pytest.raises(ValueError, match=r"both called 't'.*rename one"):
        read_series(path)


@pytest.mark.parametrize(
    ("name", "content", "dialect", "message"),
    [
        ("d.csv", 't,z\n0,1\n1,"' + "x" * 200_000 + '"\n', {}, "not readable as CSV: field larger"),
        ("d.csv.xz", b"\xfd7zXZ\x00" + bytes(50), {}, "damaged lzma file"),
        ("d.csv.gz", gzip.compress(b"t,z\n0,1\n")[:12] + b"\xff" * 9, {}, "damaged gzip file"),
        ("d.csv", "t,z\n0,1\n", {"time_format": "%d%d"}, "no pattern of dates: redefinition"),
    ],
    ids=["field", "xz", "gz", "pattern"],
)
def test_damage_is_one_clear_line(
    tmp_path: Path, name: str, content: str | bytes, dialect: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=rf"d\.csv.*: .*{message}"):
        read_series(put(tmp_path, content, name), dialect=Dialect(**dialect))


@pytest.mark.parametrize(
    ("head", "values"), [("level,t", None), ("a,b,time", "b"), ("a,Date,b", "b")]
)
def test_a_column_called_as_the_time_is_not_passed_over(tmp_path, head, values):
    """The first column is the time: whoever calls another one so is told."""
    path, names = tmp_path / "d.csv", head.split(",")
    rows = "".join(",".join(str(k + j) for j in range(len(names))) + "\n" for k in range(3))
    path.write_text(f"{head}\n{rows}")
    with pytest.warns(UserWarning, match=f"first column, '{names[0]}', is taken for the time"):
        assert read_series(path, values=values).t.tolist() == [0, 1, 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_series(path, time=names[0], values=names[1]).t.tolist() == [0, 1, 2]
        if values is None:
            assert read_series(path, time="t").z[:, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("head", ["t,temp", "date,time,z", "time [s],t", "x,t"])
def test_no_column_is_passed_over(tmp_path, head):
    path = tmp_path / "d.csv"
    names = head.split(",")
    path.write_text(
        f"{head}\n" + "".join(",".join("012"[k] for _ in names) + "\n" for k in range(3))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_series(path, values=names[-1])


def test_booleans_are_values_but_no_times(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "d.parquet"
    pd.DataFrame({"t": [0.0, 1, 2], "z": [True, False, True]}).to_parquet(path)
    assert read_series(path).z[:, 0].tolist() == [1, 0, 1]
    pd.DataFrame({"t": [False, True, True], "z": [0.0, 1, 2]}).to_parquet(path)
    with pytest.raises(ValueError, match=r"t \(the time\) must be numbers or dates, got booleans"):
        read_series(path)
