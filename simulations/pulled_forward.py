"""pulled_forward: estimates of five target times from every observation, with their ellipses.

Each observation is carried to the target time by the matrix exponential; its 68 % ellipse is the
covariance from the closed-form differential Lyapunov equation. Left from the past, right from the
future.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgba

from afafilter import pull_forward, simulate
from afafilter.plotting import MARKERS, ellipses, figure, paper_style, shades
from simulations import _setups
from simulations._common import save

SEED = 5
TARGETS = (16, 26, 37, 49, 61)
REACH = 16
LIMIT = 11.0


def main(out_dir: Path, *, full: bool = False, n_jobs: int = 1) -> list[Path]:
    """Write pulled_forward.{png,pdf,csv,tex,json} into `out_dir`."""
    model = _setups.paper_spiral(0.3, 0.5)
    t = 0.1 * np.arange(TARGETS[-1] + REACH + 1)
    data = simulate(model, t, 1, rng=np.random.default_rng(SEED), x0=np.array([9.0, 0.0]))
    x, z = data.x[0], data.z[0]
    rows = []
    fade = np.linspace(1.0, 0.25, REACH)
    with paper_style():
        fig, axes = figure(1, 2, height=2.1, sharex=True, sharey=True)
        for ax, side in zip(axes, ("past", "future"), strict=True):
            ax.plot(*x.T, "k-", lw=0.6)
            for index, target in enumerate(TARGETS):
                first = target - REACH if side == "past" else target + 1
                picked = slice(first, first + REACH)
                means, covs = pull_forward(model, t[picked], z[picked], t[target])
                nearest = np.argsort(np.abs(t[picked] - t[target]))
                colours = [
                    to_rgba(shades(len(TARGETS))[index], a) for a in fade[np.argsort(nearest)]
                ]
                ax.scatter(*means.T, s=1.5, c=colours, lw=0)
                ellipses(means, covs, ax=ax, edgecolor=colours)
                ax.plot(*x[target], MARKERS[index], ms=4, mfc="white", mec="k", mew=0.8, zorder=5)
                for lag, mean, cov in zip(t[target] - t[picked], means, covs, strict=True):
                    error = mean - x[target]
                    rows.append(
                        {
                            "side": side,
                            "target": target,
                            "lag": lag,
                            "error": np.linalg.norm(error),
                            "sd": np.sqrt(np.trace(cov) / 2),
                            "squared distance": error @ np.linalg.solve(cov, error),
                        }
                    )
            ax.set_title(f"from the {side}")
            ax.set_xlabel("$x_1$")
            ax.set_aspect("equal")
            ax.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT))
        axes[0].set_ylabel("$x_2$")
        table = pd.DataFrame(rows)
        inside = (table["squared distance"] < -2 * np.log(0.32)).groupby(table["side"]).mean()
        return save(
            fig,
            out_dir,
            "pulled_forward",
            table,
            finding=(
                f"Of the 68 % ellipses {inside['past']:.0%} (from the past) and "
                f"{inside['future']:.0%} (from the future) hold the true state on this one path, "
                "where neighbours share their process noise; their size grows with the lag, faster "
                "from the future, as decay magnifies what is pulled backward."
            ),
            latex=table.groupby(["side", "target"], sort=False)[["sd", "squared distance"]]
            .mean()
            .reset_index(),
            table_caption=(
                "Observations pulled to a target: their mean claimed standard deviation and mean "
                r"squared Mahalanobis distance to the true state, 2 where the claim is right."
            ),
            caption=(
                f"Five target states (open markers) and what {REACH} observations before (left) or "
                "after (right) say of each once pulled to its time, with 68\\,\\% ellipses; the "
                "fainter, the farther in time. "
                r"Spiral, $\sigma^2=0.3$, $\eta^2=0.5$, $\Delta t=0.1$."
            ),
            config={"seed": SEED, "targets": TARGETS, "reach": REACH},
        )
