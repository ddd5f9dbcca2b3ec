"""The command in real processes: pipes, signals, hostile files, completion."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result

from afafilter import datasets, kalman_filter, rts_smoother
from afafilter.cli import main
from tests.cli import runner

DATA = datasets.DATA
COMMAND = [sys.executable, "-m", "afafilter"]
LEVEL = '[model]\npreset = "brownian"\n'


def call(
    folder: Path, *arguments: Any, status: int = 0, **options: Any
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert_ended(done.returncode, status, done.stdout, done.stderr)
    return done


def inside(folder: Path, *arguments: Any, status: int = 0) -> Result:
    """As `call`, in this process: for what the command does, not how it lives."""
    with contextlib.chdir(folder):
        done = runner().invoke(main, [*map(str, arguments)])
    assert_ended(done.exit_code, status, done.stdout, done.stderr)
    return done


def assert_ended(found: int, status: int, stdout: str, stderr: str) -> None:
    """With the status wanted; bad input is one line."""
    assert found == status, stderr
    if status == 2:
        assert stdout == ""
        assert len(stderr.splitlines()) == 1, stderr


def test_stdin_to_stdout_in_json_lines(tmp_path: Path) -> None:
    text = (DATA / "nile.csv").read_text()
    done = call(tmp_path, "estimate", "-", "--model", DATA / "nile.toml", "--estimator", "rts",
                "-o", "-", "--format", "jsonl", input=text)  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    series = datasets.load_nile()
    wanted = rts_smoother(datasets.nile_model(), series.t, series.z)
    np.testing.assert_allclose([r["flow_fit"] for r in rows], wanted.mean[:, 0], rtol=1e-12)
    assert rows[0]["year"] == 1871
    assert "log-likelihood -633.4646" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_an_instrument_writes_goes_round_with_its_zone(tmp_path: Path) -> None:
    text = "Logger\nZeit;T;\ns;°C;\n2024-03-31T01:30:00+01:00;1,5;\n2024-03-31T03:30:00+02:00;2;\n"
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "m.toml").write_text(LEVEL)
    inside(tmp_path, "estimate", "d.csv.gz", "--model", "m.toml", "--time-unit", "h", "--levels",
         "50,95", "-o", "e.csv")  # fmt: skip
    frame = pd.read_csv(tmp_path / "e.csv")
    assert list(frame["Zeit"]) == ["2024-03-31T01:30:00+01:00", "2024-03-31T03:30:00+02:00"]
    assert list(frame["t"]) == [0, 1]
    np.testing.assert_allclose(frame["T_obs_sd"] ** 2 - frame["T_fit_sd"] ** 2, 1.0)
    for kind in ("fit", "obs"):
        half = 0.5 * (frame[f"T_{kind}_high95"] - frame[f"T_{kind}_low95"])
        np.testing.assert_allclose(half, 1.959963984540054 * frame[f"T_{kind}_sd"])


def test_panels_with_times_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("track,t,x\nb,5,1\na,0,2\nb,6,3\na,1.5,5\n")
    (tmp_path / "m.toml").write_text(LEVEL)
    inside(tmp_path, "estimate", "d.csv", "--model", "m.toml", "--by", "track", "--time", "t",
         "-o", "e.csv")  # fmt: skip
    frame = pd.read_csv(tmp_path / "e.csv")
    assert list(frame["track"]) == ["b", "b", "a", "a"]
    assert list(frame["t"]) == [5, 6, 0, 1.5]
    (tmp_path / "b.csv").write_text("t,x\n5,1\n6,3\n")
    inside(tmp_path, "estimate", "b.csv", "--model", "m.toml", "-o", "f.csv")
    alone = pd.read_csv(tmp_path / "f.csv")
    np.testing.assert_allclose(frame["x0"][:2], alone["x0"])


def test_robust_rows_have_weights_and_flags(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal(60)
    z[20] = 30
    pd.DataFrame({"t": np.arange(60), "x": z}).to_csv(tmp_path / "d.csv", index=False)
    (tmp_path / "m.toml").write_text('[model]\npreset = "brownian"\nprocess_var = 0.01\n')
    for estimator in ("irks", "afa"):
        weight = ["--weight", "student_t", "--nu", 4] if estimator == "afa" else []
        options = "--model", "m.toml", "--estimator", estimator, *weight, "-o", f"{estimator}.csv"
        inside(tmp_path, "estimate", "d.csv", *options)
        frame = pd.read_csv(tmp_path / f"{estimator}.csv")
        assert list(np.flatnonzero(frame["outlier"])) == [20]
        assert frame["weight"].idxmin() == 20


def test_units_are_written_and_mismatches_refused(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=40, freq="h")
    z = np.cumsum(np.random.default_rng(0).standard_normal(40))
    pd.DataFrame({"when": days, "x": z}).to_csv(tmp_path / "d.csv", index=False)
    inside(
        tmp_path, "fit", "d.csv", "--family", "brownian + noise", "--time-unit", "h", "-o", "m.toml"
    )
    assert 'time_unit = "h"' in (tmp_path / "m.toml").read_text()
    inside(tmp_path, "estimate", "d.csv", "--model", "m.toml", "-o", "e.csv")
    assert pd.read_csv(tmp_path / "e.csv")["t"].iloc[-1] == 39
    bad = inside(tmp_path, "estimate", "d.csv", "--model", "m.toml", "--time-unit", "D", "-o",
               "f.csv", status=2)  # fmt: skip
    assert "--time-unit must be h" in bad.stderr
    inside(tmp_path, "simulate", "m.toml", "--n", 5, "--x0", "0", "--seed", 1, "-o", "s.csv")
    (tmp_path / "day.toml").write_text(LEVEL + 'time_unit = "D"\n')
    bad = inside(tmp_path, "estimate", "s.csv", "--model", "day.toml", "-o", "g.csv", status=2)
    assert "counts time in h, the model in D" in bad.stderr


def test_nothing_observed_is_said(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("t,x\n0,\n1,\n")
    (tmp_path / "m.toml").write_text(LEVEL)
    done = inside(tmp_path, "estimate", "d.csv", "--model", "m.toml", "-o", "e.csv")
    assert "warning: d.csv: nothing was observed: no value in x" in done.stderr


def test_held_out_comparison_and_filterpys_likelihood(tmp_path: Path) -> None:
    level = DATA / "nile.csv", "--model", DATA / "nile.toml"
    several = "--estimators", "kalman,rts", "--pieces", 2
    done = inside(tmp_path, "compare", *level, "--hold-out", *several, "-o", "h.csv")
    frame = pd.read_csv(tmp_path / "h.csv")
    assert set(frame["kind"]) == {"random", "blocks", "forecast"}
    assert "coverage95" in done.stdout
    done = inside(tmp_path, "estimate", *level, "--estimator", "filterpy", "-o", "f.csv")
    assert "as kalman gives it, is -633.4646" in done.stdout


def test_report_is_written(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    inside(tmp_path, "report", DATA / "nile.csv", "-o", "r.html")
    assert "Plotly.newPlot" in (tmp_path / "r.html").read_text()
    bad = inside(tmp_path, "report", DATA / "nile.csv", "-o", "r.txt", status=2)
    assert "must end in .html" in bad.stderr


WIDE = b"t" + b"".join(b",c%d" % k for k in range(10**5))
HOSTILE: dict[str, tuple[dict[str, bytes], list[str], str]] = {
    "directory as output": ({"d.csv": b"t,x\n0,1\n"}, ["estimate", "d.csv", "--model", "m.toml",
                            "-o", "dir.csv"], "dir.csv is a directory"),
    "NUL bytes": ({"d.csv": b"t,x\n0,\x00\n"}, ["estimate", "d.csv", "--model", "m.toml"],
                  "holds NUL bytes"),
    "deep TOML": ({"n.toml": b"[model]\nA = " + b"[" * 5000 + b"]" * 5000},
                  ["simulate", "n.toml", "--n", "3"], "n.toml"),
    "deep tables": ({"n.toml": b"[model]\nsum=" + b"[{sum=" * 300 + b"1" + b"}]" * 300},
                    ["simulate", "n.toml", "--n", "3"], "n.toml"),
    "dotted tables": ({"n.toml": b"[" + b".".join([b"a"] * 5000) + b"]"},
                      ["simulate", "n.toml", "--n", "3"], "unknown key 'a'"),
    "1e5 columns": ({"d.csv": WIDE + b"\n0" + b",1" * 10**5},
                    ["estimate", "d.csv", "--model", "m.toml"], "100000 value columns"),
    "400 digits": ({"n.toml": b"[model]\nA=[[-1]]\nQ=[[1" + b"0" * 400 + b"]]\nR=[[1]]\n"},
                   ["simulate", "n.toml", "--n", "3"], "Q must be numbers that floats can hold"),
    "5000 digits": ({"n.toml": b"[model]\nA=[[1" + b"0" * 5000 + b"]]\n"},
                    ["simulate", "n.toml", "--n", "3"], "not valid TOML"),
    "long family": ({"d.csv": b"t,x\n0,1\n"}, ["fit", "d.csv", "--family", "brownian + " * 5000],
                    "at most 2000 characters"),
    "nested family": ({"d.csv": b"t,x\n0,1\n"}, ["fit", "d.csv", "--family", "(" * 900],
                      "names joined by +"),
    "huge family": ({"d.csv": b"t,x\n0,1\n1,2\n"}, ["fit", "d.csv", "--family",
                    "seasonal(12, harmonics=1000000000) + noise"], "<= 1000"),
    "huge model": ({"h.toml": b"[model]\npreset = 'seasonal'\nperiod = 12\nharmonics = 99999999\n"},
                   ["simulate", "h.toml", "--n", "3"], "<= 1000"),
    "huge count": ({}, ["simulate", "m.toml", "--n", "1" + "0" * 30], ""),
    "name with ..": ({"d.csv": b"t,x\n0,1\n1,2\n"}, ["estimate", "d.csv", "--model", "m.toml", "-o",
                     "dir.csv/../d.csv", "--force"], "is read as input"),
    "format of a file": ({"d.csv": b"t,x\n0,1\n"}, ["estimate", "d.csv", "--model", "m.toml", "-o",
                         "e.csv", "--format", "jsonl"], "--format is for stdout"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_input_is_one_line(tmp_path: Path, case: str) -> None:
    files, arguments, message = HOSTILE[case]
    (tmp_path / "m.toml").write_text(LEVEL)
    (tmp_path / "dir.csv").mkdir()
    for name, raw in files.items():
        (tmp_path / name).write_bytes(raw)
    before = sorted(tmp_path.rglob("*"))
    done = call(tmp_path, *arguments, status=2)
    assert message in done.stderr
    assert "internal error" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_is_told_of_the_target_and_leaves_nothing(tmp_path: Path) -> None:
    def little_space() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))

    (tmp_path / "m.toml").write_text(LEVEL)
    (tmp_path / "d.csv").write_text("t,x\n" + "".join(f"{k},{k % 7}\n" for k in range(99)))
    before = sorted(tmp_path.iterdir())
    done = subprocess.run(
        [*COMMAND, "estimate", "d.csv", "--model", "m.toml", "-o", "e.csv"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        preexec_fn=little_space,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "afafilter: e.csv: File too large"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_closed_directories_are_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(LEVEL)
    (tmp_path / "shut").mkdir(mode=0o500)
    bad = call(tmp_path, "simulate", "m.toml", "--n", 3, "--x0", "0", "-o", "shut/d.csv", status=2)
    assert "cannot be written to" in bad.stderr


def test_sigterm_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(LEVEL)
    process = subprocess.Popen(
        [*COMMAND, "simulate", "m.toml", "--n", "3000000", "--x0", "0", "-o", "d.jsonl"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(600):
        if any(p.name.startswith(".d-") for p in tmp_path.iterdir()):
            break
        time.sleep(0.05)
    else:
        process.kill()
        pytest.fail("nothing was being written")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert said == "afafilter: terminated\n"
    assert [p.name for p in tmp_path.iterdir()] == ["m.toml"]


def test_version_citation_completion_and_the_old_compile(tmp_path: Path) -> None:
    assert "core: level" in call(tmp_path, "--version").stdout
    assert "2509.04154" in call(tmp_path, "--cite").stdout
    for shell, word in (("bash", "complete"), ("zsh", "compdef"), ("fish", "complete")):
        assert word in call(tmp_path, "completion", shell).stdout
    assert "nothing to compile" in call(tmp_path, "compile").stdout
    environment = os.environ | {
        "_AFAFILTER_COMPLETE": "bash_complete",
        "COMP_WORDS": "afafilter estimate d --estimator af",
        "COMP_CWORD": "4",
    }
    done = call(tmp_path, env=environment)
    assert "plain,afa-exact" in done.stdout


OWN = """
from afafilter import kalman_filter

