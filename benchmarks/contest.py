"""What a task is, and how its libraries are run against each other."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afafilter import __version__

Array = NDArray[Any]
Arrays = dict[str, Array]
Run = Callable[[], Arrays]
OURS = "afafilter"
BEFORE = ", before"
"""Ends the name of a library of ours that an earlier commit provides."""
ROUNDING = 1e-10
"""What an earlier commit may differ by where libraries must agree exactly."""
LACKS = ("AttributeError", "ImportError", "ModuleNotFoundError", "TypeError")
"""What calls end with that a commit does not have."""
ROUNDS = 5
"""Fewest rounds; every round holds at least one timed run of each library."""
SLOW = 2.0
"""Seconds: what takes longer is timed in one round, this version of ours in two."""


def estimates(call: Callable[[], Any]) -> Run:
    """The timed call of an estimator: its means and covariances."""

    def run() -> Arrays:
        found = call()
        return {"mean": found.mean, "cov": found.cov}

    return run


@dataclass(frozen=True)
class Library:
    """A way to do the task.

    make(inputs, params) prepares everything that is not timed and returns the timed call, which
    returns its results by name. module: what must be importable (None: ours). tolerance: largest
    difference from the reference, relative to the reference's largest entry; None: the results
    are not comparable (another algorithm, or random), and `note` says what is done instead.
    """

    name: str
    make: Callable[[Arrays, Mapping[str, Any]], Run]
    module: str | None = None
    tolerance: float | None = None
    note: str = ""

    @property
    def version(self) -> str | None:
        """Version of the peer's distribution; None if it is not installed."""
        if self.module is None:
            return __version__
        if importlib.util.find_spec(self.module) is None:
            return None
        return metadata.version(self.module.replace("_", "-"))


@dataclass(frozen=True)
class Before:
    """A checkout of an earlier commit, and the interpreter that has what it needs."""

    path: Path
    python: str
    commit: str


@dataclass(frozen=True)
class Case:
    """One setting: `size` is what the figure has on its axis, `params` must be JSON.

    rounds: fewest; 0 where a call takes minutes, and the first is the one that is timed.
    """

    name: str
    size: int
    params: Mapping[str, Any]
    libraries: tuple[str, ...]
    threads: int = 1
    rounds: int = ROUNDS
    memory: bool = True


@dataclass(frozen=True)
class Task:
    """Libraries, settings, and the data they all get.

    expected(inputs, params) is what the results must be; left out, the first library that runs is
    the reference. reduce(result, inputs, params) is what of a result is compared; left out, all.
    tiny: params that make a case small enough for a test.
    """

    name: str
    title: str
    about: str
    libraries: tuple[Library, ...]
    cases: tuple[Case, ...]
    inputs: Callable[[Mapping[str, Any]], Arrays]
    tiny: Mapping[str, Any] = field(default_factory=dict)
    expected: Callable[[Arrays, Mapping[str, Any]], Arrays] | None = None
    reduce: Callable[[Arrays, Arrays, Mapping[str, Any]], Arrays] | None = None

    def library(self, name: str) -> Library:
        """The library of that name."""
        return next(x for x in self.libraries if x.name == name)


@dataclass
class Outcome:
    """What one library did in one case; times in seconds, memory in bytes.

    status: "ok", "absent" (not installed), "failed" or "differs" (results beyond the tolerance;
    not timed). cpu: processor time of all threads, which a busy machine does not lengthen. memory:
    peak resident memory of a warm call beyond the inputs and the result.
    """

    library: str
    version: str | None
    status: str = "ok"
    note: str = ""
    error: float | None = None
    tolerance: float | None = None
    first: float | None = None
    times: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: int | None = None


