"""Studies: models x estimators x scenarios x seeds, resumable, on as many workers as there are.

A cell is one (model, scenario, seed): all estimators see the same paths there, so that
differences between them are paired. Every finished cell is written at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from afafilter._base.checks import positive_int
from afafilter._base.progress import watched
from afafilter._base.shown import ShownByFields
from afafilter._version import __version__
from afafilter.io.files import atomic_path
from afafilter.scoring.inputs import score_level
from afafilter.scoring.paired import DIFFERENCE_COLUMNS, paired_differences
from afafilter.scoring.score import COLUMNS, LEVELS, empty_row
from afafilter.scoring.tally import BAND, Ratio
from afafilter.studies.batch import Estimator, Experiment, checked_estimators, end_with
from afafilter.studies.cells import cell_key, describe, read_cell, write_cell
from afafilter.studies.pace import Pace, compute
from afafilter.studies.scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd


class Cell(NamedTuple):
    """One cell: its place in the grid, and the name of its file."""

    model: str
    scenario: str
    seed: int
    key: str


@dataclass(frozen=True, eq=False, repr=False)
class Study(ShownByFields):
    """A full factorial comparison.

    Parameters
    ----------
    models : mapping of str to model, or to (truth, model that estimators assume)
    estimators : mapping of str to f(model, t, z) -> Estimate
        Or names of the catalogue, or a list, as in `compare`.
    scenarios : mapping of str to Scenario
    seeds : sequence of int or int
        Or how many (0, 1, ...). Cells of one seed share random numbers across models, scenarios.
    levels, energy, lags : as in `score`
    columns : mapping of model or scenario name to {column: value}
        Put beside the names in the results (e.g. the parameter that a name stands for).

    Raises
    ------
    ValueError, TypeError
        Anything empty, of the wrong type, or impossible to identify when resuming.

    Notes
    -----
    A cell's file is found by a hash of model, scenario, seed, options and estimators: functions of
    this package by public name and version, others by their compiled code and defaults, and both by
    what they enclose. What such a function calls is not looked at.

    Examples
    --------
    >>> study = Study(models, estimators, {"clean": Scenario(t)}, seeds=3)  # doctest: +SKIP
    >>> result = study.run("results/noise", n_jobs=2)  # doctest: +SKIP
    >>> result.frame.query("metric == 'rmse'")  # doctest: +SKIP
    """

    models: Mapping[str, Any]
    estimators: Mapping[str, Estimator]
    scenarios: Mapping[str, Scenario]
    seeds: Sequence[int] | int = 1
    levels: Sequence[float] = LEVELS
    energy: bool = False
    lags: int | None = None
    columns: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("models", "scenarios"):
            value = getattr(self, name)
            if not isinstance(value, Mapping):
                raise TypeError(f"{name} must be a dict by name, got {type(value).__name__}")
            if not value:
                raise ValueError(f"{name} must hold at least one, got none: the grid is empty")
            object.__setattr__(self, name, {str(k): v for k, v in value.items()})
        object.__setattr__(
            self, "models", {name: _pair(name, m) for name, m in self.models.items()}
        )
        for name, scenario in self.scenarios.items():
            if not isinstance(scenario, Scenario):
                raise TypeError(f"scenarios[{name!r}] must be a Scenario, got {scenario!r}")
        assumed, grid = self.first_model, next(iter(self.scenarios.values())).t
        object.__setattr__(self, "estimators", checked_estimators(self.estimators, assumed, grid))
        object.__setattr__(self, "seeds", _seeds(self.seeds))
        for level in self.levels:
            score_level(level)
        for name in self.columns:
            if name not in self.models and name not in self.scenarios:
                raise ValueError(f"columns must name models or scenarios, got {name!r}")
        _ = self.cells

    @property
    def first_model(self) -> Any:
        """What estimators assume in the first model."""
        return next(iter(self.models.values()))[1]

    @classmethod
    def from_toml(cls, path: str | Path, *, allow_import: bool = False) -> Study:
        """Read a study; see `afafilter.studies.toml` for the format.

        Parameters
        ----------
        path : str or Path
            The file.
        allow_import : bool
            Whether estimators may be named by import path ("mypackage:my_filter"), which runs
            their code.

        Raises
        ------
        ValueError, TypeError
            Unknown keys, functions or weights, wrong values; the message names the table.
        """
        from afafilter.studies.toml import study_arguments

        return cls(**study_arguments(Path(path), allow_import))

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All cells in grid order: models outermost, seeds innermost."""
        shared = {
            "estimators": describe(self.estimators),
            "score": describe([list(self.levels), self.energy, self.lags]),
        }
        models = {name: describe(pair) for name, pair in self.models.items()}
        scenarios = {name: describe(x) for name, x in self.scenarios.items()}
        found = []
        for m, s, seed in product(self.models, self.scenarios, _seeds(self.seeds)):
            own = {"model": [m, models[m]], "scenario": [s, scenarios[s]], "seed": seed}
            found.append(Cell(m, s, seed, cell_key(shared | own)))
        return tuple(found)

    def run(
        self,
        directory: str | Path,
        *,
        n_jobs: int | None = None,
        progress: bool | None = None,
        retry_failed: bool = False,
    ) -> StudyResult:
        """Compute the cells that `directory` does not hold yet.

        Parameters
        ----------
        directory : str or path
            Made if absent; one JSON file per cell, written when it is finished, others left alone.
        n_jobs : int, optional
            Joblib workers. None: 1, or what the surrounding `joblib.parallel_config` says,
            e.g. backend="dask" for a cluster; files are written by the calling process.
        progress, retry_failed : bool
            A bar on stderr (None: in a terminal); cells in which an estimator failed once more.

        Returns
        -------
        StudyResult
            The same numbers for any n_jobs, backend and number of interruptions. An estimator or
            cell that fails is recorded with its error.
        """
        from joblib import Parallel, delayed
        from tqdm import tqdm

        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        todo = [cell for cell in self.cells if not self._finished(folder, cell, retry_failed)]
        pace = Pace()
        left = (
            (cell, *self._job(cell))
            for cell in todo
            if not self._finished(folder, cell, retry_failed)  # by another run, meanwhile
        )
        n, quiet = len(self.cells), not (watched() if progress is None else progress)
        with tqdm(total=n, initial=n - len(todo), disable=quiet, unit="cell", smoothing=0.1) as bar:
            workers = Parallel(
                n_jobs=n_jobs,
                return_as="generator_unordered",
                batch_size=1,
                initializer=end_with,
                initargs=(os.getpid(),),
            )
            for seconds, done in workers(delayed(compute)(some) for some in pace.portions(left)):
                pace.seen(seconds / len(done))
                for cell, outcome in done:
                    place = {"cell": cell._asdict(), "version": __version__}
                    write_cell(folder / f"{cell.key}.json", place | {"estimators": outcome})
                    bar.update()
        return StudyResult(self, folder)

    def result(self, directory: str | Path) -> StudyResult:
        """What `directory` holds so far, without computing anything."""
        return StudyResult(self, Path(directory))

    def _job(self, cell: Cell) -> tuple[Experiment, int]:
        truth, assumed = self.models[cell.model]
        s = self.scenarios[cell.scenario]
        drawn = truth, assumed, s.t, s.x0, s.outliers, s.missing
        scored = slice(s.burn_in, None), self.levels, self.energy, self.lags
        return Experiment(self.estimators, *drawn, *scored, s.simulator), s.n_paths

    def _finished(self, folder: Path, cell: Cell, retry_failed: bool) -> bool:
        content = read_cell(folder / f"{cell.key}.json")
        if content is None:
            return False
        failed = any(x["error"] for x in content["estimators"].values())
        return not (retry_failed and failed)


