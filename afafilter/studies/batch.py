"""One batch of paths, simulated once and given to every estimator: the work unit of comparisons."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, TypeAlias, cast

import numpy as np

from afafilter._base.checks import Array, positive_int, scalar
from afafilter.catalog import estimator_from_spec
from afafilter.kalman.inputs import shortened
from afafilter.results import Estimate, Trajectories
from afafilter.scoring.inputs import Steps
from afafilter.scoring.score import LEVELS, Score, score

Estimator: TypeAlias = Callable[..., Estimate]
WARM_UP_STEPS = 8
CHUNK_ENTRIES = 4_000_000
WATCH_SECONDS = 0.5


@dataclass(frozen=True, eq=False)
class Experiment:
    """What is simulated, and who estimates it."""

    estimators: Mapping[str, Estimator]
    model: Any
    estimator_model: Any
    t: Array
    x0: Any = None
    outliers: Any = None
    missing: Any = 0.0
    steps: Steps = None
    levels: Sequence[float] = LEVELS
    energy: bool = False
    lags: int | None = None
    simulator: Callable[..., Trajectories] | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one estimator on one batch."""

    score: Score | None
    seconds: float
    error: str | None = None


@dataclass(frozen=True)
class Shell:
    """Random starting points x0(rng, n): uniform directions, radius N(radius, spread^2).

    Parameters
    ----------
    radius : float
        >= 0, state units.
    spread : float
        >= 0, standard deviation of the radius.
    dim : int
        Number of state components d.
    """

    radius: float
    spread: float = 0.0
    dim: int = 2

    def __post_init__(self) -> None:
        scalar(self.radius, "x0 radius", low=0.0)
        scalar(self.spread, "x0 spread", low=0.0)
        positive_int(self.dim, "x0 dim")

    def __call__(self, rng: np.random.Generator, n: int) -> Array:
        """(n, d) starting points."""
        direction = rng.standard_normal((n, self.dim))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        radius = self.radius + self.spread * rng.standard_normal((n, 1))
        return np.asarray(radius * direction)


