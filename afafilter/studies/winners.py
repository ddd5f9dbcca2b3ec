"""Who wins where in a study: decided by paired tests over paths, corrected for the many places.

In each place the estimator of smallest loss has won when it is better than *every* rival: its
p-value is the largest of the paired ones (intersection-union: none of them needs correcting for the
others). Over the places Holm's step-down procedure keeps the chance of any false win below the
level. What has not won is a tie. The tests compare the logarithms of each path's errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from afafilter._base.checks import fraction
from afafilter._base.frames import data_frame
from afafilter.scoring.paired import holm, loss, paired_differences, worse_p_value
from afafilter.scoring.tally import Ratio
from afafilter.studies.result import StudyResult

if TYPE_CHECKING:
    import pandas as pd

COMPARED = ["model", "scenario", "estimator", "best", "ratio_high", "p"]
COLUMNS = ["model", "scenario", "best", "second", "value", "margin", "p"]


def winners(
    result: StudyResult,
    metric: str = "rmse",
    *,
    among: Sequence[str] | None = None,
    level: float = 0.05,
) -> pd.DataFrame:
    """The best estimator of every model and scenario, and whether it is really better.

    Parameters
    ----------
    result : StudyResult
        Of a `Study`.
    metric : str
        A metric of which less is better: rmse, nlpd, crps, ...
    among : sequence of str, optional
        Names of the estimators that compete; None: all.
    level : float
        Chance of any false win among all places.

    Returns
    -------
    DataFrame
        model, scenario, those of `Study.columns`, best, second, value, margin (value of the second
        over that of the best, minus 1), p (paired Student test against every rival, the largest),
        p_holm, and won. Places where fewer than two estimators have a value are left out.

    Raises
    ------
    ValueError
        Unknown estimator or metric; a level outside (0, 1).
    """
    level = fraction(level, "level")
    for name in among or ():
        if name not in result.study.estimators:
            known = ", ".join(map(repr, result.study.estimators))
            raise ValueError(f"among must name estimators of {known}, got {name!r}")
    rows: list[dict[str, Any]] = []
    for place, own, size in _competitors(result, metric, among):
        order = sorted((name for name in size if np.isfinite(size[name])), key=size.__getitem__)
        if len(order) < 2:
            continue
        best, second = order[:2]
        p = max(worse_p_value(own[best], own[name]) for name in order[1:])
        margin = size[second] / size[best] - 1.0 if size[best] > 0 else np.inf
        found = {"best": best, "second": second, "value": own[best].value, "margin": margin, "p": p}
        rows.append({**place, **found})
    corrected, rejected = holm(np.array([row["p"] for row in rows]), level)
    found_there = data_frame(rows, columns=list(rows[0]) if rows else COLUMNS)
    return found_there.assign(p_holm=corrected, won=rejected)


def against_best(
    result: StudyResult, metric: str = "rmse", *, among: Sequence[str] | None = None
) -> pd.DataFrame:
    """Every estimator of every model and scenario against the best one there.

    Parameters and errors as for `winners`.

    Returns
    -------
    DataFrame
        model, scenario, those of `Study.columns`, estimator, best, ratio_high (upper end of the
        95 % bootstrap interval of its value over the best's; 1 for the best itself), p (paired
        Student test; 1 for the best itself) and p_holm, corrected for all comparisons.
    """
    rows: list[dict[str, Any]] = []
    for place, own, size in _competitors(result, metric, among):
        if size:
            best = min(size, key=size.__getitem__)
            rows += [{**place, **row} for row in compared_with(best, own)]
    found = data_frame(rows, columns=list(rows[0]) if rows else COMPARED)
    corrected = np.ones(len(found))
    tested = (found["estimator"] != found["best"]).to_numpy()
    corrected[tested] = holm(found["p"].to_numpy(dtype=np.float64)[tested], 0.05)[0]
    return found.assign(p_holm=corrected)


def _competitors(
    result: StudyResult, metric: str, among: Sequence[str] | None
) -> Iterator[tuple[dict[str, Any], dict[str, Ratio], dict[str, float]]]:
    """Of every place its columns, and the sums and the loss of those that compete there."""
    names = list(result.study.estimators) if among is None else list(among)
    for place, ratios in result.ratios(metric):
        own = {name: ratios[name] for name in names if name in ratios}
        yield place, own, {name: loss(metric, ratio.value) for name, ratio in own.items()}


def compared_with(best: str, ratios: Mapping[str, Ratio]) -> list[dict[str, Any]]:
    """Rows estimator, best, ratio_high and p of everybody, as in `against_best`."""
    high = {row["estimator"]: row["ratio_high"] for row in paired_differences(ratios, best)}
    rows = []
    for name, ratio in ratios.items():
        p = 1.0 if name == best else worse_p_value(ratios[best], ratio)
        rows.append({"estimator": name, "best": best, "ratio_high": high.get(name, 1.0), "p": p})
    return rows
