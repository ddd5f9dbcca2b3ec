"""Every benchmark task runs at a tiny size, and every library that is installed agrees."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from importlib import metadata
from time import sleep

import numpy as np
import pytest

from afafilter import __version__
from benchmarks import report, targets
from benchmarks.contest import Before, Library, difference, run_case
from benchmarks.tasks import TASKS
from benchmarks.threads import measured, scheduled, simulated
from benchmarks.worker import BLOCK, peak_of, timed_runs

PAIRS = [
    pytest.param(task, case, library, id=f"{task.name}-{case.name}-{library}")
    for task in TASKS.values()
    for case in task.cases[:1] + task.cases[1:][-1:]
    for library in case.libraries
    if task.name != "startup"
]


@pytest.mark.parametrize(("task", "case", "library"), PAIRS)
def test_a_library_does_its_task(task, case, library):
    """Against what the task expects, or against ours where the reference is a peer."""
    entry = task.library(library)
    if entry.module is not None and importlib.util.find_spec(entry.module) is None:
        pytest.skip(f"{entry.module} is not installed")
    params = {**case.params, **task.tiny}
    inputs = task.inputs(params)

    def result(name):
        found = {k: np.asarray(v) for k, v in task.library(name).make(inputs, params)().items()}
        return found if task.reduce is None else task.reduce(found, inputs, params)

    found = result(library)
    assert found
    if entry.tolerance is None:
        return
    wanted = task.expected(inputs, params) if task.expected is not None else None
    if wanted is None:
        ours = next(x for x in task.libraries if x.module is None)
        wanted = result(ours.name)
    assert difference(found, wanted) <= entry.tolerance


def test_a_checkout_that_is_not_installed_knows_its_version(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert Library("ours", lambda arrays, options: None).version == __version__


def test_difference_is_relative_to_the_largest_entry():
    """And shapes must match."""
    wanted = {"a": np.array([0.0, -4.0]), "b": np.zeros(2)}
    assert difference({"a": np.array([1.0, -4.0])}, wanted) == 0.25
    assert difference({"b": np.array([0.0, 3.0])}, wanted) == 3.0
    with pytest.raises(ValueError, match="shape"):
        difference({"a": np.zeros(3)}, wanted)
    assert np.isnan(difference({"a": np.array([np.nan, 0.0])}, wanted))


def test_peak_memory_leaves_out_the_result():
    """40 MiB of temporary memory beside a result of 8 MiB."""

    def call():
        scratch = np.ones(5 << 20)
        return {"result": scratch[: 1 << 20].copy()}

    assert 38 <= peak_of(call) / 2**20 <= 44


def test_runs_fill_their_time():
    """One run at least; wall and processor times in pairs, of short runs means over blocks."""
    calls: list[int] = []
    for seconds in (0.0, 0.02):
        walls, cpus = timed_runs(lambda: calls.append(0), seconds)
        assert len(walls) == len(cpus) >= 1
        assert len(calls) > 100 * len(walls)
    walls, _ = timed_runs(lambda: sleep(1.5 * BLOCK), 4 * BLOCK)
    assert min(walls) >= 1.5 * BLOCK
    calls.clear()
    walls, _ = timed_runs(lambda: calls.append(0) or (len(calls) < 3 and sleep(BLOCK)), 0.02)
    assert len(calls) > 100 * len(walls)  # though the first ones were held up


EARLIER = """
from types import SimpleNamespace
import numpy as np
__version__ = "0.0"
LinearSDE, adaptive_filter = dict, None

def kalman_filter(model, t, z):
    return SimpleNamespace(mean=np.zeros((len(t), 2)), cov=np.ones((len(t), 2, 2)))
