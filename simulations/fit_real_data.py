"""fit_real_data: models learned from Nile flow, sunspots and Mauna Loa carbon dioxide.

Every model is fitted from starting values guessed from the data. The first of each series is
drawn and has its profile intervals; the others are there for the choice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from afafilter import Estimate, FitResult, LinearSDE, datasets, fit, likelihood_ratio, rts_smoother
from afafilter import families as f
from afafilter.io import Series
from afafilter.plotting import COLOURS, band, figure, observations, paper_style
from simulations._common import save

CYCLES = f.seasonal(1.0) + f.seasonal(0.5)
SHORT = f.ornstein_uhlenbeck() + f.noise()
TREND = f.constant_velocity() + CYCLES + SHORT
SERIES = {
    "Nile": (
        datasets.load_nile,
        {
            "local level": f.brownian() + f.noise(),
            "constant level": f.brownian().fix(process_var=0.0) + f.noise(),
        },
    ),
    "sunspots": (
        datasets.load_sunspots,
        {
            "damped oscillator": f.oscillator() + f.constant() + f.noise(),
            "stochastic cycle": f.cycle() + f.constant() + f.noise(),
        },
    ),
    "CO2": (
        datasets.load_co2,
        {
            "trend": TREND,
            "trend, tied cycles": TREND.tie("seasonal.process_var", "seasonal2.process_var"),
            "trend, moving level": f.local_linear_trend() + CYCLES + SHORT,
        },
    ),
}
NILE = {"obs_var": 15099.0, "process_var": 1469.1}
"""Durbin and Koopman, Time Series Analysis by State Space Methods, 2nd ed. (2012), sec. 2.10.3."""
GAPS = (1958.0, 1965.0)
"""Where most of the missing weeks are."""


def main(out_dir: Path, *, full: bool = False, n_jobs: int = 1) -> list[Path]:
    """Write fit_real_data.{png,pdf,csv,tex,json,md} into `out_dir`."""
    rows, fits = [], {}
    with paper_style():
        fig, axes = figure(4, 1, height=6.6)
        for ax, (name, (load, candidates)) in zip(axes, SERIES.items()):
            series = load()
            for label, family in candidates.items():
                fits[label] = result = fit(family, series.t, series.z)
                chosen = label == next(iter(candidates))
                rows += parameter_rows(name, label, result, profile=chosen)
                if chosen:
                    draw(ax, series, smoothed_signal(result.model, series), f"{name}: {label}")
        axes[0].set_ylabel("flow ($10^8$ m$^3$)")
        axes[2].set_xlim(GAPS)
        axes[2].set_ylim(311, 325)
        axes[2].set_title("CO$_2$: the years with most missing weeks", loc="left")
        co2, model = datasets.load_co2(), fits["trend"].model
        assert isinstance(model, LinearSDE)
        band(rts_smoother(model, co2.t, co2.z), 1, ax=axes[3], color=COLOURS["RTS"], lw=0.8)
        axes[3].set_title("CO$_2$: slope of the trend", loc="left")
        axes[3].set_ylabel("ppmv per year")
        axes[0].legend(loc="upper right", ncols=2)
        axes[-1].set_xlabel("year")
        check_nile(fits["local level"])
        table = pd.DataFrame(rows)
        shown = table[table["profile_lower"].notna()].drop(columns=["loglik", "aic", "bic"])
        return save(
            fig,
            out_dir,
            "fit_real_data",
            table,
            caption=(
                "Models fitted by maximum likelihood: measurements and the smoothed signal with "
                "its 95\\,\\% band, last the smoothed slope. Standard errors "
                "from the observed information, Wald and profile intervals of 95\\,\\%. "
                "Time in years."
            ),
            finding=finding(fits),
            latex=shown,
            config={"models": list(fits), "full": full},
        )


def smoothed_signal(model: object, series: Series) -> Estimate:
    """What the model thinks was there to be measured, without measurement noise."""
    assert isinstance(model, LinearSDE)
    state = rts_smoother(model, series.t, series.z)
    mean = state.mean @ model.C.T + model.offset
    return Estimate(state.t, mean, model.C @ state.cov @ model.C.T, label="smoothed signal")


def draw(ax: Any, series: Series, signal: Estimate, title: str) -> None:
    """Measurements under the signal."""
    observations(series.t, series.z, ax=ax, label="measured")
    band(signal, 0, ax=ax, color=COLOURS["RTS"], lw=0.8)
    ax.set_title(title, loc="left")
    ax.set_ylabel(series.units)


def parameter_rows(
    series: str, label: str, result: FitResult, *, profile: bool
) -> list[dict[Any, Any]]:
    """One row per parameter, the fit's criteria in each."""
    rows = []
    for name, row in result.to_pandas().iterrows():
        ends = result.profile(str(name)) if profile else (np.nan, np.nan)
        rows.append(
            {
                "series": series,
                "model": label,
                "parameter": name,
                **row.to_dict(),
                "profile_lower": ends[0],
                "profile_upper": ends[1],
                "loglik": result.loglik,
                "aic": result.aic,
                "bic": result.bic,
            }
        )
    return rows


def check_nile(result: FitResult) -> None:
    """The fit must reach the published optimum."""
    for name, known in NILE.items():
        found = result.params[name]
        if abs(found / known - 1) > 1e-3:
            raise RuntimeError(f"Nile: {name} = {found:.6g}, published {known:g}")


def finding(fits: dict[str, FitResult]) -> str:
    """What the experiment shows, in numbers of the run."""
    level, still = fits["local level"], fits["constant level"]
    sun, cycle = fits["damped oscillator"], fits["stochastic cycle"]
    trend, moving = fits["trend"], fits["trend, moving level"]
    tied = likelihood_ratio(fits["trend, tied cycles"], trend)
    p, s = level.params, sun.params
    return (
        f"Nile: the fit finds measurement variance {p['obs_var']:.5g} and level variance "
        f"{p['process_var']:.5g} (published: {NILE['obs_var']:.5g} and {NILE['process_var']:.5g}), "
        f"log-likelihood {level.loglik:.4f}; a level that stays costs "
        f"{level.loglik - still.loglik:.1f} of it. Sunspots: a damped oscillator of period "
        f"{2 * np.pi / s['frequency']:.1f} years that forgets in {1 / s['decay']:.1f} years is "
        f"better than a stochastic cycle by {cycle.aic - sun.aic:.0f} in AIC. CO2: annual and "
        "semi-annual cycle change at different rates (likelihood ratio against a common one: p = "
        f"{tied.p_value:.2g}), and a level that moves by itself, not only through its slope, "
        f"improves AIC by {trend.aic - moving.aic:.0f}, at the price of a measurement variance of "
        f"{moving.params['obs_var']:.2g}."
    )