@dataclass(frozen=True, eq=False, repr=False)
class StudyResult(ShownByFields):
    """The finished cells of a study, read from its directory when they are asked for."""

    study: Study
    directory: Path

    @property
    def unfinished(self) -> tuple[Cell, ...]:
        """Cells that have no file yet."""
        return tuple(c for c in self.study.cells if not (self.directory / f"{c.key}.json").exists())

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Tidy scores in grid order.

        Columns: model, scenario, seed, those of `Study.columns`, estimator, the columns of
        `Score.frame`, error. An estimator that failed has one row with its error.
        """
        import pandas as pd

        rows = []
        for place, name, content in self._outcomes():
            n_paths = self.study.scenarios[place["scenario"]].n_paths
            found = [dict(zip(COLUMNS, row)) for row in content["rows"]]
            for row in found or [empty_row("rmse", "all", n_paths)]:
                rows.append({**place, "estimator": name, **row, "error": content["error"]})
        return pd.DataFrame(rows)

    @cached_property
    def times(self) -> pd.DataFrame:
        """Run times: the places, estimator, seconds, seconds_per_path (not reproducible)."""
        import pandas as pd

        rows = []
        for place, name, content in self._outcomes():
            seconds = np.nan if content["seconds"] is None else content["seconds"]
            n = self.study.scenarios[place["scenario"]].n_paths
            rows.append(
                {**place, "estimator": name, "seconds": seconds, "seconds_per_path": seconds / n}
            )
        return pd.DataFrame(rows)

    @property
    def errors(self) -> pd.DataFrame:
        """What failed: model, scenario, seed, estimator, error."""
        frame = self.frame
        columns = ["model", "scenario", "seed", "estimator", "error"]
        return frame.loc[frame["error"] != "", columns].reset_index(drop=True)

    def pooled(self, metric: str = "rmse") -> pd.DataFrame:
        """A metric pooled over the paths of all seeds.

        Columns: model, scenario, those of `Study.columns`, estimator, value, se, lower, upper (95 %
        Student interval over paths; NaN where it failed).
        """
        import pandas as pd

        rows = []
        for place, ratios in self.ratios(metric):
            for name in self.study.estimators:
                ratio = ratios.get(name)
                numbers = (np.nan,) * 4 if ratio is None else (ratio.value, *ratio.interval())
                named = dict(zip(("value", "se", "lower", "upper"), numbers))
                rows.append({**place, "estimator": name, **named})
        return pd.DataFrame(rows)

    def differences(
        self, reference: str, metric: str = "rmse", *, level: float = BAND, n_boot: int = 2000
    ) -> pd.DataFrame:
        """Paired differences to a reference, per model and scenario, over all seeds' paths.

        Columns: model, scenario, those of `Study.columns`, estimator, reference, difference, low,
        high, ratio, ratio_low, ratio_high, p: percentile bootstrap over paths, with a fixed seed,
        and paired test as in `Comparison.differences`. Without places where the reference failed.

        Raises
        ------
        ValueError
            Unknown reference or metric.
        """
        import pandas as pd

        if reference not in self.study.estimators:
            known = ", ".join(map(repr, self.study.estimators))
            raise ValueError(f"reference must be one of {known}, got {reference!r}")
        rows: list[dict[str, Any]] = []
        columns: dict[str, None] = {}
        for place, ratios in self.ratios(metric):
            columns |= dict.fromkeys(place)
            if reference in ratios:
                found = paired_differences(ratios, reference, level, n_boot)
                rows += [{**place, **row} for row in found]
        return pd.DataFrame(rows, columns=[*columns, "estimator", "reference", *DIFFERENCE_COLUMNS])

    def table(self, metric: str = "rmse") -> pd.DataFrame:
        """A metric pooled over seeds: one row per (model, scenario), one column per estimator."""
        wide = self.pooled(metric).pivot(
            index=["model", "scenario"], columns="estimator", values="value"
        )
        places = [(m, s) for m in self.study.models for s in self.study.scenarios]
        return wide.reindex(index=places, columns=list(self.study.estimators))

    def to_csv(self, path: str | Path) -> None:
        """Write `frame` as CSV (all or nothing)."""
        with atomic_path(Path(path)) as temporary:
            self.frame.to_csv(temporary, index=False)

    def to_parquet(self, path: str | Path) -> None:
        """Write `frame` as Parquet (all or nothing; needs the extra `parquet`)."""
        with atomic_path(Path(path)) as temporary:
            self.frame.to_parquet(temporary, index=False)

    def _finished(self) -> Iterator[tuple[Cell, Mapping[str, Any]]]:
        for cell in self.study.cells:
            content = read_cell(self.directory / f"{cell.key}.json")
            if content is not None:
                yield cell, content["estimators"]

    def _outcomes(self) -> Iterator[tuple[dict[str, Any], str, Mapping[str, Any]]]:
        for cell, estimators in self._finished():
            place = {"model": cell.model, "scenario": cell.scenario, "seed": cell.seed}
            place |= self._extra(cell)
            for name in self.study.estimators:
                yield place, name, estimators[name]

    def _extra(self, cell: Cell) -> dict[str, Any]:
        columns = self.study.columns
        return {**columns.get(cell.model, {}), **columns.get(cell.scenario, {})}

    def ratios(self, metric: str) -> Iterator[tuple[dict[str, Any], dict[str, Ratio]]]:
        """Per place: its columns, and estimator -> sums over the paths of all seeds."""
        groups: dict[tuple[str, str], tuple[dict[str, Any], dict[str, list[Ratio]], set[str]]] = {}
        known: set[str] = set()
        for cell, estimators in self._finished():
            place = {"model": cell.model, "scenario": cell.scenario} | self._extra(cell)
            _, parts, failed = groups.setdefault((cell.model, cell.scenario), (place, {}, set()))
            for name, content in estimators.items():
                known |= content["paths"].keys()
                if content["error"]:
                    failed.add(name)
                elif metric in content["paths"]:
                    packed = content["paths"][metric]
                    sums = np.array(packed["sums"])
                    counts = np.broadcast_to(np.array(packed["counts"]), sums.shape)
                    parts.setdefault(name, []).append(Ratio(sums, counts, metric == "rmse"))
        if known and metric not in known:
            raise ValueError(f"metric must be one of {', '.join(sorted(known))}, got {metric!r}")
        for place, parts, failed in groups.values():
            yield place, {n: Ratio.join(own) for n, own in parts.items() if n not in failed}


def _pair(name: str, model: Any) -> tuple[Any, Any]:
    pair = model if isinstance(model, tuple) else (model, model)
    if len(pair) != 2 or not all(hasattr(m, "dim") and hasattr(m, "obs_dim") for m in pair):
        raise TypeError(
            f"models[{name!r}] must be a model or a pair (truth, assumed model), got {model!r}"
        )
    return pair


def _seeds(seeds: Sequence[int] | int) -> tuple[int, ...]:
    if isinstance(seeds, (int, np.integer)):
        return tuple(range(positive_int(seeds, "seeds")))
    out = tuple(positive_int(seed, "seeds", low=0) for seed in seeds)
    if not out:
        raise ValueError("seeds must hold at least one, got none: the grid is empty")
    if len(set(out)) < len(out):
        raise ValueError(f"seeds must differ, got {list(out)}")
    return out
