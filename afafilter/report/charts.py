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
    name = series.columns[i]
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
        traces.append(
            {
                "x": x,
                "y": _plain(signal[rows]),
                "mode": "lines",
                "name": word,
                "legendgroup": word,
                "line": {"color": colour, "width": 1.5},
            }
        )
    flagged = found.outliers[:, i]
    for mask, look, word in (
        (~flagged, {"color": GREY, "size": 4}, name),
        (flagged, {"color": ORANGE, "size": 9, "symbol": "x"}, "outlier"),
    ):
        rows = np.flatnonzero(mask)
        if len(rows) or word == name:
            rows = rows[thinned(series.z[rows, i])]
            traces.append(
                {
                    "x": stamps(series, series.t[rows]),
                    "y": _plain(series.z[rows, i]),
                    "mode": "markers",
                    "name": word,
                    "marker": look,
                }
            )
    unit = f" ({series.units})" if series.units and len(series.columns) == 1 else ""
    layout = {
        "yaxis": {"title": {"text": f"{name}{unit}"}},
        "xaxis": {"rangeslider": {"visible": len(series.t) > 200, "thickness": 0.06}},
        "legend": LEGEND,
        "hovermode": "x unified",
    }
    return {"data": traces, "layout": layout}


def _band(
    x: list[Any], centre: Array, sd: Array, colour: str, of: tuple[str, str], opacity: float
) -> list[dict[str, Any]]:
    """A band that comes and goes with the line of its word in the legend."""
    name = ", ".join(of)
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    fill = f"rgba({red},{green},{blue},{opacity})"
    line = {"width": 0, "color": colour}
    shared = {"x": x, "mode": "lines", "line": line, "legendgroup": of[0], "showlegend": False}
    return [
        shared | {"y": _plain(centre - Z95 * sd), "name": f"{name}, lower"},
        shared
        | {"y": _plain(centre + Z95 * sd), "fill": "tonexty", "fillcolor": fill, "name": name},
    ]


def residual_chart(found: Analysis, i: int) -> dict[str, Any]:
    """Standardised one-step errors over time."""
    residuals = found.checks.residuals[:, i]
    rows = thinned(residuals)
    data = [
        {
            "x": stamps(found.series, found.series.t[rows]),
            "y": _plain(residuals[rows]),
            "mode": "markers",
            "marker": {"color": BLUE, "size": 4},
            "name": "standardised error",
        }
    ]
    shapes = [_line(y) for y in (-Z95, Z95)]
    title = f"{found.series.columns[i]}: one-step errors / sd"
    return {
        "data": data,
        "layout": {"shapes": shapes, "title": {"text": title}, "showlegend": False},
    }


def quantile_chart(found: Analysis, i: int) -> dict[str, Any]:
    """Quantiles of the standardised errors against those of the normal law."""
    from scipy.special import ndtri

    ranked = np.sort(found.checks.residuals[:, i])
    ranked = ranked[np.isfinite(ranked)]
    normal = ndtri((np.arange(len(ranked)) + 0.5) / max(len(ranked), 1))
    rows = thinned(ranked, 2000)
    data = [
        {
            "x": _plain(normal[rows]),
            "y": _plain(ranked[rows]),
            "mode": "markers",
            "marker": {"color": BLUE, "size": 4},
            "name": "errors",
        },
        {
            "x": [-4, 4],
            "y": [-4, 4],
            "mode": "lines",
            "line": {"color": GREY, "dash": "dot"},
            "name": "normal",
        },
    ]
    layout = {
        "title": {"text": "quantiles against the normal law"},
        "showlegend": False,
        "xaxis": {"title": {"text": "normal"}},
        "yaxis": {"title": {"text": "errors"}},
    }
    return {"data": data, "layout": layout}


def correlation_chart(found: Analysis, i: int) -> dict[str, Any]:
    """Autocorrelation of the standardised errors with its 95 % band."""
    acf = found.checks.acf[i, 1:]
    data = [
        {
            "x": list(range(1, len(acf) + 1)),
            "y": _plain(acf),
            "type": "bar",
            "marker": {"color": BLUE},
            "name": "autocorrelation",
        }
    ]
    shapes = [_line(y) for y in (-found.checks.acf_band, found.checks.acf_band)]
    layout = {
        "title": {"text": "autocorrelation of the errors"},
        "shapes": shapes,
        "xaxis": {"title": {"text": "lag, in observations"}},
        "showlegend": False,
    }
    return {"data": data, "layout": layout}


