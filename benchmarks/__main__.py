"""`python -m benchmarks [TASK ...] [--seconds S] [--rounds N] [--only TEXT] [--report]`."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.contest import ROUNDS, run_case
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
    parser.add_argument("--report", action="store_true", help="only write the report")
    options = parser.parse_args()
    unknown = [name for name in options.tasks if name not in TASKS]
    if unknown:
        parser.error(f"unknown task {unknown[0]!r}; there are {', '.join(TASKS)}")
    chosen = [] if options.report else options.tasks or list(TASKS)
    report.RAW.mkdir(exist_ok=True)
    for name in chosen:
        task = TASKS[name]
        path = report.RAW / f"{name}.json"
        kept = {}
        if options.only and path.exists():
            kept = {x["case"]: x for x in json.loads(path.read_text())["cases"]}
        here = machine()
        say(f"{name}: {task.title}")
        for case in task.cases:
            if options.only in case.name:
                kept[case.name] = run_case(task, case, options.seconds, say, options.rounds)
                ordered = [kept[case.name] for case in task.cases if case.name in kept]
                path.write_text(json.dumps({"machine": here, "cases": ordered}, indent=1))
    report.write()


if __name__ == "__main__":
    main()
