"""Scores as they are printed: titles of metrics, and the LaTeX table of a study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afafilter._base.shown import load
from afafilter.io.files import write_text
from afafilter.io.tables import Cell, latex_table, plain
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


def page_method(page: str) -> Callable[..., str]:
    """The method `to_html` of a result, whose page is written by the report's function `page`."""

    def to_html(
        self: Any, path: str | Path | None = None, *, title: str = "", force: bool = False
    ) -> str:
        """One self-contained page that needs no network: pictures, tables, all numbers to save.

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
            The HTML.

        Raises
        ------
        FileExistsError
            If the file exists and `force` is False.
        ValueError
            Without plotly: pip install 'afafilter[report]'.
        """
        text = str(getattr(load("report"), page)(self, *([title] if title else [])))
        if path is not None:
            write_text(path, text, force=force)
        return text

    return to_html


def marked(cells: Sequence[Cell], metric: str, digits: int = 3) -> list[Cell]:
    """Cells of a column, the best marked: that of least loss, and what is printed like it."""
    texts = [plain(cell, digits).partition(" ")[0] for cell in cells]
    losses = [loss(metric, cell.value) for cell in cells]
    known = {k for k, cell in enumerate(cells) if np.isfinite([cell.value, losses[k]]).all()}
    best = texts[min(known, key=losses.__getitem__)] if len(known) > 1 else None
    return [replace(cell, best=k in known and texts[k] == best) for k, cell in enumerate(cells)]


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
        columns.append(marked(cells, metric))
    varied = [list(group) for group in (study.models, study.scenarios) if len(group) > 1]
    return latex_table(
        [" / ".join(place) or metric_title(metric) for place in product(*varied)],
        [(name, list(row)) for name, row in zip(study.estimators, zip(*columns))],
        corner="Estimator",
        caption=caption,
        label=label,
    )
