"""efficiency: what the independence assumption costs plain AFA, exactly.

Variance of the flat-prior Kalman filter over that of plain AFA against the number of observations,
for several process-to-measurement noise ratios and decays: lines from the closed form, dots from
simulation.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from afafilter import LongRecordWarning, adaptive_filter, kalman_filter, simulate, spiral, theory
from afafilter.plotting import MARKERS, figure, line_style, paper_style
from simulations._common import save, wide

RATIOS = (0.003, 0.03, 0.3, 3.0)
DECAYS = (0.0, 0.1, 1.0)
SEED = 23


def main(out_dir: Path, *, full: bool = False, n_jobs: int = 1) -> list[Path]:
    """Write efficiency.{png,pdf,csv,tex,json} into `out_dir`."""
    n_paths = 2000 if full else 400
    t = 0.1 * np.arange(200 if full else 100)
    dots = np.unique(np.geomspace(2, len(t), 7).astype(int)) - 1
    rows = []
    with paper_style(), warnings.catch_warnings():
        warnings.simplefilter("ignore", LongRecordWarning)  # marked in the figure
        fig, axes = figure(len(DECAYS), 1, height=5.2, sharex=True)
        for ax, decay in zip(axes, DECAYS, strict=True):
            for index, ratio in enumerate(RATIOS):
                model = replace(spiral(decay, process_var=ratio, obs_var=1.0), prior="diffuse")
                exact = theory.efficiency(model, t)
                data = simulate(
                    model, t, n_paths, rng=np.random.default_rng(SEED), x0=np.array([20.0, 0.0])
                )
                square = [
                    ((f(model, t, data.z).mean - data.x) ** 2).mean(-1)[:, dots]
                    for f in (kalman_filter, adaptive_filter)
                ]
                sampled = square[0].mean(0) / square[1].mean(0)
                boot = np.random.default_rng(SEED).integers(n_paths, size=(400, n_paths))
                resampled = square[0][boot].mean(1) / square[1][boot].mean(1)
                low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
                name = rf"$\sigma^2/\eta^2={ratio:g}$"
                style = line_style(index, len(RATIOS))
                ax.plot(np.arange(1, len(t) + 1), exact, label=name, **style)
                ax.errorbar(
                    dots + 1,
                    sampled,
                    yerr=[sampled - low, high - sampled],
                    color=style["color"],
                    fmt=MARKERS[index],
                    ms=2.5,
                    lw=0.7,
                    mfc="white",
                )
                critical = round(theory.critical_length(model, t[1]))
                if critical <= len(t):
                    ax.plot(critical, exact[critical - 1], "|", ms=9, mew=1.2, color=style["color"])
                rows += [
                    {
                        "decay": decay,
                        "ratio": ratio,
                        "observations": k + 1,
                        "exact": exact[k],
                        "monte_carlo": s,
                        "lower": a,
                        "upper": b,
                    }
                    for k, s, a, b in zip(dots, sampled, low, high, strict=True)
                ]
            ax.set_title(rf"decay $\mu={decay:g}$", loc="left")
            ax.set_ylabel("efficiency")
            ax.set_ylim(0, 1.05)
            ax.set_xscale("log")
        axes[0].legend(loc="lower left")
        axes[-1].set_xlabel(r"observations seen ($\Delta t=0.1$)")
        return save(
            fig,
            out_dir,
            "efficiency",
            pd.DataFrame(rows),
            latex=wide(pd.DataFrame(rows), ["decay", "ratio"], "observations", "exact"),
            table_caption=(
                "Efficiency of plain AFA (closed form) by decay and noise ratio against the number "
                "of observations (columns)."
            ),
            caption=(
                "Efficiency of plain AFA: variance of the flat-prior Kalman filter over that of "
                f"AFA. Lines: closed form; markers: {n_paths} paths with 95\\,\\% bootstrap "
                "intervals; bars: critical length, from which what knows nothing outweighs the "
                "rest."
            ),
            finding=finding(pd.DataFrame(rows), n_paths),
            config={"seed": SEED, "n_paths": n_paths, "full": full},
        )


def finding(table: pd.DataFrame, n_paths: int) -> str:
    """What the experiment shows, in numbers of the run."""
    last = table[table["observations"] == table["observations"].max()]
    low, high = (last.loc[last["exact"].agg(f)] for f in ("idxmin", "idxmax"))
    inside = table["exact"].between(table["lower"], table["upper"]).mean()
    return (
        f"After {low['observations']:.0f} observations plain AFA keeps between {low['exact']:.0%} "
        f"(decay {low['decay']:g}, noise ratio {low['ratio']:g}) and {high['exact']:.0%} (decay "
        f"{high['decay']:g}, ratio {high['ratio']:g}) of the Kalman filter's efficiency: the loss "
        "grows with process noise and with the window, and decay, which forgets, limits it. Of "
        f"the {len(table)} Monte Carlo intervals ({n_paths} paths each, 95 %) {inside:.0%} hold "
        "the closed form."
    )