def end_with(parent: int) -> None:
    """End this process soon after the process `parent` that started it has gone.

    A parent that is killed cannot tell its workers, which would wait for work for minutes; it may
    have gone before this one has begun. Where a process's parent is not known to change (Windows)
    nothing is done.
    """
    if os.name != "posix" or os.getpid() == parent:
        return
    is_child = os.getppid() == parent

    def watch() -> None:
        while os.getppid() == parent if is_child else _lives(parent):
            time.sleep(WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    return True


@contextlib.contextmanager
def workers(
    n_jobs: int | None, tasks: Iterable[Any], begin: Callable[[int], None] = end_with
) -> Iterator[Iterator[Any]]:
    """What joblib's workers make of tasks, one at a time, as it comes; each ends with this process.

    What is still at work at the end of the context is given up without joblib's warning of it.
    """
    from joblib import Parallel

    own: dict[str, Any] = {"initializer": begin, "initargs": (os.getpid(),)}
    found = Parallel(n_jobs=n_jobs, return_as="generator_unordered", batch_size=1, **own)(tasks)
    try:
        yield found
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.close()


def run_batch(job: Experiment, low: int, n: int, rng: np.random.Generator) -> dict[str, Outcome]:
    """Simulate paths low .. low + n - 1 and run every estimator on them, with BLAS on one thread.

    So numbers and times do not depend on how many batches run at once.
    """
    with _libraries(len(sys.modules)).limit(limits=1, user_api="blas"):
        data = _draw(job, low, n, rng)
        data.z.flags.writeable = False
        return {name: _estimate(job, estimator, data) for name, estimator in job.estimators.items()}


@lru_cache(maxsize=1)
def _libraries(modules: int) -> Any:
    """The process's BLAS libraries; looked for again once more modules have been imported."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def join_outcomes(parts: Iterable[dict[str, Outcome]]) -> dict[str, Outcome]:
    """Outcomes of all paths; an estimator that failed on one batch has failed."""
    batches = list(parts)
    out = {}
    for name in batches[0]:
        mine = [batch[name] for batch in batches]
        seconds = float(sum(x.seconds for x in mine))
        error = next((x.error for x in mine if x.error is not None), None)
        scores = [x.score for x in mine if x.score is not None]
        out[name] = (
            Outcome(Score.join(scores), seconds) if error is None else Outcome(None, np.nan, error)
        )
    return out


def batches(
    job: Experiment,
    n_paths: int,
    rng: np.random.Generator,
    chunk_size: int | None = None,
    *,
    largest: int = 64,
) -> list[tuple[Experiment, int, int, np.random.Generator]]:
    """Arguments of `run_batch` for all paths; they depend on the problem only, never on n_jobs."""
    if chunk_size is None:
        size = int(np.clip(CHUNK_ENTRIES // (len(job.t) * job.model.dim**2), 1, largest))
    else:
        size = positive_int(chunk_size, "chunk_size")
    lows = range(0, n_paths, size)
    return [
        (job, low, min(size, n_paths - low), child)
        for low, child in zip(lows, rng.spawn(len(lows)))
    ]


def refuse_other_width(truth: Any, assumed: Any, name: str) -> None:
    """ValueError where the truth shows other components than the model that estimators assume."""
    shown, wanted = (getattr(model, "obs_dim", None) for model in (truth, assumed))
    if None not in (shown, wanted) and shown != wanted:
        raise ValueError(
            f"{name}: the assumed model must observe {shown} components, as the truth does, "
            f"got {wanted}"
        )


def checked_estimators(estimators: Any, model: Any, t: Array) -> dict[str, Estimator]:
    """Estimators by name; of a list, functions are named by the label of what they return."""
    if isinstance(estimators, Mapping):
        named = {
            str(name): _resolved(value, f"estimators[{name!r}]")
            for name, value in estimators.items()
        }
    else:
        if isinstance(estimators, str) or callable(estimators):
            estimators = [estimators]
        if not isinstance(estimators, Iterable):
            raise TypeError(
                "estimators must be a dict {name: estimator}, a list of functions or of names "
                f"such as 'kalman', got {estimators!r}; the model comes after them"
            )
        items = list(estimators)
        whole = [_resolved(value, "estimators") for value in items]
        labels = [
            item if isinstance(item, str) else _label(value, model, t)
            for item, value in zip(items, whole)
        ]
        twice = sorted({name for name in labels if labels.count(name) > 1})
        if twice:
            raise ValueError(
                f"estimators of the same name {twice}; give a dict {{name: estimator}}"
            )
        named = dict(zip(labels, whole))
    if not named:
        raise ValueError("estimators must hold at least one estimator, got none")
    return named


def _resolved(value: Any, what: str) -> Estimator:
    """A function as it is, or the one that a name of the catalogue stands for."""
    if isinstance(value, str):
        if ":" in value:
            raise ValueError(
                f"{what}: {value!r} is an import path; import it and give the function"
            )
        return estimator_from_spec(value, what=what)
    if not callable(value):
        raise TypeError(
            f"{what} must be a function f(model, t, z) or a name such as 'kalman', got {value!r}"
        )
    return cast(Estimator, value)


def rehearse(job: Experiment, n_paths: int) -> None:
    """Begin to draw the paths of a job: raises what every batch of it would end in.

    A simulator of the user's own is not asked.
    """
    from afafilter.simulation.contamination import Gaps, missing_probability

    if job.simulator is not None:
        return
    if not isinstance(job.missing, Gaps):
        missing_probability(job.missing, len(job.t), job.model.obs_dim)
    begun, length = job, getattr(job.model, "length", None)
    if length in (None, len(job.t)):  # another one is refused as a whole
        first = job.model if length is None else shortened(job.model, 1)
        begun = replace(job, model=first, t=job.t[:1], missing=0.0)
    _draw(begun, 0, n_paths, np.random.default_rng(0))


def _draw(job: Experiment, low: int, n: int, rng: np.random.Generator) -> Trajectories:
    simulator = job.simulator
    if simulator is None:
        from afafilter.simulation.simulate import simulate

        simulator = simulate
    start, noise = rng.spawn(2)
    x0 = job.x0
    if callable(x0):
        x0 = x0(start, n)
    elif x0 is not None and not isinstance(x0, str) and np.ndim(x0) == 2:
        x0 = np.asarray(x0)[low : low + n]
    return simulator(
        job.model, job.t, n, rng=noise, x0=x0, outliers=job.outliers, missing=job.missing
    )


def _estimate(job: Experiment, estimator: Estimator, data: Trajectories) -> Outcome:
    few = min(WARM_UP_STEPS, len(job.t))
    with contextlib.suppress(Exception):  # a short piece may fail where the whole does not
        estimator(job.estimator_model, job.t[:few], data.z[:2, :few])
    try:
        began = time.perf_counter()
        estimate = estimator(job.estimator_model, job.t, data.z)
        seconds = time.perf_counter() - began
        if not isinstance(estimate, Estimate):
            raise TypeError(f"an estimator must return an Estimate, got {type(estimate).__name__}")
        result = score(
            estimate, data, steps=job.steps, levels=job.levels, energy=job.energy, lags=job.lags
        )
    except Exception as error:
        return Outcome(None, np.nan, f"{type(error).__name__}: {error}")
    return Outcome(result, seconds)


def _label(estimator: Estimator, model: Any, t: Array) -> str:
    few = t[: min(2, len(t))]
    with contextlib.suppress(Exception):  # recorded when the estimator runs in earnest
        label = estimator(model, few, np.zeros((1, len(few), model.obs_dim))).label
        if label:
            return str(label)
    inner = estimator
    while isinstance(inner, partial):
        inner = inner.func
    return str(getattr(inner, "__name__", type(inner).__name__))
