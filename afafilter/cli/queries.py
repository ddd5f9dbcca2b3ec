"""Times that the options --query-times and --forecast ask for."""

from __future__ import annotations

import numpy as np

from afafilter._base.checks import Array, scalar
from afafilter.io.series import Series

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
    gaps = np.diff(np.unique(series.t))
    gap = float(np.median(gaps)) if gaps.size else forecast
    ahead = series.t[-1] + gap * np.arange(1, _steps(forecast / gap, "--forecast") + 1)
    if not ahead.size:
        raise ValueError(f"--forecast must reach one step ({gap:g}), got {forecast:g}")
    return np.asarray(ahead)


def _steps(count: float, option: str) -> int:
    """Whole steps in a range, refused before they fill the memory."""
    if not count < MOST_QUERIES:
        raise ValueError(f"{option} asks for {count:.3g} times; at most {MOST_QUERIES:,} are taken")
    return int(np.floor(count + 1e-9))
