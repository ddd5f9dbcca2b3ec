"""overview: the toolkit at a glance. A gap, outliers, a forecast; who errs least; what counts.

Top: irregular measurements of a position with a gap and outliers, smoothed robustly and forecast.
Bottom left: errors of causal estimators over many such series, without and with outliers.
Bottom right: what robust attention (AFA) makes of the same series: the share of each measurement
in each estimate. Outliers are columns that nobody listens to.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from afafilter import (
    LinearSDE,
    Outliers,
    StudentT,
    Trajectories,
    adaptive_filter,
    compare,
    constant_velocity,
    forecast,
    kalman_filter,
    mixture_filter,
    rts_smoother,
    sampling_times,
    simulate,
)
from afafilter.plotting import COLOURS, band, colour_of, figure, paper_style, weight_map
from simulations._common import save

SEED = 7
OUTLIERS = Outliers(0.08, scale=8.0)
START = np.array([0.0, 0.0])
ROBUST = StudentT(4.0)
ATTENTION = partial(adaptive_filter, weight=ROBUST, anchor="estimate", iterations=5)
ESTIMATORS = {
    "Kalman filter": kalman_filter,
    "mixture filter": partial(
        mixture_filter, outlier_rate=OUTLIERS.rate, outlier_scale=1 + OUTLIERS.scale**2
    ),
    "AFA": adaptive_filter,
    "AFA robust": ATTENTION,
    "AFA exact robust": partial(ATTENTION, correlation="exact"),
}


def main(out_dir: Path, *, full: bool = False, n_jobs: int = 1) -> list[Path]:
    """Write overview.{png,pdf,csv,tex,json,md} into `out_dir`."""
    model = constant_velocity(process_var=0.6, obs_var=0.6, prior="diffuse")
    n_paths = 400 if full else 10
    data, n = _series(model)
    table = _errors(model, n_paths, n_jobs)
    with paper_style():
        fig = figure(width="full", height=4.6)[0]
        fig.clear()
        grid = fig.add_gridspec(2, 2, height_ratios=[1.1, 1], width_ratios=[1, 1])
        _draw_series(fig.add_subplot(grid[0, :]), model, data, n)
        _draw_errors(fig.add_subplot(grid[1, 0]), table)
        _draw_weights(fig.add_subplot(grid[1, 1]), model, data, n)
        rmse = table.set_index(["outliers", "estimator"])["rmse"]
        return save(
            fig,
            out_dir,
            "overview",
            table,
            caption=(
                "Irregular measurements of a position with a gap and outliers, smoothed and "
                "forecast with 95 per cent bands; errors of causal estimators over "
                f"{n_paths} such series; and the weights of robust AFA."
            ),
            finding=(
                f"With {OUTLIERS.rate:.0%} outliers the Kalman filter errs by "
                f"{rmse['yes', 'Kalman filter']:.2f} (root mean squared error of the position), "
                f"the mixture filter, which is told their rate and size, by "
                f"{rmse['yes', 'mixture filter']:.2f}, and robust AFA with exact correlation, "
                f"which is not, by {rmse['yes', 'AFA exact robust']:.2f}. Without outliers it is "
                f"{rmse['no', 'Kalman filter']:.2f}, {rmse['no', 'mixture filter']:.2f} and "
                f"{rmse['no', 'AFA exact robust']:.2f}."
            ),
            config={"seed": SEED, "n_paths": n_paths, "outliers": repr(OUTLIERS), "full": full},
        )


def _series(model: LinearSDE) -> tuple[Trajectories, int]:
    """One path, seen at irregular times with a gap, and on beyond the n times that are measured."""
    rng = np.random.default_rng(SEED)
    t = sampling_times(170, 0.2, law="poisson", rng=rng)
    t = t[(t < 17) | (t > 22)]
    both = np.concatenate([t, t[-1] + np.linspace(0.1, 6, 60)])
    return simulate(model, both, 1, x0=START, outliers=OUTLIERS, rng=rng), len(t)


def _draw_series(ax: Axes, model: LinearSDE, data: Trajectories, n: int) -> None:
    t, z, struck = data.t[:n], data.z[0, :n], data.outliers[0, :n]
    grid = np.linspace(t[0], t[-1], 400)
    smooth = rts_smoother(model, t, z, query_times=grid, weight=ROBUST, anchor="estimate")
    ahead = forecast(model, t, z, horizon_times=data.t[n - 1 :], weight=ROBUST, anchor="estimate")
    ax.plot(t[~struck], z[~struck], ".", ms=3, color="0.5", label="measurements")
    ax.plot(t[struck], z[struck], "x", ms=4, mew=1, color=COLOURS["outlier"], label="outliers")
    ax.plot(data.t, data.x[0, :, 0], "k-", lw=0.7, label="truth")
    band(smooth, ax=ax, color=COLOURS["RTS"], label="robust smoother, 95 %")
    band(ahead, ax=ax, color=COLOURS["Kalman"], label="forecast, 95 %")
    ax.set(xlabel="time", ylabel="position", xlim=(t[0], data.t[-1]))
    ax.set_title("a gap, outliers, a forecast", loc="left")
    ax.legend(loc="upper left", ncols=2)


def _errors(model: LinearSDE, n_paths: int, n_jobs: int) -> pd.DataFrame:
    """Root mean squared errors of the position with 95 % intervals, without and with outliers."""
    frames = []
    for name, outliers in (("no", None), ("yes", OUTLIERS)):
        found = compare(
            ESTIMATORS, model, 0.2 * np.arange(60), n_paths, rng=SEED, x0=START,
            outliers=outliers, steps=slice(10, None), n_jobs=n_jobs, progress=False,
        )  # fmt: skip
        rmse = found.scores.query("metric == 'rmse' and component == 'x0'")
        rmse = rmse.rename(columns={"value": "rmse"})[["estimator", "rmse", "low", "high"]]
        frames.append(rmse.assign(outliers=name))
    return pd.concat(frames, ignore_index=True)


def _draw_errors(ax: Axes, table: pd.DataFrame) -> None:
    rows = np.arange(len(ESTIMATORS))[::-1]
    for struck, mark, shift in (("no", "o", 0.14), ("yes", "s", -0.14)):
        found = table[table["outliers"] == struck].set_index("estimator")
        for row, name in zip(rows + shift, ESTIMATORS, strict=True):
            value, low, high = found.loc[name, ["rmse", "low", "high"]]
            colour = colour_of(name)
            look = {"fmt": mark, "color": colour, "mfc": colour if struck == "no" else "white"}
            ax.errorbar(value, row, xerr=[[value - low], [high - value]], ms=3.5, lw=0.8, **look)
        label = "without outliers" if struck == "no" else f"{100 * OUTLIERS.rate:g} % outliers"
        face = "0.2" if struck == "no" else "white"
        ax.plot([], [], mark, ms=3.5, color="0.2", mfc=face, label=label)
    ax.set_yticks(rows, list(ESTIMATORS))
    ax.set(xlabel="error of the position (RMSE)", xlim=(0, None), ylim=(-0.6, len(rows) - 0.4))
    ax.set_title("who errs least", loc="left")
    ax.legend(loc="lower right")


def _draw_weights(ax: Axes, model: LinearSDE, data: Trajectories, n: int) -> None:
    """The share of each measurement (columns) in each estimate (rows), the last 40 of them."""
    t, z, struck = data.t[:n], data.z[0, :n], data.outliers[0, :n]
    weights = ATTENTION(model, t, z, return_weights=True).weights[-40:, -40:]
    weight_map(weights, vmax=0.2, ax=ax, label="share of the estimate")
    marked = np.flatnonzero(struck[-40:])
    ax.plot(marked, np.full(len(marked), -1.6), "v", ms=3, color=COLOURS["outlier"], clip_on=False)
    ax.set(xlabel="measurement (triangles: outliers)", ylabel="estimate")
    ax.set_title("what attention listens to", loc="left")
