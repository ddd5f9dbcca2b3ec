"""Times that the options --query-times and --forecast ask for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from afafilter._base.checks import Array, observations, scalar
from afafilter._base.steps import usual_step
from afafilter._base.unknown import chosen
from afafilter.io.series import Series
from afafilter.models.discrete import DiscreteModel
from afafilter.models.sde import LinearSDE
from afafilter.results import Estimate

MOST_QUERIES = 10_000_000


def asked_times(series: Series, text: str | None, forecast: float | None) -> Array | None:
    """The times asked for, or None for those of the data."""
    if text is None and forecast is None:
        return None
    if text is None:
        asked = series.t
    elif text.count(":") == 2 and (series.dates is None or "T" not in text.upper()):
        asked = _range(series, text)
    else:
        asked = series.time_of([part.strip() for part in text.split(",")])
    if forecast is not None:
        asked = np.concatenate([asked, _ahead(series, forecast)])
    return np.sort(asked)


def _range(series: Series, text: str) -> Array:
    *ends, by = (part.strip() for part in text.split(":"))
    low, high = series.time_of(ends)
    try:
        step = scalar(float(by), "STEP")
    except ValueError:
        raise ValueError(
            f"--query-times START:STOP:STEP needs a number as STEP, got {by!r}"
        ) from None
    if step <= 0 or high < low:
        raise ValueError(f"--query-times START:STOP:STEP must go upwards, got {text!r}")
    count = _steps((high - low) / step, "--query-times")
    return np.asarray(low + step * np.arange(count + 1))


def _ahead(series: Series, forecast: float) -> Array:
    gap = usual_step(series.t) or forecast
    ahead = series.t[-1] + gap * np.arange(1, _steps(forecast / gap, "--forecast") + 1)
    if not ahead.size:
        raise ValueError(f"--forecast must reach one step ({gap:g}), got {forecast:g}")
    return np.asarray(ahead)


def appended(series: Series, ahead: Array, model: LinearSDE | DiscreteModel) -> Series:
    """The series with a row without values at each of the times after its end."""
    T, rows = len(series.t), len(ahead)
    z = observations(series.z, T, len(series.columns))
    z = np.concatenate([z, np.full((*z.shape[:-2], rows, z.shape[-1]), np.nan)], axis=-2)
    noise = series.obs_cov
    if noise is not None:
        late = model.R[..., T:, :, :] if model.R.ndim == 3 else model.R
        noise = np.concatenate([noise, np.broadcast_to(late, (rows, *noise.shape[1:]))])
    return replace(series, t=np.concatenate([series.t, ahead]), z=z, obs_cov=noise)


def in_steps(series: Series, ahead: Array) -> Array:
    """Times of all steps up to the last one asked for: a model in steps goes on row by row."""
    if not ahead.size:
        return ahead
    gap = usual_step(series.t) or float(ahead[0] - series.t[-1])
    count = _steps(float(ahead[-1] - series.t[-1]) / gap, "--query-times")
    return np.asarray(series.t[-1] + gap * np.arange(1, count + 1))


def rows_at(found: Estimate, asked: Array) -> Estimate:
    """The rows of an estimate at these times, of rows with one time the last."""
    near = np.clip(np.searchsorted(found.t, asked, side="right") - 1, 0, len(found.t) - 1)
    after = np.minimum(near + 1, len(found.t) - 1)
    slack = 1e-9 * (np.abs(asked) + found.t[-1] - found.t[0])
    near = np.where(np.abs(found.t[after] - asked) <= slack, after, near)
    off = np.abs(found.t[near] - asked) > slack
    if off.any():
        raise ValueError(
            f"--query-times: {asked[off][0]:g} lies between rows, and a DiscreteModel (F) knows "
            "the times of its steps only: ask for times of the data or whole steps after them, or "
            "give the data a row with blank values there"
        )
    mean, cov = found.mean[..., near, :], found.cov[..., near, :, :]
    laws = chosen(found.open_laws, near)
    return replace(found, t=asked, mean=mean, cov=cov, open_laws=laws)


def _steps(count: float, option: str) -> int:
    """Whole steps in a range, refused before they fill the memory."""
    if not count < MOST_QUERIES:
        raise ValueError(f"{option} asks for {count:.3g} times; at most {MOST_QUERIES:,} are taken")
    return int(np.floor(count + 1e-9))
