"""Units of time, from file to model to file: remembered, and refused where they differ."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result

import afafilter as a
from afafilter.cli import main
from afafilter.io.model_toml import read_model
from tests.cli import runner

Run = Callable[..., Result]
HOURS = '[model]\nA = [[-0.1]]\nQ = [[0.5]]\nR = [[1.0]]\ntime_unit = "h"\nprior = "stationary"\n'


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command in a folder with models in hours, days and no unit, and data in hours."""
    monkeypatch.chdir(tmp_path)
    Path("h.toml").write_text(HOURS)
    Path("d.toml").write_text(HOURS.replace('"h"', '"D"'))
    Path("none.toml").write_text(HOURS.replace('time_unit = "h"\n', ""))

    def call(line: str, status: int = 0) -> Result:
        result = runner().invoke(main, line.split())
        assert result.exit_code == status, result.stderr
        return result

    call("simulate h.toml --n 40 --seed 1 -o x.csv")
    call("estimate x.csv --model h.toml -o est.csv")
    return call


@pytest.mark.parametrize(
    "line",
    [
        "estimate est.csv --model d.toml -o y.csv",
        "fit est.csv --model d.toml -o y.toml",
        "simulate d.toml --times x.csv -o y.csv",
        "simulate d.toml --times est.csv -o y.csv",
        "simulate h.toml --times x.csv --time-unit D -o y.csv",
        "fit x.csv --model none.toml --time-unit D -o y.toml",
        "estimate x.csv --model none.toml --time-unit D -o y.csv",
        "compare x.csv --hold-out --model h.toml --model d.toml -o y.csv",
        "compare x.csv --hold-out --model none.toml --model d.toml -o y.csv",
        "report est.csv --model d.toml -o y.html",
    ],
)
def test_another_unit_is_refused(run: Run, line: str) -> None:
    said = run(line, 2).stderr
    assert "h" in said
    assert "D" in said
    assert not list(Path().glob("y.*"))


def test_a_parquet_file_alone_knows_its_unit(run: Run) -> None:
    run("simulate h.toml --n 40 --seed 1 -o p.parquet")
    Path("p.config.json").unlink()
    assert "counts time in h" in run("estimate p.parquet --model d.toml -o y.csv", 2).stderr


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("fit x.csv --model none.toml -o y.toml", "y.toml"),
        ("fit est.csv --model none.toml -o y.toml", "y.toml"),
        ("fit x.csv --model none.toml --each --by path -o y.csv", "y/0.toml"),
        ("fit plain.csv --model none.toml --time-unit h --each --by path -o y.csv", "y/0.toml"),
        ("fit named.csv --model none.toml --values z0 -o y.toml", "y.toml"),
    ],
)
def test_a_fit_remembers_the_unit_of_its_file(run: Run, line: str, name: str) -> None:
    if "--each" in line:
        run("simulate h.toml --n 40 --paths 2 --seed 1 -o x.csv --force")
    shutil.copy("x.csv", "plain.csv")  # no record lies beside it
    Path("named.csv").write_text(Path("x.csv").read_text().replace("t,", "t [h],", 1))
    run(line)
    assert read_model(name).time_unit == "h"


def test_dates_may_be_counted_in_any_unit(run: Run) -> None:
    rows = "".join(f"2024-01-{k + 1:02},{k % 3}\n" for k in range(20))
    Path("dated.csv").write_text("date,z\n" + rows)
    run("estimate dated.csv --model h.toml -o e.csv")
    run("estimate e.csv --model d.toml -o e2.csv")
    run("simulate h.toml --times dated.csv --seed 1 -o s.csv")
    assert "counts time in h" in run("estimate s.csv --model d.toml -o e3.csv", 2).stderr


@pytest.mark.parametrize(
    "line",
    [
        "simulate h.toml --n 5 --time-unit h",
        "simulate h.toml --n 5 --time t",
        "simulate h.toml --times x.csv --dt 2",
        "simulate h.toml --times x.csv --start 0",
        "simulate h.toml --n 5 --outlier-law student_t",
    ],
)
def test_options_that_would_do_nothing_are_refused(run: Run, line: str) -> None:
    assert "goes with" in run(line, 2).stderr or "need" in run(line, 2).stderr


