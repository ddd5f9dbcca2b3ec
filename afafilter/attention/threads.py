"""Threads that share the blocks of attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any, NamedTuple

SERIAL_WORK = 6_000_000
"""Multiplications below which starting threads costs more than it gains."""


class Task(NamedTuple):
    """A piece of work: roughly how many multiplications, what to do, whether NumPy's BLAS helps."""

    work: int
    do: Callable[[], None]
    uses_blas: bool = False


@cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def run(tasks: Sequence[Task], threads: int) -> None:
    """Do all tasks, the long ones first; the first exception is raised, the rest left undone."""
    if threads == 1 or len(tasks) == 1 or sum(task.work for task in tasks) <= SERIAL_WORK:
        for task in tasks:
            task.do()
        return
    from concurrent.futures import ThreadPoolExecutor

    alone = any(task.uses_blas for task in tasks)  # threads of ours and of BLAS would compete
    with (
        _blas().limit(limits=1, user_api="blas") if alone else nullcontext(),
        ThreadPoolExecutor(threads) as pool,
    ):
        list(pool.map(lambda task: task.do(), sorted(tasks, key=lambda task: -task.work)))
