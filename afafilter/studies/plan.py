"""What a study will cost, told from a few of its cells.

A cell's seconds are those of its estimators, of simulating and scoring, and of writing its file.
Each of the first two follows a power law in what the cells differ in,

    seconds = c paths^a steps^b dim^g (1 + error),

fitted by least squares to the logarithms of what was measured. On n workers K cells last

    max(K cell / n, K caller),

where the caller, the process that calls `Study.run`, hands out the cells and writes their files:
beyond cell / caller workers nothing is gained.
"""

from __future__ import annotations

import pickle
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from afafilter._base.checks import Array, positive_int
from afafilter._base.frames import data_frame
from afafilter._base.shown import ShownAsText
from afafilter.io.files import write_text
from afafilter.scoring.tally import BAND
from afafilter.studies.cells import Cell, Grid, read_cell, run_cell
from afafilter.studies.printed import page_method
from afafilter.studies.running import compute_cells, jobs

if TYPE_CHECKING:
    import pandas as pd

REST = "(simulating, scoring)"
"""What a cell takes beside its estimators, in the place of an estimator's name."""
AXES = ("paths", "steps", "dim")
WORKERS = (1, 2, 8, 64, 512)
WARM_UP_STEPS = 8
MOST_READ = 1000


class Law(NamedTuple):
    """A fitted power law of costs.

    exponents of paths, steps and dim (0 for what did not differ); spread is the standard deviation
    of single cells about the law, relative; seconds (places,); gradient (places, parameters), of
    the seconds, with the covariance of the parameters' errors.
    """

    exponents: tuple[float, ...]
    spread: float
    dof: int
    seconds: Array
    gradient: Array
    cov: Array

    def total(self, weights: Array) -> tuple[float, float, float]:
        """Weighted sum over the places, and the ends of its 95 % interval (Student's)."""
        from scipy.special import stdtrit

        value = float(weights @ self.seconds)
        if self.dof < 1 or value == 0:
            return value, np.nan, np.nan
        slope = weights @ self.gradient
        relative = np.sqrt(slope @ self.cov @ slope) / value
        factor = np.exp(float(stdtrit(self.dof, 0.5 + 0.5 * BAND)) * relative)
        return value, float(value / factor), float(value * factor)


def power_law(sizes: Array, seconds: Array, wanted: Array) -> Law:
    """Fit the law to cells of these sizes (m, 3) and seconds (m,); evaluate it at `wanted`.

    A law of logarithms is one of medians; the mean of the exponentials of the measured errors makes
    it one of means (Duan's smearing). Negative exponents, which few or noisy cells may give, are
    set to zero.
    """
    x, y = np.log(sizes), np.log(seconds)
    middle = x.mean(0)
    used = np.flatnonzero(np.ptp(x, axis=0) > 0)
    while True:
        design = np.column_stack([np.ones(len(y)), (x - middle)[:, used]])
        coefficients, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
        negative = coefficients[1:] < 0
        if not negative.any():
            break
        used = np.delete(used, np.argmin(coefficients[1:]))
    error = y - design @ coefficients
    dof = len(y) - int(rank)
    variance = float(error @ error) / dof if dof > 0 else np.nan
    at = np.column_stack([np.ones(len(wanted)), (np.log(wanted) - middle)[:, used]])
    values = np.exp(at @ coefficients) * np.exp(error).mean()
    cov = variance * np.linalg.pinv(design.T @ design)
    exponents = np.zeros(len(AXES))
    exponents[used] = coefficients[1:]
    return Law(
        tuple(exponents.tolist()), float(np.sqrt(variance)), dof, values, values[:, None] * at, cov
    )


