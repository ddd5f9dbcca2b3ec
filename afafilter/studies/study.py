"""Studies: models x estimators x scenarios x seeds, resumable, on as many workers as there are.

A cell is one (model, scenario, seed): all estimators see the same paths there, so that
differences between them are paired. Every finished cell is written at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afafilter._base.checks import positive_int
from afafilter._base.shown import ShownByFields
from afafilter._base.signatures import assign
from afafilter.scoring.inputs import checked_lags, checked_levels
from afafilter.studies.batch import checked_estimators, refuse_other_width
from afafilter.studies.cells import Grid
from afafilter.studies.result import StudyResult
from afafilter.studies.running import compute_cells, is_finished
from afafilter.studies.scenario import Scenario

if TYPE_CHECKING:
    from afafilter.studies.plan import StudyPlan


@dataclass(frozen=True, eq=False, repr=False)
class Study(ShownByFields, Grid):
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
    what they enclose. What such a function calls is not looked at. `cells` are all of them, models
    outermost, seeds innermost.

    Examples
    --------
    >>> study = Study(models, estimators, {"clean": Scenario(t)}, seeds=3)  # doctest: +SKIP
    >>> result = study.run("results/noise", n_jobs=2)  # doctest: +SKIP
    >>> result.frame.query("metric == 'rmse'")  # doctest: +SKIP
    """

    def __post_init__(self) -> None:
        for name in ("models", "scenarios"):
            value = getattr(self, name)
            if not isinstance(value, Mapping):
                raise TypeError(f"{name} must be a dict by name, got {type(value).__name__}")
            if not value:
                raise ValueError(f"{name} must hold at least one, got none: the grid is empty")
            assign(self, **{name: {str(k): v for k, v in value.items()}})
        assign(self, models={name: _pair(name, model) for name, model in self.models.items()})
        for name, scenario in self.scenarios.items():
            if not isinstance(scenario, Scenario):
                raise TypeError(f"scenarios[{name!r}] must be a Scenario, got {scenario!r}")
        assumed, grid = self.first_model, next(iter(self.scenarios.values())).t
        named = checked_estimators(self.estimators, assumed, grid)
        assign(self, estimators=named, seeds=_seeds(self.seeds))
        checked_levels(self.levels)
        checked_lags(self.lags, min(len(s.t) - s.burn_in for s in self.scenarios.values()))
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
            e.g. backend="dask" for a cluster; files are written by the calling process. Dask's
            monitors cost small cells a third; the example "A study over a grid, on a cluster" says
            how to have them look less often.
        progress, retry_failed : bool
            A bar on stderr (None: in a terminal); cells in which an estimator failed once more.

        Returns
        -------
        StudyResult
            The same numbers for any n_jobs, backend and number of interruptions. Whoever fails in
            a cell is recorded with its error; who fails in all of them is warned of.
        """
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        todo = [cell for cell in self.cells if not is_finished(folder, cell, retry_failed)]
        compute_cells(self, folder, todo, n_jobs, progress, retry_failed)
        result = StudyResult(self, folder)
        _warn_of_failures(result)
        return result

    def plan(
        self, directory: str | Path | None = None, *, cells: int = 12, progress: bool | None = None
    ) -> StudyPlan:
        """What the study will cost: a cost model from a few of its cells, measured in this process.

        Parameters
        ----------
        directory : str or path, optional
            That of `run`: finished cells there are used, and those measured now are kept. None:
            nothing is kept.
        cells : int
            How many finished cells are wanted; what is missing is computed, from the smallest to
            the largest models and scenarios.
        progress : bool
            As in `run`.

        Returns
        -------
        StudyPlan
            Seconds per cell by estimator and size with their spread, durations for any number of
            cells and workers, and a page with all that (`StudyPlan.to_html`).

        Raises
        ------
        ValueError, TypeError
            cells below one.
        """
        from afafilter.studies.plan import make_plan

        return make_plan(self, directory, cells, progress)

    def result(self, directory: str | Path) -> StudyResult:
        """What `directory` holds so far, without computing anything."""
        return StudyResult(self, Path(directory))


def _warn_of_failures(result: StudyResult) -> None:
    """A RuntimeWarning with the first error of those that failed in every cell.

    Cells are read until everybody has been seen to work: mostly one.
    """
    worked: set[str] = set()
    errors: dict[str, str] = {}
    for _, name, content in result.outcomes():
        if content["error"]:
            errors.setdefault(name, content["error"])
            continue
        worked.add(name)
        if len(worked) == len(result.study.estimators):
            return
    lost = {name: error for name, error in errors.items() if name not in worked}
    if lost:
        names = [name for name in result.study.estimators if name in lost]
        warnings.warn(
            f"{', '.join(names)} failed in every cell, so that scores are NaN; the first error: "
            f"{lost[names[0]]}. All are in StudyResult.errors; run(..., retry_failed=True) tries "
            "once more",
            RuntimeWarning,
            stacklevel=3,
        )


def _pair(name: str, model: Any) -> tuple[Any, Any]:
    pair = model if isinstance(model, tuple) else (model, model)
    if len(pair) != 2 or not all(hasattr(m, "dim") and hasattr(m, "obs_dim") for m in pair):
        raise TypeError(
            f"models[{name!r}] must be a model or a pair (truth, assumed model), got {model!r}"
        )
    refuse_other_width(*pair, f"models[{name!r}]")
    return pair


MOST_SEEDS = 10**7


def _seeds(seeds: Sequence[int] | int) -> tuple[int, ...]:
    if isinstance(seeds, (float, int, np.integer)):
        if seeds > MOST_SEEDS:
            raise ValueError(f"seeds must be at most {MOST_SEEDS}, got {seeds:g}; list them")
        return tuple(range(positive_int(seeds, "seeds")))
    out = tuple(positive_int(seed, "seeds", low=0) for seed in seeds)
    if not out:
        raise ValueError("seeds must hold at least one, got none: the grid is empty")
    if len(set(out)) < len(out):
        raise ValueError(f"seeds must differ, got {list(out)}")
    return out
