"""Who wins where in a study: decided by paired tests over paths, corrected for the many places.

In each place the estimator of smallest loss has won when it is better than *every* rival: its
p-value is the largest of the paired ones (intersection-union: none of them needs correcting for the
others). Over the places Holm's step-down procedure keeps the chance of any false win below the
level (Holm, Scandinavian Journal of Statistics 6 (1979) 65-70). What has not won is a tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import stdtr

from afafilter._base.checks import Array, ObsMask, scalar
from afafilter.scoring.paired import loss
from afafilter.scoring.tally import Ratio
from afafilter.studies.study import StudyResult

if TYPE_CHECKING:
    import pandas as pd

COMPARED = ["model", "scenario", "estimator", "best", "p"]
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
    import pandas as pd

    level = scalar(level, "level")
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level:g}")
    names = list(result.study.estimators) if among is None else list(among)
    for name in names:
        if name not in result.study.estimators:
            known = ", ".join(map(repr, result.study.estimators))
            raise ValueError(f"among must name estimators of {known}, got {name!r}")
    rows: list[dict[str, Any]] = []
    for place, ratios in result.ratios(metric):
        own = {name: ratios[name] for name in names if name in ratios}
        size = {name: loss(metric, ratio.value) for name, ratio in own.items()}
        order = sorted((name for name in size if np.isfinite(size[name])), key=size.__getitem__)
        if len(order) < 2:
            continue
        best, second = order[:2]
        p = max(paired_p_value(own[best], own[name]) for name in order[1:])
        margin = size[second] / size[best] - 1.0 if size[best] > 0 else np.inf
        found = {"best": best, "second": second, "value": own[best].value, "margin": margin, "p": p}
        rows.append({**place, **found})
    corrected, rejected = holm(np.array([row["p"] for row in rows]), level)
    frame = pd.DataFrame(rows, columns=list(rows[0]) if rows else COLUMNS)
    return frame.assign(p_holm=corrected, won=rejected)


def against_best(
    result: StudyResult, metric: str = "rmse", *, among: Sequence[str] | None = None
) -> pd.DataFrame:
    """Every estimator of every model and scenario against the best one there.

    Parameters and errors as for `winners`.

    Returns
    -------
    DataFrame
        model, scenario, those of `Study.columns`, estimator, best, p (paired Student test; 1 for
        the best itself) and p_holm, corrected for all comparisons of the frame.
    """
    import pandas as pd

    names = list(result.study.estimators) if among is None else list(among)
    rows: list[dict[str, Any]] = []
    for place, ratios in result.ratios(metric):
        own = {name: ratios[name] for name in names if name in ratios}
        size = {name: loss(metric, ratio.value) for name, ratio in own.items()}
        if not size:
            continue
        best = min(size, key=size.__getitem__)
        for name, ratio in own.items():
            p = 1.0 if name == best else paired_p_value(own[best], ratio)
            rows.append({**place, "estimator": name, "best": best, "p": p})
    frame = pd.DataFrame(rows, columns=list(rows[0]) if rows else COMPARED)
    own_p = frame["p"].to_numpy(dtype=np.float64)
    corrected = np.ones(len(frame))
    tested = (frame["estimator"] != frame["best"]).to_numpy()
    corrected[tested] = holm(own_p[tested], 0.05)[0]
    return frame.assign(p_holm=corrected)


def paired_p_value(a: Ratio, b: Ratio) -> float:
    """Two-sided Student test that two metrics on the same paths are equal.

    Linearised ratios: with u_i = (s_i - r c_i) / mean(c) of each path, the difference of the values
    has the standard error sd(u^a - u^b) / sqrt(n). 1 where there is no difference on any path.
    """
    n = len(a.sums)
    if n < 2:
        return 1.0

    def influence(ratio: Ratio) -> tuple[float, Array]:
        mean = ratio.sums.sum() / ratio.counts.sum()
        return float(mean), (ratio.sums - mean * ratio.counts) / ratio.counts.mean()

    (first, u), (second, w) = influence(a), influence(b)
    error = float(np.std(u - w, ddof=1) / np.sqrt(n))
    if error == 0.0:
        return 1.0 if first == second else 0.0
    return float(2.0 * stdtr(n - 1, -abs(first - second) / error))


def holm(p: Array, level: float) -> tuple[Array, ObsMask]:
    """Holm's adjusted p-values, and which are at most `level`."""
    m = len(p)
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(np.maximum.accumulate((m - np.arange(m)) * p[order]), 1.0)
    out = np.empty(m)
    out[order] = stepped
    return out, np.asarray(out <= level)
