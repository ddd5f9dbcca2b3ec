"""The page: what `analysis` found and `charts` drew, in one file that needs no network."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from afafilter._version import __version__
from afafilter.report import charts
from afafilter.report.analysis import Analysis, tables

if TYPE_CHECKING:
    import pandas as pd

    from afafilter.studies.comparison import Comparison
    from afafilter.studies.plan import StudyPlan

STYLE = """
:root{color-scheme:light}*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;margin:0;color:#1a1a1a;background:#fafafa}
main{max-width:1200px;margin:0 auto;padding:1rem}
header{background:#0b3954;color:#fff;padding:1rem}
header>div{max-width:1200px;margin:0 auto;padding:0 1rem}
h1{font-size:1.5rem;margin:.2rem 0}h2{font-size:1.15rem;margin:1.6rem 0 .4rem}
section{background:#fff;border:1px solid #e2e2e2;border-radius:8px;padding:1rem;margin:1rem 0}
section h2{margin-top:0}
.grid{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr))}
.chart{width:100%;min-height:340px}.tall{min-height:480px}
@media(max-width:600px){.tall{min-height:560px}}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem}
th,td{padding:.3rem .6rem;text-align:right;border-bottom:1px solid #e6e6e6;white-space:nowrap}
th:first-child,td:first-child{text-align:left}
button{font:inherit;padding:.4rem .8rem;margin:.2rem .3rem .2rem 0;border:1px solid #0b3954;
border-radius:6px;background:#fff;color:#0b3954;cursor:pointer}button:hover{background:#e8f1f5}
p.note{color:#555;font-size:.92rem;margin:.3rem 0}
"""
SCRIPT = """
const content = JSON.parse(document.getElementById("content").textContent);
const base = {margin: {l: 60, r: 15, t: 40, b: 45}, paper_bgcolor: "#fff", plot_bgcolor: "#fff",
  font: {family: "system-ui, sans-serif", size: 12}, autosize: true};
for (const [id, chart] of Object.entries(content.charts)) {
  const layout = Object.assign({}, base, chart.layout);
  for (const axis of ["xaxis", "yaxis"])
    layout[axis] = Object.assign({gridcolor: "#eee", zeroline: false, automargin: true},
      chart.layout[axis]);
  const bar = id.startsWith("series");
  Plotly.newPlot(id, chart.data, layout, {responsive: true, displaylogo: false, displayModeBar: bar,
    modeBarButtonsToRemove: ["select2d", "lasso2d"]});
}
for (const [name, text] of Object.entries(content.files)) {
  const button = document.createElement("button");
  button.textContent = name + ".csv";
  button.addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], {type: "text/csv"}));
    link.download = name + ".csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  document.getElementById("files").appendChild(button);
}
document.body.dataset.ready = "yes";
"""


def require_plotly() -> None:
    """Refuse where plotly, whose script goes into the page, is not installed."""
    import importlib.util

    if importlib.util.find_spec("plotly") is None:
        raise ValueError("a report needs plotly: pip install 'afafilter[report]'")


def report_page(found: Analysis, title: str) -> str:
    """The HTML of a report."""
    series = found.series
    drawn: dict[str, Any] = {"holdout": charts.hold_out_chart(found)}
    for i in range(len(series.columns)):
        drawn[f"series{i}"] = charts.series_chart(found, i)
        drawn[f"residual{i}"] = charts.residual_chart(found, i)
        drawn[f"quantile{i}"] = charts.quantile_chart(found, i)
        drawn[f"acf{i}"] = charts.correlation_chart(found, i)
    maps: dict[str, tuple[Any, str]] = {
        "attention": (found.afa_map, "AFA: attention"),
        "weights": (found.kalman_map, "Kalman filter: equivalent weights"),
    }
    there = {name: what for name, what in maps.items() if what[0] is not None and what[0].size}
    drawn |= {name: charts.map_chart(found, *what) for name, what in there.items()}
    many = (
        "; they are so many that this estimate is shown (robust RTS, Student-t with 4 degrees of "
        "freedom), not the Gaussian one, which follows them."
    )
    shown = (
        "Drag to zoom, double click to go back; click on names in the legend to hide them. The "
        "dark band holds the signal, the light one a measurement of it, each in 95 % of cases. "
        f"Outliers lie beyond 99.9 % of the noise about the robust estimate"
        f"{many if found.robust else '.'}"
    )
    held_out, tests = found.compared.frame.drop(columns="model"), found.checks.to_pandas()
    error, names = held_out["standard_error"], dict(enumerate(series.columns)) | {-1: "all"}
    checks = [
        f"{kind}{i}" for i in range(len(series.columns)) for kind in ("residual", "quantile", "acf")
    ]
    body = [
        _about(found),
        *(
            _section(f"Series and estimate: {name}", shown, _box(f"series{i}", tall=True))
            for i, name in enumerate(series.columns)
        ),
        _model(found),
        _section(
            "Checks of the model",
            "One-step errors of a right model are independent and standard normal. Small p values "
            "speak against it.",
            _grid(checks) + _table(tests.assign(component=tests["component"].map(names))),
        ),
        _section(
            "Estimators on values that they did not see",
            "All estimators see the same data with the same values hidden. nlpd is the mean "
            "negative log density (smaller is better), the last columns the paired difference to "
            "the best and its standard error.",
            _box("holdout")
            + _table(held_out.assign(standard_error=error.mask(error.abs() < 1e-12, 0.0)))
            + _notes(
                f"{name} failed: {error}" for (_, name), error in found.compared.errors.items()
            ),
        ),
        _section(
            "What each estimate listens to",
            f"The last {len(found.map_t)} observations. AFA gives every observation a share of the "
            "estimate; the Kalman filter's weights are its response to each observation."
            + (f" No map of AFA's: {found.afa_why}." if found.afa_why else ""),
            _grid(there, tall=True),
        ),
    ]
    subtitle = f"{len(series.t)} rows, {', '.join(series.columns)}"
    return _page(title, subtitle, body, drawn, tables(found))


def comparison_page(result: Comparison, title: str = "Comparison of estimators") -> str:
    """The HTML of a `Comparison`: a picture per metric, the tables, the numbers to save."""
    scores, drawn = result.scores, {}
    for k, metric in enumerate(dict.fromkeys(scores.loc[scores["component"] == "all", "metric"])):
        part = result.intervals(str(metric))
        rows = part[["value", "lower", "upper"]].to_numpy(dtype=float)
        rows = np.where(np.isfinite(rows), rows, rows[:, :1])
        drawn[f"metric{k}"] = charts.interval_chart(part["estimator"].tolist(), rows, str(metric))
    body = [
        _section("Scores", "Dots with their 95 % intervals over paths.", _grid(drawn)),
        _section("Table", "", _table(scores)),
        *(_section(f"{name} failed", error, "") for name, error in result.errors.items()),
    ]
    subtitle = f"{len(result.names)} estimators, {result.n_paths} paths"
    return _page(title, subtitle, body, drawn, {"scores": scores, "times": result.times})


def plan_page(plan: StudyPlan, title: str = "Plan of a study") -> str:
    """The HTML of a `StudyPlan`: durations, costs, and what was measured beside the law."""
    value, low, high = plan.cell_seconds
    facts = {
        "cells": len(plan.study.cells),
        "seconds of a cell": f"{value:.3g}  ({low:.3g} to {high:.3g})",
        "calling process, per cell": f"{plan.caller_seconds:.3g} s",
        "workers that it keeps busy": plan.most_workers,
        "file of a cell": f"{plan.cell_bytes / 1e3:.3g} kB",
    }
    failed = plan.failed.items()
    unknown = _notes(f"{name} failed, its cost is unknown: {error}" for name, error in failed)
    body = [
        _section("The study", "", _facts(facts) + unknown),
        _section(
            "How long",
            "Hours against workers of the speed of this machine, with 95 % intervals. The line is "
            "flat where the calling process, which writes the files, is busy all the time.",
            _box("duration", tall=True) + _table(plan.table()),
        ),
        _section(
            "Cost model",
            "Seconds per cell, mean over the study; spread: of single cells about the law, "
            "relative; paths, steps, dim: exponents of the law, 0 where the study has one size.",
            _grid(["shares", "law"]) + _table(plan.costs),
        ),
        _section("Models and scenarios", "", _table(plan.places)),
    ]
    drawn = {"duration": charts.duration_chart(plan), "shares": charts.share_chart(plan)}
    drawn["law"] = charts.law_chart(plan)
    files = {"durations": plan.table(), "costs": plan.costs}
    files |= {"places": plan.places, "measured": plan.fitted}
    measured = len(plan.measured[["model", "scenario", "seed"]].drop_duplicates())
    return _page(title, f"from {measured} measured cells", body, drawn, files)


# ------------------------------------------------------------------------------------------- pieces


def _about(found: Analysis) -> str:
    series = found.series
    ends = charts.stamps(series, series.t[[0, -1]])
    gaps = np.diff(series.t)
    silent = np.diff(series.t[np.isfinite(series.z).any(1)])
    facts = {
        "rows": len(series.t),
        "from": ends[0],
        "to": ends[1],
        "missing values": int(np.isnan(series.z).sum()),
        "outliers": int(found.outliers.sum()),
        "usual step": f"{np.median(gaps):.6g}" if len(gaps) else "-",
        "longest time without a value": f"{silent.max():.6g}" if len(silent) else "-",
        "unit of time": series.time_unit or "not said",
    }
    return _section("Data", "", _facts(facts))


def _facts(facts: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(k)}</td><td>{html.escape(str(v))}</td></tr>"
        for k, v in facts.items()
    )
    return f'<div class="scroll"><table>{rows}</table></div>'


def _model(found: Analysis) -> str:
    if found.fitted is None:
        text = f"<p>{html.escape(repr(found.model))}</p>"
        return _section("Model", "As given.", text)
    fitted = found.fitted
    said = (
        f"Fitted by maximum likelihood: log-likelihood {fitted.loglik:.4f}, AIC {fitted.aic:.2f}, "
        f"BIC {fitted.bic:.2f}; "
        + ("converged." if fitted.converged else f"NOT converged: {fitted.message}.")
        + " lower and upper are 95 % intervals, std_error one standard error, where there is one."
    )
    if fitted.boundary:
        said += f" At the boundary of the domain: {', '.join(fitted.boundary)}."
    frame = fitted.to_pandas().reset_index()
    return _section("Model", said, _table(frame))


def _section(title: str, note: str, inner: str) -> str:
    said = _notes([note] if note else [])
    return f"<section><h2>{html.escape(title)}</h2>{said}{inner}</section>"


def _notes(texts: Iterable[str]) -> str:
    return "".join(f'<p class="note">{html.escape(text)}</p>' for text in texts)


def _box(name: str, tall: bool = False) -> str:
    """Where the chart of that name is drawn."""
    return f'<div id="{name}" class="chart{" tall" * tall}"></div>'


def _grid(names: Iterable[str], tall: bool = False) -> str:
    return f'<div class="grid">{"".join(_box(name, tall) for name in names)}</div>'


def _table(frame: pd.DataFrame) -> str:
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in frame.columns)
    rows = []
    for row in frame.itertuples(index=False):
        cells = ((f"{x:.4g}" if x == x else "-") if isinstance(x, float) else str(x) for x in row)
        rows.append("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
        "</table></div>"
    )


def _page(
    title: str,
    subtitle: str,
    body: Sequence[str],
    drawn: Mapping[str, Any],
    files: Mapping[str, pd.DataFrame],
) -> str:
    from plotly.offline import get_plotlyjs

    content = {
        "charts": drawn,
        "files": {name: frame.to_csv(index=False) for name, frame in files.items()},
    }
    # "</" could end the script element that the text lies in
    text = json.dumps(content, allow_nan=False).replace("</", "<\\/")
    saved = _section("Numbers", "All numbers of this page, as CSV.", '<div id="files"></div>')
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body><header><div><h1>{html.escape(title)}</h1>"
        f"<div>{html.escape(subtitle)}; afafilter {__version__}</div></div></header><main>"
        f"{''.join(body)}{saved}</main>"
        f'<script type="application/json" id="content">{text}</script>'
        f"<script>{SCRIPT}</script></body></html>\n"
    )
