"""`python -m benchmarks [TASK ...] [--before CHECKOUT] ...`; `--help` tells of all options."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from afafilter.io.files import write_text
from benchmarks import report
from benchmarks.contest import ROUNDS, Before, run_case
from benchmarks.tasks import TASKS


def machine() -> dict[str, Any]:
    """What a reader needs to know of the machine."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # type: ignore[index]
    return {
        "cpu": named[0] if named else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": f"{blas['name']} {blas['version']}",
        "load": os.getloadavg()[0],
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    }


def commit(checkout: Path) -> str:
    """The commit that is checked out there."""
    git = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Run tasks, keep the raw results, write the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--seconds", type=float, default=2.0, help="per library and case")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="fewest per case; 1 is a trial")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--before", type=Path, help="checkout of an earlier commit, run beside")
    parser.add_argument("--before-python", default=sys.executable, help="its interpreter")
    parser.add_argument("--resume", action="store_true", help="leave out cases that have results")
    parser.add_argument("--report", action="store_true", help="only write the report")
    options = parser.parse_args()
    unknown = [name for name in options.tasks if name not in TASKS]
    if unknown:
        parser.error(f"unknown task {unknown[0]!r}; there are {', '.join(TASKS)}")
    chosen = [] if options.report else options.tasks or list(TASKS)
    before = None
    if options.before:
        before = Before(options.before, options.before_python, commit(options.before))
    report.RAW.mkdir(exist_ok=True)
    for name in chosen:
        task = TASKS[name]
        path = report.RAW / f"{name}.json"
        kept = {}
        if path.exists():
            kept = {x["case"]: x for x in json.loads(path.read_text())["cases"]}
        here = machine()
        say(f"{name}: {task.title}")
        for case in task.cases:
            if options.only not in case.name or (options.resume and case.name in kept):
                continue
            kept[case.name] = run_case(task, case, options.seconds, say, options.rounds, before)
            ordered = [kept[case.name] for case in task.cases if case.name in kept]
            write_text(path, json.dumps({"machine": here, "cases": ordered}, indent=1))
    report.write()


if __name__ == "__main__":
    main()
