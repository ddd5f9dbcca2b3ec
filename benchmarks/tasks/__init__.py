"""The tasks, by name."""

from __future__ import annotations

from benchmarks.contest import Task
from benchmarks.tasks import (
    attention,
    fitting,
    linear_time,
    simulation,
    small_calls,
    smoothing,
    startup,
    streaming,
    studies,
    tracks,
)

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        smoothing.ONE,
        smoothing.MANY,
        streaming.TASK,
        small_calls.TASK,
        simulation.TASK,
        attention.TASK,
        linear_time.TASK,
        tracks.TASK,
        fitting.TASK,
        startup.TASK,
        studies.TASK,
    )
}
