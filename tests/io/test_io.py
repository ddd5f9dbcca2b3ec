"""Reading measurements and models, writing results: round trips and every kind of bad file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from afafilter import LinearSDE, Prior, StudentT
from afafilter.io import (
    atomic_path,
    read_model,
    read_series,
    write_model,
    write_sidecar,
    write_table,
)
from afafilter.io.sidecar import sidecar_path
from afafilter.models import presets
from tests.conftest import MODELS


def put(tmp_path: Path, text: str, name: str = "data.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------ series


def test_csv_with_blanks(tmp_path: Path) -> None:
    text = "# note\n# another\nt , a,b\n0,1,2\n1.5,, 3e0\n\n1.5,NaN,NA\n2,7,null\n,,\n"
    series = read_series(put(tmp_path, text))
    np.testing.assert_array_equal(series.t, [0, 1.5, 1.5, 2])
    nan = np.nan
    np.testing.assert_array_equal(series.z, [[1, 2], [nan, 3], [nan, nan], [7, nan]])
    assert series.columns == ("a", "b")
    assert series.name == "data"
    assert series.dates is None


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_are_chosen_by_name_in_the_order_asked(tmp_path: Path, delimiter: str) -> None:
    text = "a,when,b\n1,0,2\n3,1,4\n".replace(",", delimiter)
    series = read_series(put(tmp_path, text), time="when", values=["b", "a"])
    np.testing.assert_array_equal(series.z, [[2, 1], [4, 3]])
    one = read_series(put(tmp_path, text), time="when", values="a")
    np.testing.assert_array_equal(one.z, [[1], [3]])


@pytest.mark.parametrize(
    ("unit", "wanted"), [("D", [0, 1.25, 31]), ("h", [0, 30, 744]), ("Y", [0, 1.25, 31])]
)
def test_dates_become_elapsed_time(tmp_path: Path, unit: str, wanted: list[float]) -> None:
    text = "date,x\n2024-01-01,1\n2024-01-02T06:00:00,2\n2024-02-01,3\n"
    series = read_series(put(tmp_path, text), time_unit=unit)
    scale = 365.25 if unit == "Y" else 1.0
    np.testing.assert_allclose(series.t, np.array(wanted) / scale, rtol=1e-14)
    assert series.dates is not None
    assert str(series.dates[2])[:10] == "2024-02-01"
    np.testing.assert_allclose(
        series.time_of(["2024-02-01", "2024-01-01", 5]), [series.t[2], 0, 5], rtol=1e-14
    )


def test_time_zones_and_years_beyond_nanoseconds(tmp_path: Path) -> None:
    text = "d,x\n1500-01-01T00:00:00+01:00,1\n1500-01-01T00:00:00Z,2\n"
    np.testing.assert_allclose(read_series(put(tmp_path, text), time_unit="h").t, [0, 1])


def test_bom_quotes_and_big_integers(tmp_path: Path) -> None:
    text = '\ufefft,"a, b"\n0,"12345678901234567890"\n1,"2"\n'
    series = read_series(put(tmp_path, text), values=["a, b"])
    np.testing.assert_array_equal(series.z, [[12345678901234567890.0], [2.0]])


def test_paths_by_column(tmp_path: Path) -> None:
    text = "run,t,x\nb,0,1\nb,1,2\na,0,3\na,1,\n"
    series = read_series(put(tmp_path, text), time="t", by="run")
    np.testing.assert_array_equal(series.t, [0, 1])
    np.testing.assert_array_equal(series.z, [[[1], [2]], [[3], [np.nan]]])


def test_parquet_numbers_dates_and_nullable(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "when": pd.to_datetime(["2024-01-01", "2024-01-03"], utc=True),
            "count": pd.array([2**40, None], dtype="Int64"),
            "text": ["1.5", None],
            "small": np.array([120, -7], dtype=np.int8),
        }
    )
    path = tmp_path / "data.parquet"
    frame.to_parquet(path)
    series = read_series(path)
    np.testing.assert_array_equal(series.t, [0, 2])
    np.testing.assert_array_equal(series.z, [[2**40, 1.5, 120], [np.nan, np.nan, -7]])


BAD_CSV: dict[str, tuple[str, dict[str, Any], str]] = {
    "empty file": ("", {}, "the file is empty"),
    "only a header": ("t,x\n", {}, "no rows of data"),
    "no such column": ("t,x\n0,1\n", {"values": "y"}, "no column 'y'; the columns are t, x"),
    "no time column": ("t,x\n0,1\n", {"time": "date"}, "no column 'date'"),
    "only the time": ("t\n0\n", {}, "no value column"),
    "duplicated columns": ("t,x,x\n0,1,2\n", {}, "two columns are called 'x'"),
    "asked twice": ("t,x\n0,1\n", {"values": ["x", "x"]}, "asked for twice"),
    "unparsable number": ("#c\nt,x\n0,1\n\n1,abc\n", {}, "line 5: x must be a number, got 'abc'"),
    "number with underscores": ("t,x\n0,1_000\n", {}, "line 2: x must be a number"),
    "infinite value": ("t,x\n0,1\n1,inf\n", {}, "line 3: x must be finite"),
    "missing time": ("t,x\n0,1\n,2\n", {}, r"line 3: t \(the time\) is missing"),
    "NaN time": ("t,x\n0,1\nnan,2\n", {}, "line 3: t .the time. is missing"),
    "infinite time": ("t,x\n0,1\ninf,2\n", {}, "line 3: t must be finite"),
    "unsorted times": ("t,x\n0,1\n2,2\n1,3\n", {}, "line 4: time 1 comes after 2; sort"),
    "unsorted dates": ("t,x\n2024-01-02,1\n2024-01-01,2\n", {}, "line 3: time 2024-01-01 comes"),
    "bad date": ("t,x\n2024-01-02,1\n31.1.2024,2\n", {}, "line 3: t must be a number or an ISO"),
    "blank date": ("t,x\n2024-01-02,1\n,2\n", {}, "line 3: t .the time. is missing"),
    "ragged": ("t,x\n0,1\n1,2,3\n", {}, "line 3: 3 fields, but the header has 2"),
    "unknown unit": ("t,x\n0,1\n", {"time_unit": "month"}, "time_unit must be one of"),
    "paths differ": ("p,t,x\na,0,1\nb,1,1\n", {"time": "t", "by": "p"}, "share their times"),
    "unsorted path": (
        "p,t,x\na,1,1\nb,1,1\na,0,2\nb,0,2\n",
        {"time": "t", "by": "p"},
        "line 4: time 0 comes",
    ),
    "paths unnamed": ("p,t,x\na,1,1\nb,0,1\n", {"time": "t", "values": "x"}, "tells paths apart"),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_bad_csv(tmp_path: Path, case: str) -> None:
    text, options, message = BAD_CSV[case]
    with pytest.raises(ValueError, match=message):
        read_series(put(tmp_path, text), **options)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_series(tmp_path / "absent.csv")
    with pytest.raises(ValueError, match="must end in one of"):
        read_series(put(tmp_path, "t,x\n0,1\n", "data.xlsx"))
    (tmp_path / "latin.csv").write_bytes(b"t,x\n0,\xff\xfe\n")
    with pytest.raises(ValueError, match="not utf-8 text"):
        read_series(tmp_path / "latin.csv")
    with pytest.raises(ValueError, match="not readable as Parquet"):
        read_series(put(tmp_path, "t,x\n0,1\n", "data.parquet"))
    with pytest.raises(ValueError, match="numbers or ISO dates"):
        read_series(put(tmp_path, "t,x\n2024-01-01,1\n")).time_of(["soon"])
    with pytest.raises(ValueError, match="numbers like those"):
        read_series(put(tmp_path, "t,x\n0,1\n")).time_of(["2024-01-01"])


# ------------------------------------------------------------------------------------------ models


def assert_same_model(a: LinearSDE, b: LinearSDE) -> None:
    for name in ("A", "Q", "R", "C", "drift", "offset", "delay"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    if isinstance(b.prior, Prior):
        assert isinstance(a.prior, Prior)
        assert a.prior.t0 == b.prior.t0
        for ours, wanted in zip(a.prior.law, b.prior.law, strict=True):
            np.testing.assert_allclose(ours, wanted, rtol=1e-14, atol=1e-14)
    else:
        assert a.prior == b.prior


def test_written_models_are_read_back(tmp_path: Path, model: LinearSDE) -> None:
    path = write_model(model, tmp_path / "model.toml")
    assert_same_model(read_model(path), model)
    with pytest.raises(FileExistsError):
        write_model(model, path)


def test_matrices_prior_delay(tmp_path: Path) -> None:
    text = """
    [model]
    A = [[0, 1], [-1, 0]]
    Q = [[0.0, 0.0], [0.0, 0.5]]
    R = [[0.2]]
    C = [[1, 0]]
    delay = 0.5
    prior = { mean = [1, 2], cov = [[1, 0], [0, 1]], t0 = -1.0 }
    """
    wanted = LinearSDE(
        [[0, 1], [-1, 0]],
        Q=np.diag([0.0, 0.5]),
        R=[[0.2]],
        C=[[1, 0]],
        delay=0.5,
        prior=Prior([1, 2], np.eye(2), -1.0),
    )
    assert_same_model(read_model(put(tmp_path, text, "m.toml")), wanted)


def test_presets_sums_and_replaced_arguments(tmp_path: Path) -> None:
    text = """
    [model]
    prior = "diffuse"
    offset = [2.5]
    [[model.sum]]
    preset = "brownian"
    process_var = 0.1
    obs_var = 0.3
    [[model.sum]]
    preset = "seasonal"
    period = 2.0
    """
    model = read_model(put(tmp_path, text, "m.toml"))
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(model.A).imag).max(), np.pi)
    assert model.prior == "diffuse"
    np.testing.assert_array_equal(model.offset, [2.5])
    np.testing.assert_array_equal(model.R, [[0.3]])
    np.testing.assert_array_equal(np.diag(model.Q), [0.1, 0, 0])
    random = put(tmp_path, '[model]\npreset = "random_stable"\ndim = 3\nseed = 4\n', "r.toml")
    wanted = presets.random_stable(3, rng=np.random.default_rng(4))
    assert_same_model(read_model(random), wanted)


BAD_MODELS = {
    "not TOML": ("[model\n", "not valid TOML"),
    "no model": ("seed = 1\n", "unknown key 'seed'; known are model"),
    "nothing": ("", r"a table \[model\] is needed"),
    "no table": ("model = 3\n", "a table is wanted, got 3"),
    "unknown key": ("[model]\nA = [[1]]\nQQ = [[1]]\n", r"unknown key 'QQ'.*known are A, Q"),
    "typo": ('[model]\npreset = "spiral"\nfrequancy = 2\n', "did you mean 'frequency'"),
    "unknown preset": ('[model]\npreset = "spirals"\n', "did you mean 'spiral'"),
    "matrix missing": ("[model]\nA = [[1]]\nQ = [[1]]\n", "key 'R' is missing"),
    "argument missing": ('[model]\npreset = "seasonal"\n', "key 'period' is missing"),
    "scalar Q": ("[model]\nA = [[-1]]\nQ = 1.0\nR = [[1]]\n", "Q must have shape"),
    "indefinite Q": ("[model]\nA = [[-1]]\nQ = [[-1]]\nR = [[1]]\n", "positive semidefinite"),
    "asymmetric R": (
        "[model]\nA = [[0, 0], [0, 0]]\nQ = [[1, 0], [0, 1]]\nR = [[1, 1], [0, 1]]\n",
        "symmetric",
    ),
    "words for numbers": ('[model]\nA = [["a"]]\nQ = [[1]]\nR = [[1]]\n', "A must be numbers"),
    "NaN": ("[model]\nA = [[nan]]\nQ = [[1]]\nR = [[1]]\n", "A must be finite"),
    "unknown prior": ('[model]\npreset = "spiral"\nprior = "flat"\n', "prior must be one of"),
    "prior key": ('[model]\npreset = "spiral"\nprior = { men = [0] }\n', "did you mean 'mean'"),
    "prior shape": (
        '[model]\npreset = "spiral"\nprior = { mean = [0], cov = [[1]] }\n',
        "prior mean must have",
    ),
    "prior incomplete": ('[model]\npreset = "matern"\nprior = { mean = [0] }\n', "'cov' is"),
    "empty sum": ("[model]\nsum = []\n", "one or more tables"),
    "bad summand": ('[[model.sum]]\npreset = "spirl"\n', "sum, model 1: preset must be one of"),
    "negative variance": ('[model]\npreset = "spiral"\nobs_var = -1\n', "obs_var must be >= 0"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_bad_models(tmp_path: Path, case: str) -> None:
    text, message = BAD_MODELS[case]
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        read_model(put(tmp_path, text, "m.toml"))
    assert "m.toml" in str(caught.value)


# ------------------------------------------------------------------------------------------ output


def test_a_failure_leaves_no_trace(tmp_path: Path) -> None:
    path = put(tmp_path, "old", "out.csv")

    def interrupted() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_tables_round_trip_and_are_not_overwritten(tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame({"t": [0.1, 0.2], "x": [1 / 3, np.nan]})
    path = write_table(frame, tmp_path / f"out{suffix}")
    series = read_series(path)
    np.testing.assert_array_equal(series.t, frame["t"])
    np.testing.assert_array_equal(series.z[:, 0], frame["x"])
    with pytest.raises(FileExistsError, match="exists already"):
        write_table(frame, path)
    write_table(frame.iloc[:1], path, force=True)
    assert len(read_series(path).t) == 1
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_table_suffix_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must end in one of"):
        write_table(pd.DataFrame({"t": [1]}), tmp_path / "out.xls")


def test_sidecar_holds_plain_json(tmp_path: Path) -> None:
    path = sidecar_path(tmp_path / "out.csv")
    assert path.name == "out.config.json"
    config = {
        "model": MODELS["ou"],
        "weight": StudentT(4.0),
        "a": np.arange(3),
        "big": np.inf,
        "file": Path("x"),
        "n": np.int64(3),
        "none": None,
        "set": (1, 2.5),
    }
    write_sidecar(path, config)
    content = json.loads(path.read_text())
    assert content["versions"]["afafilter"]
    assert content["versions"]["numpy"] == np.__version__
    assert content["config"]["weight"] == {"type": "StudentT", "nu": 4.0}
    assert content["config"]["model"]["A"] == [[-0.7]]
    assert content["config"]["a"] == [0, 1, 2]
    assert content["config"]["big"] == "inf"
    assert content["config"]["none"] is None
    with pytest.raises(FileExistsError):
        write_sidecar(path, config, force=False)
