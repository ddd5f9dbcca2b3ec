"""Studies that are killed, starved of disk or run twice: nothing lost, the same numbers."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.studies.slow_study import CELLS, run_study
from tests.studies.small_study import make
from tests.studies.test_study import same

FRESH = multiprocessing.get_context("forkserver")
"""Processes that have imported what they need and share nothing with this one."""


def _study(folder, jobs, name):
    os.setsid()
    run_study(folder, jobs).to_pickle(folder / name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The frame of a run that nothing disturbs."""
    return run_study(tmp_path_factory.mktemp("whole"))


def start(folder, jobs=1, name="frame"):
    FRESH.set_forkserver_preload([__name__])
    process = FRESH.Process(target=_study, args=(folder, jobs, name))
    process.start()
    return process


def finished(folder):
    return {path: path.read_bytes() for path in (folder / "cells").glob("[!.]*.json")}


def wait_for(condition, process=None, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def members(group):
    """Living processes of a group, as /proc has them."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == group and state != "Z":
            found.add(int(stat.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_signals_to_the_parent_lose_and_repeat_nothing_and_leave_no_workers(tmp_path, whole):
    done, calls = {}, 0
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        process, before = start(tmp_path, 2), len(done)
        wait_for(lambda more=before + 2: len(finished(tmp_path)) >= more, process)
        assert len(members(process.pid)) > 2
        os.kill(process.pid, signum)
        process.join(60)
        wait_for(lambda group=process.pid: not members(group), seconds=20)
        after, calls = finished(tmp_path), len((tmp_path / "calls").read_text())
        assert before < len(after) < CELLS
        assert {path: after[path] for path in done} == done
        assert all("estimators" in json.loads(text) for text in after.values())
        done = after
    same(run_study(tmp_path), whole)
    after = finished(tmp_path)
    assert {path: after[path] for path in done} == done
    assert len(after) == CELLS
    assert len((tmp_path / "calls").read_text()) - calls == CELLS - len(done)


LATE = """
import os, time
from afafilter.studies.batch import end_with
parent = {parent}
while os.getppid() == parent:
    time.sleep(0.01)
end_with(parent)
time.sleep(100)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_worker_that_begins_after_its_parent_has_gone_ends():
    start_late = (
        "import os, subprocess, sys\n"
        f"code = {LATE!r}.format(parent=os.getpid())\n"
        "own = {'start_new_session': True, 'stdout': subprocess.DEVNULL}\n"
        "worker = subprocess.Popen([sys.executable, '-c', code], **own)\n"
        "print(worker.pid)\n"
    )
    done = subprocess.run([sys.executable, "-c", start_late], stdout=subprocess.PIPE, check=True)
    worker = int(done.stdout)
    wait_for(lambda: not members(worker), seconds=30)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_full_disk_is_told_of_the_cell_and_the_rest_is_kept(tmp_path, whole, jobs, recwarn):
    """No file may grow beyond 100 bytes: a cell fails, as on a full disk."""

    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, usual[1]))
    try:
        with pytest.raises(OSError, match="File too large: ") as told:
            run_study(tmp_path, jobs)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    message = str(told.value)
    del told
    gc.collect()
    assert not recwarn.list  # joblib's, of tasks that are given up
    assert Path(message.rpartition(": ")[2].strip("'")).parent == tmp_path / "cells"
    assert "/." not in message
    assert list((tmp_path / "cells").iterdir()) == []
    same(run_study(tmp_path), whole)


def test_two_runs_in_one_folder(tmp_path, whole):
    runs = {name: start(tmp_path, name=name) for name in ("a", "b")}
    for name, run in runs.items():
        run.join(60)
        assert run.exitcode == 0
        same(pd.read_pickle(tmp_path / name), whole)
    assert len(list((tmp_path / "cells").iterdir())) == CELLS


def test_a_changed_estimator_is_computed_anew_and_the_others_are_kept(tmp_path):
    study = make(seeds=1)
    study.run(tmp_path, progress=False)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    changed = make(seeds=1, lags=3)
    assert {c.key for c in changed.cells}.isdisjoint(c.key for c in study.cells)
    changed.run(tmp_path, progress=False)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    same(make(seeds=1).run(tmp_path, progress=False).frame, study.result(tmp_path).frame)
