"""Charts of a page as plotly.js takes them: data and layout, plain dictionaries."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from afafilter._base.checks import Array
from afafilter._base.normal import half_width
from afafilter.io.series import Series
from afafilter.report.analysis import Analysis

if TYPE_CHECKING:
    from afafilter.studies.plan import StudyPlan

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6b6b6b"
MOST_POINTS = 6000
"""Points of a line; beyond, the smallest and largest of each stretch are drawn."""
LEGEND = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"}
"""Below everything else, whatever the width."""
LOGARITHMIC: dict[str, Any] = {"xaxis": {"type": "log"}, "yaxis": {"type": "log"}}
DOT, DOTTED = {"color": BLUE, "size": 4}, {"color": GREY, "dash": "dot"}
Z95 = half_width(0.95)


def thinned(x: Array, limit: int = MOST_POINTS) -> Any:
    """Rows to draw of a long series: of each stretch the smallest and the largest, in order."""
    n = len(x)
    if n <= limit:
        return np.arange(n)
    edges = np.linspace(0, n, limit // 2 + 1).astype(int)
    rows = set()
    for low, high in itertools.pairwise(edges):
        part = x[low:high]
        if np.isfinite(part).any():
            rows |= {low + int(np.nanargmin(part)), low + int(np.nanargmax(part))}
        else:
            rows.add(low)
    return np.array(sorted(rows))


def stamps(series: Series, t: Array) -> list[Any]:
    """Times as the axis shows them: dates on the clocks of the data, or numbers."""
    if series.stamps is None:
        return list(t.tolist())
    if not series.stamps.dated:
        return list(series.stamps.at(t).tolist())
    values = series.stamps.at(t)
    return [text[:23] for text in series.stamps.text(values).tolist()]


def series_chart(found: Analysis, i: int) -> dict[str, Any]:
    """Data with outliers, smoothed signal, forecast, and bands of signal and measurement."""
    series, t = found.series, found.t_smooth
    name, z = series.columns[i], series.z[:, i]
    signal, sd, obs = found.signal[:, i], found.signal_sd[:, i], found.obs_sd[:, i]
    late = t > series.t[-1]
    traces: list[dict[str, Any]] = []
    for mask, colour, word in ((~late, BLUE, "smoothed"), (late, RED, "forecast")):
        rows = np.flatnonzero(mask)
        if not late.any() or not len(rows):
            continue
        if word == "forecast" and rows[0] > 0:
            rows = np.concatenate([[rows[0] - 1], rows])
        rows = rows[thinned(signal[rows])]
        x = stamps(series, t[rows])
        for spread, label, opacity in (
            (obs, "95 % of measurements", 0.12),
            (sd, "95 % of the signal", 0.28),
        ):
            traces += _band(x, signal[rows], spread[rows], colour, (word, label), opacity)
        line = {"color": colour, "width": 1.5}
        traces.append(_trace(x, signal[rows], word, "lines", legendgroup=word, line=line))
    flagged = found.outliers[:, i]
    for mask, marker, word in (
        (~flagged, {"color": GREY, "size": 4}, name),
        (flagged, {"color": ORANGE, "size": 9, "symbol": "x"}, "outlier"),
    ):
        rows = np.flatnonzero(mask)
        if len(rows) or word == name:
            rows = rows[thinned(z[rows])]
            x = stamps(series, series.t[rows])
            traces.append(_trace(x, z[rows], word, "markers", marker=marker))
    unit = f" ({series.units})" if series.units and len(series.columns) == 1 else ""
    slider = {"rangeslider": {"visible": len(series.t) > 200, "thickness": 0.06}}
    more: dict[str, Any] = {"xaxis": slider, "legend": LEGEND, "hovermode": "x unified"}
    return _chart(traces, y=f"{name}{unit}", **more)


def _band(
    x: list[Any], centre: Array, sd: Array, colour: str, of: tuple[str, str], opacity: float
) -> list[dict[str, Any]]:
    """A band that comes and goes with the line of its word in the legend."""
    name = ", ".join(of)
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    line = {"width": 0, "color": colour}
    shared: dict[str, Any] = {"line": line, "legendgroup": of[0], "showlegend": False}
    fill = {"fill": "tonexty", "fillcolor": f"rgba({red},{green},{blue},{opacity})"}
    return [
        _trace(x, centre - Z95 * sd, f"{name}, lower", "lines", **shared),
        _trace(x, centre + Z95 * sd, name, "lines", **shared, **fill),
    ]


def residual_chart(found: Analysis, i: int) -> dict[str, Any]:
    """Standardised one-step errors over time."""
    residuals = found.checks.residuals[:, i]
    rows = thinned(residuals)
    x = stamps(found.series, found.series.t[rows])
    data = _trace(x, residuals[rows], "standardised error", "markers", marker=DOT)
    title = f"{found.series.columns[i]}: one-step errors / sd"
    return _chart([data], title, shapes=[_line(-Z95), _line(Z95)], showlegend=False)


def quantile_chart(found: Analysis, i: int) -> dict[str, Any]:
    """Quantiles of the standardised errors against those of the normal law."""
    from scipy.special import ndtri

    ranked = np.sort(found.checks.residuals[:, i])
    ranked = ranked[np.isfinite(ranked)]
    normal = ndtri((np.arange(len(ranked)) + 0.5) / max(len(ranked), 1))
    rows = thinned(ranked, 2000)
    ends = [-4, 4]
    data = [
        _trace(_plain(normal[rows]), ranked[rows], "errors", "markers", marker=DOT),
        {"x": ends, "y": ends, "mode": "lines", "line": DOTTED, "name": "normal"},
    ]
    return _chart(data, "quantiles against the normal law", "normal", "errors", showlegend=False)


def correlation_chart(found: Analysis, i: int) -> dict[str, Any]:
    """Autocorrelation of the standardised errors with its 95 % band."""
    acf, band = found.checks.acf[i, 1:], found.checks.acf_band
    lags = list(range(1, len(acf) + 1))
    data = _trace(lags, acf, "autocorrelation", type="bar", marker={"color": BLUE})
    title, axis = "autocorrelation of the errors", "lag, in observations"
    return _chart([data], title, axis, shapes=[_line(-band), _line(band)], showlegend=False)


def hold_out_chart(found: Analysis) -> dict[str, Any]:
    """Root mean squared error on held-out values, by estimator and kind."""
    frame, traces = found.compared.frame, []
    for kind, words, colour in (
        ("random", "entries at random", BLUE),
        ("blocks", "whole blocks", ORANGE),
        ("forecast", "forecast", GREEN),
    ):
        part = frame[frame["kind"] == kind]
        x, rmse = part["estimator"].tolist(), part["rmse"].to_numpy()
        traces.append(_trace(x, rmse, words, type="bar", marker={"color": colour}))
    return _chart(traces, y="rmse of held-out values", barmode="group", legend=LEGEND)


def map_chart(found: Analysis, weights: Array, title: str) -> dict[str, Any]:
    """Weights of observations (columns) in the estimates (rows)."""
    t = stamps(found.series, found.map_t)
    size = float(np.abs(weights).max()) or 1.0
    low = -size if (weights < -1e-9 * size).any() else 0.0
    data = {
        "type": "heatmap",
        "x": t,
        "y": t,
        "z": [_plain(row) for row in weights],
        "zmin": low,
        "zmax": size,
        "colorscale": "RdBu" if low else [[0, "#ffffff"], [1, BLUE]],
        "reversescale": bool(low),
        "hovertemplate": "estimate at %{y}<br>observation at %{x}<br>weight %{z:.3g}"
        "<extra></extra>",
    }
    down = {"autorange": "reversed"}
    return _chart([data], title, "observation at", "estimate at", yaxis=down)


def interval_chart(names: Sequence[str], values: Array, title: str) -> dict[str, Any]:
    """A dot with its interval per name: values (n, 3) are value, low, high."""
    middle, low, high = values.T
    ends = {"array": _plain(high - middle), "arrayminus": _plain(middle - low)}
    bars = {"type": "data", "symmetric": False, **ends}
    look = {"mode": "markers", "marker": {"color": BLUE, "size": 9}, "error_x": bars}
    data = {"x": _plain(middle), "y": list(names), "name": title, **look}
    down = {"autorange": "reversed", "automargin": True}
    return _chart([data], title, yaxis=down, showlegend=False)


def duration_chart(plan: StudyPlan) -> dict[str, Any]:
    """Hours against workers with a band, a line per number of cells."""
    workers = [2**k for k in range(11)]
    traces: list[dict[str, Any]] = []
    for (cells, part), colour in zip(plan.table((), workers).groupby("cells"), (BLUE, ORANGE)):
        low, high, hours = (_plain(part[name].to_numpy()) for name in ("low", "high", "hours"))
        about = {"x": workers, "mode": "lines", "legendgroup": str(cells)}
        edge = about | {"line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
        shade = {"fill": "tonexty", "fillcolor": f"{colour}33"}
        middle = {"y": hours, "name": f"{cells} cells", "line": {"color": colour}}
        traces += [edge | {"y": low}, edge | {"y": high} | shade, about | middle]
    return _chart(traces, x="workers", y="hours", **LOGARITHMIC)


def share_chart(plan: StudyPlan) -> dict[str, Any]:
    """Seconds per cell of every estimator, mean over the study, with intervals."""
    values = plan.costs[["seconds", "low", "high"]].to_numpy(dtype=float)
    values = np.where(np.isfinite(values), values, values[:, :1])
    return interval_chart(plan.costs["estimator"].tolist(), values, "seconds per cell")


def law_chart(plan: StudyPlan) -> dict[str, Any]:
    """Measured cells beside what the law says of their sizes: on the line if it is right."""
    traces = [
        _trace(_plain(part["law"].to_numpy()), part["seconds"].to_numpy(), str(name), "markers")
        for name, part in plan.fitted.groupby("estimator", sort=False)
    ]
    ends = [float(plan.measured["seconds"].min()), float(plan.measured["seconds"].max())]
    traces.append({"x": ends, "y": ends, "mode": "lines", "name": "equal", "line": DOTTED})
    below = {"orientation": "h", "y": -0.35}
    axes = {"x": "seconds by the law", "y": "seconds measured"}
    return _chart(traces, **axes, legend=below, **LOGARITHMIC)


def _chart(
    data: list[dict[str, Any]], title: str = "", x: str = "", y: str = "", **layout: Any
) -> dict[str, Any]:
    """Traces and their layout, with what title and axes are called."""
    if title:
        layout["title"] = {"text": title}
    for axis, words in (("xaxis", x), ("yaxis", y)):
        if words:
            layout[axis] = layout.get(axis, {}) | {"title": {"text": words}}
    return {"data": data, "layout": layout}


def _trace(x: list[Any], y: Array, name: str, mode: str = "", **look: Any) -> dict[str, Any]:
    return {"x": x, "y": _plain(y), "name": name} | ({"mode": mode} if mode else {}) | look


def _line(y: float) -> dict[str, Any]:
    """A dotted line across at this height."""
    across = {"type": "line", "xref": "paper", "x0": 0, "x1": 1}
    return across | {"y0": float(y), "y1": float(y), "line": DOTTED | {"width": 1}}


def _plain(x: Array) -> list[float | None]:
    """Numbers for JSON: six digits are enough to draw, what is not finite is a gap."""
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in x]
