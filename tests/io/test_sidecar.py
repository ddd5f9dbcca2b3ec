"""Records beside results: one for each result, and JSON that says everything once."""

import json
from pathlib import Path
from typing import Any

import pytest

from afafilter.cli import main
from afafilter.io import read_series, write_sidecar
from afafilter.io.sidecar import sidecar_path
from afafilter.studies.cells import read_cell
from tests.cli import runner

HOURS = '[model]\nA = [[-0.1]]\nQ = [[0.5]]\nR = [[1.0]]\ntime_unit = "{}"\n'


def run(line: str, status: int = 0) -> str:
    result = runner().invoke(main, line.split())
    assert result.exit_code == status, result.output
    return str(result.stderr)


def config(name: str) -> dict[str, Any]:
    return dict(json.loads(Path(name).read_text())["config"])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for unit in "hD":
        Path(f"{unit}.toml").write_text(HOURS.format(unit))


@pytest.mark.parametrize("other", ["d.parquet", "d.jsonl", "d.tsv"])
@pytest.mark.parametrize("force", ["", " --force"])
def test_results_of_one_stem_have_records_of_their_own(other: str, force: str) -> None:
    run("simulate h.toml --n 30 --seed 1 -o d.csv")
    run(f"simulate D.toml --n 30 --seed 2 -o {other}{force}")
    assert config("d.config.json")["time_unit"] == "h"
    assert config(f"{other}.config.json")["time_unit"] == "D"
    run("estimate d.csv --model h.toml -o a.csv")
    run(f"estimate {other} --model D.toml -o b.csv")
    assert "counts time in h" in run("estimate d.csv --model D.toml -o c.csv", status=2)
    assert "counts time in D" in run(f"estimate {other} --model h.toml -o c.csv", status=2)
    run("simulate D.toml --n 30 --seed 3 -o d.csv --force")
    assert (config("d.config.json")["seed"], config(f"{other}.config.json")["seed"]) == (3, 2)


def test_a_fit_keeps_its_record_when_its_stem_is_used_again() -> None:
    run("simulate h.toml --n 40 --seed 1 -o x.csv")
    run("fit x.csv --model h.toml -o f.toml")
    run("estimate x.csv --model f.toml -o f.jsonl")
    assert config("f.config.json")["command"] == "fit"
    assert config("f.jsonl.config.json")["command"] == "estimate"


def test_a_record_copied_with_its_result_is_the_copys() -> None:
    run("simulate h.toml --n 30 --seed 1 -o d.csv")
    for name in ("csv", "config.json"):
        Path(f"copy.{name}").write_bytes(Path(f"d.{name}").read_bytes())
    assert "counts time in h" in run("estimate copy.csv --model D.toml -o c.csv", status=2)


@pytest.mark.parametrize(
    "content", ["[]", "no JSON", '{"result": 3}', '{"result": "gone.csv"}', ""]
)
def test_files_that_are_no_record_of_another_result(content: str) -> None:
    Path("d.config.json").write_text(content)
    assert sidecar_path("d.csv") == Path("d.config.json")


TWICE = '{"config": {"command": "simulate", "time_unit": "D", "time_unit": "h"}}'


def test_a_record_that_says_a_key_twice_is_refused() -> None:
    run("simulate h.toml --n 30 --seed 1 -o d.csv")
    Path("d.config.json").write_text(TWICE)
    error = run("estimate d.csv --model h.toml -o c.csv", status=2)
    assert "d.config.json: key 'time_unit' stands twice" in error


def test_json_lines_that_say_a_key_twice_are_refused() -> None:
    Path("d.jsonl").write_text('{"t": 0, "z": 1}\n{"t": 1, "z": 1, "z": 2}\n')
    with pytest.raises(ValueError, match="line 2: key 'z' stands twice"):
        read_series("d.jsonl")
    Path("d.jsonl").write_text('{"t": 0, "z": ' + "1" * 5000 + "}\n")
    with pytest.raises(ValueError, match=r"line 1: .*digits"):
        read_series("d.jsonl")
    Path("d.jsonl").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="line 1: nested too deeply"):
        read_series("d.jsonl")


@pytest.mark.parametrize("content", ['{"estimators": 1, "estimators": {}}', "[" * 100_000])
def test_a_damaged_cell_is_none(content: str) -> None:
    Path("cell.json").write_text(content)
    assert read_cell(Path("cell.json")) is None


def test_the_result_is_named() -> None:
    path = write_sidecar("d.config.json", {"seed": 1}, result="somewhere/d.csv")
    assert json.loads(path.read_text())["result"] == "d.csv"
