"""Threads that share the blocks of attention."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache
from threading import Thread
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
    """Do all tasks, the long ones first; the first exception of any thread is raised."""
    if len(tasks) == 1:
        return tasks[0].do()
    queue = deque(sorted(tasks, key=lambda task: -task.work))
    threads = min(threads, len(queue)) if sum(task.work for task in tasks) > SERIAL_WORK else 1
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while queue:
                try:
                    task = queue.popleft()
                except IndexError:
                    return
                task.do()
        except BaseException as error:
            queue.clear()
            errors.append(error)

    if threads <= 1:
        work()
    else:
        alone = any(task.uses_blas for task in tasks)  # threads of ours and of BLAS would compete
        with _blas().limit(limits=1, user_api="blas") if alone else nullcontext():
            others = [Thread(target=work, daemon=True) for _ in range(threads - 1)]
            for thread in others:
                thread.start()
            work()
            for thread in others:
                thread.join()
    if errors:
        raise errors[0]