@dataclass(frozen=True, eq=False, repr=False)
class StudyPlan(ShownAsText):
    """What `Study.plan` found; prints itself.

    Attributes
    ----------
    study : Study
    measured : DataFrame
        model, scenario, seed, paths, steps, dim, estimator, seconds: one row per cell and
        estimator, simulating and scoring among them.
    failed : mapping of str to str
        Estimators that failed in every cell that was measured, and how; their cost is unknown.
    caller_seconds : float
        What the calling process takes for a cell: handing it out and writing its file.
    cell_bytes : float
        Mean size of a cell's file.
    """

    study: Grid
    measured: pd.DataFrame
    failed: dict[str, str]
    caller_seconds: float
    cell_bytes: float

    @cached_property
    def _sizes(self) -> Array:
        """(places, 3): paths, steps and dimension of every model and scenario, in grid order."""
        return np.array([_size(self.study, *place) for place in self._places], dtype=float)

    @property
    def _places(self) -> list[tuple[str, str]]:
        return list(product(self.study.models, self.study.scenarios))

    @cached_property
    def _laws(self) -> dict[str, Law]:
        """Estimator -> its law, evaluated at every model and scenario in grid order."""
        found = {}
        for name, part in self.measured.groupby("estimator", sort=False):
            sizes = part[list(AXES)].to_numpy(dtype=float)
            seconds = np.maximum(part["seconds"].to_numpy(dtype=float), 1e-9)
            found[str(name)] = power_law(sizes, seconds, self._sizes)
        return found

    @cached_property
    def fitted(self) -> pd.DataFrame:
        """`measured` with a column `law`: what the cost model says of the same cell."""
        where = {place: k for k, place in enumerate(self._places)}
        names = zip(*(self.measured[column] for column in ("model", "scenario", "estimator")))
        return self.measured.assign(law=[self._laws[e].seconds[where[m, s]] for m, s, e in names])

    @cached_property
    def costs(self) -> pd.DataFrame:
        """The cost model, one row per estimator.

        Columns: estimator, measured (cells), seconds (per cell, mean over the study), low, high
        (its 95 % interval), spread (standard deviation of single cells about the law, relative),
        share (of all time), and the exponents of paths, steps and dim. Intervals need at least one
        more measured cell than the law has parameters.
        """
        equal = np.full(len(self._places), 1.0 / len(self._places))
        counts = self.measured["estimator"].value_counts()
        whole = sum(law.total(equal)[0] for law in self._laws.values())
        rows = []
        for name, law in self._laws.items():
            value, low, high = law.total(equal)
            row = [name, int(counts[name]), value, low, high, law.spread, value / whole]
            rows.append([*row, *law.exponents])
        names = ["estimator", "measured", "seconds", "low", "high", "spread", "share", *AXES]
        return data_frame(rows, columns=names)

    @cached_property
    def places(self) -> pd.DataFrame:
        """Cost by place: model, scenario, paths, steps, dim, cells, seconds (per cell), hours."""
        seconds = np.sum([law.seconds for law in self._laws.values()], axis=0)
        each = len(self.study.cells) // len(self._places)
        places = data_frame(self._places, columns=["model", "scenario"])
        places[list(AXES)] = self._sizes.astype(int)
        return places.assign(cells=each, seconds=seconds, hours=each * seconds / 3600.0)

    @property
    def cell_seconds(self) -> tuple[float, float, float]:
        """Seconds of a cell on a worker, mean over the study, and its 95 % interval."""
        costs = self.costs
        value = float(costs["seconds"].sum())
        up, down = (
            float(np.sqrt(((costs[name] - costs["seconds"]) ** 2).sum(skipna=False)))
            for name in ("high", "low")
        )
        return value, max(value - down, 0.0) if np.isfinite(down) else np.nan, value + up

    def seconds(self, cells: int | None = None, workers: int = 1) -> tuple[float, float, float]:
        """How long so many cells take on so many workers.

        Parameters
        ----------
        cells : int, optional
            Cells in the study's mix of models and scenarios; None = those of the study.
        workers : int
            Processes of the speed of this one.

        Returns
        -------
        value, low, high : float
            Seconds, and a 95 % interval. Starting the workers is not in it.

        Raises
        ------
        ValueError, TypeError
            Counts below one.
        """
        count = len(self.study.cells) if cells is None else positive_int(cells, "cells")
        n = positive_int(workers, "workers")
        value, low, high = (
            float(np.maximum(count * x / n, count * self.caller_seconds)) for x in self.cell_seconds
        )
        return value, low, high

    def table(self, cells: Sequence[int] = (), workers: Sequence[int] = WORKERS) -> pd.DataFrame:
        """Durations for numbers of cells and workers.

        Columns: cells, workers, hours, low, high, speedup (over one worker), limit ("workers", or
        "caller" where more workers would not help), gigabytes (of files). Without `cells`: those of
        the study, and a million.
        """
        rows = []
        for count in cells or dict.fromkeys((len(self.study.cells), 1_000_000)):
            alone = self.seconds(count)[0]
            for n in workers:
                hours = [x / 3600.0 for x in self.seconds(count, n)]
                limit = "caller" if self.cell_seconds[0] / n < self.caller_seconds else "workers"
                gigabytes = count * self.cell_bytes / 1e9
                rows.append([count, n, *hours, alone / 3600.0 / hours[0], limit, gigabytes])
        names = ["cells", "workers", "hours", "low", "high", "speedup", "limit", "gigabytes"]
        return data_frame(rows, columns=names)

    @property
    def most_workers(self) -> int:
        """The most workers that one calling process keeps busy."""
        return max(1, int(self.cell_seconds[0] / self.caller_seconds))

    to_html = page_method("plan_page")

    def __str__(self) -> str:
        value, low, high = self.cell_seconds
        lines = [
            f"{len(self.study.cells)} cells of {value:.3g} s ({low:.3g} to {high:.3g}), "
            f"{self.cell_bytes / 1e3:.3g} kB each; one calling process keeps "
            f"{self.most_workers} workers busy",
            self.costs.to_string(index=False, float_format=lambda x: f"{x:.3g}"),
            self.table().to_string(index=False, float_format=lambda x: f"{x:.3g}"),
        ]
        lines += [f"cost unknown: {name} failed: {error}" for name, error in self.failed.items()]
        return "\n".join(lines)


