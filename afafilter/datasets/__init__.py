"""Three public series, small and inside the package, and a model for each.

All are in the public domain, taken from statsmodels' copies; the head of each file in
`afafilter/datasets` names the original source. Time is in years.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from afafilter.io.model_toml import read_model
from afafilter.io.series import Series, read_series
from afafilter.models.sde import LinearSDE

DATA = Path(__file__).parent
COBB = "G. W. Cobb, Biometrika 65 (1978) 243-251"
NOAA = "NOAA National Geophysical Data Center"
KEELING = "C. D. Keeling and T. P. Whorf, CDIAC (2004)"


def load_nile() -> Series:
    """Annual flow of the Nile at Aswan, 1871-1970, in 1e8 m^3: t (100,), z (100, 1).

    The dam of Aswan (built 1899-1902) lowered the level. Cobb, Biometrika 65 (1978) 243-251.
    """
    return _named(read_series(DATA / "nile.csv"), "Nile flow", "1e8 m^3", COBB)


def load_sunspots() -> Series:
    """Yearly mean sunspot numbers, 1700-2008: t (309,), z (309, 1)."""
    return _named(read_series(DATA / "sunspots.csv"), "Sunspots", "number", NOAA)


def load_co2() -> Series:
    """Weekly CO2 at Mauna Loa, 1958-2001, in ppmv: t (2284,), z (2284, 1), 59 weeks missing (NaN).

    t counts Julian years (365.25 days) from 1958.0 = 1 January 1958; `dates` holds the dates.
    """
    weeks = read_series(DATA / "co2.csv", time_unit="Y")
    assert weeks.dates is not None
    start = (weeks.dates[0] - np.datetime64("1958-01-01")) / np.timedelta64(1, "D") / 365.25
    moved = replace(weeks, t=1958.0 + float(start) + weeks.t)
    return _named(moved, "CO2 at Mauna Loa", "ppmv", KEELING)


def _named(series: Series, name: str, units: str, source: str) -> Series:
    source += ", from statsmodels"
    return replace(series, name=name, units=units, licence="public domain", source=source)


def nile_model() -> LinearSDE:
    """Local level model of the Nile (Brownian motion plus noise, flat start).

    Variances 1469.1 (per year) and 15099: Durbin and Koopman, Time Series Analysis by State Space
    Methods, 2nd ed., sec. 2.10.3. It is `afafilter/datasets/nile.toml`.
    """
    return _model("nile.toml")


def sunspots_model() -> LinearSDE:
    """Damped oscillator around a constant mean; state: number, its rate (`datasets/sunspots.toml`).

    Parameters by maximum likelihood on the whole series.
    """
    return _model("sunspots.toml")


def co2_model() -> LinearSDE:
    """Trend, annual cycle with one overtone, and short-lived deviations (`datasets/co2.toml`).

    State (7): trend, slope, two rotating pairs, deviation. Parameters by maximum likelihood on the
    whole series.
    """
    return _model("co2.toml")


def _model(name: str) -> LinearSDE:
    model = read_model(DATA / name)
    assert isinstance(model, LinearSDE)
    return model
