"""Threads that share the blocks of attention."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from afafilter.attention.tiles import Workspace

SERIAL_PAIRS = 2_000_000
"""Below this many pairs, starting threads costs more than it gains."""


@cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def run(tasks: Sequence[tuple[int, Any]], threads: int) -> None:
    """Do tasks (pairs to visit, function of a Workspace), the long ones first, over threads."""
    queue = deque(sorted(tasks, key=lambda task: -task[0]))
    threads = min(threads, len(queue)) if sum(cost for cost, _ in tasks) > SERIAL_PAIRS else 1

    def work() -> None:
        space = Workspace()
        with np.errstate(all="ignore"):
            while queue:
                try:
                    _, task = queue.popleft()
                except IndexError:
                    return
                task(space)

    if threads <= 1:
        work()
        return
    with _blas().limit(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work) for _ in range(threads)]:
            done.result()
