"""Scores as they are printed: titles of metrics, and the LaTeX table of a study."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from afafilter.io.tables import Cell, latex_table, mark_best, plain
from afafilter.scoring.paired import loss

if TYPE_CHECKING:
    from afafilter.studies.result import StudyResult

TITLES = {
    "rmse": "RMSE",
    "bias": "Bias",
    "crps": "CRPS",
    "nlpd": "NLPD",
    "nees": "NEES",
    "energy": "Energy score",
    "nis": "NIS",
    "ljung_box": "Ljung-Box",
    "time": "ms / path",
}


def metric_title(metric: str) -> str:
    """A metric's name as it is printed: "RMSE", "95 % coverage"."""
    for start, title in (("coverage", "coverage"), ("interval", "interval score")):
        if metric.startswith(start):
            return f"{metric.removeprefix(start)} % {title}"
    return TITLES[metric]


def study_table(
    result: StudyResult, metric: str, *, caption: str | None = None, label: str | None = None
) -> str:
    """A booktabs table of a pooled metric with standard errors, the best in bold.

    One row per estimator, one column per model and scenario, the name of what is the same in all
    columns left out. The caption is LaTeX, names are escaped.
    """
    study = result.study
    pooled = result.pooled(metric)
    places = zip(pooled["model"], pooled["scenario"], pooled["estimator"])
    keyed = dict(zip(places, zip(pooled["value"], pooled["se"])))
    columns = []
    for place in product(study.models, study.scenarios):
        cells = [Cell(*keyed[(*place, name)]) for name in study.estimators]
        texts = [plain(cell).partition(" ")[0] for cell in cells]
        values = [cell.value for cell in cells]
        best = mark_best(values, [loss(metric, v) for v in values], texts)
        columns.append([replace(cell, best=flag) for cell, flag in zip(cells, best)])
    varied = [list(group) for group in (study.models, study.scenarios) if len(group) > 1]
    return latex_table(
        [" / ".join(place) or metric_title(metric) for place in product(*varied)],
        [(name, list(row)) for name, row in zip(study.estimators, zip(*columns))],
        corner="Estimator",
        caption=caption,
        label=label,
    )