def test_models_that_name_other_inputs_are_not_compared_on_one(run: Run) -> None:
    rows = "".join(f"{k},{k % 3},{k % 2},{k % 5}\n" for k in range(30))
    Path("u.csv").write_text("t,z,a,b\n" + rows)
    for name in "ab":
        text = HOURS + f'[model.forcing]\nnames = ["{name}"]\ndirect = [[1.0]]\n'
        Path(f"{name}.toml").write_text(text)
    line = "compare u.csv --hold-out --values z --estimators kalman --kinds random"
    assert "same inputs" in run(f"{line} --model a.toml --model b.toml -o y.csv", 2).stderr
    run(f"{line} --model none.toml --model b.toml -o y.csv")


ENDS = {
    "plain": np.arange(40.0),
    "whole": np.arange(40),
    "beyond floats": 1711756800_000000000 + 100 * np.arange(40),
    "index": pd.Index(np.arange(40.0)),
}


@pytest.mark.parametrize("t", ENDS.values(), ids=list(ENDS))
@pytest.mark.parametrize("known", ["argument", "model"])
def test_a_fit_to_numbers_remembers_their_unit(t: Any, known: str) -> None:
    z = np.random.default_rng(0).normal(size=(40, 1)).cumsum(axis=0)
    model = a.LinearSDE(A=[[0.0]], Q=[[1.0]], R=[[1.0]], time_unit="h" if known == "model" else "")
    given = {"time_unit": "h"} if known == "argument" else {}
    found = a.fit(model, t, z, free=["Q", "R"], **given)
    assert (found.time_unit, found.model.time_unit) == ("h", "h")
    each = a.fit_each(a.families.brownian() + a.families.noise(), t, [z, z + 1], time_unit="h")
    assert {each.time_unit, each[1].model.time_unit} == {"h"}
    learned = a.fit_afa(model, t, z, free=["Q"], max_iter=2, **given)
    assert learned.model.time_unit == "h"
    with pytest.raises(ValueError, match="must be 'h'"):
        a.kalman_filter(found.model, t, z, time_unit="D")


def test_the_command_remembers_the_unit_of_numbers(run: Run) -> None:
    shutil.copy("x.csv", "bare.csv")
    for start in ("--model none.toml", "--family brownian+noise"):
        run(f"fit bare.csv {start} --values z0 --time-unit h -o f.toml --force")
        assert read_model("f.toml").time_unit == "h"
        assert json.loads(Path("f.config.json").read_text())["config"]["time_unit"] == "h"


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "UTC", "+05:30"])
def test_a_zone_in_is_a_zone_out(run: Run, kind: str, zone: str) -> None:
    """Through the hour that clocks show twice, of paths side by side and ahead of the data."""
    first = "2024-11-03T04:00Z" if zone.startswith("America") else "2024-10-26T23:00Z"
    when = pd.date_range(first, periods=5, freq="h").tz_convert(zone)
    paths = [pd.DataFrame({"p": p, "when": when, "x": np.arange(5.0)}) for p in "ab"]
    frame = pd.concat(paths, ignore_index=True)
    if kind == "csv":
        frame.to_csv("in.csv", index=False)
    elif kind == "parquet":
        frame.to_parquet("in.parquet")
    else:
        rows = frame.assign(when=[x.isoformat() for x in frame["when"]]).to_dict("records")
        Path("in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    call = f"estimate in.{kind} --model none.toml --by p --time when --time-unit h --forecast 2"
    wanted = [*when, when[-1] + pd.Timedelta("1h"), when[-1] + pd.Timedelta("2h")]
    for suffix in (kind, "csv"):
        run(f"{call} -o out.{suffix} --force")
        series = a.io.read_panel(f"out.{suffix}").series
        assert [len(one.t) for one in series] == [7, 7]
        for one in series:
            texts = one.stamps.text(one.stamps.values)
            assert [pd.Timestamp(x).utcoffset() for x in texts] == [x.utcoffset() for x in wanted]
            assert [pd.Timestamp(x) for x in texts] == wanted