def hold_out_chart(found: Analysis) -> dict[str, Any]:
    """Root mean squared error on held-out values, by estimator and kind."""
    frame = found.compared.frame
    traces = []
    for kind, colour in zip(("random", "blocks", "forecast"), (BLUE, ORANGE, GREEN)):
        part = frame[frame["kind"] == kind]
        traces.append(
            {
                "x": part["estimator"].tolist(),
                "y": _plain(part["rmse"].to_numpy()),
                "type": "bar",
                "name": {
                    "random": "entries at random",
                    "blocks": "whole blocks",
                    "forecast": "forecast",
                }[kind],
                "marker": {"color": colour},
            }
        )
    return {
        "data": traces,
        "layout": {
            "barmode": "group",
            "legend": LEGEND,
            "yaxis": {"title": {"text": "rmse of held-out values"}},
        },
    }


def map_chart(found: Analysis, weights: Array, title: str) -> dict[str, Any]:
    """Weights of observations (columns) in the estimates (rows)."""
    t = stamps(found.series, found.map_t)
    size = float(np.abs(weights).max()) or 1.0
    low = -size if (weights < -1e-9 * size).any() else 0.0
    data = [
        {
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
    ]
    layout = {
        "title": {"text": title},
        "yaxis": {"autorange": "reversed", "title": {"text": "estimate at"}},
        "xaxis": {"title": {"text": "observation at"}},
    }
    return {"data": data, "layout": layout}


def interval_chart(names: Sequence[str], values: Array, title: str) -> dict[str, Any]:
    """A dot with its interval per name: values (n, 3) are value, low, high."""
    middle = _plain(values[:, 0])
    data = [
        {
            "x": middle,
            "y": list(names),
            "mode": "markers",
            "marker": {"color": BLUE, "size": 9},
            "error_x": {
                "type": "data",
                "symmetric": False,
                "array": _plain(values[:, 2] - values[:, 0]),
                "arrayminus": _plain(values[:, 0] - values[:, 1]),
            },
            "name": title,
        }
    ]
    layout = {
        "title": {"text": title},
        "yaxis": {"autorange": "reversed", "automargin": True},
        "showlegend": False,
    }
    return {"data": data, "layout": layout}


def duration_chart(plan: StudyPlan) -> dict[str, Any]:
    """Hours against workers with a band, a line per number of cells."""
    workers = [2**k for k in range(11)]
    traces: list[dict[str, Any]] = []
    for (cells, part), colour in zip(plan.table((), workers).groupby("cells"), (BLUE, ORANGE)):
        low, high = part["low"].to_numpy(), part["high"].to_numpy()
        about = {"x": workers, "mode": "lines", "legendgroup": str(cells)}
        edge = about | {"line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
        shade = {"fill": "tonexty", "fillcolor": f"{colour}33"}
        traces += [
            edge | {"y": _plain(low)},
            edge | {"y": _plain(high)} | shade,
            about
            | {"y": _plain(part["hours"].to_numpy()), "name": f"{cells} cells"}
            | {"line": {"color": colour}},
        ]
    axes = {
        "xaxis": {"type": "log", "title": {"text": "workers"}},
        "yaxis": {"type": "log", "title": {"text": "hours"}},
    }
    return {"data": traces, "layout": axes}


def share_chart(plan: StudyPlan) -> dict[str, Any]:
    """Seconds per cell of every estimator, mean over the study, with intervals."""
    values = plan.costs[["seconds", "low", "high"]].to_numpy(dtype=float)
    values = np.where(np.isfinite(values), values, values[:, :1])
    return interval_chart(plan.costs["estimator"].tolist(), values, "seconds per cell")


def law_chart(plan: StudyPlan) -> dict[str, Any]:
    """Measured cells beside what the law says of their sizes: on the line if it is right."""
    traces: list[dict[str, Any]] = []
    for name, part in plan.fitted.groupby("estimator", sort=False):
        x, y = (_plain(part[column].to_numpy()) for column in ("law", "seconds"))
        traces.append({"x": x, "y": y, "mode": "markers", "name": str(name)})
    ends = [float(plan.measured["seconds"].min()), float(plan.measured["seconds"].max())]
    line = {"x": ends, "y": ends, "mode": "lines", "name": "equal"}
    traces.append(line | {"line": {"color": GREY, "dash": "dot"}})
    axes = {
        "xaxis": {"type": "log", "title": {"text": "seconds by the law"}},
        "yaxis": {"type": "log", "title": {"text": "seconds measured"}},
    }
    return {"data": traces, "layout": axes | {"legend": {"orientation": "h", "y": -0.35}}}


def _line(y: float) -> dict[str, Any]:
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": float(y),
        "y1": float(y),
        "line": {"color": GREY, "dash": "dot", "width": 1},
    }


def _plain(x: Array) -> list[float | None]:
    """Numbers for JSON: six digits are enough to draw, what is not finite is a gap."""
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in x]
