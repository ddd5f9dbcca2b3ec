"""Work spread over threads: compiled kernels and NumPy leave the interpreter free meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

SERIAL_WORK = 20_000
"""Path-steps below which threads do not pay."""
ROWS = 4096
"""Rows of small matrices that are worth a thread's turn."""


def available_threads() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_count() -> int:
    """Threads to use: the cores that this process may run on, or AFAFILTER_NUM_THREADS if fewer."""
    limit = os.environ.get("AFAFILTER_NUM_THREADS", "")
    return max(1, min(available_threads(), int(limit) if limit.isdigit() else 64))


def rows(n: int) -> list[slice]:
    """Rows 0, ..., n - 1, a thread's turn at a time."""
    return [slice(begin, min(begin + ROWS, n)) for begin in range(0, n, ROWS)]


def spread(task: Callable[[Any], None], items: Sequence[Any], work: int) -> None:
    """Run task(item) for all items, in threads when there is enough work."""
    if len(items) == 1 or work < SERIAL_WORK or thread_count() == 1:
        for item in items:
            task(item)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(thread_count()) as pool:
        list(pool.map(task, items, chunksize=-(-len(items) // (4 * thread_count()))))