def make_plan(
    study: Grid, directory: str | Path | None, cells: int, progress: bool | None
) -> StudyPlan:
    """Behind `Study.plan`."""
    positive_int(cells, "cells")
    if directory is not None:
        return _planned(study, Path(directory), cells, progress)
    with tempfile.TemporaryDirectory() as folder:
        return _planned(study, Path(folder), cells, progress)


def _planned(study: Grid, folder: Path, cells: int, progress: bool | None) -> StudyPlan:
    folder.mkdir(parents=True, exist_ok=True)
    known = _timed(study, folder, study.cells)
    chosen = [cell for cell in _spread_out(study, cells) if cell not in known]
    if chosen and len(known) < cells:
        job, n_paths = jobs(study)[chosen[0].model, chosen[0].scenario]
        few = replace(job, t=job.t[:WARM_UP_STEPS], steps=None)
        run_cell(few, min(n_paths, 2), 0)  # imports are no cost of a cell
        compute_cells(study, folder, chosen[: cells - len(known)], 1, progress)
        known = _timed(study, folder, study.cells)
    rows: list[dict[str, Any]] = []
    errors: dict[str, str] = {}
    for cell, content in known.items():
        parts = content["estimators"]
        took = {name: parts[name]["seconds"] for name in study.estimators}
        errors |= {name: parts[name]["error"] for name, s in took.items() if s is None}
        took = {name: s for name, s in took.items() if s is not None}
        took[REST] = content["seconds"] - sum(took.values())
        sizes = dict(zip(AXES, _size(study, cell.model, cell.scenario)))
        place = {"model": cell.model, "scenario": cell.scenario, "seed": cell.seed} | sizes
        rows += [{**place, "estimator": name, "seconds": s} for name, s in took.items()]
    measured = data_frame(rows)
    failed = {name: e for name, e in errors.items() if name not in set(measured["estimator"])}
    some = list(known)[-cells:]
    size = float(np.mean([(folder / f"{cell.key}.json").stat().st_size for cell in some]))
    return StudyPlan(study, measured, failed, _caller_seconds(study, folder, some), size)


def _timed(study: Grid, folder: Path, cells: Sequence[Cell]) -> dict[Cell, dict[str, Any]]:
    """Finished cells that know how long they took, evenly chosen where there are very many."""
    here = {path.stem for path in folder.glob("*.json")}
    finished = [cell for cell in cells if cell.key in here]
    some = finished[:: max(1, -(-len(finished) // MOST_READ))]
    read = ((cell, read_cell(folder / f"{cell.key}.json")) for cell in some)
    return {cell: content for cell, content in read if content and "seconds" in content}


def _spread_out(study: Grid, count: int) -> list[Cell]:
    """So many cells: places from the least to the largest, first all once, then other seeds."""
    places = list(product(study.models, study.scenarios))
    by_size = sorted(places, key=lambda place: float(np.prod(_size(study, *place))))
    some = np.unique(np.linspace(0, len(by_size) - 1, min(count, len(by_size))).round().astype(int))
    each = len(study.cells) // len(places)
    start = {place: k * each for k, place in enumerate(places)}
    found = [study.cells[start[by_size[k]] + seed] for seed in range(each) for k in some]
    return found[:count]


def _size(study: Grid, model: str, scenario: str) -> tuple[int, int, int]:
    """Paths, steps and state dimension of the cells of a place."""
    place = study.scenarios[scenario]
    return place.n_paths, len(place.t), study.models[model][0].dim


def _caller_seconds(study: Grid, folder: Path, cells: Sequence[Cell]) -> float:
    """Mean seconds of handing a cell out, taking what comes back, and writing its file."""
    work = jobs(study)
    texts = [(folder / f"{cell.key}.json").read_text(encoding="utf-8") for cell in cells]
    with tempfile.TemporaryDirectory() as other:
        began = time.perf_counter()
        for cell, text in zip(cells, texts):
            pickle.dumps((cell, *work[cell.model, cell.scenario]))
            write_text(Path(other) / f"{cell.key}.json", pickle.loads(pickle.dumps(text)))
        return (time.perf_counter() - began) / len(cells)
