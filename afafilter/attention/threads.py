"""Threads that share the blocks of attention."""

from __future__ import annotations

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
    """Do all tasks, the long ones first; the first exception is raised, the rest left undone."""
    todo = sorted(tasks, key=lambda task: -task.work)
    errors: list[BaseException] = []
    queue = iter(todo)

    def work() -> None:
        try:
            for task in queue:
                task.do()
        except BaseException as error:
            todo.clear()
            errors.append(error)

    if sum(task.work for task in tasks) <= SERIAL_WORK:
        threads = 1
    others = [Thread(target=work) for _ in range(min(threads, len(todo)) - 1)]
    alone = others and any(task.uses_blas for task in tasks)  # BLAS would compete with them
    with _blas().limit(limits=1, user_api="blas") if alone else nullcontext():
        for thread in others:
            thread.start()
        work()
        for thread in others:
            thread.join()
    if errors:
        raise errors[0]
