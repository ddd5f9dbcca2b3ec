"""Pictures of results: `Estimate.plot`, `FitResult.plot`, `Comparison.plot` and the like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from afafilter._base.shown import component_names
from afafilter.kalman.estimators import rts_smoother
from afafilter.plotting.colours import COLOURS, DASHES, line_style
from afafilter.plotting.drawing import band, date_axis, intervals, observations, one_path
from afafilter.plotting.styles import figure
from afafilter.results import Estimate, Trajectories
from afafilter.studies.printed import metric_title

if TYPE_CHECKING:
    from afafilter.learning.diagnostics import Check, Diagnostics
    from afafilter.learning.result import FitResult
    from afafilter.studies.comparison import Comparison
    from afafilter.studies.result import StudyResult

MOST_PANELS = 8


def estimate(
    result: Estimate,
    *,
    components: list[int] | None = None,
    names: list[str] | None = None,
    level: float = 0.95,
    path: int = 0,
    units: str = "",
    axes: Any = None,
) -> Any:
    """An estimate over time or dates, one panel a component, with its central interval.

    Parameters
    ----------
    result : Estimate
        The estimate; `result.observed().plot()` draws what a measurement would show.
    components : list of int, optional
        Which; default the first eight.
    names : list of str, optional
        Of all components, for the axes.
    level : float
        Of the interval.
    path : int
        Which one when there are several.
    units : str
        Of the values, for the axes.
    axes
        Where to draw; default new ones, one per component.

    Raises
    ------
    ValueError
        If a component does not exist, or there are not as many axes as components.
    """
    d = result.mean.shape[-1]
    words = component_names(d, names or result.names)
    chosen = list(range(min(d, MOST_PANELS))) if components is None else list(components)
    panels = _panels(len(chosen), axes)
    index = result.index
    when = result if index is None else replace(result, t=index.at(result.t))
    for ax, k in zip(panels, chosen, strict=True):
        band(when, k, level=level, path=path, ax=ax, label=title(result))
        _dress(ax, result, words[k], units)
    panels[0].legend(title=f"band: {100 * level:g} %")
    return axes if axes is not None else panels


def trajectories(
    data: Trajectories,
    *,
    path: int = 0,
    names: list[str] | None = None,
    units: str = "",
    axes: Any = None,
) -> Any:
    """States as lines and, where as many components are observed, observations as points.

    Struck observations are ringed. Parameters as for `estimate`.
    """
    d, p = data.x.shape[-1], data.z.shape[-1]
    shown = min(d, MOST_PANELS)
    panels = _panels(shown, axes)
    x, z = one_path(data.x, path), one_path(data.z, path)
    for k, ax in enumerate(panels):
        ax.plot(data.t, x[:, k], color=COLOURS["truth"], label="state")
        if p == d:
            observations(data.t, z, k, ax=ax)
            if data.outliers is not None:
                struck = data.outliers.reshape(-1, len(data.t))[path]
                ring: dict[str, Any] = {"mfc": "none", "color": COLOURS["outlier"]}
                ax.plot(data.t[struck], z[struck, k], "o", label="outlier", **ring)
        ax.set_ylabel(_with_units(f"x{k}" if names is None else names[k], units))
    panels[-1].set_xlabel("time")
    panels[0].legend()
    return axes if axes is not None else panels


def fit(
    result: FitResult, *, level: float = 0.95, path: int = 0, units: str = "", axes: Any = None
) -> Any:
    """A fit: data with the smoothed signal, what each summand adds, and standardised innovations.

    Parameters as for `estimate`; the panels are 2 and one for each summand where there are several.
    """
    problem, model = result.problem, result.model
    t = problem.data.t
    smoothed = rts_smoother(model, t, problem.z, obs_cov=problem.data.obs_cov)
    parts = smoothed.components()
    several = parts if len(parts) > 1 else {}
    panels = _panels(2 + len(several), axes)
    signal = smoothed.observed(noise=False)
    observations(t, problem.z, 0, path=path, ax=panels[0])
    colour = COLOURS["RTS"]
    band(signal, level=level, path=path, ax=panels[0], label="smoothed signal", color=colour)
    panels[0].set_ylabel(_with_units("observed", units))
    panels[0].legend(title=f"band: {100 * level:g} %")
    for k, (name, part) in enumerate(several.items()):
        ax = panels[1 + k]
        band(part, 0, level=level, path=path, ax=ax, **line_style(1 + k))
        ax.set_ylabel(_with_units(name, units))
    assert smoothed.innovation is not None
    assert smoothed.innovation_cov is not None
    sd = np.sqrt(np.diagonal(smoothed.innovation_cov, axis1=-2, axis2=-1))
    with np.errstate(invalid="ignore"):
        residual = (smoothed.innovation / sd).reshape(-1, len(t), sd.shape[-1])[path][:, 0]
    last = panels[-1]
    last.plot(t, residual, ".", color=COLOURS["data"])
    for height in (-1.96, 1.96):
        last.axhline(height, linestyle=":", color=COLOURS["truth"])
    last.set(ylabel="standardised\ninnovation", xlabel=_with_units("time", result.time_unit))
    return axes if axes is not None else panels


def comparison(result: Comparison, metric: str = "rmse", *, ax: Axes | None = None) -> Axes:
    """One metric of a comparison: a dot with its interval per estimator."""
    frame = result.intervals(metric)
    numbers = (frame[name].to_numpy() for name in ("value", "lower", "upper"))
    ax = intervals(list(frame["estimator"]), *numbers, ax=ax)
    ax.set_xlabel(metric_title(metric))
    return ax


def study(result: StudyResult, metric: str = "rmse", *, axes: Any = None) -> Any:
    """One metric of a study, a panel per model and scenario: a dot with its interval per estimator.

    Parameters
    ----------
    result : StudyResult
        What `Study.run` returns.
    metric : str
        "rmse", "crps", "nlpd"...
    axes
        Where to draw; default a new figure of one column's width.

    Raises
    ------
    ValueError
        Unknown metric, nothing finished yet, or not as many axes as panels.
    """
    places = list(result.pooled(metric).groupby(["model", "scenario"], sort=False))
    if not places:
        raise ValueError(f"{result.directory} holds no finished cell of this study: run it first")
    if axes is None:
        height = len(places) * (0.5 + 0.16 * len(places[0][1])) + 0.2
        axes = figure(len(places), 1, height=height, sharex=True, squeeze=False)[1][:, 0]
    panels = _given(len(places), axes)
    several = [len({place[k] for place, _ in places}) > 1 for k in range(2)]
    for ax, (place, part) in zip(panels, places, strict=True):
        numbers = (part[name].to_numpy() for name in ("value", "lower", "upper"))
        intervals(list(part["estimator"]), *numbers, ax=ax)
        ax.set_title(", ".join(str(name) for name, told in zip(place, several) if told), loc="left")
    panels[-1].set_xlabel(metric_title(metric))
    return axes


def diagnostics(
    checks: Diagnostics, component: int = 0, *, path: int = 0, axes: Sequence[Axes] | None = None
) -> Sequence[Axes]:
    """The four pictures of a residual check, the tests and their p values in the titles.

    Standardised innovations over time with +-2 (NIS); their autocorrelations with the 95 % band
    (Ljung-Box); ordered against normal quantiles (Jarque-Bera); the share of their sum of squares
    reached so far, a straight line when the variance is constant, with the outer thirds that are
    compared marked.

    Parameters
    ----------
    checks : Diagnostics
        Result of `diagnose`.
    component, path : int
        Which observed component, and which path residuals over time are of; tests are of all.
    axes : sequence of matplotlib Axes, optional
        Four axes; default a new figure of one column's width.
    """
    from scipy.special import ndtri

    if axes is None:
        axes = figure(4, 1, height=6.4)[1]
    over_time, lags, normal, squares = axes
    e = one_path(checks.residuals, path)[:, component]
    t, e = checks.t[np.isfinite(e)], e[np.isfinite(e)]
    line: dict[str, Any] = {"color": COLOURS["Kalman"], "lw": 0.8}
    guide: dict[str, Any] = {"color": "0.5", "lw": 0.6, "ls": DASHES[1]}

    over_time.plot(t, e, marker="o", ms=1.8, **line)
    over_time.axhline(0, color="0.5", lw=0.6)
    for level in (-2, 2):
        over_time.axhline(level, **guide)
    over_time.set(ylabel="innovation\n(std. deviations)", xlabel="time")
    over_time.set_title(_tested(checks.nis_test, "NIS"), loc="left")

    acf = checks.acf[component, 1:]
    lags.bar(np.arange(1, len(acf) + 1), acf, width=0.35, color=COLOURS["Kalman"])
    lags.axhline(0, color="0.5", lw=0.6)
    for sign in (-1, 1):
        lags.axhline(sign * checks.acf_band, **guide)
    top = 1.25 * max(checks.acf_band, float(np.abs(acf).max()))
    lags.set(ylim=(-top, top), ylabel="autocorrelation", xlabel="lag (observations)")
    lags.xaxis.set_major_locator(MaxNLocator(integer=True))
    name = f"Ljung\u2013Box Q({len(acf)})"
    lags.set_title(_tested(checks.ljung_box[component], name), loc="left")

    quantiles = ndtri((np.arange(len(e)) + 0.5) / len(e))
    normal.axline((0, 0), slope=1, **guide)
    normal.plot(quantiles, np.sort(e), "o", ms=1.8, color=COLOURS["Kalman"])
    normal.set(xlabel="normal quantile", ylabel="ordered innovation")
    normal.set_title(_tested(checks.normality[component], "Jarque\u2013Bera"), loc="left")

    share = np.cumsum(e**2) / np.sum(e**2)
    third = round(len(e) / 3)
    for first, last in ((0, third - 1), (len(e) - third, len(e) - 1)):
        squares.axvspan(t[first], t[last], color="0.9", lw=0)
    squares.plot(t[[0, -1]], [0, 1], **guide)
    squares.step(t, share, where="post", **line)
    squares.set(ylabel="share of squares", xlabel="time")
    name = f"last/first third H({third})"
    squares.set_title(_tested(checks.heteroscedasticity[component], name), loc="left")
    return axes


def _tested(check: Check, name: str) -> str:
    return f"{name} = {check.statistic:.2f}, p = {check.p_value:.2f}"


def title(result: Estimate) -> str:
    """What is drawn, in words: "robust RTS, StudentT"."""
    weight = result.info.get("weight")
    name = result.label or "estimate"
    return name if weight is None else f"robust {name}, {weight}"


def _panels(count: int, axes: Any) -> list[Axes]:
    if axes is None:
        height = 1.2 + 1.6 * count
        _, made = plt.subplots(count, 1, sharex=True, squeeze=False, figsize=(7.0, height))
        return list(made[:, 0])
    return _given(count, axes)


def _given(count: int, axes: Any) -> list[Axes]:
    given = list(np.atleast_1d(np.asarray(axes, dtype=object)).ravel())
    if len(given) != count:
        raise ValueError(f"axes must be {count}, one for each panel, got {len(given)}")
    return given


def _dress(ax: Axes, result: Estimate, name: str, units: str) -> None:
    ax.set_ylabel(_with_units(name, units))
    if result.index is not None and result.index.dated:
        date_axis(ax)
    else:
        ax.set_xlabel(_with_units("time", "" if result.index is None else result.index.unit))


def _with_units(name: str, units: str) -> str:
    return f"{name} ({units})" if units else name
