"""Files as attackers write them: the right numbers or one clear line, soon and in little memory."""

from __future__ import annotations

import gzip
import json
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from afafilter.io import Dialect, read_model, read_series
from afafilter.io.files import parse_json
from afafilter.io.sidecar import read_sidecar

TEXT = "t,z\n0,1.5\n1,2.5\n2,0.5\n"


def assert_read(path: Path, values: object = None) -> None:
    series = read_series(path, values=values)
    assert series.t.tolist() == [0, 1, 2]
    assert series.z[:, 0].tolist() == [1.5, 2.5, 0.5]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_mark_says_what_text_is(tmp_path, encoding):
    path = tmp_path / "d.csv"
    path.write_bytes(TEXT.encode(encoding))
    assert_read(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_nul_characters_are_no_text(tmp_path, encoding):
    path = tmp_path / "d.csv"
    path.write_bytes(TEXT.replace("2.5", "2\0.5").encode(encoding))
    with pytest.raises(ValueError, match="holds NUL bytes"):
        read_series(path)


def test_lines_that_end_in_three_ways(tmp_path):
    path = tmp_path / "d.csv"
    path.write_bytes(b"t,z\r\n0,1.5\r1,2.5\n2,0.5\r\n")
    assert_read(path)


def test_lines_of_json_end_at_newlines_only(tmp_path):
    path = tmp_path / "d.jsonl"
    rows = [{"t": k, "z": z, "said": "a\u2028b\x0b\x85"} for k, z in enumerate([1.5, 2.5, 0.5])]
    path.write_text(
        "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8"
    )
    assert_read(path, "z")


def test_many_keys_take_time_in_proportion(tmp_path):
    path, n = tmp_path / "d.jsonl", 20_000
    path.write_text("".join(f'{{"t": {k}, "z": {k % 7}, "k{k}": 1}}\n' for k in range(n)))
    begin = time.process_time()
    series = read_series(path, values="z")
    assert series.z[:, 0].tolist() == [k % 7 for k in range(n)]
    with pytest.raises(ValueError, match=r"columns of 20000 rows hold \d+ values only: --values"):
        read_series(path)
    keys = ", ".join(f'"k{k}": 1' for k in range(2 * n))
    with pytest.raises(ValueError, match=f"key 'k{2 * n - 1}' stands twice"):
        parse_json(f'{{{keys}, "k{2 * n - 1}": 2}}')
    assert time.process_time() - begin < 10


def test_blanks_of_json_lines_are_missing(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"t": 0, "a": 1}\n{"t": 1, "b": 2}\n{"t": 2, "a": null, "b": 3.5}\n')
    wanted = [[1, np.nan], [np.nan, 2], [np.nan, 3.5]]
    np.testing.assert_array_equal(read_series(path).z, wanted)
    np.testing.assert_array_equal(read_series(path, sort=True).z, wanted)


@pytest.mark.parametrize("offset", ["+99:99", "+24:00", "+05:60", "-9999", "-25"])
def test_offsets_of_no_clock(tmp_path, offset):
    path = tmp_path / "d.csv"
    path.write_text(f"t,z\n2024-01-01T00:00{offset},1\n2024-01-02T00:00{offset},2\n")
    with pytest.raises(ValueError, match="line 2: t must be a number or an ISO date"):
        read_series(path)


@pytest.mark.parametrize("offset", ["+23:59", "-23:59", "+14", "+0545", "Z"])
def test_offsets_of_clocks(tmp_path, offset):
    path = tmp_path / "d.csv"
    path.write_text(f"t,z\n2024-01-01T00:00{offset},1\n2024-01-02T06:00{offset},2\n")
    assert read_series(path).t.tolist() == [0, 1.25]


@pytest.mark.parametrize("pattern", ["%d.%m", "%d.%m %H:%M", "%b-%d"])
def test_patterns_without_a_year(tmp_path, pattern):
    """From 28 February to 1 March it is one day or two."""
    path = tmp_path / "d.csv"
    days = pd.to_datetime(["2024-02-28 10:00", "2024-03-01 10:00"])
    path.write_text("t,z\n" + "".join(f"{day},1\n" for day in days.strftime(pattern)))
    with pytest.raises(ValueError, match="but no year"):
        read_series(path, dialect=Dialect(time_format=pattern))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
@pytest.mark.parametrize("name", ["d.csv", "d.jsonl", "d.parquet", "m.toml"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_never_ends_is_not_opened(tmp_path, name, kind):
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="not a regular file"):
        (read_model if name == "m.toml" else read_series)(path)
    assert read_sidecar(path) == {}


def test_archives_that_unpack_to_far_too_much(tmp_path, monkeypatch):
    path = tmp_path / "d.csv.gz"
    path.write_bytes(gzip.compress(TEXT.encode()))
    assert_read(path)
    monkeypatch.setattr("afafilter.io.text.UNPACKED", (1 << 20, 100))
    path.write_bytes(gzip.compress(b"t,z\n" + b"0,1\n" * 1_000_000))
    with pytest.raises(ValueError, match="that unpack to more than 1048576: unpack"):
        read_series(path)
    table = tmp_path / "d.parquet"
    parquet.write_table(pa.table({"t": np.zeros(1_000_000), "z": np.zeros(1_000_000)}), table)
    with pytest.raises(ValueError, match="that unpack to more than"):
        read_series(table)


def test_unsigned_numbers_of_parquet(tmp_path):
    path = tmp_path / "d.parquet"
    z = np.array([2**64 - 1, 2**63, 1], np.uint64)
    pd.DataFrame({"t": range(3), "z": z}).to_parquet(path)
    assert read_series(path).z[:, 0].tolist() == z.astype(float).tolist()


def test_lists_of_parquet_are_no_numbers(tmp_path):
    path = tmp_path / "d.parquet"
    pd.DataFrame({"t": range(3), "z": [[1, 2]] * 3}).to_parquet(path)
    with pytest.raises(ValueError, match="row 1: z must be a number, got"):
        read_series(path)


@pytest.mark.parametrize("text", ["a." * 50_000 + "a = 1\n", "[" + "'a' . " * 50_000 + "a]\n"])
def test_keys_of_many_parts(tmp_path, text):
    path = tmp_path / "m.toml"
    path.write_text(text)
    begin = time.process_time()
    with pytest.raises(ValueError, match="not valid TOML: nested too deeply"):
        read_model(path)
    assert time.process_time() - begin < 1


@pytest.mark.parametrize(
    ("part", "n"), [('preset = "brownian"', 20_000), ('preset = "brownian"\ndim = 400', 3)]
)
def test_sums_of_more_than_can_be_held(tmp_path, part, n):
    path = tmp_path / "m.toml"
    path.write_text(f"[[model.sum]]\n{part}\n" * n)
    begin = time.process_time()
    with pytest.raises(ValueError, match="at most 1000 models and components"):
        read_model(path)
    assert time.process_time() - begin < 20


def test_sums_in_pairs_are_sums_in_order(tmp_path):
    path, n = tmp_path / "m.toml", 7
    parts = [f'[[model.sum]]\npreset = "brownian"\nprocess_var = {k + 1}.0\n' for k in range(n)]
    path.write_text("".join(parts))
    model = read_model(path)
    assert np.diag(model.Q).tolist() == [*range(1, n + 1)]
    assert len(model.parts) == n


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('preset = "brownian"\nprocess_var = true', "process_var"),
        ("A = [[-1.0, true], [0, -1]]\nQ = [[1, 0], [0, 1]]\nR = [[1, 0], [0, 1]]", "A"),
        ('preset = "brownian"\nprior = { mean = [0], cov = [[true]] }', "cov"),
        ('[[model.sum]]\npreset = "brownian"\nobs_var = false', "obs_var"),
    ],
)
def test_booleans_are_no_numbers_of_a_model(tmp_path, text, key):
    path = tmp_path / "m.toml"
    path.write_text(text if text.startswith("[[") else f"[model]\n{text}\n")
    with pytest.raises(TypeError, match=f"{key} must be numbers, got (true|false)"):
        read_model(path)
