"""The result of `compare`: scores of several estimators on the same paths, as frames and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from afafilter._base.checks import Array, choice
from afafilter._base.frames import data_frame
from afafilter._base.shown import ShownAsText, load
from afafilter.io.tables import Cell, latex_table, markdown_table
from afafilter.scoring.paired import DIFFERENCE_COLUMNS, paired_differences, ranks
from afafilter.scoring.score import COLUMNS, Score, empty_row
from afafilter.scoring.tally import BAND, Ratio
from afafilter.studies.printed import marked, metric_title, page_method

if TYPE_CHECKING:
    import pandas as pd

TABLE_METRICS = ("rmse", "crps", "nlpd", "nees", "coverage95", "time")


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(ShownAsText):
    """Scores of several estimators on the same paths.

    Attributes
    ----------
    results : mapping
        Name -> `Score`, in the order given; those that failed are absent.
    seconds : mapping
        Name -> wall time of the estimator on all paths, warm, in the process it ran in
        (NaN if it failed). Not reproducible, unlike everything else.
    errors : mapping
        Name -> message of the exception that an estimator raised.
    t : ndarray, shape (T,)
        times.
    n_paths : int
        Number of paths.
    """

    results: Mapping[str, Score]
    seconds: Mapping[str, float]
    errors: Mapping[str, str]
    t: Array
    n_paths: int
    names: tuple[str, ...] = field(default=())

    def plot(self, metric: str = "rmse", *, ax: Any = None) -> Any:
        """Draw one metric: a dot with its interval per estimator; see `plotting.comparison`."""
        return load("plotting").comparison(self, metric, ax=ax)

    to_html = page_method("comparison_page")

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Tidy frame: estimator, the columns of `Score.frame`, error (message or empty).

        An estimator that failed has a row for every metric, with NaN.
        """
        done = {name: score.rows() for name, score in self.results.items()}
        keys = [(row["metric"], row["component"]) for row in next(iter(done.values()), [])]
        out: list[dict[str, Any]] = []
        for name in self.names:
            if name in done:
                out += [{"estimator": name, **row, "error": ""} for row in done[name]]
                continue
            for metric, component in keys or [("rmse", "all")]:
                empty = empty_row(metric, component, self.n_paths)
                out.append({"estimator": name, **empty, "error": self.errors[name]})
        return data_frame(out, columns=["estimator", *COLUMNS, "error"])

    @cached_property
    def paths(self) -> pd.DataFrame:
        """Tidy frame per path: estimator, path, metric, component, value."""
        return self._gather(Score.per_path)

    def over_time(self) -> pd.DataFrame:
        """Tidy frame per time: estimator and the columns of `Score.over_time`."""
        return self._gather(Score.over_time)

    def _gather(
        self, part: Callable[[Score], pd.DataFrame], probabilities: bool = False
    ) -> pd.DataFrame:
        import pandas as pd

        chosen = {n: s for n, s in self.results.items() if s.pit is not None or not probabilities}
        frames = [part(score).assign(estimator=name) for name, score in chosen.items()]
        if not frames:
            why = "claims no probabilities" if self.results else f"failed: {dict(self.errors)}"
            raise ValueError(f"every estimator {why}")
        whole = pd.concat(frames, ignore_index=True)
        return whole[["estimator", *whole.columns.drop("estimator")]]

    @cached_property
    def times(self) -> pd.DataFrame:
        """Run times: estimator, seconds, seconds_per_path.

        Taken after an untimed call on a few steps, with BLAS on one thread. With n_jobs > 1 the
        batches compete for the machine: take times from n_jobs = 1.
        """
        seconds = [self.seconds[name] for name in self.names]
        found = data_frame({"estimator": list(self.names), "seconds": seconds})
        return found.assign(seconds_per_path=found["seconds"] / self.n_paths)

    def intervals(self, metric: str = "rmse", component: str = "all") -> pd.DataFrame:
        """One row per estimator: estimator, value, lower, upper (95 % Student interval over paths).

        NaN where an estimator failed or does not have the metric.
        """
        have, rows = self._ratios(metric, component), []
        for name in self.names:
            value = low = high = np.nan
            if name in have:
                value, (_, low, high) = have[name].value, have[name].interval()
            rows.append({"estimator": name, "value": value, "lower": low, "upper": high})
        return data_frame(rows)

    def summary(self, metrics: Sequence[str] | None = None) -> pd.DataFrame:
        """One row per estimator, for a CSV file: estimator, rmse, rmse_low, rmse_high, nlpd, ...

        Pooled over components; "time" is ms per path, without interval. Default: all metrics.
        """
        known = dict.fromkeys(m for s in self.results.values() for m in s.metrics if m != "bias")
        columns: dict[str, Any] = {"estimator": list(self.names)}
        for metric in [*known, "time"] if metrics is None else metrics:
            if metric == "time":
                columns["time"] = 1e3 * self.times["seconds_per_path"]
                continue
            part = self.intervals(metric)
            for name, source in (("", "value"), ("_low", "lower"), ("_high", "upper")):
                columns[metric + name] = part[source]
        return data_frame(columns)

    def differences(
        self,
        reference: str,
        metrics: Sequence[str] = ("rmse",),
        *,
        component: str = "all",
        level: float = BAND,
        n_boot: int = 2000,
        rng: np.random.Generator | None = None,
    ) -> pd.DataFrame:
        """Paired differences to a reference estimator, with bootstrap intervals over paths.

        Parameters
        ----------
        reference : str
            Name of the estimator to subtract.
        metrics : sequence of str
            Which scores.
        component : str
            "all", "x0"...
        level : float
            Of the percentile intervals.
        n_boot : int
            Number of resamples of the paths.
        rng : Generator, optional
            Generator of the resampling; None = a fixed seed, so that tables repeat.

        Returns
        -------
        DataFrame
            estimator, reference, metric, component, difference, low, high, ratio, ratio_low,
            ratio_high, p. Negative differences and ratios below one: lower than the reference. p:
            paired Student test of the logarithms of each path's values, or of the values where a
            metric takes both signs; not corrected for the number of rows.

        Raises
        ------
        ValueError
            Unknown or failed reference, unknown metric.
        """
        if reference in self.errors:
            raise ValueError(f"reference {reference!r} failed: {self.errors[reference]}")
        if reference not in self.results:
            raise ValueError(
                f"reference must be one of {', '.join(map(repr, self.names))}, got {reference!r}"
            )
        wanted = [metrics] if isinstance(metrics, str) else list(metrics)
        rows = []
        for metric in wanted:
            ratios = self._ratios(metric, component)
            if reference not in ratios:
                raise ValueError(f"reference {reference!r} has no {metric} of {component!r}")
            for row in paired_differences(ratios, reference, level, n_boot, rng):
                rows.append(row | {"metric": metric, "component": component})
        columns = ["estimator", "reference", "metric", "component", *DIFFERENCE_COLUMNS]
        return data_frame(rows, columns=columns)

    def ranks(self, metric: str = "rmse", *, component: str = "all") -> pd.DataFrame:
        """Places of the estimators, path by path, 1 for the smallest loss; ties share.

        Columns estimator, rank (mean over paths), low, high (95 % Student interval), first (share
        of paths where nobody is better). ValueError for an unknown metric or component.
        """
        return data_frame(ranks(metric, self._ratios(metric, component)))

    def reliability(self) -> pd.DataFrame:
        """Reliability diagram of all but point estimators: see `Score.reliability`."""
        return self._gather(Score.reliability, probabilities=True)

    def pit_histogram(self) -> pd.DataFrame:
        """Histogram of the PIT of all but point estimators: see `Score.pit_histogram`."""
        return self._gather(Score.pit_histogram, probabilities=True)

    def table(
        self, metrics: Sequence[str] | None = None, *, component: str = "all"
    ) -> pd.DataFrame:
        """One row per estimator, one column per metric (values only); "time" is ms per path."""
        names, rows = self._cells(metrics, component, False, 3)
        values = [[cell.value for cell in cells] for _, cells in rows]
        return data_frame(values, columns=names, index=self.names).rename_axis("estimator")

    def to_latex(
        self,
        metrics: Sequence[str] | None = None,
        *,
        component: str = "all",
        uncertainty: bool = True,
        digits: int = 3,
        caption: str | None = None,
        label: str | None = None,
    ) -> str:
        """A booktabs table; the best of each column is bold (needs \\usepackage{booktabs}).

        Best is lowest for rmse, crps, nlpd, energy and time, nearest to 1 for nees, nis and
        ljung_box, nearest to the level for coverage, nearest to 0 for bias. `uncertainty` adds the
        standard error over paths. The caption is LaTeX, names are escaped.
        """
        names, rows = self._cells(metrics, component, uncertainty, digits)
        look: dict[str, Any] = {"corner": "Estimator", "digits": digits}
        return latex_table([*map(metric_title, names)], rows, **look, caption=caption, label=label)

    def to_markdown(
        self,
        metrics: Sequence[str] | None = None,
        *,
        component: str = "all",
        uncertainty: bool = True,
        digits: int = 3,
    ) -> str:
        """The same table for a README."""
        names, rows = self._cells(metrics, component, uncertainty, digits)
        return markdown_table([*map(metric_title, names)], rows, corner="Estimator", digits=digits)

    def __str__(self) -> str:
        return f"{len(self.names)} estimators, {self.n_paths} paths\n{self.to_markdown()}"

    def _ratios(self, metric: str, component: str) -> dict[str, Ratio]:
        """The sums of a metric, of the estimators that have this component of it."""
        known = tuple(dict.fromkeys(m for s in self.results.values() for m in s.metrics))
        if metric not in known:
            raise ValueError(f"metric must be one of {', '.join(known)}, got {metric!r}")
        have = {
            name: score.ratio(metric, component)
            for name, score in self.results.items()
            if metric in score.metrics and component in score.components(metric)
        }
        if not have:
            raise ValueError(f"component {component!r} does not exist for {metric}")
        return have

    def _cells(
        self, metrics: Sequence[str] | None, component: str, uncertainty: bool, digits: int
    ) -> tuple[list[str], list[tuple[str, list[Cell]]]]:
        """Metrics of a table, and its rows: estimator, and a cell of each metric."""
        known = sorted({m for s in self.results.values() for m in s.metrics} | {"time"})
        usual = [m for m in TABLE_METRICS if m in known]
        names = usual if metrics is None else [metrics] if isinstance(metrics, str) else [*metrics]
        columns = []
        for metric in names:
            choice(metric, "metric", tuple(known))
            found = {} if metric == "time" else self._ratios(metric, component)
            column = []
            for name in self.names:
                cell = Cell(np.nan)
                if name in self.errors:
                    cell = Cell(np.nan, text="failed")
                elif metric == "time":
                    cell = Cell(1e3 * self.seconds[name] / self.n_paths)
                elif name in found:
                    se = found[name].interval()[0] if uncertainty else np.nan
                    cell = Cell(found[name].value, se)
                column.append(cell)
            columns.append(marked(column, metric, digits))
        rows = zip(*columns) if columns else ((),) * len(self.names)
        return names, [(name, list(row)) for name, row in zip(self.names, rows)]
