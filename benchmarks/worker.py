"""The process of one library: `python -m benchmarks.worker TASK LIBRARY THREADS`.

Requests and answers are lines of JSON on stdin and stdout; what libraries print goes to stderr.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

WARM_BELOW = 2.0
"""Runs shorter than this (seconds) get an untimed one before: other processes cooled the cache, and
a virtual machine's host took back the memory that was free meanwhile, which costs up to ten times a
page fault of its own to have again (200 MB: .3 s instead of .03)."""
BLOCK = 2e-3
"""Shorter runs are timed in blocks that take so many seconds: the system, which tells processor
times, takes microseconds for that and leaves the caches cold."""


def limit_threads(threads: int) -> None:
    """Bind this process to so many cores (before anything is imported that counts them)."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[-threads:])


def peak_of(call: Any) -> int:
    """Peak resident memory of a call beyond what was there before and beyond its result."""
    from numpy import asarray

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    status = Path("/proc/self/status")
    if not status.exists():
        return -1
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident(status, "VmRSS")
    result = call()
    peak = _resident(status, "VmHWM")
    held: dict[int, int] = {}
    for value in result.values():
        array = asarray(value)
        while getattr(array, "base", None) is not None and hasattr(array.base, "nbytes"):
            array = array.base
        held[id(array)] = array.nbytes
    return peak - before - sum(held.values())


def _resident(status: Path, field: str) -> int:
    line = next(x for x in status.read_text().splitlines() if x.startswith(field + ":"))
    return 1024 * int(line.split()[1])


def timed_runs(call: Any, seconds: float) -> tuple[list[float], list[float]]:
    """Wall times, and processor times of all threads, of runs that fill `seconds`, at least one.

    Means over blocks of at least BLOCK seconds, all of as many runs.
    """
    walls: list[float] = []
    cpus: list[float] = []
    begin, runs, warm = time.perf_counter(), 1, False
    while not walls or time.perf_counter() - begin < seconds:
        cpu, start = _processor_time(), time.perf_counter()
        for _ in range(runs):
            call()
        wall, cpu = time.perf_counter() - start, _processor_time() - cpu
        if wall < BLOCK:  # whatever held up those before
            runs *= 2
            walls, cpus = [], []
        elif warm or wall >= WARM_BELOW:
            walls.append(wall / runs)
            cpus.append(cpu / runs)
        else:
            warm = True
    return walls, cpus


def _processor_time() -> float:
    """Of this process and the children that it has waited for (those to 10 ms)."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def serve(task_name: str, library_name: str, answers: TextIO) -> None:
    """Answer requests until stdin ends."""
    import numpy as np

    from benchmarks.tasks import TASKS

    library = TASKS[task_name].library(library_name)
    call: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            if request["do"] == "load":
                with np.load(request["inputs"]) as data:
                    call = library.make(dict(data), request["params"])
            elif request["do"] == "first":
                cpu, start = _processor_time(), time.perf_counter()
                result = call()
                answer["seconds"] = time.perf_counter() - start
                answer["cpu"] = _processor_time() - cpu
                np.savez(request["save"], **{k: np.asarray(v) for k, v in result.items()})
                del result
            elif request["do"] == "time":
                answer["times"], answer["cpu"] = timed_runs(call, request["seconds"])
            elif request["do"] == "memory":
                answer["bytes"] = peak_of(call)
        except Exception as failure:
            traceback.print_exc()
            answer = {"error": f"{type(failure).__name__}: {failure}".splitlines()[0]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Take the protocol's stdout away from the libraries, then serve."""
    task, library, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    limit_threads(threads)
    flags = "--xla_cpu_multi_thread_eigen=" + ("false" if threads == 1 else "true")
    os.environ["XLA_FLAGS"] = flags
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_ENABLE_X64"] = "1"
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(task, library, answers)


if __name__ == "__main__":
    main()
