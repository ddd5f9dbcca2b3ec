"""What more threads would give one long series: `python -m benchmarks.threads`.

A series that does not settle is cut into segments (`afafilter.kalman.segments`), each a turn of a
thread, and so are discretisation and means. Here every turn runs by itself, its processor time is
taken, and the turns are given to n threads, each to the one that is free first; what is no turn of
a thread is done by one. The result is a lower bound of the time on n cores, which knows nothing of
their sharing memory. Written into benchmarks/run, and by the report into RESULTS.md.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.report import RAW, THREADS

COUNTS = (1, 2, 4, 8, 16, 32, 64)


def scheduled(turns: Sequence[Sequence[float]], alone: float, threads: int) -> float:
    """Seconds on so many threads: groups of turns one after the other, `alone` by one thread."""
    total = alone
    for group in turns:
        busy = [0.0] * threads
        for turn in group:
            heapq.heappush(busy, heapq.heappop(busy) + turn)
        total += max(busy)
    return total


def measured(call: Callable[[], Any]) -> tuple[list[list[float]], float]:
    """Processor times of every group of turns in a call, and of what is none."""
    from afafilter._base import threads

    groups: list[list[float]] = []

    def spread(task: Callable[[Any], None], items: Sequence[Any], work: int) -> None:
        if len(items) == 1:  # holds groups of its own
            task(items[0])
            return
        own = []
        for item in items:
            began = time.thread_time()
            task(item)
            own.append(time.thread_time() - began)
        groups.append(own)

    original = threads.spread
    holders = [m for m in list(sys.modules.values()) if getattr(m, "spread", None) is original]
    try:
        for module in holders:
            module.spread = spread  # type: ignore[attr-defined]
        began = time.thread_time()
        call()
        whole = time.thread_time() - began
    finally:
        for module in holders:
            module.spread = original  # type: ignore[attr-defined]
    return groups, whole - sum(map(sum, groups))


def simulated(N: int, rounds: int) -> list[dict[str, Any]]:
    """Rows of the table: threads, seconds and speed-up of filter and smoother, least of rounds."""
    from afafilter import kalman_filter, rts_smoother
    from benchmarks.tasks.kalman_peers import sde
    from benchmarks.tasks.smoothing import inputs

    params = {"d": 4, "T": N, "seed": 4, "irregular": True}
    data = inputs(params)
    model = sde(data)
    found: dict[str, list[float]] = {}
    for name, estimator in (("filter", kalman_filter), ("smoother", rts_smoother)):
        estimator(model, data["t"], data["z"])  # memory that is fresh costs more
        call = partial(estimator, model, data["t"], data["z"])
        runs = [measured(call) for _ in range(rounds)]
        found[name] = [min(scheduled(*run, n) for run in runs) for n in COUNTS]
    return [
        {"threads": n, **{name: [own[k], own[0] / own[k]] for name, own in found.items()}}
        for k, n in enumerate(COUNTS)
    ]


def main() -> None:
    """Run, keep, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threads", description=__doc__)
    parser.add_argument("--size", type=int, default=1_000_000, help="observations")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    from afafilter.kalman.segments import WARM_UPS, pieces

    table = simulated(options.size, options.rounds)
    RAW.mkdir(exist_ok=True)
    warm_up = WARM_UPS[1]  # what this model needs
    most = len(pieces(0, options.size, warm_up)[0].row)
    kept = {"size": options.size, "most": most, "warm_up": warm_up, "table": table}
    (RAW / THREADS).write_text(json.dumps(kept, indent=1))
    for row in table:
        print(row["threads"], *(np.round(row[name], 3) for name in ("filter", "smoother")))


if __name__ == "__main__":
    main()
