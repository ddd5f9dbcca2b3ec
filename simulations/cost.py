"""cost: run time against the number of observations, with the accuracy that it buys beside it.

Median wall time of one path on this machine, for the tensor form, the attention form, linear-time
AFA, the Kalman filter and the RTS smoother; and each one's root mean squared error.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from afafilter import StudentT, adaptive_filter, kalman_filter, rts_smoother, simulate
from afafilter.plotting import curves, figure, paper_style
from simulations import _setups
from simulations._common import save

SEED, PROCESS_VAR, REPEATS = 97, 0.05, 5
ESTIMATORS = {
    "Kalman": (kalman_filter, 10**5),
    "RTS": (rts_smoother, 10**5),
    "AFA, linear time": (partial(adaptive_filter, method="linear"), 10**5),
    "AFA, attention": (partial(adaptive_filter, method="isotropic"), 10**4),
    "AFA robust, attention": (
        partial(adaptive_filter, weight=StudentT(4.0), anchor="prediction"), 10**4
    ),
    "AFA, full matrices": (partial(adaptive_filter, method="dense"), 10**3),
}  # fmt: skip


def main(out_dir: Path, *, full: bool = False, n_jobs: int = 1) -> list[Path]:
    """Write cost.{png,pdf,csv,tex,json} into `out_dir`."""
    sizes = [100, 300, 1000, 3000, 10_000, 30_000, 100_000][: 7 if full else 4]
    model = _setups.paper_spiral(PROCESS_VAR)
    rows = []
    with threadpool_limits(1):
        for n in sizes:
            gaps = np.random.default_rng(SEED).exponential(0.1, n)
            t = np.cumsum(gaps)
            data = simulate(model, t, 1, rng=np.random.default_rng(SEED), x0=np.array([20.0, 0.0]))
            for name, (estimator, largest) in ESTIMATORS.items():
                if n > largest:
                    continue
                seconds = []
                for _ in range(REPEATS + 1):
                    start = time.perf_counter()
                    estimate = estimator(model, t, data.z[0])
                    seconds.append(time.perf_counter() - start)
                error = (estimate.mean - data.x[0])[20:]
                rows.append(
                    {
                        "estimator": name, "n": n, "seconds": np.median(seconds[1:]),
                        "rmse": np.sqrt(np.mean(error**2)),
                    }
                )  # fmt: skip
    table = pd.DataFrame(rows)
    with paper_style():
        fig, axes = figure(2, 1, height=4.4, sharex=True)
        for ax, metric in zip(axes, ("seconds", "rmse"), strict=True):
            for index, (name, part) in enumerate(table.groupby("estimator", sort=False)):
                one = {name: part[metric].to_numpy()}
                line = curves(part["n"].to_numpy(), one, markers=True, ax=ax).lines[-1]
                line.set(color=f"C{index}", marker="osD^vP"[index], label=name)
            ax.set_xscale("log")
            ax.set_yscale("log")
        axes[0].set_ylabel("seconds, one path")
        axes[1].set_ylabel("RMSE per component")
        axes[1].set_xlabel("observations (irregular times)")
        axes[0].legend(ncols=2, fontsize=5.5, loc="upper left")
        axes[0].set_ylim(top=axes[0].get_ylim()[1] * 30)
        return save(
            fig, out_dir, "cost", table,
            caption=(
                f"Median wall time of {REPEATS} warm runs on one path, one thread, and RMSE on "
                f"the same data; spiral, $\\sigma^2={PROCESS_VAR:g}$, $\\eta^2=1$, irregular times."
            ),
            finding=finding(table),
            config={"seed": SEED, "sizes": sizes, "repeats": REPEATS, "full": full},
        )  # fmt: skip


def finding(table: pd.DataFrame) -> str:
    """What the experiment shows, in numbers of the run."""
    parts = []
    for name, part in table.groupby("estimator", sort=False):
        tail = part.tail(3)
        slope = np.polyfit(np.log(tail["n"]), np.log(tail["seconds"]), 1)[0]
        parts.append(f"{name} {part['seconds'].iloc[-1]:.2g} s at n = {part['n'].iloc[-1]} "
                     f"(slope {slope:.1f})")  # fmt: skip
    return (
        "Wall times on one thread, with the slope of the last three sizes in log-log scale: "
        + "; ".join(parts)
        + ". All forms of plain AFA give the same estimates; none is as accurate as the Kalman "
        "filter under process noise, whatever it costs."
    )
