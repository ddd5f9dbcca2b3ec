"""Running cells of a study, several workers side by side.

Handing a task to a worker costs milliseconds, on a cluster more than on one machine; a cell may
take as little. Cells therefore go in portions that keep a worker busy for about `TURN`, as far as
the cells finished so far tell, and towards the end in smaller ones, so that all workers end
together; one at a time where a cell takes longer. No number depends on it.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any, TypeAlias

from afafilter._base.progress import watched
from afafilter._version import __version__
from afafilter.io.files import write_text
from afafilter.studies.batch import Experiment, rehearse, workers
from afafilter.studies.cells import Cell, Grid, read_cell, run_cell

Work: TypeAlias = tuple[Cell, Experiment, int]
"""A cell, what is simulated and estimated in it, on how many paths."""

TURN = 1.0
"""Seconds that a portion should take: what is lost when a run is killed."""
FIRST_GUESS = 0.25
"""Seconds of a cell before any is known."""
MOST = 256
SHARES = 3
"""A portion holds at most this part of an equal share of what is left (guided self-scheduling)."""


class Pace:
    """Portions of what is left, larger once cells are known to be quick."""

    def __init__(self, workers: int) -> None:
        self._seconds, self._workers = FIRST_GUESS, max(workers, 1)

    def seen(self, seconds: float) -> None:
        """A cell took so long."""
        self._seconds += 0.2 * (seconds - self._seconds)

    def portions(self, left: Iterator[Any], count: int) -> Iterator[list[Any]]:
        """What is left, about `count` in all, cut when it is asked for."""
        while True:
            share = -(-count // (SHARES * self._workers))
            quick = int(TURN / max(self._seconds, 1e-9))
            some = list(islice(left, max(1, min(MOST, quick, share))))
            if not some:
                return
            count -= len(some)
            yield some


def jobs(study: Grid) -> dict[tuple[str, str], tuple[Experiment, int]]:
    """What is done in every cell of a model and scenario, and on how many paths.

    One for all seeds: in what is sent to a worker it comes once.
    """
    scored = study.levels, study.energy, study.lags
    found = {}
    for m, (name, s) in product(study.models, study.scenarios.items()):
        (truth, assumed), burnt = study.models[m], slice(s.burn_in, None)
        drawn = truth, assumed, s.t, s.x0, s.outliers, s.missing
        job = Experiment(study.estimators, *drawn, burnt, *scored, s.simulator)
        found[m, name] = job, s.n_paths
    return found


def compute(portion: Sequence[Work]) -> list[tuple[Cell, str, float]]:
    """The cells of a portion, each with the text of its file and the seconds that it took."""
    done = []
    for cell, job, n_paths in portion:
        began = time.perf_counter()
        outcome = run_cell(job, n_paths, cell.seed)
        seconds = time.perf_counter() - began
        place = {"cell": cell._asdict(), "version": __version__, "seconds": seconds}
        done.append((cell, json.dumps(place | {"estimators": outcome}), seconds))
    return done


def is_finished(folder: Path, cell: Cell, retry_failed: bool = False) -> bool:
    """Whether a cell has a file that can be read (and in which, if asked for, nothing failed)."""
    content = read_cell(folder / f"{cell.key}.json")
    if content is None:
        return False
    failed = any(x["error"] for x in content["estimators"].values())
    return not (retry_failed and failed)


def _foresee(
    work: Mapping[tuple[str, str], tuple[Experiment, int]], places: Iterable[tuple[str, str]]
) -> None:
    """Tell before the first cell of which model and scenario no data can be drawn."""
    lost = {}
    for place in places:
        try:
            rehearse(*work[place])
        except (ValueError, TypeError) as error:
            lost[place] = f"scenario {place[1]!r} with model {place[0]!r}: {error}"
    if not lost:
        return
    first = next(iter(lost.values()))
    if len(lost) == len(work):
        raise ValueError(first)
    warnings.warn(
        f"{first}; the cells of {len(lost)} of {len(work)} models and scenarios fail for that, "
        "the others are computed",
        RuntimeWarning,
        stacklevel=4,
    )


def compute_cells(
    study: Grid,
    folder: Path,
    todo: Sequence[Cell],
    n_jobs: int | None = None,
    progress: bool | None = None,
    retry_failed: bool = False,
) -> None:
    """Compute cells and write their files into a folder that exists; options as of `Study.run`.

    Cells that another run finishes meanwhile are left to it.

    Raises
    ------
    ValueError
        No data can be drawn, of any model and scenario: told before the first cell.
    """
    from joblib import delayed, effective_n_jobs
    from tqdm import tqdm

    pace, work = Pace(effective_n_jobs(n_jobs)), jobs(study)
    _foresee(work, dict.fromkeys((cell.model, cell.scenario) for cell in todo))
    left = (
        (cell, *work[cell.model, cell.scenario])
        for cell in todo
        if not is_finished(folder, cell, retry_failed)
    )
    n, quiet = len(study.cells), not (watched() if progress is None else progress)
    bar = tqdm(total=n, initial=n - len(todo), disable=quiet, unit="cell", smoothing=0.1)
    tasks = (delayed(compute)(some) for some in pace.portions(left, len(todo)))
    with bar, workers(n_jobs, tasks) as found:
        for done in found:
            pace.seen(sum(seconds for *_, seconds in done) / len(done))
            for cell, text, _ in done:
                write_text(folder / f"{cell.key}.json", text)
                bar.update()
