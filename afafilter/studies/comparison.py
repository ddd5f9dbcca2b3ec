"""The result of `compare`: scores of several estimators on the same paths, as frames and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afafilter._base.checks import Array, choice
from afafilter._base.shown import ShownAsText, load
from afafilter.io.files import write_text
from afafilter.io.tables import Cell, latex_table, mark_best, markdown_table, plain
from afafilter.scoring.paired import DIFFERENCE_COLUMNS, loss, paired_differences, ranks
from afafilter.scoring.score import COLUMNS, Score, empty_row
from afafilter.scoring.tally import BAND
from afafilter.studies.printed import metric_title

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

    def to_html(
        self, path: str | Path | None = None, *, title: str = "", force: bool = False
    ) -> str:
        """One self-contained page: a picture per metric, the tables, all numbers to save.

        Parameters
        ----------
        path : str or Path, optional
            File to write; None = only return the page.
        title : str
            Title of the page.
        force : bool
            Overwrite the file if it exists.

        Returns
        -------
        str
            The HTML. The page needs no network.

        Raises
        ------
        FileExistsError
            If the file exists and `force` is False.
        ValueError
            Without plotly: pip install 'afafilter[report]'.
        """
        page = str(load("report").comparison_page(self, *([title] if title else [])))
        if path is not None:
            write_text(path, page, force=force)
        return page

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Tidy frame: estimator, the columns of `Score.frame`, error (message or empty).

        An estimator that failed has a row for every metric, with NaN.
        """
        import pandas as pd

        return pd.DataFrame(self.rows(), columns=["estimator", *COLUMNS, "error"])

    def rows(self) -> list[dict[str, Any]]:
        """The rows of `scores`."""
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
        return out

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
        frame = pd.concat(frames, ignore_index=True)
        return frame[["estimator", *frame.columns.drop("estimator")]]

    @cached_property
    def times(self) -> pd.DataFrame:
        """Run times: estimator, seconds, seconds_per_path.

        Taken after an untimed call on a few steps, with BLAS on one thread. With n_jobs > 1 the
        batches compete for the machine: take times from n_jobs = 1.
        """
        import pandas as pd

        seconds = [self.seconds[name] for name in self.names]
        return pd.DataFrame(
            {
                "estimator": list(self.names),
                "seconds": seconds,
                "seconds_per_path": np.array(seconds) / self.n_paths,
            }
        )

    def intervals(self, metric: str = "rmse", component: str = "all") -> pd.DataFrame:
        """One row per estimator: estimator, value, lower, upper (95 % Student interval over paths).

        NaN where an estimator failed or does not have the metric.
        """
        import pandas as pd

        have = dict(self._having(metric, component))
        rows = []
        for name in self.names:
            value = low = high = np.nan
            if name in have:
                ratio = have[name].ratio(metric, component)
                value, (_, low, high) = ratio.value, ratio.interval()
            rows.append({"estimator": name, "value": value, "lower": low, "upper": high})
        return pd.DataFrame(rows)

    def summary(self, metrics: Sequence[str] | None = None) -> pd.DataFrame:
        """One row per estimator, for a CSV file: estimator, rmse, rmse_low, rmse_high, nlpd, ...

        Pooled over components; "time" is ms per path, without interval. Default: all metrics.
        """
        import pandas as pd

        known = dict.fromkeys(m for s in self.results.values() for m in s.metrics if m != "bias")
        columns: dict[str, Any] = {"estimator": list(self.names)}
        for metric in [*known, "time"] if metrics is None else metrics:
            if metric == "time":
                columns["time"] = 1e3 * self.times["seconds_per_path"]
                continue
            part = self.intervals(metric)
            for name, source in (("", "value"), ("_low", "lower"), ("_high", "upper")):
                columns[metric + name] = part[source]
        return pd.DataFrame(columns)

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
        import pandas as pd

        if reference in self.errors:
            raise ValueError(f"reference {reference!r} failed: {self.errors[reference]}")
        if reference not in self.results:
            raise ValueError(
                f"reference must be one of {', '.join(map(repr, self.names))}, got {reference!r}"
            )
        wanted = [metrics] if isinstance(metrics, str) else list(metrics)
        rows = []
        for metric in wanted:
            ratios = {
                name: score.ratio(metric, component)
                for name, score in self._having(metric, component)
            }
            if reference not in ratios:
                raise ValueError(f"reference {reference!r} has no {metric} of {component!r}")
            for row in paired_differences(ratios, reference, level, n_boot, rng):
                rows.append(row | {"metric": metric, "component": component})
        columns = ["estimator", "reference", "metric", "component", *DIFFERENCE_COLUMNS]
        return pd.DataFrame(rows, columns=columns)

    def ranks(self, metric: str = "rmse", *, component: str = "all") -> pd.DataFrame:
        """Places of the estimators, path by path, 1 for the smallest loss; ties share.

        Columns estimator, rank (mean over paths), low, high (95 % Student interval), first (share
        of paths where nobody is better). ValueError for an unknown metric or component.
        """
        import pandas as pd

        have = self._having(metric, component)
        return pd.DataFrame(ranks(metric, {name: s.ratio(metric, component) for name, s in have}))

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
        import pandas as pd

        metrics = self._table_metrics(metrics)
        cells = self._cells(metrics, component, False, 3)
        values = {m: [row[1][k].value for row in cells] for k, m in enumerate(metrics)}
        return pd.DataFrame(values, index=pd.Index(self.names, name="estimator"))

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
        metrics = self._table_metrics(metrics)
        return latex_table(
            [metric_title(m) for m in metrics],
            self._cells(metrics, component, uncertainty, digits),
            corner="Estimator",
            digits=digits,
            caption=caption,
            label=label,
        )

    def to_markdown(
        self,
        metrics: Sequence[str] | None = None,
        *,
        component: str = "all",
        uncertainty: bool = True,
        digits: int = 3,
    ) -> str:
        """The same table for a README."""
        metrics = self._table_metrics(metrics)
        return markdown_table(
            [metric_title(m) for m in metrics],
            self._cells(metrics, component, uncertainty, digits),
            corner="Estimator",
            digits=digits,
        )

    def __str__(self) -> str:
        return f"{len(self.names)} estimators, {self.n_paths} paths\n{self.to_markdown()}"

    def _having(self, metric: str, component: str) -> list[tuple[str, Score]]:
        known = tuple(dict.fromkeys(m for s in self.results.values() for m in s.metrics))
        if metric not in known:
            raise ValueError(f"metric must be one of {', '.join(known)}, got {metric!r}")
        have = [
            (name, score)
            for name, score in self.results.items()
            if metric in score.metrics and component in score.components(metric)
        ]
        if not have:
            raise ValueError(f"component {component!r} does not exist for {metric}")
        return have

    def _table_metrics(self, metrics: Sequence[str] | None) -> list[str]:
        known = {m for s in self.results.values() for m in s.metrics} | {"time"}
        if metrics is None:
            return [m for m in TABLE_METRICS if m in known]
        asked = [metrics] if isinstance(metrics, str) else list(metrics)
        for metric in asked:
            choice(metric, "metric", tuple(sorted(known)))
        return asked

    def _cells(
        self, metrics: Sequence[str], component: str, uncertainty: bool, digits: int
    ) -> list[tuple[str, list[Cell]]]:
        table: dict[str, list[Cell]] = {name: [] for name in self.names}
        for metric in metrics:
            have = [] if metric == "time" else self._having(metric, component)
            found = dict(have)
            column = []
            for name in self.names:
                if name in self.errors:
                    column.append(Cell(np.nan, text="failed"))
                elif metric == "time":
                    column.append(Cell(1e3 * self.seconds[name] / self.n_paths))
                elif name in found:
                    ratio = found[name].ratio(metric, component)
                    se = ratio.interval()[0] if uncertainty else np.nan
                    column.append(Cell(ratio.value, se))
                else:
                    column.append(Cell(np.nan))
            texts = [plain(Cell(c.value, c.se), digits).partition(" ")[0] for c in column]
            values = [c.value for c in column]
            best = mark_best(values, [loss(metric, v) for v in values], texts)
            for name, cell, flag in zip(self.names, column, best):
                table[name].append(Cell(cell.value, cell.se, flag, cell.text))
        return list(table.items())