"""


@pytest.mark.parametrize(
    ("case", "status", "note"),
    [("kalman_filter", "differs", ""), ("adaptive_filter", "absent", "TypeError: 'NoneType'")],
)
@pytest.mark.parametrize("rounds", [0, 1])  # 0: the first call is the one that is timed
def test_an_earlier_commit_is_run_beside_this_one(tmp_path, case, status, note, rounds):
    """Its package, in its process, with these benchmarks; what it lacks is told apart."""
    (tmp_path / "afafilter").mkdir()
    (tmp_path / "afafilter" / "__init__.py").write_text(EARLIER)
    (tmp_path / "benchmarks.py").write_text("raise SystemExit('not these')")
    task = TASKS["small_calls"]
    setting = next(x for x in task.cases if x.name == case)
    params = {**setting.params, **task.tiny}
    tiny = replace(setting, params=params, libraries=("afafilter",), rounds=rounds)
    earlier = Before(tmp_path, sys.executable, "abc")
    now, old = run_case(task, tiny, 0.0, lambda line: None, 1, earlier)["outcomes"]
    assert (now["library"], now["status"], len(now["times"])) == ("afafilter", "ok", 1)
    assert (old["library"], old["version"]) == ("afafilter, before", "abc")
    assert (old["status"], old["times"]) == (status, [])
    assert old["note"].startswith(note)


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """Raw results of one case, in which ours takes a quarter of the peer's time."""

    def outcome(library, seconds, **facts):
        base = {
            "library": library, "version": "1", "status": "ok", "note": "", "error": 0.0,
            "tolerance": 1e-8, "first": 1.0, "times": [seconds] * 5, "cpu": [seconds] * 5,
            "memory": 2**20,
        }  # fmt: skip
        return {**base, **facts}

    case = TASKS["smoothing"].cases[0]
    entry = {
        "case": case.name,
        "size": case.size,
        "threads": 1,
        "params": {},
        "outcomes": [
            outcome("statsmodels", 0.4),
            outcome("afafilter", 0.1),
            outcome("afafilter, before", 0.08, version="abc"),
            outcome("dynamax", 0.0, version=None, status="absent", times=[], cpu=[], memory=None),
        ],
    }
    machine = {
        "cpu": "some",
        "cores": 2,
        "python": "3",
        "numpy": "2",
        "blas": "b",
        "load": 0.0,
        "date": "today",
    }
    for name, value in (
        ("RAW", tmp_path),
        ("FIGURE", tmp_path / "f.png"),
        ("PAGE", tmp_path / "p.md"),
    ):
        monkeypatch.setattr(report, name, value)
    (tmp_path / "smoothing.json").write_text(json.dumps({"machine": machine, "cases": [entry]}))
    return {"smoothing": {case.name: entry}}


def test_report_is_written(raw):
    """Table, verdicts and figure; what is absent is said to be."""
    report.write()
    page = report.PAGE.read_text()
    assert report.FIGURE.stat().st_size > 1000
    assert "| statsmodels | 1 | 1e+03 | 400 | 400 | 400 | 4 |" in page
    assert "Not installed, so without a row: dynamax." in page
    assert "| statsmodels | >= 3x faster | 4 | yes |" in page
    assert "| smoothing | regular d=2 N=1000 | afafilter | 80 | 100 | **0.8** |" in page


def test_targets_are_judged_by_medians(raw):
    """Faster, time ratio, seconds, seconds beyond, memory."""
    case = next(iter(raw["smoothing"]))
    base = targets.Target("", "smoothing", case, ">= 4", peer="statsmodels")
    values = {"faster": 4.0, "time ratio": 0.25, "seconds": 0.1, "ms": 100.0, "MiB": 1.0}
    values["seconds beyond"] = -0.3
    for measure, value in values.items():
        assert replace(base, measure=measure).value(raw) == pytest.approx(value)
    assert base.met(4.0)
    assert not base.met(3.9)
    assert replace(base, wanted="<= 4").met(3.9)
    assert replace(base, peer="dynamax").value(raw) is None


def test_targets_name_cases_that_exist():
    """A renamed case or library would silently never be judged."""
    for target in targets.TARGETS:
        task = TASKS[target.task]
        case = next(x for x in task.cases if x.name == target.case)
        assert target.ours in case.libraries
        assert not target.peer or target.peer in case.libraries


def test_turns_go_to_the_thread_that_is_free_first():
    turns = [[4.0, 3.0, 2.0, 1.0], [1.0, 1.0, 1.0]]
    assert scheduled(turns, 0.5, 1) == 13.5
    assert scheduled(turns, 0.5, 2) == 0.5 + 5.0 + 2.0
    assert scheduled(turns, 0.5, 8) == 0.5 + 4.0 + 1.0


def test_turns_of_a_long_series_are_found(monkeypatch):
    """A series above two shortest segments: turns of filter and means, and little beside them."""
    from afafilter.kalman import segments

    monkeypatch.setattr(segments, "SEGMENT", 2000)
    rows = simulated(10_000, 1)
    assert [row["threads"] for row in rows] == [1, 2, 4, 8, 16, 32, 64]
    for name in ("filter", "smoother"):
        seconds = [row[name][0] for row in rows]
        assert sorted(seconds, reverse=True) == seconds
        assert seconds[1] < 0.9 * seconds[0]
    groups, _ = measured(lambda: None)
    assert groups == []
