"""Estimators and models compared on a user's own data, by what they say of values they did not see.

    hold_out({"kalman": kalman_filter, "rts": rts_smoother}, model, t, z)

Some observations are hidden, every estimator runs on the rest, and what it predicts of the hidden
ones, mean C x + b and variance C P C^T + R, is scored: at random entries, in whole blocks (gaps as
instruments have them), and after an origin (forecasts). All see the same pieces, so that
differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from afafilter._base.checks import (
    Array,
    ObsMask,
    choice,
    generator,
    observation_covariances,
    observations,
    positive_int,
    scalar,
    times,
)
from afafilter._base.containers import chosen_unit, take
from afafilter._base.frames import data_frame
from afafilter._base.normal import half_width
from afafilter._base.shown import LINES, ShownAsText
from afafilter.io.tables import Cell, markdown_table
from afafilter.models.forcing import observation_map, signal
from afafilter.results import Estimate
from afafilter.scoring.gaussian import crps_gaussian
from afafilter.studies.batch import Estimator, checked_estimators

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("random", "blocks", "forecast")
LEVEL = 0.95
SHARE = 0.1


@dataclass(frozen=True, eq=False, repr=False)
class HoldOut(ShownAsText):
    """Scores on held-out observations.

    Attributes
    ----------
    frame : DataFrame
        One row per (kind, model, estimator): count of scored values (hidden ones of which every
        estimator says something), rmse, mae (units of the values), crps, nlpd (mean -log density,
        2 pi included; smaller is better), coverage of the 95 % interval, and the mean paired
        difference of nlpd to the best estimator of the kind with its standard error over pieces.
        Point estimates have no nlpd and no coverage; their crps is the mae.
    errors : dict
        What failed, by (model, estimator).
    """

    frame: pd.DataFrame
    errors: dict[tuple[str, str], str]

    def __str__(self) -> str:
        return f"HoldOut({len(self.frame)} rows, {len(self.errors)} failed)\n{self.to_markdown()}"

    def _repr_html_(self) -> str:
        return str(self.frame.to_html(index=False, float_format="{:.3g}".format, max_rows=LINES))

    def to_markdown(self) -> str:
        """The frame as a Markdown table, three significant digits."""
        first, *others = map(str, self.frame.columns)
        rows = [
            (str(name), [Cell(x) if isinstance(x, float) else Cell(0.0, text=str(x)) for x in row])
            for name, *row in self.frame.itertuples(index=False)
        ]
        return markdown_table(others, rows, corner=first)


def hold_out(
    estimators: Mapping[str, Estimator | str] | Sequence[Estimator | str],
    models: Any,
    t: ArrayLike,
    z: ArrayLike | None = None,
    *,
    kinds: Sequence[str] = KINDS,
    pieces: int = 5,
    share: float = SHARE,
    horizon: int | None = None,
    obs_cov: ArrayLike | None = None,
    rng: np.random.Generator | int = 0,
) -> HoldOut:
    """Score estimators on observations that were hidden from them.

    Parameters
    ----------
    estimators : mapping or sequence
        Functions or names of the catalogue, as in `compare`.
    models
        A `LinearSDE` or `DiscreteModel`, or name -> model.
    t : array_like, shape (T,)
        Times; or a table that holds times and values, as for `kalman_filter`.
    z : array_like, shape (T, p)
        Observations, NaN = missing; (T,) where p = 1.
    kinds : sequence of str
        Any of "random" (entries at random), "blocks" (runs of times, all components) and
        "forecast" (the next `horizon` times after an origin, nothing later is seen).
    pieces : int
        Times that something is hidden, for each kind.
    share : float
        Part of the observations hidden at a time, of random and blocks; in (0, 0.5].
    horizon : int, optional
        Number of times that forecasts reach; None = T // 20, at least 1.
    obs_cov : array_like, shape (T, p, p), optional
        Noise covariances in place of R.
    rng : Generator or int
        Generator or seed of what is hidden.

    Returns
    -------
    HoldOut

    Raises
    ------
    ValueError, TypeError
        Bad arguments, or such as would change nothing; too few observations. An estimator that
        fails is noted in `errors`.

    Examples
    --------
    >>> from afafilter import brownian, datasets, hold_out
    >>> nile = datasets.load_nile()
    >>> model = brownian(process_var=1469.0, obs_var=15099.0)
    >>> type(hold_out(["kalman", "rts"], model, nile.t, nile.z, pieces=2)).__name__
    'HoldOut'
    """
    asked = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    for kind in asked:
        choice(kind, "kinds", KINDS)
    if not asked:
        raise ValueError(f"kinds must name some of {', '.join(KINDS)}, got none")
    if "forecast" not in asked and horizon is not None:
        raise ValueError(f"horizon={horizon} would change nothing without 'forecast' among kinds")
    if {*asked} == {"forecast"} and share != SHARE:
        raise ValueError(
            f"share={share} would change nothing without 'random' or 'blocks' among kinds"
        )
    named = dict(models) if isinstance(models, Mapping) else {"model": models}
    if not named:
        raise ValueError("models must hold at least one model, got none")
    first = next(iter(named.values()))
    p = first.obs_dim
    t, z, _ = take(t, z, chosen_unit(first, None), obs_dim=p)
    grid = times(t)
    data = observations(z, len(grid), p)
    if data.ndim != 2:
        raise ValueError(f"z must be one path (T, p), got shape {data.shape}")
    tried = checked_estimators(estimators, first, grid)
    share = scalar(share, "share", low=0.0, strict=True)
    if share > 0.5:
        raise ValueError(f"share must be at most 0.5, got {share:g}")
    count = positive_int(pieces, "pieces")
    reach = max(len(grid) // 20, 1) if horizon is None else positive_int(horizon, "horizon")
    if np.isfinite(data).sum() < 10:
        raise ValueError(
            f"too few observations to hold some out: {int(np.isfinite(data).sum())}, at least 10"
        )
    draw = generator(rng)
    R = {
        name: observation_covariances(obs_cov, len(grid), p, model.R, data)
        for name, model in named.items()
    }
    extra = {} if obs_cov is None else {"obs_cov": obs_cov}

    def losses(model: str, name: str, gone: ObsMask, scored: ObsMask) -> Array:
        shown = np.where(gone, np.nan, data)
        found = tried[name](named[model], grid, shown, **extra)
        return _losses(found, named[model], R[model], data, scored)

    rows: list[dict[str, Any]] = []
    errors: dict[tuple[str, str], str] = {}
    for kind in asked:
        hidden = list(_pieces(kind, data, count, share, reach, draw))
        found: dict[tuple[str, str], list[Array]] = {}
        for key in product(named, tried):
            try:
                found[key] = [losses(*key, *piece) for piece in hidden]
            except Exception as error:
                errors[key] = f"{type(error).__name__}: {error}"
        rows += _rows(kind, found, errors)
    return HoldOut(data_frame(rows), errors)


def _pieces(
    kind: str, data: Array, count: int, share: float, reach: int, rng: np.random.Generator
) -> Iterator[tuple[ObsMask, ObsMask]]:
    """What is hidden and what of it is scored, (T, p) each."""
    seen = np.isfinite(data)
    T = end = len(data)
    for k in range(count):
        hidden = np.zeros_like(seen)
        if kind == "random":
            hidden = seen & (rng.random(seen.shape) < share)
        elif kind == "blocks":
            width = max(int(share * T / 2), 1)
            for start in rng.integers(1, max(T - width, 2), 2):
                hidden[start : start + width] = True
        else:
            origin = T // 2 + (T - T // 2 - 1) * (k + 1) // (count + 1)
            hidden[origin:], end = True, origin + reach
        scored = hidden & seen
        scored[end:] = False
        yield hidden, scored


def _rows(
    kind: str, found: dict[tuple[str, str], list[Array]], errors: dict[tuple[str, str], str]
) -> list[dict[str, Any]]:
    """Scores of what was found, paired; who says nothing goes to the errors."""
    mute = [key for key, parts in found.items() if not any(_known(x).any() for x in parts)]
    for key in mute:
        errors[key] = "ValueError: says nothing of the values that were hidden"
        found.pop(key)
    if not found:
        return []
    # Scores are paired: of the values that every estimator says something of.
    shared = [np.all([_known(x) for x in piece], axis=0) for piece in zip(*found.values())]
    kept = {key: [x[use] for x, use in zip(parts, shared)] for key, parts in found.items()}
    means = {key: float(np.concatenate(parts)[:, 3].mean()) for key, parts in kept.items()}
    best = min(means, key=lambda key: means[key] if np.isfinite(means[key]) else np.inf)
    return [_row(kind, key, parts, kept[best]) for key, parts in kept.items()]


def _known(losses: Array) -> ObsMask:
    """Which of the hidden values an estimator says something of."""
    return np.isfinite(losses[:, 0])


def _row(
    kind: str, key: tuple[str, str], parts: Sequence[Array], best: Sequence[Array]
) -> dict[str, Any]:
    """Means of all losses and the paired difference of nlpd to the best estimator."""
    losses = np.concatenate(parts)
    miss, crps, inside, nlpd = losses.T
    each = np.array([a[:, 3].mean() - b[:, 3].mean() for a, b in zip(parts, best) if len(a)])
    each[np.abs(each) < 1e-9 * max(1.0, float(np.abs(nlpd).mean()))] = 0.0
    return {
        "kind": kind,
        "model": key[0],
        "estimator": key[1],
        "count": len(losses),
        "rmse": float(np.sqrt(np.mean(miss**2))),
        "mae": float(np.abs(miss).mean()),
        "crps": float(crps.mean()),
        "nlpd": float(nlpd.mean()),
        "coverage95": float(inside.mean()),
        "nlpd_behind_best": float(each.mean()),
        "standard_error": float(each.std(ddof=1) / np.sqrt(len(each)) if len(each) > 1 else np.nan),
    }


def _losses(estimate: Estimate, model: Any, R: Array, z: Array, scored: ObsMask) -> Array:
    """Columns error, crps, inside the interval, -log density of every hidden value.

    NaN where the estimate does not say it: of an undetermined value all, of a point estimate the
    last two. crps of a point: |error|.
    """
    if estimate.is_point:
        H, offset = observation_map(model, estimate.t)
        mean = np.einsum("...ij,...j->...i", H, estimate.mean) + offset
        error = (z - mean)[scored]
        unsaid = np.full(len(error), np.nan)
        return np.stack([error, np.abs(error), unsaid, unsaid], axis=1)
    mean, cov = signal(model, estimate)
    var = np.diagonal(cov, axis1=-2, axis2=-1) + np.diagonal(R, axis1=-2, axis2=-1)
    use: NDArray[np.bool_] = np.isfinite(mean) & np.isfinite(var) & (var > 0)
    error = np.where(use, z - mean, np.nan)[scored]
    sd = np.sqrt(np.where(use, var, np.nan))[scored]
    u = error / sd
    nlpd = 0.5 * u**2 + np.log(sd) + 0.5 * np.log(2 * np.pi)
    inside = np.abs(u) <= half_width(LEVEL)
    return np.stack([error, crps_gaussian(u, sd, error), inside, nlpd], axis=1)