def mine(model, t, z, *, gain=1.0, **more):
    return kalman_filter(model, t, z * gain, **more)

def broken(model, t, z):
    raise KeyError("lost")
"""


def test_an_estimator_of_ones_own_by_import_path(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    nile = [DATA / "nile.csv", "--model", DATA / "nile.toml"]
    asked = ["--estimator", "own:mine", "--set", "gain=0.5"]
    assert "--allow-import" in call(tmp_path, "estimate", *nile, *asked, status=2).stderr
    call(tmp_path, "estimate", *nile, *asked, "--allow-import", "-o", "e.csv")
    series = datasets.load_nile()
    wanted = kalman_filter(datasets.nile_model(), series.t, 0.5 * series.z)
    np.testing.assert_allclose(pd.read_csv(tmp_path / "e.csv")["x0"], wanted.mean[:, 0], rtol=1e-12)
    names = ["--hold-out", "--estimators", "kalman,own:mine"]
    done = call(tmp_path, "compare", *nile, *names, "--allow-import", "-o", "h.csv")
    assert "own:mine" in done.stdout
    said = call(
        tmp_path, "estimate", *nile, "--estimator", "own:broken", "--allow-import", status=2
    )
    assert "estimator 'own:broken' failed: KeyError: 'lost'" in said.stderr
    said = call(tmp_path, "estimate", *nile, "--estimator", "own:gone", "--allow-import", status=2)
    assert "no attribute 'gone'" in said.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give either --model or --preset"),
        (("--preset", "spirl"), "did you mean 'spiral'?"),
        (("--preset", "spiral", "-o", "a.avi"), "a.avi: the film's name must end in .gif or .mp4"),
        (("--preset", "spiral", "--components", "0,5"), "two different states of 2"),
        (("--preset", "spiral", "--components", "a,b"), "--components must be whole numbers"),
        (("--preset", "spiral", "--x0", "20"), "x0"),
        (("--preset", "spiral", "--set", "correlation=exact"), "no attention to show"),
        (
            (DATA / "nile.csv", "--model", DATA / "nile.toml", "--n", "5"),
            "--n is for simulated data",
        ),
        ((DATA / "nile.csv", "--preset", "spiral"), "the model observes 2 components"),
        (("nowhere.csv", "--preset", "spiral"), "nowhere.csv"),
    ],
)
def test_animate_refuses_in_one_line(tmp_path: Path, arguments: Any, words: str) -> None:
    done = inside(tmp_path, "animate", *arguments, status=2)
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []
