"""Results of a study: the finished cells, read from their files when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afafilter._base.frames import data_frame
from afafilter._base.shown import ShownByFields
from afafilter.io.files import atomic_path
from afafilter.scoring.paired import DIFFERENCE_COLUMNS, paired_differences
from afafilter.scoring.score import COLUMNS, empty_row
from afafilter.scoring.tally import BAND, Ratio
from afafilter.studies.cells import Cell, Grid, read_cell

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class StudyResult(ShownByFields):
    """The finished cells of a study, read from its directory when they are asked for."""

    study: Grid
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
        rows = []
        for place, name, content in self.outcomes():
            n_paths = self.study.scenarios[place["scenario"]].n_paths
            found = [dict(zip(COLUMNS, row)) for row in content["rows"]]
            for row in found or [empty_row("rmse", "all", n_paths)]:
                rows.append({**place, "estimator": name, **row, "error": content["error"]})
        return data_frame(rows)

    @cached_property
    def times(self) -> pd.DataFrame:
        """Run times: the places, estimator, seconds, seconds_per_path (not reproducible)."""
        rows = []
        for place, name, content in self.outcomes():
            seconds = np.nan if content["seconds"] is None else content["seconds"]
            each = seconds / self.study.scenarios[place["scenario"]].n_paths
            rows.append({**place, "estimator": name, "seconds": seconds, "seconds_per_path": each})
        return data_frame(rows)

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
        rows = []
        for place, ratios in self.ratios(metric):
            for name in self.study.estimators:
                ratio = ratios.get(name)
                numbers = (np.nan,) * 4 if ratio is None else (ratio.value, *ratio.interval())
                named = dict(zip(("value", "se", "lower", "upper"), numbers))
                rows.append({**place, "estimator": name, **named})
        return data_frame(rows)

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
        return data_frame(rows, columns=[*columns, "estimator", "reference", *DIFFERENCE_COLUMNS])

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

    def _finished(self) -> Iterator[tuple[dict[str, Any], Mapping[str, Any]]]:
        """Columns that tell a finished cell, and what it holds, by estimator."""
        columns = self.study.columns
        for cell in self.study.cells:
            content = read_cell(self.directory / f"{cell.key}.json")
            if content is not None:
                place = {"model": cell.model, "scenario": cell.scenario, "seed": cell.seed}
                place |= {**columns.get(cell.model, {}), **columns.get(cell.scenario, {})}
                yield place, content["estimators"]

    def outcomes(self) -> Iterator[tuple[dict[str, Any], str, Mapping[str, Any]]]:
        """Place, estimator and what its cell holds, of all finished cells."""
        for place, estimators in self._finished():
            for name in self.study.estimators:
                yield place, name, estimators[name]

    def ratios(self, metric: str) -> Iterator[tuple[dict[str, Any], dict[str, Ratio]]]:
        """Per place: its columns, and estimator -> sums over the paths of all seeds."""
        groups: dict[tuple[str, str], tuple[dict[str, Any], dict[str, list[Ratio]], set[str]]] = {}
        known: set[str] = set()
        for place, estimators in self._finished():
            place.pop("seed")
            where = place["model"], place["scenario"]
            _, parts, failed = groups.setdefault(where, (place, {}, set()))
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
