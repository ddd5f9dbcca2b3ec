"""How good an estimate is: accuracy, calibration and sharpness against the truth.

Everything is reduced at once to sums per path and sums per step, so that scores of batches of
paths can be joined (`Score.join`) without keeping the estimates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array
from afafilter._base.frames import data_frame
from afafilter._base.shown import ShownByFields
from afafilter.results import Estimate, Trajectories
from afafilter.scoring.calibration import pit_frame, reliability_frame
from afafilter.scoring.inputs import (
    Steps,
    checked_lags,
    checked_levels,
    chosen_steps,
    shared_leading,
    true_states,
)
from afafilter.scoring.tally import (
    Ratio,
    Tally,
    chi2_band,
    join_tallies,
    pooled,
    score_energy,
    score_innovations,
    score_points,
    score_states,
)

if TYPE_CHECKING:
    import pandas as pd

LEVELS = (0.5, 0.9, 0.95)
COUNTS = ("n_paths", "n_used", "undetermined")
COLUMNS = ("metric", "component", "value", "se", "low", "high", "band_low", "band_high", *COUNTS)


def empty_row(metric: str, component: str, n_paths: int) -> dict[str, Any]:
    """A row of `Score.frame` of an estimator that failed."""
    found = {"metric": metric, "component": component, "n_paths": n_paths}
    return dict.fromkeys(COLUMNS, np.nan) | found | {"n_used": 0, "undetermined": 0}


@dataclass(frozen=True, eq=False, repr=False)
class Score(ShownByFields):
    """Scores of one estimator: see `score` for the metrics.

    Attributes
    ----------
    t : ndarray, shape (S,)
        Times that were scored.
    n_paths : int
        Number of independent paths n.
    componentwise : mapping
        Metric -> `Tally` with one column per state component.
    joint : mapping
        Metric -> `Tally` with one column.
    label : str
        The estimate's name.
    """

    t: Array
    n_paths: int
    componentwise: Mapping[str, Tally]
    joint: Mapping[str, Tally]
    label: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)
    pit: Array | None = None

    def _facts(self) -> dict[str, str]:
        found = {name: f"{self.value(name):.6g}" for name in self.metrics if name != "bias"}
        about = f"{self.label or 'unnamed'}, {self.n_paths} paths, {len(self.t)} times"
        return {"of": about, **found}

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics present."""
        return tuple(dict.fromkeys([*self.componentwise, *self.joint]))

    def components(self, metric: str) -> tuple[str, ...]:
        """ "all" and / or "x0", "x1"...: the components a metric is given for."""
        if metric not in self.metrics:
            raise ValueError(f"metric must be one of {', '.join(self.metrics)}, got {metric!r}")
        pooled = () if metric == "bias" else ("all",)
        if metric not in self.componentwise:
            return pooled
        d = self.componentwise[metric].path_sum.shape[1]
        return pooled + tuple(f"x{i}" for i in range(d))

    def ratio(self, metric: str, component: str = "all") -> Ratio:
        """Per-path sums and counts of a metric.

        Raises
        ------
        ValueError
            Unknown metric, or one that does not exist for the component.
        """
        return Ratio(*self._columns(metric, component, "path"), metric == "rmse")

    def value(self, metric: str, component: str = "all") -> float:
        """One number: the metric pooled over paths and steps."""
        return self.ratio(metric, component).value

    def _columns(self, metric: str, component: str, per: str) -> tuple[Array, Array]:
        """Sums and counts of a metric per "path" or per "step"."""
        names = self.components(metric)
        if component not in names:
            raise ValueError(f"component of {metric} must be one of {names}, got {component!r}")
        pooled_over = metric in self.joint and component == "all"
        tally = (self.joint if pooled_over else self.componentwise)[metric]
        total, count = getattr(tally, f"{per}_sum"), getattr(tally, f"{per}_count")
        if component == "all":
            return total.sum(1), count.sum(1)
        k = int(component[1:])
        return total[:, k], count[:, k]

    def rows(self) -> list[dict[str, Any]]:
        """The rows of `frame`."""
        places = [(metric, c) for metric in self.metrics for c in self.components(metric)]
        if not places:
            return []
        both = zip(*(self._columns(*place, "path") for place in places))
        sums, counts = (np.stack(x) for x in both)  # (places, n)
        values = pooled(sums, counts, np.array([metric == "rmse" for metric, _ in places]))
        bands = self._bands([metric for metric, _ in places], counts)
        columns = (x.tolist() for x in (counts.sum(-1), *values, *bands))
        out = []
        for (metric, component), used, *row in zip(places, *columns):
            entries = round(used)
            left_out = self._possible(metric, component, used) - entries
            found = metric, component, *row, self.n_paths, entries, left_out
            out.append(dict(zip(COLUMNS, found)))
        return out

    def _possible(self, metric: str, component: str, entries: float) -> int:
        """Entries that would be used if everything were determined."""
        if metric == "ljung_box":
            return int(entries)
        steps = self.n_paths * len(self.t)
        if component != "all" or metric in ("nlpd", "energy"):
            return steps
        if metric == "nis":
            return steps * int(self.info["obs_dim"])
        return steps * int(self.info["dim"])

    def _bands(self, metrics: Sequence[str], counts: Array) -> tuple[Array, Array]:
        """Chi-square bands of the metrics that have one, NaN of the others; counts (metrics, n)."""
        dof = np.full(len(metrics), np.nan)
        for k, metric in enumerate(metrics):
            if metric == "nees":
                dof[k] = (counts[k] / max(len(self.t), 1)).sum()
            elif metric in ("nis", "ljung_box"):
                dof[k] = counts[k].sum()
        return chi2_band(dof)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Tidy frame, one row per metric and component.

        Columns: metric, component ("all", "x0", ...), value, se (standard error over paths), low
        and high (95 % Student interval over paths), band_low and band_high (where a calibrated
        estimator lies with 95 %: nees, nis and ljung_box only), n_paths, n_used (entries counted;
        degrees of freedom for nees, nis, ljung_box), undetermined (entries left out).
        """
        return data_frame(self.rows(), columns=list(COLUMNS))

    def over_time(self) -> pd.DataFrame:
        """Tidy frame, one row per time, metric and component: t, metric, component, value, band.

        Paths are independent, so the chi-square bands of nees and nis are exact here.
        """
        import pandas as pd

        parts = []
        for metric in (name for name in self.metrics if name != "ljung_box"):
            for name, values, count in self._series(metric, "step"):
                low, high = chi2_band(count) if metric in ("nees", "nis") else (np.nan, np.nan)
                part = {"t": self.t, **name, "value": values, "band_low": low, "band_high": high}
                parts.append(pd.DataFrame(part))
        return pd.concat(parts, ignore_index=True)

    def per_path(self) -> pd.DataFrame:
        """Tidy frame, one row per path, metric and component: path, metric, component, value."""
        import pandas as pd

        path = {"path": np.arange(self.n_paths)}
        parts = [
            pd.DataFrame({**path, **name, "value": values})
            for metric in self.metrics
            for name, values, _ in self._series(metric, "path")
        ]
        return pd.concat(parts, ignore_index=True)

    def _series(self, metric: str, per: str) -> Iterator[tuple[dict[str, str], Array, Array]]:
        """Of each component: what it is called, the metric per "path" or "step", and its counts."""
        for component in self.components(metric):
            total, count = self._columns(metric, component, per)
            values = Ratio(total, count, metric == "rmse").of(total, count)
            yield {"metric": metric, "component": component}, values, count

    def pit_histogram(self) -> pd.DataFrame:
        """Histogram of the probability integral transform of the truths, uniform if calibrated.

        Columns component, lower, upper (of the bin), share, low, high (95 % Student interval over
        paths). Hollow in the middle: overconfident; heaped there: too cautious; slanted: biased.

        Raises
        ------
        ValueError
            If the estimate claimed no covariances, or no truth was given.
        """
        return pit_frame(self._known_pit())

    def reliability(self) -> pd.DataFrame:
        """Reliability diagram: how often central intervals of each nominal level hold the truth.

        Columns component, level, coverage, low, high (95 % Student interval over paths).

        Raises
        ------
        ValueError
            If the estimate claimed no covariances, or no truth was given.
        """
        return reliability_frame(self._known_pit())

    def _known_pit(self) -> Array:
        if self.pit is None:
            raise ValueError(
                f"the score of {self.label or 'this estimate'!r} knows no probabilities: it needs "
                "an estimate with covariances and the true states"
            )
        return self.pit

    @staticmethod
    def join(parts: Iterable[Score]) -> Score:
        """The score of all paths of several scores on the same steps (paths in this order).

        Raises
        ------
        ValueError
            If there is none, or their times or metrics differ.
        """
        scores = list(parts)
        if not scores:
            raise ValueError("join needs at least one score, got none")
        first = scores[0]
        if len(scores) == 1:
            return first
        for other in scores[1:]:
            if other.metrics != first.metrics or not np.array_equal(other.t, first.t):
                raise ValueError("scores to join must have the same metrics and times")

        componentwise, joint = (
            {name: join_tallies([getattr(s, kind)[name] for s in scores]) for name in own}
            for kind, own in (("componentwise", first.componentwise), ("joint", first.joint))
        )
        known = [s.pit for s in scores if s.pit is not None]
        pit = None if first.pit is None else np.concatenate(known)
        n = sum(s.n_paths for s in scores)
        return Score(first.t, n, componentwise, joint, first.label, first.info, pit)


def score(
    estimate: Estimate,
    truth: Trajectories | ArrayLike | None,
    *,
    steps: Steps = None,
    levels: Sequence[float] = LEVELS,
    energy: bool = False,
    lags: int | None = None,
) -> Score:
    """Compare an estimate with the true states.

    Parameters
    ----------
    estimate : Estimate
        Mean (..., T, d), claimed covariance (..., T, d, d); leading axes are independent
        paths. A point estimate (`Estimate.is_point`) is scored by rmse, bias and crps alone, which
        for a point is the mean absolute error.
    truth : Trajectories or array_like, optional
        `Trajectories`, or states (..., T, d) of the same shape as the means. None (real
        data): only the innovation diagnostics nis and ljung_box.
    steps : slice or array_like, optional
        Which times count: a slice, indices, or a mask (T,); None = all. Leave out a burn-in by
        slice(k, None).
    levels : sequence of float
        Central intervals whose coverage and interval score are reported.
    energy : bool
        Also the energy score (about ten times the cost of the rest).
    lags : int, optional
        Of the Ljung-Box statistic; None = min(10, S // 5).

    Returns
    -------
    Score
        ``.frame`` is the tidy table, ``.over_time()`` the same per time, ``.value("rmse")`` one.
        Metrics (lower is better unless said):

        - rmse, bias: of the mean, state units; "all" is sqrt(mean of squares over components).
        - crps: continuous ranked probability score of the Gaussian marginals, state units.
        - nlpd: -log density of the truth, 2 pi included; "all" is the joint density.
        - nees: squared error in the metric of the claimed covariance / degrees of freedom; 1 if
          calibrated, above: overconfident.
        - coverage50 ...: share of truths inside the central intervals; right at the level.
        - interval50 ...: interval score of the same intervals (Winkler), width + 2 / (1 - level)
          times the distance of truths outside; state units.
        - energy: multivariate CRPS, state units.
        - nis: like nees for innovations, where the estimator gives them (filters).
        - ljung_box: whiteness of standardised innovations, statistic / degrees of freedom, 1 if
          white.

    Raises
    ------
    ValueError
        Shapes or times that do not match, a level outside (0, 1), negative claimed variances, no
        steps.

    Notes
    -----
    Errors at different times of one path are correlated. Standard errors and intervals therefore
    come from the spread over paths. The chi-square band of nees is exact at one time
    (`over_time`); for the time average the same band for n paths is given, which would be exact
    for perfectly correlated times and is too wide otherwise: outside of it means not calibrated,
    inside proves little, so look whether [low, high] holds 1. Innovations of a right filter are
    independent over time, so the bands of nis and ljung_box pool both. That of ljung_box is
    asymptotic, about a tenth too narrow for 60 steps; its mean is exactly 1 for white Gaussian
    innovations, so look at [low, high] there too.

    Entries with an undetermined mean (NaN) or variance (inf) are left out and counted. Where a
    claimed covariance is singular, nees counts its rank, and an error outside of its range makes
    nees and nlpd infinite; nlpd leaves out entries without a density otherwise.

    Cost O(n S d^3), the d^3 once where paths share covariances; memory O(n S d).

    Examples
    --------
    >>> from afafilter import kalman_filter, score, simulate, spiral
    >>> data = simulate(spiral(), range(50), 20, rng=0)
    >>> found = score(kalman_filter(spiral(), data.t, data.z), data)
    >>> bool(0.9 < found.value("nees") < 1.1)
    True
    """
    marks = checked_levels(levels)
    if not isinstance(estimate, Estimate):
        raise TypeError(
            f"estimate must be an Estimate, got {type(estimate).__name__}; "
            "the order is score(estimate, truth)"
        )
    pick = chosen_steps(steps, len(estimate.t))
    t = np.asarray(estimate.t)[pick]
    if len(t) == 0:
        raise ValueError("steps must select at least one time, got none")
    componentwise: dict[str, Tally] = {}
    joint: dict[str, Tally] = {}
    d = estimate.mean.shape[-1]
    info: dict[str, Any] = {"dim": d}
    pit = None
    lead = estimate.mean.shape[:-2]
    n = int(np.prod(lead))
    if n == 0:
        raise ValueError(f"estimate must hold at least one path, got shape {estimate.mean.shape}")
    if truth is not None:
        x = true_states(truth, estimate)
        mean = estimate.mean[..., pick, :].reshape(n, len(t), d)
        cov = shared_leading(estimate.cov, lead, (len(estimate.t), d, d), "cov")[:, pick]
        states = x[..., pick, :].reshape(mean.shape)
        if estimate.is_point:
            score_points(mean, states, componentwise)
        else:
            pit = score_states(mean, cov, states, marks, componentwise, joint)
            if energy:
                score_energy(mean, cov, states, joint)
    if estimate.innovation is not None and estimate.innovation_cov is not None:
        p = estimate.innovation.shape[-1]
        info["obs_dim"] = p
        residual = estimate.innovation[..., pick, :].reshape(n, len(t), p)
        S = shared_leading(
            estimate.innovation_cov, lead, (len(estimate.t), p, p), "innovation_cov"
        )[:, pick]
        score_innovations(residual, S, checked_lags(lags, len(t)), joint)
    elif truth is None:
        raise ValueError("truth must be given: this estimate has no innovations to score")
    return Score(t, n, componentwise, joint, estimate.label, info, pit)
