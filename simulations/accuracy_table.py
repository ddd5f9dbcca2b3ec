"""accuracy_table: accuracy and calibration of everybody, process noise x outlier rate.

Raw observations, AFA plain and robust with each anchor, Kalman, RTS and filterpy on common random
numbers; RMSE with intervals, NEES and coverage.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from afafilter import compare
from afafilter.plotting import colour_of, decimal_ticks, figure, paper_style
from simulations import _setups
from simulations._common import save

PROCESS = (0.0, 0.05, 0.3)
RATES = (0.0, 0.1)
SHOWN = (
    "raw", "AFA", "AFA observation", "AFA prediction", "AFA estimate", "Kalman", "RTS", "filterpy",
)  # fmt: skip
SEED = 11


def main(out_dir: Path, *, full: bool = False, n_jobs: int = 1) -> list[Path]:
    """Write accuracy_table.{png,pdf,csv,tex,json} into `out_dir`."""
    n_paths = 400 if full else 25
    everybody = _setups.estimators()
    chosen = {name: everybody[name] for name in SHOWN}
    frames = []
    with paper_style():
        fig, axes = figure(len(PROCESS), 1, height=5.2, sharex=True)
        for ax, process_var in zip(axes, PROCESS, strict=True):
            for rate in RATES:
                result = compare(
                    chosen,
                    _setups.paper_spiral(process_var),
                    _setups.TIMES,
                    n_paths,
                    rng=np.random.default_rng(SEED),
                    n_jobs=n_jobs,
                    x0=_setups.ring_start,
                    outliers=_setups.OUTLIERS(rate=rate) if rate else None,
                    steps=_setups.SCORED,
                )
                frame = result.summary()
                frame.insert(0, "outlier_rate", rate)
                frame.insert(0, "process_var", process_var)
                frames.append(frame)
                shown = result.intervals("rmse").set_index("estimator").loc[list(SHOWN)]
                draw(ax, shown, struck=rate > 0)
            ax.set_title(rf"$\sigma^2={process_var:g}$", loc="left")
            ax.set_xscale("log")
            decimal_ticks(ax, "x")
        for ax in axes[:-1]:
            ax.tick_params(labelbottom=False)
        axes[-1].set_xlabel(r"RMSE per component ($\eta=1$)")
        for rate in RATES:
            look = {"mfc": "white" if rate else "0.2", "color": "0.2", "ms": 3.5}
            axes[0].plot([], [], "s" if rate else "o", label=f"{100 * rate:g} % outliers", **look)
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
        return save(
            fig,
            out_dir,
            "accuracy_table",
            pd.concat(frames, ignore_index=True),
            caption=(
                f"RMSE per component with 95\\,\\% Student intervals over {n_paths} paths, steps "
                "20 to 127; spiral, $\\eta^2=1$, from radius $20\\pm3$; outliers add noise of "
                "10 $\\eta$. RTS sees the future too."
            ),
            table_caption=(
                "RMSE per component with 95\\,\\% Student intervals, in parentheses the coverage "
                "of nominal 95\\,\\% intervals in per cent, by outlier rate."
            ),
            latex=short(pd.concat(frames, ignore_index=True)),
            finding=finding(pd.concat(frames, ignore_index=True)),
            config={"seed": SEED, "n_paths": n_paths, "full": full},
        )


def draw(ax: Axes, shown: pd.DataFrame, *, struck: bool) -> None:
    """A mark with its interval for each estimator: squares and open where outliers struck."""
    rows = np.arange(len(SHOWN))[::-1]
    for row, name in zip(rows, SHOWN, strict=True):
        value, lower, upper = shown.loc[name, ["value", "lower", "upper"]]
        colour = colour_of(name)
        ax.errorbar(
            value,
            row + (-0.16 if struck else 0.16),
            xerr=[[value - lower], [upper - value]],
            fmt="s" if struck else "o",
            color=colour,
            mfc="white" if struck else colour,
            ms=3.2,
            lw=0.8,
        )
    ax.set_yticks(rows, SHOWN)
    ax.set_ylim(-0.6, len(rows) - 0.4)


def short(table: pd.DataFrame) -> pd.DataFrame:
    """RMSE with its interval and coverage, process noise in columns: the table of a paper."""
    text = table.assign(
        told=[
            f"{r.rmse:.3f} [{r.rmse_low:.3f}, {r.rmse_high:.3f}] ({100 * r.coverage95:.0f})"
            for r in table.itertuples()
        ],
        noise=[rf"$\sigma^2={q:g}$" for q in table["process_var"]],
    )
    wide = text.pivot(index=["outlier_rate", "estimator"], columns="noise", values="told")
    return wide.loc[[(rate, name) for rate in RATES for name in SHOWN]].reset_index()


def finding(table: pd.DataFrame) -> str:
    """What the experiment shows, in numbers of the run."""
    at = table.set_index(["process_var", "outlier_rate", "estimator"])["rmse"]
    return (
        "Without process noise and outliers AFA is the Kalman filter "
        f"({at[(0.0, 0.0, 'AFA')]:.3f}); with process noise 0.3 its error is "
        f"{at[(0.3, 0.0, 'AFA')] / at[(0.3, 0.0, 'Kalman')]:.1f} times the filter's. With 10 % "
        "outliers and no process noise the anchor decides: "
        f"{at[(0.0, 0.1, 'AFA observation')]:.2f} with the observation, "
        f"{at[(0.0, 0.1, 'AFA estimate')]:.3f} with the estimate, "
        f"{at[(0.0, 0.1, 'Kalman')]:.3f} for the Kalman filter."
    )
