"""Mistakes at the command: status 2, one line that says what is wrong, and nothing is written."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from afafilter.cli import main
from tests.cli import runner

FILES = {
    "m.toml": '[model]\npreset = "brownian"\nprocess_var = 0.1\nobs_var = 1.0\n',
    "s.toml": '[model]\npreset = "spiral"\n',
    "d.csv": "t,z\n" + "".join(f"{k},{(k * 7) % 5}\n" for k in range(30)),
    "dup.csv": "t,z,z\n0,1,2\n",
    "wide.csv": "t,a,b\n0,1,2\n1,2,3\n",
    "empty.csv": "",
    "head.csv": "t,z\n",
    "ragged.csv": "t,z\n0,1\n1,2,3\n",
    "quote.csv": 't,z\n0,"1\n1,2\n',
    "inf.csv": "t,z\n0,inf\n1,2\n",
    "text.csv": "t,z\n0,a\n1,2\n",
    "back.csv": "t,z\n1,1\n0,2\n",
    "by.csv": "who,t,z\na,0,1\na,1,2\nb,0,3\nb,1,4\n",
    "date.csv": "t,z\n2024-01-01,1\n2024-01-02,2\n2024-01-05,2\n",
    "sd.csv": "t,z,sd\n0,1,0\n1,2,1\n",
    "there.csv": "keep",
    "x.bin": "x",
    "broken.toml": "[model\n",
    "none.toml": "x = 1\n",
    "preset.toml": '[model]\npreset = "browni"\n',
    "key.toml": '[model]\npreset = "brownian"\nq = 1\n',
    "number.toml": "[model]\nA = [[-1.0]]\nQ = 1\nR = [[1.0]]\n",
    "negative.toml": '[model]\npreset = "brownian"\nobs_var = -1.0\n',
    "hours.toml": '[model]\npreset = "brownian"\ntime_unit = "h"\n',
    "study.toml": "seeds = 1\n",
}
E = "estimate d.csv --model m.toml"
F = 'fit d.csv --family "brownian + noise"'
H = "compare d.csv --hold-out --model m.toml"
MISTAKES = {
    # command line: what the line on stderr says
    "nope": "No such command 'nope'",
    "estimate --modell m.toml": "Did you mean '--model'",
    "estimate": "Missing argument 'DATA'",
    "estimate d.csv": "Missing option '--model'",
    "estimate nope.csv --model m.toml": "nope.csv: No such file",
    "estimate d.csv --model nope.toml": "nope.toml: No such file",
    "estimate d.csv --model broken.toml": "not valid TOML",
    "estimate d.csv --model none.toml": "unknown key 'x'; known are model",
    "estimate d.csv --model preset.toml": "did you mean 'brownian'",
    "estimate d.csv --model key.toml": "unknown key 'q'; known are",
    "estimate d.csv --model number.toml": "Q must have shape (1, 1), got the scalar 1",
    "estimate d.csv --model negative.toml": "obs_var must be >= 0, got -1",
    "estimate d.csv --model d.csv": "d.csv: not valid TOML",
    "estimate m.toml --model m.toml": "must end in one of .csv",
    "estimate dup.csv --model m.toml": "two columns are called 'z': --header",
    "estimate wide.csv --model m.toml": "there are 2 value columns (a, b): choose with --values",
    "estimate d.csv --model s.toml": "observes 2 components, but there is one value column (z)",
    "estimate empty.csv --model m.toml": "the file is empty",
    "estimate head.csv --model m.toml": "no rows of data",
    "estimate ragged.csv --model m.toml": "line 3: 3 fields, but the header has 2",
    "estimate quote.csv --model m.toml": "z must be a number",
    "estimate inf.csv --model m.toml": "line 2: z must be finite; leave a missing value blank",
    "estimate text.csv --model m.toml": "--na a word that means missing",
    "estimate back.csv --model m.toml": "line 3: time 0 comes after 1; sort the rows by time (",
    "estimate x.bin --model m.toml": "must end in one of .csv",
    "estimate sd.csv --model m.toml --values z --errors sd": "line 2: standard errors must be",
    "estimate date.csv --model m.toml --time-format %d.%m.%Y": "t must be a date as %d.%m.%Y",
    "estimate d.csv --model hours.toml --time-unit s": "--time-unit must be h",
    f"{E} --estimator kalmn": "did you mean 'kalman'",
    f"{E} --estimator pack:f": "is an import path, which runs code of yours: allow it",
    f"{E} --estimator nopack:f --allow-import": "cannot be imported: No module named 'nopack'",
    f"{E} --values q": "no column 'q'; the columns are t, z",
    f"{E} --values t": "column 't' is asked for twice",
    f"{E} --time q": "no column 'q'",
    f"{E} --time t,z,q": "time must name one column, or date and time of day",
    f"{E} --by q": "no column 'q'",
    f"{E} --input z": "no value column beside the time column 't'",
    f"{E} --errors z": "errors (--errors) need values (--values)",
    f"{E} --time-unit sec": "time_unit must be one of 'ns'",
    f"{E} --time-format xx": "t must be a date as xx, got '0'",
    f"{E} --sep abc": "sep must be one character",
    f"{E} --decimal ;": "decimal must be '.' or ','",
    f"{E} --header 99": "header is line 99, but there are 31",
    f"{E} --encoding foo": "encoding must be a text encoding such as cp1252",
    f"{E} --weight cauchy": "weight must be one of exponential",
    f"{E} --weight huber --nu 3": "weight 'huber' takes the parameters c, got nu",
    f"{E} --nu 3": "--nu needs --weight, e.g. --weight student_t",
    f"{E} --anchor prediction": "--anchor needs --weight",
    f"{E} --iterations 0": "'--iterations': 0 is not in the range",
    f"{E} --set window": "--set wants KEY=VALUE, got 'window'",
    f"{E} --set windows=3": "unknown key 'windows'; known are",
    f"{E} --estimator afa --set window=0": "window must be >= 1, got 0",
    f"{E} --query-times a,b": "times must be numbers like those of the data, got 'a'",
    f"{E} --query-times 5:1:1": "must go upwards",
    f"{E} --query-times 0:1:0": "must go upwards",
    f"{E} --query-times 0:1e12:1e-6": "at most 10,000,000 are taken",
    f"{E} --forecast -1": "-1.0 is not in the range",
    f"{E} --forecast 0.1": "--forecast must reach one step (1), got 0.1",
    f"{E} --levels 0": "levels are percentages between 0 and 100",
    f"{E} --levels x": "'x' is not a list of numbers such as 50,90,95",
    f"{E} -o out.xlsx": "must end in one of .csv",
    f"{E} -o there.csv": "there.csv exists already; --force overwrites it",
    f"{E} -o d.csv --force": "is read as input and would be overwritten",
    f"{E} -o folder.csv": "folder.csv is a directory",
    f"{E} -o nowhere/x.csv": "no such directory: nowhere",
    f"{E} -o out.csv --figure out.gif": "the figure's name must end in .png, .pdf, .svg",
    f"{E} -o out.csv --format jsonl": "--format is for stdout",
    "fit d.csv": "give either --model or --family",
    'fit d.csv --family "brownian + nois"': "did you mean 'noise'",
    "fit d.csv --family brownian --model m.toml": "give either --model or --family",
    'fit wide.csv --family "brownian + noise"': "or give the model as many",
    'fit date.csv --family "brownian + noise"': "too few data: 3 observed values for 2 parameters",
    f"{F} --method mle": "method must be one of 'ml', 'em', 'student_t', got 'mle'",
    f"{F} --free q": "free must name process_var, obs_var; got 'q'",
    f"{F} --starts 0": "'--starts': 0 is not in the range",
    f"{F} -o x.csv": "the name of the fitted model must end in .toml",
    f"{F} --prior obs_var": "wanted is NAME=lognormal:MEDIAN:SIGMA",
    "simulate m.toml": "give either --n (and --dt) or --times",
    "simulate m.toml --n 0": "'--n': 0 is not in the range",
    "simulate m.toml --n 5": "nothing can be drawn from it. Give d = 1 numbers",
    "simulate m.toml --n 5 --x0 a": "--x0 must be numbers or 'stationary', got 'a'",
    "simulate m.toml --n 5 --x0 1,2": "x0 must have shape",
    "simulate m.toml --n 5 --x0 stationary": "prior 'stationary' needs stable",
    "simulate m.toml --n 5 --x0 0 --missing 2": "missing must be probabilities",
    "simulate m.toml --n 5 --x0 0 --outlier-rate 2": "outliers rate must be a probability",
    "simulate m.toml --n 5 --x0 0 --outlier-scale 3": "outliers need --outlier-rate",
    "simulate m.toml --n 5 --x0 0 --outlier-rate .1 --outlier-law x": "outliers law must be one of",
    "simulate m.toml --n 5 --dt -1 --x0 0": "--dt must be >= 0, got -1",
    "simulate m.toml --times nope.csv": "nope.csv: No such file",
    "simulate m.toml --times d.csv --n 5 --x0 0": "give either --n (and --dt) or --times",
    "compare study.toml": "a study needs at least one table [models.<name>]",
    "compare nope.toml": "nope.toml: No such file",
    "compare d.csv": "d.csv is no study (.toml): --hold-out compares on measurements in it",
    "compare d.csv --hold-out": "--hold-out needs at least one --model",
    "compare study.toml --kinds random": "--kinds goes with --hold-out",
    f"{H} --kinds x": "kinds must be one of 'random', 'blocks', 'forecast', got 'x'",
    f"{H} --estimators x": "estimator must be one of kalman",
    f"{H} --path 1": "--path needs --by",
    f"{H} --jobs 2": "--jobs goes with a study, not with --hold-out",
    "compare by.csv --hold-out --model m.toml --by who --path c": "must be one of a, b, got 'c'",
    "report d.csv -o x.pdf": "the name of a report must end in .html",
    'report d.csv --family "brownian + noise" --model m.toml': "--model or --family, or neither",
    "report by.csv --by who": "a report is about one path: --path must be one of a, b",
    "figures nope": "unknown experiment 'nope'; known are",
    "completion tcsh": "'tcsh' is not one of 'bash', 'zsh', 'fish'",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mistakes")
    for name, text in FILES.items():
        (path / name).write_text(text)
    (path / "folder.csv").mkdir()
    return path


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    if line.startswith("report"):
        pytest.importorskip("plotly")
    monkeypatch.chdir(folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    result = runner().invoke(main, shlex.split(line))
    assert result.exit_code == 2, result.output
    said = result.stderr.replace("mean --model?", "mean '--model'?")  # by click 8.1
    assert MISTAKES[line] in said
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