class Worker:
    """A library's process: load, first call, timed calls, memory.

    With `before` it is that of the earlier commit: `home` gets these benchmarks, without the
    package that lies beside them.
    """

    def __init__(self, task: str, library: str, threads: int, home: Path, before: Before | None):
        env = {**os.environ, "PYTHONUNBUFFERED": "1"}
        for name in ("OPENBLAS", "OMP", "MKL", "AFAFILTER"):
            env[f"{name}_NUM_THREADS"] = str(threads)
        tree, python = Path(__file__).parent.parent, sys.executable
        if before is not None:
            env["PYTHONPATH"] = str(before.path.resolve())
            tree, python = home, before.python
            if not (home / __package__).exists():
                (home / __package__).symlink_to(Path(__file__).parent)
        self.process = subprocess.Popen(
            [python, "-m", "benchmarks.worker", task, library, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=env,
            cwd=tree,
        )

    def ask(self, what: str, **options: Any) -> dict[str, Any]:
        """Send one request and wait for the answer; RuntimeError if the process failed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"do": what, **options}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.process.wait()
            raise RuntimeError(f"the process ended with status {self.process.returncode}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def difference(got: Mapping[str, Array], wanted: Mapping[str, Array]) -> float:
    """Largest difference of the shared arrays, relative to the largest entry of each."""
    errors = [0.0]
    for name in sorted(set(got) & set(wanted)):
        a, b = np.asarray(got[name]), np.asarray(wanted[name])
        if a.shape != b.shape:
            raise ValueError(f"{name} has shape {a.shape}, the reference {b.shape}")
        scale = float(np.abs(b).max())
        errors.append(float(np.abs(a - b).max()) / (scale if scale > 0 else 1.0))
    return float(np.max(errors))


def entrants(task: Task, case: Case, before: Before | None) -> Iterator[tuple[Library, Outcome]]:
    """The libraries of a case, each of ours followed by what it was before."""
    for library in map(task.library, case.libraries):
        note, tolerance = library.note, library.tolerance
        yield library, Outcome(library.name, library.version, note=note, tolerance=tolerance)
        if library.module is None and before is not None:
            if tolerance is not None:
                tolerance = max(tolerance, ROUNDING)
            name = library.name + BEFORE
            yield library, Outcome(name, before.commit, note=note, tolerance=tolerance)


def run_case(
    task: Task,
    case: Case,
    seconds: float,
    say: Callable[[str], None],
    rounds: int = ROUNDS,
    before: Before | None = None,
) -> dict[str, Any]:
    """All libraries on one case: agreement, then timed rounds in turn, then memory."""
    outcomes: dict[str, Outcome] = {}
    ours: set[str] = set()
    workers: dict[str, Worker] = {}
    reference: Arrays | None = None
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "inputs.npz")
        inputs = task.inputs(case.params)
        np.savez(data, **inputs)  # type: ignore[arg-type]
        if task.expected is not None:
            reference = task.expected(inputs, case.params)
        for library, out in entrants(task, case, before):
            name = out.library
            outcomes[name] = out
            ours |= {name} if library.module is None and name == library.name else set()
            if out.version is None:
                out.status = "absent"
                continue
            earlier = before if name != library.name else None
            worker = Worker(task.name, library.name, case.threads, Path(folder), earlier)
            saved = Path(folder, f"{len(workers)}.npz")
            try:
                worker.ask("load", inputs=str(data), params=dict(case.params))
                answer = worker.ask("first", save=str(saved))
                out.first = answer["seconds"]
                got = dict(np.load(saved))
                if task.reduce is not None:
                    got = task.reduce(got, inputs, case.params)
                if out.tolerance is not None:
                    reference = got if reference is None else reference
                    out.error = difference(got, reference)
                    if not out.error <= out.tolerance:
                        out.status = "differs"
            except (RuntimeError, ValueError) as failure:
                lacks = earlier is not None and str(failure).startswith(LACKS)
                out.status = "absent" if lacks else "failed"
                out.note = re.sub(r" \(/[^()]*\)$", "", str(failure))  # where its checkout lies
            saved.unlink(missing_ok=True)
            if out.status == "ok":
                workers[name] = worker
                if not case.rounds:
                    out.times, out.cpu = [answer["seconds"]], [answer["cpu"]]
            else:
                worker.close()
            say(f"  {case.name}: {name}: {out.status}, first {out.first}, error {out.error}")
        if case.rounds:
            _time(workers, outcomes, ours, seconds, min(case.rounds, rounds))
        for name, worker in workers.items():
            out = outcomes[name]
            slow = name.endswith(BEFORE) and min(out.times, default=0.0) > SLOW
            if case.memory and out.status == "ok" and not slow:
                out.memory = worker.ask("memory")["bytes"]
            worker.close()
    for name, out in outcomes.items():
        if out.times:
            say(f"  {case.name}: {name}: median {1e3 * float(np.median(out.times)):.3g} ms")
    return {
        "case": case.name,
        "size": case.size,
        "threads": case.threads,
        "params": dict(case.params),
        "outcomes": [asdict(out) for out in outcomes.values()],
    }


def _time(
    workers: Mapping[str, Worker],
    outcomes: Mapping[str, Outcome],
    ours: Collection[str],
    seconds: float,
    least: int,
) -> None:
    """Rounds over the libraries until `seconds` each are used, from `least` to four times that."""
    share = seconds / least
    spent, rounds = 0.0, 0
    while rounds < least or (spent < seconds * len(workers) and rounds < 4 * least):
        start = time.perf_counter()
        for name, worker in workers.items():
            out = outcomes[name]
            enough = 2 if name in ours else 1
            if out.status != "ok" or (rounds >= enough and min(out.times) > SLOW):
                continue
            try:
                answer = worker.ask("time", seconds=min(share, 0.2))
            except RuntimeError as failure:
                out.status, out.note, out.times, out.cpu = "failed", str(failure), [], []
                continue
            out.times += answer["times"]
            out.cpu += answer["cpu"]
        spent += time.perf_counter() - start
        rounds += 1
        if not workers:
            break
